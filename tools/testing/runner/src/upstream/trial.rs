// SPDX-License-Identifier: GPL-2.0

//! The kernel that the series makes: built after each patch, in both forms, and booted with the tests
//! of this tree and the kernel's own.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use super::{check, dir, fixes, series};
use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    guest::Guest,
    kconfig,
    kernel::{Compiler, Flavour, Kernel, Origin},
    ktap::{self, Counts, Test},
    module, progress,
    rungs::{self, Rung},
};

/// The options of the series: as a module with all that is for tests, and built in without.
const AS_MODULE: &str = "tools/upstream/module.config";
const BUILT_IN: &str = "tools/upstream/built-in.config";

/// The rungs that the booted kernel has to climb.
const RUNGS: &[&str] = &["kunit", "region", "lifecycle", "conformance"];

/// `test-upstream`: all of it, as one KTAP document.
pub fn test(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let results = rungs::results_dir(&cache)?;
    let path = results.join("results.ktap");
    let file = File::create(&path).context(format!("writing {}", path.display()))?;
    let mut out = rungs::Both(file);
    let print = |result: io::Result<()>| result.context("writing the results");
    let plan = RUNGS.len() + 6;
    print(writeln!(out, "KTAP version 1\n1..{plan}"))?;
    let mut total = Counts::default();
    let mut number = 0;
    let mut report = |name: &str, tests: Result<Vec<Test>>| {
        let tests = tests.unwrap_or_else(|error| vec![Test::failed("start", error.to_string())]);
        let test = Test::group(name, tests);
        total += test.counts();
        number += 1;
        progress::say(&format!("{name}: {}", ktap::summary(test.counts())));
        print(test.write(&mut out, number, 0))
    };

    report("form", check(&cache, tree))?;
    let (dir, _lock) = dir(&cache, tree, "trial")?;
    let trial = Trial::new(&cache, tree, &dir)?;
    report("each patch builds, as a module", trial.build_each())?;
    let guest = Guest::of(&cache, trial.kernel(), tree);
    for name in RUNGS {
        let mut tests = climb(name, &guest, &cache, tree, &results);
        if *name == "kunit" {
            tests = tests.and_then(|tests| with_suites(tests, tree, &results));
        }
        report(name, tests)?;
    }
    let found = guest.and_then(|guest| fixes::look(&cache, &guest, true));
    report("defects of the kernel", found)?;
    let fixed = trial.build_fixes().and_then(|mut tests| {
        let guest = Guest::of(&cache, trial.kernel(), tree)?;
        tests.extend(fixes::look(&cache, &guest, false)?);
        Ok(tests)
    });
    report("fixes", fixed)?;
    report("built in, without KUnit", trial.build_in())?;
    let guest = Guest::of(&cache, trial.kernel(), tree);
    let tests = climb("region", &guest, &cache, tree, &results);
    report("region, built in", tests)?;
    print(writeln!(out, "# kept in {}", results.display()))?;
    print(writeln!(out, "{}", ktap::summary(total)))?;
    Ok(u8::from(total.failed > 0))
}

/// Runs a rung in this host, if there is one.
fn climb(
    name: &str,
    guest: &Result<Guest>,
    cache: &Cache,
    tree: &Path,
    results: &Path,
) -> Result<Vec<Test>> {
    let none = |error: &Error| Error::new("making the host", error.to_string(), "");
    let guest = guest.as_ref().map_err(none)?;
    let unknown = || Error::new("test-upstream", format!("there is no rung '{name}'"), "");
    let rung = Rung::named(name).ok_or_else(unknown)?;
    rung.run_on(guest, cache, tree, results)
}

/// Adds what the suites of the kernel crate said, which run when the kernel boots.
fn with_suites(mut tests: Vec<Test>, tree: &Path, results: &Path) -> Result<Vec<Test>> {
    let console = results.join("kunit.console");
    let step = || format!("reading {}", console.display());
    let console = fs::read(&console).context(step())?;
    let mut found = ktap::parse(&String::from_utf8_lossy(&console));
    for dir in ["rust/vfio", "drivers/vfio/pci/zpci"] {
        for (path, meta) in cache::walk(&tree.join(dir)).context(step())? {
            if !meta.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).context(step())?;
            let Some((_, rest)) = text.split_once("#[kunit_tests(") else {
                continue;
            };
            let (suite, _) = rest.split_once(')').unwrap_or_default();
            tests.push(match found.iter().position(|test| test.name == suite) {
                Some(at) => found.swap_remove(at),
                None => Test::failed(suite, "this suite did not run"),
            });
        }
    }
    Ok(tests)
}

/// A copy of the kernel's source to which the series is applied, and what is built from it.
struct Trial<'a> {
    cache: &'a Cache,
    tree: &'a Path,
    patches: Vec<PathBuf>,
    fixes: Vec<PathBuf>,
    work: series::Work,
    build: PathBuf,
    compiler: Compiler,
}

impl<'a> Trial<'a> {
    fn new(cache: &'a Cache, tree: &'a Path, dir: &Path) -> Result<Self> {
        let origin = Origin::from_env(cache)?;
        let made = series::make(tree, &origin.source, &dir.join("series"))?;
        let source = dir.join("linux");
        if source.exists() {
            fs::remove_dir_all(&source).context("removing the last trial")?;
        }
        // Hard links: git makes a file anew when it changes it.
        let mut copy = Command::new("cp");
        copy.arg("-al").arg(&origin.source).arg(&source);
        progress::run(
            "copying the kernel's source",
            &mut copy,
            &cache.log("copy"),
            |_| String::new(),
        )?;
        Ok(Self {
            cache,
            tree,
            work: series::Work::before(tree, &origin.source, &source)?,
            // From one trial to the next it is built on.
            build: dir.join("build"),
            compiler: origin.compiler,
            patches: made.patches,
            fixes: made.fixes,
        })
    }

    fn kernel(&self) -> Kernel {
        Kernel {
            flavour: Flavour::Release,
            build: self.build.clone(),
            key: cache::unique(),
            source: self.work.dir.clone(),
            compiler: self.compiler,
        }
    }

    /// Applies one patch after the other, and builds the kernel after each.
    fn build_each(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        let fragments = self.fragments(AS_MODULE);
        // Options that no patch has made yet are not there.
        self.compile("the kernel before the series", &fragments)?;
        for patch in &self.patches {
            self.work.am(patch)?;
            let name = patch.file_name().unwrap_or_default().to_string_lossy();
            tests.push(Test::check(&*name, self.compile(&name, &fragments)?));
        }
        tests.push(self.configured(AS_MODULE)?);
        Ok(tests)
    }

    fn build_fixes(&self) -> Result<Vec<Test>> {
        for fix in &self.fixes {
            self.work.am(fix)?;
        }
        let warnings = self.compile("with the fixes", &self.fragments(AS_MODULE))?;
        Ok(vec![Test::check("the kernel is built", warnings)])
    }

    fn build_in(&self) -> Result<Vec<Test>> {
        let warnings = self.compile("built in", &self.fragments(BUILT_IN))?;
        let built = Test::check("the kernel is built", warnings);
        Ok(vec![built, self.configured(BUILT_IN)?])
    }

    fn fragments(&self, options: &str) -> Vec<PathBuf> {
        let mut fragments = Flavour::Release.fragments(self.tree);
        fragments.push(self.tree.join(options));
        fragments
    }

    /// What the compilers object to in files of the series.
    fn compile(&self, what: &str, fragments: &[PathBuf]) -> Result<Vec<String>> {
        let kernel = self.kernel();
        let log = kernel
            .configure(self.cache, fragments)
            .and_then(|()| kernel.compile(self.cache, &format!("{what}: compiling")))?;
        let text = fs::read_to_string(&log).context(format!("reading {}", log.display()))?;
        let ours = |warning: &String| warning.contains("vfio") || warning.contains("zpci");
        Ok(module::warnings(&text).into_iter().filter(ours).collect())
    }

    /// Whether the kernel has the options that it should.
    fn configured(&self, options: &str) -> Result<Test> {
        let wanted = kconfig::read(&[self.tree.join(options)])?;
        let found = kconfig::read(&[self.build.join(".config")])?;
        Ok(Test::check(
            "the options of the series are set",
            kconfig::refused(&wanted, &found),
        ))
    }
}
