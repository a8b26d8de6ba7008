// SPDX-License-Identifier: GPL-2.0

//! The machine we run on, be it the host or the guest: its functions, interrupts, trace.

use crate::failure::{ensure, Context, Failure};
use booted::{
    kernel_log,
    trace::{self, Issued},
};
use std::{
    fs, io,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};
use vfio_zpci_io::sysfs::Function;

/// The function that goes to the guest.
pub(crate) const ADDRESS: &str = "0002:00:00.0";
const FID: u32 = 0x20;
/// The one that it can reach: the host's own, or another guest's.
pub(crate) const OTHER_ADDRESS: &str = "0003:00:00.0";
const SLOT: &str = "/sys/bus/pci/slots/00000020/power";

/// A machine under emulation, in a machine under emulation, takes its time. What takes longer
/// than this hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits until there is something.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(found) = look()? {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(50));
    }
    let limit = limit.as_secs();
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{what}: not within {limit} s"),
    ))
}

/// The identities of the ISM devices in use by their driver, as soon as there are `count`, and SMC has
/// taken as many. (A device is in sysfs before SMC is told of it: `dibs_dev_add()`.)
pub(crate) fn ism_devices(count: usize) -> io::Result<Vec<String>> {
    wait_for("ISM devices", LIMIT, || {
        let mut devices = Vec::new();
        // Without the driver there is no such directory.
        for entry in fs::read_dir("/sys/class/dibs").into_iter().flatten() {
            let gid = fs::read_to_string(entry?.path().join("gid"))?;
            devices.push(gid.trim().to_string());
        }
        Ok((devices.len() == count && smc_devices()? == count).then_some(devices))
    })
}

/// How many ISM devices SMC has, as the kernel's log says.
fn smc_devices() -> io::Result<usize> {
    let mut count = 0_usize;
    for line in kernel_log::so_far()? {
        count += usize::from(line.contains("smc: adding smcd device"));
        count -= usize::from(line.contains("smc: removing smcd device")).min(count);
    }
    Ok(count)
}

/// How many interrupts PCI functions have caused.
pub(crate) fn pci_interrupts() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/interrupts")?;
    let lines = text.lines().filter(|line| line.contains("PCI-MSI"));
    let counts = lines.flat_map(|line| {
        // The first word is the number of the interrupt, then there is one for each processor.
        let words = line.split_whitespace().skip(1);
        words.map_while(|word| word.parse::<u64>().ok())
    });
    Ok(counts.sum())
}

/// The function that goes to the guest, as soon as the kernel knows it.
pub(crate) fn function() -> Result<Function, Failure> {
    function_at(ADDRESS)
}

/// A function, as soon as the kernel knows it.
pub(crate) fn function_at(address: &str) -> Result<Function, Failure> {
    let address = address.parse()?;
    wait_for("the function", LIMIT, || Ok(Function::open(address).ok())).context("sysfs")
}

/// Has the function's slot switched. The process may have to wait for whoever uses the function.
pub(crate) fn switch(on: bool) -> Result<Child, Failure> {
    shell(&format!("echo {} >{SLOT}", u8::from(on)))
}

/// Has a shell do something meanwhile.
pub(crate) fn shell(script: &str) -> Result<Child, Failure> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .spawn()
        .context("starting the shell")
}

pub(crate) fn has_power() -> Result<bool, Failure> {
    Ok(read(SLOT)?.trim() == "1")
}

/// Has the kernel bind functions to drivers as soon as it finds them, or not.
pub(crate) fn set_autoprobe(on: bool) -> Result<(), Failure> {
    write("/sys/bus/pci/drivers_autoprobe", if on { "1" } else { "0" })
}

/// Runs a command that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let status = Command::new(program).args(arguments).status();
    let status = status.context(format!("starting {program}"))?;
    ensure(status.success(), || {
        format!("{program} {}: {status}", arguments.join(" "))
    })
}

/// Has the kernel record the driver's instructions.
pub(crate) fn trace() -> Result<(), Failure> {
    trace::start().context("tracing")
}

/// The instructions that the driver has issued since then for the guest, in the words of a
/// [request](crate::vmm::Request).
pub(crate) fn instructions() -> Result<Vec<String>, Failure> {
    let issued = trace::issued().context("tracing")?;
    let ours = issued.iter().filter(|issued| issued.fid == FID);
    let words = |Issued {
                     name,
                     space,
                     offset,
                     len,
                     cc,
                     ..
                 }: &Issued| {
        format!("{name} bar {space} offset {offset:#x} len {len} result {cc}")
    };
    Ok(ours.map(words).collect())
}

pub(crate) fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).context(path)
}

pub(crate) fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(Path::new(path), text).context(path)
}
