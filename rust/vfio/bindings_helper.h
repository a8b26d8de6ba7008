/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers whose declarations the `vfio` crate needs and the kernel's own `bindings` crate lacks.
 */
#include <linux/vfio_pci_core.h>

#include "../../include/uapi/linux/vfio_zpci_io.h"

#include "helpers.h"
#include "trace.h"
