// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition that is not protected by a lock.
//!
//! `kernel::sync::CondVar` needs the guard of a lock; the conditions here are atomic words.
//!
//! No C in here: `tools/testing/lease` runs this file, as it is, on a model of the memory.

use kernel::prelude::*;

// (not for the kernel)
#[cfg(linux_7_2)]
use crate::linux_7_2::barrier;
#[cfg(not(linux_7_2))]
// (for the kernel again)
use kernel::sync::barrier;

use crate::wait_queue::Sleep;
pub(crate) use crate::wait_queue::WaitQueue;

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The condition is true: it was when the wait began, or the task was woken.
    True,
    /// The condition became true, but nobody woke the task: it found out when the time was over.
    Late,
    /// The condition was still false when the time was over.
    TimedOut,
    /// The condition is false and the task has been killed.
    Killed,
}

impl WaitQueue {
    /// Wakes all waiters, after a change that may have made their condition true.
    ///
    /// Any change made by this task before the call is visible to the conditions of the waiters.
    #[inline]
    pub(crate) fn wake_all(&self) {
        // Pairs with the barrier of `prepare()`: either the waiter sees the change, or its place
        // is seen here. Saves taking the spinlock when nobody waits, the usual case.
        barrier::smp_mb(barrier::Full);
        if !self.is_empty() {
            self.wake();
        }
    }

    /// Waits until `condition` is true, `jiffies` are over, or the task is killed.
    pub(crate) fn wait_killable(&self, jiffies: c_long, condition: impl Fn() -> bool) -> Woken {
        self.wait(Sleep::Killable, jiffies, condition)
    }

    /// Waits until `condition` is true, whatever signals arrive.
    pub(crate) fn wait_uninterruptible(&self, condition: impl Fn() -> bool) {
        let wait = || self.wait(Sleep::Uninterruptible, c_long::MAX, &condition);
        while !matches!(wait(), Woken::True | Woken::Late) {}
    }

    fn wait(&self, sleep: Sleep, mut jiffies: c_long, condition: impl Fn() -> bool) -> Woken {
        self.with_place(|place| {
            let mut slept = false;
            loop {
                let killed = place.prepare(sleep);
                if condition() {
                    return if slept && !place.is_woken() {
                        Woken::Late
                    } else {
                        Woken::True
                    };
                }
                if killed {
                    return Woken::Killed;
                }
                if jiffies == 0 {
                    return Woken::TimedOut;
                }
                jiffies = place.sleep(jiffies);
                slept = true;
            }
        })
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_wait)]
mod tests {
    use super::*;
    use crate::wait_queue::as_killed;
    use core::cell::Cell;
    use kernel::static_lock_class;

    fn queue() -> Result<Pin<KBox<WaitQueue>>> {
        KBox::pin_init(
            WaitQueue::new(c"zpci_vfio_pci: test", static_lock_class!()),
            GFP_KERNEL,
        )
    }

    #[test]
    fn true_condition_does_not_wait() -> Result {
        assert!(queue()?.wait_killable(c_long::MAX, || true) == Woken::True);
        queue()?.wait_uninterruptible(|| true);
        Ok(())
    }

    #[test]
    fn false_condition_times_out() -> Result {
        assert!(queue()?.wait_killable(2, || false) == Woken::TimedOut);
        Ok(())
    }

    #[test]
    fn a_killed_task_does_not_wait() -> Result {
        let queue = queue()?;
        let wait = |condition| as_killed(|| queue.wait_killable(2, || condition));
        assert!(wait(false) == Woken::Killed);
        assert!(wait(true) == Woken::True);
        Ok(())
    }

    #[test]
    fn condition_is_asked_again_after_a_wait() -> Result {
        let asked = Cell::new(0);
        let woken = queue()?.wait_killable(1, || {
            asked.set(asked.get() + 1);
            asked.get() > 1
        });
        assert!(woken == Woken::Late);
        Ok(())
    }
}
