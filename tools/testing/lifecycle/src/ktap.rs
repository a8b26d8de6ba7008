// SPDX-License-Identifier: GPL-2.0

//! Runs tests and prints KTAP.

use crate::{
    child::{self, LIMIT},
    host, Outcome,
};
use std::{
    any::Any,
    fs,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    time::Instant,
};

/// Why a test could not run.
pub(crate) struct Skip(pub String);

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

#[derive(Default)]
struct Report {
    number: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    fn result(&mut self, name: &str, result: Result<Outcome, String>) {
        self.number += 1;
        let number = self.number;
        match result {
            Ok(Ok(())) => {
                self.passed += 1;
                println!("ok {number} {name}");
            }
            Ok(Err(Skip(reason))) => {
                self.skipped += 1;
                println!("ok {number} {name} # SKIP {reason}");
            }
            Err(reason) => {
                self.failed += 1;
                for line in reason.lines() {
                    println!("# {line}");
                }
                println!("not ok {number} {name}");
            }
        }
    }
}

/// Runs the tests whose names contain `filter`.
pub(crate) fn run(mut tests: Vec<Test>, filter: &str) -> ExitCode {
    tests.retain(|test| test.name.contains(filter));
    println!("KTAP version 1");
    println!("1..{}", tests.len());
    // A panic is reported with the test.
    panic::set_hook(Box::new(|info| {
        if let Some(location) = info.location() {
            println!("# {}:{}", location.file(), location.line());
        }
    }));

    let mut report = Report::default();
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
        println!("# {:.1} s", start.elapsed().as_secs_f32());
        report.result(&test.name, result);
        if !all_dead {
            break;
        }
    }
    for test in tests {
        let reason = "not run: the driver hangs since an earlier test";
        report.result(&test.name, Err(reason.to_owned()));
    }
    println!(
        "# Totals: pass:{} fail:{} xfail:0 xpass:0 skip:{} error:0",
        report.passed, report.failed, report.skipped
    );
    ExitCode::from(u8::from(report.failed != 0 || report.number == 0))
}

/// What `f` returns, or the message with which it panicked.
fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| message(&*payload).to_owned())
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked")
}

/// What went wrong in the kernel since boot, if it is grave.
fn taint() -> u64 {
    /// Machine check, bad page, oops, warning, soft lockup.
    const GRAVE: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14;
    let taint = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    taint.trim().parse().map_or(0, |taint: u64| taint & GRAVE)
}
