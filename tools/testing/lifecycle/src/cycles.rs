// SPDX-License-Identifier: GPL-2.0

//! The same, many times, and what is left at the end.

use crate::{
    child::LIMIT,
    host::{self, Host},
    removal, stats,
    tally::Tally,
    vmm::Vmm,
};
use ktap::{test, Outcome, Test};
use std::{fs, time::Duration};
use vfio_zpci_io::sysfs::DRIVER;

/// What a cycle must not leave behind, in bytes: less than any object of the driver or the core.
const LEAK: u64 = 512;

pub(crate) fn tests(long: bool) -> Vec<Test> {
    let (powers, binds, loads) = if long { (1000, 400, 200) } else { (5, 3, 3) };
    vec![
        test("cycles: off and on, with requests in flight", move || {
            let mut longest = Duration::ZERO;
            let mut requests = Tally::default();
            let mut slab = Slab::default();
            for cycle in 0..powers {
                let (sent, time) = removal::orderly("power-off", 2);
                requests += &sent;
                longest = longest.max(time);
                host::does(&["prepare"]);
                slab.look(cycle, powers);
            }
            println!("# requests: {requests:#}");
            println!("# {powers} times, at most {longest:?} from the last close");
            slab.has_not_grown();
            works()
        }),
        test("cycles: from driver to driver", move || {
            let mut slab = Slab::default();
            for cycle in 0..binds {
                for driver in ["vfio-pci", "ism_vfio_pci", DRIVER] {
                    // Drivers for other functions may refuse.
                    let bound = Host::start(&["bind", driver], 1).done(LIMIT);
                    assert!(driver != DRIVER || bound.ok == 1, "{driver}: {bound:#}");
                }
                works()?;
                slab.look(cycle, binds);
            }
            println!("# {binds} times");
            slab.has_not_grown();
            Ok(())
        }),
        test("cycles: unloaded and loaded", move || {
            let mut slab = Slab::default();
            for cycle in 0..loads {
                host::does(&["unbind"]);
                host::does(&["unload"]);
                assert!(!stats::directory().exists(), "debugfs has nothing left");
                host::does(&["load"]);
                host::does(&["prepare"]);
                works()?;
                slab.look(cycle, loads);
            }
            println!("# {loads} times");
            slab.has_not_grown();
            Ok(())
        }),
        test(
            "nothing is left: no directory, no user of the module",
            || {
                host::does(&["unbind"]);
                assert!(!stats::directory().exists(), "debugfs has nothing left");
                let path = format!("/sys/module/{DRIVER}/refcnt");
                let users = fs::read_to_string(&path).expect("the number of users");
                assert_eq!(users.trim(), "0", "users of the module");
                Ok(())
            },
        ),
    ]
}

/// The function can be used.
fn works() -> Outcome {
    let mut vmm = Vmm::start(1);
    vmm.issue(20).all_ok("requests");
    vmm.stop().all_ok("requests");
    vmm.exit();
    Ok(())
}

/// How much memory the kernel's objects take: what is still reachable is no leak for kmemleak. Says
/// something after many cycles, and on the release kernel only: see the rung "cycles".
#[derive(Default)]
struct Slab {
    first: u64,
    last: u64,
    cycles: u32,
}

impl Slab {
    /// Too few cycles say nothing. The first hundreds fill caches and pages of the slab, whatever the
    /// driver, so only the second half counts.
    const ENOUGH: u32 = 100;

    fn look(&mut self, cycle: u32, cycles: u32) {
        if cycles < Self::ENOUGH {
            return;
        }
        if cycle == cycles / 2 {
            self.first = Self::size();
            self.cycles = cycles - 1 - cycle;
        }
        if cycle == cycles - 1 {
            self.last = Self::size();
        }
    }

    fn has_not_grown(&self) {
        if self.cycles == 0 {
            return;
        }
        let Self {
            first,
            last,
            cycles,
        } = self;
        println!("# slab: {first} KiB, {cycles} cycles later {last} KiB");
        if stats::is_debug() {
            println!("# not compared: KASAN and kmemleak keep objects of their own");
            return;
        }
        let limit = first + u64::from(*cycles) * LEAK / 1024;
        assert!(*last <= limit, "the kernel keeps something of each cycle");
    }

    /// Kernel objects that cannot be reclaimed, in KiB. Without the areas of stacks, of which the kernel
    /// keeps those of threads that have ended until there are some thousands, whatever they did.
    fn size() -> u64 {
        // Of those that can be reclaimed, as few as possible on the same pages.
        let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("SUnreclaim:"));
        let size: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        size.expect("SUnreclaim") - areas().expect("vmap_area")
    }
}

/// How much memory the areas of the kernel's address space take, in KiB.
fn areas() -> Option<u64> {
    const PAGE: u64 = 4;
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("vmap_area "))?;
    // The number of objects that are used, of all, their size, how many share a slab, and its pages;
    // after two colons the number of slabs that are used, and of all.
    let (objects, slabs) = line.split_once(" : slabdata ")?;
    let pages: u64 = objects.split_whitespace().nth(5)?.parse().ok()?;
    let slabs: u64 = slabs.split_whitespace().nth(1)?.parse().ok()?;
    Some(slabs * pages * PAGE)
}
