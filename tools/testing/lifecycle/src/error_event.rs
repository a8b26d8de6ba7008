// SPDX-License-Identifier: GPL-2.0

//! The function does what it must not, and the machine puts it in error.

use crate::{
    child::LIMIT,
    host::{self, Host},
    stats,
    tally::Tally,
    vmm::Vmm,
    ADDRESS,
};
use ktap::{test, Outcome, Skip, Test};
use rustix::io::Errno;
use std::time::Instant;
use vfio_zpci_io::{
    sysfs::{Binding, Function, DRIVER},
    Access, Device, Error,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("error, then VFIO_DEVICE_RESET, 0 threads", || {
            mended_by_reset(0)
        }),
        test("error, then VFIO_DEVICE_RESET, 4 threads", || {
            mended_by_reset(4)
        }),
        test("error, then recovery by the host, 0 threads", || {
            mended_by_host(0)
        }),
        test("error, then recovery by the host, 4 threads", || {
            mended_by_host(4)
        }),
        test("error while unbind waits for the VMM", || {
            let mut vmm = Vmm::start(4);
            let mut host = Host::start(&["unbind"], 1);
            vmm.asked(LIMIT);
            // Nobody can report it: who wants to waits for the unbind.
            vmm.stray_dma();
            let end = Instant::now() + LIMIT;
            while vmm.issue(1).ok > 0 {
                assert!(
                    Instant::now() < end,
                    "the function gets into its error state"
                );
            }
            refused(&vmm.issue(20), 20);
            let requests = vmm.stop();
            refused(&requests, requests.failures());
            vmm.close();
            host.done(LIMIT).all_ok("unbind");
            vmm.exit();
            // It is still in error, so that the driver cannot read what it has to know.
            let function = Function::open(ADDRESS.parse().expect("an address")).expect("sysfs");
            let nobodys = Binding {
                driver: None,
                driver_override: None,
            };
            function.restore(&nobodys).expect("no driver");
            let error = function.bind(DRIVER).expect_err("it cannot be read");
            assert!(matches!(error, Error::NotTaken { .. }), "{error}");
            assert_eq!(function.binding().expect("sysfs"), nobodys);
            assert!(!stats::directory().exists(), "nothing is left behind");
            host::does(&["power-off"]);
            Ok(())
        }),
    ]
}

/// Skips a test of what happens with or without mediated recovery on a kernel with the other.
fn needs(mediated: bool) -> Outcome {
    // The VMM comes later: nobody uses the function, so this does not block.
    let address = ADDRESS.parse().expect("the function's address");
    let info = Device::open(&address, Access::Iommufd).and_then(|device| device.info());
    // Linux 7.2 knows of no other recovery than by the host.
    let symbols = std::fs::read_to_string("/proc/kallsyms").expect("the kernel's symbols");
    let by_vmm = info.expect("what VFIO says").has_zpci()
        && symbols.contains(" zpci_start_mediated_recovery\n");
    match (by_vmm, mediated) {
        (true, false) => Err(Skip(
            "CONFIG_VFIO_PCI_ZDEV_KVM: recovery is up to the VMM".to_owned(),
        )),
        (false, true) => Err(Skip("recovery is up to the host".to_owned())),
        _ => Ok(()),
    }
}

/// The VMM is told, resets the function, and goes on.
fn mended_by_reset(threads: usize) -> Outcome {
    needs(true)?;
    let mut vmm = Vmm::start(threads);
    for _ in 0..3 {
        vmm.stray_dma();
        refused(&vmm.error(LIMIT), 20);

        vmm.reset(1).all_ok("VFIO_DEVICE_RESET");
        vmm.issue(20).all_ok("requests after the reset");
        vmm.no_dma();
    }
    finish(vmm)
}

/// The host holds the device lock while it tells the VMM and recovers the function: requests that
/// come then wait, and succeed.
fn mended_by_host(threads: usize) -> Outcome {
    needs(false)?;
    let mut vmm = Vmm::start(threads);
    for _ in 0..3 {
        vmm.stray_dma();
        vmm.error(LIMIT).all_ok("requests after the report");
        vmm.no_dma();
    }
    finish(vmm)
}

/// Ends the VMM: whatever requests of its threads have failed, the function refused them.
fn finish(mut vmm: Vmm) -> Outcome {
    let requests = vmm.stop();
    println!("# requests: {requests:#}");
    refused(&requests, requests.failures());
    vmm.exit();
    Ok(())
}

/// This many requests failed, and all because the function refused them.
#[track_caller]
fn refused(requests: &Tally, count: u64) {
    assert_eq!(requests.failures(), count, "{requests:#}");
    assert_eq!(
        requests.failed_with(&[Errno::REMOTEIO]),
        count,
        "{requests:#}"
    );
}
