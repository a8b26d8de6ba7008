// SPDX-License-Identifier: GPL-2.0

//! Wait queues of the kernel: what is C about them.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use kernel::{
    bindings,
    prelude::*,
    sync::LockClassKey,
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

/// How a task sleeps.
#[derive(Clone, Copy)]
pub(crate) enum Sleep {
    /// A fatal signal wakes it.
    Killable,
    /// No signal does.
    Uninterruptible,
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

    /// Whether nobody is on the queue, in no order with other accesses (`waitqueue_active()`).
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.get();
        // SAFETY: `head` is an initialized wait queue; the pointer is compared, not followed.
        unsafe { (&raw const (*head).head.next).read_volatile() == &raw mut (*head).head }
    }

    /// Wakes all who are on the queue.
    #[cold]
    pub(crate) fn wake(&self) {
        // SAFETY: `head` is an initialized wait queue.
        unsafe {
            bindings::__wake_up(
                self.head.get(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            );
        }
    }

    /// Calls `f` with a place on the queue for this task.
    pub(crate) fn with_place<R>(&self, f: impl FnOnce(&Place<'_>) -> R) -> R {
        let mut entry = bindings::wait_queue_entry::default();
        let entry = &raw mut entry;
        // SAFETY: `entry` is valid and stays in place until `finish_wait()`. The function notes in
        // its flags that it was called, also for a task that is awake already.
        unsafe {
            bindings::init_wait_entry(entry, 0);
            (*entry).func = Some(bindings::woken_wake_function);
        }
        // INVARIANT: `entry` was just initialized, and is off the queue when this returns.
        let result = f(&Place { queue: self, entry });
        // SAFETY: The queue is initialized; takes `entry` off it, if it is there.
        unsafe { bindings::finish_wait(self.head.get(), entry) };
        result
    }
}

/// The place of this task on a wait queue.
///
/// # Invariants
///
/// `entry` is initialized, and stays in place as long as it is on the queue.
pub(crate) struct Place<'a> {
    queue: &'a WaitQueue,
    entry: *mut bindings::wait_queue_entry,
}

impl Place<'_> {
    /// Takes the place and prepares to sleep; implies a full memory barrier.
    ///
    /// Returns whether the task has been killed.
    pub(crate) fn prepare(&self, sleep: Sleep) -> bool {
        let state = match sleep {
            Sleep::Killable => bindings::TASK_KILLABLE,
            Sleep::Uninterruptible => bindings::TASK_UNINTERRUPTIBLE,
        };
        let queue = self.queue.head.get();
        // SAFETY: The queue is initialized, `entry` is valid and belongs to this task.
        // CAST: Task states are small positive numbers.
        unsafe { bindings::prepare_to_wait_event(queue, self.entry, state as c_int) != 0 }
    }

    /// Sleeps, for at most `jiffies`, unless woken since it was prepared.
    ///
    /// Returns how many jiffies are left.
    pub(crate) fn sleep(&self, jiffies: c_long) -> c_long {
        // SAFETY: May sleep: all callers are in process context and hold no spinlock.
        unsafe { bindings::schedule_timeout(jiffies) }
    }

    /// Whether the queue was woken with this task on it.
    pub(crate) fn is_woken(&self) -> bool {
        // SAFETY: `entry` is valid; wakers change its flags, so they are read volatile.
        let flags = unsafe { (&raw const (*self.entry).flags).read_volatile() };
        flags & bindings::WQ_FLAG_WOKEN != 0
    }
}

/// What `f` returns in a task that has been killed: this one, a kernel thread, to which nothing
/// else happens. For tests.
#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
pub(crate) fn as_killed<R>(f: impl FnOnce() -> R) -> R {
    /// What kernel threads have instead of a handler: `SIG_IGN`, and `SIG_KTHREAD` after
    /// `allow_signal()`.
    const IGNORED: usize = 1;
    const ALLOWED: usize = 2;
    let handle = |how: usize| {
        // SAFETY: A number in the place of a function that is never called.
        let how = unsafe { core::mem::transmute::<usize, bindings::__sighandler_t>(how) };
        // SAFETY: Changes this task only.
        unsafe { bindings::kernel_sigaction(bindings::SIGKILL as c_int, how) }
    };

    handle(ALLOWED);
    // SAFETY: The current task is there.
    unsafe { bindings::send_sig(bindings::SIGKILL as c_int, bindings::get_current(), 1) };
    let result = f();
    // Takes the signal back, too.
    handle(IGNORED);
    result
}
