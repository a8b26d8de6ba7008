// SPDX-License-Identifier: GPL-2.0

//! What an access costs in instructions, which are counted, so that the figures are the same on
//! every machine: by our driver, by its twin in C, and by others.

mod figures;
mod page;
mod plot;
mod profile;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use self::{
    figures::{Call, Figures},
    profile::{Profile, Symbols},
};
use crate::{
    cache::{self, Cache, Scratch},
    error::{Context, Error, Result},
    guest::Guest,
    kernel::{Flavour, Kernel},
    patched::Patched,
    progress, qemu,
    vm::{self, Machine},
};

/// The other drivers are there, too; and the functions of all of them are told.
const COMMAND: &str =
    "modprobe -a zpci-vfio-pci vfio-pci ism-vfio-pci && insmod /zpci-twin.ko &&\n\
                       zpci-bench && grep -i ' t ' /proc/kallsyms";

const TIMEOUT: &str = "600";

/// How much the emulator logs of a driver at work, in bytes: some dozen requests.
const LOGGED: u64 = 4 << 20;
const LOGGED_WITHIN: Duration = Duration::from_secs(60);

/// `bench`: prints the figures, and keeps them with the results of the tests.
pub fn show(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let figures = measure(&cache, tree)?;
    print(&figures);
    let results = cache.path("results");
    fs::create_dir_all(&results).context("making the results' directory")?;
    page::keep(&results.join("bench"), &figures)?;
    println!("Kept in {}/bench.json and bench.svg.", results.display());
    Ok(0)
}

/// `bench-save`: makes them those that the documentation shows, and later ones are compared with.
pub fn save(tree: &Path) -> Result<u8> {
    let figures = measure(&Cache::open()?, tree)?;
    print(&figures);
    page::save(tree, &figures)?;
    Ok(0)
}

/// `bench-check`: fails if one is above that of the commit whose figures the documentation has.
pub fn check(tree: &Path) -> Result<u8> {
    let baseline = page::load(tree)?;
    let figures = measure(&Cache::open()?, tree)?;
    println!("PCISTB, of what it takes in C: {}", figures.ratios());
    let worse = figures.worse_than(&baseline);
    for line in &worse {
        println!("more instructions than at {}: {line}", baseline.commit);
    }
    if baseline.versions != figures.versions {
        println!("That was with {}.", baseline.versions.join(", "));
        println!("This is with  {}.", figures.versions.join(", "));
    }
    match worse.len() {
        0 => println!(
            "PASSED: no call takes more instructions than at {}.",
            baseline.commit
        ),
        count => println!("FAILED: {count} calls take more instructions."),
    }
    Ok(u8::from(!worse.is_empty()))
}

fn print(figures: &Figures) {
    println!("{}", figures.table());
    println!("Parts of a PCISTB of 128 bytes:\n\n{}", figures.parts());
    for profile in &figures.profiles {
        println!("{}:", profile.driver);
        for part in &profile.parts {
            println!("{:6}  {}", part.instructions, part.name);
            for (name, count) in &part.functions {
                println!("        {count:6}  {name}");
            }
        }
    }
    println!("\nPCISTB, of what it takes in C: {}", figures.ratios());
}

/// Boots the machine and counts.
fn measure(cache: &Cache, tree: &Path) -> Result<Figures> {
    let patched = Patched::get(cache, tree)?;
    let guest = Guest::get(cache, Flavour::Release, tree)?;
    let scratch = Scratch::new(cache)?;
    let mut machine = Machine::from_env(Flavour::Release, TIMEOUT)?;
    machine.hardware = patched.hardware(&[qemu::NVME, qemu::ISM]);
    machine.count_instructions();
    machine.files.push(twin(cache, &guest.kernel, tree)?);
    let monitor = scratch.path("watch");
    machine.qemu_args.extend([
        "-monitor".into(),
        format!("unix:{},server=on,wait=off", monitor.display()),
    ]);

    let mut output = Output {
        monitor,
        log: scratch.path("log"),
        rest: Vec::new(),
        calls: Vec::new(),
        symbols: Symbols::default(),
        logs: Vec::new(),
    };
    let outcome = vm::run(cache, &guest, &machine, COMMAND, false, &mut output)?;
    let exit = match &outcome.end {
        Ok(report) => format!("the command ended with code {}", report.exit),
        Err(reason) => reason.clone(),
    };
    if !matches!(&outcome.end, Ok(report) if report.exit == 0) {
        progress::show(&progress::last(&outcome.console, 40));
        return Err(Error::new("counting instructions", exit, ""));
    }
    let profiles = output.logs.iter().map(|(driver, log)| {
        Profile::new(driver, log, &output.symbols).ok_or_else(|| {
            let reason = format!("the emulator has logged no request by {driver}");
            Error::new("counting instructions", reason, "Try again")
        })
    });
    Ok(Figures {
        commit: commit(tree)?,
        versions: versions(&guest)?,
        profiles: profiles.collect::<Result<_>>()?,
        calls: output.calls,
    })
}

/// The region in C, built for our kernel.
fn twin(cache: &Cache, kernel: &Kernel, tree: &Path) -> Result<PathBuf> {
    let item = format!("twin-{}-{}", kernel.key, cache::key(tree));
    let _lock = cache.lock(&item)?;
    let build = cache.path(item);
    let mut make = kernel.make();
    make.arg(format!("M={}", tree.join("tools/testing/twin").display()))
        .arg(format!("MO={}", build.display()))
        .arg("modules");
    let log = cache.log("twin");
    progress::run("twin: compiling", &mut make, &log, |done| {
        format!("{done} actions")
    })?;
    Ok(build.join("zpci-twin.ko"))
}

/// What the figures depend on, besides the commit.
fn versions(guest: &Guest) -> Result<Vec<String>> {
    let mut versions = vec![format!("Linux {}", guest.release())];
    for package in guest.kernel.compiler.packages()? {
        // NAME_VERSION_ARCHITECTURE.deb
        let words: Vec<_> = package.split('_').take(2).collect();
        if words[0] == "rustc" || words[0].starts_with("clang-") || words[0].starts_with("gcc-") {
            versions.push(words.join(" ").replace("%3a", ":"));
        }
    }
    Ok(versions)
}

/// The commit that is checked out, and whether it is what was measured.
fn commit(tree: &Path) -> Result<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "describe",
            "--always",
            "--dirty",
            "--exclude=*",
        ])
        .current_dir(tree)
        .output()
        .context("asking git for the commit")?;
    let commit = String::from_utf8_lossy(&output.stdout).trim().to_string();
    // The tree may have come without git.
    let unknown = || "unknown".to_string();
    Ok(Some(commit)
        .filter(|commit| !commit.is_empty())
        .unwrap_or_else(unknown))
}

/// What the command prints, taken apart as it comes.
struct Output {
    monitor: PathBuf,
    log: PathBuf,
    rest: Vec<u8>,
    calls: Vec<Call>,
    symbols: Symbols,
    /// Of each driver that was watched.
    logs: Vec<(String, String)>,
}

impl Output {
    fn line(&mut self, line: &str) -> io::Result<()> {
        if let Some(driver) = line.strip_prefix("profile\t") {
            progress::say(&format!("watching {driver}"));
            let log = self.watch()?;
            self.logs.push((driver.into(), log));
        } else if let Some(call) = Call::parse(line) {
            progress::say(line);
            self.calls.push(call);
        } else if line.starts_with(|first: char| first.is_ascii_hexdigit()) {
            self.symbols.push(line);
        } else {
            progress::say(line);
        }
        Ok(())
    }

    /// Has the emulator log the instructions that are executed now.
    fn watch(&self) -> io::Result<String> {
        let log = self.log.display();
        let begin = Instant::now();
        self.ask(&format!("logfile {log}"))?;
        self.ask("one-insn-per-tb on")?;
        self.ask("log exec,nochain")?;
        while fs::metadata(&self.log)?.len() < LOGGED && begin.elapsed() < LOGGED_WITHIN {
            thread::sleep(Duration::from_millis(10));
        }
        self.ask("log none")?;
        self.ask("one-insn-per-tb off")?;
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Gives a command to the emulator's monitor, and waits until it has been obeyed.
    fn ask(&self, command: &str) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.monitor)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        writeln!(stream, "{command}")?;
        // Once it is ready for this command, once for the next.
        let (mut answer, mut byte) = (Vec::new(), [0]);
        let mut prompts = 0;
        while prompts < 2 {
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
            prompts += usize::from(answer.ends_with(b"(qemu) "));
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(data);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<_> = self.rest.drain(..=end).collect();
            self.line(String::from_utf8_lossy(&line).trim_end())?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
