// SPDX-License-Identifier: GPL-2.0

//! The memory behind gaddr: what cannot be accessed, and what the kernel must not write to.

use crate::{
    fixture::{Fixture, BAR, TARGET},
    test, Test,
};
use booted::{Mapping, PAGE, READ_WRITE};
use ktap::{Outcome, Skip};
use rustix::{
    fs::{memfd_create, MemfdFlags},
    io::Errno,
    mm::{
        Advice,
        MapFlags,
        MprotectFlags,
        ProtFlags, //
    },
};
use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
};
use vfio_zpci_io::abi::Request;

/// What the function holds where loads go to.
const VALUE: u64 = 0x1122_3344_5566_7788;
/// What pages hold before.
const OLD: u8 = 0x5a;

pub(crate) const TESTS: &[Test] = &[
    test("EFAULT: gaddr is not mapped", |f| {
        let pages = Mapping::pages(3);
        pages.punch(PAGE, PAGE);
        all_fault(f, &[pages.addr() + PAGE as u64, 0, 0x1000])
    }),
    test("EFAULT: the same for every size and kind", |f| {
        let page = Mapping::pages(1);
        page.protect(MprotectFlags::empty());
        let blocks = (1..=f.header.max).map(|len| Request { len, ..f.block() });
        let values = [1, 2, 4, 8]
            .into_iter()
            .flat_map(|len| [f.load(), f.store()].map(|r| Request { len, ..r }));
        let requests = blocks.chain(values).map(|r| Request {
            gaddr: page.addr(),
            ..r
        });
        f.all_refused(requests, Errno::FAULT)
    }),
    test("EFAULT: gaddr may not be accessed (PROT_NONE)", |f| {
        let page = Mapping::pages(1);
        page.write(0, &[OLD; PAGE]);
        page.protect(MprotectFlags::empty());
        all_fault(f, &[page.addr(), page.end() - 16])
    }),
    test("EFAULT: gaddr is the kernel's or nobody's", |f| {
        let top = u64::MAX - 4095;
        all_fault(f, &[1 << 53, 1 << 62, 1 << 63, top, top + 4080])
    }),
    test("EFAULT: a load to a read-only page", |f| {
        let page = Mapping::pages(1);
        page.write(0, &[OLD; PAGE]);
        page.protect(MprotectFlags::READ);
        load_faults(f, &page)?;
        assert_eq!(page.read(0, PAGE), [OLD; PAGE]);
        stores_from(f, &page)
    }),
    test(
        "EFAULT: a load to a read-only page that was never touched",
        |f| {
            let page = Mapping::pages(1);
            page.protect(MprotectFlags::READ);
            load_faults(f, &page)?;
            assert_eq!(page.read(0, PAGE), [0; PAGE]);
            stores_from(f, &page)
        },
    ),
    test(
        "EFAULT: a load to a read-only file, which stays as it is",
        |f| {
            for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
                let (file, read_only) = file();
                let page = Mapping::file(&read_only, PAGE, ProtFlags::READ, flags).expect("mmap");
                load_faults(f, &page)?;
                assert_eq!(content(&file), [OLD; PAGE]);
                stores_from(f, &page)?;
            }
            Ok(())
        },
    ),
    test(
        "a load to a private mapping of a file leaves the file",
        |f| {
            let (file, read_only) = file();
            let page =
                Mapping::file(&read_only, PAGE, READ_WRITE, MapFlags::PRIVATE).expect("mmap");
            loads_to(f, &page)?;
            assert_eq!(content(&file), [OLD; PAGE]);
            Ok(())
        },
    ),
    test(
        "a load to a shared mapping of a file changes the file",
        |f| {
            let (file, _) = file();
            let page = Mapping::file(&file, PAGE, READ_WRITE, MapFlags::SHARED).expect("mmap");
            loads_to(f, &page)?;
            assert_eq!(content(&file)[64..72], VALUE.to_be_bytes());
            Ok(())
        },
    ),
    test("EFAULT: gaddr behind the end of a mapped file", |f| {
        // The process itself would get SIGBUS.
        let (file, _) = file();
        let pages = Mapping::file(&file, 2 * PAGE, READ_WRITE, MapFlags::SHARED).expect("mmap");
        all_fault(f, &[pages.addr() + PAGE as u64])
    }),
    test(
        "a load to a page that was given up (MADV_FREE) keeps it",
        |f| {
            // Nothing but the kernel's mark "dirty" tells that such a page is wanted again.
            let pages = [Mapping::pages(1), Mapping::pages(1)];
            for page in &pages {
                page.write(0, &[OLD; PAGE]);
                for advice in [Advice::LinuxCold, Advice::LinuxFree] {
                    page.advise(advice)
                        .map_err(|error| Skip(format!("{advice:?}: {error}")))?;
                }
            }
            let [loaded, other] = &pages;
            send_load(f, loaded);
            for page in &pages {
                page.advise(Advice::LinuxPageOut)
                    .map_err(|error| Skip(format!("MADV_PAGEOUT: {error}")))?;
            }
            if other.read(0, PAGE) != [0; PAGE] {
                return Err(Skip("the kernel does not drop such pages".to_owned()));
            }
            assert_eq!(loaded.read(64, 8), VALUE.to_be_bytes());
            Ok(())
        },
    ),
    test(
        "a store from a page that was never touched stores zeros",
        |f| {
            f.fill(TARGET, 16, OLD);
            let page = Mapping::pages(1);
            stores_from(f, &page)
        },
    ),
    test("a load to a page that was never touched", |f| {
        let page = Mapping::pages(1);
        loads_to(f, &page)
    }),
    test(
        "a load replaces the zero page, and does not write to it",
        |f| {
            let pages = Mapping::pages(2);
            // Reading maps the zero page.
            assert_eq!(pages.read(0, 2 * PAGE), [0; 2 * PAGE]);
            loads_to(f, &pages)?;
            assert_eq!(pages.read(PAGE, PAGE), [0; PAGE]);
            assert_eq!(Mapping::pages(1).read(0, PAGE), [0; PAGE]);
            Ok(())
        },
    ),
    test("a process without privilege and locked memory", |f| {
        const CHILDS: u8 = 0x77;
        let page = Mapping::pages(1);
        page.write(0, &[!CHILDS; PAGE]);
        let requests = f.each().map(|request| Request {
            gaddr: page.addr(),
            ..request
        });
        f.fill(TARGET, 16, 0);
        let child = Child::fork(|| {
            // What lies at this address of its own memory is what counts.
            page.write(0, &[CHILDS; PAGE]);
            without_privilege() && requests.iter().all(|request| f.send(request).is_ok())
        });
        assert!(child.finish(), "the requests of the child");
        assert_eq!(f.read(TARGET, 16), [CHILDS; 16]);
        Ok(())
    }),
    test("a load after fork leaves the child's copy", |f| {
        let page = Mapping::pages(1);
        page.write(0, &[OLD; PAGE]);
        let child = Child::fork(|| page.read(0, PAGE) == [OLD; PAGE]);
        let result = loads_to(f, &page);
        assert!(child.finish(), "the child sees its own page");
        result
    }),
    test(
        "a load in the parent, after the child has written its copy",
        |f| {
            let page = Mapping::pages(1);
            page.write(0, &[OLD; PAGE]);
            let child = Child::fork(|| {
                page.write(0, &[1; PAGE]);
                page.read(0, PAGE) == [1; PAGE]
            });
            assert!(child.finish());
            stores_from(f, &page)?;
            loads_to(f, &page)
        },
    ),
    test("huge pages (transparent)", |f| {
        const LEN: usize = 4 << 20;
        let map = Mapping::anonymous(LEN, MapFlags::empty()).expect("mmap");
        map.advise(Advice::LinuxHugepage)
            .map_err(|_| Skip("the kernel has no transparent huge pages".to_owned()))?;
        for at in (0..LEN).step_by(PAGE) {
            map.write(at, &[OLD; 8]);
        }
        if anonymous_huge(&map) == 0 {
            return Err(Skip("the kernel gave no huge page".to_owned()));
        }
        inside(f, &map)
    }),
    test("huge pages (hugetlb)", |f| {
        // Two of the default size, 1 MiB.
        fs::write("/proc/sys/vm/nr_hugepages", "2")
            .map_err(|_| Skip("the kernel has no hugetlb pages".to_owned()))?;
        let map = Mapping::anonymous(1 << 20, MapFlags::HUGETLB);
        let result = match &map {
            Ok(map) => inside(f, map),
            Err(error) => Err(Skip(format!("no huge page is free: {error}"))),
        };
        drop(map);
        fs::write("/proc/sys/vm/nr_hugepages", "0").expect("give them back");
        result
    }),
    test("EFAULT: secret memory (memfd_secret)", |f| {
        // SAFETY: It takes flags and returns a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Skip(format!("memfd_secret: {error}")));
        }
        // SAFETY: It is nobody else's.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        file.set_len(PAGE as u64).expect("a page");
        let page = Mapping::file(&file, PAGE, READ_WRITE, MapFlags::SHARED).expect("mmap");
        page.write(0, &[OLD; PAGE]);
        let at = |request| Request {
            gaddr: page.addr(),
            ..request
        };
        f.all_refused([f.block(), f.load()].map(at), Errno::FAULT)?;
        assert_eq!(page.read(0, PAGE), [OLD; PAGE]);
        // The value of a store is copied, as by any system call.
        assert_eq!(f.send(&at(f.store())), Ok(()));
        Ok(())
    }),
    test("EFAULT: the function's own BAR, mapped", |f| {
        let bar = f.device.region(BAR.into()).expect("the BAR");
        let map = Mapping::file_at(f.device, bar.offset, PAGE, READ_WRITE, MapFlags::SHARED)
            .map_err(|error| Skip(format!("the BAR cannot be mapped: {error}")))?;
        all_fault(f, &[map.addr()])
    }),
];

/// Neither stores nor loads can use these addresses.
fn all_fault(f: &Fixture<'_>, addresses: &[u64]) -> Outcome {
    let requests = addresses
        .iter()
        .flat_map(|&gaddr| f.each().map(|r| Request { gaddr, ..r }));
    f.all_refused(requests, Errno::FAULT)
}

/// Loads of any size to the page fail.
fn load_faults(f: &Fixture<'_>, page: &Mapping) -> Outcome {
    let requests = [1, 2, 4, 8].map(|len| Request {
        gaddr: page.addr() + 64,
        len,
        ..f.load()
    });
    f.all_refused(requests, Errno::FAULT)
}

/// A load to byte 64 of the page puts the value there and leaves the rest.
fn loads_to(f: &Fixture<'_>, page: &Mapping) -> Outcome {
    send_load(f, page);
    // After the load: reading the page before would change what is tested.
    let bytes = page.read(0, PAGE);
    assert_eq!(bytes[64..72], VALUE.to_be_bytes());
    let rest = [&bytes[..64], &bytes[72..]].concat();
    assert!(rest.iter().all(|&byte| byte == rest[0]), "{rest:02x?}");
    Ok(())
}

/// Loads the value to byte 64 of the page.
fn send_load(f: &Fixture<'_>, page: &Mapping) {
    let value = Mapping::value();
    value.write(0, &VALUE.to_be_bytes());
    let store = Request {
        gaddr: value.addr(),
        ..f.store()
    };
    assert_eq!(f.send(&store), Ok(()));
    let load = Request {
        gaddr: page.addr() + 64,
        ..f.load()
    };
    assert_eq!(f.send(&load), Ok(()));
}

/// A block and a value can be stored from the page.
fn stores_from(f: &Fixture<'_>, page: &Mapping) -> Outcome {
    for request in [f.block(), f.store()] {
        let request = Request {
            gaddr: page.addr() + 64,
            ..request
        };
        f.fill(TARGET, 16, 0xee);
        assert_eq!(f.send(&request), Ok(()), "{request:x?}");
        let wanted = page.read(64, request.len.into());
        // The bytes are all the same: in any order.
        assert_eq!(f.read(TARGET, request.len.into()), wanted);
    }
    Ok(())
}

/// Stores from and loads to several places in a large page.
fn inside(f: &Fixture<'_>, map: &Mapping) -> Outcome {
    for at in [0, 0x1000, 0x7f000, 0xff000] {
        let block: Vec<u8> = (1..=16).map(|byte| byte ^ (at >> 12) as u8).collect();
        map.write(at, &block);
        let store = Request {
            gaddr: map.addr() + at as u64,
            ..f.block()
        };
        assert_eq!(f.send(&store), Ok(()));
        assert_eq!(f.read(TARGET, 16), f.as_stored(&block), "at {at:#x}");
        let load = Request {
            gaddr: map.addr() + at as u64 + 0xff8,
            ..f.load()
        };
        assert_eq!(f.send(&load), Ok(()));
        assert_eq!(map.read(at + 0xff8, 8), f.as_stored(&block)[..8]);
    }
    Ok(())
}

/// A file of a page, and the same file opened read-only.
fn file() -> (File, File) {
    let file = File::from(memfd_create("region-test", MemfdFlags::CLOEXEC).expect("memfd"));
    file.write_all_at(&[OLD; PAGE], 0).expect("memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read_only = File::open(path).expect("the same file");
    (file, read_only)
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    file.read_exact_at(&mut bytes, 0).expect("the file");
    bytes
}

/// How many KiB of the mapping are transparent huge pages.
fn anonymous_huge(map: &Mapping) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut here = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, end)) = first.split_once('-') {
            let hex = |text| u64::from_str_radix(text, 16).unwrap_or_default();
            // A part of it may have become a mapping of its own.
            here = map.addr() <= hex(start) && hex(end) <= map.end()
                || (hex(start)..hex(end)).contains(&map.addr());
        } else if here && first == "AnonHugePages:" {
            let size = words.next().and_then(|size| size.parse().ok());
            if let Some(size @ 1..) = size {
                return size;
            }
        }
    }
    0
}

/// Gives up all privilege, and the right to lock memory. Returns whether that has worked.
fn without_privilege() -> bool {
    const NOBODY: libc::uid_t = 65534;
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: They read the limit, and change this process only.
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &none) == 0
            && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
            && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
    }
}

/// A process with a copy of this one's memory, which looks at it when it is told to.
struct Child {
    pid: libc::pid_t,
    go: OwnedFd,
}

impl Child {
    /// The child runs `check` when it is told to, and does nothing else.
    fn fork(check: impl Fn() -> bool) -> Self {
        let (wait, go) = rustix::pipe::pipe().expect("a pipe");
        // SAFETY: The child only reads from the pipe, accesses mappings, makes system calls, and ends.
        match unsafe { libc::fork() } {
            0 => {
                drop(go);
                // Returns when the other end is closed.
                let _ = File::from(wait).read(&mut [0]);
                // SAFETY: Ends the child without anything that belongs to the parent.
                unsafe { libc::_exit(i32::from(!check())) }
            }
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            pid => Self { pid, go },
        }
    }

    /// Lets the child look, and tells what it saw.
    fn finish(self) -> bool {
        drop(self.go);
        let mut status = 0;
        // SAFETY: `status` is an int.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        pid == self.pid && status == 0
    }
}
