// SPDX-License-Identifier: GPL-2.0

//! BARs that cannot be mapped, read and written as regions: as `ism-vfio-pci` offers them.
//!
//! A write is one PCI STORE BLOCK; a read is as many PCI LOADs as it takes, the longest that are
//! aligned. Each instruction has a lease of its own, and user memory is touched between them.

use crate::ZpciVfioPci;
use kernel::{
    prelude::*,
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};
use vfio::{
    bar::Bars,
    device::Device,
    page,
    zpci, //
};

/// Accesses BARs by zPCI instructions.
pub(crate) struct ByInstruction;

impl Bars<ZpciVfioPci> for ByInstruction {
    /// Reads up to the end of the BAR.
    ///
    /// Fails with the errors of a READ request; what has been read before is lost.
    fn read(
        device: &Device<ZpciVfioPci>,
        bar: u8,
        offset: u64,
        mut to: UserSliceWriter,
    ) -> Result<usize> {
        let limits = &device.data().limits;
        let size = limits.bars.get(usize::from(bar)).ok_or(EINVAL)?;
        let left = size
            .checked_sub(offset)
            .filter(|left| *left > 0)
            .ok_or(EINVAL)?;
        let count = to.len().min(usize::try_from(left)?);

        let mut done = 0;
        while done < count {
            if vfio::killed() {
                return Err(EINTR);
            }
            let at = offset + done as u64;
            let len = longest_load(at, count - done);
            limits.check(bar, at, len).map_err(|_| EINVAL)?;

            let lease = device.lease()?;
            let value = zpci::Function::new(&lease).load(bar, len, at)?;
            drop(lease);

            let len = usize::from(len);
            to.write_slice(&value.to_be_bytes()[size_of::<u64>() - len..])?;
            done += len;
        }
        Ok(done)
    }

    /// Stores all bytes as one block, or nothing.
    ///
    /// Fails with the errors of a BLOCKW request, but the block may cross a page in memory.
    fn write(
        device: &Device<ZpciVfioPci>,
        bar: u8,
        offset: u64,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        let limits = &device.data().limits;
        let len = u16::try_from(from.len())?;
        limits
            .check_block(offset, len)
            .and_then(|()| limits.check(bar, offset, len))
            .map_err(|_| EINVAL)?;
        let block = page::Copied::new(&mut from)?;

        let lease = device.lease()?;
        zpci::Function::new(&lease).store_block(bar, offset, block.bytes())?;
        Ok(usize::from(len))
    }
}

/// The longest load that is aligned at `offset` and loads no more than `left` bytes.
fn longest_load(offset: u64, left: usize) -> u16 {
    [8, 4, 2]
        .into_iter()
        .find(|len| offset % u64::from(*len) == 0 && left >= usize::from(*len))
        .unwrap_or(1)
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_bars)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_aligned_and_no_longer_than_what_is_left() {
        assert!(longest_load(0, 100) == 8);
        assert!(longest_load(8, 8) == 8);
        assert!(longest_load(8, 7) == 4);
        assert!(longest_load(12, 100) == 4);
        assert!(longest_load(12, 3) == 2);
        assert!(longest_load(14, 100) == 2);
        assert!(longest_load(13, 100) == 1);
        assert!(longest_load(16, 1) == 1);
    }
}
