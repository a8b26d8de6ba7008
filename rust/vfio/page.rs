// SPDX-License-Identifier: GPL-2.0

//! Memory of the calling process that an instruction works on: a page of it, pinned, or a copy.

use crate::{
    bindings,
    memory, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    page::{
        Page,
        PAGE_MASK,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSliceReader, //
    }, //
};

/// What the pinned memory is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The memory is read; a read-only mapping suffices.
    Read,
    /// The memory is written; the mapping must allow it.
    Write,
}

/// Bytes of a page of the calling process.
///
/// Pinned with `FOLL_PIN`, as the contents are accessed (case 5 of
/// `Documentation/core-api/pin_user_pages.rst`): a page of a protected guest is made accessible
/// first, a copy-on-write page is unshared.
///
/// The process, and whoever shares the page, may change the bytes at any time. They are only read
/// and written as a whole, once, and never referenced.
///
/// # Invariants
///
/// `page` is pinned; `start` is the kernel address of `len` bytes, all inside of it.
pub struct Pinned {
    page: NonNull<bindings::page>,
    start: NonNull<u8>,
    len: u16,
    access: Access,
}

impl Pinned {
    /// Pins the `len` bytes at `start` of the calling process.
    ///
    /// May sleep without bound, as the page may be one that user space provides (userfaultfd,
    /// FUSE); so no lock may be held that somebody else needs. The wait ends on a fatal signal.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the bytes do not lie in one page.
    /// - `ENOMEM` if memory was short.
    /// - `EINTR` if the task was killed.
    /// - `EFAULT` for every other reason: nothing is mapped there, the mapping does not allow the
    ///   access, it is one that cannot be pinned (a BAR, secret memory), the page is poisoned, the
    ///   caller is a kernel thread.
    #[inline]
    pub fn new(start: UserPtr, len: u16, access: Access) -> Result<Self> {
        let address = start.as_const_ptr() as usize;
        let offset = address & !PAGE_MASK;
        if usize::from(len) > PAGE_SIZE - offset {
            return Err(EINVAL);
        }

        let flags = match access {
            Access::Read => 0,
            Access::Write => bindings::FOLL_WRITE,
        };
        // The function below looks into the memory of the task without asking whether it has any.
        kernel::current!().mm().ok_or(EFAULT)?;
        let mut page = core::ptr::null_mut();
        // SAFETY: `page` has room for the one page asked for. Any address may be given: it is
        // looked up in the page tables of the calling process.
        let pinned =
            unsafe { bindings::pin_user_pages_fast(address & PAGE_MASK, 1, flags, &raw mut page) };
        if pinned != 1 {
            return Err(refused(pinned));
        }
        // SAFETY: One page was pinned, so it is there. On s390 all memory is in the identity
        // mapping, so every page has an address.
        let (page, start) = unsafe {
            let start = bindings::vfio_helper_page_address(page).cast::<u8>();
            (
                NonNull::new_unchecked(page),
                NonNull::new_unchecked(start).add(offset),
            )
        };

        // INVARIANT: The page is pinned, and `offset + len` does not exceed its size.
        Ok(Self {
            page,
            start,
            len,
            access,
        })
    }

    /// The bytes as the operand of an instruction.
    #[inline]
    pub fn bytes(&self) -> Bytes<'_> {
        // INVARIANT: By the type invariant.
        Bytes {
            start: self.start,
            len: self.len,
            _memory: PhantomData,
        }
    }

    /// Reads the bytes as one integer in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the memory is not an aligned doubleword.
    pub fn read_u64(&self) -> Result<u64> {
        let word = self.doubleword()?;
        // SAFETY: `word` is valid and aligned. User space may write to it at the same time, hence
        // volatile; any value is a valid `u64`.
        Ok(unsafe { word.read_volatile() })
    }

    /// Writes `value` over the bytes, in the byte order of the machine, and marks the page dirty.
    ///
    /// May sleep until the page, if it is one of a file, is not locked any more, or the task is
    /// killed. In that case it may stay clean, and what was written may be lost: there is nobody
    /// left whom it was for.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the memory is not an aligned doubleword or was not pinned for [`Access::Write`].
    #[inline]
    pub fn write_u64(&self, value: u64) -> Result {
        if self.access != Access::Write {
            return Err(EINVAL);
        }
        let word = self.doubleword()?;
        memory::debug_check_unguarded();
        // SAFETY: `word` is valid, aligned and writable by the process. User space may access it
        // at the same time, hence volatile.
        unsafe { word.write_volatile(value) };
        // SAFETY: The page is pinned.
        let _ = unsafe { bindings::vfio_helper_mark_dirty_killable(self.page.as_ptr()) };
        Ok(())
    }

    #[inline]
    fn doubleword(&self) -> Result<NonNull<u64>> {
        let word = self.start.cast::<u64>();
        if usize::from(self.len) == size_of::<u64>() && word.is_aligned() {
            Ok(word)
        } else {
            Err(EINVAL)
        }
    }
}

impl Drop for Pinned {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant the page is pinned, once.
        unsafe { bindings::unpin_user_page(self.page.as_ptr()) }
    }
}

/// Why a page could not be pinned.
#[cold]
fn refused(pinned: c_int) -> Error {
    match pinned.unsigned_abs() {
        bindings::ENOMEM => ENOMEM,
        bindings::EINTR | bindings::ERESTARTSYS | bindings::ERESTARTNOINTR => EINTR,
        _ => EFAULT,
    }
}

/// Room on the stack for bytes of the calling process.
///
/// Aligned to its size, so it does not cross a page.
#[repr(C, align(256))]
pub struct Buffer([MaybeUninit<u8>; Buffer::SIZE]);

impl Buffer {
    /// How many bytes it has room for.
    pub const SIZE: usize = 256;

    /// An empty one.
    #[inline]
    pub const fn empty() -> Self {
        Self([const { MaybeUninit::uninit() }; Self::SIZE])
    }

    /// Copies all bytes of `from`.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if they are more than [`Buffer::SIZE`].
    /// - `EFAULT` if they cannot be read.
    #[inline]
    pub fn copy(&mut self, from: &mut UserSliceReader) -> Result<Bytes<'_>> {
        let len = from.len();
        from.read_raw(self.0.get_mut(..len).ok_or(EINVAL)?)?;
        // INVARIANT: All bytes have been copied.
        Ok(Bytes {
            start: NonNull::from(&mut self.0).cast(),
            // CAST: No more than `SIZE`.
            len: len as u16,
            _memory: PhantomData,
        })
    }
}

/// A copy of bytes of the calling process.
///
/// # Invariants
///
/// `len` bytes of `page` are initialized.
pub struct Copied {
    page: Page,
    len: u16,
}

impl Copied {
    /// Copies all bytes of `from`.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if they are more than a page.
    /// - `ENOMEM` if memory was short.
    /// - `EFAULT` if they cannot be read.
    pub fn new(from: &mut UserSliceReader) -> Result<Self> {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let len = from.len();
        // SAFETY: Nobody else knows the page.
        unsafe { page.copy_from_user_slice_raw(from, 0, len)? };
        // INVARIANT: All bytes have been copied.
        Ok(Self {
            page,
            // CAST: No more than a page.
            len: len as u16,
        })
    }

    /// The bytes as the operand of an instruction.
    pub fn bytes(&self) -> Bytes<'_> {
        // SAFETY: On s390 all memory is in the identity mapping, so every page has an address.
        let start = unsafe {
            NonNull::new_unchecked(bindings::vfio_helper_page_address(self.page.as_ptr()).cast())
        };
        // INVARIANT: By the type invariant.
        Bytes {
            start,
            len: self.len,
            _memory: PhantomData,
        }
    }
}

/// Bytes for an instruction to read.
///
/// # Invariants
///
/// `start` is valid for reads of `len` bytes for `'a`; they do not cross a page.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    start: NonNull<u8>,
    len: u16,
    _memory: PhantomData<&'a ()>,
}

impl Bytes<'_> {
    /// Address of the first byte.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// How many bytes there are.
    #[inline]
    pub(crate) fn len(&self) -> u16 {
        self.len
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_page)]
mod tests {
    use super::*;
    use crate::wait_queue::as_killed;

    #[test]
    fn a_killed_task_does_not_wait_for_a_locked_page() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        // A page that is alone is a folio.
        let folio = page.as_ptr().cast::<bindings::folio>();
        // SAFETY: Nobody else knows the page. It is not locked, so this does not wait.
        unsafe { bindings::__folio_lock(folio) };
        // SAFETY: The page is there.
        let mark = || unsafe { bindings::vfio_helper_mark_dirty_killable(page.as_ptr()) };
        let result = as_killed(mark);
        // SAFETY: Locked above.
        unsafe { bindings::folio_unlock(folio) };
        assert!(result == EINTR.to_errno());
        Ok(())
    }

    #[test]
    fn a_kernel_thread_has_no_memory_to_pin() {
        // Tests run in one. Where its page tables are looked up, page 0 may well be mapped.
        for address in [0, PAGE_SIZE] {
            for access in [Access::Read, Access::Write] {
                let pinned = Pinned::new(UserPtr::from_addr(address), 8, access);
                assert!(pinned.err() == Some(EFAULT));
            }
        }
    }

    #[test]
    fn bytes_in_two_pages_are_not_pinned() {
        let pinned = Pinned::new(UserPtr::from_addr(2 * PAGE_SIZE - 7), 8, Access::Read);
        assert!(pinned.err() == Some(EINVAL));
    }

    #[test]
    fn a_buffer_does_not_cross_a_page() {
        let buffers = [const { Buffer::empty() }; 3];
        for buffer in &buffers {
            let address = core::ptr::from_ref(buffer).addr();
            assert!(address % PAGE_SIZE + Buffer::SIZE <= PAGE_SIZE);
        }
    }
}
