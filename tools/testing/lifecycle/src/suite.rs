// SPDX-License-Identifier: GPL-2.0

//! Runs the tests, each on a function that is in order, and finds what they left behind.

use crate::{
    child::{self, LIMIT},
    host,
};
use ktap::{guarded, note, print_blocked, Test};
use std::{fs, process::ExitCode, time::Instant};

/// Runs the tests whose names contain `filter`.
pub(crate) fn run(tests: Vec<Test>, filter: &str) -> ExitCode {
    // Before the first test and after a failure the function may be in any state.
    let mut in_order = false;
    let mut all_dead = true;
    ktap::run(tests, filter, |test| {
        if !all_dead {
            return Err("not run: the driver hangs since an earlier test".to_owned());
        }
        let taint = taint();
        let start = Instant::now();
        let mut result = guarded(|| host::prepare(in_order)).and_then(|()| test.run());
        in_order = result.is_ok();
        all_dead = child::bury(LIMIT);
        if !all_dead {
            print_blocked();
            result = Err(format!(
                "a process that was killed does not die\n{}",
                result.err().unwrap_or_default()
            ));
        } else if result.is_ok() && self::taint() != taint {
            result = Err("the kernel warned, see its log".to_owned());
        }
        note(&format!("{:.1} s", start.elapsed().as_secs_f32()));
        result
    })
}

/// What went wrong in the kernel since boot, if it is grave.
fn taint() -> u64 {
    /// Machine check, bad page, oops, warning, soft lockup.
    const GRAVE: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14;
    let taint = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    taint.trim().parse().map_or(0, |taint: u64| taint & GRAVE)
}
