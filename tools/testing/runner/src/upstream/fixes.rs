// SPDX-License-Identifier: GPL-2.0

//! The defects for which there is a fix by itself: how each can be seen.

use crate::{
    cache::Cache,
    error::{Context, Error, Result},
    guest::Guest,
    kernel::Flavour,
    ktap::{self, Test},
    vm::{self, Machine},
};

/// How often a function is reset to see how much the kernel has to say.
const RESETS: usize = 100;

/// Resets a function of `vfio-pci`, and takes it away and gives it back.
const COMMAND: &str = r#"
modprobe vfio-pci || exit
device=/sys/bus/pci/devices/0001:00:00.0
echo vfio-pci >$device/driver_override
echo 0001:00:00.0 >/sys/bus/pci/drivers_probe
for i in $(seq 100); do
	echo 1 >$device/reset || exit
done
cat $device/reset_method
echo 0 >/sys/bus/pci/slots/00000010/power || exit
echo 1 >/sys/bus/pci/slots/00000010/power || exit
cat $device/reset_method
"#;

/// Each defect, by the name of its fix, and whether this host has it.
fn defects(cache: &Cache, guest: &Guest) -> Result<[(&'static str, bool); 3]> {
    const STEP: &str = "looking for defects";
    let machine = Machine::from_env(Flavour::Release, "600")?;
    let mut output = Vec::new();
    let outcome = vm::run(cache, guest, &machine, COMMAND, false, &mut output)?;
    match outcome.end {
        Ok(report) if report.exit == 0 => {}
        Ok(report) => {
            let reason = format!("the command ended with code {}", report.exit);
            return Err(Error::new(STEP, reason, ""));
        }
        Err(reason) => return Err(Error::new(STEP, reason, "")),
    }
    let output = String::from_utf8(output)
        .map_err(std::io::Error::other)
        .context(STEP)?;
    let [before, after] = output.lines().collect::<Vec<_>>()[..] else {
        return Err(Error::new(STEP, format!("strange output: {output}"), ""));
    };
    let suites = ktap::parse(&outcome.console);
    let Some(netlink) = suites.iter().find(|suite| suite.name == "rust_netlink") else {
        return Err(Error::new(STEP, "KUnit did not run rust_netlink", ""));
    };
    let messages = outcome.since_command.matches(": resetting").count();
    Ok([
        ("netlink-big-endian", netlink.counts().failed > 0),
        ("pci-reset-messages", messages == RESETS),
        ("s390-hotplug-reset-method", before != after),
    ])
}

/// One test for each fix: the host has the defect if it is `expected`, and else has not.
pub fn look(cache: &Cache, guest: &Guest, expected: bool) -> Result<Vec<Test>> {
    let objection = if expected {
        "the defect is not there"
    } else {
        "the defect is still there"
    };
    let test = |(name, found): (&str, bool)| {
        let objection = (found != expected).then(|| objection.to_string());
        Test::check(name, objection.into_iter().collect())
    };
    Ok(defects(cache, guest)?.map(test).into())
}
