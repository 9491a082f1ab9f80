/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The user stack of a sample: walked by tables; by the kernel's own way, which follows the frame pointers; or
 * as a copy, with the registers, that is walked in user space.
 */
#ifndef USER_STACK_BPF_H
#define USER_STACK_BPF_H

#include "registers.bpf.h"
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
	USER_32BIT,	     /* of a 32-bit program: by frame pointers */
	USER_LEAF,	     /* no more was asked for */
	USER_BUDGET,	     /* by frame pointers, as more copies were made than may be */
	USER_COPY_END,	     /* cut at the end of what was copied */
	USER_COPIED,	     /* to be walked in user space: not there any more in what is shown */
};

/*
 * Whether stacks are walked by tables; whether they are copied: those where that failed, or all; and whether
 * no more than the leaf is wanted.
 */
const volatile bool by_tables = false;
const volatile bool copy_stacks = false;
const volatile bool leaf_only = false;
/* For a test: with copy_stacks, all are walked by tables and copied as well. */
const volatile bool walk_and_copy = false;

/* How many bytes of a stack are copied, and how many may be in about a second (2^30 ns), of all CPUs. */
const volatile __u32 copy_size = 16 * 1024;
const volatile __u64 copy_budget = 8 * 1024 * 1024;

/* How many frames at most: the kernel's own way gives no more than kernel.perf_event_max_stack. */
const volatile __u32 max_user_frames = 127;
const volatile __u32 max_table_frames = 256;

#define MAX_COPY_SIZE (64 * 1024)
#define COPY_STEP 4096

/*
 * What a record with a copy has behind the kernel's frames. So many bytes of the stack follow, and so many
 * of the stack that a signal interrupted whose handler has a stack of its own.
 */
struct copy {
	struct user_registers regs;
	__u64 start, interrupted_start; /* the addresses of the first bytes */
	__u32 size, interrupted_size;
	/* A bit for each page that could not be read, of all that start and size are in parts of, lowest first. */
	__u32 holes, interrupted_holes;
};

/* What is below the stack pointer, too: behind the pops at the end of a function, its rules are of there. */
#define RED_ZONE 128

/* A record with a copy, while it is put together. */
struct copy_record {
	/* Where the next step is to read from and to write to, and how much is left. */
	__u64 from;
	__u32 at, left;
	__u32 step, failed; /* how many there were, and in a row that could not read */
	__u32 end, holes;   /* at behind the last one that could read, and those that could not */
	/* The stack of signals, where the context that a handler returns to may be, and its stack pointer. */
	__u64 signal_stack, signal_size, context, interrupted;
	__u8 data[sizeof(struct event) + MAX_KERNEL_FRAMES * sizeof(__u64) + sizeof(struct copy) +
		  2 * MAX_COPY_SIZE + COPY_STEP];
};

/* One for each CPU: a value of a per-CPU map can't be as large. User space says for how many. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct copy_record);
} copy_records SEC(".maps");

/* What of the budget is used, and in which second. */
struct spent {
	__u64 second, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct spent);
} copies_spent SEC(".maps");

/* Whether the budget has room for a copy. What CPUs copy at the same time may go a little beyond it. */
static __always_inline bool may_copy(__u64 now)
{
	__u32 zero = 0;
	struct spent *s = bpf_map_lookup_elem(&copies_spent, &zero);

	if (!s)
		return false;
	if (s->second != now >> 30) {
		s->second = now >> 30;
		s->bytes = 0;
	}
	return s->bytes + copy_size <= copy_budget;
}

static __always_inline void count_copied(__u64 bytes)
{
	__u32 zero = 0;
	struct spent *s = bpf_map_lookup_elem(&copies_spent, &zero);

	if (s)
		__sync_fetch_and_add(&s->bytes, bytes);
}

static __always_inline struct copy_record *copy_record(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&copy_records, &cpu);
}

/*
 * How many pages in a row may not be readable before what is above is given up: functions may have buffers
 * of which they have not used a part yet.
 */
#define MOST_HOLES 4

/*
 * Copies what is left of a page of the stack. Gives 1 at the end. It has no arguments, so that the
 * verifier goes through it once.
 */
__noinline int copy_step(void)
{
	struct copy_record *r = copy_record();
	__u64 at, size; /* of as many bits as a register: 5.10 loses the bounds of others */

	if (!r)
		return 1;
	size = COPY_STEP - (r->from & (COPY_STEP - 1));
	if (size > r->left)
		size = r->left;
	at = r->at;
	if (!size)
		return 1;
	barrier_var(size); /* one comparison of both bounds would be of another register */
	if (size > COPY_STEP || at > sizeof(r->data) - COPY_STEP)
		return 1;
	if (bpf_probe_read_user(&r->data[at], size, (void *)r->from)) {
		r->holes |= 1U << (r->step & 31);
		if (++r->failed >= MOST_HOLES)
			return 1;
	} else {
		r->failed = 0;
		r->end = at + size;
	}
	r->step++;
	r->from += size;
	r->at = at + size;
	r->left -= size;
	return 0;
}

__noinline int copy_steps(void)
{
	for (int i = 0; i < MAX_COPY_SIZE / COPY_STEP + 1; i++) {
		if (copy_step())
			break;
	}
	return 0;
}

/*
 * Copies the stack behind what is in the record already, and gives the address of the first byte. That of
 * the first thread ends behind the environment.
 */
static __always_inline __u64 copy_stack(struct copy_record *r, __u64 sp)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 start = sp - RED_ZONE, above;

	r->from = start;
	r->left = copy_size;
	above = ((BPF_CORE_READ(task, mm, env_end) + COPY_STEP - 1) & -COPY_STEP) - start;
	if (above < r->left)
		r->left = above;
	r->step = r->failed = r->holes = 0;
	r->end = r->at;
	if (sp >= USER_ADDRESSES || sp < RED_ZONE)
		return start;
	copy_steps();
	r->at = r->end;
	return start;
}

/* The context in a signal's frame: struct ucontext, an interface of the kernel. */
struct signal_context {
	__u64 flags, link;
	__u64 stack; /* that of signals, as sigaltstack(2) had it */
	__u32 stack_flags, unused;
	__u64 stack_size;
};

/*
 * Where the first context on a stack of signals may be. Its distance from the end depends on how many
 * registers the CPU has beside those that are needed here.
 */
#if defined(__TARGET_ARCH_x86)
#define FIRST_CONTEXT(end) (((end) & -64) - 512 - 448)
#define CONTEXT_STEP 64
#define CONTEXT_SP 160
#define CONTEXTS 256
#elif defined(__TARGET_ARCH_arm64)
#define FIRST_CONTEXT(end) (((end) & -16) - 16 - 4688 + 128)
#define CONTEXT_STEP 16
#define CONTEXT_SP 432
#define CONTEXTS 1024
#endif

/* The verifier goes through each round of a loop: so there are two, of which it sees one but once. */
#define CONTEXTS_A_STEP 16

/* Looks for the context at some places. Gives 1 at the end. */
__noinline int context_step(void)
{
	struct copy_record *r = copy_record();
	struct signal_context context;

	if (!r)
		return 1;
	for (int i = 0; i < CONTEXTS_A_STEP; i++, r->context -= CONTEXT_STEP) {
		if (bpf_probe_read_user(&context, sizeof(context), (void *)r->context))
			return 1;
		if (context.stack != r->signal_stack || context.stack_size != r->signal_size)
			continue;
		if (bpf_probe_read_user(&r->interrupted, sizeof(r->interrupted),
					(void *)(r->context + CONTEXT_SP)))
			r->interrupted = 0;
		return 1;
	}
	return 0;
}

__noinline int context_steps(void)
{
	for (int i = 0; i < CONTEXTS / CONTEXTS_A_STEP; i++) {
		if (context_step())
			break;
	}
	return 0;
}

/* Gives the stack pointer that a signal interrupted, if its handler is on the stack for signals; else 0. */
static __always_inline __u64 interrupted_sp(struct copy_record *r, __u64 sp)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	r->signal_stack = BPF_CORE_READ(task, sas_ss_sp);
	r->signal_size = BPF_CORE_READ(task, sas_ss_size);
	if (sp - r->signal_stack >= r->signal_size)
		return 0;
	r->interrupted = 0;
	r->context = FIRST_CONTEXT(r->signal_stack + r->signal_size);
	context_steps();
	return r->interrupted;
}

static __always_inline enum user_status user_status_of(enum unwind_status status)
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

/*
 * Whether a walk of a copy in user space may come further than one here: more is known there, and that a
 * page of the stack is swapped out is not for long.
 */
static __always_inline bool copy_helps(const struct unwind_walk *w)
{
	return w->status == UNWIND_NO_MAPPING || w->status == UNWIND_FAULT || w->pending;
}

/*
 * The user stack by tables. Where that fails, it may be still to be copied.
 */
static __always_inline __u32 table_stack(const struct user_registers *regs, __u64 *frames,
					 struct event *e)
{
	struct unwind_walk *w = unwind_walk();
	__u32 n;

	if (!w)
		return 0;
	unwind(w, regs, e->pid,
	       max_table_frames > MAX_USER_FRAMES ? MAX_USER_FRAMES : max_table_frames);
	n = w->frames;
	if (n > MAX_USER_FRAMES)
		return 0;
	bpf_probe_read_kernel(frames, n * sizeof(*frames), w->frame);
	e->user_status = user_status_of(w->status);
	if (copy_stacks && !walk_and_copy && copy_helps(w) && may_copy(e->time_ns)) {
		e->user_status = USER_COPIED;
		return 0;
	}
	e->mapped_ns = w->changed_ns;
	return n;
}

/*
 * Writes the return addresses of the user stack to frames, the leaf first, and gives their number, at
 * most MAX_USER_FRAMES. A sample that interrupted the kernel has the user stack that the thread
 * entered the kernel with. If the status is USER_COPIED, the stack is still to be copied, from regs on.
 */
static __always_inline __u32 user_stack(struct bpf_perf_event_data *ctx, struct event *e,
					struct user_registers *regs, __u64 *frames)
{
	__u8 *status = &e->user_status;
	__u32 limit = max_user_frames > MAX_USER_FRAMES ? MAX_USER_FRAMES : max_user_frames;
	struct task_struct *task = (void *)bpf_get_current_task();
	enum registers_found found;
	long size;

	*status = USER_NONE;
	/*
	 * Within execve(2) the memory is that of the new program already, while the registers are still
	 * those of the old one: another function than the one that called would be named. The new memory
	 * has no start_code until all is in its place, which is some microseconds before the end.
	 */
	if (BPF_CORE_READ(task, mm, start_code) == 0)
		return 0;
	found = user_registers(ctx, regs);
	if (leaf_only && found != REGISTERS_NONE) {
		frames[0] = regs->ip;
		*status = found == REGISTERS_32BIT ? USER_32BIT : USER_LEAF;
		return 1;
	}
	if (by_tables && found == REGISTERS_FOUND)
		return table_stack(regs, frames, e);
	*status = USER_FRAME_POINTERS;
	if (copy_stacks && found == REGISTERS_FOUND) {
		if (may_copy(e->time_ns)) {
			*status = USER_COPIED;
			return 0;
		}
		*status = USER_BUDGET;
	} else if ((by_tables || copy_stacks) && found == REGISTERS_32BIT) {
		*status = USER_32BIT;
	}
	size = bpf_get_stack(ctx, frames, limit * sizeof(__u64), BPF_F_USER_STACK);
	if (size < 0) {
		*status = USER_FAULT;
		return 0;
	}
	if (size == 0) {
		*status = USER_NONE;
		return 0;
	}
	if (*status == USER_FRAME_POINTERS && (__u64)size >= limit * sizeof(__u64))
		*status = USER_DEPTH;
	return size / sizeof(__u64);
}

#endif
