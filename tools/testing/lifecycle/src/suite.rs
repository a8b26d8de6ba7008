// SPDX-License-Identifier: GPL-2.0

//! Runs the tests, each on a function that is in order, and finds what they left behind.

use crate::{
    child::{self, LIMIT},
    host,
};
use ktap::{guarded, note, Outcome, Report};
use std::{fs, process::ExitCode, time::Instant};

/// One test.
pub(crate) struct Test {
    name: String,
    run: Box<dyn Fn() -> Outcome>,
}

pub(crate) fn test(name: impl Into<String>, run: impl Fn() -> Outcome + 'static) -> Test {
    Test {
        name: name.into(),
        run: Box::new(run),
    }
}

/// Runs the tests whose names contain `filter`.
pub(crate) fn run(mut tests: Vec<Test>, filter: &str) -> ExitCode {
    tests.retain(|test| test.name.contains(filter));
    let mut report = Report::begin(tests.len());
    let mut tests = tests.into_iter();
    // Before the first test and after a failure the function may be in any state.
    let mut in_order = false;
    for test in tests.by_ref() {
        let taint = taint();
        let start = Instant::now();
        let mut result = guarded(|| {
            host::prepare(in_order);
            (test.run)()
        });
        in_order = result.is_ok();
        let all_dead = child::bury(LIMIT);
        if !all_dead {
            crate::tasks::print_blocked();
            result = Err(format!(
                "a process that was killed does not die\n{}",
                result.err().unwrap_or_default()
            ));
        } else if result.is_ok() && self::taint() != taint {
            result = Err("the kernel warned, see its log".to_owned());
        }
        note(&format!("{:.1} s", start.elapsed().as_secs_f32()));
        report.result(&test.name, result);
        if !all_dead {
            break;
        }
    }
    for test in tests {
        let reason = "not run: the driver hangs since an earlier test";
        report.result(&test.name, Err(reason.to_owned()));
    }
    report.end()
}

/// What went wrong in the kernel since boot, if it is grave.
fn taint() -> u64 {
    /// Machine check, bad page, oops, warning, soft lockup.
    const GRAVE: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14;
    let taint = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    taint.trim().parse().map_or(0, |taint: u64| taint & GRAVE)
}
