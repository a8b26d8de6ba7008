// SPDX-License-Identifier: GPL-2.0
/*
 * Refreshes translations of a function: of more pages than there is room for, and such as take their
 * time. First all of the largest aperture, of which only the beginning can be mapped. Then all that can be mapped, by tables that are used again
 * and again: 2^30 entries. Meanwhile the other CPU goes on to use functions, and ends the machine.
 */
#include "bare.h"

#define MAPPABLE (1ul << 42)
#define LARGEST (1ul << 57)

static u64 regions[2048] __aligned(16384), segments[2048] __aligned(16384);
static u64 pages[256] __aligned(2048);
static struct function function;
static volatile u32 begun, ended;

/* Each table has as many entries that lead on, the others are not valid. All pages are the same one. */
static void fill(u32 valid_regions, u32 valid_segments, u32 valid_pages)
{
	u64 i;

	for (i = 0; i < 2048; i++) {
		regions[i] = i < valid_regions ? (u64)segments | 7 : 0x20;
		segments[i] = i < valid_segments ? (u64)pages : 0x20;
	}
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		pages[i] = i < valid_pages ? PAGE_SIZE : 0x400;
}

/* Operation 4 registers the tables for an aperture that ends there, 6 does it anew. */
static struct outcome refresh(u8 operation, u64 end)
{
	static u64 fib[9];

	fib[2] = DMA_ADDRESS(0);
	fib[3] = end - 1;
	fib[4] = (u64)regions | 0x800 | 1 << 2;
	raw_mpcifc((u64)function.fh << 32 | operation, (u64)fib);
	return raw_rpcit((u64)function.fh << 32, DMA_ADDRESS(0), end - DMA_ADDRESS(0));
}

static void second(void)
{
	u64 start, value, i, loads = 0;

	while (!begun)
		;
	start = clock();
	while (clock() - start < 100000)
		;
	for (i = 0; i < 100; i++)
		loads += good(pcilg(function.fh, CONFIG_SPACE, 0, &value, 4));
	say("during another refresh: %u loads, and it has %s\n", loads, ended ? "ended" : "not ended");
	say("end\n");
	/* DIAGNOSE, to load an operating system: with -no-reboot the machine ends. */
	asm volatile("diag 0,%[load],0x308" :: [load] "r" (3ul) : "memory");
}

int main(void)
{
	console_init();
	if (!list_functions(&function, 1) || !enable_function(&function.fh)) {
		say("no function\n");
		return 1;
	}
	fill(8, 1024, 256);
	say("2^18 pages of a machine that has 2^14: ");
	say_outcome(refresh(4, DMA_ADDRESS(1ul << 31)));
	fill(8, 8, 1);
	say("the largest aperture is refreshed: %s\n", good(refresh(6, LARGEST)) ? "yes" : "no");
	fill(2048, 2048, 0);
	start_second_cpu(second);
	begun = 1;
	refresh(6, MAPPABLE);
	ended = 1;
	for (;;)
		;
}
