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
    device::Call, //
};
use core::marker::PhantomData;
use kernel::{
    device,
    error::from_result,
    fs::file,
    ioctl::_IO,
    pci,
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
pub trait Bars<T> {
    /// Reads from `offset` of a BAR; the BAR may not exist, and the access may leave it.
    ///
    /// Returns how many bytes were written to `to`.
    fn read(call: &mut Call<'_, T>, bar: u8, offset: u64, to: UserSliceWriter) -> Result<usize>;

    /// Writes to `offset` of a BAR; the BAR may not exist, and the access may leave it.
    ///
    /// Returns how many bytes of `from` were consumed; more than there are is `EINVAL` for the
    /// caller, here and above.
    fn write(call: &mut Call<'_, T>, bar: u8, offset: u64, from: UserSliceReader) -> Result<usize>;
}

/// Operations of a VFIO device whose BARs cannot be mapped.
pub(crate) struct Operations<T, B>(PhantomData<(T, B)>);

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

/// Whether BARs of the function cannot be mapped.
pub(crate) fn unmappable(pdev: &pci::Device<device::Bound>) -> bool {
    // CAST: `pci::Device` is a transparent wrapper of `struct pci_dev`.
    let pdev: *const bindings::pci_dev = core::ptr::from_ref(pdev).cast();
    // SAFETY: The function is valid; the flag is set when it is scanned.
    unsafe { bindings::pci_dev::non_mappable_bars_raw(pdev) != 0 }
}

impl<T, B: Bars<T>> Operations<T, B> {
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
                |call, bar, offset| {
                    let user = UserSlice::new(UserPtr::from_ptr(buf.cast()), count);
                    B::read(call, bar, offset, user.writer())
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
                |call, bar, offset| {
                    let user = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), count);
                    B::write(call, bar, offset, user.reader())
                },
                |ppos| bindings::vfio_pci_core_write(vdev, buf, count, ppos),
            )
        }
    }

    /// Hands an access to a BAR to `to_bar`, any other to `to_core`.
    ///
    /// # Safety
    ///
    /// `vdev` is the VFIO core's part of an open `Device<T>`, `ppos` valid.
    #[inline]
    unsafe fn access(
        vdev: *mut bindings::vfio_device,
        count: usize,
        ppos: *mut file::Offset,
        to_bar: impl FnOnce(&mut Call<'_, T>, u8, u64) -> Result<usize>,
        to_core: impl FnOnce(*mut file::Offset) -> isize,
    ) -> isize {
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
                    // SAFETY: By the safety requirements; this is the only one of this task.
                    let mut call = unsafe { Call::new(vdev.cast()) };
                    let done = to_bar(&mut call, bar, at.offset)?;
                    if done > count {
                        return Err(EINVAL);
                    }
                    // CAST: No more than the caller asked for.
                    done as isize
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
        if ret == 0 {
            // SAFETY: By the safety requirements.
            unsafe { (*info).offset = u64::from((*info).index) << SHIFT };
        }
        ret
    }

    /// # Safety
    ///
    /// Called by the VFIO core for an open `Device<T>`.
    pub(crate) unsafe extern "C" fn mmap(
        _vdev: *mut bindings::vfio_device,
        _vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        EINVAL.to_errno()
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
        if cmd == IOEVENTFD {
            // CAST: Lossless.
            return EINVAL.to_errno() as c_long;
        }
        // SAFETY: By the safety requirements.
        unsafe { bindings::vfio_pci_core_ioctl(vdev, cmd, arg) }
    }
}
