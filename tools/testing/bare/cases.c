// SPDX-License-Identifier: GPL-2.0
/*
 * Good and bad instructions for each PCI function of the machine, and what comes of them, one on
 * a line. What depends on the machine and not on the function (handles, tokens) is not said, so
 * that the lines can be compared: with the function at hand, and through a VMM.
 */
#include "bare.h"

static u8 source[2 * PAGE_SIZE] __aligned(PAGE_SIZE);

static void block(const char *kind, u32 fh, u8 space, u64 offset, u64 from, u16 len)
{
	say("%s: PCISTB space %u offset 0x%x len %u from +0x%x: ", kind, (u64)space, offset,
	    (u64)len, from);
	say_outcome(pcistb(fh, space, offset, source + from, len));
}

static void load(const char *kind, u32 fh, u8 space, u64 offset, u8 len)
{
	u64 value;
	struct outcome outcome = pcilg(fh, space, offset, &value, len);

	say("%s: PCILG space %u offset 0x%x len %u: value 0x%x ", kind, (u64)space, offset,
	    (u64)len, value);
	say_outcome(outcome);
}

static void store(const char *kind, u32 fh, u8 space, u64 offset, u64 value, u8 len)
{
	say("%s: PCISTG space %u offset 0x%x len %u: ", kind, (u64)space, offset, (u64)len);
	say_outcome(pcistg(fh, space, offset, value, len));
}

static void named(const char *kind, const char *name, struct outcome outcome)
{
	say("%s: %s: ", kind, name);
	say_outcome(outcome);
}

static void yes(const char *kind, const char *name, int is_so)
{
	say("%s: %s: %s\n", kind, name, is_so ? "yes" : "no");
}

static void say_event(const char *kind)
{
	say("%s: event: 0x%x\n", kind, (u64)event());
}

static void handles(const char *kind, u32 *fh, u8 space, u64 offset)
{
	u32 old = *fh;

	named(kind, "PCISTB, another function's handle", pcistb(old ^ 0x100, space, offset, source, 16));
	named(kind, "PCISTB, a handle of no function", pcistb(0x80000000, space, offset, source, 16));
	named(kind, "PCISTB, a handle that is not enabled",
	      pcistb(old & 0x7fffffff, space, offset, source, 16));
	yes(kind, "disabled", disable_function(fh));
	named(kind, "PCISTB, disabled", pcistb(*fh, space, offset, source, 16));
	yes(kind, "enabled", enable_function(fh));
	yes(kind, "the handle has changed", *fh != old);
	named(kind, "PCISTB, the old handle", pcistb(old, space, offset, source, 16));
	config_write(*fh, 4, 0x6, 2);
	named(kind, "PCISTB, the new handle", pcistb(*fh, space, offset, source, 16));
}

/*
 * A function of the default group, with 1 MiB that behaves like memory in BAR 2: NVMe.
 */
#define STRICT "strict"

/* An offset within a BAR does not depend on where the BAR is. */
static void moved(const char *kind, u32 fh, u8 bar, u64 offset)
{
	static const u64 addresses[] = { 0, 1ul << 36, 0 };
	u64 i;

	for (i = 0; i < ARRAY_SIZE(addresses); i++) {
		config_write(fh, 4, 0x4, 2);
		config_write(fh, 0x10 + bar * 4, addresses[i], 4);
		config_write(fh, 0x14 + bar * 4, addresses[i] >> 32, 4);
		config_write(fh, 4, 0x6, 2);
		load(kind, fh, bar, offset, 8);
		store(kind, fh, bar, offset, i + 1, 8);
		block(kind, fh, bar, offset + 8, 0, 16);
	}
}

/* What puts a function into error is told by an event, and the function has to be reset. */
static void in_error(u32 fh, u8 space, u64 offset)
{
	u64 value;

	say_event(STRICT);
	yes(STRICT, "a bad refresh", bad_refresh(fh));
	named(STRICT, "PCISTB, in error", pcistb(fh, space, offset, source, 16));
	named(STRICT, "PCILG, in error", pcilg(fh, space, offset, &value, 8));
	say_event(STRICT);
	say_event(STRICT);
	yes(STRICT, "reset error", reset_error(fh));
	named(STRICT, "PCISTB, no longer in error", pcistb(fh, space, offset, source, 16));
}

/* Operands that cannot be accessed. */
static void translated(u32 fh, u8 space, u64 offset)
{
	struct outcome page, segment, next, whole, protected;

	translation(1);
	page = pcistb(fh, space, offset, (void *)NO_PAGE, 16);
	segment = pcistb(fh, space, offset, (void *)NO_SEGMENT, 16);
	next = pcistb(fh, space, offset, (void *)(NO_PAGE - 8), 16);
	whole = pcistb(fh, space, offset, (void *)READ_ONLY_PAGE, 16);
	protected = stpcifc(fh, (void *)READ_ONLY_PAGE);
	translation(0);
	named(STRICT, "PCISTB, from a page that is not there", page);
	named(STRICT, "PCISTB, from a segment that is not there", segment);
	named(STRICT, "PCISTB, from a page and one that is not there", next);
	named(STRICT, "PCISTB, from a page that is read-only", whole);
	named(STRICT, "STPCIFC, to a page that is read-only", protected);
}

/* Instructions that do not get as far as the function, or about which it tells no more than that. */
static void not_taken(u32 fh, u8 space, u64 offset)
{
	u64 value;

	named(STRICT, "PCISTB, beyond the end of BAR 2", pcistb(fh, 2, 0x100000, source, 16));
	named(STRICT, "PCISTB, to a place of BAR 0 that is none", pcistb(fh, 0, 0x3800, source, 16));
	named(STRICT, "PCILG, from a place of BAR 0 that is none", pcilg(fh, 0, 0x3800, &value, 8));
	config_write(fh, 4, 0x4, 2);
	named(STRICT, "memory is disabled: PCISTB", pcistb(fh, space, offset, source, 16));
	named(STRICT, "memory is disabled: PCILG", pcilg(fh, space, offset, &value, 8));
	named(STRICT, "memory is disabled: PCISTG", pcistg(fh, space, offset, 0, 8));
	config_write(fh, 4, 0x6, 2);
}

static void strict(u32 fh)
{
	static const u16 lens[] = {
		0, 1, 2, 4, 7, 8, 9, 12, 15, 16, 17, 20, 24, 32, 64, 120, 128, 136, 256, 4096, 0x1fff,
	};
	static const u64 offsets[] = {
		0, 1, 4, 8, 0xff0, 0xff8, 0x1000, 0xffff0, 0xffff8, 0x100000, 1ul << 40, -8ul, -1ul,
	};
	static const u64 sources[] = { 1, 4, 8, PAGE_SIZE - 16, PAGE_SIZE - 8, PAGE_SIZE - 4 };
	u64 i, len, value;

	for (i = 0; i < ARRAY_SIZE(lens); i++)
		block(STRICT, fh, 2, 0x200, 0, lens[i]);
	for (i = 0; i < ARRAY_SIZE(offsets); i++)
		block(STRICT, fh, 2, offsets[i], 0, 16);
	for (i = 0; i < ARRAY_SIZE(sources); i++)
		block(STRICT, fh, 2, 0x200, sources[i], 16);
	for (i = 5; i <= 15; i++)
		block(STRICT, fh, i, 0x200, 0, 16);
	named(STRICT, "PCISTB, from an address that is not there",
	      pcistb(fh, 2, 0x200, (void *)(1ul << 40), 16));
	translated(fh, 2, 0x200);

	pcistb(fh, 2, 0x200, source, 128);
	for (i = 0; i < 16; i++)
		load(STRICT, fh, 2, 0x200 + i * 8, 8);
	for (len = 0; len <= 9; len++) {
		for (i = 0; i < 8; i++) {
			load(STRICT, fh, 2, 0x200 + i, len);
			pcistg(fh, 2, 0x400, 0, 8);
			store(STRICT, fh, 2, 0x400 + i, 0x1122334455667788, len);
			load(STRICT, fh, 2, 0x400, 8);
		}
	}
	moved(STRICT, fh, 2, 0x800);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		load(STRICT, fh, 2, offsets[i], 8);
		store(STRICT, fh, 2, offsets[i], 0, 8);
	}
	for (i = 5; i < 15; i++) {
		load(STRICT, fh, i, 0, 8);
		store(STRICT, fh, i, 0, 0, 8);
	}
	for (len = 1; len <= 8; len++)
		load(STRICT, fh, CONFIG_SPACE, 0, len);
	load(STRICT, fh, CONFIG_SPACE, 2, 2);
	load(STRICT, fh, CONFIG_SPACE, 3, 2);
	named(STRICT, "PCILG, another function's handle", pcilg(fh ^ 0x100, 2, 0, &value, 8));
	named(STRICT, "PCISTG, another function's handle", pcistg(fh ^ 0x100, 2, 0, 0, 8));
	not_taken(fh, 2, 0x200);
	in_error(fh, 2, 0x200);
	handles(STRICT, &fh, 2, 0x200);
}

/*
 * Functions that fail each instruction for a BAR, each in its own way.
 */
static const struct {
	u32 fid;
	const char *kind;
} failing[] = {
	{ 0x51, "a function that refuses" },
	{ 0x52, "a function that is busy" },
	{ 0x53, "a function that has gone" },
};

static int fails(u32 fid, u32 fh)
{
	u64 i, value;

	for (i = 0; i < ARRAY_SIZE(failing); i++) {
		if (failing[i].fid != fid)
			continue;
		named(failing[i].kind, "PCISTB", pcistb(fh, 2, 0x200, source, 16));
		named(failing[i].kind, "PCILG", pcilg(fh, 2, 0x200, &value, 8));
		named(failing[i].kind, "PCISTG", pcistg(fh, 2, 0x200, 0, 8));
		return 1;
	}
	return 0;
}

/*
 * Two ISM functions of one fabric.
 */
#define ISM "ism"

/* BARs */
#define MOVES 0
#define COMMANDS 2

#define SIGNAL (1ul << 23)
#define INDEX(i) ((u64)(i) << 24)

enum {
	REG_SBA = 1,
	REG_IEQ = 2,
	READ_GID = 3,
	QUERY_INFO = 8,
	QUERY_RGID = 9,
	REG_DMB = 10,
	UNREG_DMB = 11,
	SIGNAL_IEQ = 14,
};

static u8 signals[PAGE_SIZE] __aligned(PAGE_SIZE);
static u8 events[PAGE_SIZE] __aligned(PAGE_SIZE);
static u8 buffer[16 * PAGE_SIZE] __aligned(16 * PAGE_SIZE);
static u64 interrupt __aligned(8), summary __aligned(8);

/* The command in words[1...], of which the first is the header; the response takes its place. */
static u64 words[32];

static void command(const char *name, u32 fh, u32 code, u16 len)
{
	u16 i, response;

	words[0] = (u64)code << 32 | len;
	if (len > 8)
		pcistb(fh, COMMANDS, 8, words + 1, len - 8);
	say("ism: %s: ", name);
	say_outcome(pcistb(fh, COMMANDS, 0, words, 8));
	pcilg(fh, COMMANDS, 0, words, 8);
	response = words[0];
	for (i = 8; i < response && i < sizeof(words); i += 8)
		pcilg(fh, COMMANDS, i, words + i / 8, 8);
	say("ism: %s: answer 0x%x, %u bytes\n", name, words[0] >> 16 & 0xffff, (u64)response);
}

static void command_with(const char *name, u32 fh, u32 code, u64 one)
{
	words[1] = one;
	command(name, fh, code, 16);
}

static void register_buffer(const char *name, u32 fh, u64 len, u64 index, u64 sender)
{
	words[1] = DMA_ADDRESS(buffer);
	words[2] = len << 32 | index;
	words[3] = 0;
	words[4] = sender;
	command(name, fh, REG_DMB, 40);
}

static void move(const char *name, u32 fh, u64 offset, u64 from, u16 len, u64 at)
{
	named(ISM, name, pcistb(fh, MOVES, offset, source + from, len));
	say("ism: %s: %s\n", name, memcmp(buffer + at, source + from, len) ? "not there" : "arrived");
}

static void message_interrupts(u32 fh)
{
	u64 at;

	pcilg(fh, CONFIG_SPACE, 0x34, &at, 1);
	config_write(fh, at + 4, 0, 4);
	config_write(fh, at + 8, 0xfe000000, 4);
	config_write(fh, at + 12, 0, 2);
	config_write(fh, at + 2, 1, 2);
}

static void relaxed(u32 fh)
{
	static const u16 lens[] = { 0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 100, 128 };
	u64 i, at;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		for (at = 0; at < 3; at++) {
			block(ISM, fh, COMMANDS, 0x40 + at, at * 2, lens[i]);
			load(ISM, fh, COMMANDS, 0x40, 8);
			load(ISM, fh, COMMANDS, 0x40 + lens[i] / 8 * 8, 8);
		}
	}
	for (i = 0; i <= 9; i++) {
		for (at = 0; at < 8; at++) {
			load(ISM, fh, COMMANDS, 0x40 + at, i);
			store(ISM, fh, COMMANDS, 0x48 + at, 0x1122334455667788, i);
			load(ISM, fh, COMMANDS, 0x48, 8);
		}
	}
	block(ISM, fh, COMMANDS, 0xf8, 0, 8);
	block(ISM, fh, COMMANDS, 0xf8, 0, 9);
	block(ISM, fh, COMMANDS, 0x100, 0, 1);
	block(ISM, fh, 1, 0, 0, 8);
	block(ISM, fh, MOVES, 0, 0, PAGE_SIZE);
	block(ISM, fh, MOVES, 0, 0, PAGE_SIZE + 1);
	block(ISM, fh, MOVES, 0, 0, 0x1fff);
	block(ISM, fh, MOVES, 1, 0, PAGE_SIZE);
	block(ISM, fh, MOVES, 0x123400000000, 1, PAGE_SIZE);
	block(ISM, fh, MOVES, (1ul << 48) - 1, 0, 1);
	block(ISM, fh, MOVES, (1ul << 48) - 1, 0, 2);
	block(ISM, fh, MOVES, 1ul << 48, 0, 8);
	load(ISM, fh, MOVES, 0, 8);
	store(ISM, fh, MOVES, 0, 0, 8);
	store(ISM, fh, COMMANDS, 0x80, 0x1122334455667788, 8);
	load(ISM, fh, COMMANDS, 0x80, 8);
}

/* With all that is mapped, more than the VMM has room for if each of them were a new mapping. */
#define CHANGES 80

/* A refresh makes known what a segment table says, too: not valid, and later on other memory. */
static void remapped(u32 owner, u32 sender, u64 token)
{
	static u8 other[sizeof(buffer)] __aligned(PAGE_SIZE);
	int i, changed = 1;

	memset(buffer, 0, 16);
	yes(ISM, "mapped to other memory", remap_dma(owner, buffer, other, sizeof(buffer)));
	named(ISM, "a buffer in other memory", pcistb(sender, MOVES, token, source, 16));
	yes(ISM, "a buffer in other memory, arrived there", !memcmp(other, source, 16) && !buffer[0]);
	yes(ISM, "mapped as before", remap_dma(owner, buffer, buffer, sizeof(buffer)));
	/* Each takes the place of another mapping: no more of them may be counted than there are. */
	for (i = 0; i < 2 * CHANGES; i++)
		changed &= change_dma(owner, buffer, i & 1 ? buffer : other, sizeof(buffer));
	yes(ISM, "mapped elsewhere and back, again and again", changed);
	move("a buffer as before", sender, token, 0, 16, 0);
}

static void void_buffer(u32 *owner, u32 sender, u64 token)
{
	named(ISM, "a buffer that was", pcistb(sender, MOVES, token, source, 16));
	yes(ISM, "enabled", enable_function(owner));
	config_write(*owner, 4, 0x6, 2);
	yes(ISM, "DMA of a function that is enabled again", enable_dma(*owner));
	named(ISM, "a buffer of the time before", pcistb(sender, MOVES, token, source, 16));
	yes(ISM, "nothing has arrived", !buffer[0]);
}

/*
 * What a function has registered is void once it was disabled or deconfigured, though afterwards
 * its memory is at the same address.
 */
static void forgets(u32 fid, u32 *owner, u32 sender, u64 sender_gid)
{
	u64 token;

	buffer[0] = 0;
	register_buffer("REG_DMB, then disabled", *owner, sizeof(buffer), 32, sender_gid);
	token = words[1];
	yes(ISM, "disabled", disable_function(owner));
	void_buffer(owner, sender, token);

	register_buffer("REG_DMB, then deconfigured", *owner, sizeof(buffer), 32, sender_gid);
	token = words[1];
	yes(ISM, "deconfigured", deconfigure_function(fid));
	yes(ISM, "the handle is void", pcistb(*owner, COMMANDS, 0x80, source, 16).cc == 3);
	yes(ISM, "configured", configure_function(fid));
	*owner &= 0x7fffffff;
	void_buffer(owner, sender, token);
}

static void ism(u32 fid, u32 owner, u32 sender)
{
	u64 owner_gid, sender_gid, token, i;

	relaxed(owner);

	yes(ISM, "DMA of the owner", enable_dma(owner));
	yes(ISM, "DMA of the sender", enable_dma(sender));
	message_interrupts(owner);
	yes(ISM, "interrupts", enable_interrupts(owner, &interrupt, &summary));

	command("READ_GID", owner, READ_GID, 8);
	owner_gid = words[1];
	command("READ_GID of the sender", sender, READ_GID, 8);
	sender_gid = words[1];
	yes(ISM, "two names", owner_gid != sender_gid);
	command("a command of a wrong length", owner, READ_GID, 16);
	command("no such command", owner, 0x13, 8);
	words[2] = 0;
	words[1] = sender_gid;
	command("QUERY_RGID", owner, QUERY_RGID, 24);
	words[1] = 0x4444;
	command("QUERY_RGID of nobody", owner, QUERY_RGID, 24);
	command_with("REG_SBA, not a page", owner, REG_SBA, DMA_ADDRESS(signals) + 8);
	command_with("REG_SBA", owner, REG_SBA, DMA_ADDRESS(signals));
	words[1] = DMA_ADDRESS(events);
	words[2] = sizeof(events);
	command("REG_IEQ", owner, REG_IEQ, 24);
	command("QUERY_INFO", owner, QUERY_INFO, 8);
	yes(ISM, "QUERY_INFO has the name and the addresses",
	    words[3] == owner_gid && words[4] == DMA_ADDRESS(signals) && words[5] == DMA_ADDRESS(events));

	register_buffer("REG_DMB, bad index", owner, sizeof(buffer), 31, sender_gid);
	register_buffer("REG_DMB", owner, sizeof(buffer), 32, sender_gid);
	token = words[1];
	register_buffer("REG_DMB, index in use", owner, sizeof(buffer), 32, sender_gid);
	command_with("UNREG_DMB of somebody else", sender, UNREG_DMB, token);

	move("4096 bytes", sender, token, 0, PAGE_SIZE, 0);
	move("11 bytes, not aligned", sender, token | 0x1235, 3, 11, 0x1235);
	yes(ISM, "11 bytes, not aligned, nothing beside", !buffer[0x1234] && !buffer[0x1240]);
	move("the last byte", sender, token | (sizeof(buffer) - 1), 1, 1, sizeof(buffer) - 1);
	move("source crosses a page", sender, token | 0x2000, PAGE_SIZE - 6, 100, 0x2000);
	for (i = 1; i <= PAGE_SIZE; i = i * 3 + 1)
		move("some length", sender, token | 0x4000, i % 7, i, 0x4000);
	named(ISM, "beyond the buffer", pcistb(sender, MOVES, token | sizeof(buffer), source, 1));
	named(ISM, "not the sender", pcistb(owner, MOVES, token, source, 8));
	say_event(ISM);
	move("after a refusal, as before", sender, token | 0x100, 0, 16, 0x100);
	yes(ISM, "no interrupt so far", !interrupt && !summary);

	move("with a signal", sender, token | SIGNAL | INDEX(3) | 0x3000, 0, 32, 0x3000);
	for (i = 0; i < 20000000 && !*(volatile u64 *)&summary; i++)
		;
	yes(ISM, "interrupt", interrupt == 1ul << 63 && summary == 1ul << 63);
	yes(ISM, "signal bits", *(u32 *)signals == 0x80000000 && *(u16 *)(signals + 256 + 64) == 0x1000);
	named(ISM, "no such signal", pcistb(sender, MOVES, token | SIGNAL | INDEX(16), source, 8));

	for (i = 1; i <= 16; i++) {
		words[1] = owner_gid;
		words[2] = 1ul << 32 | (0x80 + i);
		words[3] = i;
		command("SIGNAL_IEQ", sender, SIGNAL_IEQ, 32);
		yes(ISM, "event", *(u64 *)(events + 32 + (i - 1) % 15 * 32 + 24) == i);
	}
	remapped(owner, sender, token);
	command_with("UNREG_DMB", owner, UNREG_DMB, token);
	named(ISM, "a buffer that was", pcistb(sender, MOVES, token, source, 8));
	forgets(fid, &owner, sender, sender_gid);
	handles(ISM, &owner, COMMANDS, 0x80);
}

int main(void)
{
	struct function functions[8];
	u32 fids[2], pair[2], found = 0;
	int i, count;

	console_init();
	for (i = 0; i < sizeof(source); i++)
		source[i] = i * 7 + (i >> 8) + 1;
	count = list_functions(functions, ARRAY_SIZE(functions));
	for (i = 0; i < count; i++) {
		u32 fh = functions[i].fh;

		say("function %x: %x:%x\n", (u64)functions[i].fid, (u64)functions[i].vendor,
		    (u64)functions[i].device);
		named("function", "PCISTB, not enabled yet", pcistb(fh, 2, 0x80, source, 16));
		yes("function", "enabled", enable_function(&fh));
		config_write(fh, 4, 0x6, 2);	/* memory, DMA */
		if (fails(functions[i].fid, fh))
			continue;
		if (functions[i].vendor != 0x1014) {
			strict(fh);
		} else if (found < ARRAY_SIZE(pair)) {
			fids[found] = functions[i].fid;
			pair[found++] = fh;
		}
	}
	if (found == ARRAY_SIZE(pair))
		ism(fids[0], pair[0], pair[1]);
	say("end\n");
	return 0;
}
