// SPDX-License-Identifier: GPL-2.0

//! Memory which another thread has yet to provide: a request waits for it, without holding
//! anything that others need.

use crate::{
    fixture::{Fixture, TARGET},
    mapping::{Mapping, PAGE},
    order::without_memory_space,
    test, Test,
};
use ktap::{Outcome, Skip};
use rustix::{
    event::{poll, PollFd, PollFlags, Timespec},
    io::{read, Errno},
    ioctl::{ioctl, opcode, Opcode, Updater},
    mm::{userfaultfd, UserfaultfdFlags},
};
use std::{
    os::fd::OwnedFd,
    sync::mpsc,
    thread,
    time::Duration, //
};
use vfio_zpci_io::abi::Request;

/// Long enough for every call that is not blocked, also under emulation with a debug kernel.
const LIMIT: Duration = Duration::from_secs(20);
/// The bytes of the page when it comes.
const PROVIDED: u8 = 0x77;

pub(crate) const TESTS: &[Test] = &[
    test("userfaultfd: a block waits for its page", |f| {
        f.fill(TARGET, 16, 0);
        while_waiting(f, f.block(), |_| Ok(()))?;
        assert_eq!(f.read(TARGET, 16), [PROVIDED; 16]);
        Ok(())
    }),
    test("userfaultfd: a value waits for its page", |f| {
        f.fill(TARGET, 16, 0);
        while_waiting(f, f.store(), |_| Ok(()))?;
        assert_eq!(f.read(TARGET, 8), [PROVIDED; 8]);
        Ok(())
    }),
    test("userfaultfd: a load waits for its page", |f| {
        f.fill(TARGET, 16, 0x11);
        let page = while_waiting(f, f.load(), |_| Ok(()))?;
        assert_eq!(page.read(0, 8), [0x11; 8]);
        assert_eq!(page.read(8, PAGE - 8), [PROVIDED; PAGE - 8]);
        Ok(())
    }),
    test("userfaultfd: other requests pass one that waits", |f| {
        while_waiting(f, f.block(), |f| f.all_accepted(f.each())).map(drop)
    }),
    test(
        "userfaultfd: PCI_COMMAND can be written while a request waits",
        |f| {
            for request in f.each() {
                while_waiting(f, request, |f| without_memory_space(f, f.each(), Errno::IO))?;
            }
            Ok(())
        },
    ),
    test(
        "userfaultfd: the function can be reset while a request waits",
        |f| {
            while_waiting(f, f.block(), |f| {
                f.device.reset().expect("reset");
                Ok(())
            })
            .map(drop)
        },
    ),
];

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

// The numbers of <linux/userfaultfd.h>.
const UFFDIO_API: Opcode = opcode::read_write::<UffdioApi>(0xaa, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<UffdioRegister>(0xaa, 0x00);
const UFFDIO_COPY: Opcode = opcode::read_write::<UffdioCopy>(0xaa, 0x03);
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// A page which is missing until [`Missing::provide`].
struct Missing {
    uffd: OwnedFd,
    page: Mapping,
}

impl Missing {
    fn new() -> Result<Self, Skip> {
        // SAFETY: Only pages of `page` are registered, and all of them are provided.
        let uffd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }
            .map_err(|error| Skip(format!("userfaultfd: {error}")))?;
        let page = Mapping::pages(1);
        let mut api = UffdioApi {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        let mut register = UffdioRegister {
            start: page.addr(),
            len: page.len() as u64,
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: The structures are those of the kernel's header.
        unsafe {
            ioctl(&uffd, Updater::<UFFDIO_API, _>::new(&mut api)).expect("UFFDIO_API");
            ioctl(&uffd, Updater::<UFFDIO_REGISTER, _>::new(&mut register))
                .expect("UFFDIO_REGISTER");
        }
        Ok(Self { uffd, page })
    }

    /// Waits until somebody wants the page.
    fn wanted(&self) -> bool {
        let mut fds = [PollFd::new(&self.uffd, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: LIMIT.as_secs() as i64,
            tv_nsec: 0,
        };
        let mut message = [0; 32];
        poll(&mut fds, Some(&limit)) == Ok(1) && read(&self.uffd, &mut message) == Ok(32)
    }

    fn provide(&self) {
        let source = Mapping::pages(1);
        source.write(0, &[PROVIDED; PAGE]);
        let mut copy = UffdioCopy {
            dst: self.page.addr(),
            src: source.addr(),
            len: PAGE as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: The structure is that of the kernel's header; the page is ours.
        unsafe { ioctl(&self.uffd, Updater::<UFFDIO_COPY, _>::new(&mut copy)) }
            .expect("UFFDIO_COPY");
    }
}

/// Sends the request with a missing page as its memory, runs `meanwhile`, provides the page, and
/// returns it when the request has succeeded.
fn while_waiting(
    f: &Fixture<'_>,
    request: Request,
    meanwhile: fn(&Fixture<'_>) -> Outcome,
) -> Result<Mapping, Skip> {
    let missing = Missing::new()?;
    let request = Request {
        gaddr: missing.page.addr(),
        ..request
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| f.send(&request));
        let wanted = missing.wanted();
        let early = waiting.is_finished();
        let (done, results) = mpsc::channel();
        let other = scope.spawn(move || {
            let result = meanwhile(f);
            // Nobody listens after the limit.
            let _ = done.send(());
            result
        });
        let in_time = results.recv_timeout(LIMIT).is_ok() || other.is_finished();
        // Whatever happened: this lets all threads go on.
        missing.provide();
        let result = other.join();
        let outcome = waiting.join().expect("the request's thread");

        assert!(
            wanted && !early,
            "the request waits for its page: {outcome:?}"
        );
        assert!(in_time, "a request that waits for memory holds a lock");
        let result = result.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        assert_eq!(outcome, Ok(()));
        result
    })?;
    let Missing { uffd, page } = missing;
    drop(uffd);
    Ok(page)
}
