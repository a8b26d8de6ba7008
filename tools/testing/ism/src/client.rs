// SPDX-License-Identifier: GPL-2.0

//! A client of functions whose BARs cannot be mapped, as it would be written for `ism-vfio-pci`:
//! it reads and writes the regions of the BARs, where `VFIO_DEVICE_GET_REGION_INFO` says they are.
//! It knows nothing of the zPCI I/O region.

use crate::{ism::Bars, machine};
use rustix::io::{pread, pwrite, Errno};
use std::fmt::Write;
use vfio_zpci_io::Device;

pub(crate) const CONFIG: u32 = 7;

pub(crate) struct Client {
    pub device: Device,
}

impl Client {
    pub fn open(fid: u32, driver: &str) -> Self {
        Self {
            device: machine::open(fid, driver),
        }
    }

    /// Where an offset of a region is in the file of the device.
    pub fn position(&self, region: u32, offset: u64) -> u64 {
        self.device.region(region).expect("it is there").offset + offset
    }

    pub fn read(&self, region: u32, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        let position = self.position(region, offset);
        let count = pread(&self.device, &mut bytes[..], position)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    pub fn write(&self, region: u32, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        pwrite(&self.device, bytes, self.position(region, offset))
    }
}

impl Bars for Client {
    fn device(&self) -> &Device {
        &self.device
    }

    fn store_block(&self, bar: u8, offset: u64, block: &[u8]) -> Result<(), Errno> {
        let count = self.write(bar.into(), offset, block)?;
        assert_eq!(count, block.len(), "a block is written whole");
        Ok(())
    }

    fn load_bytes(&self, bar: u8, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        self.read(bar.into(), offset, len)
    }
}

/// The outcome of a call in words that do not depend on the driver.
pub(crate) fn show<T: std::fmt::Debug>(result: Result<T, Errno>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(errno) => errno_name(errno),
    }
}

fn errno_name(errno: Errno) -> String {
    let known = [
        (Errno::INVAL, "EINVAL"),
        (Errno::FAULT, "EFAULT"),
        (Errno::IO, "EIO"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NXIO, "ENXIO"),
        (Errno::REMOTEIO, "EREMOTEIO"),
    ];
    let known = known.iter().find(|(known, _)| *known == errno);
    known.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}

/// Several outcomes, one on a line.
#[derive(Default)]
pub(crate) struct Lines(pub String);

impl Lines {
    pub fn add(&mut self, what: impl std::fmt::Display, outcome: impl std::fmt::Display) {
        writeln!(self.0, "{what}: {outcome}").expect("a string takes all");
    }
}
