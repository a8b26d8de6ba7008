// SPDX-License-Identifier: GPL-2.0

//! What the kernel says.

use rustix::fs::OFlags;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

/// The messages of the kernel so far.
///
/// # Errors
///
/// They cannot be read, or have been overwritten meanwhile.
pub fn so_far() -> io::Result<Vec<String>> {
    rest(&open()?)
}

/// The messages of the kernel while `f` runs.
///
/// # Errors
///
/// As [`so_far`].
pub fn during(f: impl FnOnce()) -> io::Result<Vec<String>> {
    let mut log = open()?;
    log.seek(SeekFrom::End(0))?;
    f();
    rest(&log)
}

fn open() -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open("/dev/kmsg")
}

fn rest(mut log: &File) -> io::Result<Vec<String>> {
    let mut messages = Vec::new();
    // A read returns one message.
    let mut message = [0; 8192];
    loop {
        match log.read(&mut message) {
            Ok(length) => messages.push(String::from_utf8_lossy(&message[..length]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(messages),
            Err(error) => return Err(error),
        }
    }
}
