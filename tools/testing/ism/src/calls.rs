// SPDX-License-Identifier: GPL-2.0

//! System calls on the file of a device that safe wrappers do not offer.

use booted::Mapping;
use rustix::io::Errno;
use std::{
    mem::offset_of,
    os::fd::{AsFd, AsRawFd},
    ptr,
};
use vfio_zpci_io::Device;

/// `pread` to an address where nothing is mapped.
pub(crate) fn pread_to_nowhere(device: &Device, len: usize, position: u64) -> Result<usize, Errno> {
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: Page 0 is never mapped, so the kernel has nothing to write to.
    result(unsafe { libc::pread(fd, nowhere(), len, position as libc::off_t) })
}

/// `pread` to a part of a mapping.
pub(crate) fn pread_to(
    device: &Device,
    memory: &Mapping,
    at: usize,
    len: usize,
    position: u64,
) -> Result<usize, Errno> {
    assert!(at + len <= memory.size());
    let fd = device.as_fd().as_raw_fd();
    let start = ptr::with_exposed_provenance_mut(memory.addr() as usize + at);
    // SAFETY: Within the mapping, to which nobody has a reference.
    result(unsafe { libc::pread(fd, start, len, position as libc::off_t) })
}

/// `pwrite` from an address where nothing is mapped.
pub(crate) fn pwrite_from_nowhere(
    device: &Device,
    len: usize,
    position: u64,
) -> Result<usize, Errno> {
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: The kernel only reads, and checks what it can.
    result(unsafe { libc::pwrite(fd, nowhere(), len, position as libc::off_t) })
}

fn nowhere() -> *mut libc::c_void {
    ptr::without_provenance_mut(16)
}

/// Maps a page of a device, and unmaps it if that has worked.
pub(crate) fn mmap(device: &Device, position: u64) -> Result<(), Errno> {
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: A new mapping, where the kernel likes.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            position as libc::off_t,
        )
    };
    if address == libc::MAP_FAILED {
        return result(-1).map(drop);
    }
    // SAFETY: The mapping is ours, and was not used.
    unsafe { libc::munmap(address, 4096) };
    Ok(())
}

/// `struct vfio_device_ioeventfd`.
#[repr(C)]
struct IoEventFd {
    argsz: u32,
    flags: u32,
    offset: u64,
    data: u64,
    fd: i32,
    reserved: u32,
}

/// `VFIO_DEVICE_IOEVENTFD`: has the kernel write 8 bytes when `event` is signalled.
pub(crate) fn ioeventfd(device: &Device, position: u64, event: impl AsFd) -> Result<(), Errno> {
    const VFIO_DEVICE_IOEVENTFD: libc::Ioctl = 0x3b74;
    const SIZE_64: u32 = 1 << 3;
    let argument = IoEventFd {
        argsz: size_of::<IoEventFd>() as u32,
        flags: SIZE_64,
        offset: position,
        data: 0,
        fd: event.as_fd().as_raw_fd(),
        reserved: 0,
    };
    const { assert!(offset_of!(IoEventFd, fd) == 24) };
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: The kernel reads the structure, which is as it wants it.
    let ret = unsafe { libc::ioctl(fd, VFIO_DEVICE_IOEVENTFD, &raw const argument) };
    result(ret as isize).map(drop)
}

/// Commands on a VFIO device whose structures begin with their own size and have no pointer in them.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    GetIrqInfo = 109,
    GetPciHotResetInfo = 112,
    AttachIommufdPt = 119,
    DetachIommufdPt = 120,
    /// With a request that reads or probes a feature, and sets none.
    Feature = 117,
    /// There is no such command.
    Unknown = 127,
}

/// Gives a command to a device, with a structure in which `fields` follow the size.
///
/// Returns the structure as the kernel leaves it.
pub(crate) fn command(
    device: &Device,
    command: Command,
    fields: &[u32],
) -> Result<Vec<u32>, Errno> {
    let size = 4 * (1 + fields.len() as u32);
    let mut argument = [&[size], fields].concat();
    let number = libc::Ioctl::from(b';') << 8 | command as libc::Ioctl;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: The kernel stays within the size, which it is told.
    let ret = unsafe { libc::ioctl(fd, number, argument.as_mut_ptr()) };
    result(ret as isize).map(|_| argument)
}

fn result(ret: isize) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).expect("a system call fails with an errno")
    })
}
