// SPDX-License-Identifier: GPL-2.0

//! Requests with two mistakes: the order of the checks decides which one is reported.

use crate::{
    fixture::{Fixture, BAR},
    positions::pwrite_from,
    test, Test,
};
use booted::Mapping;
use ktap::Outcome;
use rustix::{
    io::Errno,
    mm::MprotectFlags, //
};
use vfio_zpci_io::abi::{Request, BLOCKW, REQUEST_POSITION};

pub(crate) const TESTS: &[Test] = &[
    test(
        "order: position and count before the copy of the request",
        |f| {
            let hole = hole();
            let witness = f.witness();
            for (len, position) in [(32, 17), (31, REQUEST_POSITION), (64, REQUEST_POSITION)] {
                let result = pwrite_from(f, hole.addr(), len, position);
                assert_eq!(result, Err(Errno::INVAL), "{len} bytes at {position}");
            }
            witness.nothing_changed();
            Ok(())
        },
    ),
    test("order: every EINVAL before EFAULT", |f| {
        let hole = hole();
        let requests = mistakes(f).map(|r| Request {
            gaddr: hole.addr() + r.gaddr % 4096,
            ..r
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("order: every EINVAL before EIO", |f| {
        without_memory_space(f, mistakes(f), Errno::INVAL)
    }),
    test("order: EFAULT before EIO", |f| {
        let hole = hole();
        let requests = f.each().map(|r| Request {
            gaddr: hole.addr(),
            ..r
        });
        without_memory_space(f, requests, Errno::FAULT)
    }),
    test("order: EFAULT before ENXIO", |f| {
        let hole = hole();
        let request = Request {
            gaddr: hole.addr(),
            len: 8,
            ..f.block()
        };
        f.all_refused([request], Errno::FAULT)
    }),
    test("order: EIO before ENXIO", |f| {
        let request = Request {
            len: 8,
            ..f.block()
        };
        without_memory_space(f, [request], Errno::IO)
    }),
];

/// A page which cannot be accessed.
fn hole() -> Mapping {
    let page = Mapping::pages(1);
    page.protect(MprotectFlags::empty());
    page
}

/// One request for each rule, and for each kind of request it applies to.
fn mistakes<'a>(f: &'a Fixture<'_>) -> impl Iterator<Item = Request> + 'a {
    let absent = (0..6).find(|&bar| f.bars[usize::from(bar)] == 0);
    let size = f.bars[usize::from(BAR)];
    f.each().into_iter().flat_map(move |r| {
        let mut requests = vec![
            Request { flags: 0, ..r },
            Request { flags: 8, ..r },
            Request { reserved: 1, ..r },
            Request { reserved2: 1, ..r },
            Request { len: 0, ..r },
            Request { len: u16::MAX, ..r },
            Request { pcias: 6, ..r },
            Request { pcias: 15, ..r },
            Request { offset: size, ..r },
            Request {
                offset: u64::MAX,
                ..r
            },
        ];
        requests.extend(absent.map(|pcias| Request { pcias, ..r }));
        requests.extend(f.msix.into_iter().flatten().map(|window| Request {
            pcias: window.bar,
            offset: window.start,
            ..r
        }));
        requests.push(match r.flags {
            BLOCKW => Request { offset: 0xff8, ..r },
            _ => Request { offset: 4, ..r },
        });
        requests.push(match r.flags {
            BLOCKW => Request {
                gaddr: r.gaddr + 4088,
                ..r
            },
            _ => Request {
                gaddr: r.gaddr + 1,
                ..r
            },
        });
        requests
    })
}

/// The requests are refused with `errno` while the function's memory space is disabled.
pub(crate) fn without_memory_space(
    f: &Fixture<'_>,
    requests: impl IntoIterator<Item = Request>,
    errno: Errno,
) -> Outcome {
    let witness = f.witness();
    f.device.enable_memory(false).expect("memory space off");
    let results: Vec<_> = requests.into_iter().map(|r| (r, f.send(&r))).collect();
    f.device.enable_memory(true).expect("memory space on");
    assert!(!results.is_empty(), "there are requests");
    for (request, result) in results {
        assert_eq!(result, Err(errno), "{request:x?}");
    }
    witness.nothing_changed();
    Ok(())
}
