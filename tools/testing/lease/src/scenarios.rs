// SPDX-License-Identifier: GPL-2.0

//! Who meets whom.

use crate::{
    device_lock::{DeviceLock, Mutex},
    lease::Lease,
    memory,
    prelude::*,
    sync::atomic::fence,
    wait_queue,
};
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
};
// Not that of loom, which cannot be dropped when a scenario has failed.
use std::sync::Arc;

/// A function that is bound to the driver.
struct Device {
    lock: Mutex,
    lease: Pin<Box<Lease>>,
    /// What a reset changes, and an instruction relies on.
    enabled: UnsafeCell<()>,
}

impl Device {
    #[expect(
        clippy::arc_with_non_send_sync,
        reason = "loom runs its threads in one, and finds who shares what must not be shared"
    )]
    fn new() -> Arc<Self> {
        // The first barrier initializes something, which must not order the threads.
        fence();
        Arc::new(Self {
            lock: Mutex::new(),
            lease: pinned(Lease::new(0)),
            enabled: UnsafeCell::new(()),
        })
    }

    fn lock(&self) -> DeviceLock<'_> {
        DeviceLock(&self.lock)
    }

    /// A request of user space.
    fn request(&self) -> Result {
        self.request_with(|| ())
    }

    /// A request that does something more while it is inside.
    fn request_with(&self, more: impl FnOnce()) -> Result {
        let memory = || Ok(memory::Guard::new());
        self.lease.with(self.lock(), memory, |inside| {
            inside.debug_check();
            self.enabled.with(|_| ());
            more();
        })
    }

    /// A reset by somebody who knows nothing of leases.
    fn reset(&self) {
        self.lock.lock();
        self.enabled.with_mut(|_| ());
        // SAFETY: Locked above.
        unsafe { self.lock().unlock() };
        wait_queue::tick();
    }
}

/// As `Box::pin_init()`, which needs an unstable feature.
fn pinned<T>(init: impl PinInit<T>) -> Pin<Box<T>> {
    let mut place = Box::<T>::new_uninit();
    // SAFETY: The place is valid for writes, and does not move from now on. The initializer, which
    // cannot fail, fills it in.
    unsafe {
        let Ok(()) = init.__pinned_init(place.as_mut_ptr());
        Box::into_pin(place.assume_init())
    }
}

fn spawn(device: &Arc<Device>, f: impl Fn(&Device) + Send + 'static) -> JoinHandle<()> {
    let device = device.clone();
    thread::spawn(move || f(&device))
}

fn request(device: &Arc<Device>) -> JoinHandle<()> {
    spawn(device, |device| assert_eq!(device.request(), Ok(())))
}

/// Goes through all interleavings in which a thread is interrupted at most `preemptions` times
/// where it would not wait.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(scenario);
}

#[test]
fn two_requests() {
    explore(3, || {
        let device = Device::new();
        let other = request(&device);
        assert_eq!(device.request(), Ok(()));
        other.join().unwrap();
        // Whoever comes later can reset the function.
        device.reset();
    });
}

/// They run side by side: whoever leads lets others join, who have been waiting, too.
#[test]
fn two_requests_that_wait_for_each_other() {
    explore(2, || {
        let device = Device::new();
        let inside = Arc::new(AtomicUsize::new(0));
        let meet = |device: &Device, inside: &AtomicUsize| {
            let result = device.request_with(|| {
                inside.fetch_add(1, Ordering::Relaxed);
                while inside.load(Ordering::Relaxed) < 2 {
                    thread::yield_now();
                }
            });
            assert_eq!(result, Ok(()));
        };
        let other = {
            let inside = inside.clone();
            spawn(&device, move |device| meet(device, &inside))
        };
        meet(&device, &inside);
        other.join().unwrap();
    });
}

#[test]
fn three_requests() {
    explore(2, || {
        let device = Device::new();
        let others = [request(&device), request(&device)];
        assert_eq!(device.request(), Ok(()));
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn two_requests_and_remove() {
    explore(2, || {
        let device = Device::new();
        let others = [request(&device), request(&device)];
        device.lock.lock();
        device.enabled.with_mut(|_| ());
        // SAFETY: The lock is held until all requests have ended.
        unsafe { device.lease.announce_removal() };
        for other in others {
            other.join().unwrap();
        }
        device.enabled.with_mut(|_| ());
        // SAFETY: Locked above.
        unsafe { device.lock().unlock() };
    });
}

#[test]
fn request_and_reset() {
    explore(3, || {
        let device = Device::new();
        let other = request(&device);
        device.reset();
        other.join().unwrap();
    });
}

#[test]
fn two_requests_and_reset() {
    explore(2, || {
        let device = Device::new();
        let others = [request(&device), request(&device)];
        device.reset();
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn two_requests_and_reset_after_the_first() {
    explore(3, || {
        let device = Device::new();
        let [first, second] = [request(&device), request(&device)];
        first.join().unwrap();
        device.reset();
        second.join().unwrap();
    });
}

#[test]
fn killed_while_it_waits() {
    explore(3, || {
        let device = Device::new();
        // Nobody gives it back before the request has ended.
        device.lock.lock();
        let other = spawn(&device, |device| assert_eq!(device.request(), Err(EINTR)));
        wait_queue::kill();
        other.join().unwrap();
        // SAFETY: Locked above.
        unsafe { device.lock().unlock() };
    });
}

#[test]
fn killed_while_it_leads() {
    explore(3, || {
        let device = Device::new();
        let others =
            [0, 1].map(|_| spawn(&device, |device| assert_ne!(device.request(), Err(EAGAIN))));
        wait_queue::kill();
        for other in others {
            other.join().unwrap();
        }
        device.reset();
    });
}
