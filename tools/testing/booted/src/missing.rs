// SPDX-License-Identifier: GPL-2.0

//! Memory that is not there yet (userfaultfd): the kernel waits for it.

use crate::mapping::{Mapping, PAGE};
use linux_raw_sys::{
    general::{uffdio_api, uffdio_copy, uffdio_range, uffdio_register},
    ioctl::{UFFDIO_API, UFFDIO_COPY, UFFDIO_REGISTER},
};
use rustix::{
    event::{poll, PollFd, PollFlags, Timespec},
    io::{read, Result},
    ioctl::{ioctl, Opcode, Updater},
    mm::{userfaultfd, UserfaultfdFlags},
};
use std::{os::fd::OwnedFd, time::Duration};

// How wide an opcode is depends on the machine.
const API: Opcode = UFFDIO_API as Opcode;
const COPY: Opcode = UFFDIO_COPY as Opcode;
const REGISTER: Opcode = UFFDIO_REGISTER as Opcode;
// What is a cast in <linux/userfaultfd.h> is not generated.
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// A page which is missing until it is provided: who accesses it before waits.
#[derive(Debug)]
pub struct Missing {
    uffd: OwnedFd,
    page: Mapping,
}

impl Missing {
    /// A page of its own.
    ///
    /// # Errors
    ///
    /// The kernel has no userfaultfd for us.
    pub fn page() -> Result<Self> {
        // SAFETY: Only the page below is registered, and nobody has used it.
        let uffd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }?;
        let page = Mapping::pages(1);
        let mut api = uffdio_api {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        let mut register = uffdio_register {
            range: uffdio_range {
                start: page.addr(),
                len: page.size() as u64,
            },
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: The structures are those of the kernel's header.
        unsafe {
            ioctl(&uffd, Updater::<API, _>::new(&mut api))?;
            ioctl(&uffd, Updater::<REGISTER, _>::new(&mut register))?;
        }
        Ok(Self { uffd, page })
    }

    /// Its address.
    pub fn addr(&self) -> u64 {
        self.page.addr()
    }

    /// Waits until somebody wants it; false if nobody does within `limit`.
    pub fn is_wanted(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).expect("a limit");
        let mut message = [0; 32];
        poll(&mut [PollFd::new(&self.uffd, PollFlags::IN)], Some(&limit)) == Ok(1)
            && read(&self.uffd, &mut message) == Ok(32)
    }

    /// Provides it, each byte being `byte`: who waits for it goes on.
    pub fn provide(self, byte: u8) -> Mapping {
        let source = Mapping::pages(1);
        source.write(0, &[byte; PAGE]);
        let mut copy = uffdio_copy {
            dst: self.page.addr(),
            src: source.addr(),
            len: PAGE as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: The structure is that of the kernel's header; the page is ours, and no reference to
        // it is held.
        unsafe { ioctl(&self.uffd, Updater::<COPY, _>::new(&mut copy)) }.expect("UFFDIO_COPY");
        self.page
    }
}
