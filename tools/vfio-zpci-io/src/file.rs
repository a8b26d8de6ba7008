// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The calls on the file of a VFIO device, whoever has opened it.

use crate::DeviceFile;
use rustix::{
    io::{pread, pwrite, Errno},
    ioctl::{self, opcode, Ioctl, IoctlOutput, Opcode},
};
use std::{ffi::c_void, io, os::fd::AsFd};

/// The numbers of <linux/vfio.h> and <linux/iommufd.h> are all `_IO(';', n)`: the generated bindings
/// have no ioctl numbers.
pub(crate) const TYPE: u8 = b';';
const VFIO_DEVICE_GET_INFO: Opcode = opcode::none(TYPE, 107);
const VFIO_DEVICE_GET_REGION_INFO: Opcode = opcode::none(TYPE, 108);
const VFIO_DEVICE_SET_IRQS: Opcode = opcode::none(TYPE, 110);
const VFIO_DEVICE_RESET: Opcode = opcode::none(TYPE, 111);

/// An ioctl: its number, its argument and the integer it returns.
struct Call {
    number: Opcode,
    argument: *mut c_void,
}

// SAFETY: `as_ptr` is the argument unchanged, and the output is the kernel's return value.
unsafe impl Ioctl for Call {
    type Output = i32;
    // The kernel may write to the structures.
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// # Safety
///
/// `argument` must be what the ioctl wants: an integer, or a pointer to what it reads and writes.
pub(crate) unsafe fn call(fd: impl AsFd, number: Opcode, argument: *mut c_void) -> io::Result<i32> {
    // SAFETY: As the caller promises.
    Ok(unsafe { ioctl::ioctl(fd, Call { number, argument }) }?)
}

/// An ioctl that takes an integer.
///
/// # Safety
///
/// The ioctl must not take its argument for a pointer.
pub(crate) unsafe fn call_integer(fd: impl AsFd, number: Opcode, argument: u32) -> io::Result<i32> {
    // SAFETY: As the caller promises.
    unsafe {
        call(
            fd,
            number,
            std::ptr::without_provenance_mut(argument as usize),
        )
    }
}

/// An ioctl that takes a structure whose first field, set here, is the structure's size.
///
/// # Safety
///
/// The ioctl must be such a one, and must not follow a pointer in the structure.
pub(crate) unsafe fn call_sized(
    fd: impl AsFd,
    number: Opcode,
    argument: &mut [u8],
) -> io::Result<i32> {
    let size = u32::try_from(argument.len()).map_err(|_| Errno::INVAL)?;
    *argument.first_chunk_mut().ok_or(Errno::INVAL)? = size.to_ne_bytes();
    // SAFETY: The kernel stays within the size it is told.
    unsafe { call(fd, number, argument.as_mut_ptr().cast()) }
}

// The descriptor may be that of any file. The kernel's list of ioctl numbers gives ';' 64 to 7f to VFIO
// alone, where the four numbers belong to devices, and to no group or container: of all other files the
// calls fail and touch no memory.
impl<F: AsFd> DeviceFile for F {
    fn device_info(&self, info: &mut [u8]) -> io::Result<()> {
        // SAFETY: It starts with `argsz` and has no pointer.
        unsafe { call_sized(self, VFIO_DEVICE_GET_INFO, info) }.map(drop)
    }

    fn region_info(&self, info: &mut [u8]) -> io::Result<()> {
        // SAFETY: It starts with `argsz` and has no pointer.
        unsafe { call_sized(self, VFIO_DEVICE_GET_REGION_INFO, info) }.map(drop)
    }

    fn set_irqs(&self, set: &mut [u8]) -> io::Result<()> {
        // SAFETY: It starts with `argsz` and has no pointer.
        unsafe { call_sized(self, VFIO_DEVICE_SET_IRQS, set) }.map(drop)
    }

    fn reset(&self) -> io::Result<()> {
        // SAFETY: It ignores its argument.
        unsafe { call_integer(self, VFIO_DEVICE_RESET, 0) }.map(drop)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        Ok(pread(self, buffer, position)?)
    }

    fn write_at(&self, data: &[u8], position: u64) -> io::Result<usize> {
        Ok(pwrite(self, data, position)?)
    }
}
