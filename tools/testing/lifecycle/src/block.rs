// SPDX-License-Identifier: GPL-2.0

//! A request whose memory does not come delays nobody, and its thread can be killed.

use crate::{child::LIMIT, host::Host, vmm::Vmm};
use ktap::{test, Outcome, Test};
use std::time::Duration;

/// How long what is not blocked may take: less than the 5 s after which a request gives up.
const SOON: Duration = Duration::from_secs(4);

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("blocked on memory: other requests go on", || {
            blocked(|vmm| {
                let requests = vmm.issue(100);
                requests.all_ok("requests");
                assert!(requests.longest < SOON, "{requests:#}");
                Ok(())
            })
        }),
        test("blocked on memory: VFIO_DEVICE_RESET goes on", || {
            blocked(|vmm| {
                let resets = vmm.reset(10);
                resets.all_ok("VFIO_DEVICE_RESET");
                assert!(resets.longest < SOON, "{resets:#}");
                Ok(())
            })
        }),
        test("blocked on memory: sysfs reset goes on", || {
            blocked(|_| {
                let resets = Host::start(&["reset"], 5).done(LIMIT);
                resets.all_ok("sysfs reset");
                assert!(resets.longest < SOON, "{resets:#}");
                Ok(())
            })
        }),
        test("blocked on memory: PCI_COMMAND can be written", || {
            blocked(|vmm| {
                let writes = vmm.toggle_memory(10);
                writes.all_ok("PCI_COMMAND");
                assert!(writes.longest < SOON, "{writes:#}");
                Ok(())
            })
        }),
        test("blocked on memory: removal is announced, and ends", || {
            let mut vmm = Vmm::start(2);
            vmm.block();
            let mut host = Host::start(&["power-off"], 1);
            vmm.asked(LIMIT);
            vmm.issue(20).all_ok("requests during removal");
            vmm.stop().all_ok("requests");
            kill(vmm);
            host.done(LIMIT).all_ok("power-off");
            Ok(())
        }),
    ]
}

/// Does something while one thread of the VMM is blocked and two others send requests.
fn blocked(meanwhile: impl Fn(&mut Vmm) -> Outcome) -> Outcome {
    let mut vmm = Vmm::start(2);
    vmm.block();
    meanwhile(&mut vmm)?;
    kill(vmm);
    Ok(())
}

/// Kills the VMM, whose thread is still blocked: the page has not come.
fn kill(vmm: Vmm) {
    let time = vmm.kill(LIMIT);
    println!("# it died within {time:?}");
    assert!(time <= SOON, "that is above {SOON:?}");
}
