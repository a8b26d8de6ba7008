// SPDX-License-Identifier: GPL-2.0
/*
 * Registers a buffer of an ISM function for another one to write to, and says whether something
 * arrives. What is written says what to do then: 1 disable the function, 2 deconfigure it, 3 wait
 * until it is asked for, and deconfigure it. Afterwards nothing must arrive any more, also when the
 * buffer's memory is mapped again.
 */
#include "bare.h"

#define COMMANDS 2
#define REG_DMB 10
#define DECONFIGURE_REQUEST 0x303

/* The function that may write. */
#define SENDER 0x90

enum { NOTHING, DISABLE, DECONFIGURE, WAIT };

static volatile u64 buffer[2 * PAGE_SIZE] __aligned(16 * PAGE_SIZE);

static void pause(u64 us)
{
	u64 start = clock();

	while (clock() - start < us)
		;
}

static int use(u32 *fh)
{
	if (!enable_function(fh))
		return 0;
	config_write(*fh, 4, 0x6, 2);
	return enable_dma(*fh);
}

static u64 register_buffer(u32 fh)
{
	static u64 words[5];

	words[0] = (u64)REG_DMB << 32 | sizeof(words);
	words[1] = DMA_ADDRESS(buffer);
	words[2] = sizeof(buffer) << 32 | 32;
	words[3] = 0;
	words[4] = SENDER;
	pcistb(fh, COMMANDS, 8, words + 1, sizeof(words) - 8);
	pcistb(fh, COMMANDS, 0, words, 8);
	pcilg(fh, COMMANDS, 8, words, 8);
	return words[0];
}

static void quiet(const char *when)
{
	buffer[0] = 0;
	buffer[1] = 0;
	pause(500000);
	say("%s: %s has arrived\n", when, buffer[0] || buffer[1] ? "something" : "nothing");
}

int main(void)
{
	struct function function;
	u64 todo;

	console_init();
	if (!list_functions(&function, 1) || !use(&function.fh)) {
		say("no function\n");
		return 1;
	}
	say("token 0x%x\n", register_buffer(function.fh));
	while (!buffer[1])
		;
	say("arrived\n");
	while (!(todo = buffer[0]))
		;
	if (todo == WAIT)
		while (event() != DECONFIGURE_REQUEST)
			;
	if (todo == DISABLE)
		say("disabled: %s\n", disable_function(&function.fh) ? "yes" : "no");
	else
		say("deconfigured: %s\n", deconfigure_function(function.fid) ? "yes" : "no");
	quiet("then");
	if (todo == DECONFIGURE && !configure_function(function.fid))
		say("not configured\n");
	if (todo != WAIT) {
		function.fh &= 0x7fffffff;
		say("mapped again: %s\n", use(&function.fh) ? "yes" : "no");
		quiet("mapped again");
	}
	say("end\n");
	for (;;)
		;
}
