// SPDX-License-Identifier: GPL-2.0

//! What is looked for besides the tests of a rung: what was left behind, said, and left out.

use std::{fs, path::Path};

use crate::{
    error::{Context, Result},
    kernel::Flavour,
    kernlog,
    ktap::{Counts, Test, Verdict},
    progress,
    vm::{Outcome, Report},
};

/// Fails if a suite of unit tests in the module's sources is not among those that were run.
pub fn unit_tests(tree: &Path, flavour: Flavour, tests: &[Test]) -> Result<Test> {
    /// A suite for kernels that look at the order of locks.
    const LOCKDEP: &str = "zpci_vfio_pci_lockdep";
    let mut objections = Vec::new();
    for dir in ["rust/vfio", "drivers/vfio/pci/zpci"] {
        let dir = tree.join(dir);
        let step = || format!("reading {}", dir.display());
        for entry in fs::read_dir(&dir).context(step())? {
            let text = fs::read_to_string(entry.context(step())?.path()).context(step())?;
            for suite in text.split("#[kunit_tests(").skip(1) {
                let suite = suite.split(')').next().unwrap_or_default();
                let is_run = tests.iter().any(|test| test.name == suite);
                if !is_run && (suite != LOCKDEP || flavour.is_debug()) {
                    objections.push(format!("not run: {suite}"));
                }
            }
        }
    }
    Ok(Test::check("all suites were run", objections))
}

/// A failure if no test was run: what the boot was made for has not been shown.
pub fn all_skipped(tests: &[Test]) -> Option<Test> {
    let mut total = Counts::default();
    tests.iter().for_each(|test| total += test.counts());
    (total.passed + total.failed == 0)
        .then(|| Test::failed("tests", "none was run, all were skipped"))
}

/// Fails if another test was skipped than expected, or if one that was expected to be was not.
pub fn skips(tests: &[Test], expected: &[(&str, usize)]) -> Test {
    let skipped: Vec<_> = tests
        .iter()
        .flat_map(|test| match test.verdict() {
            Verdict::Skipped(_) => vec![test.name.clone()],
            _ => test.skipped(),
        })
        .collect();
    let mut objections = Vec::new();
    for name in &skipped {
        if !expected.iter().any(|(part, _)| name.contains(part)) {
            objections.push(format!("skipped, and must not be: {name}"));
        }
    }
    for (part, count) in expected {
        let found = skipped.iter().filter(|name| name.contains(part)).count();
        if found != *count {
            objections.push(format!("of '{part}' {found} were skipped, not {count}"));
        }
    }
    Test::check("what is skipped", objections)
}

/// What every boot is tested for, whatever it was made for. With a flavour the host has searched
/// its memory for what was left behind.
pub fn after(outcome: &Outcome, flavour: Option<Flavour>) -> Vec<Test> {
    let mut complaint = kernlog::complaint(&outcome.console);
    let mut tests = Vec::new();
    match &outcome.end {
        Err(reason) => {
            let mut notes = vec![reason.clone()];
            notes.extend(progress::last(&outcome.console, 20));
            tests.push(Test::check("end of the command", notes));
        }
        Ok(report) => {
            complaint.extend(kernlog::taint(report.taint));
            tests.extend(of_report(report, flavour));
        }
    }
    tests.push(Test::check("kernel log", complaint));
    tests
}

fn of_report(report: &Report, flavour: Option<Flavour>) -> Vec<Test> {
    let mut exit = Vec::new();
    if report.exit != 0 {
        exit.push(format!("it ended with code {}", report.exit));
    }
    let mut tests = vec![Test::check("end of the command", exit)];
    let (acquired, released) = report.pins;
    let mut pins = Vec::new();
    if acquired != released {
        pins.push(format!("{acquired} pages were pinned, {released} released"));
    }
    tests.push(Test::check("pinned pages", pins));
    if flavour.is_some_and(Flavour::is_debug) {
        let none = || vec!["kmemleak is not there".into()];
        let leaks = report.leaks.clone().unwrap_or_else(none);
        tests.push(Test::check("memory leaks", leaks));
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(outcome: &Outcome, flavour: Flavour) -> Vec<String> {
        Test::group("boot", after(outcome, Some(flavour))).failures()
    }

    fn outcome(report: Report) -> Outcome {
        Outcome {
            console: "Linux version 7.3\n".into(),
            since_command: String::new(),
            trace: String::new(),
            answer: String::new(),
            end: Ok(report),
        }
    }

    #[test]
    fn a_good_boot_passes() {
        let mut good = outcome(Report::default());
        assert!(failures(&good, Flavour::Release).is_empty());
        assert_eq!(failures(&good, Flavour::Debug), ["boot/memory leaks"]);
        good.end = Ok(Report {
            leaks: Some(Vec::new()),
            ..Report::default()
        });
        assert!(failures(&good, Flavour::Debug).is_empty());
    }

    #[test]
    fn every_check_can_fail() {
        let bad = outcome(Report {
            exit: 1,
            taint: 1 << 9,
            pins: (2, 1),
            leaks: Some(vec!["unreferenced object".into()]),
        });
        assert_eq!(failures(&bad, Flavour::Debug).len(), 4);
        let mut crashed = outcome(Report::default());
        crashed.end = Err("crashed".into());
        assert_eq!(
            failures(&crashed, Flavour::Debug),
            ["boot/end of the command"]
        );
    }

    #[test]
    fn a_boot_whose_tests_were_all_skipped_fails() {
        let skipped = || Test::new("one", Verdict::Skipped("no device".into()), vec![]);
        assert!(all_skipped(&[skipped(), skipped()]).is_some());
        assert!(all_skipped(&[skipped(), Test::check("another", vec![])]).is_none());
    }

    #[test]
    fn only_what_is_listed_is_skipped() {
        let skipped = |name| Test::new(name, Verdict::Skipped("why".into()), vec![]);
        let tests = [
            skipped("a 1"),
            Test::group("g", vec![skipped("a 2"), Test::check("b", vec![])]),
        ];
        let passes = |expected: &[(&str, usize)]| skips(&tests, expected).notes().is_empty();
        assert!(passes(&[("a", 2)]));
        assert!(passes(&[("a 1", 1), ("a 2", 1)]));
        assert!(!passes(&[("a 1", 1)]));
        assert!(!passes(&[("a", 1)]));
        assert!(!passes(&[("a", 2), ("b", 1)]));
        assert!(!passes(&[]));
    }
}
