// SPDX-License-Identifier: GPL-2.0

//! Functions that refuse instructions: each condition code has an errno of its own.

use crate::{
    kernel_log,
    machine::{function, ism, nvme, Region},
    test,
    trace::{self, Issued},
    Test,
};
use ktap::{note, Outcome};
use rustix::io::Errno;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};
use vfio_zpci_io::{abi::Request, sysfs};

/// Argument that makes this program the victim of [`killed_while_busy`].
pub(crate) const VICTIM: &str = "--victim";

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

/// How long and how often, at least, a busy function is tried.
const BUSY_TIME: Duration = Duration::from_millis(1);
const BUSY_TRIES: u64 = 100;

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for refusal in REFUSALS {
        for (name, request) in INSTRUCTIONS {
            let title = format!("{}: condition code {} ({name})", refusal.name, refusal.cc);
            tests.push(test(title, move || refused(refusal, name, request)));
        }
    }
    for ((name, request), fid) in INSTRUCTIONS.into_iter().zip(nvme::BUSY_AT_FIRST) {
        let title = format!("busy {} times, then success ({name})", nvme::TIMES);
        tests.push(test(title, move || busy_at_first(fid, name, request)));
    }
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
    tests.push(test("order: EIO before EREMOTEIO, EBUSY, ENODEV", || {
        not_issued(Errno::IO, |region| {
            region.device.enable_memory(false).expect("memory off");
            region.each()
        })
    }));
    tests.push(test("a reset changes the handle", new_handle));
    tests.push(test("failing requests leave the kernel log alone", silence));
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
    let ((result, time), issued) = trace::during(refusal.fid, || {
        let start = Instant::now();
        let result = region.send(&request);
        (result, start.elapsed())
    });
    assert_eq!(result, Err(refusal.errno));
    region.nothing_loaded();
    let issued = only(&issued);
    is(issued, name, &request);
    assert_eq!(issued.cc, refusal.cc);
    if refusal.cc == 1 {
        assert_eq!(issued.status, refusal.status);
    }
    if refusal.errno == Errno::BUSY {
        note(&format!("{} attempts in {time:?}", issued.tries));
        assert!(issued.tries >= BUSY_TRIES, "{} attempts", issued.tries);
        assert!(time >= BUSY_TIME, "it took {time:?}");
    } else {
        assert_eq!(issued.tries, 1);
    }
    Ok(())
}

fn busy_at_first(fid: u32, name: &str, request: Good) -> Outcome {
    let region = Region::open(fid);
    let request = request(&region);
    for tries in [u64::from(nvme::TIMES) + 1, 1] {
        let (result, issued) = trace::during(fid, || region.send(&request));
        assert_eq!(result, Ok(()));
        let issued = only(&issued);
        is(issued, name, &request);
        assert_eq!((issued.cc, issued.tries), (0, tries));
    }
    Ok(())
}

fn busy_each_second() -> Outcome {
    let region = Region::open(nvme::BUSY_EACH_SECOND);
    let (results, issued) = trace::during(region.fid, || {
        let requests = (0..20).flat_map(|_| region.each());
        requests.map(|r| region.send(&r)).collect::<Vec<_>>()
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(issued.len(), results.len(), "one instruction each");
    // The first may have met the function in its good half.
    assert!(
        issued[1..].iter().all(|i| (i.cc, i.tries) == (0, 2)),
        "{issued:?}"
    );
    Ok(())
}

/// With half a second for each of a hundred attempts, whoever is not killed at once is not killed
/// for most of a minute.
fn killed_while_busy() -> Outcome {
    const LIMIT: Duration = Duration::from_secs(20);
    let function = function(nvme::BUSY_AND_SLOW);
    function.bind(sysfs::DRIVER).expect("the driver takes it");
    let program = env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .arg(VICTIM)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the victim");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line of it");
    assert_eq!(line, "ready\n");

    assert!(!ended(&mut child, Duration::from_secs(2)), "it waits");
    child.kill().expect("killed");
    let start = Instant::now();
    assert!(ended(&mut child, LIMIT), "it dies within {LIMIT:?}");
    note(&format!("dead after {:?}", start.elapsed()));
    Ok(())
}

/// The process that is killed.
pub(crate) fn victim() -> ExitCode {
    let region = Region::open(nvme::BUSY_AND_SLOW);
    println!("ready");
    let result = region.send(&region.block());
    println!("{result:?}");
    ExitCode::FAILURE
}

fn ended(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().expect("its state").is_some() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
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
        (issued.cc, issued.tries),
        (-i64::from(Errno::NXIO.raw_os_error()), 1)
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
        only(&issued).handle
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
    assert_eq!(said, "");
    Ok(())
}
