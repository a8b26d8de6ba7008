// SPDX-License-Identifier: GPL-2.0

//! vfio-pci variant driver for zPCI functions, with the zPCI I/O region.
//!
//! See `Documentation/arch/s390/vfio-zpci-io.rst`.

use kernel::{
    device::Bound,
    pci,
    prelude::*, //
};
use vfio::{
    driver::{
        DeviceId,
        Driver,
        IdTable, //
    },
    msix,
    region::Opening,
    zpci, //
};

mod bars;
mod region;
mod request;

use bars::ByInstruction;
use region::ZpciIo;
use request::{
    Limits,
    Window,
    BARS, //
};

/// ISM: the internal shared memory device behind SMC-D.
const DEVICE_ID_IBM_ISM: u16 = 0x04ed;

/// A zPCI function bound to this driver.
struct ZpciVfioPci {
    limits: Limits,
}

vfio::vfio_pci_device_table!(
    ID_TABLE,
    [DeviceId::vfio(pci::Vendor::IBM.as_raw(), DEVICE_ID_IBM_ISM)]
);

impl Driver for ZpciVfioPci {
    const NAME: &'static CStr = c"zpci-vfio-pci";
    const ID_TABLE: IdTable = &ID_TABLE;
    type Bars = ByInstruction;

    fn new(pdev: &pci::Device<Bound>) -> impl PinInit<Self, Error> {
        let mut bars = [0; BARS];
        for (bar, size) in (0..).zip(&mut bars) {
            *size = pdev.resource_len(bar)?;
        }
        let msix = msix::windows(pdev)?.map(|(bar, start, len)| Window { bar, start, len });

        Ok(Self {
            limits: Limits::new(zpci::max_store_block(pdev), bars, msix),
        })
    }

    fn open(opening: &Opening<'_, Self>) -> Result {
        opening.add_region::<ZpciIo>()
    }
}

vfio::module_vfio_pci_driver! {
    type: ZpciVfioPci,
    name: "zpci_vfio_pci",
    authors: ["The zpci-vfio-pci authors"],
    description: "vfio-pci variant driver for zPCI functions, with the zPCI I/O region",
    license: "GPL",
}
