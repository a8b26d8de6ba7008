// SPDX-License-Identifier: GPL-2.0

//! Memory of this process that the kernel reads and writes by its address, and that may not be
//! accessible at all. Rust code touches it only here, through raw pointers.

use rustix::{
    io::Result,
    mm::{
        madvise, mmap, mmap_anonymous, mprotect, munmap, Advice, MapFlags, MprotectFlags, ProtFlags,
    },
};
use std::{os::fd::AsFd, ptr};

/// Size of a page of s390x.
pub const PAGE: usize = 4096;

/// A mapping of its own, which ends with the value.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: A mapping belongs to the process, not to a thread, and all accesses are volatile.
unsafe impl Send for Mapping {}
// SAFETY: As above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: It is ours; a hole in it (`punch`) does no harm.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

impl Mapping {
    /// Anonymous private memory, readable and writable.
    pub fn anonymous(len: usize, flags: MapFlags) -> Result<Self> {
        let flags = flags | MapFlags::PRIVATE;
        // SAFETY: A new mapping, where the kernel likes.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, READ_WRITE, flags) }?;
        Ok(Self::new(start.cast(), len))
    }

    /// Pages of anonymous private memory, readable and writable, which nobody touched.
    pub fn pages(count: usize) -> Self {
        Self::anonymous(count * PAGE, MapFlags::empty()).expect("there is memory")
    }

    /// Room for one value, in a page which is there: a driver that does not ask for the right to
    /// write finds it as well.
    pub fn value() -> Self {
        let page = Self::pages(1);
        page.write(0, &[0; 8]);
        page
    }

    /// The start of a file.
    pub fn file(file: impl AsFd, len: usize, prot: ProtFlags, flags: MapFlags) -> Result<Self> {
        Self::file_at(file, 0, len, prot, flags)
    }

    /// A part of a file.
    pub fn file_at(
        file: impl AsFd,
        offset: u64,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self> {
        // SAFETY: A new mapping, where the kernel likes.
        let start = unsafe { mmap(ptr::null_mut(), len, prot, flags, file, offset) }?;
        Ok(Self::new(start.cast(), len))
    }

    fn new(start: *mut u8, len: usize) -> Self {
        // What the kernel does by address is then defined for the compiler, too.
        start.expose_provenance();
        Self { start, len }
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Its address.
    pub fn addr(&self) -> u64 {
        self.start.addr() as u64
    }

    /// The address behind it.
    pub fn end(&self) -> u64 {
        self.addr() + self.len as u64
    }

    /// Changes its protection.
    pub fn protect(&self, protection: MprotectFlags) {
        // SAFETY: It is ours, and nobody holds a reference into it.
        unsafe { mprotect(self.start.cast(), self.len, protection) }.expect("mprotect");
    }

    /// Takes what begins at `at` out of use: nobody can access it, and nothing else gets there.
    pub fn guard(&self, at: usize) {
        assert!(at <= self.len);
        let start = self.start.wrapping_add(at).cast();
        // SAFETY: It is ours, and nobody holds a reference into it.
        unsafe { mprotect(start, self.len - at, MprotectFlags::empty()) }.expect("mprotect");
    }

    /// Gives an advice for it.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        // SAFETY: It is ours, and nobody holds a reference into it.
        unsafe { madvise(self.start.cast(), self.len, advice) }
    }

    /// Makes a hole in it: `len` bytes from `at` are not mapped any more.
    pub fn punch(&self, at: usize, len: usize) {
        assert!(at + len <= self.len);
        // SAFETY: It is ours, and nobody holds a reference into it.
        unsafe { munmap(self.start.wrapping_add(at).cast(), len) }.expect("munmap");
    }

    /// Copies from it. The bytes must be mapped and readable.
    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.len);
        (at..at + len)
            // SAFETY: Within the mapping.
            .map(|at| unsafe { self.start.add(at).read_volatile() })
            .collect()
    }

    /// Whether it starts with these bytes, which must be mapped and readable.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        assert!(bytes.len() <= self.len);
        let (words, rest) = bytes.as_chunks();
        let same = |(at, &word): (usize, &[u8; 8])| {
            // SAFETY: Within the mapping, which starts with a page.
            unsafe { self.start.cast::<[u8; 8]>().add(at).read_volatile() == word }
        };
        words.iter().enumerate().all(same)
            && self.read(bytes.len() - rest.len(), rest.len()) == rest
    }

    /// Copies to it. The bytes must be mapped and writable.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        for (at, &byte) in (at..).zip(bytes) {
            // SAFETY: Within the mapping.
            unsafe { self.start.add(at).write_volatile(byte) };
        }
    }
}

pub const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
