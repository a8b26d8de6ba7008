// SPDX-License-Identifier: GPL-2.0

//! Memory of the calling process that an instruction works on: a page of it, pinned, or a copy.

use crate::bindings;
use core::{
    marker::PhantomData,
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
    /// The memory is written; the mapping must allow it, and the page becomes dirty.
    Write,
}

/// Bytes of a page of the calling process.
///
/// Pinned with `FOLL_PIN`, as the contents are accessed (`Documentation/core-api/pin_user_pages.rst`,
/// case 5): a page of a protected guest is made accessible first, a copy-on-write page is unshared.
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
    len: usize,
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
    ///   access, it is one that cannot be pinned (a BAR, secret memory), the page is poisoned.
    pub fn new(start: UserPtr, len: usize, access: Access) -> Result<Self> {
        let address = start.as_const_ptr() as usize;
        let offset = address & !PAGE_MASK;
        if len > PAGE_SIZE - offset {
            return Err(EINVAL);
        }

        let flags = match access {
            Access::Read => 0,
            Access::Write => bindings::FOLL_WRITE,
        };
        let mut page = core::ptr::null_mut();
        // SAFETY: `page` has room for the one page asked for. Any address may be given: it is
        // looked up in the page tables of the calling process.
        let pinned =
            unsafe { bindings::pin_user_pages_fast(address & PAGE_MASK, 1, flags, &raw mut page) };
        if pinned != 1 {
            return Err(match pinned.checked_neg().map(|errno| errno as u32) {
                Some(bindings::ENOMEM) => ENOMEM,
                Some(bindings::EINTR | bindings::ERESTARTSYS | bindings::ERESTARTNOINTR) => EINTR,
                _ => EFAULT,
            });
        }
        // SAFETY: One page was pinned, so it is there.
        let page = unsafe { NonNull::new_unchecked(page) };
        // SAFETY: On s390 all memory is in the identity mapping, so every page has an address.
        let start = unsafe {
            NonNull::new_unchecked(bindings::vfio_helper_page_address(page.as_ptr()).cast::<u8>())
                .add(offset)
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

    /// Writes `value` over the bytes, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the memory is not an aligned doubleword or was not pinned for [`Access::Write`].
    pub fn write_u64(&self, value: u64) -> Result {
        if self.access != Access::Write {
            return Err(EINVAL);
        }
        let word = self.doubleword()?;
        // SAFETY: `word` is valid, aligned and writable by the process. User space may access it
        // at the same time, hence volatile.
        unsafe { word.write_volatile(value) };
        Ok(())
    }

    fn doubleword(&self) -> Result<NonNull<u64>> {
        let word = self.start.cast::<u64>();
        if self.len == size_of::<u64>() && word.is_aligned() {
            Ok(word)
        } else {
            Err(EINVAL)
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the page is pinned, once. Marking it dirty takes the folio
        // lock, so may sleep: a `Pinned` is declared before any guard and dropped after it.
        unsafe {
            match self.access {
                Access::Read => bindings::unpin_user_page(self.page.as_ptr()),
                Access::Write => {
                    let mut page = self.page.as_ptr();
                    bindings::unpin_user_pages_dirty_lock(&raw mut page, 1, true);
                }
            }
        }
    }
}

/// A copy of bytes of the calling process.
///
/// # Invariants
///
/// `len` bytes of `page` are initialized.
pub struct Copied {
    page: Page,
    len: usize,
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
        Ok(Self { page, len })
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
/// `start` is valid for reads of `len` bytes for `'a`.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    start: NonNull<u8>,
    len: usize,
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
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
