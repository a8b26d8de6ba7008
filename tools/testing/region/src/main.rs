// SPDX-License-Identifier: GPL-2.0

//! Tests of the zPCI I/O region through the real file of the device, as a VMM uses it.
//!
//! `region-test [--long] [FILTER]` runs the tests whose names contain FILTER, and prints KTAP. With
//! `--long` one takes a quarter of an hour and more. They want one zPCI function with a BAR 2 that
//! behaves like memory: an emulated NVMe controller with a memory buffer. They bind it to the
//! driver and open it, first by character device and iommufd, then (fewer tests) by group and
//! container.
//!
//! Documentation/arch/s390/vfio-zpci-io.rst says which of them shows which error.

mod concurrency;
mod data;
mod device;
mod fixture;
mod fuzz;
mod limits;
mod memory;
mod order;
mod positions;
mod request;
mod shortage;
mod userfault;

use fixture::Fixture;
use ktap::{guarded, Outcome, Report};
use std::process::ExitCode;
use vfio_zpci_io::{
    sysfs::{self, Function},
    Access, Device, Error,
};

/// One test.
pub(crate) struct Test {
    name: &'static str,
    run: fn(&Fixture<'_>) -> Outcome,
}

/// A test of a function that is bound, but not open.
pub(crate) struct Closed {
    name: &'static str,
    run: fn(&Function) -> Outcome,
}

const fn test(name: &'static str, run: fn(&Fixture<'_>) -> Outcome) -> Test {
    Test { name, run }
}

/// The tests, in the order in which they run.
const ALL: &[&[Test]] = &[
    positions::TESTS,
    request::TESTS,
    limits::TESTS,
    memory::TESTS,
    userfault::TESTS,
    order::TESTS,
    data::TESTS,
    device::TESTS,
    concurrency::TESTS,
    fuzz::TESTS,
    shortage::TESTS,
];

/// What is run again through the group: the ways of opening differ only before the region.
const BY_GROUP: &[&[Test]] = &[data::TESTS, device::TESTS];

/// Runs tests on a function that is opened for them. If it cannot be, all of them fail.
fn run(
    report: &mut Report,
    function: &Result<Function, String>,
    access: Access,
    tests: &[NamedTest],
    long: bool,
) {
    let device = match function {
        Err(reason) => Err(reason.clone()),
        Ok(function) => Device::open(&function.address(), access).map_err(|e| e.to_string()),
    };
    let fixture = match &device {
        Err(reason) => Err(reason.clone()),
        Ok(device) => guarded(|| Fixture::new(device, long).map_err(|e| e.to_string()))
            .and_then(|fixture| fixture),
    };
    for (name, run) in tests {
        let result = match &fixture {
            Ok(fixture) => guarded(|| run(fixture)),
            Err(reason) => Err(format!("the region cannot be tested: {reason}")),
        };
        report.result(name, result);
    }
}

type NamedTest = (String, fn(&Fixture<'_>) -> Outcome);

/// The tests of these topics whose names contain `filter`.
fn select(topics: &[&[Test]], prefix: &str, filter: &str) -> Vec<NamedTest> {
    topics
        .iter()
        .flat_map(|topic| topic.iter())
        .map(|test| (format!("{prefix}{}", test.name), test.run))
        .filter(|(name, _)| name.contains(filter))
        .collect()
}

/// The first function that can be tested.
fn find() -> Result<Option<Function>, Error> {
    const CLASS_NVME: u64 = 0x01_0802;
    for function in sysfs::zpci_functions()? {
        if function.number("class")? == CLASS_NVME && function.bar_size(fixture::BAR)? != 0 {
            return Ok(Some(function));
        }
    }
    Ok(None)
}

/// The function to test, bound to the driver.
fn function() -> Result<Function, String> {
    let function = find().map_err(|error| error.to_string())?;
    let function = function.ok_or("there is no NVMe controller with a memory buffer")?;
    function
        .bind(sysfs::DRIVER)
        .map_err(|error| error.to_string())?;
    Ok(function)
}

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let long = arguments.first().is_some_and(|first| first == "--long");
    arguments.drain(..usize::from(long));
    let filter = arguments.pop().unwrap_or_default();
    if !arguments.is_empty() || filter.starts_with('-') {
        eprintln!("Usage: region-test [--long] [FILTER]");
        return ExitCode::from(2);
    }
    let tests = select(ALL, "", &filter);
    let by_group = select(BY_GROUP, "group: ", &filter);

    let closed = [device::CLOSED, shortage::CLOSED]
        .into_iter()
        .flatten()
        .filter(|test| test.name.contains(&filter));

    let planned = tests.len() + by_group.len() + closed.clone().count();
    let mut report = Report::begin(planned);
    let function = function();
    run(&mut report, &function, Access::Iommufd, &tests, long);
    run(&mut report, &function, Access::Group, &by_group, long);
    for test in closed {
        let result = function.clone().and_then(|f| guarded(|| (test.run)(&f)));
        report.result(test.name, result);
    }
    report.end()
}
