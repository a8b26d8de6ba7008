// SPDX-License-Identifier: GPL-2.0

//! The driver's tracepoint: which instructions it has issued, and what came of them.
//!
//! `zpci-io trace` reads it, too, with a parser of its own: it is one of those who are tested.

use std::{fs, io};

const TRACE: &str = "/sys/kernel/tracing/trace";
const EVENT: &str = "/sys/kernel/tracing/events/zpci_vfio_pci/zpci_vfio_pci_insn/enable";
/// Of each processor: enough for all that a guest does.
const BUFFER: &str = "/sys/kernel/tracing/buffer_size_kb";
const KILOBYTES: &str = "16384";

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The function that it was for.
    pub fid: u32,
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

/// Has the kernel forget what it has recorded, and record the driver's instructions.
///
/// # Errors
///
/// There is no tracefs, or the driver is not loaded.
pub fn start() -> io::Result<()> {
    fs::write(BUFFER, KILOBYTES)?;
    fs::write(TRACE, "")?;
    fs::write(EVENT, "1")
}

/// Has it record no more.
///
/// # Errors
///
/// As [`start`].
pub fn stop() -> io::Result<()> {
    fs::write(EVENT, "0")
}

/// The instructions recorded since [`start`].
///
/// # Errors
///
/// Some are lost, or not understood.
pub fn issued() -> io::Result<Vec<Issued>> {
    parse(&fs::read_to_string(TRACE)?).map_err(io::Error::other)
}

fn parse(trace: &str) -> Result<Vec<Issued>, String> {
    let entries = trace
        .lines()
        .find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written: "))
        .and_then(|rest| rest.split_whitespace().next()?.split_once('/'));
    if entries.is_none_or(|(kept, written)| kept != written) {
        return Err(format!("the trace is not complete: {entries:?}"));
    }
    let lines = trace.lines();
    let events = lines.filter_map(|line| line.split_once("zpci_vfio_pci_insn: "));
    events
        .map(|(_, event)| {
            Issued::parse(event).ok_or_else(|| format!("the trace is not understood: {event}"))
        })
        .collect()
}

impl Issued {
    /// From "fid=00000020 PCISTB fh=80000020 as=0 len=8 offset=0x10 cc=0 status=0 tries=1".
    fn parse(event: &str) -> Option<Self> {
        let mut words = event.split_whitespace();
        let fid = words.next()?.strip_prefix("fid=")?;
        let name = words.next()?;
        let fields: Vec<_> = words.map(|word| word.split_once('=')).collect();
        let field = |name| {
            let mut fields = fields.iter().flatten();
            fields.find_map(|(found, value)| (*found == name).then_some(*value))
        };
        let hex = |name| u64::from_str_radix(field(name)?.trim_start_matches("0x"), 16).ok();
        let number = |name| field(name)?.parse().ok();
        Some(Self {
            fid: u32::from_str_radix(fid, 16).ok()?,
            name: name.to_owned(),
            handle: hex("fh")?,
            space: number("as")?,
            len: number("len")?,
            offset: hex("offset")?,
            cc: field("cc")?.parse().ok()?,
            status: number("status")?,
            tries: number("tries")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str =
        "  test-99  [001] .....  12.345678: zpci_vfio_pci_insn: fid=00000020 PCISTB \
                         fh=80000010 as=2 len=64 offset=0x1f0 cc=-6 status=8 tries=3\n";

    fn trace(kept: u32, events: &str) -> String {
        format!(
            "# tracer: nop\n#\n# entries-in-buffer/entries-written: {kept}/1   #P:2\n#\n{events}"
        )
    }

    #[test]
    fn an_instruction() {
        let issued = Issued {
            fid: 0x20,
            name: "PCISTB".into(),
            handle: 0x8000_0010,
            space: 2,
            len: 64,
            offset: 0x1f0,
            cc: -6,
            status: 8,
            tries: 3,
        };
        assert_eq!(parse(&trace(1, EVENT)), Ok(vec![issued]));
    }

    #[test]
    fn what_is_lost_or_strange_is_an_error() {
        assert!(parse(&trace(0, EVENT)).is_err());
        assert!(parse("").is_err());
        for (word, other) in [("as=2", "as=x"), ("fid=", "id="), (" tries=3", "")] {
            assert!(parse(&trace(1, &EVENT.replace(word, other))).is_err());
        }
    }
}
