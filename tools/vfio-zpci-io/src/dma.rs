// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that a function reads and writes by itself.

use crate::abi::PAGE_SIZE;
use std::sync::{atomic::AtomicU8, Arc};

/// A page of memory that a function may read and write at any time, see
/// [`Device::map_dma`](crate::Device::map_dma).
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct DmaPage([AtomicU8; PAGE_SIZE]);

const _: () = assert!(align_of::<DmaPage>() == PAGE_SIZE);

impl DmaPage {
    /// So many pages of zeroes.
    pub fn zeroed(count: usize) -> Arc<[Self]> {
        let page = || Self([const { AtomicU8::new(0) }; PAGE_SIZE]);
        std::iter::repeat_with(page).take(count).collect()
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[AtomicU8; PAGE_SIZE] {
        &self.0
    }
}
