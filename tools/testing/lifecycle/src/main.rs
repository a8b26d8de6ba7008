// SPDX-License-Identifier: GPL-2.0

//! Tests of what the host does to a function while a VMM uses its zPCI I/O region: power-off,
//! unbind, removal, recovery, resets, errors; and of what a VMM does to itself.
//!
//! `lifecycle-test [--long] [FILTER]` runs the tests whose names contain FILTER, and prints KTAP.
//! It wants the function below, an emulated NVMe controller with a memory buffer.
//!
//! Whatever may block, if the driver has a defect, is done by a child process: by a stand-in for
//! a VMM ([`vmm`]), which opens the function, and by one for the administrator ([`host`]), which
//! never does. The tests themselves only talk to children, wait for them with a limit, and go on.

mod block;
mod child;
mod closing;
mod contention;
mod cycles;
mod error_event;
mod host;
mod numbers;
mod nvme;
mod removal;
mod reset;
mod state;
mod stats;
mod suite;
mod tally;
mod vmm;

use ktap::Test;
use std::process::ExitCode;

/// PCI address of the function, its function id, and its BAR that behaves like memory.
const ADDRESS: &str = "0001:00:00.0";
const FID: u32 = 0x10;
const BAR: u8 = 2;

/// How many threads with requests the VMM has, and how to say that.
const THREADS: [(usize, &str); 3] = [(1, "1 thread"), (4, "4 threads"), (16, "16 threads")];

/// The tests, in the order in which they run. The last ones look at what all of them left. The long
/// form does the same as the short one, more often and with more threads.
fn tests(long: bool) -> Vec<Test> {
    [
        numbers::tests(),
        reset::tests(long),
        state::tests(),
        contention::tests(),
        block::tests(),
        closing::tests(),
        error_event::tests(),
        removal::tests(long),
        cycles::tests(long),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [vmm::ROLE, threads, pace] => vmm::main(threads, pace),
        [host::ROLE, times, ref action @ ..] => host::main(times, action),
        [] => suite::run(tests(false), ""),
        ["--long"] => suite::run(tests(true), ""),
        ["--long", filter] => suite::run(tests(true), filter),
        [filter] if !filter.starts_with('-') => suite::run(tests(false), filter),
        _ => {
            eprintln!("Usage: lifecycle-test [--long] [FILTER]");
            ExitCode::from(2)
        }
    }
}
