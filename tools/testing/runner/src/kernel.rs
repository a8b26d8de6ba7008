// SPDX-License-Identifier: GPL-2.0

//! The s390x kernel: its source, its configuration, its build.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::UNIX_EPOCH,
};

use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    progress,
};

/// Where the toolchain root keeps the kernel's source.
const SOURCES: &str = "/usr/src";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// What users run.
    Release,
    /// Everything in the kernel that finds a defect.
    Debug,
    /// The same without KVM: functions that user space has open are recovered by the host.
    Unmediated,
}

impl Flavour {
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "release" => Ok(Self::Release),
            "debug" => Ok(Self::Debug),
            "unmediated" => Ok(Self::Unmediated),
            _ => Err(Error::new(
                "FLAVOUR",
                format!("'{name}' is not a flavour of the kernel"),
                "Use release, debug or unmediated",
            )),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
            Self::Unmediated => "unmediated",
        }
    }

    /// The configuration fragments, later ones win.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["base.config"],
            Self::Debug => &["base.config", "debug.config"],
            Self::Unmediated => &["base.config", "debug.config", "unmediated.config"],
        }
    }

    /// About how many actions make announces, for the progress line alone.
    fn actions(self) -> usize {
        match self {
            Self::Release => 1810,
            Self::Debug => 1900,
            Self::Unmediated => 1430,
        }
    }

    /// Whether the kernel looks for defects, and the module with it.
    pub fn is_debug(self) -> bool {
        self != Self::Release
    }
}

/// Packages of the toolchain whose versions make another kernel. (A new QEMU does not.)
const COMPILERS: &[&str] = &[
    "bindgen_",
    "clang-",
    "libllvm",
    "lld-",
    "rust-src_",
    "rustc_",
];

pub struct Kernel {
    pub flavour: Flavour,
    pub build: PathBuf,
    /// Names this build: what is made with the kernel depends on it.
    pub key: String,
    pub source: PathBuf,
}

impl Kernel {
    /// Finds the kernel of this flavour in the cache, or builds it.
    pub fn get(cache: &Cache, flavour: Flavour, tree: &Path) -> Result<Self> {
        let fragments: Vec<_> = flavour
            .fragments()
            .iter()
            .map(|name| tree.join("tools/testing/kernel").join(name))
            .collect();
        let wanted = options(&fragments)?;
        let packages =
            fs::read_to_string("/.packages").context("reading the toolchain's package list")?;
        let compilers: Vec<_> = packages
            .lines()
            .filter(|package| COMPILERS.iter().any(|name| package.starts_with(name)))
            .collect();

        let own_source = env::var_os("KSRC").filter(|dir| !dir.is_empty());
        let source = match &own_source {
            Some(dir) => {
                fs::canonicalize(dir).context(format!("KSRC={}", dir.to_string_lossy()))?
            }
            None => unpacked(cache)?,
        };
        let key = cache::key(&(&source, &wanted, &compilers));
        let item = format!("kernel-{}-{key}", flavour.name());
        let mut kernel = Self {
            flavour,
            build: cache.path(&item),
            key,
            source,
        };
        let _lock = cache.lock(&item)?;
        let stamp = kernel.build.join(".made");
        // The user's own source may have changed: make finds out.
        if own_source.is_some() || !cache::is_made(&stamp, &kernel.key) {
            let resumed = kernel.build.exists();
            cache::unmake(&stamp)?;
            let mut outcome = kernel.build(cache, &fragments, &wanted);
            if outcome.is_err() && resumed && own_source.is_none() {
                progress::say("the interrupted build cannot be continued: starting afresh");
                fs::remove_dir_all(&kernel.build).context("removing the interrupted build")?;
                outcome = kernel.build(cache, &fragments, &wanted);
            }
            outcome?;
            if own_source.is_none() {
                prune(&kernel.build).context("removing object files")?;
            }
            cache::made(&stamp, &kernel.key)?;
        }
        if own_source.is_some() {
            let image = fs::metadata(kernel.image()).context("reading the kernel image")?;
            kernel.key = cache::key(&(kernel.key, image.modified().ok()));
        }
        Ok(kernel)
    }

    pub fn image(&self) -> PathBuf {
        self.build.join("arch/s390/boot/bzImage")
    }

    /// `make` for this kernel, for the kernel itself and for modules.
    pub fn make(&self) -> Command {
        let mut make = Command::new("make");
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        make.arg("-C")
            .arg(&self.source)
            .arg(format!("O={}", self.build.display()))
            .args(["ARCH=s390", "LLVM=1"])
            .arg(format!("-j{jobs}"))
            // The same input gives the same kernel.
            .env("KBUILD_BUILD_TIMESTAMP", "2026-01-01")
            .env("KBUILD_BUILD_USER", "zpci")
            .env("KBUILD_BUILD_HOST", "zpci");
        make
    }

    fn build(&self, cache: &Cache, fragments: &[PathBuf], wanted: &Options) -> Result<()> {
        let what = format!("kernel ({})", self.flavour.name());
        let log = cache.log(&format!("kernel-{}", self.flavour.name()));
        fs::create_dir_all(&self.build).context(format!("making {}", self.build.display()))?;

        let configure = |step: &mut Command| {
            progress::run(&format!("{what}: configuring"), step, &log, |_| {
                "make".into()
            })
        };
        configure(self.make().arg("tinyconfig"))?;
        let config = self.build.join(".config");
        configure(
            Command::new(self.source.join("scripts/kconfig/merge_config.sh"))
                .args([OsStr::new("-m"), OsStr::new("-O"), self.build.as_os_str()])
                .arg(&config)
                .args(fragments)
                .current_dir(&self.build),
        )?;
        configure(self.make().arg("olddefconfig"))?;

        let text = fs::read_to_string(&config).context("reading the kernel's .config")?;
        let refused = refused(wanted, &parse_options(&text));
        if !refused.is_empty() {
            return Err(Error::new(
                format!("{what}: configuring"),
                format!("the kernel refused {}", refused.join(", ")),
                "Look what the option depends on, and mend the fragment in tools/testing/kernel",
            ));
        }
        progress::run(
            &format!("{what}: compiling, about 8 minutes with 2 processors"),
            self.make().args(["bzImage", "modules"]),
            &log,
            |done| format!("{done} of about {}", self.flavour.actions().max(done)),
        )
    }
}

/// The newest kernel source of the toolchain root, unpacked.
fn unpacked(cache: &Cache) -> Result<PathBuf> {
    const STEP: &str = "kernel source";
    let mut archives = Vec::new();
    for entry in fs::read_dir(SOURCES).context(STEP)? {
        let entry = entry.context(STEP)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let minor = name
            .strip_prefix("linux-source-7.")
            .and_then(|rest| rest.strip_suffix(".tar.xz"))
            .and_then(|minor| minor.parse::<u32>().ok());
        if let Some(minor) = minor {
            let meta = entry.metadata().context(STEP)?;
            let date = meta.modified().context(STEP)?.duration_since(UNIX_EPOCH);
            let date = date.unwrap_or_default().as_secs();
            archives.push((minor, entry.path(), cache::key(&(meta.len(), date))));
        }
    }
    let Some((minor, archive, key)) = archives.into_iter().max() else {
        return Err(Error::new(
            STEP,
            format!("there is no linux-source-7.*.tar.xz in the toolchain's {SOURCES}"),
            "Set KSRC to the directory of a Linux source, 7.2 or later",
        ));
    };
    let item = format!("linux-7.{minor}-{key}");
    let dir = cache.path(&item);
    let _lock = cache.lock(&item)?;
    if dir.exists() {
        return Ok(dir);
    }
    let part = cache.path(format!("{item}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).context(STEP)?;
    }
    fs::create_dir(&part).context(STEP)?;
    progress::run(
        &format!("{STEP}: unpacking Linux 7.{minor}"),
        Command::new("tar")
            .args(["--strip-components=1", "-xf"])
            .arg(&archive)
            .arg("-C")
            .arg(&part),
        &cache.log("source"),
        |_| "about 30 s".into(),
    )?;
    fs::rename(&part, &dir).context(STEP)?;
    Ok(dir)
}

/// Removes what is only needed to build the kernel again; modules can still be built.
fn prune(build: &Path) -> std::io::Result<()> {
    for (path, meta) in cache::walk(build)? {
        let removable = match path.extension().and_then(OsStr::to_str) {
            Some("o" | "a" | "cmd") => !path.starts_with(build.join("scripts")),
            _ => false,
        };
        if removable && meta.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Option name to value; `n` for "is not set".
type Options = BTreeMap<String, String>;

fn options(fragments: &[PathBuf]) -> Result<Options> {
    let mut all = Options::new();
    for path in fragments {
        let text = fs::read_to_string(path).context(format!("reading {}", path.display()))?;
        all.extend(parse_options(&text));
    }
    Ok(all)
}

fn parse_options(text: &str) -> Options {
    text.lines()
        .filter_map(|line| {
            let off = line
                .strip_prefix("# ")
                .and_then(|rest| rest.strip_suffix(" is not set"));
            match off {
                Some(name) => Some((name, "n")),
                None => line.split_once('='),
            }
        })
        .filter(|(name, _)| name.starts_with("CONFIG_"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// What was wanted and did not take effect. An option that does not exist is not set.
fn refused(wanted: &Options, found: &Options) -> Vec<String> {
    wanted
        .iter()
        .filter(|(name, value)| found.get(*name).map_or("n", String::as_str) != value.as_str())
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_option_is_named() {
        let wanted = parse_options("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\n# words\n");
        assert!(refused(&wanted, &parse_options("CONFIG_A=y\nCONFIG_C=m\n")).is_empty());
        let found = parse_options("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=y\n");
        assert_eq!(refused(&wanted, &found), ["CONFIG_B=n", "CONFIG_C=m"]);
        let found = parse_options("# CONFIG_A is not set\nCONFIG_C=m\n");
        assert_eq!(refused(&wanted, &found), ["CONFIG_A=y"]);
    }

    #[test]
    fn a_later_fragment_wins() {
        let mut all = parse_options("# CONFIG_A is not set\n");
        all.extend(parse_options("CONFIG_A=y\n"));
        assert_eq!(all["CONFIG_A"], "y");
    }
}
