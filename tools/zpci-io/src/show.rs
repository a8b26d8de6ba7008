// SPDX-License-Identifier: GPL-2.0

//! `list` and `info`: what is known about functions.

use crate::{
    cli::{Name, Way},
    failure::Failure,
    find,
    output::Output,
    requests, users,
};
use serde::Serialize;
use std::{fmt, path::PathBuf};
use vfio_zpci_io::{
    abi,
    sysfs::{Function, Host, DRIVER},
    Error,
};

/// What `list` tells of a function.
#[derive(Serialize)]
pub(crate) struct Entry {
    pub(crate) address: String,
    fid: Option<String>,
    pci_id: String,
    pub(crate) driver: Option<String>,
    vfio_device: Option<PathBuf>,
    vfio_group: Option<PathBuf>,
}

impl Entry {
    pub(crate) fn of(function: &Function) -> Result<Self, Failure> {
        let vfio = function.vfio_name()?.is_some();
        let group = if vfio { function.group()? } else { None };
        Ok(Self {
            address: function.address().to_string(),
            fid: function.zpci_fid().map(|fid| format!("{fid:08x}")),
            pci_id: format!(
                "{:04x}:{:04x}",
                function.number("vendor")?,
                function.number("device")?
            ),
            driver: function.driver()?,
            vfio_device: function.vfio_device()?,
            vfio_group: group.map(|group| format!("/dev/vfio/{group}").into()),
        })
    }

    /// The VFIO nodes.
    pub(crate) fn nodes(&self) -> String {
        let nodes = [&self.vfio_device, &self.vfio_group];
        let nodes = nodes.map(|node| node.as_ref().map(|path| path.display().to_string()));
        let nodes: Vec<_> = nodes.into_iter().flatten().collect();
        match nodes.is_empty() {
            true => "-".to_owned(),
            false => nodes.join(" "),
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Vec<Entry>);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ADDRESS       FID       PCI ID     DRIVER         VFIO")?;
        for entry in &self.0 {
            let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "-".to_owned());
            write!(
                f,
                "\n{}  {}  {}  {:<13}  {}",
                entry.address,
                text(&entry.fid),
                entry.pci_id,
                text(&entry.driver),
                entry.nodes(),
            )?;
        }
        Ok(())
    }
}

pub(crate) fn list(host: &Host, out: &mut Output<'_>) -> Result<(), Failure> {
    let functions = host.zpci_functions()?;
    let entries: Result<_, _> = functions.iter().map(Entry::of).collect();
    out.show(&List(entries?))
}

/// What `info` tells.
#[derive(Serialize)]
struct Info {
    #[serde(flatten)]
    entry: Entry,
    class: String,
    function_type: Option<String>,
    bars: Vec<Bar>,
    driver_override: Option<String>,
    users: Vec<String>,
    has_region: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<Opened>,
}

#[derive(Serialize)]
struct Bar {
    bar: u8,
    size: u64,
}

/// What an open function says about itself.
#[derive(Serialize)]
struct Opened {
    can_reset: bool,
    region: Option<Region>,
}

#[derive(Serialize)]
struct Region {
    position: u64,
    block_max: u16,
    has_store: bool,
}

pub(crate) fn info(
    host: &Host,
    out: &mut Output<'_>,
    name: Name,
    open: bool,
    way: Way,
) -> Result<(), Failure> {
    let function = find(host, name)?;
    let mut bars = Vec::new();
    for bar in 0..6 {
        match function.bar_size(bar)? {
            0 => {}
            size => bars.push(Bar { bar, size }),
        }
    }
    let function_type = match function.zpci_fid() {
        Some(_) => Some(format!("{:02x}", function.number("pft")?)),
        None => None,
    };
    out.show(&Info {
        entry: Entry::of(&function)?,
        class: format!("{:06x}", function.number("class")?),
        function_type,
        bars,
        driver_override: function.driver_override()?,
        users: users::of(host, &function)?,
        has_region: function.driver()?.as_deref() == Some(DRIVER),
        opened: if open {
            Some(opened(&function, way)?)
        } else {
            None
        },
    })
}

/// Opens the function and asks.
fn opened(function: &Function, way: Way) -> Result<Opened, Failure> {
    let device = requests::open(function.address(), way)?;
    let can_reset = device.info()?.can_reset();
    let region = match device.zpci_io() {
        Ok(region) => {
            let header = region.header();
            Some(Region {
                position: region.position(),
                block_max: header.max,
                has_store: header.flags & abi::HEADER_WRITE != 0,
            })
        }
        Err(Error::NoRegion) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Opened { can_reset, region })
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "-".to_owned());
        let entry = &self.entry;
        writeln!(f, "address        {}", entry.address)?;
        writeln!(f, "PCI id         {}, class {}", entry.pci_id, self.class)?;
        match (&entry.fid, &self.function_type) {
            (Some(fid), Some(kind)) => writeln!(f, "function id    {fid}, type {kind}")?,
            _ => writeln!(f, "function id    none: not a zPCI function")?,
        }
        for Bar { bar, size } in &self.bars {
            writeln!(f, "BAR {bar}          {size:#x} bytes")?;
        }
        writeln!(f, "driver         {}", text(&entry.driver))?;
        writeln!(f, "override       {}", text(&self.driver_override))?;
        writeln!(f, "VFIO           {}", entry.nodes())?;
        match self.users.is_empty() {
            true => writeln!(f, "in use         not that can be seen")?,
            false => writeln!(f, "in use         {}", self.users.join("\n               "))?,
        }
        match (&self.opened, self.has_region) {
            (Some(opened), _) => opened.fmt(f),
            (None, true) => write!(
                f,
                "zPCI I/O       yes (--open opens the function and tells more)"
            ),
            (None, false) => write!(
                f,
                "zPCI I/O       no: 'zpci-io bind {}' gives it to {DRIVER}",
                entry.address
            ),
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "reset          {}",
            if self.can_reset { "yes" } else { "no" }
        )?;
        let Some(region) = &self.region else {
            return write!(f, "zPCI I/O       no: the driver does not have it");
        };
        writeln!(
            f,
            "zPCI I/O       region at {:#x} of the device's file",
            region.position
        )?;
        match region.block_max {
            0 => writeln!(f, "  blocks       no")?,
            max => writeln!(f, "  blocks       up to {max} bytes (PCISTB)")?,
        }
        writeln!(f, "  loads        1, 2, 4, 8 bytes (PCILG)")?;
        match region.has_store {
            true => write!(f, "  stores       1, 2, 4, 8 bytes (PCISTG)"),
            false => write!(f, "  stores       no"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::Fake;
    use serde_json::{json, Value};

    #[test]
    fn list() {
        let (text, result) = Fake::new().run("list");
        result.unwrap();
        assert_eq!(
            text,
            "ADDRESS       FID       PCI ID     DRIVER         VFIO\n\
             0001:00:00.0  00000010  1b36:0010  -              -\n\
             0002:00:00.0  00000011  1b36:0010  -              -\n"
        );
    }

    #[test]
    fn list_as_json() {
        let (text, result) = Fake::new().run("list --json");
        result.unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let wanted = json!({
            "address": "0001:00:00.0", "fid": "00000010", "pci_id": "1b36:0010",
            "driver": null, "vfio_device": null, "vfio_group": null,
        });
        assert_eq!(list[0], wanted);
    }

    #[test]
    fn info_opens_nothing() {
        // Opening this function would fail: there is no such device.
        let fake = Fake::new().bound_to_vfio("zpci_vfio_pci");
        let (text, result) = fake.run("info 10 --json");
        result.unwrap();
        let info: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(info["bars"], json!([{ "bar": 2, "size": 4096 }]));
        assert_eq!(info["has_region"], true);
        assert_eq!(info["users"], json!([]));
        assert_eq!(info["opened"], Value::Null);
        let (text, result) = fake.run("info 0001:00:00.0");
        result.unwrap();
        assert!(
            text.contains("function id    00000010, type 00\n"),
            "{text}"
        );
        assert!(
            text.contains("in use         not that can be seen\n"),
            "{text}"
        );
    }
}
