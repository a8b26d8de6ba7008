/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What C keeps in inline functions, macros and assembler, as functions Rust can call.
 */
#ifndef _ZPCI_VFIO_PCI_HELPERS_H
#define _ZPCI_VFIO_PCI_HELPERS_H

#include <linux/lockdep.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>

int vfio_helper_device_trylock(struct device *dev);
void vfio_helper_device_unlock(struct device *dev);
void vfio_helper_device_lock_set_class(struct device *dev);
void vfio_helper_device_lock_reset_class(struct device *dev);
bool vfio_helper_fatal_signal_pending(void);
void vfio_helper_lockdep_init(struct lockdep_map *map, const char *name,
			      struct lock_class_key *key);
void vfio_helper_lockdep_enter(struct lockdep_map *map);
void vfio_helper_lockdep_leave(struct lockdep_map *map);
void vfio_helper_lockdep_wait(struct lockdep_map *map);
void vfio_helper_pagefault_disable(void);
void vfio_helper_pagefault_enable(void);
int vfio_helper_mark_dirty_killable(struct page *page);
void *vfio_helper_page_address(struct page *page);
void vfio_helper_put_device(struct vfio_device *vdev);
struct zpci_dev *vfio_helper_to_zpci(struct pci_dev *pdev);

extern const struct vfio_pci_device_ops vfio_helper_pci_ops;

/*
 * What an instruction answered: condition code, and the status code that goes with condition code 1;
 * or -ENXIO, if a program exception ended it.
 */
#define ZPCI_INSN_RESULT(cc, status)	((status) << 8 | (cc))

int zpci_insn_store_block(u64 req, u64 offset, const void *block);
int zpci_insn_load(u64 req, u64 offset, u64 *value);
int zpci_insn_store(u64 req, u64 offset, u64 value);

#endif
