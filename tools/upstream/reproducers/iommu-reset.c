// SPDX-License-Identifier: GPL-2.0
/*
 * Who has a function of vfio-pci that is reset by its slot can have the kernel lose what the hardware
 * translates his addresses with, on a kernel without fixes/s390-iommu-reset-race.
 *
 *	iommu-reset /dev/vfio/devices/vfioN
 *
 * One thread attaches the function to an IOAS and detaches it: the IOMMU driver registers its tables with
 * the hardware and unregisters them. The other resets the function, which registers them again, whatever
 * they are just then. If that comes between, the hardware keeps tables that have been detached, and an
 * attach fails; or the tables are there already, and a reset fails. The program counts both, and exits
 * with 2 if there was either. Only functions whose method of reset is "bus" have it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#define TIMES	20000
#define FOUND	2

static int device;
static int done;
static int resets, failed_resets;

static __u32 open_device(const char *path)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
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
	return ioas.out_ioas_id;
}

static void *reset(void *unused)
{
	while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
		int result = ioctl(device, VFIO_DEVICE_RESET);

		/* Somebody else has the lock of the device. */
		if (result < 0 && errno == EAGAIN)
			continue;
		resets++;
		/* The kernel returns the condition code of the instruction, which is positive. */
		if (result)
			failed_resets++;
	}
	return unused;
}

int main(int argc, char **argv)
{
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct vfio_device_detach_iommufd_pt detach = { .argsz = sizeof(detach) };
	int times, failed = 0;
	pthread_t thread;
	__u32 ioas;

	if (argc != 2)
		errx(1, "usage: iommu-reset /dev/vfio/devices/vfioN");
	ioas = open_device(argv[1]);
	errno = pthread_create(&thread, NULL, reset, NULL);
	if (errno)
		err(1, "pthread_create");
	for (times = 0; times < TIMES; times++) {
		/* The kernel writes there what it has made of it. */
		attach.pt_id = ioas;
		if (!ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach)) {
			if (ioctl(device, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach))
				err(1, "VFIO_DEVICE_DETACH_IOMMUFD_PT");
		} else if (errno == EIO) {
			failed++;
		} else {
			err(1, "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
		}
	}
	__atomic_store_n(&done, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	printf("%d of %d attaches and %d of %d resets failed\n", failed, times, failed_resets, resets);
	return failed || failed_resets ? FOUND : 0;
}
