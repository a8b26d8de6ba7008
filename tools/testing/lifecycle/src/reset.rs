// SPDX-License-Identifier: GPL-2.0

//! Resets, and changes of PCI_COMMAND, while threads send requests: these wait, and succeed.

use crate::{
    child::LIMIT,
    host::Host,
    stats::{self, Waits},
    tally::Tally,
    vmm::Vmm,
    THREADS,
};
use ktap::{test, Outcome, Test};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// For some tens of resets by the host.
const RESETS: Duration = Duration::from_secs(120);

pub(crate) fn tests(long: bool) -> Vec<Test> {
    // By user space, by the host, and changes of PCI_COMMAND.
    let (most, by_host, toggles) = if long {
        (1500, 40, 500)
    } else {
        (200, 10, 100)
    };
    let mut tests = Vec::new();
    for (threads, text) in THREADS {
        let by_vmm = if threads == 4 { most } else { 50 };
        tests.extend([
            test(format!("VFIO_DEVICE_RESET, {text}"), move || {
                vfio_resets(threads, by_vmm)
            }),
            test(format!("sysfs reset, {text}"), move || {
                sysfs_resets(threads, by_host)
            }),
            test(format!("hot reset, {text}"), move || hot_resets(threads)),
        ]);
    }
    tests.extend([
        test("sysfs reset, 2 threads", move || sysfs_resets(2, by_host)),
        test("resets while requests dwell in the lease", || {
            let dwell = stats::dwell(300)?;
            let mut vmm = Vmm::start(4);
            vmm.reset(50).all_ok("VFIO_DEVICE_RESET");
            let mut host = Host::start(&["reset"], 20);
            host.done(RESETS).all_ok("sysfs reset");
            finish(vmm);
            assert!(stats::get("most_inside") >= 2, "requests were side by side");
            drop(dwell);
            Ok(())
        }),
        test("VFIO and sysfs resets at the same time, 4 threads", || {
            let mut vmm = Vmm::start(4);
            let mut host = Host::start(&["reset"], 20);
            let mut resets = Tally::default();
            while host.is_busy() {
                resets += &vmm.reset(10);
            }
            host.done(RESETS).all_ok("sysfs reset");
            println!("# VFIO_DEVICE_RESET: {resets:#}");
            // It does not wait for the other, which may take longer than many of them.
            assert_eq!(
                resets.failures(),
                resets.failed_with(&[Errno::AGAIN]),
                "{resets:#}"
            );
            vmm.reset(10).all_ok("VFIO_DEVICE_RESET");
            finish(vmm);
            Ok(())
        }),
        test(
            "PCI_COMMAND switches memory off and on, 4 threads",
            move || toggling(4, toggles, 0),
        ),
        test(
            "PCI_COMMAND switches memory off and on, sysfs resets, 4 threads",
            move || toggling(4, toggles, 20),
        ),
    ]);
    tests
}

/// None of the requests failed.
#[track_caller]
fn finish(mut vmm: Vmm) {
    vmm.issue(20).all_ok("requests after the resets");
    report(&vmm.stop()).all_ok("requests during the resets");
    vmm.exit();
}

fn report(requests: &Tally) -> &Tally {
    println!("# requests: {requests:#}");
    println!("# {}", Waits::until_now());
    requests
}

fn vfio_resets(threads: usize, count: u32) -> Outcome {
    let mut vmm = Vmm::start(threads);
    let resets = vmm.reset(count);
    println!("# resets: {resets:#}");
    resets.all_ok("VFIO_DEVICE_RESET");
    finish(vmm);
    Ok(())
}

fn sysfs_resets(threads: usize, count: u32) -> Outcome {
    let vmm = Vmm::start(threads);
    let mut host = Host::start(&["reset"], count);
    let resets = host.done(RESETS);
    println!("# resets: {resets:#}");
    resets.all_ok("sysfs reset");
    finish(vmm);
    Ok(())
}

/// A hot reset does not wait for requests: most are refused, until there are none any more.
fn hot_resets(threads: usize) -> Outcome {
    let mut vmm = Vmm::start(threads);
    let end = Instant::now() + LIMIT;
    let mut resets = Tally::default();
    while resets.ok == 0 {
        assert!(Instant::now() < end, "one comes between: {resets:#}");
        resets += &vmm.hot_reset(50);
    }
    println!("# hot resets: {resets:#}");
    assert_eq!(
        resets.failures(),
        resets.failed_with(&[Errno::BUSY]),
        "{resets:#}"
    );
    report(&vmm.stop()).all_ok("requests during hot resets");
    vmm.hot_reset(10).all_ok("hot resets without requests");
    vmm.issue(20).all_ok("requests after hot resets");
    vmm.exit();
    Ok(())
}

/// Requests fail while the memory space is off, and only then and only so.
fn toggling(threads: usize, toggles: u32, resets: u32) -> Outcome {
    let mut vmm = Vmm::start(threads);
    let mut host = Host::start(&["reset"], resets);
    vmm.toggle_memory(toggles).all_ok("writes to PCI_COMMAND");
    let resets_done = host.done(RESETS);
    assert_eq!(resets_done.failures(), 0, "{resets_done:#}");
    vmm.issue(20).all_ok("requests with memory on");
    let requests = vmm.stop();
    report(&requests);
    assert_eq!(
        requests.failures(),
        requests.failed_with(&[Errno::IO]),
        "{requests:#}"
    );
    assert!(requests.ok > 0 && requests.failures() > 0, "{requests:#}");
    vmm.exit();
    Ok(())
}
