// SPDX-License-Identifier: GPL-2.0

//! The function does what it must not, and the machine puts it in error.

use crate::{
    child::LIMIT,
    host::{self, Host},
    stats,
    tally::Tally,
    vmm::Vmm,
};
use ktap::{test, Outcome, Test};
use rustix::io::Errno;
use std::{thread, time::Duration};

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
            thread::sleep(Duration::from_millis(500));
            refused(&vmm.issue(20), 20);
            let requests = vmm.stop();
            refused(&requests, requests.failures());
            vmm.close();
            host.done(LIMIT).all_ok("unbind");
            vmm.exit();
            // It is still in error.
            host::does(&["power-off"]);
            Ok(())
        }),
    ]
}

/// The VMM is told, resets the function, and goes on.
fn mended_by_reset(threads: usize) -> Outcome {
    let mut vmm = Vmm::start(threads);
    for _ in 0..3 {
        vmm.stray_dma();
        vmm.error(LIMIT);
        refused(&vmm.issue(20), 20);

        vmm.reset(1).all_ok("VFIO_DEVICE_RESET");
        vmm.issue(20).all_ok("requests after the reset");
        vmm.no_dma();
    }
    let requests = vmm.stop();
    println!("# requests: {requests:#}");
    refused(&requests, requests.failures());
    vmm.exit();
    Ok(())
}

/// The host holds the device lock while it tells the VMM and recovers the function: requests that
/// come then wait, and succeed.
fn mended_by_host(threads: usize) -> Outcome {
    let unmediated = stats::unmediated()?;
    let mut vmm = Vmm::start(threads);
    for _ in 0..3 {
        vmm.stray_dma();
        vmm.error(LIMIT);
        vmm.issue(20).all_ok("requests after the report");
        vmm.no_dma();
    }
    let requests = vmm.stop();
    println!("# requests: {requests:#}");
    refused(&requests, requests.failures());
    vmm.exit();
    drop(unmediated);
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
