// SPDX-License-Identifier: GPL-2.0
/*
 * The zPCI I/O region in C: what `make bench` holds against the driver in Rust, never installed.
 *
 * A request that nobody disturbs is given the same guarantees by the same steps in the same order:
 * copied once, checked, its page pinned, memory_lock and its checks, the device lock by a lease,
 * the instruction in its function-handle form, a tracepoint. The lease is whole but for remove(),
 * which here waits until the device is closed, as nothing but the benchmark opens it. There are no
 * statistics, no checks for debug kernels, and the BARs of functions that cannot be mapped are left
 * out; but the regions of these are laid out as in the driver.
 *
 * More regions, on the same device and with the same checks, show what a block would cost if it
 * were handled otherwise; Documentation/arch/s390/vfio-zpci-io-cost.rst says what that gives up.
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/sched/signal.h>
#include <linux/tracepoint.h>
#include <linux/vfio_pci_core.h>
#include <linux/wait.h>

#include "../../../include/uapi/linux/vfio_zpci_io.h"
#include "insn.h"

/* Subtypes of the other regions, for tools/testing/bench. */
#define SUBTYPE_COPIED		0x100
#define SUBTYPE_IN_PLACE	0x101
#define SUBTYPE_SEVERAL		0x102

/* Blocks up to this size, in bytes, go to the stack where they are copied. */
#define COPY_MAX		256

/* A write of several requests has at most so many. */
#define REQUESTS_MAX		16

/* Set in a function handle while the function is enabled. */
#define FH_ENABLED		BIT(31)

/* A request holds the device lock and lets others in; the other bits count those inside. */
#define LEASE_OPEN		BIT(30)

DECLARE_TRACE(zpci_twin_insn,
	TP_PROTO(u32 fid, u8 insn, u64 req, u64 offset, int cc, u8 status, u32 tries),
	TP_ARGS(fid, insn, req, offset, cc, status, tries));
DEFINE_TRACE(zpci_twin_insn_tp,
	TP_PROTO(u32 fid, u8 insn, u64 req, u64 offset, int cc, u8 status, u32 tries),
	TP_ARGS(fid, insn, req, offset, cc, status, tries));

struct window {
	u8 bar;
	u64 start;
	u64 len;
};

struct twin {
	struct vfio_pci_core_device core;
	u16 max;
	u64 bars[PCI_STD_NUM_BARS];
	struct window msix[2];		/* table and pending bit array */
	atomic_t lease;
	wait_queue_head_t outside;	/* requests that want to enter */
	wait_queue_head_t drained;	/* the one that waits for the others to leave */
};

static int check(const struct twin *twin, const struct vfio_zpci_io_req *req)
{
	u64 end;
	int i;

	switch (req->flags) {
	case VFIO_ZPCI_IO_FLAG_BLOCKW:
	case VFIO_ZPCI_IO_FLAG_READ:
	case VFIO_ZPCI_IO_FLAG_WRITE:
		break;
	default:
		return -EINVAL;
	}
	if (req->reserved || req->reserved2)
		return -EINVAL;

	if (req->flags == VFIO_ZPCI_IO_FLAG_BLOCKW) {
		if (!req->len || req->len > twin->max)
			return -EINVAL;
		if (offset_in_page(req->offset) + req->len > PAGE_SIZE ||
		    offset_in_page(req->gaddr) + req->len > PAGE_SIZE)
			return -EINVAL;
	} else {
		if (!is_power_of_2(req->len) || req->len > sizeof(u64))
			return -EINVAL;
		if (!IS_ALIGNED(req->gaddr, sizeof(u64)) ||
		    req->offset % sizeof(u64) + req->len > sizeof(u64))
			return -EINVAL;
	}

	if (req->pcias >= PCI_STD_NUM_BARS)
		return -EINVAL;
	if (check_add_overflow(req->offset, req->len, &end) || end > twin->bars[req->pcias])
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(twin->msix); i++) {
		const struct window *window = &twin->msix[i];

		if (window->len && req->pcias == window->bar &&
		    req->offset < window->start + window->len && window->start < end)
			return -EINVAL;
	}
	return 0;
}

static int pin(u64 address, unsigned int gup_flags, struct page **page)
{
	int ret = pin_user_pages_fast(address & PAGE_MASK, 1, gup_flags, page);

	switch (ret) {
	case 1:
		return 0;
	case -ENOMEM:
		return -ENOMEM;
	case -EINTR:
	case -ERESTARTSYS:
	case -ERESTARTNOINTR:
		return -EINTR;
	default:
		return -EFAULT;
	}
}

static int lock_memory(struct vfio_pci_core_device *core)
{
	int ret = down_read_killable(&core->memory_lock);

	if (ret)
		return ret;
	if (__vfio_pci_memory_enabled(core) &&
	    READ_ONCE(core->pdev->error_state) != pci_channel_io_perm_failure)
		return 0;
	up_read(&core->memory_lock);
	return -EIO;
}

/* Gets the device lock, or joins whoever has it. */
static bool enter(struct twin *twin, bool *leads)
{
	int word = atomic_read(&twin->lease);

	while (word & LEASE_OPEN) {
		if (atomic_try_cmpxchg(&twin->lease, &word, word + 1)) {
			*leads = false;
			return true;
		}
	}

	if (!device_trylock(&twin->core.pdev->dev))
		return false;
	atomic_add_return(LEASE_OPEN + 1, &twin->lease);
	if (wq_has_sleeper(&twin->outside))
		wake_up_all(&twin->outside);
	*leads = true;
	return true;
}

static noinline int wait_outside(struct twin *twin, unsigned long *begin)
{
	int ret;

	if (!*begin)
		*begin = jiffies;
	else if (time_after(jiffies, *begin + 5 * HZ))
		return -EAGAIN;
	/* Resets and recovery unlock the device without a word: look again with each tick. */
	ret = wait_event_killable_timeout(twin->outside,
					  atomic_read(&twin->lease) & LEASE_OPEN ||
					  !mutex_is_locked(&twin->core.pdev->dev.mutex), 1);
	return ret < 0 ? -EINTR : 0;
}

/* Takes memory_lock, and the device lock for this request or with another. */
static int get_lease(struct twin *twin, bool *leads)
{
	unsigned long begin = 0;
	int ret;

	for (;;) {
		ret = lock_memory(&twin->core);
		if (ret)
			return ret;
		if (enter(twin, leads))
			return 0;
		up_read(&twin->core.memory_lock);
		ret = wait_outside(twin, &begin);
		if (ret)
			return ret;
	}
}

static void put_lease(struct twin *twin, bool leads)
{
	if (leads) {
		int word = atomic_fetch_sub(LEASE_OPEN + 1, &twin->lease);

		if (word != LEASE_OPEN + 1)
			wait_event(twin->drained, !atomic_read(&twin->lease));
		device_unlock(&twin->core.pdev->dev);
		if (wq_has_sleeper(&twin->outside))
			wake_up_all(&twin->outside);
	} else if (atomic_dec_and_test(&twin->lease) && wq_has_sleeper(&twin->drained)) {
		wake_up_all(&twin->drained);
	}
	up_read(&twin->core.memory_lock);
}

/* What an instruction works on. */
union operand {
	const void *block;
	const void __user *user_block;
	u64 *loaded;
	u64 stored;
};

static __always_inline struct insn_result issue_once(u64 flags, u64 req, u64 offset,
						     union operand operand, bool in_place)
{
	switch (flags) {
	case VFIO_ZPCI_IO_FLAG_BLOCKW:
		return in_place ? insn_store_block_user(req, offset, operand.user_block) :
				  insn_store_block(req, offset, operand.block);
	case VFIO_ZPCI_IO_FLAG_READ:
		return insn_load(req, offset, operand.loaded);
	default:
		return insn_store(req, offset, operand.stored);
	}
}

/* At least 1 ms and 100 attempts. */
static noinline struct insn_result repeat(u64 flags, u64 req, u64 offset, union operand operand,
					  bool in_place, u32 *tries)
{
	ktime_t end = ktime_add_ms(ktime_get(), 1);
	struct insn_result result;

	do {
		udelay(1);
		result = issue_once(flags, req, offset, operand, in_place);
		++*tries;
	} while (result.cc == CC_BUSY && (*tries < 100 || ktime_before(ktime_get(), end)) &&
		 !fatal_signal_pending(current));
	return result;
}

/* With the lease. */
static __always_inline int issue(struct twin *twin, const struct vfio_zpci_io_req *req, u64 flags,
				 union operand operand, bool in_place)
{
	struct zpci_dev *zdev = to_zpci(twin->core.pdev);
	u32 fh = READ_ONCE(zdev->fh);
	u64 insn = ZPCI_CREATE_REQ(fh, req->pcias, req->len);
	struct insn_result result;
	u32 tries = 1;

	if (!(fh & FH_ENABLED))
		return -ENODEV;
	result = issue_once(flags, insn, req->offset, operand, in_place);
	if (unlikely(result.cc == CC_BUSY))
		result = repeat(flags, insn, req->offset, operand, in_place, &tries);
	trace_zpci_twin_insn_tp(zdev->fid, flags, insn, req->offset, result.cc, result.status,
				tries);

	switch (result.cc) {
	case 0:
		return 0;
	case 1:
		return -EREMOTEIO;
	case CC_BUSY:
		return -EBUSY;
	case 3:
		return -ENODEV;
	default:
		return -ENXIO;
	}
}

static __always_inline int leased(struct twin *twin, const struct vfio_zpci_io_req *req, u64 flags,
				  union operand operand)
{
	bool leads;
	int ret = get_lease(twin, &leads);

	if (ret)
		return ret;
	ret = issue(twin, req, flags, operand, false);
	put_lease(twin, leads);
	return ret;
}

static int store_block(struct twin *twin, const struct vfio_zpci_io_req *req)
{
	union operand operand;
	struct page *page;
	int ret = pin(req->gaddr, 0, &page);

	if (ret)
		return ret;
	operand.block = page_address(page) + offset_in_page(req->gaddr);
	ret = leased(twin, req, VFIO_ZPCI_IO_FLAG_BLOCKW, operand);
	unpin_user_page(page);
	return ret;
}

/* Another way: a short block goes through memory of the kernel. */
static int store_block_copied(struct twin *twin, const struct vfio_zpci_io_req *req)
{
	u8 block[COPY_MAX] __aligned(8);

	if (req->len > sizeof(block))
		return store_block(twin, req);
	if (copy_from_user(block, u64_to_user_ptr(req->gaddr), req->len))
		return -EFAULT;
	return leased(twin, req, VFIO_ZPCI_IO_FLAG_BLOCKW, (union operand) { .block = block });
}

/*
 * Another way: the function gets the block by the page tables of the caller. No fault may be
 * handled with the locks held; so it is after they were dropped, and then there is another attempt.
 */
static int store_block_in_place(struct twin *twin, const struct vfio_zpci_io_req *req)
{
	const void __user *block = u64_to_user_ptr(req->gaddr);
	bool again = false;
	bool leads;
	int ret;

	for (;;) {
		ret = get_lease(twin, &leads);
		if (ret)
			return ret;
		pagefault_disable();
		ret = issue(twin, req, VFIO_ZPCI_IO_FLAG_BLOCKW,
			    (union operand) { .user_block = block }, true);
		pagefault_enable();
		put_lease(twin, leads);

		/* A fault, or an operand that the function does not take? */
		if (ret != -ENXIO || again)
			return ret;
		if (fault_in_readable(block, req->len))
			return -EFAULT;
		again = true;
	}
}

static int load(struct twin *twin, const struct vfio_zpci_io_req *req)
{
	struct page *page;
	u64 value;
	bool leads;
	int ret = pin(req->gaddr, FOLL_WRITE, &page);

	if (ret)
		return ret;
	ret = get_lease(twin, &leads);
	if (!ret) {
		ret = issue(twin, req, VFIO_ZPCI_IO_FLAG_READ, (union operand) { .loaded = &value },
			    false);
		if (!ret) {
			u64 *to = page_address(page) + offset_in_page(req->gaddr);

			WRITE_ONCE(*to, value & (U64_MAX >> (64 - 8 * req->len)));
		}
		put_lease(twin, leads);
	}
	unpin_user_pages_dirty_lock(&page, 1, true);
	return ret;
}

static int store(struct twin *twin, const struct vfio_zpci_io_req *req)
{
	u64 value;

	if (get_user(value, (u64 __user *)u64_to_user_ptr(req->gaddr)))
		return -EFAULT;
	return leased(twin, req, VFIO_ZPCI_IO_FLAG_WRITE, (union operand) { .stored = value });
}

typedef int (*store_block_t)(struct twin *twin, const struct vfio_zpci_io_req *req);

static __always_inline int request(struct twin *twin, const char __user *buf,
				   store_block_t store_block)
{
	struct vfio_zpci_io_req req;
	int ret;

	if (copy_from_user(&req, buf, sizeof(req)))
		return -EFAULT;
	ret = check(twin, &req);
	if (ret)
		return ret;
	switch (req.flags) {
	case VFIO_ZPCI_IO_FLAG_BLOCKW:
		return store_block(twin, &req);
	case VFIO_ZPCI_IO_FLAG_READ:
		return load(twin, &req);
	default:
		return store(twin, &req);
	}
}

static ssize_t read_header(struct twin *twin, char __user *buf, size_t count, loff_t *ppos)
{
	struct vfio_zpci_io_hdr header = { .flags = VFIO_ZPCI_IO_HDR_WRITE, .max = twin->max };
	loff_t position = *ppos & VFIO_PCI_OFFSET_MASK;
	ssize_t ret;

	if (position > sizeof(header) || count > sizeof(header) - position)
		return -EINVAL;
	ret = simple_read_from_buffer(buf, count, &position, &header, sizeof(header));
	if (ret > 0)
		*ppos += ret;
	return ret;
}

static __always_inline ssize_t region_rw(struct vfio_pci_core_device *core, char __user *buf,
					 size_t count, loff_t *ppos, bool iswrite,
					 store_block_t store_block)
{
	struct twin *twin = container_of(core, struct twin, core);
	int ret;

	if (!iswrite)
		return read_header(twin, buf, count, ppos);
	if ((*ppos & VFIO_PCI_OFFSET_MASK) != sizeof(struct vfio_zpci_io_hdr) ||
	    count != sizeof(struct vfio_zpci_io_req))
		return -EINVAL;
	ret = request(twin, buf, store_block);
	if (ret)
		return ret;
	*ppos += count;
	return count;
}

static ssize_t pinned_rw(struct vfio_pci_core_device *core, char __user *buf, size_t count,
			 loff_t *ppos, bool iswrite)
{
	return region_rw(core, buf, count, ppos, iswrite, store_block);
}

static ssize_t copied_rw(struct vfio_pci_core_device *core, char __user *buf, size_t count,
			 loff_t *ppos, bool iswrite)
{
	return region_rw(core, buf, count, ppos, iswrite, store_block_copied);
}

static ssize_t in_place_rw(struct vfio_pci_core_device *core, char __user *buf, size_t count,
			   loff_t *ppos, bool iswrite)
{
	return region_rw(core, buf, count, ppos, iswrite, store_block_in_place);
}

/* Another way: requests one after the other, until one fails. */
static ssize_t several_rw(struct vfio_pci_core_device *core, char __user *buf, size_t count,
			  loff_t *ppos, bool iswrite)
{
	const size_t size = sizeof(struct vfio_zpci_io_req);
	struct twin *twin = container_of(core, struct twin, core);
	size_t done;
	int ret;

	if (!iswrite)
		return read_header(twin, buf, count, ppos);
	if ((*ppos & VFIO_PCI_OFFSET_MASK) != sizeof(struct vfio_zpci_io_hdr) ||
	    !count || count % size || count > REQUESTS_MAX * size)
		return -EINVAL;
	for (done = 0; done < count; done += size) {
		ret = request(twin, buf + done, store_block);
		if (ret)
			break;
	}
	if (!done)
		return ret;
	*ppos += done;
	return done;
}

static void region_release(struct vfio_pci_core_device *core, struct vfio_pci_region *region)
{
}

static const struct {
	u32 subtype;
	size_t requests;
	struct vfio_pci_regops ops;
} regions[] = {
	{ VFIO_REGION_SUBTYPE_IBM_ZPCI_IO, 1, { .rw = pinned_rw, .release = region_release } },
	{ SUBTYPE_COPIED, 1, { .rw = copied_rw, .release = region_release } },
	{ SUBTYPE_IN_PLACE, 1, { .rw = in_place_rw, .release = region_release } },
	{ SUBTYPE_SEVERAL, REQUESTS_MAX, { .rw = several_rw, .release = region_release } },
};

static int twin_open_device(struct vfio_device *vdev)
{
	struct vfio_pci_core_device *core = container_of(vdev, struct vfio_pci_core_device, vdev);
	int ret, i;

	ret = vfio_pci_core_enable(core);
	if (ret)
		return ret;
	for (i = 0; i < ARRAY_SIZE(regions); i++) {
		size_t size = sizeof(struct vfio_zpci_io_hdr) +
			      regions[i].requests * sizeof(struct vfio_zpci_io_req);

		ret = vfio_pci_core_register_dev_region(core,
				VFIO_REGION_TYPE_PCI_VENDOR_TYPE | PCI_VENDOR_ID_IBM,
				regions[i].subtype, &regions[i].ops, size,
				VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, NULL);
		if (ret) {
			vfio_pci_core_disable(core);
			return ret;
		}
	}
	vfio_pci_core_finish_enable(core);
	return 0;
}

static void find_msix(struct pci_dev *pdev, struct window msix[2])
{
	u32 table, pba;
	u16 flags;
	int vectors;

	if (!pdev->msix_cap)
		return;
	pci_read_config_word(pdev, pdev->msix_cap + PCI_MSIX_FLAGS, &flags);
	pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_TABLE, &table);
	pci_read_config_dword(pdev, pdev->msix_cap + PCI_MSIX_PBA, &pba);
	vectors = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
	msix[0] = (struct window) {
		.bar = table & PCI_MSIX_TABLE_BIR,
		.start = table & PCI_MSIX_TABLE_OFFSET,
		.len = vectors * PCI_MSIX_ENTRY_SIZE,
	};
	msix[1] = (struct window) {
		.bar = pba & PCI_MSIX_PBA_BIR,
		.start = pba & PCI_MSIX_PBA_OFFSET,
		.len = DIV_ROUND_UP(vectors, 64) * sizeof(u64),
	};
}

static int twin_init_dev(struct vfio_device *vdev)
{
	struct twin *twin = container_of(vdev, struct twin, core.vdev);
	struct pci_dev *pdev;
	int ret, bar;

	ret = vfio_pci_core_init_dev(vdev);
	if (ret)
		return ret;
	pdev = twin->core.pdev;
	twin->max = min(to_zpci(pdev)->maxstbl, PAGE_SIZE);
	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++)
		twin->bars[bar] = pci_resource_len(pdev, bar);
	find_msix(pdev, twin->msix);
	init_waitqueue_head(&twin->outside);
	init_waitqueue_head(&twin->drained);
	return 0;
}

static const struct vfio_device_ops twin_ops = {
	.name = "zpci-twin",
	.init = twin_init_dev,
	.release = vfio_pci_core_release_dev,
	.open_device = twin_open_device,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.match_token_uuid = vfio_pci_core_match_token_uuid,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

/* Bits of a file position that are the offset in a region whose BARs cannot be mapped. */
#define WIDE_SHIFT	48

static loff_t to_core(loff_t position)
{
	u64 offset = position & GENMASK_ULL(WIDE_SHIFT - 1, 0);

	return VFIO_PCI_INDEX_TO_OFFSET(position >> WIDE_SHIFT) | min(offset, VFIO_PCI_OFFSET_MASK);
}

static ssize_t wide_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	loff_t position = to_core(*ppos);
	ssize_t done = vfio_pci_core_read(vdev, buf, count, &position);

	if (done > 0)
		*ppos += done;
	return done;
}

static ssize_t wide_write(struct vfio_device *vdev, const char __user *buf, size_t count,
			  loff_t *ppos)
{
	loff_t position = to_core(*ppos);
	ssize_t done = vfio_pci_core_write(vdev, buf, count, &position);

	if (done > 0)
		*ppos += done;
	return done;
}

static int wide_get_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
				struct vfio_info_cap *caps)
{
	int ret = vfio_pci_ioctl_get_region_info(vdev, info, caps);

	info->offset = (u64)info->index << WIDE_SHIFT;
	return ret;
}

static const struct vfio_device_ops wide_ops = {
	.name = "zpci-twin",
	.init = twin_init_dev,
	.release = vfio_pci_core_release_dev,
	.open_device = twin_open_device,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.get_region_info_caps = wide_get_region_info,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = wide_read,
	.write = wide_write,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.match_token_uuid = vfio_pci_core_match_token_uuid,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

static int twin_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct twin *twin;
	int ret;

	twin = vfio_alloc_device(twin, core.vdev, &pdev->dev,
				 pdev->non_mappable_bars ? &wide_ops : &twin_ops);
	if (IS_ERR(twin))
		return PTR_ERR(twin);
	dev_set_drvdata(&pdev->dev, &twin->core);
	ret = vfio_pci_core_register_device(&twin->core);
	if (ret)
		vfio_put_device(&twin->core.vdev);
	return ret;
}

static void twin_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* Bound by driver_override alone. */
static const struct pci_device_id twin_id_table[] = {
	{ }
};

static struct pci_driver twin_driver = {
	.name = KBUILD_MODNAME,
	.id_table = twin_id_table,
	.probe = twin_probe,
	.remove = twin_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(twin_driver);

MODULE_DESCRIPTION("The zPCI I/O region in C, to be measured against");
MODULE_LICENSE("GPL");
