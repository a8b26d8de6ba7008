// SPDX-License-Identifier: GPL-2.0

//! Why a step failed.

use std::{fmt, io};

#[derive(Debug)]
pub(crate) enum Failure {
    /// The operating system did not do something.
    Io(String, io::Error),
    /// It did, and the result is not as it must be.
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Wrong(what) => write!(f, "{what}"),
        }
    }
}

impl From<vfio_zpci_io::Error> for Failure {
    fn from(error: vfio_zpci_io::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// Says what the operating system was asked for.
pub(crate) trait Context<T> {
    fn context(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::Io(what.into(), error.into()))
    }
}

/// What must be true.
pub(crate) fn ensure(truth: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    match truth {
        true => Ok(()),
        false => Err(Failure::Wrong(otherwise())),
    }
}
