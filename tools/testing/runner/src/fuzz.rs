// SPDX-License-Identifier: GPL-2.0

//! A guest that means harm: a program without an operating system that issues instructions with
//! random and with edge operands, for all functions and from two CPUs. It says itself which outcomes
//! the rules do not allow; what functions have taken is compared with what has arrived. It runs twice,
//! as the program of [`bare`]: in place of the host, and in a guest of the host.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bare,
    cache::{Cache, Scratch},
    error::{Context, Result},
    ktap::Test,
    patched::Patched,
    qemu::{self, Functions},
    vm,
};

/// In a guest.
pub const COMMAND: &str = bare::command!("fuzz");

/// What the emulator tells of blocks for an ISM function.
pub const TRACE: &[&str] = &["ism_store_block"];

/// What AddressSanitizer says about QEMU's coroutines, whatever they do.
const ALWAYS_SAID: &str = "WARNING: ASan doesn't fully support makecontext/swapcontext functions";

/// A device that a guest can name, and which is no function.
const NO_FUNCTION: &str = "zpci,uid=0x99,fid=0x99,target=nothing";

/// How many instructions each of the CPUs issues, and how many seconds that may take on a busy machine:
/// in place of the host, and in a guest.
struct Extent {
    direct: u64,
    nested: u64,
    seconds: u64,
}

const SHORT: Extent = Extent {
    direct: 10_000,
    nested: 500,
    seconds: 300,
};

/// If LONG is set. The emulator looks for errors of its own then.
const LONG: Extent = Extent {
    direct: 500_000,
    nested: 10_000,
    seconds: 7200,
};

/// How many seconds the program may take whose refresh would take minutes.
const REFRESH_SECONDS: u64 = 60;

fn is_long() -> bool {
    vm::var("LONG").is_some()
}

fn extent() -> &'static Extent {
    match is_long() {
        true => &LONG,
        false => &SHORT,
    }
}

/// The program for a guest, or for the emulator.
pub fn program(tree: &Path, scratch: &Scratch, in_guest: bool) -> Result<PathBuf> {
    let seed = vm::var("SEED").unwrap_or_else(|| "1".into());
    let (name, rounds) = match in_guest {
        true => ("fuzz", extent().nested),
        false => ("fuzz-direct", extent().direct),
    };
    let defines = [
        format!("-DSEED={seed}"),
        format!("-DROUNDS={rounds}"),
        format!("-DVMM={}", u8::from(in_guest)),
    ];
    bare::program(tree, scratch, name, "fuzz.c", &defines)
}

/// What came of it in place of the host, and in a guest of the host.
pub fn results(
    cache: &Cache,
    tree: &Path,
    scratch: &Scratch,
    functions: Functions,
    patched: &Patched,
    (output, trace): (&str, &str),
) -> Result<Vec<Test>> {
    let hardware = match is_long() {
        true => patched.sanitized(cache, functions)?,
        false => patched.hardware(functions),
    };
    let path = scratch.path("fuzz.trace");
    let mut more = vec!["-device", NO_FUNCTION, "-D"];
    let name = path.display().to_string();
    more.push(&name);
    for events in TRACE {
        more.extend(["-trace", events]);
    }
    let program = program(tree, scratch, false)?;
    let run = bare::direct(hardware, &program, &more, extent().seconds);
    // A QEMU that has crashed is a result.
    let (printed, said) = run.unwrap_or_else(|error| (String::new(), error.to_string()));
    let arrived = fs::read_to_string(&path).context("reading the trace")?;
    let refresh = bare::program(tree, scratch, "refresh", "refresh.c", &[])?;
    let refresh = bare::direct(patched.hardware(functions), &refresh, &[], REFRESH_SECONDS);

    let nested = bare::in_guest(output);
    let (nested, rest) = nested.split_once("end\n").unwrap_or((&nested, ""));
    let mut tests = judge("the machine", &format!("{said}{printed}"), &arrived);
    tests.extend(refreshed(refresh));
    tests.extend(judge("a guest", &format!("{nested}end\n"), trace));
    let regions = format!("functions with the region: {}\n", qemu::count(functions));
    let otherwise = (!rest.starts_with(&regions)).then(|| rest.into());
    tests.push(Test::check(
        "a guest: every function has the region",
        otherwise.into_iter().collect(),
    ));
    Ok(tests)
}

/// One run: what the program and its QEMU have printed, and what arrived.
fn judge(place: &str, printed: &str, trace: &str) -> Vec<Test> {
    let (said, rest) = match printed.find("seed ") {
        Some(at) => printed.split_at(at),
        None => (printed, ""),
    };
    let check = |name: &str, objections| Test::check(format!("{place}: {name}"), objections);

    let mut alive: Vec<String> = said
        .lines()
        .filter(|line| !line.starts_with("not allowed: ") && !line.contains(ALWAYS_SAID))
        .map(String::from)
        .collect();
    if !rest.ends_with("end\n") {
        alive.push("the program did not reach its end".into());
    }
    let outcomes = printed
        .lines()
        .filter(|line| line.starts_with("not allowed: "));
    let outcomes = outcomes.filter(|line| *line != "not allowed: 0 outcomes");
    let untouched = "written to, and must not be: 0 doublewords";
    let written = rest
        .lines()
        .find(|line| line.starts_with("written to"))
        .unwrap_or("not said");

    let mut missing = Vec::new();
    for kind in ["PCISTB", "PCILG", "PCISTG", "CLP"] {
        let prefix = format!("{kind}: cc 0 ");
        let line = rest.lines().find(|line| line.starts_with(&prefix));
        let numbers = line.map_or(Vec::new(), numbers);
        // Condition codes 0 to 3, exceptions.
        match numbers[..] {
            [_, good, _, one, _, two, _, three, exceptions]
                if good > 0 && one + two + three + exceptions > 0 => {}
            _ => missing.push(format!("{kind}: {line:?}")),
        }
    }

    let mut different = Vec::new();
    let claimed = rest.lines().filter(|line| line.contains(" gid "));
    let claimed: Vec<_> = claimed.map(String::from).collect();
    if claimed.is_empty() {
        different.push("nothing is claimed".into());
    }
    for line in claimed {
        let (what, gid) = line.split_once(" gid ").unwrap_or_default();
        let gid = gid.split(':').next().unwrap_or_default();
        let arrived = Blocks::arrived(trace, gid, what == "stored").line(what, gid);
        if arrived != line {
            different.push(format!("{line}, but arrived: {arrived}"));
        }
    }

    vec![
        check("the program reaches its end, and QEMU says nothing", alive),
        check(
            "each outcome is one that the rules allow",
            outcomes.map(String::from).collect(),
        ),
        check(
            "no memory is written that nobody was told of",
            (written != untouched)
                .then(|| written.into())
                .into_iter()
                .collect(),
        ),
        check("instructions have succeeded, and failed", missing),
        check("what functions took and refused is what arrived", different),
    ]
}

/// What has been printed of too many pages, then before and during a long refresh, if it came that far.
fn refreshed(run: Result<(String, String)>) -> Vec<Test> {
    const NO_ROOM: &str = "2^18 pages of a machine that has 2^14: cc 1 status 16";
    const LONG: &str = "the largest aperture is refreshed: yes\n\
        during another refresh: 100 loads, and it has not ended\nend\n";
    let said = match run {
        Ok((printed, said)) => said + &printed,
        Err(error) => error.to_string(),
    };
    let (first, rest) = said.split_once('\n').unwrap_or((&said, ""));
    let check = |name: &str, is_so: bool| {
        let otherwise = (!is_so).then(|| said.clone());
        Test::check(
            format!("the machine: {name}"),
            otherwise.into_iter().collect(),
        )
    };
    vec![
        check(
            "a guest that maps more pages than it can use is told that there is no room",
            first == NO_ROOM,
        ),
        check(
            "a refresh that takes minutes keeps nobody from going on, nor from the end",
            rest == LONG,
        ),
    ]
}

/// The numbers of a line.
fn numbers(line: &str) -> Vec<u64> {
    let words = line.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Blocks for one function: how many, and sums of their offsets and lengths.
#[derive(Default)]
struct Blocks {
    number: u64,
    offsets: u64,
    lens: u64,
}

impl Blocks {
    /// Of lines like "ism_store_block gid 0x20 bar 2 offset 0x8 len 8 status 0".
    fn arrived(trace: &str, gid: &str, stored: bool) -> Self {
        let mut blocks = Self::default();
        let prefix = format!("ism_store_block gid {gid} ");
        for block in trace.lines().filter_map(|line| line.split_once(&prefix)) {
            let words: Vec<_> = block.1.split_whitespace().collect();
            let [_, _, _, offset, _, len, _, status] = words[..] else {
                continue;
            };
            if (status == "0") == stored {
                let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16);
                blocks.number += 1;
                blocks.offsets = blocks.offsets.wrapping_add(offset.unwrap_or(0));
                blocks.lens += len.parse::<u64>().unwrap_or(0);
            }
        }
        blocks
    }

    /// As the program says it.
    fn line(&self, what: &str, gid: &str) -> String {
        let Self {
            number,
            offsets,
            lens,
        } = self;
        format!("{what} gid {gid}: {number} offsets {offsets:#x} lens {lens}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "seed 1, twice 2 rounds, 1 functions\n\
        PCISTB: cc 0 2, cc 1 1, cc 2 0, cc 3 0, exceptions 0\n\
        PCILG: cc 0 2, cc 1 0, cc 2 0, cc 3 0, exceptions 1\n\
        PCISTG: cc 0 2, cc 1 0, cc 2 0, cc 3 5, exceptions 0\n\
        CLP: cc 0 2, cc 1 0, cc 2 0, cc 3 1, exceptions 0\n\
        stored gid 0x20: 2 offsets 0x18 lens 24\n\
        refused gid 0x20: 1 offsets 0x100000000 lens 1\n\
        not allowed: 0 outcomes\n\
        written to, and must not be: 0 doublewords\n\
        end\n";

    const TRACE: &str = "\
        ism_store_block gid 0x20 bar 2 offset 0x8 len 16 status 0\n\
        ism_store_block gid 0x20 bar 0 offset 0x100000000 len 1 status 40\n\
        ism_store_block gid 0x30 bar 2 offset 0x0 len 8 status 0\n\
        ism_store_block gid 0x20 bar 2 offset 0x10 len 8 status 0\n";

    fn failures(printed: &str, trace: &str) -> Vec<String> {
        Test::group("g", judge("p", printed, trace)).failures()
    }

    #[test]
    fn all_is_well() {
        assert_eq!(failures(PRINTED, TRACE), [""; 0]);
    }

    #[test]
    fn each_defect_fails_one_test() {
        for (from, to) in [
            ("end\n", ""),
            (
                "seed 1",
                "qemu: runtime error: load of null pointer\nseed 1",
            ),
            ("seed 1", "not allowed: PCISTB 0x1 0x2 0x3: cc 0\nseed 1"),
            ("be: 0 d", "be: 1 d"),
            ("PCILG: cc 0 2", "PCILG: cc 0 0"),
            ("cc 3 5", "cc 3 0"),
            ("stored gid 0x20: 2", "stored gid 0x20: 3"),
            ("offsets 0x18", "offsets 0x20"),
            ("lens 1\n", "lens 2\n"),
        ] {
            let printed = PRINTED.replacen(from, to, 1);
            assert_eq!(failures(&printed, TRACE).len(), 1, "{to}");
        }
        assert_eq!(failures(PRINTED, "").len(), 1);
        assert_eq!(failures("", TRACE).len(), 4);
    }
}
