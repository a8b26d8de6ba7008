// SPDX-License-Identifier: GPL-2.0

//! The rungs: what each boots and runs, how long it takes, and what it skips.

use std::{path::Path, process::Command};

use super::{
    boot::{Boot, Files, Results, BOOT},
    output, Kind, Rung,
};
use crate::{
    bare,
    cache::{Cache, Scratch},
    chain, conformance, emulator,
    error::Result,
    fuzz,
    kernel::Flavour,
    ktap::Test,
    packages, qemu, upstream,
};

/// Loads the module, whose unit tests run then. They compare it with `vfio-pci`, so each of the two
/// drivers has a function by then. Where the abstractions are built in, they would run before there is one,
/// so that kernel runs none by itself.
const KUNIT: &str = "\
cd /sys/bus/pci/devices &&
echo vfio-pci >0001:00:00.0/driver_override &&
echo zpci_vfio_pci >0004:00:00.0/driver_override &&
modprobe -a vfio-pci zpci-vfio-pci || exit
zcat /proc/config.gz | grep -q ^CONFIG_KUNIT_AUTORUN_ENABLED=y && exit
set -- /sys/kernel/debug/kunit/zpci_vfio_pci_*/run
printf 'KTAP version 1\n1..%s\n' $# >/dev/kmsg
for run; do echo 1 >$run || exit; done";

/// The rules of the region.
const REGION: &str = "modprobe zpci-vfio-pci && IN_ORDER=1 region-test";

/// What its tests skip on a kernel that looks for defects.
const REGION_SKIPS: &[(&str, usize)] =
    &[("huge pages (hugetlb)", 1), ("huge pages (transparent)", 1)];

/// The same of the tests of what the host does.
const LIFECYCLE_SKIPS: &[(&str, usize)] = &[
    ("contention: nobody waits long", 1),
    ("error, then recovery by the host", 2),
];

/// The tests of guests.
const GUEST: Boot = Boot {
    flavour: Flavour::Release,
    functions: chain::FUNCTIONS,
    trace: chain::TRACE,
    files: Files::LinuxGuest,
    command: chain::COMMAND,
    results: Results::Witness,
    ..BOOT
};

/// Those of `make test`, in the order in which they are climbed.
pub const RUNGS: &[Rung] = &[
    Rung {
        name: "host",
        seconds: 45,
        skips: &[],
        kind: Kind::Cargo(&[
            "request",
            "lease",
            "booted",
            "lifecycle-test",
            "vfio-zpci-io",
            "zpci-io",
            "runner",
        ]),
    },
    Rung {
        name: "model",
        seconds: 16,
        skips: &[],
        kind: Kind::Program("tools/testing/model/check"),
    },
    Rung {
        name: "upstream",
        seconds: 20,
        skips: &[],
        kind: Kind::Own(check_series),
    },
    Rung {
        name: "run",
        seconds: 10,
        skips: &[],
        kind: Kind::Own(crate::test_demo),
    },
    Rung {
        name: "emulator",
        seconds: 10,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            question: Some(emulator::QUESTION),
            command: emulator::COMMAND,
            results: Results::Translations,
            ..BOOT
        }),
    },
    Rung {
        name: "kunit",
        seconds: 50,
        skips: &[],
        kind: Kind::Boot(Boot {
            functions: &[qemu::NVME, qemu::DISK],
            command: KUNIT,
            results: Results::KernelLog,
            ..BOOT
        }),
    },
    Rung {
        name: "region",
        seconds: 90,
        skips: REGION_SKIPS,
        kind: Kind::Boot(Boot {
            // Where allocations fail is the debug kernel.
            release_for_one: |name| !name.contains("ENOMEM"),
            command: REGION,
            long: Some("--long"),
            skips_on_units: &[("ENOMEM", 6)],
            ..BOOT
        }),
    },
    Rung {
        name: "clients",
        seconds: 10,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::DISK],
            command: "IN_ORDER=1 client-test",
            ..BOOT
        }),
    },
    Rung {
        name: "install",
        seconds: 150,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::ISM],
            files: Files::Packages,
            command: packages::COMMAND,
            results: Results::Packages,
            // There is no SMC.
            skips_on_units: &[("kit: a function in use", 1)],
            ..BOOT
        }),
    },
    Rung {
        name: "conformance",
        seconds: 20,
        skips: &[
            ("anonymous_hugetlb_", 10),
            ("msi.enable_trigger_disable", 1),
            ("vfio_dma_map_limit_test with iommufd", 1),
            ("vfio_pci_driver_test: all", 1),
            ("vfio_pci_sriov_uapi_test: all", 1),
        ],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            files: Files::Selftests,
            command: conformance::COMMAND,
            results: Results::Comparison,
            ..BOOT
        }),
    },
    Rung {
        name: "lifecycle",
        seconds: 110,
        skips: LIFECYCLE_SKIPS,
        kind: Kind::Boot(Boot {
            command: "lifecycle-test",
            long: Some("--long"),
            ..BOOT
        }),
    },
    Rung {
        name: "unmediated",
        seconds: 50,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Unmediated,
            command: "lifecycle-test",
            only: Some("recovery by the host"),
            ..BOOT
        }),
    },
    Rung {
        name: "contention",
        seconds: 35,
        skips: &[("contention: all who wait for others are woken", 1)],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            exact: true,
            command: "lifecycle-test",
            only: Some("contention"),
            ..BOOT
        }),
    },
    Rung {
        name: "ism",
        seconds: 110,
        skips: &[],
        kind: Kind::Boot(Boot {
            release_for_one: |_| true,
            functions: &[qemu::NVME, qemu::ISM, qemu::CONDITIONS, qemu::FAILING],
            command: "modprobe zpci-vfio-pci && ism-test",
            ..BOOT
        }),
    },
    Rung {
        name: "bare",
        seconds: 10,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::ISM, qemu::CONDITIONS],
            files: Files::Bare,
            command: bare::COMMAND,
            results: Results::Bare,
            ..BOOT
        }),
    },
    Rung {
        name: "fuzz",
        seconds: 40,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            functions: &[qemu::NVME, qemu::ISM],
            trace: fuzz::TRACE,
            files: Files::Fuzz,
            command: fuzz::COMMAND,
            results: Results::Fuzz,
            ..BOOT
        }),
    },
    Rung {
        name: "guest",
        seconds: 60,
        skips: &[],
        kind: Kind::Boot(GUEST),
    },
];

/// Those that only who names them has run, for they take long.
const ON_DEMAND: &[Rung] = &[
    Rung {
        name: "cycles",
        seconds: 1200,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Release,
            command: "lifecycle-test --long",
            only: Some("cycles"),
            ..BOOT
        }),
    },
    Rung {
        name: "race-region",
        seconds: 190,
        skips: REGION_SKIPS,
        kind: Kind::Boot(Boot {
            flavour: Flavour::Race,
            command: REGION,
            ..BOOT
        }),
    },
    Rung {
        name: "race-lifecycle",
        seconds: 320,
        skips: LIFECYCLE_SKIPS,
        kind: Kind::Boot(Boot {
            flavour: Flavour::Race,
            command: "lifecycle-test",
            ..BOOT
        }),
    },
    Rung {
        name: "race-guest",
        seconds: 600,
        skips: &[],
        kind: Kind::Boot(Boot {
            flavour: Flavour::Race,
            ..GUEST
        }),
    },
];

/// All there are.
pub fn all() -> impl Iterator<Item = &'static Rung> {
    RUNGS.iter().chain(ON_DEMAND)
}

/// What is skipped, and what instead on Linux 7.2, where it is the host that recovers functions.
pub const ON_LINUX_7_2: (&str, &str) = (
    "error, then recovery by the host",
    "error, then VFIO_DEVICE_RESET",
);

/// The form of the patches, for the kernel and for QEMU.
fn check_series(cache: &Cache, tree: &Path) -> Result<Vec<Test>> {
    let mut tests = upstream::check(cache, tree)?;
    let scratch = Scratch::new(cache)?;
    let mut export = Command::new(tree.join("tools/qemu/export"));
    export.arg(scratch.path("series"));
    let (text, success) = output(&mut export, &scratch.path("out"))?;
    let objections = if success { "" } else { &text };
    tests.push(Test::check(
        "QEMU: the patches apply, and checkpatch finds no error",
        objections.lines().map(str::to_owned).collect(),
    ));
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_readme_names_every_rung() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let text = fs::read_to_string(readme).unwrap();
        let (_, table) = text.split_once("| rung | what |\n|---|---|\n").unwrap();
        let named: Vec<_> = table
            .lines()
            .map_while(|line| line.strip_prefix("| ")?.split(' ').next())
            .collect();
        let rungs: Vec<_> = all().map(|rung| rung.name).collect();
        assert_eq!(named, rungs);
    }
}
