// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, and what to do about it.

use std::io;
use thiserror::Error;
use vfio_zpci_io::{Error, RequestError};

#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The command line was not understood.
    #[error("{0}")]
    Usage(String),
    /// The file with the bytes of a block could not be read.
    #[error("{path}: {source}")]
    Data { path: String, source: io::Error },
    /// The function could not be found, bound or opened.
    #[error(transparent)]
    Function(#[from] Error),
    /// The instruction was not executed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The demonstration found something wrong.
    #[error("{0}")]
    Demo(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Function(Error::Address(_)) => 2,
            _ => 1,
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Usage(_) => Some("Try 'zpci-io --help'."),
            Self::Data { .. } | Self::Demo(_) => None,
            Self::Function(error) => function_remedy(error),
            Self::Request(error) => request_remedy(*error),
        }
    }
}

fn function_remedy(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Address(_) => "'zpci-io list' shows the addresses.",
        Error::NoFunction(_) => {
            "'zpci-io list' shows what is there. A function whose slot is off comes back with \
             'echo 1 > /sys/bus/pci/slots/<function id>/power'."
        }
        Error::Module { .. } => {
            "Build the module for the running kernel and install it ('make', 'make install'), \
             or load it with 'insmod zpci-vfio-pci.ko'."
        }
        Error::NotTaken { .. } => "'dmesg' has the driver's reason.",
        Error::NotVfio(_) | Error::NoRegion => {
            "'zpci-io bind ADDR' gives the function to the driver that has the region."
        }
        Error::NoNode { .. } => {
            "The kernel was built without it (CONFIG_VFIO_DEVICE_CDEV, CONFIG_VFIO_GROUP): open \
             it the other way, --group or --iommufd."
        }
        Error::NotViable(_) => "'zpci-io list' shows the drivers.",
        Error::File { source, .. } | Error::Call { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => "Run it as root.",
            io::ErrorKind::ResourceBusy => "Another process has the function open: end it first.",
            _ => return None,
        },
        _ => return None,
    })
}

fn request_remedy(error: RequestError) -> Option<&'static str> {
    Some(match error {
        RequestError::Invalid => {
            "LEN is 1, 2, 4 or 8 within a doubleword, a block at most what 'zpci-io info' says. \
             It must lie in the BAR, in one 4 KiB unit of it, and not touch the MSI-X tables."
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
