// SPDX-License-Identifier: GPL-2.0

//! BARs that cannot be mapped, as regions: the same client on `ism-vfio-pci` and on our driver.
//!
//! Each test is something that the client does and what it sees. It must see the same with both
//! drivers, except for the differences that the documentation names, which must be as it says.

use crate::{
    calls,
    client::{show, Client, Lines, CONFIG},
    ism::{self, pattern, Buffer},
    machine::{self, ism::GIDS, ism::PAIR, nvme},
    trace,
};
use booted::{Mapping, PAGE};
use ktap::{guarded, test, Outcome, Test};
use rustix::{
    event::{eventfd, EventfdFlags},
    io::{preadv, pwritev, Errno},
};
use std::io::{IoSlice, IoSliceMut};
use vfio_zpci_io::{sysfs, Access, Device};

/// The driver of mainline.
const PEER: &str = "ism_vfio_pci";

/// What the client works with.
struct Setup {
    owner: Client,
    sender: Client,
    refuses: Client,
    gone: Client,
}

impl Setup {
    fn new(driver: &str) -> Self {
        let [owner, sender] = PAIR.map(|fid| Client::open(fid, driver));
        Self {
            owner,
            sender,
            refuses: Client::open(machine::ism::REFUSES, driver),
            gone: Client::open(machine::ism::GONE, driver),
        }
    }
}

struct Observation {
    name: &'static str,
    run: fn(&Setup) -> String,
    /// What the client sees with the peer and with our driver, if that is not the same.
    differs: Option<(&'static str, &'static str)>,
}

const fn same(name: &'static str, run: fn(&Setup) -> String) -> Observation {
    Observation {
        name,
        run,
        differs: None,
    }
}

const fn differs(
    name: &'static str,
    run: fn(&Setup) -> String,
    peer: &'static str,
    ours: &'static str,
) -> Observation {
    Observation {
        name,
        run,
        differs: Some((peer, ours)),
    }
}

const OBSERVATIONS: &[Observation] = &[
    same("regions of BARs and configuration space", |s| {
        let mut lines = Lines::default();
        for index in [0, 1, 2, 3, 4, 5, CONFIG] {
            let region = s.owner.device.region(index).expect("region info");
            let Some(offset) = region.offset.checked_sub(u64::from(index) << 48) else {
                panic!("region {index} is at {:#x}", region.offset);
            };
            lines.add(
                index,
                format!("{offset:#x} {:#x} {:#x}", region.size, region.flags),
            );
        }
        lines.0
    }),
    same("no two regions overlap", |s| {
        let regions = s.owner.device.regions().expect("regions");
        for (at, one) in regions.iter().enumerate() {
            assert!(one
                .offset
                .checked_add(one.size)
                .is_some_and(|end| end < 1 << 63));
            for other in &regions[at + 1..] {
                let apart = one.offset + one.size <= other.offset
                    || other.offset + other.size <= one.offset
                    || one.size == 0
                    || other.size == 0;
                assert!(apart, "{one:x?} and {other:x?}");
            }
        }
        String::new()
    }),
    differs(
        "the region of the expansion ROM",
        |s| match s.owner.device.region(6) {
            Ok(region) => format!("size {}, flags {}", region.size, region.flags),
            Err(error) => error.to_string(),
        },
        "VFIO_DEVICE_GET_REGION_INFO: Invalid argument (os error 22)",
        "size 0, flags 0",
    ),
    differs(
        "number of regions",
        |s| s.owner.device.info().expect("info").num_regions.to_string(),
        "9",
        "10",
    ),
    same("interrupts, flags and capabilities of the device", |s| {
        let info = s.owner.device.info().expect("info");
        // Those with the function's handle tell which reset it has last seen.
        let capabilities: Vec<_> = info
            .capabilities
            .iter()
            .map(|c| (c.id, c.version))
            .collect();
        format!("{} {:#x} {capabilities:?}", info.num_irqs, info.flags)
    }),
    same("configuration space: any length, any alignment", |s| {
        let mut lines = Lines::default();
        for at in 0..8 {
            for len in 1..=16 {
                lines.add(
                    format!("{len} at {at}"),
                    show(s.owner.read(CONFIG, at, len)),
                );
            }
        }
        lines.0
    }),
    same("configuration space: its end", |s| {
        let mut lines = Lines::default();
        let size = s.owner.device.region(CONFIG).expect("it is there").size;
        for at in [size - 4, size - 1, size, 1 << 20, 1 << 40, (1 << 48) - 1] {
            for len in [1, 4, 8] {
                lines.add(
                    format!("{len} at {at:#x}"),
                    show(s.owner.read(CONFIG, at, len)),
                );
                let zeroes = vec![0; len];
                let written = show(s.owner.write(CONFIG, at, &zeroes));
                lines.add(format!("{len} to {at:#x}"), written);
            }
        }
        lines.0
    }),
    same("regions that are not there", |s| {
        let mut lines = Lines::default();
        for index in [1, 3, 4, 5, 6, 8, 10, 11, 100, 127] {
            for offset in [0, 8, 1 << 40, (1 << 48) - 8] {
                let position = index << 48 | offset;
                let read = rustix::io::pread(&s.owner.device, &mut [0; 8], position);
                let written = rustix::io::pwrite(&s.owner.device, &[0; 8], position);
                let name = format!("{offset:#x} of {index}");
                lines.add(name, format!("{} {}", show(read), show(written)));
            }
        }
        lines.0
    }),
    same("commands", |s| {
        let mut lines = Lines::default();
        for client in [&s.owner, &s.sender] {
            lines.add("READ_GID", show(ism::command(client, ism::READ_GID, &[])));
            lines.add(
                "QUERY_INFO",
                show(ism::command(client, ism::QUERY_INFO, &[])),
            );
            lines.add(
                "wrong length",
                show(ism::command(client, ism::READ_GID, &[0])),
            );
        }
        lines.0
    }),
    same("loads of any length at any alignment", |s| {
        let mut lines = Lines::default();
        let block = pattern(64);
        assert_eq!(s.owner.write(2, 0x80, &block), Ok(64));
        for at in 0..8 {
            for len in 1..=33 {
                let read = s.owner.read(2, 0x80 + at as u64, len);
                assert_eq!(read.as_deref(), Ok(&block[at..at + len]), "{len} at {at}");
                lines.add(format!("{len} at {at}"), show(read));
            }
        }
        lines.0
    }),
    same("loads at the end of a BAR", |s| {
        let mut lines = Lines::default();
        assert_eq!(s.owner.write(2, 0xe0, &pattern(32)), Ok(32));
        for at in [0xf0, 0xf8, 0xff, 0x100, 0x101, 1 << 40, (1 << 48) - 1] {
            for len in [1, 8, 16, 4096, 70000] {
                lines.add(format!("{len} at {at:#x}"), show(s.owner.read(2, at, len)));
            }
        }
        lines.0
    }),
    same("blocks of any length at any alignment", |s| {
        let mut lines = Lines::default();
        for at in 0..8 {
            for len in 1..=33 {
                assert_eq!(s.owner.write(2, 0x80, &[0; 64]), Ok(64));
                let written = show(s.owner.write(2, 0x80 + at, &pattern(len)));
                let stored = show(s.owner.read(2, 0x80, 64));
                lines.add(format!("{len} at {at}"), format!("{written} {stored}"));
            }
        }
        lines.0
    }),
    same("blocks move into the buffer of another function", |s| {
        let mut lines = Lines::default();
        let buffer = Buffer::register(&s.owner, GIDS[1]);
        for (len, at) in [(1, 0), (3, 5), (11, 0x1235), (4096, 0x2000), (100, 0x3f9c)] {
            let block = pattern(len);
            let written = show(s.sender.write(0, buffer.at(at as u64), &block));
            assert_eq!(buffer.read(at, len), block, "{len} bytes at {at:#x}");
            lines.add(format!("{len} at {at:#x}"), written);
        }
        lines.0
    }),
    same("blocks that are too long", |s| {
        let mut lines = Lines::default();
        for (len, at) in [
            (4097, 0),
            (4096, 1),
            (2, 4095),
            (65536, 0),
            (65537, 0),
            (1 << 20, 0),
        ] {
            let written = show(s.owner.write(0, at, &vec![0; len]));
            lines.add(format!("{len} at {at}"), written);
        }
        lines.0
    }),
    same("loads of a BAR that has only blocks", |s| {
        let mut lines = Lines::default();
        for at in [0, 4, 1 << 40, (1 << 48) - 8] {
            lines.add(format!("{at:#x}"), show(s.owner.read(0, at, 8)));
        }
        lines.0
    }),
    differs(
        "a block which reaches beyond the end of a BAR",
        |s| {
            assert_eq!(s.owner.write(2, 0xf8, &[0; 8]), Ok(8));
            let written = show(s.owner.write(2, 0xfc, &pattern(8)));
            format!("{written}, then {}", show(s.owner.read(2, 0xf8, 8)))
        },
        "4, then [0, 0, 0, 0, 1, 2, 3, 4]",
        "EINVAL, then [0, 0, 0, 0, 0, 0, 0, 0]",
    ),
    same("a block at the end of a BAR and behind it", |s| {
        let mut lines = Lines::default();
        lines.add("last", show(s.owner.write(2, 0xf8, &[0; 8])));
        for at in [0x100, 0x1000, 1 << 40, (1 << 48) - 8] {
            lines.add(format!("{at:#x}"), show(s.owner.write(2, at, &[0; 8])));
        }
        lines.0
    }),
    differs(
        "a block that the function refuses, anywhere in 2^48 bytes",
        |s| {
            let mut seen: Vec<_> = [0, 1 << 40, 9 << 40 | 16, (1 << 48) - 4096, (1 << 48) - 1]
                .into_iter()
                .map(|at| show(s.sender.write(0, at, &[0; 1])))
                .collect();
            seen.dedup();
            seen.join(" ")
        },
        "EIO",
        "EREMOTEIO",
    ),
    differs(
        "a function that refuses everything",
        |s| refusals(&s.refuses),
        "EIO EIO",
        "EREMOTEIO EREMOTEIO",
    ),
    differs(
        "a function that does not know its handle",
        |s| refusals(&s.gone),
        "EIO EIO",
        "ENODEV ENODEV",
    ),
    differs(
        "memory space is disabled",
        |s| {
            s.owner.device.enable_memory(false).expect("memory off");
            let seen = refusals(&s.owner);
            s.owner.device.enable_memory(true).expect("memory on");
            seen
        },
        "32 [0, 0, 0, 0, 0, 0, 0, 0]",
        "EIO EIO",
    ),
    same("a buffer that ends before the bytes do", |s| {
        let (bytes, room) = (200, 150);
        let memory = Mapping::pages(2);
        memory.guard(PAGE);
        let position = s.owner.position(2, 0);
        show(calls::pread_to(
            &s.owner.device,
            &memory,
            PAGE - room,
            bytes,
            position,
        ))
    }),
    same("buffers where nothing is mapped", |s| {
        let mut lines = Lines::default();
        for len in [1, 8, 100] {
            for offset in [0x80, 0x81] {
                let position = s.owner.position(2, offset);
                let read = calls::pread_to_nowhere(&s.owner.device, len, position);
                let written = calls::pwrite_from_nowhere(&s.owner.device, len, position);
                let name = format!("{len} at {offset:#x}");
                lines.add(name, format!("{} {}", show(read), show(written)));
            }
        }
        lines.0
    }),
    same("nothing is read, nothing is written", |s| {
        let mut lines = Lines::default();
        for (region, offset) in [(0, 0), (1, 0), (2, 0), (2, 255), (2, 256), (CONFIG, 0)] {
            let read = show(s.owner.read(region, offset, 0));
            let written = show(s.owner.write(region, offset, &[]));
            lines.add(format!("{offset} of {region}"), format!("{read} {written}"));
        }
        lines.0
    }),
    same("vectors", |s| {
        let mut lines = Lines::default();
        let block = pattern(24);
        let parts = [&block[..16], &block[16..]].map(IoSlice::new);
        let position = s.owner.position(2, 0x80);
        lines.add("pwritev", show(pwritev(&s.owner.device, &parts, position)));
        let (mut first, mut second) = ([0; 5], [0; 19]);
        let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        lines.add(
            "preadv",
            show(preadv(&s.owner.device, &mut parts, position)),
        );
        lines.add("bytes", show(Ok([&first[..], &second].concat())));
        // Served by the core, part after part.
        let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let position = s.owner.position(CONFIG, 0);
        let read = preadv(&s.owner.device, &mut parts, position);
        lines.add("preadv of configuration space", show(read));
        lines.add("bytes", show(Ok([&first[..], &second].concat())));
        lines.0
    }),
    same("mmap", |s| {
        let mut lines = Lines::default();
        for region in [0, 2, CONFIG] {
            let mapped = calls::mmap(&s.owner.device, s.owner.position(region, 0));
            lines.add(region, show(mapped));
        }
        lines.0
    }),
    differs(
        "VFIO_DEVICE_IOEVENTFD",
        |s| {
            let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
            [(0, 0), (0, 2 << 40), (2, 0)]
                .map(|(region, offset)| {
                    let position = s.owner.position(region, offset);
                    show(calls::ioeventfd(&s.owner.device, position, &event))
                })
                .join(" ")
        },
        "ENODEV ENODEV EINVAL",
        "EINVAL EINVAL EINVAL",
    ),
    same("VFIO_DEVICE_RESET", |s| {
        let mut lines = Lines::default();
        lines.add(
            "reset",
            s.owner
                .device
                .reset()
                .map_or_else(|e| e.to_string(), |()| "done".into()),
        );
        lines.add("READ_GID", show(ism::command(&s.owner, ism::READ_GID, &[])));
        lines.0
    }),
];

/// What a block and a load of commands get.
fn refusals(client: &Client) -> String {
    let written = show(client.write(2, 0x80, &[0; 32]));
    format!("{written} {}", show(client.read(2, 0x80, 8)))
}

/// What the client sees with one driver, or why it cannot go on: for each observation.
fn observe(driver: &str, chosen: &[&Observation]) -> Vec<Result<String, String>> {
    if chosen.is_empty() {
        return Vec::new();
    }
    let setup = guarded(|| Setup::new(driver));
    chosen
        .iter()
        .map(|observation| match &setup {
            Ok(setup) => guarded(|| (observation.run)(setup)),
            Err(error) => Err(error.clone()),
        })
        .map(|seen| seen.map(|text| text.trim_end().to_owned()))
        .map(|seen| seen.map_err(|error| format!("with {driver}: {error}")))
        .collect()
}

pub(crate) fn tests(filter: &str) -> Vec<Test> {
    let title = |observation: &Observation| format!("BARs: {}", observation.name);
    let chosen: Vec<_> = OBSERVATIONS
        .iter()
        .filter(|observation| title(observation).contains(filter))
        .collect();
    // The functions change the driver once, not with each test.
    let peer = observe(PEER, &chosen);
    let ours = observe(sysfs::DRIVER, &chosen);
    let seen = peer.into_iter().zip(ours);
    let compared = chosen
        .into_iter()
        .zip(seen)
        .map(|(observation, (peer, ours))| {
            test(title(observation), move || {
                compare(observation, &peer, &ours)
            })
        });
    let own = [
        test(
            "BARs: a write is one instruction, a read as few as it takes",
            instructions,
        ),
        test("BARs: EBUSY: a function that is always busy", busy),
        test(
            "BARs: a load is not repeated because of the one after it",
            busy_each_second,
        ),
        test(
            "BARs that can be mapped keep the layout of the core",
            core_layout,
        ),
    ];
    compared.chain(own).collect()
}

fn compare(
    observation: &Observation,
    peer: &Result<String, String>,
    ours: &Result<String, String>,
) -> Outcome {
    let seen =
        |result: &Result<String, String>| result.clone().unwrap_or_else(|error| panic!("{error}"));
    let (peer, ours) = (seen(peer), seen(ours));
    if let Some((documented_peer, documented_ours)) = observation.differs {
        assert_eq!(peer, documented_peer, "{PEER}");
        assert_eq!(ours, documented_ours, "{}", sysfs::DRIVER);
        return Ok(());
    }
    for (peer, ours) in peer.lines().zip(ours.lines()) {
        assert_eq!(ours, peer, "ours and that of {PEER}");
    }
    assert_eq!(ours, peer);
    Ok(())
}

fn instructions() -> Outcome {
    let client = Client::open(PAIR[0], sysfs::DRIVER);
    let (written, issued) = trace::during(PAIR[0], || client.write(2, 0x81, &pattern(99)));
    assert_eq!(written, Ok(99));
    let issued: Vec<_> = issued
        .iter()
        .map(|i| (i.name.as_str(), i.space, i.offset, i.len))
        .collect();
    assert_eq!(issued, [("PCISTB", 2, 0x81, 99)]);

    let (read, issued) = trace::during(PAIR[0], || client.read(2, 0x81, 24));
    assert_eq!(read, Ok(pattern(24)));
    let issued: Vec<_> = issued.iter().map(|i| (i.offset, i.len)).collect();
    assert_eq!(
        issued,
        [
            (0x81, 1),
            (0x82, 2),
            (0x84, 4),
            (0x88, 8),
            (0x90, 8),
            (0x98, 1)
        ]
    );
    Ok(())
}

/// The peer would wait for ever.
fn busy() -> Outcome {
    let client = Client::open(machine::ism::BUSY, sysfs::DRIVER);
    assert_eq!(client.write(2, 0x80, &[0; 32]), Err(Errno::BUSY));
    assert_eq!(client.read(2, 0x80, 8), Err(Errno::BUSY));
    Ok(())
}

/// What a load has taken from the function is kept while the next one finds it busy.
fn busy_each_second() -> Outcome {
    let client = Client::open(machine::ism::BUSY_EACH_SECOND, sysfs::DRIVER);
    assert_eq!(client.write(2, 0x80, &pattern(24)), Ok(24));
    let (read, issued) = trace::during(machine::ism::BUSY_EACH_SECOND, || client.read(2, 0x80, 24));
    assert_eq!(read, Ok(pattern(24)));
    let done: Vec<_> = issued
        .iter()
        .filter(|i| i.cc == 0)
        .map(|i| i.offset)
        .collect();
    assert_eq!(done, [0x80, 0x88, 0x90]);
    assert!(issued.iter().any(|i| i.cc == 2), "it was busy");
    Ok(())
}

fn core_layout() -> Outcome {
    let function = machine::function(nvme::PLAIN);
    for driver in ["vfio-pci", sysfs::DRIVER] {
        function.bind(driver).expect("the driver takes it");
        let device = Device::open(&function.address(), Access::Iommufd).expect("it can be opened");
        for region in device.regions().expect("regions") {
            assert_eq!(region.offset, u64::from(region.index) << 40, "{driver}");
        }
    }
    Ok(())
}
