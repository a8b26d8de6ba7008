// SPDX-License-Identifier: GPL-2.0

//! The same, many times, and what is left at the end.

use crate::{
    child::LIMIT,
    host::{self, Host},
    removal, stats,
    suite::{test, Test},
    tally::Tally,
    vmm::Vmm,
};
use ktap::{Outcome, Skip};
use std::{fs, time::Duration};
use vfio_zpci_io::sysfs::DRIVER;

pub(crate) fn tests(long: bool) -> Vec<Test> {
    let (powers, binds, loads) = if long { (1000, 100, 100) } else { (10, 3, 3) };
    vec![
        test(format!("{powers} power cycles with requests in flight"), {
            move || {
                let mut longest = Duration::ZERO;
                let mut requests = Tally::default();
                for _ in 0..powers {
                    let (sent, time) = removal::orderly("power-off", 2);
                    requests += &sent;
                    longest = longest.max(time);
                    host::does(&["prepare"]);
                }
                println!("# requests: {requests:#}");
                println!("# at most {longest:?} from the last close");
                works()
            }
        }),
        test(format!("{binds} times from driver to driver"), move || {
            for _ in 0..binds {
                for driver in ["vfio-pci", "ism_vfio_pci", DRIVER] {
                    // Drivers for other functions may refuse.
                    let bound = Host::start(&["bind", driver], 1).done(LIMIT);
                    assert!(driver != DRIVER || bound.ok == 1, "{driver}: {bound:#}");
                }
                works()?;
            }
            Ok(())
        }),
        test(format!("{loads} times unloaded and loaded"), move || {
            for _ in 0..loads {
                host::does(&["unbind"]);
                host::does(&["unload"]);
                assert!(!stats::directory().exists(), "debugfs has nothing left");
                host::does(&["load"]);
                host::does(&["prepare"]);
                works()?;
            }
            Ok(())
        }),
        test("nothing is left: no page pinned, no module in use", || {
            host::does(&["unbind"]);
            assert!(!stats::directory().exists(), "debugfs has nothing left");
            let path = format!("/sys/module/{DRIVER}/refcnt");
            let users = fs::read_to_string(&path).expect("the number of users");
            assert_eq!(users.trim(), "0", "users of the module");
            no_page_is_pinned()
        }),
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

fn no_page_is_pinned() -> Outcome {
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
    assert_eq!(acquired, released, "pages pinned and released");
    Ok(())
}
