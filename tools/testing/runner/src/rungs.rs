// SPDX-License-Identifier: GPL-2.0

//! The ladder of tests, and its results as one KTAP document.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, stdout, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc, Once,
    },
    thread,
    time::Instant,
};

use crate::{
    bare,
    cache::{self, Cache, Scratch},
    chain, conformance, emulator,
    error::{Context, Error, Result},
    fuzz,
    guest::Guest,
    kernel::Flavour,
    kernlog,
    ktap::{self, Counts, Test, Verdict},
    packages,
    patched::Patched,
    progress,
    qemu::{self, Functions},
    upstream,
    vm::{self, Machine, Outcome, Report},
};

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

struct Boot {
    flavour: Flavour,
    /// Whether a test, if it is asked for alone, finds the same on the release kernel, which boots
    /// faster.
    release_for_one: fn(&str) -> bool,
    /// One CPU whose clock counts instructions, however busy this machine is.
    exact: bool,
    /// Its PCI functions.
    functions: Functions,
    /// Events of the emulator that are kept with the results.
    trace: &'static [&'static str],
    /// What the emulator's monitor is asked after the command.
    question: Option<&'static str>,
    files: Files,
    command: &'static str,
    /// Which of the command's tests, if not all: a part of their names.
    only: Option<&'static str>,
    /// An option that makes the command take much longer, if it has one.
    long: Option<&'static str>,
    results: Results,
    /// What it skips besides on the kernel with the unit tests, which has less than others.
    skips_on_units: &'static [(&'static str, usize)],
}

/// A boot, as most tests want it.
const BOOT: Boot = Boot {
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

/// What is skipped, and what instead on Linux 7.2, where it is the host that recovers functions.
const ON_LINUX_7_2: (&str, &str) = (
    "error, then recovery by the host",
    "error, then VFIO_DEVICE_RESET",
);

/// What is put into the host for one boot.
enum Files {
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
enum Results {
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

/// Loads the module, whose unit tests run then. They compare it with `vfio-pci`, so each of the two
/// drivers has a function by then.
const KUNIT: &str = "\
cd /sys/bus/pci/devices &&
echo vfio-pci >0001:00:00.0/driver_override &&
echo zpci_vfio_pci >0004:00:00.0/driver_override &&
modprobe -a vfio-pci zpci-vfio-pci";

const RUNGS: &[Rung] = &[
    Rung {
        name: "host",
        seconds: 45,
        skips: &[],
        kind: Kind::Cargo(&[
            "request",
            "lease",
            "booted",
            "lifecycle-test",
            "vfio-zpci-io",
            "zpci-io",
            "runner",
        ]),
    },
    Rung {
        name: "model",
        seconds: 16,
        skips: &[],
        kind: Kind::Program("tools/testing/model/check"),
    },
    Rung {
        name: "upstream",
        seconds: 20,
        skips: &[],
        kind: Kind::Own(check_series),
    },
    Rung {
        name: "run",
        seconds: 10,
        skips: &[],
        kind: Kind::Own(crate::test_demo),
    },
    Rung {
        name: "emulator",
        seconds: 10,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            question: Some(emulator::QUESTION),
            command: emulator::COMMAND,
            results: Results::Translations,
            ..BOOT
        }),
    },
    Rung {
        name: "kunit",
        seconds: 50,
        skips: &[],
        kind: Kind::Boot(Boot {
            functions: &[qemu::NVME, qemu::DISK],
            command: KUNIT,
            results: Results::KernelLog,
            ..BOOT
        }),
    },
    Rung {
        name: "region",
        seconds: 90,
        skips: &[("huge pages (hugetlb)", 1), ("huge pages (transparent)", 1)],
        kind: Kind::Boot(Boot {
            // Where allocations fail is the debug kernel.
            release_for_one: |name| !name.contains("ENOMEM"),
            command: "modprobe zpci-vfio-pci && IN_ORDER=1 region-test",
            long: Some("--long"),
            skips_on_units: &[("ENOMEM", 6)],
            ..BOOT
        }),
    },
    Rung {
        name: "clients",
        seconds: 10,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::DISK],
            command: "IN_ORDER=1 client-test",
            ..BOOT
        }),
    },
    Rung {
        name: "install",
        seconds: 150,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::ISM],
            files: Files::Packages,
            command: packages::COMMAND,
            results: Results::Packages,
            // There is no SMC.
            skips_on_units: &[("kit: a function in use", 1)],
            ..BOOT
        }),
    },
    Rung {
        name: "conformance",
        seconds: 20,
        skips: &[
            ("anonymous_hugetlb_", 10),
            ("msi.enable_trigger_disable", 1),
            ("vfio_dma_map_limit_test with iommufd", 1),
            ("vfio_pci_driver_test: all", 1),
            ("vfio_pci_sriov_uapi_test: all", 1),
        ],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            files: Files::Selftests,
            command: conformance::COMMAND,
            results: Results::Comparison,
            ..BOOT
        }),
    },
    Rung {
        name: "lifecycle",
        seconds: 110,
        skips: &[
            ("contention: nobody waits long", 1),
            ("error, then recovery by the host", 2),
        ],
        kind: Kind::Boot(Boot {
            command: "lifecycle-test",
            long: Some("--long"),
            ..BOOT
        }),
    },
    Rung {
        name: "unmediated",
        seconds: 50,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Unmediated,
            command: "lifecycle-test",
            only: Some("recovery by the host"),
            ..BOOT
        }),
    },
    Rung {
        name: "contention",
        seconds: 35,
        skips: &[("contention: all who wait for others are woken", 1)],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            exact: true,
            command: "lifecycle-test",
            only: Some("contention"),
            ..BOOT
        }),
    },
    Rung {
        name: "ism",
        seconds: 110,
        skips: &[],
        kind: Kind::Boot(Boot {
            release_for_one: |_| true,
            functions: &[qemu::NVME, qemu::ISM, qemu::FAILING],
            command: "modprobe zpci-vfio-pci && ism-test",
            ..BOOT
        }),
    },
    Rung {
        name: "bare",
        seconds: 10,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::ISM],
            files: Files::Bare,
            command: bare::COMMAND,
            results: Results::Bare,
            ..BOOT
        }),
    },
    Rung {
        name: "fuzz",
        seconds: 40,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::ISM],
            trace: fuzz::TRACE,
            files: Files::Fuzz,
            command: fuzz::COMMAND,
            results: Results::Fuzz,
            ..BOOT
        }),
    },
    Rung {
        name: "guest",
        seconds: 60,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: chain::FUNCTIONS,
            trace: chain::TRACE,
            files: Files::LinuxGuest,
            command: chain::COMMAND,
            results: Results::Witness,
            ..BOOT
        }),
    },
];

/// Runs the named rungs, or all, and returns the exit code.
pub fn test(tree: &Path, names: &[&str]) -> Result<u8> {
    let rungs = choose(names)?;
    let cache = Cache::open()?;
    let results = results_dir(&cache)?;
    let path = results.join("results.ktap");
    let file = File::create(&path).context(format!("writing {}", path.display()))?;
    let mut out = Both(file);
    let print = |result: io::Result<()>| result.context("writing the results");

    print(writeln!(out, "KTAP version 1\n1..{}", rungs.len()))?;
    let lanes = lanes();
    let seconds = rungs.iter().map(|rung| rung.seconds).sum::<u64>();
    progress::say(&format!(
        "tests: {} rungs, {lanes} at a time, about {} min on two quiet processors; longer if a kernel \
         has to be built",
        rungs.len(),
        seconds.div_ceil(60 * lanes as u64),
    ));
    let built = Once::new();
    let work = |rung: &&Rung| {
        if let Kind::Boot(_) = rung.kind {
            // What fails here fails in the rung that needs it, which says so in the results.
            built.call_once(|| drop(build(&cache, tree, &rungs)));
        }
        rung.tested(&cache, tree, &results)
    };
    let mut total = Counts::default();
    let mut ends = Vec::new();
    let mut skipped_rung = false;
    in_lanes(lanes, &rungs, work, |rung, number, test| {
        let name = rung.name;
        let counts = test.counts();
        skipped_rung |= counts.passed + counts.failed == 0;
        total += counts;
        print(test.write(&mut out, number, 0))?;
        ends.extend(test.failures().iter().map(|name| format!("failed: {name}")));
        if counts.failed > 0 {
            ends.push(format!("rung {name} has failed; {}", logs(&results, name)?));
        }
        Ok(())
    })?;
    for line in ends {
        print(writeln!(out, "# {line}"))?;
    }
    print(writeln!(out, "# kept in {}", results.display()))?;
    print(writeln!(out, "{}", ktap::summary(total)))?;
    let strict = env::var("CI").is_ok_and(|ci| ci == "true");
    Ok(u8::from(total.failed > 0 || (strict && skipped_rung)))
}

/// How many rungs run at a time: a machine that searches its memory, or waits, keeps no more than one
/// processor busy.
fn lanes() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().min(2))
}

/// Does `work` for each item, in so many threads, and has `done` told of the results in the items'
/// order, each with its number.
fn in_lanes<T: Sync, R: Send>(
    lanes: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, usize, R) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..lanes {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { break };
                if sender.send((index, work(item))).is_err() {
                    // `done` has failed.
                    break;
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (index, result) in results {
            early.insert(index, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                done(&items[due - 1], due, result)?;
            }
        }
        Ok(())
    })
}

/// Builds what takes long and the boots of these rungs need.
fn build(cache: &Cache, tree: &Path, rungs: &[&Rung]) -> Result<()> {
    let boots = || {
        rungs.iter().filter_map(|rung| match &rung.kind {
            Kind::Boot(boot) => Some(boot),
            _ => None,
        })
    };
    let emulators = || {
        let patched = Patched::get(cache, tree)?;
        if boots().any(|boot| matches!(boot.files, Files::Bare | Files::Fuzz | Files::LinuxGuest)) {
            patched.vmm(cache)?;
        }
        Ok(())
    };
    let hosts = || boots().try_for_each(|boot| Guest::get(cache, boot.flavour, tree).map(drop));
    progress::side_by_side(emulators, hosts).map(drop)
}

fn choose(names: &[&str]) -> Result<Vec<&'static Rung>> {
    if let Some(unknown) = names.iter().find(|name| Rung::named(name).is_none()) {
        let known: Vec<_> = RUNGS.iter().map(|rung| rung.name).collect();
        return Err(Error::new(
            "test",
            format!("there is no rung '{unknown}'"),
            format!("The rungs are: {}", known.join(" ")),
        ));
    }
    Ok(RUNGS
        .iter()
        .filter(|rung| names.is_empty() || names.contains(&rung.name))
        .collect())
}

/// A directory for the results of this run, which `latest` names.
pub fn results_dir(cache: &Cache) -> Result<PathBuf> {
    const STEP: &str = "making the results' directory";
    let date = Command::new("date")
        .arg("+%Y%m%d-%H%M%S")
        .output()
        .context(STEP)?;
    let base = cache.path("results");
    let name = String::from_utf8_lossy(&date.stdout).trim().to_string();
    let dir = base.join(&name);
    let link = base.join(cache::unique());
    fs::create_dir_all(&dir)
        .and_then(|()| symlink(&name, &link))
        .and_then(|()| fs::rename(&link, base.join("latest")))
        .context(STEP)?;
    Ok(dir)
}

/// Where to look when a rung has failed: the files that it has written.
fn logs(results: &Path, rung: &str) -> Result<String> {
    let step = || format!("reading {}", results.display());
    let mut logs = Vec::new();
    for entry in fs::read_dir(results).context(step())? {
        let entry = entry.context(step())?;
        let size = entry.metadata().context(step())?.len();
        if size > 0 && entry.path().file_stem() == Some(rung.as_ref()) {
            logs.push(entry.path().display().to_string());
        }
    }
    logs.sort();
    Ok(match logs.as_slice() {
        [] => "it did not get as far as to write a log".into(),
        logs => format!("its logs: {}", logs.join(" ")),
    })
}

/// Standard output, and the file that keeps it.
pub struct Both(pub File);

impl Write for Both {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write_all(data)?;
        stdout().write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stdout().flush()
    }
}

impl Rung {
    pub fn named(name: &str) -> Option<&'static Self> {
        RUNGS.iter().find(|rung| rung.name == name)
    }

    /// Runs all tests, and says how long it takes.
    fn tested(&self, cache: &Cache, tree: &Path, results: &Path) -> Test {
        let name = self.name;
        progress::say(&format!("tests: {name} (about {} s)", self.seconds));
        let start = Instant::now();
        let tests = match self.run(cache, tree, results, None) {
            Ok(mut tests) => {
                tests.push(skips(&tests, self.skips));
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
            let (now, then) = ON_LINUX_7_2;
            for (part, _) in expected.iter_mut().filter(|(part, _)| *part == now) {
                *part = then;
            }
        }
        tests.push(skips(&tests, &expected));
        Ok(tests)
    }
}

impl Boot {
    fn run(
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

    fn run_on(
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
            Files::LinuxGuest => chain::files(cache, tree, &scratch, guest, &patched)?,
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
                tests.push(unit_tests(tree, guest.kernel.flavour, &tests)?);
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
        tests.extend(all_skipped(&tests));
        tests.extend(checks(&outcome, check.then_some(flavour)));
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

/// The form of the patches, for the kernel and for QEMU.
fn check_series(cache: &Cache, tree: &Path) -> Result<Vec<Test>> {
    let mut tests = upstream::check(cache, tree)?;
    let scratch = Scratch::new(cache)?;
    let mut export = Command::new(tree.join("tools/qemu/export"));
    export.arg(scratch.path("series"));
    let (text, success) = output(&mut export, &scratch.path("out"))?;
    let objections = if success { "" } else { &text };
    tests.push(Test::check(
        "QEMU: the patches apply, and checkpatch finds no error",
        objections.lines().map(str::to_owned).collect(),
    ));
    Ok(tests)
}

/// Fails if a suite of unit tests in the module's sources is not among those that were run.
fn unit_tests(tree: &Path, flavour: Flavour, tests: &[Test]) -> Result<Test> {
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
fn all_skipped(tests: &[Test]) -> Option<Test> {
    let mut total = Counts::default();
    tests.iter().for_each(|test| total += test.counts());
    (total.passed + total.failed == 0)
        .then(|| Test::failed("tests", "none was run, all were skipped"))
}

/// Fails if another test was skipped than expected, or if one that was expected to be was not.
fn skips(tests: &[Test], expected: &[(&str, usize)]) -> Test {
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
fn checks(outcome: &Outcome, flavour: Option<Flavour>) -> Vec<Test> {
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
            tests.extend(report_checks(report, flavour));
        }
    }
    tests.push(Test::check("kernel log", complaint));
    tests
}

fn report_checks(report: &Report, flavour: Option<Flavour>) -> Vec<Test> {
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
        Test::group("boot", checks(outcome, Some(flavour))).failures()
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
    fn the_logs_of_a_rung_are_named() {
        let dir = env::temp_dir().join(cache::unique());
        fs::create_dir(&dir).unwrap();
        assert!(logs(&dir, "a").unwrap().contains("did not get as far"));
        for (name, text) in [("a.out", "x"), ("a.trace", ""), ("b.out", "x")] {
            fs::write(dir.join(name), text).unwrap();
        }
        assert_eq!(
            logs(&dir, "a").unwrap(),
            format!("its logs: {}/a.out", dir.display())
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn results_come_in_order_whatever_is_done_first() {
        // The first is the last to end: it waits for all the others.
        let ended = AtomicUsize::new(0);
        let work = |item: &usize| {
            while *item == 0 && ended.load(Ordering::Acquire) < 4 {
                thread::yield_now();
            }
            ended.fetch_add(1, Ordering::Release);
            item * 10
        };
        let mut told = Vec::new();
        in_lanes(2, &[0, 1, 2, 3, 4], work, |item, number, result| {
            told.push((*item, number, result));
            Ok(())
        })
        .unwrap();
        assert_eq!(
            told,
            [(0, 1, 0), (1, 2, 10), (2, 3, 20), (3, 4, 30), (4, 5, 40)]
        );
        let failed = in_lanes(
            1,
            &[0, 1],
            |item| *item,
            |_, _, _| Err(Error::new("test", "it fails", "")),
        );
        assert!(failed.is_err());
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

    #[test]
    fn the_readme_names_every_rung() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let text = fs::read_to_string(readme).unwrap();
        let (_, table) = text.split_once("| rung | what |\n|---|---|\n").unwrap();
        let named: Vec<_> = table
            .lines()
            .map_while(|line| line.strip_prefix("| ")?.split(' ').next())
            .collect();
        let rungs: Vec<_> = RUNGS.iter().map(|rung| rung.name).collect();
        assert_eq!(named, rungs);
    }

    #[test]
    fn rungs_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), RUNGS.len());
        assert_eq!(choose(&["region"]).unwrap()[0].name, "region");
        assert!(choose(&["no such rung"]).is_err());
    }
}
