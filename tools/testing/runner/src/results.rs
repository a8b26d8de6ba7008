// SPDX-License-Identifier: GPL-2.0

//! Where the results of a run are kept.

use std::{
    fs::{self, File},
    io::{self, stdout, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache},
    error::{Context, Result},
};

/// A directory for the results of this run, which `latest` names.
pub fn dir(cache: &Cache) -> Result<PathBuf> {
    const STEP: &str = "making the results' directory";
    let date = Command::new("date")
        .arg("+%Y%m%d-%H%M%S")
        .output()
        .context(STEP)?;
    let base = cache.path("results");
    let name = String::from_utf8_lossy(&date.stdout).trim().to_string();
    let dir = base.join(&name);
    let link = base.join(cache::unique());
    fs::create_dir_all(&dir)
        .and_then(|()| symlink(&name, &link))
        .and_then(|()| fs::rename(&link, base.join("latest")))
        .context(STEP)?;
    Ok(dir)
}

/// Where to look when a rung has failed: the files that it has written.
pub fn logs(results: &Path, rung: &str) -> Result<String> {
    let step = || format!("reading {}", results.display());
    let mut logs = Vec::new();
    for entry in fs::read_dir(results).context(step())? {
        let entry = entry.context(step())?;
        let size = entry.metadata().context(step())?.len();
        if size > 0 && entry.path().file_stem() == Some(rung.as_ref()) {
            logs.push(entry.path().display().to_string());
        }
    }
    logs.sort();
    Ok(match logs.as_slice() {
        [] => "it did not get as far as to write a log".into(),
        logs => format!("its logs: {}", logs.join(" ")),
    })
}

/// Standard output, and the file that keeps it.
pub struct Both(pub File);

impl Write for Both {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write_all(data)?;
        stdout().write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn the_logs_of_a_rung_are_named() {
        let dir = env::temp_dir().join(cache::unique());
        fs::create_dir(&dir).unwrap();
        assert!(logs(&dir, "a").unwrap().contains("did not get as far"));
        for (name, text) in [("a.out", "x"), ("a.trace", ""), ("b.out", "x")] {
            fs::write(dir.join(name), text).unwrap();
        }
        assert_eq!(
            logs(&dir, "a").unwrap(),
            format!("its logs: {}/a.out", dir.display())
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
