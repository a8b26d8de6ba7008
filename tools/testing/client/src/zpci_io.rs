// SPDX-License-Identifier: GPL-2.0

//! Runs of the command line tool.

use serde_json::Value;
use std::{
    io::Write,
    process::{Command, Output, Stdio},
};
use vfio_zpci_io::sysfs::{self, Function};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `zpci-io` with these words.
#[track_caller]
pub(crate) fn run(line: &str) -> Ended {
    run_with(line, "")
}

/// The same with something on standard input.
#[track_caller]
pub(crate) fn run_with(line: &str, input: &str) -> Ended {
    let mut child = Command::new("zpci-io")
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("zpci-io");
    let mut stdin = child.stdin.take().expect("its standard input");
    // It may not want any.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    ended(child.wait_with_output().expect("zpci-io"))
}

pub(crate) fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Ended {
    /// What it printed; it did what it should.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// The same as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.done()).expect("JSON")
    }

    /// It was refused, for this reason among others.
    #[track_caller]
    pub fn refused(self, reason: &str) {
        assert_eq!(self.code, 3, "{self:?}");
        assert!(self.err.contains(reason), "{}", self.err);
    }
}

#[track_caller]
pub(crate) fn function(fid: u32) -> Function {
    let function = sysfs::zpci_function(fid).expect("sysfs");
    function.unwrap_or_else(|| panic!("there is no function {fid:x}"))
}

/// The driver of a function, or "".
#[track_caller]
pub(crate) fn driver(fid: u32) -> String {
    function(fid).driver().expect("sysfs").unwrap_or_default()
}

/// Has the driver zpci_vfio_pci take a function.
#[track_caller]
pub(crate) fn bind(fid: u32) -> Function {
    let function = function(fid);
    function.bind(sysfs::DRIVER).expect("the driver takes it");
    function
}
