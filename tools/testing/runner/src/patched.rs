// SPDX-License-Identifier: GPL-2.0

//! The QEMU of `tools/qemu`: upstream's source with our patches, built for this machine, where it
//! emulates the s390x host, and for that host, where it is a VMM.

mod trial;

pub use trial::test;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    cache::{self, Cache},
    cross,
    error::{Context, Result},
    progress,
    qemu::{Functions, Hardware, NAME},
    source::{self, Source},
    vm,
};

/// Names a directory, if what is compiled shall stay there. With other patches then only what they
/// change is compiled again. For one process at a time.
pub const KEPT: &str = "QEMU_WORK";

/// Both need it, beside the program (-L).
const FIRMWARE: &str = "s390-ccw.img";

/// What is built for which machine.
struct Target {
    name: &'static str,
    options: &'static [&'static str],
    strip: &'static str,
    /// About how many actions ninja takes, for the progress line alone.
    actions: usize,
}

const L0: Target = Target {
    name: "x86_64",
    options: &["--cc=gcc", "--enable-plugins"],
    strip: "strip",
    actions: 1360,
};

/// The first, with a look at what it does to its own memory.
const SANITIZED: Target = Target {
    name: "x86_64-sanitized",
    options: &["--cc=gcc", "--enable-asan", "--enable-ubsan"],
    ..L0
};

const L1: Target = Target {
    name: "s390x",
    options: &[
        "--cross-prefix=s390x-linux-gnu-",
        "--static",
        "--disable-plugins",
    ],
    strip: "s390x-linux-gnu-strip",
    actions: 1360,
};

/// No more than the machine needs, and nothing from the network.
const OPTIONS: &[&str] = &[
    "--target-list=s390x-softmmu",
    "--without-default-features",
    "--enable-trace-backends=log",
    "--disable-download",
    "--disable-docs",
    "--disable-tools",
    "--disable-user",
    "--disable-guest-agent",
    "--disable-fdt",
    "--disable-install-blobs",
    "--host-cc=gcc",
];

/// The source, and what is done to it.
struct Recipe {
    source: Source,
    patches: Vec<PathBuf>,
    /// Names all of that.
    key: String,
}

impl Recipe {
    /// For the QEMU of the tests, or for the version that QVER says, which has some patches of its own.
    fn read(cache: &Cache, tree: &Path) -> Result<Self> {
        let dir = tree.join("tools/qemu");
        let version = vm::var("QVER");
        let source = match &version {
            Some(version) => Source::of_version(cache, "qemu", version)?,
            None => Source::of("qemu")?,
        };
        // The sources of firmware for other machines.
        let source = source.without("roms");
        let series = dir.join("series");
        let series =
            fs::read_to_string(&series).context(format!("reading {}", series.display()))?;
        let patches: Vec<_> = patches(&series)
            .map(|name| patch(&dir, version.as_deref(), name))
            .collect();
        let texts = patches
            .iter()
            .map(|path| fs::read(path).context(format!("reading {}", path.display())))
            .collect::<Result<Vec<_>>>()?;
        let key = cache::key(&(source.name(), texts, OPTIONS));
        Ok(Self {
            source,
            patches,
            key,
        })
    }

    /// The name of what is built for a target, which may stand on libraries of ours.
    fn item(&self, target: &Target, sysroot: Option<&Path>) -> String {
        let key = cache::key(&(&self.key, target.options, sysroot));
        format!("qemu-{}-{key}", target.name)
    }

    /// Finds it in the cache, or builds it.
    fn build(&self, cache: &Cache, target: &Target, sysroot: Option<&Path>) -> Result<PathBuf> {
        cache.make(&self.item(target, sysroot), |dir| {
            let kept = kept(target);
            let work = Work::new(cache, target, kept.as_deref().unwrap_or(dir))?;
            work.unpack(&self.source, &self.patches)?;
            work.configure(sysroot)?;
            work.compile()?;
            let mut strip = source::command(target.strip, &work.build);
            strip.arg("-o").arg(dir.join(NAME)).arg(NAME);
            let step = format!("{}: stripping", work.what);
            progress::run(&step, &mut strip, &work.log, |_| target.strip.into())?;
            copy_firmware(dir)?;
            if kept.is_some() {
                return Ok(());
            }
            source::remove(&work.tree)?;
            source::remove(&work.build)
        })
    }
}

/// Where what is compiled for a target shall stay, if anywhere.
fn kept(target: &Target) -> Option<PathBuf> {
    env::var_os(KEPT).map(|kept| PathBuf::from(kept).join(target.name))
}

/// Source and build of one target.
struct Work<'a> {
    target: &'a Target,
    what: String,
    log: PathBuf,
    tree: PathBuf,
    build: PathBuf,
    /// Modules of Python for newer ones, if they were fetched.
    python: PathBuf,
}

impl<'a> Work<'a> {
    fn new(cache: &Cache, target: &'a Target, dir: &Path) -> Result<Self> {
        let build = dir.join("build");
        fs::create_dir_all(&build).context(format!("making {}", build.display()))?;
        Ok(Self {
            target,
            what: format!("QEMU ({})", target.name),
            log: cache.log(&format!("qemu-{}", target.name)),
            tree: dir.join("source"),
            build,
            python: cache.path(source::BESIDE).join("python"),
        })
    }

    /// Makes the source upstream's with these patches. Files of an earlier one that do not differ are as
    /// old as they were.
    fn unpack(&self, source: &Source, patches: &[PathBuf]) -> Result<()> {
        let unpacking = format!("{}: unpacking and patching", self.what);
        if !self.tree.exists() {
            source.unpack(&unpacking, &self.log, patches, &self.tree)?;
            return complete(&self.tree);
        }
        let new = self.tree.with_extension("new");
        if new.exists() {
            // Of a run that was interrupted, and may have had other patches.
            source::remove(&new)?;
        }
        source.unpack(&unpacking, &self.log, patches, &new)?;
        complete(&new)?;
        source::update(&new, &self.tree, &self.log)?;
        source::remove(&new)
    }

    fn configure(&self, sysroot: Option<&Path>) -> Result<()> {
        if self.build.join("build.ninja").exists() {
            return Ok(());
        }
        let program = self.tree.join("configure").display().to_string();
        let mut configure = source::command(&program, &self.build);
        configure.args(OPTIONS).args(self.target.options);
        if let Some(sysroot) = sysroot {
            configure
                .env("PKG_CONFIG", "pkg-config")
                .env("PKG_CONFIG_LIBDIR", cross::pkg_config(sysroot));
        }
        if self.python.exists() {
            configure.env("PYTHONPATH", &self.python);
        }
        let step = format!("{}: configuring", self.what);
        progress::run(&step, &mut configure, &self.log, |_| "about 30 s".into())
    }

    fn compile(&self) -> Result<()> {
        let mut ninja = source::command("ninja", &self.build);
        ninja.args(["-j", &source::jobs(), NAME]);
        let step = format!("{}: compiling", self.what);
        progress::run(&step, &mut ninja, &self.log, |done| {
            format!("{done} of about {}", self.target.actions.max(done))
        })
    }
}

/// Makes up for device trees of machines that are not built: Debian's archive has them in source only, and
/// newer ones are not configured without.
fn complete(tree: &Path) -> Result<()> {
    let dir = tree.join("pc-bios/dtb");
    let step = || format!("making files in {}", dir.display());
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(&dir).context(step())? {
        let path = entry.context(step())?.path();
        if path.extension().is_some_and(|extension| extension == "dts") {
            fs::write(path.with_extension("dtb"), "").context(step())?;
        }
    }
    Ok(())
}

/// Debian's, which has been compiled for the machine: the archive of the source has it in source only.
fn copy_firmware(dir: &Path) -> Result<()> {
    let firmware = Path::new("/usr/share/qemu").join(FIRMWARE);
    let copied = fs::copy(&firmware, dir.join(FIRMWARE));
    copied.context(format!("copying {}", firmware.display()))?;
    Ok(())
}

/// The names of the patches, in the order in which they are applied.
fn patches(series: &str) -> impl Iterator<Item = &str> {
    series
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The patch of this name: the one for this version, if it has to differ there.
fn patch(dir: &Path, version: Option<&str>, name: &str) -> PathBuf {
    let own = version.map(|version| dir.join(format!("patches-{version}")).join(name));
    own.filter(|path| path.exists())
        .unwrap_or_else(|| dir.join("patches").join(name))
}

/// The patched QEMU, built for this machine.
pub struct Patched {
    recipe: Recipe,
    dir: PathBuf,
}

impl Patched {
    /// Finds it in the cache, or builds it.
    pub fn get(cache: &Cache, tree: &Path) -> Result<Self> {
        let recipe = Recipe::read(cache, tree)?;
        let dir = recipe.build(cache, &L0, None)?;
        Ok(Self { recipe, dir })
    }

    /// Finds it in the cache.
    pub fn find(cache: &Cache, tree: &Path) -> Result<Option<Self>> {
        let recipe = Recipe::read(cache, tree)?;
        let found = cache.find(&recipe.item(&L0, None));
        Ok(found.map(|dir| Self { recipe, dir }))
    }

    /// As the emulator of the s390x host.
    pub fn hardware(&self, functions: Functions) -> Hardware {
        emulator(&self.dir, functions)
    }

    /// The same, built with AddressSanitizer and UndefinedBehaviorSanitizer.
    pub fn sanitized(&self, cache: &Cache, functions: Functions) -> Result<Hardware> {
        let dir = self.recipe.build(cache, &SANITIZED, None)?;
        Ok(emulator(&dir, functions))
    }

    /// As the VMM in the s390x host, for which it is built, too: the program, and the firmware that
    /// has to be beside it.
    pub fn vmm(&self, cache: &Cache) -> Result<[PathBuf; 2]> {
        let sysroot = cross::sysroot(cache, cross::FOR_QEMU)?;
        let dir = self.recipe.build(cache, &L1, Some(&sysroot))?;
        Ok([dir.join(NAME), dir.join(FIRMWARE)])
    }
}

/// The one that was built in `dir`.
fn emulator(dir: &Path, functions: Functions) -> Hardware {
    let mut hardware = Hardware {
        program: dir.join(NAME),
        ..Hardware::stock(functions)
    };
    hardware
        .args
        .extend(["-L".into(), dir.display().to_string()]);
    hardware
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_names_the_patches() {
        let series = "# SPDX\n0001-a.patch\n\n# 0002-b.patch\n 0003-c.patch \n";
        let names: Vec<_> = patches(series).collect();
        assert_eq!(names, ["0001-a.patch", "0003-c.patch"]);
    }

    #[test]
    fn a_patch_of_another_version_is_the_same_change() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../qemu");
        let series = fs::read_to_string(dir.join("series")).unwrap();
        let names: Vec<_> = patches(&series).collect();
        let mut others = 0;
        for entry in fs::read_dir(dir.join("patches-11.1")).unwrap() {
            let other = entry.unwrap();
            let name = other.file_name().into_string().unwrap();
            assert!(names.contains(&&*name), "{name}");
            assert_eq!(patch(&dir, Some("11.1"), &name), other.path());
            let message = |path: &Path| {
                let text = fs::read_to_string(path).unwrap();
                text.split_once("\n---\n").unwrap().0.to_owned()
            };
            let ours = patch(&dir, None, &name);
            assert_eq!(message(&ours), message(&other.path()), "{name}");
            others += 1;
        }
        assert!(others < names.len() / 2);
        let same = names.iter().filter(|name| {
            let path = patch(&dir, Some("11.1"), name);
            path == patch(&dir, None, name)
        });
        assert_eq!(same.count(), names.len() - others);
    }
}
