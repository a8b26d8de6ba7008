// SPDX-License-Identifier: GPL-2.0

//! Several threads at once, and one that changes a request while it is being sent.

use crate::{
    fixture::{Fixture, BAR, CONFIG_SPACE, TARGET},
    positions::pwrite_from,
    test, Test,
};
use booted::{Mapping, PAGE};
use rustix::io::Errno;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use vfio_zpci_io::abi::{Request, REQUEST_POSITION, REQUEST_SIZE};

const THREADS: u64 = 4;
const ROUNDS: u64 = 100;

pub(crate) const TESTS: &[Test] = &[
    test("four threads: everyone finds its own bytes", |f| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || private_area(f, thread));
            }
        });
        Ok(())
    }),
    test(
        "four threads: one position of the file, many requests",
        |f| {
            // All store the same block: whatever the order, it must be there and whole.
            f.fill(TARGET, 16, 0);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..ROUNDS {
                            assert_eq!(f.send(&f.block()), Ok(()));
                        }
                    });
                }
            });
            assert_eq!(f.read(TARGET, 16), f.as_stored(&f.source.read(0, 16)));
            Ok(())
        },
    ),
    test(
        "a request rewritten meanwhile is the one or the other, never a mix",
        |f| {
            let good = f.block();
            let at_end = Request {
                gaddr: f.source.end() - 16,
                ..good
            };
            let max = f.header.max;
            for (good, bad) in [
                (
                    good,
                    Request {
                        len: max + 8,
                        ..good
                    },
                ),
                (at_end, Request { len: max, ..at_end }),
                (
                    good,
                    Request {
                        offset: good.offset | 1 << 56,
                        ..good
                    },
                ),
                (
                    good,
                    Request {
                        pcias: CONFIG_SPACE,
                        ..good
                    },
                ),
                (good, Request { flags: 0, ..good }),
            ] {
                f.fill(TARGET, 16 + usize::from(max.next_multiple_of(16)), 0xee);
                rewritten(f, &good, &bad);
                let behind = f.read(TARGET + 16, max.into());
                assert!(
                    behind.iter().all(|&byte| byte == 0xee),
                    "{bad:x?}: more was stored than what was checked"
                );
            }
            Ok(())
        },
    ),
];

/// Sends a request which another thread turns into a bad one and back all the time. Whichever it
/// is when it is copied: nothing else may come of it.
fn rewritten(f: &Fixture<'_>, good: &Request, bad: &Request) {
    // Until both have been seen, and long enough that the two threads also run side by side on a
    // busy machine; but not for ever, if one of them is never seen.
    const TIME: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(20);
    const BOTH: usize = 10;
    let (good, bad) = (good.to_bytes(), bad.to_bytes());
    let different: Vec<_> = (0..REQUEST_SIZE)
        .filter(|&at| good[at] != bad[at])
        .collect();
    let memory = Mapping::pages(1);
    memory.write(0, &good);
    let stop = AtomicBool::new(false);
    let (mut executed, mut refused) = (0, 0);
    let unexpected = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for bytes in [&bad, &good] {
                    different
                        .iter()
                        .for_each(|&at| memory.write(at, &bytes[at..=at]));
                }
            }
        });
        let start = Instant::now();
        let unexpected = loop {
            match pwrite_from(f, memory.addr(), REQUEST_SIZE, REQUEST_POSITION) {
                Ok(REQUEST_SIZE) => executed += 1,
                Err(Errno::INVAL) => refused += 1,
                result => break Some(result),
            }
            let both = executed >= BOTH && refused >= BOTH;
            if start.elapsed() > if both { TIME } else { LIMIT } {
                break None;
            }
        };
        stop.store(true, Ordering::Relaxed);
        unexpected
    });
    assert_eq!(
        unexpected, None,
        "after {executed} executed, {refused} refused"
    );
    assert!(
        executed >= BOTH && refused >= BOTH,
        "{executed} executed, {refused} refused"
    );
}

/// Stores blocks of all sizes to a 4 KiB unit of its own and loads them back.
fn private_area(f: &Fixture<'_>, thread: u64) {
    let unit = 0x1_0000 + thread * PAGE as u64;
    assert!(unit + PAGE as u64 <= f.bars[usize::from(BAR)]);
    let source = Mapping::pages(1);
    let sizes = u64::from(f.header.max) / 8 - 1;
    for round in 0..ROUNDS {
        let len = 16 + round % sizes * 8;
        let bytes: Vec<u8> = (0..len)
            .map(|at| (at + round * 7 + thread * 64) as u8)
            .collect();
        source.write(0, &bytes);
        let offset = unit + round * 8 % (PAGE as u64 - len);
        let block = Request {
            gaddr: source.addr(),
            offset,
            len: len as u16,
            ..f.block()
        };
        assert_eq!(f.send(&block), Ok(()), "{block:x?}");
        let stored = f.read(offset, len as usize);
        assert_eq!(stored, f.as_stored(&bytes), "{block:x?}");
    }
}
