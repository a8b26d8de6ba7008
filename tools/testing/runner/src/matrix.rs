// SPDX-License-Identifier: GPL-2.0

//! The module on the kernel as each compiler makes it.

use std::{fs, path::Path};

use crate::{
    cache::Cache,
    error::{Context, Result},
    guest::Guest,
    kernel::{Compiler, Flavour, Origin},
    ktap::{Test, Verdict},
    rungs::Rung,
    steps::Steps,
    vm,
};

/// What each host has to climb.
const RUNGS: &[&str] = &["kunit", "region", "lifecycle"];

/// `matrix`: all compilers, or that of KCC.
pub fn test(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let compilers = match vm::var("KCC") {
        Some(name) => vec![Compiler::parse(&name)?],
        None => Compiler::ALL.to_vec(),
    };
    let mut steps = Steps::new(&cache, compilers.len() * (1 + RUNGS.len()))?;
    for compiler in compilers {
        climb(tree, &cache, compiler, &mut steps)?;
    }
    steps.end()
}

/// Builds one host and has it climb.
fn climb(tree: &Path, cache: &Cache, compiler: Compiler, steps: &mut Steps) -> Result<()> {
    let name = |step: &str| format!("{}: {step}", compiler.name());
    let mut guest = None;
    steps.take(&name("build"), || {
        let origin = Origin::by(cache, compiler)?;
        let built = guest.insert(Guest::on(cache, origin, Flavour::Units, tree)?);
        Ok(vec![Test::check(
            format!("Linux {}", built.release()),
            Vec::new(),
        )])
    })?;
    let results = steps.results().join(compiler.name());
    fs::create_dir_all(&results).context(format!("making {}", results.display()))?;
    for rung in RUNGS {
        steps.take(&name(rung), || match &guest {
            Some(guest) => Rung::climb(rung, guest, cache, tree, &results),
            None => {
                let skipped = Verdict::Skipped("there is no kernel".into());
                Ok(vec![Test::new("all", skipped, Vec::new())])
            }
        })?;
    }
    Ok(())
}
