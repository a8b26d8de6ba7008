// SPDX-License-Identifier: GPL-2.0

//! What has to be said more than once, held together: each number of the driver, by the one place where
//! it is defined; each errno, by the tables of the page of the region.
//!
//! Who changes one finds here, or by the failure, what else says it.

use crate::promises::{flowing, read};
use std::collections::BTreeMap;
use vfio_zpci_io::{
    abi::{Request, BLOCKW},
    Answer, Exception, RequestError,
};

const REGION: &str = "Documentation/arch/s390/vfio-zpci-io.rst";
const LOCKING: &str = "Documentation/arch/s390/vfio-zpci-io-locking.rst";
const HEADER: &str = "include/uapi/linux/vfio_zpci_io.h";
const CLIENT: &str = "tools/vfio-zpci-io/src/abi.rs";
const LAYOUT: &str = "drivers/vfio/pci/zpci/request.rs";
const QEMU: &str = "tools/qemu/patches/0029-s390x-pci-Use-the-zPCI-I-O-region-of-vfio-pci.patch";
const IMPORT: &str = "tools/qemu/patches/0028-linux-headers-Add-vfio_zpci_io.h.patch";

/// A number, where it is defined, and who repeats it: a file, and words with `{}` in the place of the
/// number.
struct Number {
    defined: (&'static str, &'static str),
    repeated: &'static [(&'static str, &'static str)],
}

const NUMBERS: &[Number] = &[
    Number {
        defined: (LAYOUT, "const BLOCK_BOUNDARY: u64 = {};"),
        repeated: &[
            (
                HEADER,
                "longest block a request may store, in bytes (at most {})",
            ),
            (CLIENT, "pub const PAGE_SIZE: usize = {};"),
            (REGION, "what the function takes, at most {}."),
            (
                "tools/testing/request/src/model.rs",
                "(1..=limits.max.min({}))",
            ),
        ],
    },
    Number {
        defined: (LAYOUT, "const REGION_SIZE: usize = {};"),
        repeated: &[
            (CLIENT, "pub const REGION_SIZE: u64 = {};"),
            (REGION, "It is {} bytes long"),
        ],
    },
    Number {
        defined: (LAYOUT, "const HEADER_SIZE: usize = {};"),
        repeated: &[(CLIENT, "pub const HEADER_SIZE: usize = {};")],
    },
    Number {
        defined: (LAYOUT, "const REQUEST_OFFSET: u64 = {};"),
        repeated: &[
            (CLIENT, "pub const REQUEST_POSITION: u64 = {};"),
            (REGION, "Request, written at offset {} with one pwrite()"),
            (REGION, "Position not {} or count not"),
        ],
    },
    Number {
        defined: (LAYOUT, "const REQUEST_SIZE: usize = {};"),
        repeated: &[
            (CLIENT, "pub const REQUEST_SIZE: usize = {};"),
            (REGION, "with one pwrite() of exactly {} bytes"),
            (REGION, "describes one instruction in {} bytes"),
            (
                REGION,
                "A write returns {} and advances the file position by {}.",
            ),
            ("README.md", "write {} bytes, and the module checks them"),
            (
                "Documentation/arch/s390/vfio-zpci-io-cost.rst",
                "A request is a system call that copies {} bytes",
            ),
        ],
    },
    Number {
        defined: (HEADER, "#define VFIO_REGION_SUBTYPE_IBM_ZPCI_IO ({})"),
        repeated: &[
            (CLIENT, "pub const REGION_SUBTYPE: u32 = {};"),
            (REGION, "``VFIO_REGION_SUBTYPE_IBM_ZPCI_IO`` ({})"),
        ],
    },
    Number {
        defined: (CLIENT, "pub const PCI_VENDOR_ID_IBM: u32 = {};"),
        repeated: &[
            (HEADER, "vendor PCI_VENDOR_ID_IBM ({})"),
            (REGION, "``VFIO_REGION_TYPE_PCI_VENDOR_TYPE | {}``"),
            (
                "samples/vfio-zpci-io/store-and-load.c",
                "#define PCI_VENDOR_ID_IBM {}U",
            ),
        ],
    },
    Number {
        defined: (
            "rust/vfio/lease.rs",
            "const PATIENCE: Delta = Delta::from_secs({});",
        ),
        repeated: &[
            (
                "rust/vfio/lease.rs",
                "fn waiting_ends_after_{}_seconds_when_it_is_not",
            ),
            (REGION, "Somebody else held the device lock for {} s"),
            (LOCKING, "The wait is killable and ends after {} s with"),
            (LOCKING, "It ends by itself after {} s."),
            (
                "tools/testing/lifecycle/src/closing.rs",
                "than the {} s after which a request gives up",
            ),
            (
                "tools/testing/lifecycle/src/block.rs",
                "than the {} s after which a request gives up",
            ),
        ],
    },
    Number {
        defined: (
            "rust/vfio/zpci.rs",
            "const BUSY_TIME: Delta = Delta::from_millis({});",
        ),
        repeated: &[
            ("rust/vfio/device.rs", "stayed busy for at least {} ms and"),
            (REGION, "stayed busy (condition code 2) for at least {} ms"),
            (REGION, "``EBUSY`` after at least {} ms"),
            (
                "tools/testing/ism/src/refused.rs",
                "BUSY_TIME: Duration = Duration::from_millis({});",
            ),
            ("tools/testing/twin/twin.c", "ktime_add_ms(ktime_get(), {})"),
        ],
    },
    Number {
        defined: ("rust/vfio/zpci.rs", "const BUSY_TRIES: u32 = {};"),
        repeated: &[
            ("rust/vfio/device.rs", "ms and {} calls of `f`"),
            (REGION, "and {} attempts, or for"),
            (
                "tools/testing/ism/src/refused.rs",
                "const BUSY_TRIES: u64 = {};",
            ),
            ("tools/testing/twin/twin.c", "*tries < {} ||"),
        ],
    },
    Number {
        defined: (
            "rust/vfio/zpci.rs",
            "const BUSY_LIMIT: Delta = Delta::from_secs({});",
        ),
        repeated: &[
            ("rust/vfio/device.rs", "calls of `f`, or for {} s."),
            (REGION, "attempts, or for {} s."),
            (
                REGION,
                "attempts at a busy function, which go on for {} s at most",
            ),
            (
                "tools/testing/ism/src/refused.rs",
                "BUSY_LIMIT: Duration = Duration::from_secs({});",
            ),
        ],
    },
    Number {
        defined: ("drivers/vfio/pci/zpci/bars.rs", "const CHUNK: usize = {};"),
        repeated: &[
            (REGION, "with one lease ({} bytes, the worst aligned)"),
            (LOCKING, "of a read of {} bytes of a BAR"),
        ],
    },
    Number {
        defined: (
            "drivers/vfio/pci/zpci/main.rs",
            "const DEVICE_ID_IBM_ISM: u16 = {};",
        ),
        repeated: &[(
            "tools/zpci-io/src/check.rs",
            "const IBM_ISM: (u64, u64) = (0x1014, {});",
        )],
    },
];

/// The number in a file, and how often these words are there with it.
fn defined(file: &str, words: &str) -> String {
    let text = flowing(&read(file));
    let (before, after) = words.split_once("{}").expect("a place for the number");
    let found = text.split_once(before).map(|(_, rest)| rest);
    let number = found.and_then(|rest| rest.split_once(after));
    let (number, _) = number.unwrap_or_else(|| panic!("{file} does not say: {words}"));
    number.to_owned()
}

#[test]
fn numbers_are_those_of_the_driver() {
    let mut objections = Vec::new();
    for number in NUMBERS {
        let (file, words) = number.defined;
        let value = defined(file, words);
        for (file, words) in number.repeated {
            let words = words.replace("{}", &value);
            if !flowing(&read(file)).contains(words.trim()) {
                objections.push(format!("{file} does not say: {words}"));
            }
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
}

/// The rows of a table in a page: cells by the columns that its ruler has.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let lines: Vec<_> = page.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.trim_start().starts_with(head));
    let at = at.unwrap_or_else(|| panic!("no table begins with {head}"));
    let ruler = lines[at - 1];
    let mut starts: Vec<_> = ruler.match_indices(" =").map(|(at, _)| at + 1).collect();
    if ruler.starts_with('=') {
        starts.insert(0, 0);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in &lines[at + 2..] {
        if line.trim_start().starts_with("==") {
            break;
        }
        let ends = starts[1..].iter().copied().chain([line.len()]);
        let cells = starts.iter().zip(ends);
        let cells = cells.map(|(&start, end)| {
            line.get(start..end.min(line.len()))
                .unwrap_or_default()
                .trim()
        });
        let cells: Vec<_> = cells.collect();
        match rows.last_mut() {
            Some(row) if cells[0].is_empty() => {
                for (cell, more) in row.iter_mut().zip(cells) {
                    *cell = format!("{cell} {more}").trim().to_owned();
                }
            }
            _ => rows.push(cells.into_iter().map(str::to_owned).collect()),
        }
    }
    rows
}

/// All errnos that the client knows, by their names.
fn errnos() -> BTreeMap<String, RequestError> {
    let known = (1..134).map(RequestError::from_errno);
    known
        .filter(|error| !matches!(error, RequestError::Other(_)))
        .map(|error| {
            let text = error.to_string();
            let name = text
                .split_once('(')
                .and_then(|(_, name)| name.split_once(')'));
            let (name, _) = name.unwrap_or_else(|| panic!("without a name: {text}"));
            (name.to_owned(), error)
        })
        .collect()
}

#[test]
fn the_client_has_the_errnos_of_the_document() {
    let mut errnos = errnos();
    for row in table(&read(REGION), "Error ") {
        let name = row[0].trim_matches('`');
        let error = errnos.remove(name);
        let error = error.unwrap_or_else(|| panic!("the client does not know {name}"));
        assert_eq!(error.issued(), row[2] != "No", "{name}: issued?");
        assert_eq!(error.retry_is_safe(), row[3] == "Yes", "{name}: retry?");
    }
    assert!(errnos.is_empty(), "not documented: {errnos:?}");
}

/// The answer that words of the document describe.
fn answer(words: &str, request: &Request) -> Answer {
    let number = |name: &str| {
        let (_, rest) = words.split_once(name)?;
        rest.trim_start().split([',', ' ']).next()?.parse().ok()
    };
    if let Some(code) = number("condition code") {
        return Answer::ConditionCode {
            code,
            status: number("status").unwrap_or(0),
        };
    }
    let Some((_, exceptions)) = words.split_once("program exception: ") else {
        panic!("not understood: {words}");
    };
    let (block, other) = exceptions
        .split_once(" for BLOCKW, else ")
        .unwrap_or((exceptions, exceptions));
    let exception = if request.flags == BLOCKW {
        block
    } else {
        other
    };
    Answer::Exception(match exception.split([',', ';']).next() {
        Some("addressing") => Exception::Addressing,
        Some("operand") => Exception::Operand,
        Some("specification") => Exception::Specification,
        _ => panic!("not understood: {words}"),
    })
}

#[test]
fn the_client_answers_as_the_document_says() {
    let mut errnos = errnos();
    let rows = table(&read(REGION), "Result ");
    for row in rows.iter().filter(|row| row[0] != "32") {
        for name in row[0].split(", ") {
            let error = errnos.remove(name);
            let error = error.unwrap_or_else(|| panic!("the client does not know {name}"));
            for request in [Request::block(2, 0, 0, 16), Request::load(2, 0, 0, 8)] {
                assert_eq!(error.answer(&request), answer(&row[1], &request), "{name}");
            }
        }
    }
    // Nobody is left to answer.
    assert_eq!(errnos.into_keys().collect::<Vec<_>>(), ["EINTR"]);
}

/// What a patch adds, without indentation.
fn added(patch: &str) -> String {
    let patch = read(patch);
    let lines = patch.lines().filter_map(|line| line.strip_prefix('+'));
    lines
        .map(|line| line.trim_start().to_owned() + "\n")
        .collect()
}

/// What the client in QEMU answers to this errno: the case of its switch, or the default.
fn answer_of_qemu(function: &str, name: &str, request: &Request) -> Answer {
    let case = format!("case -{name}:\n");
    let (_, rest) = function
        .split_once(&case)
        .or_else(|| function.split_once("default:\n"))
        .expect("a default");
    let (statements, _) = rest.split_once("break;").expect("its end");
    let has = |words: &str| statements.contains(words);
    if has("s390_program_interrupt(") {
        // What is illegal is for the caller to say.
        return Answer::Exception(match has("illegal") && request.flags == BLOCKW {
            true => Exception::Specification,
            false => Exception::Operand,
        });
    }
    let (code, status) = match () {
        () if has("ZPCI_PCI_LS_BUSY") => (2, 0),
        () if has("ZPCI_PCI_LS_INVAL_HANDLE") => (3, 0),
        () if has("ZPCI_PCI_ST_FUNC_IN_ERR") => (1, 8),
        () if has("ZPCI_PCI_ST_BLOCKED") => (1, 12),
        () => panic!("{name}: not understood: {statements}"),
    };
    Answer::ConditionCode { code, status }
}

/// Most of it can be seen in a guest, see rungs bare and guest. But memory of the host that is short
/// would be so for QEMU, too, and what QEMU hands over is there.
#[test]
fn qemu_answers_as_the_document_says() {
    let qemu = added(QEMU);
    let (_, function) = qemu
        .split_once("static void zpci_io_failed(")
        .expect("the function");
    let (function, _) = function.split_once("\n}\n").expect("its end");
    for (name, error) in errnos() {
        // The operand is a buffer of QEMU, not memory of the guest.
        let error = match error {
            RequestError::Fault => RequestError::Disabled,
            error => error,
        };
        for request in [Request::block(2, 0, 0, 16), Request::load(2, 0, 0, 8)] {
            let answer = answer_of_qemu(function, &name, &request);
            assert_eq!(answer, error.answer(&request), "{name}");
        }
    }
    for (illegal, callers) in [("PGM_SPECIFICATION", 1), ("PGM_OPERAND", 2)] {
        let calls = qemu.lines().filter(|line| {
            line.starts_with("zpci_io_failed(") && line.contains(&format!("ret, {illegal}"))
        });
        assert_eq!(calls.count(), callers, "{illegal}");
    }
}

/// A line of a header as `scripts/headers_install.sh` of the kernel makes it for programs: of what that
/// changes, our header has the name of its guard alone.
fn exported(line: &str) -> String {
    for before in ["#ifndef ", "#define ", "#endif /* "] {
        if let Some(name) = line.strip_prefix(&format!("{before}_UAPI")) {
            return format!("{before}{name}");
        }
    }
    line.to_owned()
}

/// Else the region would be one thing to the host, and another to QEMU.
#[test]
fn qemu_has_the_header_of_the_kernel() {
    let kernel = read(HEADER);
    for changed in [
        "__user",
        "__force",
        "__iomem",
        "__packed",
        "__attribute_const__",
        "__KERNEL__",
        "__EXPORTED_HEADERS__",
        "__ASSEMBLY__",
        "linux/compiler.h",
        "inline",
        "asm",
        "volatile",
    ] {
        assert!(!kernel.contains(changed), "{changed}: see exported()");
    }
    let patch = read(IMPORT);
    let (_, file) = patch
        .split_once("+++ b/linux-headers/linux/vfio_zpci_io.h\n@@ -0,0 ")
        .expect("a new file");
    let lines = file.lines().skip(1);
    let copy: Vec<_> = lines
        .map(|line| line.strip_prefix('+').expect("no other file"))
        .collect();
    let kernel: Vec<_> = kernel.lines().map(exported).collect();
    assert_eq!(copy, kernel);
}
