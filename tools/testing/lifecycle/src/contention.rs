// SPDX-License-Identifier: GPL-2.0

//! Many threads on one function: side by side in the lease, and never long outside of it.

use crate::{
    host,
    stats::{self, Waits},
    vmm::Vmm,
};
use ktap::{test, Skip, Test};
use std::{thread, time::Duration};

/// How long a request may wait for others.
const LONGEST: Duration = Duration::from_millis(2);

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("requests are issued side by side", || {
            let dwell = stats::dwell(200)?;
            let mut vmm = Vmm::start(4);
            thread::sleep(Duration::from_secs(1));
            vmm.stop().all_ok("requests");
            vmm.exit();
            let most = stats::get("most_inside");
            drop(dwell);
            println!("# at most {most} at the same time");
            assert!(most >= 2, "two requests were never issued side by side");
            Ok(())
        }),
        test("contention: all who wait for others are woken", || {
            // So that there is something to wait for.
            let dwell = stats::dwell(100)?;
            let seen = contend(2000);
            drop(dwell);
            assert!(seen.waits >= 20, "too few of them");
            Ok(())
        }),
        test("contention: nobody waits long", || {
            // A new device, whose numbers are 0.
            host::does(&["unbind"]);
            host::prepare(true);
            let seen = contend(100);
            // With several CPUs it is the emulator's time that requests wait for.
            if thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
                return Err(Skip("there is more than one CPU".to_owned()));
            }
            assert!(seen.longest <= LONGEST, "that is above {LONGEST:?}");
            Ok(())
        }),
    ]
}

/// Sends requests by 16 threads for some time. All must succeed.
fn contend(milliseconds: u64) -> Waits {
    let before = Waits::until_now();
    let mut vmm = Vmm::start(16);
    thread::sleep(Duration::from_millis(milliseconds));
    let requests = vmm.stop();
    vmm.exit();
    println!("# requests: {requests:#}");
    let waits = Waits::until_now().since(&before);
    println!("# {waits}");
    requests.all_ok("requests");
    // A tick may fall between the end of a lease and its wakeups.
    assert!(waits.ticks <= 1 + waits.waits / 10, "they are not woken");
    waits
}
