// SPDX-License-Identifier: GPL-2.0

//! The table of promises, `Documentation/arch/s390/vfio-zpci-io-promises.rst`, checked: what it quotes
//! stands in the documents, and the tests and mutants that it names are there.

use crate::{
    mutants::{self, Mutant},
    rungs::Rung,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const TABLE: &str = "Documentation/arch/s390/vfio-zpci-io-promises.rst";

/// In the place of a mutant, before the reason why there is none.
const NONE: &str = r"\-";

/// Where the tests of each rung are.
const SOURCES: &[(&str, &[&str])] = &[
    (
        "host",
        &[
            "tools/testing/request/src",
            "tools/testing/lease/src",
            "tools/testing/runner",
            "tools/vfio-zpci-io/src",
            "tools/zpci-io",
        ],
    ),
    ("model", &["tools/testing/model"]),
    ("emulator", &["tools/testing/runner/src/emulator.rs"]),
    ("kunit", &["rust/vfio", "drivers/vfio/pci/zpci", RUNNERS]),
    ("region", &["tools/testing/region/src", RUNNERS]),
    ("clients", &["tools/testing/client/src"]),
    ("conformance", &["tools/testing/runner/src/conformance.rs"]),
    ("lifecycle", &["tools/testing/lifecycle/src", RUNNERS]),
    ("unmediated", &["tools/testing/lifecycle/src"]),
    ("contention", &["tools/testing/lifecycle/src"]),
    ("cycles", &["tools/testing/lifecycle/src"]),
    ("ism", &["tools/testing/ism/src", RUNNERS]),
    (
        "bare",
        &["tools/testing/runner/src/bare.rs", "tools/testing/bare"],
    ),
    (
        "install",
        &[
            "tools/testing/install/src",
            "tools/testing/runner/src/packages.rs",
        ],
    ),
    ("fuzz", &["tools/testing/runner/src/fuzz.rs"]),
    (
        "guest",
        &[
            "tools/testing/guest/src",
            "tools/testing/runner/src/chain.rs",
        ],
    ),
    ("race-region", &[RUNNERS]),
    ("race-lifecycle", &[RUNNERS]),
];

/// The tests that every boot is good for.
const RUNNERS: &str = "tools/testing/runner/src/rungs/checks.rs";

/// One row.
struct Promise {
    document: String,
    words: String,
    rung: String,
    test: String,
    mutant: String,
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = tree().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn promises() -> Vec<Promise> {
    parse(&read(TABLE)).unwrap_or_else(|row| panic!("not understood: {row:?}"))
}

/// The rows of the tables; each section's title is a document.
fn parse(text: &str) -> Result<Vec<Promise>, Vec<String>> {
    let lines: Vec<_> = text.lines().collect();
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut document = "";
    for (at, line) in lines.iter().enumerate() {
        let next = lines.get(at + 1).copied().unwrap_or_default();
        if !next.is_empty() && next.bytes().all(|byte| byte == b'=') {
            document = line;
        } else if let Some(cell) = line.strip_prefix("   * - ") {
            rows.push((document.to_owned(), vec![cell.to_owned()]));
        } else if let Some((_, row)) = rows.last_mut() {
            if let Some(cell) = line.strip_prefix("     - ") {
                row.push(cell.to_owned());
            } else if let (Some(more), Some(cell)) = (line.strip_prefix("       "), row.last_mut())
            {
                *cell = format!("{cell} {}", more.trim());
            }
        }
    }
    rows.into_iter()
        .filter(|(_, row)| row[0] != "Words")
        .map(|(document, row)| {
            let [words, test, mutant] = row.as_slice() else {
                return Err(row);
            };
            let Some((rung, test)) = test.split_once(": ") else {
                return Err(row);
            };
            Ok(Promise {
                document,
                words: words.clone(),
                rung: rung.to_owned(),
                test: test.to_owned(),
                mutant: mutant.clone(),
            })
        })
        .collect()
}

/// A text without line breaks, and without the marks of comments.
pub fn flowing(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim();
        let marks = ["//! ", "/// ", "// ", "* ", "# "];
        marks
            .iter()
            .find_map(|mark| line.strip_prefix(mark))
            .unwrap_or(line)
    });
    let words = lines.flat_map(str::split_whitespace).collect::<Vec<_>>();
    words.join(" ")
}

/// The texts of the files in a directory, and below, or of one file.
fn texts(path: &Path) -> Vec<String> {
    if path.is_file() {
        // What is not text has no tests.
        return fs::read_to_string(path).into_iter().collect();
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries
        .flat_map(|entry| texts(&entry.unwrap().path()))
        .collect()
}

/// Whether a test of a rung has this in its name: as a function, or in a string in which `{}` may
/// stand for anything.
fn has_test(rung: &str, name: &str) -> bool {
    let sources = SOURCES.iter().find(|(known, _)| *known == rung);
    let function = name.rsplit("::").next().unwrap_or(name);
    let (_, paths) = sources.unwrap_or_else(|| panic!("no rung {rung}"));
    let texts = paths.iter().flat_map(|path| texts(&tree().join(path)));
    let text = texts.collect::<Vec<_>>().join("\n");
    // A name without a space is that of a function.
    text.contains(&format!("fn {function}("))
        || name.contains(' ') && text.contains(name)
        || text
            .split('"')
            .any(|string| is_made_of(name, string, &text))
}

/// Whether a format string makes a name, with parts that are in the text.
fn is_made_of(name: &str, format: &str, text: &str) -> bool {
    /// So much of the name must be there as it is.
    const ENOUGH: usize = 5;
    let mut rest = name;
    let mut fixed = 0;
    for (at, part) in format.split('{').enumerate() {
        let part = match at {
            0 => part,
            _ => part.split_once('}').map_or(part, |(_, part)| part),
        };
        let Some((made, after)) = rest.split_once(part) else {
            return false;
        };
        if !text.contains(made) {
            return false;
        }
        rest = after;
        fixed += part.len();
    }
    fixed >= ENOUGH && format.contains('{') && text.contains(rest)
}

#[test]
fn every_promise_stands_in_its_document() {
    for Promise {
        document, words, ..
    } in promises()
    {
        let mut text = flowing(&read(&document));
        // The rows themselves promise nothing.
        text.truncate(text.find(".. list-table::").unwrap_or(text.len()));
        assert!(text.contains(&words), "{document} does not say: {words}");
    }
}

#[test]
fn every_promise_has_a_test() {
    for promise in promises() {
        let Promise { rung, test, .. } = &promise;
        assert!(
            Rung::named(rung).is_some(),
            "{}: no rung {rung}",
            promise.words
        );
        assert!(has_test(rung, test), "there is no test {rung}: {test}");
    }
}

#[test]
fn every_promise_has_a_mutant_or_says_why_not() {
    let mutants = mutants::read(&tree()).unwrap();
    for promise in promises() {
        let Promise { words, mutant, .. } = &promise;
        if let Some(reason) = mutant.strip_prefix(NONE) {
            assert!(reason.len() > 10, "{words}: why is there no mutant?");
            continue;
        }
        let found = mutants.iter().find(|known| known.name == *mutant);
        let found = found.unwrap_or_else(|| panic!("{words}: there is no mutant {mutant}"));
        assert!(
            shows(found, &promise),
            "{mutant} is not killed by '{}'",
            promise.test
        );
    }
}

/// Whether the test that kills the mutant is that of the promise.
fn shows(mutant: &Mutant, promise: &Promise) -> bool {
    mutant.rung.name == promise.rung && mutant.test == promise.test
}

#[test]
fn every_mutant_breaks_a_promise() {
    let promises = promises();
    for mutant in mutants::read(&tree()).unwrap() {
        let (name, rung) = (&mutant.name, mutant.rung.name);
        let known = promises.iter().any(|promise| promise.mutant == *name);
        assert!(known, "{name} is not in {TABLE}");
        assert!(
            has_test(rung, &mutant.test),
            "{name}: no test {}",
            mutant.test
        );
    }
}

#[test]
fn a_name_is_found_where_it_is_put_together() {
    assert!(has_test(
        "lifecycle",
        "power-off, orderly shutdown, 4 threads"
    ));
    assert!(has_test("ism", "EBUSY: condition code 2 (PCILG)"));
    assert!(has_test("kunit", "all_borrow_from_remove"));
    assert!(!has_test(
        "lifecycle",
        "power-off, disorderly shutdown, 4 threads"
    ));
    assert!(!has_test("kunit", "all_borrow"));
}

#[test]
fn rows_of_a_table() {
    let text = "Title\n=====\n\n.. list-table::\n\n   * - Words\n     - Test\n     - Mutant\n   \
                * - It works\n       well\n     - host: a: b\n     - x\n";
    let rows = parse(text).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].document.as_str(), rows[0].words.as_str()),
        ("Title", "It works well")
    );
    assert_eq!(
        (rows[0].rung.as_str(), rows[0].test.as_str()),
        ("host", "a: b")
    );
    assert!(parse("   * - Two\n     - host: cells\n").is_err());
}

#[test]
fn comments_flow() {
    assert_eq!(
        flowing("//! One\n//! two.\n * three\n\n  four"),
        "One two. three four"
    );
}
