// SPDX-License-Identifier: GPL-2.0

//! The numbers in debugfs: which there are, and that they count.

use crate::{
    host,
    stats::{self, Waits},
    vmm::Vmm,
};
use ktap::{test, Outcome, Test};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

/// The files, and who may do what with them: for users, and for tests.
const FOR_USERS: [(&str, u32); 3] = [
    ("longest_wait_ns", 0o400),
    ("ticks", 0o400),
    ("waits", 0o400),
];
const FOR_TESTS: [(&str, u32); 2] = [("dwell_us", 0o600), ("most_inside", 0o600)];

/// How long a reset of the function takes at least, by the rules of PCI.
const RESET: Duration = Duration::from_millis(100);

/// How many resets it takes at most until a tick has ended a wait.
const RESETS: u32 = 20;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("numbers: the documented files, and no others", files),
        test(
            "numbers: a reset by the host is waited for, by ticks",
            || {
                let before = anew();
                assert_eq!((before.waits, before.ticks), (0, 0));
                assert_eq!(before.longest, Duration::ZERO);
                host::does(&["reset-methods", "flr"]);
                let mut vmm = Vmm::start(2);
                // Whoever looks again at the very moment when the lock is released has not waited
                // for a tick: rare, but then there is another reset.
                let mut seen = before;
                for _ in 0..RESETS {
                    host::does(&["reset"]);
                    seen = Waits::until_now();
                    if seen.ticks > 0 && seen.longest >= RESET / 2 {
                        break;
                    }
                }
                vmm.stop().all_ok("requests");
                println!("# {seen}");
                assert!(seen.waits > 0, "somebody has waited");
                assert!(seen.ticks > 0, "nobody was there to wake them all");
                assert!(seen.longest >= RESET / 2, "for a good part of a reset");
                vmm.exit();
                Ok(())
            },
        ),
        test("numbers: a single user never waits", || {
            anew();
            let mut vmm = Vmm::start(0);
            vmm.issue(100).all_ok("requests");
            let seen = Waits::until_now();
            assert_eq!((seen.waits, seen.ticks), (0, 0), "{seen}");
            vmm.exit();
            Ok(())
        }),
    ]
}

/// The numbers of a device that is new.
#[track_caller]
fn anew() -> Waits {
    host::does(&["unbind"]);
    host::does(&["prepare"]);
    Waits::until_now()
}

fn files() -> Outcome {
    // What the kernel has, not the module: with unit tests comes a module for tests.
    let for_tests = Path::new("/sys/module/kunit").exists();
    let mut wanted = FOR_USERS.to_vec();
    wanted.extend(FOR_TESTS.iter().filter(|_| for_tests));
    wanted.sort_unstable();

    let entries = fs::read_dir(stats::directory()).expect("debugfs");
    let mut found: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("debugfs");
            let mode = entry.metadata().expect("debugfs").permissions().mode();
            (
                entry.file_name().into_string().expect("a name"),
                mode & 0o777,
            )
        })
        .collect();
    found.sort_unstable();
    let found: Vec<_> = found
        .iter()
        .map(|(name, mode)| (name.as_str(), *mode))
        .collect();
    assert_eq!(found, wanted);
    for (name, _) in wanted {
        stats::get(name);
    }
    Ok(())
}
