// SPDX-License-Identifier: GPL-2.0

//! The one error type: which step failed, why, and what to do about it.

use std::{fmt, io};

#[derive(Debug)]
pub struct Error {
    step: String,
    reason: String,
    remedy: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(
        step: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            step: step.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}.", self.step, self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, " {}.", self.remedy)?;
        }
        Ok(())
    }
}

/// Names the step in which an operating system error occurred.
pub trait Context<T> {
    fn context(self, step: impl Into<String>) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, step: impl Into<String>) -> Result<T> {
        self.map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "Free some space ('df -h'), then start again: nothing half done stays"
                }
                io::ErrorKind::PermissionDenied => "Set ZPCI_CACHE to a directory you own",
                _ => "",
            };
            Error::new(step, error.to_string(), remedy)
        })
    }
}
