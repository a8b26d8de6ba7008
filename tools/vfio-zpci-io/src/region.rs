// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The zPCI I/O region.

use crate::{
    abi::{self, Header, Request},
    Device, DeviceFile, Error, RequestError,
};

/// A page of our own: what lies in it never crosses a page and is aligned for every function.
#[repr(C, align(4096))]
struct Page([u8; abi::PAGE_SIZE]);

const _: () = assert!(align_of::<Page>() == abi::PAGE_SIZE);

/// The value of a load or store: 8-byte aligned, as the region wants it.
#[repr(C, align(8))]
struct Value([u8; 8]);

/// The zPCI I/O region of an open device.
///
/// `F` is how the device's file is held. A VMM whose threads share the region shares the file, and
/// clones the region for each thread or shares it, too:
///
/// ```
/// use std::{os::fd::OwnedFd, sync::Arc};
/// use vfio_zpci_io::{Error, ZpciIo};
///
/// fn region(device: Arc<OwnedFd>) -> Result<ZpciIo<Arc<OwnedFd>>, Error> {
///     ZpciIo::find(device)
/// }
/// ```
///
/// May be used by several threads at once; requests are independent of each other. The function's
/// memory space must have been enabled, see [`Device::enable_memory`].
#[derive(Clone, Debug)]
pub struct ZpciIo<F> {
    file: F,
    /// Where the region is in the file, and where in it the request is.
    position: u64,
    request: u64,
    header: Header,
}

impl<F: DeviceFile> ZpciIo<F> {
    /// Finds the region by its type; its index and its position are the driver's business.
    pub fn find(file: F) -> Result<Self, Error> {
        let device = Device::new(file);
        let region = device
            .regions()?
            .into_iter()
            .find(|region| region.region_type() == Some((abi::REGION_TYPE, abi::REGION_SUBTYPE)))
            .ok_or(Error::NoRegion)?;
        let file = device.file;
        if region.size < abi::REGION_SIZE {
            return Err(Error::Malformed("the zPCI I/O region is too small"));
        }
        let request = region
            .offset
            .checked_add(abi::REQUEST_POSITION)
            .ok_or(Error::Malformed("the zPCI I/O region has no end"))?;
        let mut bytes = [0; abi::HEADER_SIZE];
        match file.read_at(&mut bytes, region.offset) {
            Ok(abi::HEADER_SIZE) => {}
            Ok(_) => return Err(Error::Malformed("the region's header was read in part")),
            Err(error) => return Err(Error::call("reading the region's header")(error)),
        }
        let header = Header::from_bytes(bytes);
        if usize::from(header.max) > abi::PAGE_SIZE {
            return Err(Error::Malformed(
                "the region's largest block is more than a page",
            ));
        }
        Ok(Self {
            file,
            position: region.offset,
            request,
            header,
        })
    }

    /// What the region says about itself.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Position of the region in the device's file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Stores `data` (1..=[`Header::max`] bytes; none if that is 0) at `offset` of a BAR, with one PCISTB.
    ///
    /// A block that crosses a page of our memory, or is not aligned as strict functions want it,
    /// is copied to a page of its own first. It is never split. What else makes a block legal is
    /// the function's to say: many want at least 16 bytes, a multiple of 8, at a multiple of 8.
    pub fn store_block(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), RequestError> {
        if data.len() > abi::PAGE_SIZE {
            return Err(RequestError::Invalid);
        }
        let address = data.as_ptr().addr();
        if address % 8 != 0 || address % abi::PAGE_SIZE + data.len() > abi::PAGE_SIZE {
            self.store_bounced(bar, offset, data)
        } else {
            self.store_in_place(bar, offset, data)
        }
    }

    /// Apart, so that only who needs the page has it on the stack.
    #[inline(never)]
    fn store_bounced(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), RequestError> {
        let mut page = Page([0; abi::PAGE_SIZE]);
        let copy = &mut page.0[..data.len()];
        copy.copy_from_slice(data);
        self.store_in_place(bar, offset, copy)
    }

    fn store_in_place(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), RequestError> {
        let address = data.as_ptr().expose_provenance() as u64;
        // At most a page, see `store_block`.
        let request = Request::block(bar, offset, address, data.len() as u16);
        // SAFETY: The request reads `data`.
        unsafe { self.request(&request) }
    }

    /// Loads `len` bytes (1, 2, 4 or 8, within one doubleword) at `offset` of a BAR, with one
    /// PCILG. The value is what the register receives: the bytes, taken as big-endian.
    pub fn load(&self, bar: u8, offset: u64, len: u16) -> Result<u64, RequestError> {
        let mut value = Value([0; 8]);
        let address = (&raw mut value).expose_provenance() as u64;
        let request = Request::load(bar, offset, address, len);
        // SAFETY: The request writes 8 bytes to `value`, which is ours alone.
        unsafe { self.request(&request) }?;
        Ok(u64::from_be_bytes(value.0))
    }

    /// Stores the rightmost `len` bytes (1, 2, 4 or 8, within one doubleword) of `value` at
    /// `offset` of a BAR, with one PCISTG. Needs [`abi::HEADER_WRITE`] in the header.
    pub fn store(&self, bar: u8, offset: u64, len: u16, value: u64) -> Result<(), RequestError> {
        let value = Value(value.to_be_bytes());
        let address = (&raw const value).expose_provenance() as u64;
        let request = Request::store(bar, offset, address, len);
        // SAFETY: The request reads `value`.
        unsafe { self.request(&request) }
    }

    /// Sends a request as it is.
    ///
    /// # Safety
    ///
    /// With the flag [`abi::READ`] the kernel writes 8 bytes to this process's memory at
    /// `request.gaddr`, as if through a raw pointer: that memory must be the caller's to write,
    /// and no reference to it may be alive, unless the kernel is sure to refuse the request.
    /// Requests that store only read memory; what another thread writes there at the same time
    /// is stored torn, but harms nothing here.
    pub unsafe fn request(&self, request: &Request) -> Result<(), RequestError> {
        match self.file.write_at(&request.to_bytes(), self.request) {
            Ok(abi::REQUEST_SIZE) => Ok(()),
            Ok(count) => Err(RequestError::Short(count)),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn region() -> ZpciIo<Fake> {
        ZpciIo::find(Fake::default()).unwrap()
    }

    /// A buffer whose bytes count up, starting at a page.
    fn pages() -> Vec<Page> {
        let mut pages = vec![Page([0; abi::PAGE_SIZE]), Page([0; abi::PAGE_SIZE])];
        for page in &mut pages {
            for (at, byte) in page.0.iter_mut().enumerate() {
                *byte = at as u8 ^ (at >> 8) as u8;
            }
        }
        pages
    }

    fn bytes(pages: &[Page]) -> &[u8] {
        // SAFETY: Two pages of initialised bytes, one after the other.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), 2 * abi::PAGE_SIZE) }
    }

    #[test]
    fn found_by_type_wherever_it_is() {
        let region = region();
        assert_eq!(region.header().max, 128);
        assert_eq!(region.position(), region.file.regions[9].position);
    }

    #[test]
    fn other_types_are_not_it() {
        for (kind, subtype) in [(0x1014, 2), (0x8000_1014, 1), (0x8000_8086, 2), (2, 2)] {
            let mut fake = Fake::default();
            fake.regions[9].kind = Some((kind, subtype));
            let error = ZpciIo::find(fake).unwrap_err();
            assert!(matches!(error, Error::NoRegion), "{kind:x}/{subtype}");
        }
    }

    #[test]
    fn the_largest_block_is_a_page() {
        let mut fake = Fake::default();
        fake.header[8..10].copy_from_slice(&[0x10, 0]);
        assert_eq!(ZpciIo::find(fake).unwrap().header().max, 4096);
    }

    #[test]
    fn unusable_regions() {
        let too_small = |fake: &mut Fake| fake.regions[9].size = 47;
        let too_large = |fake: &mut Fake| fake.header[8] = 0x20;
        let no_end = |fake: &mut Fake| fake.regions[9].position = u64::MAX - 15;
        for change in [too_small, too_large, no_end] {
            let mut fake = Fake::default();
            change(&mut fake);
            let error = ZpciIo::find(fake).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)));
        }
        let error = ZpciIo::find(Fake {
            short: true,
            ..Fake::default()
        });
        assert!(matches!(error, Err(Error::Malformed(_))), "{error:?}");
    }

    /// A function that takes no blocks has loads and stores all the same.
    #[test]
    fn no_blocks() {
        let mut fake = Fake::default();
        fake.header[9] = 0;
        let region = ZpciIo::find(fake).unwrap();
        assert_eq!(region.header().max, 0);
        region.load(2, 0, 8).unwrap();
        // It is the kernel that refuses them.
        region.file.fail.set(Some(rustix::io::Errno::INVAL));
        assert_eq!(
            region.store_block(2, 0, &[0; 16]),
            Err(RequestError::Invalid)
        );
    }

    /// A region belongs to who holds its file: threads share it without a leak.
    #[test]
    fn regions_can_be_shared() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<ZpciIo<std::sync::Arc<Device<std::os::fd::OwnedFd>>>>();
        shared::<ZpciIo<std::os::fd::BorrowedFd<'static>>>();
    }

    #[test]
    fn one_block_is_one_request_wherever_it_lies() {
        let pages = pages();
        let region = region();
        for (start, len, in_place) in [
            (0, 1, true),
            (0, 4096, true),
            (8, 128, true),
            (4088, 8, true),
            (4088, 9, false),
            (1, 4096, false),
            (3, 11, false),
            (4095, 2, false),
            (4000, 4096, false),
        ] {
            let data = &bytes(&pages)[start..start + len];
            region.store_block(2, 0x1000, data).unwrap();
            let sent = region.file.taken();
            assert_eq!(sent.len(), 1, "one block, one instruction");
            let (request, stored) = &sent[0];
            assert_eq!(
                request.gaddr == data.as_ptr() as u64,
                in_place,
                "{start} {len}"
            );
            assert_eq!(request.gaddr % 8, 0);
            let page = abi::PAGE_SIZE as u64;
            assert!(request.gaddr % page + len as u64 <= page);
            assert_eq!((request.flags, request.pcias), (abi::BLOCKW, 2));
            assert_eq!((request.offset, request.len), (0x1000, len as u16));
            assert_eq!(stored, data);
        }
    }

    #[test]
    fn oversized_block_is_refused() {
        let region = region();
        // 65537 as a u16 would be 1.
        for len in [4097, 65536, 65537] {
            let result = region.store_block(2, 0, &vec![0; len]);
            assert_eq!(result, Err(RequestError::Invalid));
        }
        assert!(region.file.taken().is_empty());
    }

    #[test]
    fn values_are_big_endian() {
        let region = region();
        region.store(1, 8, 4, 0x0102_0304).unwrap();
        let sent = region.file.taken();
        assert_eq!(sent[0].0.flags, abi::WRITE);
        assert_eq!(sent[0].1, [0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(region.load(1, 8, 8), Ok(0x1122_3344_5566_7788));
        let sent = region.file.taken();
        assert_eq!(sent[0].0.flags, abi::READ);
        assert_eq!(sent[0].0.gaddr % 8, 0);
    }

    #[test]
    fn errno_is_the_reply() {
        let region = region();
        for (errno, error) in [
            (rustix::io::Errno::BUSY, RequestError::Busy),
            (rustix::io::Errno::AGAIN, RequestError::Locked),
            (rustix::io::Errno::NOMEM, RequestError::NoMemory),
            (rustix::io::Errno::NXIO, RequestError::Operands),
        ] {
            region.file.fail.set(Some(errno));
            assert_eq!(region.store_block(2, 0, &[0; 16]), Err(error));
            assert_eq!(region.load(2, 0, 8), Err(error));
            assert_eq!(region.file.taken().len(), 2, "nothing is retried");
        }
    }

    #[test]
    fn short_write_is_no_success() {
        let mut region = region();
        region.file.short = true;
        let result = region.store_block(2, 0, &[0; 16]);
        assert_eq!(result, Err(RequestError::Short(31)));
    }
}
