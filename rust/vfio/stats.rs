// SPDX-License-Identifier: GPL-2.0

//! What happens at the lease of a device, in debugfs.
//!
//! One file for each number, see `Documentation/ABI/testing/debugfs-zpci-vfio-pci`. Only what is
//! off the straight way is counted: requests that get a lease at once cost nothing.

use core::fmt::Write;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    prelude::*,
    str::NullTerminatedFormatter,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};

#[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
use kernel::time::delay::udelay;

/// The numbers of one device.
#[pin_data]
pub(crate) struct Stats {
    _dir: Dir,
    /// Requests that had to wait for a lease, whether they got it or not.
    #[pin]
    waits: File<Atomic<u64>>,
    /// Waits that ended because a tick had passed, without a wakeup.
    #[pin]
    ticks: File<Atomic<u64>>,
    /// The longest wait, in nanoseconds.
    #[pin]
    longest_wait_ns: File<Atomic<u64>>,
    /// For tests, the most requests that were about to issue an instruction at the same time.
    #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
    #[pin]
    most_inside: File<Atomic<u64>>,
    /// For tests, how long requests dwell between getting the lease and the instruction, in
    /// microseconds.
    #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
    #[pin]
    dwell_us: File<Atomic<u64>>,
}

impl Stats {
    /// Returns an initializer for the numbers of the zPCI function `fid`, which does not fail:
    /// where debugfs does, the files are missing.
    ///
    /// The directory is our own: the one of the VFIO core is gone when `remove()` starts to wait
    /// for user space, which is when the numbers are of interest.
    pub(crate) fn new(fid: u32) -> impl PinInit<Self> {
        pin_init::pin_init_scope(move || {
            let dir = directory(fid);
            Ok(pin_init!(Self {
                waits <- dir.read_only_file(c"waits", Atomic::new(0)),
                ticks <- dir.read_only_file(c"ticks", Atomic::new(0)),
                longest_wait_ns <- dir.read_only_file(c"longest_wait_ns", Atomic::new(0)),
                #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
                most_inside <- dir.read_write_file(c"most_inside", Atomic::new(0)),
                #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
                dwell_us <- dir.read_write_file(c"dwell_us", Atomic::new(0)),
                _dir: dir,
            }))
        })
    }

    /// A request found out that it could go on without having been woken.
    pub(crate) fn tick(&self) {
        self.ticks.add(1, Relaxed);
    }

    /// A request has to wait.
    pub(crate) fn waits(&self) {
        self.waits.add(1, Relaxed);
    }

    /// A request has waited for so long since then.
    pub(crate) fn waited(&self, time: Delta) {
        // CAST: The clock does not go backwards.
        raise(&self.longest_wait_ns, time.as_nanos() as u64);
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
impl Stats {
    /// How many requests had to wait, and how long at most.
    pub(crate) fn waits_and_longest(&self) -> (u64, Delta) {
        let longest = self.longest_wait_ns.load(Relaxed);
        // CAST: It was a time before.
        (self.waits.load(Relaxed), Delta::from_nanos(longest as i64))
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
impl Stats {
    /// A request is about to issue an instruction, with `inside - 1` others.
    pub(crate) fn inside(&self, inside: u32) {
        raise(&self.most_inside, inside.into());
        // Busy, as an instruction would be: sleeping is not allowed here.
        for _ in 0..self.dwell_us.load(Relaxed) {
            udelay(Delta::from_micros(1));
        }
    }
}

/// The directory of the zPCI function `fid`; its name needs no allocation.
fn directory(fid: u32) -> Dir {
    let mut name = [0; 32];
    if let Some(mut name) = NullTerminatedFormatter::new(&mut name) {
        // It fits.
        let _ = write!(name, "zpci-vfio-pci-{fid:08x}");
    }
    Dir::new(CStr::from_bytes_until_nul(&name).unwrap_or_default())
}

/// Makes `number` at least `value`.
fn raise(number: &Atomic<u64>, value: u64) {
    let mut old = number.load(Relaxed);
    while old < value {
        match number.cmpxchg(old, value, Relaxed) {
            Ok(_) => break,
            Err(now) => old = now,
        }
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_stats)]
mod tests {
    use super::*;

    fn stats() -> Result<Pin<KBox<Stats>>> {
        KBox::pin_init(Stats::new(u32::MAX), GFP_KERNEL)
    }

    #[test]
    fn waits_are_counted_and_the_longest_is_kept() -> Result {
        let stats = stats()?;
        for time in [3, 5, 4] {
            stats.waits();
            stats.waited(Delta::from_nanos(time));
        }
        assert!(stats.waits_and_longest() == (3, Delta::from_nanos(5)));
        assert!(stats.ticks.load(Relaxed) == 0);
        Ok(())
    }

    #[test]
    fn ticks_are_counted() -> Result {
        let stats = stats()?;
        stats.tick();
        stats.tick();
        assert!(stats.ticks.load(Relaxed) == 2);
        assert!(stats.waits.load(Relaxed) == 0);
        Ok(())
    }

    #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
    #[test]
    fn the_most_requests_inside_are_kept() -> Result {
        let stats = stats()?;
        for inside in [1, 3, 2] {
            stats.inside(inside);
        }
        assert!(stats.most_inside.load(Relaxed) == 3);
        Ok(())
    }
}
