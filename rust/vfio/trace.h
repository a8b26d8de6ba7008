/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM zpci_vfio_pci

#if !defined(_ZPCI_VFIO_PCI_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _ZPCI_VFIO_PCI_TRACE_H

#include <linux/tracepoint.h>

/*
 * One line per instruction issued for a user: what was asked of which function and what it
 * answered. @result is ZPCI_INSN_RESULT(), or -ENXIO after a program exception, then @cc, too;
 * @tries is above 1 if it was issued again because the function was busy.
 */
TRACE_EVENT(zpci_vfio_pci_insn,
	TP_PROTO(u32 fid, u8 insn, u64 req, u64 offset, int result, u32 tries),
	TP_ARGS(fid, insn, req, offset, result, tries),
	TP_STRUCT__entry(
		__field(u64, req)
		__field(u64, offset)
		__field(u32, fid)
		__field(int, cc)
		__field(u32, tries)
		__field(u8, insn)
		__field(u8, status)
	),
	TP_fast_assign(
		__entry->req = req;
		__entry->offset = offset;
		__entry->fid = fid;
		__entry->cc = result < 0 ? result : result & 0xff;
		__entry->tries = tries;
		__entry->insn = insn;
		__entry->status = result < 0 ? 0 : result >> 8;
	),
	TP_printk("fid=%08x %s fh=%08x as=%u len=%u offset=0x%llx cc=%d status=%u tries=%u",
		  __entry->fid,
		  __print_symbolic(__entry->insn, { 'b', "PCISTB" }, { 'l', "PCILG" },
				   { 's', "PCISTG" }),
		  (u32)(__entry->req >> 32), (u32)(__entry->req >> 16 & 0xff),
		  (u32)(__entry->req & 0xffff), __entry->offset, __entry->cc, __entry->status,
		  __entry->tries)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
