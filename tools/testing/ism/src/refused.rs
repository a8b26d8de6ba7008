// SPDX-License-Identifier: GPL-2.0

//! Functions that refuse instructions: each condition code has an errno of its own.

use crate::{
    calls,
    client::Client,
    machine::{function, ism, nvme, Region},
    trace,
};
use booted::{end_of, kernel_log, trace::Issued, Mapping};
use ktap::{note, test, Outcome, Test};
use rustix::{
    event::{eventfd, EventfdFlags},
    io::Errno,
    mm::MprotectFlags,
};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};
use vfio_zpci_io::{abi::Request, sysfs};

/// First argument that makes this program one that only sends a request, see [`Sender`].
pub(crate) const SENDER: &str = "--sender";

/// How long a request may take that has nothing to wait for, and a process to die. With half a
/// second for each attempt ([`nvme::BUSY_AND_SLOW`]) 100 would take longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A good request.
type Good = fn(&Region) -> Request;

/// The three instructions, by the name the tracepoint has for them.
const INSTRUCTIONS: [(&str, Good); 3] = [
    ("PCISTB", Region::block),
    ("PCILG", Region::load),
    ("PCISTG", Region::store),
];

/// A function that refuses all instructions, and how.
#[derive(Clone, Copy)]
struct Refusal {
    name: &'static str,
    errno: Errno,
    fid: u32,
    cc: i64,
    status: u64,
}

const REFUSALS: [Refusal; 3] = [
    Refusal {
        name: "EREMOTEIO",
        errno: Errno::REMOTEIO,
        fid: nvme::REFUSES,
        cc: 1,
        status: 8,
    },
    Refusal {
        name: "EBUSY",
        errno: Errno::BUSY,
        fid: nvme::BUSY,
        cc: 2,
        status: 0,
    },
    Refusal {
        name: "ENODEV",
        errno: Errno::NODEV,
        fid: nvme::GONE,
        cc: 3,
        status: 0,
    },
];

/// How long and how often, at least, a busy function is tried; unless that takes too long.
const BUSY_TIME: Duration = Duration::from_millis(1);
const BUSY_TRIES: u64 = 100;
const BUSY_LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for refusal in REFUSALS {
        for (name, request) in INSTRUCTIONS {
            let title = format!("{}: condition code {} ({name})", refusal.name, refusal.cc);
            tests.push(test(title, move || match refusal.errno {
                Errno::BUSY => always_busy(name),
                _ => refused(refusal, name, request),
            }));
        }
    }
    for ((name, request), fid) in INSTRUCTIONS.into_iter().zip(nvme::BUSY_AT_FIRST) {
        let title = format!("busy {} times, then success ({name})", nvme::TIMES);
        tests.push(test(title, move || busy_at_first(fid, name, request)));
    }
    tests.push(test(
        "EBUSY: 100 attempts, however long they take",
        always_busy_and_tardy,
    ));
    tests.push(test(
        "EBUSY: 5 s, however few the attempts",
        always_busy_and_slow,
    ));
    tests.push(test(
        "busy: the host is not kept out",
        host_gets_in_between_attempts,
    ));
    tests.push(test("busy at each second instruction", busy_each_second));
    tests.push(test("killed while the function is busy", killed_while_busy));
    for (name, request) in INSTRUCTIONS {
        let title = format!("ENXIO: program exception ({name})");
        tests.push(test(title, move || exception(name, request)));
    }
    tests.push(test(
        "order: EINVAL before EREMOTEIO, EBUSY, ENODEV",
        || not_issued(Errno::INVAL, |region| region.each().map(misfit)),
    ));
    tests.push(test(
        "order: EFAULT before EREMOTEIO, EBUSY, ENODEV",
        || not_issued(Errno::FAULT, |region| region.each().map(nowhere)),
    ));
    tests.push(test(
        "EFAULT: a READ that could not be delivered is not issued",
        not_delivered,
    ));
    tests.push(test("order: EIO before EREMOTEIO, EBUSY, ENODEV", || {
        not_issued(Errno::IO, |region| {
            region.device.enable_memory(false).expect("memory off");
            region.each()
        })
    }));
    tests.push(test("a reset changes the handle", new_handle));
    tests.push(test(
        "EINVAL: MSI-X structures in a BAR of their own",
        msix_of_its_own,
    ));
    tests.push(test("failing requests leave the kernel log alone", silence));
    tests.push(test(
        "no call leaves something in the kernel log",
        quiet_calls,
    ));
    tests.push(test("zpci-io check: a function that refuses", check_fails));
    tests
}

/// The only instruction that was issued.
fn only(issued: &[Issued]) -> &Issued {
    let [one] = issued else {
        panic!("issued instead of one: {issued:?}");
    };
    one
}

/// It is the instruction that was asked for.
fn is(issued: &Issued, name: &str, request: &Request) {
    let asked = (
        name,
        u64::from(request.pcias),
        u64::from(request.len),
        request.offset,
    );
    let was = (
        issued.name.as_str(),
        issued.space,
        issued.len,
        issued.offset,
    );
    assert_eq!(was, asked);
}

fn refused(refusal: Refusal, name: &str, request: Good) -> Outcome {
    let region = Region::open(refusal.fid);
    let request = request(&region);
    let (result, issued) = trace::during(refusal.fid, || region.send(&request));
    assert_eq!(result, Err(refusal.errno));
    region.nothing_loaded();
    let issued = only(&issued);
    is(issued, name, &request);
    assert_eq!((issued.cc, issued.tries), (refusal.cc, 1));
    if refusal.cc == 1 {
        assert_eq!(issued.status, refusal.status);
    }
    Ok(())
}

/// At least so often and so long, but not for ever.
fn always_busy(name: &str) -> Outcome {
    let (tries, time) = gives_up(nvme::BUSY, name);
    assert!(tries >= BUSY_TRIES, "{tries} attempts");
    assert!(time >= BUSY_TIME, "it took {time:?}");
    Ok(())
}

/// So often, even if that takes longer.
fn always_busy_and_tardy() -> Outcome {
    let (tries, _) = gives_up(nvme::BUSY_AND_TARDY, "PCISTB");
    assert_eq!(tries, BUSY_TRIES);
    Ok(())
}

/// But not if that takes very long.
fn always_busy_and_slow() -> Outcome {
    let (tries, time) = gives_up(nvme::BUSY_AND_SLOW, "PCISTB");
    // The function takes its time for each, however fast the host is: so many fit into the limit, and
    // one more that ends after it.
    let most = BUSY_LIMIT.as_millis() / nvme::DELAY.as_millis() + 1;
    assert!(u128::from(tries) <= most, "{tries} attempts");
    assert!(time >= BUSY_LIMIT, "it took {time:?}");
    Ok(())
}

/// How often and how long a function that is always busy is tried.
fn gives_up(fid: u32, name: &str) -> (u64, Duration) {
    let (answer, issued) = trace::during(fid, || {
        let mut sender = Sender::start(fid, name);
        assert!(sender.ends(LIMIT), "it gives up within {LIMIT:?}");
        sender.answer()
    });
    let (errno, micros) = answer.trim_end().split_once(' ').expect("two numbers");
    assert_eq!(errno, Errno::BUSY.raw_os_error().to_string());
    let time = Duration::from_micros(micros.parse().expect("a time"));
    let tries = attempts(&issued);
    let last = issued.last().expect("an attempt");
    assert_eq!((last.name.as_str(), last.cc), (name, 2));
    note(&format!("{tries} attempts in {time:?}"));
    (tries, time)
}

/// How often a request was tried. They are all attempts at the same, the last of which may have
/// succeeded.
fn attempts(issued: &[Issued]) -> u64 {
    let last = issued.last().expect("an attempt");
    for (attempt, number) in issued.iter().zip(1..) {
        let mut expected = last.clone();
        expected.tries = number;
        if number < last.tries {
            expected.cc = 2;
        }
        assert_eq!(*attempt, expected);
    }
    last.tries
}

fn busy_at_first(fid: u32, name: &str, request: Good) -> Outcome {
    let region = Region::open(fid);
    let request = request(&region);
    for tries in [u64::from(nvme::TIMES) + 1, 1] {
        let (result, issued) = trace::during(fid, || region.send(&request));
        assert_eq!(result, Ok(()));
        assert_eq!(attempts(&issued), tries);
        let last = issued.last().expect("an attempt");
        is(last, name, &request);
        assert_eq!(last.cc, 0);
    }
    Ok(())
}

/// Each attempt has a lease of its own: whoever resets the function meanwhile need not wait until the
/// request gives up.
fn host_gets_in_between_attempts() -> Outcome {
    let fid = nvme::BUSY_AND_SLOW;
    let reset = format!("/sys/bus/pci/devices/{}/reset", function(fid).address());
    let (ended, issued) = trace::during(fid, || {
        let mut sender = Sender::start(fid, "PCISTB");
        tried(fid, &mut sender);
        fs::write(&reset, "1").expect("reset by the host");
        let ended = sender.ends(Duration::ZERO);
        assert!(sender.ends(LIMIT), "it gives up within {LIMIT:?}");
        ended
    });
    assert!(!ended, "the host waited for the request");
    note(&format!("{} attempts", issued.len()));
    Ok(())
}

/// Waits until a request to a function that is busy and slow has been tried.
fn tried(fid: u32, sender: &mut Sender) {
    while trace::so_far(fid).is_empty() {
        assert!(!sender.ends(Duration::from_millis(20)), "it tries");
    }
}

fn busy_each_second() -> Outcome {
    let region = Region::open(nvme::BUSY_EACH_SECOND);
    let (results, issued) = trace::during(region.fid, || {
        let requests = (0..20).flat_map(|_| region.each());
        requests.map(|r| region.send(&r)).collect::<Vec<_>>()
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    // The first may have met the function in its good half.
    let issued = match issued.len() % 2 {
        0 => &issued[..],
        _ => &issued[1..],
    };
    let both: Vec<_> = issued.chunks(2).map(attempts).collect();
    assert!(both.len() + 1 >= results.len(), "{issued:?}");
    assert!(both.iter().all(|tries| *tries == 2), "{issued:?}");
    Ok(())
}

/// Who is killed tries no more: the attempt that is under way ends, and no other is begun after it.
fn killed_while_busy() -> Outcome {
    let fid = nvme::BUSY_AND_SLOW;
    let ((before, ended), issued) = trace::during(fid, || {
        let mut sender = Sender::start(fid, "PCISTB");
        tried(fid, &mut sender);
        sender.child.kill().expect("killed");
        // Some may have ended since, however long this process had to wait for a processor.
        (trace::so_far(fid).len(), sender.ends(LIMIT))
    });
    assert!(ended, "it dies within {LIMIT:?}");
    let after = issued.len() - before;
    assert!(after <= 1, "{after} attempts after that");
    Ok(())
}

/// A process that sends one request, and can be killed when that takes too long.
struct Sender {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Sender {
    /// Returns when the request is about to be sent.
    fn start(fid: u32, name: &str) -> Self {
        let program = env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args([SENDER, &fid.to_string(), name])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let output = child.stdout.take().expect("its output");
        let mut sender = Self {
            child,
            output: BufReader::new(output),
        };
        assert_eq!(sender.answer(), "ready\n");
        sender
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    fn ends(&mut self, limit: Duration) -> bool {
        end_of(&mut self.child, limit).expect("its state").is_some()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }
}

/// Main program of a [`Sender`]: says errno and microseconds.
pub(crate) fn sender(fid: &str, name: &str) -> ExitCode {
    let request = INSTRUCTIONS.into_iter().find(|(known, _)| *known == name);
    let (Ok(fid), Some((_, request))) = (fid.parse(), request) else {
        return ExitCode::from(2);
    };
    let region = Region::open(fid);
    let request = request(&region);
    println!("ready");
    let start = Instant::now();
    let errno = region.send(&request).err().map_or(0, Errno::raw_os_error);
    println!("{errno} {}", start.elapsed().as_micros());
    ExitCode::SUCCESS
}

/// ISM accepts nothing but blocks at BAR 0, and NVMe no block of 8 bytes.
fn exception(name: &str, request: Good) -> Outcome {
    let region = match name {
        "PCISTB" => Region::open(nvme::PLAIN),
        _ => Region::open(ism::PAIR[0]),
    };
    let request = match name {
        "PCISTB" => Request {
            len: 8,
            ..request(&region)
        },
        _ => Request {
            pcias: 0,
            ..request(&region)
        },
    };
    let (result, issued) = trace::during(region.fid, || region.send(&request));
    assert_eq!(result, Err(Errno::NXIO));
    region.nothing_loaded();
    let issued = only(&issued);
    is(issued, name, &request);
    assert_eq!(
        (issued.cc, issued.status, issued.tries),
        (-i64::from(Errno::NXIO.raw_os_error()), 0, 1)
    );
    Ok(())
}

/// A request that leaves the BAR.
fn misfit(request: Request) -> Request {
    Request {
        offset: 1 << 40,
        ..request
    }
}

/// A request for memory that is not there.
fn nowhere(request: Request) -> Request {
    Request {
        gaddr: 16,
        ..request
    }
}

/// Requests to functions that refuse everything get `errno` instead, and are not issued.
fn not_issued(errno: Errno, requests: fn(&Region) -> [Request; 3]) -> Outcome {
    for refusal in REFUSALS {
        let region = Region::open(refusal.fid);
        for request in requests(&region) {
            let (result, issued) = trace::during(refusal.fid, || region.send(&request));
            assert_eq!(result, Err(errno), "{}: {request:x?}", refusal.name);
            assert_eq!(issued, [], "{}: {request:x?}", refusal.name);
        }
    }
    Ok(())
}

/// What a load would take from the function is not lost.
fn not_delivered() -> Outcome {
    let region = Region::open(nvme::PLAIN);
    let value = Mapping::value();
    value.protect(MprotectFlags::READ);
    let request = Request {
        gaddr: value.addr(),
        ..region.load()
    };
    let (result, issued) = trace::during(region.fid, || region.send(&request));
    assert_eq!((result, issued.as_slice()), (Err(Errno::FAULT), &[][..]));
    Ok(())
}

/// The kernel disables and enables the function again: the old handle is void.
fn new_handle() -> Outcome {
    let region = Region::open(nvme::PLAIN);
    let method = format!(
        "/sys/bus/pci/devices/{}/reset_method",
        function(region.fid).address()
    );
    fs::write(&method, "bus").expect("a method that changes the handle");
    let issue = || {
        let (result, issued) = trace::during(region.fid, || region.send(&region.block()));
        assert_eq!(result, Ok(()));
        let handle = only(&issued).handle;
        // The kernel's own word for it.
        let kernels = function(region.fid).number("function_handle");
        assert_eq!(handle, kernels.expect("sysfs"));
        handle
    };
    let mut last = issue();
    for _ in 0..3 {
        region.device.reset().expect("reset");
        let handle = issue();
        assert_ne!(handle, last, "the reset has changed the handle");
        last = handle;
    }
    fs::write(&method, "default").expect("all methods");
    Ok(())
}

/// Which BAR they are in, the function says. What lies at the same offset of another is not theirs.
fn msix_of_its_own() -> Outcome {
    const CAPABILITIES: u64 = 0x34;
    const MSIX: u8 = 0x11;
    let region = Region::open(nvme::MSIX);
    let config = |at, len| {
        let mut bytes = [0; 4];
        region
            .device
            .read_config(at, &mut bytes[..len])
            .expect("configuration space");
        u32::from_le_bytes(bytes)
    };
    let mut capability = config(CAPABILITIES, 1);
    while config(capability.into(), 1) as u8 != MSIX {
        assert_ne!(capability, 0, "it has MSI-X");
        capability = config(u64::from(capability) + 1, 1);
    }
    for location in [4, 8].map(|at| config(u64::from(capability) + at, 4)) {
        let (bar, offset) = ((location & 7) as u8, u64::from(location & !7));
        assert_ne!(bar, 0, "another BAR than that of the registers");
        let load = |pcias, len| Request {
            pcias,
            offset,
            len,
            ..region.load()
        };
        // From the first byte on.
        let (result, issued) = trace::during(region.fid, || region.send(&load(bar, 1)));
        assert_eq!(
            (result, issued.len()),
            (Err(Errno::INVAL), 0),
            "{offset:#x}"
        );
        let (result, issued) = trace::during(region.fid, || region.send(&load(0, 8)));
        assert_eq!((result, issued.len()), (Ok(()), 1), "{offset:#x}");
    }
    Ok(())
}

fn silence() -> Outcome {
    let plain = Region::open(nvme::PLAIN);
    let strict = Request {
        len: 8,
        ..plain.block()
    };
    let regions = REFUSALS.map(|refusal| (refusal.errno, Region::open(refusal.fid)));
    let said = kernel_log::during(|| {
        for (errno, region) in &regions {
            let times = if *errno == Errno::BUSY { 10 } else { 200 };
            for request in region.each() {
                for _ in 0..times {
                    assert_eq!(region.send(&request), Err(*errno));
                    assert_eq!(region.send(&misfit(request)), Err(Errno::INVAL));
                    assert_eq!(region.send(&nowhere(request)), Err(Errno::FAULT));
                }
            }
        }
        for _ in 0..200 {
            assert_eq!(plain.send(&strict), Err(Errno::NXIO));
        }
    });
    assert_eq!(said.expect("the kernel's log"), [""; 0]);
    Ok(())
}

/// Whatever a user does, from the opening on, the driver keeps to itself.
fn quiet_calls() -> Outcome {
    let said = kernel_log::during(|| {
        let region = Region::open(nvme::PLAIN);
        region.device.enable_memory(false).expect("memory off");
        for request in region.each() {
            assert_eq!(region.send(&request), Err(Errno::IO));
        }
        region.device.reset().expect("reset");
        drop(region);

        let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
        for fid in [ism::PAIR[0], ism::REFUSES, ism::GONE, ism::BUSY] {
            let client = Client::open(fid, sysfs::DRIVER);
            // Good and bad, within the BAR and beyond it: what comes of them other tests show.
            for offset in [0x80, 0xfc, 0x100, 1 << 40] {
                let _ = client.read(2, offset, 8);
                let _ = client.write(2, offset, &[0; 8]);
                let position = client.position(2, offset);
                let _ = calls::pread_to_nowhere(&client.device, 8, position);
                let _ = calls::pwrite_from_nowhere(&client.device, 8, position);
                let _ = calls::mmap(&client.device, position);
                let _ = calls::ioeventfd(&client.device, position, &event);
            }
            client.device.reset().expect("reset");
        }
    });
    let mut said = said.expect("the kernel's log");
    // What the PCI core says, whatever the driver.
    let core = [": enabling device (", ": resetting\n", ": reset done\n"];
    said.retain(|record| !core.iter().any(|words| record.contains(words)));
    assert_eq!(said, [""; 0]);
    Ok(())
}

fn check_fails() -> Outcome {
    let check = |fid: u32| {
        let mut tool = Command::new("zpci-io");
        let output = tool
            .args(["check", &format!("{fid:x}"), "--repeat", "10"])
            .output();
        let output = output.expect("zpci-io");
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), text)
    };
    let steps = |text: &str, verdict: &str| {
        let lines = text
            .lines()
            .filter(|line| line.trim_start().starts_with(verdict));
        lines.count()
    };
    let (code, good) = check(nvme::PLAIN);
    assert_eq!((code, steps(&good, "FAILED")), (Some(0), 0), "{good}");
    let before = function(nvme::REFUSES).binding().expect("sysfs");
    let (code, bad) = check(nvme::REFUSES);
    assert_eq!(code, Some(1), "{bad}");
    // Loads, one and several. That bad requests are refused is as it should be.
    assert_eq!(steps(&bad, "FAILED   PCILG of"), 1, "{bad}");
    assert_eq!(steps(&bad, "FAILED"), 2, "{bad}");
    assert_eq!(steps(&bad, "ok") + 2, steps(&good, "ok"), "{bad}");
    assert_eq!(function(nvme::REFUSES).binding().expect("sysfs"), before);
    Ok(())
}
