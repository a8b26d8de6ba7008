// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Opening a function, in both ways which VFIO has, and the calls on its file.

#[cfg(feature = "sysfs")]
use crate::sysfs::{Address, Function};
use crate::{
    dma::DmaPage,
    file::{call, call_integer, call_sized, TYPE},
    Device, Error,
};
use rustix::ioctl::{opcode, Opcode};
use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use vfio_bindings::bindings::vfio::{
    vfio_device_attach_iommufd_pt,
    vfio_device_bind_iommufd,
    vfio_group_status,
    vfio_iommu_type1_dma_map,
    vfio_iommu_type1_dma_unmap,
    VFIO_TYPE1v2_IOMMU, //
    VFIO_API_VERSION,
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_DMA_UNMAP_FLAG_ALL,
    VFIO_GROUP_FLAGS_VIABLE,
};

/// The two ways of opening a VFIO device.
#[cfg(feature = "sysfs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its character device `/dev/vfio/devices/vfioN`, bound to an iommufd.
    Iommufd,
    /// Its group `/dev/vfio/N` in a container of type 1 (version 2).
    Group,
}

/// The file of a VFIO device that [`Device::open`] has opened, with the I/O address space that it made
/// for it.
#[derive(Debug)]
pub struct VfioFile {
    // The device is closed first: fields are dropped in this order.
    device: File,
    space: AddressSpace,
}

#[derive(Debug)]
enum Iommu {
    Iommufd { iommufd: File, ioas: [u8; 4] },
    Container { _group: File, container: File },
}

const VFIO_GET_API_VERSION: Opcode = opcode::none(TYPE, 100);
const VFIO_CHECK_EXTENSION: Opcode = opcode::none(TYPE, 101);
const VFIO_SET_IOMMU: Opcode = opcode::none(TYPE, 102);
const VFIO_GROUP_GET_STATUS: Opcode = opcode::none(TYPE, 103);
const VFIO_GROUP_SET_CONTAINER: Opcode = opcode::none(TYPE, 104);
const VFIO_GROUP_GET_DEVICE_FD: Opcode = opcode::none(TYPE, 106);
const VFIO_DEVICE_BIND_IOMMUFD: Opcode = opcode::none(TYPE, 118);
const VFIO_DEVICE_ATTACH_IOMMUFD_PT: Opcode = opcode::none(TYPE, 119);
const IOMMU_IOAS_ALLOC: Opcode = opcode::none(TYPE, 0x81);
const IOMMU_IOAS_MAP: Opcode = opcode::none(TYPE, 0x85);
const IOMMU_IOAS_UNMAP: Opcode = opcode::none(TYPE, 0x86);
const VFIO_IOMMU_MAP_DMA: Opcode = opcode::none(TYPE, 113);
const VFIO_IOMMU_UNMAP_DMA: Opcode = opcode::none(TYPE, 114);

/// An I/O address space, with the memory that is mapped in it.
#[derive(Debug)]
struct AddressSpace {
    iommu: Iommu,
    memory: Mutex<Vec<Arc<[DmaPage]>>>,
}

impl AddressSpace {
    fn new(iommu: Iommu) -> Self {
        Self {
            iommu,
            memory: Mutex::default(),
        }
    }

    fn map(&self, iova: u64, memory: Arc<[DmaPage]>) -> Result<(), Error> {
        let address = memory.as_ptr().expose_provenance() as u64;
        let length = size_of_val(&*memory) as u64;
        // Kept first: it must not be freed once it is mapped.
        self.memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(memory);
        match &self.iommu {
            Iommu::Iommufd { iommufd, ioas } => {
                // struct iommu_ioas_map { u32 size, flags, ioas_id, reserved; u64 user_va, length,
                // iova; } with the flags FIXED_IOVA, WRITEABLE and READABLE
                let mut map = [0; 40];
                put(&mut map, 4, 7u32.to_ne_bytes());
                put(&mut map, 8, *ioas);
                put(&mut map, 16, address.to_ne_bytes());
                put(&mut map, 24, length.to_ne_bytes());
                put(&mut map, 32, iova.to_ne_bytes());
                // SAFETY: It starts with its size. The memory it names stays until it is unmapped,
                // and is made to be read and written by others at any time.
                unsafe { call_sized(iommufd, IOMMU_IOAS_MAP, &mut map) }
                    .map_err(Error::call("IOMMU_IOAS_MAP"))?;
            }
            Iommu::Container { container, .. } => {
                let mut map = [0; size_of::<vfio_iommu_type1_dma_map>()];
                let flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
                let at = offset_of!(vfio_iommu_type1_dma_map, flags);
                put(&mut map, at, flags.to_ne_bytes());
                let at = offset_of!(vfio_iommu_type1_dma_map, vaddr);
                put(&mut map, at, address.to_ne_bytes());
                let at = offset_of!(vfio_iommu_type1_dma_map, iova);
                put(&mut map, at, iova.to_ne_bytes());
                let at = offset_of!(vfio_iommu_type1_dma_map, size);
                put(&mut map, at, length.to_ne_bytes());
                // SAFETY: As above.
                unsafe { call_sized(container, VFIO_IOMMU_MAP_DMA, &mut map) }
                    .map_err(Error::call("VFIO_IOMMU_MAP_DMA"))?;
            }
        }
        Ok(())
    }

    /// Unmaps all memory.
    fn unmap(&self) -> io::Result<()> {
        match &self.iommu {
            Iommu::Iommufd { iommufd, ioas } => {
                // struct iommu_ioas_unmap { u32 size, ioas_id; u64 iova, length; } with the length
                // that means everything
                let mut unmap = [0; 24];
                put(&mut unmap, 4, *ioas);
                put(&mut unmap, 16, u64::MAX.to_ne_bytes());
                // SAFETY: It starts with its size and has no pointer.
                unsafe { call_sized(iommufd, IOMMU_IOAS_UNMAP, &mut unmap) }.map(drop)
            }
            Iommu::Container { container, .. } => {
                let mut unmap = [0; size_of::<vfio_iommu_type1_dma_unmap>()];
                let at = offset_of!(vfio_iommu_type1_dma_unmap, flags);
                put(&mut unmap, at, VFIO_DMA_UNMAP_FLAG_ALL.to_ne_bytes());
                // SAFETY: It starts with `argsz` and has no pointer.
                unsafe { call_sized(container, VFIO_IOMMU_UNMAP_DMA, &mut unmap) }.map(drop)
            }
        }
    }
}

impl Drop for AddressSpace {
    /// The device is closed, but somebody may have a duplicate of its descriptor.
    fn drop(&mut self) {
        let memory = self
            .memory
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if !memory.is_empty() {
            let memory = std::mem::take(memory);
            // What the function may still write to is never freed.
            if self.unmap().is_err() {
                std::mem::forget(memory);
            }
        }
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

impl Device<VfioFile> {
    /// Opens the function at `address`, which must be bound to a VFIO driver.
    #[cfg(feature = "sysfs")]
    pub fn open(address: &Address, access: Access) -> Result<Self, Error> {
        let function = Function::open(*address)?;
        let absent = |what| Error::NoNode {
            address: *address,
            what,
        };
        if function.vfio_name()?.is_none() {
            return Err(Error::NotVfio(*address));
        }
        match access {
            Access::Iommufd => {
                let node = function.vfio_device()?;
                Self::open_node(node.ok_or(absent("character device"))?)
            }
            Access::Group => {
                let group = function.group()?;
                Self::open_group(group.ok_or(absent("group"))?, &address.to_string())
            }
        }
    }

    /// Opens a function by its character device, `/dev/vfio/devices/vfioN`.
    pub fn open_node(node: impl AsRef<Path>) -> Result<Self, Error> {
        iommufd(node.as_ref()).map(Self::new)
    }

    /// Opens the function with this address by its group, `/dev/vfio/N`.
    pub fn open_group(group: u32, address: &str) -> Result<Self, Error> {
        self::group(group, address).map(Self::new)
    }

    /// Lets the function read and write `memory`, which it finds at `iova`, as long as the device
    /// is open and [`Device::enable_dma`] allows it. The driver knows which addresses are possible
    /// (`VFIO_DEVICE_GET_INFO`).
    pub fn map_dma(&self, iova: u64, memory: Arc<[DmaPage]>) -> Result<(), Error> {
        self.file.space.map(iova, memory)
    }
}

impl AsFd for VfioFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn open_rw(path: impl AsRef<Path>) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::file(path.as_ref()))
}

/// Opens a character device and gives it an empty I/O address space.
fn iommufd(node: &Path) -> Result<VfioFile, Error> {
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
        space: AddressSpace::new(Iommu::Iommufd {
            iommufd,
            ioas: [ioas[8], ioas[9], ioas[10], ioas[11]],
        }),
    })
}

/// Opens a group and the function in it.
fn group(number: u32, address: &str) -> Result<VfioFile, Error> {
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

    let name = CString::new(address)
        .map_err(|error| Error::call("VFIO_GROUP_GET_DEVICE_FD")(error.into()))?;
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
        space: AddressSpace::new(Iommu::Container {
            _group: group,
            container,
        }),
    })
}
