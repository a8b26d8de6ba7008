// SPDX-License-Identifier: GPL-2.0

//! What the tests in the booted host share beside KTAP: what the kernel says, which instructions the
//! driver issues, memory that the kernel reads and writes by its address, and processes that may hang.

pub mod kernel_log;
mod mapping;
mod missing;
mod process;
pub mod trace;

pub use mapping::{Mapping, PAGE, READ_WRITE};
pub use missing::Missing;
pub use process::end_of;
