// SPDX-License-Identifier: GPL-2.0

//! The way to mainline: the series of patches, whether it would be taken as it is, and whether the
//! kernel that it makes works.

mod fixes;
mod series;
mod trial;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    kernel::Origin,
    ktap::Test,
    progress,
};

pub use trial::test;

/// What checkpatch says of the series for a reason: kind of message, file, and why it stays.
const LISTED: &[(&str, &str, &str)] = &[
    (
        "FILE_PATH_CHANGES",
        "",
        "MAINTAINERS is the last patch, so that its patterns have files",
    ),
    (
        "LONG_LINE_COMMENT",
        "lease",
        "bytes of a drawing are counted as columns",
    ),
    (
        "PARENTHESIS_ALIGNMENT",
        "zPCI-instructions",
        "the form of a TRACE_EVENT",
    ),
    (
        "OPEN_ENDED_LINE",
        "zPCI-instructions",
        "the form of a TRACE_EVENT",
    ),
    (
        "UNKNOWN_COMMIT_ID",
        "kernfs",
        "a source of the kernel without its history has none to look into",
    ),
    (
        "SPACING",
        "zPCI-I-O-region",
        "FIXTURE_DATA(), a type, is taken for a value",
    ),
];

/// A directory of this tree for one of the commands, and its lock.
fn dir(cache: &Cache, tree: &Path, command: &str) -> Result<(PathBuf, File)> {
    let item = format!("upstream-{command}-{}", cache::key(tree));
    let lock = cache.lock(&item)?;
    Ok((cache.path(item), lock))
}

/// `upstream-series`: makes it, and says where it is.
pub fn series(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let (dir, _lock) = dir(&cache, tree, "series")?;
    let made = series::make(tree, &Origin::from_env(&cache)?.source, &dir)?;
    for patch in [&[made.cover], &*made.patches, &*made.fixes].concat() {
        println!("{}", patch.display());
    }
    Ok(0)
}

/// The quick test: the series is made, applies to the kernel, and is in good form.
pub fn check(cache: &Cache, tree: &Path) -> Result<Vec<Test>> {
    let kernel = Origin::from_env(cache)?.source;
    let (dir, _lock) = dir(cache, tree, "check")?;
    let made = series::make(tree, &kernel, &dir)?;
    let mut tests = Vec::new();

    let files = dir.join("again");
    fs::create_dir_all(&files).context(format!("making {}", files.display()))?;
    let again = series::Work::before(tree, &kernel, &files)?;
    let mut unused: Vec<_> = LISTED.iter().collect();
    for patch in made.patches.iter().chain(&made.fixes) {
        again.am(patch)?;
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        let mut objections = Vec::new();
        for message in checkpatch(cache, &kernel, patch)? {
            let is_listed = |(kind, file, _): &(&str, &str, &str)| {
                message.contains(&format!(":{kind}:")) && name.contains(file)
            };
            unused.retain(|listed| !is_listed(listed));
            if !LISTED.iter().any(is_listed) {
                objections.push(message);
            }
        }
        tests.push(Test::check(format!("checkpatch: {name}"), objections));
    }
    let unused = unused
        .iter()
        .map(|(kind, file, _)| format!("{kind} {file}"));
    tests.push(Test::check(
        "what is listed for checkpatch is there",
        unused.collect(),
    ));
    let differs = (again.content()? != made.work.content()?).then(|| "they do not".into());
    tests.push(Test::check(
        "the patches make what they were made from",
        differs.into_iter().collect(),
    ));
    let mut unformatted = Vec::new();
    let mut undocumented = Vec::new();
    for file in again.changed()? {
        let path = files.join(&file);
        if file.ends_with(".rs") {
            let text = fs::read_to_string(&path).context(format!("reading {file}"))?;
            if series::rustfmt(&files, &text)? != text {
                unformatted.push(file);
            }
        } else if file.ends_with(".c") || file.ends_with(".h") {
            let before = kernel_doc(&kernel, &kernel.join(&file))?;
            let after = kernel_doc(&kernel, &path)?;
            undocumented.extend(
                after
                    .difference(&before)
                    .map(|what| format!("{file}: {what}")),
            );
        }
    }
    tests.push(Test::check("rustfmt", unformatted));
    tests.push(Test::check("kernel-doc", undocumented));
    Ok(tests)
}

/// What kernel-doc says of the comments in a file, if it is there, without the lines' numbers.
fn kernel_doc(kernel: &Path, file: &Path) -> Result<BTreeSet<String>> {
    const STEP: &str = "kernel-doc";
    if !file.exists() {
        return Ok(BTreeSet::new());
    }
    let mut check = Command::new("python3");
    check.arg(kernel.join("scripts/kernel-doc"));
    check.args(["-none", "-Wall"]).arg(file);
    let output = check.output().context(STEP)?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Error::new(STEP, text, ""));
    }
    let place = format!("{}:", file.display());
    let messages = text.lines().filter_map(|line| line.split_once(&place));
    let messages = messages.map(|(_, rest)| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    Ok(messages.map(|message| message.trim().into()).collect())
}

/// What checkpatch says of a patch, strictly.
fn checkpatch(cache: &Cache, kernel: &Path, patch: &Path) -> Result<Vec<String>> {
    let log = cache.log("checkpatch");
    let mut perl = Command::new("perl");
    perl.arg(kernel.join("scripts/checkpatch.pl"))
        .arg(format!("--root={}", kernel.display()))
        .args(["--strict", "--show-types", "--terse", "--no-summary"])
        .arg(patch)
        // Not in a repository, where it would check licences by Python modules that are not there.
        .current_dir(cache.dir());
    // Its code says that there are messages, which is no error.
    let name = patch.file_name().unwrap_or_default().to_string_lossy();
    progress::try_run("checkpatch", &mut perl, &log, |_| name.to_string())?;
    let text = fs::read_to_string(&log).context(format!("reading {}", log.display()))?;
    let from = format!("{}:", patch.display());
    Ok(text
        .lines()
        .map(|line| line.strip_prefix(&from).unwrap_or(line).into())
        .collect())
}
