// SPDX-License-Identifier: GPL-2.0

//! Builds the lease with its checks, as a debug kernel does.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(CONFIG_ZPCI_VFIO_PCI_KUNIT_TEST)");
    println!("cargo::rustc-check-cfg=cfg(CONFIG_ZPCI_VFIO_PCI_DEBUG)");
    println!("cargo::rustc-cfg=CONFIG_ZPCI_VFIO_PCI_DEBUG");
    println!("cargo::rerun-if-changed=build.rs");
}
