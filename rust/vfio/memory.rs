// SPDX-License-Identifier: GPL-2.0

//! The memory space of a function may be accessed.
//!
//! The VFIO core takes `memory_lock` for write whenever it makes the memory space of a function
//! inaccessible: PCI_COMMAND, power state, `VFIO_DEVICE_RESET`, hot reset. Whoever accesses the
//! memory space holds it for read, as `vfio_pci_core_do_io_rw()` does.

use crate::bindings;
use kernel::{
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// Holds `memory_lock` for read, with the memory space of the function enabled.
///
/// This task does not fault meanwhile: accesses to user memory fail with `EFAULT`. The page fault
/// handler of a mapped BAR takes `memory_lock`, too, and would wait for a writer that waits for us.
///
/// # Invariants
///
/// This task holds `memory_lock` of `core` for read, and has disabled page faults once.
pub(crate) struct Guard<'a> {
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
    /// - `EIO` if PCI_COMMAND has the memory space disabled (a virtual function has no bit for it),
    ///   the function is in a low-power state, or it has failed permanently.
    #[inline]
    pub(crate) fn new(core: &'a Opaque<bindings::vfio_pci_core_device>) -> Result<Self> {
        let raw = core.get();
        // SAFETY: `core` is an initialized device, so is its lock.
        if unsafe { bindings::down_read_killable(&raw mut (*raw).memory_lock) } != 0 {
            return Err(EINTR);
        }
        // SAFETY: Undone when the guard is dropped, by this task.
        unsafe { bindings::vfio_helper_pagefault_disable() };

        // INVARIANT: The lock was just taken, and page faults disabled.
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
        // SAFETY: By the type invariant, this task has disabled page faults and holds the lock.
        unsafe {
            bindings::vfio_helper_pagefault_enable();
            bindings::up_read(&raw mut (*self.core.get()).memory_lock);
        }
    }
}

/// Checks, in debug builds, that this task has no [`Guard`]: called where user memory is touched
/// that is mapped, so that nothing else would notice.
///
/// As [`crate::lease::Inside::debug_check`], not to be inlined with a body.
#[cfg_attr(CONFIG_ZPCI_VFIO_PCI_DEBUG, inline(never))]
#[cfg_attr(not(CONFIG_ZPCI_VFIO_PCI_DEBUG), inline)]
pub(crate) fn debug_check_unguarded() {
    #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
    kernel::warn_on!(faults_are_disabled());
}

/// Whether page faults are disabled for this task.
#[cfg(any(CONFIG_ZPCI_VFIO_PCI_DEBUG, CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST))]
fn faults_are_disabled() -> bool {
    // SAFETY: The current task is there, and only it changes the number.
    unsafe { (*bindings::get_current()).pagefault_disabled != 0 }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_memory)]
mod tests {
    use super::*;
    use crate::wait_queue::as_killed;
    use core::cell::Cell;
    use kernel::static_lock_class;

    const D0: c_int = 0;
    const D3HOT: c_int = 3;

    /// The count of a rw_semaphore that is held for write (`RWSEM_WRITER_LOCKED`).
    const HELD_FOR_WRITE: i64 = 1;

    /// The PCI_COMMAND of a virtual function, which has no bit for the memory space.
    const VIRTUAL_FUNCTION: Option<u32> = None;

    /// What [`Guard::new`] says about a device of which only that works which it looks at.
    fn guard(command: u32, power: c_int, state: bindings::pci_channel_state_t) -> Result {
        guarded(0, Some(command), power, state, || ())
    }

    /// What `f` returns under such a guard. The count of `memory_lock` is `held`, by somebody whom
    /// lockdep does not know.
    fn guarded<R>(
        held: i64,
        command: Option<u32>,
        power: c_int,
        state: bindings::pci_channel_state_t,
        f: impl FnOnce() -> R,
    ) -> Result<R> {
        let core = KBox::<Opaque<bindings::vfio_pci_core_device>>::init(
            pin_init::init_zeroed(),
            GFP_KERNEL,
        )?;
        let function =
            KBox::<Opaque<bindings::pci_dev>>::init(pin_init::init_zeroed(), GFP_KERNEL)?;
        let config = Cell::new([0_u8; 64]);
        let mut bytes = config.get();
        bytes[bindings::PCI_COMMAND as usize] = command.unwrap_or_default() as u8;
        config.set(bytes);

        let raw = core.get();
        // SAFETY: All of it stays in place until the end of the test; name and key live for ever.
        unsafe {
            (*raw).pdev = function.get();
            (*raw).vconfig = config.as_ptr().cast();
            (*function.get()).set_no_command_memory((command == VIRTUAL_FUNCTION).into());
            (*function.get()).current_state = power;
            (*function.get()).error_state = state;
            bindings::__init_rwsem(
                &raw mut (*raw).memory_lock,
                c"zpci_vfio_pci: test".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
        // SAFETY: The lock is initialized, and nobody else uses it.
        unsafe { (*raw).memory_lock.count.counter = held };
        let result = Guard::new(&core).map(|_guard| f());

        // SAFETY: The lock is initialized.
        unsafe {
            let lock = &raw mut (*raw).memory_lock;
            (*lock).count.counter -= held;
            assert!(bindings::down_write_trylock(lock) == 1);
            bindings::up_write(lock);
        }
        result
    }

    #[test]
    fn memory_space_is_enabled_in_the_command_register() {
        let normal = bindings::pci_channel_io_normal;
        assert!(guard(bindings::PCI_COMMAND_MEMORY, D0, normal) == Ok(()));
        assert!(guard(!bindings::PCI_COMMAND_MEMORY, D0, normal) == Err(EIO));
    }

    #[test]
    fn a_virtual_function_has_no_such_bit() {
        let normal = bindings::pci_channel_io_normal;
        assert!(guarded(0, VIRTUAL_FUNCTION, D0, normal, || ()) == Ok(()));
        assert!(guarded(0, VIRTUAL_FUNCTION, D3HOT, normal, || ()) == Err(EIO));
    }

    #[test]
    fn a_killed_task_does_not_wait_for_memory_lock() {
        let normal = bindings::pci_channel_io_normal;
        let command = Some(bindings::PCI_COMMAND_MEMORY);
        let guard = || guarded(HELD_FOR_WRITE, command, D0, normal, || ());
        assert!(as_killed(guard) == Err(EINTR));
    }

    #[test]
    fn page_faults_are_disabled_meanwhile() {
        let guard = |command| {
            let normal = bindings::pci_channel_io_normal;
            guarded(0, Some(command), D0, normal, faults_are_disabled)
        };
        assert!(guard(bindings::PCI_COMMAND_MEMORY) == Ok(true));
        assert!(!faults_are_disabled());
        assert!(guard(!bindings::PCI_COMMAND_MEMORY) == Err(EIO));
        assert!(!faults_are_disabled());
    }

    #[test]
    fn low_power_state_makes_it_inaccessible() {
        let normal = bindings::pci_channel_io_normal;
        assert!(guard(bindings::PCI_COMMAND_MEMORY, D3HOT, normal) == Err(EIO));
    }

    #[test]
    fn of_the_error_states_only_permanent_failure_does() {
        let state = |state| guard(bindings::PCI_COMMAND_MEMORY, D0, state);
        assert!(state(bindings::pci_channel_io_frozen) == Ok(()));
        assert!(state(bindings::pci_channel_io_perm_failure) == Err(EIO));
    }
}
