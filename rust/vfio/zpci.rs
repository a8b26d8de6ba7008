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
use core::marker::PhantomData;
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

/// How long, at least, an instruction is repeated while the function is busy.
const BUSY_TIME: Delta = Delta::from_millis(1);

/// How often, at least, an instruction is issued before the function counts as busy.
const BUSY_TRIES: u32 = 100;

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

/// The zPCI properties of the PCI function.
fn zdev(device: &pci::Device<device::Bound>) -> *mut bindings::zpci_dev {
    // CAST: `pci::Device` is a transparent wrapper of `struct pci_dev`.
    let pdev = core::ptr::from_ref(device).cast_mut().cast();
    // SAFETY: Every PCI function of an s390 machine is a zPCI function. It keeps a reference to its
    // `zpci_dev`, which thus lives as long as `device`.
    unsafe { bindings::vfio_helper_to_zpci(pdev) }
}

/// The function identifier (FID).
pub fn function_id(device: &pci::Device<device::Bound>) -> u32 {
    // SAFETY: Valid as `zdev()` says; set before the PCI function came to be, constant since.
    unsafe { (*zdev(device)).fid }
}

/// The longest block the function takes in one PCI STORE BLOCK, in bytes.
pub fn max_store_block(device: &pci::Device<device::Bound>) -> u16 {
    // SAFETY: Valid as `zdev()` says; set before the PCI function came to be, constant since.
    unsafe { (*zdev(device)).maxstbl }
}

/// The instruction to issue.
#[derive(Clone, Copy)]
enum Insn<'a> {
    StoreBlock(page::Bytes<'a>),
    Load(&'a Opaque<u64>),
    Store(u64),
}

/// A zPCI function, on which instructions can be issued.
///
/// It exists only as long as a lease does: the device lock is held, so the host does not reset or
/// disable the function meanwhile, and its memory space is enabled.
pub struct Function<'a> {
    lease: &'a lease::Guard<'a>,
    zdev: *mut bindings::zpci_dev,
    _lives: PhantomData<&'a bindings::zpci_dev>,
}

impl<'a> Function<'a> {
    /// The function that `lease` is for.
    #[inline]
    pub fn new(lease: &'a lease::Guard<'a>) -> Self {
        Self {
            lease,
            zdev: zdev(lease.device()),
            _lives: PhantomData,
        }
    }

    /// Issues one PCI STORE BLOCK: all of `block`, or nothing, goes to `offset` of address space
    /// `space` (0 to 5: the BARs).
    ///
    /// Neither the block nor its destination may cross 4 KiB; the function may ask for more.
    pub fn store_block(
        &self,
        space: u8,
        offset: u64,
        block: page::Bytes<'_>,
    ) -> Result<(), Refusal> {
        // CAST: A block lies in one page.
        self.issue(space, block.len() as u16, offset, Insn::StoreBlock(block))
    }

    /// Issues one PCI LOAD of `len` bytes (1, 2, 4 or 8) within a doubleword.
    ///
    /// Returns them as the low-order bytes of an integer, most significant byte first.
    pub fn load(&self, space: u8, len: u16, offset: u64) -> Result<u64, Refusal> {
        let value = Opaque::new(0);
        self.issue(space, len, offset, Insn::Load(&value))?;
        // SAFETY: Initialized above; the instruction is over.
        let value = unsafe { value.get().read() };
        // The instruction leaves zeros to the left of the value. QEMU does not where the function
        // is emulated in larger units, so do here what conversions do in the kernel's zpci_read().
        Ok(value & (u64::MAX >> (u64::BITS - 8 * u32::from(len))))
    }

    /// Issues one PCI STORE of the `len` (1, 2, 4 or 8) low-order bytes of `value` within a
    /// doubleword.
    pub fn store(&self, space: u8, len: u16, offset: u64, value: u64) -> Result<(), Refusal> {
        self.issue(space, len, offset, Insn::Store(value))
    }

    /// The one place where instructions are issued.
    fn issue(&self, space: u8, len: u16, offset: u64, insn: Insn<'_>) -> Result<(), Refusal> {
        self.lease.debug_check();

        // Events change the handle at any time, without a lock in common. Firmware validates it,
        // with the instance of enablement in it, so one read suffices: a stale handle is refused.
        //
        // SAFETY: `zdev` is valid, see `zdev()`.
        let handle = unsafe { (&raw const (*self.zdev).fh).read_volatile() };
        if handle & ENABLED == 0 {
            return Err(Refusal::Handle);
        }

        // `ZPCI_CREATE_REQ()`
        let req = u64::from(handle) << 32 | u64::from(space) << 16 | u64::from(len);
        let mut tries = 1;
        let mut result = self.issue_once(req, offset, insn);
        if result.cc == CC_BUSY {
            let since = Instant::<Monotonic>::now();
            while result.cc == CC_BUSY
                && (tries < BUSY_TRIES || since.elapsed() < BUSY_TIME)
                && !crate::killed()
            {
                udelay(Delta::from_micros(1));
                result = self.issue_once(req, offset, insn);
                tries += 1;
            }
        }

        self.trace(insn, req, offset, &result, tries);

        match result.cc {
            0 => Ok(()),
            1 => Err(Refusal::Function),
            CC_BUSY => Err(Refusal::Busy),
            3 => Err(Refusal::Handle),
            _ => Err(Refusal::Operands),
        }
    }

    fn issue_once(&self, req: u64, offset: u64, insn: Insn<'_>) -> bindings::zpci_insn_result {
        // SAFETY: `Bytes` are valid for reads of their length, which is the one in `req`; `value`
        // is valid for writes. What the instruction does to the function is the user's business:
        // its memory space is enabled, and its DMA goes through the IOMMU.
        unsafe {
            match insn {
                Insn::StoreBlock(block) => {
                    bindings::zpci_insn_store_block(req, offset, block.as_ptr().cast())
                }
                Insn::Load(value) => bindings::zpci_insn_load(req, offset, value.get()),
                Insn::Store(value) => bindings::zpci_insn_store(req, offset, value),
            }
        }
    }

    /// Tracepoint `zpci_vfio_pci_insn`.
    #[inline(always)]
    fn trace(
        &self,
        insn: Insn<'_>,
        req: u64,
        offset: u64,
        result: &bindings::zpci_insn_result,
        tries: u32,
    ) {
        #[cfg(CONFIG_TRACEPOINTS)]
        {
            // SAFETY: The static key of a tracepoint may be queried at any time.
            let enabled = unsafe {
                kernel::jump_label::static_branch_unlikely!(
                    bindings::__tracepoint_zpci_vfio_pci_insn,
                    kernel::bindings::tracepoint,
                    key
                )
            };
            if enabled {
                let name = match insn {
                    Insn::StoreBlock(_) => b'b',
                    Insn::Load(_) => b'l',
                    Insn::Store(_) => b's',
                };
                // SAFETY: `zdev` is valid; the arguments are plain values.
                unsafe {
                    bindings::rust_do_trace_zpci_vfio_pci_insn(
                        (*self.zdev).fid,
                        name,
                        req,
                        offset,
                        result.cc,
                        result.status,
                        tries,
                    )
                };
            }
        }
        #[cfg(not(CONFIG_TRACEPOINTS))]
        let _ = (insn, req, offset, result, tries);
    }
}

/// Condition code 2.
const CC_BUSY: c_int = 2;

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
}
