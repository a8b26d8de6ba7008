// SPDX-License-Identifier: GPL-2.0

//! A Linux guest in the s390x host, which has an ISM function of the host: what the host needs for
//! it, and what the emulator below has to say about it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    bare,
    cache::{Cache, Scratch},
    error::Result,
    guest::Guest,
    kernlog,
    ktap::{self, Test},
    patched::Patched,
    qemu::{self, Functions},
};

/// The functions of the host: for the Linux guest and itself, and for those without an operating system.
pub const FUNCTIONS: Functions = &[qemu::ISM, qemu::OTHER_ISM, qemu::SLOW, qemu::SLOW_DISK];

/// The tests, in the host.
pub const COMMAND: &str = "modprobe zpci-vfio-pci && guest-test";

/// The same for people.
pub const DEMO: &str = "modprobe zpci-vfio-pci && guest-test demo";

/// What a guest runs. It has the kernel and the initial RAM disk that a host has, and the addresses from its
/// kernel's command line.
const IN_GUEST: &str = "\
modprobe -a virtio_net ism smc smc_diag || exit
ip link set lo up
ip address add $GUEST_ADDRESS/24 dev eth0
ip link set eth0 up
guest-test agent $HOST_ADDRESS
";

/// Blocks that reach an ISM function, its commands, and loads from whatever has an emulated BAR.
pub const TRACE: &[&str] = &["ism_store_block", "ism_command", "memory_region_ops_read"];

/// The function of the guest in the emulator's words.
const GID: &str = "gid 0x20 ";

/// QEMU, kernel and initial RAM disk for the guest, and the programs that are other guests.
pub fn files(
    cache: &Cache,
    tree: &Path,
    scratch: &Scratch,
    guest: &Guest,
    patched: &Patched,
) -> Result<Vec<PathBuf>> {
    let initrd = scratch.path("guest.cpio");
    let extra = [
        ("command", IN_GUEST.as_bytes()),
        ("boot.env", b"TOKEN=end\nCHECK=\n".as_slice()),
    ];
    guest.initrd(cache, &initrd, &extra, &[])?;
    let mut files = patched.vmm(cache)?.to_vec();
    files.extend([guest.kernel.image(), initrd]);
    for (name, main, define) in [
        ("wait", "wait.c", "-DTIMES=2"),
        ("wait-deconfigure", "wait.c", "-DTIMES=2 -DDECONFIGURE"),
        ("wait-on", "wait.c", "-DTIMES=0"),
        ("owner", "owner.c", ""),
    ] {
        let defines: Vec<_> = define.split_whitespace().map(String::from).collect();
        files.push(bare::program(tree, scratch, name, main, &defines)?);
    }
    Ok(files)
}

/// The tests that the host ran, and what the emulator saw.
pub fn results(output: &str, trace: &str) -> Vec<Test> {
    let (tests, rest) = split(output, "=== instructions\n");
    let (instructions, console) = split(rest, "=== console\n");
    let mut tests = ktap::parse(tests);
    let stores = issued(instructions, "PCISTB");
    tests.push(witness("stores", &stores, &stored(trace)));
    let loads = issued(instructions, "PCILG");
    let arrived = loaded(trace);
    // The trace does not tell which of them belongs to the function.
    let arrived = arrived.iter().max_by_key(|arrived| **arrived == loads);
    tests.push(witness("loads", &loads, arrived.map_or(&[], Vec::as_slice)));
    tests.push(given_back(trace));
    tests.push(Test::check(
        "kernel log of the guest",
        kernlog::complaint(console),
    ));
    tests
}

fn split<'a>(text: &'a str, at: &str) -> (&'a str, &'a str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// Passes if what the driver has issued has arrived: the same, in the same order, once.
fn witness(what: &str, issued: &[String], arrived: &[String]) -> Test {
    let name = format!("witness: the {what} that the driver has issued are those that arrived");
    let mut objections = Vec::new();
    if issued.len() != arrived.len() || issued.is_empty() {
        objections.push(format!(
            "{} issued, {} arrived",
            issued.len(),
            arrived.len()
        ));
    }
    let different = issued.iter().zip(arrived).find(|(one, other)| one != other);
    if let Some((issued, arrived)) = different {
        objections.push(format!(
            "first difference: issued {issued}, arrived {arrived}"
        ));
    }
    Test::check(name, objections)
}

/// Of lines like "PCISTB bar 2 offset 0x8 len 8 result 0", what follows the name.
fn issued(instructions: &str, name: &str) -> Vec<String> {
    instructions
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map(str::to_string)
        .collect()
}

/// Of lines like "ism_store_block gid 0x20 bar 2 offset 0x8 len 8 status 0", the same.
fn stored(trace: &str) -> Vec<String> {
    trace
        .lines()
        .filter_map(|line| line.split_once("ism_store_block ")?.1.strip_prefix(GID))
        .map(|block| block.replace("status", "result"))
        .collect()
}

/// Passes if the guest's driver has undone what it had the function do when it was taken away, and
/// the function has refused nothing.
fn given_back(trace: &str) -> Test {
    const UNREGISTER: &[(&str, &str)] = &[("0x11", "status area"), ("0x12", "event queue")];
    let commands: Vec<_> = trace
        .lines()
        .filter_map(|line| line.split_once("ism_command ")?.1.strip_prefix(GID))
        .collect();
    let mut objections: Vec<_> = commands
        .iter()
        .filter(|command| !command.ends_with("ret 0x0"))
        .map(|command| format!("refused: {command}"))
        .collect();
    for (command, what) in UNREGISTER {
        if !commands.contains(&format!("cmd {command} ret 0x0").as_str()) {
            objections.push(format!("the {what} is still registered"));
        }
    }
    Test::check(
        "witness: the guest's driver has shut the function down",
        objections,
    )
}

/// For each function, the loads from its commands: of lines like "memory_region_ops_read cpu 0 mr
/// 0x1234 addr 0x0 value 0x8 size 8 name 'ism-cmd'", what an instruction would be.
fn loaded(trace: &str) -> Vec<Vec<String>> {
    let mut functions = BTreeMap::<&str, Vec<String>>::new();
    for line in trace.lines().filter(|line| line.contains("'ism-cmd'")) {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [.., "mr", region, "addr", offset, "value", _, "size", size, "name", _] = words[..] {
            let load = format!("bar 2 offset {offset} len {size} result 0");
            functions.entry(region).or_default().push(load);
        }
    }
    functions.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
        ism_store_block gid 0x30 bar 2 offset 0x8 len 8 status 0\n\
        memory_region_ops_read cpu 0 mr 0x1 addr 0x0 value 0x8 size 8 name 'ism-cmd'\n\
        ism_store_block gid 0x20 bar 2 offset 0x0 len 16 status 0\n\
        memory_region_ops_read cpu 0 mr 0x2 addr 0x8 value 0x8 size 4 name 'ism-cmd'\n\
        ism_command gid 0x30 cmd 0x1 ret 0xffff\n\
        ism_command gid 0x20 cmd 0x12 ret 0x0\n\
        ism_command gid 0x20 cmd 0x11 ret 0x0\n\
        memory_region_ops_read cpu 0 mr 0x3 addr 0x8 value 0x8 size 4 name 'msix'\n";

    fn failures(instructions: &str) -> Vec<String> {
        let output = format!(
            "1..1\nok 1 a\n=== instructions\n{instructions}=== console\nLinux version 7.3\n"
        );
        Test::group("g", results(&output, TRACE)).failures()
    }

    #[test]
    fn what_has_arrived_is_what_was_issued() {
        let store = "PCISTB bar 2 offset 0x0 len 16 result 0\n";
        let load = "PCILG bar 2 offset 0x8 len 4 result 0\n";
        assert_eq!(failures(&[store, load].concat()), [""; 0]);
        assert_eq!(failures(&[load, store, load].concat()).len(), 1);
        assert_eq!(failures(&[store, store, load].concat()).len(), 1);
        assert_eq!(
            failures(&[&store.replace("16", "8"), load].concat()).len(),
            1
        );
        assert_eq!(failures(load).len(), 1);
        assert_eq!(failures("").len(), 2);
    }

    #[test]
    fn the_function_must_be_shut_down() {
        let objections = |trace: &str| given_back(trace).notes().len();
        assert_eq!(objections(TRACE), 0);
        assert_eq!(objections(""), 2);
        assert_eq!(objections(&TRACE.replace("cmd 0x11", "cmd 0x1")), 1);
        let refused = TRACE.replace("cmd 0x12 ret 0x0", "cmd 0x12 ret 0x1");
        assert_eq!(objections(&refused), 2);
    }

    #[test]
    fn the_guest_must_have_booted() {
        let tests = results("1..1\nok 1 a\n", "");
        assert_eq!(Test::group("g", tests).failures().len(), 4);
    }
}
