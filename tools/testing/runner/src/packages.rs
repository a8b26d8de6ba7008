// SPDX-License-Identifier: GPL-2.0

//! Packages: what users install. scripts/package makes them; here they are looked at.

use std::{
    fs,
    io::ErrorKind::NotFound,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache, Scratch},
    error::{Context, Error, Result},
    guest,
    kernel::{Flavour, Kernel},
    progress, source,
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

/// `kernel-packages`: of the release kernel, its headers, and the module for it.
pub fn show_kernel(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache)?;
    publish(tree, &all(&cache, tree, &scratch.path("packages"))?)?;
    Ok(0)
}

/// `hardware-kit`: all of that in one archive, with a script that tries a function.
pub fn show_kit(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache)?;
    let dir = scratch.path("packages");
    let packages = all(&cache, tree, &dir)?;
    publish(tree, &kit(&cache, tree, &dir, &packages)?)?;
    Ok(0)
}

/// All packages; what is not kept in the cache, in `dir`.
fn all(cache: &Cache, tree: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let kernel = Kernel::get(cache, Flavour::Release, tree)?;
    let OfKernel {
        mut packages,
        headers,
    } = kernel_packages(cache, tree, &kernel)?;
    build(cache, tree, dir, None)?;
    module(cache, tree, &headers, dir)?;
    packages.extend(found(dir, PACKAGES)?);
    Ok(packages)
}

/// The kit for hardware with these packages, made in the directory in which they were made.
fn kit(cache: &Cache, tree: &Path, dir: &Path, packages: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut script = script(tree, "build-kit");
    script.arg(dir).arg(dir.join(TOOL)).args(packages);
    run(cache, "hardware kit", &mut script)?;
    found(dir, &["xz"])
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

/// What is made once of a kernel.
struct OfKernel {
    packages: Vec<PathBuf>,
    /// What is in the package of its headers.
    headers: PathBuf,
}

/// The packages of a kernel and its headers.
fn kernel_packages(cache: &Cache, tree: &Path, kernel: &Kernel) -> Result<OfKernel> {
    const STEP: &str = "kernel packages";
    let key = cache::key(&(&kernel.key, cache::files_key(&[tree.join(DIR)])?));
    let dir = cache.make(&format!("kernel-packages-{key}"), |dir| {
        let mut script = script(tree, "build-kernel");
        run(cache, STEP, script.arg(&kernel.build).arg(dir))?;
        let mut unpack = source::command("dpkg-deb", dir);
        let package = found(dir, PACKAGES)?;
        let package = named(&package, "linux-headers-")?;
        run(
            cache,
            STEP,
            unpack.arg("-x").args([package, &dir.join("root")]),
        )?;
        for left in ["image", "headers", "rpm"] {
            source::remove(&dir.join(left))?;
        }
        Ok(())
    })?;
    let headers = fs::read_dir(dir.join("root/usr/src"))
        .and_then(|mut entries| entries.next().unwrap_or(Err(NotFound.into())))
        .context(STEP)?;
    Ok(OfKernel {
        packages: found(&dir, PACKAGES)?,
        headers: headers.path(),
    })
}

/// Makes the packages of the module for a kernel in `dir`, from the package of the module's source that
/// is there and what is in that of the kernel's headers, and from nothing else.
fn module(cache: &Cache, tree: &Path, headers: &Path, dir: &Path) -> Result<()> {
    let mut script = script(tree, "build-module");
    script
        .arg(named(&found(dir, PACKAGES)?, "zpci-vfio-pci-dkms_")?)
        .arg(headers)
        .arg(dir);
    run(cache, "module packages: DKMS", &mut script)
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

/// The one whose name begins so.
fn named<'a>(packages: &'a [PathBuf], name: &str) -> Result<&'a Path> {
    let package = packages.iter().find(|path| is_named(path, name));
    package
        .map(PathBuf::as_path)
        .ok_or_else(|| Error::new("packages", format!("there is no {name}*"), ""))
}

fn is_named(path: &Path, name: &str) -> bool {
    let file = path.file_name().unwrap_or_default();
    file.to_string_lossy().starts_with(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kconfig;

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

    #[test]
    fn users_are_told_to_set_what_the_tests_run_with() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let told = kconfig::read(&[tree.join(DIR).join("kernel.config")]).unwrap();
        let ours = kconfig::read(&[tree.join("tools/testing/kernel/base.config")]).unwrap();
        for (name, value) in told {
            let ours = ours.get(&name).map_or("n", String::as_str);
            assert_eq!(ours == "n", value == "n", "{name}");
        }
    }
}
