// SPDX-License-Identifier: GPL-2.0

//! The administrator of the host, as the tests see him.

mod actions;

use crate::{
    child::{Child, LIMIT},
    tally::Tally,
    ADDRESS,
};
use std::{path::Path, time::Duration};

pub(crate) use actions::main;

/// First argument of the process.
pub(crate) const ROLE: &str = "host";

/// A process that does something to the function, and may have to wait until nobody uses it.
pub(crate) struct Host(Child);

impl Host {
    /// Starts an action (see [`actions`]), `times` times.
    pub fn start(action: &[&str], times: u32) -> Self {
        let times = times.to_string();
        Self(Child::start(&[&[ROLE, &times], action].concat()))
    }

    /// Whether it is still at it.
    pub fn is_busy(&mut self) -> bool {
        self.0.is_running()
    }

    /// Waits until it is done, and returns what came of it.
    #[track_caller]
    pub fn done(&mut self, limit: Duration) -> Tally {
        let answer = self.0.hear("done", limit);
        self.0.end(limit);
        Tally::parse(&answer).unwrap_or_else(|| panic!("the host said '{answer}'"))
    }
}

/// Does something once, which must succeed.
#[track_caller]
pub(crate) fn does(action: &[&str]) {
    Host::start(action, 1).done(LIMIT).all_ok(&action.join(" "));
}

/// Makes the function ready for a test: configured, known to the kernel, bound to the driver. If
/// it may be in disorder, from the ground up, beginning with the driver.
pub(crate) fn prepare(in_order: bool) {
    if !in_order {
        does(&["load"]);
        // It may be off, or not there at all.
        Host::start(&["power-off"], 1).done(LIMIT);
    }
    does(&["prepare"]);
}

/// Whether the kernel knows the function.
pub(crate) fn has_function() -> bool {
    Path::new("/sys/bus/pci/devices").join(ADDRESS).exists()
}

/// Whether the function has a driver.
pub(crate) fn has_driver() -> bool {
    Path::new("/sys/bus/pci/devices")
        .join(ADDRESS)
        .join("driver")
        .exists()
}
