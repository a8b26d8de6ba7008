// SPDX-License-Identifier: GPL-2.0

//! Counts the instructions of an access to a zPCI function, from user space and back, by this
//! driver, by its twin in C and by others.
//!
//! `zpci-bench` wants a machine with one CPU whose clock counts instructions (QEMU's
//! `-icount shift=0,sleep=off`): then a nanosecond is an instruction, and busy neighbours of the
//! emulator do not matter. Each line of its output is a figure: `count`, driver, what was called,
//! how many bytes it moves, instructions; separated by tabs.
//!
//! For each driver with the region it then sends requests for a while, to be watched one
//! instruction at a time: a line `profile` and the driver's name goes before.

mod count;
mod function;

use crate::function::{Function, BAR, ISM, MOVES, NVME, TARGET};
use rustix::{
    io::{pwrite, Errno},
    process::getppid,
};
use std::{
    error::Error,
    io::{stdout, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::{atomic::AtomicU64, Barrier},
    thread,
    time::{Duration, Instant},
};
use vfio_zpci_io::{
    abi::{self, Request},
    sysfs::DRIVER,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The same region in C, see tools/testing/twin; and the subtypes of its other regions.
const TWIN: &str = "zpci_twin";
const COPIED: u32 = 0x100;
const IN_PLACE: u32 = 0x101;
const SEVERAL: u32 = 0x102;

/// How many bytes an access moves.
const SIZES: [usize; 4] = [8, 16, 64, 128];
const PAGE: usize = abi::PAGE_SIZE;

/// An address where no program has memory.
const NOWHERE: u64 = 4096;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zpci-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let null = || {
        let _ = getppid();
        Ok(())
    };
    count::print(
        "kernel",
        "null system call",
        0,
        count::instructions(Ok(()), null)?,
    );
    for driver in [DRIVER, TWIN] {
        blocks(driver, "PCISTB", abi::REGION_SUBTYPE, 1)?;
        values(driver)?;
    }
    blocks(TWIN, "PCISTB, copied up to 256", COPIED, 1)?;
    blocks(TWIN, "PCISTB, in place", IN_PLACE, 1)?;
    blocks(TWIN, "PCISTB, one of 8 in a write", SEVERAL, 8)?;
    bars(DRIVER, ISM)?;
    bars("ism_vfio_pci", ISM)?;
    bars("vfio-pci", NVME)?;
    vfio_pci_by_8()?;
    [DRIVER, TWIN].into_iter().try_for_each(profile)?;
    // At the end: for a process that has had threads, a system call takes more instructions.
    [DRIVER, TWIN].into_iter().try_for_each(contention)
}

/// Where a driver takes requests.
fn region(function: &Function, subtype: u32) -> Result<u64> {
    let position = function.requests(subtype)?;
    position.ok_or_else(|| format!("there is no region of subtype {subtype:#x}").into())
}

/// PCISTB of each size, so many in a write.
fn blocks(driver: &str, call: &str, subtype: u32, at_once: usize) -> Result<()> {
    let print = |function: &Function, bar, offset, size| {
        let position = region(function, subtype)?;
        let request = Request::block(bar, offset, function.data(), size as u16);
        let requests = request.to_bytes().repeat(at_once);
        let fd = function.device.as_fd();
        let write = || pwrite(fd, &requests, position);
        let count = count::instructions(Ok(requests.len()), write)?;
        count::print(driver, call, size, count / at_once as u64);
        Ok::<_, Box<dyn Error>>(())
    };
    let nvme = Function::open(NVME, driver)?;
    for size in [16, 64, 128] {
        nvme.clear(size)?;
        print(&nvme, BAR, TARGET, size)?;
        nvme.has_arrived(size)?;
    }
    // QEMU 10.0 ends with an assertion when an operand in place faults.
    if subtype != IN_PLACE {
        faults(&nvme, region(&nvme, subtype)?)?;
    }
    let ism = Function::open(ISM, driver)?;
    print(&ism, BAR, TARGET, 8)?;
    let buffer = ism.register_buffer(Some(region(&ism, abi::REGION_SUBTYPE)?))?;
    print(&ism, MOVES, buffer, PAGE)
}

/// Whatever is cheaper must do as much: memory that is not there is refused, and memory that only
/// has to be faulted in is not.
fn faults(function: &Function, position: u64) -> Result<()> {
    let write = |address| {
        let request = Request::block(BAR, TARGET, address, 128);
        pwrite(&function.device, &request.to_bytes(), position)
    };
    // So large that it is mapped for this, and not touched.
    let memory = vec![0_u8; 64 * PAGE];
    let untouched = memory.as_ptr().expose_provenance().next_multiple_of(PAGE) as u64;
    match (write(NOWHERE), write(untouched)) {
        (Err(Errno::FAULT), Ok(abi::REQUEST_SIZE)) => Ok(()),
        other => Err(format!("memory that is not there, and that is untouched: {other:?}").into()),
    }
}

/// The other instructions, and requests that are refused.
fn values(driver: &str) -> Result<()> {
    let function = Function::open(NVME, driver)?;
    let position = region(&function, abi::REGION_SUBTYPE)?;
    let fd = function.device.as_fd();
    let print = |call, wanted: std::result::Result<usize, Errno>, request: Request| {
        let bytes = request.to_bytes();
        let write = || pwrite(fd, &bytes, position);
        let count = count::instructions(wanted, write)?;
        count::print(driver, call, request.len.into(), count);
        Ok::<_, Errno>(())
    };
    let done = Ok(abi::REQUEST_SIZE);
    let data = function.data();
    // Loaded values are not looked at.
    let value = AtomicU64::new(0);
    let value = value.as_ptr().expose_provenance() as u64;
    print("PCILG", done, Request::load(BAR, TARGET, value, 8))?;
    print("PCISTG", done, Request::store(BAR, TARGET, data, 8))?;

    let nothing = Request {
        flags: 0,
        ..Request::block(BAR, TARGET, data, 128)
    };
    print("refused: EINVAL", Err(Errno::INVAL), nothing)?;
    let nowhere = Request::block(BAR, TARGET, NOWHERE, 128);
    print("refused: EFAULT", Err(Errno::FAULT), nowhere)?;
    Ok(())
}

/// How many threads send requests, and how many all of them together.
const THREADS: usize = 8;
const SENT: usize = 16_000;

/// PCISTB by several threads, each request.
fn contention(driver: &str) -> Result<()> {
    let function = Function::open(NVME, driver)?;
    let position = region(&function, abi::REGION_SUBTYPE)?;
    let request = Request::block(BAR, TARGET, function.data(), 128).to_bytes();
    let fd = function.device.as_fd();
    for (threads, call) in [(1, "PCISTB, 1 thread"), (THREADS, "PCISTB, 8 threads")] {
        let begin = Barrier::new(threads);
        let send = || {
            if begin.wait().is_leader() {
                count::await_tick();
            }
            begin.wait();
            let start = Instant::now();
            for _ in 0..SENT / threads {
                pwrite(fd, &request, position)?;
            }
            Ok((start, Instant::now()))
        };
        let times = thread::scope(|scope| {
            let senders: Vec<_> = (0..threads).map(|_| scope.spawn(send)).collect();
            let times = senders.into_iter().map(|sender| sender.join());
            times.collect::<std::result::Result<Vec<_>, _>>()
        });
        let times = times.map_err(|_| "a thread panicked")?;
        let times: Vec<_> = times
            .into_iter()
            .collect::<std::result::Result<_, Errno>>()?;
        let first = times.iter().map(|(start, _)| *start).min();
        let last = times.iter().map(|(_, end)| *end).max();
        let time = last
            .zip(first)
            .map_or(Duration::ZERO, |(last, first)| last - first);
        count::print(driver, call, 128, (time.as_nanos() / SENT as u128) as u64);
    }
    Ok(())
}

/// Accesses by the regions of the BARs.
fn bars(driver: &str, fid: u32) -> Result<()> {
    let function = Function::open(fid, driver)?;
    let store = |bar, offset, size| {
        let count = count::instructions(Ok(size), || function.store(bar, offset, size))?;
        count::print(driver, "BAR store", size, count);
        Ok::<_, Box<dyn Error>>(())
    };
    for size in SIZES {
        store(BAR, TARGET, size)?;
    }
    if fid == ISM {
        store(MOVES, function.register_buffer(None)?, PAGE)?;
    }
    for size in SIZES {
        let count = count::instructions(Ok(size), || function.load(BAR, TARGET, size))?;
        count::print(driver, "BAR load", size, count);
    }
    Ok(())
}

/// What users do for whom an access must be one instruction.
fn vfio_pci_by_8() -> Result<()> {
    let driver = "vfio-pci";
    let function = Function::open(NVME, driver)?;
    for size in SIZES {
        let count = count::instructions(Ok(()), || {
            (0..size as u64)
                .step_by(8)
                .try_for_each(|at| function.store(BAR, TARGET + at, 8).map(|_| ()))
        })?;
        count::print(driver, "BAR store, a call for 8 bytes", size, count);
    }
    Ok(())
}

/// How long requests are sent to be watched, in time of the machine: enough for whoever watches to
/// begin, and more than he sees.
const WATCHED: Duration = Duration::from_millis(200);

fn profile(driver: &str) -> Result<()> {
    let function = Function::open(NVME, driver)?;
    let position = region(&function, abi::REGION_SUBTYPE)?;
    let request = Request::block(BAR, TARGET, function.data(), 128).to_bytes();
    let fd = function.device.as_fd();
    println!("profile\t{driver}");
    stdout().flush()?;
    let begin = Instant::now();
    while begin.elapsed() < WATCHED {
        for _ in 0..100 {
            pwrite(fd, &request, position)?;
        }
    }
    Ok(())
}
