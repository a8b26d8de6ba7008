// SPDX-License-Identifier: GPL-2.0

//! Who uses a function: what would be hurt if it were taken away.
//!
//! Found without touching the function: by the devices that its driver made of it, and by the files
//! which processes have open. Only root sees the files of all processes.

use crate::failure::Failure;
use rustix::{
    fs::{major, minor, open, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};
use vfio_zpci_io::sysfs::{Function, Host};

/// A device file: whether it is that of a block device, and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    block: bool,
    number: (u32, u32),
}

/// What a driver made of a function.
#[derive(Default)]
struct Devices {
    nodes: HashSet<Node>,
    disks: Vec<String>,
    interfaces: Vec<PathBuf>,
}

/// Each use of the function, in words.
pub(crate) fn of(host: &Host, function: &Function) -> Result<Vec<String>, Failure> {
    let mut devices = Devices::default();
    find(host, function.directory(), &mut devices);
    if let Some(group) = function.group()? {
        let sysfs = host.path(format!("/sys/class/vfio/{group}"));
        devices.nodes.extend(number(&sysfs, false));
    }

    let mut users = Vec::new();
    if function.driver()?.as_deref() == Some("ism") {
        users.push("SMC-D of this host may have connections over it ('smcd device')".to_owned());
    }
    for interface in &devices.interfaces {
        if is_up(interface) {
            users.push(format!("the network interface {} is up", name(interface)));
        }
    }
    for disk in &devices.disks {
        if is_claimed(&host.path("/dev").join(disk)) {
            users.push(format!(
                "the disk {disk} is mounted, or part of something that is in use"
            ));
        }
    }
    users.extend(processes(host, function, &devices.nodes));
    Ok(users)
}

/// Finds the devices below a directory of sysfs.
fn find(host: &Host, directory: &Path, devices: &mut Devices) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Not along links: they lead to other devices.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        match subsystem(&path).as_deref() {
            Some("block") => {
                devices.nodes.extend(number(&path, true));
                if path.join("partition").exists() {
                    continue;
                }
                let disk = name(&path);
                match multipath(&disk) {
                    Some(head) => {
                        let sysfs = host.path("/sys/class/block").join(&head);
                        devices.nodes.extend(number(&sysfs, true));
                        devices.disks.push(head);
                    }
                    None => devices.disks.push(disk),
                }
            }
            Some("net") => devices.interfaces.push(path.clone()),
            _ => devices.nodes.extend(number(&path, false)),
        }
        find(host, &path, devices);
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn subsystem(directory: &Path) -> Option<String> {
    Some(name(&fs::read_link(directory.join("subsystem")).ok()?))
}

/// The disk `nvme0n1` to which `nvme0c1n1` is a path. Users see the disk, which lies elsewhere.
fn multipath(disk: &str) -> Option<String> {
    let (subsystem, rest) = disk.strip_prefix("nvme")?.split_once('c')?;
    let (_, namespace) = rest.split_once('n')?;
    Some(format!("nvme{subsystem}n{namespace}"))
}

/// The device file of a device in sysfs.
fn number(directory: &Path, block: bool) -> Option<Node> {
    let content = fs::read_to_string(directory.join("dev")).ok()?;
    let (major, minor) = content.trim_end().split_once(':')?;
    Some(Node {
        block,
        number: (major.parse().ok()?, minor.parse().ok()?),
    })
}

/// Whether a network interface is up (IFF_UP).
fn is_up(interface: &Path) -> bool {
    let flags = fs::read_to_string(interface.join("flags")).unwrap_or_default();
    let flags = flags.trim_end().trim_start_matches("0x");
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 != 0)
}

/// Whether the kernel itself uses a disk or a part of it: a file system, swap, a device mapper.
fn is_claimed(disk: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
    matches!(open(disk, flags, Mode::empty()), Err(Errno::BUSY))
}

/// The processes that have one of these files open, or the function itself by VFIO.
fn processes(host: &Host, function: &Function, nodes: &HashSet<Node>) -> Vec<String> {
    let mut users = Vec::new();
    for process in fs::read_dir(host.path("/proc"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(pid) = name(&process.path()).parse::<u32>() else {
            continue;
        };
        // Processes that end meanwhile use nothing.
        let files = fs::read_dir(process.path().join("fd"));
        let mut files = files.into_iter().flatten().flatten();
        let uses = |file: fs::DirEntry| {
            opened(&file.path()).is_some_and(|node| nodes.contains(&node))
                || is_vfio(
                    &process.path().join("fdinfo").join(file.file_name()),
                    function,
                )
        };
        if files.any(uses) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            users.push(format!(
                "process {pid} ({}) has it open",
                command.trim_end()
            ));
        }
    }
    users.sort();
    users
}

/// The device file that is open.
fn opened(file: &Path) -> Option<Node> {
    // Of other files not even the attributes are asked for: their server may be gone.
    let target = fs::read_link(file).ok()?;
    if !target.is_absolute() {
        return None;
    }
    let metadata = fs::metadata(file).ok()?;
    let kind = metadata.file_type();
    let device = metadata.rdev();
    (kind.is_block_device() || kind.is_char_device()).then(|| Node {
        block: kind.is_block_device(),
        number: (major(device), minor(device)),
    })
}

/// Whether an open file is the function, opened by VFIO. Its group need not be open then.
fn is_vfio(fdinfo: &Path, function: &Function) -> bool {
    let info = fs::read_to_string(fdinfo).unwrap_or_default();
    let path = info
        .lines()
        .find_map(|line| line.strip_prefix("vfio-device-syspath: "));
    path.is_some_and(|path| name(Path::new(path)) == function.address().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, ADDRESS, NULL};

    fn users(fake: &Fake) -> Vec<String> {
        let host = fake.host();
        let function = host.function(ADDRESS.parse().unwrap()).unwrap();
        of(&host, &function).unwrap()
    }

    #[test]
    fn nobody() {
        assert!(users(&Fake::new()).is_empty());
        // A disk and an interface that nobody uses; a process with another file open.
        let fake = Fake::new()
            .bound("nvme")
            .device("nvme/nvme0/nvme0n1", "block", "259:0")
            .device("net/eth1", "net", "0:0")
            .process("/dev/null", "pos:\t0");
        fake.write(
            &format!("/sys/bus/pci/devices/{ADDRESS}/net/eth1/flags"),
            "0x1002",
        );
        assert!(users(&fake).is_empty());
    }

    #[test]
    fn process_with_a_device_of_the_function() {
        let wanted = ["process 77 (qemu) has it open"];
        let fake = Fake::new().device("nvme/nvme0", "nvme", NULL);
        let fake = fake.process("/dev/null", "");
        assert_eq!(users(&fake), wanted);
        // Numbers of block devices are others.
        let fake = Fake::new().device("nvme/nvme0/nvme0n1", "block", NULL);
        let fake = fake.process("/dev/null", "");
        assert!(users(&fake).is_empty());
    }

    #[test]
    fn process_with_the_group() {
        let fake = Fake::new()
            .bound_to_vfio("vfio-pci")
            .process("/dev/null", "");
        let link = format!("/sys/bus/pci/devices/{ADDRESS}");
        fake.write(&format!("{link}/vfio-dev/vfio0/dev"), "511:0");
        assert!(users(&fake).is_empty());
        fake.link(&format!("{link}/iommu_group"), "/sys/kernel/iommu_groups/7");
        fake.write("/dev/vfio/7", "");
        fake.write("/sys/class/vfio/7/dev", NULL);
        assert_eq!(users(&fake).len(), 1);
    }

    #[test]
    fn process_with_the_function_whose_group_is_closed() {
        let info =
            |address| format!("pos:\t0\nvfio-device-syspath: /sys/devices/pci0001:00/{address}");
        let fake = Fake::new().process("anon_inode:[vfio-device]", &info(ADDRESS));
        assert_eq!(users(&fake).len(), 1);
        let fake = Fake::new().process("anon_inode:[vfio-device]", &info("0003:00:00.0"));
        assert!(users(&fake).is_empty());
    }

    #[test]
    fn disk_behind_several_paths() {
        assert_eq!(multipath("nvme0c1n2").as_deref(), Some("nvme0n2"));
        assert_eq!(multipath("nvme0n2"), None);
        assert_eq!(multipath("dasdc"), None);
        let fake = Fake::new().device("nvme/nvme3/nvme0c3n1", "block", "0:0");
        let mut devices = Devices::default();
        fake.write("/sys/class/block/nvme0n1/dev", "259:4");
        find(
            &fake.host(),
            &fake.host().path(format!("/sys/bus/pci/devices/{ADDRESS}")),
            &mut devices,
        );
        assert_eq!(devices.disks, ["nvme0n1"]);
        let head = Node {
            block: true,
            number: (259, 4),
        };
        assert!(devices.nodes.contains(&head));
    }

    #[test]
    fn network_interface_that_is_up() {
        let fake = Fake::new().device("net/eth1", "net", "0:0");
        let flags = format!("/sys/bus/pci/devices/{ADDRESS}/net/eth1/flags");
        fake.write(&flags, "0x1003");
        assert_eq!(users(&fake), ["the network interface eth1 is up"]);
    }

    #[test]
    fn smc() {
        assert_eq!(users(&Fake::new().bound("ism")).len(), 1);
    }
}
