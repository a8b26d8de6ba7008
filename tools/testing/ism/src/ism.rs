// SPDX-License-Identifier: GPL-2.0

//! A small driver of ISM functions, as far as the tests need it, on any way to their BARs.

use rustix::io::Errno;
use std::{
    fmt,
    sync::{atomic::Ordering::Relaxed, Arc},
};
use vfio_zpci_io::{abi, Device, DmaPage};

/// The BARs: data moves, and commands.
pub(crate) const MOVES: u8 = 0;
pub(crate) const COMMANDS: u8 = 2;
pub(crate) const COMMANDS_SIZE: u64 = 256;

/// How the BARs of a function are reached.
pub(crate) trait Bars {
    fn device(&self) -> &Device;
    /// One block.
    fn store_block(&self, bar: u8, offset: u64, block: &[u8]) -> Result<(), Errno>;
    /// Bytes, which may take several loads.
    fn load_bytes(&self, bar: u8, offset: u64, len: usize) -> Result<Vec<u8>, Errno>;
}

const REG_SBA: u32 = 1;
pub(crate) const READ_GID: u32 = 3;
pub(crate) const QUERY_INFO: u32 = 8;
const REG_DMB: u32 = 10;

/// The answer to a command.
#[derive(PartialEq, Eq)]
pub(crate) struct Reply {
    pub ret: u16,
    pub words: Vec<u64>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {:x?}", self.ret, self.words)
    }
}

/// Runs a command: what follows the header is stored first, the header starts it.
pub(crate) fn command(bars: &dyn Bars, code: u32, words: &[u64]) -> Result<Reply, Errno> {
    const HEADER: usize = 8;
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    if !body.is_empty() {
        bars.store_block(COMMANDS, HEADER as u64, &body)?;
    }
    let header = u64::from(code) << 32 | (HEADER + body.len()) as u64;
    bars.store_block(COMMANDS, 0, &header.to_be_bytes())?;

    let header = to_words(&bars.load_bytes(COMMANDS, 0, HEADER)?)[0];
    let len = (header & 0xffff) as usize;
    Ok(Reply {
        ret: (header >> 16) as u16,
        words: to_words(&bars.load_bytes(COMMANDS, HEADER as u64, len - HEADER)?),
    })
}

fn to_words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks(8);
    words
        .map(|word| {
            word.iter()
                .fold(0, |value, &byte| value << 8 | u64::from(byte))
        })
        .collect()
}

/// Memory into which one other function may write.
pub(crate) struct Buffer {
    pub token: u64,
    /// First a page where the function says which buffers were written, and where in them; then the
    /// buffer itself.
    pages: Arc<[DmaPage]>,
}

impl Buffer {
    /// Its size in pages.
    pub const PAGES: usize = 16;
    /// Its number.
    pub const INDEX: u64 = 32;

    /// Registers a buffer of a function, for the one whose name is `sender`.
    pub fn register(owner: &dyn Bars, sender: u64) -> Self {
        /// Where the addresses start that an emulated function can reach.
        const FIRST: u64 = 1 << 32;
        const PAGE: u64 = abi::PAGE_SIZE as u64;
        let pages = DmaPage::zeroed(1 + Self::PAGES);
        owner
            .device()
            .map_dma(FIRST, pages.clone())
            .expect("mapped for DMA");
        let reply = command(owner, REG_SBA, &[FIRST]).expect("REG_SBA");
        assert_eq!(reply.ret, 0, "REG_SBA");
        let size = Self::PAGES as u64 * PAGE;
        let words = [FIRST + PAGE, size << 32 | Self::INDEX, 0, sender];
        let reply = command(owner, REG_DMB, &words).expect("REG_DMB");
        assert_eq!(reply.ret, 0, "REG_DMB");
        Self {
            token: reply.words[0],
            pages,
        }
    }

    /// Where in BAR 0 of the sender a byte of the buffer is.
    pub fn at(&self, offset: u64) -> u64 {
        self.token | offset
    }

    /// Where the function says what was written.
    pub fn signals(&self) -> &DmaPage {
        &self.pages[0]
    }

    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let bytes = self.pages[1..].iter().flat_map(DmaPage::bytes);
        bytes.skip(at).take(len).map(|b| b.load(Relaxed)).collect()
    }

    pub fn clear(&self) {
        let bytes = self.pages[1..].iter().flat_map(DmaPage::bytes);
        bytes.for_each(|byte| byte.store(0, Relaxed));
    }
}

/// Bytes that are not 0 and differ from their neighbours.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 + 1).collect()
}
