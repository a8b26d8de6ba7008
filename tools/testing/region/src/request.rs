// SPDX-License-Identifier: GPL-2.0

//! The fields of a request: what is refused without a look at the function or at memory.

use crate::{fixture::CONFIG_SPACE, test, Test};
use booted::PAGE;
use rustix::io::Errno;
use vfio_zpci_io::abi::{Request, BLOCKW, READ, WRITE};

pub(crate) const TESTS: &[Test] = &[
    test("good requests are executed", |f| f.all_accepted(f.each())),
    test("EINVAL: no flag", |f| {
        f.all_refused(f.each().map(|r| Request { flags: 0, ..r }), Errno::INVAL)
    }),
    test("EINVAL: several flags", |f| {
        let several = [
            READ | BLOCKW,
            READ | WRITE,
            BLOCKW | WRITE,
            READ | BLOCKW | WRITE,
        ];
        let requests = several.map(|flags| Request { flags, ..f.load() });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: unknown flags, alone or with a known one", |f| {
        let unknown = (3..64).map(|bit| 1 << bit);
        let requests = unknown.flat_map(|bit| {
            let alone = Request {
                flags: bit,
                ..f.block()
            };
            let with = f.each().map(|r| Request {
                flags: r.flags | bit,
                ..r
            });
            with.into_iter().chain([alone])
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: reserved != 0", |f| {
        let bits = (0..32).map(|bit| 1 << bit);
        let requests = bits.flat_map(|reserved| f.each().map(|r| Request { reserved, ..r }));
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: reserved2 != 0", |f| {
        let bits = (0..8).map(|bit| 1 << bit);
        let requests = bits.flat_map(|reserved2| f.each().map(|r| Request { reserved2, ..r }));
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: len 0 (BLOCKW)", |f| {
        // Also where the address is not that of a page: 0 bytes before it would wrap.
        let requests = [0, 8, 4088].map(|at| Request {
            len: 0,
            gaddr: f.source.addr() + at,
            ..f.block()
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: len > max (BLOCKW)", |f| {
        // From the start of a page and of a 4 KiB unit, where 4096 would fit.
        let max = f.header.max;
        let lens = [
            max + 1,
            max + 8,
            max.saturating_mul(2),
            4097,
            32768,
            u16::MAX,
        ];
        let requests = lens.map(|len| Request {
            len,
            offset: 0x2000,
            ..f.block()
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: len not 1, 2, 4, 8 (READ, WRITE)", |f| {
        let lens = (0..=u16::MAX).filter(|len| ![1, 2, 4, 8].contains(len));
        // All small ones, then one of each size class: 65532 requests take their time.
        let lens = lens.filter(|&len| len < 32 || len.is_power_of_two() || len == u16::MAX);
        let requests = lens.flat_map(|len| [f.load(), f.store()].map(|r| Request { len, ..r }));
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: a block leaves the page of gaddr", |f| {
        // The source is one page and what follows may be mapped or not: no matter.
        let requests =
            [(8, 16), (1, 16), (15, 16), (1, 2), (16, 24), (64, 128)].map(|(room, len)| Request {
                gaddr: f.source.end() - room,
                len,
                ..f.block()
            });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: a block leaves the address space", |f| {
        let requests = [1, 8, 15].map(|room: u64| Request {
            gaddr: room.wrapping_neg(),
            ..f.block()
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("a block may end with the page of gaddr", |f| {
        f.fill(0x2080, 16, 0);
        let request = Request {
            gaddr: f.source.end() - 16,
            ..f.block()
        };
        assert_eq!(f.send(&request), Ok(()));
        let stored = f.read(request.offset, 16);
        assert_eq!(stored, f.as_stored(&f.source.read(PAGE - 16, 16)));
        Ok(())
    }),
    test("EINVAL: gaddr not 8-byte aligned (READ, WRITE)", |f| {
        // Also where nothing is mapped: the address is refused before it is looked at.
        let requests = (1..8).flat_map(|by| {
            [f.load(), f.store()].into_iter().flat_map(move |r| {
                [r.gaddr, 0].map(|gaddr| Request {
                    gaddr: gaddr + by,
                    ..r
                })
            })
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: a block leaves the 4 KiB unit of its offset", |f| {
        let requests = [
            (0xff8, 16),
            (0xff0, 24),
            (0x1ff8, 16),
            (0x2fff, 2),
            (0x2fc0, 128),
        ]
        .map(|(offset, len)| Request {
            offset,
            len,
            ..f.block()
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("a block may end with the 4 KiB unit of its offset", |f| {
        let requests = [0xff0, 0x1ff0, 0x2ff0].map(|offset| Request {
            offset,
            ..f.block()
        });
        f.all_accepted(requests)
    }),
    test("EINVAL: a load or store leaves its doubleword", |f| {
        let requests = [1u16, 2, 4, 8].into_iter().flat_map(|len| {
            let first = 9 - u64::from(len);
            (first..8).flat_map(move |at| {
                [f.load(), f.store()].map(|r| Request {
                    offset: r.offset + at,
                    len,
                    ..r
                })
            })
        });
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: pcias is no BAR", |f| {
        let spaces = (6..=u8::MAX).filter(|space| *space != CONFIG_SPACE);
        let requests = spaces.flat_map(|pcias| f.each().map(|r| Request { pcias, ..r }));
        f.all_refused(requests, Errno::INVAL)
    }),
    test("EINVAL: pcias 15, configuration space", |f| {
        let offsets = [0, 4, 0x10, 0x34, 0x100, 0xf80];
        f.all_refused(f.each_length(CONFIG_SPACE, &offsets), Errno::INVAL)
    }),
];
