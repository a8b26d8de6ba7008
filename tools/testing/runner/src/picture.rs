// SPDX-License-Identifier: GPL-2.0

//! README's picture of `make run`: a terminal through which the lines go that it has printed. Some lines
//! of SVG need no crate, and what shows them on a web page runs no script.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    ktap::Test,
};

const STEP: &str = "the picture of make run";

/// What was typed.
const PROMPT: &str = "$ make run";

/// How many lines the terminal shows at a time, and how many go by in a second.
const ROWS: usize = 22;
const PER_SECOND: usize = 3;

/// The size of a character, and what is around the text, in pixels.
const LINE: usize = 16;
const COLUMN: f64 = 7.25;
const MARGIN: usize = 10;

fn path(tree: &Path) -> PathBuf {
    tree.join("Documentation/make-run.svg")
}

/// Makes it from what `make run` has printed, and returns where it is.
pub fn save(tree: &Path, output: &str) -> Result<PathBuf> {
    let path = path(tree);
    fs::write(&path, svg(output)).context(format!("writing {}", path.display()))?;
    Ok(path)
}

/// Whether `make run` passes, and prints what the picture shows.
pub fn tests(tree: &Path, code: u8, output: &str) -> Result<Vec<Test>> {
    let path = path(tree);
    let svg = fs::read_to_string(&path).context(format!("reading {}", path.display()))?;
    let shown = text(&svg).ok_or_else(|| Error::new(STEP, "it shows no run", REMEDY))?;
    let end = (code != 0).then(|| output.to_string());
    Ok(vec![
        Test::check("make run", end.into_iter().collect()),
        Test::check("README shows what it prints", compare(&shown, output)),
    ])
}

const REMEDY: &str = "Make it anew: make run-picture";

/// The lines that differ, but for values that are other ones each time.
fn compare(shown: &str, printed: &str) -> Vec<String> {
    let (shown, printed) = (stable(shown), stable(printed));
    let only = |of: &'static str, these: &str, those: &str| -> Vec<String> {
        let those: Vec<_> = those.lines().collect();
        let these = these.lines().filter(|line| !those.contains(line));
        these.map(|line| format!("{of}: {line}")).collect()
    };
    let mut notes = only("only in the picture", &shown, &printed);
    notes.extend(only("only printed", &printed, &shown));
    if notes.is_empty() && shown != printed {
        notes.push("the lines are in another order".into());
    }
    if !notes.is_empty() {
        notes.push(REMEDY.into());
    }
    notes
}

/// A text with its numbers of 16 hexadecimal digits left out.
fn stable(text: &str) -> String {
    const DIGITS: usize = 16;
    let mut parts = text.split("0x");
    let mut stable = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let kept = if digits == DIGITS {
            "..."
        } else {
            &part[..digits]
        };
        stable += &format!("0x{kept}{}", &part[digits..]);
    }
    stable
}

/// The lines come in at the bottom. Where nothing moves, the last ones are seen.
fn svg(output: &str) -> String {
    let lines: Vec<_> = [PROMPT].into_iter().chain(output.lines()).collect();
    let count = lines.len();
    let longest = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let width = (longest as f64 * COLUMN).ceil() as usize + 2 * MARGIN;
    let (inside, below) = (ROWS * LINE, count * LINE);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" \
         font-size=\"12\" fill=\"#d0d4d8\">\n\
         <style>\n\
         @media (prefers-reduced-motion: no-preference) {{\n\
         \x20 g {{ animation: scroll {seconds}s steps({count}) }}\n\
         \x20 @keyframes scroll {{ from {{ transform: translateY({below}px) }} }}\n\
         }}\n\
         </style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1b1f24\"/>\n\
         <svg x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"100%\" height=\"{inside}\">\n<g>\n",
        height = inside + 2 * MARGIN,
        seconds = count.div_ceil(PER_SECOND),
    );
    for (row, line) in lines.iter().enumerate() {
        let y = (row + ROWS) as i64 - count as i64;
        let y = y * LINE as i64 + 12;
        svg += &format!(
            "<text y=\"{y}\" xml:space=\"preserve\">{}</text>\n",
            escape(line)
        );
    }
    svg + "</g>\n</svg>\n</svg>\n"
}

/// What `make run` has printed, out of the picture.
fn text(svg: &str) -> Option<String> {
    let lines = svg.lines().filter_map(|line| {
        let (_, text) = line.strip_prefix("<text ")?.split_once('>')?;
        text.strip_suffix("</text>")
    });
    let mut lines = lines.map(unescape);
    (lines.next()? == PROMPT).then(|| lines.map(|line| line + "\n").collect())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_made_by_nobody_else() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let made = fs::read_to_string(path(&tree)).unwrap();
        assert!(svg(&text(&made).unwrap()) == made, "{REMEDY}");
        let readme = fs::read_to_string(tree.join("README.md")).unwrap();
        assert!(readme.contains("](Documentation/make-run.svg)"));
    }

    #[test]
    fn a_picture_has_the_text_of_its_run() {
        let output = "   indented\n\na < b && c\n";
        assert_eq!(text(&svg(output)).unwrap(), output);
        assert_eq!(text("<svg/>"), None);
    }

    #[test]
    fn only_values_may_differ() {
        let line = "stored 0xb208ac0ba22a3799 at 0x1000\n";
        let other = "stored 0x00a59ea411a7a533 at 0x1000\n";
        assert!(compare(line, other).is_empty());
        assert!(!compare(line, "stored 0xb208ac0ba22a3799 at 0x2000\n").is_empty());
        assert!(!compare("a\nb\n", "b\na\n").is_empty());
        assert!(!compare("a\n", "a\nb\n").is_empty());
        assert!(!compare("a\na\n", "a\n").is_empty());
    }
}
