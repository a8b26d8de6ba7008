// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the device lock: a mutex, of which nobody has to be woken.

use loom::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

pub(crate) struct Mutex(AtomicBool);

impl Mutex {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// As device_lock() of C.
    pub(crate) fn lock(&self) {
        while !DeviceLock(self).try_lock() {
            thread::yield_now();
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DeviceLock<'a>(pub(crate) &'a Mutex);

impl DeviceLock<'_> {
    pub(crate) fn try_lock(self) -> bool {
        let word = &self.0 .0;
        word.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// # Safety
    ///
    /// This thread has locked it.
    pub(crate) unsafe fn unlock(self) {
        self.0 .0.store(false, Ordering::Release);
    }

    pub(crate) fn is_locked(self) -> bool {
        self.0 .0.load(Ordering::Relaxed)
    }
}
