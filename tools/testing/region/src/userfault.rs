// SPDX-License-Identifier: GPL-2.0

//! Memory which another thread has yet to provide: a request waits for it, without holding
//! anything that others need.

use crate::{
    fixture::{Fixture, TARGET},
    order::without_memory_space,
    test, Test,
};
use booted::{Mapping, Missing, PAGE};
use ktap::{Outcome, Skip};
use rustix::io::Errno;
use std::{
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

/// Sends the request with a missing page as its memory, runs `meanwhile`, provides the page, and
/// returns it when the request has succeeded.
fn while_waiting(
    f: &Fixture<'_>,
    request: Request,
    meanwhile: fn(&Fixture<'_>) -> Outcome,
) -> Result<Mapping, Skip> {
    let missing = Missing::page().map_err(|error| Skip(format!("userfaultfd: {error}")))?;
    let request = Request {
        gaddr: missing.addr(),
        ..request
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| f.send(&request));
        let wanted = missing.is_wanted(LIMIT);
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
        let page = missing.provide(PROVIDED);
        let result = other.join();
        let outcome = waiting.join().expect("the request's thread");

        assert!(
            wanted && !early,
            "the request waits for its page: {outcome:?}"
        );
        assert!(in_time, "a request that waits for memory holds a lock");
        let result = result.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        assert_eq!(outcome, Ok(()));
        result.map(|()| page)
    })
}
