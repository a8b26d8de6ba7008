// SPDX-License-Identifier: GPL-2.0

//! Other programs than the tool: a client in C, and a VMM that has rust-vmm's crate open devices.

use crate::{zpci_io::bind, BAR, MEMORY, OFFSET};
use ktap::{test, Outcome, Test};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    process::Command,
    sync::Arc,
    thread,
};
use vfio_ioctls::{VfioContainer, VfioDevice};
use vfio_zpci_io::{abi, Device, ZpciIo};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("C: store and load", c_sample),
        test("C: function without the region", c_sample_without_region),
        test(
            "rust-vmm: region of a device that vfio-ioctls has opened",
            rust_vmm,
        ),
    ]
}

/// Runs the program of `samples/vfio-zpci-io` on a function.
fn sample(fid: u32) -> (Option<i32>, String) {
    let function = crate::zpci_io::function(fid);
    let node = function.vfio_device().expect("sysfs").expect("a node");
    let output = Command::new("store-and-load")
        .arg(node)
        .args([BAR.to_string(), OFFSET.to_string()])
        .output()
        .expect("the sample");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn c_sample() -> Outcome {
    bind(MEMORY);
    let (code, text) = sample(MEMORY);
    ktap::note(&text);
    // The emulator reverses words, if it has not been mended.
    let reversed = code == Some(3) && std::env::var_os("IN_ORDER").is_none();
    assert!(code == Some(0) || reversed, "{code:?}: {text}");
    Ok(())
}

fn c_sample_without_region() -> Outcome {
    let function = crate::zpci_io::function(MEMORY);
    function.bind("vfio-pci").expect("the driver takes it");
    let (code, text) = sample(MEMORY);
    assert_eq!(code, Some(1));
    assert!(text.contains("no zPCI I/O region"), "{text}");
    Ok(())
}

/// A device of rust-vmm's, which tells its descriptor as a number.
struct Opened(VfioDevice);

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: It is open as long as the device is.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

fn rust_vmm() -> Outcome {
    let function = bind(MEMORY);
    let container = Arc::new(VfioContainer::new(None).expect("a container"));
    let opened = VfioDevice::new(function.directory(), container, true).expect("it opens it");
    let device = Arc::new(Opened(opened));
    // Memory by its means, the region by ours.
    Device::new(device.as_fd())
        .enable_memory(true)
        .expect("memory on");
    let region = ZpciIo::find(device.clone()).expect("the region");

    // It knows regions, too: ours is where it says.
    let found = (0..16).find(|&index| {
        let caps = device.0.get_region_caps(index);
        caps.iter().any(|cap| match cap {
            vfio_ioctls::VfioRegionInfoCap::Type(kind) => {
                (kind.type_, kind.subtype) == (abi::REGION_TYPE, abi::REGION_SUBTYPE)
            }
            _ => false,
        })
    });
    let found = found.expect("it finds the region");
    assert_eq!(device.0.get_region_offset(found), region.position());

    // Each thread has the region for as long as it likes.
    drop(device);
    let threads = [0, 1].map(|thread| {
        let region = region.clone();
        let offset = OFFSET + 64 * thread;
        thread::spawn(move || {
            for value in 1..100 {
                region.store(BAR, offset, 8, value).expect("stored");
                assert_eq!(region.load(BAR, offset, 8), Ok(value));
            }
        })
    });
    for thread in threads {
        assert!(thread.join().is_ok(), "requests of a thread");
    }
    Ok(())
}
