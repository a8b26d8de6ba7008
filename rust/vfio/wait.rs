// SPDX-License-Identifier: GPL-2.0

//! Wait queues whose condition is not protected by a lock.
//!
//! `kernel::sync::CondVar` needs the guard of a lock; the conditions here are atomic words.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use kernel::{
    bindings,
    prelude::*,
    sync::{
        barrier,
        LockClassKey, //
    },
    types::Opaque, //
};

/// A wait queue (`wait_queue_head_t`).
#[repr(transparent)]
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from any task; its own spinlock serialises access.
unsafe impl Send for WaitQueue {}

// SAFETY: As above.
unsafe impl Sync for WaitQueue {}

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
    /// Returns an initializer for an empty wait queue.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|head| {
                // SAFETY: `head` is valid for writes, `name` and `key` live for ever.
                unsafe {
                    bindings::__init_waitqueue_head(head, name.as_char_ptr(), key.as_ptr())
                }
            }),
        })
    }

    /// Wakes all waiters, after a change that may have made their condition true.
    ///
    /// Any change made by this task before the call is visible to the conditions of the waiters.
    #[inline]
    pub(crate) fn wake_all(&self) {
        // Pairs with the barrier of `prepare_to_wait_event()`: either the waiter sees the change,
        // or its entry is seen here. Saves taking the spinlock when nobody waits, the usual case.
        barrier::smp_mb(barrier::Full);
        let head = self.head.get();
        // SAFETY: `head` is an initialized wait queue; as `waitqueue_active()` does, its list
        // pointer is compared, not followed.
        let next = unsafe { (&raw const (*head).head.next).read_volatile() };
        // SAFETY: As above, only an address is computed.
        let empty = unsafe { &raw mut (*head).head };
        if next != empty {
            // SAFETY: `head` is an initialized wait queue.
            unsafe {
                bindings::__wake_up(head, bindings::TASK_NORMAL, 0, core::ptr::null_mut());
            }
        }
    }

    /// Waits until `condition` is true, `jiffies` are over, or the task is killed.
    pub(crate) fn wait_killable(&self, jiffies: c_long, condition: impl Fn() -> bool) -> Woken {
        self.wait(bindings::TASK_KILLABLE, jiffies, condition)
    }

    /// Waits until `condition` is true, whatever signals arrive.
    pub(crate) fn wait_uninterruptible(&self, condition: impl Fn() -> bool) {
        let wait = || self.wait(bindings::TASK_UNINTERRUPTIBLE, c_long::MAX, &condition);
        while !matches!(wait(), Woken::True | Woken::Late) {}
    }

    fn wait(&self, state: u32, mut jiffies: c_long, condition: impl Fn() -> bool) -> Woken {
        let mut entry = bindings::wait_queue_entry::default();
        let entry = &raw mut entry;
        // SAFETY: `entry` is valid and stays in place until `finish_wait()`. The function notes in
        // its flags that it was called, also for a task that is awake already.
        unsafe {
            bindings::init_wait_entry(entry, 0);
            (*entry).func = Some(bindings::woken_wake_function);
        }

        let mut slept = false;
        let end = loop {
            // SAFETY: The queue is initialized, `entry` is valid and belongs to this task.
            // CAST: Task states are small positive numbers.
            let killed =
                unsafe { bindings::prepare_to_wait_event(self.head.get(), entry, state as c_int) }
                    != 0;
            if condition() {
                // SAFETY: `entry` is valid; wakers change its flags, so they are read volatile.
                let flags = unsafe { (&raw const (*entry).flags).read_volatile() };
                let woken = flags & bindings::WQ_FLAG_WOKEN != 0;
                break if slept && !woken {
                    Woken::Late
                } else {
                    Woken::True
                };
            }
            if killed {
                break Woken::Killed;
            }
            if jiffies == 0 {
                break Woken::TimedOut;
            }
            // SAFETY: May sleep: all callers are in process context and hold no spinlock.
            jiffies = unsafe { bindings::schedule_timeout(jiffies) };
            slept = true;
        };

        // SAFETY: As for `prepare_to_wait_event()`; takes `entry` off the queue.
        unsafe { bindings::finish_wait(self.head.get(), entry) };
        end
    }
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_wait)]
mod tests {
    use super::*;
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
