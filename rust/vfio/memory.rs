// SPDX-License-Identifier: GPL-2.0

//! The memory space of a function may be accessed.
//!
//! The VFIO core takes `memory_lock` for write whenever it makes the memory space of a function
//! inaccessible: PCI_COMMAND, power state, `VFIO_DEVICE_RESET`, hot reset. Whoever accesses the
//! memory space holds it for read, as `vfio_pci_core_do_io_rw()` does.

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// Holds `memory_lock` for read, with the memory space of the function enabled.
///
/// # Invariants
///
/// This task holds `memory_lock` of `core` for read.
pub struct Guard<'a> {
    core: &'a Opaque<bindings::vfio_pci_core_device>,
    _not_send: NotThreadSafe,
}

impl<'a> Guard<'a> {
    /// Takes the lock and checks that the function can be accessed.
    ///
    /// May sleep. No lock that nests inside `memory_lock` may be held (the device lock among them),
    /// and none that is taken around user memory accesses: the page fault handler of a mapped BAR
    /// takes `mmap_lock` first and `memory_lock` second.
    ///
    /// # Errors
    ///
    /// - `EINTR` if the task was killed while it waited.
    /// - `EIO` if PCI_COMMAND has the memory space disabled, the function is in a low-power state,
    ///   or it has failed permanently.
    pub(crate) fn new(core: &'a Opaque<bindings::vfio_pci_core_device>) -> Result<Self> {
        let raw = core.get();
        // SAFETY: `core` is an initialized device, so is its lock.
        to_result(unsafe { bindings::down_read_killable(&raw mut (*raw).memory_lock) })?;

        // INVARIANT: The lock was just taken.
        let guard = Self {
            core,
            _not_send: NotThreadSafe,
        };

        // SAFETY: `raw` is valid and `memory_lock` is held, as the function requires.
        if !unsafe { bindings::__vfio_pci_memory_enabled(raw) } {
            return Err(EIO);
        }

        // Other error states do not count: `pci_channel_io_frozen` stays set after a recovery that
        // user space mediates.
        //
        // SAFETY: `pdev` is valid as long as the device is; events change `error_state` at any
        // time, so it is read once and volatile.
        let state = unsafe { (&raw const (*(*raw).pdev).error_state).read_volatile() };
        if state == bindings::pci_channel_io_perm_failure {
            return Err(EIO);
        }

        Ok(guard)
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant, this task holds the lock.
        unsafe { bindings::up_read(&raw mut (*self.core.get()).memory_lock) };
    }
}
