// SPDX-License-Identifier: GPL-2.0

//! All that is not the region: a function whose BARs can be mapped is the same with our driver as with
//! `vfio-pci`, call by call.
//!
//! That both drivers have the same operations is shown by unit tests in the kernel (`rust/vfio/driver.rs`);
//! here it is what a user sees of them.

use crate::{
    calls::{self, Command},
    client::{show, Lines},
    machine::{self, nvme},
};
use ktap::{test, Outcome, Test};
use rustix::{
    event::{eventfd, EventfdFlags},
    io::{pread, pwrite},
};
use std::{ffi::OsString, fs, path::Path};
use vfio_zpci_io::{
    sysfs::{Function, DRIVER},
    Access, Capability, Device, Error,
};

const GENERIC: &str = "vfio-pci";

/// How many regions every function has: BARs, expansion ROM, configuration space, VGA.
const REGIONS: u32 = 9;

pub(crate) fn tests() -> Vec<Test> {
    // Before anything else: others bind functions, some when they are told what tests they have.
    let bound = bound();
    let mut tests = vec![test("loading the module binds nothing", move || {
        assert!(bound.is_empty(), "{bound:?}");
        Ok(())
    })];
    let observations: [(&str, Observe); 7] = [
        ("device", device),
        ("regions", regions),
        ("interrupts", interrupts),
        ("features", features),
        ("commands", commands),
        ("address spaces", address_spaces),
        ("configuration space and BARs", accesses),
    ];
    for (name, observe) in observations {
        tests.push(test(format!("as vfio-pci: {name}"), move || {
            same(|function| observe(&open(function)))
        }));
    }
    tests.push(test("as vfio-pci: names in the group", || same(names)));
    tests
}

/// What a client sees of a device.
type Observe = fn(&Device) -> Lines;

/// The functions that our driver has.
fn bound() -> Vec<OsString> {
    let driver = Path::new("/sys/bus/pci/drivers").join(DRIVER);
    let names = fs::read_dir(driver).expect("the module is loaded");
    names
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().contains(':'))
        .collect()
}

/// The client sees the same with both drivers.
fn same(observe: impl Fn(&Function) -> Lines) -> Outcome {
    let function = machine::function(nvme::PLAIN);
    let [theirs, ours] = [GENERIC, DRIVER].map(|driver| {
        function.bind(driver).expect("the driver takes it");
        observe(&function).0
    });
    for (theirs, ours) in theirs.lines().zip(ours.lines()) {
        assert_eq!(ours, theirs, "ours and that of {GENERIC}");
    }
    assert_eq!(ours, theirs);
    assert!(!ours.is_empty(), "there is something to compare");
    Ok(())
}

fn open(function: &Function) -> Device {
    Device::open(&function.address(), Access::Iommufd).expect("it can be opened")
}

fn device(device: &Device) -> Lines {
    /// `VFIO_DEVICE_INFO_CAP_ZPCI_BASE`; where in its body the handle is, which a reset changes.
    const ZPCI_BASE: u16 = 1;
    const HANDLE: std::ops::Range<usize> = 24..28;
    let mut lines = Lines::default();
    let info = device.info().expect("device info");
    lines.add("flags", info.flags);
    lines.add("interrupts", info.num_irqs);
    // One more is documented.
    let regions = device.region(REGIONS).map_or(0, |_| 1);
    lines.add("regions", info.num_regions - regions);
    for Capability { id, version, body } in info.capabilities {
        let mut body = body;
        if id == ZPCI_BASE {
            body.drain(HANDLE);
        }
        lines.add(format!("capability {id}"), format!("{version} {body:?}"));
    }
    lines
}

fn regions(device: &Device) -> Lines {
    let mut lines = Lines::default();
    for index in 0..REGIONS {
        lines.add(index, text(device.region(index)));
    }
    lines
}

fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
}

fn interrupts(device: &Device) -> Lines {
    let mut lines = Lines::default();
    for index in 0..8 {
        let info = calls::command(device, Command::GetIrqInfo, &[0, index, 0]);
        lines.add(index, show(info));
    }
    lines
}

fn features(device: &Device) -> Lines {
    const GET: u32 = 1 << 16;
    const SET: u32 = 1 << 17;
    const PROBE: u32 = 1 << 18;
    /// More than there are.
    const FEATURES: u32 = 32;
    let mut lines = Lines::default();
    let mut some = false;
    for feature in 0..FEATURES {
        for (name, flags) in [
            ("probe", PROBE),
            ("probe get", PROBE | GET),
            ("probe set", PROBE | SET),
            ("probe both", PROBE | GET | SET),
            ("get", GET),
        ] {
            let answer = calls::command(device, Command::Feature, &[feature | flags, 0, 0, 0, 0]);
            some |= answer.is_ok();
            lines.add(format!("{feature}: {name}"), show(answer));
        }
    }
    assert!(some, "no feature at all");
    lines
}

fn commands(device: &Device) -> Lines {
    let mut lines = Lines::default();
    let unknown = calls::command(device, Command::Unknown, &[0; 7]);
    lines.add("unknown", show(unknown));
    // The structure, with room for one function: group or device, segment, bus, function.
    let hot_reset = calls::command(device, Command::GetPciHotResetInfo, &[0, 0, 0, 0]);
    lines.add("hot reset", show(hot_reset));
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
    for index in 0..REGIONS {
        let position = u64::from(index) << 40;
        let ioeventfd = calls::ioeventfd(device, position, &event);
        lines.add(format!("ioeventfd {index}"), show(ioeventfd));
    }
    let reset = device.reset();
    lines.add("reset", text(reset));
    lines
}

fn address_spaces(device: &Device) -> Lines {
    const PASID: u32 = 1;
    let mut lines = Lines::default();
    // It is in one: out of it, twice, and into one that is not there.
    let steps: [(&str, Command, &[u32]); 5] = [
        ("detach with PASID", Command::DetachIommufdPt, &[PASID, 7]),
        ("detach", Command::DetachIommufdPt, &[0]),
        ("detach again", Command::DetachIommufdPt, &[0]),
        ("attach", Command::AttachIommufdPt, &[0, 12345]),
        (
            "attach with PASID",
            Command::AttachIommufdPt,
            &[PASID, 12345, 7],
        ),
    ];
    for (name, command, fields) in steps {
        lines.add(name, show(calls::command(device, command, fields)));
    }
    lines
}

fn accesses(device: &Device) -> Lines {
    const CONFIG: u32 = 7;
    const CONFIG_SIZE: usize = 256;
    let mut lines = Lines::default();
    let position = |index: u32, offset: u64| u64::from(index) << 40 | offset;
    let mut config = [0; CONFIG_SIZE];
    device
        .read_config(0, &mut config)
        .expect("configuration space");
    lines.add("configuration space", format!("{config:?}"));
    // Behind the command register, and up to the capabilities, which reset the function or switch it off.
    for at in (6..0x40).step_by(2) {
        let written = pwrite(device, &[0xff; 2], position(CONFIG, at));
        lines.add(format!("write to {at:#x}"), show(written));
    }
    let read = pread(device, &mut config, position(CONFIG, 0));
    lines.add("as written", format!("{} {config:?}", show(read)));

    for on in [false, true] {
        device.enable_memory(on).expect("PCI_COMMAND");
        for index in 0..REGIONS {
            for (offset, len) in [(0, 1), (0, 2), (0, 4), (0, 8), (8, 8), (3, 5), (1 << 39, 8)] {
                let mut bytes = vec![0; len];
                let read = pread(device, &mut bytes[..], position(index, offset));
                let name = format!("memory {on}: {len} of {index} at {offset:#x}");
                lines.add(name, format!("{} {bytes:?}", show(read)));
            }
        }
        let writes: [(u64, &[u8]); 2] = [(0x2000, &[1, 2, 3, 4, 5, 6, 7, 8]), (0x2003, &[9; 5])];
        for (offset, bytes) in writes {
            let written = pwrite(device, bytes, position(machine::BAR.into(), offset));
            let mut now = [0; 16];
            let read = pread(device, &mut now, position(machine::BAR.into(), 0x2000));
            let name = format!("memory {on}: write to {offset:#x}");
            lines.add(name, format!("{} {} {now:?}", show(written), show(read)));
        }
        for index in 0..REGIONS {
            let mapped = calls::mmap(device, position(index, 0));
            lines.add(format!("memory {on}: mmap {index}"), show(mapped));
        }
    }
    lines
}

/// By which names a group gives the device.
fn names(function: &Function) -> Lines {
    let mut lines = Lines::default();
    let group = function.group().expect("sysfs").expect("a group");
    let address = function.address().to_string();
    for suffix in [
        "",
        " ",
        "x",
        " x",
        " vf_token=",
        " vf_token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
    ] {
        let device = Device::open_group(group, &format!("{address}{suffix}"));
        lines.add(format!("'{suffix}'"), text(device.map(|_| "open")));
    }
    lines
}
