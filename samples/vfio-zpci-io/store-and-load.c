// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Store a block of 16 bytes by one PCISTB, and load it back by two PCILG.
 *
 *	store-and-load /dev/vfio/devices/vfioN BAR OFFSET
 *
 * The function is bound to zpci_vfio_pci, and its BAR is memory. OFFSET is a multiple of 16. Exit code:
 * 0 if the same bytes came back, 3 if each word came back reversed (a defect of QEMU on little-endian
 * machines), 1 for anything else.
 *
 * What the errors mean, and what a VMM tells its guest, is in
 * Documentation/arch/s390/vfio-zpci-io.rst. Integers are big-endian, as the machine is.
 */
#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/vfio_zpci_io.h>

#define PCI_VENDOR_ID_IBM	0x1014U
#define REQUEST_OFFSET		sizeof(struct vfio_zpci_io_hdr)

/* Open a VFIO device, with an I/O address space of its own: without one it does nothing. */
static int open_device(const char *path)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	int device, iommu;

	device = open(path, O_RDWR | O_CLOEXEC);
	if (device < 0)
		err(1, "%s", path);
	iommu = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommu < 0)
		err(1, "/dev/iommu");
	bind.iommufd = iommu;
	if (ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		err(1, "VFIO_DEVICE_BIND_IOMMUFD");
	if (ioctl(iommu, IOMMU_IOAS_ALLOC, &ioas))
		err(1, "IOMMU_IOAS_ALLOC");
	attach.pt_id = ioas.out_ioas_id;
	if (ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		err(1, "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
	return device;
}

/* Ask for a region, and once more with as much room as its capabilities want. */
static struct vfio_region_info *region_info(int device, uint32_t index)
{
	struct vfio_region_info *info = NULL;
	uint32_t size = sizeof(*info);

	for (;;) {
		info = realloc(info, size);
		if (!info)
			err(1, "region");
		memset(info, 0, size);
		info->argsz = size;
		info->index = index;
		if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info)) {
			free(info);
			return NULL;
		}
		if (info->argsz <= size)
			return info;
		size = info->argsz;
	}
}

static int is_zpci_io(const struct vfio_region_info *info)
{
	const char *base = (const char *)info;
	uint32_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

	while (at) {
		const struct vfio_region_info_cap_type *cap = (const void *)(base + at);

		if (cap->header.id == VFIO_REGION_INFO_CAP_TYPE)
			return cap->type == (VFIO_REGION_TYPE_PCI_VENDOR_TYPE | PCI_VENDOR_ID_IBM) &&
			       cap->subtype == VFIO_REGION_SUBTYPE_IBM_ZPCI_IO;
		at = cap->header.next;
	}
	return 0;
}

/* Find the region by its type; neither its index nor its offset is part of the ABI. */
static off_t find_region(int device)
{
	struct vfio_device_info device_info = { .argsz = sizeof(device_info) };
	struct vfio_region_info *info;
	uint32_t index;

	if (ioctl(device, VFIO_DEVICE_GET_INFO, &device_info))
		err(1, "VFIO_DEVICE_GET_INFO");
	for (index = 0; index < device_info.num_regions; index++) {
		info = region_info(device, index);
		if (info && is_zpci_io(info)) {
			off_t offset = info->offset;

			free(info);
			return offset;
		}
		free(info);
	}
	errx(1, "the driver has no zPCI I/O region");
}

/* The memory space is off after opening, and as long as it is, requests fail with EIO. */
static void enable_memory(int device)
{
	struct vfio_region_info *config = region_info(device, VFIO_PCI_CONFIG_REGION_INDEX);
	uint16_t command;
	off_t at;

	if (!config)
		err(1, "configuration space");
	at = config->offset + PCI_COMMAND;
	free(config);
	if (pread(device, &command, sizeof(command), at) != sizeof(command))
		err(1, "PCI_COMMAND");
	command |= htole16(PCI_COMMAND_MEMORY);
	if (pwrite(device, &command, sizeof(command), at) != sizeof(command))
		err(1, "PCI_COMMAND");
}

/* One request is one instruction. */
static void request(int device, off_t region, uint64_t flags, void *data, uint64_t offset,
		    uint16_t len, uint8_t bar)
{
	struct vfio_zpci_io_req req = {
		.flags = flags,
		.gaddr = (uintptr_t)data,
		.offset = offset,
		.len = len,
		.pcias = bar,
	};

	if (pwrite(device, &req, sizeof(req), region + REQUEST_OFFSET) != sizeof(req))
		err(1, "request");
}

int main(int argc, char **argv)
{
	/* A block must not cross a page. Aligned so, it does not. */
	static uint64_t block[2] __attribute__((aligned(16)));
	struct vfio_zpci_io_hdr header;
	uint64_t loaded[2];
	uint64_t offset;
	uint8_t bar;
	off_t region;
	int device;

	if (argc != 4)
		errx(2, "usage: store-and-load /dev/vfio/devices/vfioN BAR OFFSET");
	bar = strtoul(argv[2], NULL, 0);
	offset = strtoull(argv[3], NULL, 0);

	device = open_device(argv[1]);
	enable_memory(device);
	region = find_region(device);
	if (pread(device, &header, sizeof(header), region) != sizeof(header))
		err(1, "header");
	printf("blocks of up to %u bytes\n", header.max);

	block[0] = 0x0123456789abcdef;
	block[1] = 0xfedcba9876543211;
	request(device, region, VFIO_ZPCI_IO_FLAG_BLOCKW, block, offset, sizeof(block), bar);
	request(device, region, VFIO_ZPCI_IO_FLAG_READ, &loaded[0], offset, 8, bar);
	request(device, region, VFIO_ZPCI_IO_FLAG_READ, &loaded[1], offset + 8, 8, bar);
	printf("stored %016jx %016jx\nloaded %016jx %016jx\n", (uintmax_t)block[0],
	       (uintmax_t)block[1], (uintmax_t)loaded[0], (uintmax_t)loaded[1]);

	if (loaded[0] == block[0] && loaded[1] == block[1])
		return 0;
	if (loaded[0] == __builtin_bswap64(block[0]) && loaded[1] == __builtin_bswap64(block[1]))
		return 3;
	return 1;
}
