// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest is told of its instruction when the region has not performed it.

use crate::{
    abi::{Request, BLOCKW},
    RequestError,
};

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
const STATUS_IN_ERROR: u8 = 8;
/// The function is blocked.
const STATUS_BLOCKED: u8 = 12;

impl RequestError {
    /// The answer for a guest whose instruction became `request`. (Success is condition code 0.)
    ///
    /// What a guest must see as another exception, a VMM checks before it sends a request: of a
    /// request that is not valid the region does not tell the reason. An error after which nothing
    /// is known makes the function appear blocked.
    pub fn answer(&self, request: &Request) -> Answer {
        let code = |code, status| Answer::ConditionCode { code, status };
        match self {
            Self::Locked | Self::Busy | Self::NoMemory => code(2, 0),
            Self::Gone => code(3, 0),
            Self::Refused => code(1, STATUS_IN_ERROR),
            Self::Disabled | Self::Interrupted | Self::Short(_) | Self::Other(_) => {
                code(1, STATUS_BLOCKED)
            }
            Self::Fault => Answer::Exception(Exception::Addressing),
            Self::Operands if request.flags == BLOCKW => {
                Answer::Exception(Exception::Specification)
            }
            Self::Invalid | Self::Operands => Answer::Exception(Exception::Operand),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the documentation, by errno.
    #[test]
    fn table() {
        let block = Request::block(2, 0, 0, 16);
        let load = Request::load(2, 0, 0, 8);
        let code = |code, status| Answer::ConditionCode { code, status };
        let exception = |code: u16, answer| match answer {
            Answer::Exception(exception) => assert_eq!(exception as u16, code),
            other => panic!("{other:?}"),
        };
        for request in [&block, &load] {
            for (errno, answer) in [
                (11, code(2, 0)),  // EAGAIN
                (16, code(2, 0)),  // EBUSY
                (12, code(2, 0)),  // ENOMEM
                (19, code(3, 0)),  // ENODEV
                (121, code(1, 8)), // EREMOTEIO
                (5, code(1, 12)),  // EIO
                (4, code(1, 12)),  // EINTR
                (95, code(1, 12)), // any other
            ] {
                assert_eq!(
                    RequestError::from_errno(errno).answer(request),
                    answer,
                    "{errno}"
                );
            }
            exception(0x05, RequestError::Fault.answer(request));
            exception(0x15, RequestError::Invalid.answer(request));
            assert_eq!(RequestError::Short(1).answer(request), code(1, 12));
        }
        exception(0x06, RequestError::Operands.answer(&block));
        exception(0x15, RequestError::Operands.answer(&load));
    }
}
