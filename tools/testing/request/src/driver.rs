// SPDX-License-Identifier: GPL-2.0

//! The driver's own `request.rs`, and its comparison with the model.

// The driver uses it all; the comparison, without the tests, does not.
#[cfg_attr(not(test), allow(dead_code))]
#[path = "../../../../drivers/vfio/pci/zpci/request.rs"]
mod request;

pub(crate) use request::{Instruction, Invalid, Limits, Request};

use crate::model::{self, Fields, Kind};
use request::Window;

/// The limits as the driver has them.
pub(crate) fn limits(limits: &model::Limits) -> Limits {
    let window = |window: model::Window| Window {
        bar: window.bar,
        start: window.start,
        len: window.len,
    };
    Limits::new(limits.max, limits.bars, limits.msix.map(window))
}

impl Fields {
    /// What the driver says about the request.
    pub(crate) fn parse(&self, limits: &model::Limits) -> Result<Request, Invalid> {
        Request::parse(&self.raw(), &self::limits(limits))
    }
}

/// Driver and model agree: on what is allowed, and on what is asked for if it is.
#[track_caller]
pub(crate) fn check(fields: &Fields, limits: &model::Limits) {
    let parsed = fields.parse(limits);
    let allowed = fields.allowed(limits);
    assert_eq!(parsed.is_ok(), allowed, "{fields:x?} gave {parsed:x?}");
    let Ok(request) = parsed else { return };
    let kind = match request.instruction {
        Instruction::Load => Kind::Load,
        Instruction::StoreBlock => Kind::Block,
        Instruction::Store => Kind::Store,
    };
    assert_eq!(Some(kind), fields.kind());
    let Request {
        address,
        offset,
        len,
        bar,
        ..
    } = request;
    assert_eq!(
        (address, offset, len, bar),
        (fields.gaddr, fields.offset, fields.len, fields.pcias)
    );
    assert_eq!(request.memory_len() as u64, fields.memory_len());
}

/// Takes any bytes for a request and the limits of a function, and checks them.
pub fn check_bytes(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let fields = Fields {
        flags: bytes.number(8),
        gaddr: bytes.number(8),
        offset: bytes.number(8),
        reserved: bytes.number(4) as u32,
        len: bytes.number(2) as u16,
        pcias: bytes.number(1) as u8,
        reserved2: bytes.number(1) as u8,
    };
    let window = |bytes: &mut Bytes<'_>| model::Window {
        bar: bytes.number(1) as u8,
        start: bytes.number(4),
        len: bytes.number(2),
    };
    let limits = model::Limits {
        max: bytes.number(2) as u16,
        msix: [window(&mut bytes), window(&mut bytes)],
        bars: std::array::from_fn(|_| bytes.number(8)),
    };
    check(&fields, &limits);
}

/// What is left of the bytes; behind their end there are zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// The next integer, of at most 8 bytes, most significant byte first.
    fn number(&mut self, len: usize) -> u64 {
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        (0..len).fold(0, |value, at| {
            value << 8 | u64::from(now.get(at).copied().unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What fuzzing has found worth keeping.
    #[test]
    fn corpus_agrees_with_the_model() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
        let files: Vec<_> = fs::read_dir(corpus).unwrap().map(Result::unwrap).collect();
        assert!(!files.is_empty());
        for file in files {
            check_bytes(&fs::read(file.path()).unwrap());
        }
    }
}
