/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Buffers for records that don't fit on the 512 bytes of a BPF stack. They are handed out one by one
 * instead of one to a CPU, since an fentry program can be preempted (PREEMPT kernels) and another
 * program run on the same CPU before it goes on. The Go half is internal/common/scratch, which fills
 * the list of free ones.
 */
#ifndef SCRATCH_BPF_H
#define SCRATCH_BPF_H

#include "events.bpf.h"

#define SCRATCH_SLOTS 64
/* A head of up to 256 bytes, a path, and another with room for the name that overruns the limit. */
#define SCRATCH_SIZE (256 + PATH_MAX + PATH_MAX + 256)

/* Where a walk from a file to its root stands; see paths.bpf.h. */
struct path_walk {
	struct dentry *dentry, *root_dentry;
	struct mount *mnt, *root_mnt;
	__u32 off; /* where in the record the next name goes */
	__u8 marks;
	__u8 unused[3];
};

struct scratch {
	struct path_walk walk;
	__u8 record[SCRATCH_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, SCRATCH_SLOTS);
	__uint(value_size, sizeof(__u32));
} scratch_free SEC(".maps");

/* Takes a buffer and gives its number, or a negative errno; the loss is then counted. */
static __always_inline long scratch_take(__u32 *slot)
{
	long err = bpf_map_pop_elem(&scratch_free, slot);

	if (err)
		count_lost(LOST_SCRATCH_FULL);
	return err;
}

static __always_inline void scratch_give_back(__u32 slot)
{
	bpf_map_push_elem(&scratch_free, &slot, BPF_ANY);
}

#endif
