// SPDX-License-Identifier: GPL-2.0
/* Console, instructions and functions for programs without an operating system. */
#include "bare.h"

/* Where head.S notes the code of an exception: in lowcore, as each CPU has its own. */
static volatile u32 *const noted = (u32 *)0x1408;

void *memset(void *to, int value, u64 len)
{
	u8 *byte = to;

	while (len--)
		*byte++ = value;
	return to;
}

void *memcpy(void *to, const void *from, u64 len)
{
	u8 *byte = to;
	const u8 *source = from;

	while (len--)
		*byte++ = *source++;
	return to;
}

int memcmp(const void *one, const void *other, u64 len)
{
	const u8 *a = one, *b = other;

	for (; len--; a++, b++)
		if (*a != *b)
			return *a - *b;
	return 0;
}

/* The console takes lines, as event data of SCLP. */
static u8 sccb[PAGE_SIZE] __aligned(PAGE_SIZE);
static char line[240];
static u32 line_len;

static void service_call(u32 command)
{
	asm volatile(".insn	rre,0xb2200000,%[command],%[sccb]"
		     :: [command] "d" (command), [sccb] "a" (sccb) : "cc", "memory");
}

void console_init(void)
{
	memset(sccb, 0, sizeof(sccb));
	*(u16 *)sccb = 28;
	*(u16 *)(sccb + 10) = 4;		/* length of the masks */
	*(u32 *)(sccb + 16) = 0x40000040;	/* send: VT220 and operator's messages */
	service_call(0x00780005);
}

static void put(char c)
{
	if (line_len < sizeof(line) - 2)
		line[line_len++] = c;
	if (c != '\n')
		return;

	line[line_len - 1] = '\r';
	line[line_len++] = '\n';
	memset(sccb, 0, 64);
	*(u16 *)sccb = 14 + line_len;
	*(u16 *)(sccb + 8) = 6 + line_len;
	sccb[10] = 0x1a;			/* VT220 */
	memcpy(sccb + 14, line, line_len);
	service_call(0x00760005);
	line_len = 0;
}

static void put_number(u64 value, int base)
{
	char digits[24];
	int count = 0;

	do
		digits[count++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (count)
		put(digits[--count]);
}

void say(const char *format, ...)
{
	__builtin_va_list args;
	const char *text;

	__builtin_va_start(args, format);
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		switch (*++format) {
		case 's':
			for (text = __builtin_va_arg(args, const char *); *text; text++)
				put(*text);
			break;
		case 'u':
			put_number(__builtin_va_arg(args, u64), 10);
			break;
		case 'x':
			put_number(__builtin_va_arg(args, u64), 16);
			break;
		}
	}
	__builtin_va_end(args);
}

static u64 request(u32 fh, u8 space, u16 len)
{
	return (u64)fh << 32 | (u64)space << 16 | len;
}

static struct outcome outcome_of(int cc, u64 request)
{
	return (struct outcome) {
		.cc = cc,
		.status = cc == 1 ? request >> 24 & 0xff : 0,
		.exception = *noted,
	};
}

void say_outcome(struct outcome outcome)
{
	if (outcome.exception)
		say("exception 0x%x\n", (u64)outcome.exception);
	else if (outcome.cc == 1)
		say("cc 1 status %u\n", (u64)outcome.status);
	else
		say("cc %u\n", (u64)outcome.cc);
}

struct outcome raw_pcistb(u64 req, u64 offset, u64 address)
{
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rsy,0xeb00000000d0,%[req],%[offset],0(%[address])\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [req] "+d" (req)
		: [offset] "d" (offset), [address] "a" (address) : "cc", "memory");
	return outcome_of(cc, req);
}

struct outcome raw_pcilg(u64 req, u64 offset, u64 *value)
{
	register u64 pair asm("2") = req;
	register u64 off asm("3") = offset;
	u64 loaded = 0xdeadbeefdeadbeef;
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rre,0xb9d20000,%[value],%[req]\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [value] "+d" (loaded), [req] "+d" (pair), "+d" (off)
		:: "cc", "memory");
	*value = loaded;
	return outcome_of(cc, pair);
}

struct outcome raw_pcistg(u64 req, u64 offset, u64 value)
{
	register u64 pair asm("2") = req;
	register u64 off asm("3") = offset;
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rre,0xb9d00000,%[value],%[req]\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [req] "+d" (pair), "+d" (off)
		: [value] "d" (value) : "cc", "memory");
	return outcome_of(cc, pair);
}

struct outcome raw_mpcifc(u64 req, u64 address)
{
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rxy,0xe300000000d0,%[req],0(%[address])\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [req] "+d" (req) : [address] "a" (address) : "cc", "memory");
	return outcome_of(cc, req);
}

struct outcome raw_stpcifc(u64 req, u64 address)
{
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rxy,0xe300000000d4,%[req],0(%[address])\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [req] "+d" (req) : [address] "a" (address) : "cc", "memory");
	return outcome_of(cc, req);
}

struct outcome raw_rpcit(u64 req, u64 start, u64 len)
{
	register u64 pair asm("2") = start;
	register u64 size asm("3") = len;
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rre,0xb9d30000,%[req],%[start]\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [req] "+d" (req), [start] "+d" (pair), "+d" (size)
		:: "cc", "memory");
	return outcome_of(cc, req);
}

struct outcome raw_clp(u64 address)
{
	u64 none = 0;
	int cc;

	*noted = 0;
	asm volatile(
		"	.insn	rrf,0xb9a00000,%[none],%[address],0,2\n"
		"	ipm	%[cc]\n"
		"	srl	%[cc],28"
		: [cc] "=d" (cc), [none] "+d" (none) : [address] "a" (address) : "cc", "memory");
	return outcome_of(cc, 0);
}

struct outcome pcistb(u32 fh, u8 space, u64 offset, const void *data, u16 len)
{
	return raw_pcistb(request(fh, space, len), offset, (u64)data);
}

struct outcome pcilg(u32 fh, u8 space, u64 offset, u64 *value, u8 len)
{
	return raw_pcilg(request(fh, space, len), offset, value);
}

struct outcome pcistg(u32 fh, u8 space, u64 offset, u64 value, u8 len)
{
	return raw_pcistg(request(fh, space, len), offset, value);
}

struct outcome stpcifc(u32 fh, void *block)
{
	return raw_stpcifc((u64)fh << 32, (u64)block);
}

void config_write(u32 fh, u64 offset, u32 value, u8 len)
{
	pcistg(fh, CONFIG_SPACE, offset, len == 2 ? __builtin_bswap16(value) :
	       __builtin_bswap32(value), len);
}

/* CALL LOGICAL PROCESSOR: a request of 32 bytes, and the response behind it. */
static u8 clp_request[PAGE_SIZE] __aligned(PAGE_SIZE);
static u8 *const clp_response = clp_request + 32;

#define CLP_OK 0x10

static int clp(u16 command, u16 response_len)
{
	*(u16 *)clp_request = 32;
	*(u16 *)(clp_request + 2) = command;
	*(u16 *)clp_response = response_len;
	raw_clp((u64)clp_request);
	return *(u16 *)(clp_response + 2) == CLP_OK;
}

int list_functions(struct function *functions, int max)
{
	int count = 0;
	u8 *entry;

	memset(clp_request, 0, sizeof(clp_request));
	if (!clp(2, sizeof(clp_request) - 32))
		return 0;
	for (entry = clp_response + 32;
	     entry < clp_response + *(u16 *)clp_response && count < max; entry += 16)
		functions[count++] = (struct function) {
			.device = *(u16 *)entry,
			.vendor = *(u16 *)(entry + 2),
			.fid = *(u32 *)(entry + 8),
			.fh = *(u32 *)(entry + 12),
		};
	return count;
}

static int set_function(u32 *fh, u8 operation)
{
	memset(clp_request, 0, sizeof(clp_request));
	*(u32 *)(clp_request + 16) = *fh;
	clp_request[22] = operation;
	clp_request[23] = !operation;		/* one DMA address space */
	if (!clp(5, 32))
		return 0;
	*fh = *(u32 *)(clp_response + 16);
	return 1;
}

int enable_function(u32 *fh)
{
	return set_function(fh, 0);
}

int disable_function(u32 *fh)
{
	return set_function(fh, 1);
}

/* The support element knows the function by its id, and tells no handle. */
static int configuration(u32 fid, u32 command)
{
	memset(sccb, 0, 16);
	*(u16 *)sccb = 16;
	sccb[8] = 2;				/* a PCI function */
	*(u32 *)(sccb + 12) = fid;
	service_call(command);
	return *(u16 *)(sccb + 6) == 0x20;
}

int configure_function(u32 fid)
{
	return configuration(fid, 0x001a0001);
}

int deconfigure_function(u32 fid)
{
	return configuration(fid, 0x001b0001);
}

/* Function information block of MODIFY PCI FUNCTION CONTROLS */
static u8 fib[72] __aligned(8);

static int modify(u32 fh, u8 operation)
{
	return good(raw_mpcifc((u64)fh << 32 | operation, (u64)fib));
}

/* REFRESH PCI TRANSLATIONS */
static int refresh(u32 fh, u64 address, u64 len)
{
	return good(raw_rpcit((u64)fh << 32, address, len));
}

int bad_refresh(u32 fh)
{
	return !refresh(fh, 0, PAGE_SIZE);
}

int reset_error(u32 fh)
{
	memset(fib, 0, sizeof(fib));
	return modify(fh, 7);
}

u16 event(void)
{
	/* CHANNEL SUBSYSTEM CALL, store event information: a request, and the response behind it. */
	static u8 block[PAGE_SIZE] __aligned(PAGE_SIZE);
	u8 *const response = block + 16, *const content = response + 64;

	memset(block, 0, sizeof(block));
	*(u16 *)block = 16;
	*(u16 *)(block + 2) = 0xe;
	*(u64 *)(block + 8) = 1ul << 61;	/* of PCI functions */
	asm volatile(".insn	rre,0xb25f0000,%[block],0" :: [block] "a" (block) : "cc", "memory");
	return *(u16 *)(response + 2) == 1 ? *(u16 *)(content + 30) : 0;
}

#define MAPPED (8ul << 20)
/* A VMM lets it be no larger than what it has room for. */
#define APERTURE (16ul << 20)
#define INVALID 0x20

/* The same for all functions: region, segment and page tables. */
static struct {
	u64 regions[2048];
	u64 segments[2048];
	u64 pages[8][256];
	u64 other_pages[256];
} dma __aligned(16384);

int enable_dma(u32 fh)
{
	const u64 protect = 0x400;
	u64 i, j;

	/* Once: another CPU may have them read for another function. */
	if (!dma.segments[0]) {
		for (i = 0; i < 2048; i++)
			dma.regions[i] = dma.segments[i] = INVALID;
		dma.regions[DMA_ADDRESS(0) >> 31] = (u64)dma.segments | 7;
		for (i = 0; i < ARRAY_SIZE(dma.pages); i++) {
			dma.segments[i] = (u64)dma.pages[i];
			for (j = 0; j < 256; j++)
				dma.pages[i][j] = i << 20 | j << 12;
		}
		dma.pages[0][0] |= protect;
	}

	memset(fib, 0, sizeof(fib));
	*(u64 *)(fib + 16) = DMA_ADDRESS(0);
	*(u64 *)(fib + 24) = DMA_ADDRESS(APERTURE) - 1;
	*(u64 *)(fib + 32) = (u64)dma.regions | 0x800 | 1 << 2;
	return modify(fh, 4) && refresh(fh, DMA_ADDRESS(0), MAPPED);
}

int remap_dma(u32 fh, const void *at, const void *to, u64 len)
{
	const u64 address = (u64)at, i = address >> 20, segment = DMA_ADDRESS(i << 20);
	u64 page;
	int done;

	dma.segments[i] = INVALID;
	done = refresh(fh, segment, 1 << 20);
	memcpy(dma.other_pages, dma.pages[i], sizeof(dma.other_pages));
	for (page = 0; page < len; page += PAGE_SIZE)
		dma.other_pages[(address + page) >> 12 & 0xff] = (u64)to + page;
	dma.segments[i] = (u64)dma.other_pages;
	return refresh(fh, segment, 1 << 20) && done;
}

int change_dma(u32 fh, const void *at, const void *to, u64 len)
{
	const u64 address = (u64)at;
	u64 *const pages = (u64 *)dma.segments[address >> 20];
	u64 page;

	for (page = 0; page < len; page += PAGE_SIZE)
		pages[(address + page) >> 12 & 0xff] = (u64)to + page;
	return refresh(fh, DMA_ADDRESS(address), len);
}

int enable_interrupts(u32 fh, u64 *bits, u64 *summary)
{
	memset(fib, 0, sizeof(fib));
	*(u32 *)(fib + 40) = 1 << 28 | 1 << 16 | 1 << 7;	/* class 1, one, with summary */
	*(u64 *)(fib + 48) = (u64)bits;
	*(u64 *)(fib + 56) = (u64)summary;
	return modify(fh, 2);
}

void translation(int on)
{
	static struct {
		u64 segments[2048];
		u64 pages[8][256];
	} tables __aligned(16384);
	const u64 invalid = 0x20, page_invalid = 0x400, page_protected = 0x200;
	u64 space = (u64)tables.segments | 3, i, j;
	u8 mask;

	/* Once: another CPU may use them. */
	if (!tables.segments[0]) {
		for (i = 0; i < ARRAY_SIZE(tables.segments); i++)
			tables.segments[i] = invalid;
		for (i = 0; i < ARRAY_SIZE(tables.pages); i++) {
			tables.segments[i] = (u64)tables.pages[i];
			for (j = 0; j < 256; j++)
				tables.pages[i][j] = i << 20 | j << 12;
		}
		tables.pages[7][NO_PAGE >> 12 & 0xff] |= page_invalid;
		tables.pages[7][READ_ONLY_PAGE >> 12 & 0xff] |= page_protected;
	}

	if (on)
		asm volatile(
			"	lctlg	%%c1,%%c1,%[space]\n"
			"	stosm	%[mask],4"
			: [mask] "=Q" (mask) : [space] "Q" (space), "m" (tables) : "memory");
	else
		asm volatile("stnsm %[mask],0xfb" : [mask] "=Q" (mask) :: "memory");
}

u64 clock(void)
{
	u64 now;

	asm volatile("stck %[now]" : [now] "=Q" (now) :: "cc", "memory");
	return now >> 12;
}

extern void (*second_cpu)(void);

void start_second_cpu(void (*function)(void))
{
	const u64 restart = 6;
	register u64 status asm("0") = 0;
	int cc;

	second_cpu = function;
	do
		asm volatile(
			"	sigp	%[status],%[address],0(%[order])\n"
			"	ipm	%[cc]\n"
			"	srl	%[cc],28"
			: [cc] "=d" (cc), [status] "+d" (status)
			: [address] "d" (1ul), [order] "a" (restart) : "cc", "memory");
	while (cc == 2);
}
