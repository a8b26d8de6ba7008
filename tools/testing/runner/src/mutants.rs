// SPDX-License-Identifier: GPL-2.0

//! Mutants: the driver with a defect put in, which a test that is named must find. The same test
//! must pass without the defect, or it would prove nothing: that is tried first.
//!
//! Each is a patch in `tools/testing/mutants`, with two to four lines before the diff:
//!
//! ```text
//! Defect: what is wrong with the driver
//! Killed-by: RUNG: the name of the test, or a part of it
//! During: the test that is run, if what finds it is no test to be run: "kernel log"
//! Kernel-says: what the log of the booted host must hold, too; the kernel may have died of it
//! ```

use std::{
    collections::HashMap,
    env, fs,
    io::{stdout, Write},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    ktap::Test,
    patched, progress,
    rungs::Rung,
    source, vm,
};

pub struct Mutant {
    pub name: String,
    patch: PathBuf,
    defect: String,
    pub rung: &'static Rung,
    pub test: String,
    during: Option<String>,
    message: Option<String>,
}

/// Tests the mutants that have one of `filters` as their name or, if none has, in it; or all. Returns
/// the exit code.
pub fn test(tree: &Path, filters: &[&str]) -> Result<u8> {
    let mut mutants = read(tree)?;
    let names: Vec<_> = mutants.iter().map(|mutant| mutant.name.clone()).collect();
    mutants.retain(|mutant| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                mutant.name == *filter
                    || (!names.iter().any(|name| name == filter) && mutant.name.contains(filter))
            })
    });
    let cache = Cache::open()?;
    // Two trees may be tested at the same time.
    let item = format!("mutants-{}", cache::key(tree));
    let _lock = cache.lock(&item)?;
    let work = cache.path(&item).join("tree");
    env::set_var("CARGO_TARGET_DIR", cache.path(&item).join("target"));
    env::set_var(patched::KEPT, cache.path(&item).join("qemu"));
    let results = cache.path("results").join(&item);
    fs::create_dir_all(&work).context("making the mutants' directory")?;
    fs::create_dir_all(&results).context("making the results' directory")?;

    let step = "printing";
    let mut out = stdout().lock();
    writeln!(out, "KTAP version 1\n1..{}", mutants.len()).context(step)?;
    let mut controls = HashMap::new();
    let mut killed = 0;
    for (mutant, number) in mutants.iter().zip(1..) {
        progress::say(&format!(
            "mutant {number} of {}: {}",
            mutants.len(),
            mutant.name
        ));
        let key = (mutant.rung.name, mutant.filter(), mutant.test.as_str());
        let control = controls
            .entry(key)
            .or_insert_with(|| listed(mutant.control(&cache, tree, &work, &results)));
        let objections = if control.is_empty() {
            listed(mutant.survives(&cache, tree, &work, &results))
        } else {
            control.clone()
        };
        killed += usize::from(objections.is_empty());
        let name = format!("{}: {}", mutant.name, mutant.defect);
        Test::check(name, objections)
            .write(&mut out, number, 0)
            .context(step)?;
    }
    writeln!(out, "{} mutants, {killed} killed", mutants.len()).context(step)?;
    Ok(u8::from(killed != mutants.len()))
}

/// An error is an objection, too.
fn listed(objections: Result<Vec<String>>) -> Vec<String> {
    objections.unwrap_or_else(|error| vec![error.to_string()])
}

/// The mutants, by name.
pub fn read(tree: &Path) -> Result<Vec<Mutant>> {
    let dir = tree.join("tools/testing/mutants");
    let step = || format!("reading {}", dir.display());
    let mut patches = fs::read_dir(&dir)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .context(step())?;
    patches.sort_by_key(fs::DirEntry::file_name);
    patches
        .iter()
        .map(|entry| {
            let patch = entry.path();
            let text = fs::read_to_string(&patch).context(step())?;
            let name = patch.file_stem().unwrap_or_default().to_string_lossy();
            parse(&name, &patch, &text)
                .ok_or_else(|| Error::new("mutants", format!("{name} has no proper header"), ""))
        })
        .collect()
}

fn parse(name: &str, patch: &Path, text: &str) -> Option<Mutant> {
    let field = |field| text.lines().find_map(|line: &str| line.strip_prefix(field));
    let (rung, test) = field("Killed-by: ")?.split_once(": ")?;
    Some(Mutant {
        name: name.into(),
        patch: patch.into(),
        defect: field("Defect: ")?.into(),
        rung: Rung::named(rung)?,
        test: test.into(),
        during: field("During: ").map(String::from),
        message: field("Kernel-says: ").map(String::from),
    })
}

impl Mutant {
    fn patch_command(&self, tree: &Path) -> Command {
        let mut patch = Command::new("patch");
        patch.args(["-p1", "--forward", "--batch", "--fuzz=0", "-i"]);
        patch.arg(&self.patch).current_dir(tree);
        patch
    }

    /// What of the rung is run.
    fn filter(&self) -> &str {
        self.during.as_ref().unwrap_or(&self.test)
    }

    /// Why its test says nothing about a mutant; nothing if it passes without the defect. In the same
    /// copy: for cargo, which takes two trees with one target directory for the same, what has been built
    /// from another would be up to date.
    fn control(
        &self,
        cache: &Cache,
        tree: &Path,
        work: &Path,
        results: &Path,
    ) -> Result<Vec<String>> {
        copy(tree, work)?;
        let results = results.join("control");
        fs::create_dir_all(&results).context("making the results' directory")?;
        let tests = self.rung.run(cache, work, &results, Some(self.filter()))?;
        let group = Test::group(self.rung.name, tests);
        if group.passes(self.filter()) && group.passes(&self.test) {
            return Ok(Vec::new());
        }
        let (test, rung) = (&self.test, self.rung.name);
        let mut objections = vec![format!(
            "'{test}' of rung {rung} fails without a defect, too"
        )];
        objections.extend(
            group
                .failures()
                .iter()
                .map(|name| format!("failed: {name}")),
        );
        Ok(objections)
    }

    /// Why the mutant does not count as killed; nothing if it is.
    fn survives(
        &self,
        cache: &Cache,
        tree: &Path,
        work: &Path,
        results: &Path,
    ) -> Result<Vec<String>> {
        copy(tree, work)?;
        let mut patch = self.patch_command(work);
        let log = results.join(format!("{}.patch.out", self.name));
        progress::run("patch", &mut patch, &log, |_| String::new())?;

        let results = results.join(&self.name);
        fs::create_dir_all(&results).context("making the results' directory")?;
        // A defect in the locks may hang the machine, which must not stop us.
        if vm::var("TIMEOUT").is_none() {
            env::set_var("TIMEOUT", "300");
        }
        let tests = self.rung.run(cache, work, &results, Some(self.filter()))?;
        let group = Test::group(self.rung.name, tests);
        let failures = group.failures();
        let mut objections = Vec::new();
        let failed = failures.iter().any(|name| name.contains(&self.test));
        // Where the kernel died of it there is no result, and the log has to tell the cause.
        let died = self.message.is_some() && !failures.is_empty() && !group.passes(&self.test);
        if !failed && !died {
            objections.push(format!(
                "'{}' of rung {} has not found it",
                self.test, self.rung.name
            ));
            objections.extend(failures.iter().map(|name| format!("but failed: {name}")));
        }
        if let Some(message) = &self.message {
            let log = results.join(format!("{}.console", self.rung.name));
            let log = fs::read(&log).context(format!("reading {}", log.display()))?;
            if !String::from_utf8_lossy(&log).contains(message) {
                objections.push(format!("the kernel has not said '{message}'"));
            }
        }
        Ok(objections)
    }
}

/// Makes `work` a copy of what the tests are built from.
fn copy(tree: &Path, work: &Path) -> Result<()> {
    let parts = [
        ".gitignore",
        "COPYING",
        "Documentation",
        "Kbuild",
        "Makefile",
        "README.md",
        "drivers",
        "include",
        "rust",
        "samples",
        "scripts",
        "tools",
    ];
    let mut rsync = source::rsync();
    // What is made from it.
    rsync.arg("--exclude=/Documentation/output");
    rsync
        .args(parts.iter().map(|part| tree.join(part)))
        .arg(work);
    // Packages are made of what git lists.
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(work);
        git
    };
    for mut command in [rsync, git(&["init", "--quiet"]), git(&["add", "--all"])] {
        let status = command.status().context("copying the tree")?;
        if !status.success() {
            let program = command.get_program().display();
            return Err(Error::new(
                "copying the tree",
                format!("{program}: {status}"),
                "",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_rung_and_test() {
        let text = "Defect: no check\nKilled-by: region: EINVAL: len 0\n\n--- a/x\n+++ b/x\n";
        let mutant = parse("x", Path::new("x.patch"), text).unwrap();
        assert_eq!(
            (
                mutant.defect.as_str(),
                mutant.rung.name,
                mutant.test.as_str()
            ),
            ("no check", "region", "EINVAL: len 0")
        );
        assert_eq!(mutant.message, None);
        let text = text.replace("\n\n", "\nKernel-says: possible\n\n");
        let mutant = parse("x", Path::new("x.patch"), &text).unwrap();
        assert_eq!(mutant.message.as_deref(), Some("possible"));
        assert_eq!(mutant.filter(), "EINVAL: len 0");
        let text = text.replace("\n\n", "\nDuring: header\n\n");
        let mutant = parse("x", Path::new("x.patch"), &text).unwrap();
        assert_eq!(
            (mutant.filter(), &*mutant.test),
            ("header", "EINVAL: len 0")
        );
        assert!(parse("x", Path::new(""), "Defect: none\n").is_none());
        assert!(parse(
            "x",
            Path::new(""),
            "Defect: a\nKilled-by: no such rung: b\n"
        )
        .is_none());
    }

    #[test]
    fn every_mutant_fits_the_tree() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        for mutant in read(&tree).unwrap() {
            let mut patch = mutant.patch_command(&tree);
            let output = patch.arg("--dry-run").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}: {text}", mutant.name);
        }
    }
}
