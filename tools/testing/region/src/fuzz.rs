// SPDX-License-Identifier: GPL-2.0

//! Random requests and random accesses of the device's file, from several threads. What comes of
//! each is compared with a model: the outcome, the memory of the process, the memory of the
//! function. Every outcome the model knows has to occur.
//!
//! `FUZZ_SEED` says which ones, `FUZZ_REQUESTS` how many.

use crate::{
    fixture::{Fixture, BAR, CONFIG_SPACE},
    positions::{pread_to, pwrite_from},
    test, Test,
};
use booted::{Mapping, PAGE};
use ktap::note;
use request::model::{Fields, Kind, Limits, Rule};
use rustix::{
    io::{pread, pwrite, pwritev, Errno},
    mm::{Advice, MprotectFlags},
};
use std::{
    collections::BTreeMap,
    env, fmt,
    io::IoSlice,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};
use vfio_zpci_io::abi::{HEADER_SIZE, REQUEST_POSITION, REQUEST_SIZE};

pub(crate) const TESTS: &[Test] = &[test(
    "fuzz: what comes of random requests is what the rules say",
    |f| {
        let requests = number("FUZZ_REQUESTS").unwrap_or(if f.long { MANY } else { ENOUGH });
        let seed = number("FUZZ_SEED").unwrap_or_else(now);
        note(&format!("FUZZ_SEED={seed} FUZZ_REQUESTS={requests}"));
        let tally = fuzz(f, seed, requests);
        let never: Vec<_> = all_rows()
            .into_iter()
            .filter(|row| !tally.contains_key(row))
            .collect();
        for (row, count) in &tally {
            note(&format!("{count:8} {row}"));
        }
        assert!(never.is_empty(), "never happened: {never:?}");
        Ok(())
    },
)];

/// So many steps are enough for every outcome to occur many times.
const ENOUGH: u64 = 1 << 14;
/// For a long test.
const MANY: u64 = 1 << 20;
const THREADS: u64 = 4;
/// In one of so many rounds the function's memory space is disabled.
const ROUNDS: u64 = 8;

/// Where the parts of the BAR are in which threads store, each in its own.
const AREAS: u64 = 0x8_0000;
const AREA: usize = 4 * PAGE;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// How often something happened, by what it was.
type Tally = BTreeMap<String, u64>;

/// Everything that must happen.
fn all_rows() -> Vec<String> {
    let mut rows = vec![row(None, &Expected::Broken(vec![Rule::Flags]))];
    for kind in [Kind::Load, Kind::Block, Kind::Store] {
        let broken = Rule::ALL
            .into_iter()
            .filter(|&rule| rule != Rule::Flags)
            .map(|rule| Expected::Broken(vec![rule]));
        let others = [Expected::Done, Expected::Fault, Expected::Disabled];
        rows.extend(
            broken
                .chain(others)
                .map(|outcome| row(Some(kind), &outcome)),
        );
    }
    rows.push(row(Some(Kind::Block), &Expected::Operands));
    rows.extend(OTHERS.iter().map(|&row| row.to_owned()));
    rows
}

fn row(kind: Option<Kind>, expected: &Expected) -> String {
    match kind {
        Some(kind) => format!("{kind:?}: {expected}"),
        None => format!("request: {expected}"),
    }
}

const HEADER: &str = "header read";
const HEADER_BEYOND: &str = "EINVAL: header read beyond its end";
const HEADER_FAULT: &str = "EFAULT: header read to a bad address";
const ELSEWHERE: &str = "EINVAL: request at another position";
const OTHER_COUNT: &str = "EINVAL: request of another size";
const REQUEST_FAULT: &str = "EFAULT: request at a bad address";
const NOTHING: &str = "count 0";
const VECTOR: &str = "vector: the first is a request";
const VECTOR_REFUSED: &str = "EINVAL: vector: the first is no request";
const BAR_READ: &str = "BAR region read";
const BAR_WRITTEN: &str = "BAR region written";
const BAR_DISABLED: &str = "EIO: BAR region";
const CONFIG_READ: &str = "configuration space read";
const NO_REGION: &str = "EINVAL: no such region";
const OTHERS: &[&str] = &[
    HEADER,
    HEADER_BEYOND,
    HEADER_FAULT,
    ELSEWHERE,
    OTHER_COUNT,
    REQUEST_FAULT,
    NOTHING,
    VECTOR,
    VECTOR_REFUSED,
    BAR_READ,
    BAR_WRITTEN,
    BAR_DISABLED,
    CONFIG_READ,
    NO_REGION,
];

/// What the model says about a request.
#[derive(Debug)]
enum Expected {
    Broken(Vec<Rule>),
    Fault,
    Disabled,
    Operands,
    Done,
    /// The function decides: nobody has told how.
    Either,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(rules) => match rules[..] {
                [rule] => write!(f, "EINVAL, for {rule:?}"),
                _ => write!(f, "EINVAL, for several reasons"),
            },
            Self::Fault => write!(f, "EFAULT"),
            Self::Disabled => write!(f, "EIO"),
            Self::Operands => write!(f, "ENXIO"),
            Self::Done => write!(f, "executed"),
            Self::Either => write!(f, "executed or ENXIO"),
        }
    }
}

impl Expected {
    fn allows(&self, result: Result<(), Errno>) -> bool {
        match self {
            Self::Broken(_) => result == Err(Errno::INVAL),
            Self::Fault => result == Err(Errno::FAULT),
            Self::Disabled => result == Err(Errno::IO),
            Self::Operands => result == Err(Errno::NXIO),
            Self::Done => result == Ok(()),
            Self::Either => [Ok(()), Err(Errno::NXIO)].contains(&result),
        }
    }
}

/// Sends so many requests and returns what happened.
fn fuzz(f: &Fixture<'_>, seed: u64, requests: u64) -> Tally {
    let mut threads: Vec<_> = (0..THREADS)
        .map(|number| Fuzzer::new(f, seed, number))
        .collect();
    for round in 0..ROUNDS {
        let enabled = round != ROUNDS - 1;
        f.device.enable_memory(enabled).expect("memory space");
        thread::scope(|scope| {
            for fuzzer in &mut threads {
                scope.spawn(move || {
                    for _ in 0..requests.div_ceil(ROUNDS * THREADS) {
                        fuzzer.step(enabled);
                    }
                });
            }
        });
    }
    f.device.enable_memory(true).expect("memory space on");

    let mut tally = Tally::new();
    for fuzzer in threads {
        fuzzer.check_all();
        for (row, count) in fuzzer.tally {
            *tally.entry(row).or_default() += count;
        }
    }
    tally
}

/// A page of the process, with one behind it that cannot be accessed.
struct Place {
    map: Mapping,
    readable: bool,
    writable: bool,
    /// What it holds.
    bytes: Vec<u8>,
}

/// A thread, its memory, its part of the BAR, and what both must hold.
struct Fuzzer<'a> {
    f: &'a Fixture<'a>,
    number: u64,
    steps: u64,
    random: Random,
    limits: Limits,
    places: Vec<Place>,
    /// Position of the BAR's own region in the file.
    bar: u64,
    /// The first word of configuration space.
    id: [u8; 4],
    area: u64,
    stored: Vec<u8>,
    tally: Tally,
}

impl<'a> Fuzzer<'a> {
    fn new(f: &'a Fixture<'a>, seed: u64, number: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(THREADS).wrapping_add(number));
        let mut place = |readable: bool, writable: bool| {
            let map = Mapping::pages(2);
            let bytes: Vec<u8> = (0..PAGE).map(|_| random.next() as u8).collect();
            map.write(0, &bytes);
            if !writable {
                map.protect(match readable {
                    true => MprotectFlags::READ,
                    false => MprotectFlags::empty(),
                });
            }
            // Addresses may lie just behind it.
            map.guard(PAGE);
            Place {
                map,
                readable,
                writable,
                bytes,
            }
        };
        let mut places: Vec<_> = (0..4).map(|_| place(true, true)).collect();
        places.extend([place(true, false), place(false, false)]);
        let mut id = [0; 4];
        f.device
            .read_config(0, &mut id)
            .expect("configuration space");
        let bar = f.device.region(BAR.into()).expect("the BAR").offset;
        let area = AREAS + number * AREA as u64;
        let stored = vec![0; AREA];
        assert_eq!(pwrite(f.device, &stored, bar + area), Ok(AREA));
        Self {
            f,
            number,
            steps: 0,
            random,
            limits: Limits {
                max: f.header.max,
                bars: f.bars,
                msix: f.msix.unwrap_or_default(),
            },
            places,
            bar,
            id,
            area,
            stored,
            tally: Tally::new(),
        }
    }

    fn count(&mut self, row: impl Into<String>) {
        *self.tally.entry(row.into()).or_default() += 1;
    }

    /// Sends one request, or does something else with the file.
    fn step(&mut self, enabled: bool) {
        self.steps += 1;
        if self.random.one_in(16) {
            // The kernel has to find a page anew.
            let place = &mut self.places[3];
            place
                .map
                .advise(Advice::LinuxDontNeed)
                .expect("MADV_DONTNEED");
            place.bytes.fill(0);
        }
        match self.random.below(40) {
            0 => self.read_header(),
            1 => self.write_elsewhere(enabled),
            2 => self.write_from_nowhere(),
            3 => self.write_vector(enabled),
            4 => self.read_bar(enabled),
            5 => self.write_bar(enabled),
            6 => self.read_others(),
            _ => self.request(enabled),
        }
        if self.steps.is_multiple_of(256) {
            self.check_memory();
        }
    }

    /// Where the step was, for a message.
    fn here(&self) -> String {
        format!("thread {}, step {}", self.number, self.steps)
    }

    fn request(&mut self, enabled: bool) {
        let fields = self.fields();
        let expected = self.expected(&fields, enabled);
        let result = self.f.pwrite(&fields.raw(), REQUEST_POSITION);
        let result = result.map(|count| assert_eq!(count, REQUEST_SIZE));
        assert!(
            expected.allows(result),
            "{}: {fields:x?} gave {result:?}, not {expected:?}",
            self.here()
        );
        if result.is_ok() {
            self.done(&fields);
        }
        self.count(row(fields.kind(), &expected));
    }

    /// A request, most often a good one or one that is nearly good.
    fn fields(&mut self) -> Fields {
        let random = &mut self.random;
        let flags = match random.below(32) {
            0 => random.number(),
            1 => random.below(8),
            n => 1 << (n % 3),
        };
        let pcias = match random.below(32) {
            0 => CONFIG_SPACE,
            1 => random.next() as u8,
            2..=5 => self.limits.msix[0].bar,
            6..=7 => random.below(6) as u8,
            _ => BAR,
        };
        let len = match (random.below(16), flags) {
            (0, _) => random.number() as u16,
            (1, _) => random.below(20) as u16,
            (2, _) => self.limits.max.saturating_add(random.below(16) as u16),
            (3, 2) => 1 + random.below(self.limits.max.into()) as u16,
            (_, 2) => 16 + 8 * random.below(u64::from(self.limits.max) / 8 - 1) as u16,
            _ => 1 << random.below(4),
        };
        let mut fields = Fields {
            flags,
            gaddr: self.address(len),
            offset: self.offset(pcias, len),
            len,
            pcias,
            ..Fields::default()
        };
        match self.random.below(64) {
            0 => fields.reserved = 1 << self.random.below(32),
            1 => fields.reserved2 = 1 << self.random.below(8),
            _ => {}
        }
        // What is stored elsewhere is not known, or does more than being stored.
        let stores = [Some(Kind::Block), Some(Kind::Store)].contains(&fields.kind());
        if stores && self.in_area(&fields).is_none() && fields.allowed(&self.limits) {
            fields.pcias = BAR;
            fields.offset = self.area + fields.offset % AREA as u64;
        }
        fields
    }

    /// An address, more often in one of the places than not.
    fn address(&mut self, len: u16) -> u64 {
        let random = &mut self.random;
        let at = match random.below(16) {
            0 => random.below(PAGE as u64),
            1 => (PAGE as u64)
                .saturating_sub(len.into())
                .wrapping_add(random.below(17))
                .wrapping_sub(8),
            2 => (PAGE as u64).saturating_sub(len.into()),
            _ => 8 * random.below(PAGE as u64 / 8 - 16),
        };
        let page = match random.below(24) {
            0 => 0,
            1 => 1 << (53 + random.below(11)),
            2 => (PAGE as u64).wrapping_neg(),
            // All of them, but the good ones more often.
            n => self.places[[0, 1, 2, 3, 3, 4, 5][n as usize % 7]]
                .map
                .addr(),
        };
        page.wrapping_add(at)
    }

    /// An offset, most often in the thread's part of the BAR.
    fn offset(&mut self, pcias: u8, len: u16) -> u64 {
        let random = &mut self.random;
        let size = self.limits.bars.get(usize::from(pcias)).copied();
        let size = size.unwrap_or_default();
        let len = u64::from(len);
        if pcias != BAR {
            let window = self.limits.msix[random.below(2) as usize];
            return match random.below(4) {
                0 => random.below(size.max(1)),
                1 => 8 * random.below(size / 8 + 1),
                2 => window.start.wrapping_sub(len & !7) + 8 * random.below(3),
                _ => window.start + 8 * random.below(window.len / 8 + 2),
            };
        }
        match random.below(16) {
            0 => random.number(),
            1 => size
                .wrapping_sub(len)
                .wrapping_add(random.below(17))
                .wrapping_sub(8),
            2 => len.wrapping_add(random.below(3)).wrapping_neg(),
            3 => self.area + random.below((AREA - PAGE) as u64),
            // Near the end of 4 KiB.
            4 => {
                self.area
                    + (PAGE as u64 * (1 + random.below(3))).saturating_sub(8 * random.below(18))
            }
            _ => self.area + 8 * random.below((AREA - PAGE) as u64 / 8),
        }
    }

    /// Where in the thread's part of the BAR the access is.
    fn in_area(&self, fields: &Fields) -> Option<usize> {
        let at = usize::try_from(fields.offset.checked_sub(self.area)?).ok()?;
        let inside = at.checked_add(fields.len.into())? <= AREA;
        (fields.pcias == BAR && inside).then_some(at)
    }

    /// The place with the memory of the request. It lies in one page.
    fn place(&self, fields: &Fields) -> Option<(usize, usize)> {
        self.places.iter().enumerate().find_map(|(number, place)| {
            let at = usize::try_from(fields.gaddr.checked_sub(place.map.addr())?).ok()?;
            (at < PAGE).then_some((number, at))
        })
    }

    fn expected(&self, fields: &Fields, enabled: bool) -> Expected {
        let broken: Vec<_> = fields.broken(&self.limits).collect();
        if !broken.is_empty() {
            return Expected::Broken(broken);
        }
        let load = fields.kind() == Some(Kind::Load);
        let may = self.place(fields).is_some_and(|(place, _)| match load {
            true => self.places[place].writable,
            false => self.places[place].readable,
        });
        let aligned = |number: u64, unit: u64| number.is_multiple_of(unit);
        let len = u64::from(fields.len);
        match fields.kind() {
            _ if !may => Expected::Fault,
            _ if !enabled => Expected::Disabled,
            // What emulated functions ask for.
            Some(Kind::Block)
                if len <= 8
                    || ![fields.gaddr, fields.offset, len]
                        .iter()
                        .all(|&n| aligned(n, 8)) =>
            {
                Expected::Operands
            }
            Some(Kind::Load) if fields.pcias != BAR => Expected::Either,
            Some(Kind::Load | Kind::Store) if !aligned(fields.offset, len) => Expected::Either,
            _ => Expected::Done,
        }
    }

    /// The request has been executed: checks what it has loaded, notes what it has stored.
    fn done(&mut self, fields: &Fields) {
        let here = self.here();
        let area = self.in_area(fields);
        let (place, at) = self.place(fields).expect("a place");
        let place = &mut self.places[place];
        let len = usize::from(fields.len);
        match fields.kind() {
            Some(Kind::Load) => {
                let loaded = place.map.read(at, 8);
                let (zeros, value) = loaded.split_at(8 - len);
                assert!(
                    zeros.iter().all(|&byte| byte == 0),
                    "{here}: {fields:x?}: {loaded:x?}"
                );
                if let Some(area) = area {
                    let wanted = &self.stored[area..area + len];
                    assert_eq!(value, wanted, "{here}: {fields:x?}");
                }
                place.bytes[at..at + 8].copy_from_slice(&loaded);
            }
            Some(Kind::Block) => {
                let area = area.expect("blocks are stored in the area");
                let stored = self.f.as_stored(&place.bytes[at..at + len]);
                self.stored[area..area + len].copy_from_slice(&stored);
            }
            Some(Kind::Store) => {
                let area = area.expect("values are stored in the area");
                let value = &place.bytes[at + 8 - len..at + 8];
                self.stored[area..area + len].copy_from_slice(value);
            }
            None => unreachable!("it has been executed"),
        }
    }

    fn read_header(&mut self) {
        let start = self.random.below(20);
        let len = self.random.below(20);
        let place = &mut self.places[self.random.below(6) as usize];
        let address = place.map.addr();
        let end = start + len;
        let result = pread_to(self.f, address, len as usize, start);
        let row = match len {
            0 => {
                assert_eq!(result, Ok(0));
                NOTHING
            }
            _ if end > HEADER_SIZE as u64 => {
                assert_eq!(result, Err(Errno::INVAL), "{start}..{end}");
                HEADER_BEYOND
            }
            _ if !place.writable => {
                assert_eq!(result, Err(Errno::FAULT), "{start}..{end}");
                HEADER_FAULT
            }
            _ => {
                assert_eq!(result, Ok(len as usize), "{start}..{end}");
                let mut header = [0; HEADER_SIZE];
                header[..8].copy_from_slice(&self.f.header.flags.to_be_bytes());
                header[8..10].copy_from_slice(&self.f.header.max.to_be_bytes());
                let part = &header[start as usize..end as usize];
                place.bytes[..part.len()].copy_from_slice(part);
                HEADER
            }
        };
        self.count(row);
    }

    /// A good request, and no other of it: not its position, nor its size.
    fn write_elsewhere(&mut self, enabled: bool) {
        let bytes = self.good().raw().repeat(3);
        let random = &mut self.random;
        let (len, position) = match random.below(3) {
            0 => (REQUEST_SIZE, random.below(100)),
            1 => (REQUEST_SIZE, random.number() & ((1 << 40) - 1)),
            _ => (random.below(96) as usize, REQUEST_POSITION),
        };
        let result = self.f.pwrite(&bytes[..len], position);
        let expected = good_outcome(len, position, enabled);
        assert_eq!(result, expected, "{len} bytes at {position:#x}");
        if result == Ok(REQUEST_SIZE) {
            self.good_done();
        }
        self.count(match (len, position) {
            (0, _) => NOTHING,
            (REQUEST_SIZE, REQUEST_POSITION) => return,
            (REQUEST_SIZE, _) => ELSEWHERE,
            _ => OTHER_COUNT,
        });
    }

    /// A good request in two or three parts, or several of them.
    fn write_vector(&mut self, enabled: bool) {
        let bytes = self.good().raw().repeat(2);
        let random = &mut self.random;
        let parts: Vec<_> = (0..2 + random.below(2))
            .map(|_| match random.below(3) {
                0 => 1 + random.below(63) as usize,
                _ => REQUEST_SIZE,
            })
            .collect();
        let mut position = match random.below(4) {
            0 => random.below(50),
            _ => REQUEST_POSITION,
        };
        let slices: Vec<_> = parts
            .iter()
            .map(|&len| IoSlice::new(&bytes[..len]))
            .collect();
        let result = pwritev(self.f.device, &slices, self.f.position + position);

        // Each part is a write of its own, until one fails.
        let mut expected = Ok(0);
        for &len in &parts {
            match (good_outcome(len, position, enabled), expected) {
                (Ok(count), Ok(before)) => {
                    position += count as u64;
                    expected = Ok(before + count);
                }
                (error, Ok(0)) => {
                    expected = error;
                    break;
                }
                _ => break,
            }
        }
        assert_eq!(result, expected, "{}: {parts:?}", self.here());
        match result {
            Ok(_) => {
                self.good_done();
                self.count(VECTOR);
            }
            Err(Errno::INVAL) => self.count(VECTOR_REFUSED),
            Err(_) => {}
        }
    }

    /// A request that is in memory which cannot be read.
    fn write_from_nowhere(&mut self) {
        let place = &self.places[5];
        let address = match self.random.below(3) {
            0 => 0,
            1 => 1 << 63,
            _ => place.map.addr() + self.random.below(PAGE as u64 - 32),
        };
        let result = pwrite_from(self.f, address, REQUEST_SIZE, REQUEST_POSITION);
        assert_eq!(result, Err(Errno::FAULT), "{address:#x}");
        self.count(REQUEST_FAULT);
    }

    /// Loads the start of the area to the first place.
    fn good(&self) -> Fields {
        Fields {
            flags: 1,
            gaddr: self.places[0].map.addr(),
            offset: self.area,
            len: 8,
            pcias: BAR,
            ..Fields::default()
        }
    }

    fn good_done(&mut self) {
        self.places[0].bytes[..8].copy_from_slice(&self.stored[..8]);
    }

    /// The VFIO core's own access to the BAR finds the same bytes.
    fn read_bar(&mut self, enabled: bool) {
        let mut bytes = vec![0; 1 + self.random.below(64) as usize];
        let at = self.random.below((AREA - bytes.len()) as u64) as usize;
        let result = pread(self.f.device, &mut bytes, self.bar + self.area + at as u64);
        if !enabled {
            assert_eq!(result, Err(Errno::IO));
            return self.count(BAR_DISABLED);
        }
        assert_eq!(result, Ok(bytes.len()));
        assert_eq!(bytes, self.stored[at..at + bytes.len()], "{}", self.here());
        self.count(BAR_READ);
    }

    /// What it stores is found by loads.
    fn write_bar(&mut self, enabled: bool) {
        let len = 1 + self.random.below(32) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| self.random.next() as u8).collect();
        let at = self.random.below((AREA - len) as u64) as usize;
        let result = pwrite(self.f.device, &bytes, self.bar + self.area + at as u64);
        if !enabled {
            assert_eq!(result, Err(Errno::IO));
            return self.count(BAR_DISABLED);
        }
        assert_eq!(result, Ok(len));
        self.stored[at..at + len].copy_from_slice(&bytes);
        self.count(BAR_WRITTEN);
    }

    /// Configuration space, and regions which are not there.
    fn read_others(&mut self) {
        let mut bytes = [0; 4];
        if self.random.one_in(2) {
            // Vendor and device.
            let config = self.f.device.read_config(0, &mut bytes);
            config.expect("configuration space");
            assert_eq!(bytes, self.id);
            return self.count(CONFIG_READ);
        }
        // A position has the region's index in its upper bits, and ours is the last.
        let index = 1 + self.random.below(1000);
        let step = self.f.device.region(1).expect("a region").offset;
        let position = self.f.position + index * step + self.random.below(64);
        assert_eq!(
            pread(self.f.device, &mut bytes, position),
            Err(Errno::INVAL)
        );
        assert_eq!(pwrite(self.f.device, &bytes, position), Err(Errno::INVAL));
        self.count(NO_REGION);
    }

    /// The memory of the process holds what it should.
    fn check_memory(&self) {
        for (number, place) in self.places.iter().enumerate() {
            let good = !place.readable || place.map.holds(&place.bytes);
            assert!(good, "{}: place {number} has changed", self.here());
        }
    }

    /// And so does the function.
    fn check_all(&self) {
        self.check_memory();
        let mut stored = vec![0; AREA];
        assert_eq!(
            pread(self.f.device, &mut stored, self.bar + self.area),
            Ok(AREA)
        );
        let different = stored
            .iter()
            .zip(&self.stored)
            .position(|(is, wanted)| is != wanted);
        assert_eq!(
            different, None,
            "thread {}: where the BAR differs",
            self.number
        );
    }
}

/// What comes of writing a good request, or a part of it, or more.
fn good_outcome(len: usize, position: u64, enabled: bool) -> Result<usize, Errno> {
    match (len, position) {
        (0, _) => Ok(0),
        (REQUEST_SIZE, REQUEST_POSITION) if enabled => Ok(REQUEST_SIZE),
        (REQUEST_SIZE, REQUEST_POSITION) => Err(Errno::IO),
        _ => Err(Errno::INVAL),
    }
}

/// SplitMix64: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Any number, more often one near a power of two.
    fn number(&mut self) -> u64 {
        let number = self.next();
        match self.below(4) {
            0 => number,
            n => (1_u64 << (number % 64)).wrapping_add(n).wrapping_sub(2),
        }
    }
}
