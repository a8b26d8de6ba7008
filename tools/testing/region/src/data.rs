// SPDX-License-Identifier: GPL-2.0

//! What arrives: every byte of a block, every byte of a value, and nothing else.

use crate::{
    fixture::{Fixture, BAR, TARGET},
    test, Test,
};
use booted::{Mapping, PAGE};
use rustix::io::{pread, Errno};
use vfio_zpci_io::abi::Request;

const VALUE: u64 = 0xf1e2_d3c4_b5a6_9788;

pub(crate) const TESTS: &[Test] = &[
    test("PCISTB: every legal size, and nothing beside it", |f| {
        let max = usize::from(f.header.max);
        for len in (16..=max).step_by(8) {
            f.fill(TARGET - 16, max + 48, 0xee);
            let block = Request {
                len: len as u16,
                ..f.block()
            };
            assert_eq!(f.send(&block), Ok(()), "{len} bytes");
            let stored = f.read(TARGET - 16, len + 32);
            assert_eq!(stored[..16], [0xee; 16], "{len} bytes");
            assert_eq!(stored[16..16 + len], f.as_stored(&f.source.read(0, len)));
            assert_eq!(stored[16 + len..], [0xee; 16], "{len} bytes");
        }
        Ok(())
    }),
    test("PCISTB: gaddr all over a page", |f| {
        // Both ends, and a step that meets all alignments between.
        for at in (0..64)
            .step_by(8)
            .chain((0..PAGE - 16).step_by(0x98))
            .chain([PAGE - 16])
        {
            let block = Request {
                gaddr: f.source.addr() + at as u64,
                ..f.block()
            };
            assert_eq!(f.send(&block), Ok(()), "from {at:#x}");
            let wanted = f.as_stored(&f.source.read(at, 16));
            assert_eq!(f.read(TARGET, 16), wanted, "from {at:#x}");
        }
        Ok(())
    }),
    test("PCISTB: offsets all over the BAR", |f| {
        let size = f.bars[usize::from(BAR)];
        let shift = |at: u64| at.trailing_zeros().min(40) as u64;
        let offsets: Vec<_> = (4..40)
            .map(|bit| 1 << bit)
            .filter(|at| at + 16 <= size)
            .collect();
        // All first: a block at a wrong offset would overwrite another.
        for &offset in &offsets {
            let block = Request {
                gaddr: f.source.addr() + 8 * shift(offset),
                offset,
                ..f.block()
            };
            assert_eq!(f.send(&block), Ok(()), "at {offset:#x}");
        }
        for &offset in &offsets {
            let wanted = f.source.read(8 * shift(offset) as usize, 16);
            assert_eq!(f.read(offset, 16), f.as_stored(&wanted), "at {offset:#x}");
        }
        Ok(())
    }),
    test(
        "the BAR's own region has the same bytes at the same offset",
        |f| {
            // Loads and stores of this driver could be wrong in the same way; the VFIO core's
            // accesses to the BAR are not ours.
            let bar = f.device.region(BAR.into()).expect("the BAR");
            for offset in [TARGET, 0x1_0040] {
                f.fill(offset - 16, 64, 0xee);
                let block = Request {
                    offset,
                    len: 24,
                    ..f.block()
                };
                assert_eq!(f.send(&block), Ok(()));
                let mut bytes = [0; 40];
                let result = pread(f.device, &mut bytes, bar.offset + offset - 8);
                assert_eq!(result, Ok(bytes.len()));
                assert_eq!(bytes[..8], [0xee; 8]);
                assert_eq!(bytes[8..32], f.as_stored(&f.source.read(0, 24)));
                assert_eq!(bytes[32..], [0xee; 8]);
            }
            Ok(())
        },
    ),
    test("PCILG: 8 bytes are written, the value right-aligned", |f| {
        store_value(f, TARGET, VALUE);
        let bytes = VALUE.to_be_bytes();
        for len in [1, 2, 4, 8] {
            for at in (0..8).step_by(len) {
                f.loaded.write(0, &[0xaa; PAGE]);
                let load = Request {
                    offset: TARGET + at as u64,
                    len: len as u16,
                    ..f.load()
                };
                assert_eq!(f.send(&load), Ok(()), "{len} bytes at {at}");
                let mut wanted = [0xaa; PAGE];
                wanted[64..72 - len].fill(0);
                wanted[72 - len..72].copy_from_slice(&bytes[at..at + len]);
                assert_eq!(f.loaded.read(0, PAGE), wanted, "{len} bytes at {at}");
            }
        }
        Ok(())
    }),
    test("PCILG: a value of len bytes is below 2^(8*len)", |f| {
        f.fill(TARGET, 16, 0xff);
        for (len, wanted) in [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff), (8, u64::MAX)] {
            f.loaded.write(0, &[0xff; PAGE]);
            assert_eq!(f.send(&Request { len, ..f.load() }), Ok(()));
            assert_eq!(f.loaded.read(64, 8), wanted.to_be_bytes(), "{len} bytes");
        }
        // The version register of the NVMe controller: QEMU reads at least two bytes of it.
        for len in [1, 2, 4] {
            f.loaded.write(0, &[0xff; PAGE]);
            let load = Request {
                pcias: 0,
                offset: 8,
                len,
                ..f.load()
            };
            assert_eq!(f.send(&load), Ok(()));
            let zeros = 8 - usize::from(len);
            assert_eq!(f.loaded.read(64, zeros), vec![0; zeros], "{len} bytes");
        }
        Ok(())
    }),
    test("PCILG: gaddr all over a page", |f| {
        store_value(f, TARGET, VALUE);
        f.loaded.write(0, &[0xaa; PAGE]);
        for at in (0..64)
            .step_by(8)
            .chain((0..PAGE).step_by(0x98))
            .chain([PAGE - 8])
        {
            let load = Request {
                gaddr: f.loaded.addr() + at as u64,
                ..f.load()
            };
            assert_eq!(f.send(&load), Ok(()), "to {at:#x}");
            assert_eq!(f.loaded.read(at, 8), VALUE.to_be_bytes(), "to {at:#x}");
            f.loaded.write(at, &[0xaa; 8]);
            assert_eq!(f.loaded.read(0, PAGE), [0xaa; PAGE], "beside {at:#x}");
        }
        Ok(())
    }),
    test(
        "PCILG, PCISTG: unaligned within the doubleword is the function's to judge",
        |f| {
            for (at, len) in [(1, 2), (3, 2), (1, 4), (2, 4), (3, 4)] {
                for request in [f.load(), f.store()] {
                    let request = Request {
                        offset: TARGET + at,
                        len,
                        ..request
                    };
                    let result = f.send(&request);
                    assert!(
                        [Ok(()), Err(Errno::NXIO)].contains(&result),
                        "{request:x?}: {result:?}"
                    );
                }
            }
            Ok(())
        },
    ),
    test(
        "PCISTG: the rightmost len bytes are stored, and nothing beside them",
        |f| {
            let bytes = VALUE.to_be_bytes();
            let value = Mapping::value();
            value.write(0, &bytes);
            for len in [1, 2, 4, 8] {
                for at in (0..8).step_by(len) {
                    f.fill(TARGET, 16, 0xee);
                    let store = Request {
                        gaddr: value.addr(),
                        offset: TARGET + at as u64,
                        len: len as u16,
                        ..f.store()
                    };
                    assert_eq!(f.send(&store), Ok(()), "{len} bytes at {at}");
                    let mut wanted = [0xee; 16];
                    wanted[at..at + len].copy_from_slice(&bytes[8 - len..]);
                    assert_eq!(f.read(TARGET, 16), wanted, "{len} bytes at {at}");
                }
            }
            assert_eq!(value.read(0, 8), bytes, "a store leaves its value");
            Ok(())
        },
    ),
    test("the client library stores and loads the same bytes", |f| {
        let region = f.device.zpci_io().expect("the region");
        let max = usize::from(f.header.max);
        // Across a page, at all alignments: the library copies such blocks to a page of its own.
        let memory: Vec<u8> = (0..3 * PAGE).map(|at| (at % 251) as u8).collect();
        let page = PAGE - memory.as_ptr().addr() % PAGE;
        for start in (page - max..=page).step_by(max / 16 + 1) {
            let block = &memory[start..start + max];
            assert_eq!(region.store_block(BAR, TARGET, block), Ok(()));
            assert_eq!(f.read(TARGET, max), f.as_stored(block), "from {start}");
        }
        assert_eq!(region.store(BAR, TARGET, 8, VALUE), Ok(()));
        assert_eq!(region.load(BAR, TARGET, 8), Ok(VALUE));
        assert_eq!(region.load(BAR, TARGET + 4, 2), Ok(VALUE >> 16 & 0xffff));
        Ok(())
    }),
];

/// Stores a doubleword with PCISTG, which no emulator reverses.
fn store_value(f: &Fixture<'_>, offset: u64, value: u64) {
    let memory = Mapping::value();
    memory.write(0, &value.to_be_bytes());
    let store = Request {
        gaddr: memory.addr(),
        offset,
        ..f.store()
    };
    assert_eq!(f.send(&store), Ok(()));
}
