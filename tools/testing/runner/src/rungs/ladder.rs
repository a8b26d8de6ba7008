// SPDX-License-Identifier: GPL-2.0

//! `make test`: climbs rungs, and makes one KTAP document of their results.

use std::{
    env,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Once,
};

use super::{
    boot::Files,
    table::{self, RUNGS},
    Kind,
    Rung, //
};
use crate::{
    cache::Cache,
    error::{Context, Error, Result},
    guest::Guest,
    ktap::{self, Counts},
    lanes,
    patched::Patched,
    progress, results,
};

/// Runs the named rungs, or those of `make test`, and returns the exit code.
pub fn test(tree: &Path, names: &[&str]) -> Result<u8> {
    let rungs = choose(names)?;
    let cache = Cache::open()?;
    let results = results::dir(&cache)?;
    let path = results.join("results.ktap");
    let file = File::create(&path).context(format!("writing {}", path.display()))?;
    let mut out = results::Both(file);
    let print = |result: io::Result<()>| result.context("writing the results");

    print(writeln!(out, "KTAP version 1\n1..{}", rungs.len()))?;
    let lanes = lanes::number();
    let seconds = rungs.iter().map(|rung| rung.seconds).sum::<u64>();
    progress::say(&format!(
        "tests: {} rungs, {lanes} at a time, about {} min on two quiet processors; longer if a kernel \
         has to be built",
        rungs.len(),
        seconds.div_ceil(60 * lanes as u64),
    ));
    let built = Once::new();
    let work = |rung: &&Rung| {
        if let Kind::Boot(_) = rung.kind {
            // What fails here fails in the rung that needs it, which says so in the results.
            built.call_once(|| drop(build(&cache, tree, &rungs)));
        }
        rung.tested(&cache, tree, &results)
    };
    let mut total = Counts::default();
    let mut ends = Vec::new();
    let mut skipped_rung = false;
    lanes::run(lanes, &rungs, work, |rung, number, test| {
        let name = rung.name;
        let counts = test.counts();
        skipped_rung |= counts.passed + counts.failed == 0;
        total += counts;
        print(test.write(&mut out, number, 0))?;
        ends.extend(test.failures().iter().map(|name| format!("failed: {name}")));
        if counts.failed > 0 {
            ends.push(format!(
                "rung {name} has failed; {}",
                results::logs(&results, name)?
            ));
        }
        Ok(())
    })?;
    for line in ends {
        print(writeln!(out, "# {line}"))?;
    }
    print(writeln!(out, "# kept in {}", results.display()))?;
    print(writeln!(out, "{}", ktap::summary(total)))?;
    let strict = env::var("CI").is_ok_and(|ci| ci == "true");
    Ok(u8::from(total.failed > 0 || (strict && skipped_rung)))
}

/// Builds what takes long and the boots of these rungs need.
fn build(cache: &Cache, tree: &Path, rungs: &[&Rung]) -> Result<()> {
    let boots = || {
        rungs.iter().filter_map(|rung| match &rung.kind {
            Kind::Boot(boot) => Some(boot),
            _ => None,
        })
    };
    let emulators = || {
        let patched = Patched::get(cache, tree)?;
        if boots().any(|boot| matches!(boot.files, Files::Bare | Files::Fuzz | Files::LinuxGuest)) {
            patched.vmm(cache)?;
        }
        Ok(())
    };
    let hosts = || boots().try_for_each(|boot| Guest::get(cache, boot.flavour, tree).map(drop));
    progress::side_by_side(emulators, hosts).map(drop)
}

fn choose(names: &[&str]) -> Result<Vec<&'static Rung>> {
    if let Some(unknown) = names.iter().find(|name| Rung::named(name).is_none()) {
        let known: Vec<_> = table::all().map(|rung| rung.name).collect();
        return Err(Error::new(
            "test",
            format!("there is no rung '{unknown}'"),
            format!("The rungs are: {}", known.join(" ")),
        ));
    }
    if names.is_empty() {
        return Ok(RUNGS.iter().collect());
    }
    let is_named = |rung: &&Rung| names.contains(&rung.name);
    Ok(table::all().filter(is_named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), RUNGS.len());
        assert_eq!(choose(&["region"]).unwrap()[0].name, "region");
        assert_eq!(choose(&["cycles"]).unwrap().len(), 1);
        assert!(choose(&["no such rung"]).is_err());
    }
}
