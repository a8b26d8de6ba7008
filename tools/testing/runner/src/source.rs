// SPDX-License-Identifier: GPL-2.0

//! Upstream's sources, which the toolchain root keeps as archives.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use crate::{
    cache::Cache,
    error::{Context, Error, Result},
    progress,
};

/// Where the toolchain root keeps them.
pub const DIR: &str = "/usr/src";

/// Where others are, below the cache.
pub const BESIDE: &str = "sources";

/// An archive.
pub struct Source {
    archive: PathBuf,
    unwanted: Option<&'static str>,
}

impl Source {
    pub fn at(archive: PathBuf) -> Self {
        Self {
            archive,
            unwanted: None,
        }
    }

    /// The one of a Debian source package.
    pub fn of(package: &str) -> Result<Self> {
        let found = Self::find(Path::new(DIR), |name| belongs(name, package))?;
        found.ok_or_else(|| {
            Error::new(
                format!("looking for the source of {package}"),
                format!("there is no {package}_*.orig.tar.* in the toolchain's {DIR}"),
                "It comes with the toolchain root: see scripts/versions",
            )
        })
    }

    /// The same of this version, in the toolchain root or beside it.
    pub fn of_version(cache: &Cache, package: &str, version: &str) -> Result<Self> {
        let start = format!("{package}_{version}.");
        for dir in [PathBuf::from(DIR), cache.path(BESIDE)] {
            let named = |name: &str| belongs(name, package) && name.starts_with(&start);
            if let Some(source) = Self::find(&dir, named)? {
                return Ok(source);
            }
        }
        Err(Error::new(
            format!("looking for the source of {package} {version}"),
            "it is neither in the toolchain root nor beside it",
            format!("Fetch it: scripts/toolchain {package} {version}"),
        ))
    }

    /// The first archive in `dir` whose name is wanted.
    fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<Self>> {
        let step = || format!("looking for sources in {}", dir.display());
        if !dir.exists() {
            return Ok(None);
        }
        for entry in fs::read_dir(dir).context(step())? {
            let source = Self::at(entry.context(step())?.path());
            if wanted(&source.name()) {
                return Ok(Some(source));
            }
        }
        Ok(None)
    }

    /// The same without a directory that is large and not needed.
    pub fn without(self, unwanted: &'static str) -> Self {
        Self {
            unwanted: Some(unwanted),
            ..self
        }
    }

    /// The name, which tells the version.
    pub fn name(&self) -> String {
        let name = self.archive.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Unpacks it and applies `patches`. `dir` appears when all of that is done.
    pub fn unpack(&self, what: &str, log: &Path, patches: &[PathBuf], dir: &Path) -> Result<()> {
        if dir.exists() {
            return Ok(());
        }
        let mut part = dir.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        if part.exists() {
            fs::remove_dir_all(&part).context(what)?;
        }
        fs::create_dir(&part).context(what)?;
        let mut tar = Command::new("tar");
        // Not even as root we are sure to be allowed what is the default of root: in a user namespace
        // there may be no other user.
        tar.args(["--strip-components=1", "--no-same-owner"])
            .args(self.unwanted.map(|name| format!("--exclude=*/{name}")))
            .arg("-xf")
            .arg(&self.archive)
            .arg("-C")
            .arg(&part);
        progress::run(what, &mut tar, log, |_| "up to 30 s".into())?;
        for patch in patches {
            self.apply(patch, what, log, &part)?;
        }
        fs::rename(&part, dir).context(what)
    }

    /// A patch fits as it is, or not at all.
    pub fn apply(&self, patch: &Path, what: &str, log: &Path, dir: &Path) -> Result<()> {
        let mut command = Command::new("patch");
        command
            .args(["-p1", "--forward", "--batch", "--fuzz=0"])
            .args(["--no-backup-if-mismatch", "-i"])
            .arg(patch)
            .current_dir(dir);
        if progress::try_run(what, &mut command, log, |_| "patch".into())?.success() {
            return Ok(());
        }
        progress::tail(log, 20);
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        Err(Error::new(
            what,
            format!("{name} does not fit {}", self.name()),
            "The lines above say where. The README beside the patches says how to move them",
        ))
    }
}

/// A program that builds something from upstream's source, in `dir`. Nothing of the user's
/// environment, nor of the make that started us, changes what comes of it.
pub fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(dir);
    for name in ["HOME", "LC_ALL", "PATH"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// How many processes may compile at once.
pub fn jobs() -> String {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string()
}

/// Makes a directory the same as others. Files that do not differ are as old as they were.
pub fn rsync() -> Command {
    let mut rsync = Command::new("rsync");
    rsync.args([
        "--recursive",
        "--links",
        "--perms",
        "--checksum",
        "--delete",
    ]);
    rsync
}

/// Makes the source in `old` the one in `new`.
pub fn update(new: &Path, old: &Path, log: &Path) -> Result<()> {
    let mut rsync = rsync();
    rsync.arg(new.join("")).arg(old.join(""));
    progress::run("rsync", &mut rsync, log, |_| "comparing".into())
}

/// Removes what is not needed any more when all is built.
pub fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).context(format!("removing {}", dir.display()))
}

/// Whether a file is the archive of a package. What Debian makes of upstream's version, it writes
/// into the name: zlib_1.3.dfsg+really1.3.1.orig.tar.gz.
fn belongs(file: &str, package: &str) -> bool {
    file.strip_prefix(package)
        .is_some_and(|rest| rest.starts_with('_') && rest.contains(".orig.tar."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::cache;

    #[test]
    fn an_archive_belongs_to_one_package() {
        let zlib = "zlib_1.3.dfsg+really1.3.1.orig.tar.gz";
        assert!(belongs(zlib, "zlib"));
        assert!(!belongs(zlib, "zli"));
        assert!(belongs("glib2.0_2.84.4.orig.tar.xz", "glib2.0"));
        assert!(!belongs("glib2.0_2.84.4.orig.tar.xz", "glib"));
        assert!(!belongs("zlib_1.3.1-1.debian.tar.xz", "zlib"));
    }

    /// An archive with the file `f`, and a patch that changes its line 4 and has `context` before it.
    fn archive_and_patch(dir: &Path, context: &str) -> (Source, PathBuf) {
        let top = dir.join("top-1.0");
        fs::create_dir_all(&top).unwrap();
        fs::write(top.join("f"), "1\n2\n3\n4\n5\n6\n7\n").unwrap();
        let archive = dir.join("f_1.0.orig.tar.gz");
        let mut tar = Command::new("tar");
        // Of somebody who may not even be there.
        tar.args(["--owner=:4711", "--group=:4711", "-czf"])
            .arg(&archive)
            .arg("top-1.0");
        assert!(tar.current_dir(dir).status().unwrap().success());
        let patch = dir.join("0001-f.patch");
        let text = format!(
            "--- a/f\n+++ b/f\n@@ -1,7 +1,7 @@\n {context}\n 2\n 3\n-4\n+four\n 5\n 6\n 7\n"
        );
        fs::write(&patch, text).unwrap();
        (Source::at(archive), patch)
    }

    fn unpacked(context: &str) -> Result<String> {
        let dir = env::temp_dir().join(cache::unique());
        let (source, patch) = archive_and_patch(&dir, context);
        let tree = dir.join("tree");
        let outcome = source.unpack("test", &dir.join("log"), &[patch], &tree);
        let text = fs::read_to_string(tree.join("f"));
        if let Ok(meta) = fs::metadata(tree.join("f")) {
            assert_eq!(meta.uid(), fs::metadata(&dir).unwrap().uid());
        }
        fs::remove_dir_all(&dir).unwrap();
        outcome.map(|()| text.unwrap())
    }

    #[test]
    fn a_patch_fits_as_it_is_or_not_at_all() {
        assert_eq!(unpacked("1").unwrap(), "1\n2\n3\nfour\n5\n6\n7\n");
        let error = unpacked("one").unwrap_err().to_string();
        assert!(error.contains("0001-f.patch does not fit f_1.0.orig.tar.gz"));
    }
}
