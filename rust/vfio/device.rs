// SPDX-License-Identifier: GPL-2.0

//! The device object shared by the VFIO core and the driver.
//!
//! C header: [`include/linux/vfio_pci_core.h`](srctree/include/linux/vfio_pci_core.h)

use crate::{
    bindings,
    device_lock::DeviceLock,
    lease::Lease,
    memory,
    zpci::{
        Attempts,
        Function,
        Refusal,
        Zdev, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    device,
    error::{
        from_err_ptr,
        to_result, //
    },
    pci,
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

// (not for the kernel)
#[cfg(linux_7_2)]
use crate::linux_7_2::raw_try_init;
#[cfg(not(linux_7_2))]
// (for the kernel again)
use pin_init::raw_try_init;

/// A PCI function bound to a vfio-pci variant driver.
///
/// Allocated, counted and freed by the VFIO core, which wants its own structure first; what belongs
/// to this crate and to the driver follows.
///
/// # Invariants
///
/// - All fields are initialized, and stay where they are.
/// - There is a `&Device` only between `probe()` and the end of `remove()`, so the PCI function is
///   bound.
#[repr(C)]
pub(crate) struct Device<T> {
    core: Opaque<bindings::vfio_pci_core_device>,
    zdev: Zdev,
    lease: Lease,
    data: T,
}

impl<T> Device<T> {
    /// Allocates a device for `pdev`.
    ///
    /// The caller gets the initial reference, to be given back by [`Device::put`].
    ///
    /// # Safety
    ///
    /// The `init` operation is [`Device::init`], the `release` operation [`Device::release`].
    pub(crate) unsafe fn new(
        pdev: &pci::Device<device::Bound>,
        ops: &'static bindings::vfio_device_ops,
    ) -> Result<NonNull<Self>> {
        const_assert!(core::mem::offset_of!(Self, core) == 0);
        const_assert!(core::mem::offset_of!(bindings::vfio_pci_core_device, vdev) == 0);
        const_assert!(align_of::<Self>() <= bindings::ARCH_KMALLOC_MINALIGN);

        let device: &device::Device<device::Bound> = pdev.as_ref();
        // CAST: `device::Device` is a transparent wrapper of `struct device`.
        let device = core::ptr::from_ref(device).cast_mut().cast();
        // SAFETY: The device is valid, `ops` static. The allocation is zeroed, has the size and
        // (see above) the alignment of `Self`; the `init` operation fills it in.
        let vdev =
            from_err_ptr(unsafe { bindings::_vfio_alloc_device(size_of::<Self>(), device, ops) })?;
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

    /// Fills in a zeroed allocation for `pdev`, with `data` for the driver.
    ///
    /// # Safety
    ///
    /// Called by [`Device::new`] for `pdev`, by way of the VFIO core.
    pub(crate) unsafe fn init(
        vdev: *mut bindings::vfio_device,
        pdev: &pci::Device<device::Bound>,
        data: impl PinInit<T, Error>,
    ) -> Result {
        // SAFETY: `vdev` is the start of the allocation, of which nothing is in use yet.
        to_result(unsafe { bindings::vfio_pci_core_init_dev(vdev) })?;

        let this = vdev.cast::<Self>();
        // SAFETY: The fields lie in the allocation, which does not move, and is not used any more
        // when the PCI function is gone. What has been initialized is undone if the last fails.
        unsafe {
            let zdev = Zdev::new(pdev);
            (&raw mut (*this).zdev).write(zdev);
            let Ok(()) = raw_try_init(&raw mut (*this).lease, Lease::new(zdev.function_id()));
            raw_try_init(&raw mut (*this).data, data).inspect_err(|_| {
                core::ptr::drop_in_place(&raw mut (*this).lease);
                bindings::vfio_pci_core_release_dev(vdev);
            })
        }
    }

    /// The `release` operation of the VFIO core: the last reference is gone.
    ///
    /// # Safety
    ///
    /// Called by the VFIO core with a device made by [`Device::new`].
    pub(crate) unsafe extern "C" fn release(vdev: *mut bindings::vfio_device) {
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

    /// The device lock of the PCI function.
    #[inline]
    fn lock(&self) -> DeviceLock<'_> {
        // SAFETY: By the type invariants; `pci::Device` is a transparent wrapper.
        DeviceLock::of(unsafe { &*(*self.as_raw()).pdev.cast() })
    }

    /// The `remove()` operation of the PCI bus, up to where the device can be put.
    ///
    /// # Safety
    ///
    /// The device lock is held by the caller, from here until the function is unbound.
    pub(crate) unsafe fn unregister(&self) {
        // First of all, for the core waits until user space has closed the device, and user space
        // may wait for its requests.
        //
        // SAFETY: By the safety requirements; the core waits below.
        unsafe { self.lease.announce_removal() };

        let core = self.as_raw();
        // SAFETY: The device is registered.
        unsafe { bindings::vfio_pci_core_unregister_device(core) };

        // If the device was open until now, the core could not reset it, for want of the device
        // lock, which is ours. As there, it does not matter if it fails.
        //
        // SAFETY: The device lock is held, and nobody uses the device any more.
        unsafe {
            if (*core).needs_reset && bindings::vfio_pci_core_device::reset_works_raw(core) {
                bindings::pci_reset_function_locked((*core).pdev);
            }
        }
    }
}

/// A system call that accesses an open device.
///
/// Each callback of a [`Region`] or of [`Bars`] gets one, in the task that made the call. As there
/// is no other, whoever is inside of a lease cannot ask for another one.
///
/// [`Region`]: crate::region::Region
/// [`Bars`]: crate::bar::Bars
pub struct Call<'a, T> {
    device: &'a Device<T>,
    _not_send: NotThreadSafe,
}

impl<'a, T> Call<'a, T> {
    /// The call that the VFIO core passes on.
    ///
    /// # Safety
    ///
    /// `core` is the core's part of a `Device<T>` that is open for `'a`. This task has no other
    /// `Call`.
    #[inline]
    pub(crate) unsafe fn new(core: *mut bindings::vfio_pci_core_device) -> Self {
        Self {
            // SAFETY: By the safety requirements; an open device is registered, thus bound.
            device: unsafe { Device::from_raw(core) },
            _not_send: NotThreadSafe,
        }
    }

    /// The driver's data.
    #[inline]
    pub fn data(&self) -> Pin<&'a T> {
        // SAFETY: By the type invariants of `Device`, it stays where it is.
        unsafe { Pin::new_unchecked(&self.device.data) }
    }

    /// Calls `f` with the memory space of the function accessible and the device lock held, by this
    /// task or for it; see [`crate::lease`].
    ///
    /// Waits for it, if need be. Whatever touches user memory has to be done before or after: in
    /// `f` it fails with `EFAULT`. Others wait for `f` to end, so it must neither sleep nor
    /// allocate.
    ///
    /// While the function is busy, `f` is called again, each time with another lease: so the host
    /// gets the device lock in between. It goes on with what has not been done yet.
    ///
    /// # Errors
    ///
    /// - `EBUSY` if the function stayed busy for at least 1 ms and 100 calls of `f`, or for 5 s.
    /// - `EIO` if the memory space is not accessible: PCI_COMMAND has it disabled, the function is
    ///   in a low-power state or has failed permanently.
    /// - `EINTR` if the task was killed while it waited.
    /// - `EAGAIN` if somebody else held the device lock too long.
    /// - What `f` returns.
    #[inline]
    pub fn with_lease<R>(
        &mut self,
        mut f: impl for<'f> FnMut(&'f Function<'f>) -> Result<R, Refusal>,
    ) -> Result<R> {
        let device = self.device;
        let memory = || memory::Guard::new(&device.core);
        let mut attempts = Attempts::first();
        loop {
            let result = device.lease.with(device.lock(), memory, |inside| {
                // SAFETY: `zdev` and the lease are those of the same device.
                f(&unsafe { Function::new(device.zdev, inside, attempts.number()) })
            })?;
            match result {
                Err(Refusal::Busy) if attempts.another() => {}
                result => return Ok(result?),
            }
        }
    }
}
