//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define OWN_LOST_CAUSES                                                                            \
	LOST_REQUESTS_FULL,	 /* no room to remember that a request had begun */                \
		LOST_KEYS_FULL,	 /* no room to count by another disk, operation, cgroup or comm */ \
		LOST_END_UNSEEN, /* a bio is used again, whose end was never seen */               \
		LOST_TOO_DEEP,	 /* a bio was handed on by more devices than are followed */
#include "events.bpf.h"
#include "filter.bpf.h"
#include "follow.bpf.h"
#include "histogram.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define DISK_NAME_LEN 32

/*
 * The phases of a request, each with a histogram of its own: all of them with want_split, else the
 * one that is asked for.
 */
enum phase {
	PHASE_QUEUE,  /* from its making to its first issue to the device */
	PHASE_DEVICE, /* from its last issue on */
	PHASE_TOTAL,
	PHASES,
};

/* What a request is counted by. No padding; what is not asked for is 0. */
struct key {
	__u64 cgroup_id;
	__u32 dev; /* as in struct request's disk: major << 20 | first minor */
	__u32 op_flags;
	__u8 comm[TASK_COMM_LEN];
};

struct disk_name {
	__u8 name[DISK_NAME_LEN];
};

/* An error that requests ended with. */
struct failure {
	__u8 disk[DISK_NAME_LEN];
	__s32 error; /* a blk_status_t, or an errno, which is negative */
};

const volatile bool want_queue = false; /* when a request was made is of interest */
const volatile bool want_split = false;
const volatile bool want_issuer = false; /* block_bio_queue is hooked */
const volatile bool by_disk = false, by_op = false, by_cgroup = false, by_comm = false;
const volatile __u32 op_mask = 0xffffffff; /* the flags that are told apart */
const volatile bool filter_issuer = false;
const volatile bool filter_charged = false; /* data written back for a cgroup are wanted too */
const volatile bool filter_disk = false;
const volatile __u32 filter_dev = 0;

/* How this kernel's tracepoints are; see the prototypes. */
const volatile bool queue_first = false, bio_queue_first = false;
const volatile bool status_is_errno = false;
const volatile bool has_io_start = false;
const volatile bool remap_queue_first = false, split_queue_first = false;
const volatile __u32 flush_sequence = 0; /* of rq_flags: flushes come before or behind the data */
const volatile __u32 flush_flags = 0;	 /* those that make a sequence of a request and flushes */

/*
 * Up to 5.10 the queue came first, until 5.10.137 and 5.11 (a54895fa057c); that of block_bio_queue
 * and block_bio_remap until 5.11 (e8a676d61c07, 1c02fca620f7). block_rq_complete told an errno until 5.16 (8a7d267b4a2c).
 */
const volatile struct {
	void (*block_rq_insert)(struct request *);
	void (*block_rq_insert___queue)(struct request_queue *, struct request *);
	void (*block_rq_issue)(struct request *);
	void (*block_rq_issue___queue)(struct request_queue *, struct request *);
	void (*block_rq_requeue)(struct request *);
	void (*block_rq_requeue___queue)(struct request_queue *, struct request *);
	void (*block_rq_merge)(struct request *);
	void (*block_rq_merge___queue)(struct request_queue *, struct request *);
	void (*block_io_start)(struct request *);
	void (*block_rq_complete)(struct request *, __u8, unsigned int);
	void (*block_rq_complete___errno)(struct request *, int, unsigned int);
	void (*block_bio_queue)(struct bio *);
	void (*block_bio_queue___queue)(struct request_queue *, struct bio *);
	void (*block_bio_remap)(struct bio *, __u32, __u64);
	void (*block_bio_remap___queue)(struct request_queue *, struct bio *, __u32, __u64);
	void (*block_bio_complete)(struct request_queue *, struct bio *);
	void (*block_split)(struct bio *, unsigned int);
	void (*block_split___queue)(struct request_queue *, struct bio *, unsigned int);
} prototypes;

/* Puts these into the object's types, from which the Go ones are made. */
const volatile struct {
	struct key key;
	struct failure failure;
	struct disk_name disk_name;
	enum phase phase;
	struct histogram histogram[0]; /* clang only declares what just an inner map has */
} types;

/*
 * A request under way, or one that has ended: the kernel uses its requests again and again, and
 * writing over what was noted of one costs less than making and deleting it.
 */
struct start {
	__u64 id;
	__u64 made_ns;	/* 0 if it has ended */
	__u64 issue_ns; /* 0 while it waits */
	__u64 wait_ns;	/* till its first issue */
	__u32 slot;	/* what it is counted by */
	__u8 issues;	/* 1 if it was issued before */
	__u8 requeued;
	__u8 failed; /* it has ended with an error */
	__u8 unused;
};

/*
 * Finding something in an array costs a tenth of finding it in a hash. So a request has its place in
 * the array, which it keeps for ever, if it was the first that came there: that is who entered owners.
 */
#define PLACE_BITS 14

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << PLACE_BITS);
	__type(key, __u32);
	__type(value, struct start);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << PLACE_BITS);
	__type(key, __u32);
	__type(value, __u64);
} owners SEC(".maps");

/* The requests whose place is another's. Once it was full, they leave it as they end. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct start);
} starts SEC(".maps");

bool crowded = false;

/* What each slot of the histograms is for. They are handed out one by one from those that are free. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct key);
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__uint(value_size, sizeof(__u32));
} free_slots SEC(".maps");

/* The names of the disks that the slots are for: a disk may be gone before user space looks. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct disk_name);
} slot_disks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct failure);
	__type(value, __u64);
} failures SEC(".maps");

/* Who issued a bio, while it is on its way into a request. */
struct issuer {
	__u64 cgroup_id;
	__u8 comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct issuer);
} issuers SEC(".maps");

/*
 * A bio on its way through a device, and through those below that it is handed on to as it is, as by
 * NVMe's multipath, or by md until 5.14 (10764815ff47). What other devices pass on are bios of their
 * own.
 */
struct bio_at {
	__u64 disk; /* struct gendisk; 0 if the bio has not come that far */
	__u64 began_ns;
	__u32 slot;
	__u32 wanted;
};

#define BIO_LEVELS 3

struct bio_start {
	__u64 copies;  /* a bit for each that has seen it begin */
	__u64 pending; /* how many parts of it are under way: itself, and those split off */
	__u64 parent;  /* of a part: what it was split off from; the rest of it is unused */
	__s32 error;
	__u32 ended; /* its own part */
	struct bio_at levels[BIO_LEVELS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct bio_start);
} bios SEC(".maps");

/* The cgroups asked for, by id, if nothing else is asked of the tasks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u8);
} charged_cgroups SEC(".maps");

#define CGROUP_LEVELS 16 /* below the root, and more than anybody nests */

/* The requests that the programs saw last on this CPU, so that their spares need not do the same. */
struct last {
	__u64 id;
	__u64 copies; /* a bit for each that has seen it */
};

enum event {
	STARTED,
	INSERTED,
	ISSUED,
	COMPLETED,
	BIO_BEGAN,
	EVENTS
};

struct seen {
	struct last last[EVENTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen SEC(".maps");

/*
 * Whether another copy of this program has seen the same. Which copy comes first is not known, and one
 * that comes again has another event before it. Where an interrupt comes between two copies, the
 * second does its work once more.
 */
static __always_inline bool seen_already(enum event event, __u64 id, const __u64 copy)
{
	__u64 bit = 1ULL << (copy & (MAX_COPIES - 1));
	struct last *last;
	__u32 zero = 0;
	struct seen *here;

	if (number_of_copies() == 1)
		return false;
	here = bpf_map_lookup_elem(&seen, &zero);
	if (!here) /* never */
		return false;
	last = &here->last[event];
	if (last->id != id || (last->copies & bit)) {
		last->id = id;
		last->copies = bit;
		return false;
	}
	last->copies |= bit;
	return true;
}

/*
 * A request that was issued as shortly ago as this has not been issued again: another copy of the
 * program has seen it, and an interrupt came between.
 */
#define SHORTLY_NS 1000000

static __always_inline struct gendisk *disk_of(const struct request *rq)
{
	const struct request___old *old = (const void *)rq;

	if (bpf_core_field_exists(old->rq_disk))
		return BPF_CORE_READ(old, rq_disk);
	return BPF_CORE_READ(rq, q, disk);
}

static __always_inline struct gendisk *disk_of_bio(const struct bio *bio)
{
	const struct bio___old *old = (const void *)bio;

	if (bpf_core_field_exists(old->bi_disk))
		return BPF_CORE_READ(old, bi_disk);
	return BPF_CORE_READ(bio, bi_bdev, bd_disk);
}

/* 0 for requests of no disk, such as those to a tape. */
static __always_inline __u32 dev_of(const struct gendisk *disk)
{
	if (!disk)
		return 0;
	return BPF_CORE_READ(disk, major) << 20 | BPF_CORE_READ(disk, first_minor);
}

static __always_inline void tell_issuer(struct issuer *who)
{
	who->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(who->comm, sizeof(who->comm));
}

/*
 * The cgroup that a bio is charged to: of writeback too, where the task is none of it. The root's is
 * that of whatever the controller io is not on for; then the issuer's says more.
 */
static __always_inline __u64 cgroup_of(const struct bio *bio, const struct issuer *who)
{
	struct cgroup *cgroup;

	if (!bio || !bpf_core_field_exists(bio->bi_blkg))
		return who->cgroup_id;
	cgroup = BPF_CORE_READ(bio, bi_blkg, blkcg, css.cgroup);
	if (!cgroup || !BPF_CORE_READ(cgroup, level))
		return who->cgroup_id;
	return BPF_CORE_READ(cgroup, kn, id);
}

/* Finds or makes the slot of a key. Returns whether there is one; if not, the loss is counted. */
static __always_inline bool slot_of(const struct key *key, const struct gendisk *disk, __u32 *slot)
{
	__u32 *known = bpf_map_lookup_elem(&slots, key);
	struct disk_name *name;

	if (known) {
		*slot = *known;
		return true;
	}
	if (bpf_map_pop_elem(&free_slots, slot)) {
		count_lost(LOST_KEYS_FULL);
		return false;
	}
	name = bpf_map_lookup_elem(&slot_disks, slot);
	if (name && by_disk && disk)
		BPF_CORE_READ_INTO(&name->name, disk, disk_name);
	if (!bpf_map_update_elem(&slots, key, slot, BPF_NOEXIST))
		return true;
	/* Another CPU was faster. */
	bpf_map_push_elem(&free_slots, slot, BPF_ANY);
	known = bpf_map_lookup_elem(&slots, key);
	if (!known) {
		count_lost(LOST_KEYS_FULL);
		return false;
	}
	*slot = *known;
	return true;
}

static __always_inline bool disk_wanted(const struct gendisk *disk)
{
	return !filter_disk || dev_of(disk) == filter_dev;
}

/* Settles what is counted for whom. Returns whether there is room for it. */
static __always_inline bool settle(const struct gendisk *disk, const struct bio *bio,
				   __u32 op_flags, const struct issuer *who, __u32 *slot)
{
	struct key key = {};

	*slot = 0;
	if (!by_disk && !by_op && !by_cgroup && !by_comm)
		return true;
	if (by_disk)
		key.dev = dev_of(disk);
	if (by_op)
		key.op_flags = op_flags & op_mask;
	if (by_cgroup)
		key.cgroup_id = cgroup_of(bio, who);
	if (by_comm)
		__builtin_memcpy(key.comm, who->comm, sizeof(key.comm));
	return slot_of(&key, disk, slot);
}

/* Settles what a request is counted by. Returns whether it is wanted. */
static __always_inline bool classify(const struct request *rq, __u32 *slot)
{
	struct gendisk *disk = filter_disk || by_disk ? disk_of(rq) : NULL;
	struct bio *bio = want_issuer ? BPF_CORE_READ(rq, bio) : NULL;
	struct issuer who = {};

	if (!disk_wanted(disk))
		return false;
	if (want_issuer) {
		__u64 id = (__u64)bio;
		struct issuer *known = bio ? bpf_map_lookup_elem(&issuers, &id) : NULL;

		if (known) {
			who = *known;
		} else {
			/* A flush, say: whose it is, only the task at work here tells. */
			if (filter_issuer && (bio || !task_wanted()))
				return false;
			tell_issuer(&who);
		}
	}
	return settle(disk, bio, by_op ? BPF_CORE_READ(rq, cmd_flags) : 0, &who, slot);
}

/* Swapping the bytes makes a number of what the verifier takes for a pointer. */
static __always_inline __u32 place_of(__u64 id)
{
	return (__builtin_bswap64(id) * 0x9e3779b97f4a7c15) >> (64 - PLACE_BITS);
}

static __always_inline struct start *find(__u64 id)
{
	__u32 index = place_of(id);
	struct start *place = bpf_map_lookup_elem(&places, &index);

	if (place && place->id == id)
		return place;
	return bpf_map_lookup_elem(&starts, &id);
}

/* Keeps what is noted of a request that was not known. Returns whether there is room for it. */
static __always_inline bool keep(const struct start *new)
{
	__u32 index = place_of(new->id);
	struct start *place = bpf_map_lookup_elem(&places, &index);
	__u64 id = new->id;

	if (place && !place->id && !bpf_map_update_elem(&owners, &index, &id, BPF_NOEXIST)) {
		*place = *new;
		return true;
	}
	return !bpf_map_update_elem(&starts, &id, new, BPF_ANY);
}

/* Forgets a request. */
static __always_inline void end(struct start *s, __u64 id)
{
	s->made_ns = s->issue_ns = 0;
	if (crowded)
		bpf_map_delete_elem(&starts, &id);
}

/* Notes a request, in the place of what is there. */
static __always_inline void begin(const struct request *rq, __u64 id, struct start *old,
				  struct start *new)
{
	if (!classify(rq, &new->slot)) {
		if (old) /* of a request that ended in a way that is not seen, at best */
			end(old, id);
		return;
	}
	if (old) {
		*old = *new;
	} else if (!keep(new)) {
		crowded = true;
		count_lost(LOST_REQUESTS_FULL);
	}
}

/* A request is made (started), or put into a queue. */
static __always_inline int made(const struct request *rq, const bool started)
{
	__u64 id = (__u64)rq;
	struct start new = { .id = id }, *old;

	if (seen_already(started ? STARTED : INSERTED, id, copy_number()))
		return 0;
	old = find(id);
	/* It is in its queue again, or was seen as it was made. */
	if (old && old->made_ns && !old->issue_ns && (old->requeued || (has_io_start && !started)))
		return 0;
	new.made_ns = bpf_ktime_get_ns();
	begin(rq, id, old, &new);
	return 0;
}

/* A request goes to the device. */
static __always_inline int issued(const struct request *rq)
{
	__u64 id = (__u64)rq, now;
	struct start new = { .id = id }, *old;

	if (seen_already(ISSUED, id, copy_number()))
		return 0;
	now = bpf_ktime_get_ns();
	old = find(id);
	if (number_of_copies() > 1 && old && old->issue_ns && now - old->issue_ns < SHORTLY_NS)
		return 0;
	if (old && old->made_ns && !old->issue_ns) {
		if (!old->issues)
			old->wait_ns = now - old->made_ns;
		old->issues = 1;
		old->issue_ns = now;
		return 0;
	}
	new.made_ns = new.issue_ns = now;
	new.issues = 1;
	begin(rq, id, old, &new);
	return 0;
}

/* A request goes back to its queue. It will be counted once, at its end. */
static __always_inline int requeued(const struct request *rq)
{
	__u64 id = (__u64)rq;
	struct start *s = find(id);

	if (!s || !s->made_ns)
		return 0;
	s->requeued = 1;
	s->issue_ns = 0;
	return 0;
}

/* A request has become part of another, and does not end by itself. */
static __always_inline int merged(const struct request *rq)
{
	__u64 id = (__u64)rq;
	struct start *s = find(id);

	if (s)
		end(s, id);
	return 0;
}

static __always_inline void count_failure(const struct gendisk *disk, __s32 error)
{
	struct failure f = { .error = error };
	__u64 one = 1, *n;

	if (disk)
		BPF_CORE_READ_INTO(&f.disk, disk, disk_name);
	n = bpf_map_lookup_elem(&failures, &f);
	if (!n && !bpf_map_update_elem(&failures, &f, &one, BPF_NOEXIST))
		return;
	if (!n)
		n = bpf_map_lookup_elem(&failures, &f);
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		count_lost(LOST_KEYS_FULL);
}

static __always_inline void count(__u32 slot, enum phase phase, __u64 ns, bool failed,
				  const __u64 copy)
{
	__u32 index = want_split ? slot * PHASES + phase : slot;

	if (!histogram_add(index, ns, failed, copy))
		count_lost(LOST_KEYS_FULL);
}

/*
 * A request that is not known has failed: the device never had it. Or it was known and has failed
 * already, and now the flushes around it end.
 */
static __always_inline void failed_unissued(const struct request *rq, struct start *kept,
					    __s32 error)
{
	struct gendisk *disk = disk_of(rq);

	if (kept && kept->failed && (BPF_CORE_READ(rq, cmd_flags) & flush_flags))
		kept->failed = 0;
	else if (disk_wanted(disk) && !filter_issuer) /* whose it was is not known */
		count_failure(disk, error);
}

static __always_inline __s32 error_of(__u64 status)
{
	return status_is_errno ? (__s32)status : (__u8)status;
}

/* A request has ended, or a part of it. */
static __always_inline int completed(const struct request *rq, __u64 status, __u32 bytes)
{
	const __u64 copy = copy_number();
	__u64 id = (__u64)rq, now;
	__s32 error = error_of(status);
	struct start *kept, s;

	if (seen_already(COMPLETED, id, copy))
		return 0;
	if (bytes < BPF_CORE_READ(rq, __data_len)) /* the rest is still to come */
		return 0;
	kept = find(id);
	if (!kept || !kept->made_ns) { /* another copy of this program has counted it, say */
		if (error)
			failed_unissued(rq, kept, error);
		return 0;
	}
	s = *kept;
	kept->failed = error != 0;
	end(kept, id);
	if (error)
		count_failure(disk_of(rq), error);
	if (!s.issue_ns) /* the device never had it */
		return 0;
	now = bpf_ktime_get_ns();
	if (want_split) {
		count(s.slot, PHASE_QUEUE, s.wait_ns, error, copy);
		count(s.slot, PHASE_DEVICE, now - s.issue_ns, error, copy);
	}
	if (want_queue)
		count(s.slot, PHASE_TOTAL, now - s.made_ns, error, copy);
	else
		count(s.slot, PHASE_DEVICE, now - s.issue_ns, error, copy);
	return 0;
}

/* Whether a bio is charged to one of the cgroups asked for, or one below. */
static __always_inline bool bio_in_cgroups(const struct bio *bio)
{
	struct cgroup_subsys_state *css;
	struct blkcg *blkcg;
	__u64 id;

	if (!bpf_core_field_exists(bio->bi_blkg))
		return false;
	blkcg = BPF_CORE_READ(bio, bi_blkg, blkcg);
	if (!blkcg)
		return false;
	css = (void *)blkcg + bpf_core_field_offset(struct blkcg, css);
	for (int level = 0; level < CGROUP_LEVELS && css; level++) {
		id = BPF_CORE_READ(css, cgroup, kn, id);
		if (bpf_map_lookup_elem(&charged_cgroups, &id))
			return true;
		css = BPF_CORE_READ(css, parent);
	}
	return false;
}

/* Whether whoever issues a bio, in whose context this is, is one of those asked for. */
static __always_inline bool issuer_wanted(const struct bio *bio)
{
	return !filter_issuer || task_wanted() || (filter_charged && bio_in_cgroups(bio));
}

/* A task, in whose context this is, issues a bio. */
static __always_inline int bio_queued(const struct bio *bio)
{
	__u64 id = (__u64)bio;
	struct issuer who = {};

	if (!issuer_wanted(bio)) {
		bpf_map_delete_elem(&issuers, &id); /* it may be an old one, used again */
		return 0;
	}
	tell_issuer(&who);
	bpf_map_update_elem(&issuers, &id, &who, BPF_ANY);
	return 0;
}

/* A bio comes to a device. */
static __always_inline void enter(struct bio_at *at, const struct bio *bio,
				  const struct gendisk *disk)
{
	struct issuer who = {};

	if (want_issuer)
		tell_issuer(&who);
	at->began_ns = bpf_ktime_get_ns();
	at->wanted = disk_wanted(disk) &&
		     settle(disk, bio, BPF_CORE_READ(bio, bi_opf), &who, &at->slot);
	at->disk = (__u64)disk;
}

/* A bio is handed in, at the device that it was made for. */
static __always_inline int bio_began(const struct bio *bio)
{
	const __u64 copy = copy_number(), bit = 1ULL << (copy & (MAX_COPIES - 1));
	__u64 id = (__u64)bio;
	struct bio_start new = { .copies = bit, .pending = 1 }, *old;

	if (seen_already(BIO_BEGAN, id, copy))
		return 0;
	old = bpf_map_lookup_elem(&bios, &id);
	if (old && !old->parent && !(old->copies & bit)) { /* by another copy of this program */
		old->copies |= bit;
		return 0;
	}
	if (old && !old->parent)
		count_lost(LOST_END_UNSEEN);
	if (!issuer_wanted(bio)) {
		if (old)
			bpf_map_delete_elem(&bios, &id);
		return 0;
	}
	enter(&new.levels[0], bio, disk_of_bio(bio));
	if (bpf_map_update_elem(&bios, &id, &new, BPF_ANY))
		count_lost(LOST_REQUESTS_FULL);
	return 0;
}

/* A device hands a bio on as it is: from this device, or a partition of it, to that which it has now. */
static __always_inline int bio_remapped(const struct bio *bio, __u32 from)
{
	__u64 id = (__u64)bio;
	struct bio_start *s = bpf_map_lookup_elem(&bios, &id);
	struct gendisk *disk;

	if (!s)
		return 0;
	disk = disk_of_bio(bio);
	for (int i = 0; i < BIO_LEVELS; i++) {
		if (s->levels[i].disk == (__u64)disk) /* a partition's place on its disk, say */
			return 0;
	}
	for (int i = 1; i < BIO_LEVELS; i++) {
		/* Where one way did not work, a device takes another. */
		if (s->levels[i].disk && dev_of((void *)s->levels[i - 1].disk) != from)
			continue;
		enter(&s->levels[i], bio, disk);
		if (i + 1 < BIO_LEVELS)
			s->levels[i + 1].disk = 0;
		return 0;
	}
	return count_lost(LOST_TOO_DEEP);
}

/* A part was split off a bio, which waits for it at its end. */
static __always_inline int bio_was_split(const struct bio *part)
{
	__u64 id = (__u64)part, parent = (__u64)BPF_CORE_READ(part, bi_private);
	struct bio_start new = { .parent = parent }, *whole = bpf_map_lookup_elem(&bios, &parent);

	/* Device mapper tells of the whole instead, and waits for the parts by itself. */
	if (!whole || whole->parent || bpf_map_lookup_elem(&bios, &id))
		return 0;
	if (bpf_map_update_elem(&bios, &id, &new, BPF_NOEXIST))
		return count_lost(LOST_REQUESTS_FULL);
	__sync_fetch_and_add(&whole->pending, 1);
	return 0;
}

/*
 * A bio, or its own part of it, is done for all devices that it was handed on to; surely so if it has
 * waited for all of its parts. A global function, so that the verifier looks at it once.
 */
__noinline int bio_done(__u64 id, __u64 now, __s32 error, __u32 surely, __u64 copy)
{
	struct bio_start s, *kept = bpf_map_lookup_elem(&bios, &id);

	if (!kept) /* another copy of this program has counted it, say */
		return 0;
	if (kept->parent) {
		__u64 parent = kept->parent;

		if (bpf_map_delete_elem(&bios, &id))
			return 0;
		id = parent;
		kept = bpf_map_lookup_elem(&bios, &id);
		if (!kept || kept->parent)
			return 0;
		surely = 0;
	} else {
		if (kept->ended && !surely)
			return 0;
		kept->ended = 1;
	}
	if (error)
		kept->error = error;
	__sync_fetch_and_add(&kept->pending, -1);
	if (!surely && *(volatile __u64 *)&kept->pending)
		return 0;
	s = *kept;
	if (bpf_map_delete_elem(&bios, &id)) /* who had the other part was faster */
		return 0;
	for (int i = 0; i < BIO_LEVELS && s.levels[i].disk; i++) {
		if (!s.levels[i].wanted)
			continue;
		if (s.error)
			count_failure((void *)s.levels[i].disk, s.error);
		count(s.levels[i].slot, PHASE_TOTAL, now - s.levels[i].began_ns, s.error, copy);
	}
	return 0;
}

#define MOST_BIOS 512 /* of a request */

/*
 * A request has ended, or a part of it: its bios have that come so far, of whose ends the kernel does
 * not tell by themselves. With a sequence of flushes, they end with it.
 */
static __always_inline int bio_request_ended(const struct request *rq, __u64 status, __u32 bytes)
{
	const __u64 copy = copy_number();
	__u64 now = bpf_ktime_get_ns();
	struct bio *bio = BPF_CORE_READ(rq, bio);
	__s32 error = error_of(status);

	if (seen_already(COMPLETED, (__u64)rq, copy) ||
	    (BPF_CORE_READ(rq, rq_flags) & flush_sequence))
		return 0;
	for (int i = 0; i < MOST_BIOS; i++) {
		__u32 size;

		if (!bio)
			return 0;
		size = BPF_CORE_READ(bio, bi_iter.bi_size);
		if (size > bytes)
			return 0;
		bytes -= size;
		bio_done((__u64)bio, now, error, 0, copy);
		bio = BPF_CORE_READ(bio, bi_next);
	}
	return bio ? count_lost(LOST_END_UNSEEN) : 0;
}

/* A bio has ended that was in no request. */
static __always_inline int bio_ended(const struct bio *bio)
{
	__u64 id = __builtin_bswap64((__u64)bio);

	/* Swapped and swapped back, it is a number to the verifier, and not a pointer. */
	barrier_var(id);
	return bio_done(__builtin_bswap64(id), bpf_ktime_get_ns(), BPF_CORE_READ(bio, bi_status), 1,
			copy_number());
}

/*
 * An argument, with the queue before it or not. The verifier follows only one of the branches, and
 * takes no computed place in ctx.
 */
static __always_inline void *argument(const __u64 *ctx, const int index, const bool behind_queue)
{
	void *arg;

	if (behind_queue) {
		arg = (void *)ctx[index + 1];
		barrier_var(arg);
	} else {
		arg = (void *)ctx[index];
		barrier_var(arg);
	}
	return arg;
}

SEC("tp_btf/block_rq_insert")
int insert_tp(__u64 *ctx)
{
	return made(argument(ctx, 0, queue_first), false);
}

SEC("raw_tp/block_rq_insert")
int insert_raw(__u64 *ctx)
{
	return made(argument(ctx, 0, queue_first), false);
}

SEC("tp_btf/block_io_start")
int io_start_tp(__u64 *ctx)
{
	return made((void *)ctx[0], true);
}

SEC("raw_tp/block_io_start")
int io_start_raw(__u64 *ctx)
{
	return made((void *)ctx[0], true);
}

SEC("tp_btf/block_rq_issue")
int issue_tp(__u64 *ctx)
{
	return issued(argument(ctx, 0, queue_first));
}

SEC("raw_tp/block_rq_issue")
int issue_raw(__u64 *ctx)
{
	return issued(argument(ctx, 0, queue_first));
}

SEC("tp_btf/block_rq_requeue")
int requeue_tp(__u64 *ctx)
{
	return requeued(argument(ctx, 0, queue_first));
}

SEC("raw_tp/block_rq_requeue")
int requeue_raw(__u64 *ctx)
{
	return requeued(argument(ctx, 0, queue_first));
}

SEC("tp_btf/block_rq_merge")
int merge_tp(__u64 *ctx)
{
	return merged(argument(ctx, 0, queue_first));
}

SEC("raw_tp/block_rq_merge")
int merge_raw(__u64 *ctx)
{
	return merged(argument(ctx, 0, queue_first));
}

SEC("tp_btf/block_rq_complete")
int complete_tp(__u64 *ctx)
{
	return completed((void *)ctx[0], ctx[1], ctx[2]);
}

SEC("raw_tp/block_rq_complete")
int complete_raw(__u64 *ctx)
{
	return completed((void *)ctx[0], ctx[1], ctx[2]);
}

SEC("tp_btf/block_bio_queue")
int bio_queue_tp(__u64 *ctx)
{
	return bio_queued(argument(ctx, 0, bio_queue_first));
}

SEC("raw_tp/block_bio_queue")
int bio_queue_raw(__u64 *ctx)
{
	return bio_queued(argument(ctx, 0, bio_queue_first));
}

SEC("tp_btf/block_bio_queue")
int bio_begin_tp(__u64 *ctx)
{
	return bio_began(argument(ctx, 0, bio_queue_first));
}

SEC("raw_tp/block_bio_queue")
int bio_begin_raw(__u64 *ctx)
{
	return bio_began(argument(ctx, 0, bio_queue_first));
}

SEC("tp_btf/block_bio_remap")
int bio_remap_tp(__u64 *ctx)
{
	return bio_remapped(argument(ctx, 0, remap_queue_first),
			    (__u64)argument(ctx, 1, remap_queue_first));
}

SEC("raw_tp/block_bio_remap")
int bio_remap_raw(__u64 *ctx)
{
	return bio_remapped(argument(ctx, 0, remap_queue_first),
			    (__u64)argument(ctx, 1, remap_queue_first));
}

SEC("tp_btf/block_split")
int bio_split_tp(__u64 *ctx)
{
	return bio_was_split(argument(ctx, 0, split_queue_first));
}

SEC("raw_tp/block_split")
int bio_split_raw(__u64 *ctx)
{
	return bio_was_split(argument(ctx, 0, split_queue_first));
}

SEC("tp_btf/block_rq_complete")
int bio_request_tp(__u64 *ctx)
{
	return bio_request_ended((void *)ctx[0], ctx[1], ctx[2]);
}

SEC("raw_tp/block_rq_complete")
int bio_request_raw(__u64 *ctx)
{
	return bio_request_ended((void *)ctx[0], ctx[1], ctx[2]);
}

SEC("tp_btf/block_bio_complete")
int bio_end_tp(__u64 *ctx)
{
	return bio_ended((void *)ctx[1]);
}

SEC("raw_tp/block_bio_complete")
int bio_end_raw(__u64 *ctx)
{
	return bio_ended((void *)ctx[1]);
}

/* For the tests: which bucket a number is counted in. */
SEC("raw_tp/call")
int bucket_call(__u64 *ctx)
{
	return histogram_bucket(ctx[0]);
}
