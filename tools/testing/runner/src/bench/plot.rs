// SPDX-License-Identifier: GPL-2.0

//! The figures as a plot: a bar for each way to store a block, divided into parts where they are
//! known. Some lines of SVG need no crate.

use std::fmt::Write;

use super::{
    figures::{Figures, DRIVER, TWIN},
    profile::PARTS,
};

/// The bars: what they say, whose call it is, and which.
const BARS: &[(&str, &str, &str)] = &[
    ("this driver: PCISTB", DRIVER, "PCISTB"),
    ("the same in C: PCISTB", TWIN, "PCISTB"),
    ("in C, block copied", TWIN, "PCISTB, copied up to 256"),
    ("in C, block in place", TWIN, "PCISTB, in place"),
    (
        "in C, one of 8 requests in a write",
        TWIN,
        "PCISTB, one of 8 in a write",
    ),
    ("this driver: write to a BAR of ISM", DRIVER, "BAR store"),
    (
        "ism-vfio-pci: write to a BAR of ISM",
        "ism_vfio_pci",
        "BAR store",
    ),
    (
        "vfio-pci: write to a BAR, not one instruction",
        "vfio-pci",
        "BAR store",
    ),
];

/// The size of the block.
const BYTES: u64 = 128;

/// A color for each part, and one for bars that are not divided.
const COLORS: [&str; PARTS.len()] = ["#7d8a97", "#4c78a8", "#f2a541", "#72b77c", "#d1605e"];
const WHOLE: [&str; 1] = ["#ccd3da"];

const LABELS: u64 = 290;
const BAR: u64 = 460;
const WIDTH: u64 = LABELS + BAR + 60;
const STEP: u64 = 26;

pub fn svg(figures: &Figures) -> String {
    let found = BARS.iter().filter_map(|&(label, driver, call)| {
        let total = figures.find(driver, call, BYTES)?;
        let profile = figures.profile(driver).filter(|_| call == "PCISTB");
        let parts = match profile {
            Some(profile) => profile.parts.iter().map(|part| part.instructions).collect(),
            None => vec![total],
        };
        Some((label, total, parts))
    });
    let bars: Vec<(_, _, Vec<u64>)> = found.collect();
    let longest = bars.iter().map(|bar| bar.2.iter().sum::<u64>().max(bar.1));
    let longest = longest.max().unwrap_or(1);
    let height = 64 + STEP * bars.len() as u64;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\">Instructions of a store of {BYTES} bytes, from user space and back \
         ({})</text>\n",
        figures.commit
    );
    let mut x = 8;
    for (name, color) in PARTS.iter().zip(COLORS) {
        rect(&mut svg, (x, 30), 10, 10, color);
        text(&mut svg, (x + 14, 39), name);
        x += 40 + 6 * name.len() as u64;
    }
    for (row, (label, total, parts)) in (0..).zip(&bars) {
        let y = 54 + STEP * row;
        text(&mut svg, (8, y + 14), label);
        let colors = if parts.len() > 1 { &COLORS[..] } else { &WHOLE };
        let (mut sum, mut x) = (0, LABELS);
        for (part, color) in parts.iter().zip(colors) {
            sum += part;
            let end = LABELS + sum * BAR / longest;
            rect(&mut svg, (x, y), end - x, 18, color);
            x = end;
        }
        text(&mut svg, (x + 6, y + 14), &total.to_string());
    }
    svg + "</svg>\n"
}

fn rect(svg: &mut String, (x, y): (u64, u64), width: u64, height: u64, color: &str) {
    // To a string, writing does not fail.
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{color}\"/>"
    );
}

fn text(svg: &mut String, (x, y): (u64, u64), text: &str) {
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\">{text}</text>");
}
