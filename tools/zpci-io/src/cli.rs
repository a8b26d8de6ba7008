// SPDX-License-Identifier: GPL-2.0

//! The command line: the one definition that help, man pages and completions are made from.

use clap::{Args, Parser, Subcommand};
use std::{fmt, path::PathBuf, str::FromStr};
use vfio_zpci_io::{sysfs::Address, Access};

const FUNCTION: &str = "PCI address, like 0001:00:00.0, or function id, like 00000010";

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nobody reads the output any more
  1  failed
  2  the command line was not understood
  3  refused: the function is in use or another driver's
  4  the instruction was not executed; --json tells the errno";

/// List and bind zPCI functions, and have single PCI instructions issued.
///
/// zPCI functions, the PCI functions of s390, are driven by instructions: PCISTB stores a block,
/// PCILG loads and PCISTG stores up to 8 bytes. The driver zpci_vfio_pci issues them for programs
/// that write requests to its VFIO region; this is such a program.
///
/// FUNCTION is a PCI address like 0001:00:00.0, or a function id in hexadecimal like 00000010, as
/// 'list' and /sys/bus/pci/slots show it. Other numbers are decimal, or hexadecimal with 0x.
#[derive(Debug, Parser)]
#[command(name = "zpci-io", version, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print JSON: one value, or one line for each result of 'batch' and 'trace'
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the zPCI functions of this machine
    List,

    /// Show what is known about a function
    ///
    /// Does not open the function unless told to: opening a function that nobody has open resets it.
    /// To see who uses it, looks at the open files of all processes, and opens its disks for a
    /// moment.
    Info {
        #[arg(help = FUNCTION)]
        function: Name,
        /// Open the function and ask VFIO and the zPCI I/O region, too
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        way: Way,
    },

    /// Give a function to the driver zpci_vfio_pci
    ///
    /// Loads the driver's module if need be, and takes the function from the driver that has it.
    /// Refused if something uses the function: a process has it, or a device made of it, open; a
    /// disk of it is mounted or part of something that is in use; a network interface of it is up;
    /// or the driver ism has it, whose users (SMC-D) cannot be seen: ask 'smcd device'.
    Bind {
        #[arg(help = FUNCTION)]
        function: Name,
        /// Take it from whoever uses it
        #[arg(long)]
        force: bool,
    },

    /// Give a function back to its own driver
    ///
    /// Refused if another driver than zpci_vfio_pci has it, or if a process has it open.
    Unbind {
        #[arg(help = FUNCTION)]
        function: Name,
        /// Take it from any driver; if a process has it open, ask for it and wait
        #[arg(long)]
        force: bool,
    },

    /// Load 1, 2, 4 or 8 bytes (PCILG)
    ///
    /// Opens the function, and closes it again: a function that nobody else has open is reset
    /// before and after. For several instructions in a row see 'batch'.
    Load {
        #[command(flatten)]
        target: Target,
        /// How many bytes, within a doubleword of the address space
        #[arg(value_parser = number::<u16>)]
        len: u16,
        #[command(flatten)]
        way: Way,
    },

    /// Store 1, 2, 4 or 8 bytes (PCISTG)
    ///
    /// Opens the function, and closes it again: a function that nobody else has open is reset
    /// before and after. For several instructions in a row see 'batch'.
    Store {
        #[command(flatten)]
        target: Target,
        /// How many bytes, within a doubleword of the address space
        #[arg(value_parser = number::<u16>)]
        len: u16,
        /// The value, whose low-order bytes are stored
        #[arg(value_parser = number::<u64>)]
        value: u64,
        #[command(flatten)]
        way: Way,
    },

    /// Store a block, whole or not at all (PCISTB)
    ///
    /// Opens the function, and closes it again: a function that nobody else has open is reset
    /// before and after. For several instructions in a row see 'batch'.
    StoreBlock {
        #[command(flatten)]
        target: Target,
        /// Hexadecimal digits, or @FILE for the bytes of a file
        data: Data,
        #[command(flatten)]
        way: Way,
    },

    /// Issue several instructions while the function is open
    ///
    /// One instruction a line: 'load BAR OFFSET LEN', 'store BAR OFFSET LEN VALUE' or 'store-block
    /// BAR OFFSET DATA'; empty lines and what follows a # do not count. All lines are read, and
    /// must be understood, before the first instruction is issued. Ends at the first one that
    /// fails.
    Batch {
        #[arg(help = FUNCTION)]
        function: Name,
        /// Where the lines are; standard input if left out
        file: Option<PathBuf>,
        #[command(flatten)]
        way: Way,
    },

    /// Print each instruction that the driver issues, until interrupted
    ///
    /// By the driver's tracepoint, in an instance of tracefs of its own. The condition code of a
    /// program exception is -6.
    Trace {
        #[arg(help = FUNCTION)]
        function: Option<Name>,
    },

    /// Show how requests wait for the device lock
    ///
    /// The numbers which the driver has in debugfs, for one function or for all that it has.
    Stats {
        #[arg(help = FUNCTION)]
        function: Option<Name>,
    },

    /// Check whether this machine has what the zPCI I/O region needs
    ///
    /// The exit code is 1 if something is missing.
    Doctor,

    /// Check whether the region works on a function
    ///
    /// Takes the function as 'bind' does, and gives it back to the driver that had it. Sends requests
    /// that have to be refused, which reach no function; of functions that it knows (ISM, NVMe,
    /// ConnectX) it also loads a register, and asks an ISM function for its name, as their own
    /// drivers do. The exit code is 1 if something is not as it should be.
    Check {
        #[arg(help = FUNCTION)]
        function: Name,
        /// How often the register is loaded, to take the time
        #[arg(long, default_value = "1000", value_parser = number::<u32>)]
        repeat: u32,
        /// Only load the register, by what this driver has in place of the region: a read of the BAR
        ///
        /// To compare with the time that it takes by the region.
        #[arg(long, value_name = "DRIVER", value_parser = ["vfio-pci", "ism_vfio_pci"])]
        with: Option<String>,
    },

    /// Show what the region does, step by step
    ///
    /// Needs an NVMe controller with a memory buffer (BAR 2) and without a disk, and writes to that
    /// memory. Without FUNCTION the first one is taken that nobody uses and no VFIO driver has.
    Demo {
        #[arg(help = FUNCTION)]
        function: Option<Name>,
        /// Take the function from another VFIO driver, or from whoever uses it
        #[arg(long, requires = "function")]
        force: bool,
    },
}

/// Where an instruction goes.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct Target {
    #[arg(help = FUNCTION)]
    pub function: Name,
    /// The PCI address space, 0 to 5
    #[arg(value_parser = number::<u8>)]
    pub bar: u8,
    /// Where in it, in bytes
    #[arg(value_parser = number::<u64>)]
    pub offset: u64,
}

/// How a function is opened.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Way {
    /// Open the function by its VFIO character device and iommufd, as is usual where it has one
    #[arg(long, conflicts_with = "group")]
    iommufd: bool,
    /// Open the function by its VFIO group and a container
    #[arg(long)]
    group: bool,
}

impl Way {
    /// The way that was asked for.
    pub fn access(self) -> Option<Access> {
        match self {
            Self { iommufd: true, .. } => Some(Access::Iommufd),
            Self { group: true, .. } => Some(Access::Group),
            _ => None,
        }
    }
}

/// What a user calls a function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Name {
    Address(Address),
    Fid(u32),
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let digits = text.strip_prefix("0x").unwrap_or(text);
        // from_str_radix also takes a sign.
        match u32::from_str_radix(digits, 16) {
            Ok(fid) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Self::Fid(fid)),
            _ => Err("neither a PCI address like 0001:00:00.0 nor a function id".to_owned()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Fid(fid) => write!(f, "{fid:08x}"),
        }
    }
}

/// The bytes of a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl FromStr for Data {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix('@') {
            return Ok(Self::File(path.into()));
        }
        let byte = |pair: &[u8]| {
            let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
            Some((digit(0)? << 4 | digit(1)?) as u8)
        };
        let bytes = text.as_bytes().chunks(2).map(byte).collect();
        let bytes: Option<Vec<u8>> = bytes;
        bytes
            .map(Self::Bytes)
            .ok_or_else(|| "not pairs of hexadecimal digits".to_owned())
    }
}

/// A decimal or, with 0x, hexadecimal number that fits where it goes.
pub(crate) fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .ok()
    .and_then(|value| T::try_from(value).ok())
    .ok_or_else(|| "not a number that fits here".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap_complete::Shell;
    use std::{collections::BTreeSet, env, fs, path::Path};

    /// Man pages and completions, which packages install, say what this definition says.
    ///
    /// `make tool-docs` runs this with `UPDATE=1`, which writes them anew.
    #[test]
    fn man_pages_and_completions_are_current() {
        let made = env::temp_dir().join(format!("zpci-io-docs.{}", std::process::id()));
        fs::create_dir_all(&made).unwrap();
        let mut command = Cli::command();
        command.build();
        man_pages(&command, &made);
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut Cli::command(), "zpci-io", &made).unwrap();
        }

        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        if env::var_os("UPDATE").is_some() {
            fs::remove_dir_all(&kept).unwrap_or_default();
            fs::create_dir_all(&kept).unwrap();
            for name in names(&made) {
                fs::copy(made.join(&name), kept.join(&name)).unwrap();
            }
        }
        assert_eq!(names(&made), names(&kept), "write them: make tool-docs");
        for name in names(&made) {
            let text = |directory: &Path| fs::read_to_string(directory.join(&name)).unwrap();
            assert_eq!(text(&made), text(&kept), "{name} is old: make tool-docs");
        }
        fs::remove_dir_all(&made).unwrap();
    }

    /// `zpci-io.8`, and a page for each command.
    fn man_pages(command: &clap::Command, directory: &Path) {
        for command in [command].into_iter().chain(command.get_subcommands()) {
            let man = clap_mangen::Man::new(command.clone())
                .section("8")
                .date("2026-11-25")
                .source(concat!("zpci-io ", env!("CARGO_PKG_VERSION")));
            let mut text = Vec::new();
            man.render(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let text = text.replace(".SH EXTRA\nExit codes:\n", ".SH EXIT STATUS\n");
            fs::write(directory.join(man.get_filename()), text).unwrap();
        }
    }

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }
}
