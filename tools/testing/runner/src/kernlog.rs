// SPDX-License-Identifier: GPL-2.0

//! What a kernel says when something is wrong.

/// Pieces of the messages with which the kernel reports a defect.
const COMPLAINTS: &[&str] = &[
    "BUG:",
    "BUG at ",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "Unable to handle",
    "unable to handle",
    "general protection",
    // A program check on s390: "addressing exception: 0005 ilc:2 [#1]".
    " ilc:",
    "KASAN:",
    "UBSAN:",
    "unreferenced object",
    "refcount_t:",
    "ODEBUG:",
    "list_add corruption",
    "list_del corruption",
    // "Poison overwritten", "Redzone overwritten" and the like of an object; the same of pages.
    " overwritten",
    "pagealloc: ",
    "usercopy: Kernel memory",
    "Bad page",
    "scheduling while atomic",
    "sleeping function called",
    "blocked for more than",
    "rcu_sched self-detected",
    "rcu: INFO:",
    "soft lockup",
    // Lockdep.
    "possible circular locking",
    "possible recursive locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "bad unlock balance",
    "suspicious RCU usage",
    "Invalid wait context",
    "held lock freed",
    "still held",
    "nested lock was not taken",
    "turning off the locking correctness validator",
    // Rust.
    "panicked at",
    // What the module says by itself: nothing that a user could provoke.
    "zpci_vfio_pci: ",
    // Whatever the reason was, the kernel found it worth a backtrace.
    "Call Trace:",
];

/// What the kernel says when it loads a module that it does not know.
const LOADING: &[&str] = &[
    ": loading out-of-tree module taints kernel.",
    ": module verification failed: ",
];

/// Messages that are not our defects, with the reason after ` # `, one on each line.
const KNOWN: &str = include_str!("../known-messages");

/// How much of the log is shown from a complaint on.
const CONTEXT: usize = 40;

/// The first complaint in the log with what follows it, or nothing. A log that is not one is a
/// complaint too.
pub fn complaint(log: &str) -> Vec<String> {
    if !log.contains("Linux version ") {
        return vec!["the console log does not hold the boot of a kernel".into()];
    }
    let lines: Vec<_> = log.lines().collect();
    let Some(first) = lines.iter().position(|line| is_complaint(line, KNOWN)) else {
        return Vec::new();
    };
    // Lockdep and KASAN open with a line of "=" before the one that has the words.
    let end = lines.len().min(first + CONTEXT);
    lines[first..end]
        .iter()
        .map(|line| line.to_string())
        .collect()
}

fn is_complaint(line: &str, known: &str) -> bool {
    COMPLAINTS.iter().any(|words| line.contains(words))
        && !LOADING.iter().any(|words| line.contains(words))
        && !known
            .lines()
            .filter(|entry| !entry.starts_with('#') && !entry.is_empty())
            .map(|entry| entry.split(" # ").next().unwrap_or(entry))
            .any(|message| line.contains(message))
}

/// What a taint of the kernel means, but for the two that a module of one's own always sets (O:
/// built out of tree, E: unsigned) and the one of tests (N).
pub fn taint(taint: u64) -> Option<String> {
    const HARMLESS: u64 = 1 << 12 | 1 << 13 | 1 << 18;
    const NAMES: &[(u32, &str)] = &[
        (4, "machine check"),
        (5, "bad page"),
        (7, "oops"),
        (9, "warning"),
        (14, "soft lockup"),
    ];
    let taint = taint & !HARMLESS;
    let names: Vec<_> = NAMES
        .iter()
        .filter(|(bit, _)| taint & 1 << bit != 0)
        .map(|(_, name)| *name)
        .collect();
    (taint != 0).then(|| format!("the kernel is tainted: {taint:#x} {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Linux version 7.3\n\
        Kernel command line: console=ttysclp0 panic=-1\n\
        Lock dependency validator: Copyright (c) 2006 Red Hat\n\
        KernelAddressSanitizer initialized (generic, no memory tags)\n\
        kmemleak: Kernel memory leak detector initialized (mem pool available: 1)\n\
        zpci_vfio_pci: loading out-of-tree module taints kernel.\n";

    #[test]
    fn a_good_log_is_good() {
        assert_eq!(complaint(GOOD), [""; 0]);
    }

    #[test]
    fn every_kind_of_complaint_is_found() {
        for line in [
            "[    5.1] BUG: KASAN: slab-use-after-free in x+0x1/0x2",
            "[    5.1] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 y+0x1/0x2",
            "WARNING: possible circular locking dependency detected",
            "INFO: task sh:77 blocked for more than 20 seconds.",
            "Unable to handle kernel pointer dereference in virtual kernel address space",
            "illegal operation: 0001 ilc:1 [#1] SMP",
            "Kernel panic - not syncing: sysrq triggered crash",
            "refcount_t: underflow; use-after-free.",
            "BUG: sleeping function called from invalid context at x.c:1",
            "rust_kernel: panicked at drivers/x.rs:1:2:",
            "BUG: KCSAN: data-race in a / b",
            "UBSAN: shift-out-of-bounds in x.c:1:2",
            "ODEBUG: free active (active state 0) object: 1 object type: timer_list",
            "BUG kmalloc-64 (Not tainted): Poison overwritten",
            "pagealloc: memory corruption",
            "[    5.1] zpci_vfio_pci: opened",
        ] {
            let log = format!("{GOOD}{line}\nmore\n");
            assert_eq!(complaint(&log), [line, "more"]);
        }
    }

    #[test]
    fn an_empty_log_is_a_complaint() {
        assert_ne!(complaint(""), [""; 0]);
    }

    #[test]
    fn a_known_message_is_not_a_complaint() {
        let known = "# Words.\n\nWARNING: at old.c # reported upstream\n";
        assert!(!is_complaint("[ 1.0] WARNING: at old.c:12", known));
        assert!(is_complaint("[ 1.0] WARNING: at new.c:12", known));
    }

    #[test]
    fn taints() {
        assert_eq!(taint(1 << 12 | 1 << 13 | 1 << 18), None);
        assert!(taint(1 << 9 | 1 << 12).is_some_and(|text| text.contains("0x200 warning")));
        assert!(taint(1 << 3).is_some());
    }
}
