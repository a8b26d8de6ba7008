// SPDX-License-Identifier: GPL-2.0

//! The device lock (`dev->mutex`) of a PCI function.
//!
//! C header: [`include/linux/device.h`](srctree/include/linux/device.h)

use crate::bindings;
use kernel::{
    device,
    pci, //
};

/// The lock of a function that is bound for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct DeviceLock<'a>(&'a device::Device<device::Bound>);

impl<'a> DeviceLock<'a> {
    /// The lock of `pdev`.
    #[inline]
    pub(crate) fn of(pdev: &'a pci::Device<device::Bound>) -> Self {
        Self(pdev.as_ref())
    }

    #[inline]
    fn device(self) -> *mut bindings::device {
        // CAST: `device::Device` is a transparent wrapper of `struct device`.
        core::ptr::from_ref(self.0).cast_mut().cast()
    }

    /// Takes the lock if it is free. It belongs to this task then.
    #[inline]
    pub(crate) fn try_lock(self) -> bool {
        // SAFETY: The device is valid.
        unsafe { bindings::vfio_helper_device_trylock(self.device()) != 0 }
    }

    /// Gives the lock back.
    ///
    /// # Safety
    ///
    /// This task holds the lock.
    #[inline]
    pub(crate) unsafe fn unlock(self) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::vfio_helper_device_unlock(self.device()) }
    }

    /// Whether anybody holds the lock; the answer may be outdated at once.
    pub(crate) fn is_locked(self) -> bool {
        // SAFETY: The device is valid.
        unsafe { bindings::mutex_is_locked(&raw mut (*self.device()).mutex) }
    }

    /// Has lockdep check the lock, which it leaves alone in general as locks of parents and
    /// children would look alike, until [`DeviceLock::ignore`].
    ///
    /// # Safety
    ///
    /// The lock is held.
    pub(crate) unsafe fn check(self) {
        if cfg!(CONFIG_ZPCI_VFIO_PCI_DEBUG) {
            // SAFETY: By the safety requirements.
            unsafe { bindings::vfio_helper_device_lock_set_class(self.device()) }
        }
    }

    /// Undoes [`DeviceLock::check`].
    ///
    /// # Safety
    ///
    /// The lock is held.
    pub(crate) unsafe fn ignore(self) {
        if cfg!(CONFIG_ZPCI_VFIO_PCI_DEBUG) {
            // SAFETY: By the safety requirements.
            unsafe { bindings::vfio_helper_device_lock_reset_class(self.device()) }
        }
    }
}
