// SPDX-License-Identifier: GPL-2.0

//! What the tests in the booted host share beside KTAP: memory that the kernel reads and writes by its
//! address.

mod mapping;
mod missing;

pub use mapping::{Mapping, PAGE, READ_WRITE};
pub use missing::Missing;
