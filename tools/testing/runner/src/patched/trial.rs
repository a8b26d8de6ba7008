// SPDX-License-Identifier: GPL-2.0

//! The series for QEMU: built after each patch, with the tests that it has by then, and with QEMU's own
//! tests in the end.

use std::{fs, path::Path};

use super::{copy_firmware, kept, Recipe, Work, L0};
use crate::{
    cache::{self, Cache},
    error::{Context, Result},
    ktap::{Test, Verdict},
    progress, source,
    steps::Steps,
};

/// QEMU's own tests of this machine.
const SUITE: &str = "qtest-s390x";

/// Where a QEMU that is not installed looks for firmware.
const BUNDLE: &str = "qemu-bundle/usr/local/share/qemu";

/// Tests that patches bring: guests that QEMU runs, made by the cross compiler.
const GUESTS: &[&str] = &["stsch-protected", "zpci", "ism"];

/// They have limits of their own, which are for quiet processors.
const PATIENCE: &str = "10";

/// `test-qemu-series`: all of it, as one KTAP document.
pub fn test(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let mut steps = Steps::new(&cache, 2)?;
    let recipe = Recipe::read(&cache, tree)?;
    // What one version is configured with does not do for another.
    let key = cache::key(&(tree, recipe.source.name()));
    let item = format!("qemu-trial-{key}");
    let _lock = cache.lock(&item)?;
    let dir = kept(&L0).unwrap_or_else(|| cache.path(&item));
    let work = Work::new(&cache, &L0, &dir)?;
    steps.take("each patch builds", || build_each(&recipe, &work))?;
    steps.take("QEMU's own tests", || own_tests(&work))?;
    steps.end()
}

/// Applies one patch after the other, compiles after each what it has changed, and runs what tests there
/// are of the series.
fn build_each(recipe: &Recipe, work: &Work) -> Result<Vec<Test>> {
    work.unpack(&recipe.source, &[])?;
    work.configure(None)?;
    work.compile()?;
    copy_firmware(&work.build.join(BUNDLE))?;
    let mut tests = Vec::new();
    for patch in &recipe.patches {
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        progress::say(&name);
        recipe.source.apply(patch, &name, &work.log, &work.tree)?;
        // With the next one it may build again, but not for who looks for a defect by bisection.
        if let Err(error) = work.compile() {
            tests.push(Test::failed(&*name, error.to_string()));
            break;
        }
        let text = fs::read_to_string(&work.log);
        let text = text.context(format!("reading {}", work.log.display()))?;
        let warnings = text.lines().filter(|line| line.contains("warning: "));
        let mut objections: Vec<_> = warnings.map(str::to_owned).collect();
        for guest in GUESTS {
            objections.extend(run_guest(work, guest)?);
        }
        tests.push(Test::check(&*name, objections));
    }
    Ok(tests)
}

/// What there is to object to one of these tests; nothing if it is not there yet.
fn run_guest(work: &Work, name: &str) -> Result<Vec<String>> {
    let sources = work.tree.join("tests/tcg/s390x");
    let is_there = |extension| sources.join(name).with_extension(extension).exists();
    if !is_there("c") && !is_there("S") {
        return Ok(Vec::new());
    }
    let mut make = source::command("make", &work.build.join("tests/tcg/s390x-softmmu"));
    make.args(["-rR", &format!("run-{name}")]);
    let step = format!("{}: {name}", work.what);
    if progress::try_run(&step, &mut make, &work.log, |_| "some seconds".into())?.success() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&work.log);
    let text = text.context(format!("reading {}", work.log.display()))?;
    let mut objections = vec![format!("{name} fails; the last lines of its log:")];
    objections.extend(progress::last(&text, 9));
    Ok(objections)
}

fn own_tests(work: &Work) -> Result<Vec<Test>> {
    let program = work.build.join("pyvenv/bin/meson").display().to_string();
    let mut meson = source::command(&program, &work.build);
    meson.args(["test", "--suite", SUITE, "--timeout-multiplier", PATIENCE]);
    let step = format!("{}: {SUITE}", work.what);
    let status = progress::try_run(&step, &mut meson, &work.log, |_| "some minutes".into())?;
    let text = fs::read_to_string(&work.log);
    let text = text.context(format!("reading {}", work.log.display()))?;
    let mut tests = results(&text);
    let good = status.success() && !tests.is_empty();
    let last = if good { "" } else { &text };
    tests.push(Test::check(
        "the end of the suite",
        progress::last(last, 20),
    ));
    Ok(tests)
}

/// Of lines like " 3/12 qemu:qtest+qtest-s390x / qtest-s390x/qos-test   OK   1.66s   12 subtests passed".
fn results(text: &str) -> Vec<Test> {
    let prefix = format!(" / {SUITE}/");
    let lines = text.lines().filter_map(|line| line.split_once(&prefix));
    lines
        .filter_map(|(_, rest)| {
            let (name, rest) = rest.split_once(' ')?;
            let rest = rest.trim();
            Some(match rest.split_whitespace().next()? {
                "OK" => Test::check(name, vec![]),
                "SKIP" => Test::new(name, Verdict::Skipped("it says so itself".into()), vec![]),
                _ => Test::failed(name, rest),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_says_how_each_of_its_tests_ended() {
        let text = "ninja: no work to do.\n\
            1/3 qemu:qtest+qtest-s390x / qtest-s390x/qos-test     OK      1.66s   12 subtests passed\n\
            2/3 qemu:qtest+qtest-s390x / qtest-s390x/cpu-plug-test   SKIP   0.1s\n\
            3/3 qemu:qtest+qtest-s390x / qtest-s390x/drive_del-test  TIMEOUT  60.00s   killed\n\
            \nOk: 1\n";
        let group = Test::group("g", results(text));
        assert_eq!(group.failures(), ["g/drive_del-test"]);
        assert_eq!(group.skipped().len(), 1);
        assert!(group.passes("qos-test"));
    }
}
