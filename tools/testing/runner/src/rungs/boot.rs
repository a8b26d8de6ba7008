// SPDX-License-Identifier: GPL-2.0

//! A rung that boots a host.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::checks;
use crate::{
    bare,
    cache::{Cache, Scratch},
    chain, conformance, emulator,
    error::{Context, Result},
    fuzz,
    guest::Guest,
    kernel::Flavour,
    ktap::{self, Test},
    packages,
    patched::Patched,
    progress,
    qemu::{self, Functions},
    vm::{self, Machine},
};

/// A command in an s390x host of its own: which host, and what comes of it.
pub struct Boot {
    pub flavour: Flavour,
    /// Whether a test, if it is asked for alone, finds the same on the release kernel, which boots
    /// faster.
    pub release_for_one: fn(&str) -> bool,
    /// One CPU whose clock counts instructions, however busy this machine is.
    pub exact: bool,
    /// Its PCI functions.
    pub functions: Functions,
    /// Events of the emulator that are kept with the results.
    pub trace: &'static [&'static str],
    /// What the emulator's monitor is asked after the command.
    pub question: Option<&'static str>,
    pub files: Files,
    pub command: &'static str,
    /// Which of the command's tests, if not all: a part of their names.
    pub only: Option<&'static str>,
    /// An option that makes the command take much longer, if it has one.
    pub long: Option<&'static str>,
    pub results: Results,
    /// What it skips besides on the kernel with the unit tests, which has less than others.
    pub skips_on_units: &'static [(&'static str, usize)],
}

/// A boot, as most tests want it.
pub const BOOT: Boot = Boot {
    flavour: Flavour::Debug,
    release_for_one: |_| false,
    exact: false,
    functions: &[qemu::NVME],
    trace: &[],
    question: None,
    files: Files::None,
    command: "",
    only: None,
    long: None,
    results: Results::Output,
    skips_on_units: &[],
};

/// What is put into the host for one boot.
pub enum Files {
    None,
    /// The kernel's VFIO tests.
    Selftests,
    /// A VMM, and a program without an operating system for its guest.
    Bare,
    /// A VMM, and a program that means harm.
    Fuzz,
    /// A VMM, and a Linux guest for it.
    LinuxGuest,
    /// Packages.
    Packages,
}

/// Where a booted host's KTAP comes from.
pub enum Results {
    /// What the command prints; it takes a part of a test's name as an argument.
    Output,
    /// What the kernel says while the command runs.
    KernelLog,
    /// What the kernel's VFIO tests print with two drivers.
    Comparison,
    /// What a program prints in the guest, and without a host.
    Bare,
    /// The same of a program that means harm, and what the emulator saw.
    Fuzz,
    /// What the command prints about a guest, and what the emulator saw.
    Witness,
    /// What the emulator did for the command.
    Translations,
    /// What the command prints about packages, and what is found out about them on this machine.
    Packages,
}

/// How many seconds a machine may take, the slowest one under emulation on a busy processor.
const TIMEOUT: &str = "1800";

/// The same, if LONG is set.
const LONG_TIMEOUT: &str = "14400";

impl Boot {
    pub fn run(
        &self,
        name: &str,
        cache: &Cache,
        tree: &Path,
        keep: &dyn Fn(&str) -> PathBuf,
        filter: Option<&str>,
    ) -> Result<Vec<Test>> {
        let flavour = match filter {
            Some(name) if (self.release_for_one)(name) => Flavour::Release,
            _ => self.flavour,
        };
        let guest = Guest::get(cache, flavour, tree)?;
        self.run_on(&guest, name, cache, tree, keep, filter)
    }

    pub fn run_on(
        &self,
        guest: &Guest,
        name: &str,
        cache: &Cache,
        tree: &Path,
        keep: &dyn Fn(&str) -> PathBuf,
        filter: Option<&str>,
    ) -> Result<Vec<Test>> {
        let flavour = guest.kernel.flavour;
        let long = self.long.filter(|_| vm::var("LONG").is_some());
        let timeout = long.map_or(TIMEOUT, |_| LONG_TIMEOUT);
        let mut machine = Machine::from_env(flavour, timeout)?;
        let scratch = Scratch::new(cache)?;
        let patched = Patched::get(cache, tree)?;
        machine.hardware = patched.hardware(self.functions);
        machine.trace = self.trace;
        machine.question = self.question;
        if self.exact {
            machine.count_instructions();
        }
        machine.files.extend(match self.files {
            Files::None => Vec::new(),
            Files::Selftests => conformance::programs(cache, &guest.kernel)?,
            Files::Bare => {
                let mut files = patched.vmm(cache)?.to_vec();
                files.push(bare::program(tree, &scratch, "bare", "cases.c", &[])?);
                files
            }
            Files::Fuzz => {
                let mut files = patched.vmm(cache)?.to_vec();
                files.push(fuzz::program(tree, &scratch, true)?);
                files
            }
            Files::LinuxGuest => {
                // An emulated host emulates nothing but a kernel that users run.
                let light = match flavour {
                    Flavour::Release => None,
                    _ => Some(Guest::get(cache, Flavour::Release, tree)?),
                };
                let inner = light.as_ref().unwrap_or(guest);
                chain::files(cache, tree, &scratch, inner, &patched)?
            }
            Files::Packages => packages::files(cache, tree, &guest.kernel, &scratch)?,
        });
        let filter = filter.filter(|_| matches!(self.results, Results::Output | Results::Witness));
        let words = [
            Some(self.command.to_string()),
            long.map(str::to_owned),
            filter.or(self.only).map(vm::quoted).transpose()?,
        ];
        let command = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let mut output = Collector::new(name);
        // Who wants to see one test fail does not wait for a search of the whole memory.
        let check = filter.is_none();
        let outcome = vm::run(cache, guest, &machine, &command, check, &mut output)?;
        let output = output.data;
        for (path, data) in [
            (keep("out"), output.as_slice()),
            (keep("console"), outcome.console.as_bytes()),
            (keep("trace"), outcome.trace.as_bytes()),
            (keep("monitor"), outcome.answer.as_bytes()),
        ] {
            fs::write(&path, data).context(format!("writing {}", path.display()))?;
        }
        let output = String::from_utf8_lossy(&output);
        let mut tests = match self.results {
            Results::Output => ktap::parse(&output),
            Results::KernelLog => {
                let mut tests = ktap::parse(&outcome.since_command);
                tests.push(checks::unit_tests(tree, guest.kernel.flavour, &tests)?);
                tests
            }
            Results::Comparison => conformance::compare(&output),
            Results::Bare => {
                let program = scratch.path("bare");
                let hardware = patched.hardware(self.functions);
                let (direct, _) = bare::direct(hardware, &program, &[], 60)?;
                bare::compare(&direct, &output, self.functions)
            }
            Results::Fuzz => fuzz::results(
                cache,
                tree,
                &scratch,
                self.functions,
                &patched,
                (&output, &outcome.trace),
            )?,
            Results::Witness => chain::results(&output, &outcome.trace),
            Results::Translations => emulator::results(&outcome.answer),
            Results::Packages => {
                let mut tests = packages::tests(cache, tree, &guest.kernel, &scratch)?;
                tests.extend(ktap::parse(&output));
                tests
            }
        };
        tests.extend(checks::all_skipped(&tests));
        tests.extend(checks::after(&outcome, check.then_some(flavour)));
        Ok(tests)
    }
}

/// Keeps the output of a test program, and shows how far it is.
struct Collector {
    data: Vec<u8>,
    line: progress::Line,
}

impl Collector {
    fn new(name: &str) -> Self {
        Self {
            data: Vec::new(),
            line: progress::Line::new(format!("tests: {name}")),
        }
    }
}

impl Write for Collector {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.data.extend_from_slice(data);
        let lines = self.data.split(|&byte| byte == b'\n');
        let done = lines
            .filter(|line| line.trim_ascii().starts_with(b"ok "))
            .count();
        self.line.update(&format!("{done} passed"));
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
