// SPDX-License-Identifier: GPL-2.0

//! The functions of the machine, by their function id, and a region of one of them.
//!
//! The runner makes them (`tools/testing/runner/src/qemu.rs`). What a function does wrong it does from the start.

use rustix::io::{pwrite, Errno};
use std::sync::{atomic::Ordering, Arc};
use vfio_zpci_io::{
    abi::{self, Header, Request},
    sysfs::{self, Function},
    Access, Device, DmaPage,
};

/// NVMe controllers with a memory buffer, BAR 2.
pub(crate) mod nvme {
    use std::time::Duration;

    /// Does nothing wrong.
    pub(crate) const PLAIN: u32 = 0x10;
    /// Refuses each instruction, with status 8.
    pub(crate) const REFUSES: u32 = 0x51;
    /// Is busy at each instruction.
    pub(crate) const BUSY: u32 = 0x52;
    /// Does not know its handle.
    pub(crate) const GONE: u32 = 0x53;
    /// Is busy at each second instruction.
    pub(crate) const BUSY_EACH_SECOND: u32 = 0x54;
    /// Are busy at the first [`TIMES`] instructions, one function for each kind of instruction.
    pub(crate) const BUSY_AT_FIRST: [u32; 3] = [0x55, 0x56, 0x57];
    pub(crate) const TIMES: u32 = 60;
    /// Is busy, and takes half a second to say so.
    pub(crate) const BUSY_AND_SLOW: u32 = 0x58;
    pub(crate) const DELAY: Duration = Duration::from_millis(500);
    /// Has its MSI-X structures in a BAR where nothing else is.
    pub(crate) const MSIX: u32 = 0x5a;
    /// Is busy, and takes a tenth of a millisecond to say so.
    pub(crate) const BUSY_AND_TARDY: u32 = 0x59;
}

/// ISM functions.
pub(crate) mod ism {
    /// Two of one fabric, and their names there (GIDs).
    pub(crate) const PAIR: [u32; 2] = [0x20, 0x30];
    pub(crate) const GIDS: [u64; 2] = [0x20, 0x30];
    /// Refuses each instruction.
    pub(crate) const REFUSES: u32 = 0x61;
    /// Does not know its handle.
    pub(crate) const GONE: u32 = 0x62;
    /// Is busy at each instruction.
    pub(crate) const BUSY: u32 = 0x63;
    /// Is busy at each second instruction.
    pub(crate) const BUSY_EACH_SECOND: u32 = 0x64;
}

/// The BAR that the tests use: memory of NVMe, commands of ISM.
pub(crate) const BAR: u8 = 2;

/// Where in it good requests go. ISM has 256 bytes there, of which the first 8 start a command.
pub(crate) const TARGET: u64 = 0x80;

/// What the memory for loaded values is filled with.
const MARK: u8 = 0xc3;

pub(crate) fn function(fid: u32) -> Function {
    let function = sysfs::zpci_function(fid).expect("functions can be found");
    function.unwrap_or_else(|| panic!("there is no function {fid:#x}"))
}

/// Opens a function that `driver` is bound to, with its memory space enabled, and its DMA.
pub(crate) fn open(fid: u32, driver: &str) -> Device {
    let function = function(fid);
    function.bind(driver).expect("the driver takes it");
    let device = Device::open(&function.address(), Access::Iommufd).expect("it can be opened");
    device.enable_memory(true).expect("memory on");
    device.enable_dma(true).expect("DMA on");
    device
}

/// The zPCI I/O region of an open function.
pub(crate) struct Region {
    pub device: Device,
    pub fid: u32,
    pub header: Header,
    position: u64,
    /// A page to store from, and to load to.
    memory: Arc<[DmaPage]>,
}

impl Region {
    pub fn open(fid: u32) -> Self {
        let device = open(fid, sysfs::DRIVER);
        let (position, header) = {
            let region = device.zpci_io().expect("it has the region");
            (region.position(), region.header())
        };
        let region = Self {
            device,
            fid,
            header,
            position,
            memory: DmaPage::zeroed(1),
        };
        region.fill(MARK);
        region
    }

    /// The page to store from, and to load to.
    pub fn page(&self) -> &DmaPage {
        &self.memory[0]
    }

    fn address(&self) -> u64 {
        self.page().bytes().as_ptr().expose_provenance() as u64
    }

    /// A good PCISTB of 16 bytes.
    pub fn block(&self) -> Request {
        Request::block(BAR, TARGET, self.address(), 16)
    }

    /// A good PCILG of 8 bytes.
    pub fn load(&self) -> Request {
        Request::load(BAR, TARGET, self.address(), 8)
    }

    /// A good PCISTG of 8 bytes.
    pub fn store(&self) -> Request {
        Request::store(BAR, TARGET, self.address(), 8)
    }

    /// A good request of each kind.
    pub fn each(&self) -> [Request; 3] {
        [self.block(), self.load(), self.store()]
    }

    /// Where in the device's file requests are written.
    pub fn request_position(&self) -> u64 {
        self.position + abi::REQUEST_POSITION
    }

    pub fn send(&self, request: &Request) -> Result<(), Errno> {
        let count = pwrite(&self.device, &request.to_bytes(), self.request_position())?;
        assert_eq!(count, abi::REQUEST_SIZE, "{request:x?} is written whole");
        Ok(())
    }

    /// Fills the memory, which no request uses now.
    pub fn fill(&self, byte: u8) {
        write(self.page(), 0, &[byte; abi::PAGE_SIZE]);
    }

    pub fn nothing_loaded(&self) {
        let bytes = read(self.page(), 0, abi::PAGE_SIZE);
        assert!(bytes.iter().all(|&byte| byte == MARK), "a value was loaded");
    }
}

pub(crate) fn read(page: &DmaPage, at: usize, len: usize) -> Vec<u8> {
    let bytes = &page.bytes()[at..at + len];
    bytes.iter().map(|b| b.load(Ordering::Relaxed)).collect()
}

pub(crate) fn write(page: &DmaPage, at: usize, data: &[u8]) {
    for (byte, value) in page.bytes()[at..at + data.len()].iter().zip(data) {
        byte.store(*value, Ordering::Relaxed);
    }
}
