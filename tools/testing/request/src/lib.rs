// SPDX-License-Identifier: GPL-2.0

//! The driver's own `request.rs`, built for the machine at hand, and its tests against a model of
//! the rules that is written another way.

#![cfg(test)]

#[path = "../../../../drivers/vfio/pci/zpci/request.rs"]
mod request;

mod exhaustive;
mod model;
mod random;
