// SPDX-License-Identifier: GPL-2.0

//! Where the instructions of one request go: what the emulator logged, divided into parts.
//!
//! A compiler puts several steps of a driver into one function, and each compiler others. So a part
//! begins where the driver calls for it: what it calls `mutex_trylock` for belongs to the lease, and
//! so does what it does itself from there on, until it calls for something else.

use std::collections::HashMap;

use rustc_demangle::demangle;
use serde::{Deserialize, Serialize};

/// The parts of a request, in their order.
pub const PARTS: [&str; 5] = [
    "system call, VFS, VFIO",
    "copy and check",
    "pin and unpin",
    "memory_lock",
    "lease, instruction",
];
const SYSTEM: usize = 0;
const CHECK: usize = 1;
const PIN: usize = 2;
const MEMORY: usize = 3;
const LEASE: usize = 4;

/// Functions with which a part begins, those of the kernel by name.
const CALLED: &[(&str, usize)] = &[
    ("pin_user_pages_fast", PIN),
    ("unpin_user_page", PIN),
    ("down_read_killable", MEMORY),
    ("__vfio_pci_memory_enabled", MEMORY),
    ("up_read", MEMORY),
    ("mutex_trylock", LEASE),
    ("mutex_unlock", LEASE),
];

/// Those of the driver by a part of the name.
const OWN: &[(&str, usize)] = &[
    ("::page::", PIN),
    ("::memory::", MEMORY),
    ("::lease::", LEASE),
    ("device_trylock", LEASE),
    ("device_unlock", LEASE),
    ("zpci_insn", LEASE),
];

/// Functions that have called the driver.
const CALLERS: &[&str] = &[
    "vfio_pci_core_write",
    "vfio_pci_rw",
    "vfio_device_fops_write",
];

/// What the names of functions begin with that are only there for Rust to call.
const HELPERS: &[&str] = &["rust_helper_", "vfio_helper_"];

/// In the flags of a translated instruction: the CPU was in problem state.
const PROBLEM_STATE: u32 = 1 << 17;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub driver: String,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub instructions: u64,
    /// By function, in the order in which they are first executed.
    pub functions: Vec<(String, u64)>,
}

/// The functions of the booted kernel and its modules, by address.
#[derive(Default)]
pub struct Symbols(Vec<(u64, String, Option<String>)>);

impl Symbols {
    /// Takes a line of /proc/kallsyms.
    pub fn push(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(address), Some(_type), Some(name)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else {
            return;
        };
        let module = words
            .next()
            .map(|word| word.trim_matches(['[', ']']).into());
        // Without the hash of the crate.
        self.0
            .push((address, format!("{:#}", demangle(name)), module));
    }

    fn sorted(&self) -> Vec<&(u64, String, Option<String>)> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        // Of several at one address, a global one comes last.
        sorted.sort_by_key(|symbol| symbol.0);
        sorted
    }
}

/// An instruction that was executed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    User,
    Kernel(&'a str),
    Driver(&'a str),
}

impl Profile {
    /// Divides a typical request by `driver`, a module, in the `log` of the emulator.
    pub fn new(driver: &str, log: &str, symbols: &Symbols) -> Option<Self> {
        let symbols = symbols.sorted();
        let place = |(address, flags): (u64, u32)| {
            if flags & PROBLEM_STATE != 0 {
                return Place::User;
            }
            let at = symbols.partition_point(|symbol| symbol.0 <= address);
            match at.checked_sub(1).map(|at| symbols[at]) {
                // Where interrupted CPUs go on.
                None => Place::Kernel("(lowcore)"),
                Some((_, name, Some(module))) if module == driver => Place::Driver(name),
                Some((_, name, _)) => Place::Kernel(name),
            }
        };
        let places: Vec<_> = log.lines().filter_map(parse).map(place).collect();

        // From one entry of the kernel to the next.
        let entries: Vec<_> = (1..places.len())
            .filter(|&at| places[at - 1] == Place::User && places[at] != Place::User)
            .collect();
        let requests: Vec<_> = entries.windows(2).map(|at| &places[at[0]..at[1]]).collect();
        let mut lengths = HashMap::new();
        for request in &requests {
            *lengths.entry(request.len()).or_insert(0) += 1;
        }
        // An interrupt makes one longer.
        let (typical, _) = lengths
            .into_iter()
            .max_by_key(|&(length, count)| (count, length))?;
        let request = requests
            .into_iter()
            .find(|request| request.len() == typical)?;
        Some(Self {
            driver: driver.into(),
            parts: divide(request),
        })
    }

    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.instructions).sum()
    }

    /// How many are in functions around what C has inline.
    pub fn helpers(&self) -> u64 {
        let functions = self.parts.iter().flat_map(|part| &part.functions);
        functions
            .filter(|(name, _)| HELPERS.iter().any(|helper| name.starts_with(helper)))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Address and flags of an instruction: `Trace 0: 0x... [cs_base/pc/flags/cflags] ...`.
fn parse(line: &str) -> Option<(u64, u32)> {
    let (_, rest) = line.strip_prefix("Trace ")?.split_once('[')?;
    let mut fields = rest.split(['/', ']']);
    let address = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    Some((address, flags))
}

fn divide(request: &[Place<'_>]) -> Vec<Part> {
    let mut parts = PARTS.map(|name| Part {
        name: name.into(),
        instructions: 0,
        functions: Vec::new(),
    });
    // What the driver is about, and whether it has called the kernel.
    let mut step = CHECK;
    let mut part = SYSTEM;
    let mut in_driver = false;
    for place in request {
        let name = match place {
            Place::User => {
                part = SYSTEM;
                "(user space)"
            }
            Place::Driver(name) => {
                if let Some(&(_, own)) = OWN.iter().find(|(own, _)| name.contains(own)) {
                    step = own;
                }
                part = step;
                name
            }
            Place::Kernel(name) => {
                if in_driver {
                    if let Some(&(_, called)) = CALLED.iter().find(|(called, _)| called == name) {
                        step = called;
                    }
                    part = if CALLERS.contains(name) { SYSTEM } else { step };
                }
                name
            }
        };
        in_driver = matches!(place, Place::Driver(_));
        let part = &mut parts[part];
        part.instructions += 1;
        match part
            .functions
            .iter_mut()
            .find(|function| function.0 == name)
        {
            Some((_, count)) => *count += 1,
            None => part.functions.push((name.into(), 1)),
        }
    }
    parts.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
        0000000000001000 T system_call\n\
        0000000000002000 T vfio_pci_core_write\n\
        0000000000003000 T pin_user_pages_fast\n\
        0000000000003800 t gup_fast\n\
        0000000000004000 T mutex_trylock\n\
        0000000000005000 T rust_helper_other\n\
        0000000000008000 t rw\t[twin]\n\
        0000000000009000 t rw\t[peer]\n";

    fn log(request: &[u64]) -> String {
        let line = |&address: &u64| {
            let flags = if address < 0x100 { PROBLEM_STATE } else { 0 };
            format!("Trace 0: 0x7f00 [0000000000000000/{address:016x}/{flags:08x}/00000000] x\n")
        };
        request.iter().map(line).collect()
    }

    #[test]
    fn a_request_is_divided_where_the_driver_calls() {
        let mut symbols = Symbols::default();
        SYMBOLS.lines().for_each(|line| symbols.push(line));
        let request = [
            0x1000, 0x2000, 0x2002, // system call, VFIO
            0x8000, 0x8002, // copy and check
            0x3000, 0x3800, 0x8004, // pin
            0x4000, 0x8006, 0x5000, 0x8008, // lease, with whatever it calls
            0x2004, 0x1002, 0x10, 0x12, // back
        ];
        let interrupted = [&request[..5], &[0x5000; 3], &request[5..]].concat();
        let all = [&[0x10][..], &request, &interrupted, &request, &request[..4]].concat();
        let profile = Profile::new("twin", &log(&all), &symbols).unwrap();
        let counts: Vec<_> = profile.parts.iter().map(|part| part.instructions).collect();
        assert_eq!(counts, [7, 2, 3, 0, 4]);
        assert_eq!(profile.total(), request.len() as u64);
        assert_eq!(profile.helpers(), 1);
        let functions = &profile.parts[PIN].functions;
        let wanted = [("pin_user_pages_fast", 1), ("gup_fast", 1), ("rw", 1)];
        assert_eq!(
            *functions,
            wanted.map(|(name, count)| (name.to_string(), count))
        );
    }

    #[test]
    fn without_a_whole_request_there_is_no_profile() {
        assert!(Profile::new("twin", &log(&[0x10, 0x1000, 0x8000]), &Symbols::default()).is_none());
        assert!(Profile::new("twin", "", &Symbols::default()).is_none());
    }
}
