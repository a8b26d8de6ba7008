// SPDX-License-Identifier: GPL-2.0

//! Does with the packages what a user does: installs them, uses what is in them, upgrades and removes
//! them.
//!
//! `install-test` runs the tests one after the other, each on what the one before has left, and prints
//! KTAP. It wants the packages and the kit for hardware in the top directory, two versions of the packages
//! that are ours, a function 10 that is an NVMe controller with a memory buffer, a function 20 that is ISM,
//! and a host that has neither the kernel's modules nor `zpci-io`.
//!
//! `install-test first-kernel` and `install-test next-kernel` are two halves, with a boot in between:
//! there are packages of two kernels and of the module for each, and what the first half has installed is
//! there in the second.

use ktap::{test, Outcome, Skip, Test};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    rc::Rc,
};

const FUNCTION: &str = "10";
const ISM: &str = "20";
/// Where in its BAR 2 the tests store.
const OFFSET: &str = "0x1000";

const IMAGE: &str = "linux-image-";
const MODULE: &str = "zpci-vfio-pci-modules-";
const TOOL: &str = "zpci-io";

/// What a package manager and a running host write by themselves.
const NOT_INSTALLED: &[&str] = &["/dev", "/proc", "/sys", "/tmp", "/run", "/var/lib/dpkg"];

type Files = BTreeMap<PathBuf, u64>;

fn main() -> ExitCode {
    let before = Rc::new(RefCell::new(Files::new()));
    let tests = match env::args().nth(1).as_deref() {
        None => all(before),
        Some("first-kernel") => vec![
            test("upgrade: install", move || install(&before)),
            test("upgrade: it is the first kernel that runs", kernel_runs),
            test("upgrade: load, bind, use", use_function),
            test(
                "upgrade: the next kernel, and the module for it",
                next_kernel,
            ),
        ],
        Some("next-kernel") => vec![
            test("upgrade: it is the next kernel that runs", next_runs),
            test("upgrade: load, bind, use, on the next kernel", use_function),
            test("upgrade: the first kernel goes", first_goes),
        ],
        Some(other) => {
            eprintln!("install-test: {other} is neither first-kernel nor next-kernel");
            return ExitCode::from(2);
        }
    };
    ktap::run(tests, "", Test::run)
}

/// What is done with the packages of one kernel.
fn all(before: Rc<RefCell<Files>>) -> Vec<Test> {
    let after = Rc::clone(&before);
    vec![
        test("nothing is there before", nothing),
        test("deb: install", move || install(&before)),
        test("deb: it is the kernel that runs", kernel_runs),
        test("deb: load, bind, use", use_function),
        test("deb: manual and examples", manual),
        test("deb: upgrade", upgrade),
        test("a signed module", signed),
        test("deb: remove, and nothing is left", move || remove(&after)),
        test("rpm: install, load, bind, use", rpm),
        test(
            "kit: nothing is done without a function, or without yes",
            kit_asks,
        ),
        test("kit: a function in use", kit_refuses),
        test("kit: a function with memory", || kit_tries(FUNCTION)),
        test("kit: ISM", || kit_tries(ISM)),
        test("kit: counts instructions where it can", kit_counts),
    ]
}

/// How a command ends: whether it succeeds, and what it says.
fn attempt(line: &str) -> (bool, String) {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("PATH", "/usr/sbin:/bin");
    let output = shell.output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[track_caller]
fn run(line: &str) -> String {
    let (success, text) = attempt(line);
    assert!(success, "{line}: {text}");
    text
}

#[track_caller]
fn fails(line: &str) {
    let (success, text) = attempt(line);
    assert!(!success, "{line}: {text}");
}

fn release() -> String {
    run("uname -r").trim().to_owned()
}

fn module() -> PathBuf {
    let modules = Path::new("/lib/modules").join(release());
    modules.join("updates/dkms/zpci-vfio-pci.ko")
}

/// The packages of this kind whose names begin so, older versions first.
#[track_caller]
fn packages(name: &str, kind: &str) -> Vec<String> {
    let mut found: Vec<_> = fs::read_dir("/")
        .expect("the top directory")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| file.starts_with(name) && file.ends_with(kind))
        .map(|file| format!("/{file}"))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "there is no {name}*{kind}");
    found
}

#[track_caller]
fn first(name: &str, kind: &str) -> String {
    packages(name, kind).remove(0)
}

#[track_caller]
fn second(name: &str, kind: &str) -> String {
    packages(name, kind).remove(1)
}

/// All files of the host, with their sizes.
fn files(directory: &Path, found: &mut Files) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if NOT_INSTALLED.iter().any(|no| path == Path::new(no)) {
            continue;
        }
        let meta = entry.metadata().expect("a file");
        if meta.is_dir() {
            files(&path, found);
        } else {
            found.insert(path, meta.len());
        }
    }
}

fn nothing() -> Outcome {
    fails("modprobe zpci-vfio-pci");
    fails("zpci-io list");
    Ok(())
}

fn install(before: &RefCell<Files>) -> Outcome {
    run("mkdir -p /var/lib/dpkg/info && touch /var/lib/dpkg/status");
    // Our packages need it, the host has it without.
    run("printf 'Package: kmod\nStatus: install ok installed\nVersion: 34\n\n' >>/var/lib/dpkg/status");
    files(Path::new("/"), &mut before.borrow_mut());
    for name in [IMAGE, MODULE, TOOL] {
        run(&format!("dpkg -i {}", first(name, ".deb")));
    }
    assert!(module().exists());
    let modules = Path::new("/lib/modules").join(release());
    let dependencies = fs::read_to_string(modules.join("modules.dep")).expect("modules.dep");
    assert!(dependencies.contains("updates/dkms/zpci-vfio-pci.ko: "));
    // Nothing loads the module or binds a function unless told so.
    assert!(!Path::new("/sys/module/zpci_vfio_pci").exists());
    let mut installed = Files::new();
    files(Path::new("/"), &mut installed);
    for directory in ["modules-load.d", "modprobe.d", "rules.d"] {
        let settings: Vec<_> = installed
            .keys()
            .filter(|path| path.components().any(|part| part.as_os_str() == directory))
            .filter(|path| !before.borrow().contains_key(*path))
            .collect();
        assert!(settings.is_empty(), "{settings:?}");
    }
    Ok(())
}

fn kernel_runs() -> Outcome {
    run("zcat /proc/config.gz | cmp - /boot/config-$(uname -r)");
    Ok(())
}

/// Has two instructions issued on the function, by the driver which is loaded for it.
#[track_caller]
fn use_it() {
    run("modprobe zpci-vfio-pci");
    run(&format!("zpci-io bind {FUNCTION}"));
    let lines = format!("store 2 {OFFSET} 8 0x0102030405060708\\nload 2 {OFFSET} 8");
    let text = run(&format!("printf '{lines}\\n' | zpci-io batch {FUNCTION}"));
    assert!(text.ends_with(" 0x0102030405060708\n"), "{text}");
    run("zpci-io doctor");
}

/// Gives the function back, and unloads the driver.
#[track_caller]
fn leave_it() {
    run(&format!("zpci-io unbind {FUNCTION}"));
    run("rmmod zpci-vfio-pci");
}

fn use_function() -> Outcome {
    use_it();
    leave_it();
    Ok(())
}

fn manual() -> Outcome {
    let page = run("zcat /usr/share/man/man8/zpci-io.8.gz");
    assert!(page.contains(".TH zpci-io 8"), "{page}");
    for example in [
        "70-zpci-vfio-pci.rules",
        "libvirt-hostdev.xml",
        "zpci-vfio-pci.conf",
    ] {
        let path = Path::new("/usr/share/doc/zpci-io/examples").join(example);
        assert!(path.exists(), "{}", path.display());
    }
    Ok(())
}

/// While the old module drives a function. What is in its file, the upgrade replaces.
fn upgrade() -> Outcome {
    use_it();
    fs::write(module(), "no module").expect("the module's file");
    for name in [MODULE, TOOL] {
        run(&format!("dpkg -i {}", second(name, ".deb")));
    }
    leave_it();
    use_it();
    leave_it();
    let status = fs::read_to_string("/var/lib/dpkg/status").expect("dpkg's status");
    for name in [MODULE, TOOL] {
        let package = second(name, ".deb");
        let version = package.split('_').nth(1).expect("a version");
        let ours = status
            .split("\n\n")
            .find(|package| package.contains(&format!("Package: {name}")));
        let ours = ours.expect("it is installed");
        assert!(ours.contains(&format!("Version: {version}\n")), "{ours}");
    }
    Ok(())
}

/// This kernel checks no signatures; that there is one does not hurt.
fn signed() -> Outcome {
    let signed = fs::read("/signed.ko").expect("the signed module");
    assert!(signed.ends_with(b"~Module signature appended~\n"));
    run("modprobe vfio-pci-core");
    run("insmod /signed.ko");
    run("rmmod zpci-vfio-pci");
    Ok(())
}

fn remove(before: &RefCell<Files>) -> Outcome {
    let names = format!(
        "{TOOL} {MODULE}{release} {IMAGE}{release}",
        release = release()
    );
    // Modules that stay loaded need no files.
    run(&format!("dpkg -P {names}"));
    let mut after = Files::new();
    files(Path::new("/"), &mut after);
    let before = before.borrow();
    let left: Vec<_> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .collect();
    assert!(left.is_empty(), "left: {left:?}");
    assert_eq!(*before, after);
    for directory in ["/boot", "/lib/modules"] {
        assert!(fs::read_dir(directory)
            .into_iter()
            .flatten()
            .next()
            .is_none());
    }
    nothing()
}

/// The kernels that are installed, older versions first.
#[track_caller]
fn releases() -> Vec<String> {
    let mut releases: Vec<_> = fs::read_dir("/lib/modules")
        .expect("the kernels' modules")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    releases.sort();
    releases
}

/// Beside the one that runs, which goes on as if nothing were.
fn next_kernel() -> Outcome {
    for name in [IMAGE, MODULE] {
        run(&format!("dpkg -i {}", second(name, ".deb")));
    }
    let releases = releases();
    assert_eq!(releases.len(), 2, "{releases:?}");
    assert_eq!(releases[0], release());
    use_it();
    leave_it();
    Ok(())
}

fn next_runs() -> Outcome {
    assert_eq!(releases()[1], release());
    kernel_runs()
}

fn first_goes() -> Outcome {
    let old = releases().remove(0);
    run(&format!("dpkg -P {MODULE}{old} {IMAGE}{old}"));
    let mut left = Files::new();
    files(Path::new("/"), &mut left);
    let left: Vec<_> = left
        .keys()
        .filter(|path| path.to_string_lossy().contains(&old))
        .collect();
    assert!(left.is_empty(), "left: {left:?}");
    assert_eq!(releases(), [release()]);
    use_it();
    leave_it();
    Ok(())
}

/// The rpm of this host knows no scripts and removes nothing; that is tried elsewhere.
fn rpm() -> Outcome {
    for name in ["kernel-zpci-", MODULE, "zpci-io-"] {
        run(&format!("rpm -i {}", first(name, ".rpm")));
    }
    run("depmod");
    use_it();
    leave_it();
    Ok(())
}

/// Where the kit is unpacked.
const KIT: &str = "/tmp/kit";

/// The driver of a function, or "".
fn driver(function: &str) -> String {
    let info = run(&format!("zpci-io info {function}"));
    let line = info.lines().find_map(|line| line.strip_prefix("driver"));
    line.unwrap_or_default().trim().to_owned()
}

fn kit_asks() -> Outcome {
    let archive = first("zpci-hardware-kit-", ".tar.xz");
    run(&format!(
        "mkdir {KIT} && tar -xJf {archive} -C {KIT} --strip-components 1"
    ));
    let before = driver(ISM);
    let (success, text) = attempt(&format!("cd {KIT} && ./try-function"));
    assert!(!success && text.contains("Name a function"), "{text}");
    let (success, text) = attempt(&format!("cd {KIT} && echo no | ./try-function {ISM}"));
    assert!(!success && text.contains("Nothing was done."), "{text}");
    assert_eq!(driver(ISM), before);
    fails(&format!("cat {KIT}/zpci-report-*"));
    Ok(())
}

fn kit_refuses() -> Outcome {
    if let (false, text) = attempt("modprobe ism") {
        return Err(Skip(text.trim().into()));
    }
    assert_eq!(driver(ISM), "ism");
    let (success, text) = attempt(&format!("cd {KIT} && ./try-function --yes {ISM}"));
    assert!(!success && text.contains("it is in use: SMC-D"), "{text}");
    assert!(text.contains("Result: failed."), "{text}");
    assert_eq!(driver(ISM), "ism");
    run("rmmod ism");
    Ok(())
}

fn kit_tries(function: &str) -> Outcome {
    let before = driver(function);
    let (success, text) = attempt(&format!("cd {KIT} && echo yes | ./try-function {function}"));
    assert!(success && text.contains("Result: passed."), "{text}");
    let mut other = "vfio-pci";
    if function == ISM {
        other = "ism_vfio_pci";
        assert!(
            text.contains("PCISTB of the command READ_GID: answer 0x0, name "),
            "{text}"
        );
    }
    for what in ["PCILG", &format!("a read of the BAR by {other}")] {
        let line = format!("  ok       {what}, 10000 times: ");
        assert!(text.contains(&line), "{text}");
    }
    assert_eq!(driver(function), before);
    Ok(())
}

/// The emulated machine has nothing to count instructions with: a stand-in tells what it was asked.
fn kit_counts() -> Outcome {
    let perf = format!("{KIT}/bin/perf");
    run(&format!(
        "printf '#!/bin/sh\nshift 3\necho \"counted: $*\"\nexec \"$@\"\n' >{perf} && chmod +x {perf}"
    ));
    let (success, text) = attempt(&format!("cd {KIT} && ./try-function --yes {ISM}"));
    assert!(success, "{text}");
    let counted = text
        .lines()
        .filter_map(|line| line.strip_prefix("counted: "));
    let check = format!("zpci-io check {ISM} ");
    let counted: Vec<_> = counted
        .filter_map(|line| line.strip_prefix(&check))
        .collect();
    assert_eq!(
        counted,
        [
            "--repeat 1",
            "--repeat 10000",
            "--with ism_vfio_pci --repeat 1",
            "--with ism_vfio_pci --repeat 10000",
        ],
        "{text}"
    );
    Ok(())
}
