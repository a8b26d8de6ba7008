// SPDX-License-Identifier: GPL-2.0

//! Stand-in for `memory_lock`: who holds it for read. What its writers do, the model in
//! `tools/testing/model` has.

use core::marker::PhantomData;
use std::cell::Cell;

loom::thread_local! {
    static HELD: Cell<bool> = Cell::new(false);
}

pub(crate) struct Guard<'a>(PhantomData<&'a ()>);

impl Guard<'_> {
    pub(crate) fn new() -> Self {
        assert!(!HELD.with(|held| held.replace(true)), "it is taken once");
        Self(PhantomData)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        HELD.with(|held| held.set(false));
    }
}

/// Whether this thread holds it.
pub(crate) fn is_held() -> bool {
    HELD.with(Cell::get)
}
