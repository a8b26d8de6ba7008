// SPDX-License-Identifier: GPL-2.0

//! The function does what it must not, and the machine puts it in error.

use crate::{
    ktap::{test, Test},
    tally::Tally,
    vmm::Vmm,
};
use rustix::io::Errno;
use std::time::Duration;

/// How long the machine may take to report an error.
const REPORT: Duration = Duration::from_secs(5);

pub(crate) fn tests() -> Vec<Test> {
    [0, 4]
        .map(|threads| {
            test(
                format!("error, VFIO_DEVICE_RESET, requests again, {threads} threads"),
                move || {
                    let mut vmm = Vmm::start(threads);
                    for _ in 0..3 {
                        vmm.stray_dma();
                        vmm.error(REPORT);
                        only_refused(&vmm.issue(20), 20);

                        vmm.reset(1).all_ok("VFIO_DEVICE_RESET");
                        vmm.issue(20).all_ok("requests after the reset");
                        vmm.no_dma();
                    }
                    let requests = vmm.stop();
                    println!("# requests: {requests:#}");
                    only_refused(&requests, requests.failures());
                    vmm.exit();
                    Ok(())
                },
            )
        })
        .into()
}

/// This many requests failed, and all because the function refused them.
#[track_caller]
fn only_refused(requests: &Tally, count: u64) {
    assert_eq!(requests.failures(), count, "{requests:#}");
    assert_eq!(
        requests.failed_with(&[Errno::REMOTEIO]),
        count,
        "{requests:#}"
    );
}
