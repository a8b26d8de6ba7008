/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For vfio-pci-core.ko of a host that lets no VMM recover functions from errors, as one without KVM
 * does. It is the debug kernel in all else.
 */
#undef CONFIG_VFIO_PCI_ZDEV_KVM
