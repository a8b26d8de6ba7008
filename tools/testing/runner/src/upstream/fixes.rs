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
    vm::{self, Machine, Report},
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

/// Where the programs are that show a defect.
const REPRODUCERS: &str = "tools/upstream/reproducers";

/// Gives a function to `vfio-pci`, and goes to its directory, for a program that is its user.
const GIVE: &str = r#"
modprobe vfio-pci || exit
cd /sys/bus/pci/devices/0001:00:00.0
echo vfio-pci >driver_override
echo 0001:00:00.0 >/sys/bus/pci/drivers_probe
device=/dev/vfio/devices/$(ls vfio-dev)
"#;

/// A program that stops sysfs, and how it is run: until it ends, or until the kernel says that it waits in
/// vain. Such a host cannot even be switched off in the usual way.
const STOPS_SYSFS: &str = "kernfs-readdir";
const STOP_SYSFS: &str = r#"
/kernfs-readdir "$device" &
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

/// A program in whose resets a domain of the IOMMU is lost, the code by which it says so, and how it is run.
/// Its slot resets the function. Without its messages on the console the kernel has time for thousands.
const LOSES_DOMAIN: &str = "iommu-reset";
const LOST: u8 = 2;
const LOSE_DOMAIN: &str = r#"
echo bus >reset_method || exit
dmesg -n 1
/iommu-reset "$device"
"#;

/// Each defect, by the name of its fix, and whether this host has it.
fn defects(cache: &Cache, guest: &Guest, tree: &Path) -> Result<[(&'static str, bool); 6]> {
    const STEP: &str = "looking for defects";
    let machine = machine()?;
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
        ("kernfs-readdir-fault", stops_sysfs(cache, guest, tree)?),
        ("kunit-run-again", skips_again),
        ("netlink-big-endian", netlink.counts().failed > 0),
        ("pci-reset-messages", messages == RESETS),
        ("s390-hotplug-reset-method", before != after),
        ("s390-iommu-reset-race", loses_domain(cache, guest, tree)?),
    ])
}

/// A function for `vfio-pci`, and one for this driver.
fn machine() -> Result<Machine> {
    let mut machine = Machine::from_env(Flavour::Release, "600")?;
    machine.hardware = Hardware::stock(&[qemu::NVME, qemu::DISK]);
    Ok(machine)
}

/// Whether the program does it.
fn stops_sysfs(cache: &Cache, guest: &Guest, tree: &Path) -> Result<bool> {
    let (end, said) = reproduce(cache, guest, tree, STOPS_SYSFS, STOP_SYSFS)?;
    match (end, said.trim()) {
        (Err(_), "stopped") => Ok(true),
        (Ok(report), said) if report.exit == 0 && said.ends_with(" directories read") => Ok(false),
        (_, said) => Err(strange(said)),
    }
}

/// Whether the other one does.
fn loses_domain(cache: &Cache, guest: &Guest, tree: &Path) -> Result<bool> {
    let (end, said) = reproduce(cache, guest, tree, LOSES_DOMAIN, LOSE_DOMAIN)?;
    let counted = said.trim().ends_with(" resets failed");
    match end {
        Ok(report) if counted && report.exit == 0 => Ok(false),
        Ok(report) if counted && report.exit == LOST => Ok(true),
        _ => Err(strange(&said)),
    }
}

/// Compiles a program of `tools/upstream/reproducers`, and runs it by `command` in a host that has given it
/// a function. Returns how that ended, and what it printed.
fn reproduce(
    cache: &Cache,
    guest: &Guest,
    tree: &Path,
    name: &str,
    command: &str,
) -> Result<(std::result::Result<Report, String>, String)> {
    let scratch = Scratch::new(cache)?;
    let program = scratch.path(name);
    let source = tree.join(REPRODUCERS).join(name).with_extension("c");
    let mut gcc = Command::new(format!("{}gcc", cross::PREFIX));
    gcc.args(["-static", "-pthread", "-O2", "-Wall", "-Werror", "-o"])
        .args([&program, &source]);
    let log = cache.log("reproducer");
    progress::run("reproducer: compiling", &mut gcc, &log, |_| String::new())?;
    let mut machine = machine()?;
    machine.files.push(program);
    let command = format!("{GIVE}{command}");
    let mut output = Vec::new();
    let outcome = vm::run(cache, guest, &machine, &command, false, &mut output)?;
    Ok((outcome.end, String::from_utf8_lossy(&output).into_owned()))
}

fn strange(said: &str) -> Error {
    Error::new("the reproducer", format!("it said: {said}"), "")
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
