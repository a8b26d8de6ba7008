// SPDX-License-Identifier: GPL-2.0

//! Stand-in for `memory_lock`, which the model in `tools/testing/model` has.

pub(crate) struct Guard<'a>(pub(crate) core::marker::PhantomData<&'a ()>);
