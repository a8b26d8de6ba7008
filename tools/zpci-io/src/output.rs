// SPDX-License-Identifier: GPL-2.0

//! Where results go. Nothing here panics when nobody reads them, as println! would.

use crate::failure::Failure;
use serde::Serialize;
use std::{fmt::Display, io::Write};

pub(crate) struct Output<'a> {
    sink: &'a mut dyn Write,
    json: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(sink: &'a mut dyn Write, json: bool) -> Self {
        Self { sink, json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result, as text or as one line of JSON.
    pub(crate) fn show(&mut self, result: &(impl Display + Serialize)) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string(result).map_err(std::io::Error::from)?;
            self.line(json)
        } else {
            self.line(result)
        }
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.sink, "{text}")?;
        // Who reads results as they come is not to wait for them.
        self.sink.flush()?;
        Ok(())
    }
}
