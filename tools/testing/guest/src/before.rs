// SPDX-License-Identifier: GPL-2.0

//! What there is without the region: the generic driver vfio-pci.

use crate::{
    chain::Chain,
    failure::{ensure, Context},
    host, vmm, Outcome, Step,
};
use rustix::io::{pwrite, Errno};
use std::os::fd::AsFd;
use vfio_zpci_io::{Access, Device};

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "before: with vfio-pci, QEMU cannot give an ISM function to a guest",
        story: "The function is bound to the generic driver, vfio-pci. Now QEMU starts a guest.",
        run: refused,
    },
    Step {
        name: "before: with vfio-pci, a VMM cannot store a block",
        story: "Still with vfio-pci: a program writes a block of 16 bytes to the function's BAR.",
        run: cannot_store,
    },
];

const GENERIC: &str = "vfio-pci";

fn refused(_: &mut Chain) -> Outcome {
    const REASON: &str = "MSI-X support is mandatory";
    host::function()?.bind(GENERIC)?;
    host::run("modprobe", &["tun"])?;
    let output = vmm::qemu(&vmm::FIRST).output().context("starting QEMU")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure(!output.status.success() && message.contains(REASON), || {
        format!("QEMU ended with {}: {message}", output.status)
    })?;
    Ok(format!("QEMU does not start it: {}", message.trim()))
}

fn cannot_store(_: &mut Chain) -> Outcome {
    const BAR: u32 = 0;
    let function = host::function()?;
    function.bind(GENERIC)?;
    let device = Device::open(&function.address(), Access::Group)?;
    device.enable_memory(true)?;
    let offset = device.region(BAR)?.offset;
    let result = pwrite(device.as_fd(), &[0x55; 16], offset);
    ensure(result == Err(Errno::NODEV), || format!("{result:?}"))?;
    Ok("The write fails with ENODEV: ISM's BARs cannot be mapped".into())
}
