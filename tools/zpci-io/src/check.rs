// SPDX-License-Identifier: GPL-2.0

//! `check`: whether the region works on a function, by what is safe on it.
//!
//! Requests that have to be refused before an instruction is issued are safe on every function. Beyond
//! them only what the function's own driver does when it finds it is done: a register is loaded whose load
//! has no side effect, and an ISM function is asked for its name.

use crate::{
    binding,
    cli::Name,
    failure::{Failure, Refusal},
    find,
    output::Output,
    requests,
};
use serde::Serialize;
use std::{
    fmt,
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    time::Instant,
};
use vfio_zpci_io::{
    abi::{Request, BLOCKW, READ},
    sysfs::{Function, Host, DRIVER},
    RequestError, ZpciIo,
};

const IBM_ISM: (u64, u64) = (0x1014, 0x04ed);
const MELLANOX: u64 = 0x15b3;
const CLASS_NVME: u64 = 0x01_0802;

/// Where ISM takes commands, and the one that asks for the function's name: code and length.
const ISM_COMMANDS: u8 = 2;
const ISM_READ_GID: u64 = 3 << 32 | 8;

const NO_REGISTER: &str = "no register of this function is known that may be loaded";

/// One thing that was tried.
#[derive(Serialize)]
struct Step {
    what: String,
    verdict: Verdict,
    result: String,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Failed,
    Skipped,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Failed => "FAILED ",
            Verdict::Skipped => "skipped",
        };
        write!(f, "  {verdict}  {}: {}", self.what, self.result)
    }
}

/// A register whose load has no side effect.
#[derive(Clone, Copy)]
struct Register {
    bar: u8,
    name: &'static str,
}

/// Prints steps, and counts those that failed.
struct Steps<'a, 'b> {
    out: &'a mut Output<'b>,
    failed: usize,
}

impl Steps<'_, '_> {
    fn show(
        &mut self,
        what: impl Into<String>,
        verdict: Verdict,
        result: impl fmt::Display,
    ) -> Result<(), Failure> {
        self.failed += usize::from(verdict == Verdict::Failed);
        self.out.show(&Step {
            what: what.into(),
            verdict,
            result: result.to_string(),
        })
    }

    /// What an instruction gives; it has to succeed.
    fn succeeds<T>(
        &mut self,
        what: &str,
        result: Result<T, RequestError>,
        show: impl FnOnce(T) -> String,
    ) -> Result<(), Failure> {
        match result {
            Ok(value) => self.show(what, Verdict::Ok, show(value)),
            Err(error) => self.show(what, Verdict::Failed, error),
        }
    }

    /// A request that has to be refused so.
    fn refused(
        &mut self,
        what: &str,
        region: &ZpciIo<BorrowedFd<'_>>,
        request: Request,
        wanted: RequestError,
    ) -> Result<(), Failure> {
        // SAFETY: Of those that load, each has the address of a value of ours that nobody looks at, or
        // one where nothing is mapped.
        match unsafe { region.request(&request) } {
            Err(error) if error == wanted => self.show(what, Verdict::Ok, error),
            Err(error) => self.show(what, Verdict::Failed, format!("refused otherwise: {error}")),
            Ok(()) => self.show(what, Verdict::Failed, "not refused"),
        }
    }
}

pub(crate) fn run(
    host: &Host,
    out: &mut Output<'_>,
    name: Name,
    repeat: u32,
    with: Option<&str>,
) -> Result<(), Failure> {
    let function = find(host, name)?;
    if function.zpci_fid().is_none() {
        return Err(Failure::refused(function.address(), Refusal::NotZpci));
    }
    match function.driver()? {
        Some(driver) if driver != DRIVER && function.vfio_name()?.is_some() => {
            let reason = Refusal::OtherDriver(driver);
            return Err(Failure::refused(function.address(), reason));
        }
        _ => binding::unused(host, &function)?,
    }
    let mut steps = Steps { out, failed: 0 };
    let driver = with.unwrap_or(DRIVER);
    binding::while_bound(&function, driver, || match with {
        None => on_bound(&mut steps, &function, repeat),
        Some(driver) => by_bar(&mut steps, &function, repeat, driver),
    })?;
    match steps.failed {
        0 => Ok(()),
        count => Err(Failure::Check(count)),
    }
}

fn on_bound(steps: &mut Steps<'_, '_>, function: &Function, repeat: u32) -> Result<(), Failure> {
    let device = requests::open(function.address(), Default::default())?;
    device.enable_memory(true)?;
    let region = device.zpci_io()?;
    let max = region.header().max;
    steps.show(
        "region",
        Verdict::Ok,
        format!("blocks of up to {max} bytes"),
    )?;

    let register = register(function)?;
    refusals(steps, function, &region, register)?;
    let Some(Register { bar, name }) = register else {
        return steps.show("instructions", Verdict::Skipped, NO_REGISTER);
    };
    steps.succeeds(
        &format!("PCILG of {name}"),
        region.load(bar, 0, 8),
        |value| format!("{value:#018x}"),
    )?;
    if is_ism(function)? {
        let gid = || {
            region.store_block(ISM_COMMANDS, 0, &ISM_READ_GID.to_be_bytes())?;
            Ok((
                region.load(ISM_COMMANDS, 0, 8)?,
                region.load(ISM_COMMANDS, 8, 8)?,
            ))
        };
        steps.succeeds("PCISTB of the command READ_GID", gid(), |(header, gid)| {
            format!("answer {:#x}, name {gid:#018x}", header >> 16 & 0xffff)
        })?;
    }
    let (loads, each) = timed(repeat, || region.load(bar, 0, 8).map(drop));
    steps.succeeds(&format!("PCILG, {repeat} times"), loads, |()| each)
}

/// What a driver does that lets read the BAR itself.
fn by_bar(
    steps: &mut Steps<'_, '_>,
    function: &Function,
    repeat: u32,
    driver: &str,
) -> Result<(), Failure> {
    let what = format!("a read of the BAR by {driver}, {repeat} times");
    let Some(Register { bar, .. }) = register(function)? else {
        return steps.show(what, Verdict::Skipped, NO_REGISTER);
    };
    let device = requests::open(function.address(), Default::default())?;
    device.enable_memory(true)?;
    let position = device.region(bar.into())?.offset;
    let file = File::from(device.as_fd().try_clone_to_owned()?);
    let mut value = [0; 8];
    match timed(repeat, || file.read_exact_at(&mut value, position)) {
        (Ok(()), each) => steps.show(what, Verdict::Ok, each),
        (Err(error), _) => steps.show(what, Verdict::Failed, error),
    }
}

/// Does something many times, and says how long it takes.
fn timed<E>(repeat: u32, work: impl FnMut() -> Result<(), E>) -> (Result<(), E>, String) {
    let start = Instant::now();
    let result = std::iter::repeat_with(work).take(repeat as usize).collect();
    let each = start.elapsed().as_nanos() / u128::from(repeat.max(1));
    (result, format!("{each} ns each"))
}

/// Requests that reach no function.
fn refusals(
    steps: &mut Steps<'_, '_>,
    function: &Function,
    region: &ZpciIo<BorrowedFd<'_>>,
    register: Option<Register>,
) -> Result<(), Failure> {
    let value = [0u64];
    let address = value.as_ptr().expose_provenance() as u64;
    let bar = register.map_or(0, |register| register.bar);
    let load = Request::load(bar, 0, address, 8);
    let end = function.bar_size(bar)?;
    for (what, request) in [
        ("no flag", Request { flags: 0, ..load }),
        (
            "two flags",
            Request {
                flags: READ | BLOCKW,
                ..load
            },
        ),
        (
            "an unknown flag",
            Request {
                flags: READ | 1 << 63,
                ..load
            },
        ),
        (
            "reserved bits",
            Request {
                reserved: 1,
                ..load
            },
        ),
        (
            "more reserved bits",
            Request {
                reserved2: 1,
                ..load
            },
        ),
        ("a load of 3 bytes", Request { len: 3, ..load }),
        (
            "a load that leaves its doubleword",
            Request { offset: 4, ..load },
        ),
        (
            "a load beyond the BAR",
            Request {
                offset: end,
                ..load
            },
        ),
        (
            "a load to an odd address",
            Request {
                gaddr: address + 1,
                ..load
            },
        ),
        ("BAR 6", Request { pcias: 6, ..load }),
        ("configuration space", Request { pcias: 15, ..load }),
        ("an empty block", Request::block(bar, 0, address, 0)),
        (
            "a block of 4097 bytes",
            Request::block(bar, 0, address, 4097),
        ),
    ] {
        steps.refused(what, region, request, RequestError::Invalid)?;
    }
    if register.is_some() {
        let nowhere = Request { gaddr: 0, ..load };
        steps.refused("a load to no memory", region, nowhere, RequestError::Fault)?;
    }
    Ok(())
}

fn is_ism(function: &Function) -> Result<bool, Failure> {
    Ok((function.number("vendor")?, function.number("device")?) == IBM_ISM)
}

/// Of the kinds of functions that we know, the register at the start of a BAR.
fn register(function: &Function) -> Result<Option<Register>, Failure> {
    let register = |bar, name| Some(Register { bar, name });
    Ok(if is_ism(function)? {
        register(ISM_COMMANDS, "the answer to ISM's last command")
    } else if function.number("class")? == CLASS_NVME {
        register(0, "the capabilities of an NVMe controller")
    } else if function.number("vendor")? == MELLANOX {
        register(0, "the version of a ConnectX adapter's firmware")
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use crate::fake::Fake;

    #[test]
    fn function_in_use_is_not_touched() {
        let fake = Fake::new().device("nvme/nvme0", "nvme", crate::fake::NULL);
        let fake = fake.process("/dev/null", "");
        fake.refused("check 10", "in use");
    }

    #[test]
    fn function_of_another_vfio_driver_is_not_touched() {
        let fake = Fake::new().bound_to_vfio("vfio-pci");
        fake.refused("check 10", "the driver vfio-pci has it");
    }
}
