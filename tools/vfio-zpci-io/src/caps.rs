// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The capability chains of `VFIO_DEVICE_GET_INFO` and `VFIO_DEVICE_GET_REGION_INFO`, and the
//! native-endian fields of VFIO structures.
//!
//! A chain is data from outside: nothing in it is believed before it is checked.

use crate::Error;
use vfio_bindings::bindings::vfio::{
    vfio_info_cap_header,
    vfio_region_info_cap_type,
    VFIO_REGION_INFO_CAP_TYPE, //
};

const HEADER_SIZE: usize = size_of::<vfio_info_cap_header>();

/// One entry of a capability chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is; device and region capabilities count separately.
    pub id: u16,
    /// Version of its layout.
    pub version: u16,
    /// What follows its header, up to the next capability: it may end in padding.
    pub body: Vec<u8>,
}

impl Capability {
    /// Type and subtype, when this is the capability that makes a region device-specific.
    pub fn region_type(&self) -> Option<(u32, u32)> {
        // The body is the structure without its header.
        let field = |at| get_u32(&self.body, at - HEADER_SIZE);
        if u32::from(self.id) != VFIO_REGION_INFO_CAP_TYPE {
            return None;
        }
        Some((
            field(std::mem::offset_of!(vfio_region_info_cap_type, type_))?,
            field(std::mem::offset_of!(vfio_region_info_cap_type, subtype))?,
        ))
    }
}

/// The native-endian u16 at `at`.
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*field))
}

/// The native-endian u32 at `at`.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

/// The native-endian u64 at `at`.
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*field))
}

/// Walks the chain in `info`, a structure of `fixed` bytes with capabilities after it.
///
/// The kernel appends capabilities one after the other, so a chain which does not ascend is
/// refused; that also ends every walk.
pub(crate) fn chain(info: &[u8], fixed: usize, first: u32) -> Result<Vec<Capability>, Error> {
    let mut capabilities = Vec::new();
    let mut at = first as usize;
    let mut free = fixed;
    while at != 0 {
        if at < free {
            return Err(Error::Malformed("a capability chain does not ascend"));
        }
        let header = info
            .get(at..)
            .filter(|rest| rest.len() >= HEADER_SIZE)
            .ok_or(Error::Malformed(
                "a capability lies outside of its structure",
            ))?;
        let field = |offset| get_u16(header, offset).unwrap_or_default();
        let next = get_u32(header, std::mem::offset_of!(vfio_info_cap_header, next))
            .unwrap_or_default() as usize;
        free = at + HEADER_SIZE;
        let end = if next == 0 { info.len() } else { next };
        let body = info
            .get(free..end)
            .ok_or(Error::Malformed("a capability chain leaves its structure"))?;
        capabilities.push(Capability {
            id: field(std::mem::offset_of!(vfio_info_cap_header, id)),
            version: field(std::mem::offset_of!(vfio_info_cap_header, version)),
            body: body.to_vec(),
        });
        at = next;
    }
    Ok(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: usize = 32;

    /// A structure of `FIXED` bytes, then entries (id, next, body).
    fn info(entries: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        for (id, next, body) in entries {
            bytes.extend_from_slice(&id.to_ne_bytes());
            bytes.extend_from_slice(&1u16.to_ne_bytes());
            bytes.extend_from_slice(&next.to_ne_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    fn type_body(kind: u32, subtype: u32) -> Vec<u8> {
        [kind.to_ne_bytes(), subtype.to_ne_bytes()].concat()
    }

    #[test]
    fn no_chain() {
        assert_eq!(chain(&info(&[]), FIXED, 0).unwrap(), []);
    }

    #[test]
    fn two_entries() {
        let bytes = info(&[(9, 44, &[1, 2, 3, 4]), (2, 0, &type_body(5, 6))]);
        let caps = chain(&bytes, FIXED, 32).unwrap();
        assert_eq!(caps.len(), 2);
        assert_eq!((caps[0].id, caps[0].version), (9, 1));
        assert_eq!(caps[0].body, [1, 2, 3, 4]);
        assert_eq!(caps[0].region_type(), None);
        assert_eq!(caps[1].region_type(), Some((5, 6)));
    }

    #[test]
    fn type_capability_too_short() {
        let bytes = info(&[(2, 0, &[0; 7])]);
        let caps = chain(&bytes, FIXED, 32).unwrap();
        assert_eq!(caps[0].region_type(), None);
    }

    #[test]
    fn hostile_chains() {
        let one = |next| info(&[(2, next, &type_body(5, 6))]);
        for (what, bytes, first) in [
            ("starts inside of the structure", one(0), 8),
            ("starts beyond the end", one(0), 49),
            ("starts at the end", one(0), 48),
            ("header cut off", one(0), 44),
            ("start wraps around", one(0), u32::MAX),
            ("points to itself", one(32), 32),
            ("points back", one(8), 32),
            ("points into its own header", one(36), 32),
            ("next beyond the end", one(49), 32),
            ("next at the end", one(48), 32),
            ("next wraps around", one(u32::MAX - 3), 32),
        ] {
            let result = chain(&bytes, FIXED, first);
            assert!(
                matches!(result, Err(Error::Malformed(_))),
                "{what}: {result:?}"
            );
        }
    }

    /// No bytes whatever make the walk panic or run on for ever.
    #[test]
    fn arbitrary_bytes() {
        let mut state = 1u32;
        for _ in 0..100_000 {
            let mut bytes = vec![0; FIXED];
            for _ in 0..24 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Small numbers make plausible offsets.
                bytes.extend_from_slice(&((state >> 24) % 80).to_ne_bytes());
            }
            let first = (state >> 8) % 140;
            for capability in chain(&bytes, FIXED, first).unwrap_or_default() {
                capability.region_type();
            }
        }
    }
}
