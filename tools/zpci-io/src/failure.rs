// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, and what to do about it.

use crate::cli::Name;
use serde::Serialize;
use std::{io, path::PathBuf};
use thiserror::Error;
use vfio_zpci_io::{sysfs::DRIVER, Error, RequestError};

/// What to do about a function that cannot be opened twice.
const OPEN: &str =
    "Another process has the function open: end it first. 'zpci-io info FUNCTION' tells which.";

/// As the client crate calls the first call by the character device.
const BIND_IOMMUFD: &str = "VFIO_DEVICE_BIND_IOMMUFD";

#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// What was asked for was not understood.
    #[error("{0}")]
    Usage(String),
    /// A file of the user's could not be read.
    #[error("{}: {source}", path.display())]
    Data { path: PathBuf, source: io::Error },
    /// No function has this function id.
    #[error("{0}: there is no zPCI function with this function id")]
    NoFid(Name),
    /// The function could not be found, bound or opened.
    #[error(transparent)]
    Function(#[from] Error),
    /// The function is none of ours to take.
    #[error("{address}: {reason}")]
    Refused { address: String, reason: Refusal },
    /// The instruction was not executed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A line of a batch failed.
    #[error("line {line}: {source}")]
    Line { line: usize, source: Box<Failure> },
    /// The demonstration found something wrong.
    #[error("{0}")]
    Demo(String),
    /// The region does not work as it should.
    #[error("{0} not as it should be")]
    Check(usize),
    /// Something is missing on this machine.
    #[error("{0} missing")]
    Missing(usize),
    /// The output could not be written.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

/// Why a function is not taken.
#[derive(Debug, Error, PartialEq)]
pub(crate) enum Refusal {
    #[error("it is not a zPCI function")]
    NotZpci,
    #[error("the driver {0} has it, not {DRIVER}")]
    OtherDriver(String),
    #[error("no driver has it")]
    NoDriver,
    #[error("it is in use: {}", .0.join("; "))]
    InUse(Vec<String>),
    #[error("{0}")]
    NoDemo(&'static str),
}

/// What --json prints of a failure.
#[derive(Serialize)]
struct Report {
    error: String,
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
    /// What the kernel said, if the system call that failed was not a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestReport>,
}

/// What is known of an instruction that was not executed.
#[derive(Serialize)]
struct RequestReport {
    errno: Option<i32>,
    issued: bool,
    retry_is_safe: bool,
}

impl Failure {
    pub(crate) fn refused(address: impl ToString, reason: Refusal) -> Self {
        Self::Refused {
            address: address.to_string(),
            reason,
        }
    }

    /// Whether nobody reads the output any more: no failure of ours.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            _ if self.is_closed_pipe() => 0,
            Self::Line { source, .. } => source.code(),
            Self::Usage(_) => 2,
            Self::Refused { .. } => 3,
            Self::Request(_) => 4,
            _ => 1,
        }
    }

    /// All that is known, as JSON.
    pub(crate) fn json(&self) -> String {
        let report = Report {
            error: self.to_string(),
            code: self.code(),
            remedy: self.remedy(),
            errno: self.errno(),
            request: self.request().map(|error| RequestReport {
                errno: error.errno(),
                issued: error.issued(),
                retry_is_safe: error.retry_is_safe(),
            }),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }

    /// The errno of a system call that failed, unless it was a request.
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Line { source, .. } => source.errno(),
            Self::Function(Error::File { source, .. } | Error::Call { source, .. })
            | Self::Data { source, .. }
            | Self::Output(source) => source.raw_os_error(),
            _ => None,
        }
    }

    fn request(&self) -> Option<&RequestError> {
        match self {
            Self::Line { source, .. } => source.request(),
            Self::Request(error) => Some(error),
            _ => None,
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Usage(_) => Some("'zpci-io COMMAND --help' tells what it wants."),
            Self::NoFid(_) => Some("'zpci-io list' shows the function ids."),
            Self::Refused { reason, .. } => refusal_remedy(reason),
            Self::Line { source, .. } => source.remedy(),
            Self::Function(error) => function_remedy(error),
            Self::Request(error) => request_remedy(*error),
            Self::Data { .. }
            | Self::Demo(_)
            | Self::Check(_)
            | Self::Missing(_)
            | Self::Output(_) => None,
        }
    }
}

fn refusal_remedy(reason: &Refusal) -> Option<&'static str> {
    match reason {
        Refusal::NotZpci | Refusal::NoDemo(_) => Some("'zpci-io list' shows the functions."),
        Refusal::OtherDriver(_) => {
            Some("If nothing needs it there: 'zpci-io bind FUNCTION', or --force.")
        }
        Refusal::NoDriver => Some("'zpci-io bind FUNCTION' gives it to the driver."),
        Refusal::InUse(_) => Some("End that first. With --force it is taken all the same."),
    }
}

fn function_remedy(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NoFunction(_) => {
            "'zpci-io list' shows what is there. A function whose slot is off comes back with \
             'echo 1 > /sys/bus/pci/slots/<function id>/power'."
        }
        Error::Module { .. } => {
            "Build the module for the running kernel and install it ('make', 'make \
             modules_install'), or load it with 'insmod zpci-vfio-pci.ko'."
        }
        Error::NotTaken { .. } => "'dmesg' has the driver's reason.",
        Error::NotVfio(_) | Error::NoRegion => {
            "'zpci-io bind FUNCTION' gives the function to the driver that has the region."
        }
        Error::NoNode { .. } => {
            "The kernel was built without it (CONFIG_VFIO_DEVICE_CDEV, CONFIG_VFIO_GROUP): open \
             it the other way, --group or --iommufd."
        }
        Error::NotViable(_) => "'zpci-io list' shows the drivers.",
        // The kernel says it in this way where the function is open by its character device, and
        // nothing else of the call can be wrong.
        Error::Call {
            call: BIND_IOMMUFD,
            source,
        } if source.kind() == io::ErrorKind::InvalidInput => OPEN,
        Error::File { source, .. } | Error::Call { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => "Run it as root.",
            io::ErrorKind::ResourceBusy => OPEN,
            _ => return None,
        },
        _ => return None,
    })
}

fn request_remedy(error: RequestError) -> Option<&'static str> {
    Some(match error {
        RequestError::Invalid => {
            "LEN is 1, 2, 4 or 8 within a doubleword, a block at most what 'zpci-io info --open' \
             says. It must lie in the BAR, in one 4 KiB unit of it, and not touch the MSI-X tables."
        }
        RequestError::Disabled => "'dmesg' and /sys/kernel/debug/s390dbf/pci_error may say more.",
        RequestError::Operands => {
            "Many functions want blocks of at least 16 bytes, a multiple of 8, at an OFFSET \
             which is a multiple of 8."
        }
        RequestError::Gone => "The function is gone or disabled: see 'dmesg'.",
        error if error.retry_is_safe() => "Nothing happened: try again.",
        _ => return None,
    })
}
