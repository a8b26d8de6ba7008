// SPDX-License-Identifier: GPL-2.0

//! The stand-in for a VMM: a process that reads commands and answers each with its name and what
//! came of it. `asked` and `error` come unasked, when VFIO signals the eventfds for them, `error` with
//! what came of requests that were sent at once.

use super::pace::{self, Pace};
use crate::{
    nvme,
    tally::{self, Tally},
    ADDRESS, BAR,
};
use booted::Missing;
use rustix::{
    event::{eventfd, EventfdFlags},
    io::{dup3, read, DupFlags, Errno},
    ioctl::{ioctl, opcode, Opcode, Setter},
};
use std::{
    fs::File,
    io,
    mem::{self, ManuallyDrop},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        Arc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use vfio_zpci_io::{abi::Request, Access, Error, Irq, RequestError, ZpciIo};

pub(crate) fn main(threads: &str, pace: &str) -> ExitCode {
    let result = match (threads.parse(), Pace::named(pace)) {
        (Ok(threads), Some(pace)) => serve(threads, pace),
        _ => Err("how many threads, at which pace?".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("# vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The device, and its region, which threads share. The last who has it closes it.
type Device = Arc<vfio_zpci_io::Device>;
type Region = ZpciIo<Device>;

/// Opens the function and does what it is told until it is told to exit.
fn serve(threads: usize, pace: Pace) -> Result<(), Box<dyn std::error::Error>> {
    let address = ADDRESS.parse()?;
    let device = Arc::new(vfio_zpci_io::Device::open(&address, Access::Iommufd)?);
    device.enable_memory(true)?;
    announce(&device, Irq::Request, || println!("asked"))?;
    let region = ZpciIo::find(device.clone())?;
    let same = region.clone();
    announce(&device, Irq::Error, move || {
        println!("error {}", repeat(20, || request(&same, 0, 0)));
    })?;
    let mut workers = Workers::start(&region, threads, pace);
    println!("ready");

    for line in io::stdin().lines() {
        let line = line?;
        let (command, count) = line.split_once(' ').unwrap_or((&line, "1"));
        let count = count.parse()?;
        let repeat = |call: &dyn Fn() -> Result<(), i32>| repeat(count, call);
        let tally = match command {
            "issue" => repeat(&|| request(&region, 0, 0)),
            "reset" => repeat(&|| device.reset().map_err(errno)),
            "hot-reset" => repeat(&|| hot_reset(&device)),
            "toggle" => repeat(&|| {
                device.enable_memory(false).map_err(errno)?;
                thread::yield_now();
                device.enable_memory(true).map_err(errno)
            }),
            "block" => repeat(&|| block(&region).map_err(errno_of)),
            "stray-dma" => repeat(&|| nvme::stray_dma(&device, &region)),
            "mark" => repeat(&|| nvme::mark(&region)),
            "is-marked" => repeat(&|| nvme::is_marked(&region)),
            "no-dma" => repeat(&|| nvme::disable(&region)),
            "close" => repeat(&|| close(&device).map_err(errno_of)),
            "stop" => workers.stop(),
            "exit" => break,
            _ => return Err(format!("'{line}'?").into()),
        };
        println!("{command} {tally}");
    }
    // Not a return: there may be threads that never end by themselves.
    std::process::exit(0)
}

fn repeat(count: u32, call: impl Fn() -> Result<(), i32>) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..count {
        // It is counted.
        let _ = tally.call(&call);
    }
    tally
}

/// Does this whenever VFIO signals `irq`, before anything else here: while who signals it still holds
/// the device lock.
fn announce(device: &Device, irq: Irq, act: impl Fn() + Send + 'static) -> Result<(), Error> {
    let event = eventfd(0, EventfdFlags::CLOEXEC).map_err(|source| Error::Call {
        call: "eventfd",
        source: source.into(),
    })?;
    device.set_eventfd(irq, Some(event.as_fd()))?;
    thread::spawn(move || {
        pace::be_urgent(1);
        while read(&event, &mut [0; 8]).is_ok() {
            act();
        }
    });
    Ok(())
}

/// The threads that send requests all the time.
struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Workers {
    /// Starts them, and waits until each has sent its first request.
    fn start(region: &Region, threads: usize, pace: Pace) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Arc::new(AtomicUsize::new(0));
        let work = |number| {
            let (stop, started) = (stop.clone(), started.clone());
            let region = region.clone();
            thread::spawn(move || {
                let mut tally = Tally::default();
                let mut moment = pace.of_thread(number);
                for round in 0.. {
                    moment.wait();
                    let result = tally.call(|| request(&region, number, round));
                    if round == 0 {
                        started.fetch_add(1, Ordering::Relaxed);
                    }
                    // The file has been closed.
                    let over = result == Err(Errno::BADF.raw_os_error());
                    if over || stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                tally
            })
        };
        let threads = (1..=threads).map(work).collect::<Vec<_>>();
        while started.load(Ordering::Relaxed) < threads.len() {
            thread::sleep(Duration::from_millis(1));
        }
        Self { stop, threads }
    }

    fn stop(&mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads.drain(..) {
            all += &thread.join().expect("a thread with requests");
        }
        all
    }
}

/// One request: a block, a load and a store by turns, each thread at its own place.
fn request(region: &Region, thread: usize, round: u32) -> Result<(), i32> {
    #[repr(align(64))]
    struct Block([u8; 64]);
    let at = 0x1000 * (1 + thread as u64);
    let result = match round % 3 {
        0 => region.store_block(BAR, at, &Block([0x5a; 64]).0),
        1 => region.load(BAR, at, 8).map(drop),
        _ => region.store(BAR, at, 8, round.into()),
    };
    result.map_err(|error| error.errno().unwrap_or(0))
}

/// Has VFIO reset all functions of the slot, of which ours is the only one.
fn hot_reset(device: &Device) -> Result<(), i32> {
    /// `VFIO_DEVICE_PCI_HOT_RESET`, with `struct vfio_pci_hot_reset { argsz, flags, count }`. A
    /// device opened by its character device names no groups.
    const HOT_RESET: Opcode = opcode::none(b';', 113);
    // SAFETY: It reads the three integers.
    unsafe { ioctl(device, Setter::<HOT_RESET, _>::new([12_u32, 0, 0])) }.map_err(errno_of)
}

/// Closes the device under the threads that use it: from now on their writes go to a file that
/// cannot be written. (Not by close(): the number could be given to another file.)
fn close(device: &Device) -> Result<(), Errno> {
    let unwritable = File::open("/dev/null").map_err(|_| Errno::NOENT)?;
    // SAFETY: It is open; it is not closed twice, as it is never dropped.
    let mut fd = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(device.as_fd().as_raw_fd()) });
    dup3(&unwritable, &mut fd, DupFlags::CLOEXEC)
}

/// Starts a thread whose request waits for a page that nobody provides, and waits until it does.
fn block(region: &Region) -> Result<(), Errno> {
    const LIMIT: Duration = Duration::from_secs(10);

    let missing = Missing::page()?;
    let page = missing.addr();
    let region = region.clone();
    thread::spawn(move || {
        let block = Request::block(BAR, 0, page, 64);
        // SAFETY: The request only reads memory.
        let result: Result<(), RequestError> = unsafe { region.request(&block) };
        println!("unblocked {result:?}");
    });
    if !missing.is_wanted(LIMIT) {
        return Err(Errno::TIMEDOUT);
    }
    // It stays as it is: without it the request would go on.
    mem::forget(missing);
    Ok(())
}

fn errno(error: Error) -> i32 {
    match error {
        Error::Call { source, .. } => tally::errno(&source),
        _ => 0,
    }
}

fn errno_of(error: Errno) -> i32 {
    error.raw_os_error()
}
