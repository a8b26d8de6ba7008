// SPDX-License-Identifier: GPL-2.0

//! BARs that cannot be mapped, read and written as regions: as `ism-vfio-pci` offers them.
//!
//! A write is one PCI STORE BLOCK; a read is as many PCI LOADs as it takes, the longest that are
//! aligned. A lease is for a bounded number of them, and user memory is touched outside of it.

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
    device::Call,
    page,
    zpci::Width, //
};

/// How many bytes are loaded with one lease, at most: 16 loads if they are aligned, else up to 19.
const CHUNK: usize = 128;

/// Accesses BARs by zPCI instructions.
pub(crate) struct ByInstruction;

impl Bars<ZpciVfioPci> for ByInstruction {
    /// Reads up to the end of the BAR.
    ///
    /// Fails with the errors of a READ request; what has been read before is lost.
    fn read(
        call: &mut Call<'_, ZpciVfioPci>,
        bar: u8,
        offset: u64,
        mut to: UserSliceWriter,
    ) -> Result<usize> {
        let limits = &call.data().get_ref().limits;
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
            let mut buffer = [0; CHUNK];
            let chunk = &mut buffer[..CHUNK.min(count - done)];
            let start = offset + done as u64;
            // CAST: No more than `CHUNK`.
            limits
                .check(bar, start, chunk.len() as u16)
                .map_err(|_| EINVAL)?;
            let mut loaded = 0;
            call.with_lease(|function| {
                while loaded < chunk.len() {
                    let at = start + loaded as u64;
                    let rest = &mut chunk[loaded..];
                    let width = longest_load(at, rest.len());
                    let value = function.load(bar, width, at)?.to_be_bytes();
                    let bytes = &mut rest[..usize::from(width.bytes())];
                    bytes.copy_from_slice(&value[value.len() - bytes.len()..]);
                    loaded += bytes.len();
                }
                Ok(())
            })?;
            to.write_slice(chunk)?;
            done += chunk.len();
        }
        Ok(done)
    }

    /// Stores all bytes as one block, or nothing.
    ///
    /// Fails with the errors of a BLOCKW request, but the block may cross a page in memory.
    fn write(
        call: &mut Call<'_, ZpciVfioPci>,
        bar: u8,
        offset: u64,
        mut from: UserSliceReader,
    ) -> Result<usize> {
        let limits = &call.data().get_ref().limits;
        let len = u16::try_from(from.len())?;
        limits
            .check_block(offset, len)
            .and_then(|()| limits.check(bar, offset, len))
            .map_err(|_| EINVAL)?;

        let mut store = |block: page::Bytes<'_>| {
            call.with_lease(|function| function.store_block(bar, offset, block))
        };
        if from.len() <= page::Buffer::SIZE {
            store(page::Buffer::empty().copy(&mut from)?)?;
        } else {
            store(page::Copied::new(&mut from)?.bytes())?;
        }
        Ok(usize::from(len))
    }
}

/// The longest load that is aligned at `offset` and loads no more than `left` bytes.
fn longest_load(offset: u64, left: usize) -> Width {
    [Width::DOUBLEWORD, Width::WORD, Width::HALFWORD]
        .into_iter()
        .find(|width| {
            let len = width.bytes();
            offset.is_multiple_of(u64::from(len)) && left >= usize::from(len)
        })
        .unwrap_or(Width::BYTE)
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_bars)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_aligned_and_no_longer_than_what_is_left() {
        assert!(longest_load(0, 100) == Width::DOUBLEWORD);
        assert!(longest_load(8, 8) == Width::DOUBLEWORD);
        assert!(longest_load(8, 7) == Width::WORD);
        assert!(longest_load(12, 100) == Width::WORD);
        assert!(longest_load(12, 3) == Width::HALFWORD);
        assert!(longest_load(14, 100) == Width::HALFWORD);
        assert!(longest_load(13, 100) == Width::BYTE);
        assert!(longest_load(16, 1) == Width::BYTE);
    }

    /// How many loads it takes from `at` on.
    fn loads(mut at: u64, mut left: usize) -> u32 {
        let mut loads = 0;
        while left > 0 {
            let width = longest_load(at, left).bytes();
            at += u64::from(width);
            left -= usize::from(width);
            loads += 1;
        }
        loads
    }

    #[test]
    fn at_most_19_loads_are_issued_with_one_lease() {
        assert!(loads(0, CHUNK) == 16);
        assert!((0..8).map(|at| loads(at, CHUNK)).max() == Some(19));
    }
}
