// SPDX-License-Identifier: GPL-2.0

//! The commands, without the demonstration.

use crate::{failure::Failure, Target};
use std::path::Path;
use vfio_zpci_io::{
    abi,
    sysfs::{self, Address, Function},
    Access, Device, Error,
};

/// Opens a function: by character device unless told otherwise, or by group where there is none.
fn open(address: Address, access: Option<Access>) -> Result<Device, Error> {
    match access {
        Some(access) => Device::open(&address, access),
        None => match Device::open(&address, Access::Iommufd) {
            Err(Error::NoNode { .. }) => Device::open(&address, Access::Group),
            result => result,
        },
    }
}

/// Opens a function for instructions to its BARs.
fn open_target(target: &Target) -> Result<Device, Error> {
    let device = open(target.address, target.access)?;
    device.enable_memory(true)?;
    Ok(device)
}

pub(crate) fn list() -> Result<(), Failure> {
    println!("ADDRESS       FID       PCI ID     DRIVER         VFIO");
    for function in sysfs::zpci_functions()? {
        println!(
            "{}  {:08x}  {:04x}:{:04x}  {:<13}  {}",
            function.address(),
            function.zpci_fid().unwrap_or_default(),
            function.number("vendor")?,
            function.number("device")?,
            function.driver()?.as_deref().unwrap_or("-"),
            nodes(&function)?,
        );
    }
    Ok(())
}

/// The VFIO nodes of a function.
fn nodes(function: &Function) -> Result<String, Error> {
    let mut nodes = Vec::new();
    if function.vfio_name()?.is_some() {
        let device = function.vfio_device()?;
        nodes.extend(device.as_deref().map(Path::display).map(|p| p.to_string()));
        nodes.extend(function.group()?.map(|group| format!("/dev/vfio/{group}")));
    }
    Ok(match nodes.is_empty() {
        true => "-".to_owned(),
        false => nodes.join(" "),
    })
}

pub(crate) fn bind(address: Address) -> Result<(), Failure> {
    let function = Function::open(address)?;
    function.bind(sysfs::DRIVER)?;
    println!("{address}: {} {}", sysfs::DRIVER, nodes(&function)?);
    Ok(())
}

pub(crate) fn unbind(address: Address) -> Result<(), Failure> {
    let function = Function::open(address)?;
    function.unbind()?;
    let driver = function.driver()?;
    println!("{address}: {}", driver.as_deref().unwrap_or("no driver"));
    Ok(())
}

pub(crate) fn info(address: Address, access: Option<Access>) -> Result<(), Failure> {
    let function = Function::open(address)?;
    println!("address        {address}");
    println!(
        "PCI id         {:04x}:{:04x}, class {:06x}",
        function.number("vendor")?,
        function.number("device")?,
        function.number("class")?
    );
    match function.zpci_fid() {
        Some(fid) => println!(
            "function id    {fid:08x}, type {:02x}",
            function.number("pft")?
        ),
        None => println!("function id    none: not a zPCI function"),
    }
    for bar in 0..6 {
        match function.bar_size(bar)? {
            0 => {}
            size => println!("BAR {bar}          {size:#x} bytes"),
        }
    }
    println!(
        "driver         {}",
        function.driver()?.as_deref().unwrap_or("-")
    );
    println!("VFIO           {}", nodes(&function)?);
    if function.vfio_name()?.is_none() {
        println!("zPCI I/O       no VFIO driver is bound: 'zpci-io bind {address}'");
        return Ok(());
    }

    let device = open(address, access)?;
    let info = device.info()?;
    println!(
        "reset          {}",
        if info.can_reset() { "yes" } else { "no" }
    );
    match device.zpci_io() {
        Ok(region) => {
            let header = region.header();
            println!(
                "zPCI I/O       region at {:#x} of the device's file",
                region.position()
            );
            println!("  blocks       up to {} bytes (PCISTB)", header.max);
            println!("  loads        1, 2, 4, 8 bytes (PCILG)");
            match header.flags & abi::HEADER_WRITE {
                0 => println!("  stores       no"),
                _ => println!("  stores       1, 2, 4, 8 bytes (PCISTG)"),
            }
        }
        Err(Error::NoRegion) => println!("zPCI I/O       no: the driver does not have it"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub(crate) fn load(target: &Target, len: u16) -> Result<(), Failure> {
    let device = open_target(target)?;
    let value = device.zpci_io()?.load(target.bar, target.offset, len)?;
    println!("{value:#0width$x}", width = 2 + 2 * usize::from(len));
    Ok(())
}

pub(crate) fn store(target: &Target, len: u16, value: u64) -> Result<(), Failure> {
    let device = open_target(target)?;
    let region = device.zpci_io()?;
    region.store(target.bar, target.offset, len, value)?;
    Ok(())
}

pub(crate) fn store_block(target: &Target, data: &[u8]) -> Result<(), Failure> {
    let device = open_target(target)?;
    let region = device.zpci_io()?;
    region.store_block(target.bar, target.offset, data)?;
    Ok(())
}
