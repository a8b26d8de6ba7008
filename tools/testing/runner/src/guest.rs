// SPDX-License-Identifier: GPL-2.0

//! The s390x machine's disk contents: the module, user space, and the initial RAM file system
//! that holds them.

use std::{
    borrow::Cow,
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache},
    cpio::Archive,
    cross,
    error::{Context, Error, Result},
    kernel::{Flavour, Kernel, Origin},
    module::Module,
    progress,
};

const TARGET: &str = "s390x-unknown-linux-gnu";

/// Our programs for the machine, packages of the same name: what users have,
const TOOLS: &[&str] = &["zpci-io"];

/// and what is for tests.
const TESTS: &[&str] = &[
    "region-test",
    "lifecycle-test",
    "zpci-bench",
    "ism-test",
    "guest-test",
    "client-test",
    "install-test",
];

/// A client in C, without its suffix.
const SAMPLE: &str = "samples/vfio-zpci-io/store-and-load";

/// The compiler and linker of user space for the machine.
const CC: &str = "s390x-linux-gnu-gcc";

/// A machine that is ready to be booted.
pub struct Guest {
    pub kernel: Kernel,
    /// The installed module tree, below lib/modules.
    pub modules: PathBuf,
    image: PathBuf,
    lock: String,
}

impl Guest {
    /// Finds the machine's parts in the cache, or makes them.
    pub fn get(cache: &Cache, flavour: Flavour, tree: &Path) -> Result<Self> {
        Self::on(cache, Origin::from_env(cache)?, flavour, tree)
    }

    /// The same with a kernel from this source, by this compiler.
    pub fn on(cache: &Cache, origin: Origin, flavour: Flavour, tree: &Path) -> Result<Self> {
        Self::with(cache, origin, flavour, tree, TESTS)
    }

    /// The same without programs for tests, which take their time to compile.
    pub fn for_demo(cache: &Cache, tree: &Path) -> Result<Self> {
        Self::with(cache, Origin::from_env(cache)?, Flavour::Release, tree, &[])
    }

    fn with(
        cache: &Cache,
        origin: Origin,
        flavour: Flavour,
        tree: &Path,
        tests: &[&str],
    ) -> Result<Self> {
        let (user_space, kernel) = progress::side_by_side(
            || UserSpace::get(cache, tree, tests),
            || Kernel::of(cache, origin, flavour, tree),
        )?;
        // Two trees have two modules; their objects hold the tree's path.
        let item = format!("guest-{}-{}", flavour.name(), cache::key(tree));
        let dir = cache.path(&item);
        let key = Module::new(&kernel, tree, &dir).key()?;
        Self::assemble(
            cache,
            tree,
            kernel,
            user_space,
            item,
            key,
            |kernel, stage| Module::new(kernel, tree, &dir).install(cache, stage),
        )
    }

    /// A machine whose kernel has the driver itself.
    pub fn of(cache: &Cache, kernel: Kernel, tree: &Path) -> Result<Self> {
        let user_space = UserSpace::get(cache, tree, TESTS)?;
        let item = format!("guest-upstream-{}", cache::key(tree));
        let key = kernel.key.clone();
        Self::assemble(
            cache,
            tree,
            kernel,
            user_space,
            item,
            key,
            |kernel, stage| kernel.install_modules(cache, stage),
        )
    }

    /// Puts a machine together; `install` installs its modules, which `key` names.
    fn assemble(
        cache: &Cache,
        tree: &Path,
        kernel: Kernel,
        user_space: UserSpace,
        item: String,
        key: String,
        install: impl FnOnce(&Kernel, &Path) -> Result<()>,
    ) -> Result<Self> {
        let dir = cache.path(&item);
        let _lock = cache.lock(&item)?;
        fs::create_dir_all(&dir).context(format!("making {}", dir.display()))?;

        let stage = dir.join("stage");
        let stamp = dir.join("stage.made");
        if !cache::is_made(&stamp, &key) {
            cache::unmake(&stamp)?;
            if stage.exists() {
                fs::remove_dir_all(&stage).context(format!("removing {}", stage.display()))?;
            }
            install(&kernel, &stage)?;
            cache::made(&stamp, &key)?;
        }

        let init = tree.join("tools/testing/init");
        let init = fs::read(&init).context(format!("reading {}", init.display()))?;
        let busybox = &user_space.busybox;
        let busybox = fs::read(busybox).context(format!("reading {}", busybox.display()))?;
        let programs = &user_space.programs;
        let image = dir.join(user_space.name).with_extension("cpio");
        let stamp = image.with_extension("made");
        let key = cache::key(&(key, &init, &busybox, programs));
        if !cache::is_made(&stamp, &key) {
            cache::unmake(&stamp)?;
            write_image(&image, &init, &busybox, programs, &stage)
                .context(format!("writing {}", image.display()))?;
            cache::made(&stamp, &key)?;
        }
        let release = fs::read_dir(stage.join("lib/modules"))
            .and_then(|mut entries| {
                entries
                    .next()
                    .unwrap_or(Err(io::ErrorKind::NotFound.into()))
            })
            .context("looking for the installed modules")?;
        Ok(Self {
            kernel,
            modules: release.path(),
            image,
            lock: item,
        })
    }

    /// The kernel's release, as uname says it.
    pub fn release(&self) -> Cow<'_, str> {
        self.modules
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
    }

    /// Writes the image and, after it, what is only for one run: `extra` files with their contents
    /// and `files` from this machine, all in the top directory.
    pub fn initrd(
        &self,
        cache: &Cache,
        path: &Path,
        extra: &[(&str, &[u8])],
        files: &[PathBuf],
    ) -> Result<()> {
        let _lock = cache.lock(&self.lock)?;
        let step = || format!("writing {}", path.display());
        fs::copy(&self.image, path).context(step())?;
        let file = File::options().append(true).open(path).context(step())?;
        let mut archive = Archive::new(file);
        for (name, data) in extra {
            archive.file(name, 0o755, data).context(step())?;
        }
        for path in files {
            let name = path.file_name().map(Path::new).ok_or_else(|| {
                Error::new("FILES", format!("{} has no name", path.display()), "")
            })?;
            let path = fs::canonicalize(path).context(format!("FILES: {}", path.display()))?;
            archive
                .tree(&path, name)
                .context(format!("FILES: copying {}", path.display()))?;
        }
        archive.finish().context(step())
    }
}

/// What is in a machine besides kernel and modules.
struct UserSpace {
    /// What this selection is called.
    name: &'static str,
    busybox: PathBuf,
    programs: Vec<(String, Vec<u8>)>,
}

impl UserSpace {
    fn get(cache: &Cache, tree: &Path, tests: &[&str]) -> Result<Self> {
        Ok(Self {
            name: if tests.is_empty() { "demo" } else { "image" },
            busybox: cross::busybox(cache, tree)?,
            programs: programs(cache, tree, tests)?,
        })
    }
}

/// The tool.
pub fn tool(cache: &Cache, tree: &Path) -> Result<Vec<u8>> {
    let program = programs(cache, tree, &[])?.pop();
    let (_, data) = program.ok_or_else(|| Error::new("user space", "there is no tool", ""))?;
    Ok(data)
}

/// Compiles our programs, of those for tests these, and returns them by name.
fn programs(cache: &Cache, tree: &Path, tests: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let target = env::var_os("CARGO_TARGET_DIR").ok_or_else(|| {
        let remedy = "Start the runner with 'scripts/toolchain run', or through make";
        Error::new("user space", "CARGO_TARGET_DIR is not set", remedy)
    })?;
    let target = PathBuf::from(target);
    // From building to reading, another run must not put its own programs there.
    let _lock = cache.lock(&format!("user-space-{}", cache::key(&target)))?;
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("-Zbuild-std=std,panic_abort")
        .env("RUSTC_BOOTSTRAP", "1")
        // Static, so that it needs no library there.
        .env("CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER", CC)
        .env(
            "CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-Ctarget-feature=+crt-static",
        )
        .current_dir(tree.join("tools"));
    let mut names = [TOOLS, tests].concat();
    for name in &names {
        cargo.args(["-p", name]);
    }
    let log = cache.log("user-space");
    progress::run("user space (s390x): compiling", &mut cargo, &log, |done| {
        format!("{done} actions")
    })?;
    let release = target.join(TARGET).join("release");
    if !tests.is_empty() {
        names.push(sample(cache, tree, &release)?);
    }
    names
        .into_iter()
        .map(|name| {
            let path = release.join(name);
            let data = fs::read(&path).context(format!("reading {}", path.display()))?;
            Ok((name.into(), data))
        })
        .collect()
}

/// Compiles the client in C, as its users would, and returns its name.
fn sample(cache: &Cache, tree: &Path, to: &Path) -> Result<&'static str> {
    let source = tree.join(SAMPLE).with_extension("c");
    let (_, name) = SAMPLE.rsplit_once('/').unwrap_or_default();
    let mut cc = Command::new(CC);
    cc.args([
        "-static",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-idirafter",
    ])
    .arg(tree.join("include/uapi"))
    .arg("-o")
    .args([&to.join(name), &source]);
    progress::run(
        "sample (s390x): compiling",
        &mut cc,
        &cache.log("sample"),
        |_| String::new(),
    )?;
    Ok(name)
}

fn write_image(
    path: &Path,
    init: &[u8],
    busybox: &[u8],
    programs: &[(String, Vec<u8>)],
    stage: &Path,
) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut archive = Archive::new(File::create(&part)?);
    for dir in ["bin", "dev", "lib", "proc", "root", "run", "sys", "tmp"] {
        archive.dir(dir)?;
    }
    // Init's standard input and output, before it mounts devtmpfs.
    archive.char_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, init)?;
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.link("bin/sh", "busybox")?;
    for (name, data) in programs {
        archive.file(&format!("bin/{name}"), 0o755, data)?;
    }
    archive.tree(&stage.join("lib/modules"), Path::new("lib/modules"))?;
    archive.finish()?;
    fs::rename(part, path)
}
