// SPDX-License-Identifier: GPL-2.0

//! The zPCI I/O region: one write of a request issues one zPCI instruction.
//!
//! The way of a request: copy it once, check it ([`Request::parse`]), pin the memory it names
//! ([`page::Pinned`]), get a lease ([`Device::lease`]), issue the instruction
//! ([`zpci::Function`]). Whatever may block on user memory comes before the lease.

use crate::{
    request::{
        Instruction,
        Request,
        HEADER_SIZE,
        REGION_SIZE,
        REQUEST_OFFSET,
        REQUEST_SIZE, //
    },
    ZpciVfioPci, //
};
use kernel::{
    pci::Vendor,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};
use vfio::{
    device::Device,
    page::{
        self,
        Access, //
    },
    region::{
        Region,
        Type, //
    },
    zpci, //
};

/// The zPCI I/O region (`VFIO_REGION_SUBTYPE_IBM_ZPCI_IO`).
pub(crate) struct ZpciIo;

impl Region<ZpciVfioPci> for ZpciIo {
    const TYPE: Type = Type::pci_vendor(Vendor::IBM.as_raw());
    const SUBTYPE: u32 = 2;
    const SIZE: usize = REGION_SIZE;

    /// Reads the header, or a part of it.
    fn read(device: &Device<ZpciVfioPci>, offset: u64, mut to: UserSliceWriter) -> Result<usize> {
        let header = device.data().limits.header();
        let start = usize::try_from(offset)?;
        let end = start.checked_add(to.len()).ok_or(EINVAL)?;
        let bytes = header.get(start..end).ok_or(EINVAL)?;

        to.write_slice(bytes)?;
        Ok(bytes.len())
    }

    /// Issues the instruction of a request, which must be written as a whole.
    fn write(
        device: &Device<ZpciVfioPci>,
        offset: u64,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        if offset != REQUEST_OFFSET || from.len() != REQUEST_SIZE {
            return Err(EINVAL);
        }
        // The only copy: what was checked is what is used, whatever the caller writes meanwhile.
        let raw = from.read::<[u8; REQUEST_SIZE]>()?;
        let request = Request::parse(&raw, &device.data().limits).map_err(|_| EINVAL)?;

        issue(device, &request)?;
        Ok(REQUEST_SIZE)
    }
}

fn issue(device: &Device<ZpciVfioPci>, request: &Request) -> Result {
    let access = match request.instruction {
        Instruction::Load => Access::Write,
        Instruction::StoreBlock | Instruction::Store => Access::Read,
    };
    let memory = page::Pinned::new(
        UserPtr::from_addr(request.address as usize),
        request.memory_len(),
        access,
    )?;

    // Guards are dropped in reverse order: the page is unpinned when no lock is held any more.
    let lease = device.lease()?;
    let function = zpci::Function::new(&lease);
    let Request {
        len, bar, offset, ..
    } = *request;
    match request.instruction {
        Instruction::StoreBlock => function.store_block(bar, offset, memory.bytes())?,
        Instruction::Load => memory.write_u64(function.load(bar, len, offset)?)?,
        Instruction::Store => function.store(bar, len, offset, memory.read_u64()?)?,
    }
    Ok(())
}

static_assert!(HEADER_SIZE as u64 == REQUEST_OFFSET);
static_assert!(REQUEST_OFFSET as usize + REQUEST_SIZE == REGION_SIZE);
