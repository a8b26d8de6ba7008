// SPDX-License-Identifier: GPL-2.0

//! The tracepoint of the driver: which instructions it has issued, and what came of them.

use std::fs;

const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "/sys/kernel/tracing/events/zpci_vfio_pci/zpci_vfio_pci_insn/enable";

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub name: String,
    pub handle: u64,
    pub space: u64,
    pub len: u64,
    pub offset: u64,
    /// Condition code, or -ENXIO.
    pub cc: i64,
    pub status: u64,
    pub tries: u64,
}

/// What `f` returns, and the instructions issued meanwhile for the function `fid`.
pub(crate) fn during<T>(fid: u32, f: impl FnOnce() -> T) -> (T, Vec<Issued>) {
    let control = |path: &str, text: &str| fs::write(path, text).expect("tracing");
    control(&format!("{TRACING}/trace"), "");
    control(EVENT, "1");
    let result = f();
    control(EVENT, "0");
    (result, so_far(fid))
}

/// The instructions issued for the function `fid` since [`during`] has begun.
pub(crate) fn so_far(fid: u32) -> Vec<Issued> {
    let text = fs::read_to_string(format!("{TRACING}/trace")).expect("the trace");
    assert!(!text.contains("LOST"), "the trace is complete");
    let ours = format!("fid={fid:08x}");
    text.lines()
        .filter_map(|line| line.split_once("zpci_vfio_pci_insn: "))
        .filter_map(|(_, event)| event.strip_prefix(&ours))
        .map(|event| parse(event).unwrap_or_else(|| panic!("not understood: {event}")))
        .collect()
}

fn parse(event: &str) -> Option<Issued> {
    let (name, fields) = event.trim_start().split_once(' ')?;
    let field = |name: &str| {
        let mut values = fields.split_whitespace().map(|field| field.split_once('='));
        values.find_map(|field| field.filter(|(found, _)| *found == name))
    };
    let hex = |name| u64::from_str_radix(field(name)?.1.trim_start_matches("0x"), 16).ok();
    let number = |name| field(name)?.1.parse().ok();
    Some(Issued {
        name: name.to_owned(),
        handle: hex("fh")?,
        space: number("as")?,
        len: number("len")?,
        offset: hex("offset")?,
        cc: field("cc")?.1.parse().ok()?,
        status: number("status")?,
        tries: number("tries")?,
    })
}
