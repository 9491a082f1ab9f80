/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Latencies counted in the kernel, on each CPU for itself. User space swaps the map that they are
 * counted in for an empty one, waits until no program uses it, and reads it: so nothing is lost or
 * counted twice between two intervals. The Go half is internal/common/histogram.
 */
#ifndef HISTOGRAM_BPF_H
#define HISTOGRAM_BPF_H

#include "copies.bpf.h"

/*
 * A latency is counted by a number: so many nanoseconds, shifted to the left, divided. That is 16ths
 * of a microsecond, or 16384ths of a millisecond, so that the powers of two of either unit fall
 * between two buckets.
 */
const volatile __u32 histogram_shift = 4;
const volatile __u64 histogram_divisor = 1000;

/* Each power of two has 16 of them. The last takes what is more: from 9 hours on. */
#define HISTOGRAM_BUCKETS 576

/*
 * What may be counted while an interrupt, or (since 7.0) another task, counts on the same CPU. Adding
 * is atomic; for the extremes each copy of the program has its own place, and where an interrupt
 * finds that busy with the same copy (before 6.1) it takes the next.
 */
struct extremes {
	__u64 greatest;
	__u64 least; /* inverted, so that 0 stands for none here too */
	__u64 busy;
};

struct histogram {
	__u64 sum; /* in nanoseconds */
	__u64 errors;
	struct extremes extremes[MAX_COPIES];
	__u32 buckets[HISTOGRAM_BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
			__uint(max_entries, 1);
			__type(key, __u32);
			__type(value, struct histogram);
		});
} histograms SEC(".maps");

/*
 * The bucket of a number: up to 31 each has its own. The Go function BucketOf is the same. A global
 * function, so that the verifier goes through its branches once.
 */
__noinline __u64 histogram_bucket(__u64 n)
{
	__u64 top = n >> 5, shift = 0;

	if (!top)
		return n;
	if (top >> 32) {
		shift += 32;
		top >>= 32;
	}
	if (top >> 16) {
		shift += 16;
		top >>= 16;
	}
	if (top >> 8) {
		shift += 8;
		top >>= 8;
	}
	if (top >> 4) {
		shift += 4;
		top >>= 4;
	}
	if (top >> 2) {
		shift += 2;
		top >>= 2;
	}
	shift += (top >> 1) + 1;
	return (shift << 4) + (n >> shift);
}

static __always_inline void histogram_extremes(struct histogram *h, __u64 ns, const __u64 copy)
{
	for (__u64 i = 0; i < MAX_COPIES; i++) {
		volatile struct extremes *e = &h->extremes[i];

		if (i < copy || e->busy)
			continue;
		e->busy = 1;
		if (ns > e->greatest)
			e->greatest = ns;
		if (~ns > e->least)
			e->least = ~ns;
		e->busy = 0;
		return;
	}
}

/* Counts a latency. copy is the number of this copy of the program. Returns whether it could. */
static __always_inline bool histogram_add(__u32 index, __u64 ns, bool failed, const __u64 copy)
{
	__u32 zero = 0;
	__u64 bucket;
	struct histogram *h;
	void *current = bpf_map_lookup_elem(&histograms, &zero);

	if (!current)
		return false;
	h = bpf_map_lookup_elem(current, &index);
	if (!h)
		return false;
	bucket = histogram_bucket((ns << histogram_shift) / histogram_divisor);
	if (bucket >= HISTOGRAM_BUCKETS)
		bucket = HISTOGRAM_BUCKETS - 1;
	__sync_fetch_and_add(&h->buckets[bucket], 1);
	__sync_fetch_and_add(&h->sum, ns);
	if (failed)
		__sync_fetch_and_add(&h->errors, 1);
	histogram_extremes(h, ns, copy);
	return true;
}

#endif
