// SPDX-License-Identifier: GPL-2.0

//! What came of a number of calls, as one line of text between processes.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::AddAssign,
    time::{Duration, Instant},
};

/// How many calls succeeded, how many failed with which errno, and how long the longest took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub ok: u64,
    /// Errno (0 for failures without one) and how often.
    pub failed: BTreeMap<i32, u64>,
    pub longest: Duration,
}

impl Tally {
    /// Makes a call, which returns its errno if it fails, and counts it.
    pub fn call(&mut self, call: impl FnOnce() -> Result<(), i32>) -> Result<(), i32> {
        let start = Instant::now();
        let result = call();
        self.longest = self.longest.max(start.elapsed());
        match result {
            Ok(()) => self.ok += 1,
            Err(errno) => *self.failed.entry(errno).or_default() += 1,
        }
        result
    }

    /// How many calls failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many calls failed with one of these.
    pub fn failed_with(&self, errnos: &[rustix::io::Errno]) -> u64 {
        let count = |errno: &rustix::io::Errno| self.failed.get(&errno.raw_os_error());
        errnos.iter().filter_map(count).sum()
    }

    /// All calls succeeded, and there were some.
    #[track_caller]
    pub fn all_ok(&self, what: &str) {
        assert!(self.ok > 0 && self.failed.is_empty(), "{what}: {self:#}");
    }

    /// What other threads send and the tests read: one word for each number.
    pub fn parse(line: &str) -> Option<Self> {
        let mut tally = Self::default();
        for word in line.split_whitespace() {
            let (name, value) = word.split_once('=')?;
            let value = value.parse().ok()?;
            match name {
                "ok" => tally.ok = value,
                "longest_us" => tally.longest = Duration::from_micros(value),
                errno => drop(tally.failed.insert(errno.parse().ok()?, value)),
            }
        }
        Some(tally)
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.ok += other.ok;
        for (&errno, count) in &other.failed {
            *self.failed.entry(errno).or_default() += count;
        }
        self.longest = self.longest.max(other.longest);
    }
}

impl fmt::Display for Tally {
    /// For [`Tally::parse`], or with `#` for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{} succeeded", self.ok)?;
            for (&errno, count) in &self.failed {
                let error = io::Error::from_raw_os_error(errno);
                write!(f, ", {count} failed: {error}")?;
            }
            return write!(f, ", the longest took {:?}", self.longest);
        }
        write!(f, "ok={} longest_us={}", self.ok, self.longest.as_micros())?;
        for (errno, count) in &self.failed {
            write!(f, " {errno}={count}")?;
        }
        Ok(())
    }
}

/// The errno of an error, 0 if it has none.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back() {
        let tally = Tally {
            ok: 7,
            failed: [(11, 2), (0, 1)].into(),
            longest: Duration::from_micros(1234),
        };
        assert_eq!(Tally::parse(&tally.to_string()), Some(tally));
        assert_eq!(Tally::parse(""), Some(Tally::default()));
        for wrong in ["ok", "ok=x", "x=1"] {
            assert_eq!(Tally::parse(wrong), None);
        }
    }
}
