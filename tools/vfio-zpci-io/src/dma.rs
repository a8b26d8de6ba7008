// SPDX-License-Identifier: GPL-2.0

//! Memory that a function reads and writes by itself.

use crate::abi::PAGE_SIZE;
use std::sync::atomic::AtomicU8;

/// A page of memory that a function may read and write at any time, see
/// [`Device::map_dma`](crate::Device::map_dma).
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct DmaPage([AtomicU8; PAGE_SIZE]);

impl DmaPage {
    /// So many pages of zeroes, which are never freed.
    pub fn leak(count: usize) -> &'static [Self] {
        let page = || Self([const { AtomicU8::new(0) }; PAGE_SIZE]);
        Vec::leak(std::iter::repeat_with(page).take(count).collect())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[AtomicU8; PAGE_SIZE] {
        &self.0
    }
}
