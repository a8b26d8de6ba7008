// SPDX-License-Identifier: GPL-2.0

//! The module as management software and administrators see it.

use crate::{zpci_io::bind, MEMORY};
use ktap::{test, Outcome, Test};
use std::{fs, path::Path, process::Command};
use vfio_zpci_io::sysfs::DRIVER;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("module: its only alias is that of ISM, for VFIO", alias),
        test("module: description, license, no parameters", information),
        test(
            "module: the numbers of users in debugfs, and no others",
            numbers,
        ),
    ]
}

/// As modprobe and libvirt find drivers.
fn alias() -> Outcome {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let path = format!("/lib/modules/{}/modules.alias", release.trim());
    let aliases = fs::read_to_string(&path).expect("modules.alias");
    let ours: Vec<_> = aliases
        .lines()
        .filter_map(|line| line.strip_prefix("alias ")?.strip_suffix(" zpci_vfio_pci"))
        .collect();
    assert_eq!(ours, ["vfio_pci:v00001014d000004EDsv*sd*bc*sc*i*"]);
    Ok(())
}

fn information() -> Outcome {
    let output = Command::new("busybox").args(["modinfo", DRIVER]).output();
    let output = output.expect("modinfo");
    let text = String::from_utf8(output.stdout).expect("text");
    let field = |name: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::trim).collect::<Vec<_>>()
    };
    let description = "vfio-pci variant driver for zPCI functions, with the zPCI I/O region";
    assert_eq!(field("description:"), [description], "{text}");
    assert_eq!(field("license:"), ["GPL"], "{text}");
    assert_eq!(field("parm:"), [""; 0], "{text}");
    let parameters = Path::new("/sys/module").join(DRIVER).join("parameters");
    assert!(!parameters.exists(), "a parameter");
    Ok(())
}

/// A module for users has nothing in it that is for tests.
fn numbers() -> Outcome {
    bind(MEMORY);
    let directory = format!("/sys/kernel/debug/zpci-vfio-pci-{MEMORY:08x}");
    let entries = fs::read_dir(&directory).expect("debugfs");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("debugfs")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["longest_wait_ns", "ticks", "waits"]);
    Ok(())
}
