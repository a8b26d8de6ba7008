// SPDX-License-Identifier: GPL-2.0

//! The zPCI I/O region: one write of a request issues one zPCI instruction.
//!
//! The way of a request: copy it once, check it ([`Request::parse`]), pin the memory it names
//! ([`Pinned`]) or copy the value there, get a lease ([`Call::with_lease`]), issue the instruction.
//! Whatever may block on user memory comes before the lease.

use crate::{
    request::{
        self,
        Instruction,
        Request,
        HEADER_SIZE,
        REGION_SIZE,
        REQUEST_OFFSET,
        REQUEST_SIZE, //
    },
    ZpciVfioPci, //
};
use core::mem::offset_of;
use kernel::{
    pci::Vendor,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};
use vfio::{
    device::Call,
    page::{
        Access,
        Pinned, //
    },
    region::{
        Region,
        Type, //
    },
    uapi,
    zpci::Width, //
};

/// The zPCI I/O region (`VFIO_REGION_SUBTYPE_IBM_ZPCI_IO`).
pub(crate) struct ZpciIo;

impl Region<ZpciVfioPci> for ZpciIo {
    const TYPE: Type = Type::pci_vendor(Vendor::IBM.as_raw());
    const SUBTYPE: u32 = uapi::VFIO_REGION_SUBTYPE_IBM_ZPCI_IO;
    const SIZE: usize = REGION_SIZE;

    /// Reads the header, or a part of it.
    fn read(
        call: &mut Call<'_, ZpciVfioPci>,
        offset: u64,
        mut to: UserSliceWriter,
    ) -> Result<usize> {
        let header = call.data().limits.header();
        let start = usize::try_from(offset)?;
        let end = start.checked_add(to.len()).ok_or(EINVAL)?;
        let bytes = header.get(start..end).ok_or(EINVAL)?;

        to.write_slice(bytes)?;
        Ok(bytes.len())
    }

    /// Issues the instruction of a request, which must be written as a whole.
    #[inline]
    fn write(
        call: &mut Call<'_, ZpciVfioPci>,
        offset: u64,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        if offset != REQUEST_OFFSET || from.len() != REQUEST_SIZE {
            return Err(EINVAL);
        }
        // The only copy: what was checked is what is used, whatever the caller writes meanwhile.
        let raw = from.read::<[u8; REQUEST_SIZE]>()?;
        let request = Request::parse(&raw, &call.data().limits).map_err(|_| EINVAL)?;

        issue(call, &request)?;
        Ok(REQUEST_SIZE)
    }
}

// Always, so that the request need not go through memory: 2 % of all that a store takes.
#[inline(always)]
fn issue(call: &mut Call<'_, ZpciVfioPci>, request: &Request) -> Result {
    let Request {
        len, bar, offset, ..
    } = *request;
    let address = UserPtr::from_addr(request.address as usize);
    let pin = |access| Pinned::new(address, request.memory_len(), access);
    match request.instruction {
        Instruction::StoreBlock => {
            let memory = pin(Access::Read)?;
            call.with_lease(|function| function.store_block(bar, offset, memory.bytes()))
        }
        Instruction::Load => {
            let width = Width::new(len).ok_or(EINVAL)?;
            let memory = pin(Access::Write)?;
            memory.write_u64(call.with_lease(|function| function.load(bar, width, offset))?)
        }
        Instruction::Store => {
            let width = Width::new(len).ok_or(EINVAL)?;
            let mut from = UserSlice::new(address, request.memory_len().into()).reader();
            let value = match from.read() {
                Ok(value) => value,
                // Pinning tells why: want of memory is no bad address.
                Err(_) => pin(Access::Read)?.read_u64()?,
            };
            call.with_lease(|function| function.store(bar, width, offset, value))
        }
    }
}

// The C header and `request.rs` describe the same bytes.
static_assert!(size_of::<uapi::vfio_zpci_io_hdr>() == HEADER_SIZE);
static_assert!(offset_of!(uapi::vfio_zpci_io_hdr, flags) == 0);
static_assert!(offset_of!(uapi::vfio_zpci_io_hdr, max) == 8);
static_assert!(uapi::VFIO_ZPCI_IO_HDR_WRITE as u64 == request::CAP_WRITE);
static_assert!(size_of::<uapi::vfio_zpci_io_req>() == REQUEST_SIZE);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, flags) == request::at::FLAGS);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, gaddr) == request::at::ADDRESS);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, offset) == request::at::OFFSET);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, reserved) == request::at::RESERVED);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, len) == request::at::LEN);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, pcias) == request::at::BAR);
static_assert!(offset_of!(uapi::vfio_zpci_io_req, reserved2) == request::at::RESERVED2);
static_assert!(uapi::VFIO_ZPCI_IO_FLAG_READ as u64 == request::FLAG_READ);
static_assert!(uapi::VFIO_ZPCI_IO_FLAG_BLOCKW as u64 == request::FLAG_BLOCKW);
static_assert!(uapi::VFIO_ZPCI_IO_FLAG_WRITE as u64 == request::FLAG_WRITE);

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_region)]
mod tests {
    use super::*;
    use crate::request::{
        at,
        Invalid,
        Limits,
        FLAG_BLOCKW, //
    };

    /// A request as a C program leaves it in memory.
    fn block(len: u16) -> [u8; REQUEST_SIZE] {
        let mut raw = [0; REQUEST_SIZE];
        raw[at::FLAGS..][..8].copy_from_slice(&FLAG_BLOCKW.to_ne_bytes());
        raw[at::ADDRESS..][..8].copy_from_slice(&0x1234_5000_u64.to_ne_bytes());
        raw[at::OFFSET..][..8].copy_from_slice(&0x800_u64.to_ne_bytes());
        raw[at::LEN..][..2].copy_from_slice(&len.to_ne_bytes());
        raw[at::BAR] = 2;
        raw
    }

    #[test]
    fn integers_are_in_the_byte_order_of_the_machine() {
        let limits = Limits::new(128, [0x1000; 6], Default::default());
        let expected = Request {
            instruction: Instruction::StoreBlock,
            address: 0x1234_5000,
            len: 128,
            bar: 2,
            offset: 0x800,
        };
        assert!(Request::parse(&block(128), &limits) == Ok(expected));
        assert!(Request::parse(&block(129), &limits) == Err(Invalid::Length));
    }

    #[test]
    fn header_is_in_the_byte_order_of_the_machine() {
        let header = Limits::new(128, [0; 6], Default::default()).header();
        let max = offset_of!(uapi::vfio_zpci_io_hdr, max);
        assert!(header[max..][..2] == 128_u16.to_ne_bytes());
    }
}
