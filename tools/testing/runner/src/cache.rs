// SPDX-License-Identifier: GPL-2.0

//! The cache directory: what is expensive to make is made once and named by what it is made from.
//!
//! Whoever makes or reads an item holds its lock. An item that is not made in one step (by
//! renaming) has a stamp, written last, that says from what it was made.

use std::{
    env,
    fs::{self, File, TryLockError},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{Context, Error, Result},
    progress,
};

pub struct Cache(PathBuf);

impl Cache {
    pub fn open() -> Result<Self> {
        let Some(dir) = env::var_os("ZPCI_CACHE") else {
            return Err(Error::new(
                "cache",
                "ZPCI_CACHE is not set",
                "Start the runner with 'scripts/toolchain run', or through make",
            ));
        };
        let cache = Self(dir.into());
        for dir in ["locks", "logs", "runs"] {
            let dir = cache.path(dir);
            fs::create_dir_all(&dir).context(format!("making {}", dir.display()))?;
        }
        Ok(cache)
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(format!("{name}.log"))
    }

    /// Waits for the item's lock; it is released when the file is dropped, or with the process.
    pub fn lock(&self, item: &str) -> Result<File> {
        let step = || format!("locking {item}");
        let file = File::create(self.path("locks").join(item)).context(step())?;
        // Who waits for a moment only does so without a word.
        for _ in 0..20 {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(50)),
                Err(TryLockError::Error(error)) => return Err(error).context(step()),
            }
        }
        progress::say(&format!("{item}: waiting for another run that makes it"));
        file.lock().context(step())?;
        Ok(file)
    }

    /// The directory `name`, if all of it is made. The name says from what.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let dir = self.path(name);
        is_made(&dir.join(STAMP), name).then_some(dir)
    }

    /// Finds the directory `name`, or makes it. What a killed run has left there, `make` goes on
    /// with; if it cannot, it begins afresh.
    pub fn make(&self, name: &str, make: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
        let dir = self.path(name);
        let _lock = self.lock(name)?;
        if self.find(name).is_some() {
            return Ok(dir);
        }
        let step = || format!("making {}", dir.display());
        let resumed = dir.exists();
        fs::create_dir_all(&dir).context(step())?;
        let mut outcome = make(&dir);
        if outcome.is_err() && resumed {
            progress::say("the interrupted build cannot be continued: starting afresh");
            fs::remove_dir_all(&dir)
                .and_then(|()| fs::create_dir(&dir))
                .context(step())?;
            outcome = make(&dir);
        }
        outcome?;
        made(&dir.join(STAMP), name)?;
        Ok(dir)
    }
}

/// The stamp of what [`Cache::make`] has made.
const STAMP: &str = ".made";

/// A directory for one run. It goes away with the run; when the run was killed, the next one that
/// makes such a directory sees by its lock that nobody uses it.
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    pub fn new(cache: &Cache) -> Result<Self> {
        let _runs = cache.lock("runs")?;
        let step = "making a temporary directory";
        let lock_in = |dir: &Path| File::create(dir.join("lock"));
        for entry in fs::read_dir(cache.path("runs")).context(step)? {
            let stale = entry.context(step)?.path();
            if lock_in(&stale).is_ok_and(|lock| lock.try_lock().is_ok()) {
                fs::remove_dir_all(&stale).context(step)?;
            }
        }
        // Process ids are no help: every run is process 1 of its namespace.
        let path = cache.path("runs").join(unique());
        fs::create_dir(&path).context(step)?;
        let lock = lock_in(&path).context(step)?;
        lock.lock().context(step)?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A name that no other run uses.
pub fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("{:x}", now.unwrap_or_default().as_nanos())
}

/// The name of what is made from `parts`. Another version of the standard library may hash
/// differently; that costs a build, never a wrong one.
pub fn key<T: Hash + ?Sized>(parts: &T) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The key of all files below `paths`: their names, modes and contents.
pub fn files_key(paths: &[PathBuf]) -> Result<String> {
    let mut files = Vec::new();
    for path in paths {
        let below = walk(path).context(format!("reading {}", path.display()))?;
        for (name, meta) in below {
            if meta.is_file() {
                let data = fs::read(&name).context(format!("reading {}", name.display()))?;
                files.push((name, data));
            }
        }
    }
    Ok(key(&files))
}

/// `path` and everything below it, parents first, in a fixed order.
pub fn walk(path: &Path) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let meta = fs::symlink_metadata(path)?;
    let is_dir = meta.is_dir();
    let mut found = vec![(path.to_path_buf(), meta)];
    if is_dir {
        let mut names = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            found.extend(walk(&name)?);
        }
    }
    Ok(found)
}

/// Whether the item beside `stamp` was completely made from what `key` names.
pub fn is_made(stamp: &Path, key: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|found| found == key)
}

/// From here on the item is not complete.
pub fn unmake(stamp: &Path) -> Result<()> {
    match fs::remove_file(stamp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(format!("removing {}", stamp.display()))
        }
        _ => Ok(()),
    }
}

/// The item is complete.
pub fn made(stamp: &Path, key: &str) -> Result<()> {
    let part = stamp.with_extension("part");
    fs::write(&part, key)
        .and_then(|()| fs::rename(&part, stamp))
        .context(format!("writing {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_in_part_is_continued_or_begun_afresh() {
        let cache = Cache(env::temp_dir().join(unique()));
        fs::create_dir_all(cache.path("locks")).unwrap();
        let fail = || Error::new("test", "it fails", "");

        // A build that stops half-way.
        let half = |dir: &Path| fs::write(dir.join("half"), "").context("test");
        let outcome = cache.make("item", |dir| half(dir).and(Err(fail())));
        assert!(outcome.is_err() && cache.find("item").is_none());

        // One that cannot go on from there.
        let afresh = |dir: &Path| match dir.join("half").exists() {
            true => Err(fail()),
            false => half(dir),
        };
        let dir = cache.make("item", afresh).unwrap();
        assert!(dir.join("half").exists() && cache.find("item") == Some(dir));

        // What is made is not made again.
        assert!(cache.make("item", |_| Err(fail())).is_ok());
        fs::remove_dir_all(cache.dir()).unwrap();
    }
}
