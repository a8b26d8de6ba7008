/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Entry and end of a program without an operating system. Of program interruptions the code is
 * noted, and the next instruction follows.
 */
#define LC_PGM_ILC	0x8c
#define LC_PGM_CODE	0x8e
#define LC_PGM_OLD_PSW	0x150
#define LC_RESTART_NEW	0x1a0
#define LC_PGM_NEW_PSW	0x1d0
#define PGM_SEGMENT	0x10
#define PGM_PAGE	0x11
#define PGM_ASCE	0x38
#define LC_SAVED_R1	0x1400	/* reserved for the operating system */
#define LC_EXCEPTION	0x1408	/* likewise; bare.c has it, too */

	.section .text.head, "ax"
	.globl	_start
_start:
	larl	%r15, stack_end
	aghi	%r15, -160
	xc	0(160,%r15), 0(%r15)
	lghi	%r2, 0
	larl	%r3, pgm_mask
	mvc	LC_PGM_NEW_PSW(8,%r2), 0(%r3)
	mvc	LC_RESTART_NEW(8,%r2), 0(%r3)
	larl	%r1, pgm
	stg	%r1, LC_PGM_NEW_PSW+8(%r2)
	larl	%r1, second
	stg	%r1, LC_RESTART_NEW+8(%r2)
	brasl	%r14, main
	larl	%r1, stop
	lpswe	0(%r1)
second:
	larl	%r15, second_stack_end
	aghi	%r15, -160
	xc	0(160,%r15), 0(%r15)
	/* Its own lowcore: two CPUs may meet with exceptions at the same time. */
	lghi	%r2, 0
	larl	%r1, second_lowcore
	mvc	LC_PGM_NEW_PSW(16,%r1), LC_PGM_NEW_PSW(%r2)
	larl	%r2, prefix
	st	%r1, 0(%r2)
	spx	0(%r2)
	lgrl	%r1, second_cpu
	basr	%r14, %r1
	larl	%r1, stop
	lpswe	0(%r1)
pgm:
	stg	%r1, LC_SAVED_R1(%r0)
	lh	%r1, LC_PGM_CODE(%r0)
	sty	%r1, LC_EXCEPTION(%r0)
	/* After these the instruction would be tried again. */
	chi	%r1, PGM_SEGMENT
	je	next
	chi	%r1, PGM_ASCE
	je	next
	chi	%r1, PGM_PAGE
	jne	leave
next:
	lgh	%r1, LC_PGM_ILC(%r0)
	ag	%r1, LC_PGM_OLD_PSW+8(%r0)
	stg	%r1, LC_PGM_OLD_PSW+8(%r0)
leave:
	lg	%r1, LC_SAVED_R1(%r0)
	lpswe	LC_PGM_OLD_PSW
	.align	8
pgm_mask:
	.quad	0x0000000180000000	/* 64-bit mode, nothing enabled */
	.align	16
stop:	.quad	0x0002000180000000, 0	/* and waiting: the emulator ends */
	.data
	.globl	second_cpu
	.align	8
second_cpu:
	.quad	0
prefix:
	.long	0
	.bss
	.align	8192
second_lowcore:
	.space	8192
	.space	65536
stack_end:
	.space	65536
second_stack_end:
