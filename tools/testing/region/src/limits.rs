// SPDX-License-Identifier: GPL-2.0

//! What belongs to the function: its BARs, its MSI-X structures, its rules for operands.

use crate::{
    fixture::{Fixture, BAR},
    test, Test,
};
use ktap::{Outcome, Skip};
use request::model::Window;
use rustix::io::Errno;
use vfio_zpci_io::abi::Request;

pub(crate) const TESTS: &[Test] = &[
    test("EINVAL: the BAR is absent", |f| {
        let absent: Vec<u8> = (0..6)
            .filter(|&bar| f.bars[usize::from(bar)] == 0)
            .collect();
        if absent.is_empty() {
            return Err(Skip("the function has all six BARs".to_owned()));
        }
        let requests = absent.into_iter().flat_map(|pcias| {
            [0, 8, 0x1000]
                .into_iter()
                .flat_map(move |offset| f.each().map(|r| Request { pcias, offset, ..r }))
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: beyond the BAR", |f| {
        let size = f.bars[usize::from(BAR)];
        let offsets = [
            size,
            size + 8,
            size + 0x1000,
            size * 2,
            1 << 32,
            1 << 40,
            1 << 48,
            1 << 63,
        ];
        let requests = offsets
            .into_iter()
            .flat_map(|offset| f.each().map(|r| Request { offset, ..r }));
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: across the end of the BAR", |f| {
        let size = f.bars[usize::from(BAR)];
        let requests = [8, 4, 1].map(|room| Request {
            offset: size - room,
            ..f.block()
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: offset + len overflows", |f| {
        let requests = [1u64, 2, 4, 8, 16, 4096].into_iter().flat_map(|room| {
            let offset = room.wrapping_neg();
            f.each().map(|r| Request { offset, ..r })
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("the last bytes of the BAR", |f| {
        let size = f.bars[usize::from(BAR)];
        let requests = f.each().map(|r| Request {
            offset: size - u64::from(r.len),
            ..r
        });
        f.all_accepted(requests)
    }),
    test("EINVAL: inside of the MSI-X table", |f| inside(f, 0)),
    test("EINVAL: inside of the MSI-X pending bit array", |f| {
        inside(f, 1)
    }),
    test("EINVAL: a block reaches into the MSI-X structures", |f| {
        let requests = windows(f)?.into_iter().flat_map(|window| {
            // From before it into its first byte, and from its last byte on.
            [
                window.start.checked_sub(8),
                Some(window.start + window.len - 8),
            ]
            .into_iter()
            .flatten()
            .map(move |offset| Request {
                pcias: window.bar,
                offset,
                ..f.block()
            })
            // What another rule refuses proves nothing.
            .filter(|r| r.offset % 4096 + u64::from(r.len) <= 4096)
            .collect::<Vec<_>>()
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test(
        "the doublewords beside the MSI-X structures are the function's",
        |f| {
            let windows = windows(f)?;
            let beside = windows
                .iter()
                .flat_map(|w| [(w.bar, w.start.wrapping_sub(8)), (w.bar, w.start + w.len)])
                .filter(|&(bar, offset)| {
                    let other =
                        |w: &Window| w.bar == bar && (w.start..w.start + w.len).contains(&offset);
                    offset < f.bars[usize::from(bar)] && !windows.iter().any(other)
                });
            let mut some = false;
            for (pcias, offset) in beside {
                let request = Request {
                    pcias,
                    offset,
                    ..f.load()
                };
                // There may be nothing which answers, but the request is good.
                let result = f.send(&request);
                assert!(
                    [Ok(()), Err(Errno::NXIO)].contains(&result),
                    "{request:x?}: {result:?}"
                );
                some = true;
            }
            match some {
                true => Ok(()),
                false => Err(Skip("nothing is beside them".to_owned())),
            }
        },
    ),
    test("ENXIO: a block of 8 bytes or less", |f| {
        strict(f, [1, 2, 4, 7, 8].map(|len| Request { len, ..f.block() }))
    }),
    test("ENXIO: a block which is no multiple of 8", |f| {
        let lens = [9, 11, 12, 17, 20, f.header.max - 1];
        strict(f, lens.map(|len| Request { len, ..f.block() }))
    }),
    test(
        "ENXIO: a block at an offset which is no multiple of 8",
        |f| {
            let requests = [1, 2, 4, 7].map(|by| Request {
                offset: f.block().offset + by,
                ..f.block()
            });
            strict(f, requests)
        },
    ),
    test(
        "ENXIO: a block from a gaddr which is no multiple of 8",
        |f| {
            let requests = [1, 2, 4, 7].map(|by| Request {
                gaddr: f.source.addr() + by,
                ..f.block()
            });
            strict(f, requests)
        },
    ),
];

/// The MSI-X structures.
fn windows(f: &Fixture<'_>) -> Result<[Window; 2], Skip> {
    f.msix
        .ok_or_else(|| Skip("the function has no MSI-X".to_owned()))
}

/// Every request into a structure is refused.
fn inside(f: &Fixture<'_>, which: usize) -> Outcome {
    let window = windows(f)?[which];
    let last = window.start + window.len - 8;
    let offsets = [window.start, window.start + 8, last].map(|offset| offset.min(last));
    f.all_refused(f.each_length(window.bar, &offsets), Errno::INVAL)
}

/// Operands which only relaxed functions take. Emulated functions are strict, and the kernel has
/// no rule of its own here: the instruction decides.
fn strict(f: &Fixture<'_>, requests: impl IntoIterator<Item = Request>) -> Outcome {
    f.all_refused(requests, Errno::NXIO)
}
