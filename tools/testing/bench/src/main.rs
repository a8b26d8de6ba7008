// SPDX-License-Identifier: GPL-2.0

//! Counts the instructions of an access to a zPCI function, from user space and back, by this
//! driver and by others.
//!
//! `zpci-bench` wants a machine with one CPU whose clock counts instructions (QEMU's
//! `-icount shift=0,sleep=off`): then a nanosecond is an instruction, and busy neighbours of the
//! emulator do not matter. It prints, for each way, the instructions of one access, and in
//! parentheses the ratio to a store of that size by `ism-vfio-pci`, the driver in C for ISM alone.
//!
//! Instructions do not count bytes: one may move 256. So the table says, too, whether the kernel
//! copies the data.

use rustix::{
    io::{pread, pwrite, Errno},
    process::getppid,
};
use std::{cell::UnsafeCell, error::Error, process::ExitCode, time::Instant};
use vfio_zpci_io::{
    abi::{self, Request},
    sysfs::{self, DRIVER},
    Access, Device,
};

/// An NVMe controller, whose BAR 2 is memory, and an ISM function, which takes commands there.
const NVME: u32 = 0x10;
const ISM: u32 = 0x20;
const BAR: u8 = 2;

/// Where the accesses go: on ISM, beyond what starts a command.
const TARGET: u64 = 0x80;

/// How many bytes they move; the NVMe controller takes no longer block.
const SIZES: [usize; 4] = [8, 16, 64, 128];

/// How many accesses are counted, after some that fill caches.
const CALLS: u32 = 2000;
const WARM: u32 = 200;

/// Data as it comes from a user who knows the rules: aligned, and in one page.
#[repr(align(4096))]
struct Page([u8; 4096]);

fn main() -> ExitCode {
    match measure() {
        Ok(table) => {
            table.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("zpci-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<Table, Box<dyn Error>> {
    let mut table = Table(Vec::new());
    table.add("getppid(), for comparison", "-", |_| {
        let _ = getppid();
        Ok(())
    });

    let peer = Function::open(ISM, "ism_vfio_pci")?;
    table.add(PEER, "yes", |size| peer.store(0, size));
    table.add("ism-vfio-pci: load", "yes", |size| peer.load(size));
    drop(peer);

    let peer = Function::open(NVME, "vfio-pci")?;
    table.add("vfio-pci: store", "no", |size| peer.store(0, size));
    table.add("vfio-pci: store, a call for 8 bytes", "no", |size| {
        (0..size as u64)
            .step_by(8)
            .try_for_each(|at| peer.store(at, 8))
    });
    table.add("vfio-pci: load", "no", |size| peer.load(size));
    drop(peer);

    let ours = Function::open(NVME, DRIVER)?;
    let region = ours.device.zpci_io()?.position();
    let data = ours.page.0.as_ptr().expose_provenance() as u64;
    // Loaded values are not looked at.
    let loaded = UnsafeCell::new(0_u64);
    let value = loaded.get().expose_provenance() as u64;
    table.add("region: PCISTB", "no", |size| {
        ours.request(region, &Request::block(BAR, TARGET, data, size as u16))
    });
    table.add("region: PCILG", "no", |size| {
        ours.request(region, &Request::load(BAR, TARGET, value, size as u16))
    });
    table.add("region: PCISTG", "no", |size| {
        ours.request(region, &Request::store(BAR, TARGET, data, size as u16))
    });
    drop(ours);

    let ours = Function::open(ISM, DRIVER)?;
    table.add("BAR by this driver: store", "yes", |size| {
        ours.store(0, size)
    });
    table.add("BAR by this driver: load", "yes", |size| ours.load(size));
    Ok(table)
}

/// A function that is open, bound to some driver.
struct Function {
    device: Device,
    bar: u64,
    page: Box<Page>,
}

impl Function {
    fn open(fid: u32, driver: &str) -> Result<Self, Box<dyn Error>> {
        let function = sysfs::zpci_function(fid)?;
        let function = function.ok_or_else(|| format!("there is no function {fid:#x}"))?;
        function.bind(driver)?;
        let device = Device::open(&function.address(), Access::Iommufd)?;
        device.enable_memory(true)?;
        let bar = device.region(BAR.into())?.offset;
        Ok(Self {
            device,
            bar,
            page: Box::new(Page([0x5a; 4096])),
        })
    }

    fn store(&self, at: u64, size: usize) -> Result<(), Errno> {
        let position = self.bar + TARGET + at;
        whole(pwrite(&self.device, &self.page.0[..size], position)?, size)
    }

    fn load(&self, size: usize) -> Result<(), Errno> {
        let mut data = [0; 128];
        let position = self.bar + TARGET;
        whole(pread(&self.device, &mut data[..size], position)?, size)
    }

    fn request(&self, region: u64, request: &Request) -> Result<(), Errno> {
        let position = region + abi::REQUEST_POSITION;
        let count = pwrite(&self.device, &request.to_bytes(), position)?;
        whole(count, abi::REQUEST_SIZE)
    }
}

fn whole(count: usize, size: usize) -> Result<(), Errno> {
    if count == size {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

/// Instructions of one call, or why it cannot be made.
fn count(call: impl Fn() -> Result<(), Errno>) -> Result<u64, Errno> {
    for _ in 0..WARM {
        call()?;
    }
    let start = Instant::now();
    for _ in 0..CALLS {
        call()?;
    }
    let instructions = start.elapsed().as_nanos() / u128::from(CALLS);
    Ok(u64::try_from(instructions).unwrap_or(u64::MAX))
}

/// The row that the others are compared with.
const PEER: &str = "ism-vfio-pci: store";

struct Row {
    name: String,
    copies: String,
    /// For each of [`SIZES`].
    costs: Vec<Result<u64, Errno>>,
}

struct Table(Vec<Row>);

impl Table {
    /// Measures `call` with each size.
    fn add(&mut self, name: &str, copies: &str, call: impl Fn(usize) -> Result<(), Errno>) {
        eprintln!("zpci-bench: {name}");
        self.0.push(Row {
            name: name.to_owned(),
            copies: copies.to_owned(),
            costs: SIZES.map(|size| count(|| call(size))).to_vec(),
        });
    }

    fn print(&self) {
        let peer = self.0.iter().find(|row| row.name == PEER);
        let sizes = SIZES.map(|size| format!("{:>14}", format!("{size} bytes")));
        println!("{:<36} {:>7}{}", "instructions", "copies", sizes.concat());
        for row in &self.0 {
            let costs = row.costs.iter().enumerate().map(|(at, cost)| {
                let cell = match (cost, peer.map(|peer| peer.costs[at])) {
                    (Ok(cost), Some(Ok(peer))) => {
                        format!("{cost} ({:.2})", *cost as f64 / peer as f64)
                    }
                    (Ok(cost), _) => cost.to_string(),
                    // Not an access of this kind.
                    (Err(_), _) => "-".to_owned(),
                };
                format!("{cell:>14}")
            });
            let costs: String = costs.collect();
            println!("{:<36} {:>7}{costs}", row.name, row.copies);
        }
    }
}
