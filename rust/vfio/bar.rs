// SPDX-License-Identifier: GPL-2.0

//! BARs that the CPU cannot map, accessed by instructions.
//!
//! The VFIO core refuses to read or write the BARs of such a function (ISM), and one of them can be
//! larger than the 40 bits that the core leaves for the offset in a region. So for these functions,
//! and only for them, the driver serves the BAR regions itself, and all regions are laid out with
//! 48 bits for the offset, as `ism-vfio-pci` does. User space uses the offsets it is told by
//! `VFIO_DEVICE_GET_REGION_INFO` and notices nothing.
//!
//! Accesses to all other regions go to the core with their position translated.

use crate::{
    bindings,
    device::Device,
    driver::Driver, //
};
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    fs::file,
    ioctl::_IO,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Bits of a file position that are the offset in a region.
const SHIFT: u32 = 48;

/// As in the VFIO core, and for functions whose BARs can be mapped.
const CORE_SHIFT: u32 = bindings::VFIO_PCI_OFFSET_SHIFT;

/// `VFIO_DEVICE_IOEVENTFD`, which bindgen does not see.
const IOEVENTFD: c_uint = _IO(bindings::VFIO_TYPE as u32, bindings::VFIO_BASE + 16);

/// How a driver accesses BARs that cannot be mapped.
///
/// Callbacks run in the context of the calling process, several at a time, with no lock held.
pub trait Bars<T: Driver> {
    /// Reads from `offset` of a BAR; the BAR may not exist, and the access may leave it.
    ///
    /// Returns how many bytes were written to `to`.
    fn read(device: &Device<T>, bar: u8, offset: u64, to: UserSliceWriter) -> Result<usize>;

    /// Writes to `offset` of a BAR; the BAR may not exist, and the access may leave it.
    ///
    /// Returns how many bytes of `from` were consumed.
    fn write(device: &Device<T>, bar: u8, offset: u64, from: UserSliceReader) -> Result<usize>;
}

/// Operations of the VFIO device that depend on the layout of its regions.
pub(crate) struct Operations<T>(PhantomData<T>);

/// Where an access goes.
struct Position {
    index: u64,
    offset: u64,
}

impl Position {
    fn new(position: file::Offset) -> Self {
        // CAST: A valid file position is not negative.
        let position = position as u64;
        Self {
            index: position >> SHIFT,
            offset: position & ((1 << SHIFT) - 1),
        }
    }

    /// The BAR, if it is one.
    fn bar(&self) -> Option<u8> {
        let last = u64::from(bindings::VFIO_PCI_BAR5_REGION_INDEX);
        u8::try_from(self.index).ok().filter(|_| self.index <= last)
    }

    /// The same position in the layout of the core; what has none there is beyond all regions
    /// that the core serves, so the last position of the region will do.
    fn to_core(&self) -> file::Offset {
        let offset = self.offset.min((1 << CORE_SHIFT) - 1);
        // CAST: Region indices are small.
        (self.index << CORE_SHIFT | offset) as file::Offset
    }
}

/// BARs of the function cannot be mapped.
fn unmappable(vdev: *mut bindings::vfio_device) -> bool {
    let core = vdev.cast::<bindings::vfio_pci_core_device>();
    // SAFETY: The VFIO core calls the operations with a valid device; the flag is set when the
    // function is scanned.
    unsafe { (*(*core).pdev).non_mappable_bars() != 0 }
}

impl<T: Driver> Operations<T> {
    /// # Safety
    ///
    /// Called by the VFIO core for an open `Device<T>`, with the caller's buffer and file position.
    pub(crate) unsafe extern "C" fn read(
        vdev: *mut bindings::vfio_device,
        buf: *mut u8,
        count: usize,
        ppos: *mut file::Offset,
    ) -> isize {
        // SAFETY: By the safety requirements.
        unsafe {
            Self::access(
                vdev,
                count,
                ppos,
                |device, bar, offset| {
                    let user = UserSlice::new(UserPtr::from_ptr(buf.cast()), count);
                    T::Bars::read(device, bar, offset, user.writer())
                },
                |ppos| bindings::vfio_pci_core_read(vdev, buf, count, ppos),
            )
        }
    }

    /// # Safety
    ///
    /// As for [`Operations::read`].
    pub(crate) unsafe extern "C" fn write(
        vdev: *mut bindings::vfio_device,
        buf: *const u8,
        count: usize,
        ppos: *mut file::Offset,
    ) -> isize {
        // SAFETY: By the safety requirements.
        unsafe {
            Self::access(
                vdev,
                count,
                ppos,
                |device, bar, offset| {
                    let user = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), count);
                    T::Bars::write(device, bar, offset, user.reader())
                },
                |ppos| bindings::vfio_pci_core_write(vdev, buf, count, ppos),
            )
        }
    }

    /// Hands an access to a BAR that cannot be mapped to `to_bar`, any other to `to_core`.
    ///
    /// # Safety
    ///
    /// `vdev` is the VFIO core's part of an open `Device<T>`, `ppos` valid.
    #[inline]
    unsafe fn access(
        vdev: *mut bindings::vfio_device,
        count: usize,
        ppos: *mut file::Offset,
        to_bar: impl FnOnce(&Device<T>, u8, u64) -> Result<usize>,
        to_core: impl FnOnce(*mut file::Offset) -> isize,
    ) -> isize {
        if !unmappable(vdev) {
            return to_core(ppos);
        }
        // As in the core, before anything is checked.
        if count == 0 {
            return 0;
        }
        // SAFETY: By the safety requirements.
        let position = unsafe { &mut *ppos };
        let at = Position::new(*position);
        from_result(|| {
            let done = match at.bar() {
                Some(bar) => {
                    // SAFETY: By the safety requirements; an open device is bound.
                    let device = unsafe { Device::<T>::from_raw(vdev.cast()) };
                    // CAST: No more than the caller asked for.
                    to_bar(device, bar, at.offset)? as isize
                }
                None => {
                    let mut in_core = at.to_core();
                    to_core(&raw mut in_core)
                }
            };
            if done > 0 {
                // CAST: `isize` and `file::Offset` are the same.
                *position += done as file::Offset;
            }
            Ok(done)
        })
    }

    /// # Safety
    ///
    /// Called by the VFIO core for an open `Device<T>`, with structures to fill in.
    pub(crate) unsafe extern "C" fn get_region_info(
        vdev: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let ret = unsafe { bindings::vfio_pci_ioctl_get_region_info(vdev, info, caps) };
        if ret == 0 && unmappable(vdev) {
            // SAFETY: By the safety requirements.
            unsafe { (*info).offset = u64::from((*info).index) << SHIFT };
        }
        ret
    }

    /// # Safety
    ///
    /// Called by the VFIO core for an open `Device<T>`.
    pub(crate) unsafe extern "C" fn mmap(
        vdev: *mut bindings::vfio_device,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        if unmappable(vdev) {
            return EINVAL.to_errno();
        }
        // SAFETY: By the safety requirements.
        unsafe { bindings::vfio_pci_core_mmap(vdev, vma) }
    }

    /// # Safety
    ///
    /// Called by the VFIO core for an open `Device<T>`.
    pub(crate) unsafe extern "C" fn ioctl(
        vdev: *mut bindings::vfio_device,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_long {
        // The core would decode the offset in its own layout, and write to the BAR itself.
        if cmd == IOEVENTFD && unmappable(vdev) {
            // CAST: Lossless.
            return EINVAL.to_errno() as c_long;
        }
        // SAFETY: By the safety requirements.
        unsafe { bindings::vfio_pci_core_ioctl(vdev, cmd, arg) }
    }
}
