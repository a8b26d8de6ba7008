// SPDX-License-Identifier: GPL-2.0

//! Registration of a vfio-pci variant driver with the PCI bus and the VFIO core.
//!
//! `kernel::pci::Driver` does not fit: it keeps the driver's data in the `drvdata` of the PCI
//! device, where the VFIO core wants its own structure. This is its sibling for variant drivers, on
//! the same generic infrastructure ([`kernel::driver`]).

use crate::{
    bar::{
        self,
        Bars, //
    },
    bindings,
    device::Device,
    device_lock::DeviceLock,
    region::Opening, //
};
use core::ptr::NonNull;
use kernel::{
    container_of,
    device,
    device_id::RawDeviceId,
    driver::{
        DriverLayout,
        RegistrationOps, //
    },
    error::{
        from_result,
        to_result, //
    },
    pci,
    prelude::*,
    str::as_char_ptr_in_const_context,
    types::Opaque,
    ThisModule, //
};

/// A PCI id of a function for which a VFIO driver may ask by driver_override.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::pci_device_id);

impl DeviceId {
    /// Equivalent to C's `PCI_DRIVER_OVERRIDE_DEVICE_VFIO`: the driver is a candidate for the
    /// function (`modules.alias` has a `vfio_pci:` line), but never binds to it by itself.
    pub const fn vfio(vendor: u16, device: u16) -> Self {
        // CAST: Lossless; `From` is not const.
        Self(bindings::pci_device_id {
            vendor: vendor as u32,
            device: device as u32,
            subvendor: !0,
            subdevice: !0,
            class: 0,
            class_mask: 0,
            driver_data: 0,
            override_only: bindings::PCI_ID_F_VFIO_DRIVER_OVERRIDE,
        })
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `struct pci_device_id` without further invariants.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::pci_device_id;
}

/// Table of the functions a driver is a candidate for.
pub type IdTable = &'static dyn kernel::device_id::IdTable<DeviceId, ()>;

/// Makes a table for an [`IdTable`], and tells user space of it (`modules.alias`).
// (not for the kernel)
#[cfg(not(linux_7_2))]
// (for the kernel again)
#[macro_export]
macro_rules! vfio_pci_device_table {
    ($name:ident, [$($id:expr),* $(,)?]) => {
        ::kernel::module_device_table!(
            "pci",
            $crate::driver::DeviceId,
            $name,
            @none,
            [$($id),*]
        );
    };
}

/// A vfio-pci variant driver. The implementing type is the driver's data of one device.
pub trait Driver: Sized + Send + Sync + 'static {
    /// Name of the driver for VFIO.
    const NAME: &'static CStr;

    /// The functions it is a candidate for; others are bound by driver_override as well.
    const ID_TABLE: IdTable;

    /// How BARs that cannot be mapped are accessed.
    type Bars: Bars<Self>;

    /// Makes the data of a device when it is bound.
    fn new(pdev: &pci::Device<device::Bound>) -> impl PinInit<Self, Error>;

    /// The first file of the device is being opened; the core has enabled the function.
    fn open(opening: &Opening<'_, Self>) -> Result;
}

/// Connects a [`Driver`] to the PCI bus and the VFIO core.
pub struct Adapter<T: Driver>(T);

// SAFETY: `bindings::pci_driver` is a C type, declared `repr(C)`, with a `struct device_driver` at
// `DEVICE_DRIVER_OFFSET`. The private data of the PCI device is the VFIO core's, which the generic
// infrastructure must not free: a failed `probe_callback()` and `remove_callback()` leave none.
unsafe impl<T: Driver> DriverLayout for Adapter<T> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = ();
    const DEVICE_DRIVER_OFFSET: usize = core::mem::offset_of!(bindings::pci_driver, driver);
}

// SAFETY: `unregister()` undoes a successful `register()` for the same driver.
unsafe impl<T: Driver> RegistrationOps for Adapter<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let raw = driver.get();
        // SAFETY: The driver is not registered yet, so its fields may be set.
        unsafe {
            (*raw).name = name.as_char_ptr();
            (*raw).id_table = T::ID_TABLE.as_ptr();
            (*raw).probe = Some(Self::probe_callback);
            (*raw).remove = Some(Self::remove_callback);
            // Recovery from errors asks for `error_detected`.
            (*raw).err_handler = &raw const bindings::vfio_pci_core_err_handlers;
            // User space owns the IOMMU domain.
            (*raw).driver_managed_dma = true;
        }

        // SAFETY: `raw` is valid, and pinned until it is unregistered.
        to_result(unsafe {
            bindings::__pci_register_driver(raw, module.as_ptr(), name.as_char_ptr())
        })
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: The driver is registered.
        unsafe { bindings::pci_unregister_driver(driver.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    /// Operations on a function whose BARs can be mapped: those of vfio-pci, to which the driver
    /// adds its regions when the device is opened.
    const OPS: bindings::vfio_device_ops = bindings::vfio_device_ops {
        name: as_char_ptr_in_const_context(T::NAME).cast_mut(),
        init: Some(Self::init_callback),
        release: Some(Device::<T>::release),
        open_device: Some(Self::open_device_callback),
        close_device: Some(bindings::vfio_pci_core_close_device),
        ioctl: Some(bindings::vfio_pci_core_ioctl),
        get_region_info_caps: Some(bindings::vfio_pci_ioctl_get_region_info),
        device_feature: Some(bindings::vfio_pci_core_ioctl_feature),
        read: Some(bindings::vfio_pci_core_read),
        write: Some(bindings::vfio_pci_core_write),
        mmap: Some(bindings::vfio_pci_core_mmap),
        request: Some(bindings::vfio_pci_core_request),
        match_: Some(bindings::vfio_pci_core_match),
        match_token_uuid: Some(bindings::vfio_pci_core_match_token_uuid),
        bind_iommufd: Some(bindings::vfio_iommufd_physical_bind),
        unbind_iommufd: Some(bindings::vfio_iommufd_physical_unbind),
        attach_ioas: Some(bindings::vfio_iommufd_physical_attach_ioas),
        detach_ioas: Some(bindings::vfio_iommufd_physical_detach_ioas),
        pasid_attach_ioas: Some(bindings::vfio_iommufd_physical_pasid_attach_ioas),
        pasid_detach_ioas: Some(bindings::vfio_iommufd_physical_pasid_detach_ioas),
        ..pin_init::zeroed()
    };

    /// Operations on a function whose BARs cannot be mapped.
    const UNMAPPABLE_OPS: bindings::vfio_device_ops = bindings::vfio_device_ops {
        ioctl: Some(bar::Operations::<T, T::Bars>::ioctl),
        get_region_info_caps: Some(bar::Operations::<T, T::Bars>::get_region_info),
        read: Some(bar::Operations::<T, T::Bars>::read),
        write: Some(bar::Operations::<T, T::Bars>::write),
        mmap: Some(bar::Operations::<T, T::Bars>::mmap),
        ..Self::OPS
    };

    extern "C" fn probe_callback(
        pdev: *mut bindings::pci_dev,
        _id: *const bindings::pci_device_id,
    ) -> c_int {
        // SAFETY: The PCI bus calls with a valid device, which is bound while `probe()` runs.
        let bound = unsafe { &*pdev.cast::<pci::Device<device::Bound>>() };

        from_result(|| {
            let ops = if bar::unmappable(bound) {
                &Self::UNMAPPABLE_OPS
            } else {
                &Self::OPS
            };
            // SAFETY: The operations are those of `Device`.
            let device = unsafe { Device::<T>::new(bound, ops)? };
            // SAFETY: The driver core holds the device lock while it calls `probe()`.
            unsafe { DeviceLock::of(bound).check() };
            // SAFETY: `pdev` is valid, and this driver is the one being bound to it. Nothing may
            // fail after the registration: the device could be open by then.
            let ret = unsafe {
                let core = device.as_ptr().cast::<bindings::vfio_pci_core_device>();
                (*core).pci_ops = &raw const bindings::vfio_helper_pci_ops;
                bindings::dev_set_drvdata(&raw mut (*pdev).dev, core.cast());
                bindings::vfio_pci_core_register_device(core)
            };
            if ret != 0 {
                // SAFETY: As above; `device` was not registered, and is not used again.
                unsafe {
                    DeviceLock::of(bound).ignore();
                    bindings::dev_set_drvdata(&raw mut (*pdev).dev, core::ptr::null_mut());
                    Device::put(device);
                }
            }
            to_result(ret).map(|()| 0)
        })
    }

    extern "C" fn remove_callback(pdev: *mut bindings::pci_dev) {
        // SAFETY: The PCI bus calls with a valid device after a successful `probe_callback()`,
        // which has left the device object there. It is bound while `remove()` runs.
        let (bound, device) = unsafe {
            (
                &*pdev.cast::<pci::Device<device::Bound>>(),
                NonNull::new_unchecked(
                    bindings::dev_get_drvdata(&raw const (*pdev).dev).cast::<Device<T>>(),
                ),
            )
        };
        // SAFETY: The driver core holds the device lock while it calls `remove()`. Afterwards the
        // device is not registered, and this was the last to use it.
        unsafe {
            device.as_ref().unregister();
            DeviceLock::of(bound).ignore();
            bindings::dev_set_drvdata(&raw mut (*pdev).dev, core::ptr::null_mut());
            Device::put(device);
        }
    }

    /// # Safety
    ///
    /// Called by [`Device::new`] by way of the VFIO core.
    unsafe extern "C" fn init_callback(vdev: *mut bindings::vfio_device) -> c_int {
        // SAFETY: The core has set `dev`, the device of the PCI function for which `probe()` runs.
        let pdev = unsafe {
            &*container_of!((*vdev).dev, bindings::pci_dev, dev)
                .cast::<pci::Device<device::Bound>>()
        };
        // SAFETY: By the safety requirements.
        from_result(|| unsafe { Device::<T>::init(vdev, pdev, T::new(pdev)) }.map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by the VFIO core for a registered device.
    unsafe extern "C" fn open_device_callback(vdev: *mut bindings::vfio_device) -> c_int {
        let core = vdev.cast::<bindings::vfio_pci_core_device>();

        from_result(|| {
            // SAFETY: By the safety requirements; nobody else opens or uses the device.
            to_result(unsafe { bindings::vfio_pci_core_enable(core) })?;

            // SAFETY: The core's device is the first field of a registered, thus bound, device.
            let device = unsafe { Device::<T>::from_raw(core) };
            // SAFETY: The device is enabled, and not open yet.
            T::open(&unsafe { Opening::new(device) }).inspect_err(|_| {
                // SAFETY: Undoes `vfio_pci_core_enable()`, and frees the regions.
                unsafe { bindings::vfio_pci_core_disable(core) }
            })?;

            // SAFETY: The device is enabled.
            unsafe { bindings::vfio_pci_core_finish_enable(core) };
            Ok(0)
        })
    }
}

/// Declares a kernel module that is a single vfio-pci variant driver.
#[macro_export]
macro_rules! module_vfio_pci_driver {
    ($($f:tt)*) => {
        ::kernel::module_driver!(<T>, $crate::driver::Adapter<T>, { $($f)* });
    };
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_driver)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    /// A driver, and the first device that is bound to it.
    struct Bound {
        driver: *const bindings::pci_driver,
        device: *mut bindings::device,
        core: *const bindings::vfio_pci_core_device,
    }

    impl Bound {
        /// A function of a driver of the VFIO core; nothing if it has none.
        fn to(name: &CStr) -> Option<Self> {
            // SAFETY: The name is a string, and `driver` is used as long as its module is loaded,
            // which the reference to its device sees to.
            unsafe {
                let bus = &raw const bindings::pci_bus_type;
                let driver = bindings::driver_find(name.as_char_ptr(), bus);
                if driver.is_null() {
                    return None;
                }
                let device = bindings::driver_find_device(
                    driver,
                    core::ptr::null_mut(),
                    core::ptr::null(),
                    Some(bindings::device_match_any),
                );
                (!device.is_null()).then(|| Self {
                    driver: container_of!(driver, bindings::pci_driver, driver),
                    device,
                    core: bindings::dev_get_drvdata(device).cast(),
                })
            }
        }
    }

    impl Drop for Bound {
        fn drop(&mut self) {
            // SAFETY: `driver_find_device()` has got the reference.
            unsafe { bindings::put_device(self.device) }
        }
    }

    /// A function that is bound to vfio-pci, and one that is bound to this driver. Where the test
    /// is loaded without them, it is skipped.
    fn both() -> Option<[Bound; 2]> {
        let both = Bound::to(c"vfio-pci").zip(Bound::to(c"zpci_vfio_pci"));
        if both.is_none() {
            // SAFETY: This is a test.
            unsafe {
                (*bindings::kunit_get_current_test()).status = bindings::kunit_status_KUNIT_SKIPPED;
            }
        }
        both.map(<[_; 2]>::from)
    }

    /// A structure of pointers, as numbers.
    ///
    /// # Safety
    ///
    /// `of` is valid, and has nothing but pointers.
    unsafe fn pointers<T, const N: usize>(of: *const T) -> [usize; N] {
        const_assert!(size_of::<T>() == size_of::<[usize; N]>());
        // SAFETY: By the safety requirements.
        unsafe { of.cast::<[usize; N]>().read() }
    }

    #[test]
    fn device_operations_are_those_of_vfio_pci() {
        type Ops = bindings::vfio_device_ops;
        const N: usize = size_of::<Ops>() / size_of::<usize>();
        /// What each driver has of its own.
        const OWN: [usize; 4] = [
            offset_of!(Ops, name),
            offset_of!(Ops, init),
            offset_of!(Ops, release),
            offset_of!(Ops, open_device),
        ];
        let Some(both) = both() else { return };

        // SAFETY: The devices are bound, thus registered.
        let [theirs, ours] = both
            .each_ref()
            .map(|bound| unsafe { pointers::<_, N>((*bound.core).vdev.ops) });
        for (at, (theirs, ours)) in theirs.into_iter().zip(ours).enumerate() {
            if OWN.contains(&(at * size_of::<usize>())) {
                assert!(theirs != 0 && ours != 0);
            } else {
                assert!(theirs == ours);
            }
        }
    }

    #[test]
    fn pci_operations_are_those_of_vfio_pci() {
        type Ops = bindings::vfio_pci_device_ops;
        const N: usize = size_of::<Ops>() / size_of::<usize>();
        let Some(both) = both() else { return };

        // SAFETY: The devices are bound, thus registered.
        let [theirs, ours] = both
            .each_ref()
            .map(|bound| unsafe { (*bound.core).pci_ops });
        assert!(!theirs.is_null() && !ours.is_null());
        // SAFETY: As vfio-pci does, so do we: they are static.
        let [theirs, ours] = [theirs, ours].map(|ops| unsafe { pointers::<_, N>(ops) });
        // An inline function is another one in each module.
        assert!(theirs.map(|op| op != 0) == ours.map(|op| op != 0));
    }

    #[test]
    fn driver_is_as_vfio_pci_but_for_sriov() {
        let Some(both) = both() else { return };
        // SAFETY: The drivers are registered, see `Bound`.
        let [theirs, ours] = both.each_ref().map(|bound| unsafe { &*bound.driver });

        assert!(ours.err_handler == theirs.err_handler && !ours.err_handler.is_null());
        assert!(ours.driver_managed_dma && theirs.driver_managed_dma);
        assert!(ours.groups == theirs.groups && ours.dev_groups == theirs.dev_groups);
        assert!(ours.suspend.is_none() && theirs.suspend.is_none());
        assert!(ours.resume.is_none() && theirs.resume.is_none());
        assert!(ours.shutdown.is_none() && theirs.shutdown.is_none());
        // Left out on purpose.
        assert!(ours.sriov_configure.is_none() && theirs.sriov_configure.is_some());
        // Its module cannot be unloaded while a device is open.
        assert!(!ours.driver.owner.is_null());
    }
}
