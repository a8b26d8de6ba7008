// SPDX-License-Identifier: GPL-2.0

//! The stand-in for a VMM, as the tests see it.

mod pace;
mod process;

use crate::{
    child::{Child, LIMIT},
    tally::Tally,
};
use rustix::io::Errno;
use std::{os::fd::OwnedFd, time::Duration};

use pace::Pace;

pub(crate) use process::main;

/// First argument of the process.
pub(crate) const ROLE: &str = "vmm";

/// A process that has the function open, with threads that send requests all the time.
pub(crate) struct Vmm(Child);

impl Vmm {
    /// Starts one with this many threads, and waits until all of them send requests.
    #[track_caller]
    pub fn start(threads: usize) -> Self {
        Self::with_pace(threads, Pace::Steady)
    }

    /// The same, but the threads try their best to come into each other's way.
    #[track_caller]
    pub fn start_colliding(threads: usize) -> Self {
        Self::with_pace(threads, Pace::Colliding)
    }

    #[track_caller]
    fn with_pace(threads: usize, pace: Pace) -> Self {
        let mut child = Child::start(&[ROLE, &threads.to_string(), pace.name()]);
        child.hear("ready", LIMIT);
        Self(child)
    }

    #[track_caller]
    fn call(&mut self, command: &str, limit: Duration) -> Tally {
        self.0.tell(command);
        let name = command.split_whitespace().next().unwrap_or_default();
        let answer = self.0.hear(name, limit);
        Tally::parse(&answer).unwrap_or_else(|| panic!("{command}: '{answer}'"))
    }

    /// Has one more thread issue requests.
    #[track_caller]
    pub fn issue(&mut self, count: u32) -> Tally {
        self.call(&format!("issue {count}"), LIMIT)
    }

    /// Ends the threads with requests, and returns what came of all of them.
    #[track_caller]
    pub fn stop(&mut self) -> Tally {
        self.call("stop", LIMIT)
    }

    /// VFIO_DEVICE_RESET.
    #[track_caller]
    pub fn reset(&mut self, count: u32) -> Tally {
        self.call(&format!("reset {count}"), LIMIT + count * RESET)
    }

    /// VFIO_DEVICE_PCI_HOT_RESET.
    #[track_caller]
    pub fn hot_reset(&mut self, count: u32) -> Tally {
        self.call(&format!("hot-reset {count}"), LIMIT + count * RESET)
    }

    /// Switches the memory space off and on by PCI_COMMAND.
    #[track_caller]
    pub fn toggle_memory(&mut self, count: u32) -> Tally {
        self.call(&format!("toggle {count}"), LIMIT + count * RESET)
    }

    /// Tells it something without waiting for the answer.
    pub fn tell(&mut self, command: &str) {
        self.0.tell(command);
    }

    /// Has one more thread wait for memory that never comes, in a request.
    #[track_caller]
    pub fn block(&mut self) {
        self.call("block", LIMIT).all_ok("blocking a thread");
    }

    /// Has the function write to memory that it has no right to.
    #[track_caller]
    pub fn stray_dma(&mut self) {
        self.call("stray-dma", LIMIT).all_ok("stray DMA");
    }

    /// Undoes what [`Self::stray_dma`] has set up in the function.
    #[track_caller]
    pub fn no_dma(&mut self) {
        self.call("no-dma", LIMIT).all_ok("no DMA");
    }

    /// Leaves something in the function that a reset removes.
    #[track_caller]
    pub fn mark(&mut self) {
        self.call("mark", LIMIT).all_ok("the mark is there");
    }

    /// Whether what [`Self::mark`] has left is still in the function.
    #[track_caller]
    pub fn is_marked(&mut self) -> bool {
        let answer = self.call("is-marked", LIMIT);
        let gone = answer.failed_with(&[Errno::NODATA]);
        assert_eq!(answer.ok + gone, 1, "{answer:#}");
        gone == 0
    }

    /// Closes the device, whatever the threads are doing.
    #[track_caller]
    pub fn close(&mut self) {
        self.call("close", LIMIT).all_ok("close");
    }

    /// Waits until the host has asked for the function.
    #[track_caller]
    pub fn asked(&mut self, limit: Duration) {
        self.0.hear("asked", limit);
    }

    /// Waits until the host has reported an error of the function, and returns what came of requests
    /// that were sent at once.
    #[track_caller]
    pub fn error(&mut self, limit: Duration) -> Tally {
        let answer = self.0.hear("error", limit);
        Tally::parse(&answer).unwrap_or_else(|| panic!("error: '{answer}'"))
    }

    /// Its device, which is open as long as somebody has it.
    pub fn device(&self) -> OwnedFd {
        self.0.file("/dev/vfio/devices/")
    }

    /// Kills it and returns how long it took to die.
    #[track_caller]
    pub fn kill(mut self, limit: Duration) -> Duration {
        self.0.kill(limit)
    }

    /// Ends it in good order, which closes the device.
    #[track_caller]
    pub fn exit(mut self) {
        self.0.tell("exit");
        self.0.end(LIMIT);
    }
}

/// What one reset may take, on average.
const RESET: Duration = Duration::from_millis(200);
