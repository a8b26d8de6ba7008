// SPDX-License-Identifier: GPL-2.0

//! A request that has to wait for the host, in a guest with two processors: who else has to wait?
//!
//! The guest is the program `tools/testing/bare/wait.c`. Whoever resets the function holds its device
//! lock for some seconds, because the machine below finds it busy for that long.

use crate::{
    chain::{wait_until, Chain},
    failure::{ensure, Context, Failure},
    host,
    vmm::{self, Monitor, Starting},
    Outcome, Step,
};
use std::{fs, process::Child, time::Instant};
use vfio_zpci_io::sysfs::DRIVER;

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "while a request waits, QEMU and the guest's other processor go on",
        story: "A function is reset, which takes seconds, while one of a guest's two processors uses it.",
        run: others_go_on,
    },
    Step {
        name: "a function is disabled after the request that is under way, not before",
        story: "Another reset. The other processor disables the function meanwhile.",
        run: disable,
    },
    Step {
        name: "a function is deconfigured after the request that is under way, not before",
        story: "Two resets more. The other processor deconfigures the function during the second.",
        run: deconfigure,
    },
    Step {
        name: "a function is unplugged after the request that is under way, not before",
        story: "Another reset. The function is unplugged meanwhile, and the guest is reset.",
        run: unplug,
    },
    Step {
        name: "a function is busy for a guest whose request has waited for 5 s (EAGAIN)",
        story: "Four resets, one right after the other. The guest stores again and again.",
        run: gives_up,
    },
    Step {
        name: "while the memory of a request is fetched, QEMU and the guest's other processor go on",
        story: "The guest's memory is on a disk that takes seconds to read.",
        run: slow_memory,
    },
];

/// The function that takes its time to reset.
const ADDRESS: &str = "0005:00:00.0";

/// What QEMU calls it.
const ID: &str = "slow";

/// The one that takes its time to read, and what it is to the kernel.
const DISK: &str = "/dev/nvme0n1";

const CONSOLE: &str = "/tmp/waiting.console";
const MONITOR: &str = "/tmp/waiting.monitor";
const TRACE: &str = "/tmp/waiting.trace";

/// Has QEMU write each request down as it ends.
const TRACED: [&str; 4] = ["-trace", "s390_pci_io", "-D", TRACE];

/// A store that takes longer waits for the reset.
const SLOW_MS: u64 = 1000;

/// How often the monitor has to answer while one store waits. It would be once, by chance, if QEMU
/// stood still.
const ANSWERS: usize = 3;

/// So many resets in a row take longer than a request waits, even if one gets in between two of them.
const RESETS: usize = 4;

/// What QEMU says to a request that has waited too long: EAGAIN.
const GAVE_UP: &str = "-11";

/// QEMU with the guest.
pub(crate) struct Waiting {
    process: Child,
    monitor: Monitor,
}

/// What the guest's other processor says ten times a second.
struct Beat {
    number: u64,
    /// The store that the first one is about, 0 if there is none, and for how long it has been.
    store: u64,
    ms: u64,
    /// How often a store has found the function busy so far.
    busy: usize,
}

impl Beat {
    /// From "beat 57: store 123, for 1800 ms, busy 0 times".
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line
            .strip_prefix("beat ")?
            .split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.find(|text| !text.is_empty())?.parse().ok();
        Some(Self {
            number: number()?,
            store: number()?,
            ms: number()?,
            busy: usize::try_from(number()?).ok()?,
        })
    }
}

impl Waiting {
    /// Starts QEMU with the program, and more arguments.
    fn start(program: &str, more: &[&str]) -> Result<Self, Failure> {
        host::function_at(ADDRESS)?.bind(DRIVER)?;
        // QEMU resets it, too, and shall not wait for the slow kind of reset.
        set_reset_method("flr")?;
        let mut qemu = vmm::bare(program, CONSOLE, MONITOR);
        let zpci = format!("zpci,uid=5,fid=5,target={ID},io-region=on");
        qemu.args(["-device", &zpci])
            .args(["-device", &format!("vfio-pci,id={ID},host={ADDRESS}")])
            .args(more);
        // What another guest has said is not of interest; most often there was none.
        let _ = fs::remove_file(CONSOLE);
        let process = qemu.spawn().context("starting QEMU")?;
        let mut starting = Starting::new(process, CONSOLE);
        starting.wait_for("the guest", || Ok(last_beat().ok().flatten()))?;
        let monitor = Monitor::connect(MONITOR)?;
        set_reset_method("bus")?;
        Ok(Self {
            process: starting.done(),
            monitor,
        })
    }

    /// Whether the monitor has answered while a store waited: the same store waits before the
    /// question and after the answer.
    fn answers(&mut self) -> Result<bool, Failure> {
        let Some(before) = last_beat()?.filter(|beat| beat.ms >= SLOW_MS) else {
            return Ok(false);
        };
        self.monitor.execute("query-status")?;
        let answered = last_beat()?.map_or(0, |beat| beat.number);
        let mut after = None;
        wait_until("a sign of life of the guest", || {
            after = last_beat()?.filter(|beat| beat.number > answered);
            Ok(after.is_some())
        })?;
        Ok(after.is_some_and(|after| after.store == before.store && after.ms > before.ms))
    }

    fn end(mut self) -> Result<(), Failure> {
        self.monitor.execute("quit")?;
        let status = vmm::wait(&mut self.process)?;
        ensure(status.success(), || format!("QEMU ended with {status}"))
    }

    pub fn kill(mut self) -> Result<(), Failure> {
        vmm::kill(&mut self.process)
    }
}

fn set_reset_method(name: &str) -> Result<(), Failure> {
    host::write(
        &format!("/sys/bus/pci/devices/{ADDRESS}/reset_method"),
        name,
    )
}

/// Has the host reset the function.
fn reset() -> Result<Child, Failure> {
    host::shell(&format!("echo 1 >/sys/bus/pci/devices/{ADDRESS}/reset"))
}

/// The lines of the console that are complete.
fn lines() -> Result<Vec<String>, Failure> {
    let text = vmm::text(CONSOLE)?;
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    Ok(complete.lines().map(str::to_owned).collect())
}

fn last_beat() -> Result<Option<Beat>, Failure> {
    Ok(lines()?.iter().rev().find_map(|line| Beat::parse(line)))
}

fn longest_store_ms() -> Result<u64, Failure> {
    let lines = lines()?;
    let times = lines.iter().filter_map(|line| Some(Beat::parse(line)?.ms));
    Ok(times.max().unwrap_or(0))
}

/// Resets the function, and counts the answers of the monitor while a store waits.
fn reset_under(guest: &mut Waiting) -> Result<usize, Failure> {
    let mut reset = reset()?;
    let mut answers = 0;
    wait_until("the end of the reset", || {
        answers += usize::from(guest.answers()?);
        Ok(reset.try_wait().context("the reset")?.is_some())
    })?;
    let status = vmm::wait(&mut reset)?;
    ensure(status.success(), || format!("the reset: {status}"))?;
    Ok(answers)
}

fn others_go_on(chain: &mut Chain) -> Outcome {
    let guest = chain.waiting.insert(Waiting::start("/wait", &[])?);
    let start = Instant::now();
    let answers = reset_under(guest)?;
    let seconds = start.elapsed().as_secs_f32();
    let found = format!(
        "While a store of the guest waited for {} ms or more (the reset took {seconds:.1} s), the \
         monitor has answered {answers} times",
        longest_store_ms()?
    );
    ensure(answers >= ANSWERS, || found.clone())?;
    Ok(found + ", each time between two signs of life of the other processor")
}

fn disable(chain: &mut Chain) -> Outcome {
    if chain.waiting.is_none() {
        others_go_on(chain)?;
    }
    take_away(chain, "disable")
}

fn deconfigure(chain: &mut Chain) -> Outcome {
    let guest = chain
        .waiting
        .insert(Waiting::start("/wait-deconfigure", &[])?);
    reset_under(guest)?;
    take_away(chain, "deconfigure")
}

/// The guest has seen one reset. During the next one it takes the function away from itself.
fn take_away(chain: &mut Chain, action: &str) -> Outcome {
    let Some(mut guest) = chain.waiting.take() else {
        return Err(Failure::Wrong("there is no guest".into()));
    };
    let has = |part: &str| Ok(lines()?.iter().any(|line| line.contains(part)));
    let done = format!("{action}d: ");
    let result = (|| {
        let mut reset = reset()?;
        wait_until("the guest takes the function away", || {
            has(&format!("{action} during store "))
        })?;
        let mut answers = 0;
        wait_until("it is taken away", || {
            guest.monitor.execute("query-status")?;
            let is_done = has(&done)?;
            answers += usize::from(!is_done);
            Ok(is_done)
        })?;
        wait_until("the end of the guest's program", || has("last store: "))?;
        let status = vmm::wait(&mut reset)?;
        ensure(status.success(), || format!("the reset: {status}"))?;
        for wanted in [
            format!("{done}yes").as_str(),
            "the store had ended: yes",
            "last store: cc 3",
        ] {
            ensure(has(wanted)?, || {
                let said = lines().unwrap_or_default().into_iter();
                let said: Vec<_> = said.filter(|line| Beat::parse(line).is_none()).collect();
                format!("not '{wanted}', but: {}", said.join("; "))
            })?;
        }
        ensure(answers > 0, || {
            format!("the monitor has not answered before '{done}'")
        })?;
        Ok(format!(
            "{done}when the store had ended, and the monitor answered {answers} times before"
        ))
    })();
    match result {
        Ok(found) => guest.end().map(|()| found),
        Err(failure) => {
            chain.waiting = Some(guest);
            Err(failure)
        }
    }
}

/// The guest does not listen: the function is unplugged when the machine is reset.
fn unplug(chain: &mut Chain) -> Outcome {
    // Without a function the guest ends, and QEMU with it, unless told.
    let more = [&TRACED, ["-action", "panic=pause"].as_slice()].concat();
    let guest = chain.waiting.insert(Waiting::start("/wait-on", &more)?);
    let monitor = &mut guest.monitor;
    let mut reset = reset()?;
    let mut waiting = None;
    wait_until("a store waits", || {
        waiting = last_beat()?.filter(|beat| beat.ms >= SLOW_MS);
        Ok(waiting.is_some())
    })?;
    let store = waiting.map_or(0, |beat| beat.store);
    let before = vmm::traced(TRACE)?.len();
    monitor.remove(ID)?;
    ensure(monitor.has(ID)?, || {
        "the function has gone, and nobody has asked the guest".into()
    })?;
    let beat = last_beat()?.map_or(0, |beat| beat.number);
    let mut after = None;
    wait_until("a sign of life of the guest", || {
        after = last_beat()?.filter(|after| after.number > beat);
        Ok(after.is_some())
    })?;
    ensure(after.is_some_and(|after| after.store == store), || {
        "the store has not waited for long enough".into()
    })?;

    monitor.execute("system_reset")?;
    wait_until("the function has gone", || Ok(!monitor.has(ID)?))?;
    let requests = vmm::traced(TRACE)?;
    let status = vmm::wait(&mut reset)?;
    ensure(status.success(), || format!("the reset: {status}"))?;
    let result = requests.get(before).map(|request| request.result.as_str());
    ensure(result == Some("0"), || {
        format!("when the function had gone, its request had {result:?}")
    })?;
    wait_until("the guest without a function", || {
        Ok(lines()?.iter().any(|line| line == "no function"))
    })?;
    chain.waiting.take().map_or(Ok(()), Waiting::end)?;
    let found = "when the function had gone, its request had succeeded; the guest finds none";
    Ok(found.into())
}

fn gives_up(chain: &mut Chain) -> Outcome {
    chain.waiting = Some(Waiting::start("/wait-on", &TRACED)?);
    let mut resets = Vec::new();
    for _ in 0..RESETS {
        resets.push(reset()?);
    }
    for reset in &mut resets {
        let status = vmm::wait(reset)?;
        ensure(status.success(), || format!("a reset: {status}"))?;
    }
    let waited = longest_store_ms()?;
    let before = last_beat()?.map_or(0, |beat| beat.store);
    let mut busy = 0;
    wait_until("the guest stores again", || {
        let beat = last_beat()?.filter(|beat| beat.store > before + 1);
        busy = beat.as_ref().map_or(0, |beat| beat.busy);
        Ok(beat.is_some())
    })?;
    chain.waiting.take().map_or(Ok(()), Waiting::end)?;
    let requests = vmm::traced(TRACE)?;
    let gave_up = requests.iter().filter(|request| request.result == GAVE_UP);
    let gave_up = gave_up.count();
    let found = format!(
        "{gave_up} requests of a store that took {waited} ms have given up; the guest found the function \
         busy {busy} times, and then it was not"
    );
    ensure(gave_up > 0 && gave_up == busy, || found.clone())?;
    Ok(found)
}

fn slow_memory(chain: &mut Chain) -> Outcome {
    // The other function of the same kind shall not go to this driver.
    host::function_at(ADDRESS)?.bind(DRIVER)?;
    host::run("modprobe", &["nvme"])?;
    wait_until("the disk", || Ok(fs::exists(DISK).unwrap_or(false)))?;
    let memory = format!("memory-backend-file,id=memory,size=64M,share=on,mem-path={DISK}");
    let more = ["-object", &memory, "-machine", "memory-backend=memory"];
    let guest = chain.waiting.insert(Waiting::start("/wait", &more)?);
    let mut answers = 0;
    wait_until("answers of the monitor while a store waits", || {
        answers += usize::from(guest.answers()?);
        Ok(answers >= ANSWERS)
    })?;
    let found = format!(
        "While stores of the guest waited for memory, for {} ms or more, the monitor has answered \
         {answers} times, each time between two signs of life of the other processor",
        longest_store_ms()?
    );
    let guest = chain.waiting.take();
    guest.map_or(Ok(()), Waiting::end)?;
    Ok(found)
}
