// SPDX-License-Identifier: GPL-2.0

//! Where and in what pieces the region is read and written.

use crate::{
    fixture::{Fixture, TARGET},
    test, Test,
};
use booted::{Mapping, PAGE};
use rustix::{
    fs::{seek, SeekFrom},
    io::{pwritev, Errno},
};
use std::{
    io::IoSlice,
    os::fd::{AsFd, AsRawFd},
};
use vfio_zpci_io::abi::{
    Request, HEADER_SIZE, HEADER_WRITE, REGION_SIZE, REGION_SUBTYPE, REGION_TYPE, REQUEST_POSITION,
    REQUEST_SIZE,
};

pub(crate) const TESTS: &[Test] = &[
    test("region: one of its type, 48 bytes, read and write", |f| {
        let wanted = Some((REGION_TYPE, REGION_SUBTYPE));
        let regions = f.device.regions().expect("regions");
        let found: Vec<_> = regions
            .iter()
            .filter(|region| region.region_type() == wanted)
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].size, REGION_SIZE);
        // VFIO_REGION_INFO_FLAG_READ, _WRITE; capabilities, but no mmap.
        assert_eq!(found[0].flags, 0b1011);
        Ok(())
    }),
    test("region: mmap is refused", |f| {
        use rustix::mm::{MapFlags, ProtFlags};
        let map = Mapping::file_at(
            f.device,
            f.position,
            PAGE,
            ProtFlags::READ,
            MapFlags::SHARED,
        );
        assert_eq!(map.map(drop), Err(Errno::INVAL));
        Ok(())
    }),
    test(
        "header: max is 1..=4096, flags WRITE, reserved fields 0",
        |f| {
            assert!((1..=4096).contains(&f.header.max), "{:?}", f.header);
            assert_eq!(f.header.flags, HEADER_WRITE);
            assert_eq!((f.header.reserved, f.header.reserved2), (0, 0));
            Ok(())
        },
    ),
    test("header: partial reads", |f| {
        let mut whole = [0; HEADER_SIZE];
        assert_eq!(f.pread(&mut whole, 0), Ok(HEADER_SIZE));
        assert_ne!(whole, [0; HEADER_SIZE]);
        for start in 0..HEADER_SIZE {
            for end in start + 1..=HEADER_SIZE {
                let mut part = vec![0xee; end - start];
                assert_eq!(f.pread(&mut part, start as u64), Ok(part.len()));
                assert_eq!(part, whole[start..end]);
            }
        }
        Ok(())
    }),
    test(
        "EINVAL: a read touches the request or what is behind it",
        |f| {
            for (position, len) in [
                (0, 17),
                (0, 48),
                (8, 16),
                (15, 2),
                (16, 1),
                (16, 32),
                (47, 1),
                (47, 2),
                (48, 1),
                (4096, 8),
            ] {
                let mut bytes = vec![0xee; len];
                let result = f.pread(&mut bytes, position);
                assert_eq!(result, Err(Errno::INVAL), "{len} bytes at {position}");
                assert_eq!(bytes, vec![0xee; len]);
            }
            Ok(())
        },
    ),
    test("EFAULT: the header's buffer cannot be written", |f| {
        let page = Mapping::pages(2);
        page.protect(rustix::mm::MprotectFlags::READ);
        for address in [page.addr(), page.end() - 8, 0] {
            assert_eq!(pread_to(f, address, 16, 0), Err(Errno::FAULT));
        }
        Ok(())
    }),
    test("count 0 does nothing", |f| {
        let witness = f.witness();
        assert_eq!(f.pwrite(&[], REQUEST_POSITION), Ok(0));
        assert_eq!(f.pread(&mut [], 0), Ok(0));
        witness.nothing_changed();
        Ok(())
    }),
    test("EINVAL: a request elsewhere than at 16", |f| {
        let witness = f.witness();
        let bytes = f.block().to_bytes();
        for position in (0..96).chain([4096, 1 << 32, (1 << 40) - 32]) {
            if position != REQUEST_POSITION {
                let result = f.pwrite(&bytes, position);
                assert_eq!(result, Err(Errno::INVAL), "at {position}");
            }
        }
        witness.nothing_changed();
        Ok(())
    }),
    test("EINVAL: a partial request", |f| {
        let witness = f.witness();
        let bytes = f.block().to_bytes();
        for start in 0..REQUEST_SIZE {
            for end in start + 1..=REQUEST_SIZE {
                let part = &bytes[start..end];
                if part.len() != REQUEST_SIZE {
                    let result = f.pwrite(part, REQUEST_POSITION + start as u64);
                    assert_eq!(result, Err(Errno::INVAL), "{start}..{end}");
                }
            }
        }
        witness.nothing_changed();
        Ok(())
    }),
    test("EINVAL: more than a request", |f| {
        let witness = f.witness();
        let bytes = f.block().to_bytes().repeat(128);
        for (position, len) in [(16, 33), (16, 40), (16, 64), (16, 4096), (0, 48), (15, 33)] {
            let result = f.pwrite(&bytes[..len], position);
            assert_eq!(result, Err(Errno::INVAL), "{len} bytes at {position}");
        }
        witness.nothing_changed();
        Ok(())
    }),
    test("EFAULT: the request cannot be read", |f| {
        let witness = f.witness();
        let pages = Mapping::pages(2);
        let bytes = f.block().to_bytes();
        pages.write(PAGE - REQUEST_SIZE, &bytes);
        pages.write(PAGE - 16, &bytes);
        let last = pages.addr() + (PAGE - REQUEST_SIZE) as u64;
        pages.punch(PAGE, PAGE);
        for address in [last + 16, last + REQUEST_SIZE as u64, 0, u64::MAX - 4095] {
            let result = pwrite_from(f, address, REQUEST_SIZE, REQUEST_POSITION);
            assert_eq!(result, Err(Errno::FAULT), "{address:#x}");
        }
        witness.nothing_changed();
        // The same way, but readable.
        pages.write(PAGE - REQUEST_SIZE, &bytes);
        let result = pwrite_from(f, last, REQUEST_SIZE, REQUEST_POSITION);
        assert_eq!(result, Ok(REQUEST_SIZE));
        Ok(())
    }),
    test("pwritev: the first of two requests is executed", |f| {
        f.fill(TARGET, 64, 0);
        let first = f.block();
        let second = Request {
            offset: TARGET + 32,
            ..first
        };
        let (first, second) = (first.to_bytes(), second.to_bytes());
        let parts = [IoSlice::new(&first), IoSlice::new(&second)];
        let result = pwritev(f.device, &parts, f.position + REQUEST_POSITION);
        assert_eq!(result, Ok(REQUEST_SIZE), "position 48 takes no request");
        assert_eq!(f.read(TARGET, 16), f.as_stored(&f.source.read(0, 16)));
        assert_eq!(f.read(TARGET + 32, 16), [0; 16]);
        Ok(())
    }),
    test("EINVAL: pwritev with a request in two parts", |f| {
        let witness = f.witness();
        let bytes = f.block().to_bytes();
        for middle in [1, 8, 16, 31] {
            let (head, tail) = bytes.split_at(middle);
            let parts = [IoSlice::new(head), IoSlice::new(tail)];
            let result = pwritev(f.device, &parts, f.position + REQUEST_POSITION);
            assert_eq!(result, Err(Errno::INVAL), "{middle} bytes first");
        }
        witness.nothing_changed();
        Ok(())
    }),
    test("ESPIPE: no request by the file position", |f| {
        // VFIO devices have no file position: write() cannot reach the region.
        let position = f.position + REQUEST_POSITION;
        let result = seek(f.device, SeekFrom::Start(position));
        assert_eq!(result, Err(Errno::SPIPE));
        Ok(())
    }),
];

/// `pwrite` from an address, mapped or not.
pub(crate) fn pwrite_from(
    f: &Fixture<'_>,
    address: u64,
    len: usize,
    position: u64,
) -> Result<usize, Errno> {
    let pointer = std::ptr::with_exposed_provenance(address as usize);
    // SAFETY: The kernel only reads, and checks what it can.
    result(unsafe {
        libc::pwrite(
            f.device.as_fd().as_raw_fd(),
            pointer,
            len,
            (f.position + position) as libc::off_t,
        )
    })
}

/// `pread` to an address of a mapping of ours, or one which is not mapped.
pub(crate) fn pread_to(
    f: &Fixture<'_>,
    address: u64,
    len: usize,
    position: u64,
) -> Result<usize, Errno> {
    let pointer = std::ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: Nobody holds a reference to the memory, if there is any.
    result(unsafe {
        libc::pread(
            f.device.as_fd().as_raw_fd(),
            pointer,
            len,
            (f.position + position) as libc::off_t,
        )
    })
}

fn result(count: isize) -> Result<usize, Errno> {
    usize::try_from(count).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).expect("an errno")
    })
}
