// SPDX-License-Identifier: GPL-2.0

//! What later kernels have and Linux 7.2 has not, or by another name. It goes when 7.2 does.

use kernel::prelude::*;

/// Memory barriers, as `kernel::sync::barrier` names them later.
pub(crate) mod barrier {
    /// Orders loads and stores.
    pub(crate) struct Full;

    /// A memory barrier between CPUs.
    #[inline]
    pub(crate) fn smp_mb(_: Full) {
        kernel::sync::barrier::smp_mb()
    }
}

/// As `pin_init::raw_try_init()`.
///
/// # Safety
///
/// `slot` points to memory for a `T` that nobody uses; on success it does not move until the value is
/// dropped, on failure there is no value.
#[inline]
pub(crate) unsafe fn raw_try_init<T, E>(slot: *mut T, init: impl PinInit<T, E>) -> Result<(), E> {
    // SAFETY: By the safety requirements.
    unsafe { init.__pinned_init(slot) }
}

/// As that of `driver.rs`. The table is no part of what user space is told: that is made of it.
#[macro_export]
macro_rules! vfio_pci_device_table {
    ($name:ident, [$($id:expr),* $(,)?]) => {
        const $name: ::kernel::device_id::IdArray<
            $crate::driver::DeviceId,
            (),
            { <[$crate::driver::DeviceId]>::len(&[$($id),*]) },
        > = ::kernel::device_id::IdArray::new_without_index([$(($id, ())),*]);
        const _: () = {
            ::kernel::module_device_table!("pci", TABLE, $name);
        };
    };
}
