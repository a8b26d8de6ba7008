// SPDX-License-Identifier: GPL-2.0

//! What every test has at hand: the open function, its region, requests that are good, and a
//! witness that a refused request changed nothing.

use booted::Mapping;
use ktap::{note, Outcome};
use request::model::Window;
use rustix::io::{pread, pwrite, Errno};
use vfio_zpci_io::{
    abi::{self, Header, Request},
    Device, Error,
};

/// The BAR that behaves like memory.
pub(crate) const BAR: u8 = 2;
/// The part of it which the witness watches, and where in it good requests go.
const WINDOW: u64 = 0x2000;
const WINDOW_LEN: usize = 0x200;
pub(crate) const TARGET: u64 = WINDOW + 0x80;
/// What the window and the page of loaded values are filled with: reversed words look the same.
const MARK: u8 = 0xc3;

/// PCI address space of configuration space.
pub(crate) const CONFIG_SPACE: u8 = 15;

pub(crate) struct Fixture<'a> {
    pub device: &'a Device,
    /// Tests may take long.
    pub long: bool,
    /// Position of the region in the device's file.
    pub position: u64,
    pub header: Header,
    /// Size of each BAR.
    pub bars: [u64; 6],
    /// MSI-X table and pending bit array.
    pub msix: Option<[Window; 2]>,
    /// The emulator reverses the bytes of each 8-byte word of a PCISTB.
    reversed: bool,
    /// A page to store from: 1, 2, 3, ... without `MARK`.
    pub source: Mapping,
    /// A page to load to.
    pub loaded: Mapping,
}

impl<'a> Fixture<'a> {
    pub fn new(device: &'a Device, long: bool) -> Result<Self, Error> {
        let (position, header) = {
            let region = device.zpci_io()?;
            (region.position(), region.header())
        };
        device.enable_memory(true)?;
        let mut bars = [0; 6];
        for (bar, size) in (0..).zip(&mut bars) {
            *size = device.region(bar)?.size;
        }
        let source = Mapping::pages(1);
        let bytes: Vec<u8> = (0..source.size()).map(|at| (at % 0x7f) as u8 + 1).collect();
        source.write(0, &bytes);
        let mut fixture = Self {
            device,
            long,
            position,
            header,
            bars,
            msix: msix(device)?,
            reversed: false,
            source,
            loaded: Mapping::pages(1),
        };
        fixture.reversed = fixture.probe_byte_order();
        Ok(fixture)
    }

    /// Whether blocks arrive with each 8-byte word reversed, a known defect of QEMU on
    /// little-endian machines. Anything else than the two orders is no memory. With `IN_ORDER` in the
    /// environment the emulator is one that has been mended.
    fn probe_byte_order(&self) -> bool {
        let block = self.source.read(0, 16);
        assert_eq!(self.send(&self.block()), Ok(()), "a block can be stored");
        let stored = self.read(TARGET, 16);
        if stored == block {
            return false;
        }
        assert_eq!(stored, reverse_words(&block), "BAR 2 behaves like memory");
        let mended = std::env::var_os("IN_ORDER").is_some();
        assert!(!mended, "the bytes of a block arrive in reverse");
        note(
            "the emulator reverses the bytes of each 8-byte word of a PCISTB (known QEMU\n\
             defect on little-endian machines): expected from here on",
        );
        true
    }

    /// A good PCISTB of 16 bytes.
    pub fn block(&self) -> Request {
        Request::block(BAR, TARGET, self.source.addr(), 16)
    }

    /// A good PCILG of 8 bytes.
    pub fn load(&self) -> Request {
        Request::load(BAR, TARGET, self.loaded.addr() + 64, 8)
    }

    /// A good PCISTG of 8 bytes.
    pub fn store(&self) -> Request {
        Request::store(BAR, TARGET, self.source.addr(), 8)
    }

    /// A good request of each kind.
    pub fn each(&self) -> [Request; 3] {
        [self.block(), self.load(), self.store()]
    }

    /// A request of each kind and of each length that is good for it, at each of these offsets.
    pub fn each_length(&self, pcias: u8, offsets: &[u64]) -> Vec<Request> {
        let mut requests = Vec::new();
        for request in self.each() {
            let lengths: &[u16] = match request.flags {
                abi::BLOCKW => &[16, 24],
                _ => &[1, 2, 4, 8],
            };
            for &offset in offsets {
                requests.extend(lengths.iter().map(|&len| Request {
                    pcias,
                    offset,
                    len,
                    ..request
                }));
            }
        }
        requests
    }

    /// Writes a request. Loads write to the tests' own mappings only, or are refused.
    pub fn send(&self, request: &Request) -> Result<(), Errno> {
        let count = self.pwrite(&request.to_bytes(), abi::REQUEST_POSITION)?;
        assert_eq!(count, abi::REQUEST_SIZE, "{request:x?} is written whole");
        Ok(())
    }

    /// Writes to a position in the region.
    pub fn pwrite(&self, bytes: &[u8], position: u64) -> Result<usize, Errno> {
        pwrite(self.device, bytes, self.position + position)
    }

    /// Reads from a position in the region.
    pub fn pread(&self, bytes: &mut [u8], position: u64) -> Result<usize, Errno> {
        pread(self.device, bytes, self.position + position)
    }

    /// Loads `len` bytes of the memory-like BAR, a multiple of 8, by PCILG.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        let value = Mapping::value();
        for at in (0..len as u64).step_by(8) {
            let load = Request {
                gaddr: value.addr(),
                offset: offset + at,
                ..self.load()
            };
            assert_eq!(self.send(&load), Ok(()), "{load:x?}");
            bytes.extend_from_slice(&value.read(0, 8));
        }
        bytes
    }

    /// Fills a part of the memory-like BAR, in units of 16 bytes.
    pub fn fill(&self, offset: u64, len: usize, byte: u8) {
        let page = Mapping::pages(1);
        page.write(0, &vec![byte; page.size()]);
        for at in (0..len as u64).step_by(16) {
            let block = Request {
                gaddr: page.addr(),
                offset: offset + at,
                ..self.block()
            };
            assert_eq!(self.send(&block), Ok(()), "{block:x?}");
        }
    }

    /// The bytes which the BAR holds after a block was stored.
    pub fn as_stored(&self, block: &[u8]) -> Vec<u8> {
        match self.reversed {
            true => reverse_words(block),
            false => block.to_vec(),
        }
    }

    /// Marks all that a request could change. Needs the function's memory space.
    pub fn witness(&self) -> Witness<'_> {
        self.fill(WINDOW, WINDOW_LEN, MARK);
        self.loaded.write(0, &vec![MARK; self.loaded.size()]);
        Witness { fixture: self }
    }

    /// The requests are refused with `errno`, and change nothing.
    pub fn all_refused(
        &self,
        requests: impl IntoIterator<Item = Request>,
        errno: Errno,
    ) -> Outcome {
        let witness = self.witness();
        let mut some = false;
        for request in requests {
            assert_eq!(self.send(&request), Err(errno), "{request:x?}");
            some = true;
        }
        assert!(some, "there are requests");
        witness.nothing_changed();
        Ok(())
    }

    /// The requests are executed.
    pub fn all_accepted(&self, requests: impl IntoIterator<Item = Request>) -> Outcome {
        for request in requests {
            assert_eq!(self.send(&request), Ok(()), "{request:x?}");
        }
        Ok(())
    }
}

/// Knows what the BAR and the page of loaded values held.
#[must_use]
pub(crate) struct Witness<'a> {
    fixture: &'a Fixture<'a>,
}

impl Witness<'_> {
    pub fn nothing_changed(self) {
        let fixture = self.fixture;
        let loaded = fixture.loaded.read(0, fixture.loaded.size());
        assert!(
            loaded.iter().all(|&byte| byte == MARK),
            "the page of loaded values was written"
        );
        let stored = fixture.read(WINDOW, WINDOW_LEN);
        assert!(
            stored.iter().all(|&byte| byte == MARK),
            "the BAR was written: {stored:02x?}"
        );
    }
}

fn reverse_words(bytes: &[u8]) -> Vec<u8> {
    bytes
        .chunks(8)
        .flat_map(|word| word.iter().rev().copied())
        .collect()
}

/// Where a capability is in configuration space.
pub(crate) fn capability(device: &Device, id: u8) -> Result<Option<u64>, Error> {
    const STATUS: u64 = 0x06;
    const STATUS_CAPABILITIES: u8 = 1 << 4;
    const CAPABILITIES: u64 = 0x34;
    let byte = |at| {
        let mut byte = [0];
        device.read_config(at, &mut byte).map(|()| byte[0])
    };

    if byte(STATUS)? & STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut at = u64::from(byte(CAPABILITIES)? & !3);
    while at != 0 && byte(at)? != id {
        at = u64::from(byte(at + 1)? & !3);
    }
    Ok(Some(at).filter(|&at| at != 0))
}

/// Finds the MSI-X structures by the capability in configuration space.
fn msix(device: &Device) -> Result<Option<[Window; 2]>, Error> {
    const MSIX: u8 = 0x11;
    let Some(at) = capability(device, MSIX)? else {
        return Ok(None);
    };
    let word = |at| {
        let mut word = [0; 4];
        device
            .read_config(at, &mut word)
            .map(|()| u32::from_le_bytes(word))
    };
    let vectors = u64::from(word(at)? >> 16 & 0x7ff) + 1;
    let window = |word: u32, len| Window {
        bar: (word & 7) as u8,
        start: u64::from(word & !7),
        len,
    };
    Ok(Some([
        window(word(at + 4)?, 16 * vectors),
        window(word(at + 8)?, 8 * vectors.div_ceil(64)),
    ]))
}
