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

#include "syscall.bpf.h"

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
};

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
#define UNWIND_PAGE_SHIFT 12

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

/* A walk. One is enough for a CPU: the kernel runs no perf event program while another one runs. */
struct unwind_walk {
	__u64 ip, sp, fp, lr;
	bool exact; /* ip is of an instruction that was to be executed, and not behind a call */
	bool leaf;  /* the frame is one that was interrupted, so that lr is its own */
	bool guessed;
	__u8 status;
	__u32 pid;
	__u32 frames, limit;
	__u32 first, end; /* the numbers of the process's mappings */
	__u64 changed_ns;
	/* The address that is looked for, and the mapping that it or the one before was in. */
	__u64 pc;
	struct unwind_mapping in;
	/* Where a search for a mapping or a row stands; volatile, so that it is in memory indeed. */
	volatile __u32 low, high;
	__u64 frame[UNWIND_MAX_FRAMES]; /* the leaf, then return addresses */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_walk);
} unwind_walks SEC(".maps");

/*
 * The end of what user space has. Nothing is read above: a read of the vsyscall page by a program on a
 * perf event has hung 6.1 kernels.
 */
#if defined(__TARGET_ARCH_x86)
#define UNWIND_ADDRESSES (1ULL << 47)
#elif defined(__TARGET_ARCH_arm64)
#define UNWIND_ADDRESSES (1ULL << 48)
#endif

/* How far apart a frame pointer that is to be believed and the stack pointer may be. */
#define UNWIND_MAX_GUESS (1 << 20)

static __always_inline struct unwind_walk *unwind_walk(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&unwind_walks, &zero);
}

static __always_inline bool unwind_read(void *to, __u32 size, __u64 addr)
{
	return addr < UNWIND_ADDRESSES && !bpf_probe_read_user(to, size, (void *)addr);
}

/* Looks for the mapping that pc is in. Gives 0 if there is none. */
__noinline int unwind_find_mapping(void)
{
	struct unwind_walk *w = unwind_walk();
	struct unwind_mapping *m;
	__u32 key;

	if (!w)
		return 0;
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
	if (ip >= UNWIND_ADDRESSES)
		return unwind_end(w, UNWIND_BROKEN);
	if (w->frames >= w->limit)
		return unwind_end(w, UNWIND_DEPTH);
	w->ip = ip;
	w->frame[w->frames & (UNWIND_MAX_FRAMES - 1)] = ip;
	w->frames++;
	return 0;
}

#if defined(__TARGET_ARCH_x86)
/*
 * The trampolines that CPython 3.12 and 3.13 make for each function, with -X perf, keep no frame pointer:
 * behind the call is `add $8,%rsp; ret`.
 */
static __always_inline bool unwind_in_trampoline(struct unwind_walk *w)
{
	__u64 code = 0;

	return !w->exact && unwind_read(&code, 5, w->ip) && code == 0xc308c48348;
}
#endif

/*
 * A step where there is no rule: by the frame pointer, if it may be one. why is what the walk ends with
 * if it is not.
 */
static __always_inline int unwind_guess(struct unwind_walk *w, enum unwind_status why)
{
	__u64 saved[2]; /* frame pointer, return address */

#if defined(__TARGET_ARCH_x86)
	if (w->in.page == UNWIND_ANONYMOUS && unwind_in_trampoline(w)) {
		if (!unwind_read(&saved[1], 8, w->sp + 8))
			return unwind_end(w, UNWIND_FAULT);
		w->sp += 16;
		return unwind_go_on(w, saved[1]);
	}
#endif
	if (w->fp & 7 || w->fp < w->sp || w->fp - w->sp >= UNWIND_MAX_GUESS ||
	    !unwind_read(saved, sizeof(saved), w->fp))
		return unwind_end(w, why);
#if defined(__TARGET_ARCH_arm64)
	saved[1] &= UNWIND_ADDRESSES - 1; /* without the signature (PAC) */
#endif
	if (saved[1]) {
		w->pc = saved[1] - 1;
		if (!unwind_find_mapping())
			return unwind_end(w, why);
	}
	w->guessed = true;
	w->sp = w->fp + 16;
	w->fp = saved[0];
	w->exact = w->leaf = false;
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
	w->sp = regs[sp];
	w->fp = regs[fp];
#if defined(__TARGET_ARCH_arm64)
	w->lr = regs[30];
#endif
	w->exact = w->leaf = true;
	return unwind_go_on(w, regs[ip]);
}

/* Goes from a frame to its caller's. Gives 1 at the end, and why it is one in status. */
__noinline int unwind_step(void)
{
	struct unwind_walk *w = unwind_walk();
	__u64 cfa, ip, fp, add = 0;
	struct unwind_rule *rule;
	bool deref = false;
	__u32 key;

	if (!w)
		return 1;
	w->pc = w->exact ? w->ip : w->ip - 1;
	if ((w->pc < w->in.start || w->pc >= w->in.end) && !unwind_find_mapping())
		return unwind_end(w, UNWIND_NO_MAPPING);
	if (w->in.page == UNWIND_PENDING)
		return unwind_end(w, UNWIND_NO_TABLE);
	if (w->in.page >= UNWIND_ANONYMOUS)
		return unwind_guess(w, UNWIND_NO_TABLE);
	key = unwind_find_rule();
	rule = bpf_map_lookup_elem(&unwind_rules, &key);
	if (!rule)
		return unwind_end(w, UNWIND_NO_RULE);
	switch (rule->cfa) {
	case UNWIND_END: return unwind_end(w, UNWIND_COMPLETE);
	case UNWIND_SIGNAL: return unwind_out_of_signal(w, w->sp + rule->offset);
	case UNWIND_SP_DEREF:
		deref = true;
		/* fallthrough */
	case UNWIND_SP: cfa = w->sp; break;
	case UNWIND_PLT:
		cfa = w->sp;
		if ((w->pc & 15) >= (__u32)rule->add)
			add = 8;
		break;
	case UNWIND_FP_DEREF:
		deref = true;
		/* fallthrough */
	case UNWIND_FP: cfa = w->fp; break;
	default: return unwind_guess(w, UNWIND_NO_RULE);
	}
	cfa += rule->offset + add;
	if (deref) {
		if (!unwind_read(&cfa, sizeof(cfa), cfa))
			return unwind_end(w, UNWIND_FAULT);
		cfa += rule->add;
	}
	if (rule->ra == UNWIND_AT_CFA) {
		if (!unwind_read(&ip, sizeof(ip), cfa + 8 * rule->ra_offset))
			return unwind_end(w, UNWIND_FAULT);
	} else if (rule->ra == UNWIND_SAME && w->leaf) {
		ip = w->lr;
	} else {
		return unwind_end(w, UNWIND_NO_RULE);
	}
	fp = w->fp;
	if (rule->fp == UNWIND_AT_CFA) {
		if (!unwind_read(&fp, sizeof(fp), cfa + 8 * rule->fp_offset))
			return unwind_end(w, UNWIND_FAULT);
	} else if (rule->fp == UNWIND_LOST) {
		fp = 0;
	}
#if defined(__TARGET_ARCH_arm64)
	ip &= UNWIND_ADDRESSES - 1; /* without the signature (PAC) */
#endif
	/* A function that moves to another stack says so by a rule that reads where it is. */
	if (!deref && (cfa < w->sp || (cfa == w->sp && rule->ra == UNWIND_AT_CFA)))
		return unwind_end(w, UNWIND_BROKEN);
	w->sp = cfa;
	w->fp = fp;
	w->exact = w->leaf = false;
	return unwind_go_on(w, ip);
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

enum unwind_begun {
	UNWIND_BEGUN,
	UNWIND_NO_REGISTERS, /* there is no user space, or its registers are not to be had */
	UNWIND_32BIT,	     /* whose stacks have other rules */
};

/*
 * Takes the registers that user space was left with: those of the sample, or if that interrupted the
 * kernel those that the thread came in with.
 */
static __always_inline enum unwind_begun unwind_registers(struct bpf_perf_event_data *ctx,
							  struct unwind_walk *w)
{
	const volatile struct bpf_perf_event_data *now = ctx;

	w->exact = w->leaf = true;
#if defined(__TARGET_ARCH_x86)
#define USER32_CS 0x23
	__u64 cs = now->regs.cs;

	if (cs & 3) {
		w->ip = now->regs.ip;
		w->sp = now->regs.sp;
		w->fp = now->regs.bp;
	} else {
		const struct pt_regs *regs = current_regs();

		cs = BPF_CORE_READ(regs, cs);
		w->ip = BPF_CORE_READ(regs, ip);
		w->sp = BPF_CORE_READ(regs, sp);
		w->fp = BPF_CORE_READ(regs, bp);
		/* In a system call it is behind that, where another function may begin. */
		w->exact = (__s64)BPF_CORE_READ(regs, orig_ax) == -1;
	}
	if (!(cs & 3))
		return UNWIND_NO_REGISTERS;
	if ((__u16)cs == USER32_CS)
		return UNWIND_32BIT;
#elif defined(__TARGET_ARCH_arm64)
#define PSR_MODE_MASK 0xf
#define PSR_MODE32_BIT 0x10
	__u64 state = now->regs.pstate;

	if (!(state & PSR_MODE_MASK)) {
		w->ip = now->regs.pc;
		w->sp = now->regs.sp;
		w->fp = now->regs.regs[29];
		w->lr = now->regs.regs[30];
	} else {
		const struct pt_regs *regs = current_regs();

		state = BPF_CORE_READ(regs, pstate);
		w->ip = BPF_CORE_READ(regs, pc);
		w->sp = BPF_CORE_READ(regs, sp);
		w->fp = BPF_CORE_READ(regs, regs[29]);
		w->lr = BPF_CORE_READ(regs, regs[30]);
	}
	if (state & PSR_MODE_MASK || !w->ip)
		return UNWIND_NO_REGISTERS;
	if (state & PSR_MODE32_BIT)
		return UNWIND_32BIT;
#endif
	return UNWIND_BEGUN;
}

/* Walks the stack of the current thread of the process pid from the registers in w on. */
static __always_inline void unwind(struct unwind_walk *w, __u32 pid, __u32 limit)
{
	struct unwind_process *process;

	w->frame[0] = w->ip;
	w->frames = 1;
	w->limit = limit;
	w->guessed = false;
	w->status = UNWIND_NO_MAPPING;
	w->changed_ns = 0;
	w->in.start = w->in.end = 0;
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
