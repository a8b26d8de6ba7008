// SPDX-License-Identifier: GPL-2.0

//! Several things at a time, in lanes; their results come in order.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::error::Result;

/// How many lanes there are: a machine that searches its memory, or waits, keeps no more than one
/// processor busy.
pub fn number() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().min(2))
}

/// Does `work` for each item, in so many threads, and has `done` told of the results in the items'
/// order, each with its number.
pub fn run<T: Sync, R: Send>(
    lanes: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, usize, R) -> Result<()>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..lanes {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { break };
                if sender.send((index, work(item))).is_err() {
                    // `done` has failed.
                    break;
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (index, result) in results {
            early.insert(index, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                done(&items[due - 1], due, result)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_come_in_order_whatever_is_done_first() {
        // The first is the last to end: it waits for all the others.
        let ended = AtomicUsize::new(0);
        let work = |item: &usize| {
            while *item == 0 && ended.load(Ordering::Acquire) < 4 {
                thread::yield_now();
            }
            ended.fetch_add(1, Ordering::Release);
            item * 10
        };
        let mut told = Vec::new();
        run(2, &[0, 1, 2, 3, 4], work, |item, number, result| {
            told.push((*item, number, result));
            Ok(())
        })
        .unwrap();
        assert_eq!(
            told,
            [(0, 1, 0), (1, 2, 10), (2, 3, 20), (3, 4, 30), (4, 5, 40)]
        );
        let failed = run(
            1,
            &[0, 1],
            |item| *item,
            |_, _, _| Err(Error::new("test", "it fails", "")),
        );
        assert!(failed.is_err());
    }
}
