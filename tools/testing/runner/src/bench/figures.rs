// SPDX-License-Identifier: GPL-2.0

//! The figures: as a file, as a table, and compared with those of a commit.

use serde::{Deserialize, Serialize};

use super::profile::Profile;

/// Our driver, and the same in C.
pub const DRIVER: &str = "zpci_vfio_pci";
pub const TWIN: &str = "zpci_twin";

/// How much above the committed figure one may be, in percent.
const TOLERANCE: u64 = 2;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// What was measured.
    pub commit: String,
    /// The kernel's release, and the packages with the compilers.
    pub versions: Vec<String>,
    pub calls: Vec<Call>,
    pub profiles: Vec<Profile>,
}

/// What a call costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub driver: String,
    pub call: String,
    /// How many bytes it moves; 0 if that does not matter.
    pub bytes: u64,
    /// From user space and back.
    pub instructions: u64,
}

impl Call {
    /// A line of `zpci-bench`.
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.strip_prefix("count\t")?.split('\t').collect();
        let [driver, call, bytes, instructions] = fields[..] else {
            return None;
        };
        Some(Self {
            driver: driver.into(),
            call: call.into(),
            bytes: bytes.parse().ok()?,
            instructions: instructions.parse().ok()?,
        })
    }

    fn is(&self, other: &Self) -> bool {
        (&self.driver, &self.call, self.bytes) == (&other.driver, &other.call, other.bytes)
    }
}

impl Figures {
    pub fn find(&self, driver: &str, call: &str, bytes: u64) -> Option<u64> {
        let mut calls = self.calls.iter();
        let found = calls.find(|c| c.driver == driver && c.call == call && c.bytes == bytes)?;
        Some(found.instructions)
    }

    pub fn profile(&self, driver: &str) -> Option<&Profile> {
        self.profiles
            .iter()
            .find(|profile| profile.driver == driver)
    }

    /// What is worse than `baseline`, of our driver.
    pub fn worse_than(&self, baseline: &Self) -> Vec<String> {
        let ours = baseline.calls.iter().filter(|call| call.driver == DRIVER);
        ours.filter_map(|was| {
            let name = format!("{}, {} bytes", was.call, was.bytes);
            let Some(is) = self.calls.iter().find(|call| call.is(was)) else {
                return Some(format!("{name}: was {}, is not counted", was.instructions));
            };
            let limit = was.instructions * (100 + TOLERANCE) / 100;
            (is.instructions > limit)
                .then(|| format!("{name}: was {}, is {}", was.instructions, is.instructions))
        })
        .collect()
    }

    /// A row for each call, with a column for each size.
    pub fn table(&self) -> String {
        let mut sizes: Vec<_> = self.calls.iter().map(|call| call.bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut head = vec!["driver".to_string(), "call".to_string()];
        let size = |&bytes: &u64| match bytes {
            0 => "any".to_string(),
            bytes => format!("{bytes} B"),
        };
        head.extend(sizes.iter().map(size));
        let mut rows: Vec<Vec<String>> = vec![head];
        for call in &self.calls {
            let last = rows
                .last()
                .filter(|row| row[0] == call.driver && row[1] == call.call);
            if last.is_none() {
                let mut row = vec![call.driver.clone(), call.call.clone()];
                row.resize(2 + sizes.len(), String::new());
                rows.push(row);
            }
            let column = sizes.iter().position(|&bytes| bytes == call.bytes);
            if let (Some(row), Some(column)) = (rows.last_mut(), column) {
                row[2 + column] = call.instructions.to_string();
            }
        }
        simple_table(&rows, 2)
    }

    /// The parts of a PCISTB by our driver and by the twin.
    pub fn parts(&self) -> String {
        let mut rows = vec![vec!["part".to_string()]];
        rows[0].extend(self.profiles.iter().map(|profile| profile.driver.clone()));
        for (at, name) in super::profile::PARTS.iter().enumerate() {
            let counts = self
                .profiles
                .iter()
                .map(|p| p.parts[at].instructions.to_string());
            rows.push([(*name).to_string()].into_iter().chain(counts).collect());
        }
        let totals = self
            .profiles
            .iter()
            .map(|profile| profile.total().to_string());
        rows.push(["all".to_string()].into_iter().chain(totals).collect());
        let helpers = self
            .profiles
            .iter()
            .map(|profile| profile.helpers().to_string());
        let name = "of these, in helpers".to_string();
        rows.push([name].into_iter().chain(helpers).collect());
        simple_table(&rows, 1)
    }

    /// PCISTB by our driver as a part of that by the twin, for each size.
    pub fn ratios(&self) -> String {
        let ours = self.calls.iter();
        let mut ours: Vec<_> = ours
            .filter(|c| c.driver == DRIVER && c.call == "PCISTB")
            .collect();
        ours.sort_by_key(|call| call.bytes);
        let ratios = ours.into_iter().filter_map(|call| {
            let twin = self.find(TWIN, &call.call, call.bytes)?;
            let ratio = call.instructions as f64 / twin as f64;
            Some(format!("{ratio:.3} ({} bytes)", call.bytes))
        });
        ratios.collect::<Vec<_>>().join(", ")
    }
}

/// A simple table of reStructuredText, the first row of which is its head. The columns behind the
/// first `left` are numbers.
fn simple_table(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let border: Vec<_> = widths.iter().map(|&width| "=".repeat(width)).collect();
    let border = border.join("  ");
    let mut table = format!("{border}\n");
    for (at, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column < left {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        table += &format!("{}\n", line.trim_end());
        if at == 0 {
            table += &format!("{border}\n");
        }
    }
    table + &border + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lines: &[&str]) -> Figures {
        Figures {
            commit: "0123456".into(),
            versions: vec!["7.3.4".into()],
            calls: lines
                .iter()
                .map(|line| Call::parse(line).unwrap())
                .collect(),
            profiles: Vec::new(),
        }
    }

    const BASELINE: &[&str] = &[
        "count\tkernel\tnull system call\t0\t193",
        "count\tzpci_vfio_pci\tPCISTB\t8\t1000",
        "count\tzpci_vfio_pci\tPCISTB\t16\t1000",
        "count\tzpci_twin\tPCISTB\t8\t800",
    ];

    #[test]
    fn two_percent_are_tolerated() {
        let baseline = figures(BASELINE);
        assert!(baseline.worse_than(&baseline).is_empty());
        let mut now = figures(BASELINE);
        now.calls[1].instructions = 1020;
        // Of others, nothing is expected.
        now.calls[3].instructions = 2000;
        assert!(now.worse_than(&baseline).is_empty());
        now.calls[1].instructions = 1021;
        assert_eq!(
            now.worse_than(&baseline),
            ["PCISTB, 8 bytes: was 1000, is 1021"]
        );
        now.calls.remove(1);
        assert_eq!(
            now.worse_than(&baseline),
            ["PCISTB, 8 bytes: was 1000, is not counted"]
        );
    }

    #[test]
    fn table_has_a_column_for_each_size() {
        let table = "\
=============  ================  ===  ====  ====
driver         call              any   8 B  16 B
=============  ================  ===  ====  ====
kernel         null system call  193
zpci_vfio_pci  PCISTB                 1000  1000
zpci_twin      PCISTB                  800
=============  ================  ===  ====  ====
";
        assert_eq!(figures(BASELINE).table(), table);
        assert_eq!(figures(BASELINE).ratios(), "1.250 (8 bytes)");
    }

    #[test]
    fn other_lines_are_no_figures() {
        assert_eq!(Call::parse("profile\tzpci_twin"), None);
        assert_eq!(Call::parse("count\tzpci_twin\tPCISTB\t8"), None);
        assert_eq!(Call::parse("count\tzpci_twin\tPCISTB\tmany\t8"), None);
    }
}
