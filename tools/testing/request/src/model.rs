// SPDX-License-Identifier: GPL-2.0

//! The rules of the region as its documentation words them: each by itself, in terms of the bytes
//! that are touched, with 128-bit numbers so that nothing overflows.

/// A request as its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub flags: u64,
    pub gaddr: u64,
    pub offset: u64,
    pub reserved: u32,
    pub len: u16,
    pub pcias: u8,
    pub reserved2: u8,
}

/// Part of a BAR.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    pub bar: u8,
    pub start: u64,
    pub len: u64,
}

/// What one function allows.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The longest block the function takes; the region has a limit of its own.
    pub max: u16,
    /// Size of each BAR; 0 if it does not exist.
    pub bars: [u64; 6],
    /// MSI-X table and pending bit array.
    pub msix: [Window; 2],
}

/// What the memory of a request is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Load,
    Block,
    Store,
}

/// The rules. A request that breaks one of them is answered with `EINVAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Exactly one of the known flags.
    Flags,
    /// Reserved fields are zero.
    Reserved,
    /// A block has 1 to `max` bytes, at most 4096; a load or store 1, 2, 4 or 8.
    Length,
    /// A block stays in its page; the value of a load or store is an aligned doubleword.
    Memory,
    /// The address space is a BAR.
    Space,
    /// A block stays in 4 KiB of the BAR, a load or store in a doubleword.
    Unit,
    /// The access stays in its BAR.
    Bar,
    /// The access does not touch the MSI-X structures.
    Msix,
}

impl Rule {
    pub const ALL: [Self; 8] = [
        Self::Flags,
        Self::Reserved,
        Self::Length,
        Self::Memory,
        Self::Space,
        Self::Unit,
        Self::Bar,
        Self::Msix,
    ];
}

impl Fields {
    /// As on the wire.
    pub fn raw(&self) -> [u8; 32] {
        let bytes: Vec<u8> = [
            &self.flags.to_be_bytes()[..],
            &self.gaddr.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.reserved.to_be_bytes(),
            &self.len.to_be_bytes(),
            &[self.pcias, self.reserved2],
        ]
        .concat();
        bytes.try_into().expect("the fields make 32 bytes")
    }

    /// What is asked for, if that can be told.
    pub fn kind(&self) -> Option<Kind> {
        match self.flags {
            1 => Some(Kind::Load),
            2 => Some(Kind::Block),
            4 => Some(Kind::Store),
            _ => None,
        }
    }

    /// How many bytes at `gaddr` are read or written.
    pub fn memory_len(&self) -> u64 {
        match self.kind() {
            Some(Kind::Block) => self.len.into(),
            _ => 8,
        }
    }

    /// Whether the request keeps to a rule. A request of no known kind breaks no rule that depends
    /// on the kind, and an empty access touches nothing.
    pub fn keeps(&self, rule: Rule, limits: &Limits) -> bool {
        let block = self.kind() == Some(Kind::Block);
        let unit = if block { 4096 } else { 8 };
        let memory = Span::new(self.gaddr, self.memory_len());
        let bar = Span::new(self.offset, self.len.into());
        match rule {
            Rule::Flags => self.kind().is_some(),
            Rule::Reserved => self.reserved == 0 && self.reserved2 == 0,
            Rule::Length if self.kind().is_none() => true,
            Rule::Length if block => (1..=limits.max.min(4096)).contains(&self.len),
            Rule::Length => [1, 2, 4, 8].contains(&self.len),
            Rule::Memory => self.kind().is_none() || memory.is_in_one(unit),
            Rule::Space => self.pcias <= 5,
            Rule::Unit => self.kind().is_none() || bar.is_in_one(unit),
            Rule::Bar => limits
                .bars
                .get(usize::from(self.pcias))
                .is_none_or(|&size| bar.end <= size.into()),
            Rule::Msix => !limits.msix.iter().any(|window| {
                let reserved = Span::new(window.start, window.len);
                window.bar == self.pcias && bar.overlaps(&reserved)
            }),
        }
    }

    /// The rules that the request breaks.
    pub fn broken<'a>(&'a self, limits: &'a Limits) -> impl Iterator<Item = Rule> + 'a {
        Rule::ALL
            .into_iter()
            .filter(|&rule| !self.keeps(rule, limits))
    }

    /// Whether the rules allow the request.
    pub fn allowed(&self, limits: &Limits) -> bool {
        self.broken(limits).next().is_none()
    }
}

/// Bytes from `start` up to, but not including, `end`.
struct Span {
    start: u128,
    end: u128,
}

impl Span {
    fn new(start: u64, len: u64) -> Self {
        let start = u128::from(start);
        Self {
            start,
            end: start + u128::from(len),
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn is_in_one(&self, unit: u128) -> bool {
        self.is_empty() || self.start / unit == (self.end - 1) / unit
    }

    fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end && other.start < self.end
    }
}
