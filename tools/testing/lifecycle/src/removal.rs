// SPDX-License-Identifier: GPL-2.0

//! The host takes the function away while a VMM uses it: the VMM is asked to give it back, can do
//! so in an orderly manner, and as soon as it has closed the device the host gets it.

use crate::{
    child::LIMIT,
    host::{self, Host},
    stats,
    tally::Tally,
    vmm::Vmm,
    THREADS,
};
use ktap::{test, Outcome, Test};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// The ways to take it away.
const WAYS: [&str; 4] = ["power-off", "unbind", "remove", "recover"];

/// How long it may take from the last close until the host is done: VFIO would notice after 10 s
/// even if nobody told it.
const TAKEN: Duration = Duration::from_secs(8);

/// How many requests a guest needs to shut its device down.
const SHUTDOWN: u32 = 20;

pub(crate) fn tests(long: bool) -> Vec<Test> {
    let mut tests = Vec::new();
    for way in WAYS {
        for (threads, text) in THREADS {
            // Many threads slow down an emulated machine.
            if threads > 4 && way != "power-off" && !long {
                continue;
            }
            tests.push(test(
                format!("{way}, orderly shutdown, {text}"),
                move || {
                    report(way, &orderly(way, threads));
                    Ok(())
                },
            ));
        }
        tests.extend([
            test(
                format!("{way}, VMM does not react and is killed"),
                move || stubborn(way, long),
            ),
            test(format!("{way}, VMM closes with requests in flight"), {
                move || hasty(way)
            }),
        ]);
    }
    tests.push(test("power-off while requests dwell in the lease", || {
        let dwell = stats::dwell(300)?;
        report("power-off", &orderly("power-off", 4));
        drop(dwell);
        Ok(())
    }));
    tests
}

/// What came of all requests, and how long the host took from the last close.
pub(crate) type Removal = (Tally, Duration);

fn report(way: &str, (requests, time): &Removal) {
    println!("# requests: {requests:#}");
    println!("# {way} took {time:?} from the last close");
}

/// The VMM learns that the host wants the function, has its guest shut it down, and closes it.
#[track_caller]
pub(crate) fn orderly(way: &str, threads: usize) -> Removal {
    let mut vmm = Vmm::start(threads);
    let mut host = Host::start(&[way], 1);
    vmm.asked(LIMIT);

    // The threads still send requests, too.
    vmm.issue(SHUTDOWN).all_ok("requests of the shutdown");
    let requests = vmm.stop();
    requests.all_ok("requests during removal");
    // Requests would keep a hot reset out, for which there is another errno.
    let resets = vmm.hot_reset(3);
    let errno = match way {
        // Holds `zdev->state_lock`, too, without which the slot has no reset.
        "power-off" | "recover" => Errno::NODEV,
        _ => Errno::AGAIN,
    };
    assert_eq!(resets.failed_with(&[errno]), 3, "{resets:#}");
    assert!(host.is_busy(), "the host waits until the device is closed");

    vmm.close();
    let time = taken(way, &mut host);
    vmm.exit();
    (requests, time)
}

/// The VMM goes on as if nothing had happened; only a reset is not possible any more.
fn stubborn(way: &str, long: bool) -> Outcome {
    let mut vmm = Vmm::start(4);
    let mut host = Host::start(&[way], 1);
    vmm.asked(LIMIT);
    if long {
        // VFIO asks every 10 s again.
        vmm.asked(LIMIT);
    }
    vmm.issue(SHUTDOWN).all_ok("requests during removal");
    let resets = vmm.reset(3);
    assert_eq!(resets.failed_with(&[Errno::AGAIN]), 3, "{resets:#}");
    assert!(host.is_busy(), "the host waits until the device is closed");
    vmm.kill(TAKEN);
    taken(way, &mut host);
    Ok(())
}

/// The VMM closes the device at once, under its threads.
fn hasty(way: &str) -> Outcome {
    let mut vmm = Vmm::start(4);
    let mut host = Host::start(&[way], 1);
    vmm.asked(LIMIT);
    vmm.close();
    taken(way, &mut host);
    let requests = vmm.stop();
    assert_eq!(
        requests.failures(),
        requests.failed_with(&[Errno::BADF]),
        "{requests:#}"
    );
    vmm.exit();
    Ok(())
}

/// The VMM has closed the device: the host gets the function soon.
#[track_caller]
fn taken(way: &str, host: &mut Host) -> Duration {
    let closed = Instant::now();
    host.done(LIMIT).all_ok(way);
    let time = closed.elapsed();
    assert!(time <= TAKEN, "{way} took {time:?} from the last close");

    // What the host wanted has happened.
    let (here, driver) = (host::has_function(), host::has_driver());
    match way {
        "unbind" => assert!(here && !driver, "no driver"),
        "recover" => assert!(here, "a function found again"),
        _ => assert!(!here, "no function"),
    }
    time
}
