// SPDX-License-Identifier: GPL-2.0

//! Device regions of a vfio-pci variant driver.
//!
//! User space finds a region by its type and subtype (`VFIO_REGION_INFO_CAP_TYPE`) and accesses it
//! with pread() and pwrite().
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use crate::{
    bindings,
    device::{
        Call,
        Device, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    fs::file,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Type of a region: who defines its subtypes.
#[derive(Clone, Copy)]
pub struct Type(u32);

impl Type {
    /// Subtypes are defined by the PCI vendor.
    pub const fn pci_vendor(vendor: u16) -> Self {
        // CAST: Lossless; `From` is not const.
        Self(bindings::VFIO_REGION_TYPE_PCI_VENDOR_TYPE | vendor as u32)
    }
}

/// A region that can be read and written.
///
/// Callbacks run in the context of the calling process, several of them at a time, with no lock
/// held, and with the runtime power management reference of the VFIO core.
pub trait Region<T> {
    /// Who defines the subtype.
    const TYPE: Type;

    /// What the region is.
    const SUBTYPE: u32;

    /// Size in bytes, at most [`OFFSET_MASK`].
    const SIZE: usize;

    /// Reads at `offset` of the region, which may lie beyond its end.
    ///
    /// Returns how many bytes were written to `to`.
    fn read(call: &mut Call<'_, T>, offset: u64, to: UserSliceWriter) -> Result<usize>;

    /// Writes at `offset` of the region, which may lie beyond its end.
    ///
    /// Returns how many bytes of `from` were consumed; more than there are is `EINVAL` for the
    /// caller, here and above.
    fn write(call: &mut Call<'_, T>, offset: u64, from: UserSliceReader) -> Result<usize>;
}

/// The bits of a file position that are the offset in a region (`VFIO_PCI_OFFSET_MASK`).
const OFFSET_MASK: u64 = (1 << bindings::VFIO_PCI_OFFSET_SHIFT) - 1;

/// The device is being opened: now its regions are added.
pub struct Opening<'a, T>(&'a Device<T>);

impl<'a, T> Opening<'a, T> {
    /// # Safety
    ///
    /// The core has enabled the device, and nobody can use it yet.
    pub(crate) unsafe fn new(device: &'a Device<T>) -> Self {
        Self(device)
    }

    /// Adds a region, which lasts until the device is closed.
    pub fn add_region<R: Region<T>>(&self) -> Result {
        const_assert!(R::SIZE as u64 <= OFFSET_MASK);

        // SAFETY: By what `new()` requires. The operations are static.
        to_result(unsafe {
            bindings::vfio_pci_core_register_dev_region(
                self.0.as_raw(),
                R::TYPE.0,
                R::SUBTYPE,
                &VTable::<T, R>::OPS,
                R::SIZE,
                bindings::VFIO_REGION_INFO_FLAG_READ | bindings::VFIO_REGION_INFO_FLAG_WRITE,
                core::ptr::null_mut(),
            )
        })
    }
}

/// C callbacks of a region.
struct VTable<T, R>(PhantomData<(T, R)>);

impl<T, R: Region<T>> VTable<T, R> {
    const OPS: bindings::vfio_pci_regops = bindings::vfio_pci_regops {
        rw: Some(Self::rw),
        // The core calls it without asking whether it is there.
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the VFIO core for a region of an open `Device<T>`, with the caller's buffer and
    /// file position.
    unsafe extern "C" fn rw(
        core: *mut bindings::vfio_pci_core_device,
        buf: *mut u8,
        count: usize,
        ppos: *mut file::Offset,
        write: bool,
    ) -> isize {
        // SAFETY: By the safety requirements; this is the only one that this task makes.
        let mut call = unsafe { Call::new(core) };
        // SAFETY: The position is the caller's own copy.
        let position = unsafe { &mut *ppos };
        // CAST: A valid file position is not negative; the region's index is in its upper bits.
        let offset = *position as u64 & OFFSET_MASK;

        let user = UserSlice::new(UserPtr::from_ptr(buf.cast()), count);
        let done = if write {
            R::write(&mut call, offset, user.reader())
        } else {
            R::read(&mut call, offset, user.writer())
        };
        match done {
            Ok(bytes) if bytes <= count => {
                // CAST: Bounded by the size of a region, see `add_region()`.
                *position += bytes as file::Offset;
                bytes as isize
            }
            Ok(_) => EINVAL.to_errno() as isize,
            // CAST: Error numbers are small.
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core.
    unsafe extern "C" fn release(
        _core: *mut bindings::vfio_pci_core_device,
        _region: *mut bindings::vfio_pci_region,
    ) {
    }
}
