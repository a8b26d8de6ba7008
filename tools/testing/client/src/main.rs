// SPDX-License-Identifier: GPL-2.0

//! Tests of what people use the region by: `zpci-io`, the program in C of `samples/`, and this
//! project's crate on a device which rust-vmm's crate has opened.
//!
//! `client-test [FILTER]` runs the tests whose names contain FILTER, and prints KTAP. They want two NVMe
//! controllers: function 10 with a memory buffer, and function 40 with a disk.

mod clients;
mod module;
mod tool;
mod trace;
mod zpci_io;

use std::process::{Command, ExitCode};

/// An NVMe controller with a memory buffer, BAR 2, and without a disk.
pub(crate) const MEMORY: u32 = 0x10;
/// An NVMe controller with a disk.
pub(crate) const DISK: u32 = 0x40;

/// The BAR of the first that is memory, and where in it the tests write.
pub(crate) const BAR: u8 = 2;
pub(crate) const OFFSET: u64 = 0x1000;

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    // The disk appears when its controller's driver has found it.
    for module in ["nvme", "zpci-vfio-pci"] {
        let status = Command::new("modprobe").arg(module).status();
        assert!(status.is_ok_and(|status| status.success()), "{module}");
    }
    let tests = [
        module::tests(),
        tool::tests(),
        trace::tests(),
        clients::tests(),
    ];
    let tests = tests.into_iter().flatten().collect();
    ktap::run(tests, &filter, |test| test.run())
}
