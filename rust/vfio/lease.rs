// SPDX-License-Identifier: GPL-2.0

//! The device lock, held by this task or for it: the *lease*.
//!
//! An instruction for a user may only be issued while the device lock of the PCI function is held,
//! so that the host neither resets nor disables the function under it. But the lock cannot simply
//! be taken: whoever unbinds the driver holds it and waits until user space has closed the device,
//! and user space may have to issue instructions before it can close. So a request never waits for
//! a holder who waits for the request. It either
//!
//! - *leads*: it gets the lock with a trylock, opens the lease to others, and closes it again;
//! - *joins*: another request leads, which unlocks only after all who joined have left;
//! - *borrows*: `remove()` has announced itself, which holds the lock until all have left; or
//! - *waits*, killable and for a bounded time, until one of the three is possible.
//!
//! The state is one atomic word: [`OPEN`] while a request leads and lets others join, [`REMOVING`]
//! once `remove()` has announced itself, and the count of those inside. (A flag beside a counter
//! would let a request join after the leader saw zero.)
//!
//! ```text
//!                  leader: trylock, +OPEN+1           last member leaves: wake the leader
//!        ┌──────┐ ────────────────────────▶ ┌──────┐
//!        │ free │                           │ open │ ◀─┐ join +1, leave -1
//!        └──────┘ ◀──────────────────────── └──────┘ ──┘
//!            │       leader: -OPEN-1, wait until the count is 0, unlock, wake
//!            │ remove() (holds the device lock, so nobody leads): +REMOVING, wake
//!            ▼
//!        ┌──────────┐ ◀─┐ borrow +1, leave -1
//!        │ removing │ ──┘
//!        └──────────┘ until all files are closed; the object dies with remove()
//! ```
//!
//! Lock order: `memory_lock` (read), then the lease. Inside the lease nothing sleeps, faults or
//! allocates, except that the leader waits for the members.

use crate::{
    device_lock::DeviceLock,
    lockdep,
    memory,
    stats::Stats,
    wait::{
        WaitQueue,
        Woken, //
    }, //
};
use kernel::{
    prelude::*,
    static_lock_class,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed,
        Release, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// A request leads and lets others join.
const OPEN: u32 = 1 << 31;

/// `remove()` has announced itself.
const REMOVING: u32 = 1 << 30;

/// The bits that count the requests inside.
const COUNT: u32 = REMOVING - 1;

/// How long a request tries to get a lease, from its first try. Long enough for a reset, even if
/// firmware takes its time; a holder of the device lock may take longer in error recovery.
const PATIENCE: Delta = Delta::from_secs(5);

/// Names for lockdep, which wants to find the same one, not an equal one, with each key: a literal
/// in [`Lease::new`] would be another in each crate that has the function inlined.
static OUTSIDE: &CStr = c"zpci_vfio_pci: lease";
static DRAINED: &CStr = c"zpci_vfio_pci: drained";
static REQUESTS: &CStr = c"zpci_vfio_pci: requests";
static INSIDE: &CStr = c"zpci_vfio_pci: inside the lease";

/// The lease of one device.
#[pin_data]
pub(crate) struct Lease {
    /// [`OPEN`], [`REMOVING`], and the count of requests inside.
    word: Atomic<u32>,
    /// Requests that wait for a lease.
    #[pin]
    outside: WaitQueue,
    /// The leader, while it waits for the last member to leave.
    #[pin]
    drained: WaitQueue,
    /// All who want the lease or have it, for whom `remove()` waits.
    #[pin]
    requests: lockdep::Map,
    /// Those who have it, for whom the leader waits.
    #[pin]
    inside: lockdep::Map,
    #[pin]
    stats: Stats,
}

/// How a request came by its lease.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It holds the device lock itself.
    Leader,
    /// A leader, or `remove()`, holds the device lock for it.
    Member,
}

impl Lease {
    /// Returns an initializer for a lease that nobody holds, of the zPCI function `fid`.
    pub(crate) fn new(fid: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            word: Atomic::new(0),
            outside <- WaitQueue::new(OUTSIDE, static_lock_class!()),
            drained <- WaitQueue::new(DRAINED, static_lock_class!()),
            requests <- lockdep::Map::new(REQUESTS, static_lock_class!()),
            inside <- lockdep::Map::new(INSIDE, static_lock_class!()),
            stats <- Stats::new(fid),
        })
    }

    /// Lets all requests in from now on, under the device lock that the caller holds.
    ///
    /// To be called by `remove()` before it waits for user space.
    ///
    /// # Safety
    ///
    /// The caller holds the device lock until every file of the device is closed.
    pub(crate) unsafe fn announce_removal(&self) {
        // Whoever leads holds the device lock, so nobody does, and all members have left.
        self.word.fetch_add(REMOVING, Full);
        self.outside.wake_all();
        self.requests.wait();
    }

    /// Calls `f` inside of the lease; `memory` takes `memory_lock`, `lock` is the lock of the same
    /// device.
    ///
    /// `memory_lock` comes first: `VFIO_DEVICE_RESET` takes it for write and then *tries* the
    /// device lock, so it always succeeds against us. It is dropped before waiting, for whoever
    /// holds the device lock may want it.
    ///
    /// May sleep. To be called by a task that is not inside: it could wait for itself.
    ///
    /// # Errors
    ///
    /// - Those of [`memory::Guard`].
    /// - `EINTR` if the task was killed while it waited.
    /// - `EAGAIN` if somebody else held the device lock for [`PATIENCE`].
    #[inline]
    pub(crate) fn with<'a, R>(
        &'a self,
        lock: DeviceLock<'a>,
        memory: impl Fn() -> Result<memory::Guard<'a>>,
        f: impl FnOnce(&Inside<'_>) -> R,
    ) -> Result<R> {
        self.requests.enter();
        let result = self.enter(lock, memory).map(|(role, memory)| {
            // INVARIANT: `enter()` has counted us; we leave when `f` has returned.
            let value = f(&Inside { lease: self, lock });
            // SAFETY: `enter()` has got the role, and it is not used again.
            unsafe { self.leave(lock, role) };
            drop(memory);
            value
        });
        self.requests.leave();
        result
    }

    #[inline]
    fn enter<'a>(
        &self,
        lock: DeviceLock<'_>,
        memory: impl Fn() -> Result<memory::Guard<'a>>,
    ) -> Result<(Role, memory::Guard<'a>)> {
        let mut since = None;
        loop {
            let memory = memory()?;
            if let Some(role) = self.try_enter(lock) {
                return Ok((role, memory));
            }
            drop(memory);
            self.wait(lock, &mut since)?;
        }
    }

    /// Leads, joins or borrows, if one of them is possible without waiting.
    #[inline]
    fn try_enter(&self, lock: DeviceLock<'_>) -> Option<Role> {
        if lock.try_lock() {
            // Only a holder of the device lock sets `OPEN` or `REMOVING`, and a leader leaves
            // behind neither a bit nor a member: the word is zero, and nobody else changes it.
            self.word.store(OPEN + 1, Release);
            self.inside.enter();
            self.outside.wake_all();
            return Some(Role::Leader);
        }
        self.try_join()
    }

    fn try_join(&self) -> Option<Role> {
        let mut word = self.word.load(Relaxed);
        while word & (OPEN | REMOVING) != 0 {
            match self.word.cmpxchg(word, word + 1, Full) {
                Ok(_) => {
                    self.inside.enter();
                    return Some(Role::Member);
                }
                Err(now) => word = now,
            }
        }
        None
    }

    /// Waits until another [`Lease::try_enter`] is worth it; `since` is when the first wait of the
    /// request began.
    #[cold]
    fn wait(&self, lock: DeviceLock<'_>, since: &mut Option<Instant<Monotonic>>) -> Result {
        let since = *since.get_or_insert_with(|| {
            self.stats.waits();
            Instant::now()
        });
        let result = loop {
            // Leaders and `remove()` wake us. Other holders of the device lock (a reset, error
            // recovery, probe) know nothing of us, so we look again with every tick.
            let woken = self.outside.wait_killable(1, || {
                self.word.load(Acquire) & (OPEN | REMOVING) != 0 || !lock.is_locked()
            });
            match woken {
                Woken::True => break Ok(()),
                Woken::Late => {
                    self.stats.tick();
                    break Ok(());
                }
                Woken::Killed => break Err(EINTR),
                Woken::TimedOut if since.elapsed() > PATIENCE => break Err(EAGAIN),
                Woken::TimedOut => {}
            }
        };
        // Whatever comes of it: a request that gives up has waited longest.
        self.stats.waited(since.elapsed());
        result
    }

    /// Leaves the lease.
    ///
    /// # Safety
    ///
    /// This task has got `role` from [`Lease::try_enter`] with `lock`, and gives it up.
    #[inline(always)]
    unsafe fn leave(&self, lock: DeviceLock<'_>, role: Role) {
        self.inside.leave();
        match role {
            Role::Leader => {
                self.inside.wait();
                let word = self.word.fetch_sub(OPEN + 1, Full);
                if word & COUNT != 1 {
                    self.wait_for_members();
                }
                // SAFETY: A leader has the lock from its trylock.
                unsafe { lock.unlock() };
                self.outside.wake_all();
            }
            Role::Member => {
                // The leader only waits once it has closed the lease.
                if self.word.fetch_sub(1, Full) == 1 {
                    self.drained.wake_all();
                }
            }
        }
    }

    /// Not even SIGKILL may unlock the device under those who joined. Each of them has at most one
    /// instruction to finish.
    #[cold]
    fn wait_for_members(&self) {
        self.drained
            .wait_uninterruptible(|| self.word.load(Acquire) & COUNT == 0);
    }
}

/// The memory space of the function is accessible, and the device lock is held.
///
/// Whoever has it must not sleep or allocate; it cannot fault.
///
/// # Invariants
///
/// This task is counted in `lease`, so `lock` is held by it, by a leader that waits for it, or by
/// `remove()`, which waits for the file through which it came.
#[cfg_attr(
    not(CONFIG_ZPCI_VFIO_PCI_DEBUG),
    expect(dead_code, reason = "only the debug check looks at them")
)]
pub(crate) struct Inside<'a> {
    lease: &'a Lease,
    lock: DeviceLock<'a>,
}

impl Inside<'_> {
    /// Checks, in debug builds, what the type invariant says: called where an instruction is
    /// issued, it catches whoever breaks the scheme elsewhere.
    ///
    /// With a body it must not be inlined into a module: what a warning refers to lies in the crate
    /// that it is written in, which may be too far away for a relocation of the module.
    #[cfg_attr(CONFIG_ZPCI_VFIO_PCI_DEBUG, inline(never))]
    #[cfg_attr(not(CONFIG_ZPCI_VFIO_PCI_DEBUG), inline)]
    pub(crate) fn debug_check(&self) {
        #[cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)]
        {
            let inside = self.lease.word.load(Relaxed) & COUNT;
            self.lease.stats.inside(inside);
            kernel::warn_on!(inside == 0);
            kernel::warn_on!(!self.lock.is_locked());
        }
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_lease)]
mod tests {
    use super::*;
    use crate::{
        bindings,
        wait_queue::as_killed, //
    };
    use kernel::{
        time::delay::fsleep,
        types::Opaque, //
    };

    /// A PCI function of which nothing works but the device lock.
    fn function() -> Result<KBox<Opaque<bindings::pci_dev>>> {
        let function =
            KBox::<Opaque<bindings::pci_dev>>::init(pin_init::init_zeroed(), GFP_KERNEL)?;
        // SAFETY: The mutex is in place for as long as it is used; name and key live for ever.
        unsafe {
            bindings::__mutex_init(
                &raw mut (*function.get()).dev.mutex,
                c"zpci_vfio_pci: test".as_char_ptr(),
                static_lock_class!().as_ptr(),
            );
        }
        Ok(function)
    }

    fn device_lock(function: &Opaque<bindings::pci_dev>) -> DeviceLock<'_> {
        // SAFETY: `pci::Device` is a transparent wrapper; the tests use no more than the lock.
        DeviceLock::of(unsafe { &*function.get().cast() })
    }

    fn lease() -> Result<Pin<KBox<Lease>>> {
        KBox::pin_init(Lease::new(u32::MAX), GFP_KERNEL)
    }

    #[test]
    fn leader_holds_the_device_lock_until_it_leaves() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);

        assert!(lease.try_enter(lock) == Some(Role::Leader));
        assert!(lock.is_locked());
        assert!(lease.word.load(Relaxed) == OPEN + 1);
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Leader) };
        assert!(!lock.is_locked());
        assert!(lease.word.load(Relaxed) == 0);
        Ok(())
    }

    #[test]
    fn others_join_while_the_lease_is_open() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);

        assert!(lease.try_enter(lock) == Some(Role::Leader));
        assert!(lease.try_enter(lock) == Some(Role::Member));
        assert!(lease.try_enter(lock) == Some(Role::Member));
        assert!(lease.word.load(Relaxed) == OPEN + 3);
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Member) };
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Member) };
        assert!(lock.is_locked());
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Leader) };
        assert!(!lock.is_locked());
        Ok(())
    }

    #[test]
    fn nobody_enters_while_another_holds_the_device_lock() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);

        assert!(lock.try_lock());
        assert!(lease.try_enter(lock).is_none());
        assert!(lease.word.load(Relaxed) == 0);
        // SAFETY: Locked above.
        unsafe { lock.unlock() };
        assert!(lease.try_enter(lock) == Some(Role::Leader));
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Leader) };
        Ok(())
    }

    #[test]
    fn all_borrow_from_remove() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);

        assert!(lock.try_lock());
        // SAFETY: The lock is held, and there are no files.
        unsafe { lease.announce_removal() };
        assert!(lease.try_enter(lock) == Some(Role::Member));
        assert!(lease.try_enter(lock) == Some(Role::Member));
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Member) };
        // SAFETY: Entered above.
        unsafe { lease.leave(lock, Role::Member) };
        assert!(lock.is_locked());
        assert!(lease.word.load(Relaxed) == REMOVING);
        // SAFETY: Locked above.
        unsafe { lock.unlock() };
        Ok(())
    }

    #[test]
    fn waiting_ends_at_once_when_the_device_lock_is_free() -> Result {
        let (function, lease) = (function()?, lease()?);

        lease.wait(device_lock(&function), &mut None)
    }

    #[test]
    fn waiting_ends_after_5_seconds_when_it_is_not() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);

        assert!(lock.try_lock());
        let start = Instant::<Monotonic>::now();
        assert!(lease.wait(lock, &mut None) == Err(EAGAIN));
        let time = start.elapsed();
        assert!(time >= Delta::from_secs(5));
        // That it is not far more, on a machine that may be busy.
        assert!(time < Delta::from_secs(10));
        // SAFETY: Locked above.
        unsafe { lock.unlock() };

        let (waits, longest) = lease.stats.waits_and_longest();
        assert!(waits == 1);
        assert!(longest >= Delta::from_secs(5));
        assert!(longest <= time);
        Ok(())
    }

    #[test]
    fn waiting_ends_when_the_task_is_killed() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);

        assert!(lock.try_lock());
        assert!(as_killed(|| lease.wait(lock, &mut None)) == Err(EINTR));
        // SAFETY: Locked above.
        unsafe { lock.unlock() };
        Ok(())
    }

    #[test]
    fn a_request_that_waits_twice_is_counted_once() -> Result {
        let (function, lease) = (function()?, lease()?);
        let lock = device_lock(&function);
        let mut since = None;

        lease.wait(lock, &mut since)?;
        let between = Delta::from_millis(10);
        fsleep(between);
        lease.wait(lock, &mut since)?;
        // From the first time on.
        let (waits, longest) = lease.stats.waits_and_longest();
        assert!(waits == 1);
        assert!(longest >= between);
        Ok(())
    }
}
