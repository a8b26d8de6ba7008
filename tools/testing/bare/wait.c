// SPDX-License-Identifier: GPL-2.0
/*
 * CPU 0 stores a block again and again, from memory that was not used before as long as there is
 * some. CPU 1 says ten times a second how long the present store takes; each line needs the console, a
 * device. When a store takes long for the TIMESth time, if ever, CPU 1 takes the function away meanwhile:
 * it disables it, or, with DECONFIGURE, deconfigures it.
 */
#include "bare.h"

#define SPACE 2
#define OFFSET 0x200
#define LONG 1000000ul

/* Of the upper half of 64 MiB, 1 MiB for each. */
#define BLOCK(store) ((const void *)((32 + (store) % 32) << 20))

static u32 handle, fid;

static volatile u64 store;	/* number of the present one */
static volatile u64 since;	/* when it began, 0: it has ended */
static volatile u64 busy;	/* how often one found the function busy */
static volatile u32 ended;	/* there will be no more */
static struct outcome last;	/* of the last one */

static void pause(u64 us)
{
	u64 start = clock();

	while (clock() - start < us)
		;
}

static void take_away(u64 number)
{
	int done;

#ifdef DECONFIGURE
	say("deconfigure during store %u\n", number);
	done = deconfigure_function(fid);
	say("deconfigured: %s\n", done ? "yes" : "no");
#else
	u32 fh = handle;

	say("disable during store %u\n", number);
	done = disable_function(&fh);
	say("disabled: %s\n", done ? "yes" : "no");
#endif
	/* A store that has ended may take some time to say so. */
	pause(LONG);
	say("the store had ended: %s\n", store == number && since ? "no" : "yes");
	while (!ended)
		;
	say("last store: ");
	say_outcome(last);
}

static void watch(void)
{
	u64 beat, number, start, time, slow = 0, times = 0;

	for (beat = 1;; beat++) {
		pause(LONG / 10);
		number = store;
		start = since;
		time = start ? clock() - start : 0;
		say("beat %u: store %u, for %u ms, busy %u times\n", beat, number, time / 1000, busy);
		if (time < LONG || number == slow)
			continue;
		slow = number;
		if (++times == TIMES)
			return take_away(number);
	}
}

int main(void)
{
	struct function function;
	struct outcome outcome;

	console_init();
	if (!list_functions(&function, 1) || !enable_function(&function.fh)) {
		say("no function\n");
		return 1;
	}
	handle = function.fh;
	fid = function.fid;
	config_write(handle, 4, 0x6, 2);
	start_second_cpu(watch);
	do {
		store++;
		since = clock();
		while ((outcome = pcistb(handle, SPACE, OFFSET, BLOCK(store), 16)).cc == 2)
			busy++;
		since = 0;
		pause(LONG / 100);
	} while (good(outcome));
	last = outcome;
	ended = 1;
	for (;;)
		;
}
