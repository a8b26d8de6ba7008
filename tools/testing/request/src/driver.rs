// SPDX-License-Identifier: GPL-2.0

//! The driver's own `request.rs`, and its comparison with the model.

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
