/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way out of the kernel: one ring buffer, and a counter for every cause of loss. Its other half
 * is internal/common/events.
 */
#ifndef EVENTS_BPF_H
#define EVENTS_BPF_H

/*
 * Why an event, or a part of it, did not reach user space. User space reads these names from the
 * object's BTF: LOST_RING_FULL is "ring_full" there.
 */
enum lost_cause {
	LOST_RING_FULL,	    /* the ring buffer had no room */
	LOST_INFLIGHT_FULL, /* no room to remember that a call had begun */
	LOST_RETURN_MISSED, /* a call began, and its return was never seen */
	LOST_SCRATCH_FULL,  /* no free buffer to put a long record together in */
	LOST_FOLLOW_FULL,   /* a process could not be added to those followed */
#ifdef OWN_LOST_CAUSES
	OWN_LOST_CAUSES /* those of the one tool that defines it, each with a comma */
#endif
		LOST_CAUSES,
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOST_CAUSES);
	__type(key, enum lost_cause);
	__type(value, __u64);
} lost SEC(".maps");

/*
 * The reader drains the ring on a timer, which costs the traced task nothing. Only the record that
 * fills another part of the ring of this size (a power of two) wakes it early: waking it for each
 * record would cost three times as much as making the record.
 */
const volatile __u8 ring_wakeup_shift = 21;

static __always_inline int count_lost(enum lost_cause cause)
{
	__u32 key = cause;
	__u64 *n = bpf_map_lookup_elem(&lost, &key);

	if (n)
		(*n)++;
	return 0;
}

/* How a record of len bytes that is about to be sent is to wake the reader. */
static __always_inline __u64 event_wakeup(__u64 len)
{
	__u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	bool crosses = (waiting >> ring_wakeup_shift) != ((waiting + len) >> ring_wakeup_shift);

	return crosses ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Sends a record of len bytes, or counts it as lost. Returns 0, or a negative errno. */
static __always_inline long event_send(void *record, __u64 len)
{
	__u64 wakeup = event_wakeup(len);
	long err = bpf_ringbuf_output(&events, record, len, wakeup);

	if (err)
		count_lost(LOST_RING_FULL);
	return err;
}

#endif
