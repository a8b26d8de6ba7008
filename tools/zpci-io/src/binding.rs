// SPDX-License-Identifier: GPL-2.0

//! `bind` and `unbind`: the driver of a function.

use crate::{
    cli::Name,
    failure::{Failure, Refusal},
    find,
    output::Output,
    show::Entry,
    users,
};
use serde::Serialize;
use std::fmt;
use vfio_zpci_io::sysfs::{Function, Host, DRIVER};

/// The function as it is now.
#[derive(Serialize)]
#[serde(transparent)]
struct Bound(Entry);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = self.0.driver.as_deref().unwrap_or("no driver");
        match self.0.nodes().as_str() {
            "-" => write!(f, "{}: {driver}", self.0.address),
            nodes => write!(f, "{}: {driver} {nodes}", self.0.address),
        }
    }
}

pub(crate) fn bind(
    host: &Host,
    out: &mut Output<'_>,
    name: Name,
    force: bool,
) -> Result<(), Failure> {
    let function = find(host, name)?;
    if function.zpci_fid().is_none() {
        return Err(Failure::refused(function.address(), Refusal::NotZpci));
    }
    if function.driver()?.as_deref() != Some(DRIVER) {
        if !force {
            unused(host, &function)?;
        }
        function.bind(DRIVER)?;
    }
    out.show(&Bound(Entry::of(&function)?))
}

pub(crate) fn unbind(
    host: &Host,
    out: &mut Output<'_>,
    name: Name,
    force: bool,
) -> Result<(), Failure> {
    let function = find(host, name)?;
    if !force {
        match function.driver()? {
            Some(driver) if driver != DRIVER => {
                let reason = Refusal::OtherDriver(driver);
                return Err(Failure::refused(function.address(), reason));
            }
            _ => unused(host, &function)?,
        }
    }
    function.unbind()?;
    out.show(&Bound(Entry::of(&function)?))
}

/// Does something while this driver has the function, and leaves the function as it was.
pub(crate) fn while_bound<T>(
    function: &Function,
    driver: &str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let before = function.binding()?;
    function.bind(driver)?;
    let result = work();
    // Also after a failure, and before anything is said.
    function.restore(&before)?;
    result
}

/// Refuses a function that something uses.
pub(crate) fn unused(host: &Host, function: &Function) -> Result<(), Failure> {
    let users = users::of(host, function)?;
    match users.is_empty() {
        true => Ok(()),
        false => Err(Failure::refused(function.address(), Refusal::InUse(users))),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, ADDRESS};

    #[test]
    fn another_driver_s_function_is_not_unbound() {
        for driver in ["nvme", "vfio-pci"] {
            let fake = Fake::new().bound(driver);
            let reason = format!("the driver {driver} has it, not zpci_vfio_pci");
            fake.refused(&format!("unbind {ADDRESS}"), &reason);
            fake.refused("unbind 10", &reason);
        }
    }

    #[test]
    fn function_in_use_is_not_unbound() {
        let fake = Fake::new().bound_to_vfio("zpci_vfio_pci");
        let fake = fake.process("/dev/null", "");
        fake.refused("unbind 10", "it is in use: process 77 (qemu) has it open");
    }

    #[test]
    fn function_in_use_is_not_bound() {
        let fake = Fake::new().bound_to_vfio("vfio-pci");
        let fake = fake.process("/dev/null", "");
        fake.refused("bind 10", "it is in use: process 77 (qemu) has it open");
    }

    #[test]
    fn function_that_is_bound_is_left_alone() {
        let fake = Fake::new().bound_to_vfio("zpci_vfio_pci");
        let fake = fake.process("/dev/null", "");
        let (text, result) = fake.run("bind 10");
        result.unwrap();
        assert!(text.starts_with("0001:00:00.0: zpci_vfio_pci "), "{text}");
        fake.untouched();
    }

    #[test]
    fn function_that_is_not_of_s390_is_not_bound() {
        let fake = Fake::new();
        fake.write(&format!("/sys/bus/pci/devices/{ADDRESS}/function_id"), "");
        fake.refused(&format!("bind {ADDRESS} --force"), "not a zPCI function");
    }

    #[test]
    fn force() {
        for line in ["unbind 10 --force", "bind 10 --force"] {
            let fake = Fake::new().bound_to_vfio("vfio-pci");
            let fake = fake.process("/dev/null", "");
            // Nobody takes the function there, so what comes of it does not matter.
            let _ = fake.run(line);
            fake.probed(ADDRESS);
        }
    }

    #[test]
    fn unused_function() {
        let fake = Fake::new().bound_to_vfio("zpci_vfio_pci");
        fake.run("unbind 10").1.unwrap();
        fake.probed(ADDRESS);
        let fake = Fake::new();
        let _ = fake.run("bind 11");
        fake.probed("0002:00:00.0");
    }
}
