// SPDX-License-Identifier: GPL-2.0

//! Which instructions the driver issues for a function meanwhile.

use booted::trace::{issued, start, stop, Issued};

/// What `f` returns, and the instructions issued meanwhile for the function `fid`.
pub(crate) fn during<T>(fid: u32, f: impl FnOnce() -> T) -> (T, Vec<Issued>) {
    start().expect("tracing");
    let result = f();
    stop().expect("tracing");
    (result, so_far(fid))
}

/// The instructions issued for the function `fid` since [`during`] has begun.
pub(crate) fn so_far(fid: u32) -> Vec<Issued> {
    let mut issued = issued().expect("the trace");
    issued.retain(|issued| issued.fid == fid);
    issued
}
