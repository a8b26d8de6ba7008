// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Client of the *zPCI I/O region*, the VFIO device region through which a VMM or a user-space
//! driver has the kernel issue single PCI instructions on its behalf: store a block (PCISTB),
//! load (PCILG) and store (PCISTG).
//!
//! One request is one instruction, whole or not at all. This library never splits, merges or
//! repeats a request: when one fails, the [`RequestError`] says what the errno means, whether the
//! instruction may have been issued and whether the same request may be sent again.
//!
//! A VMM lends the descriptor of a device that it has opened by its own means:
//!
//! ```
//! use std::os::fd::AsFd;
//! use vfio_zpci_io::{abi::Request, Answer, Device, Error, ZpciIo};
//!
//! /// Stores a block for a guest.
//! fn store(device: impl AsFd, offset: u64, block: &[u8]) -> Result<Option<Answer>, Error> {
//!     let region = ZpciIo::find(device)?;
//!     let request = Request::block(2, offset, 0, block.len() as u16);
//!     Ok(match region.store_block(request.pcias, offset, block) {
//!         Ok(()) => None,
//!         Err(error) => Some(error.answer(&request)),
//!     })
//! }
//! ```
//!
//! A user-space driver has this library open the function:
//!
//! ```no_run
//! # #[cfg(feature = "sysfs")] {
//! use vfio_zpci_io::{Access, Device};
//!
//! let device = Device::open(&"0001:00:00.0".parse()?, Access::Iommufd)?;
//! device.enable_memory(true)?;
//! let region = device.zpci_io()?;
//! region.store_block(2, 0x100, &[0xab; 64])?;
//! assert_eq!(region.load(2, 0x100, 8)?, 0xabab_abab_abab_abab);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`ZpciIo`] is the region; [`abi`] its wire format.
//! * [`RequestError`] and [`Answer`]: what came of a request, for the VMM and for its guest.
//! * [`Device`] speaks the parts of VFIO that every client needs.
//! * `sysfs` finds PCI functions and binds them to a driver, for `Device::open`. Who has means of his
//!   own does without: this is the feature `sysfs`, which is on by default.

pub mod abi;
mod answer;
mod caps;
mod device;
mod dma;
mod error;
mod file;
mod open;
mod region;
#[cfg(feature = "sysfs")]
pub mod sysfs;

#[cfg(test)]
mod fake;

pub use answer::{Answer, Exception};
pub use caps::Capability;
pub use device::{Device, DeviceFile, DeviceInfo, Irq, RegionInfo};
pub use dma::DmaPage;
pub use error::{Error, RequestError};
#[cfg(feature = "sysfs")]
pub use open::Access;
pub use open::VfioFile;
pub use region::ZpciIo;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
