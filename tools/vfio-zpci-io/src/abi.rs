// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wire format of the region. All integers are big-endian, as the machine is.

use vfio_bindings::bindings::vfio::VFIO_REGION_TYPE_PCI_VENDOR_TYPE;

/// PCI vendor id of IBM.
pub const PCI_VENDOR_ID_IBM: u32 = 0x1014;
/// Region type, as the capability `VFIO_REGION_INFO_CAP_TYPE` reports it.
pub const REGION_TYPE: u32 = PCI_VENDOR_ID_IBM | VFIO_REGION_TYPE_PCI_VENDOR_TYPE;
/// Region subtype (`VFIO_REGION_SUBTYPE_IBM_ZPCI_IO`).
pub const REGION_SUBTYPE: u32 = 2;
/// Size of the region in bytes.
pub const REGION_SIZE: u64 = 48;

/// Position of the header in the region.
pub const HEADER_POSITION: u64 = 0;
/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 16;
/// Position of the request in the region; a request is written nowhere else.
pub const REQUEST_POSITION: u64 = 16;
/// Size of a request in bytes; a request is written whole.
pub const REQUEST_SIZE: usize = 32;

/// Bit of [`Header::flags`]: requests with [`WRITE`] are supported.
pub const HEADER_WRITE: u64 = 1 << 0;

/// Bit of [`Request::flags`]: load (PCILG).
pub const READ: u64 = 1 << 0;
/// Bit of [`Request::flags`]: store a block (PCISTB).
pub const BLOCKW: u64 = 1 << 1;
/// Bit of [`Request::flags`]: store (PCISTG).
pub const WRITE: u64 = 1 << 2;

/// Largest block of one instruction, in bytes; also the unit of the PCI offset which it must not
/// leave and the page of the caller's memory which it must not leave.
pub const PAGE_SIZE: usize = 4096;

/// What the region says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Capability bits, see [`HEADER_WRITE`].
    pub flags: u64,
    /// Largest block that one request may store, in bytes.
    pub max: u16,
    /// Zero.
    pub reserved: u16,
    /// Zero.
    pub reserved2: u32,
}

impl Header {
    /// Decodes the header as it is read from [`HEADER_POSITION`].
    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Self {
        let word = u128::from_be_bytes(bytes);
        Self {
            flags: (word >> 64) as u64,
            max: (word >> 48) as u16,
            reserved: (word >> 32) as u16,
            reserved2: word as u32,
        }
    }
}

/// One instruction, described to the kernel.
///
/// Every field is free, so that tests and VMMs can send what a guest asked for: the kernel checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Exactly one of [`READ`], [`BLOCKW`], [`WRITE`].
    pub flags: u64,
    /// Address in the caller's memory: the block to store, or 8 bytes for the value that is
    /// loaded or stored (big-endian, right-aligned; the address must be 8-byte aligned).
    pub gaddr: u64,
    /// Offset in the PCI address space `pcias`, in bytes.
    pub offset: u64,
    /// Zero.
    pub reserved: u32,
    /// Number of bytes: 1..=[`Header::max`] for a block, 1, 2, 4 or 8 otherwise.
    pub len: u16,
    /// PCI address space: the number of the BAR, 0..=5.
    pub pcias: u8,
    /// Zero.
    pub reserved2: u8,
}

impl Request {
    /// A PCISTB: stores the block of `len` bytes at `gaddr`.
    pub const fn block(pcias: u8, offset: u64, gaddr: u64, len: u16) -> Self {
        Self::new(BLOCKW, pcias, offset, gaddr, len)
    }

    /// A PCILG: loads `len` bytes, to the 8 bytes of the value at `gaddr`.
    pub const fn load(pcias: u8, offset: u64, gaddr: u64, len: u16) -> Self {
        Self::new(READ, pcias, offset, gaddr, len)
    }

    /// A PCISTG: stores `len` bytes, from the 8 bytes of the value at `gaddr`.
    pub const fn store(pcias: u8, offset: u64, gaddr: u64, len: u16) -> Self {
        Self::new(WRITE, pcias, offset, gaddr, len)
    }

    const fn new(flags: u64, pcias: u8, offset: u64, gaddr: u64, len: u16) -> Self {
        Self {
            flags,
            gaddr,
            offset,
            reserved: 0,
            len,
            pcias,
            reserved2: 0,
        }
    }

    /// Encodes the request as it is written to [`REQUEST_POSITION`].
    pub fn to_bytes(&self) -> [u8; REQUEST_SIZE] {
        let mut bytes = [0; REQUEST_SIZE];
        bytes[0..8].copy_from_slice(&self.flags.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.gaddr.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.reserved.to_be_bytes());
        bytes[28..30].copy_from_slice(&self.len.to_be_bytes());
        bytes[30] = self.pcias;
        bytes[31] = self.reserved2;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bytes() {
        let request = Request {
            flags: BLOCKW,
            gaddr: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718,
            reserved: 0x2122_2324,
            len: 0x3132,
            pcias: 0x41,
            reserved2: 0x51,
        };
        assert_eq!(
            request.to_bytes(),
            [
                0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
                0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x41, 0x51
            ]
        );
    }

    #[test]
    fn header_bytes() {
        let bytes = [
            1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x33, 0x34,
        ];
        let header = Header {
            flags: 0x0102_0304_0506_0708,
            max: 0x1112,
            reserved: 0x2122,
            reserved2: 0x3132_3334,
        };
        assert_eq!(Header::from_bytes(bytes), header);
    }

    #[test]
    fn constants() {
        assert_eq!(REGION_TYPE, 0x8000_1014);
        assert_eq!(
            REQUEST_POSITION + REQUEST_SIZE as u64,
            REGION_SIZE,
            "the request ends the region"
        );
    }

    /// The interface of the kernel, for C.
    const HEADER_FILE: &str = include_str!("../include/vfio_zpci_io.h");

    /// Name, offset and size of each member of a structure without padding.
    fn members(structure: &str) -> Vec<(&str, usize, usize)> {
        let start = format!("struct {structure} {{");
        let (_, body) = HEADER_FILE.split_once(&start).expect("the structure");
        let (body, _) = body.split_once("};").expect("its end");
        let mut offset = 0;
        body.lines()
            .filter_map(|line| line.trim().strip_prefix("__u")?.strip_suffix(';'))
            .filter_map(|member| member.split_once(' '))
            .map(|(bits, name)| {
                let size = bits.parse::<usize>().expect("a width") / 8;
                offset += size;
                (name, offset - size, size)
            })
            .collect()
    }

    #[test]
    fn request_is_that_of_the_kernel() {
        let all = |name| match name {
            "flags" => Request {
                flags: u64::MAX,
                ..Request::default()
            },
            "gaddr" => Request {
                gaddr: u64::MAX,
                ..Request::default()
            },
            "offset" => Request {
                offset: u64::MAX,
                ..Request::default()
            },
            "reserved" => Request {
                reserved: u32::MAX,
                ..Request::default()
            },
            "len" => Request {
                len: u16::MAX,
                ..Request::default()
            },
            "pcias" => Request {
                pcias: u8::MAX,
                ..Request::default()
            },
            "reserved2" => Request {
                reserved2: u8::MAX,
                ..Request::default()
            },
            _ => panic!("no field '{name}'"),
        };
        let members = members("vfio_zpci_io_req");
        assert_eq!(members.len(), 7);
        for (name, offset, size) in members {
            let mut wanted = [0; REQUEST_SIZE];
            wanted[offset..offset + size].fill(0xff);
            assert_eq!(all(name).to_bytes(), wanted, "{name}");
        }
    }

    #[test]
    fn header_is_that_of_the_kernel() {
        let members = members("vfio_zpci_io_hdr");
        assert_eq!(members.len(), 4);
        for (name, offset, size) in members {
            let mut bytes = [0; HEADER_SIZE];
            bytes[offset..offset + size].fill(0xff);
            let header = Header::from_bytes(bytes);
            let wanted = match name {
                "flags" => Header {
                    flags: u64::MAX,
                    ..Header::default()
                },
                "max" => Header {
                    max: u16::MAX,
                    ..Header::default()
                },
                "reserved" => Header {
                    reserved: u16::MAX,
                    ..Header::default()
                },
                "reserved2" => Header {
                    reserved2: u32::MAX,
                    ..Header::default()
                },
                _ => panic!("no field '{name}'"),
            };
            assert_eq!(header, wanted, "{name}");
        }
    }

    #[test]
    fn constants_are_those_of_the_kernel() {
        let defined = |name: &str| {
            let (_, value) = HEADER_FILE.split_once(&format!("#define {name}")).unwrap();
            value.lines().next().unwrap().trim().to_owned()
        };
        let subtype = defined("VFIO_REGION_SUBTYPE_IBM_ZPCI_IO");
        assert_eq!(subtype, format!("({REGION_SUBTYPE})"));
        for (name, value) in [
            ("VFIO_ZPCI_IO_HDR_WRITE", HEADER_WRITE),
            ("VFIO_ZPCI_IO_FLAG_READ", READ),
            ("VFIO_ZPCI_IO_FLAG_BLOCKW", BLOCKW),
            ("VFIO_ZPCI_IO_FLAG_WRITE", WRITE),
        ] {
            let bit = value.trailing_zeros();
            assert_eq!(defined(name), format!("(1ULL << {bit})"), "{name}");
        }
    }
}
