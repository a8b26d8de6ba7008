// SPDX-License-Identifier: GPL-2.0

//! The kernel that the series makes: built after each patch, in both forms, and booted with the tests
//! of this tree and the kernel's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{check, dir, fixes, series};
use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    guest::Guest,
    kconfig,
    kernel::{self, Compiler, Flavour, Kernel, Origin},
    ktap::Test,
    module, progress,
    rungs::Rung,
    steps::Steps,
};

/// The options of the series: as a module with all that is for tests, and built in without.
const AS_MODULE: &str = "tools/upstream/module.config";
const BUILT_IN: &str = "tools/upstream/built-in.config";

/// The kernel crate, and the directories of the series' files and of their users.
const NEAR: &[&str] = &["prepare", "arch/s390/pci/", "drivers/vfio/"];

/// The rungs that the booted kernel has to climb.
const RUNGS: &[&str] = &["kunit", "region", "lifecycle", "conformance"];

/// `test-upstream`: all of it, as one KTAP document.
pub fn test(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let mut steps = Steps::new(&cache, RUNGS.len() + 6)?;
    let results = steps.results().to_path_buf();
    let climb = |name: &str, guest: &Result<Guest>| {
        let none = |error: &Error| Error::new("making the host", error.to_string(), "");
        Rung::climb(name, guest.as_ref().map_err(none)?, &cache, tree, &results)
    };
    steps.take("form", || check(&cache, tree))?;
    let (dir, _lock) = dir(&cache, tree, "trial")?;
    let trial = Trial::new(&cache, tree, &dir)?;
    steps.take("each patch builds, as a module", || trial.build_each())?;
    let guest = Guest::of(&cache, trial.kernel(), tree);
    for name in RUNGS {
        steps.take(name, || climb(name, &guest))?;
    }
    steps.take("defects of the kernel", || {
        fixes::look(&cache, &guest?, tree, true)
    })?;
    steps.take("fixes", || {
        let mut tests = trial.build_fixes()?;
        let guest = Guest::of(&cache, trial.kernel(), tree)?;
        tests.extend(fixes::look(&cache, &guest, tree, false)?);
        Ok(tests)
    })?;
    steps.take("built in, without KUnit", || trial.build_in())?;
    let guest = Guest::of(&cache, trial.kernel(), tree);
    steps.take("region, built in", || climb("region", &guest))?;
    steps.end()
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
            flavour: Flavour::Units,
            build: self.build.clone(),
            key: cache::unique(),
            source: self.work.dir.clone(),
            compiler: self.compiler,
        }
    }

    /// Applies one patch after the other, and compiles after each all of Rust and what is near the
    /// series; in the end all of the kernel.
    fn build_each(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for (number, patch) in self.patches.iter().enumerate() {
            self.work.am(patch)?;
            // Options that no patch has made yet are not there, so each that makes some asks for them
            // anew. That takes as long as to compile, so the others do not.
            let text = fs::read_to_string(patch);
            let text = text.context(format!("reading {}", patch.display()))?;
            if number == 0 || text.contains("/Kconfig") {
                self.configure(AS_MODULE)?;
            }
            let name = patch.file_name().unwrap_or_default().to_string_lossy();
            match self.compile(&name, NEAR) {
                Ok(objections) => tests.push(Test::check(&*name, objections)),
                // With the next one it may build again, but not for who looks for a defect by bisection.
                Err(error) => {
                    tests.push(Test::failed(&*name, error.to_string()));
                    return Ok(tests);
                }
            }
        }
        tests.push(self.built("the kernel is built", AS_MODULE)?);
        Ok(tests)
    }

    fn build_fixes(&self) -> Result<Vec<Test>> {
        for fix in &self.fixes {
            self.work.am(fix)?;
        }
        Ok(vec![
            self.built("the kernel with the fixes is built", AS_MODULE)?
        ])
    }

    fn build_in(&self) -> Result<Vec<Test>> {
        self.configure(BUILT_IN)?;
        Ok(vec![self.built("the kernel is built", BUILT_IN)?])
    }

    /// All of the kernel, and whether it has the options that it should.
    fn built(&self, name: &str, options: &str) -> Result<Test> {
        let mut objections = self.compile(name, kernel::ALL)?;
        let wanted = kconfig::read(&[self.tree.join(options)])?;
        let found = kconfig::read(&[self.build.join(".config")])?;
        objections.extend(kconfig::refused(&wanted, &found));
        Ok(Test::check(name, objections))
    }

    fn configure(&self, options: &str) -> Result<()> {
        let mut fragments = Flavour::Units.fragments(self.tree);
        fragments.push(self.tree.join(options));
        self.kernel().configure(self.cache, &fragments)
    }

    /// What the compilers object to in files of the series, while they make `goals`.
    fn compile(&self, what: &str, goals: &[&str]) -> Result<Vec<String>> {
        let kernel = self.kernel();
        let log = kernel.compile(self.cache, &format!("{what}: compiling"), goals)?;
        let text = fs::read_to_string(&log).context(format!("reading {}", log.display()))?;
        let ours = |warning: &String| warning.contains("vfio") || warning.contains("zpci");
        Ok(module::warnings(&text).into_iter().filter(ours).collect())
    }
}
