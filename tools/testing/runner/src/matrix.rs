// SPDX-License-Identifier: GPL-2.0

//! The module on each kernel that it is for, built by each compiler.

use std::{fs, path::Path};

use crate::{
    cache::{Cache, Scratch},
    error::{Context, Result},
    guest::Guest,
    kernel::{self, Compiler, Flavour, Kernel, Origin},
    ktap::{self, Test, Verdict},
    packages,
    rungs::{checks, Rung},
    steps::Steps,
    vm::{self, Machine},
};

/// What each host has to climb.
const RUNGS: &[&str] = &["kunit", "region", "lifecycle", PACKAGES];

/// One that another kernel than clang's cannot.
const PACKAGES: &str = "install";
const BY_CLANG_ONLY: &str =
    "GCC makes the programs among its headers for s390x, and here DKMS runs them";

const NO_KERNEL: &str = "there is no kernel";

/// Has the kernel enforce signatures, as one with Secure Boot does, and loads what it must refuse, then the
/// module as it was installed. Without its last line a signature is none.
const SIGNATURES: &str = r#"
modprobe vfio-pci-core || exit
module=$(find /lib/modules -name zpci-vfio-pci.ko)
size=$(stat -c %s "$module")
head -c $((size - 28)) "$module" >/unsigned.ko
cp "$module" /changed.ko
printf changed | dd of=/changed.ko bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
echo 1 >/sys/module/module/parameters/sig_enforce || exit
number=0
is() {
	number=$((number + 1))
	[ "$2" = "$3" ] && echo "ok $number $1" || printf 'not ok %s %s\n# %s\n' $number "$1" "$2"
}
said() { insmod $1 2>&1 | sed 's/.*: //'; }
refused='Key was rejected by service'
echo 1..4
is 'a module without a signature is refused' "$(said /unsigned.ko)" "$refused"
is 'a module that was changed afterwards is refused' "$(said /changed.ko)" "$refused"
is 'the signed module is loaded' "$(modprobe zpci-vfio-pci 2>&1)" ''
is 'it taints the kernel as any that is not a part of it' "$(cat /sys/module/zpci_vfio_pci/taint)" O
"#;

/// `matrix`: all, or those of KVER and KCC.
pub fn test(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let versions = match vm::var("KVER") {
        Some(version) => vec![version],
        None => versions(tree)?,
    };
    let compilers = match vm::var("KCC") {
        Some(name) => vec![Compiler::parse(&name)?],
        None => Compiler::ALL.to_vec(),
    };
    let kernels = versions.len() * compilers.len();
    let upgrades: Vec<_> = match compilers.contains(&Compiler::Clang) {
        true => versions.windows(2).collect(),
        false => Vec::new(),
    };
    let mut steps = Steps::new(&cache, kernels * (2 + RUNGS.len()) + upgrades.len())?;
    for version in &versions {
        for compiler in &compilers {
            climb(tree, &cache, version, *compiler, &mut steps)?;
        }
    }
    for pair in upgrades {
        let name = format!("{}: upgrade", pair.join(" to "));
        steps.take(&name, || upgrade(tree, &cache, pair))?;
    }
    steps.end()
}

/// Builds one host and has it climb.
fn climb(
    tree: &Path,
    cache: &Cache,
    version: &str,
    compiler: Compiler,
    steps: &mut Steps,
) -> Result<()> {
    let name = format!("{version} {}", compiler.name());
    let name = |step: &str| format!("{name}: {step}");
    let mut guest = None;
    steps.take(&name("build"), || {
        if !kernel::has(cache, version) {
            let reason = format!("'scripts/toolchain kernel {version}' has found no source");
            return Ok(skipped(&reason));
        }
        let origin = Origin::of(cache, Some(version), compiler)?;
        let built = guest.insert(Guest::on(cache, origin, Flavour::Units, tree)?);
        let release = format!("Linux {}", built.release());
        Ok(vec![Test::check(release, Vec::new())])
    })?;
    let results = steps
        .results()
        .join(format!("{version}-{}", compiler.name()));
    fs::create_dir_all(&results).context(format!("making {}", results.display()))?;
    for rung in RUNGS {
        steps.take(&name(rung), || match &guest {
            Some(_) if *rung == PACKAGES && compiler == Compiler::Gcc => Ok(skipped(BY_CLANG_ONLY)),
            Some(guest) => Rung::climb(rung, guest, cache, tree, &results),
            None => Ok(skipped(NO_KERNEL)),
        })?;
    }
    steps.take(&name("signatures"), || match &guest {
        Some(guest) => signatures(cache, guest),
        None => Ok(skipped(NO_KERNEL)),
    })
}

fn signatures(cache: &Cache, guest: &Guest) -> Result<Vec<Test>> {
    let machine = Machine::from_env(guest.kernel.flavour, "600")?;
    let (output, _) = vm::succeed(cache, guest, &machine, SIGNATURES)?;
    Ok(ktap::parse(&output))
}

/// Has a host upgrade to the next kernel: what it has installed when it is switched off is in the next boot.
fn upgrade(tree: &Path, cache: &Cache, versions: &[String]) -> Result<Vec<Test>> {
    if !versions.iter().all(|version| kernel::has(cache, version)) {
        return Ok(skipped(NO_KERNEL));
    }
    let origin = |version: &String| Origin::of(cache, Some(version), Compiler::Clang);
    let scratch = Scratch::new(cache)?;
    let kernels = versions
        .iter()
        .map(|version| Kernel::of(cache, origin(version)?, Flavour::Units, tree))
        .collect::<Result<Vec<_>>>()?;
    let mut files = packages::for_upgrade(cache, tree, &kernels, &scratch)?;
    let mut tests = vec![packages::leaves_dkms(cache, tree, &kernels[0], &scratch)];
    let installed = scratch.path(packages::INSTALLED);
    for (version, command) in versions.iter().zip(packages::UPGRADE) {
        let guest = Guest::on(cache, origin(version)?, Flavour::Units, tree)?;
        let mut machine = Machine::from_env(Flavour::Units, "600")?;
        machine.files.append(&mut files);
        machine.keep(packages::INSTALLED, &installed);
        let mut output = Vec::new();
        let outcome = vm::run(cache, &guest, &machine, command, false, &mut output)?;
        tests.extend(ktap::parse(&String::from_utf8_lossy(&output)));
        tests.extend(checks::after(&outcome, None));
        files.push(installed.clone());
    }
    Ok(tests)
}

fn skipped(reason: &str) -> Vec<Test> {
    vec![Test::new(
        "all",
        Verdict::Skipped(reason.into()),
        Vec::new(),
    )]
}

/// The versions that scripts/versions names, in their order.
fn versions(tree: &Path) -> Result<Vec<String>> {
    let path = tree.join("scripts/versions");
    let text = fs::read_to_string(&path).context(format!("reading {}", path.display()))?;
    let names = text.lines().filter_map(|line| line.split(' ').nth(1));
    let mut versions: Vec<_> = names
        .filter_map(|name| name.strip_prefix("linux-source-"))
        .map(String::from)
        .collect();
    versions.sort_unstable();
    Ok(versions)
}
