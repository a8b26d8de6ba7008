// SPDX-License-Identifier: GPL-2.0

//! The wire format of the zPCI I/O region and the rules a request must meet.
//!
//! No kernel dependency: the same file is built into the driver and into the host tests. All
//! integers are big-endian, the byte order of the machine.
//!
//! C header: `include/uapi/linux/vfio_zpci_io.h`

#![forbid(unsafe_code)]

/// The region starts with a header of this size (`struct vfio_zpci_io_hdr`).
pub(crate) const HEADER_SIZE: usize = 16;

/// Where the request is in the region, and its size (`struct vfio_zpci_io_req`).
pub(crate) const REQUEST_OFFSET: u64 = 16;
pub(crate) const REQUEST_SIZE: usize = 32;

/// Size of the region.
pub(crate) const REGION_SIZE: usize = 48;

const _: () = assert!(HEADER_SIZE as u64 == REQUEST_OFFSET);
const _: () = assert!(HEADER_SIZE + REQUEST_SIZE == REGION_SIZE);

/// Where the fields of a request are in it, in bytes.
pub(crate) mod at {
    pub(crate) const FLAGS: usize = 0;
    pub(crate) const ADDRESS: usize = 8;
    pub(crate) const OFFSET: usize = 16;
    pub(crate) const RESERVED: usize = 24;
    pub(crate) const LEN: usize = 28;
    pub(crate) const BAR: usize = 30;
    pub(crate) const RESERVED2: usize = 31;
}

/// Capability in the header: requests with [`FLAG_WRITE`] are supported.
pub(crate) const CAP_WRITE: u64 = 1 << 0;

/// Request flags: which instruction to issue.
pub(crate) const FLAG_READ: u64 = 1 << 0;
pub(crate) const FLAG_BLOCKW: u64 = 1 << 1;
pub(crate) const FLAG_WRITE: u64 = 1 << 2;

/// Neither a block in memory nor its destination may cross a boundary of this many bytes. It is
/// the size of a page, too.
const BLOCK_BOUNDARY: u64 = 4096;

/// A load or store stays within this many bytes.
const DOUBLEWORD: u16 = 8;

/// Number of address spaces that are BARs; others, as the configuration space, are out of reach.
pub(crate) const BARS: usize = 6;

/// Part of a BAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) bar: u8,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Window {
    fn overlaps(&self, bar: u8, start: u64, len: u64) -> bool {
        // The caller has checked that `start + len` does not overflow. A window may, in a corrupt
        // configuration space, reach beyond its BAR, but its offset and length have 32 bits.
        self.len != 0
            && bar == self.bar
            && start < self.start + self.len
            && self.start < start + len
    }
}

/// The `N` bytes at `AT`.
fn field<const AT: usize, const N: usize>(raw: &[u8; REQUEST_SIZE]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&raw[AT..AT + N]);
    bytes
}

/// What one function allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// The longest block, in bytes.
    pub(crate) max: u16,
    /// Size of each BAR in bytes; 0 if it does not exist.
    pub(crate) bars: [u64; BARS],
    /// MSI-X table and pending bit array, which belong to the host.
    pub(crate) msix: [Window; 2],
}

impl Limits {
    /// Limits of a function that takes blocks of at most `maxstbl` bytes.
    pub(crate) fn new(maxstbl: u16, bars: [u64; BARS], msix: [Window; 2]) -> Self {
        Self {
            max: maxstbl.min(BLOCK_BOUNDARY as u16),
            bars,
            msix,
        }
    }

    /// Checks an access to `len` bytes at `offset` of a BAR.
    pub(crate) fn check(&self, bar: u8, offset: u64, len: u16) -> Result<(), Invalid> {
        let size = *self
            .bars
            .get(usize::from(bar))
            .ok_or(Invalid::AddressSpace)?;
        let len = u64::from(len);
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(Invalid::Bar);
        }
        if self
            .msix
            .iter()
            .any(|window| window.overlaps(bar, offset, len))
        {
            return Err(Invalid::Msix);
        }
        Ok(())
    }

    /// Checks the length of a block, and that its destination does not cross 4 KiB.
    pub(crate) fn check_block(&self, offset: u64, len: u16) -> Result<(), Invalid> {
        if len == 0 || len > self.max {
            return Err(Invalid::Length);
        }
        if offset % BLOCK_BOUNDARY + u64::from(len) > BLOCK_BOUNDARY {
            return Err(Invalid::Boundary);
        }
        Ok(())
    }

    /// The header of the region.
    pub(crate) fn header(&self) -> [u8; HEADER_SIZE] {
        let mut header = [0; HEADER_SIZE];
        header[0..8].copy_from_slice(&CAP_WRITE.to_be_bytes());
        header[8..10].copy_from_slice(&self.max.to_be_bytes());
        header
    }
}

/// A rule that a request breaks. All of them are answered with `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// Not exactly one of the known flags.
    Flags,
    /// A reserved field is not zero.
    Reserved,
    /// A block is empty or longer than `max`, or a load or store is not of 1, 2, 4 or 8 bytes.
    Length,
    /// A block leaves the page of its address, or a value is not an aligned doubleword.
    Address,
    /// The address space is not a BAR.
    AddressSpace,
    /// The destination of a block crosses 4 KiB, or a load or store leaves its doubleword.
    Boundary,
    /// There is no such BAR, or the access leaves it.
    Bar,
    /// The access touches the MSI-X table or the pending bit array.
    Msix,
}

/// The instruction a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// PCI LOAD
    Load,
    /// PCI STORE BLOCK
    StoreBlock,
    /// PCI STORE
    Store,
}

/// A request that meets all rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// What to issue.
    pub(crate) instruction: Instruction,
    /// Address of the data in the memory of the caller.
    pub(crate) address: u64,
    /// How many bytes the instruction moves.
    pub(crate) len: u16,
    /// The BAR it accesses.
    pub(crate) bar: u8,
    /// Where in the BAR, in bytes.
    pub(crate) offset: u64,
}

impl Request {
    /// Parses `raw` and checks it against the rules that need neither the memory of the caller nor
    /// the function.
    pub(crate) fn parse(raw: &[u8; REQUEST_SIZE], limits: &Limits) -> Result<Self, Invalid> {
        let flags = u64::from_be_bytes(field::<{ at::FLAGS }, 8>(raw));
        let address = u64::from_be_bytes(field::<{ at::ADDRESS }, 8>(raw));
        let offset = u64::from_be_bytes(field::<{ at::OFFSET }, 8>(raw));
        let reserved = u32::from_be_bytes(field::<{ at::RESERVED }, 4>(raw));
        let len = u16::from_be_bytes(field::<{ at::LEN }, 2>(raw));
        let [bar] = field::<{ at::BAR }, 1>(raw);
        let [reserved2] = field::<{ at::RESERVED2 }, 1>(raw);

        let instruction = match flags {
            FLAG_READ => Instruction::Load,
            FLAG_BLOCKW => Instruction::StoreBlock,
            FLAG_WRITE => Instruction::Store,
            _ => return Err(Invalid::Flags),
        };
        if reserved != 0 || reserved2 != 0 {
            return Err(Invalid::Reserved);
        }

        let request = Self {
            instruction,
            address,
            len,
            bar,
            offset,
        };
        match instruction {
            Instruction::StoreBlock => {
                limits.check_block(offset, len)?;
                if address % BLOCK_BOUNDARY + u64::from(len) > BLOCK_BOUNDARY {
                    return Err(Invalid::Address);
                }
            }
            Instruction::Load | Instruction::Store => request.check_doubleword()?,
        }
        limits.check(bar, offset, len)?;
        Ok(request)
    }

    /// How many bytes the request needs at `address`: a load or store always has a doubleword
    /// there, with the value right-aligned in it.
    pub(crate) fn memory_len(&self) -> u16 {
        match self.instruction {
            Instruction::StoreBlock => self.len,
            Instruction::Load | Instruction::Store => DOUBLEWORD,
        }
    }

    fn check_doubleword(&self) -> Result<(), Invalid> {
        if !matches!(self.len, 1 | 2 | 4 | 8) {
            return Err(Invalid::Length);
        }
        let doubleword = u64::from(DOUBLEWORD);
        if !self.address.is_multiple_of(doubleword) {
            return Err(Invalid::Address);
        }
        if self.offset % doubleword + u64::from(self.len) > doubleword {
            return Err(Invalid::Boundary);
        }
        Ok(())
    }
}
