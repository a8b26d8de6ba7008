// SPDX-License-Identifier: GPL-2.0

//! The s390x kernel: its source, its configuration, its build.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use crate::{
    cache::{self, Cache},
    cross,
    error::{Context, Error, Result},
    kconfig::{self, Options},
    progress,
    source::{self, Source},
    vm,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// What users run.
    Release,
    /// Everything in the kernel that finds a defect.
    Debug,
    /// The same, but functions that user space has open are recovered by the host: one of its
    /// modules, `vfio-pci-core`, is built without `CONFIG_VFIO_PCI_ZDEV_KVM`.
    Unmediated,
    /// What users run, with the unit tests: all that the rungs need, and every compiler can build it.
    Units,
    /// Debug with the race detector and other expensive ones, but without KASAN, which excludes it.
    Race,
}

impl Flavour {
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "release" => Ok(Self::Release),
            "debug" => Ok(Self::Debug),
            "unmediated" => Ok(Self::Unmediated),
            "units" => Ok(Self::Units),
            "race" => Ok(Self::Race),
            _ => Err(Error::new(
                "FLAVOUR",
                format!("'{name}' is not a flavour of the kernel"),
                "Use release, debug, unmediated, units or race",
            )),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
            Self::Unmediated => "unmediated",
            Self::Units => "units",
            Self::Race => "race",
        }
    }

    /// The configuration fragments, later ones win.
    pub fn fragments(self, tree: &Path) -> Vec<PathBuf> {
        let names: &[_] = match self {
            Self::Release => &["base.config"],
            Self::Debug | Self::Unmediated => &["base.config", "debug.config"],
            Self::Units => &["base.config", "units.config"],
            Self::Race => &["base.config", "debug.config", "race.config"],
        };
        let dir = tree.join("tools/testing/kernel");
        names.iter().map(|name| dir.join(name)).collect()
    }

    /// What it is booted with: pages that are freed get a pattern.
    pub fn boot_options(self) -> &'static str {
        match self {
            Self::Race => "page_poison=1",
            _ => "",
        }
    }

    /// What it is compiled with: the race detector is for the module, which it would hardly look at if it
    /// had all of the kernel to look at. Whoever else writes to what the module reads is seen by that.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Race => &["KCSAN_SANITIZE=n"],
            _ => &[],
        }
    }

    /// Options of rustc for the module. It does not know the race detector on s390; LLVM does. These are
    /// the kernel's for C.
    pub fn rust_options(self) -> &'static str {
        match self {
            Self::Race => {
                "-Cpasses=tsan -Cllvm-args=-force-attribute=sanitize_thread \
                 -Cllvm-args=-tsan-instrument-func-entry-exit=0 \
                 -Cllvm-args=-tsan-compound-read-before-write=1 \
                 -Cllvm-args=-tsan-distinguish-volatile=1"
            }
            _ => "",
        }
    }

    /// About how many actions make announces, for the progress line alone.
    fn actions(self) -> usize {
        match self {
            Self::Release | Self::Units => 1810,
            Self::Debug | Self::Unmediated => 1900,
            Self::Race => 2040,
        }
    }

    /// The name of its kernel.
    fn kernel(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug | Self::Unmediated => "debug",
            Self::Units => "units",
            Self::Race => "race",
        }
    }

    /// Whether the kernel looks for defects.
    pub fn is_debug(self) -> bool {
        matches!(self, Self::Debug | Self::Unmediated | Self::Race)
    }
}

/// What compiles the kernel's C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    Clang,
    Gcc,
}

impl Compiler {
    pub const ALL: [Self; 2] = [Self::Clang, Self::Gcc];

    pub fn name(self) -> &'static str {
        match self {
            Self::Clang => "clang",
            Self::Gcc => "gcc",
        }
    }

    /// What KCC names.
    pub fn parse(name: &str) -> Result<Self> {
        let known = Self::ALL
            .into_iter()
            .find(|compiler| compiler.name() == name);
        known.ok_or_else(|| {
            Error::new(
                "KCC",
                format!("'{name}' compiles no kernel here"),
                "Use clang or gcc",
            )
        })
    }

    /// How make is told of it.
    pub fn argument(self) -> String {
        match self {
            Self::Clang => "LLVM=1".into(),
            Self::Gcc => format!("CROSS_COMPILE={}", cross::PREFIX),
        }
    }

    /// The packages of the toolchain whose versions make another kernel. (A new QEMU does not.)
    pub fn packages(self) -> Result<Vec<String>> {
        // Bindings are made by clang's library, always.
        let names: &[_] = match self {
            Self::Clang => &[
                "bindgen_",
                "clang-",
                "libllvm",
                "lld-",
                "rust-src_",
                "rustc_",
            ],
            Self::Gcc => &[
                "bindgen_",
                "binutils-s390x-",
                "gcc-14-s390x-linux-gnu_",
                "libclang1-",
                "libllvm",
                "rust-src_",
                "rustc_",
            ],
        };
        let packages =
            fs::read_to_string("/.packages").context("reading the toolchain's package list")?;
        let packages = packages
            .lines()
            .filter(|package| names.iter().any(|name| package.starts_with(name)));
        Ok(packages.map(String::from).collect())
    }
}

/// What kernels are made from, whatever their flavour.
pub struct Origin {
    pub source: PathBuf,
    pub compiler: Compiler,
    /// Whether it is the user's own source, which may change: make finds out.
    own: bool,
}

impl Origin {
    /// What KSRC or KVER, and KCC say; else the newest source of the toolchain root, and clang.
    pub fn from_env(cache: &Cache) -> Result<Self> {
        let compiler = vm::var("KCC").map_or(Ok(Compiler::Clang), |name| Compiler::parse(&name))?;
        match env::var_os("KSRC").filter(|dir| !dir.is_empty()) {
            Some(dir) => Ok(Self {
                source: fs::canonicalize(&dir)
                    .context(format!("KSRC={}", dir.to_string_lossy()))?,
                compiler,
                own: true,
            }),
            None => Self::of(cache, vm::var("KVER").as_deref(), compiler),
        }
    }

    /// The source of this version, or the newest one.
    pub fn of(cache: &Cache, version: Option<&str>, compiler: Compiler) -> Result<Self> {
        Ok(Self {
            source: unpacked(cache, version)?,
            compiler,
            own: false,
        })
    }
}

/// What make makes of a kernel.
pub const ALL: &[&str] = &["bzImage", "modules"];

pub struct Kernel {
    pub flavour: Flavour,
    pub build: PathBuf,
    /// Names this build: what is made with the kernel depends on it.
    pub key: String,
    pub source: PathBuf,
    pub compiler: Compiler,
}

impl Kernel {
    /// Finds the kernel of this flavour in the cache, or builds it.
    pub fn get(cache: &Cache, flavour: Flavour, tree: &Path) -> Result<Self> {
        Self::of(cache, Origin::from_env(cache)?, flavour, tree)
    }

    /// The same from this source, by this compiler.
    pub fn of(cache: &Cache, origin: Origin, flavour: Flavour, tree: &Path) -> Result<Self> {
        let fragments = flavour.fragments(tree);
        let wanted = kconfig::read(&fragments)?;
        let Origin {
            source,
            compiler,
            own,
        } = origin;
        let key = cache::key(&(&source, &wanted, &compiler.packages()?));
        let item = format!("kernel-{}-{key}", flavour.kernel());
        let mut kernel = Self {
            flavour,
            build: cache.path(&item),
            key,
            source,
            compiler,
        };
        let _lock = cache.lock(&item)?;
        let stamp = kernel.build.join(".made");
        if own || !cache::is_made(&stamp, &kernel.key) {
            let resumed = kernel.build.exists();
            cache::unmake(&stamp)?;
            let mut outcome = kernel.build(cache, &fragments, &wanted);
            if outcome.is_err() && resumed && !own {
                progress::say("the interrupted build cannot be continued: starting afresh");
                fs::remove_dir_all(&kernel.build).context("removing the interrupted build")?;
                outcome = kernel.build(cache, &fragments, &wanted);
            }
            outcome?;
            if !own {
                prune(&kernel.build).context("removing object files")?;
            }
            cache::made(&stamp, &kernel.key)?;
        }
        if own {
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
        make.arg("-C")
            .arg(&self.source)
            .arg(format!("O={}", self.build.display()))
            .args(["ARCH=s390", &self.compiler.argument()])
            .arg(format!("-j{}", source::jobs()))
            // The same input gives the same kernel.
            .env("KBUILD_BUILD_TIMESTAMP", "2026-01-01")
            .env("KBUILD_BUILD_USER", "zpci")
            .env("KBUILD_BUILD_HOST", "zpci");
        make
    }

    fn build(&self, cache: &Cache, fragments: &[PathBuf], wanted: &Options) -> Result<()> {
        self.configure(cache, fragments)?;
        let what = format!("kernel ({})", self.flavour.kernel());
        let config = self.build.join(".config");
        let refused = kconfig::refused(wanted, &kconfig::read(&[config])?);
        if !refused.is_empty() {
            return Err(Error::new(
                format!("{what}: configuring"),
                format!("the kernel refused {}", refused.join(", ")),
                "Look what the option depends on, and mend the fragment in tools/testing/kernel",
            ));
        }
        let what = format!("{what}: compiling, about 8 minutes with 2 processors");
        self.compile(cache, &what, ALL).map(drop)
    }

    fn log(&self, cache: &Cache) -> PathBuf {
        cache.log(&format!("kernel-{}", self.flavour.kernel()))
    }

    /// Configures it by `fragments`. An option that the kernel does not have is not set.
    pub fn configure(&self, cache: &Cache, fragments: &[PathBuf]) -> Result<()> {
        let what = format!("kernel ({})", self.flavour.kernel());
        let log = self.log(cache);
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
        configure(self.make().arg("olddefconfig"))
    }

    /// Makes these goals, and returns where the compilers' output is.
    pub fn compile(&self, cache: &Cache, what: &str, goals: &[&str]) -> Result<PathBuf> {
        let log = self.log(cache);
        let mut make = self.make();
        make.args(self.flavour.arguments()).args(goals);
        progress::run(what, &mut make, &log, |done| {
            format!("{done} of about {}", self.flavour.actions().max(done))
        })?;
        Ok(log)
    }

    /// Installs its modules below `stage`.
    pub fn install_modules(&self, cache: &Cache, stage: &Path) -> Result<()> {
        let path = format!("INSTALL_MOD_PATH={}", stage.display());
        let what = format!("kernel ({}): installing its modules", self.flavour.kernel());
        let detail = |done| format!("{done} actions");
        let mut make = self.make();
        make.args([&path, "modules_install"]);
        progress::run(&what, &mut make, &cache.log("modules"), detail)
    }
}

/// The kernel source of this version, or the newest of the toolchain root, unpacked.
fn unpacked(cache: &Cache, version: Option<&str>) -> Result<PathBuf> {
    const STEP: &str = "kernel source";
    let (version, archive) = archive(cache, version)?;
    let meta = fs::metadata(&archive).context(STEP)?;
    let date = meta.modified().context(STEP)?.duration_since(UNIX_EPOCH);
    let date = date.unwrap_or_default().as_secs();
    let item = format!("linux-{version}-{}", cache::key(&(meta.len(), date)));
    let dir = cache.path(&item);
    let _lock = cache.lock(&item)?;
    let what = format!("{STEP}: unpacking Linux {version}");
    Source::at(archive).unpack(&what, &cache.log("source"), &[], &dir)?;
    Ok(dir)
}

/// The version of a kernel source, and its archive: of the toolchain root, or from beside it.
fn archive(cache: &Cache, version: Option<&str>) -> Result<(String, PathBuf)> {
    if let Some(version) = version {
        let none = || {
            let reason = "its source is not there";
            let remedy = format!("Fetch it:  scripts/toolchain kernel {version}");
            Error::new(format!("Linux {version}"), reason, remedy)
        };
        return Ok((version.into(), find(cache, version).ok_or_else(none)?));
    }
    let step = || {
        format!(
            "looking for a kernel source in the toolchain's {}",
            source::DIR
        )
    };
    let mut archives = Vec::new();
    for entry in fs::read_dir(source::DIR).context(step())? {
        let entry = entry.context(step())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let version = name
            .strip_prefix("linux-source-")
            .and_then(|rest| rest.strip_suffix(".tar.xz"));
        let minor = version
            .and_then(|version| version.strip_prefix("7."))
            .and_then(|minor| minor.parse::<u32>().ok());
        if let (Some(version), Some(minor)) = (version, minor) {
            archives.push((minor, version.to_string(), entry.path()));
        }
    }
    let newest = archives.into_iter().max();
    let (_, version, archive) = newest.ok_or_else(|| {
        Error::new(
            step(),
            "there is no linux-source-7.*.tar.xz",
            "Set KSRC to the directory of a Linux source, 7.2 or later",
        )
    })?;
    Ok((version, archive))
}

/// The source of this version, in the toolchain root or beside it.
fn find(cache: &Cache, version: &str) -> Option<PathBuf> {
    let name = format!("linux-source-{version}.tar.xz");
    [PathBuf::from(source::DIR), cache.path(source::BESIDE)]
        .iter()
        .map(|place| place.join(&name))
        .find(|path| path.exists())
}

/// Whether there is a source of this version.
pub fn has(cache: &Cache, version: &str) -> bool {
    find(cache, version).is_some()
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
