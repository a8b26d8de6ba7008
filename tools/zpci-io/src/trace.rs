// SPDX-License-Identifier: GPL-2.0

//! `trace`: each instruction which the driver issues, from its tracepoint.

use crate::{cli::Name, failure::Failure, find, output::Output, stats::file};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::PathBuf,
    process,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};
use vfio_zpci_io::sysfs::Host;

/// How long a signal may have to wait.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// An instruction as the tracepoint tells it.
#[derive(Debug, PartialEq, Serialize)]
struct Event {
    time: String,
    fid: String,
    insn: String,
    fh: String,
    #[serde(rename = "as")]
    space: u8,
    len: u16,
    offset: String,
    cc: i32,
    status: u8,
    tries: u32,
}

impl Event {
    /// Takes a line of a trace apart: `task-pid [cpu] flags time: name: field=...`.
    fn parse(line: &str) -> Option<Self> {
        let (head, event) = line.split_once(": zpci_vfio_pci_insn: ")?;
        let time = head.split_whitespace().next_back()?.to_owned();
        let words = || event.split_whitespace();
        let field = |name: &str| {
            words().find_map(|word| {
                word.strip_prefix(name)?
                    .strip_prefix('=')
                    .map(str::to_owned)
            })
        };
        Some(Self {
            time,
            fid: field("fid")?,
            insn: words().find(|word| !word.contains('='))?.to_owned(),
            fh: field("fh")?,
            space: field("as")?.parse().ok()?,
            len: field("len")?.parse().ok()?,
            offset: field("offset")?,
            cc: field("cc")?.parse().ok()?,
            status: field("status")?.parse().ok()?,
            tries: field("tries")?.parse().ok()?,
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {:<6} BAR {} {} {} bytes: cc {}, status {}, {} tries",
            self.time,
            self.fid,
            self.insn,
            self.space,
            self.offset,
            self.len,
            self.cc,
            self.status,
            self.tries
        )
    }
}

/// An instance of tracefs: buffers of its own, so that nobody else's trace is disturbed.
struct Instance(PathBuf);

impl Instance {
    fn new(host: &Host) -> Result<Self, Failure> {
        let path = host.path(format!(
            "/sys/kernel/tracing/instances/zpci-io-{}",
            process::id()
        ));
        fs::create_dir(&path).map_err(file(&path))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, content: &str) -> Result<(), Failure> {
        let path = self.0.join(name);
        fs::write(&path, content).map_err(file(&path))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // If it fails, some memory of the kernel's is lost until somebody removes the directory.
        let _ = fs::remove_dir(&self.0);
    }
}

pub(crate) fn run(host: &Host, out: &mut Output<'_>, name: Option<Name>) -> Result<(), Failure> {
    let fid = match name {
        Some(name) => find(host, name)?.zpci_fid(),
        None => None,
    };
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, ended.clone())?;
    }

    let instance = Instance::new(host)?;
    let event = "events/zpci_vfio_pci/zpci_vfio_pci_insn";
    if let Some(fid) = fid {
        instance.write(&format!("{event}/filter"), &format!("fid == {fid}"))?;
    }
    instance.write(&format!("{event}/enable"), "1")?;
    let path = instance.0.join("trace_pipe");
    let pipe = File::open(&path).map_err(file(&path))?;
    follow(pipe, out, &ended)
    // The pipe is closed, so that the instance can be removed.
}

/// Prints the events of `pipe` until `ended` is set.
fn follow(mut pipe: File, out: &mut Output<'_>, ended: &AtomicBool) -> Result<(), Failure> {
    let mut text = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&TICK));
        match ready {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(Failure::Output(error.into())),
        }
        let mut buffer = [0; 4096];
        let count = pipe.read(&mut buffer)?;
        text.extend_from_slice(&buffer[..count]);
        while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if let Some(event) = Event::parse(String::from_utf8_lossy(&line).trim_end()) {
                out.show(&event)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event() {
        let line = "         zpci-io-99      [001] .....    12.345678: zpci_vfio_pci_insn: \
                    fid=00000010 PCISTB fh=80000010 as=2 len=64 offset=0x100 cc=-6 status=8 tries=3";
        let event = Event::parse(line).unwrap();
        assert_eq!(
            (event.time.as_str(), event.fid.as_str()),
            ("12.345678", "00000010")
        );
        assert_eq!(
            (event.insn.as_str(), event.fh.as_str()),
            ("PCISTB", "80000010")
        );
        assert_eq!(
            (event.space, event.len, event.offset.as_str()),
            (2, 64, "0x100")
        );
        assert_eq!((event.cc, event.status, event.tries), (-6, 8, 3));
        assert_eq!(
            event.to_string(),
            "12.345678 00000010 PCISTB BAR 2 0x100 64 bytes: cc -6, status 8, 3 tries"
        );
        assert_eq!(Event::parse("CPU:0 [LOST 3 EVENTS]"), None);
        assert_eq!(Event::parse(&line.replace("as=2", "as=x")), None);
    }
}
