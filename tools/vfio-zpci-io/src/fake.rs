// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stand-in for the kernel, so that the unit tests need no device.

use crate::{
    abi::{self, Request},
    DeviceFile,
};
use rustix::io::Errno;
use std::{
    cell::{Cell, RefCell},
    io,
    mem::offset_of,
};
use vfio_bindings::bindings::vfio::{
    vfio_device_info,
    vfio_region_info,
    VFIO_REGION_INFO_FLAG_CAPS, //
};

#[derive(Debug, Default)]
pub(crate) struct FakeRegion {
    pub size: u64,
    pub position: u64,
    pub kind: Option<(u32, u32)>,
    /// The errno of GET_REGION_INFO.
    pub fails: Option<Errno>,
}

/// A function like the default one of the test machine, with the region at index 9.
#[derive(Debug)]
pub(crate) struct Fake {
    pub regions: Vec<FakeRegion>,
    pub header: [u8; 16],
    pub config: RefCell<[u8; 4096]>,
    /// Every GET_INFO asks for this many bytes more than it got.
    pub argsz_grows: u32,
    /// The sizes of the structures of GET_INFO.
    pub asked: RefCell<Vec<usize>>,
    /// The errno of every request, and of the reset.
    pub fail: Cell<Option<Errno>>,
    /// The last byte of what is read or written is missing.
    pub short: bool,
    /// The last SET_IRQS.
    pub irqs: RefCell<Vec<u8>>,
    /// The requests since [`Fake::taken`], with what they stored.
    pub requests: RefCell<Vec<(Request, Vec<u8>)>>,
}

impl Default for Fake {
    fn default() -> Self {
        let mut regions: Vec<_> = (0..10)
            .map(|index| FakeRegion {
                size: 0x1000,
                // Not the arithmetic of vfio-pci, which clients must not repeat.
                position: (index + 3) << 48,
                ..FakeRegion::default()
            })
            .collect();
        regions[8].fails = Some(Errno::INVAL);
        regions[9].size = abi::REGION_SIZE;
        regions[9].kind = Some((abi::REGION_TYPE, abi::REGION_SUBTYPE));
        let mut header = [0; 16];
        header[9] = 128;
        let mut config = [0; 4096];
        config[5] = 0x04;
        config[4] = 0x04;
        Self {
            regions,
            header,
            config: RefCell::new(config),
            argsz_grows: 0,
            asked: RefCell::default(),
            fail: Cell::new(None),
            short: false,
            irqs: RefCell::default(),
            requests: RefCell::default(),
        }
    }
}

impl Fake {
    /// The requests since the last time, with what they stored.
    pub fn taken(&self) -> Vec<(Request, Vec<u8>)> {
        self.requests.take()
    }

    /// How many of the bytes are said to be read or written.
    fn done(&self, bytes: &[u8]) -> usize {
        bytes.len() - usize::from(self.short)
    }

    fn execute(&self, bytes: &[u8]) -> io::Result<usize> {
        let word = |at: usize| u64::from_be_bytes(*bytes[at..].first_chunk().unwrap());
        let request = Request {
            flags: word(0),
            gaddr: word(8),
            offset: word(16),
            reserved: (word(24) >> 32) as u32,
            len: (word(24) >> 16) as u16,
            pcias: (word(24) >> 8) as u8,
            reserved2: word(24) as u8,
        };
        let address = request.gaddr as usize;
        let mut stored = Vec::new();
        if let Some(errno) = self.fail.get() {
            self.requests.borrow_mut().push((request, stored));
            return Err(errno.into());
        }
        if request.flags == abi::READ {
            let value = 0x1122_3344_5566_7788u64.to_be_bytes();
            // SAFETY: The sender of a load promises 8 bytes which the kernel may write.
            unsafe {
                std::ptr::with_exposed_provenance_mut::<[u8; 8]>(address).write_unaligned(value)
            };
        } else {
            let len = match request.flags {
                abi::BLOCKW => usize::from(request.len),
                _ => 8,
            };
            let memory = std::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: The tests send memory that can be read.
            stored = unsafe { std::slice::from_raw_parts(memory, len) }.to_vec();
        }
        self.requests.borrow_mut().push((request, stored));
        Ok(self.done(bytes))
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl DeviceFile for Fake {
    fn device_info(&self, info: &mut [u8]) -> io::Result<()> {
        self.asked.borrow_mut().push(info.len());
        let regions = self.regions.len() as u32;
        put(
            info,
            offset_of!(vfio_device_info, num_regions),
            &regions.to_ne_bytes(),
        );
        let argsz = info.len() as u32 + self.argsz_grows;
        put(info, 0, &argsz.to_ne_bytes());
        Ok(())
    }

    fn region_info(&self, info: &mut [u8]) -> io::Result<()> {
        let index = info[offset_of!(vfio_region_info, index)..].first_chunk();
        let index = u32::from_ne_bytes(*index.unwrap()) as usize;
        let region = self.regions.get(index).ok_or(Errno::INVAL)?;
        if let Some(errno) = region.fails {
            return Err(errno.into());
        }
        let fixed = size_of::<vfio_region_info>();
        put(
            info,
            offset_of!(vfio_region_info, size),
            &region.size.to_ne_bytes(),
        );
        put(
            info,
            offset_of!(vfio_region_info, offset),
            &region.position.to_ne_bytes(),
        );
        if let Some((kind, subtype)) = region.kind {
            put(
                info,
                offset_of!(vfio_region_info, flags),
                &VFIO_REGION_INFO_FLAG_CAPS.to_ne_bytes(),
            );
            put(info, 0, &(fixed as u32 + 16).to_ne_bytes());
            // As the kernel does: no room, no capabilities.
            if info.len() >= fixed + 16 {
                let cap_offset = offset_of!(vfio_region_info, cap_offset);
                put(info, cap_offset, &(fixed as u32).to_ne_bytes());
                put(info, fixed, &2u16.to_ne_bytes());
                put(info, fixed + 2, &1u16.to_ne_bytes());
                put(info, fixed + 8, &kind.to_ne_bytes());
                put(info, fixed + 12, &subtype.to_ne_bytes());
            }
        }
        Ok(())
    }

    fn set_irqs(&self, set: &mut [u8]) -> io::Result<()> {
        self.irqs.replace(set.to_vec());
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        match self.fail.get() {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let config = self.config.borrow();
        let (source, start): (&[u8], u64) = if position >= self.regions[9].position {
            (&self.header, self.regions[9].position)
        } else {
            (&*config, self.regions[7].position)
        };
        let at = (position - start) as usize;
        buffer.copy_from_slice(&source[at..at + buffer.len()]);
        Ok(self.done(buffer))
    }

    fn write_at(&self, data: &[u8], position: u64) -> io::Result<usize> {
        if position == self.regions[9].position + abi::REQUEST_POSITION {
            return self.execute(data);
        }
        let at = (position - self.regions[7].position) as usize;
        put(&mut *self.config.borrow_mut(), at, data);
        Ok(self.done(data))
    }
}
