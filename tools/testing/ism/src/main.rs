// SPDX-License-Identifier: GPL-2.0

//! Tests on functions that only the patched QEMU has (tools/qemu): ISM, and such as answer with
//! condition codes that emulated functions never give.
//!
//! `ism-test [FILTER]` runs the tests whose names contain FILTER, and prints KTAP. The functions
//! it wants are listed in [`machine`].

mod bars;
mod calls;
mod client;
mod generic;
mod ism;
mod machine;
mod refused;
mod region;
mod trace;

use ktap::Test;
use std::process::ExitCode;

fn run(filter: &str) -> ExitCode {
    let tests = [
        generic::tests(),
        refused::tests(),
        region::tests(),
        bars::tests(filter),
    ];
    ktap::run(tests.into_iter().flatten().collect(), filter, Test::run)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [refused::SENDER, fid, name] => refused::sender(fid, name),
        [] => run(""),
        [filter] if !filter.starts_with('-') => run(filter),
        _ => {
            eprintln!("Usage: ism-test [FILTER]");
            ExitCode::from(2)
        }
    }
}
