// SPDX-License-Identifier: GPL-2.0

//! The device object shared by the VFIO core and the driver.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use crate::{
    bindings,
    driver::Driver,
    lease::{
        self,
        Lease, //
    },
    memory,
    zpci, //
};
use core::ptr::NonNull;
use kernel::{
    device,
    error::from_err_ptr,
    pci,
    prelude::*,
    types::Opaque, //
};

/// The generic device of a PCI function.
pub(crate) fn raw(pdev: &pci::Device<device::Bound>) -> *mut bindings::device {
    let device: &device::Device<device::Bound> = pdev.as_ref();
    // CAST: `device::Device` is a transparent wrapper of `struct device`.
    core::ptr::from_ref(device).cast_mut().cast()
}

/// A PCI function bound to a vfio-pci variant driver.
///
/// Allocated, counted and freed by the VFIO core, which wants its own structure first; what belongs
/// to this crate and to the driver follows.
///
/// # Invariants
///
/// - All fields are initialized.
/// - Drivers see a `&Device` only in callbacks that the VFIO core makes between `probe()` and the
///   end of `remove()`, so the PCI function is bound.
#[repr(C)]
pub struct Device<T: Driver> {
    core: Opaque<bindings::vfio_pci_core_device>,
    lease: Lease,
    data: T,
}

impl<T: Driver> Device<T> {
    /// Allocates a device for `pdev`, with the driver's data in it.
    ///
    /// The caller gets the initial reference, to be given back by [`Device::put`].
    pub(crate) fn new(
        pdev: &pci::Device<device::Bound>,
        ops: &'static bindings::vfio_device_ops,
    ) -> Result<NonNull<Self>> {
        const_assert!(core::mem::offset_of!(Self, core) == 0);
        const_assert!(core::mem::offset_of!(bindings::vfio_pci_core_device, vdev) == 0);
        const_assert!(align_of::<Self>() <= bindings::ARCH_KMALLOC_MINALIGN);

        // SAFETY: The device is valid, `ops` static. The allocation is zeroed, has the size and (see
        // above) the alignment of `Self`; the `init` operation fills it in.
        let vdev = from_err_ptr(unsafe {
            bindings::_vfio_alloc_device(size_of::<Self>(), raw(pdev), ops)
        })?;
        NonNull::new(vdev.cast()).ok_or(ENOMEM)
    }

    /// Gives back the initial reference.
    ///
    /// # Safety
    ///
    /// `this` comes from [`Device::new`], is not registered, and is not used afterwards.
    pub(crate) unsafe fn put(this: NonNull<Self>) {
        // SAFETY: By the safety requirements. The VFIO device is the first field.
        unsafe { bindings::vfio_helper_put_device(this.as_ptr().cast()) };
    }

    /// The `init` operation of the VFIO core: fills in a zeroed allocation.
    ///
    /// # Safety
    ///
    /// Called by [`Device::new`] by way of the VFIO core.
    pub(crate) unsafe extern "C" fn init_callback(vdev: *mut bindings::vfio_device) -> c_int {
        // SAFETY: `vdev` is the start of the allocation, of which nothing is in use yet.
        let ret = unsafe { bindings::vfio_pci_core_init_dev(vdev) };
        if ret != 0 {
            return ret;
        }

        let this = vdev.cast::<Self>();
        // SAFETY: The core has set `pdev`, and `probe()` is running for it.
        let pdev = unsafe { Self::pdev(this) };
        let fid = zpci::function_id(pdev);
        // SAFETY: The fields lie in the allocation, which does not move. If the second cannot be
        // initialized, the first is dropped.
        let initialized = unsafe {
            let Ok(()) = pin_init::raw_try_init(&raw mut (*this).lease, Lease::new(fid));
            pin_init::raw_try_init(&raw mut (*this).data, T::new(pdev))
                .inspect_err(|_| core::ptr::drop_in_place(&raw mut (*this).lease))
        };
        match initialized {
            Ok(()) => 0,
            Err(error) => {
                // SAFETY: Undoes `vfio_pci_core_init_dev()`.
                unsafe { bindings::vfio_pci_core_release_dev(vdev) };
                error.to_errno()
            }
        }
    }

    /// The `release` operation of the VFIO core: the last reference is gone.
    ///
    /// # Safety
    ///
    /// Called by the VFIO core with a device made by [`Device::new`].
    pub(crate) unsafe extern "C" fn release_callback(vdev: *mut bindings::vfio_device) {
        let this = vdev.cast::<Self>();
        // SAFETY: All fields are initialized, and nobody else has a reference.
        unsafe {
            core::ptr::drop_in_place(&raw mut (*this).data);
            core::ptr::drop_in_place(&raw mut (*this).lease);
            bindings::vfio_pci_core_release_dev(vdev);
        }
    }

    /// Borrows a device from the VFIO core.
    ///
    /// # Safety
    ///
    /// `raw` is the core's part of a `Device<T>` that is alive, and whose PCI function is bound,
    /// for `'a`.
    #[inline]
    pub(crate) unsafe fn from_raw<'a>(raw: *mut bindings::vfio_pci_core_device) -> &'a Self {
        // SAFETY: By the safety requirements; the core's part is the first field.
        unsafe { &*raw.cast() }
    }

    /// The VFIO core's part.
    #[inline]
    pub(crate) fn as_raw(&self) -> *mut bindings::vfio_pci_core_device {
        self.core.get()
    }

    /// The PCI function.
    ///
    /// # Safety
    ///
    /// The core's part of `this` is initialized, and the PCI function is bound for `'a`.
    unsafe fn pdev<'a>(this: *const Self) -> &'a pci::Device<device::Bound> {
        // SAFETY: By the safety requirements; `pci::Device` is a transparent wrapper.
        unsafe { &*(*Opaque::cast_into(&raw const (*this).core)).pdev.cast() }
    }

    /// The driver's data.
    #[inline]
    pub fn data(&self) -> &T {
        &self.data
    }

    /// Gets the memory space of the function accessible and the device lock held, by this task or
    /// for it; see [`crate::lease`].
    ///
    /// May sleep. Whatever touches user memory has to be done before.
    ///
    /// # Errors
    ///
    /// - `EIO` if the memory space is not accessible: PCI_COMMAND has it disabled, the function is
    ///   in a low-power state or has failed permanently.
    /// - `EINTR` if the task was killed while it waited.
    /// - `EAGAIN` if somebody else held the device lock too long.
    #[inline]
    pub fn lease(&self) -> Result<lease::Guard<'_>> {
        // SAFETY: By the type invariants.
        let pdev = unsafe { Self::pdev(self) };
        lease::Guard::new(&self.lease, pdev, || memory::Guard::new(&self.core))
    }

    /// The `remove()` operation of the PCI bus, up to where the device can be put.
    ///
    /// # Safety
    ///
    /// The device lock is held by the caller, from here until the function is unbound.
    pub(crate) unsafe fn unregister(&self) {
        // First of all, for the core waits until user space has closed the device, and user space
        // may wait for its requests.
        self.lease.announce_removal();

        let core = self.as_raw();
        // SAFETY: The device is registered.
        unsafe { bindings::vfio_pci_core_unregister_device(core) };

        // If the device was open until now, the core could not reset it, for want of the device
        // lock, which is ours. As there, it does not matter if it fails.
        //
        // SAFETY: The device lock is held, and nobody uses the device any more.
        unsafe {
            if (*core).needs_reset && (*core).reset_works() {
                bindings::pci_reset_function_locked((*core).pdev);
            }
        }
    }
}
