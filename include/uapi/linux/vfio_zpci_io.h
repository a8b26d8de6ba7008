/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The zPCI I/O region of a VFIO device: one write of a request issues one zPCI instruction.
 *
 * The region is found by type VFIO_REGION_TYPE_PCI_VENDOR_TYPE | PCI_VENDOR_ID_IBM and subtype
 * VFIO_REGION_SUBTYPE_IBM_ZPCI_IO. It holds a struct vfio_zpci_io_hdr at offset 0, to be read, and
 * a struct vfio_zpci_io_req behind it, to be written as a whole by one pwrite(). Integers are
 * big-endian, the byte order of the machine.
 *
 * The meaning of every errno is in Documentation/arch/s390/vfio-zpci-io.rst.
 */
#ifndef _UAPI_VFIO_ZPCI_IO_H
#define _UAPI_VFIO_ZPCI_IO_H

#include <linux/types.h>

/* Subtype of the region for vendor PCI_VENDOR_ID_IBM (0x1014). */
#define VFIO_REGION_SUBTYPE_IBM_ZPCI_IO		(2)

/**
 * struct vfio_zpci_io_hdr - header of the region, read-only
 * @flags: what the region can do: VFIO_ZPCI_IO_HDR_*
 * @max: longest block a request may store, in bytes (at most 4096)
 * @reserved: 0
 * @reserved2: 0
 */
struct vfio_zpci_io_hdr {
	__u64 flags;
/* Requests with VFIO_ZPCI_IO_FLAG_WRITE are supported. */
#define VFIO_ZPCI_IO_HDR_WRITE			(1ULL << 0)
	__u16 max;
	__u16 reserved;
	__u32 reserved2;
};

/**
 * struct vfio_zpci_io_req - one instruction, write-only
 * @flags: which one; exactly one of VFIO_ZPCI_IO_FLAG_*
 * @gaddr: address of the data in the memory of the caller
 * @offset: offset in the address space, in bytes
 * @reserved: 0
 * @len: number of bytes the instruction moves
 * @pcias: PCI address space: 0 to 5, the BARs
 * @reserved2: 0
 *
 * With READ and WRITE @gaddr is the address of a doubleword (8 bytes, aligned), whose @len
 * low-order bytes are the value.
 */
struct vfio_zpci_io_req {
	__u64 flags;
/* Load @len (1, 2, 4, 8) bytes to @gaddr: PCI LOAD (PCILG) */
#define VFIO_ZPCI_IO_FLAG_READ			(1ULL << 0)
/* Store the block of @len bytes at @gaddr: PCI STORE BLOCK (PCISTB) */
#define VFIO_ZPCI_IO_FLAG_BLOCKW		(1ULL << 1)
/* Store @len (1, 2, 4, 8) bytes from @gaddr: PCI STORE (PCISTG) */
#define VFIO_ZPCI_IO_FLAG_WRITE			(1ULL << 2)
	__u64 gaddr;
	__u64 offset;
	__u32 reserved;
	__u16 len;
	__u8 pcias;
	__u8 reserved2;
};

#endif /* _UAPI_VFIO_ZPCI_IO_H */
