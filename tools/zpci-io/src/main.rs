// SPDX-License-Identifier: GPL-2.0

//! Command line of the zPCI I/O region: list and bind zPCI functions, and have single PCI
//! instructions issued.
//!
//! Exit code: 0 done, 1 failed, 2 not understood.

mod commands;
mod demo;
mod failure;

use failure::Failure;
use lexopt::prelude::*;
use std::process::ExitCode;
use vfio_zpci_io::{sysfs::Address, Access};

const USAGE: &str = "\
Usage: zpci-io COMMAND

  list                                  the zPCI functions of this machine
  bind ADDR                             give a function to the driver zpci_vfio_pci
  unbind ADDR                           give it back to its own driver
  info ADDR                             what a function says about itself
  load ADDR BAR OFFSET LEN              load 1, 2, 4 or 8 bytes (PCILG)
  store ADDR BAR OFFSET LEN VALUE       store 1, 2, 4 or 8 bytes (PCISTG)
  store-block ADDR BAR OFFSET DATA      store a block, whole or not at all (PCISTB)
  demo [ADDR]                           show what the region does, step by step

ADDR is a PCI address like 0001:00:00.0. Numbers are decimal, or hexadecimal with 0x.
DATA is hexadecimal digits, or @FILE for the bytes of a file.

Options of info, load, store and store-block:
  --iommufd    open the function by its VFIO character device and iommufd
  --group      open it by its VFIO group and a container
Without one: by character device, or by group where there is no character device.
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Command {
    Help,
    List,
    Bind(Address),
    Unbind(Address),
    Info(Address, Option<Access>),
    Load(Target, u16),
    Store(Target, u16, u64),
    StoreBlock(Target, Vec<u8>),
    Demo(Option<Address>),
}

/// Where an instruction goes.
#[derive(Debug, PartialEq)]
struct Target {
    address: Address,
    access: Option<Access>,
    bar: u8,
    offset: u64,
}

fn main() -> ExitCode {
    let result = parse(lexopt::Parser::from_env()).and_then(|command| match command {
        Command::Help => {
            print!("{USAGE}");
            Ok(())
        }
        Command::List => commands::list(),
        Command::Bind(address) => commands::bind(address),
        Command::Unbind(address) => commands::unbind(address),
        Command::Info(address, access) => commands::info(address, access),
        Command::Load(target, len) => commands::load(&target, len),
        Command::Store(target, len, value) => commands::store(&target, len, value),
        Command::StoreBlock(target, data) => commands::store_block(&target, &data),
        Command::Demo(address) => demo::run(address),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("zpci-io: {failure}");
            if let Some(remedy) = failure.remedy() {
                eprintln!("         {remedy}");
            }
            ExitCode::from(failure.code())
        }
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Command, Failure> {
    let mut access = None;
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("iommufd") => access = Some(Access::Iommufd),
            Long("group") => access = Some(Access::Group),
            Value(word) => words.push(word.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }

    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let target = |address: &str, bar, offset| {
        Ok::<_, Failure>(Target {
            address: address.parse()?,
            access,
            bar: number(bar)?,
            offset: number(offset)?,
        })
    };
    let opens = matches!(words[..], ["info" | "load" | "store" | "store-block", ..]);
    if access.is_some() && !opens {
        return Err(Failure::usage("this command does not choose how to open"));
    }
    Ok(match words[..] {
        [] | ["help"] => Command::Help,
        ["list"] => Command::List,
        ["bind", address] => Command::Bind(address.parse()?),
        ["unbind", address] => Command::Unbind(address.parse()?),
        ["info", address] => Command::Info(address.parse()?, access),
        ["load", address, bar, offset, len] => {
            Command::Load(target(address, bar, offset)?, number(len)?)
        }
        ["store", address, bar, offset, len, value] => {
            Command::Store(target(address, bar, offset)?, number(len)?, number(value)?)
        }
        ["store-block", address, bar, offset, bytes] => {
            Command::StoreBlock(target(address, bar, offset)?, data(bytes)?)
        }
        ["demo"] => Command::Demo(None),
        ["demo", address] => Command::Demo(Some(address.parse()?)),
        ["list" | "bind" | "unbind" | "info" | "load" | "store" | "store-block" | "demo", ..] => {
            let message = format!("'{}' wants other arguments", words[0]);
            return Err(Failure::usage(message));
        }
        [word, ..] => return Err(Failure::usage(format!("there is no command '{word}'"))),
    })
}

/// A decimal or, with 0x, hexadecimal number that fits where it goes.
fn number<T: TryFrom<u64>>(text: &str) -> Result<T, Failure> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .ok()
    .and_then(|value| T::try_from(value).ok())
    .ok_or_else(|| Failure::usage(format!("'{text}' is not a number that fits here")))
}

/// The bytes of a block: hexadecimal digits, or the content of a file.
fn data(text: &str) -> Result<Vec<u8>, Failure> {
    if let Some(path) = text.strip_prefix('@') {
        return std::fs::read(path).map_err(|source| Failure::Data {
            path: path.to_owned(),
            source,
        });
    }
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        Some((digit(0)? << 4 | digit(1)?) as u8)
    };
    digits
        .chunks(2)
        .map(byte)
        .collect::<Option<_>>()
        .ok_or_else(|| Failure::usage(format!("'{text}' is not pairs of hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Failure> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    fn target(access: Option<Access>) -> Target {
        Target {
            address: "0001:00:00.0".parse().unwrap(),
            access,
            bar: 2,
            offset: 0x1000,
        }
    }

    #[test]
    fn commands() {
        let address = target(None).address;
        for (line, command) in [
            ("", Command::Help),
            ("--help", Command::Help),
            ("list", Command::List),
            ("bind 0001:00:00.0", Command::Bind(address)),
            ("unbind 0001:00:00.0", Command::Unbind(address)),
            (
                "info --group 0001:00:00.0",
                Command::Info(address, Some(Access::Group)),
            ),
            (
                "load 0001:00:00.0 2 0x1000 8",
                Command::Load(target(None), 8),
            ),
            (
                "store 0001:00:00.0 2 4096 8 0xffffffffffffffff --iommufd",
                Command::Store(target(Some(Access::Iommufd)), 8, u64::MAX),
            ),
            (
                "store-block 0001:00:00.0 2 0x1000 00fFa1",
                Command::StoreBlock(target(None), vec![0, 0xff, 0xa1]),
            ),
            ("demo", Command::Demo(None)),
            ("demo 0001:00:00.0", Command::Demo(Some(address))),
        ] {
            assert_eq!(parsed(line).unwrap(), command, "{line}");
        }
    }

    #[test]
    fn mistakes() {
        for line in [
            "lost",
            "list all",
            "bind",
            "bind 1:2",
            "--group list",
            "--frobnicate",
            "load 0001:00:00.0 256 0 8",
            "load 0001:00:00.0 -1 0 8",
            "load 0001:00:00.0 2 0 65536",
            "load 0001:00:00.0 2 0x10000000000000000 8",
            "store-block 0001:00:00.0 2 0 123",
            "store-block 0001:00:00.0 2 0 1g",
        ] {
            assert_eq!(parsed(line).unwrap_err().code(), 2, "{line}");
        }
        let failure = parsed("store-block 0001:00:00.0 2 0 @/nonexistent").unwrap_err();
        assert_eq!(failure.code(), 1);
    }
}
