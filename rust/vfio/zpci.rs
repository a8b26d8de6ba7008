// SPDX-License-Identifier: GPL-2.0

//! The zPCI instructions, issued for a user.
//!
//! Always the function-handle forms, never the memory I/O (MIO) forms that `ioread64()` and its
//! siblings use where they can: some functions, ISM among them, accept nothing else.
//!
//! C header: [`arch/s390/include/asm/pci_insn.h`](srctree/arch/s390/include/asm/pci_insn.h)

use crate::{
    bindings,
    lease,
    page, //
};
use core::ptr::NonNull;
use kernel::{
    device,
    pci,
    prelude::*,
    time::{
        delay::udelay,
        Delta,
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};

/// How long, at least, a function must have been busy before it counts as busy.
const BUSY_TIME: Delta = Delta::from_millis(1);

/// How often, at least, it must have said so, unless that takes longer than [`BUSY_LIMIT`].
const BUSY_TRIES: u32 = 100;

/// How long a function that takes its time to say that it is busy is asked again.
const BUSY_LIMIT: Delta = Delta::from_secs(5);

/// Set in a function handle while the function is enabled.
const ENABLED: u32 = 1 << 31;

/// Why an instruction had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The function handle is not valid, or the function is not enabled (condition code 3).
    Handle,
    /// The function refused the instruction (condition code 1): it is in error, blocked, ...
    Function,
    /// The function stayed busy (condition code 2).
    Busy,
    /// A program exception: the operands are not legal for this function.
    Operands,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Handle => ENODEV,
            // CAST: Error numbers are small.
            Refusal::Function => Error::from_errno(-(bindings::EREMOTEIO as c_int)),
            Refusal::Busy => EBUSY,
            Refusal::Operands => ENXIO,
        }
    }
}

/// How many bytes a load or store moves: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width(u16);

impl Width {
    /// One byte.
    pub const BYTE: Self = Self(1);
    /// Two bytes.
    pub const HALFWORD: Self = Self(2);
    /// Four bytes.
    pub const WORD: Self = Self(4);
    /// Eight bytes.
    pub const DOUBLEWORD: Self = Self(8);

    /// The width of `len` bytes, if there is one.
    #[inline]
    pub const fn new(len: u16) -> Option<Self> {
        if matches!(len, 1 | 2 | 4 | 8) {
            Some(Self(len))
        } else {
            None
        }
    }

    /// The number of bytes.
    #[inline]
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

/// The zPCI side of a PCI function (`struct zpci_dev`).
///
/// # Invariants
///
/// It belongs to a PCI function which is, or keeps a reference to it that is, there as long as this
/// is.
#[derive(Clone, Copy)]
pub(crate) struct Zdev(NonNull<bindings::zpci_dev>);

impl Zdev {
    /// The zPCI side of `device`.
    ///
    /// # Safety
    ///
    /// It is not used when `device` is gone.
    pub(crate) unsafe fn new(device: &pci::Device<device::Bound>) -> Self {
        // CAST: `pci::Device` is a transparent wrapper of `struct pci_dev`.
        let pdev = core::ptr::from_ref(device).cast_mut().cast();
        // INVARIANT: By the safety requirements.
        //
        // SAFETY: Every PCI function of an s390 machine is a zPCI function, and keeps a reference
        // to its `zpci_dev`.
        Self(unsafe { NonNull::new_unchecked(bindings::vfio_helper_to_zpci(pdev)) })
    }

    /// The function identifier (FID).
    pub(crate) fn function_id(self) -> u32 {
        // SAFETY: Valid by the type invariants; constant since before the PCI function came to be.
        unsafe { (*self.0.as_ptr()).fid }
    }

    /// The function handle, which events change at any time, without a lock in common.
    #[inline]
    fn handle(self) -> u32 {
        // SAFETY: Valid by the type invariants.
        unsafe { (&raw const (*self.0.as_ptr()).fh).read_volatile() }
    }
}

/// The longest block the function takes in one PCI STORE BLOCK, in bytes.
pub fn max_store_block(device: &pci::Device<device::Bound>) -> u16 {
    // SAFETY: `device` is there; what is read is constant since before it came to be.
    unsafe { (*Zdev::new(device).0.as_ptr()).maxstbl }
}

/// A zPCI function, on which instructions can be issued.
///
/// It exists only inside of a lease: the device lock is held, so the host does not reset or disable
/// the function meanwhile, and its memory space is enabled.
pub struct Function<'a> {
    zdev: Zdev,
    inside: &'a lease::Inside<'a>,
    attempt: u32,
}

impl<'a> Function<'a> {
    /// The function with `zdev`, for an `attempt` (the first is 1).
    ///
    /// # Safety
    ///
    /// `inside` is about the lease of this function.
    #[inline]
    pub(crate) unsafe fn new(zdev: Zdev, inside: &'a lease::Inside<'a>, attempt: u32) -> Self {
        Self {
            zdev,
            inside,
            attempt,
        }
    }

    /// Issues one PCI STORE BLOCK: all of `block`, or nothing, goes to `offset` of address space
    /// `space` (0 to 5: the BARs).
    ///
    /// Neither the block nor its destination may cross 4 KiB; the function may ask for more.
    #[inline]
    pub fn store_block(
        &self,
        space: u8,
        offset: u64,
        block: page::Bytes<'_>,
    ) -> Result<(), Refusal> {
        // SAFETY: `Bytes` are valid for reads of their length, which is the one in `req`.
        self.issue(b'b', space, block.len(), offset, move |req| unsafe {
            bindings::zpci_insn_store_block(req, offset, block.as_ptr().cast())
        })
    }

    /// Issues one PCI LOAD, within a doubleword.
    ///
    /// Returns the bytes as the low-order bytes of an integer, most significant byte first.
    #[inline]
    pub fn load(&self, space: u8, width: Width, offset: u64) -> Result<u64, Refusal> {
        let value = Opaque::new(0);
        let to = value.get();
        // SAFETY: `value` is valid for writes.
        self.issue(b'l', space, width.bytes(), offset, move |req| unsafe {
            bindings::zpci_insn_load(req, offset, to)
        })?;
        // SAFETY: Initialized above; the instruction is over.
        let value = unsafe { value.get().read() };
        // The instruction leaves zeros to the left of the value. QEMU does not where the function
        // is emulated in larger units, so do here what conversions do in the kernel's zpci_read().
        Ok(value & (u64::MAX >> (u64::BITS - 8 * u32::from(width.bytes()))))
    }

    /// Issues one PCI STORE of the `width` low-order bytes of `value`, within a doubleword.
    #[inline]
    pub fn store(&self, space: u8, width: Width, offset: u64, value: u64) -> Result<(), Refusal> {
        // SAFETY: The arguments are plain values.
        self.issue(b's', space, width.bytes(), offset, move |req| unsafe {
            bindings::zpci_insn_store(req, offset, value)
        })
    }

    /// The one place where instructions are issued; `once` issues it, as `req` says.
    ///
    /// What the instruction does to the function is the user's business: its memory space is
    /// enabled, and its DMA goes through the IOMMU.
    #[inline]
    fn issue(
        &self,
        name: u8,
        space: u8,
        len: u16,
        offset: u64,
        once: impl FnOnce(u64) -> c_int,
    ) -> Result<(), Refusal> {
        self.inside.debug_check();

        // Firmware validates the handle, with the instance of enablement in it, so one read
        // suffices: a stale handle is refused.
        let handle = self.zdev.handle();
        if handle & ENABLED == 0 {
            return Err(Refusal::Handle);
        }

        // `ZPCI_CREATE_REQ()`
        let req = u64::from(handle) << 32 | u64::from(space) << 16 | u64::from(len);
        let answer = Answer(once(req));
        if trace_enabled() {
            self.trace(name, req, offset, answer);
        }
        answer.into_result()
    }

    /// Tracepoint `zpci_vfio_pci_insn`.
    #[cold]
    fn trace(&self, name: u8, req: u64, offset: u64, answer: Answer) {
        #[cfg(CONFIG_TRACEPOINTS)]
        // SAFETY: The arguments are plain values.
        unsafe {
            bindings::rust_do_trace_zpci_vfio_pci_insn(
                self.zdev.function_id(),
                name,
                req,
                offset,
                answer.0,
                self.attempt,
            )
        };
        #[cfg(not(CONFIG_TRACEPOINTS))]
        let _ = (name, req, offset, answer);
    }
}

/// Whether anybody listens to the tracepoint.
#[inline]
fn trace_enabled() -> bool {
    #[cfg(CONFIG_TRACEPOINTS)]
    // SAFETY: The static key of a tracepoint may be queried at any time.
    return unsafe {
        kernel::jump_label::static_branch_unlikely!(
            bindings::__tracepoint_zpci_vfio_pci_insn,
            kernel::bindings::tracepoint,
            key
        )
    };
    #[cfg(not(CONFIG_TRACEPOINTS))]
    return false;
}

/// What an instruction answered: `ZPCI_INSN_RESULT()`, or the number of an error.
#[derive(Clone, Copy)]
struct Answer(c_int);

impl Answer {
    /// 0 to 3, or another number after a program exception.
    #[inline]
    fn condition_code(self) -> c_int {
        self.0 & 0xff
    }

    #[inline]
    fn into_result(self) -> Result<(), Refusal> {
        // First of all, what is usual.
        if self.condition_code() == 0 {
            return Ok(());
        }
        Err(match self.condition_code() {
            1 => Refusal::Function,
            2 => Refusal::Busy,
            3 => Refusal::Handle,
            _ => Refusal::Operands,
        })
    }
}

/// The attempts of a call to have the function do something.
pub(crate) struct Attempts {
    /// The number of the present one.
    number: u32,
    /// When the first was over.
    since: Option<Instant<Monotonic>>,
}

impl Attempts {
    /// The first one.
    #[inline]
    pub(crate) const fn first() -> Self {
        Self {
            number: 1,
            since: None,
        }
    }

    /// The number of the present one.
    #[inline]
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Whether there is another one, the function having been busy: for a while, but not for ever.
    #[cold]
    pub(crate) fn another(&mut self) -> bool {
        let busy = self.since.get_or_insert_with(Instant::now).elapsed();
        if !goes_on(self.number, busy) || crate::killed() {
            return false;
        }
        self.number += 1;
        udelay(Delta::from_micros(1));
        true
    }
}

/// Whether it goes on after so many attempts at a function that has been `busy` so long.
fn goes_on(attempts: u32, busy: Delta) -> bool {
    busy < BUSY_TIME || (attempts < BUSY_TRIES && busy < BUSY_LIMIT)
}

#[cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)]
#[kunit_tests(zpci_vfio_pci_insn)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_an_errno_of_its_own() {
        assert!(Error::from(Refusal::Handle) == ENODEV);
        assert!(Error::from(Refusal::Function).to_errno() == -121);
        assert!(Error::from(Refusal::Busy) == EBUSY);
        assert!(Error::from(Refusal::Operands) == ENXIO);
    }

    #[test]
    fn a_busy_function_is_tried_for_1_millisecond_and_100_times() {
        let micros = Delta::from_micros;
        assert!(goes_on(1_000_000, micros(999)));
        assert!(goes_on(99, micros(1_000)));
        assert!(!goes_on(100, micros(1_000)));
    }

    #[test]
    fn a_slow_function_is_tried_for_5_seconds() {
        let micros = Delta::from_micros;
        assert!(goes_on(1, micros(4_999_999)));
        assert!(!goes_on(1, micros(5_000_000)));
    }

    #[test]
    fn widths_are_1_2_4_and_8() {
        for len in 0..=16 {
            let width = Width::new(len).map(Width::bytes);
            assert!(width == Some(len).filter(|len| matches!(len, 1 | 2 | 4 | 8)));
        }
    }

    #[test]
    fn an_answer_is_a_condition_code_or_an_exception() {
        let status = 12;
        for (code, result) in (0..).zip([
            Ok(()),
            Err(Refusal::Function),
            Err(Refusal::Busy),
            Err(Refusal::Handle),
        ]) {
            assert!(Answer(status << 8 | code).into_result() == result);
        }
        assert!(Answer(ENXIO.to_errno()).into_result() == Err(Refusal::Operands));
    }
}
