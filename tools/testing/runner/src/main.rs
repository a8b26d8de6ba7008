// SPDX-License-Identifier: GPL-2.0

//! Builds an s390x host with our module, boots it under emulation, and runs a command, the
//! demonstration or the tests in it. Results go to standard output, all else to standard error.
//!
//! Documentation/glossary.rst has the words. Where to look:
//!
//! - What is built, and kept in the [`cache`]: sources ([`source`]), [`kernel`] and [`module`], the disk of
//!   the host with what is on it ([`guest`], [`cpio`], [`cross`]), QEMU ([`patched`]), [`packages`].
//! - A boot: [`vm`], with the machine that [`qemu`] describes; what its kernel complains of ([`kernlog`]).
//! - The tests: [`rungs`], and what some of them are made of: [`bare`], [`fuzz`], [`chain`],
//!   [`conformance`], [`emulator`]. Their results are KTAP ([`ktap`]).
//! - What runs the same tests on something else: [`mutants`], [`matrix`], [`upstream`].
//! - What is measured: [`bench`].
//! - What documents say, compared with what is there: `promises` and `repeated`, tests of the rung `host`.

mod bare;
mod bench;
mod cache;
mod chain;
mod conformance;
mod cpio;
mod cross;
mod emulator;
mod error;
mod fuzz;
mod guest;
mod kconfig;
mod kernel;
mod kernlog;
mod ktap;
mod lanes;
mod matrix;
mod module;
mod mutants;
mod packages;
mod patched;
mod picture;
mod progress;
#[cfg(test)]
mod promises;
mod qemu;
#[cfg(test)]
mod repeated;
mod results;
mod rungs;
mod source;
mod steps;
mod upstream;
mod vm;

use std::{
    env, fs,
    io::{stdout, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    cache::{Cache, Scratch},
    error::{Context, Error, Result},
    guest::Guest,
    kernel::{Flavour, Kernel},
    ktap::Test,
    module::Module,
    patched::Patched,
    vm::Machine,
};

const USAGE: &str = "\
usage: runner run             boot the machine and show the driver at work
       runner run-picture     show that in README, too
       runner demo-ism        show a guest of the machine that has an ISM function
       runner bench           count the instructions of an access, by this driver and by others
       runner bench-save      put these figures into the documentation
       runner bench-check     compare them with those in the documentation
       runner vm              boot it and run the command in RUN, exit with its code
       runner shell           boot it with a shell on the console
       runner test [rung...]  run the tests and print one KTAP document
       runner packages        make packages of the module's source and of the tool
       runner kernel-packages make packages of the kernel, its headers, and the module
       runner hardware-kit    make an archive of all packages, with a script that tries a function
       runner qemu            build the QEMU of tools/qemu and print where it is
       runner test-qemu-series  build it after each patch, and run QEMU's own tests
       runner upstream-series make the patches for the kernel and print where they are
       runner test-upstream   build and test the kernel that they make
       runner matrix          build and test the module on each kernel, built by each compiler
       runner mutants [name...]  put defects into the driver; the tests must find them
       runner clippy          check the module and user space with clippy
       runner rustdoc         write the documentation of the module's crates
       runner rust-analyzer   write rust-project.json for the module's crates
       runner vm-paths        print where the machine's parts are

Environment: FLAVOUR=release|debug|unmediated|units|race  RUN='command'  FILES='files to copy to /'
             SMP=2  MEM=1G  TIMEOUT=seconds  LONG=1  SEED=1  QEMU_ARGS='more arguments'
             KSRC=directory of a Linux source  KVER=7.2: another version of it
             KCC=gcc: GCC compiles the kernel, and not clang
             QVER=11.1: another version of the patched QEMU
             QEMU=stock, or patched: the QEMU of tools/qemu, two more functions (ISM), and a VMM in /";

/// The driver at work.
const DEMO: &str = "modprobe zpci-vfio-pci && zpci-io demo";

/// How many seconds the machine may take.
const TIMEOUT: &str = "600";

/// The machine did not get to the end of the command.
const NO_RESULT: u8 = 125;

fn main() {
    progress::start();
    let code = end_on_signals().and_then(|()| {
        let args: Vec<_> = env::args().skip(1).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        dispatch(&args)
    });
    process::exit(match code {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("runner: {error}");
            NO_RESULT.into()
        }
    });
}

/// As process 1 of a namespace we die of no signal that we do not handle; with us die our children.
fn end_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("handling signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::exit(128 + signal);
        }
    });
    Ok(())
}

fn dispatch(args: &[&str]) -> Result<u8> {
    let tree = env::current_dir().context("looking for the source tree")?;
    if !tree.join("tools/testing/init").exists() {
        return Err(Error::new(
            "looking for the source tree",
            format!("{} is not its top", tree.display()),
            "Start the runner there, or through make",
        ));
    }
    let flavour = vm::var("FLAVOUR").unwrap_or_else(|| "release".into());
    match args {
        ["run"] => demo(&tree, &mut stdout().lock()),
        ["run-picture"] => record(&tree),
        ["demo-ism"] => demo_ism(&tree),
        ["bench"] => bench::show(&tree),
        ["bench-save"] => bench::save(&tree),
        ["bench-check"] => bench::check(&tree),
        ["test", rungs @ ..] => rungs::test(&tree, rungs),
        ["packages"] => packages::show(&tree),
        ["hardware-kit"] => packages::show_kit(&tree),
        ["kernel-packages"] => packages::show_kernel(&tree),
        ["qemu"] => build_qemu(&tree),
        ["test-qemu-series"] => patched::test(&tree),
        ["upstream-series"] => upstream::series(&tree),
        ["test-upstream"] => upstream::test(&tree),
        ["matrix"] => matrix::test(&tree),
        ["mutants", filters @ ..] => mutants::test(&tree, filters),
        ["vm"] => command(&tree, Flavour::parse(&flavour)?),
        ["shell"] => shell(&tree, Flavour::parse(&flavour)?),
        ["clippy"] => clippy(&tree),
        ["rustdoc"] => analyze(&tree, Flavour::Release, |module, cache| {
            module.rustdoc(cache)
        }),
        ["rust-analyzer"] => analyze(&tree, Flavour::Release, |module, cache| {
            module.rust_analyzer(cache)
        }),
        ["vm-paths"] => paths(&tree, Flavour::parse(&flavour)?),
        _ => {
            eprintln!("{USAGE}");
            Ok(2)
        }
    }
}

/// `run`: everything from nothing to the demonstration.
fn demo(tree: &Path, output: &mut dyn Write) -> Result<u8> {
    let cache = Cache::open()?;
    let guest = Guest::for_demo(&cache, tree)?;
    let machine = Machine::from_env(Flavour::Release, TIMEOUT)?;
    let code = run(&cache, &guest, &machine, DEMO, output)?;
    verdict(
        code,
        "the zPCI I/O region works in the booted s390x host",
        output,
    )
}

/// `run-picture`: what that prints, for those who only read of it.
fn record(tree: &Path) -> Result<u8> {
    let mut output = Vec::new();
    let code = demo(tree, &mut output)?;
    let output = String::from_utf8_lossy(&output);
    if code != 0 {
        print!("{output}");
        return Ok(code);
    }
    println!("{}", picture::save(tree, &output)?.display());
    Ok(0)
}

/// Whether it works, and is what README shows.
fn test_demo(_: &Cache, tree: &Path) -> Result<Vec<Test>> {
    let mut output = Vec::new();
    let code = demo(tree, &mut output)?;
    picture::tests(tree, code, &String::from_utf8_lossy(&output))
}

/// `demo-ism`: the same for a guest of the s390x host that has an ISM function.
fn demo_ism(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let patched = Patched::get(&cache, tree)?;
    let guest = Guest::get(&cache, Flavour::Release, tree)?;
    let scratch = Scratch::new(&cache)?;
    let mut machine = Machine::from_env(Flavour::Release, TIMEOUT)?;
    machine.hardware = patched.hardware(chain::FUNCTIONS);
    let files = chain::files(&cache, tree, &scratch, &guest, &patched)?;
    machine.files.extend(files);
    let output = &mut stdout().lock();
    let code = run(&cache, &guest, &machine, chain::DEMO, output)?;
    verdict(
        code,
        "a guest of the booted s390x host has used an ISM function",
        output,
    )
}

/// The last line of a demonstration, and the exit code.
fn verdict(code: u8, success: &str, output: &mut dyn Write) -> Result<u8> {
    match code {
        0 => writeln!(output, "PASSED: {success}."),
        NO_RESULT => writeln!(
            output,
            "FAILED: the s390x host did not get to the end of the demonstration."
        ),
        code => writeln!(output, "FAILED: the demonstration ended with code {code}."),
    }
    .context("telling the result")?;
    Ok(u8::from(code != 0))
}

/// `vm`: one command, its output, its code.
fn command(tree: &Path, flavour: Flavour) -> Result<u8> {
    let command = vm::var("RUN")
        .ok_or_else(|| Error::new("vm", "RUN is not set", "Give a command: RUN='uname -a'"))?;
    let cache = Cache::open()?;
    let machine = machine(&cache, tree, flavour)?;
    let guest = Guest::get(&cache, flavour, tree)?;
    let output = &mut stdout().lock();
    run(&cache, &guest, &machine, &command, output)
}

/// Runs a command and tells what the kernel thinks of it.
fn run(
    cache: &Cache,
    guest: &Guest,
    machine: &Machine,
    command: &str,
    output: &mut dyn Write,
) -> Result<u8> {
    let outcome = vm::run(cache, guest, machine, command, false, output)?;
    match outcome.end {
        Ok(report) => {
            let complaint = kernlog::complaint(&outcome.console);
            if !complaint.is_empty() {
                progress::show(&complaint);
                eprintln!("runner: the lines above are a complaint of the kernel.");
            }
            Ok(report.exit)
        }
        Err(reason) => {
            progress::show(&progress::last(&outcome.console, 40));
            eprintln!(
                "runner: {reason}. The whole console log: {}",
                cache.log("console").display()
            );
            Ok(NO_RESULT)
        }
    }
}

fn shell(tree: &Path, flavour: Flavour) -> Result<u8> {
    let cache = Cache::open()?;
    let guest = Guest::get(&cache, flavour, tree)?;
    let status = vm::shell(&cache, &guest, &machine(&cache, tree, flavour)?)?;
    Ok(u8::from(!status.success()))
}

/// The machine of `vm` and `shell`. The patched QEMU emulates it if that is built, or asked for: then
/// it has all that needs it, too.
fn machine(cache: &Cache, tree: &Path, flavour: Flavour) -> Result<Machine> {
    let mut machine = Machine::from_env(flavour, TIMEOUT)?;
    match vm::var("QEMU").as_deref() {
        None => {
            if let Some(patched) = Patched::find(cache, tree)? {
                machine.hardware = patched.hardware(&[qemu::NVME]);
            }
        }
        Some("stock") => {}
        Some("patched") => {
            let patched = Patched::get(cache, tree)?;
            machine.hardware = patched.hardware(&[qemu::NVME, qemu::ISM]);
            machine.files.extend(patched.vmm(cache)?);
        }
        Some(other) => {
            return Err(Error::new(
                "QEMU",
                format!("there is no QEMU '{other}'"),
                "Use stock or patched",
            ))
        }
    }
    Ok(machine)
}

/// `qemu`: the emulator of the s390x host, and the VMM in it.
fn build_qemu(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let patched = Patched::get(&cache, tree)?;
    let [vmm, _] = patched.vmm(&cache)?;
    println!("QEMU={}", patched.hardware(&[]).program.display());
    println!("VMM={}", vmm.display());
    Ok(0)
}

/// `vm-paths`: for scripts that use the parts in their own way, also outside the toolchain root.
fn paths(tree: &Path, flavour: Flavour) -> Result<u8> {
    let cache = Cache::open()?;
    let guest = Guest::get(&cache, flavour, tree)?;
    let wrapper = |program: &str| wrapper(&cache, tree, program);
    println!("KERNEL={}", guest.kernel.image().display());
    println!("KBUILD={}", guest.kernel.build.display());
    println!("MODULES={}", guest.modules.display());
    println!("CC={}", wrapper("s390x-linux-gnu-gcc")?.display());
    println!("QEMU={}", wrapper(qemu::NAME)?.display());
    Ok(0)
}

/// `clippy`: the module as it is for users, and with everything that is compiled for tests; then user space.
fn clippy(tree: &Path) -> Result<u8> {
    for flavour in [Flavour::Release, Flavour::Debug] {
        analyze(tree, flavour, |module, cache| module.clippy(cache))?;
    }
    // The client for VMMs, too, which have other ways to find a function.
    let all: &[&str] = &["--workspace", "--all-targets"];
    let without: &[&str] = &["--package=vfio-zpci-io", "--no-default-features"];
    for selection in [all, without] {
        let status = Command::new("cargo")
            .args(["clippy", "--quiet", "--locked"])
            .args(selection)
            .args(["--", "-D", "warnings"])
            .current_dir(tree.join("tools"))
            .status()
            .context("starting cargo")?;
        if !status.success() {
            return Ok(1);
        }
    }
    Ok(0)
}

/// Works on the module in a build directory of its own, and prints what came of it.
fn analyze(
    tree: &Path,
    flavour: Flavour,
    work: impl FnOnce(&Module<'_>, &Cache) -> Result<String>,
) -> Result<u8> {
    let cache = Cache::open()?;
    let kernel = Kernel::get(&cache, flavour, tree)?;
    let item = format!("analysis-{}-{}", flavour.name(), cache::key(tree));
    let _lock = cache.lock(&item)?;
    let result = work(&Module::new(&kernel, tree, &cache.path(item)), &cache)?;
    println!("{result}");
    Ok(0)
}

/// A script that calls a program of the toolchain root from anywhere.
fn wrapper(cache: &Cache, tree: &Path, program: &str) -> Result<PathBuf> {
    let dir = cache.path(format!("bin-{}", cache::key(tree)));
    let path = dir.join(program);
    let part = dir.join(cache::unique());
    let quoted = |path: &Path| vm::quoted(&path.display().to_string());
    let text = format!(
        "#!/bin/sh\nexport ZPCI_CACHE={}\nexec {} run {program} \"$@\"\n",
        quoted(cache.dir())?,
        quoted(&tree.join("scripts/toolchain"))?,
    );
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(&part, text))
        .and_then(|()| fs::set_permissions(&part, PermissionsExt::from_mode(0o755)))
        .and_then(|()| fs::rename(&part, &path))
        .context(format!("writing {}", path.display()))?;
    Ok(path)
}
