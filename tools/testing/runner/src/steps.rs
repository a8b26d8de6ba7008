// SPDX-License-Identifier: GPL-2.0

//! Long tests, one step after the other: one KTAP document, with a table of the steps at its end.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    cache::Cache,
    error::{Context, Result},
    ktap::{self, Counts, Test},
    progress,
    results::{self, Both},
};

pub struct Steps {
    results: PathBuf,
    out: Both,
    done: Vec<Step>,
}

struct Step {
    name: String,
    counts: Counts,
    seconds: u64,
}

impl Steps {
    /// Begins the document, which has as many tests as there are steps.
    pub fn new(cache: &Cache, plan: usize) -> Result<Self> {
        let results = results::dir(cache)?;
        let path = results.join("results.ktap");
        let file = File::create(&path).context(format!("writing {}", path.display()))?;
        let mut out = Both(file);
        written(writeln!(out, "KTAP version 1\n1..{plan}"))?;
        Ok(Self {
            results,
            out,
            done: Vec::new(),
        })
    }

    /// Where the results are kept.
    pub fn results(&self) -> &Path {
        &self.results
    }

    /// Takes a step. That it cannot be taken is a failure.
    pub fn take(&mut self, name: &str, work: impl FnOnce() -> Result<Vec<Test>>) -> Result<()> {
        progress::say(name);
        let start = Instant::now();
        let tests = work();
        let tests = tests.unwrap_or_else(|error| vec![Test::failed("start", error.to_string())]);
        let test = Test::group(name, tests);
        let (counts, seconds) = (test.counts(), start.elapsed().as_secs());
        progress::say(&format!("{name}: {} in {seconds} s", ktap::summary(counts)));
        written(test.write(&mut self.out, self.done.len() + 1, 0))?;
        self.done.push(Step {
            name: test.name,
            counts,
            seconds,
        });
        Ok(())
    }

    /// Ends the document, and returns the exit code.
    pub fn end(mut self) -> Result<u8> {
        let mut total = Counts::default();
        let width = self.done.iter().map(|step| step.name.len()).max();
        let width = width.unwrap_or_default();
        for step in &self.done {
            total += step.counts;
            written(writeln!(self.out, "# {}", step.row(width)))?;
        }
        written(writeln!(self.out, "# kept in {}", self.results.display()))?;
        written(writeln!(self.out, "{}", ktap::summary(total)))?;
        Ok(u8::from(total.failed > 0))
    }
}

impl Step {
    /// Its line of the table.
    fn row(&self, width: usize) -> String {
        let Counts {
            passed,
            failed,
            skipped,
        } = self.counts;
        format!(
            "{:width$} {passed:4} passed {failed:3} failed {skipped:3} skipped {:5} s",
            self.name, self.seconds
        )
    }
}

fn written(result: io::Result<()>) -> Result<()> {
    result.context("writing the results")
}
