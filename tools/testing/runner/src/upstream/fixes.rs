// SPDX-License-Identifier: GPL-2.0

//! The defects for which there is a fix by itself: how each can be seen.

use std::{path::Path, process::Command};

use crate::{
    cache::{Cache, Scratch},
    cross,
    error::{Error, Result},
    guest::Guest,
    kernel::Flavour,
    ktap::{self, Test},
    progress,
    qemu::{self, Hardware},
    vm::{self, Machine},
};

/// How often a function is reset to see how much the kernel has to say.
const RESETS: usize = 100;

/// A suite that skips its tests for as long as there are no drivers to compare.
const SKIPS: &str = "zpci_vfio_pci_driver";

/// Runs the unit tests of netlink, and those that skip themselves before and after they have what they want.
/// Resets a function of `vfio-pci`, and takes it away and gives it back.
const COMMAND: &str = r#"
run() { echo 1 >/sys/kernel/debug/kunit/$1/run; }
bind() {
	echo $2 >/sys/bus/pci/devices/$1/driver_override
	echo $1 >/sys/bus/pci/drivers_probe
}
run rust_netlink || exit
run zpci_vfio_pci_driver || exit
modprobe -a vfio-pci zpci-vfio-pci || exit
bind 0001:00:00.0 vfio-pci
bind 0004:00:00.0 zpci_vfio_pci
run zpci_vfio_pci_driver || exit
device=/sys/bus/pci/devices/0001:00:00.0
for i in $(seq 100); do
	echo 1 >$device/reset || exit
done
cat $device/reset_method
echo 0 >/sys/bus/pci/slots/00000010/power || exit
echo 1 >/sys/bus/pci/slots/00000010/power || exit
cat $device/reset_method
"#;

/// A program that stops sysfs, and how it is run: until it ends, or until the kernel says that it waits in
/// vain. Such a host cannot even be switched off in the usual way.
const STOPS_SYSFS: &str = "tools/upstream/reproducers/kernfs-readdir.c";
const STOP_SYSFS: &str = r#"
modprobe vfio-pci || exit
cd /sys/bus/pci/devices/0001:00:00.0
echo vfio-pci >driver_override
echo 0001:00:00.0 >/sys/bus/pci/drivers_probe
/kernfs-readdir "/dev/vfio/devices/$(ls vfio-dev)" &
while kill -0 $! 2>/dev/null; do
	sleep 1
	if dmesg | grep -q 'rw-semaphore likely owned by task kernfs-readdir'; then
		echo stopped
		sleep 1
		echo b >/proc/sysrq-trigger
	fi
done
wait $!
"#;

/// Each defect, by the name of its fix, and whether this host has it.
fn defects(cache: &Cache, guest: &Guest, tree: &Path) -> Result<[(&'static str, bool); 5]> {
    const STEP: &str = "looking for defects";
    let mut machine = Machine::from_env(Flavour::Release, "600")?;
    machine.hardware = Hardware::stock(&[qemu::NVME, qemu::DISK]);
    let (output, outcome) = vm::succeed(cache, guest, &machine, COMMAND)?;
    let [before, after] = output.lines().collect::<Vec<_>>()[..] else {
        return Err(Error::new(STEP, format!("strange output: {output}"), ""));
    };
    let suites = ktap::parse(&outcome.since_command);
    let Some(netlink) = suites.iter().find(|suite| suite.name == "rust_netlink") else {
        return Err(Error::new(STEP, "KUnit did not run rust_netlink", ""));
    };
    let skipped = suites.iter().filter(|suite| suite.name == SKIPS);
    let skipped: Vec<_> = skipped.map(|suite| suite.counts().skipped > 0).collect();
    let [true, skips_again] = skipped[..] else {
        let reason = format!("KUnit ran {SKIPS} otherwise than wanted: {skipped:?}");
        return Err(Error::new(STEP, reason, ""));
    };
    let messages = outcome.since_command.matches(": resetting").count();
    Ok([
        (
            "kernfs-readdir-fault",
            stops_sysfs(cache, guest, tree, machine)?,
        ),
        ("kunit-run-again", skips_again),
        ("netlink-big-endian", netlink.counts().failed > 0),
        ("pci-reset-messages", messages == RESETS),
        ("s390-hotplug-reset-method", before != after),
    ])
}

/// Whether the program does it.
fn stops_sysfs(cache: &Cache, guest: &Guest, tree: &Path, mut machine: Machine) -> Result<bool> {
    const STEP: &str = "the reproducer";
    let scratch = Scratch::new(cache)?;
    let program = scratch.path("kernfs-readdir");
    let mut gcc = Command::new(format!("{}gcc", cross::PREFIX));
    gcc.args(["-static", "-pthread", "-O2", "-Wall", "-Werror", "-o"])
        .args([&program, &tree.join(STOPS_SYSFS)]);
    let log = cache.log("reproducer");
    progress::run("reproducer: compiling", &mut gcc, &log, |_| String::new())?;
    machine.files.push(program);
    let mut output = Vec::new();
    let outcome = vm::run(cache, guest, &machine, STOP_SYSFS, false, &mut output)?;
    let output = String::from_utf8_lossy(&output);
    match (outcome.end, output.trim()) {
        (Err(_), "stopped") => Ok(true),
        (Ok(report), said) if report.exit == 0 && said.ends_with(" directories read") => Ok(false),
        (_, said) => Err(Error::new(STEP, format!("it said: {said}"), "")),
    }
}

/// One test for each fix: the host has the defect if it is `expected`, and else has not.
pub fn look(cache: &Cache, guest: &Guest, tree: &Path, expected: bool) -> Result<Vec<Test>> {
    let objection = if expected {
        "the defect is not there"
    } else {
        "the defect is still there"
    };
    let test = |(name, found): (&str, bool)| {
        let objection = (found != expected).then(|| objection.to_string());
        Test::check(name, objection.into_iter().collect())
    };
    Ok(defects(cache, guest, tree)?.map(test).into())
}
