// SPDX-License-Identifier: GPL-2.0

//! The emulator of the s390x host, and the PCI functions that it can have.

use std::path::PathBuf;

/// The program, as the toolchain root has it, and as it is built with patches.
pub const NAME: &str = "qemu-system-s390x";

/// A function whose BAR 2 behaves like memory. The zpci device must come before the other.
pub const NVME: &[&str] = &[
    "-device",
    "zpci,uid=1,fid=0x10,target=nv0",
    "-device",
    "nvme,id=nv0,serial=z1,cmb_size_mb=1",
];

/// A controller with a disk.
pub const DISK: &[&str] = &[
    "-blockdev",
    "null-co,node-name=disk,size=1048576,read-zeroes=on",
    "-device",
    "zpci,uid=4,fid=0x40,target=nv1",
    "-device",
    "nvme,id=nv1,serial=z2,drive=disk",
];

/// Two ISM functions that can reach each other. Only the patched QEMU has them.
pub const ISM: &[&str] = &[
    "-device",
    "zpci,uid=2,fid=0x20,target=ism0",
    "-device",
    "ism,id=ism0,gid=0x20,pchid=0x1c0",
    "-device",
    "zpci,uid=3,fid=0x30,target=ism1",
    "-device",
    "ism,id=ism1,gid=0x30,pchid=0x1c0",
];

/// Two more, which reach nobody else.
pub const OTHER_ISM: &[&str] = &[
    "-device",
    "zpci,uid=8,fid=0x80,target=ism2",
    "-device",
    "ism,id=ism2,gid=0x80,pchid=0x1c2",
    "-device",
    "zpci,uid=9,fid=0x90,target=ism3",
    "-device",
    "ism,id=ism3,gid=0x90,pchid=0x1c2",
];

/// A function that the host has to ask again and again to be enabled or disabled: each time takes
/// about 2 s. Only the patched QEMU has it.
pub const SLOW: &[&str] = &[
    "-device",
    "zpci,uid=5,fid=0x50,target=nv2,x-inject-clp-busy=65",
    "-device",
    "nvme,id=nv2,serial=z3,cmb_size_mb=1",
];

/// A controller with a disk that takes 3 s for each read.
pub const SLOW_DISK: &[&str] = &[
    "-blockdev",
    "null-co,node-name=slow-disk,size=67108864,read-zeroes=on,latency-ns=3000000000",
    "-device",
    "zpci,uid=6,fid=0x60,target=nv3",
    "-device",
    "nvme,id=nv3,serial=z4,drive=slow-disk",
];

/// Functions that fail each instruction on purpose, with condition code 1, 2 and 3. Only the patched QEMU
/// has them.
pub const CONDITIONS: &[&str] = &[
    "-device",
    "zpci,uid=0x51,fid=0x51,target=refuses,x-inject-cc=1,x-inject-status=8",
    "-device",
    "nvme,id=refuses,serial=refuses,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x52,fid=0x52,target=busy,x-inject-cc=2",
    "-device",
    "nvme,id=busy,serial=busy,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x53,fid=0x53,target=gone,x-inject-cc=3",
    "-device",
    "nvme,id=gone,serial=gone,cmb_size_mb=1",
];

/// More of them, which fail now and then, or are slow, or are unusual, or are ISM functions, see
/// tools/testing/ism/src/machine.rs.
pub const FAILING: &[&str] = &[
    "-device",
    "zpci,uid=0x54,fid=0x54,target=busy2,x-inject-cc=2,x-inject-every=2",
    "-device",
    "nvme,id=busy2,serial=busy2,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x55,fid=0x55,target=first0,x-inject-cc=2,x-inject-count=60",
    "-device",
    "nvme,id=first0,serial=first0,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x56,fid=0x56,target=first1,x-inject-cc=2,x-inject-count=60",
    "-device",
    "nvme,id=first1,serial=first1,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x57,fid=0x57,target=first2,x-inject-cc=2,x-inject-count=60",
    "-device",
    "nvme,id=first2,serial=first2,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x58,fid=0x58,target=slow,x-inject-cc=2,x-inject-delay-us=500000",
    "-device",
    "nvme,id=slow,serial=slow,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x59,fid=0x59,target=tardy,x-inject-cc=2,x-inject-delay-us=100",
    "-device",
    "nvme,id=tardy,serial=tardy,cmb_size_mb=1",
    "-device",
    "zpci,uid=0x5a,fid=0x5a,target=msix",
    "-device",
    "nvme,id=msix,serial=msix,cmb_size_mb=1,msix-exclusive-bar=on",
    "-device",
    "zpci,uid=0x61,fid=0x61,target=ism-refuses,x-inject-cc=1,x-inject-status=8",
    "-device",
    "ism,id=ism-refuses,gid=0x61,pchid=0x1c1",
    "-device",
    "zpci,uid=0x62,fid=0x62,target=ism-gone,x-inject-cc=3",
    "-device",
    "ism,id=ism-gone,gid=0x62,pchid=0x1c1",
    "-device",
    "zpci,uid=0x63,fid=0x63,target=ism-busy,x-inject-cc=2",
    "-device",
    "ism,id=ism-busy,gid=0x63,pchid=0x1c1",
    "-device",
    "zpci,uid=0x64,fid=0x64,target=ism-busy2,x-inject-cc=2,x-inject-every=2",
    "-device",
    "ism,id=ism-busy2,gid=0x64,pchid=0x1c1",
];

/// Who emulates the machine, and which PCI functions it has.
pub struct Hardware {
    pub program: PathBuf,
    pub args: Vec<String>,
}

/// The arguments of some functions.
pub type Functions = &'static [&'static [&'static str]];

/// How many functions these are.
pub fn count(functions: Functions) -> usize {
    let arguments = functions.concat();
    let zpci = arguments.iter().filter(|arg| arg.starts_with("zpci,"));
    zpci.count()
}

impl Hardware {
    /// QEMU as Debian has it.
    pub fn stock(functions: Functions) -> Self {
        Self {
            program: NAME.into(),
            args: functions.concat().into_iter().map(String::from).collect(),
        }
    }
}
