// SPDX-License-Identifier: GPL-2.0

//! Test results: reading KTAP (Documentation/dev-tools/ktap.rst of the kernel) and what cargo
//! prints, and writing one KTAP document.
//!
//! What a document promises and does not keep, a planned test that never reports, is a failure.

use std::{
    io::{self, Write},
    ops::AddAssign,
};

use crate::progress;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    /// With the reason.
    Skipped(String),
}

use Verdict::{Failed, Passed, Skipped};

/// A test, or a group of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Test {
    pub name: String,
    verdict: Verdict,
    /// What the test says about itself.
    notes: Vec<String>,
    subtests: Vec<Test>,
}

/// How many tests there are, groups not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Test {
    pub fn new(name: impl Into<String>, verdict: Verdict, notes: Vec<String>) -> Self {
        Self {
            // " # " would begin a directive.
            name: name.into().replace(" # ", " - "),
            verdict,
            notes,
            subtests: Vec::new(),
        }
    }

    /// A test that passes if there is nothing to say against it.
    pub fn check(name: impl Into<String>, objections: Vec<String>) -> Self {
        let verdict = if objections.is_empty() {
            Passed
        } else {
            Failed
        };
        Self::new(name, verdict, objections)
    }

    pub fn failed(name: impl Into<String>, note: impl Into<String>) -> Self {
        Self::new(name, Failed, vec![note.into()])
    }

    /// A group passes if nothing in it failed.
    pub fn group(name: impl Into<String>, subtests: Vec<Test>) -> Self {
        let failed = subtests.iter().any(|test| test.verdict == Failed);
        let verdict = if failed { Failed } else { Passed };
        Self {
            subtests,
            ..Self::new(name, verdict, Vec::new())
        }
    }

    /// The same test, named as one of `program`.
    pub fn within(self, program: &str) -> Self {
        Self {
            name: format!("{program}: {}", self.name),
            ..self
        }
    }

    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        match &self.verdict {
            _ if !self.subtests.is_empty() => {
                self.subtests
                    .iter()
                    .for_each(|test| counts += test.counts());
            }
            Passed => counts.passed = 1,
            Failed => counts.failed = 1,
            Skipped(_) => counts.skipped = 1,
        }
        counts
    }

    /// The full names of the tests in it that failed.
    pub fn failures(&self) -> Vec<String> {
        let mut names: Vec<_> = self.subtests.iter().flat_map(Self::failures).collect();
        if names.is_empty() && self.verdict == Failed {
            return vec![self.name.clone()];
        }
        names
            .iter_mut()
            .for_each(|name| name.insert_str(0, &format!("{}/", self.name)));
        names
    }

    /// The names of the tests in it that were skipped, with the groups inside of this one.
    pub fn skipped(&self) -> Vec<String> {
        let mut names = Vec::new();
        for test in &self.subtests {
            if matches!(test.verdict, Skipped(_)) {
                names.push(test.name.clone());
            }
            let below = test.skipped();
            names.extend(below.iter().map(|name| format!("{}/{name}", test.name)));
        }
        names
    }

    /// Whether one of the tests in it that have `part` in their full names passed, and none failed.
    pub fn passes(&self, part: &str) -> bool {
        let failed = |name: &String| name.contains(part);
        !self.failures().iter().any(failed) && self.has_passed(part, "")
    }

    fn has_passed(&self, part: &str, prefix: &str) -> bool {
        let name = format!("{prefix}{}", self.name);
        if self.subtests.is_empty() {
            return self.verdict == Passed && name.contains(part);
        }
        let prefix = format!("{name}/");
        self.subtests
            .iter()
            .any(|test| test.has_passed(part, &prefix))
    }

    /// Writes the test as number `number` of a document or group, `depth` groups deep.
    pub fn write(&self, out: &mut dyn Write, number: usize, depth: usize) -> io::Result<()> {
        let indent = "    ".repeat(depth);
        if !self.subtests.is_empty() {
            writeln!(out, "{indent}    KTAP version 1")?;
            writeln!(out, "{indent}    # Subtest: {}", self.name)?;
            writeln!(out, "{indent}    1..{}", self.subtests.len())?;
            for (test, number) in self.subtests.iter().zip(1..) {
                test.write(out, number, depth + 1)?;
            }
        }
        for note in &self.notes {
            writeln!(out, "{indent}# {note}")?;
        }
        let ok = if self.verdict == Failed {
            "not ok"
        } else {
            "ok"
        };
        write!(out, "{indent}{ok} {number} {}", self.name)?;
        if let Skipped(reason) = &self.verdict {
            write!(out, " # SKIP {reason}")?;
        }
        writeln!(out)
    }
}

/// One line of KTAP, without its indentation.
enum Line<'a> {
    Version,
    Subtest(&'a str),
    /// How many tests, and why they are all skipped.
    Plan(usize, Option<&'a str>),
    Result(Verdict, &'a str),
    Note(&'a str),
    /// No KTAP at all, which may explain a failure.
    Text(&'a str),
    Nothing,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        if text.starts_with("KTAP version") || text.starts_with("TAP version") {
            return Self::Version;
        }
        if let Some(note) = text.strip_prefix('#') {
            let note = note.trim();
            return match note.strip_prefix("Subtest: ") {
                Some(name) => Self::Subtest(name),
                // KUnit says it of every test.
                None if note.ends_with("speed: normal") => Self::Nothing,
                None => Self::Note(note),
            };
        }
        let (body, directive) = match text.split_once(" # ") {
            Some((body, directive)) => (body, Some(directive)),
            None => (text, None),
        };
        let skip = directive
            .and_then(|directive| directive.strip_prefix("SKIP"))
            .map(str::trim);
        if let Some(count) = body.strip_prefix("1..") {
            if let Ok(count) = count.trim().parse() {
                return Self::Plan(count, skip);
            }
        }
        let (ok, rest) = match (body.strip_prefix("ok "), body.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Self::Text(text),
        };
        // "ok 1 name", "ok 1 - name", "ok 1".
        let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
        if number.parse::<usize>().is_err() {
            return Self::Text(text);
        }
        let name = name.trim_start_matches("- ").trim();
        let verdict = match (ok, skip) {
            (true, Some(reason)) => Skipped(reason.into()),
            (true, None) => Passed,
            (false, _) => Failed,
        };
        Self::Result(verdict, if name.is_empty() { number } else { name })
    }
}

/// The tests of one document or group while it is read.
#[derive(Default)]
struct Level {
    indent: usize,
    name: Option<String>,
    plan: Option<usize>,
    tests: Vec<Test>,
    /// What was said since the last result; `true` for what is no note but text.
    said: Vec<(bool, String)>,
}

impl Level {
    /// The tests, and a failed one if they are not those that were planned.
    fn finish(mut self) -> Vec<Test> {
        let problem = match self.plan {
            Some(plan) if plan == self.tests.len() => return self.tests,
            Some(plan) => format!("{plan} tests planned, {} reported", self.tests.len()),
            None => "no plan: nobody knows whether a test is missing".into(),
        };
        let mut notes = vec![problem];
        notes.extend(self.said.into_iter().map(|(_, text)| text));
        self.tests.push(Test::new("plan", Failed, notes));
        self.tests
    }
}

/// Reads KTAP, also from between other lines and from a kernel's log, and returns the tests.
pub fn parse(text: &str) -> Vec<Test> {
    let mut done = Vec::new();
    // Each level is indented deeper than the one before.
    let mut levels: Vec<Level> = Vec::new();
    for line in text.lines() {
        let line = without_time(line).trim_end();
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let line = Line::parse(body);
        if matches!(line, Line::Nothing) {
            continue;
        }
        if let Line::Text(text) | Line::Note(text) = line {
            if let Some(level) = levels.last_mut() {
                level
                    .said
                    .push((matches!(line, Line::Text(_)), text.into()));
            }
            continue;
        }
        let inner = close(&mut levels, indent, matches!(line, Line::Result(..)));
        if matches!(line, Line::Version) && levels.last().is_some_and(|top| top.indent == indent) {
            // Another document.
            done.extend(levels.pop().map(Level::finish).unwrap_or_default());
        }
        if levels.last().is_none_or(|top| top.indent < indent) {
            levels.push(Level {
                indent,
                ..Level::default()
            });
        }
        let Some(level) = levels.last_mut() else {
            continue;
        };
        match line {
            Line::Subtest(name) => level.name = Some(name.into()),
            Line::Plan(count, skip) => {
                level.plan = Some(count);
                if let (0, Some(reason)) = (count, skip) {
                    level
                        .tests
                        .push(Test::new("all", Skipped(reason.into()), Vec::new()));
                    level.plan = Some(1);
                }
            }
            Line::Result(verdict, name) => {
                let mut notes = std::mem::take(&mut level.said);
                if verdict != Failed {
                    notes.retain(|(is_text, _)| !is_text);
                }
                let notes = notes.into_iter().map(|(_, text)| text).collect();
                level.tests.push(result(name, verdict, notes, inner));
            }
            Line::Version | Line::Note(_) | Line::Text(_) | Line::Nothing => {}
        }
    }
    close(&mut levels, 0, false);
    done.extend(levels.pop().map(Level::finish).unwrap_or_default());
    if done.is_empty() {
        done.push(Test::failed("plan", "no test reported"));
    }
    done
}

/// Ends the levels deeper than `indent`. The tests of the outermost of them are returned if a
/// result is there to take them; a group without a result is a failure of the level above.
fn close(levels: &mut Vec<Level>, indent: usize, has_result: bool) -> Vec<Test> {
    while let Some(level) = levels.pop_if(|level| level.indent > indent) {
        let outermost = levels.last().is_none_or(|above| above.indent <= indent);
        if has_result && outermost {
            return level.finish();
        }
        let name = level.name.clone().unwrap_or_else(|| "group".into());
        let mut tests = level.finish();
        tests.push(Test::failed(
            "result",
            "this group of tests has no result: it was not finished",
        ));
        if levels.is_empty() {
            levels.push(Level::default());
        }
        if let Some(above) = levels.last_mut() {
            above.tests.push(Test::group(name, tests));
        }
    }
    Vec::new()
}

fn result(name: &str, verdict: Verdict, notes: Vec<String>, mut subtests: Vec<Test>) -> Test {
    if subtests.is_empty() {
        return Test::new(name, verdict, notes);
    }
    let failed = subtests.iter().any(|test| test.verdict == Failed);
    if verdict == Failed && !failed {
        let note = "the group failed, though no test in it did";
        subtests.push(Test::failed("group", note));
    }
    Test {
        notes,
        ..Test::group(name, subtests)
    }
}

/// Removes the time that the kernel's log puts before each line.
fn without_time(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(time, _)| time.trim().parse::<f64>().is_ok())
        .map_or(line, |(_, rest)| rest)
}

/// Reads what `cargo test` prints.
pub fn parse_libtest(text: &str, success: bool) -> Vec<Test> {
    let mut programs: Vec<(String, Level)> = Vec::new();
    let mut name = String::new();
    // The failed test whose output is being shown.
    let mut shown: Option<&str> = None;
    for line in text.lines() {
        let body = line.trim();
        if let Some(program) = body.strip_prefix("Running ") {
            // "unittests src/lib.rs (target/debug/deps/name-0123456789abcdef)"
            let file = program.rsplit('/').next().unwrap_or(program);
            name = file.rsplit_once('-').map_or(file, |(name, _)| name).into();
        } else if let Some(package) = body.strip_prefix("Doc-tests ") {
            name = format!("{package} (documentation)");
        } else if let Some(count) = body.strip_prefix("running ") {
            let count = count.split(' ').next().and_then(|count| count.parse().ok());
            if count.is_some() {
                shown = None;
                let level = Level {
                    plan: count,
                    ..Level::default()
                };
                programs.push((name.clone(), level));
            }
        }
        let Some((_, level)) = programs.last_mut() else {
            continue;
        };
        let shows = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if shows.is_some() {
            shown = shows;
        } else if line == "failures:" || line.starts_with("test result: ") {
            shown = None;
        } else if let Some(name) = shown {
            let test = level.tests.iter_mut().find(|test| test.name == name);
            if let Some(test) = test.filter(|_| !body.is_empty()) {
                test.notes.push(line.trim_end().into());
            }
        } else if let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            let verdict = match verdict.split_once(", ").unwrap_or((verdict, "")) {
                ("ok", _) => Passed,
                ("ignored", "") => Skipped("ignored".into()),
                ("ignored", reason) => Skipped(reason.into()),
                _ => Failed,
            };
            level.tests.push(Test::new(name, verdict, Vec::new()));
        }
    }
    let mut groups: Vec<_> = programs
        .into_iter()
        .filter(|(_, level)| level.plan != Some(0))
        .map(|(name, level)| Test::group(name, level.finish()))
        .collect();
    let failed = groups.iter().any(|test| test.verdict == Failed);
    if groups.is_empty() || (!success && !failed) {
        groups.push(Test::new("cargo test", Failed, progress::last(text, 20)));
    }
    groups
}

/// The line that ends a run of tests.
pub fn summary(counts: Counts) -> String {
    format!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_test_passes() {
        let skipped = Test::new("skipped", Skipped("why".into()), vec![]);
        let tests = vec![
            Test::check("good", vec![]),
            Test::failed("bad", "why"),
            skipped,
            Test::group("more", vec![Test::check("inner", vec![])]),
        ];
        let group = Test::group("g", tests);
        for part in ["good", "g/good", "more/inner", "inner"] {
            assert!(group.passes(part), "{part}");
        }
        for part in ["bad", "skipped", "no such test", "d"] {
            assert!(!group.passes(part), "{part}");
        }
        assert_eq!(group.skipped(), ["skipped"]);
        assert_eq!(Test::group("all", vec![group]).skipped(), ["g/skipped"]);
    }

    fn text(tests: Vec<Test>) -> String {
        let mut out = Vec::new();
        for (test, number) in tests.iter().zip(1..) {
            test.write(&mut out, number, 0).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn count(tests: &[Test]) -> [usize; 3] {
        let mut counts = Counts::default();
        tests.iter().for_each(|test| counts += test.counts());
        [counts.passed, counts.failed, counts.skipped]
    }

    const KUNIT: &str = "\
Linux version 7.3
[    2.000000] KTAP version 1
[    2.000000] 1..2
[    2.100000]     KTAP version 1
[    2.100000]     # Subtest: lease
[    2.100000]     # speed: normal
[    2.100000]     1..2
[    2.200000] vfio: unrelated
[    2.200000]     ok 1 join
[    2.300000]     # leave: EXPECTATION FAILED at lease.rs:3
[    2.300000]     Expected 1 == 2
[    2.300000]     not ok 2 leave
[    2.300000] # lease: pass:1 fail:1 skip:0 total:2
[    2.300000] not ok 1 lease
[    2.400000]     KTAP version 1
[    2.400000]     # Subtest: page
[    2.400000]     1..1
[    2.400000]     ok 1 pin # SKIP no memory
[    2.400000] ok 2 page
";

    #[test]
    fn kunit_in_a_kernel_log() {
        let tests = parse(KUNIT);
        assert_eq!(count(&tests), [1, 1, 1]);
        assert_eq!(tests[0].failures(), ["lease/leave"]);
        let notes = ["leave: EXPECTATION FAILED at lease.rs:3", "Expected 1 == 2"];
        assert_eq!(tests[0].subtests[1].notes, notes);
        assert_eq!(tests[1].subtests[0].verdict, Skipped("no memory".into()));
    }

    #[test]
    fn writing_and_reading_again_changes_nothing() {
        let tests = parse(KUNIT);
        let document = format!("KTAP version 1\n1..2\n{}", text(parse(KUNIT)));
        assert_eq!(parse(&document), tests);
        assert!(document.contains("\n    ok 1 pin # SKIP no memory\n"));
    }

    #[test]
    fn a_crash_in_a_test_is_a_failure() {
        // However the log is cut, no more may pass than in the whole, and something fails.
        let lines: Vec<_> = KUNIT.lines().collect();
        for length in 0..lines.len() {
            let [_, failed, _] = count(&parse(&lines[..length].join("\n")));
            assert_ne!(failed, 0, "after {length} lines");
        }
    }

    #[test]
    fn a_missing_test_is_a_failure() {
        assert_eq!(
            count(&parse("TAP version 13\n1..2\nok 1 - a\nok 2 - b\n")),
            [2, 0, 0]
        );
        assert_eq!(
            count(&parse("TAP version 13\n1..3\nok 1 - a\nok 2 - b\n")),
            [2, 1, 0]
        );
        assert_eq!(count(&parse("KTAP version 1\nok 1 a\n")), [1, 1, 0]);
        assert_eq!(count(&parse("KTAP version 1\n1..0\n")), [0, 1, 0]);
        assert_eq!(count(&parse("")), [0, 1, 0]);
    }

    #[test]
    fn two_documents_are_both_read() {
        let document = "KTAP version 1\n1..1\nok 1 a\n";
        assert_eq!(count(&parse(&document.repeat(2))), [2, 0, 0]);
        let cut = "KTAP version 1\n1..2\nok 1 a\n";
        assert_eq!(count(&parse(&format!("{cut}{document}"))), [2, 1, 0]);
    }

    #[test]
    fn a_document_that_skips_itself() {
        assert_eq!(
            count(&parse("KTAP version 1\n1..0 # SKIP no device\n")),
            [0, 0, 1]
        );
    }

    #[test]
    fn a_group_may_fail_by_itself() {
        let document =
            "KTAP version 1\n1..1\n    KTAP version 1\n    1..1\n    ok 1 a\nnot ok 1 g\n";
        assert_eq!(count(&parse(document)), [1, 1, 0]);
    }

    #[test]
    fn text_explains_failures_only() {
        let document = "KTAP version 1\n1..2\nwords\nok 1 a\npanicked\n# note\nnot ok 2 b\n";
        let tests = parse(document);
        assert!(tests[0].notes.is_empty());
        assert_eq!(tests[1].notes, ["panicked", "note"]);
    }

    const CARGO: &str = "
     Running unittests src/lib.rs (/t/debug/deps/request-0123456789abcdef)

running 3 tests
test a::good ... ok
test a::bad ... FAILED
test slow ... ignored, takes an hour

failures:

---- a::bad stdout ----
thread 'a::bad' panicked at src/lib.rs:3:5:
left != right

failures:
    a::bad

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out

     Running unittests src/main.rs (/t/debug/deps/empty-0123456789abcdef)

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out

   Doc-tests request

running 1 test
test src/lib.rs - f (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn cargo_output() {
        let tests = parse_libtest(CARGO, false);
        assert_eq!(count(&tests), [2, 1, 1]);
        assert_eq!(tests[0].failures(), ["request/a::bad"]);
        assert_eq!(tests[0].subtests[1].notes.len(), 2);
        assert_eq!(tests[1].name, "request (documentation)");
    }

    #[test]
    fn a_test_program_that_crashes_is_a_failure() {
        let cut = CARGO.split("test slow").next().unwrap();
        let no_failure = cut.replace("FAILED", "ok");
        assert_eq!(count(&parse_libtest(&no_failure, false)), [2, 1, 0]);
        assert_eq!(
            count(&parse_libtest("error: could not compile\n", false)),
            [0, 1, 0]
        );
        assert_eq!(count(&parse_libtest("", true)), [0, 1, 0]);
        let fine = "running 1 test\ntest a ... ok\n";
        assert_eq!(count(&parse_libtest(fine, true)), [1, 0, 0]);
        assert_eq!(count(&parse_libtest(fine, false)), [1, 1, 0]);
    }
}
