// SPDX-License-Identifier: GPL-2.0

//! The device around the region: memory space, reset, event notifiers, pinned pages.

use crate::{
    fixture::{self, Fixture},
    order::without_memory_space,
    test, Closed, Test,
};
use booted::Mapping;
use ktap::Skip;
use rustix::{
    event::{eventfd, EventfdFlags},
    io::Errno,
};
use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};
use vfio_zpci_io::{abi::Request, Access, Device, Irq};

pub(crate) const TESTS: &[Test] = &[
    test("EIO: memory space is disabled in PCI_COMMAND", |f| {
        without_memory_space(f, f.each(), Errno::IO)
    }),
    test("memory space is enabled again", |f| {
        f.all_accepted(f.each())
    }),
    test("EIO or success while PCI_COMMAND is written", |f| {
        let failed = during(f, |f, ended| {
            // Each time, until requests that began afterwards have ended: one at least of two threads.
            let some_more = || {
                let before = ended.load(Ordering::Relaxed);
                while ended.load(Ordering::Relaxed) < before + 3 {
                    thread::yield_now();
                }
            };
            for _ in 0..50 {
                f.device.enable_memory(false).expect("memory space off");
                some_more();
                f.device.enable_memory(true).expect("memory space on");
                some_more();
            }
        });
        assert!(failed.iter().all(|&errno| errno == Errno::IO), "{failed:?}");
        assert!(failed.len() >= 50, "{} have failed", failed.len());
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
            let failed = during(f, |f, _| {
                for _ in 0..50 {
                    f.device.reset().expect("reset");
                }
            });
            assert_eq!(failed, []);
            Ok(())
        },
    ),
    // That they are notified, the lifecycle tests show.
    test("request and error notifiers: set and cleared", |f| {
        for irq in [Irq::Request, Irq::Error] {
            let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
            f.device.set_eventfd(irq, Some(event.as_fd())).expect("set");
            f.device.set_eventfd(irq, None).expect("cleared");
        }
        f.all_accepted(f.each())
    }),
    // Whether they leave any pinned shows at the end: the runner compares the kernel's counts, and
    // reports that by the same name.
    test("pinned pages: requests that end later, in each way", |f| {
        f.all_accepted(f.each())?;
        without_memory_space(f, f.each(), Errno::IO)?;
        let strict = Request {
            len: 8,
            ..f.block()
        };
        f.all_refused([strict], Errno::NXIO)
    }),
];

/// The function is bound, and nobody has it open.
pub(crate) const CLOSED: &[Closed] = &[Closed {
    name: "memory space is enabled after opening and after a reset",
    run: |function| {
        let open = || Device::open(&function.address(), Access::Iommufd).expect("open");
        let value = Mapping::value();
        let works = |device: &Device| {
            assert!(memory_is_enabled(device), "PCI_COMMAND says so");
            let region = device.zpci_io().expect("the region");
            let load = Request::load(fixture::BAR, fixture::TARGET, value.addr(), 8);
            // SAFETY: It loads to a mapping of ours.
            unsafe { region.request(&load) }.expect("a load");
        };
        let device = open();
        works(&device);
        device.reset().expect("reset");
        works(&device);
        device.enable_memory(false).expect("memory off");
        assert!(!memory_is_enabled(&device), "PCI_COMMAND says so");
        device.reset().expect("reset");
        assert!(!memory_is_enabled(&device), "a reset leaves it as it was");
        drop(device);
        works(&open());
        Ok(())
    },
}];

fn memory_is_enabled(device: &Device) -> bool {
    const COMMAND: u64 = 4;
    const MEMORY: u8 = 1 << 1;
    let mut command = [0];
    device
        .read_config(COMMAND, &mut command)
        .expect("PCI_COMMAND");
    command[0] & MEMORY != 0
}

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

/// Runs `meanwhile`, which can see how many have ended, with two threads sending requests all the time,
/// and returns their errors.
fn during(f: &Fixture<'_>, meanwhile: fn(&Fixture<'_>, ended: &AtomicUsize)) -> Vec<Errno> {
    let stop = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    let send = || {
        let mut failed = Vec::new();
        let mut sent = 0;
        // At least one round, however short `meanwhile` is.
        while sent == 0 || !stop.load(Ordering::Relaxed) {
            for request in f.each() {
                failed.extend(f.send(&request).err());
                ended.fetch_add(1, Ordering::Relaxed);
            }
            sent += 1;
        }
        failed
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(send), scope.spawn(send)];
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(f, &ended)));
        stop.store(true, Ordering::Relaxed);
        let failed = threads.map(|thread| thread.join().expect("a thread with requests"));
        done.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        failed.concat()
    })
}
