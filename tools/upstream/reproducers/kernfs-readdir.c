// SPDX-License-Identifier: GPL-2.0
/*
 * Who has a function of vfio-pci can stop all of sysfs, on a kernel without fixes/kernfs-readdir-fault.
 *
 *	kernfs-readdir /dev/vfio/devices/vfioN
 *
 * One thread enables MSI-X and disables it: the VFIO core holds memory_lock while sysfs gets a directory of
 * the interrupts, under kernfs_rwsem. The other reads a directory of sysfs into the mapping of a BAR, which
 * is not there yet: kernfs holds kernfs_rwsem while the page fault takes memory_lock. The program says how
 * far it came and ends, or neither thread comes back.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#define TIMES	20000
#define PAGE	4096
/* The entries for the directory itself and its parent: they are not written under the lock. */
#define DOTS	48

static int device;

static void open_device(const char *path)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };

	device = open(path, O_RDWR);
	if (device < 0)
		err(1, "%s", path);
	bind.iommufd = open("/dev/iommu", O_RDWR);
	if (bind.iommufd < 0)
		err(1, "/dev/iommu");
	if (ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		err(1, "VFIO_DEVICE_BIND_IOMMUFD");
	if (ioctl(bind.iommufd, IOMMU_IOAS_ALLOC, &ioas))
		err(1, "IOMMU_IOAS_ALLOC");
	attach.pt_id = ioas.out_ioas_id;
	if (ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		err(1, "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
}

static void *interrupts(void *unused)
{
	struct {
		struct vfio_irq_set set;
		int32_t eventfd;
	} on = {
		.set = {
			.argsz = sizeof(on),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_MSIX_IRQ_INDEX,
			.count = 1,
		},
		.eventfd = eventfd(0, 0),
	};
	struct vfio_irq_set off = {
		.argsz = sizeof(off),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
	};

	for (;;) {
		if (ioctl(device, VFIO_DEVICE_SET_IRQS, &on))
			err(1, "enabling MSI-X");
		if (ioctl(device, VFIO_DEVICE_SET_IRQS, &off))
			err(1, "disabling MSI-X");
	}
	return unused;
}

int main(int argc, char **argv)
{
	struct vfio_region_info bar = { .argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX };
	int directory = open("/sys", O_RDONLY | O_DIRECTORY);
	pthread_t thread;
	char *memory;
	int times;

	if (argc != 2)
		errx(1, "usage: kernfs-readdir /dev/vfio/devices/vfioN");
	open_device(argv[1]);
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar))
		err(1, "BAR 0");
	/* A page, and behind it the BAR. */
	memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	memset(memory, 0, 2 * PAGE);
	errno = pthread_create(&thread, NULL, interrupts, NULL);
	if (errno)
		err(1, "pthread_create");
	for (times = 0; times < TIMES; times++) {
		if (mmap(memory + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, device,
			 bar.offset) == MAP_FAILED)
			err(1, "mapping BAR 0");
		lseek(directory, 0, SEEK_SET);
		/* What comes of it is of no interest: a BAR may be no memory that the kernel can write. */
		syscall(SYS_getdents64, directory, memory + PAGE - DOTS, DOTS + PAGE);
	}
	printf("%d directories read\n", times);
	return 0;
}
