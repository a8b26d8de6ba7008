// SPDX-License-Identifier: GPL-2.0

//! What libFuzzer calls with bytes that it has changed to reach more of the code.

#![no_main]

use std::slice;

/// # Safety
///
/// Called by libFuzzer.
#[no_mangle]
unsafe extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, len: usize) -> i32 {
    // SAFETY: libFuzzer passes the address of so many bytes.
    request::driver::check_bytes(unsafe { slice::from_raw_parts(data, len) });
    0
}
