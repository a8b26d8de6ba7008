// SPDX-License-Identifier: GPL-2.0

//! Whether the emulator translates code again that nobody has written to. If each interruption
//! costs it a translation, a host may do nothing else any more, see tools/qemu/README.rst.

use crate::ktap::Test;

/// One process makes two system calls for each byte, and each other process a dozen and page faults.
pub const COMMAND: &str = "\
dd if=/dev/zero of=/dev/null bs=1 count=100000 || exit
for process in $(seq 400); do /bin/busybox true; done
";

/// How often it goes to the kernel and back, at least.
const INTERRUPTIONS: u64 = 200_000;

/// What the emulator's monitor is asked.
pub const QUESTION: &str = "info jit";

/// What it counts since the machine is on: a boot throws some translations away, with reason.
pub fn results(answer: &str) -> Vec<Test> {
    let count = answer
        .lines()
        .find_map(|line| line.strip_prefix("TB invalidate count"));
    let objection = match count.map(|count| count.trim().parse()) {
        Some(Ok(count)) if count < INTERRUPTIONS / 10 => None,
        Some(Ok::<u64, _>(count)) => Some(format!(
            "{count} translations were thrown away in {INTERRUPTIONS} interruptions"
        )),
        _ => Some(format!("the monitor does not count them: {answer}")),
    };
    vec![Test::check(
        "interruptions throw no translation away",
        objection.into_iter().collect(),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(answer: &str) -> usize {
        Test::group("g", results(answer)).failures().len()
    }

    #[test]
    fn the_count_decides() {
        let answer = |count| {
            format!("(qemu) info jit\r\nTB flush count      0\r\nTB invalidate count {count}\r\n")
        };
        assert_eq!(failures(&answer(6_000)), 0);
        assert_eq!(failures(&answer(200_000)), 1);
    }

    #[test]
    fn no_count_is_a_failure() {
        assert_eq!(failures(""), 1);
        assert_eq!(failures("TB invalidate count none"), 1);
    }
}
