//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define OWN_LOST_CAUSES                                                                    \
	LOST_RING_BUSY,		  /* the ring buffer was held by another CPU, too often */ \
		LOST_STACKS_FULL, /* user space has no memory for more, and counts them itself */
#include "events.bpf.h"
#include "filter.bpf.h"
#include "follow.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_KERNEL_FRAMES 127
#define PF_KTHREAD 0x00200000

enum kind {
	KIND_SAMPLE,
	KIND_REPEAT, /* what is behind repeat's fields is as in an earlier sample of this CPU */
};

/* What samples of one CPU that differ in time only have in common: a place in the table. */
#define NO_SLOT 0xffffffff
#define SLOTS 1024

/*
 * A sample, followed by the addresses of its kernel frames and those of its user frames, leaf first; or
 * if the user stack was copied, by struct copy. The beginning is that of
 * struct repeat. No padding.
 */
struct event {
	__u64 time_ns;
	__u64 period;	 /* how much of the event is between this sample and the one before */
	__u32 cpu, slot; /* NO_SLOT: it is not remembered */
	__u16 kind;
	__u16 kernel_frames, user_frames;
	__u8 user_status;
	__u8 kernel_thread;
	__u32 pid, tid;
	__u64 cgroup_id;
	__u8 comm[TASK_COMM_LEN];
	__u32 in_syscall;  /* the user stack's leaf is behind the instruction that made the call */
	__u32 walk_status; /* only with walk_and_copy: what user_status would be else */
	__u64 mapped_ns; /* when what is mapped last changed, as far as a walk by tables knew; else 0 */
};

#include "user_stack.bpf.h"

#define MAX_FRAMES (MAX_KERNEL_FRAMES + MAX_USER_FRAMES)

/* A sample that is as the last one of its CPU with this slot. */
struct repeat {
	__u64 time_ns;
	__u64 period;
	__u32 cpu, slot;
	__u16 kind;
	__u16 unused[3];
};

/* What becomes of the samples that are not sent; lost ones are counted by their cause. */
enum fate {
	FATE_TAKEN, /* all of them */
	FATE_IDLE,
	FATE_FILTERED,
	FATES,
};

const volatile struct {
	struct event event;
	struct repeat repeat;
	enum kind kind;
	enum fate fate;
	enum user_status user_status;
	struct copy copy;
} types;

const volatile bool want_kernel = true, want_user = true;
const volatile bool want_idle = false;
const volatile bool filter_tids = false;
const volatile bool find_repeats = false;
const volatile __u64 seed_a = 0, seed_b = 0;

/* The threads asked for. User space makes it only as large as it must be. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} tids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FATES);
	__type(key, __u32);
	__type(value, __u64);
} fates SEC(".maps");

/* One is enough for a CPU: the kernel runs no perf event program while another one runs. */
struct record {
	struct event event;
	__u64 frames[MAX_FRAMES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

/* What each slot of a CPU stands for: two hashes, of all but time and period, equal only for equals. */
struct seen {
	__u64 a, b;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen SEC(".maps");

static __always_inline void count(enum fate fate)
{
	__u32 key = fate;
	__u64 *n = bpf_map_lookup_elem(&fates, &key);

	if (n)
		(*n)++;
}

/*
 * Sends a record, or counts it as lost. A sample may interrupt what holds the ring's lock, where it must
 * not wait for it (an NMI); then the ring is not full.
 */
static __always_inline long send(void *record, __u64 len)
{
	__u64 wakeup = event_wakeup(len);

	for (int i = 0; i < 8; i++) {
		if (!bpf_ringbuf_output(&events, record, len, wakeup))
			return 0;
		if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) + len + 16 >
		    bpf_ringbuf_query(&events, BPF_RB_RING_SIZE)) {
			count_lost(LOST_RING_FULL);
			return -1;
		}
	}
	count_lost(LOST_RING_BUSY);
	return -1;
}

static __always_inline void mix(struct seen *hash, __u64 word)
{
	hash->a = (hash->a ^ word) * 0x9e3779b97f4a7c15;
	hash->a ^= hash->a >> 32;
	hash->b = (hash->b + word) * 0xc2b2ae3d27d4eb4f;
	hash->b ^= hash->b >> 29;
}

/* All of a record but its time and period; cpu and slot are the same for all records of a table. */
static __always_inline void hash_of(const struct record *r, __u32 frames, struct seen *hash)
{
	const struct event *e = &r->event;

	hash->a = seed_a;
	hash->b = seed_b;
	mix(hash, (__u64)e->kernel_frames << 32 | (__u64)e->user_frames << 16 |
			  e->user_status << 8 | e->kernel_thread);
	mix(hash, (__u64)e->pid << 32 | e->tid);
	mix(hash, e->in_syscall);
	mix(hash, e->cgroup_id);
	mix(hash, e->mapped_ns);
	mix(hash, *(__u64 *)&e->comm[0]);
	mix(hash, *(__u64 *)&e->comm[8]);
	for (__u32 i = 0; i < MAX_FRAMES; i++) {
		if (i >= frames)
			break;
		mix(hash, r->frames[i]);
	}
}

/*
 * Sends a repeat if the record is one. Else the record has a slot afterwards, and *slot is what to
 * fill once it was sent.
 */
static __always_inline bool sent_repeat(struct record *r, __u32 frames, struct seen **slot,
					struct seen *hash)
{
	struct repeat repeat = { .time_ns = r->event.time_ns,
				 .period = r->event.period,
				 .cpu = r->event.cpu,
				 .kind = KIND_REPEAT };

	hash_of(r, frames, hash);
	repeat.slot = hash->a % SLOTS;
	*slot = bpf_map_lookup_elem(&seen, &repeat.slot);
	if (!*slot)
		return false;
	r->event.slot = repeat.slot;
	if ((*slot)->a != hash->a || (*slot)->b != hash->b)
		return false;
	send(&repeat, sizeof(repeat));
	return true;
}

/*
 * Sends a sample with a copy of the user stack, which is put together elsewhere, since the record may be
 * large.
 */
static __always_inline void send_copy(struct record *from, const struct user_registers *regs)
{
	struct copy_record *r = copy_record();
	__u64 frames = from->event.kernel_frames * sizeof(__u64);
	__u64 head = sizeof(struct event) + frames, end, sp;
	struct copy copy = { .regs = *regs };

	if (!r || frames > MAX_KERNEL_FRAMES * sizeof(__u64))
		return;
	*(struct event *)r->data = from->event;
	bpf_probe_read_kernel(&r->data[sizeof(struct event)], frames, from->frames);
	r->at = head + sizeof(copy);
	copy.start = copy_stack(r, regs->sp);
	end = r->at;
	copy.size = end - (head + sizeof(copy));
	copy.holes = r->holes;
	sp = interrupted_sp(r, regs->sp);
	if (sp) {
		copy.interrupted_start = copy_stack(r, sp);
		copy.interrupted_size = r->at - end;
		copy.interrupted_holes = r->holes;
	}
	end = r->at;
	__builtin_memcpy(&r->data[head], &copy, sizeof(copy));
	if (end > sizeof(r->data))
		return;
	count_copied(end);
	send(r->data, end);
}

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct user_registers regs = {};
	struct seen *slot = NULL, hash;
	__u32 zero = 0, frames = 0;
	struct record *r;
	struct event *e;

	count(FATE_TAKEN);
	if (!want_idle && !bpf_get_current_pid_tgid()) {
		count(FATE_IDLE);
		return 0;
	}
	if (!task_wanted())
		goto filtered;
	if (filter_tids) {
		__u32 tid = current_tid();

		if (!bpf_map_lookup_elem(&tids, &tid))
			goto filtered;
	}
	r = bpf_map_lookup_elem(&records, &zero);
	if (!r)
		return 0;
	e = &r->event;
	e->time_ns = bpf_ktime_get_ns();
	e->period = ctx->sample_period;
	e->cpu = bpf_get_smp_processor_id();
	e->slot = NO_SLOT;
	e->kind = KIND_SAMPLE;
	e->pid = current_pid();
	e->tid = current_tid();
	e->cgroup_id = bpf_get_current_cgroup_id();
	e->kernel_thread = !!(BPF_CORE_READ(task, flags) & PF_KTHREAD);
	bpf_get_current_comm(e->comm, sizeof(e->comm));

	e->kernel_frames = 0;
	if (want_kernel) {
		/* None, or an error on some kernels, if user space was interrupted. */
		long size = bpf_get_stack(ctx, r->frames, MAX_KERNEL_FRAMES * sizeof(__u64), 0);

		if (size > 0)
			e->kernel_frames = frames = (__u64)size / sizeof(__u64);
	}
	e->user_frames = 0;
	e->user_status = USER_NONE;
	e->mapped_ns = 0;
	if (want_user && !e->kernel_thread && frames <= MAX_KERNEL_FRAMES) {
		e->user_frames = user_stack(ctx, e, &regs, &r->frames[frames]);
		frames += e->user_frames;
	}
	e->in_syscall = regs.in_syscall;
	e->walk_status = 0;
	if (walk_and_copy && e->user_frames && frames <= MAX_KERNEL_FRAMES) {
		/* The frames of both are those of user space. */
		e->walk_status = e->user_status;
		e->user_status = USER_COPIED;
		e->kernel_frames = frames;
		e->user_frames = 0;
	}
	if (copy_stacks && e->user_status == USER_COPIED) {
		send_copy(r, &regs);
		return 0;
	}
	if (frames > MAX_FRAMES)
		return 0;
	if (find_repeats && sent_repeat(r, frames, &slot, &hash))
		return 0;
	if (!send(r, sizeof(*e) + frames * sizeof(__u64)) && slot)
		*slot = hash;
	return 0;

filtered:
	count(FATE_FILTERED);
	return 0;
}
