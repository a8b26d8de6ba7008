// SPDX-License-Identifier: GPL-2.0

//! A VMM that is killed, or closes the device, whatever its threads are doing; and a module that
//! cannot be unloaded meanwhile.

use crate::{child::LIMIT, host::Host, vmm::Vmm, THREADS};
use ktap::{test, Outcome, Test};
use rustix::io::Errno;
use std::{thread, time::Duration};

/// How long a VMM may take to die, which closes the device and thereby resets the function: less
/// than the 5 s after which a request gives up by itself.
const DEATH: Duration = Duration::from_secs(4);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (threads, text) in THREADS {
        tests.extend([
            test(format!("unloading fails, {text}"), move || {
                let mut vmm = Vmm::start(threads);
                let unload = Host::start(&["unload"], 3).done(LIMIT);
                assert_eq!(
                    unload.failed_with(&[Errno::WOULDBLOCK, Errno::BUSY]),
                    3,
                    "{unload:#}"
                );
                vmm.stop().all_ok("requests");
                vmm.exit();
                Ok(())
            }),
            test(format!("close, {text}"), move || {
                let mut vmm = Vmm::start(threads);
                vmm.close();
                let requests = vmm.stop();
                assert!(requests.ok > 0, "{requests:#}");
                assert_eq!(
                    requests.failures(),
                    requests.failed_with(&[Errno::BADF]),
                    "{requests:#}"
                );
                // The process lives; the function is free all the same.
                Host::start(&["unbind"], 1).done(LIMIT).all_ok("unbind");
                vmm.exit();
                Ok(())
            }),
            test(format!("SIGKILL, {text}"), move || {
                let vmm = Vmm::start(threads);
                thread::sleep(Duration::from_millis(200));
                dies(vmm);
                Ok(())
            }),
        ]);
    }
    tests.extend([
        test("SIGKILL without requests", || {
            dies(Vmm::start(0));
            Ok(())
        }),
        test("SIGKILL during VFIO_DEVICE_RESET, 4 threads", || {
            during("reset 1000000")
        }),
        test("SIGKILL during hot resets, 4 threads", || {
            during("hot-reset 1000000")
        }),
        test("SIGKILL during writes of PCI_COMMAND, 4 threads", || {
            during("toggle 1000000")
        }),
        test("SIGKILL during sysfs resets, 4 threads", || {
            let vmm = Vmm::start(4);
            let mut host = Host::start(&["reset"], 10);
            thread::sleep(Duration::from_millis(100));
            // It is closed when the resets are over: during one, Linux may fail to change the IOMMU
            // domain of a function, and warns (tools/upstream/fixes/s390-iommu-reset-race.patch).
            let device = vmm.device();
            killed(vmm);
            // While the host resets the function, nobody can open it (EAGAIN).
            host.done(LIMIT).all_ok("sysfs reset");
            drop(device);
            next();
            Ok(())
        }),
    ]);
    tests
}

fn during(command: &str) -> Outcome {
    let mut vmm = Vmm::start(4);
    vmm.tell(command);
    thread::sleep(Duration::from_millis(500));
    dies(vmm);
    Ok(())
}

/// Kills the VMM, and has another one use the function at once.
#[track_caller]
fn dies(vmm: Vmm) {
    killed(vmm);
    next();
}

#[track_caller]
fn killed(vmm: Vmm) {
    let time = vmm.kill(LIMIT);
    println!("# it died within {time:?}");
    assert!(time <= DEATH, "that is above {DEATH:?}");
}

/// Another VMM uses the function.
#[track_caller]
fn next() {
    let mut next = Vmm::start(1);
    next.issue(20).all_ok("requests of the next VMM");
    next.stop().all_ok("requests of the next VMM");
    next.exit();
}
