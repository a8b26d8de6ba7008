// SPDX-License-Identifier: GPL-2.0

//! The ladder of tests: what a rung is, and how one is climbed. All of them are in [`table`], a new one goes
//! there; [`ladder`] is `make test`, [`boot`] what happens in a booted host, and [`checks`] what every boot is
//! looked at for.

use std::{
    fs,
    path::Path,
    process::Command,
    time::Instant, //
};

use crate::{
    cache::Cache,
    error::{Context, Error, Result},
    guest::Guest,
    kernel::Flavour,
    ktap::{self, Test},
    progress,
};

mod boot;
pub mod checks;
mod ladder;
mod table;

use boot::Boot;
pub use ladder::test;

/// One rung of the ladder.
pub struct Rung {
    pub name: &'static str,
    /// About how many seconds it takes on two quiet processors, for those who wait.
    seconds: u64,
    /// What it skips, no more and no less: how many tests have this in their names.
    skips: &'static [(&'static str, usize)],
    kind: Kind,
}

enum Kind {
    /// `cargo test` of these packages, on this machine.
    Cargo(&'static [&'static str]),
    /// A program of the tree that prints KTAP, on this machine.
    Program(&'static str),
    /// Tests of this program's own.
    Own(fn(&Cache, &Path) -> Result<Vec<Test>>),
    /// A command in a booted s390x host of its own.
    Boot(Boot),
}

impl Rung {
    pub fn named(name: &str) -> Option<&'static Self> {
        table::all().find(|rung| rung.name == name)
    }

    /// Runs all tests, and says how long it takes.
    fn tested(&self, cache: &Cache, tree: &Path, results: &Path) -> Test {
        let name = self.name;
        progress::say(&format!("tests: {name} (about {} s)", self.seconds));
        let start = Instant::now();
        let tests = match self.run(cache, tree, results, None) {
            Ok(mut tests) => {
                tests.push(checks::skips(&tests, self.skips));
                tests
            }
            Err(error) => vec![Test::failed("start", error.to_string())],
        };
        let test = Test::group(name, tests);
        let summary = ktap::summary(test.counts());
        let elapsed = start.elapsed().as_secs();
        progress::say(&format!("tests: {name}: {summary} in {elapsed} s"));
        test
    }

    /// Runs the tests, all or those with `filter` in their names, and keeps their output in
    /// `results`.
    pub fn run(
        &self,
        cache: &Cache,
        tree: &Path,
        results: &Path,
        filter: Option<&str>,
    ) -> Result<Vec<Test>> {
        let keep = |suffix: &str| results.join(format!("{}.{suffix}", self.name));
        match &self.kind {
            Kind::Cargo(packages) => {
                let mut cargo = Command::new("cargo");
                cargo
                    .args(["test", "--locked", "--no-fail-fast", "--color=never"])
                    .current_dir(tree.join("tools"));
                for package in *packages {
                    cargo.args(["-p", package]);
                }
                let (text, success) = output(cargo.args(filter), &keep("out"))?;
                Ok(ktap::parse_libtest(&text, success))
            }
            Kind::Program(path) => {
                let mut program = Command::new(tree.join(path));
                let (text, success) = output(&mut program, &keep("out"))?;
                let objection = "it ended with an error".to_string();
                let end = if success { vec![] } else { vec![objection] };
                let mut tests = ktap::parse(&text);
                tests.push(Test::check("end of the program", end));
                Ok(tests)
            }
            Kind::Own(tests) => tests(cache, tree),
            Kind::Boot(boot) => boot.run(self.name, cache, tree, &keep, filter),
        }
    }

    /// Runs the tests of a rung in another host than the usual one.
    pub fn climb(
        name: &str,
        guest: &Guest,
        cache: &Cache,
        tree: &Path,
        results: &Path,
    ) -> Result<Vec<Test>> {
        let rung = Self::named(name);
        let Some((rung, Kind::Boot(boot))) = rung.map(|rung| (rung, &rung.kind)) else {
            return Err(Error::new(name, "no rung of this name boots a host", ""));
        };
        let keep = |suffix: &str| results.join(format!("{name}.{suffix}"));
        let mut tests = boot.run_on(guest, name, cache, tree, &keep, None)?;
        let mut expected = rung.skips.to_vec();
        if guest.kernel.flavour == Flavour::Units {
            expected.extend(boot.skips_on_units);
        }
        if guest.release().starts_with("7.2.") {
            let (now, then) = table::ON_LINUX_7_2;
            for (part, _) in expected.iter_mut().filter(|(part, _)| *part == now) {
                *part = then;
            }
        }
        tests.push(checks::skips(&tests, &expected));
        Ok(tests)
    }
}

/// Runs a program of this machine and returns what it printed and whether it succeeded.
fn output(command: &mut Command, log: &Path) -> Result<(String, bool)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = progress::try_run(&name, command, log, |_| "running".into())?;
    let text = fs::read(log).context(format!("reading {}", log.display()))?;
    Ok((
        String::from_utf8_lossy(&text).into_owned(),
        status.success(),
    ))
}
