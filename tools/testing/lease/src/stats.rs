// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the numbers in debugfs.

use crate::{prelude::*, time::Delta};

#[pin_data]
pub(crate) struct Stats {}

impl Stats {
    pub(crate) fn new(_fid: u32) -> impl PinInit<Self> {
        pin_init!(Self {})
    }

    pub(crate) fn tick(&self) {}

    pub(crate) fn inside(&self, _inside: u32) {}

    pub(crate) fn waits(&self) {}

    pub(crate) fn waited(&self, _time: Delta) {}
}
