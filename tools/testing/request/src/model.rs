// SPDX-License-Identifier: GPL-2.0

//! The rules of the region as its documentation words them: in terms of the bytes that are touched,
//! with 128-bit numbers so that nothing overflows.

use crate::request::{
    Instruction,
    Invalid,
    Limits,
    Request, //
};

/// A request as its fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) flags: u64,
    pub(crate) gaddr: u64,
    pub(crate) offset: u64,
    pub(crate) reserved: u32,
    pub(crate) len: u16,
    pub(crate) pcias: u8,
    pub(crate) reserved2: u8,
}

impl Fields {
    /// As on the wire.
    pub(crate) fn raw(&self) -> [u8; 32] {
        let bytes: Vec<u8> = [
            &self.flags.to_be_bytes()[..],
            &self.gaddr.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.reserved.to_be_bytes(),
            &self.len.to_be_bytes(),
            &[self.pcias, self.reserved2],
        ]
        .concat();
        bytes.try_into().expect("the fields make 32 bytes")
    }

    /// What `Request::parse()` says.
    pub(crate) fn parse(&self, limits: &Limits) -> Result<Request, Invalid> {
        Request::parse(&self.raw(), limits)
    }

    /// Whether the rules allow the request.
    pub(crate) fn allowed(&self, limits: &Limits) -> bool {
        let instruction = match self.flags {
            1 => Instruction::Load,
            2 => Instruction::StoreBlock,
            4 => Instruction::Store,
            _ => return false,
        };
        if self.reserved != 0 || self.reserved2 != 0 || self.len == 0 || self.pcias > 5 {
            return false;
        }

        let block = instruction == Instruction::StoreBlock;
        if block && self.len > limits.max || !block && ![1, 2, 4, 8].contains(&self.len) {
            return false;
        }

        // First and last byte, in memory and in the BAR.
        let unit = if block { 4096 } else { 8 };
        let memory_len = if block { u128::from(self.len) } else { 8 };
        let memory = span(self.gaddr, memory_len);
        let bar = span(self.offset, u128::from(self.len));
        if memory.0 / unit != memory.1 / unit || bar.0 / unit != bar.1 / unit {
            return false;
        }

        if bar.1 >= u128::from(limits.bars[usize::from(self.pcias)]) {
            return false;
        }
        limits.msix.iter().all(|window| {
            let start = u128::from(window.start);
            let end = start + u128::from(window.len);
            window.bar != self.pcias || bar.1 < start || end <= bar.0 || window.len == 0
        })
    }
}

fn span(start: u64, len: u128) -> (u128, u128) {
    let start = u128::from(start);
    (start, start + len - 1)
}
