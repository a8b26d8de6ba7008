// SPDX-License-Identifier: GPL-2.0

//! Tests of the whole chain: a Linux guest, with the `ism` driver as it comes with the kernel, has
//! an ISM function of this host. QEMU gives it to the guest by VFIO; whatever the guest's driver
//! does with it comes through the zPCI I/O region.
//!
//! ```text
//! guest-test [FILTER]         the tests whose names contain FILTER, as KTAP
//! guest-test demo             the same for people
//! guest-test agent ADDRESS    the part that runs in the guest; its host has ADDRESS
//! ```
//!
//! The host has two ISM functions that can reach each other: one for the guest, the other for its
//! own `ism` driver, so that the two can talk by SMC-D, and at last for a second guest. A third
//! function takes its time to reset, and a fourth is a disk that takes its time to read; guests
//! without an operating system use them, and one of two more ISM functions. In the top directory are
//! QEMU, its firmware, the Linux guest's kernel and initial RAM disk, and the programs of the other
//! guests.

mod agent;
mod before;
mod buffers;
mod chain;
mod failure;
mod host;
mod pair;
mod present;
mod removal;
mod smc;
mod traffic;
mod vmm;
mod waiting;

use chain::Chain;
use failure::Failure;
use std::process::ExitCode;

/// A step ends with a sentence about what was found.
type Outcome = Result<String, Failure>;

/// A test, which is a step of the demonstration, too. It brings about what it needs.
pub(crate) struct Step {
    /// What must be true.
    name: &'static str,
    /// What is done, for people.
    story: &'static str,
    run: fn(&mut Chain) -> Outcome,
}

/// The steps, in the order in which they happen.
const STEPS: &[&[Step]] = &[
    before::STEPS,
    waiting::STEPS,
    buffers::STEPS,
    traffic::STEPS,
    removal::STEPS,
    pair::STEPS,
    removal::END,
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let steps = |filter| {
        let steps = STEPS.iter().copied().flatten();
        steps.filter(move |step: &&Step| step.name.contains(filter))
    };
    match arguments[..] {
        ["agent", address] => agent::main(address),
        ["demo"] => present::demo(steps("").collect()),
        [] => present::ktap(steps("").collect()),
        [filter] if !filter.starts_with('-') => present::ktap(steps(filter).collect()),
        _ => {
            eprintln!("Usage: guest-test [FILTER] | demo | agent ADDRESS");
            ExitCode::from(2)
        }
    }
}
