// SPDX-License-Identifier: GPL-2.0

//! The demonstration: what the region does, step by step, on a function whose BAR is memory.
//!
//! It writes to that memory, so it takes only an NVMe controller which says that it has a
//! controller memory buffer, which has no disk, and which nobody uses or has set apart for a guest.

use crate::{
    binding,
    cli::Name,
    failure::{Failure, Refusal},
    find,
    output::Output,
    users,
};
use std::{
    fs,
    os::fd::BorrowedFd,
    time::{SystemTime, UNIX_EPOCH},
};
use vfio_zpci_io::{
    abi::{self, Request},
    sysfs::{Address, Function, Host, DRIVER},
    Access, Device, Error, RequestError, ZpciIo,
};

const CLASS_NVME: u64 = 0x01_0802;
/// The register CAP of NVMe, at the start of BAR 0, and its bit "controller memory buffer".
const NVME_CAP: u64 = 0;
const NVME_CAP_CMBS: u64 = 1 << 57;
/// The controller memory buffer.
const BAR: u8 = 2;
/// Where the blocks go. Not 0, so that a lost offset is seen.
const OFFSET: u64 = 0x1000;

pub(crate) fn run(
    host: &Host,
    out: &mut Output<'_>,
    name: Option<Name>,
    force: bool,
) -> Result<(), Failure> {
    if out.is_json() {
        let message = "the demonstration is told in words, not in JSON";
        return Err(Failure::Usage(message.to_owned()));
    }
    match show(host, out, name, force) {
        Ok(()) => out.line("\nResult: passed. Every instruction did what it should."),
        Err(failure) => {
            // It is the failure that counts.
            let _ = out.line("\nResult: failed.");
            Err(failure)
        }
    }
}

fn show(host: &Host, out: &mut Output<'_>, name: Option<Name>, force: bool) -> Result<(), Failure> {
    out.line(
        "zPCI functions are driven by instructions: PCISTB stores a block, PCILG loads up to\n\
         8 bytes. Here this program has the kernel issue them, one for each request it writes",
    )?;
    out.line(format_args!("to the VFIO region of the driver {DRIVER}."))?;

    out.line("\n1. A function whose memory may be written")?;
    let function = choose(host, out, name, force)?;
    let before = function.driver()?;
    out.line(format_args!(
        "   {}: function id {:08x}, an NVMe controller without a disk, driver: {}",
        function.address(),
        function.zpci_fid().unwrap_or_default(),
        before.as_deref().unwrap_or("none"),
    ))?;
    out.line(format_args!(
        "   BAR {BAR}, its memory buffer, has {} bytes",
        function.bar_size(BAR)?
    ))?;

    out.line(format_args!("\n2. Give it to the driver {DRIVER}"))?;
    out.line("   (modprobe, driver_override, drivers_probe: 'zpci-io bind' does the same)")?;
    binding::while_bound(&function, DRIVER, || on_bound(out, function.address()))?;
    out.line("\n6. Leave the function as it was")?;
    out.line(format_args!(
        "   driver: {}",
        function.driver()?.as_deref().unwrap_or("none")
    ))
}

/// The steps with the function bound.
fn on_bound(out: &mut Output<'_>, address: Address) -> Result<(), Failure> {
    out.line("   done")?;
    out.line("\n3. Open it by its character device and iommufd, store blocks and load them back")?;
    let device = Device::open(&address, Access::Iommufd)?;
    let region = open_region(out, &device)?;
    if blocks(out, &region)? {
        out.line("   (byte order of 8-byte words reversed by the emulator, known QEMU defect: on")?;
        out.line(
            "   little-endian machines QEMU swaps what PCISTB stores. It is not the driver.)",
        )?;
    }

    out.line("\n4. Two requests that must be refused")?;
    refusals(out, &region)?;
    // A function is opened by one way at a time.
    drop(device);

    out.line("\n5. The same blocks by its group and a container, as older VMMs do")?;
    let device = match Device::open(&address, Access::Group) {
        Err(error @ Error::NoNode { .. }) => {
            out.line(format_args!("   not on this kernel: {error}"))?;
            return Ok(());
        }
        result => result?,
    };
    let region = open_region(out, &device)?;
    blocks(out, &region)?;
    Ok(())
}

/// The function to use: the one that was asked for, or the first that fits and is nobody's.
fn choose(
    host: &Host,
    out: &mut Output<'_>,
    name: Option<Name>,
    force: bool,
) -> Result<Function, Failure> {
    if let Some(name) = name {
        let function = find(host, name)?;
        let refused = |reason| Err(Failure::refused(function.address(), reason));
        if let Some(reason) = unfit(&function)? {
            return refused(Refusal::NoDemo(reason));
        }
        if !force {
            match function.driver()? {
                Some(driver) if driver != DRIVER && function.vfio_name()?.is_some() => {
                    return refused(Refusal::OtherDriver(driver));
                }
                _ => binding::unused(host, &function)?,
            }
        }
        return Ok(function);
    }
    for function in host.zpci_functions()? {
        let reason = match unfit(&function)? {
            Some(reason) => reason,
            // Somebody wants it for a guest, or will.
            None if function.vfio_name()?.is_some() || function.driver_override()?.is_some() => {
                "is set apart for VFIO: name it, if you mean it"
            }
            None if !users::of(host, &function)?.is_empty() => "is in use",
            None => return Ok(function),
        };
        out.line(format_args!("   {} {reason}", function.address()))?;
    }
    Err(Failure::Demo(
        "no zPCI function fits: an NVMe controller with a memory buffer and without a disk is \
         wanted, for QEMU: -device zpci,target=n -device nvme,id=n,serial=n,cmb_size_mb=1"
            .to_owned(),
    ))
}

/// Why a function cannot be used.
fn unfit(function: &Function) -> Result<Option<&'static str>, Failure> {
    Ok(if function.zpci_fid().is_none() {
        Some("is not a zPCI function")
    } else if function.number("class")? != CLASS_NVME {
        Some("is not an NVMe controller")
    } else if function.bar_size(BAR)? == 0 {
        Some("has no memory buffer in BAR 2")
    } else if has_disk(function) {
        Some("has a disk, which may be in use")
    } else {
        None
    })
}

/// Whether the driver nvme found a namespace: `nvme/nvme0/nvme0n1`, `nvme/nvme0/nvme0c0n1`.
fn has_disk(function: &Function) -> bool {
    let entries = |path| fs::read_dir(path).into_iter().flatten().flatten();
    entries(function.directory().join("nvme")).any(|controller| {
        let controller_name = controller.file_name();
        entries(controller.path()).any(|entry| {
            let name = entry.file_name();
            let prefix = controller_name.to_string_lossy();
            name.to_string_lossy().starts_with(&*prefix)
        })
    })
}

/// Finds the region and makes sure that the function has memory to write to.
fn open_region<'a>(
    out: &mut Output<'_>,
    device: &'a Device,
) -> Result<ZpciIo<BorrowedFd<'a>>, Failure> {
    device.enable_memory(true)?;
    out.line("   opened, and its memory space enabled in PCI_COMMAND")?;
    let region = device.zpci_io()?;
    let header = region.header();
    out.line(format_args!(
        "   region of type {:08x}, subtype {}: at {:#x} of the device's file",
        abi::REGION_TYPE,
        abi::REGION_SUBTYPE,
        region.position(),
    ))?;
    out.line(format_args!(
        "   its header: blocks of up to {} bytes",
        header.max
    ))?;
    // NVMe registers are little-endian.
    let capabilities = region.load(0, NVME_CAP, 8)?.swap_bytes();
    out.line(format_args!(
        "   PCILG   8 bytes at BAR 0 + {NVME_CAP:#x}: the capabilities, {capabilities:#018x}"
    ))?;
    if capabilities & NVME_CAP_CMBS == 0 {
        return Err(Failure::Demo(
            "the controller says that it has no memory buffer: nothing is written to it".to_owned(),
        ));
    }
    Ok(region)
}

/// Stores blocks of all the sizes that are powers of two and legal, and loads them back. Returns
/// whether the emulator reversed the words of some.
fn blocks(out: &mut Output<'_>, region: &ZpciIo<BorrowedFd<'_>>) -> Result<bool, Failure> {
    let mut reversed_seen = false;
    let max = usize::from(region.header().max);
    // A strict function, as emulated ones are, wants more than 8 bytes, a multiple of 8.
    let sizes = std::iter::successors(Some(16), |size| Some(size * 2)).take_while(|&s| s <= max);
    for size in sizes {
        let block = pattern(size);
        region.store_block(BAR, OFFSET, &block)?;
        out.line(format_args!(
            "   PCISTB {size:>4} bytes at BAR {BAR} + {OFFSET:#x}: stored, by one pwrite"
        ))?;
        let loaded = load_words(region, size)?;
        let reversed: Vec<u8> = block
            .chunks(8)
            .flat_map(|word| word.iter().rev().copied())
            .collect();
        let words = size / 8;
        let outcome = if loaded == block {
            "the same bytes"
        } else if loaded == reversed {
            reversed_seen = true;
            "the same bytes, each 8-byte word reversed"
        } else {
            "OTHER BYTES"
        };
        out.line(format_args!(
            "   PCILG  {words:>4} times 8 bytes from there: {outcome}"
        ))?;
        if loaded != block && loaded != reversed {
            return Err(Failure::Demo(format!(
                "stored {block:02x?} and loaded {loaded:02x?}"
            )));
        }
    }
    if region.header().flags & abi::HEADER_WRITE != 0 {
        let value = u64::from_be_bytes(*pattern(8).first_chunk().unwrap_or(&[0; 8]));
        region.store(BAR, OFFSET, 8, value)?;
        out.line(format_args!(
            "   PCISTG    8 bytes at BAR {BAR} + {OFFSET:#x}: stored {value:#018x}"
        ))?;
        let loaded = region.load(BAR, OFFSET, 8)?;
        out.line(format_args!(
            "   PCILG     8 bytes from there: {loaded:#018x}"
        ))?;
        if loaded != value {
            return Err(Failure::Demo(format!(
                "stored {value:#x}, loaded {loaded:#x}"
            )));
        }
    }
    Ok(reversed_seen)
}

fn load_words(region: &ZpciIo<BorrowedFd<'_>>, size: usize) -> Result<Vec<u8>, RequestError> {
    let mut bytes = Vec::with_capacity(size);
    for at in (0..size as u64).step_by(8) {
        bytes.extend_from_slice(&region.load(BAR, OFFSET + at, 8)?.to_be_bytes());
    }
    Ok(bytes)
}

/// Bytes that are other ones each time, so that what an earlier block left is not taken for it.
fn pattern(size: usize) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Odd: a generator of 2^64 must not start at 0.
    let mut state = now.map_or(1, |time| time.as_nanos() as u64) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn refusals(out: &mut Output<'_>, region: &ZpciIo<BorrowedFd<'_>>) -> Result<(), Failure> {
    let block = [0; 16];
    let across = 0xff8;
    expect(
        out,
        &format!("PCISTB 16 bytes at BAR {BAR} + {across:#x}, across a 4 KiB boundary"),
        region.store_block(BAR, across, &block),
        RequestError::Invalid,
    )?;
    let request = Request::block(BAR, OFFSET, 0, 16);
    expect(
        out,
        "PCISTB 16 bytes of memory which this program does not have (address 0)",
        // SAFETY: The request reads memory.
        unsafe { region.request(&request) },
        RequestError::Fault,
    )
}

fn expect(
    out: &mut Output<'_>,
    what: &str,
    result: Result<(), RequestError>,
    wanted: RequestError,
) -> Result<(), Failure> {
    out.line(format_args!("   {what}:"))?;
    match result {
        Err(error) if error == wanted => {
            out.line(format_args!(
                "      refused, {error}; no instruction was issued"
            ))?;
            Ok(())
        }
        Err(error) => Err(Failure::Demo(format!("refused, but otherwise: {error}"))),
        Ok(()) => Err(Failure::Demo("it was not refused".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, ADDRESS, OTHER};

    /// What the demonstration says of the first function when it looks for one.
    fn passed_over(fake: &Fake) -> String {
        fake.write(&format!("/sys/bus/pci/devices/{OTHER}/class"), "0x028000");
        let (text, result) = fake.run("demo");
        let failure = result.unwrap_err();
        assert!(
            failure.to_string().contains("no zPCI function fits"),
            "{failure}"
        );
        fake.untouched();
        let line = text.lines().find(|line| line.contains(ADDRESS));
        line.expect("it is passed over").to_owned()
    }

    #[test]
    fn function_of_a_guest_is_not_chosen() {
        for driver in ["vfio-pci", "zpci_vfio_pci"] {
            let line = passed_over(&Fake::new().bound_to_vfio(driver));
            assert!(line.contains("set apart for VFIO"), "{line}");
        }
    }

    #[test]
    fn function_with_a_disk_is_not_chosen() {
        let fake = Fake::new().bound("nvme");
        let fake = fake.device("nvme/nvme0/nvme0n1", "block", "259:0");
        assert!(passed_over(&fake).contains("has a disk"));
        fake.refused("demo 10 --force", "has a disk");
    }

    #[test]
    fn function_in_use_is_not_chosen() {
        let fake = Fake::new().device("nvme/nvme0", "nvme", crate::fake::NULL);
        let fake = fake.process("/dev/null", "");
        assert!(passed_over(&fake).contains("is in use"));
        fake.refused("demo 10", "in use");
    }

    #[test]
    fn function_of_another_vfio_driver_is_not_taken() {
        let fake = Fake::new().bound_to_vfio("vfio-pci");
        fake.refused("demo 10", "the driver vfio-pci has it");
    }
}
