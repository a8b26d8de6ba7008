// SPDX-License-Identifier: GPL-2.0

//! The lease of the driver, `lease.rs` and `wait.rs` as they are, in every interleaving.
//!
//! What they stand on is replaced: mutex, wait queue and atomics of the kernel by such as loom
//! knows, which goes through all interleavings of the threads of a scenario and, unlike the model
//! in `tools/testing/model`, through all values that the memory orders let a load return.
//!
//! A lost wakeup is a deadlock here, for nothing ticks unless a scenario says so. Who issues an
//! instruction reads a cell, who resets the function writes to it: without the device lock, or an
//! order too weak to pass it on, that is a data race. Who waits for a lease with `memory_lock` in hand
//! is found at once.

#![cfg(test)]

// Both files know the module by the name of the kernel crate.
extern crate self as kernel;

mod device_lock;
mod kernel_crate;
mod lockdep;
mod memory;
mod scenarios;
mod stats;
mod wait_queue;

#[path = "../../../../rust/vfio/lease.rs"]
mod lease;
#[path = "../../../../rust/vfio/wait.rs"]
mod wait;

pub use kernel_crate::{prelude, sync, time};
