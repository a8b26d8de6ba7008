// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the wait queues of the kernel, with their barriers and no others.

use crate::{memory, prelude::*, sync::atomic::fence};
use loom::sync::{
    atomic::{AtomicUsize, Ordering},
    Condvar, Mutex,
};
use std::{cell::Cell, sync::Arc};

loom::lazy_static! {
    /// All queues of a scenario, for what comes from outside: ticks and signals.
    static ref QUEUES: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());
}

/// A tick passes: whoever sleeps for one, or is about to, wakes up.
pub(crate) fn tick() {
    for queue in QUEUES.lock().unwrap().iter() {
        queue.with_places(|place| place.ticked = true);
    }
}

/// All tasks are killed.
pub(crate) fn kill() {
    for queue in QUEUES.lock().unwrap().iter() {
        queue.locked.lock().unwrap().killed = true;
        queue.with_places(|place| place.awake |= place.killable);
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Sleep {
    Killable,
    Uninterruptible,
}

/// The head of a queue.
struct Shared {
    /// Stands for the pointers to the first and last place, which are read without the lock.
    len: AtomicUsize,
    locked: Mutex<Locked>,
    /// The scheduler.
    awake: Condvar,
}

/// What the spinlock of a queue protects.
#[derive(Default)]
struct Locked {
    places: Vec<Sleeper>,
    next: usize,
    killed: bool,
}

/// A task on a queue.
struct Sleeper {
    number: usize,
    /// It has been woken, since it prepared to sleep, and at all.
    awake: bool,
    woken: bool,
    /// A tick has passed since it prepared to sleep.
    ticked: bool,
    killable: bool,
}

impl Sleeper {
    fn sleeps(&self, jiffies: c_long) -> bool {
        !(self.awake || self.ticked && jiffies == 1)
    }
}

impl Shared {
    fn with_places(&self, f: impl FnMut(&mut Sleeper)) {
        self.locked.lock().unwrap().places.iter_mut().for_each(f);
        self.awake.notify_all();
    }
}

pub(crate) struct WaitQueue(Arc<Shared>);

impl WaitQueue {
    pub(crate) fn new(_name: &'static CStr, _key: ()) -> impl PinInit<Self> {
        let shared = Arc::new(Shared {
            len: AtomicUsize::new(0),
            locked: Mutex::new(Locked::default()),
            awake: Condvar::new(),
        });
        QUEUES.lock().unwrap().push(shared.clone());
        Self(shared)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn wake(&self) {
        self.0.with_places(|place| {
            place.awake = true;
            place.woken = true;
        });
    }

    pub(crate) fn with_place<R>(&self, f: impl FnOnce(&Place<'_>) -> R) -> R {
        let place = Place {
            queue: &self.0,
            number: Cell::new(None),
        };
        let result = f(&place);
        if let Some(number) = place.number.get() {
            let mut locked = self.0.locked.lock().unwrap();
            locked.places.retain(|place| place.number != number);
            self.0.len.store(locked.places.len(), Ordering::Relaxed);
        }
        result
    }
}

pub(crate) struct Place<'a> {
    queue: &'a Shared,
    number: Cell<Option<usize>>,
}

impl Place<'_> {
    /// As `prepare_to_wait_event()`: on the queue, then set_current_state() with its barrier, both
    /// under the lock; a task that is killed is taken off.
    pub(crate) fn prepare(&self, sleep: Sleep) -> bool {
        let mut locked = self.queue.locked.lock().unwrap();
        let killable = matches!(sleep, Sleep::Killable);
        // A leader waits for its members so, never killable.
        assert!(
            !(killable && memory::is_held()),
            "a request that waits holds no lock"
        );
        let number = self.number.get().unwrap_or_else(|| {
            let number = locked.next;
            locked.next += 1;
            locked.places.push(Sleeper {
                number,
                awake: false,
                woken: false,
                ticked: false,
                killable,
            });
            let len = locked.places.len();
            self.queue.len.store(len, Ordering::Relaxed);
            self.number.set(Some(number));
            number
        });
        let place = find(&mut locked, number);
        (place.awake, place.ticked) = (false, false);
        fence();
        killable && locked.killed
    }

    pub(crate) fn sleep(&self, jiffies: c_long) -> c_long {
        let number = self.number.get().expect("it was prepared");
        let mut locked = self.queue.locked.lock().unwrap();
        while find(&mut locked, number).sleeps(jiffies) {
            locked = self.queue.awake.wait(locked).unwrap();
        }
        if find(&mut locked, number).awake {
            jiffies
        } else {
            0
        }
    }

    pub(crate) fn is_woken(&self) -> bool {
        let number = self.number.get().expect("it was prepared");
        find(&mut self.queue.locked.lock().unwrap(), number).woken
    }
}

fn find(locked: &mut Locked, number: usize) -> &mut Sleeper {
    locked
        .places
        .iter_mut()
        .find(|place| place.number == number)
        .expect("it is on the queue")
}
