// SPDX-License-Identifier: GPL-2.0

//! A buffer of an ISM function that somebody else writes to all the time. When its owner loses the
//! function, however that comes, the writes have to be refused: they must reach nobody, nor memory
//! that is not mapped any more, which would put the function into error.
//!
//! The owner is the program `tools/testing/bare/owner.c`, in a guest. The one who writes is the host,
//! by the zPCI I/O region of another ISM function. Both functions are of no use to anybody else.

use crate::{
    chain::wait_until,
    failure::{ensure, Context, Failure},
    host,
    vmm::{self, Monitor, Starting},
    Outcome, Step,
};
use booted::kernel_log;
use std::{
    fs,
    process::Child,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Arc,
    },
    thread::{self, JoinHandle},
};
use vfio_zpci_io::{sysfs::DRIVER, Access, Device, RequestError};

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "a buffer of a function that the guest has disabled is not written to",
        story:
            "The host writes into a guest's buffer all the time. The guest disables the function.",
        run: |_| lost(Order::Disable, |_| Ok(()), "end"),
    },
    Step {
        name: "a buffer of a function that the guest has deconfigured is not written to",
        story: "The same, but the guest deconfigures the function.",
        run: |_| lost(Order::Deconfigure, |_| Ok(()), "end"),
    },
    Step {
        name: "a buffer of a guest that was reset is not written to",
        story: "The same, but the guest is reset.",
        run: |_| lost(Order::None, |owner| owner.execute("system_reset"), AGAIN),
    },
    Step {
        name: "a buffer of a function that was unplugged with the guest's help is not written to",
        story: "The same, but QEMU is asked for the function, and asks the guest.",
        run: |_| lost(Order::Wait, Owner::unplug, "end"),
    },
    Step {
        name:
            "a buffer of a function that was unplugged without the guest's help is not written to",
        story: "The same, but the guest does not listen, and is reset.",
        run: |_| lost(Order::None, Owner::unplug_by_reset, "no function"),
    },
    Step {
        name: "a buffer of a guest whose QEMU has ended is not written to",
        story: "The same, but QEMU is told to end.",
        run: |_| lost(Order::None, |owner| owner.execute("quit"), GONE),
    },
    Step {
        name: "a buffer of a guest whose QEMU was killed is not written to",
        story: "The same, but QEMU is killed.",
        run: |_| {
            lost(
                Order::None,
                |owner| owner.process.kill().context("kill"),
                GONE,
            )
        },
    },
];

/// The function of the guest, and the one that writes.
const OWNER: &str = "0008:00:00.0";
const SENDER: &str = "0009:00:00.0";

const CONSOLE: &str = "/tmp/owner.console";
const MONITOR: &str = "/tmp/owner.monitor";

/// Instead of what the guest says: it has registered another buffer, and there is no QEMU.
const AGAIN: &str = "token again";
const GONE: &str = "gone";

/// So many writes have to be refused afterwards.
const REFUSALS: u64 = 20;

/// Has the functions of these tests bound to our driver, before another one takes them.
pub(crate) fn keep() -> Result<(), Failure> {
    host::function_at(OWNER)?.bind(DRIVER)?;
    Ok(host::function_at(SENDER)?.bind(DRIVER)?)
}

/// What the guest does as soon as it reads it in its buffer.
#[derive(Clone, Copy)]
enum Order {
    None,
    Disable,
    Deconfigure,
    Wait,
}

/// QEMU with the guest.
struct Owner {
    process: Child,
    monitor: Monitor,
}

impl Owner {
    /// Starts it, and waits until it has registered a buffer.
    fn start() -> Result<Self, Failure> {
        let mut qemu = vmm::bare("/owner", CONSOLE, MONITOR);
        // Each is one more occasion for who waits to go on while QEMU resets them one by one.
        qemu.args(["-smp", "8"])
            .args(["-device", "zpci,id=zpci0,uid=7,fid=7,target=ism0"])
            .args(["-device", &format!("vfio-pci,id=ism0,host={OWNER}")]);
        // What another guest has said is not of interest; most often there was none.
        let _ = fs::remove_file(CONSOLE);
        let process = qemu.spawn().context("starting QEMU")?;
        let mut starting = Starting::new(process, CONSOLE);
        starting.wait_for("the guest", || {
            Ok(tokens().ok().filter(|found| !found.is_empty()))
        })?;
        let monitor = Monitor::connect(MONITOR)?;
        Ok(Self {
            process: starting.done(),
            monitor,
        })
    }

    fn execute(&mut self, command: &str) -> Result<(), Failure> {
        self.monitor.execute(command).map(drop)
    }

    fn unplug(&mut self) -> Result<(), Failure> {
        self.monitor.remove("ism0")
    }

    fn unplug_by_reset(&mut self) -> Result<(), Failure> {
        self.unplug()?;
        self.execute("system_reset")
    }
}

/// What the guest has said, line by line.
fn lines() -> Result<Vec<String>, Failure> {
    Ok(vmm::text(CONSOLE)?.lines().map(str::to_owned).collect())
}

/// The tokens of the buffers that it has registered.
fn tokens() -> Result<Vec<u64>, Failure> {
    let lines = lines()?;
    let tokens = lines
        .iter()
        .filter_map(|line| line.strip_prefix("token 0x"));
    Ok(tokens
        .filter_map(|token| u64::from_str_radix(token, 16).ok())
        .collect())
}

/// Somebody who writes into a buffer all the time.
struct Sender {
    shared: Arc<Shared>,
    thread: JoinHandle<Option<String>>,
}

#[derive(Default)]
struct Shared {
    order: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    end: AtomicBool,
}

impl Sender {
    fn start(device: Device, token: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || theirs.write(&device, token).err());
        Self { shared, thread }
    }

    fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    fn end(self) -> Result<(), Failure> {
        self.shared.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(None) => Ok(()),
            Ok(Some(what)) => Err(Failure::Wrong(what)),
            Err(_) => Err(Failure::Wrong("the one who writes has panicked".into())),
        }
    }
}

impl Shared {
    /// An error is what must not happen.
    fn write(&self, device: &Device, token: u64) -> Result<(), String> {
        let region = device.zpci_io().map_err(|error| error.to_string())?;
        let mut number = 0_u64;
        while !self.end.load(Ordering::Relaxed) {
            number += 1;
            let order = self.order.load(Ordering::Relaxed);
            let block = [order.to_be_bytes(), number.to_be_bytes()].concat();
            match region.store_block(0, token, &block) {
                Ok(()) if self.refused.load(Ordering::Relaxed) == 0 => {
                    self.written.fetch_add(1, Ordering::Relaxed);
                }
                Ok(()) => return Err("a write has succeeded after one was refused".into()),
                Err(RequestError::Refused) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// What the kernel has said about functions in error.
fn errors() -> Result<Vec<String>, Failure> {
    let log = kernel_log::so_far().context("the kernel's log")?;
    Ok(log
        .into_iter()
        .filter(|line| line.contains("reports an error"))
        .collect())
}

/// The guest loses its function by `order` or by what `act` does, and says `end` afterwards.
fn lost(order: Order, act: fn(&mut Owner) -> Result<(), Failure>, end: &str) -> Outcome {
    let before = errors()?.len();
    keep()?;
    let device = Device::open(&host::function_at(SENDER)?.address(), Access::Group)?;
    device.enable_memory(true)?;
    let mut owner = Owner::start()?;
    let found = (|| {
        let token = tokens()?[0];
        let sender = Sender::start(device, token);
        let found = write_on(&mut owner, &sender, order, act, end);
        sender.end().and(found)
    })();
    // It may have ended itself.
    let _ = owner.process.kill();
    vmm::wait(&mut owner.process)?;
    let errors = errors()?;
    ensure(errors.len() == before, || errors.join("\n"))?;
    found
}

fn write_on(
    owner: &mut Owner,
    sender: &Sender,
    order: Order,
    act: fn(&mut Owner) -> Result<(), Failure>,
    end: &str,
) -> Outcome {
    wait_until("something arrives", || {
        Ok(lines()?.iter().any(|line| line == "arrived"))
    })?;
    ensure(sender.refused() == 0, || {
        "a write was refused before".into()
    })?;
    sender.shared.order.store(order as u64, Ordering::Relaxed);
    act(owner)?;
    wait_until(end, || match end {
        AGAIN => Ok(tokens()?.len() > 1),
        GONE => Ok(owner.process.try_wait().context("QEMU")?.is_some()),
        _ => Ok(lines()?.iter().any(|line| line == end)),
    })?;
    let refused = sender.refused();
    wait_until("writes are refused", || {
        Ok(sender.refused() >= refused + REFUSALS)
    })?;
    let said = lines()?;
    let wrong = |line: &&String| line.ends_with(": no") || line.contains("something has arrived");
    let wrong: Vec<_> = said.iter().filter(wrong).cloned().collect();
    ensure(wrong.is_empty(), || wrong.join("; "))?;
    Ok(format!(
        "{} writes arrived, then {} were refused, and no function is in error",
        sender.written(),
        sender.refused()
    ))
}
