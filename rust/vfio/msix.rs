// SPDX-License-Identifier: GPL-2.0

//! Where the MSI-X structures of a PCI function are.
//!
//! They belong to the host, which writes interrupt addresses into the table; the VFIO core keeps
//! user space away from them, and so must everyone else who accesses a BAR for user space.

use crate::bindings;
use kernel::{
    device,
    pci,
    prelude::*, //
};

/// Bytes of the table for one vector.
const TABLE_ENTRY: u64 = 16;

/// Bytes of the pending bit array for up to 64 vectors.
const PBA_ENTRY: u64 = 8;

/// The table and the pending bit array, as BAR, offset in it, and length in bytes.
///
/// Both lengths are 0 if the function has no MSI-X.
///
/// # Errors
///
/// `EIO` if the configuration space cannot be read.
pub fn windows(device: &pci::Device<device::Bound>) -> Result<[(u8, u64, u64); 2]> {
    // CAST: `pci::Device` is a transparent wrapper of `struct pci_dev`.
    let pdev: *mut bindings::pci_dev = core::ptr::from_ref(device).cast_mut().cast();
    // SAFETY: `pdev` is valid; the field is set when the function is scanned.
    let cap = c_int::from(unsafe { (*pdev).msix_cap });
    if cap == 0 {
        return Ok([(0, 0, 0); 2]);
    }

    // CAST: Register offsets are small.
    let flags = cap + bindings::PCI_MSIX_FLAGS as c_int;
    let table = cap + bindings::PCI_MSIX_TABLE as c_int;
    let pba = cap + bindings::PCI_MSIX_PBA as c_int;

    let mut control = 0;
    // SAFETY: `pdev` and `control` are valid.
    if unsafe { bindings::pci_read_config_word(pdev, flags, &raw mut control) } != 0 {
        return Err(EIO);
    }
    let vectors = u64::from(control & bindings::PCI_MSIX_FLAGS_QSIZE as u16) + 1;

    let window = |register, len| {
        let mut location = 0;
        // SAFETY: `pdev` and `location` are valid.
        if unsafe { bindings::pci_read_config_dword(pdev, register, &raw mut location) } != 0 {
            return Err(EIO);
        }
        // CAST: The BAR has three bits.
        let bar = (location & bindings::PCI_MSIX_TABLE_BIR) as u8;
        Ok((
            bar,
            u64::from(location & !bindings::PCI_MSIX_TABLE_BIR),
            len,
        ))
    };
    Ok([
        window(table, vectors * TABLE_ENTRY)?,
        window(pba, vectors.div_ceil(64) * PBA_ENTRY)?,
    ])
}
