// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest is told of its instruction when the region has not performed it.

/// How a VMM ends the instruction of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The instruction ends with this condition code, and with this status code for the guest's
    /// register (bits 32 to 39), which is 0 where the architecture defines none.
    ConditionCode {
        /// 1, 2 or 3.
        code: u8,
        /// A `ZPCI_PCI_ST_*` of Linux.
        status: u8,
    },
    /// A program interruption.
    Exception(Exception),
}

/// A program exception, with its interruption code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Exception {
    /// The operand cannot be accessed.
    Addressing = 0x05,
    /// The operand is not aligned, or not of a length, as the function wants it.
    Specification = 0x06,
    /// A field of an operand is not valid.
    Operand = 0x15,
}

/// The function is in its error state.
pub(crate) const IN_ERROR: Answer = code(1, 8);
/// The function is blocked.
pub(crate) const BLOCKED: Answer = code(1, 12);
pub(crate) const BUSY: Answer = code(2, 0);
/// The function's handle is not valid.
pub(crate) const NOT_VALID: Answer = code(3, 0);
pub(crate) const ADDRESSING: Answer = Answer::Exception(Exception::Addressing);
pub(crate) const SPECIFICATION: Answer = Answer::Exception(Exception::Specification);
pub(crate) const OPERAND: Answer = Answer::Exception(Exception::Operand);

const fn code(code: u8, status: u8) -> Answer {
    Answer::ConditionCode { code, status }
}
