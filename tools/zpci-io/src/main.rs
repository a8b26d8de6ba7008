// SPDX-License-Identifier: GPL-2.0

//! Command line of the zPCI I/O region: list and bind zPCI functions, and have single PCI
//! instructions issued.

mod binding;
mod check;
mod cli;
mod demo;
mod doctor;
mod failure;
#[cfg(test)]
mod fake;
mod output;
mod requests;
mod show;
mod stats;
mod trace;
mod users;

use clap::Parser;
use cli::{Cli, Command, Name};
use failure::Failure;
use output::Output;
use std::{
    io::{stderr, stdout, Write},
    process::ExitCode,
};
use vfio_zpci_io::sysfs::{Function, Host};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Also what --help prints. Whether somebody reads it is not asked.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let json = cli.json;
    match run(cli, &Host::default(), &mut Output::new(&mut stdout(), json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure, json);
            ExitCode::from(failure.code())
        }
    }
}

/// Does what the command line asks for, to the functions of `host`.
fn run(cli: Cli, host: &Host, out: &mut Output<'_>) -> Result<(), Failure> {
    match cli.command {
        Command::List => show::list(host, out),
        Command::Info {
            function,
            open,
            way,
        } => show::info(host, out, function, open, way),
        Command::Bind { function, force } => binding::bind(host, out, function, force),
        Command::Unbind { function, force } => binding::unbind(host, out, function, force),
        Command::Load { target, len, way } => requests::load(host, out, &target, len, way),
        Command::Store {
            target,
            len,
            value,
            way,
        } => requests::store(host, &target, len, value, way),
        Command::StoreBlock { target, data, way } => {
            requests::store_block(host, &target, data, way)
        }
        Command::Batch {
            function,
            file,
            way,
        } => requests::batch(host, out, function, file, way),
        Command::Trace { function } => trace::run(host, out, function),
        Command::Stats { function } => stats::show(host, out, function),
        Command::Doctor => doctor::run(host, out),
        Command::Check {
            function,
            repeat,
            with,
        } => check::run(host, out, function, repeat, with.as_deref()),
        Command::Demo { function, force } => demo::run(host, out, function, force),
    }
}

/// Says what went wrong, if there is somebody to hear it.
fn complain(failure: &Failure, json: bool) {
    if failure.is_closed_pipe() {
        return;
    }
    let text = match (json, failure.remedy()) {
        (true, _) => failure.json(),
        (false, Some(remedy)) => format!("zpci-io: {failure}\n         {remedy}"),
        (false, None) => format!("zpci-io: {failure}"),
    };
    let _ = writeln!(stderr(), "{text}");
}

/// The function that a user means.
fn find(host: &Host, name: Name) -> Result<Function, Failure> {
    match name {
        Name::Address(address) => Ok(host.function(address)?),
        Name::Fid(fid) => host.zpci_function(fid)?.ok_or(Failure::NoFid(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::Data, fake::Fake};
    use clap::{error::ErrorKind, CommandFactory};
    use std::io;
    use vfio_zpci_io::Access;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        let words = ["zpci-io"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    #[test]
    fn definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names() {
        let address = Name::Address("0001:00:00.0".parse().unwrap());
        for (text, name) in [
            ("0001:00:00.0", address),
            ("00000010", Name::Fid(0x10)),
            ("0x10", Name::Fid(0x10)),
            ("ffffffff", Name::Fid(u32::MAX)),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for text in ["", "0x", "+10", "1g", "100000000", "1:2", "0001:00:00.8"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_of_instructions() {
        let Ok(Command::Store {
            target,
            len,
            value,
            way,
        }) = parsed("store 0x10 2 4096 8 0xffffffffffffffff --group")
        else {
            panic!("it is a store");
        };
        assert_eq!(
            (target.function, target.bar, target.offset),
            (Name::Fid(16), 2, 0x1000)
        );
        assert_eq!((len, value), (8, u64::MAX));
        assert_eq!(way.access(), Some(Access::Group));
        let Ok(Command::StoreBlock { data, way, .. }) = parsed("store-block 10 2 0x1000 00fFa1")
        else {
            panic!("it is a block");
        };
        assert_eq!(data, Data::Bytes(vec![0, 0xff, 0xa1]));
        assert_eq!(way.access(), None);
    }

    #[test]
    fn mistakes() {
        for line in [
            "",
            "lost",
            "list all",
            "bind",
            "bind 1:2",
            "list --group",
            "info 10 --group --iommufd",
            "--frobnicate",
            "load 10 256 0 8",
            "load 10 -1 0 8",
            "load 10 2 0 65536",
            "load 10 2 0x10000000000000000 8",
            "store-block 10 2 0 123",
            "store-block 10 2 0 1g",
            "demo --force",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_and_version() {
        assert_eq!(
            parsed("--version").unwrap_err().kind(),
            ErrorKind::DisplayVersion
        );
        for command in Cli::command().get_subcommands() {
            let error = parsed(&format!("{} --help", command.get_name())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DisplayHelp);
            let help = error.to_string();
            assert!(help.contains("Usage: zpci-io"), "{help}");
        }
    }

    /// A pipe that nobody reads.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_pipe_is_no_failure() {
        let fake = Fake::new();
        for line in ["list", "info 10", "info 10 --json", "doctor"] {
            let words = ["zpci-io"].into_iter().chain(line.split_whitespace());
            let cli = Cli::try_parse_from(words).unwrap();
            let json = cli.json;
            let failure = run(cli, &fake.host(), &mut Output::new(&mut Closed, json)).unwrap_err();
            assert!(failure.is_closed_pipe(), "{line}: {failure}");
            assert_eq!(failure.code(), 0);
        }
    }

    #[test]
    fn function_that_is_not_there() {
        let fake = Fake::new();
        for name in ["99", "0009:00:00.0"] {
            let (_, result) = fake.run(&format!("info {name}"));
            assert_eq!(result.unwrap_err().code(), 1);
        }
    }

    /// Nothing but the driver with the region is opened: opening resets.
    #[test]
    fn instructions_to_another_driver_s_function() {
        for line in ["load 10 2 0 8", "store 10 2 0 8 1", "store-block 10 2 0 00"] {
            Fake::new()
                .bound("vfio-pci")
                .refused(line, "the driver vfio-pci has it");
            Fake::new().refused(line, "no driver has it");
        }
        Fake::new().refused("stats 10", "no driver has it");
    }

    #[test]
    fn errors_as_json() {
        let error = Failure::Request(vfio_zpci_io::RequestError::Busy);
        let json: serde_json::Value = serde_json::from_str(&error.json()).unwrap();
        assert_eq!(json["code"], 4);
        assert_eq!(json["request"]["errno"], 16);
        assert_eq!(json["request"]["retry_is_safe"], true);
    }
}
