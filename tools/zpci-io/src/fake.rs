// SPDX-License-Identifier: GPL-2.0

//! A machine made of files, for the tests: what the tool decides, it decides by what it reads.

use crate::{cli::Cli, failure::Failure, output::Output, run};
use clap::Parser;
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};
use vfio_zpci_io::sysfs::Host;

/// Where `/dev/null` is: a device file that is there on every machine, for processes to have open.
pub(crate) const NULL: &str = "1:3";

/// Two functions of it: their addresses and function ids.
pub(crate) const ADDRESS: &str = "0001:00:00.0";
pub(crate) const OTHER: &str = "0002:00:00.0";

pub(crate) struct Fake {
    root: PathBuf,
}

impl Fake {
    /// A machine with two NVMe controllers without a driver, function ids 10 and 11.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("zpci-io-test.{}.{count}", std::process::id());
        let fake = Self {
            root: std::env::temp_dir().join(name),
        };
        for (address, fid) in [(ADDRESS, "0x00000010"), (OTHER, "0x00000011")] {
            let no_bar = "0x0 0x0 0x0\n";
            let resource = format!("{no_bar}{no_bar}0x1000 0x1fff 0x200\n{no_bar}{no_bar}{no_bar}");
            for (file, content) in [
                ("function_id", fid),
                ("pft", "0x00"),
                ("vendor", "0x1b36"),
                ("device", "0x0010"),
                ("class", "0x010802"),
                ("resource", &resource),
                ("driver_override", "(null)"),
            ] {
                fake.write(&format!("/sys/bus/pci/devices/{address}/{file}"), content);
            }
        }
        fake.write("/sys/bus/pci/drivers_probe", "");
        fake.write("/sys/bus/pci/drivers/zpci_vfio_pci/bind", "");
        fake.write("/proc/self", "");
        fake
    }

    pub(crate) fn host(&self) -> Host {
        Host::at(&self.root)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.host().path(path)).unwrap()
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.host().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.host().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// Has a driver take the first function.
    pub(crate) fn bound(self, driver: &str) -> Self {
        let directory = format!("/sys/bus/pci/drivers/{driver}");
        self.write(&format!("{directory}/unbind"), "");
        // To the driver of this machine, not to one of the real machine.
        let target = self.host().path(directory);
        let link = format!("/sys/bus/pci/devices/{ADDRESS}/driver");
        self.link(&link, &target.to_string_lossy());
        self
    }

    /// Has a VFIO driver take the first function.
    pub(crate) fn bound_to_vfio(self, driver: &str) -> Self {
        let fake = self.device("vfio-dev/vfio0", "vfio-dev", NULL);
        fake.write("/dev/vfio/devices/vfio0", "");
        fake.bound(driver)
    }

    /// Makes a device below the first function.
    pub(crate) fn device(self, path: &str, subsystem: &str, number: &str) -> Self {
        let directory = format!("/sys/bus/pci/devices/{ADDRESS}/{path}");
        self.link(
            &format!("{directory}/subsystem"),
            &format!("/sys/class/{subsystem}"),
        );
        self.write(&format!("{directory}/dev"), number);
        self
    }

    /// Has a process open a file.
    pub(crate) fn process(self, file: &str, fdinfo: &str) -> Self {
        self.write("/proc/77/comm", "qemu");
        self.link("/proc/77/fd/5", file);
        self.write("/proc/77/fdinfo/5", fdinfo);
        self
    }

    /// What a command prints, and how it ends.
    pub(crate) fn run(&self, line: &str) -> (String, Result<(), Failure>) {
        let words = ["zpci-io"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let mut text = Vec::new();
        let json = cli.json;
        let result = run(cli, &self.host(), &mut Output::new(&mut text, json));
        (String::from_utf8(text).unwrap(), result)
    }

    /// The command is refused, and nothing is done to any function.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str, reason: &str) {
        let (_, result) = self.run(line);
        let failure = result.unwrap_err();
        assert_eq!(failure.code(), 3, "{failure}");
        assert!(failure.to_string().contains(reason), "{failure}");
        self.untouched();
    }

    /// Nothing was done to any function.
    #[track_caller]
    pub(crate) fn untouched(&self) {
        assert_eq!(self.read("/sys/bus/pci/drivers_probe"), "\n");
        for address in [ADDRESS, OTHER] {
            let path = format!("/sys/bus/pci/devices/{address}/driver_override");
            assert_eq!(self.read(&path), "(null)\n");
        }
    }

    /// The kernel was told to choose a driver for a function anew.
    #[track_caller]
    pub(crate) fn probed(&self, address: &str) {
        assert_eq!(self.read("/sys/bus/pci/drivers_probe"), address);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}
