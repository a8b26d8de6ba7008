// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that means harm: instructions with random and with edge operands for all functions of the
 * machine, from two CPUs at once. Each outcome has to be one that the rules allow for these operands,
 * and nothing may write where nobody was told to.
 *
 * Both CPUs work through ROUNDS instructions. Which they are, SEED says; how those of the two meet, it
 * does not. With VMM a host is between us and the functions. It stops a guest whose functions write
 * where there is no memory, so they are told nothing of that kind.
 */
#include "bare.h"

#ifndef VMM
#define VMM 0
#endif

#define ENABLED (1u << 31)
#define KiB 1024ul
#define MiB (1024 * KiB)

/* What instructions read and write, and all that functions are allowed to write to. */
#define ARENA_SIZE MiB
static u8 arena[ARENA_SIZE] __aligned(MiB);

/* Neither an instruction nor a function is told of this memory, but it is mapped for both. */
static volatile u64 untouched[3 * MiB / sizeof(u64)];

/* All entries of such a table are invalid. */
static u64 no_table[2048] __aligned(16384);

static u64 pattern(u64 i)
{
	return (i + 1) * 0x9e3779b97f4a7c15;
}

enum kind { PCISTB, PCILG, PCISTG, MPCIFC, STPCIFC, RPCIT, CLP, KINDS };

static const char *const names[KINDS] = {
	"PCISTB", "PCILG", "PCISTG", "MPCIFC", "STPCIFC", "RPCIT", "CLP",
};

static struct known {
	u32 fid;
	volatile u32 fh;
	int ism;
	u64 gid;
} functions[8];
static u32 count;

/* What functions have taken, or refused: how many blocks, and sums of their offsets and lengths. */
struct blocks {
	u64 number, offsets, lens;
};

struct cpu {
	u64 state;
	u64 cc[KINDS][4], exceptions[KINDS];
	struct blocks stored[ARRAY_SIZE(functions)], refused[ARRAY_SIZE(functions)];
	volatile u32 done;
};
static struct cpu cpus[2];

/* Whoever has it uses what is there once only: console, support element, requests of CLP. */
static volatile u32 lock;
static u32 objections;

static void take_lock(void)
{
	while (__sync_lock_test_and_set(&lock, 1))
		;
}

static void leave_lock(void)
{
	__sync_lock_release(&lock);
}

static u64 random(struct cpu *cpu)
{
	cpu->state ^= cpu->state >> 12;
	cpu->state ^= cpu->state << 25;
	cpu->state ^= cpu->state >> 27;
	return cpu->state * 0x2545f4914f6cdd1d;
}

static u64 below(struct cpu *cpu, u64 limit)
{
	return (random(cpu) >> 16) % limit;
}

static u64 edge(struct cpu *cpu)
{
	u64 bit = 1ul << below(cpu, 64), some = random(cpu);

	switch (below(cpu, 6)) {
	case 0: return 0;
	case 1: return bit;
	case 2: return bit - 1;
	case 3: return -bit;
	case 4: return some % 4200;
	default: return some;
	}
}

static u32 handle(struct cpu *cpu)
{
	u64 which = below(cpu, 24), some = random(cpu);
	u32 fh = functions[below(cpu, count)].fh;

	switch (which) {
	case 0: return fh ^ ENABLED;
	case 1: return fh ^ 1u << some % 24;
	case 2: return some;
	case 3: return ENABLED | (some & 0x0300000f);
	case 4: return some & 15;
	default: return fh;
	}
}

/* An address of an operand of so many bytes. */
static u64 operand(struct cpu *cpu, u64 len)
{
	static const u64 bad[] = { NO_PAGE, NO_SEGMENT, NO_PAGE - 8, 1ul << 40, -8ul, -1ul };
	u64 at = below(cpu, ARENA_SIZE - len), which = below(cpu, 48);

	if (which < ARRAY_SIZE(bad))
		return bad[which];
	return (u64)arena + (which & 1 ? at : at & ~7ul);
}

static int is_in_arena(u64 address)
{
	return address - (u64)arena < ARENA_SIZE;
}

/* Whether an operand of so many bytes can be accessed. */
static int is_there(u64 address, u64 len)
{
	return address < NO_PAGE && len <= NO_PAGE - address;
}

/* An address that is good for the DMA of a function, or is not. */
static u64 dma(struct cpu *cpu)
{
	u64 which = below(cpu, 16), page = below(cpu, ARENA_SIZE / PAGE_SIZE) * PAGE_SIZE;
	u64 some = edge(cpu);

	if (VMM || which > 3)
		return DMA_ADDRESS(arena + page);
	switch (which) {
	case 0: return DMA_ADDRESS(arena + page + 8);
	case 1: return DMA_ADDRESS(0);
	case 2: return DMA_ADDRESS(32 * MiB);
	default: return some;
	}
}

static int is_access_exception(u16 exception)
{
	return exception == 5 || exception == 0x10 || exception == 0x11 || exception == 0x38;
}

static const struct known *known(u32 fh)
{
	u32 i;

	for (i = 0; i < count; i++)
		if (!((functions[i].fh ^ fh) & 0x00ffffff))
			return functions + i;
	return 0;
}

/* 0: it has no such BAR, or one about which we know nothing */
static u64 bar_size(const struct known *function, u8 bar)
{
	if (bar == 2)
		return function->ism ? 256 : MiB;
	return function->ism && bar == 0 ? 1ul << 48 : 0;
}

static int is_within(u64 offset, u64 len, u64 size)
{
	return offset < size && len <= size - offset;
}

static int is(struct outcome outcome, u8 cc, u8 status)
{
	return !outcome.exception && outcome.cc == cc && (cc != 1 || outcome.status == status);
}

/*
 * What loads and stores have in common: 1 and -1 say that the outcome is right or wrong, whatever the
 * other operands are.
 */
static int judge_handle(u32 fh, const struct known *function, struct outcome outcome)
{
	if (!(fh & ENABLED) || !function)
		return is(outcome, 3, 0) ? 1 : -1;
	/* It may be disabled, or in error, which the other CPU may have changed. */
	return is(outcome, 3, 0) || is(outcome, 1, 12);
}

static int judge_block(u64 req, u64 offset, u64 address, struct outcome outcome)
{
	const struct known *function = known(req >> 32);
	u8 space = req >> 16 & 0xf;
	u16 len = req & 0x1fff;
	int judgement = judge_handle(req >> 32, function, outcome);
	int in_bar, form;

	if (judgement)
		return judgement > 0;
	if (space > 5)
		return is(outcome, 1, 20);
	form = (offset & 0xfff) + len <= PAGE_SIZE && (function->ism ? len && len <= 4096 :
		len > 8 && len <= 128 && !(len % 8) && !(offset % 8) && !(address % 8));
	if (!form)
		return outcome.exception == 6;
	/* The function is being taken away. */
	if (VMM && is(outcome, 2, 0))
		return 1;
	in_bar = is_within(offset, len, bar_size(function, space));
	if (is_access_exception(outcome.exception))
		return !is_there(address, len);
	if (outcome.exception)
		return outcome.exception == 0x15 && !in_bar;
	if (!in_bar && bar_size(function, space))
		return 0;
	if (!is_there(address, len))
		return 0;
	if (outcome.cc == 1)
		return function->ism && space == 0 && outcome.status == (VMM ? 8 : 40);
	return outcome.cc == 0;
}

static int judge_access(u64 req, u64 offset, struct outcome outcome)
{
	const struct known *function = known(req >> 32);
	u8 space = req >> 16 & 0xf, len = req & 0xf;
	int judgement = judge_handle(req >> 32, function, outcome);
	int legal = len == 1 || len == 2 || len == 4 || len == 8;

	if (judgement)
		return judgement > 0;
	if (space == CONFIG_SPACE)
		legal = legal && len < 8 && (offset & 3) + len <= 4;
	else if (space > 5)
		return is(outcome, 1, 20);
	else
		legal = legal && (offset & 7) + len <= 8;
	if (outcome.exception)
		return outcome.exception == 0x15 && (!legal || (space != CONFIG_SPACE && (
			space != 2 || offset % len ||
			!is_within(offset, len, bar_size(function, space)))));
	return legal && (outcome.cc == 0 || (VMM && outcome.cc == 2));
}

/* Whether the address of a block was refused with reason, or it was not refused. */
static int judge_other(enum kind kind, u64 address, struct outcome outcome)
{
	if (is_access_exception(outcome.exception))
		return kind != RPCIT && !is_there(address, PAGE_SIZE);
	if (outcome.exception == 6)
		return kind != RPCIT && kind != CLP && address % 8;
	return !outcome.exception || outcome.exception == 0x15;
}

static void note(struct cpu *cpu, enum kind kind, u64 one, u64 two, u64 three,
		 struct outcome outcome, int right)
{
	if (outcome.exception)
		cpu->exceptions[kind]++;
	else
		cpu->cc[kind][outcome.cc]++;
	if (right)
		return;
	take_lock();
	if (objections++ < 10) {
		say("not allowed: %s 0x%x 0x%x 0x%x: ", names[kind], one, two, three);
		say_outcome(outcome);
	}
	leave_lock();
}

static void store(struct cpu *cpu, u64 req, u64 offset, u64 address)
{
	const struct known *function = known(req >> 32);
	struct outcome outcome = raw_pcistb(req, offset, address);
	struct blocks *blocks = 0;

	note(cpu, PCISTB, req, offset, address, outcome, judge_block(req, offset, address, outcome));
	if (!function || !function->ism)
		return;
	if (is(outcome, 0, 0))
		blocks = cpu->stored;
	else if (is(outcome, 1, VMM ? 8 : 40))
		blocks = cpu->refused;
	if (blocks) {
		blocks += function - functions;
		blocks->number++;
		blocks->offsets += offset;
		blocks->lens += req & 0x1fff;
	}
}

static u64 request(struct cpu *cpu, u8 space, u16 len)
{
	u64 req = (u64)handle(cpu) << 32 | (u64)space << 16 | len;

	return below(cpu, 8) ? req : req | (random(cpu) & 0xfff0e000);
}

static void store_something(struct cpu *cpu)
{
	static const u16 lens[] = { 0, 1, 7, 8, 16, 24, 64, 128, 136, 255, 256, 4088, 4096, 4097, 0x1fff };
	u64 which = below(cpu, 8), some = random(cpu), offset = edge(cpu), other = edge(cpu);
	u16 len = which & 1 ? lens[some % ARRAY_SIZE(lens)] : (some >> 8) % 17 * 8;
	u8 space = below(cpu, 3) ? 2 : below(cpu, 16);
	u64 req, address = operand(cpu, 0x2000);

	if (which > 1)
		offset = some >> 32 & (which & 2 ? 0xfff8 : 0xff);
	if (which > 5) {
		/* Into a buffer, with or without a signal. */
		space = 0;
		offset = (1 + (some >> 40) % 64) << 32 | (other & 0x1ffffff);
		if (which & 1)
			offset &= ~0xfffull;
	}
	req = request(cpu, space, len);
	store(cpu, req, offset, address);
}

/* Commands of ISM. */
enum { REG_SBA = 1, REG_IEQ = 2, READ_GID = 3, REG_DMB = 10, LAST_COMMAND = 0x13 };
#define COMMANDS 2

static void command(struct cpu *cpu, u32 fh, u32 code, u16 len, const u64 *body)
{
	u64 *words = (u64 *)(arena + (cpu - cpus) * PAGE_SIZE);
	u64 req = (u64)fh << 32 | COMMANDS << 16;

	memcpy(words + 1, body, 40 - 8);
	words[0] = (u64)code << 32 | len;
	if (len > 8 && len <= 40)
		store(cpu, req | (len - 8), 8, (u64)(words + 1));
	store(cpu, req | 8, 0, (u64)words);
}

static void some_command(struct cpu *cpu)
{
	static const u16 lens[] = { 8, 16, 24, 32, 40 };
	u64 gid = functions[below(cpu, count)].gid, some = random(cpu), address = dma(cpu);
	u64 body[4] = { address, 0x1000ul << 32 | (30 + (some >> 8) % 16), 0, gid };
	u64 odd = below(cpu, 8), other = edge(cpu), size = edge(cpu);
	u32 code = below(cpu, LAST_COMMAND + 1), fh = handle(cpu);
	u16 len = lens[below(cpu, ARRAY_SIZE(lens))];

	if (odd < 4)
		body[odd] = VMM && odd == 0 ? gid : other;
	if (odd == 5)
		body[1] = size << 32 | 33;
	if (code == REG_DMB)
		len = 40;
	/* It takes an address, and the gid is none. */
	if (VMM && (code == REG_SBA || code == REG_IEQ || code == REG_DMB))
		body[0] = address;
	command(cpu, fh, code, len, body);
}

static void access_something(struct cpu *cpu, enum kind kind)
{
	u64 which = below(cpu, 4), some = random(cpu), offset = edge(cpu), value = edge(cpu);
	u8 space = which ? 2 : below(cpu, 16);
	u64 req = request(cpu, space, 1 << (some & 3));
	struct outcome outcome;

	if (which > 1)
		offset = some >> 32 & 0xfff;
	if (which == 3)
		req ^= some >> 8 & 0xf;
	/* What is mapped for a guest, and what interrupts it, is not the VMM's to survive. */
	if (VMM && (space == CONFIG_SPACE || space == 0) && kind == PCISTG)
		req &= ~((u64)ENABLED << 32);
	outcome = kind == PCILG ? raw_pcilg(req, offset, &value) : raw_pcistg(req, offset, value);
	note(cpu, kind, req, offset, value, outcome, judge_access(req, offset, outcome));
}

static void modify_something(struct cpu *cpu)
{
	static u64 template[2][9];
	u64 *fib = template[cpu - cpus], some = random(cpu), which = below(cpu, 8);
	u64 at = operand(cpu, sizeof(template[0])), bits = operand(cpu, 0x1000), other = edge(cpu);
	u64 req = (u64)handle(cpu) << 32 | (some >> 8) % 10 | (below(cpu, 16) ? 0 : other & 0xffffff);
	struct outcome outcome;

	/* Of a mapped function its addresses, and for interrupts and measurements some in the arena. */
	raw_stpcifc((u64)functions[below(cpu, count)].fh << 32, (u64)fib);
	fib[0] &= 0xff;
	if (which == 0)
		fib[2] = other;
	if (which == 1)
		fib[3] = other;
	if (which == 2)
		fib[4] = (u64)no_table | 0x800 | 1 << 2;
	if (which == 3)
		fib[4] ^= other & 0x8ff;
	fib[5] = other << 16;
	fib[6] = is_in_arena(bits) ? bits & ~0xffful : bits;
	fib[7] = fib[6] + 0x800;
	fib[8] = fib[6];
	if (is_in_arena(at))
		memcpy((void *)at, fib, sizeof(template[0]));
	if (VMM)
		req &= ~((u64)ENABLED << 32);
	outcome = raw_mpcifc(req, at);
	note(cpu, MPCIFC, req, at, fib[4], outcome, judge_other(MPCIFC, at, outcome));
}

static void ask_something(struct cpu *cpu)
{
	u64 at = operand(cpu, 128), req = request(cpu, below(cpu, 8) ? 0 : 1, 0);
	struct outcome outcome = raw_stpcifc(req, at);

	note(cpu, STPCIFC, req, at, 0, outcome, judge_other(STPCIFC, at, outcome));
}

static void refresh_something(struct cpu *cpu)
{
	u64 some = random(cpu), start = edge(cpu), len = edge(cpu), req = (u64)handle(cpu) << 32;
	struct outcome outcome;

	if (some & 3) {
		start = DMA_ADDRESS(some >> 8 & 0xfff000);
		len = some >> 40 & 0xfffff;
	}
	if (VMM)
		start = DMA_ADDRESS(arena);
	outcome = raw_rpcit(req, start, len);
	note(cpu, RPCIT, req, start, len, outcome, judge_other(RPCIT, 0, outcome));
}

static void call_something(struct cpu *cpu)
{
	static const u16 lens[] = { 0, 8, 15, 16, 24, 32, 40, 4096, 8160, 8176, 8184, 0xffff };
	u64 some = random(cpu), other = edge(cpu), at = operand(cpu, 0x2800);
	u16 request_len = below(cpu, 8) ? 32 : lens[below(cpu, ARRAY_SIZE(lens))];
	u16 response_len = below(cpu, 4) ? 32 + (some & 0xff8) : lens[below(cpu, ARRAY_SIZE(lens))];
	u32 fh = handle(cpu);
	struct outcome outcome;

	if (is_in_arena(at)) {
		u8 *block = (u8 *)at;

		memset(block, 0, 0x30);
		memcpy(block + 24, &other, 8);
		memcpy(block + 16, &fh, 4);
		memcpy(block, &request_len, 2);
		block[3] = some >> 16 & 7;
		if (block[3] == 5) {
			/* Enabled like that, a function has no memory. */
			block[22] = some >> 24 & 3;
			if (VMM && !block[22])
				block[22] = 1;
			block[23] = 1 + (some >> 32 & 15) / 15;
		}
		if (block[3] == 2) {
			u64 token = some >> 44 & 1 ? 0 : some >> 24 & 15;

			memcpy(block + 16, &token, 8);
			memset(block + 24, 0, 8);
		}
		if (!(some >> 40 & 15))
			memcpy(block + 8, &other, 8);
		if (request_len <= 0x2000)
			memcpy(block + request_len, &response_len, 2);
	}
	outcome = raw_clp(at);
	note(cpu, CLP, at, fh, (u64)request_len << 16 | response_len, outcome,
	     judge_other(CLP, at, outcome));
}

/* Makes a function one that works, after whatever has happened to it. */
static void set_up(struct cpu *cpu, u32 i)
{
	static u64 bits, summary;
	u64 body[4] = { dma(cpu), PAGE_SIZE, 0, 0 };
	struct function list[ARRAY_SIZE(functions)];
	u64 at, gid = functions[below(cpu, count)].gid, how = below(cpu, 8);
	u64 first = dma(cpu), index = 32 + below(cpu, 8);
	u32 fh, found;

	take_lock();
	if (how == 0)
		deconfigure_function(functions[i].fid);
	if (how < 2)
		configure_function(functions[i].fid);
	for (found = list_functions(list, ARRAY_SIZE(list)); found--;)
		if (list[found].fid == functions[i].fid)
			functions[i].fh = list[found].fh;
	fh = functions[i].fh;
	if (how < 4 && fh & ENABLED)
		disable_function(&fh);
	if (!(fh & ENABLED))
		enable_function(&fh);
	reset_error(fh);
	enable_dma(fh);
	functions[i].fh = fh;
	if (functions[i].ism)
		enable_interrupts(fh, &bits, &summary);
	leave_lock();

	config_write(fh, 4, 0x6, 2);
	if (!functions[i].ism)
		return;
	pcilg(fh, CONFIG_SPACE, 0x34, &at, 1);
	config_write(fh, at + 4, 0, 4);
	config_write(fh, at + 8, 0xfe000000, 4);
	config_write(fh, at + 12, 0, 2);
	config_write(fh, at + 2, 1, 2);
	command(cpu, fh, REG_SBA, 16, body);
	body[0] = first;
	command(cpu, fh, REG_IEQ, 24, body);
	for (body[3] = gid; index < 40; index++) {
		body[0] = DMA_ADDRESS(arena + (index - 30) * 16 * KiB);
		body[1] = 16 * KiB << 32 | index;
		command(cpu, fh, REG_DMB, 40, body);
	}
}

static void run(struct cpu *cpu)
{
	u64 round;

	translation(1);
	for (round = 0; round < ROUNDS; round++) {
		u64 which = below(cpu, 256);

		if (which < 80)
			store_something(cpu);
		else if (which < 120)
			some_command(cpu);
		else if (which < 160)
			access_something(cpu, PCILG);
		else if (which < 190)
			access_something(cpu, PCISTG);
		else if (which < 205)
			modify_something(cpu);
		else if (which < 217)
			ask_something(cpu);
		else if (which < 235)
			refresh_something(cpu);
		else if (which < (VMM ? 253 : 246))
			call_something(cpu);
		else
			set_up(cpu, below(cpu, count));
	}
	translation(0);
	cpu->done = 1;
}

static void second(void)
{
	run(cpus + 1);
}

static void say_blocks(const char *what, const struct known *function, const struct blocks *one,
		       const struct blocks *other)
{
	say("%s gid 0x%x: %u offsets 0x%x lens %u\n", what, function->gid,
	    one->number + other->number, one->offsets + other->offsets, one->lens + other->lens);
}

int main(void)
{
	struct function list[ARRAY_SIZE(functions)];
	u64 i, wrong = 0, value;
	int kind;

	console_init();
	for (i = 0; i < ARRAY_SIZE(untouched); i++)
		untouched[i] = pattern(i);
	memset(no_table, 0xff, sizeof(no_table));
	count = list_functions(list, ARRAY_SIZE(list));
	cpus[0].state = 2 * SEED + 1;
	cpus[1].state = ~(2ul * SEED + 1);
	for (i = 0; i < count; i++) {
		functions[i].fid = list[i].fid;
		functions[i].fh = list[i].fh;
		functions[i].ism = list[i].vendor == 0x1014;
		set_up(cpus, i);
		if (functions[i].ism) {
			const u64 none[4] = {};

			command(cpus, functions[i].fh, READ_GID, 8, none);
			pcilg(functions[i].fh, COMMANDS, 8, &value, 8);
			functions[i].gid = value;
		}
	}

	translation(1);
	start_second_cpu(second);
	run(cpus);
	while (!cpus[1].done)
		;

	say("seed %u, twice %u rounds, %u functions\n", (u64)SEED, (u64)ROUNDS, (u64)count);
	for (kind = 0; kind < KINDS; kind++) {
		const u64 *one = cpus[0].cc[kind], *other = cpus[1].cc[kind];

		say("%s: cc 0 %u, cc 1 %u, cc 2 %u, cc 3 %u, exceptions %u\n", names[kind],
		    one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3],
		    cpus[0].exceptions[kind] + cpus[1].exceptions[kind]);
	}
	for (i = 0; i < count; i++) {
		if (!functions[i].ism)
			continue;
		say_blocks("stored", functions + i, cpus[0].stored + i, cpus[1].stored + i);
		say_blocks("refused", functions + i, cpus[0].refused + i, cpus[1].refused + i);
	}
	for (i = 0; i < ARRAY_SIZE(untouched); i++)
		wrong += untouched[i] != pattern(i);
	say("not allowed: %u outcomes\n", (u64)objections);
	say("written to, and must not be: %u doublewords\n", wrong);
	say("end\n");
	return 0;
}
