// SPDX-License-Identifier: GPL-2.0

//! Packages: what users install. scripts/package makes them; here they are looked at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{Cache, Scratch},
    error::{Context, Result},
    guest, progress, source,
};

/// Where they are described.
const DIR: &str = "scripts/package";

/// What a package's name ends with.
const PACKAGES: &[&str] = &["deb", "rpm"];

/// The tool, as program and as package.
const TOOL: &str = "zpci-io";

/// `packages`: of the module's source and of the tool.
pub fn show(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache)?;
    let dir = scratch.path("packages");
    build(&cache, tree, &dir, None)?;
    let made = found(&dir, PACKAGES)?;
    publish(tree, &made)?;
    let objections = lint(&cache, tree, &made)?;
    for objection in &objections {
        println!("{objection}");
    }
    Ok(u8::from(!objections.is_empty()))
}

/// Puts packages where the user sees them.
fn publish(tree: &Path, packages: &[PathBuf]) -> Result<()> {
    let dir = tree.join("packages");
    fs::create_dir_all(&dir).context(format!("making {}", dir.display()))?;
    for package in packages {
        let path = dir.join(package.file_name().unwrap_or_default());
        fs::copy(package, &path).context(format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes the packages of the module's source and of the tool in `dir`; with another version than the
/// tree's, if one is given.
fn build(cache: &Cache, tree: &Path, dir: &Path, version: Option<&str>) -> Result<()> {
    const STEP: &str = "packages";
    let program = guest::tool(cache, tree)?;
    fs::create_dir_all(dir).context(STEP)?;
    let path = dir.join(TOOL);
    fs::write(&path, program).context(STEP)?;
    let mut script = script(tree, "build");
    run(cache, STEP, script.arg(&path).arg(dir).args(version))
}

/// What lintian and rpmlint say against packages, but for what is listed with its reason: in
/// `scripts/package/debian` and `rpmlint.toml`.
fn lint(cache: &Cache, tree: &Path, packages: &[PathBuf]) -> Result<Vec<String>> {
    let of = |suffix: &str| {
        let suffix = suffix.to_string();
        packages
            .iter()
            .filter(move |path| path.extension().is_some_and(|found| *found == *suffix))
    };
    let mut lintian = Command::new("lintian");
    lintian
        .args([
            "--allow-root",
            "--tag-display-limit=0",
            "--pedantic",
            "--display-info",
        ])
        .arg("--fail-on=error,warning,info,pedantic")
        .args(of("deb"));
    let mut rpmlint = Command::new("rpmlint");
    rpmlint
        .arg("--strict")
        .arg("--config")
        .arg(tree.join(DIR).join("rpmlint.toml"))
        .args(of("rpm"));
    let mut objections = Vec::new();
    for (name, command) in [("lintian", &mut lintian), ("rpmlint", &mut rpmlint)] {
        let log = cache.log(name);
        if !progress::try_run(name, command, &log, |_| "running".into())?.success() {
            let text = fs::read_to_string(&log).context(format!("reading {}", log.display()))?;
            objections.extend(text.lines().map(|line| format!("{name}: {line}")));
        }
    }
    Ok(objections)
}

fn script(tree: &Path, name: &str) -> Command {
    source::command(&tree.join(DIR).join(name).display().to_string(), tree)
}

fn run(cache: &Cache, what: &str, command: &mut Command) -> Result<()> {
    let log = cache.log("packages");
    progress::run(what, command, &log, |done| format!("{done} actions"))
}

/// The files of these kinds in a directory.
fn found(dir: &Path, kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let step = || format!("reading {}", dir.display());
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).context(step())? {
        let path = entry.context(step())?.path();
        let kind = path.extension().unwrap_or_default();
        if kinds.iter().any(|wanted| kind == *wanted) {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> String {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        fs::read_to_string(tree.join(path)).unwrap()
    }

    #[test]
    fn there_is_one_version() {
        let tool = read("tools/zpci-io/Cargo.toml");
        let version = tool
            .lines()
            .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
            .unwrap();
        let changelog = read("scripts/package/debian/changelog");
        assert!(changelog.starts_with(&format!("zpci-vfio-pci ({version}) ")));
        let spec = read("scripts/package/zpci-vfio-pci.spec");
        assert!(spec.contains(&format!("\nVersion:        {version}\n")));
        assert!(read("CHANGELOG.md").contains(&format!("\n## {version}")));
    }
}
