// SPDX-License-Identifier: GPL-2.0

#include <linux/device.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include <asm/asm-extable.h>
#include <asm/asm.h>

#include "helpers.h"

int vfio_helper_device_trylock(struct device *dev)
{
	return device_trylock(dev);
}

void vfio_helper_device_unlock(struct device *dev)
{
	device_unlock(dev);
}

static struct lock_class_key zpci_vfio_pci_device_lock;

void vfio_helper_device_lock_set_class(struct device *dev)
{
	device_lock_set_class(dev, &zpci_vfio_pci_device_lock);
}

void vfio_helper_device_lock_reset_class(struct device *dev)
{
	device_lock_reset_class(dev);
}

bool vfio_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void vfio_helper_lockdep_init(struct lockdep_map *map, const char *name,
			      struct lock_class_key *key)
{
	lockdep_init_map(map, name, key, 0);
}

void vfio_helper_lockdep_enter(struct lockdep_map *map)
{
	lock_map_acquire_tryread(map);
}

void vfio_helper_lockdep_leave(struct lockdep_map *map)
{
	lock_map_release(map);
}

void vfio_helper_lockdep_wait(struct lockdep_map *map)
{
	/* Without lockdep, only the macro is there, not what it calls. */
#ifdef CONFIG_LOCKDEP
	lock_map_sync(map);
#endif
}

void vfio_helper_pagefault_disable(void)
{
	pagefault_disable();
}

void vfio_helper_pagefault_enable(void)
{
	pagefault_enable();
}

/* As folio_mark_dirty_lock(), but the lock is not waited for by a task that has been killed. */
int vfio_helper_mark_dirty_killable(struct page *page)
{
	struct folio *folio = page_folio(page);
	int ret;

	if (folio_test_dirty(folio))
		return 0;
	ret = folio_lock_killable(folio);
	if (ret)
		return ret;
	folio_mark_dirty(folio);
	folio_unlock(folio);
	return 0;
}

void *vfio_helper_page_address(struct page *page)
{
	return page_address(page);
}

void vfio_helper_put_device(struct vfio_device *vdev)
{
	vfio_put_device(vdev);
}

/* What vfio-pci has, and only a kernel with DMA-BUF support exports. */
const struct vfio_pci_device_ops vfio_helper_pci_ops = {
	.get_dmabuf_phys = vfio_pci_core_get_dmabuf_phys,
};

struct zpci_dev *vfio_helper_to_zpci(struct pci_dev *pdev)
{
	return to_zpci(pdev);
}

/*
 * The function-handle forms of the three instructions, issued once. The kernel's __zpci_load() and
 * its siblings repeat on condition code 2 without bound and answer -EIO for every other code; a
 * VMM has to tell these cases apart. A program exception (the operands are not legal for this
 * function) ends at the exception table entry with @exception still set.
 */
static int zpci_insn_result(int exception, int cc, u64 req)
{
	return exception ? -ENXIO : ZPCI_INSN_RESULT(CC_TRANSFORM(cc), req >> 24 & 0xff);
}

/* PCI STORE BLOCK: @block is mapped for as many bytes as @req says. */
int zpci_insn_store_block(u64 req, u64 offset, const void *block)
{
	const u8 *data = block;
	int exception = 1;
	int cc;

	asm_inline volatile (
		"	.insn	rsy,0xeb00000000d0,%[req],%[offset],%[data]\n"
		"0:	lhi	%[exc],0\n"
		"1:\n"
		CC_IPM(cc)
		EX_TABLE(0b, 1b)
		: CC_OUT(cc, cc), [req] "+d" (req), [exc] "+d" (exception)
		: [offset] "d" (offset), [data] "Q" (*data)
		: CC_CLOBBER_LIST("memory"));

	return zpci_insn_result(exception, cc, req);
}

/* PCI LOAD: @value means something with condition code 0 only. */
int zpci_insn_load(u64 req, u64 offset, u64 *value)
{
	union register_pair req_off = { .even = req, .odd = offset };
	int exception = 1;
	u64 data = 0;
	int cc;

	asm_inline volatile (
		"	.insn	rre,0xb9d20000,%[data],%[req_off]\n"
		"0:	lhi	%[exc],0\n"
		"1:\n"
		CC_IPM(cc)
		EX_TABLE(0b, 1b)
		: CC_OUT(cc, cc), [data] "+d" (data), [req_off] "+d" (req_off.pair),
		  [exc] "+d" (exception)
		:
		: CC_CLOBBER);

	*value = data;
	return zpci_insn_result(exception, cc, req_off.even);
}

/* PCI STORE */
int zpci_insn_store(u64 req, u64 offset, u64 value)
{
	union register_pair req_off = { .even = req, .odd = offset };
	int exception = 1;
	int cc;

	asm_inline volatile (
		"	.insn	rre,0xb9d00000,%[data],%[req_off]\n"
		"0:	lhi	%[exc],0\n"
		"1:\n"
		CC_IPM(cc)
		EX_TABLE(0b, 1b)
		: CC_OUT(cc, cc), [req_off] "+d" (req_off.pair), [exc] "+d" (exception)
		: [data] "d" (value)
		: CC_CLOBBER);

	return zpci_insn_result(exception, cc, req_off.even);
}
