/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The user stack of a sample: by tables (unwind.bpf.h), or by the kernel's own way, which follows the frame
 * pointers.
 */
#ifndef USER_STACK_BPF_H
#define USER_STACK_BPF_H

#include "unwind.bpf.h"

#define MAX_USER_FRAMES UNWIND_MAX_FRAMES

/* How the user stack came out; status in model.go is the same. */
enum user_status {
	USER_NONE,	     /* not asked for, or there is none */
	USER_FRAME_POINTERS, /* by frame pointers: what has none is missing, unnoticed */
	USER_DEPTH,	     /* cut at the greatest depth */
	USER_FAULT,	     /* could not be read */
	USER_COMPLETE,	     /* to the root */
	USER_GUESSED,	     /* to the root, in part by frame pointers that may be none */
	USER_NO_MAPPING,     /* cut where nothing is known to be mapped */
	USER_NO_TABLE,	     /* cut in a file that has no table, or whose table is not there yet */
	USER_NO_RULE,	     /* cut where the table has no rule */
	USER_BROKEN,	     /* cut where it went astray */
	USER_32BIT,	     /* of a 32-bit program */
};

/* Whether stacks are walked by tables. */
const volatile bool by_tables = false;

/* How many frames at most: the kernel gives no more than kernel.perf_event_max_stack. */
const volatile __u32 max_user_frames = 127;

static __always_inline __u8 user_status_of(enum unwind_status status)
{
	switch (status) {
	case UNWIND_COMPLETE: return USER_COMPLETE;
	case UNWIND_GUESSED: return USER_GUESSED;
	case UNWIND_DEPTH: return USER_DEPTH;
	case UNWIND_NO_MAPPING: return USER_NO_MAPPING;
	case UNWIND_NO_TABLE: return USER_NO_TABLE;
	case UNWIND_NO_RULE: return USER_NO_RULE;
	case UNWIND_FAULT: return USER_FAULT;
	default: return USER_BROKEN;
	}
}

/* The same by tables. mapped_ns is when what is mapped last changed, as far as it is known here. */
static __always_inline __u32 table_stack(struct bpf_perf_event_data *ctx, __u64 *frames,
					 __u32 limit, __u8 *status, __u64 *mapped_ns)
{
	struct unwind_walk *w = unwind_walk();
	struct user_registers regs = {};
	enum registers_found found;
	__u32 n;

	*status = USER_NONE;
	if (!w)
		return 0;
	found = user_registers(ctx, &regs);
	if (found == REGISTERS_32BIT)
		*status = USER_32BIT;
	if (found != REGISTERS_FOUND)
		return 0;
	unwind(w, &regs, current_pid(), limit);
	n = w->frames;
	if (n > MAX_USER_FRAMES)
		return 0;
	bpf_probe_read_kernel(frames, n * sizeof(*frames), w->frame);
	*status = user_status_of(w->status);
	*mapped_ns = w->changed_ns;
	return n;
}

/*
 * Writes the return addresses of the user stack to frames, the leaf first, and gives their number, at
 * most MAX_USER_FRAMES. A sample that interrupted the kernel has the user stack that the thread
 * entered the kernel with.
 */
static __always_inline __u32 user_stack(struct bpf_perf_event_data *ctx, __u64 *frames,
					__u8 *status, __u64 *mapped_ns)
{
	__u32 limit = max_user_frames > MAX_USER_FRAMES ? MAX_USER_FRAMES : max_user_frames;
	struct task_struct *task = (void *)bpf_get_current_task();
	long size;

	/*
	 * Within execve(2) the memory is that of the new program already, while the registers are still
	 * those of the old one: another function than the one that called would be named. The new memory
	 * has no start_code until all is in its place, which is some microseconds before the end.
	 */
	if (BPF_CORE_READ(task, mm, start_code) == 0) {
		*status = USER_NONE;
		return 0;
	}
	if (by_tables)
		return table_stack(ctx, frames, limit, status, mapped_ns);
	size = bpf_get_stack(ctx, frames, limit * sizeof(__u64), BPF_F_USER_STACK);
	if (size < 0) {
		*status = USER_FAULT;
		return 0;
	}
	if (size == 0) {
		*status = USER_NONE;
		return 0;
	}
	*status = (__u64)size >= limit * sizeof(__u64) ? USER_DEPTH : USER_FRAME_POINTERS;
	return size / sizeof(__u64);
}

#endif
