// SPDX-License-Identifier: GPL-2.0

//! Opening a function, in both ways which VFIO has, and the calls on its file.

use crate::{
    dma::DmaPage,
    sysfs::{Address, Function},
    DeviceFile, Error,
};
use rustix::{
    fd::FromRawFd,
    io::Errno,
    ioctl::{self, opcode, Ioctl, IoctlOutput, Opcode},
};
use std::{
    ffi::{c_void, CString},
    fs::{File, OpenOptions},
    io,
    mem::offset_of,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};
use vfio_bindings::bindings::vfio::{
    vfio_device_attach_iommufd_pt,
    vfio_device_bind_iommufd,
    vfio_group_status,
    vfio_iommu_type1_dma_map,
    VFIO_TYPE1v2_IOMMU, //
    VFIO_API_VERSION,
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_GROUP_FLAGS_VIABLE,
};

/// The two ways of opening a VFIO device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its character device `/dev/vfio/devices/vfioN`, bound to an iommufd.
    Iommufd,
    /// Its group `/dev/vfio/N` in a container of type 1 (version 2).
    Group,
}

/// The file of a VFIO device, with what must stay open as long as it.
#[derive(Debug)]
pub struct VfioFile {
    // The device is closed first: fields are dropped in this order.
    device: File,
    iommu: Iommu,
}

#[derive(Debug)]
enum Iommu {
    Elsewhere,
    Iommufd { iommufd: File, ioas: [u8; 4] },
    Container { _group: File, container: File },
}

// The numbers of <linux/vfio.h> and <linux/iommufd.h>, all _IO(';', n): the generated bindings
// have no ioctl numbers.
const TYPE: u8 = b';';
const VFIO_GET_API_VERSION: Opcode = opcode::none(TYPE, 100);
const VFIO_CHECK_EXTENSION: Opcode = opcode::none(TYPE, 101);
const VFIO_SET_IOMMU: Opcode = opcode::none(TYPE, 102);
const VFIO_GROUP_GET_STATUS: Opcode = opcode::none(TYPE, 103);
const VFIO_GROUP_SET_CONTAINER: Opcode = opcode::none(TYPE, 104);
const VFIO_GROUP_GET_DEVICE_FD: Opcode = opcode::none(TYPE, 106);
const VFIO_DEVICE_GET_INFO: Opcode = opcode::none(TYPE, 107);
const VFIO_DEVICE_GET_REGION_INFO: Opcode = opcode::none(TYPE, 108);
const VFIO_DEVICE_SET_IRQS: Opcode = opcode::none(TYPE, 110);
const VFIO_DEVICE_RESET: Opcode = opcode::none(TYPE, 111);
const VFIO_DEVICE_BIND_IOMMUFD: Opcode = opcode::none(TYPE, 118);
const VFIO_DEVICE_ATTACH_IOMMUFD_PT: Opcode = opcode::none(TYPE, 119);
const IOMMU_IOAS_ALLOC: Opcode = opcode::none(TYPE, 0x81);
const IOMMU_IOAS_MAP: Opcode = opcode::none(TYPE, 0x85);
const VFIO_IOMMU_MAP_DMA: Opcode = opcode::none(TYPE, 113);

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
unsafe fn call(fd: impl AsFd, number: Opcode, argument: *mut c_void) -> io::Result<i32> {
    // SAFETY: As the caller promises.
    Ok(unsafe { ioctl::ioctl(fd, Call { number, argument }) }?)
}

/// An ioctl that takes an integer.
///
/// # Safety
///
/// The ioctl must not take its argument for a pointer.
unsafe fn call_integer(fd: impl AsFd, number: Opcode, argument: u32) -> io::Result<i32> {
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
unsafe fn call_sized(fd: impl AsFd, number: Opcode, argument: &mut [u8]) -> io::Result<i32> {
    let size = u32::try_from(argument.len()).map_err(|_| Errno::INVAL)?;
    *argument.first_chunk_mut().ok_or(Errno::INVAL)? = size.to_ne_bytes();
    // SAFETY: The kernel stays within the size it is told.
    unsafe { call(fd, number, argument.as_mut_ptr().cast()) }
}

/// The file of a VFIO device that was opened elsewhere, as VMMs open theirs. Whatever it needs to
/// stay open is the caller's to keep.
impl From<OwnedFd> for VfioFile {
    fn from(device: OwnedFd) -> Self {
        Self {
            device: device.into(),
            iommu: Iommu::Elsewhere,
        }
    }
}

impl VfioFile {
    /// Lets the function read and write `memory` at `iova`, see [`crate::Device::map_dma`].
    pub(crate) fn map_dma(&self, iova: u64, memory: &'static [DmaPage]) -> Result<(), Error> {
        let address = memory.as_ptr().expose_provenance() as u64;
        let length = size_of_val(memory) as u64;
        match &self.iommu {
            Iommu::Elsewhere => return Err(Error::NoAddressSpace),
            Iommu::Iommufd { iommufd, ioas } => {
                // struct iommu_ioas_map { u32 size, flags, ioas_id, reserved; u64 user_va, length,
                // iova; } with the flags FIXED_IOVA, WRITEABLE and READABLE
                let mut map = [0; 40];
                map[4..8].copy_from_slice(&7u32.to_ne_bytes());
                map[8..12].copy_from_slice(ioas);
                map[16..24].copy_from_slice(&address.to_ne_bytes());
                map[24..32].copy_from_slice(&length.to_ne_bytes());
                map[32..40].copy_from_slice(&iova.to_ne_bytes());
                // SAFETY: It starts with its size. The memory it names stays, and is made to be
                // read and written by others at any time.
                unsafe { call_sized(iommufd, IOMMU_IOAS_MAP, &mut map) }
                    .map_err(Error::call("IOMMU_IOAS_MAP"))?;
            }
            Iommu::Container { container, .. } => {
                let mut map = [0; size_of::<vfio_iommu_type1_dma_map>()];
                let mut set = |at: usize, value: &[u8]| {
                    map[at..at + value.len()].copy_from_slice(value);
                };
                let flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
                set(
                    offset_of!(vfio_iommu_type1_dma_map, flags),
                    &flags.to_ne_bytes(),
                );
                set(
                    offset_of!(vfio_iommu_type1_dma_map, vaddr),
                    &address.to_ne_bytes(),
                );
                set(
                    offset_of!(vfio_iommu_type1_dma_map, iova),
                    &iova.to_ne_bytes(),
                );
                set(
                    offset_of!(vfio_iommu_type1_dma_map, size),
                    &length.to_ne_bytes(),
                );
                // SAFETY: As above.
                unsafe { call_sized(container, VFIO_IOMMU_MAP_DMA, &mut map) }
                    .map_err(Error::call("VFIO_IOMMU_MAP_DMA"))?;
            }
        }
        Ok(())
    }
}

impl AsFd for VfioFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl DeviceFile for VfioFile {
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
        self.device.read_at(buffer, position)
    }

    fn write_at(&self, data: &[u8], position: u64) -> io::Result<usize> {
        self.device.write_at(data, position)
    }
}

fn open_rw(path: impl AsRef<Path>) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::file(path.as_ref()))
}

/// The function, if it is bound to a VFIO driver.
fn vfio_function(address: &Address) -> Result<Function, Error> {
    let function = Function::open(*address)?;
    match function.vfio_name()? {
        Some(_) => Ok(function),
        None => Err(Error::NotVfio(*address)),
    }
}

/// Opens the function's character device and gives it an empty I/O address space.
pub(crate) fn iommufd(address: &Address) -> Result<VfioFile, Error> {
    let node = Function::open(*address)?
        .vfio_device()?
        .ok_or(Error::NoNode {
            address: *address,
            what: "character device",
        })?;
    let device = open_rw(node)?;
    let iommufd = open_rw("/dev/iommu")?;

    let mut bind = [0; size_of::<vfio_device_bind_iommufd>()];
    let at = offset_of!(vfio_device_bind_iommufd, iommufd);
    bind[at..at + 4].copy_from_slice(&iommufd.as_raw_fd().to_ne_bytes());
    // SAFETY: It starts with `argsz`; `flags` are 0, so that the pointer is not used.
    unsafe { call_sized(&device, VFIO_DEVICE_BIND_IOMMUFD, &mut bind) }
        .map_err(Error::call("VFIO_DEVICE_BIND_IOMMUFD"))?;

    // struct iommu_ioas_alloc { u32 size; u32 flags; u32 out_ioas_id; }
    let mut ioas = [0; 12];
    // SAFETY: It starts with its size and has no pointer.
    unsafe { call_sized(&iommufd, IOMMU_IOAS_ALLOC, &mut ioas) }
        .map_err(Error::call("IOMMU_IOAS_ALLOC"))?;

    let mut attach = [0; size_of::<vfio_device_attach_iommufd_pt>()];
    let at = offset_of!(vfio_device_attach_iommufd_pt, pt_id);
    attach[at..at + 4].copy_from_slice(&ioas[8..12]);
    // SAFETY: It starts with `argsz` and has no pointer.
    unsafe { call_sized(&device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &mut attach) }
        .map_err(Error::call("VFIO_DEVICE_ATTACH_IOMMUFD_PT"))?;

    Ok(VfioFile {
        device,
        iommu: Iommu::Iommufd {
            iommufd,
            ioas: [ioas[8], ioas[9], ioas[10], ioas[11]],
        },
    })
}

/// Opens the function's group and the function in it.
pub(crate) fn group(address: &Address) -> Result<VfioFile, Error> {
    let number = vfio_function(address)?.group()?.ok_or(Error::NoNode {
        address: *address,
        what: "group",
    })?;
    let container = open_rw("/dev/vfio/vfio")?;
    // SAFETY: It ignores its argument.
    let version = unsafe { call_integer(&container, VFIO_GET_API_VERSION, 0) }
        .map_err(Error::call("VFIO_GET_API_VERSION"))?;
    // SAFETY: It takes an integer.
    let type1 = unsafe { call_integer(&container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) }
        .map_err(Error::call("VFIO_CHECK_EXTENSION"))?;
    if version != VFIO_API_VERSION as i32 || type1 == 0 {
        return Err(Error::Malformed("the container has no IOMMU of type 1 v2"));
    }

    let group = open_rw(format!("/dev/vfio/{number}"))?;
    let mut status = [0; size_of::<vfio_group_status>()];
    // SAFETY: It starts with `argsz` and has no pointer.
    unsafe { call_sized(&group, VFIO_GROUP_GET_STATUS, &mut status) }
        .map_err(Error::call("VFIO_GROUP_GET_STATUS"))?;
    let flags = crate::caps::get_u32(&status, offset_of!(vfio_group_status, flags));
    if flags.unwrap_or_default() & VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(Error::NotViable(number));
    }
    let mut fd = container.as_raw_fd();
    // SAFETY: It reads an int.
    unsafe { call(&group, VFIO_GROUP_SET_CONTAINER, (&raw mut fd).cast()) }
        .map_err(Error::call("VFIO_GROUP_SET_CONTAINER"))?;
    // SAFETY: It takes an integer.
    unsafe { call_integer(&container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) }
        .map_err(Error::call("VFIO_SET_IOMMU"))?;

    let name = CString::new(address.to_string()).map_err(|_| Error::Malformed("an address"))?;
    // SAFETY: It reads a string.
    let fd = unsafe {
        call(
            &group,
            VFIO_GROUP_GET_DEVICE_FD,
            name.as_ptr().cast_mut().cast(),
        )
    }
    .map_err(Error::call("VFIO_GROUP_GET_DEVICE_FD"))?;
    // SAFETY: It returned a new descriptor, which is nobody else's.
    let device = File::from(unsafe { OwnedFd::from_raw_fd(fd) });

    Ok(VfioFile {
        device,
        iommu: Iommu::Container {
            _group: group,
            container,
        },
    })
}
