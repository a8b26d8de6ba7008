// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PCI functions in sysfs: finding them, and giving them to a driver and back.

use crate::Error;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

/// Name of the VFIO driver with the zPCI I/O region.
pub const DRIVER: &str = "zpci_vfio_pci";

/// Which driver a function has, see [`Function::binding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The driver that has it.
    pub driver: Option<String>,
    /// The driver that is to have it, by the file `driver_override`.
    pub driver_override: Option<String>,
}

/// Address of a PCI function: domain, bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let hex = |part: &str, digits: std::ops::RangeInclusive<usize>, max: u32| {
                let plain = part.bytes().all(|byte| byte.is_ascii_hexdigit());
                let value = u32::from_str_radix(part, 16).ok()?;
                (plain && digits.contains(&part.len()) && value <= max).then_some(value)
            };
            Some(Self {
                domain: hex(domain, 4..=8, u32::MAX)?,
                bus: hex(bus, 2..=2, 0xff)? as u8,
                device: hex(device, 2..=2, 0x1f)? as u8,
                function: hex(function, 1..=1, 7)? as u8,
            })
        };
        parse().ok_or_else(|| Error::Address(text.to_owned()))
    }
}

/// A machine, seen through its files: the one this program runs on, or for tests a directory with
/// the same files in it.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    /// The machine this program runs on.
    fn default() -> Self {
        Self::at("/")
    }
}

impl Host {
    /// The machine whose files are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the file is that the machine itself finds at `path`.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The PCI function at this address.
    pub fn function(&self, address: Address) -> Result<Function, Error> {
        let directory = self.path("/sys/bus/pci/devices").join(address.to_string());
        if !directory.exists() {
            return Err(Error::NoFunction(address));
        }
        Ok(Function {
            host: self.clone(),
            address,
            directory,
        })
    }

    /// All PCI functions which are zPCI functions, in the order of their addresses.
    pub fn zpci_functions(&self) -> Result<Vec<Function>, Error> {
        let mut functions = Vec::new();
        for name in names(self.path("/sys/bus/pci/devices"))? {
            match self.function(name.parse()?) {
                Ok(function) if function.zpci_fid().is_some() => functions.push(function),
                // Not a zPCI function, or just unplugged.
                Ok(_) | Err(Error::NoFunction(_)) => {}
                Err(error) => return Err(error),
            }
        }
        functions.sort_by_key(|function| function.address);
        Ok(functions)
    }

    /// The zPCI function with this function id, if there is one.
    pub fn zpci_function(&self, fid: u32) -> Result<Option<Function>, Error> {
        let mut functions = self.zpci_functions()?.into_iter();
        Ok(functions.find(|function| function.zpci_fid() == Some(fid)))
    }
}

/// [`Host::zpci_functions`] of this machine.
pub fn zpci_functions() -> Result<Vec<Function>, Error> {
    Host::default().zpci_functions()
}

/// [`Host::zpci_function`] of this machine.
pub fn zpci_function(fid: u32) -> Result<Option<Function>, Error> {
    Host::default().zpci_function(fid)
}

/// A PCI function of a machine.
#[derive(Clone, Debug)]
pub struct Function {
    host: Host,
    address: Address,
    directory: PathBuf,
}

impl Function {
    /// [`Host::function`] of this machine.
    pub fn open(address: Address) -> Result<Self, Error> {
        Host::default().function(address)
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its directory in sysfs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its zPCI function id; `None` if it is not a zPCI function.
    pub fn zpci_fid(&self) -> Option<u32> {
        u32::try_from(self.number("function_id").ok()?).ok()
    }

    /// The number in one of its attributes: hexadecimal, as `vendor`, `class` or `pft` are.
    pub fn number(&self, attribute: &str) -> Result<u64, Error> {
        let path = self.directory.join(attribute);
        let content = read(&path)?;
        let digits = content.strip_prefix("0x").unwrap_or(&content);
        u64::from_str_radix(digits, 16).map_err(|_| Error::Content { path, content })
    }

    /// Size of a BAR in bytes; 0 if it is not there.
    pub fn bar_size(&self, bar: u8) -> Result<u64, Error> {
        let path = self.directory.join("resource");
        let content = read(&path)?;
        let size = || {
            let mut fields = content.lines().nth(bar.into())?.split_whitespace();
            let mut hex = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
            let (start, end, flags) = (hex()?, hex()?, hex()?);
            if flags == 0 {
                return Some(0);
            }
            end.checked_sub(start)?.checked_add(1)
        };
        size().ok_or(Error::Content {
            path,
            content: content.clone(),
        })
    }

    /// The driver that it is bound to.
    pub fn driver(&self) -> Result<Option<String>, Error> {
        link_name(&self.directory.join("driver"))
    }

    /// The driver that alone may have it, if one was named: its `driver_override`.
    pub fn driver_override(&self) -> Result<Option<String>, Error> {
        let name = read(&self.directory.join("driver_override"))?;
        Ok(Some(name).filter(|name| name != "(null)" && !name.is_empty()))
    }

    /// Name of its VFIO device, `vfioN`; `None` if it is not bound to a VFIO driver.
    pub fn vfio_name(&self) -> Result<Option<String>, Error> {
        match names(self.directory.join("vfio-dev")) {
            Ok(names) => Ok(names.into_iter().next()),
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its VFIO character device, `/dev/vfio/devices/vfioN`, where the kernel has such devices.
    pub fn vfio_device(&self) -> Result<Option<PathBuf>, Error> {
        Ok(self
            .vfio_name()?
            .map(|name| self.host.path("/dev/vfio/devices").join(name))
            .filter(|node| node.exists()))
    }

    /// The number of its VFIO group, `/dev/vfio/N`, where the kernel has such devices.
    pub fn group(&self) -> Result<Option<u32>, Error> {
        let path = self.directory.join("iommu_group");
        let Some(content) = link_name(&path)? else {
            return Ok(None);
        };
        let number = content
            .parse()
            .map_err(|_| Error::Content { path, content })?;
        let node = self.host.path(format!("/dev/vfio/{number}"));
        Ok(Some(number).filter(|_| node.exists()))
    }

    /// The driver that has it, and the one that is to have it.
    pub fn binding(&self) -> Result<Binding, Error> {
        Ok(Binding {
            driver: self.driver()?,
            driver_override: self.driver_override()?,
        })
    }

    /// Binds it to `driver`, whose module is loaded if need be, and takes it from the driver that
    /// has it: whether it is in use is the caller's to know. If that fails, it is as it was.
    pub fn bind(&self, driver: &str) -> Result<(), Error> {
        let before = self.binding()?;
        if before.driver.as_deref() == Some(driver) {
            return Ok(());
        }
        if !self.host.path("/sys/bus/pci/drivers").join(driver).exists() {
            modprobe(driver)?;
        }
        let result = self.give_to(driver);
        if result.is_err() {
            self.restore(&before)?;
        }
        result
    }

    /// Gives it back to the driver that had it, or to none, with the `driver_override` of then.
    /// Blocks until nobody has it open any more.
    pub fn restore(&self, before: &Binding) -> Result<(), Error> {
        let now = self.binding()?;
        let result = match &before.driver {
            _ if now.driver == before.driver => Ok(()),
            Some(driver) => self.give_to(driver),
            None => self.release(),
        };
        if self.driver_override()? != before.driver_override {
            self.set_override(before.driver_override.as_deref().unwrap_or_default())?;
        }
        result
    }

    /// Takes it from the driver it was bound to by [`Self::bind`] and gives it back to its own,
    /// if that one is loaded. Blocks until nobody has it open any more.
    pub fn unbind(&self) -> Result<(), Error> {
        self.set_override("")?;
        self.probe()
    }

    fn set_override(&self, driver: &str) -> Result<(), Error> {
        write(
            &self.directory.join("driver_override"),
            &format!("{driver}\n"),
        )
    }

    /// Has the kernel bind it to this driver and no other.
    fn give_to(&self, driver: &str) -> Result<(), Error> {
        self.set_override(driver)?;
        self.probe()?;
        match self.driver()? {
            Some(name) if name == driver => Ok(()),
            _ => Err(Error::NotTaken {
                address: self.address,
                driver: driver.to_owned(),
            }),
        }
    }

    /// Has the kernel choose a driver anew.
    fn probe(&self) -> Result<(), Error> {
        self.release()?;
        let address = self.address.to_string();
        write(&self.host.path("/sys/bus/pci/drivers_probe"), &address)
    }

    /// Takes it from its driver, if it has one.
    fn release(&self) -> Result<(), Error> {
        match self.driver()? {
            Some(_) => write(
                &self.directory.join("driver/unbind"),
                &self.address.to_string(),
            ),
            None => Ok(()),
        }
    }
}

/// Loads the module of a driver.
fn modprobe(driver: &str) -> Result<(), Error> {
    let failed = |reason| Error::Module {
        driver: driver.to_owned(),
        reason,
    };
    let output = Command::new("modprobe")
        .arg(driver)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(failed(match stderr.trim() {
        "" => output.status.to_string(),
        message => message.to_owned(),
    }))
}

fn read(path: &Path) -> Result<String, Error> {
    let content = fs::read_to_string(path).map_err(Error::file(path))?;
    Ok(content.trim_end().to_owned())
}

fn write(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(Error::file(path))
}

/// The last part of what a symbolic link points to.
fn link_name(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_link(path) {
        Ok(target) => Ok(target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path)(error)),
    }
}

/// The names in a directory.
fn names(directory: impl AsRef<Path>) -> Result<Vec<String>, Error> {
    let directory = directory.as_ref();
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::file(directory))? {
        let entry = entry.map_err(Error::file(directory))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in ["0001:00:00.0", "ffff:ff:1f.7", "12345:01:02.3"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "0001:00:00",
            "00:00.0",
            "001:00:00.0",
            "0001:000:00.0",
            "0001:00:20.0",
            "0001:00:00.8",
            "0001:00:00.0 ",
            "+001:00:00.0",
            "0001:00:00.0/..",
            "123456789:00:00.0",
        ] {
            let result = text.parse::<Address>();
            assert!(
                matches!(result, Err(Error::Address(_))),
                "'{text}': {result:?}"
            );
        }
    }

    /// A function in a directory of our own, with these files.
    fn function(name: &str, files: &[(&str, &str)]) -> Function {
        let directory = std::env::temp_dir().join(format!("{name}.{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for (file, content) in files {
            fs::write(directory.join(file), content).unwrap();
        }
        Function {
            host: Host::at(&directory),
            address: "0001:00:00.0".parse().unwrap(),
            directory,
        }
    }

    #[test]
    fn function_id_that_is_none() {
        for content in ["0x100000010\n", "-1\n", ""] {
            let function = function("function-id", &[("function_id", content)]);
            assert_eq!(function.zpci_fid(), None, "{content}");
            fs::remove_dir_all(function.directory).unwrap();
        }
    }

    #[test]
    fn paths_of_a_host() {
        assert_eq!(Host::default().path("/sys/bus"), Path::new("/sys/bus"));
        assert_eq!(
            Host::at("/tmp/x").path("/sys/bus"),
            Path::new("/tmp/x/sys/bus")
        );
    }

    #[test]
    fn attributes() {
        let function = function(
            "attributes",
            &[
                ("function_id", "0x00000010\n"),
                ("class", "junk\n"),
                ("driver_override", "(null)\n"),
                (
                    "resource",
                    "0x0000000000000000 0x0000000000003fff 0x0000000000140204\n\
                     0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                     0x4000000000000000 0x4000ffffffffffff 0x000000000014220c\n\
                     0x0000000000000002 0x0000000000000001\n",
                ),
            ],
        );
        assert_eq!(function.zpci_fid(), Some(0x10));
        assert!(matches!(
            function.number("class"),
            Err(Error::Content { .. })
        ));
        assert!(matches!(function.number("none"), Err(Error::File { .. })));
        assert_eq!(function.bar_size(0).unwrap(), 0x4000);
        assert_eq!(function.bar_size(1).unwrap(), 0);
        assert_eq!(function.bar_size(2).unwrap(), 1 << 48);
        assert!(matches!(function.bar_size(3), Err(Error::Content { .. })));
        assert!(matches!(function.bar_size(9), Err(Error::Content { .. })));
        assert_eq!(function.driver().unwrap(), None);
        assert_eq!(function.driver_override().unwrap(), None);
        assert_eq!(function.vfio_device().unwrap(), None);
        assert_eq!(function.group().unwrap(), None);
        fs::remove_dir_all(function.directory).unwrap();
    }
}
