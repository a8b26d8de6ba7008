// SPDX-License-Identifier: GPL-2.0

//! The rules of the region as a [`model`], for whoever sends requests, and the driver's own
//! `request.rs`, built for the machine at hand and compared with the model.

pub mod model;

#[cfg(any(test, feature = "fuzz"))]
pub mod driver;

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod random;
