// SPDX-License-Identifier: GPL-2.0

//! Many threads on one function: side by side in the lease, and never long outside of it.

use crate::{
    host,
    stats::{self, Waits},
    vmm::Vmm,
};
use ktap::{test, Skip, Test};
use std::{
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

/// How many threads send requests to the function.
const THREADS: usize = 16;

/// How long a request may wait for others.
const LONGEST: Duration = Duration::from_millis(2);

/// How long the threads send requests, at least and if too few of them wait.
const TIME: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

/// How many waits say something about waiting: more than all threads but one, so that they have
/// come into each other's way more than once.
const ENOUGH: u64 = 20;

/// The same, where threads that collide do so all at once.
const ENOUGH_COLLIDING: u64 = 300;

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
            let seen = contend(Vmm::start, ENOUGH);
            drop(dwell);
            seen.are_woken();
            Ok(())
        }),
        test("contention: nobody waits long", || {
            // A new device, whose numbers are 0.
            host::does(&["unbind"]);
            host::prepare(true);
            if thread::available_parallelism().map_or(1, NonZero::get) > 1 {
                contend(Vmm::start, ENOUGH).are_woken();
                let reason = "several CPUs: requests wait for the emulator, too";
                return Err(Skip(reason.to_owned()));
            }
            let seen = contend(Vmm::start_colliding, ENOUGH_COLLIDING);
            // Each wait begins when a tick has come. Only the next one could end it.
            assert_eq!(seen.ticks, 0, "they are not all woken");
            assert!(seen.longest <= LONGEST, "that is above {LONGEST:?}");
            Ok(())
        }),
    ]
}

/// Lets a VMM send requests until enough have waited. All must succeed.
fn contend(start: impl Fn(usize) -> Vmm, enough: u64) -> Waits {
    let before = Waits::until_now();
    let mut vmm = start(THREADS);
    let begin = Instant::now();
    thread::sleep(TIME);
    while Waits::until_now().since(&before).waits < enough && begin.elapsed() < LIMIT {
        thread::sleep(TIME / 10);
    }
    let requests = vmm.stop();
    vmm.exit();
    println!("# requests: {requests:#}");
    let waits = Waits::until_now().since(&before);
    println!("# {waits}");
    requests.all_ok("requests");
    assert!(waits.waits >= enough, "too few have waited");
    waits
}

impl Waits {
    /// With several CPUs a tick may fall between the end of a lease and its wakeups.
    #[track_caller]
    fn are_woken(&self) {
        assert!(self.ticks <= 1 + self.waits / 10, "they are not woken");
    }
}
