// SPDX-License-Identifier: GPL-2.0

//! A PCI function that is open, and the ways to its BARs.

use rustix::io::{pread, pwrite, Errno};
use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use vfio_zpci_io::{
    abi::{self, Request},
    sysfs, Access, Device, DmaPage,
};

/// An NVMe controller, whose BAR 2 is memory. It takes blocks of up to 128 bytes.
pub(crate) const NVME: u32 = 0x10;

/// An ISM function, which takes blocks of up to a page.
pub(crate) const ISM: u32 = 0x20;

/// The BAR of both that takes short blocks, and where: on ISM, behind what starts a command.
pub(crate) const BAR: u8 = 2;
pub(crate) const TARGET: u64 = 0x80;

/// The BAR of ISM that takes long blocks.
pub(crate) const MOVES: u8 = 0;

/// Data as it comes from a user who knows the rules: aligned, and in one page.
#[repr(align(4096))]
struct Page([u8; abi::PAGE_SIZE]);

pub(crate) struct Function {
    pub device: Device,
    /// Positions of the BARs in the device's file.
    bars: [u64; 3],
    page: Box<Page>,
}

impl Function {
    pub fn open(fid: u32, driver: &str) -> Result<Self, Box<dyn Error>> {
        let function = sysfs::zpci_function(fid)?;
        let function = function.ok_or_else(|| format!("there is no function {fid:#x}"))?;
        function.bind(driver)?;
        let device = Device::open(&function.address(), Access::Iommufd)?;
        device.enable_memory(true)?;
        device.enable_dma(true)?;
        let mut bars = [0; 3];
        for (bar, position) in (0..).zip(&mut bars) {
            *position = device.region(bar)?.offset;
        }
        Ok(Self {
            device,
            bars,
            page: Box::new(Page([0x5a; abi::PAGE_SIZE])),
        })
    }

    /// Where the region with this subtype, if there is one, takes requests.
    pub fn requests(&self, subtype: u32) -> Result<Option<u64>, vfio_zpci_io::Error> {
        let regions = self.device.regions()?;
        let mut regions = regions.iter();
        let region = regions.find(|one| one.region_type() == Some((abi::REGION_TYPE, subtype)));
        Ok(region.map(|region| region.offset + abi::REQUEST_POSITION))
    }

    /// Fills the place where data goes with something else.
    pub fn clear(&self, len: usize) -> Result<(), Errno> {
        pwrite(&self.device, &[0; 128][..len], self.position(BAR, TARGET)).map(|_| ())
    }

    /// Whether the data is there, by way of the BAR.
    pub fn has_arrived(&self, len: usize) -> Result<(), Box<dyn Error>> {
        let mut data = [0; 128];
        pread(&self.device, &mut data[..len], self.position(BAR, TARGET))?;
        match data[..len] == self.page.0[..len] {
            true => Ok(()),
            false => Err(format!("of {len} bytes not all have arrived").into()),
        }
    }

    fn position(&self, bar: u8, offset: u64) -> u64 {
        self.bars[usize::from(bar)] + offset
    }

    /// The address of the data that is stored.
    pub fn data(&self) -> u64 {
        self.page.0.as_ptr().expose_provenance() as u64
    }

    /// Stores data by the region of a BAR.
    pub fn store(&self, bar: u8, offset: u64, len: usize) -> Result<usize, Errno> {
        pwrite(
            &self.device,
            &self.page.0[..len],
            self.position(bar, offset),
        )
    }

    /// Loads data by the region of a BAR.
    pub fn load(&self, bar: u8, offset: u64, len: usize) -> Result<usize, Errno> {
        let mut data = [0; 128];
        pread(&self.device, &mut data[..len], self.position(bar, offset))
    }

    /// Where in [`MOVES`] an ISM function takes long blocks: in a buffer of its own, which this
    /// registers, by requests if there is a region for them.
    pub fn register_buffer(&self, requests: Option<u64>) -> Result<u64, Box<dyn Error>> {
        const REG_SBA: u64 = 1;
        const READ_GID: u64 = 3;
        const REG_DMB: u64 = 10;
        /// Where the addresses start that the emulated function can reach.
        const FIRST: u64 = 1 << 32;
        const PAGE: u64 = abi::PAGE_SIZE as u64;
        const INDEX: u64 = 32;

        self.device.map_dma(FIRST, DmaPage::zeroed(2))?;
        let command = |code, words: &[u64]| {
            let header = code << 32 | (8 + 8 * words.len() as u64);
            for (at, word) in words.iter().enumerate() {
                self.store_word(requests, 8 + 8 * at as u64, *word)?;
            }
            self.store_word(requests, 0, header)?;
            match self.load_word(requests, 0)? >> 16 & 0xffff {
                0 => self.load_word(requests, 8),
                _ => Err(Errno::IO),
            }
        };
        let gid = command(READ_GID, &[])?;
        command(REG_SBA, &[FIRST])?;
        let token = command(REG_DMB, &[FIRST + PAGE, PAGE << 32 | INDEX, 0, gid])?;
        Ok(token)
    }

    fn store_word(&self, requests: Option<u64>, at: u64, word: u64) -> Result<(), Errno> {
        let bytes = word.to_be_bytes();
        match requests {
            Some(position) => {
                let data = AtomicU64::new(u64::from_ne_bytes(bytes));
                let address = data.as_ptr().expose_provenance() as u64;
                let request = Request::block(BAR, at, address, 8);
                pwrite(&self.device, &request.to_bytes(), position)?;
            }
            None => {
                pwrite(&self.device, &bytes, self.position(BAR, at))?;
            }
        }
        Ok(())
    }

    fn load_word(&self, requests: Option<u64>, at: u64) -> Result<u64, Errno> {
        match requests {
            Some(position) => {
                let value = AtomicU64::new(0);
                let address = value.as_ptr().expose_provenance() as u64;
                let request = Request::load(BAR, at, address, 8);
                pwrite(&self.device, &request.to_bytes(), position)?;
                Ok(u64::from_be(value.load(Relaxed)))
            }
            None => {
                let mut bytes = [0; 8];
                pread(&self.device, &mut bytes, self.position(BAR, at))?;
                Ok(u64::from_be_bytes(bytes))
            }
        }
    }
}
