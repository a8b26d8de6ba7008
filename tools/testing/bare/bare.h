/* SPDX-License-Identifier: GPL-2.0 */
/* What a program without an operating system needs to use zPCI functions. */
#ifndef BARE_H
#define BARE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define __aligned(n) __attribute__((aligned(n)))
#define PAGE_SIZE 4096

void *memset(void *to, int value, u64 len);
void *memcpy(void *to, const void *from, u64 len);
int memcmp(const void *one, const void *other, u64 len);

/*
 * The console.
 */
void console_init(void);
/* %s, %u, %x (both u64) */
void say(const char *format, ...);

/*
 * Instructions of a function. The outcome is the condition code, the status code that comes with
 * condition code 1, or a program exception.
 */
struct outcome {
	u8 cc;
	u8 status;
	u16 exception;
};

struct outcome pcistb(u32 fh, u8 space, u64 offset, const void *data, u16 len);
struct outcome pcilg(u32 fh, u8 space, u64 offset, u64 *value, u8 len);
struct outcome pcistg(u32 fh, u8 space, u64 offset, u64 value, u8 len);
struct outcome stpcifc(u32 fh, void *block);
/* The same, and others, with anything in their registers. */
struct outcome raw_pcistb(u64 req, u64 offset, u64 address);
struct outcome raw_pcilg(u64 req, u64 offset, u64 *value);
struct outcome raw_pcistg(u64 req, u64 offset, u64 value);
struct outcome raw_mpcifc(u64 req, u64 address);
struct outcome raw_stpcifc(u64 req, u64 address);
struct outcome raw_rpcit(u64 req, u64 start, u64 len);
struct outcome raw_clp(u64 address);
void say_outcome(struct outcome outcome);

static inline int good(struct outcome outcome)
{
	return !outcome.cc && !outcome.exception;
}

#define CONFIG_SPACE 15

/* Store into configuration space, which is little endian. */
void config_write(u32 fh, u64 offset, u32 value, u8 len);

/*
 * Functions.
 */
struct function {
	u32 fid;
	u32 fh;
	u16 vendor;
	u16 device;
};

int list_functions(struct function *functions, int max);
/* The handle changes, and is void afterwards if this fails. */
int enable_function(u32 *fh);
int disable_function(u32 *fh);
int configure_function(u32 fid);
int deconfigure_function(u32 fid);

/* Puts a function that has no DMA into error, and out of it. */
int bad_refresh(u32 fh);
int reset_error(u32 fh);
/* The code of the event that is pending, which is then no longer, or 0. */
u16 event(void);

/* The first 8 MiB of memory, but not page 0, are at these addresses for the function. */
#define DMA_ADDRESS(p) (0x100000000ul + (u64)(p))
int enable_dma(u32 fh);
/* The segment of these pages becomes invalid for the function, and then a valid one that has others. */
int remap_dma(u32 fh, const void *at, const void *to, u64 len);
/* These pages become others for the function, without having been invalid. */
int change_dma(u32 fh, const void *at, const void *to, u64 len);
/* Interrupts, as bits in memory only: bit 0 of each is set. */
int enable_interrupts(u32 fh, u64 *bits, u64 *summary);

/*
 * Addresses are translated, or not. The first 8 MiB of memory are where they are, but for two pages.
 * Behind them there is nothing.
 */
#define NO_SEGMENT (9ul << 20)
#define NO_PAGE 0x7ff000ul
#define READ_ONLY_PAGE 0x7f0000ul
void translation(int on);

/* Microseconds since some time or other. */
u64 clock(void);

/* Has CPU 1 run a function, with a lowcore of its own. */
void start_second_cpu(void (*function)(void));

#endif
