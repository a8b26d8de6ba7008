// SPDX-License-Identifier: GPL-2.0

//! Just enough of an NVMe controller to have it access memory by DMA.
//!
//! Its registers are little-endian, the values of requests big-endian.

use std::{
    thread,
    time::{Duration, Instant},
};
use vfio_zpci_io::{Device, DeviceFile, ZpciIo};

const BAR: u8 = 0;
/// Controller configuration: enabled, queue entries of 64 and 16 bytes.
const CC: u64 = 0x14;
const CC_ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
/// Controller status: ready.
const CSTS: u64 = 0x1c;
const CSTS_READY: u32 = 1;
/// Sizes (less one) and addresses of the administration queues.
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
/// There is a new entry in the submission queue.
const DOORBELL: u64 = 0x1000;

/// In the DMA window of an emulated function, which begins at 4 GiB; nothing is mapped there. (What
/// lies outside of the window does not reach the machine's IOMMU.)
const NOWHERE: u64 = 0x1_0100_0000;

/// Sizes of queue entries: what a user may well leave in the configuration, and a reset removes.
const CC_MARK: u32 = 6 << 16 | 4 << 20;

/// Leaves something in the controller that a reset removes.
pub(crate) fn mark(region: &ZpciIo<impl DeviceFile>) -> Result<(), i32> {
    store32(region, CC, CC_MARK)?;
    is_marked(region)
}

/// Whether it is still there: fails with `ENODATA` if not.
pub(crate) fn is_marked(region: &ZpciIo<impl DeviceFile>) -> Result<(), i32> {
    match load32(region, CC)? {
        CC_MARK => Ok(()),
        _ => Err(rustix::io::Errno::NODATA.raw_os_error()),
    }
}

/// Has the controller fetch a command from memory that is not mapped for it.
pub(crate) fn stray_dma(device: &Device, region: &ZpciIo<impl DeviceFile>) -> Result<(), i32> {
    device.enable_dma(true).map_err(|_| 0)?;

    disable(region)?;
    store32(region, AQA, 15 << 16 | 15)?;
    store64(region, ASQ, NOWHERE)?;
    store64(region, ACQ, NOWHERE + 0x1000)?;
    store32(region, CC, CC_ENABLED)?;
    wait_ready(region, true)?;
    store32(region, DOORBELL, 1)
}

/// Switches the controller off.
pub(crate) fn disable(region: &ZpciIo<impl DeviceFile>) -> Result<(), i32> {
    store32(region, CC, 0)?;
    wait_ready(region, false)
}

fn wait_ready(region: &ZpciIo<impl DeviceFile>, ready: bool) -> Result<(), i32> {
    let end = Instant::now() + Duration::from_secs(5);
    while (load32(region, CSTS)? & CSTS_READY != 0) != ready {
        if Instant::now() > end {
            return Err(rustix::io::Errno::TIMEDOUT.raw_os_error());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn load32(region: &ZpciIo<impl DeviceFile>, at: u64) -> Result<u32, i32> {
    match region.load(BAR, at, 4) {
        Ok(value) => Ok((value as u32).swap_bytes()),
        Err(error) => Err(error.errno().unwrap_or(0)),
    }
}

fn store32(region: &ZpciIo<impl DeviceFile>, at: u64, value: u32) -> Result<(), i32> {
    region
        .store(BAR, at, 4, value.swap_bytes().into())
        .map_err(|error| error.errno().unwrap_or(0))
}

fn store64(region: &ZpciIo<impl DeviceFile>, at: u64, value: u64) -> Result<(), i32> {
    region
        .store(BAR, at, 8, value.swap_bytes())
        .map_err(|error| error.errno().unwrap_or(0))
}
