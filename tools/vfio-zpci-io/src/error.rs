// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors: one enum for finding and opening a function, one for the outcome of an instruction.

#[cfg(feature = "sysfs")]
use crate::sysfs::Address;
use crate::{
    abi::{Request, BLOCKW},
    answer::{ADDRESSING, BLOCKED, BUSY, IN_ERROR, NOT_VALID, OPERAND, SPECIFICATION},
    Answer,
};
use rustix::io::Errno;
use std::{io, path::PathBuf};
use thiserror::Error;

/// Why a function could not be found, bound, opened or asked about itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Not of the form `DDDD:BB:DD.F`.
    #[cfg(feature = "sysfs")]
    #[error("'{0}' is not a PCI address like 0001:00:00.0")]
    Address(String),
    /// There is no such PCI function.
    #[cfg(feature = "sysfs")]
    #[error("{0}: there is no such PCI function")]
    NoFunction(Address),
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of sysfs does not say what it should.
    #[cfg(feature = "sysfs")]
    #[error("{}: unexpected content '{content}'", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it contains.
        content: String,
    },
    /// The driver's module could not be loaded.
    #[cfg(feature = "sysfs")]
    #[error("the driver {driver} is not there and 'modprobe {driver}' failed: {reason}")]
    Module {
        /// Name of the driver.
        driver: String,
        /// Why.
        reason: String,
    },
    /// The driver was told to take the function and did not.
    #[cfg(feature = "sysfs")]
    #[error("{address}: the driver {driver} did not take the function")]
    NotTaken {
        /// The function.
        address: Address,
        /// Name of the driver.
        driver: String,
    },
    /// No VFIO driver is bound to the function.
    #[cfg(feature = "sysfs")]
    #[error("{0}: no VFIO driver is bound to the function")]
    NotVfio(Address),
    /// The function has no node for the way of opening that was asked for.
    #[cfg(feature = "sysfs")]
    #[error("{address}: the function has no VFIO {what}")]
    NoNode {
        /// The function.
        address: Address,
        /// "character device" or "group".
        what: &'static str,
    },
    /// Another function of the group is bound to a driver that is not a VFIO driver.
    #[error("VFIO group {0} is not viable: all its functions must be bound to VFIO drivers")]
    NotViable(u32),
    /// A VFIO or iommufd call failed.
    #[error("{call}: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's answer does not make sense.
    #[error("malformed answer of the kernel: {0}")]
    Malformed(&'static str),
    /// Configuration space has no such bytes.
    #[error("the bytes lie outside of configuration space")]
    OutOfBounds,
    /// The driver which is bound has no zPCI I/O region.
    #[error("the driver of the function has no zPCI I/O region")]
    NoRegion,
}

impl Error {
    /// For `map_err`: the call that failed.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Call { call, source }
    }

    /// For `map_err`: the file that failed.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Why an instruction was not executed: one variant for each errno of the region.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// `EINVAL`: the request breaks a rule of the region or does not fit the BAR.
    #[error("the request is not valid (EINVAL)")]
    Invalid,
    /// `EFAULT`: the caller's memory cannot be read (stores) or written (load).
    #[error("the memory of the request cannot be accessed (EFAULT)")]
    Fault,
    /// `ENOMEM`: no memory to pin the caller's page.
    #[error("out of memory (ENOMEM)")]
    NoMemory,
    /// `EIO`: memory space is disabled in PCI_COMMAND, the function is in a low-power state, or
    /// it failed for good.
    #[error("the function's memory space is disabled, or the function failed (EIO)")]
    Disabled,
    /// `EREMOTEIO`: the function refused the instruction (condition code 1).
    #[error("the function refused the instruction (EREMOTEIO)")]
    Refused,
    /// `ENODEV`: the function handle is not valid or not enabled (condition code 3).
    #[error("the function handle is not valid (ENODEV)")]
    Gone,
    /// `ENXIO`: the operands are not legal for this function (program exception).
    #[error("the operands are not legal for this function (ENXIO)")]
    Operands,
    /// `EBUSY`: the function stayed busy (condition code 2).
    #[error("the function is busy (EBUSY)")]
    Busy,
    /// `EAGAIN`: the function is being reset, recovered or bound, and that takes long.
    #[error("the function is being reset or recovered (EAGAIN)")]
    Locked,
    /// `EINTR`: the calling process is being killed.
    #[error("interrupted (EINTR)")]
    Interrupted,
    /// The kernel took this many bytes of the request: a file which is not the region.
    #[error("{0} bytes of the request were written")]
    Short(usize),
    /// An errno which the region does not document.
    #[error("unexpected error: {}", io::Error::from_raw_os_error(*.0))]
    Other(i32),
}

/// What the region documents of an errno: what it is here, whether the instruction may have been
/// issued, whether the same request may be sent again, and what a VMM answers to its guest.
type Row = (Errno, RequestError, bool, bool, Answer);

impl RequestError {
    const TABLE: [Row; 10] = [
        (Errno::INVAL, Self::Invalid, false, false, OPERAND),
        (Errno::FAULT, Self::Fault, false, false, ADDRESSING),
        (Errno::NOMEM, Self::NoMemory, false, true, BUSY),
        (Errno::IO, Self::Disabled, false, false, BLOCKED),
        (Errno::AGAIN, Self::Locked, false, true, BUSY),
        (Errno::INTR, Self::Interrupted, false, false, BLOCKED),
        (Errno::NODEV, Self::Gone, true, false, NOT_VALID),
        (Errno::NXIO, Self::Operands, true, false, OPERAND),
        (Errno::REMOTEIO, Self::Refused, true, false, IN_ERROR),
        (Errno::BUSY, Self::Busy, true, true, BUSY),
    ];

    /// The variant for an errno.
    pub fn from_errno(errno: i32) -> Self {
        let mut rows = Self::TABLE.into_iter();
        let row = rows.find(|row| row.0.raw_os_error() == errno);
        row.map_or(Self::Other(errno), |row| row.1)
    }

    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Other(errno) => Some(*errno),
            _ => self.row().map(|row| row.0.raw_os_error()),
        }
    }

    /// Whether the instruction may have been issued. `false` is a promise; `true` may also mean
    /// that it was issued and had no effect, or, for an undocumented error, that nobody knows.
    pub fn issued(&self) -> bool {
        self.row().is_none_or(|row| row.2)
    }

    /// Whether the same request may be sent again: the instruction had no effect and the cause
    /// passes by itself.
    pub fn retry_is_safe(&self) -> bool {
        self.row().is_some_and(|row| row.3)
    }

    /// The answer for a guest whose instruction became `request`. (Success is condition code 0.)
    ///
    /// What a guest must see as another exception, a VMM checks before it sends a request: of a
    /// request that is not valid the region does not tell the reason. An error after which nothing
    /// is known makes the function appear blocked.
    pub fn answer(&self, request: &Request) -> Answer {
        match self {
            Self::Operands if request.flags == BLOCKW => SPECIFICATION,
            _ => self.row().map_or(BLOCKED, |row| row.4),
        }
    }

    fn row(&self) -> Option<Row> {
        Self::TABLE.into_iter().find(|row| row.1 == *self)
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        // Without an errno the error does not come from the kernel; 0 is no errno.
        Self::from_errno(error.raw_os_error().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_errno_is_kept() {
        for errno in 1..134 {
            let error = RequestError::from_errno(errno);
            assert_eq!(error.errno(), Some(errno));
            let in_table = RequestError::TABLE
                .iter()
                .any(|row| row.0.raw_os_error() == errno);
            assert_ne!(in_table, error == RequestError::Other(errno));
        }
    }

    #[test]
    fn rows_are_told_apart() {
        let (load, block) = (Request::load(2, 0, 0, 8), Request::block(2, 0, 0, 8));
        let all = |error: RequestError| (error.issued(), error.retry_is_safe());
        assert_eq!(all(RequestError::Invalid), (false, false));
        assert_eq!(all(RequestError::Locked), (false, true));
        assert_eq!(all(RequestError::Gone), (true, false));
        assert_eq!(all(RequestError::Busy), (true, true));
        assert_eq!(RequestError::Operands.answer(&block), SPECIFICATION);
        assert_eq!(RequestError::Operands.answer(&load), OPERAND);
        assert_eq!(RequestError::Fault.answer(&block), ADDRESSING);
    }

    #[test]
    fn nothing_is_known_of_what_is_not_in_the_table() {
        let load = Request::load(2, 0, 0, 8);
        for error in [RequestError::Short(1), RequestError::Other(95)] {
            assert!(error.issued() && !error.retry_is_safe());
            assert_eq!(error.answer(&load), BLOCKED);
        }
        assert_eq!(RequestError::Short(1).errno(), None);
    }
}
