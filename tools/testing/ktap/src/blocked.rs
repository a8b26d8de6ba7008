// SPDX-License-Identifier: GPL-2.0

//! Who is blocked, and where: for the log, when something hangs.

use crate::note;
use std::{fs, path::Path};

/// Prints the kernel stacks of all user processes' tasks that sleep uninterruptibly, of our
/// children's tasks, and has the kernel log all blocked tasks and all locks that are held.
pub fn print_blocked() {
    let me = std::process::id();
    for process in numbers("/proc") {
        for task in numbers(format!("/proc/{process}/task")) {
            let path = format!("/proc/{process}/task/{task}");
            let Ok(stat) = fs::read_to_string(format!("{path}/stat")) else {
                continue;
            };
            // pid (comm) state ppid ..., and comm may contain anything.
            let (name, fields) = stat.rsplit_once(") ").unwrap_or_default();
            let name = name.split_once(" (").unwrap_or_default().1;
            let mut fields = fields.split_whitespace();
            let state = fields.next().unwrap_or("?");
            let parent = fields.next().and_then(|field| field.parse().ok());
            if state != "D" && parent != Some(me) {
                continue;
            }
            let stack = fs::read_to_string(format!("{path}/stack")).unwrap_or_default();
            note(&format!(
                "task {task} of process {process}, {name}, state {state}\n{stack}"
            ));
        }
    }
    for key in ["w", "d"] {
        // Without it the log is shorter.
        let _ = fs::write("/proc/sysrq-trigger", key);
    }
}

fn numbers(directory: impl AsRef<Path>) -> Vec<u32> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
