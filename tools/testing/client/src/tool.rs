// SPDX-License-Identifier: GPL-2.0

//! `zpci-io`: what it takes, and above all what it does not take.

use crate::{
    zpci_io::{bind, driver, ended, function, run, run_with},
    BAR, DISK, MEMORY, OFFSET,
};
use ktap::{test, Outcome, Test};
use rustix::{
    fs::{open, Mode, OFlags},
    io::Errno,
    net::{
        sendmsg, socketpair, AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketFlags, SocketType,
    },
    pipe::{fcntl_setpipe_size, pipe_with, PipeFlags},
};
use std::{
    fs::{self, File},
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use vfio_zpci_io::{
    sysfs::{Binding, DRIVER},
    Access, Device,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("zpci-io: list", list),
        test("zpci-io: unbind of a disk's function", unbind_disk),
        test("zpci-io: bind of an open disk's function", bind_open_disk),
        test(
            "zpci-io: bind of a claimed disk's function",
            bind_claimed_disk,
        ),
        test("zpci-io: bind and unbind by function id", bind_and_unbind),
        test("zpci-io: function that is open by its node", || {
            open_function(Access::Iommufd)
        }),
        test("zpci-io: function that is open by its group", || {
            open_function(Access::Group)
        }),
        test(
            "zpci-io: function of another VFIO driver",
            other_vfio_driver,
        ),
        test("zpci-io: one function, several instructions", batch),
        test(
            "zpci-io: batch with a mistake issues nothing",
            batch_mistake,
        ),
        test("zpci-io: errno of an instruction", instruction_error),
        test("zpci-io: info --open", info_open),
        test("zpci-io: closed pipe", closed_pipe),
        test("zpci-io: demo whose output nobody reads", unread_demo),
        test("zpci-io: doctor", doctor),
        test(
            "zpci-io check: a function is as it was, whatever it was to be",
            check_and_restore,
        ),
    ]
}

fn list() -> Outcome {
    let list = run("list --json").json();
    let fids: Vec<_> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f["fid"].clone())
        .collect();
    for fid in ["00000010", "00000040"] {
        assert!(fids.contains(&fid.into()), "{list}");
    }
    Ok(())
}

/// The disk of the function, when its driver has found it.
#[track_caller]
fn disk() -> PathBuf {
    let controllers = function(DISK).directory().join("nvme");
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let disk = entries(&controllers)
            .flat_map(|controller| entries(&controller))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .find(|name| name.starts_with("nvme") && name.contains('n'));
        let node = disk.map(|name| Path::new("/dev").join(name));
        if let Some(node) = node.filter(|node| node.exists()) {
            return node;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the driver nvme finds a disk");
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
}

fn unbind_disk() -> Outcome {
    disk();
    run("unbind 40").refused("the driver nvme has it, not zpci_vfio_pci");
    assert_eq!(driver(DISK), "nvme");
    Ok(())
}

fn bind_open_disk() -> Outcome {
    let disk = disk();
    let file = File::open(&disk).expect("the disk");
    run("bind 40").refused("has it open");
    assert_eq!(driver(DISK), "nvme");
    drop(file);
    Ok(())
}

/// A disk that is in use, and no process has it open: as if it were mounted.
fn bind_claimed_disk() -> Outcome {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(disk(), flags, Mode::empty()).expect("the disk");
    // In a message that nobody receives.
    let _sockets = hidden(file);
    run("bind 40").refused("is mounted, or part of something that is in use");
    assert_eq!(driver(DISK), "nvme");
    Ok(())
}

/// Sends a file, and keeps no descriptor of it.
fn hidden(file: OwnedFd) -> (OwnedFd, OwnedFd) {
    let kind = SocketType::DGRAM;
    let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("sockets");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let data = [IoSlice::new(b"a disk")];
    sendmsg(&pair.0, &data, &mut ancillary, SendFlags::empty()).expect("it is sent");
    pair
}

fn bind_and_unbind() -> Outcome {
    disk();
    let bound = run("bind 40 --json").json();
    assert_eq!(bound["driver"], DRIVER);
    assert_eq!(driver(DISK), DRIVER);
    let unbound = run("unbind 40 --json").json();
    assert_eq!(unbound["driver"], "nvme");
    disk();
    Ok(())
}

fn open_function(access: Access) -> Outcome {
    let function = bind(MEMORY);
    let device = Device::open(&function.address(), access).expect("it can be opened");
    run("unbind 10").refused("(client-test) has it open");
    run(&format!("unbind {}", function.address())).refused("has it open");
    run("demo 10").refused("has it open");
    // Not an error: nothing is opened.
    let info = run("info 10 --json").json();
    assert_eq!(info["users"].as_array().map(Vec::len), Some(1), "{info}");
    // In the words of the kernel for the one and for the other, and what they mean.
    let open = |way| run(&format!("load 10 2 0 8 --json {way}"));
    let errno = match access {
        Access::Group => Errno::BUSY,
        _ => Errno::INVAL,
    };
    for (way, errno) in [("--iommufd", errno), ("--group", Errno::BUSY)] {
        let ended = open(way);
        assert_eq!(ended.code, 1, "it is open already");
        let error: serde_json::Value = serde_json::from_str(&ended.err).expect("JSON");
        assert_eq!(error["errno"], errno.raw_os_error(), "{way}: {error}");
        let remedy = error["remedy"].as_str().unwrap_or_default();
        assert!(
            remedy.contains("Another process has the function open"),
            "{way}: {error}"
        );
    }
    drop(device);
    let info = run("info 10 --json").json();
    assert_eq!(info["users"].as_array().map(Vec::len), Some(0), "{info}");
    run("unbind 10").done();
    Ok(())
}

fn other_vfio_driver() -> Outcome {
    function(MEMORY)
        .bind("vfio-pci")
        .expect("the driver takes it");
    run("unbind 10").refused("the driver vfio-pci has it");
    run("load 10 2 0 8").refused("the driver vfio-pci has it");
    run("demo 10").refused("the driver vfio-pci has it");
    let demo = run("demo");
    assert_eq!(demo.code, 1, "{}", demo.out);
    assert!(demo.out.contains("set apart for VFIO"), "{}", demo.out);
    assert_eq!(driver(MEMORY), "vfio-pci");
    run("unbind 10 --force").done();
    assert_ne!(driver(MEMORY), "vfio-pci");
    Ok(())
}

fn batch() -> Outcome {
    bind(MEMORY);
    let lines = format!(
        "# a value, and it back\nstore {BAR} {OFFSET} 8 0x0102030405060708\nload {BAR} {OFFSET} 8\n\
         load {BAR} {OFFSET} 2\nstore-block {BAR} {OFFSET} {}\nload {BAR} {OFFSET:#x} 8\n",
        "5a".repeat(16)
    );
    let text = run_with("batch 10", &lines).done();
    assert_eq!(
        text,
        "store 2 0x1000 8\nload 2 0x1000 8 0x0102030405060708\nload 2 0x1000 2 0x0102\n\
         store-block 2 0x1000 16\nload 2 0x1000 8 0x5a5a5a5a5a5a5a5a\n"
    );
    let json = run_with("batch 10 --json", "load 2 0x1000 8").json();
    assert_eq!(json["insn"], "load");
    Ok(())
}

fn batch_mistake() -> Outcome {
    bind(MEMORY);
    run_with("batch 10", "store 2 0x1000 8 1\n").done();
    let ended = run_with("batch 10", "store 2 0x1000 8 2\nlode 2 0x1000 8\n");
    assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    assert!(ended.err.contains("line 2"), "{}", ended.err);
    let text = run("load 10 2 0x1000 8").done();
    assert_eq!(text, "0x0000000000000001\n");
    Ok(())
}

fn instruction_error() -> Outcome {
    bind(MEMORY);
    let ended = run_with(
        "batch 10 --json",
        "load 2 0x1000 8\nload 2 0x1004 8\nload 2 0x1000 8\n",
    );
    assert_eq!(ended.code, 4, "{}", ended.err);
    assert_eq!(
        ended.out.lines().count(),
        1,
        "the first one succeeds, the third is not reached"
    );
    let error: serde_json::Value = serde_json::from_str(&ended.err).expect("JSON");
    assert_eq!(error["request"]["errno"], 22, "EINVAL");
    assert_eq!(error["request"]["issued"], false);
    Ok(())
}

fn info_open() -> Outcome {
    bind(MEMORY);
    let region = &run("info 10 --json --open").json()["opened"]["region"];
    assert_eq!(region["has_store"], true, "{region}");
    assert!(region["block_max"].as_u64() >= Some(16), "{region}");
    let closed = run("info 10 --json").json();
    assert!(closed["opened"].is_null(), "{closed}");
    Ok(())
}

/// A run whose output is a pipe that nobody reads.
fn unread(line: &str) -> crate::zpci_io::Ended {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drop(reader);
    let mut command = Command::new("zpci-io");
    command.args(line.split_whitespace());
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped());
    let child = command.spawn().expect("zpci-io");
    // The command has the pipe, too.
    drop(command);
    ended(child.wait_with_output().expect("zpci-io"))
}

fn closed_pipe() -> Outcome {
    for line in [
        "list",
        "list --json",
        "info 10",
        "--help",
        "doctor",
        "load 10 2 0x1000 8",
    ] {
        unread(line).done();
    }
    Ok(())
}

/// Nobody reads any more when the demonstration has bound the function.
fn unread_demo() -> Outcome {
    const PIPE: usize = 4096;
    /// So much the demonstration may print before it has to wait.
    const ROOM: usize = 1000;
    function(MEMORY).unbind().expect("it is given back");
    let before = driver(MEMORY);
    assert_ne!(before, DRIVER);

    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    fcntl_setpipe_size(&writer, PIPE).expect("a small pipe");
    rustix::io::write(&writer, &[b' '; PIPE - ROOM]).expect("some bytes");
    let mut command = Command::new("zpci-io");
    command.args(["demo", "10"]).stdin(Stdio::null());
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn();
    drop(command);
    let end = Instant::now() + Duration::from_secs(60);
    while driver(MEMORY) != DRIVER {
        assert!(Instant::now() < end, "the function is bound");
        thread::sleep(Duration::from_millis(10));
    }
    drop(reader);
    let output = child.expect("zpci-io").wait_with_output();
    ended(output.expect("zpci-io")).done();
    assert_eq!(driver(MEMORY), before, "the function is as it was");
    Ok(())
}

/// As it is when a rule of udev comes too late.
fn check_and_restore() -> Outcome {
    let function = function(MEMORY);
    function.unbind().expect("it is given back");
    let theirs = function.binding().expect("sysfs");
    let waiting = Binding {
        driver_override: Some(DRIVER.to_owned()),
        ..theirs.clone()
    };
    for before in [theirs, waiting, NO_DRIVER] {
        function.restore(&before).expect("the driver of before");
        assert_eq!(function.binding().expect("sysfs"), before);
        run("check 10 --repeat 10").done();
        assert_eq!(function.binding().expect("sysfs"), before);
    }
    function.unbind().expect("it is given back");
    Ok(())
}

/// A function that is nobody's.
const NO_DRIVER: Binding = Binding {
    driver: None,
    driver_override: None,
};

fn doctor() -> Outcome {
    let text = run("doctor").done();
    assert!(
        text.contains("the driver zpci_vfio_pci is loaded"),
        "{text}"
    );
    Ok(())
}
