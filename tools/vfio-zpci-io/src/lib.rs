// SPDX-License-Identifier: GPL-2.0

//! Client of the *zPCI I/O region*, the VFIO device region through which a VMM or a user-space
//! driver has the kernel issue single PCI instructions on its behalf: store a block (PCISTB),
//! load (PCILG) and store (PCISTG).
//!
//! One request is one instruction, whole or not at all. This library never splits, merges or
//! repeats a request: when one fails, the [`RequestError`] says what the errno means, whether the
//! instruction may have been issued and whether the same request may be sent again.
//!
//! ```no_run
//! use vfio_zpci_io::{Access, Device};
//!
//! let device = Device::open(&"0001:00:00.0".parse()?, Access::Iommufd)?;
//! device.enable_memory(true)?;
//! let region = device.zpci_io()?;
//! region.store_block(2, 0x100, &[0xab; 64])?;
//! assert_eq!(region.load(2, 0x100, 8)?, 0xabab_abab_abab_abab);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`sysfs`] finds PCI functions and binds them to a driver.
//! * [`Device`] opens a function and speaks the parts of VFIO that every client needs.
//! * [`ZpciIo`] is the region; [`abi`] its wire format.

pub mod abi;
mod caps;
mod device;
mod dma;
mod error;
mod open;
mod region;
pub mod sysfs;

#[cfg(test)]
mod fake;

pub use caps::Capability;
pub use device::{Device, DeviceFile, DeviceInfo, Irq, RegionInfo};
pub use dma::DmaPage;
pub use error::{Error, RequestError};
pub use open::{Access, VfioFile};
pub use region::ZpciIo;
