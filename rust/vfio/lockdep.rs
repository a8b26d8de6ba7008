// SPDX-License-Identifier: GPL-2.0

//! What lockdep cannot see by itself.
//!
//! `remove()` waits until user space has closed the device, a leader until the other requests have
//! left the lease: waits without a lock. With `CONFIG_ZPCI_VFIO_PCI_DEBUG` lockdep is told of
//! both, and of the device lock that is held meanwhile ([`crate::device_lock`]); without,
//! nothing is executed for it.
//!
//! C header: [`include/linux/lockdep.h`](srctree/include/linux/lockdep.h)

use crate::bindings;
use kernel::{
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

/// A place that tasks enter and leave, and for which others wait until all have left.
#[repr(transparent)]
#[pin_data]
pub(crate) struct Map {
    #[pin]
    map: Opaque<bindings::lockdep_map>,
}

// SAFETY: A map may be used from any task; lockdep serialises what it does with it.
unsafe impl Send for Map {}

// SAFETY: As above.
unsafe impl Sync for Map {}

impl Map {
    /// Returns an initializer for a place in which nobody is.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            map <- Opaque::ffi_init(|map| {
                // SAFETY: `map` is valid for writes, `name` and `key` live for ever.
                unsafe {
                    bindings::vfio_helper_lockdep_init(map, name.as_char_ptr(), key.as_ptr())
                }
            }),
        })
    }

    /// This task has entered, without waiting; it may do so more than once.
    #[inline]
    pub(crate) fn enter(&self) {
        if cfg!(CONFIG_ZPCI_VFIO_PCI_DEBUG) {
            // SAFETY: The map is initialized.
            unsafe { bindings::vfio_helper_lockdep_enter(self.map.get()) }
        }
    }

    /// This task is about to leave.
    #[inline]
    pub(crate) fn leave(&self) {
        if cfg!(CONFIG_ZPCI_VFIO_PCI_DEBUG) {
            // SAFETY: The map is initialized; should the task not be inside, lockdep complains.
            unsafe { bindings::vfio_helper_lockdep_leave(self.map.get()) }
        }
    }

    /// This task is about to wait until all have left.
    #[inline]
    pub(crate) fn wait(&self) {
        if cfg!(CONFIG_ZPCI_VFIO_PCI_DEBUG) {
            // SAFETY: The map is initialized.
            unsafe { bindings::vfio_helper_lockdep_wait(self.map.get()) }
        }
    }
}

#[cfg(all(
    CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST,
    CONFIG_ZPCI_VFIO_PCI_DEBUG,
    CONFIG_LOCKDEP
))]
#[kunit_tests(zpci_vfio_pci_lockdep)]
mod tests {
    use super::*;
    use kernel::static_lock_class;

    #[test]
    fn lockdep_knows_who_is_inside() -> Result {
        let map = KBox::pin_init(
            Map::new(c"zpci_vfio_pci: test", static_lock_class!()),
            GFP_KERNEL,
        )?;
        // SAFETY: The map is initialized.
        let is_held = || unsafe { bindings::lock_is_held_type(map.map.get(), -1) == 1 };

        assert!(!is_held());
        map.enter();
        assert!(is_held());
        map.leave();
        assert!(!is_held());
        // Nobody is inside, so there is nothing to complain of.
        map.wait();
        Ok(())
    }
}
