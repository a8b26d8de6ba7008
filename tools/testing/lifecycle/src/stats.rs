// SPDX-License-Identifier: GPL-2.0

//! The numbers which the driver has in debugfs.

use crate::FID;
use ktap::Skip;
use std::{fmt, fs, path::PathBuf, time::Duration};

/// Where they are while the function is bound to the driver.
pub(crate) fn directory() -> PathBuf {
    format!("/sys/kernel/debug/zpci-vfio-pci-{FID:08x}").into()
}

/// Reads a number.
#[track_caller]
pub(crate) fn get(name: &str) -> u64 {
    let path = directory().join(name);
    let number = fs::read_to_string(&path).map(|text| text.trim().parse());
    match number {
        Ok(Ok(number)) => number,
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[track_caller]
fn set(name: &str, value: u64) {
    let path = directory().join(name);
    if let Err(error) = fs::write(&path, value.to_string()) {
        panic!("{}: {error}", path.display());
    }
}

/// How requests had to wait for others.
pub(crate) struct Waits {
    pub waits: u64,
    pub ticks: u64,
    pub longest: Duration,
}

impl Waits {
    /// Since the function was bound to the driver.
    #[track_caller]
    pub fn until_now() -> Self {
        Self {
            waits: get("waits"),
            ticks: get("ticks"),
            longest: Duration::from_nanos(get("longest_wait_ns")),
        }
    }

    /// Since a moment between; the longest is still that of all.
    pub fn since(self, before: &Self) -> Self {
        Self {
            waits: self.waits - before.waits,
            ticks: self.ticks - before.ticks,
            longest: self.longest,
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waits,
            ticks,
            longest,
        } = self;
        write!(
            f,
            "waits: {waits}, ticks: {ticks}, the longest ever {longest:?}"
        )
    }
}

/// Whether the driver has been built for tests, and thus the kernel, too.
pub(crate) fn is_debug() -> bool {
    directory().join("dwell_us").exists()
}

/// Requests dwell until this is dropped.
pub(crate) struct Dwell(());

impl Drop for Dwell {
    fn drop(&mut self) {
        // With the driver's device it is gone.
        if is_debug() {
            set("dwell_us", 0);
        }
    }
}

/// Has requests dwell where they have the lease and have not issued their instruction yet.
pub(crate) fn dwell(microseconds: u64) -> Result<Dwell, Skip> {
    if !is_debug() {
        return Err(Skip("the driver is not built for tests".to_owned()));
    }
    set("dwell_us", microseconds);
    set("most_inside", 0);
    Ok(Dwell(()))
}
