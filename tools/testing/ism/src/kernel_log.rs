// SPDX-License-Identifier: GPL-2.0

//! What the kernel says meanwhile.

use rustix::{
    fs::{open, Mode, OFlags},
    io::{self, Errno},
};
use std::{
    fs::File,
    io::{Seek, SeekFrom},
};

/// The messages of the kernel while `f` runs.
pub(crate) fn during(f: impl FnOnce()) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut log = File::from(open("/dev/kmsg", flags, Mode::empty()).expect("/dev/kmsg"));
    log.seek(SeekFrom::End(0)).expect("its end");
    f();
    let mut said = String::new();
    let mut record = [0; 8192];
    loop {
        match io::read(&log, &mut record) {
            Ok(len) => said.push_str(&String::from_utf8_lossy(&record[..len])),
            Err(Errno::AGAIN) => return said,
            Err(error) => panic!("/dev/kmsg: {error}"),
        }
    }
}
