// SPDX-License-Identifier: GPL-2.0

//! The series of patches for a kernel source, made from this tree.
//!
//! Each patch is a file in `tools/upstream`: the message of the commit, in which some lines say what
//! is taken from this tree, and a diff of the rest:
//!
//! ```text
//! subject
//!
//! why
//!
//! Take: FILE-OF-THIS-TREE FILE-OF-THE-KERNEL
//! Insert: HEADER-OF-THIS-TREE HEADER-OF-THE-KERNEL
//! ---
//! the diff
//! ```
//!
//! `Take` copies a file, with the names that it has in the kernel; `Insert` puts the declarations of
//! a header into another, at its end. The diff comes last: it may change what was taken.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Context, Error, Result},
    source,
};

/// Stands in a diff for the name and address of who makes the series.
const SENDER: &str = "@SENDER@";

/// Where this tree keeps the patches, and the cover letter among them.
pub const DIR: &str = "tools/upstream";
const COVER: &str = "cover-letter";

/// Patches that mend what was found on the way, each by itself.
const FIXES: &str = "fixes";

/// One patch, as this tree keeps it.
pub struct Patch {
    name: String,
    message: String,
    moves: Vec<Move>,
    diff: String,
}

/// What is taken from this tree.
struct Move {
    from: String,
    to: String,
    insert: bool,
}

/// All patches of a directory, in their order.
fn read(dir: &Path) -> Result<Vec<Patch>> {
    let step = || format!("reading {}", dir.display());
    let mut patches = Vec::new();
    for entry in fs::read_dir(dir).context(step())? {
        let path = entry.context(step())?.path();
        if path.extension().is_some_and(|suffix| suffix == "patch") {
            let text = fs::read_to_string(&path).context(step())?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            patches.push(
                parse(&name, &text)
                    .ok_or_else(|| Error::new(step(), format!("{name} has no line '---'"), ""))?,
            );
        }
    }
    patches.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(patches)
}

fn parse(name: &str, text: &str) -> Option<Patch> {
    let (head, diff) = text.split_once("\n---\n")?;
    let mut message = String::new();
    let mut moves = Vec::new();
    for line in head.lines() {
        match parse_move(line) {
            Some(found) => moves.push(found),
            None => {
                message.push_str(line);
                message.push('\n');
            }
        }
    }
    Some(Patch {
        name: name.into(),
        message: message.trim_end().into(),
        moves,
        diff: diff.into(),
    })
}

fn parse_move(line: &str) -> Option<Move> {
    let (what, files) = line.split_once(": ")?;
    let insert = match what {
        "Take" => false,
        "Insert" => true,
        _ => return None,
    };
    let (from, to) = files.split_once(' ')?;
    Some(Move {
        from: from.into(),
        to: to.into(),
        insert,
    })
}

impl Patch {
    /// The files of the kernel that it changes or makes.
    fn files(&self) -> impl Iterator<Item = &str> {
        let changed = self
            .diff
            .lines()
            .filter_map(|line| line.strip_prefix("--- a/"));
        changed.chain(self.moves.iter().map(|taken| taken.to.as_str()))
    }

    /// Does in `work` what the patch says, and commits it.
    fn commit(&self, tree: &Path, work: &Work) -> Result<()> {
        for taken in &self.moves {
            let from = tree.join(&taken.from);
            let to = work.dir.join(&taken.to);
            let step = || format!("{}: {} to {}", self.name, taken.from, taken.to);
            let text = in_kernel(&fs::read_to_string(&from).context(step())?, &taken.to);
            let text = if taken.insert {
                let kernels = fs::read_to_string(&to).context(step())?;
                let nothing = || Error::new(step(), "one of the headers has no #endif", "");
                insert(&text, &kernels).ok_or_else(nothing)?
            } else if taken.to.ends_with(".rs") {
                rustfmt(&work.dir, &text)?
            } else {
                text
            };
            let parent = to.parent().unwrap_or(&work.dir);
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&to, text))
                .context(step())?;
        }
        if !self.diff.is_empty() {
            let [name, address] = &work.sender;
            let diff = self.diff.replace(SENDER, &format!("{name} <{address}>"));
            let mut apply = work.git(&["apply", "--recount", "--whitespace=error-all", "-"]);
            input(&mut apply, &diff).map_err(|reason| {
                let remedy = format!("Mend its diff in {DIR}: the kernel or this tree has changed");
                Error::new(format!("{}: git apply", self.name), reason, remedy)
            })?;
        }
        work.run(&["add", "--all"])?;
        let mut commit = work.git(&["commit", "--quiet", "--no-verify", "--signoff", "-F", "-"]);
        input(&mut commit, &self.message)
            .map_err(|reason| Error::new(format!("{}: git commit", self.name), reason, ""))
            .map(drop)
    }
}

/// Names that are others in the kernel's own crate, in the order in which they are replaced.
const IN_CRATE: &[(&str, &str)] = &[
    // First the paths. The signs stand for what must not be replaced again.
    ("::kernel::", "\u{1}::"),
    ("$crate::", "\u{1}::vfio::"),
    ("crate::", "crate::vfio::"),
    ("kernel::", "crate::"),
    ("\u{1}", "$crate"),
    // Then the helpers: most have the name of what they stand for.
    (
        "&raw const bindings::vfio_helper_pci_ops",
        "bindings::vfio_pci_core_default_ops()",
    ),
    ("vfio_helper_put_device", "vfio_put_device"),
    ("vfio_helper_lockdep_", "vfio_lockdep_"),
    (
        "vfio_helper_mark_dirty_killable",
        "vfio_mark_dirty_killable",
    ),
    ("vfio_helper_device_lock_", "vfio_device_lock_"),
    ("vfio_helper_", ""),
    ("CONFIG_ZPCI_VFIO_PCI_", "CONFIG_RUST_VFIO_PCI_"),
];

/// The same for the driver.
const IN_DRIVER: &[(&str, &str)] = &[
    (
        "vfio::module_vfio_pci_driver!",
        "kernel::module_vfio_pci_driver!",
    ),
    (
        "vfio::vfio_pci_device_table!",
        "kernel::vfio_pci_device_table!",
    ),
    (" vfio::", " kernel::vfio::"),
];

/// And for documents.
const IN_DOCUMENTS: &[(&str, &str)] = &[
    ("rust/vfio/", "rust/kernel/vfio/"),
    ("CONFIG_ZPCI_VFIO_PCI_DEBUG", "CONFIG_RUST_VFIO_PCI_DEBUG"),
];

/// Everywhere.
const EVERYWHERE: &[(&str, &str)] = &[("vfio_zpci_io.h", "vfio_zdev.h")];

/// What stands between these lines, which are comments, is about this tree alone.
const OURS: &str = "(not for the kernel)\n";
const OURS_END: &str = "(for the kernel again)\n";

/// How such a comment begins, in documents and in Rust.
const COMMENTS: [&str; 2] = [".. ", "// "];

/// A text of this tree, as it is at `path` in the kernel.
fn in_kernel(text: &str, path: &str) -> String {
    let renames = match path.split('/').next() {
        Some("rust") => IN_CRATE,
        Some("drivers") => IN_DRIVER,
        Some("Documentation") => IN_DOCUMENTS,
        _ => &[],
    };
    let rename = |text: String, (ours, kernels): &(&str, &str)| text.replace(ours, kernels);
    let all = renames.iter().chain(EVERYWHERE);
    let kept = COMMENTS.iter().fold(text.into(), without_ours);
    all.fold(kept, rename)
}

fn without_ours(text: String, comment: &&str) -> String {
    let [begin, end] = [OURS, OURS_END].map(|line| format!("{comment}{line}"));
    let mut parts = text.split(&begin);
    let mut kept = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once(&end) {
            Some((_, rest)) => kept.push_str(rest.strip_prefix('\n').unwrap_or(rest)),
            None => kept.extend([&begin, part]),
        }
    }
    kept
}

/// `kernels` with the declarations of `ours`, from its first kernel-doc comment on, at its end.
fn insert(ours: &str, kernels: &str) -> Option<String> {
    let end = "\n#endif";
    let declarations = &ours[ours.find("/**\n")?..ours.rfind(end)?];
    let (before, after) = kernels.split_at(kernels.rfind(end)?);
    Some(format!("{before}\n{declarations}{after}"))
}

/// Formats a file with the kernel's configuration, which lies in `dir`.
pub fn rustfmt(dir: &Path, text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.arg("--config-path").arg(dir.join(".rustfmt.toml"));
    rustfmt.current_dir(dir);
    input(&mut rustfmt, text).map_err(|reason| Error::new("rustfmt", reason, ""))
}

/// A directory with files of the kernel, and a git repository of those that the series touches.
pub struct Work {
    pub dir: PathBuf,
    repository: PathBuf,
    /// Name and address of who makes the series.
    sender: [String; 2],
}

/// The kernel, before the series.
const BASE: &str = "base";

impl Work {
    /// Nothing of the series yet. What of the source `kernel` is in `dir` already stays, but for the
    /// files that the patches touch: they are new, so that make does not take what it has built from
    /// their last form for theirs.
    pub fn before(tree: &Path, kernel: &Path, dir: &Path) -> Result<Self> {
        let mut patches = read(&tree.join(DIR))?;
        patches.extend(read(&tree.join(DIR).join(FIXES))?);
        let work = Self {
            dir: dir.into(),
            sender: sender(tree),
            // Beside it, for a source in a repository has another version.
            repository: dir.with_extension("git"),
        };
        if work.repository.exists() {
            source::remove(&work.repository)?;
        }
        work.run(&["init", "--quiet", "--initial-branch=series"])?;
        let files: BTreeSet<_> = patches.iter().flat_map(Patch::files).collect();
        for file in files.into_iter().chain([".rustfmt.toml"]) {
            let from = kernel.join(file);
            // What is not there, a patch makes.
            if !from.exists() {
                continue;
            }
            let to = dir.join(file);
            if to.exists() {
                fs::remove_file(&to).context(format!("removing {}", to.display()))?;
            }
            let parent = to.parent().unwrap_or(dir);
            fs::create_dir_all(parent)
                .and_then(|()| fs::copy(&from, &to))
                .context(format!("copying {}", from.display()))?;
            work.run(&["add", "--force", file])?;
        }
        work.run(&["commit", "--quiet", "--no-verify", "-m", "the kernel"])?;
        work.run(&["tag", BASE])?;
        Ok(work)
    }

    /// Applies a patch as a maintainer does.
    pub fn am(&self, patch: &Path) -> Result<()> {
        self.run(&["am", "--quiet", &patch.to_string_lossy()])
            .map(drop)
    }

    /// Names the content of all files.
    pub fn content(&self) -> Result<String> {
        self.run(&["rev-parse", "HEAD^{tree}"])
    }

    /// The files that the series has changed or made.
    pub fn changed(&self) -> Result<Vec<String>> {
        let names = self.run(&["diff", "--name-only", BASE, "HEAD"])?;
        Ok(names.lines().map(String::from).collect())
    }

    fn git(&self, args: &[&str]) -> Command {
        let [name, address] = &self.sender;
        let mut git = Command::new("git");
        git.args(["-c", "commit.gpgsign=false", "-c", "core.autocrlf=false"])
            .arg("-c")
            .arg(format!("user.name={name}"))
            .arg("-c")
            .arg(format!("user.email={address}"))
            .args(args)
            .env("GIT_DIR", &self.repository)
            .env("GIT_WORK_TREE", &self.dir)
            .current_dir(&self.dir);
        git
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        input(&mut self.git(args), "")
            .map_err(|reason| Error::new(format!("git {}", args[0]), reason, ""))
    }
}

/// Who git thinks the user is, or words that show that somebody has to be named.
fn sender(tree: &Path) -> [String; 2] {
    let config = |name: &str, otherwise: &str| {
        let mut git = Command::new("git");
        git.args(["config", name]).current_dir(tree);
        let known = input(&mut git, "").map(|text| text.trim().to_string());
        known.unwrap_or_else(|_| otherwise.into())
    };
    [
        config("user.name", "Your Name"),
        config("user.email", "you@example.org"),
    ]
}

/// What was made.
pub struct Series {
    pub cover: PathBuf,
    pub patches: Vec<PathBuf>,
    pub fixes: Vec<PathBuf>,
    /// All of it, applied.
    pub work: Work,
}

/// Makes the series for the source `kernel` in `dir`.
pub fn make(tree: &Path, kernel: &Path, dir: &Path) -> Result<Series> {
    if dir.exists() {
        source::remove(dir)?;
    }
    let files = dir.join("work");
    fs::create_dir_all(&files).context(format!("making {}", files.display()))?;
    let work = Work::before(tree, kernel, &files)?;
    let ours = tree.join(DIR);
    for patch in read(&ours)? {
        patch.commit(tree, &work)?;
    }
    let cover = ours.join(COVER);
    let cover = fs::read_to_string(&cover).context(format!("reading {}", cover.display()))?;
    work.run(&["config", "branch.series.description", &cover])?;
    let format = |dir: PathBuf, args: &[&str]| -> Result<Vec<PathBuf>> {
        let dir = dir.to_string_lossy();
        let args = [&["format-patch", "--output-directory", &dir], args].concat();
        Ok(work.run(&args)?.lines().map(PathBuf::from).collect())
    };
    let letter = ["--cover-letter", "--cover-from-description=subject", BASE];
    let mut patches = format(dir.join("patches"), &letter)?;
    let cover = patches.remove(0);
    let mut fixes = Vec::new();
    for fix in read(&ours.join(FIXES))? {
        fix.commit(tree, &work)?;
        fixes.extend(format(dir.join(FIXES).join(&fix.name), &["-1"])?);
    }
    Ok(Series {
        cover,
        patches,
        fixes,
        work,
    })
}

/// Runs a program with `text` as its input; what it prints, or why it failed.
fn input(command: &mut Command, text: &str) -> std::result::Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read to the end says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache;

    /// What of the module goes into the kernel in another form, written by hand in a patch.
    const BY_HAND: &[&str] = &[
        "rust/helpers.c",
        "rust/helpers.h",
        "rust/vfio/bindings_helper.h",
        "rust/vfio/lib.rs",
        "rust/vfio/trace.c",
    ];

    /// What is not for the kernel.
    const OURS_ALONE: &str = "rust/vfio/linux_7_2.rs";

    fn sources(patch: &Patch) -> impl Iterator<Item = &str> {
        patch.moves.iter().map(|taken| taken.from.as_str())
    }

    fn tree() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
    }

    #[test]
    fn the_series_takes_every_source_once() {
        let tree = tree();
        let patches = read(&tree.join(DIR)).unwrap();
        let mut taken: Vec<_> = patches.iter().flat_map(sources).collect();
        taken.extend(BY_HAND);
        taken.push(OURS_ALONE);
        taken.sort_unstable();
        let mut twice = taken.clone();
        twice.dedup();
        assert_eq!(taken, twice);
        for dir in ["rust", "drivers", "include"] {
            for (path, meta) in cache::walk(&tree.join(dir)).unwrap() {
                let name = path.strip_prefix(&tree).unwrap().to_string_lossy();
                assert!(!meta.is_file() || taken.contains(&&*name), "{name}");
            }
        }
    }

    #[test]
    fn paths_are_those_of_the_kernel_crate() {
        let ours = "use crate::{bindings, device_lock};\nuse kernel::device;\n$crate::driver::A; \
            ::kernel::module_driver!(); bindings::vfio_helper_to_zpci(); crate::killed()";
        let kernels = "use crate::vfio::{bindings, device_lock};\nuse crate::device;\n\
            $crate::vfio::driver::A; $crate::module_driver!(); bindings::to_zpci(); \
            crate::vfio::killed()";
        assert_eq!(in_kernel(ours, "rust/kernel/vfio/x.rs"), kernels);
    }

    #[test]
    fn what_is_about_this_tree_stays_here() {
        for (comment, path) in COMMENTS.iter().zip(["Documentation/x.rst", "rust/x.rs"]) {
            let text = format!("a\n\n{comment}{OURS}\nours\n\n{comment}{OURS_END}\nb\n");
            assert_eq!(in_kernel(&text, path), "a\n\nb\n");
        }
    }

    #[test]
    fn declarations_go_to_the_end_of_a_header() {
        let ours = "#ifndef A\n#include <x>\n\n/**\n * s\n */\nstruct s;\n\n#endif /* A */\n";
        let kernels = "struct k;\n\n#endif\n";
        let both = "struct k;\n\n/**\n * s\n */\nstruct s;\n\n#endif\n";
        assert_eq!(insert(ours, kernels).unwrap(), both);
        assert!(insert("int i;\n", kernels).is_none());
    }

    #[test]
    fn a_patch_has_message_moves_and_diff() {
        let text = "subject\n\nTo: be taken\n\nTake: a b\nInsert: c d\n---\ndiff\n";
        let patch = parse("name", text).unwrap();
        assert_eq!(patch.message, "subject\n\nTo: be taken");
        assert_eq!(sources(&patch).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(patch.diff, "diff\n");
        assert!(parse("name", "subject\n").is_none());
    }
}
