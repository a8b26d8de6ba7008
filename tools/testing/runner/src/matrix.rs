// SPDX-License-Identifier: GPL-2.0

//! The module on each kernel that it is for, built by each compiler.

use std::{fs, path::Path};

use crate::{
    cache::Cache,
    error::{Context, Result},
    guest::Guest,
    kernel::{self, Compiler, Flavour, Origin},
    ktap::{Test, Verdict},
    rungs::Rung,
    steps::Steps,
    vm,
};

/// What each host has to climb.
const RUNGS: &[&str] = &["kunit", "region", "lifecycle"];

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
    let mut steps = Steps::new(&cache, kernels * (1 + RUNGS.len()))?;
    for version in &versions {
        for compiler in &compilers {
            climb(tree, &cache, version, *compiler, &mut steps)?;
        }
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
            Some(guest) => Rung::climb(rung, guest, cache, tree, &results),
            None => Ok(skipped("there is no kernel")),
        })?;
    }
    Ok(())
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
