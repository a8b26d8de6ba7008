// SPDX-License-Identifier: GPL-2.0

//! `load`, `store`, `store-block` and `batch`: instructions.

use crate::{
    cli::{self, Data, Name, Target, Way},
    failure::{Failure, Refusal},
    find,
    output::Output,
};
use serde::Serialize;
use std::{
    fmt, fs,
    io::{self, Read},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};
use vfio_zpci_io::{
    sysfs::{Address, Host, DRIVER},
    Access, Device, Error, ZpciIo,
};

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
enum Instruction {
    Load { len: u16 },
    Store { len: u16, value: u64 },
    StoreBlock { data: Vec<u8> },
}

/// An instruction, where it goes, and what came of it.
#[derive(Serialize)]
struct Done {
    insn: &'static str,
    bar: u8,
    offset: String,
    len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            insn,
            bar,
            offset,
            len,
            value,
        } = self;
        write!(f, "{insn} {bar} {offset} {len}")?;
        value.iter().try_for_each(|value| write!(f, " {value}"))
    }
}

/// What a load got.
#[derive(Serialize)]
struct Loaded {
    value: String,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}

/// Opens a function: by character device unless told otherwise, or by group where there is none.
pub(crate) fn open(address: Address, way: Way) -> Result<Device, Error> {
    match way.access() {
        Some(access) => Device::open(&address, access),
        None => match Device::open(&address, Access::Iommufd) {
            Err(Error::NoNode { .. }) => Device::open(&address, Access::Group),
            result => result,
        },
    }
}

/// Opens a function for instructions to its BARs.
fn open_for_requests(host: &Host, name: Name, way: Way) -> Result<Device, Failure> {
    let function = find(host, name)?;
    // Opening a function that has no region would reset it for nothing.
    let reason = match function.driver()? {
        Some(driver) if driver == DRIVER => {
            let device = open(function.address(), way)?;
            device.enable_memory(true)?;
            return Ok(device);
        }
        Some(driver) => Refusal::OtherDriver(driver),
        None => Refusal::NoDriver,
    };
    Err(Failure::refused(function.address(), reason))
}

impl Instruction {
    /// Issues it; returns the value that was loaded.
    fn issue(
        &self,
        region: &ZpciIo<BorrowedFd<'_>>,
        bar: u8,
        offset: u64,
    ) -> Result<Option<String>, Failure> {
        Ok(match self {
            Self::Load { len } => {
                let value = region.load(bar, offset, *len)?;
                Some(format!(
                    "{value:#0width$x}",
                    width = 2 + 2 * usize::from(*len)
                ))
            }
            Self::Store { len, value } => {
                region.store(bar, offset, *len, *value)?;
                None
            }
            Self::StoreBlock { data } => {
                region.store_block(bar, offset, data)?;
                None
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Load { .. } => "load",
            Self::Store { .. } => "store",
            Self::StoreBlock { .. } => "store-block",
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Load { len } | Self::Store { len, .. } => usize::from(*len),
            Self::StoreBlock { data } => data.len(),
        }
    }
}

/// Issues one instruction while the function is open for it alone.
fn one(
    host: &Host,
    target: &Target,
    way: Way,
    instruction: &Instruction,
) -> Result<Option<String>, Failure> {
    let device = open_for_requests(host, target.function, way)?;
    let region = device.zpci_io()?;
    instruction.issue(&region, target.bar, target.offset)
}

pub(crate) fn load(
    host: &Host,
    out: &mut Output<'_>,
    target: &Target,
    len: u16,
    way: Way,
) -> Result<(), Failure> {
    let value = one(host, target, way, &Instruction::Load { len })?;
    out.show(&Loaded {
        value: value.unwrap_or_default(),
    })
}

pub(crate) fn store(
    host: &Host,
    target: &Target,
    len: u16,
    value: u64,
    way: Way,
) -> Result<(), Failure> {
    one(host, target, way, &Instruction::Store { len, value }).map(drop)
}

pub(crate) fn store_block(
    host: &Host,
    target: &Target,
    data: Data,
    way: Way,
) -> Result<(), Failure> {
    let data = bytes(data)?;
    one(host, target, way, &Instruction::StoreBlock { data }).map(drop)
}

fn bytes(data: Data) -> Result<Vec<u8>, Failure> {
    match data {
        Data::Bytes(bytes) => Ok(bytes),
        Data::File(path) => fs::read(&path).map_err(|source| Failure::Data { path, source }),
    }
}

/// A line of a batch.
#[derive(Debug, PartialEq)]
struct Line {
    number: usize,
    bar: u8,
    offset: u64,
    instruction: Instruction,
}

pub(crate) fn batch(
    host: &Host,
    out: &mut Output<'_>,
    name: Name,
    file: Option<PathBuf>,
    way: Way,
) -> Result<(), Failure> {
    let lines = parse(&text(file)?)?;
    let device = open_for_requests(host, name, way)?;
    let region = device.zpci_io()?;
    for line in lines {
        let instruction = &line.instruction;
        let value = instruction
            .issue(&region, line.bar, line.offset)
            .map_err(|failure| at(line.number, failure))?;
        out.show(&Done {
            insn: instruction.name(),
            bar: line.bar,
            offset: format!("{:#x}", line.offset),
            len: instruction.len(),
            value,
        })?;
    }
    Ok(())
}

fn text(file: Option<PathBuf>) -> Result<String, Failure> {
    let mut text = String::new();
    match &file {
        Some(path) => fs::read_to_string(path).map(|content| text = content),
        None => io::stdin().read_to_string(&mut text).map(drop),
    }
    .map_err(|source| Failure::Data {
        path: file.unwrap_or_else(|| Path::new("standard input").to_owned()),
        source,
    })?;
    Ok(text)
}

fn at(line: usize, failure: Failure) -> Failure {
    Failure::Line {
        line,
        source: Box::new(failure),
    }
}

/// The instructions of a batch.
fn parse(text: &str) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let words = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = words.split_whitespace().collect();
        if let [insn, rest @ ..] = &words[..] {
            let parsed = parse_line(insn, rest).map_err(|failure| at(number, failure))?;
            let (bar, offset, instruction) = parsed;
            lines.push(Line {
                number,
                bar,
                offset,
                instruction,
            });
        }
    }
    Ok(lines)
}

fn parse_line(insn: &str, words: &[&str]) -> Result<(u8, u64, Instruction), Failure> {
    let usage = |what: &str, why: String| Failure::Usage(format!("'{what}' is {why}"));
    fn number<T: TryFrom<u64>>(word: &str) -> Result<T, Failure> {
        cli::number(word).map_err(|why| Failure::Usage(format!("'{word}' is {why}")))
    }
    let (bar, offset, instruction) = match (insn, words) {
        ("load", [bar, offset, len]) => (bar, offset, Instruction::Load { len: number(len)? }),
        ("store", [bar, offset, len, value]) => {
            let (len, value) = (number(len)?, number(value)?);
            (bar, offset, Instruction::Store { len, value })
        }
        ("store-block", [bar, offset, data]) => {
            let data = bytes(data.parse().map_err(|why| usage(data, why))?)?;
            (bar, offset, Instruction::StoreBlock { data })
        }
        ("load" | "store" | "store-block", _) => {
            return Err(Failure::Usage(format!("'{insn}' wants other arguments")));
        }
        _ => return Err(usage(insn, "no instruction".to_owned())),
    };
    Ok((number(bar)?, number(offset)?, instruction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "# a batch\n\nload 2 0x1000 8  # the value\n  store 1 16 4 0xff\n\
                    store-block 2 0 00fFa1\n";
        let line = |number, bar, offset, instruction| Line {
            number,
            bar,
            offset,
            instruction,
        };
        let data = vec![0, 0xff, 0xa1];
        assert_eq!(
            parse(text).unwrap(),
            [
                line(3, 2, 0x1000, Instruction::Load { len: 8 }),
                line(4, 1, 16, Instruction::Store { len: 4, value: 255 }),
                line(5, 2, 0, Instruction::StoreBlock { data }),
            ]
        );
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn mistakes() {
        for line in [
            "lode 2 0 8",
            "load 2 0",
            "load 2 0 8 9",
            "load 256 0 8",
            "load 2 -1 8",
            "load 2 0x10000000000000000 8",
            "store 2 0 65536 0",
            "store-block 2 0 123",
            "store-block 2 0 1g",
        ] {
            let failure = parse(&format!("load 0 0 8\n{line}\n")).unwrap_err();
            assert_eq!(failure.code(), 2, "{line}");
            assert!(failure.to_string().starts_with("line 2: "), "{failure}");
        }
        let failure = parse("store-block 2 0 @/nonexistent").unwrap_err();
        assert_eq!(failure.code(), 1);
    }
}
