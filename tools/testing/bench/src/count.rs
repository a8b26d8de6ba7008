// SPDX-License-Identifier: GPL-2.0

//! Counts instructions by a clock of which a nanosecond is one.

use rustix::{
    io::Errno,
    time::{clock_gettime, ClockId},
};
use std::time::Instant;

/// A batch is short, as to fall between two ticks of the kernel, which would count as well.
const CALLS: u32 = 100;

/// How many batches are counted. The least is neither disturbed nor the first, which fills caches.
const BATCHES: u32 = 20;

/// Prints how many instructions a call takes, from user space and back.
pub(crate) fn print(driver: &str, call: &str, bytes: usize, count: u64) {
    println!("count\t{driver}\t{call}\t{bytes}\t{count}");
}

/// Counts the instructions of `call`, which must end as `wanted`.
pub(crate) fn instructions<T: PartialEq>(
    wanted: Result<T, Errno>,
    call: impl Fn() -> Result<T, Errno>,
) -> Result<u64, Errno> {
    let batch = |calls| {
        let batch = || {
            let start = Instant::now();
            for _ in 0..calls {
                let result = call();
                if result != wanted {
                    return Err(result.err().unwrap_or(Errno::IO));
                }
            }
            Ok(start.elapsed().as_nanos() as u64)
        };
        (0..BATCHES)
            .map(|_| batch())
            .try_fold(u64::MAX, |least, time| Ok(least.min(time?)))
    };
    // The difference is without what reading the clock takes.
    let (long, short) = (batch(2 * CALLS)?, batch(CALLS)?);
    Ok((long.saturating_sub(short) + u64::from(CALLS) / 2) / u64::from(CALLS))
}

/// Waits for a tick of the kernel, so that what follows has always as many of them.
pub(crate) fn await_tick() {
    let now = || clock_gettime(ClockId::MonotonicCoarse);
    let begin = now();
    while now() == begin {}
}
