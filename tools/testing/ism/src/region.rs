// SPDX-License-Identifier: GPL-2.0

//! The zPCI I/O region of ISM functions.

use crate::{
    ism::{self, pattern, Bars, Buffer},
    machine::{self, ism::GIDS, ism::PAIR, Region},
    trace,
};
use booted::trace::Issued;
use ktap::{test, Outcome, Test};
use rustix::io::{pwritev, Errno};
use std::io::IoSlice;
use vfio_zpci_io::{
    abi::{self, Request},
    Device,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("ISM: the header allows blocks of 4096 bytes", || {
            let header = Region::open(PAIR[0]).header;
            assert_eq!((header.max, header.flags), (4096, abi::HEADER_WRITE));
            Ok(())
        }),
        test("ISM: commands", commands),
        test("ISM: a block of any length is one instruction", any_length),
        test(
            "ISM: a block at any alignment is one instruction",
            any_alignment,
        ),
        test("ISM: EINVAL: more than 4096 bytes, across 4 KiB", too_long),
        test("ISM: loads and stores within a doubleword", doublewords),
        test("ISM: a signal reaches the owner of the buffer", signal),
        test(
            "ISM: EREMOTEIO: no such buffer, up to the end of BAR 0",
            unknown,
        ),
        test("ISM: EINVAL: beyond the end of a BAR, no such BAR", beyond),
        test("ISM: of a vector only the first request is written", vector),
    ]
}

impl Bars for Region {
    fn device(&self) -> &Device {
        &self.device
    }

    fn store_block(&self, bar: u8, offset: u64, block: &[u8]) -> Result<(), Errno> {
        machine::write(self.page(), 0, block);
        self.send(&Request {
            pcias: bar,
            offset,
            len: block.len() as u16,
            ..self.block()
        })
    }

    fn load_bytes(&self, bar: u8, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        for at in (0..len as u64).step_by(8) {
            self.send(&Request {
                pcias: bar,
                offset: offset + at,
                ..self.load()
            })?;
            bytes.extend(machine::read(self.page(), 0, 8));
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// The two functions, and a buffer of the first for the second.
fn pair() -> (Region, Region, Buffer) {
    let [owner, sender] = PAIR.map(Region::open);
    let buffer = Buffer::register(&owner, GIDS[1]);
    (owner, sender, buffer)
}

fn commands() -> Outcome {
    for (fid, gid) in PAIR.into_iter().zip(GIDS) {
        let region = Region::open(fid);
        let reply = ism::command(&region, ism::READ_GID, &[]);
        assert_eq!(reply.expect("READ_GID").words, [gid]);
        let reply = ism::command(&region, ism::QUERY_INFO, &[]);
        assert_eq!(reply.expect("QUERY_INFO").words[2], gid);
    }
    Ok(())
}

/// Sends blocks from (address in a page, length) to (offset in the buffer), each of which arrives
/// whole, alone, and with one instruction.
fn arrive(blocks: impl Iterator<Item = (usize, usize, usize)>) -> Outcome {
    let (_owner, sender, buffer) = pair();
    let size = Buffer::PAGES * abi::PAGE_SIZE;
    let bytes = pattern(abi::PAGE_SIZE);
    machine::write(sender.page(), 0, &bytes);
    for (from, len, to) in blocks {
        let request = Request {
            gaddr: sender.block().gaddr + from as u64,
            len: len as u16,
            pcias: ism::MOVES,
            offset: buffer.at(to as u64),
            ..sender.block()
        };
        let (result, issued) = trace::during(sender.fid, || sender.send(&request));
        assert_eq!(result, Ok(()), "{request:x?}");
        let lens: Vec<_> = issued
            .iter()
            .map(|i| (i.name.as_str(), i.len, i.cc))
            .collect();
        assert_eq!(lens, [("PCISTB", len as u64, 0)], "{request:x?}");
        let mut wanted = vec![0; size];
        wanted[to..to + len].copy_from_slice(&bytes[from..from + len]);
        assert!(buffer.read(0, size) == wanted, "{request:x?} arrives");
        buffer.clear();
    }
    Ok(())
}

fn any_length() -> Outcome {
    let some = (1..=40).chain((41..4096).step_by(211)).chain([4095, 4096]);
    arrive(some.map(|len| (0, len, 0x3000)))
}

fn any_alignment() -> Outcome {
    let places = (0..8).flat_map(|from| (0..8).map(move |to| (from, to)));
    let in_page = places.map(|(from, to)| (from, 11 + from * to, 0x5000 + to));
    // Up to the end of a page, and of 4 KiB of the destination.
    let at_end = [1, 7, 100].map(|len| (abi::PAGE_SIZE - len, len, 0x6000 - len));
    arrive(in_page.chain(at_end))
}

fn too_long() -> Outcome {
    let (_owner, sender, buffer) = pair();
    for (len, at) in [(4097, 0), (4096, 1), (2, 4095), (u16::MAX, 0)] {
        let request = Request {
            pcias: ism::MOVES,
            offset: buffer.at(at),
            len,
            ..sender.block()
        };
        let (result, issued) = trace::during(sender.fid, || sender.send(&request));
        assert_eq!(
            (result, issued),
            (Err(Errno::INVAL), vec![]),
            "{request:x?}"
        );
    }
    assert!(buffer.read(0, 0x2000).iter().all(|&byte| byte == 0));
    Ok(())
}

fn doublewords() -> Outcome {
    let region = Region::open(PAIR[0]);
    let mut wanted = pattern(32);
    let start = machine::TARGET;
    region
        .store_block(ism::COMMANDS, start, &wanted)
        .expect("a block");
    for len in [1, 2, 4, 8] {
        for at in 0..16 {
            let legal = at % 8 + len <= 8;
            let load = Request {
                len: len as u16,
                offset: start + at as u64,
                ..region.load()
            };
            region.fill(0xff);
            let result = region.send(&load);
            if !legal {
                assert_eq!(result, Err(Errno::INVAL), "{load:x?}");
                continue;
            }
            if at % len != 0 {
                // For the function to decide, and this one does not like it.
                assert_eq!(result, Err(Errno::NXIO), "{load:x?}");
                continue;
            }
            assert_eq!(result, Ok(()), "{load:x?}");
            let mut value = vec![0; 8 - len];
            value.extend_from_slice(&wanted[at..at + len]);
            assert_eq!(machine::read(region.page(), 0, 8), value, "{load:x?}");

            let value = [0x80 + at as u8; 8];
            machine::write(region.page(), 0, &value);
            let store = Request {
                flags: abi::WRITE,
                ..load
            };
            assert_eq!(region.send(&store), Ok(()), "{store:x?}");
            wanted[at..at + len].copy_from_slice(&value[..len]);
            let stored = region.load_bytes(ism::COMMANDS, start, 32);
            assert_eq!(stored.as_deref(), Ok(&wanted[..]), "{store:x?}");
        }
    }
    Ok(())
}

fn signal() -> Outcome {
    const SIGNAL: u64 = 1 << 23;
    let (_owner, sender, buffer) = pair();
    let bit = |index: u64| buffer.at(index << 24 | SIGNAL);
    let result = sender.store_block(ism::MOVES, bit(3), &pattern(32));
    assert_eq!(result, Ok(()));
    assert_eq!(buffer.read(0, 32), pattern(32));
    // The mask of the buffer, one bit for each index.
    let mask = machine::read(buffer.signals(), 256 + 2 * Buffer::INDEX as usize, 2);
    assert_eq!(mask, [0x10, 0]);
    let result = sender.store_block(ism::MOVES, bit(16), &pattern(32));
    assert_eq!(result, Err(Errno::REMOTEIO));
    Ok(())
}

/// Status code of condition code 1: there is no such function.
const NOT_AVAILABLE: u64 = 40;

fn unknown() -> Outcome {
    let region = Region::open(PAIR[1]);
    let end = 1 << 48;
    for (offset, len) in [
        (0, 8),
        (1 << 40, 1),
        (9 << 40 | 16, 32),
        (end - 4096, 4096),
        (end - 1, 1),
    ] {
        let request = Request {
            pcias: ism::MOVES,
            offset,
            len,
            ..region.block()
        };
        let (result, issued) = trace::during(region.fid, || region.send(&request));
        assert_eq!(result, Err(Errno::REMOTEIO), "{request:x?}");
        let [Issued {
            offset: at,
            cc: 1,
            status: NOT_AVAILABLE,
            tries: 1,
            ..
        }] = issued[..]
        else {
            panic!("{issued:?}");
        };
        assert_eq!(at, offset);
    }
    Ok(())
}

fn beyond() -> Outcome {
    let region = Region::open(PAIR[0]);
    for (pcias, offset) in [
        (0, (1 << 48) - 8),
        (0, 1 << 48),
        (0, u64::MAX),
        (2, ism::COMMANDS_SIZE - 8),
        (2, ism::COMMANDS_SIZE),
        (1, 0),
        (3, 0),
        (5, 0),
    ] {
        for request in region.each() {
            let request = Request {
                pcias,
                offset: offset & !7,
                len: request.len,
                ..request
            };
            // 8 bytes fit before the end.
            if request.len == 8 && matches!(offset % 4096, 0xff8 | 0xf8) {
                continue;
            }
            let (result, issued) = trace::during(region.fid, || region.send(&request));
            assert_eq!(
                (result, issued),
                (Err(Errno::INVAL), vec![]),
                "{request:x?}"
            );
        }
    }
    Ok(())
}

fn vector() -> Outcome {
    let region = Region::open(PAIR[0]);
    let request = region.block().to_bytes();
    let parts = [IoSlice::new(&request), IoSlice::new(&request)];
    let (written, issued) = trace::during(region.fid, || {
        pwritev(&region.device, &parts, region.request_position())
    });
    assert_eq!((written, issued.len()), (Ok(request.len()), 1));
    Ok(())
}
