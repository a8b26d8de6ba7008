// SPDX-License-Identifier: GPL-2.0

//! Runs tests one after the other and prints KTAP (Documentation/dev-tools/ktap.rst of the kernel).
//!
//! A test is a closure that returns `Ok` if it passes and [`Skip`] if it could not run; it fails
//! when it panics. What it prints must begin with `# `, as [`note`] has it. If it hangs,
//! [`print_blocked`] says where.

#![forbid(unsafe_code)]

mod blocked;

pub use blocked::print_blocked;
use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    thread,
};

/// Why a test could not run.
#[derive(Debug)]
pub struct Skip(pub String);

/// What comes of a test that does not fail.
pub type Outcome = Result<(), Skip>;

/// A test that needs nothing to be handed to it.
pub struct Test {
    name: String,
    run: Box<dyn Fn() -> Outcome>,
}

/// The test with this name.
pub fn test(name: impl Into<String>, run: impl Fn() -> Outcome + 'static) -> Test {
    Test {
        name: name.into(),
        run: Box::new(run),
    }
}

impl Test {
    /// What comes of it, or why it failed.
    ///
    /// # Errors
    ///
    /// It panicked.
    pub fn run(&self) -> Result<Outcome, String> {
        guarded(&self.run)
    }
}

/// The document of the tests whose names contain `filter`, each of them run by `run`.
pub fn run(
    mut tests: Vec<Test>,
    filter: &str,
    mut run: impl FnMut(&Test) -> Result<Outcome, String>,
) -> ExitCode {
    tests.retain(|test| test.name.contains(filter));
    let mut report = Report::begin(tests.len());
    for test in &tests {
        report.result(&test.name, run(test));
    }
    report.end()
}

/// Prints lines which are no results.
pub fn note(text: &str) {
    text.lines().for_each(|line| println!("# {line}"));
}

/// What `f` returns, or the message with which it panicked.
///
/// # Errors
///
/// It panicked.
pub fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| message(&*payload).to_owned())
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked")
}

/// A document, and what is in it so far.
#[derive(Debug, Default)]
pub struct Report {
    number: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    /// Begins a document of so many tests. From now on panics are printed as notes.
    #[must_use]
    pub fn begin(planned: usize) -> Self {
        println!("KTAP version 1");
        println!("1..{planned}");
        // What a test's own thread says is reported with the test; of another nobody else tells.
        panic::set_hook(Box::new(|info| {
            if let Some(location) = info.location() {
                note(&location.to_string());
            }
            if thread::current().name() != Some("main") {
                note(message(info.payload()));
            }
        }));
        Self::default()
    }

    /// The result of the next test: its outcome, or why it failed.
    pub fn result(&mut self, name: &str, result: Result<Outcome, String>) {
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
                note(&reason);
                println!("not ok {number} {name}");
            }
        }
    }

    /// Ends the document. A program without a single test has failed.
    #[must_use]
    pub fn end(self) -> ExitCode {
        println!(
            "# Totals: pass:{} fail:{} xfail:0 xpass:0 skip:{} error:0",
            self.passed, self.failed, self.skipped
        );
        ExitCode::from(u8::from(self.failed != 0 || self.number == 0))
    }
}
