// SPDX-License-Identifier: GPL-2.0

//! The module: built for one of our kernels, installed beside the kernel's own, and checked.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    kernel::{Flavour, Kernel},
    progress,
};

/// What the module is made from.
const SOURCES: &[&str] = &["Kbuild", "rust", "drivers", "include"];

/// What changes the option of one of the kernel's own modules, see [`Flavour::Unmediated`].
const UNMEDIATED: &str = "tools/testing/kernel/unmediated.h";

pub struct Module<'a> {
    kernel: &'a Kernel,
    tree: &'a Path,
    build: PathBuf,
}

impl<'a> Module<'a> {
    /// The module of this tree, built below `dir`.
    pub fn new(kernel: &'a Kernel, tree: &'a Path, dir: &Path) -> Self {
        Self {
            kernel,
            tree,
            // Objects of one kernel are nothing for another one.
            build: dir.join(format!("module-{}", kernel.key)),
        }
    }

    /// Names what the module is made from.
    pub fn key(&self) -> Result<String> {
        let mut sources: Vec<_> = SOURCES.iter().map(|name| self.tree.join(name)).collect();
        sources.push(self.tree.join(UNMEDIATED));
        let options = self.kernel.flavour.rust_options();
        Ok(cache::key(&(
            &self.kernel.key,
            options,
            cache::files_key(&sources)?,
        )))
    }

    /// Builds the module and installs it, with the kernel's own, below `stage`.
    pub fn install(&self, cache: &Cache, stage: &Path) -> Result<()> {
        let path = format!("INSTALL_MOD_PATH={}", stage.display());
        self.run(cache, "compiling", self.make().arg("modules"))?;
        self.kernel.install_modules(cache, stage)?;
        if self.kernel.flavour == Flavour::Unmediated {
            self.install_unmediated(cache, &path)?;
        }
        self.run(
            cache,
            "installing",
            self.make().args([&path, "modules_install"]),
        )
    }

    /// Installs the kernel's VFIO modules once more, where they come first, built so that they let no
    /// VMM recover functions.
    fn install_unmediated(&self, cache: &Cache, path: &str) -> Result<()> {
        let make = || {
            let mut make = self.kernel.make();
            make.arg(format!(
                "M={}",
                self.kernel.source.join("drivers/vfio/pci").display()
            ))
            .arg(format!("MO={}-unmediated", self.build.display()))
            .arg("CONFIG_VFIO_PCI_ZDEV_KVM=")
            .arg(format!(
                "KCPPFLAGS=-include {}",
                self.tree.join(UNMEDIATED).display()
            ));
            make
        };
        self.run(cache, "compiling the kernel's", make().arg("modules"))?;
        let goal = [path, "modules_install"];
        self.run(cache, "installing the kernel's", make().args(goal))
    }

    /// Clippy's opinion, with the lints of the kernel.
    pub fn clippy(&self, cache: &Cache) -> Result<String> {
        // What is up to date is not looked at again.
        if self.build.exists() {
            fs::remove_dir_all(&self.build).context("removing the last objects")?;
        }
        self.run(cache, "clippy", self.make().args(["CLIPPY=1", "modules"]))?;
        let log = self.log(cache);
        let text = fs::read_to_string(&log).context(format!("reading {}", log.display()))?;
        let warnings = warnings(&text);
        if warnings.is_empty() {
            let flavour = self.kernel.flavour.name();
            return Ok(format!("module ({flavour}): no warnings"));
        }
        eprintln!("{}", warnings.join("\n\n"));
        Err(Error::new(
            "clippy",
            format!(
                "{} warnings in the module ({})",
                warnings.len(),
                self.kernel.flavour.name()
            ),
            "",
        ))
    }

    /// Documentation of the module's crates, in Documentation/output of the tree.
    pub fn rustdoc(&self, cache: &Cache) -> Result<String> {
        let goal = ["ZPCI_RUSTDOC=y", "modules"];
        self.run(cache, "rustdoc", self.make().args(goal))?;
        let mut copy = Command::new("cp");
        copy.arg("-rT")
            .arg(self.build.join("Documentation/output"))
            .arg(self.tree.join("Documentation/output"));
        self.run(cache, "copying the documentation", &mut copy)?;
        let page = self
            .tree
            .join("Documentation/output/zpci_vfio_pci/index.html");
        Ok(page.display().to_string())
    }

    /// rust-project.json at the top of the tree, for the editor.
    pub fn rust_analyzer(&self, cache: &Cache) -> Result<String> {
        // First the generated bindings.
        self.run(cache, "compiling", self.make().arg("modules"))?;
        self.run(cache, "rust-analyzer", self.make().arg("rust-analyzer"))?;
        let project = self.tree.join("rust-project.json");
        let step = || format!("writing {}", project.display());
        let kernels = File::open(self.build.join("rust-project.json")).context(step())?;
        let output = Command::new("python3")
            .arg(self.tree.join("tools/testing/runner/rust-project.py"))
            .args([self.tree, &self.build])
            .stdin(kernels)
            .stderr(Stdio::inherit())
            .output()
            .context(step())?;
        if !output.status.success() {
            return Err(Error::new(step(), "rust-project.py failed", ""));
        }
        fs::write(&project, output.stdout).context(step())?;
        Ok(project.display().to_string())
    }

    fn make(&self) -> Command {
        let mut make = self.kernel.make();
        make.arg(format!("M={}", self.tree.display()))
            .arg(format!("MO={}", self.build.display()));
        let options = self.kernel.flavour.rust_options();
        if !options.is_empty() {
            make.arg(format!("KRUSTFLAGS={options}"));
        }
        if self.kernel.flavour != Flavour::Release {
            make.args([
                "CONFIG_ZPCI_VFIO_PCI_DEBUG=y",
                "CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST=y",
            ]);
        }
        make
    }

    fn run(&self, cache: &Cache, step: &str, command: &mut Command) -> Result<()> {
        let what = format!("module ({}): {step}", self.kernel.flavour.name());
        let detail = |done| format!("{done} actions");
        progress::run(&what, command, &self.log(cache), detail)
    }

    fn log(&self, cache: &Cache) -> PathBuf {
        cache.log(&format!("module-{}", self.kernel.flavour.name()))
    }
}

/// The warnings in a build log, each with the lines that explain it.
pub fn warnings(log: &str) -> Vec<String> {
    log.split("\n\n")
        .filter_map(|part| part.find("warning: ").map(|at| part[at..].to_string()))
        // rustc's own, about a flag with which the kernel compiles every file.
        .filter(|warning| !warning.contains("`-Ctarget-feature`"))
        .filter(|warning| !warning.contains(" emitted"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_warnings_count() {
        let log = "\
  CLIPPY M drivers/main.o
warning: unknown and unstable feature specified for `-Ctarget-feature`: `backchain`
  |
  = note: it is still passed through to the codegen backend

warning: unneeded `return` statement
 --> drivers/main.rs:3:5

warning: 2 warnings emitted

  CC [M] rust/helpers.o
";
        let found = warnings(log);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("warning: unneeded") && found[0].contains("main.rs:3:5"));
    }
}
