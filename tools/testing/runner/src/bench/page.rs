// SPDX-License-Identifier: GPL-2.0

//! The figures in the documentation: a file for programs, a plot, and tables in a page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{figures::Figures, plot};
use crate::error::{Context, Error, Result};

const STEP: &str = "the figures of the documentation";

/// A table is between a comment that names it and the next one.
const END: &str = ".. (end of the generated table)\n";

/// The files, without their extensions.
fn stem(tree: &Path) -> PathBuf {
    tree.join("Documentation/arch/s390/vfio-zpci-io-cost")
}

fn read(stem: &Path, extension: &str) -> Result<String> {
    let path = stem.with_extension(extension);
    fs::read_to_string(&path).context(format!("reading {}", path.display()))
}

fn write(stem: &Path, extension: &str, text: &str) -> Result<()> {
    let path = stem.with_extension(extension);
    fs::write(&path, text).context(format!("writing {}", path.display()))
}

/// Reads those which are there.
pub fn load(tree: &Path) -> Result<Figures> {
    serde_json::from_str(&read(&stem(tree), "json")?)
        .map_err(|error| Error::new(STEP, error.to_string(), "Make them anew: make bench-save"))
}

/// Replaces them.
pub fn save(tree: &Path, figures: &Figures) -> Result<()> {
    let stem = stem(tree);
    let page = fill(&read(&stem, "rst")?, figures)?;
    keep(&stem, figures)?;
    write(&stem, "rst", &page)
}

/// Writes the file for programs and the plot.
pub fn keep(stem: &Path, figures: &Figures) -> Result<()> {
    let json = serde_json::to_string_pretty(figures)
        .map_err(|error| Error::new(STEP, error.to_string(), ""))?;
    write(stem, "json", &(json + "\n"))?;
    write(stem, "svg", &plot::svg(figures))
}

/// The page with new tables.
fn fill(page: &str, figures: &Figures) -> Result<String> {
    let versions = figures.versions.join(", ");
    let what = format!("Of commit {}, with {versions}.\n", figures.commit);
    let mut page = page.to_string();
    for (name, text) in [
        ("calls", format!("{what}\n{}", figures.table())),
        ("parts", figures.parts()),
        ("ratios", format!("{}.\n", figures.ratios())),
    ] {
        let begin = format!(".. (generated: {name})\n");
        let found = page.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(END)?;
            Some(format!("{before}{begin}\n{text}\n{END}{after}"))
        });
        page = found.ok_or_else(|| Error::new(STEP, format!("the page has no '{name}'"), ""))?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_shows_the_figures_of_its_file() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let figures = load(&tree).unwrap();
        let stem = stem(&tree);
        let page = read(&stem, "rst").unwrap();
        assert_eq!(fill(&page, &figures).unwrap(), page);
        assert_eq!(plot::svg(&figures), read(&stem, "svg").unwrap());
        assert!(
            !figures.commit.contains("dirty"),
            "no commit has these figures"
        );
    }
}
