// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VFIO device: what it is, its regions, its PCI configuration space, reset and event notifiers.

use crate::{
    caps::{self, Capability},
    Error, VfioFile, ZpciIo,
};
use rustix::io::Errno;
use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};
use vfio_bindings::bindings::vfio::{
    vfio_device_info,
    vfio_irq_set,
    vfio_region_info,
    VFIO_DEVICE_FLAGS_RESET,
    VFIO_DEVICE_INFO_CAP_ZPCI_BASE,
    VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_ERR_IRQ_INDEX,
    VFIO_PCI_REQ_IRQ_INDEX, //
};

/// Offset of PCI_COMMAND in configuration space.
const PCI_COMMAND: u64 = 4;
/// Bit of PCI_COMMAND: the function answers to memory accesses.
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
/// Bit of PCI_COMMAND: the function accesses memory by itself.
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// A structure with capabilities that grows beyond this is not believed.
const INFO_SIZE_MAX: usize = 1 << 16;

/// The calls this library makes on the file of a VFIO device.
///
/// Whatever has a descriptor makes them in the kernel: a file, a borrowed or shared descriptor
/// ([`BorrowedFd`], `Arc<OwnedFd>`), a [`Device`]. Unit tests put their own in its place.
pub trait DeviceFile {
    /// `VFIO_DEVICE_GET_INFO` on the bytes of a `struct vfio_device_info` with room after it.
    fn device_info(&self, info: &mut [u8]) -> io::Result<()>;
    /// `VFIO_DEVICE_GET_REGION_INFO` on the bytes of a `struct vfio_region_info`, likewise.
    fn region_info(&self, info: &mut [u8]) -> io::Result<()>;
    /// `VFIO_DEVICE_SET_IRQS` with the bytes of a `struct vfio_irq_set` and its data.
    fn set_irqs(&self, set: &mut [u8]) -> io::Result<()>;
    /// `VFIO_DEVICE_RESET`.
    fn reset(&self) -> io::Result<()>;
    /// `pread`.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// `pwrite`.
    fn write_at(&self, data: &[u8], position: u64) -> io::Result<usize>;
}

/// What `VFIO_DEVICE_GET_INFO` says.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// `VFIO_DEVICE_FLAGS_*`.
    pub flags: u32,
    /// Largest region index, plus 1.
    pub num_regions: u32,
    /// Largest irq index, plus 1.
    pub num_irqs: u32,
    /// Its capabilities (`VFIO_DEVICE_INFO_CAP_*`).
    pub capabilities: Vec<Capability>,
}

impl DeviceInfo {
    /// Whether the function can be reset.
    pub fn can_reset(&self) -> bool {
        self.flags & VFIO_DEVICE_FLAGS_RESET != 0
    }

    /// Whether VFIO tells the function's zPCI properties (`CONFIG_VFIO_PCI_ZDEV_KVM`). If so, it
    /// also leaves it to who has the function open to recover it from an error, since Linux 7.3;
    /// else the host does.
    pub fn has_zpci(&self) -> bool {
        self.capabilities
            .iter()
            .any(|capability| u32::from(capability.id) == VFIO_DEVICE_INFO_CAP_ZPCI_BASE)
    }
}

/// What `VFIO_DEVICE_GET_REGION_INFO` says about one region.
#[derive(Clone, Debug)]
pub struct RegionInfo {
    /// The region's index.
    pub index: u32,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// Size in bytes; 0 if the region is not there.
    pub size: u64,
    /// Position of its first byte in the device's file. Drivers differ: never compute it.
    pub offset: u64,
    /// Its capabilities (`VFIO_REGION_INFO_CAP_*`).
    pub capabilities: Vec<Capability>,
}

impl RegionInfo {
    /// Type and subtype of a device-specific region.
    pub fn region_type(&self) -> Option<(u32, u32)> {
        self.capabilities.iter().find_map(Capability::region_type)
    }
}

/// An event of the function that is no interrupt, for [`Device::set_eventfd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// The function reported an error.
    Error,
    /// The host wants the function back: finish the work and close the device.
    Request,
}

/// An open VFIO device: its file, which says what it is.
///
/// A `Device` without `F` was opened by this library. A VMM that opens devices by other means, as those
/// of rust-vmm do, lends the descriptor: `Device::new(device.as_fd())`. It is to be
/// the descriptor of a VFIO device; of another file every call fails, for the numbers of VFIO's calls
/// are not used by others.
#[derive(Clone, Debug)]
pub struct Device<F = VfioFile> {
    pub(crate) file: F,
}

impl<F: AsFd> AsFd for Device<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl<F: AsFd> Device<F> {
    /// The zPCI I/O region, for as long as the device is borrowed. To share it between threads that
    /// outlive this call see [`ZpciIo::find`].
    pub fn zpci_io(&self) -> Result<ZpciIo<BorrowedFd<'_>>, Error> {
        ZpciIo::find(self.as_fd())
    }
}

impl<F: DeviceFile> Device<F> {
    /// The device behind a file.
    pub fn new(file: F) -> Self {
        Self { file }
    }

    /// What the device says about itself.
    pub fn info(&self) -> Result<DeviceInfo, Error> {
        let info = growing(
            "VFIO_DEVICE_GET_INFO",
            size_of::<vfio_device_info>(),
            |_| (),
            |info| self.file.device_info(info),
        )?;
        let field = |at| caps::get_u32(&info, at).unwrap_or_default();
        Ok(DeviceInfo {
            flags: field(offset_of!(vfio_device_info, flags)),
            num_regions: field(offset_of!(vfio_device_info, num_regions)),
            num_irqs: field(offset_of!(vfio_device_info, num_irqs)),
            capabilities: caps::chain(
                &info,
                size_of::<vfio_device_info>(),
                field(offset_of!(vfio_device_info, cap_offset)),
            )?,
        })
    }

    /// What the region with this index says about itself.
    pub fn region(&self, index: u32) -> Result<RegionInfo, Error> {
        let info = growing(
            "VFIO_DEVICE_GET_REGION_INFO",
            size_of::<vfio_region_info>(),
            |info| put_u32(info, offset_of!(vfio_region_info, index), index),
            |info| self.file.region_info(info),
        )?;
        let field = |at| caps::get_u32(&info, at).unwrap_or_default();
        let long = |at| caps::get_u64(&info, at).unwrap_or_default();
        Ok(RegionInfo {
            index,
            flags: field(offset_of!(vfio_region_info, flags)),
            size: long(offset_of!(vfio_region_info, size)),
            offset: long(offset_of!(vfio_region_info, offset)),
            capabilities: caps::chain(
                &info,
                size_of::<vfio_region_info>(),
                field(offset_of!(vfio_region_info, cap_offset)),
            )?,
        })
    }

    /// All regions which the device has.
    pub fn regions(&self) -> Result<Vec<RegionInfo>, Error> {
        let mut regions = Vec::new();
        for index in 0..self.info()?.num_regions {
            match self.region(index) {
                Ok(region) => regions.push(region),
                // An index without a region (VGA).
                Err(Error::Call { source, .. })
                    if source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(regions)
    }

    /// Reads PCI configuration space (little-endian) from `offset`.
    pub fn read_config(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let position = self.config_position(offset, buffer.len())?;
        match self.file.read_at(buffer, position) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) => Err(Error::Malformed("configuration space was read in part")),
            Err(error) => Err(Error::call("reading configuration space")(error)),
        }
    }

    /// Writes PCI configuration space (little-endian) from `offset`.
    pub fn write_config(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let position = self.config_position(offset, data.len())?;
        match self.file.write_at(data, position) {
            Ok(count) if count == data.len() => Ok(()),
            Ok(_) => Err(Error::Malformed("configuration space was written in part")),
            Err(error) => Err(Error::call("writing configuration space")(error)),
        }
    }

    /// Where in the device's file `len` bytes of configuration space are.
    fn config_position(&self, offset: u64, len: usize) -> Result<u64, Error> {
        let region = self.region(VFIO_PCI_CONFIG_REGION_INDEX)?;
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > region.size) {
            return Err(Error::OutOfBounds);
        }
        region
            .offset
            .checked_add(offset)
            .ok_or(Error::Malformed("configuration space has no end"))
    }

    /// Switches the function's memory space on or off in PCI_COMMAND. While it is off every access
    /// to a BAR fails, unless the function is a virtual function, which has no bit for it. It is on
    /// after opening, and a reset leaves it as it is.
    pub fn enable_memory(&self, on: bool) -> Result<(), Error> {
        self.set_command(PCI_COMMAND_MEMORY, on)
    }

    /// Lets the function read and write memory by itself (see [`Device::map_dma`]), or not any
    /// more, by PCI_COMMAND. It may not after opening.
    pub fn enable_dma(&self, on: bool) -> Result<(), Error> {
        self.set_command(PCI_COMMAND_MASTER, on)
    }

    fn set_command(&self, bit: u16, on: bool) -> Result<(), Error> {
        let mut bytes = [0; 2];
        self.read_config(PCI_COMMAND, &mut bytes)?;
        let mut command = u16::from_le_bytes(bytes);
        if on {
            command |= bit;
        } else {
            command &= !bit;
        }
        self.write_config(PCI_COMMAND, &command.to_le_bytes())
    }

    /// Resets the function. Its memory space is as before, its state is not.
    pub fn reset(&self) -> Result<(), Error> {
        self.file.reset().map_err(Error::call("VFIO_DEVICE_RESET"))
    }

    /// Has the kernel signal `eventfd` when `irq` comes; `None` ends that.
    pub fn set_eventfd(&self, irq: Irq, eventfd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let index = match irq {
            Irq::Error => VFIO_PCI_ERR_IRQ_INDEX,
            Irq::Request => VFIO_PCI_REQ_IRQ_INDEX,
        };
        // One vector, and the data of one vector is an int: the descriptor, or -1 for none.
        let fd = eventfd.map_or(-1, |fd| fd.as_raw_fd());
        let mut set = vec![0; size_of::<vfio_irq_set>()];
        put_u32(
            &mut set,
            offset_of!(vfio_irq_set, flags),
            VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        );
        put_u32(&mut set, offset_of!(vfio_irq_set, index), index);
        put_u32(&mut set, offset_of!(vfio_irq_set, count), 1);
        set.extend_from_slice(&fd.to_ne_bytes());
        put_argsz(&mut set);
        self.file
            .set_irqs(&mut set)
            .map_err(Error::call("VFIO_DEVICE_SET_IRQS"))
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

/// Every VFIO structure starts with its own size.
fn put_argsz(bytes: &mut [u8]) {
    let size = bytes.len() as u32;
    put_u32(bytes, 0, size);
}

/// Makes a call whose structure may be followed by capabilities: the kernel says in `argsz` how
/// much room it wants, and gets it in a second call.
fn growing(
    name: &'static str,
    fixed: usize,
    fill: impl Fn(&mut [u8]),
    call: impl Fn(&mut [u8]) -> io::Result<()>,
) -> Result<Vec<u8>, Error> {
    let mut size = fixed;
    for _ in 0..2 {
        let mut info = vec![0; size];
        put_argsz(&mut info);
        fill(&mut info);
        call(&mut info).map_err(Error::call(name))?;
        let wanted = caps::get_u32(&info, 0).unwrap_or_default() as usize;
        if wanted <= size {
            return Ok(info);
        }
        if wanted > INFO_SIZE_MAX {
            break;
        }
        size = wanted;
    }
    Err(Error::Malformed("the size of a structure has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, FakeRegion};

    #[test]
    fn region_info() {
        let device = Device::new(Fake::default());
        let region = device.region(9).unwrap();
        assert_eq!((region.index, region.size), (9, 48));
        assert_eq!(region.offset, device.file.regions[9].position);
        assert_eq!(region.region_type(), Some((0x8000_1014, 2)));
        assert_eq!(device.region(2).unwrap().region_type(), None);
    }

    #[test]
    fn missing_region_is_skipped() {
        let device = Device::new(Fake::default());
        assert!(device.region(8).is_err(), "the fake has no VGA region");
        let indices: Vec<_> = device.regions().unwrap().iter().map(|r| r.index).collect();
        assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6, 7, 9]);
    }

    #[test]
    fn a_region_that_cannot_be_asked_is_an_error() {
        let mut fake = Fake::default();
        fake.regions[3].fails = Some(Errno::IO);
        let error = Device::new(fake).regions().unwrap_err();
        assert!(matches!(error, Error::Call { .. }), "{error}");
    }

    #[test]
    fn device_info() {
        let info = |flags, ids: &[u32]| DeviceInfo {
            flags,
            num_regions: 0,
            num_irqs: 0,
            capabilities: Vec::from_iter(ids.iter().map(|&id| Capability {
                id: id as u16,
                version: 1,
                body: Vec::new(),
            })),
        };
        let pci = 1 << 1;
        assert!(info(VFIO_DEVICE_FLAGS_RESET | pci, &[]).can_reset());
        assert!(!info(pci, &[]).can_reset());
        assert!(info(0, &[9, VFIO_DEVICE_INFO_CAP_ZPCI_BASE]).has_zpci());
        assert!(!info(0, &[9]).has_zpci());
        assert!(!info(0, &[]).has_zpci());
    }

    #[test]
    fn structures_of_some_size() {
        let fixed = size_of::<vfio_device_info>();
        for (size, calls) in [
            (INFO_SIZE_MAX, &[fixed, INFO_SIZE_MAX][..]),
            (INFO_SIZE_MAX + 1, &[fixed]),
        ] {
            let device = Device::new(Fake {
                argsz_grows: (size - fixed) as u32,
                ..Fake::default()
            });
            // The second time it asks for more again.
            device.info().unwrap_err();
            assert_eq!(*device.file.asked.borrow(), calls);
        }
    }

    #[test]
    fn endless_argsz() {
        for grow in [1, 1 << 20] {
            let device = Device::new(Fake {
                argsz_grows: grow,
                ..Fake::default()
            });
            assert!(matches!(device.info(), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn bits_of_the_command() {
        let device = Device::new(Fake::default());
        device.enable_memory(true).unwrap();
        assert_eq!(device.file.config.borrow()[4..6], [0x06, 0x04]);
        device.enable_dma(false).unwrap();
        assert_eq!(device.file.config.borrow()[4..6], [0x02, 0x04]);
        device.enable_memory(false).unwrap();
        assert_eq!(device.file.config.borrow()[4..6], [0x00, 0x04]);
        device.enable_dma(true).unwrap();
        assert_eq!(device.file.config.borrow()[4..6], [0x04, 0x04]);
    }

    #[test]
    fn eventfd() {
        let device = Device::new(Fake::default());
        device.set_eventfd(Irq::Request, None).unwrap();
        let words: Vec<u32> = vec![24, 0x24, 4, 0, 1, u32::MAX];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        assert_eq!(*device.file.irqs.borrow(), bytes);
    }

    #[test]
    fn error_names_the_call() {
        let device = Device::new(Fake {
            regions: vec![FakeRegion::default()],
            ..Fake::default()
        });
        let error = device.region(1).unwrap_err();
        assert!(error
            .to_string()
            .starts_with("VFIO_DEVICE_GET_REGION_INFO: "));
    }

    #[test]
    fn configuration_space_has_an_end() {
        let device = Device::new(Fake::default());
        let mut bytes = [0; 4];
        device.read_config(0xffc, &mut bytes).unwrap();
        for offset in [0xffd, 0x1000, u64::MAX - 3, u64::MAX] {
            let error = device.read_config(offset, &mut bytes).unwrap_err();
            assert!(matches!(error, Error::OutOfBounds), "{offset:#x}: {error}");
            let error = device.write_config(offset, &bytes).unwrap_err();
            assert!(matches!(error, Error::OutOfBounds), "{offset:#x}: {error}");
        }
        let mut fake = Fake::default();
        fake.regions[7].size = u64::MAX;
        let error = Device::new(fake).read_config(u64::MAX - 8, &mut bytes);
        assert!(matches!(error, Err(Error::Malformed(_))), "{error:?}");
    }

    #[test]
    fn configuration_space_is_read_and_written_whole() {
        let device = Device::new(Fake {
            short: true,
            ..Fake::default()
        });
        let error = device.read_config(0, &mut [0; 4]).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{error}");
        let error = device.write_config(0, &[0; 4]).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{error}");
    }

    #[test]
    fn reset_may_fail() {
        let device = Device::new(Fake::default());
        device.reset().unwrap();
        device.file.fail.set(Some(Errno::NOTTY));
        let error = device.reset().unwrap_err();
        assert!(error.to_string().starts_with("VFIO_DEVICE_RESET: "));
    }

    /// A descriptor of any kind is a device, one of another file fails.
    #[test]
    fn descriptors() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fails = |error: Error| matches!(error, Error::Call { .. });
        assert!(fails(Device::new(&file).info().unwrap_err()));
        assert!(fails(Device::new(file.as_fd()).info().unwrap_err()));
        let shared = std::sync::Arc::new(Device::new(std::os::fd::OwnedFd::from(file)));
        assert!(fails(shared.info().unwrap_err()));
        assert!(fails(ZpciIo::find(shared.clone()).unwrap_err()));
        assert!(fails(shared.zpci_io().unwrap_err()));
    }
}
