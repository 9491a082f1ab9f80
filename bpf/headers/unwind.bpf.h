/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * User stacks without frame pointers: the rules of internal/common/unwind, walked at the time of the
 * sample by tables in maps, which that package fills. What each of the rules means is told there.
 *
 * One frame is a step, and a step is a global function without arguments: the verifier goes through it
 * once, and not once for each frame of the deepest stack. All that a walk carries from step to step is
 * in memory for the same reason: what the verifier doesn't know, it can't tell apart.
 */
#ifndef UNWIND_BPF_H
#define UNWIND_BPF_H

#include "registers.bpf.h"

enum unwind_cfa {
	UNWIND_UNKNOWN,
	UNWIND_END,
	UNWIND_SP,
	UNWIND_FP,
	UNWIND_PLT,
	UNWIND_SP_DEREF,
	UNWIND_FP_DEREF,
	UNWIND_SIGNAL,
};

enum unwind_saved {
	UNWIND_SAME,
	UNWIND_AT_CFA,
	UNWIND_LOST,
	UNWIND_AT_FP,
};

#define UNWIND_ELSEWHERE 1 /* of flags */

enum unwind_status {
	UNWIND_COMPLETE,
	UNWIND_GUESSED,
	UNWIND_DEPTH,
	UNWIND_NO_MAPPING,
	UNWIND_NO_TABLE,
	UNWIND_NO_RULE,
	UNWIND_FAULT,
	UNWIND_BROKEN,
};

struct unwind_rule {
	__u8 cfa, fp, ra, flags; /* enum unwind_cfa, unwind_saved */
	__s32 offset, add;
	__s16 fp_offset, ra_offset; /* in units of 8 bytes */
};

#define UNWIND_RULES 16384 /* different ones, of all tables */
#define UNWIND_MAX_FRAMES 1024

/* Rows are in maps of 2 MiB each, 16 of them in a value: an array rounds the size of its values up to 8. */
#define UNWIND_BLOCK_SHIFT 4
#define UNWIND_BLOCK (1 << UNWIND_BLOCK_SHIFT)
#define UNWIND_SHARD_SHIFT 19
#define UNWIND_SHARD_BLOCKS (1 << (UNWIND_SHARD_SHIFT - UNWIND_BLOCK_SHIFT))
/* Small enough that the rows of most pages are in one or two lines of the CPU's cache. */
#define UNWIND_PAGE_SHIFT 10

struct unwind_block {
	__u16 low[UNWIND_BLOCK], rule[UNWIND_BLOCK];
};

/* Where the rows of a page of code are: all in one shard. */
struct unwind_page {
	__u32 row, rows;
};

/* Instead of the first page of a mapping that has no table: */
#define UNWIND_PENDING 0xffffffff   /* there will be one, perhaps */
#define UNWIND_NONE 0xfffffffe	    /* there is nothing to be had */
#define UNWIND_ANONYMOUS 0xfffffffd /* code that a runtime made */

/* Executable memory of a process. */
struct unwind_mapping {
	__u64 start, end, base; /* base is the address at which its table begins */
	__u32 page;		/* the number of its table's first page */
	__u32 pid;		/* whose mapping this is */
};

/* A process's mappings: those of these numbers, in the order of their addresses. */
struct unwind_process {
	__u32 mapping, mappings;
	__u64 changed_ns; /* the time of the last change that they are with */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(map_flags, BPF_F_MMAPABLE);
			__uint(max_entries, UNWIND_SHARD_BLOCKS);
			__uint(key_size, sizeof(__u32));
			__uint(value_size, sizeof(struct unwind_block));
		});
} unwind_shards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_page);
} unwind_pages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_rule);
} unwind_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_mapping);
} unwind_mappings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_process);
} unwind_processes SEC(".maps");

/* How far apart what a frame saves may be to be read at once, in units of 8 bytes. */
#define UNWIND_SAVED 8

/* A walk. One is enough for a CPU: the kernel runs no perf event program while another one runs. */
struct unwind_walk {
	struct user_registers regs;
	bool exact; /* the frame was interrupted, so that ip is not behind a call and lr is its own */
	bool any_sp; /* it is only known that the stack goes on above sp */
	bool guessed;
	bool pending; /* it ended where a table will be, perhaps */
	__u8 status;
	__u32 pid;
	__u32 frames, limit;
	__u32 first, end; /* the numbers of the process's mappings */
	__u64 changed_ns;
	/* The address that is looked for, the mapping that it or the one before was in, and another before. */
	__u64 pc;
	struct unwind_mapping in, before;
	/* Where a search for a mapping or a row stands; volatile, so that it is in memory indeed. */
	volatile __u32 low, high;
	__u64 saved[UNWIND_SAVED];
	__u64 frame[UNWIND_MAX_FRAMES]; /* the leaf, then return addresses */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_walk);
} unwind_walks SEC(".maps");

/* How far apart a frame pointer that is to be believed and the stack pointer may be. */
#define UNWIND_MAX_GUESS (1 << 20)

static __always_inline struct unwind_walk *unwind_walk(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&unwind_walks, &zero);
}

static __always_inline bool unwind_read(void *to, __u32 size, __u64 addr)
{
	return addr < USER_ADDRESSES && !bpf_probe_read_user(to, size, (void *)addr);
}

/* A return address without the signature (PAC) that arm64 may give it. */
static __always_inline __u64 unwind_unsigned(__u64 addr)
{
#if defined(__TARGET_ARCH_arm64)
	addr &= USER_ADDRESSES - 1;
#endif
	return addr;
}

/* Looks for the mapping that pc is in. Gives 0 if there is none. */
__noinline int unwind_find_mapping(void)
{
	struct unwind_walk *w = unwind_walk();
	struct unwind_mapping *m, last;
	__u32 key;

	if (!w)
		return 0;
	/* A program and a library that calls it back take turns. */
	last = w->in;
	if (w->pc >= w->before.start && w->pc < w->before.end) {
		w->in = w->before;
		w->before = last;
		return 1;
	}
	w->low = w->first;
	for (int bit = 16; bit >= 0; bit--) {
		key = w->low + (1 << bit);
		if (key >= w->end)
			continue;
		m = bpf_map_lookup_elem(&unwind_mappings, &key);
		if (!m)
			return 0;
		if (m->start <= w->pc)
			w->low = key;
	}
	key = w->low;
	if (key >= w->end)
		return 0;
	m = bpf_map_lookup_elem(&unwind_mappings, &key);
	/* The element of unwind_processes may have been another's by the time it was read. */
	if (!m || m->pid != w->pid || w->pc < m->start || w->pc >= m->end)
		return 0;
	w->before = last;
	w->in = *m;
	return 1;
}

/* Gives the number of the rule for pc, of the mapping that it is in; 0 is the one that knows nothing. */
__noinline int unwind_find_rule(void)
{
	struct unwind_walk *w = unwind_walk();
	__u32 key, shard, low;
	struct unwind_block *block;
	struct unwind_page *page;
	__u64 offset;
	void *rows;

	if (!w)
		return 0;
	offset = w->pc - w->in.base;
	low = offset & ((1 << UNWIND_PAGE_SHIFT) - 1);
	key = w->in.page + (offset >> UNWIND_PAGE_SHIFT);
	page = bpf_map_lookup_elem(&unwind_pages, &key);
	if (!page || !page->rows)
		return 0;
	w->low = page->row;
	w->high = page->row + page->rows;
	shard = page->row >> UNWIND_SHARD_SHIFT;
	rows = bpf_map_lookup_elem(&unwind_shards, &shard);
	if (!rows)
		return 0;
	for (int bit = UNWIND_PAGE_SHIFT; bit >= 0; bit--) {
		__u32 row = w->low + (1 << bit);

		if (row >= w->high)
			continue;
		key = row >> UNWIND_BLOCK_SHIFT & (UNWIND_SHARD_BLOCKS - 1);
		block = bpf_map_lookup_elem(rows, &key);
		if (!block)
			return 0;
		if (block->low[row & (UNWIND_BLOCK - 1)] <= low)
			w->low = row;
	}
	key = w->low >> UNWIND_BLOCK_SHIFT & (UNWIND_SHARD_BLOCKS - 1);
	block = bpf_map_lookup_elem(rows, &key);
	return block ? block->rule[w->low & (UNWIND_BLOCK - 1)] : 0;
}

static __always_inline int unwind_end(struct unwind_walk *w, enum unwind_status status)
{
	w->status = status == UNWIND_COMPLETE && w->guessed ? UNWIND_GUESSED : status;
	return 1;
}

/* Goes on to the frame that will be at ip; 0 is where threads begin. */
static __always_inline int unwind_go_on(struct unwind_walk *w, __u64 ip)
{
	if (!ip)
		return unwind_end(w, UNWIND_COMPLETE);
	if (ip >= USER_ADDRESSES)
		return unwind_end(w, UNWIND_BROKEN);
	if (w->frames >= w->limit)
		return unwind_end(w, UNWIND_DEPTH);
	w->regs.ip = ip;
	w->frame[w->frames & (UNWIND_MAX_FRAMES - 1)] = ip;
	w->frames++;
	return 0;
}

/*
 * The trampolines that CPython 3.12 and 3.13 make for each function, with -X perf, may keep no frame
 * pointer: `sub $8,%rsp; call *%rcx; add $8,%rsp; ret`. Gives how far away the base of such a frame is, or 0.
 */
static __always_inline int unwind_in_trampoline(struct unwind_walk *w)
{
#if defined(__TARGET_ARCH_x86)
	__u64 code[2] = {};

	if (!unwind_read(code, w->exact ? 11 : 5, w->regs.ip))
		return 0;
	if ((code[0] & 0xffffffffff) == 0xc308c48348)
		return 16;
	if ((code[0] & 0xffffffffffffff) == 0xc308c48348d1ff)
		return 16;
	if (code[0] == 0x8348d1ff08ec8348 && code[1] == 0xc308c4)
		return 8;
#endif
	return 0;
}

/* Whether a frame is in the page of x86's old system calls, which are emulated and have no frame. */
static __always_inline bool unwind_in_vsyscall(struct unwind_walk *w)
{
#if defined(__TARGET_ARCH_x86)
#define VSYSCALL_PAGE 0xffffffffff600000
	return w->exact && (w->regs.ip & ~0xfffULL) == VSYSCALL_PAGE;
#else
	return false;
#endif
}

/* A step out of a function without a frame, or with one of which only its size is known. */
static __always_inline int unwind_over(struct unwind_walk *w, int size)
{
	__u64 ip;

	if (!unwind_read(&ip, sizeof(ip), w->regs.sp + size - 8))
		return unwind_end(w, UNWIND_FAULT);
	w->regs.sp += size;
	w->exact = false;
	return unwind_go_on(w, ip);
}

/*
 * A step where there is no rule: by the frame pointer, if it may be one. why is what the walk ends with
 * if it is not.
 */
static __always_inline int unwind_guess(struct unwind_walk *w, enum unwind_status why)
{
	__u64 saved[2]; /* frame pointer, return address */

	if (w->regs.fp & 7 || w->regs.fp < w->regs.sp ||
	    w->regs.fp - w->regs.sp >= UNWIND_MAX_GUESS)
		return unwind_end(w, why);
	if (!unwind_read(saved, sizeof(saved), w->regs.fp))
		return unwind_end(w, UNWIND_FAULT);
	saved[1] = unwind_unsigned(saved[1]);
	if (saved[1]) {
		w->pc = saved[1] - 1;
		if (!unwind_find_mapping())
			return unwind_end(w, why);
	}
	w->guessed = true;
	w->regs.sp = w->regs.fp + 16;
	w->regs.fp = saved[0];
	w->exact = false;
#if defined(__TARGET_ARCH_arm64)
	w->any_sp = true; /* what a frame pointer points to may be anywhere in a frame */
#endif
	return unwind_go_on(w, saved[1]);
}

/* A step out of a signal's frame: the registers of what it interrupted are on the stack. */
static __always_inline int unwind_out_of_signal(struct unwind_walk *w, __u64 context)
{
#if defined(__TARGET_ARCH_x86)
	__u64 regs[17]; /* r8 to r15, di, si, bp, bx, dx, ax, cx, sp, ip */
	const int fp = 10, sp = 15, ip = 16;
#elif defined(__TARGET_ARCH_arm64)
	__u64 regs[33]; /* x0 to x30, sp, pc */
	const int fp = 29, sp = 31, ip = 32;
#endif

	if (!unwind_read(regs, sizeof(regs), context))
		return unwind_end(w, UNWIND_FAULT);
	w->regs.sp = regs[sp];
	w->regs.fp = regs[fp];
#if defined(__TARGET_ARCH_arm64)
	w->regs.lr = regs[30];
#endif
	w->exact = true;
	w->any_sp = false;
	return unwind_go_on(w, unwind_unsigned(regs[ip]));
}

/* Goes from a frame to its caller's. Gives 1 at the end, and why it is one in status. */
__noinline int unwind_step(void)
{
	struct unwind_walk *w = unwind_walk();
	__u64 cfa, ip, fp, apart, add = 0;
	struct unwind_rule *rule;
	bool deref = false, elsewhere;
	__u32 key;

	if (!w)
		return 1;
	w->pc = w->exact && !w->regs.in_syscall ? w->regs.ip : w->regs.ip - 1;
	w->regs.in_syscall = 0;
	if ((w->pc < w->in.start || w->pc >= w->in.end) && !unwind_find_mapping())
		return unwind_in_vsyscall(w) ? unwind_over(w, 8) : unwind_end(w, UNWIND_NO_MAPPING);
	if (w->in.page == UNWIND_PENDING) {
		w->pending = true;
		return unwind_end(w, UNWIND_NO_TABLE);
	}
	if (w->in.page >= UNWIND_ANONYMOUS) {
		int size = w->in.page == UNWIND_ANONYMOUS ? unwind_in_trampoline(w) : 0;

		return size ? unwind_over(w, size) : unwind_guess(w, UNWIND_NO_TABLE);
	}
	key = unwind_find_rule();
	rule = bpf_map_lookup_elem(&unwind_rules, &key);
	if (!rule || rule->cfa == UNWIND_UNKNOWN)
		return unwind_guess(w, UNWIND_NO_RULE);
	if (rule->cfa == UNWIND_END || (rule->ra == UNWIND_LOST && rule->cfa != UNWIND_SIGNAL))
		return unwind_end(w, UNWIND_COMPLETE);
	if (w->any_sp && rule->cfa != UNWIND_FP && rule->cfa != UNWIND_FP_DEREF)
		return unwind_guess(w, UNWIND_NO_RULE);
	switch (rule->cfa) {
	case UNWIND_SIGNAL: return unwind_out_of_signal(w, w->regs.sp + rule->offset);
	case UNWIND_SP_DEREF:
		deref = true;
		/* fallthrough */
	case UNWIND_SP: cfa = w->regs.sp; break;
	case UNWIND_PLT:
		cfa = w->regs.sp;
		if ((w->pc & 15) >= (__u32)rule->add)
			add = 8;
		break;
	case UNWIND_FP_DEREF:
		deref = true;
		/* fallthrough */
	case UNWIND_FP: cfa = w->regs.fp; break;
	default: return unwind_end(w, UNWIND_NO_RULE);
	}
	cfa += rule->offset + add;
	if (deref) {
		if (!unwind_read(&cfa, sizeof(cfa), cfa))
			return unwind_end(w, UNWIND_FAULT);
		cfa += rule->add;
	}
	/*
	 * A leaf of arm64 may have nothing on the stack. A function that goes to another stack says so, or has a
	 * rule that reads where it was before.
	 */
	elsewhere = deref || rule->flags & UNWIND_ELSEWHERE;
	if (!elsewhere && (cfa < w->regs.sp || (cfa == w->regs.sp && rule->ra != UNWIND_SAME)))
		return unwind_end(w, UNWIND_BROKEN);
	fp = w->regs.fp;
	apart = rule->ra_offset - rule->fp_offset;
	if (rule->ra == UNWIND_AT_CFA && rule->fp == UNWIND_AT_CFA && apart < UNWIND_SAVED) {
		/* All between the two, as each read takes its time, however small it is. */
		apart &= UNWIND_SAVED - 1;
		if (!unwind_read(w->saved, (apart + 1) * 8, cfa + 8 * rule->fp_offset))
			return unwind_end(w, UNWIND_FAULT);
		fp = w->saved[0];
		ip = w->saved[apart];
	} else {
		if (rule->ra == UNWIND_AT_CFA) {
			if (!unwind_read(&ip, sizeof(ip), cfa + 8 * rule->ra_offset))
				return unwind_end(w, UNWIND_FAULT);
		} else if (w->exact) {
			ip = w->regs.lr;
		} else {
			/* The link register is the callee's by now. */
			return unwind_end(w, UNWIND_NO_RULE);
		}
		if (rule->fp == UNWIND_AT_CFA) {
			if (!unwind_read(&fp, sizeof(fp), cfa + 8 * rule->fp_offset))
				return unwind_end(w, UNWIND_FAULT);
		} else if (rule->fp == UNWIND_AT_FP) {
			if (!unwind_read(&fp, sizeof(fp), w->regs.fp + 8 * rule->fp_offset))
				return unwind_end(w, UNWIND_FAULT);
		} else if (rule->fp == UNWIND_LOST) {
			fp = 0;
		}
	}
	w->regs.sp = cfa;
	w->regs.fp = fp;
	w->exact = w->any_sp = false;
	return unwind_go_on(w, unwind_unsigned(ip));
}

/* In two loops, as the verifier goes through each of them round by round. */
#define UNWIND_STEPS 32

__noinline int unwind_steps(void)
{
	for (int i = 0; i < UNWIND_STEPS; i++) {
		if (unwind_step())
			return 1;
	}
	return 0;
}

/* Walks the stack of the current thread, which is of the process pid, from its registers on. */
static __always_inline void unwind(struct unwind_walk *w, const struct user_registers *regs,
				   __u32 pid, __u32 limit)
{
	struct unwind_process *process;

	w->regs = *regs;
	w->exact = true;
	w->any_sp = false;
	w->frame[0] = w->regs.ip;
	w->frames = 1;
	w->limit = limit;
	w->guessed = w->pending = false;
	w->changed_ns = 0;
	w->status = UNWIND_NO_MAPPING;
	w->in.start = w->in.end = w->before.start = w->before.end = 0;
	process = bpf_map_lookup_elem(&unwind_processes, &pid);
	if (!process)
		return;
	w->pid = pid;
	w->first = process->mapping;
	w->end = process->mapping + process->mappings;
	w->changed_ns = process->changed_ns;
	for (int i = 0; i < UNWIND_MAX_FRAMES / UNWIND_STEPS; i++) {
		if (unwind_steps())
			break;
	}
}

#endif
