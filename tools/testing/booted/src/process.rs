// SPDX-License-Identifier: GPL-2.0

//! Processes that may hang.

use rustix::{
    event::{poll, PollFd, PollFlags, Timespec},
    process::{pidfd_open, Pid, PidfdFlags},
};
use std::{
    io,
    process::{Child, ExitStatus},
    time::Duration,
};

/// Waits for the end of a child, but not longer than `limit`; tells how it ended, if it did.
///
/// # Errors
///
/// Those of the system calls.
pub fn end_of(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit))?;
    child.try_wait()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn who_ends_in_time_and_who_does_not() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(end_of(&mut child, Duration::ZERO).unwrap(), None);
        child.kill().unwrap();
        let status = end_of(&mut child, Duration::from_secs(60)).unwrap();
        assert!(!status.unwrap().success());
        assert_eq!(end_of(&mut child, Duration::ZERO).unwrap(), status);
    }
}
