// SPDX-License-Identifier: GPL-2.0

//! The device around the region: memory space, reset, event notifiers, and what is left at the
//! end.

use crate::{
    fixture::{self, Fixture},
    order::without_memory_space,
    test, Test,
};
use ktap::Skip;
use rustix::{
    event::{eventfd, EventfdFlags},
    io::Errno,
};
use std::{
    fs,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use vfio_zpci_io::{abi::Request, Irq};

pub(crate) const TESTS: &[Test] = &[
    test("EIO: memory space is disabled in PCI_COMMAND", |f| {
        without_memory_space(f, f.each(), Errno::IO)
    }),
    test("memory space is enabled again", |f| {
        f.all_accepted(f.each())
    }),
    test("EIO or success while PCI_COMMAND is written", |f| {
        let failed = during(f, |f| {
            for _ in 0..50 {
                f.device.enable_memory(false).expect("memory space off");
                thread::yield_now();
                f.device.enable_memory(true).expect("memory space on");
            }
        });
        assert!(failed.iter().all(|&errno| errno == Errno::IO), "{failed:?}");
        f.all_accepted(f.each())
    }),
    test("EIO: the function is in a low-power state (D3hot)", |f| {
        // Power management control and status register: the state is in the lowest bits.
        let register = power_management(f)? + 4;
        let set = |state: u8| f.device.write_config(register, &[state]).expect("PMCSR");
        let witness = f.witness();
        set(3);
        let results = f.each().map(|request| f.send(&request));
        set(0);
        assert_eq!(results, [Err(Errno::IO); 3]);
        // The function may have been reset by that.
        f.device.enable_memory(true).expect("memory space on");
        witness.nothing_changed();
        f.all_accepted(f.each())
    }),
    test("VFIO_DEVICE_RESET, then requests", |f| {
        resettable(f)?;
        for _ in 0..3 {
            f.device.reset().expect("reset");
            f.all_accepted(f.each())?;
        }
        Ok(())
    }),
    test(
        "VFIO_DEVICE_RESET never fails because of requests, nor they because of it",
        |f| {
            resettable(f)?;
            let failed = during(f, |f| {
                for _ in 0..50 {
                    f.device.reset().expect("reset");
                }
            });
            assert_eq!(failed, []);
            Ok(())
        },
    ),
    test("request and error notifiers", |f| {
        for irq in [Irq::Request, Irq::Error] {
            let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
            f.device.set_eventfd(irq, Some(event.as_fd())).expect("set");
            f.device.set_eventfd(irq, None).expect("cleared");
        }
        f.all_accepted(f.each())
    }),
];

/// What all the tests left behind.
pub(crate) const LEFTOVERS: &[Test] = &[test("no page is left pinned", |f| {
    // Whatever ran before: requests that end after their page was pinned, in each way.
    f.all_accepted(f.each())?;
    without_memory_space(f, f.each(), Errno::IO)?;
    let strict = Request {
        len: 8,
        ..f.block()
    };
    f.all_refused([strict], Errno::NXIO)?;

    // Have all CPUs add what they counted.
    fs::read("/proc/sys/vm/stat_refresh")
        .map_err(|error| Skip(format!("stat_refresh: {error}")))?;
    let counts = fs::read_to_string("/proc/vmstat").expect("/proc/vmstat");
    let count = |name: &str| {
        let line = counts.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let acquired = count("nr_foll_pin_acquired ");
    let released = count("nr_foll_pin_released ");
    if acquired.is_none() {
        return Err(Skip("the kernel does not count pinned pages".to_owned()));
    }
    assert_ne!(acquired, Some(0), "pages are pinned");
    assert_eq!(acquired, released);
    Ok(())
})];

/// Where the power management capability is in configuration space.
fn power_management(f: &Fixture<'_>) -> Result<u64, Skip> {
    const POWER_MANAGEMENT: u8 = 1;
    let capability = fixture::capability(f.device, POWER_MANAGEMENT).expect("capabilities");
    capability.ok_or_else(|| Skip("the function has no power management".to_owned()))
}

fn resettable(f: &Fixture<'_>) -> Result<(), Skip> {
    let info = f.device.info().expect("the device's info");
    match info.can_reset() {
        true => Ok(()),
        false => Err(Skip("the function cannot be reset".to_owned())),
    }
}

/// Runs `meanwhile` with two threads sending requests all the time, and returns their errors.
fn during(f: &Fixture<'_>, meanwhile: fn(&Fixture<'_>)) -> Vec<Errno> {
    let stop = AtomicBool::new(false);
    let send = || {
        let mut failed = Vec::new();
        let mut sent = 0;
        // At least one round, however short `meanwhile` is.
        while sent == 0 || !stop.load(Ordering::Relaxed) {
            failed.extend(f.each().iter().filter_map(|r| f.send(r).err()));
            sent += 1;
        }
        failed
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(send), scope.spawn(send)];
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(f)));
        stop.store(true, Ordering::Relaxed);
        let failed = threads.map(|thread| thread.join().expect("a thread with requests"));
        done.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        failed.concat()
    })
}
