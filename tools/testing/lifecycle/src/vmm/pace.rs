// SPDX-License-Identifier: GPL-2.0

//! When the threads of the VMM send their requests.

use preempt_rt::sched::{Scheduler, SchedulerParams};
use rustix::time::{clock_getres, clock_gettime, ClockId};
use std::{
    hint, thread,
    time::{Duration, Instant},
};

#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// All threads, all the time.
    Steady,
    /// So that they come into each other's way on a single CPU. There, a request is not preempted
    /// by others of its kind. So the first thread has a request under way whenever a tick comes, and
    /// the tick wakes all others, which are real-time threads: they preempt it wherever it is. If it
    /// is about to lock or to unlock, all of them have to wait for it.
    Colliding,
}

impl Pace {
    const ALL: [Self; 2] = [Self::Steady, Self::Colliding];

    /// For [`Self::named`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Colliding => "colliding",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pace| pace.name() == name)
    }

    /// What this means for the current thread, which is number 1 or a later one.
    pub fn of_thread(self, number: usize) -> Moment {
        match (self, number) {
            (Self::Steady, _) => Moment::Any,
            (Self::Colliding, 1) => Moment::BeforeTick { step: 0 },
            (Self::Colliding, _) => {
                // Different ones, so that they also interrupt each other.
                be_urgent(i32::try_from(number).expect("a few threads"));
                Moment::Tick {
                    awake: Instant::now(),
                }
            }
        }
    }
}

/// Lets the current thread, when it wakes, interrupt all that are not real-time threads.
pub(crate) fn be_urgent(priority: i32) {
    let urgent = Scheduler::SCHED_FIFO.with_params(SchedulerParams { priority });
    urgent.set_current().expect("SCHED_FIFO");
}

/// How long before a tick the first thread begins to send: enough for some requests.
const LEAD: Duration = Duration::from_micros(10);

/// How many times the first thread begins a little later than the last time: up to more than the
/// length of a request.
const STEPS: u32 = 512;

/// An urgent thread sleeps at least this many times as long as it was awake, so that all of them
/// together leave half of a CPU to the others.
const REST: u32 = 32;

/// When a thread sends its next request.
pub(crate) enum Moment {
    Any,
    /// Shortly before a tick, and until it has come; each time a few instructions later, for else,
    /// on a machine that repeats itself exactly, it would always come at the same point of a
    /// request.
    BeforeTick {
        step: u32,
    },
    /// As soon as a tick wakes it.
    Tick {
        awake: Instant,
    },
}

impl Moment {
    pub fn wait(&mut self) {
        match self {
            Self::Any => {}
            Self::BeforeTick { step } => {
                let next = time(ClockId::MonotonicCoarse) + resolution(ClockId::MonotonicCoarse);
                let begin = next - LEAD;
                if time(ClockId::Monotonic) < begin {
                    while time(ClockId::Monotonic) < begin {
                        spin(100);
                    }
                    *step = (*step + 1) % STEPS;
                    spin(*step);
                }
            }
            Self::Tick { awake } => {
                // Timers are only looked at when there is a tick, so usually this ends with the
                // next one. On a slow machine it leaves time for who is less urgent.
                thread::sleep(REST * awake.elapsed());
                *awake = Instant::now();
            }
        }
    }
}

/// Takes a few instructions for each round.
fn spin(rounds: u32) {
    for round in 0..rounds {
        hint::black_box(round);
    }
}

fn time(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("a time since boot")
}

fn resolution(clock: ClockId) -> Duration {
    clock_getres(clock).try_into().expect("a period")
}
