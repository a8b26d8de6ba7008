// SPDX-License-Identifier: GPL-2.0

//! The kernel's own VFIO tests, unmodified, on the generic driver and on ours: what a VMM knows
//! from vfio-pci must be the same. Tests that fail with both show the limits of test and emulation.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    cache::{self, Cache},
    cross,
    error::{Context, Result},
    kernel::Kernel,
    ktap::{self, Counts, Test, Verdict},
    progress,
};

/// What the options of `vfio_dma_mapping_test` in [`COMMAND`] leave out, and why.
const LEFT_OUT: &str = "vfio_dma_map_limit_test with iommufd";
const LEFT_OUT_BECAUSE: &str =
    "it maps what is beyond the emulated function's aperture, which puts the function into error";

/// Tests that fail with every driver, and why.
const KNOWN_FAILURES: &[(&str, &str)] = &[(
    "vfio_pci_device_test: vfio_pci_device_test.config_space_read_write",
    "the test takes config space, which is little-endian, for the byte order of the machine",
)];

/// The test of our region, in a kernel source with `tools/upstream` applied. It skips all where there is
/// no such region.
const OF_THE_REGION: &str = "vfio_zpci_io_test: ";

/// Runs all programs with each driver. Every program's output follows a line that names both.
/// A program that skips itself ends with code 4, and need not print KTAP.
pub const COMMAND: &str = r#"
modprobe -a vfio-pci zpci-vfio-pci || exit
device=0001:00:00.0
cd /sys/bus/pci/devices/$device
for driver in vfio-pci zpci_vfio_pci; do
	echo "$driver" >driver_override
	[ -e driver ] && echo "$device" >driver/unbind
	echo "$device" >/sys/bus/pci/drivers_probe
	[ "$(basename "$(readlink driver)")" = "$driver" ] || exit
	for program in /vfio_*_test; do
		echo "=== $driver ${program##*/}"
		options=
		[ "$program" = /vfio_dma_mapping_test ] && options='-v vfio_type1_iommu
			-v vfio_type1v2_iommu -f vfio_dma_mapping_test'
		output=$($program $options "$device" 2>&1)
		[ $? -eq 4 ] && [ "${output##1..0*}" ] && output="1..0 # SKIP $output"
		echo "$output"
	done
done
"#;

/// Builds the programs from the kernel's source.
pub fn programs(cache: &Cache, kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let sysroot = cross::sysroot(cache, cross::UUID)?;
    let key = cache::key(&(&kernel.key, &sysroot));
    let dir = cache.make(&format!("selftests-{key}"), |dir| {
        let out = dir.join("out");
        fs::create_dir_all(&out).context(format!("making {}", out.display()))?;
        let log = cache.log("selftests");
        let run = |command: &mut Command| {
            let detail = |done| format!("{done} actions");
            progress::run("VFIO selftests: compiling", command, &log, detail)
        };
        let make = |source: PathBuf| {
            let mut make = Command::new("make");
            make.arg("-C").arg(source);
            make
        };
        run(make(kernel.source.clone())
            .arg(format!("O={}", dir.join("headers").display()))
            .arg(format!("INSTALL_HDR_PATH={}", dir.display()))
            .args(["ARCH=s390", "headers_install"]))?;
        // If their Makefile does not know ours, any of those that it knows will do.
        let source = kernel.source.join("tools/testing/selftests/vfio");
        let makefile = source.join("Makefile");
        let text = fs::read_to_string(&makefile);
        let text = text.context(format!("reading {}", makefile.display()))?;
        let arch = if text.contains("s390") {
            "s390"
        } else {
            "arm64"
        };
        run(make(source)
            .arg(format!("OUTPUT={}", out.display()))
            .arg(format!("ARCH={arch}"))
            .arg(format!("CROSS_COMPILE={}", cross::PREFIX))
            .arg(format!(
                "KHDR_INCLUDES=-isystem {}/include -isystem {}/include",
                dir.display(),
                sysroot.display()
            ))
            .arg(format!("LDFLAGS=-static -L{}/lib", sysroot.display())))
    })?;
    let out = dir.join("out");
    let step = || format!("reading {}", out.display());
    let mut programs = Vec::new();
    for entry in fs::read_dir(&out).context(step())? {
        let path = entry.context(step())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("vfio_") && name.ends_with("_test") {
            programs.push(path);
        }
    }
    Ok(programs)
}

/// One test for each test of the programs: it passes if both drivers give the same result.
pub fn compare(output: &str) -> Vec<Test> {
    let mut drivers: Vec<(&str, Vec<Test>)> = Vec::new();
    for section in output.split("=== ").skip(1) {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        let (driver, program) = title.split_once(' ').unwrap_or((title, ""));
        if drivers.last().is_none_or(|(last, _)| *last != driver) {
            drivers.push((driver, Vec::new()));
        }
        if let Some((_, tests)) = drivers.last_mut() {
            let found = ktap::parse(text).into_iter();
            tests.extend(found.map(|test| test.within(program)));
        }
    }
    let of_the_region = drivers.iter_mut().map(|(_, tests)| {
        let is_one = |test: &mut Test| test.name.starts_with(OF_THE_REGION);
        tests.extract_if(.., is_one).collect::<Vec<_>>()
    });
    let of_the_region = of_the_region.collect::<Vec<_>>();
    let [(generic, theirs), (own, ours)] = drivers.as_slice() else {
        let note = format!(
            "the programs ran with {} drivers instead of 2",
            drivers.len()
        );
        return vec![Test::failed("drivers", note)];
    };
    let mut tests = only_ours(of_the_region);
    for test in theirs {
        tests.push(match ours.iter().find(|ours| ours.name == test.name) {
            Some(ours) => same(generic, test, own, ours),
            None => Test::failed(&test.name, format!("does not run with {own}")),
        });
    }
    for test in ours {
        if !theirs.iter().any(|theirs| theirs.name == test.name) {
            let note = format!("does not run with {generic}");
            tests.push(Test::failed(&test.name, note));
        }
    }
    let skipped = Verdict::Skipped(LEFT_OUT_BECAUSE.into());
    tests.push(Test::new(LEFT_OUT, skipped, Vec::new()));
    let rows = [(*generic, theirs), (*own, ours)].map(|(driver, tests)| row(driver, tests));
    let [theirs, ours] = &rows;
    let verdict = if theirs.1 == ours.1 {
        Verdict::Passed
    } else {
        Verdict::Failed
    };
    let table = rows.iter().map(|(driver, counts)| {
        let Counts {
            passed,
            failed,
            skipped,
        } = counts;
        format!("{driver:14} {passed:3} passed {failed:3} failed {skipped:3} skipped")
    });
    tests.push(Test::new("results in all", verdict, table.collect()));
    tests
}

/// The tests of our region: the generic driver, the first, must have skipped them.
fn only_ours(mut drivers: Vec<Vec<Test>>) -> Vec<Test> {
    let mut ours = drivers.pop().unwrap_or_default();
    for theirs in drivers.iter().flatten() {
        if !matches!(theirs.verdict(), Verdict::Skipped(_)) {
            ours.push(Test::failed(
                &theirs.name,
                "is not skipped without the region",
            ));
        }
        if !ours.iter().any(|test| test.name == theirs.name) {
            ours.push(Test::failed(&theirs.name, "does not run with the region"));
        }
    }
    ours
}

/// What the programs said, before it is compared.
fn row<'a>(driver: &'a str, tests: &[Test]) -> (&'a str, Counts) {
    let mut counts = Counts::default();
    for test in tests {
        counts += test.counts();
    }
    (driver, counts)
}

fn same(generic: &str, theirs: &Test, own: &str, ours: &Test) -> Test {
    match (theirs.verdict(), ours.verdict()) {
        (Verdict::Skipped(reason), Verdict::Skipped(_)) => {
            let verdict = Verdict::Skipped(format!("by both drivers: {reason}"));
            Test::new(&ours.name, verdict, Vec::new())
        }
        (Verdict::Failed, Verdict::Failed) => {
            match KNOWN_FAILURES.iter().find(|(name, _)| *name == ours.name) {
                Some((_, why)) => {
                    let note = vec![format!("fails with both drivers, as known: {why}")];
                    Test::new(&ours.name, Verdict::Passed, note)
                }
                None => Test::failed(&ours.name, "fails with both drivers, for a reason unknown"),
            }
        }
        (Verdict::Passed, Verdict::Passed) => Test::new(&ours.name, Verdict::Passed, Vec::new()),
        (their_verdict, our_verdict) => {
            let mut notes = vec![format!("{generic}: {their_verdict:?}")];
            notes.extend_from_slice(theirs.notes());
            notes.push(format!("{own}: {our_verdict:?}"));
            notes.extend_from_slice(ours.notes());
            Test::new(&ours.name, Verdict::Failed, notes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(generic: &str, own: &str) -> Vec<String> {
        let part = |driver, results| format!("=== {driver} prog\nTAP version 13\n1..3\n{results}");
        let output = part("vfio-pci", generic) + &part("zpci_vfio_pci", own);
        Test::group("g", compare(&output)).failures()
    }

    #[test]
    fn equal_results_pass() {
        let results = "ok 1 a\nok 2 b\nok 3 c # SKIP no device\n";
        assert!(failures(results, results).is_empty());
    }

    #[test]
    fn only_known_failures_pass() {
        let results = "ok 1 a\nnot ok 2 b\nok 3 c\n";
        assert_eq!(failures(results, results), ["g/prog: b"]);
        let (known, _) = KNOWN_FAILURES[0];
        let (program, test) = known.split_once(": ").unwrap();
        let part = |driver| format!("=== {driver} {program}\n1..1\nnot ok 1 {test}\n");
        let tests = compare(&(part("vfio-pci") + &part("zpci_vfio_pci")));
        assert!(Test::group("g", tests).failures().is_empty());
    }

    #[test]
    fn every_difference_fails() {
        let all = "ok 1 a\nok 2 b\nok 3 c\n";
        let counts = "g/results in all";
        for other in [
            "ok 1 a\nnot ok 2 b\nok 3 c\n",
            "ok 1 a\nok 2 b # SKIP\nok 3 c\n",
        ] {
            assert_eq!(failures(all, other), ["g/prog: b", counts]);
            assert_eq!(failures(other, all), ["g/prog: b", counts]);
        }
        let fewer = "ok 1 a\nok 2 b\n";
        assert_eq!(failures(all, fewer), ["g/prog: c", "g/prog: plan", counts]);
        assert_eq!(failures(fewer, all), ["g/prog: plan", "g/prog: c", counts]);
    }

    #[test]
    fn tests_of_the_region_run_where_it_is() {
        let part = |driver, program, result| {
            format!("=== {driver} {program}\nTAP version 13\n1..1\n{result}\n")
        };
        let failures = |generic, own| {
            let one = |driver, result| {
                part(driver, "prog", "ok 1 a") + &part(driver, "vfio_zpci_io_test", result)
            };
            let output = one("vfio-pci", generic) + &one("zpci_vfio_pci", own);
            Test::group("g", compare(&output)).failures()
        };
        let name = "g/vfio_zpci_io_test: t";
        assert!(failures("ok 1 t # SKIP none", "ok 1 t").is_empty());
        assert_eq!(failures("ok 1 t", "ok 1 t"), [name]);
        assert_eq!(failures("ok 1 t # SKIP none", "not ok 1 t"), [name]);
        assert_eq!(failures("ok 1 t # SKIP none", "ok 1 u"), [name]);
    }

    #[test]
    fn one_driver_is_not_enough() {
        assert!(!Test::group("g", compare("")).failures().is_empty());
        let half = "=== vfio-pci prog\nTAP version 13\n1..1\nok 1 a\n";
        assert_eq!(Test::group("g", compare(half)).failures(), ["g/drivers"]);
    }
}
