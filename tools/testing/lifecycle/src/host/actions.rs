// SPDX-License-Identifier: GPL-2.0

//! The administrator of the host: a process that does one thing, and says what came of it.

use crate::{
    tally::{self, Tally},
    ADDRESS, FID,
};
use rustix::{fs::OFlags, io::Errno, system::delete_module};
use std::{
    ffi::CString,
    fs, io,
    path::Path,
    process::{Command, ExitCode},
};
use vfio_zpci_io::{
    sysfs::{Function, DRIVER},
    Error,
};

const DEVICES: &str = "/sys/bus/pci/devices";
const SLOTS: &str = "/sys/bus/pci/slots";

pub(crate) fn main(times: &str, action: &[&str]) -> ExitCode {
    let Ok(times) = times.parse() else {
        eprintln!("# host: how often?");
        return ExitCode::FAILURE;
    };
    let mut tally = Tally::default();
    for _ in 0..times {
        let mut text = String::new();
        let result = tally.call(|| {
            act(action).map_err(|error| {
                text = error.to_string();
                tally::errno(&error)
            })
        });
        if result.is_err() {
            eprintln!("# host: {}: {text}", action.join(" "));
        }
    }
    println!("done {tally}");
    ExitCode::SUCCESS
}

fn act(action: &[&str]) -> io::Result<()> {
    let device = Path::new(DEVICES).join(ADDRESS);
    let power = Path::new(SLOTS).join(format!("{FID:08x}/power"));
    match *action {
        ["power-off"] => fs::write(power, "0"),
        ["power-on"] => fs::write(power, "1"),
        ["unbind"] => fs::write(device.join("driver/unbind"), ADDRESS),
        ["remove"] => fs::write(device.join("remove"), "1"),
        ["recover"] => fs::write(device.join("recover"), "1"),
        ["reset"] => fs::write(device.join("reset"), "1"),
        // An empty line means none.
        ["reset-methods", methods] => {
            let methods = methods.trim_start_matches("none");
            fs::write(device.join("reset_method"), format!("{methods}\n"))
        }
        ["bind", driver] => function()?.bind(driver).map_err(error),
        ["load"] => load(),
        ["unload"] => unload(),
        // Whatever is missing. Of the reset methods, the one that gives the function a new handle
        // (and does not take 100 ms).
        ["prepare"] => {
            if fs::read_to_string(&power)?.trim() == "0" {
                fs::write(&power, "1")?;
            }
            if !device.exists() {
                fs::write("/sys/bus/pci/rescan", "1")?;
            }
            function()?.bind(DRIVER).map_err(error)?;
            fs::write(device.join("reset_method"), "bus")
        }
        _ => Err(Errno::INVAL.into()),
    }
}

fn function() -> io::Result<Function> {
    Function::open(ADDRESS.parse().map_err(error)?).map_err(error)
}

fn error(error: Error) -> io::Error {
    match error {
        Error::File { source, .. } | Error::Call { source, .. } => source,
        error => io::Error::other(error),
    }
}

/// Loads the module, without its KUnit tests: they have a rung of their own, and take long.
fn load() -> io::Result<()> {
    // A kernel without KUnit runs none.
    let _ = fs::write("/sys/module/kunit/parameters/filter_glob", "none");
    match Command::new("modprobe").arg(DRIVER).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("modprobe failed")),
    }
}

/// Unloads the module, as rmmod does: fails if it is in use.
fn unload() -> io::Result<()> {
    let name = CString::new(DRIVER)?;
    Ok(delete_module(&name, OFlags::NONBLOCK.bits() as i32)?)
}
