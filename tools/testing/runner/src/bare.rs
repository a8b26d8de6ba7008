// SPDX-License-Identifier: GPL-2.0

//! A program without an operating system that issues good and bad instructions for each function
//! of its machine. It runs twice: in place of the s390x host, and in a guest of the host, whose VMM
//! issues the instructions by the zPCI I/O region. Outcomes and data have to be the same.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::Scratch,
    error::{Context, Error, Result},
    ktap::Test,
    progress,
    qemu::{self, Functions, Hardware},
};

/// A program in a guest, in the host: all functions are its own, and are reached by the region, also
/// those whose BARs can be mapped. There is room for twice as many mappings as a program makes for a
/// function, so that it is found out if they are not counted right.
macro_rules! command {
    ($program:literal) => {
        concat!(
            r#"
modprobe zpci-vfio-pci || exit
echo 4096 >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit
set --
for function in /sys/bus/pci/devices/*; do
	name=${function##*/}
	fid=$(cat "$function/function_id")
	echo zpci_vfio_pci >"$function/driver_override"
	echo "$name" >/sys/bus/pci/drivers_probe
	set -- "$@" -device "zpci,uid=$fid,fid=$fid,target=f$fid,io-region=on" \
		-device "vfio-pci,id=f$fid,host=$name"
done
/qemu-system-s390x -L / -M s390-ccw-virtio -accel tcg,thread=multi -cpu max -smp 2 -m 64 -nodefaults \
	-nographic -no-reboot -chardev stdio,id=console -device sclpconsole,chardev=console \
	-trace 's390_pci_io*' -D /tmp/trace "$@" -kernel /"#,
            $program,
            r#" 2>&1
echo "functions with the region: $(grep -c s390_pci_io_init /tmp/trace)"
echo "requests: $(grep -c 's390_pci_io ' /tmp/trace)"
"#
        )
    };
}
pub(crate) use command;

pub const COMMAND: &str = command!("bare");

/// What has to differ: in cases that begin so, the first outcome is the second in the guest, and why.
const DIFFERENCES: &[(&str, &str, &str, &str)] = &[
    (
        "ism: ",
        "status 40",
        "status 8",
        "EREMOTEIO does not tell the status",
    ),
    (
        "strict: PCISTB, to a place of BAR 0 that is none",
        "exception 0x15",
        "exception 0x6",
        "ENXIO does not tell which exception",
    ),
    (
        "strict: memory is disabled",
        "cc 0",
        "cc 1 status 12",
        "the emulator does not look at PCI_COMMAND",
    ),
];

/// No operating system, no library, no vectors or floating point.
const CFLAGS: &str = "-march=z13 -mno-vx -msoft-float -O2 -Wall -Werror -fno-strict-aliasing
    -fno-stack-protector -ffreestanding -fno-pic -no-pie -nostdlib -static
    -Wl,--build-id=none -Wl,--no-warn-rwx-segments -T bare.lds";

/// A machine whose console is standard output.
const MACHINE: &str = "-M s390-ccw-virtio -accel tcg,thread=multi -cpu max -smp 2 -m 64 -nodefaults
    -nographic -no-reboot -chardev stdio,id=console -device sclpconsole,chardev=console";

/// Compiles the program `name`, whose `main()` is in a file of `tools/testing/bare`.
pub fn program(
    tree: &Path,
    scratch: &Scratch,
    name: &str,
    main: &str,
    defines: &[String],
) -> Result<PathBuf> {
    let dir = tree.join("tools/testing/bare");
    let path = scratch.path(name);
    let mut gcc = Command::new("s390x-linux-gnu-gcc");
    gcc.args(CFLAGS.split_whitespace())
        .args(defines)
        .arg("-o")
        .arg(&path)
        .args(["head.S", "bare.c", main, "-lgcc"])
        .current_dir(dir);
    progress::run(
        &format!("{name}: compiling"),
        &mut gcc,
        &scratch.path("gcc.log"),
        |_| String::new(),
    )?;
    Ok(path)
}

/// What a program prints with the functions at hand, and what QEMU says beside it, which has `seconds`
/// and some more arguments.
pub fn direct(
    hardware: Hardware,
    program: &Path,
    more: &[&str],
    seconds: u64,
) -> Result<(String, String)> {
    let step = "the program in place of the host";
    let output = Command::new("timeout")
        // A QEMU that hangs may not hear that it has to end.
        .args(["--kill-after=10", &seconds.to_string()])
        .arg(hardware.program)
        .args(MACHINE.split_whitespace())
        .arg("-kernel")
        .arg(program)
        .args(hardware.args)
        .args(more)
        // What a sanitized one has not freed at its end is of no interest.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .output()
        .context(step)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(Error::new(step, format!("{}: {said}", output.status), ""));
    }
    let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    Ok((printed, said))
}

/// What QEMU 11 says of a host whose kernel is built without `CONFIG_VFIO_PCI_DMABUF`.
const NO_DMABUF: &str = "warning: VFIO dma-buf not supported in kernel";

/// What a program has printed in a guest, and what its QEMU has said, but for what is of no interest.
pub fn in_guest(output: &str) -> String {
    let lines = output.split_inclusive('\n');
    let interesting: String = lines.filter(|line| !line.contains(NO_DMABUF)).collect();
    interesting.replace('\r', "")
}

/// One test for each line that the program prints, and some for the comparison as such.
pub fn compare(direct: &str, nested: &str, functions: Functions) -> Vec<Test> {
    let nested = in_guest(nested);
    let mut tests = Vec::new();
    let mut used = vec![false; DIFFERENCES.len()];
    let mut theirs = nested.lines();
    for line in direct.lines() {
        let there = theirs.next().unwrap_or("nothing");
        let mut objections = difference(line, there, &mut used);
        if [": no", ": not there"]
            .iter()
            .any(|end| line.ends_with(end))
        {
            objections.push("it has to be so".into());
        }
        tests.push(Test::check(line, objections));
        if line == "end" {
            break;
        }
    }
    let number = |name: &str| {
        let line = nested.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let check = |name: &str, holds: bool, otherwise: &str| {
        let objection = (!holds).then(|| otherwise.to_string());
        Test::check(name, objection.into_iter().collect())
    };
    let wanted = qemu::count(functions);
    tests.push(check(
        "all cases were tried",
        direct.lines().last() == Some("end"),
        "the program did not reach its end in place of the host",
    ));
    tests.push(check(
        "every function has the region",
        number("functions with the region: ") == wanted,
        "the VMM does not use the region of each function",
    ));
    let good = |line: &&str| line.contains(" space ") && line.ends_with(" cc 0");
    let to_bars = direct
        .lines()
        .filter(good)
        .filter(|line| !line.contains(" space 15 "));
    let issued = to_bars.count();
    tests.push(check(
        "instructions go by the region",
        number("requests: ") >= issued,
        "there were fewer requests than instructions",
    ));
    for ((case, there, here, why), used) in DIFFERENCES.iter().zip(used) {
        let name = format!("known difference: {case} {there}, in the guest {here}: {why}");
        tests.push(check(&name, used, "it is no difference any more"));
    }
    tests
}

/// Objections to what the guest printed.
fn difference(direct: &str, nested: &str, used: &mut [bool]) -> Vec<String> {
    if nested == direct {
        return Vec::new();
    }
    for ((case, there, here, _), used) in DIFFERENCES.iter().zip(used) {
        if direct.starts_with(case) && direct.replace(there, here) == nested {
            *used = true;
            return Vec::new();
        }
    }
    vec![format!("in the guest: {nested}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: Functions = &[qemu::NVME];
    const DIRECT: &str = "function 10: a\nstrict: PCISTB space 2: cc 0\n\
         ism: a: cc 1 status 40\nend\n";
    const NESTED: &str = "function 10: a\r\nstrict: PCISTB space 2: cc 0\r\n\
         ism: a: cc 1 status 8\r\nend\r\nfunctions with the region: 1\nrequests: 1\n";

    /// But for differences that are known, and not in these few lines.
    fn failures(direct: &str, nested: &str) -> Vec<String> {
        let tests = compare(direct, nested, FUNCTIONS);
        let mut failures = Test::group("g", tests).failures();
        failures.retain(|name| !name.contains("known difference"));
        failures
    }

    #[test]
    fn one_warning_is_of_no_interest() {
        let said = format!("qemu-system-s390x: -device x: {NO_DMABUF}, y\n");
        assert_eq!(in_guest(&format!("{said}a\r\nb\r\n")), "a\nb\n");
        assert_eq!(in_guest("qemu: warning: z\nc"), "qemu: warning: z\nc");
    }

    #[test]
    fn equal_but_for_what_is_known() {
        assert!(failures(DIRECT, NESTED).is_empty());
    }

    #[test]
    fn every_difference_fails() {
        let other = NESTED.replace("2: cc 0", "2: cc 1 status 8");
        assert_eq!(failures(DIRECT, &other), ["g/strict: PCISTB space 2: cc 0"]);
        let short = NESTED.replace("end\r\n", "");
        assert_eq!(failures(DIRECT, &short), ["g/end"]);
        let no_region = NESTED.replace("region: 1", "region: 0");
        assert_eq!(
            failures(DIRECT, &no_region),
            ["g/every function has the region"]
        );
        let no_request = NESTED.replace("requests: 1", "requests: 0");
        assert_eq!(
            failures(DIRECT, &no_request),
            ["g/instructions go by the region"]
        );
    }

    #[test]
    fn what_is_wrong_in_both_fails() {
        let wrong = "a: enabled: no\nb: not there\nend\n";
        let nested = format!("{wrong}functions with the region: 1\n");
        assert_eq!(
            failures(wrong, &nested),
            ["g/a: enabled: no", "g/b: not there"]
        );
    }

    #[test]
    fn all_known_differences_have_to_be_there() {
        let tests = compare("end\n", "end\n", FUNCTIONS);
        let failures = Test::group("g", tests).failures();
        let stale = failures.iter().filter(|name| name.contains("known"));
        assert_eq!(stale.count(), DIFFERENCES.len());
    }

    #[test]
    fn a_program_that_ends_early_fails() {
        let early = DIRECT.replace("end\n", "");
        assert!(failures(&early, NESTED).contains(&"g/all cases were tried".into()));
    }
}
