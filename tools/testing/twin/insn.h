/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The function-handle forms of the three instructions, each issued once.
 *
 * The condition code, or -ENXIO after a program exception, comes with the status code.
 */
#ifndef _ZPCI_TWIN_INSN_H
#define _ZPCI_TWIN_INSN_H

#include <linux/types.h>

#include <asm/asce.h>
#include <asm/asm-extable.h>
#include <asm/asm.h>

#define CC_BUSY		2

struct insn_result {
	int cc;
	u8 status;
};

/* PCI STORE BLOCK */
static inline struct insn_result insn_store_block(u64 req, u64 offset, const void *block)
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

	return (struct insn_result) {
		.cc = exception ? -ENXIO : CC_TRANSFORM(cc),
		.status = req >> 24 & 0xff,
	};
}

/* The same with the block in the address space of the caller, as s390_pci_mmio_write() has it. */
static inline struct insn_result insn_store_block_user(u64 req, u64 offset,
						       const void __user *block)
{
	const u8 *data = (const u8 __force *)block;
	bool sacf_flag = enable_sacf_uaccess();
	int exception = 1;
	int cc;

	asm_inline volatile (
		"	sacf	256\n"
		"0:	.insn	rsy,0xeb00000000d0,%[req],%[offset],%[data]\n"
		"1:	lhi	%[exc],0\n"
		"2:	sacf	768\n"
		CC_IPM(cc)
		EX_TABLE(0b, 2b) EX_TABLE(1b, 2b)
		: CC_OUT(cc, cc), [req] "+d" (req), [exc] "+d" (exception)
		: [offset] "d" (offset), [data] "Q" (*data)
		: CC_CLOBBER_LIST("memory"));
	disable_sacf_uaccess(sacf_flag);

	return (struct insn_result) {
		.cc = exception ? -ENXIO : CC_TRANSFORM(cc),
		.status = req >> 24 & 0xff,
	};
}

/* PCI LOAD: @value changes only with condition code 0. */
static inline struct insn_result insn_load(u64 req, u64 offset, u64 *value)
{
	union register_pair req_off = { .even = req, .odd = offset };
	int exception = 1;
	u64 data;
	int cc;

	asm_inline volatile (
		"	.insn	rre,0xb9d20000,%[data],%[req_off]\n"
		"0:	lhi	%[exc],0\n"
		"1:\n"
		CC_IPM(cc)
		EX_TABLE(0b, 1b)
		: CC_OUT(cc, cc), [data] "=d" (data), [req_off] "+d" (req_off.pair),
		  [exc] "+d" (exception)
		:
		: CC_CLOBBER);

	cc = exception ? -ENXIO : CC_TRANSFORM(cc);
	if (!cc)
		*value = data;
	return (struct insn_result) { .cc = cc, .status = req_off.even >> 24 & 0xff };
}

/* PCI STORE */
static inline struct insn_result insn_store(u64 req, u64 offset, u64 value)
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

	return (struct insn_result) {
		.cc = exception ? -ENXIO : CC_TRANSFORM(cc),
		.status = req_off.even >> 24 & 0xff,
	};
}

#endif
