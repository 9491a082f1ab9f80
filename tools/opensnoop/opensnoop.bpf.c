//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "events.bpf.h"
#include "filter.bpf.h"
#include "follow.bpf.h"
#include "paths.bpf.h"
#include "syscall.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define O_ACCMODE 3
#define O_CREAT 0100
#define O_TRUNC 01000
#define O_WRONLY 1
#define AT_FDCWD -100
#define RESOLVE_IN_ROOT 0x10
#define PF_IO_WORKER 0x10

/* A path up to this long, with its NUL, takes the short way: from the BPF stack into the ring. */
#define SHORT_PATH 112

/* How a file was opened. */
enum via {
	VIA_NONE,
	VIA_OPEN,
	VIA_CREAT,
	VIA_OPENAT,
	VIA_OPENAT2,
	VIA_HANDLE,
	VIA_URING_OPENAT,
	VIA_URING_OPENAT2,
};

/* What is to be known of an event. */
enum mark {
	MARK_COMPAT = 1,     /* by a 32-bit program */
	MARK_UNREADABLE = 2, /* the path could not be read from the program's memory */
	MARK_PATH_CUT = 4,   /* the path goes on */
	MARK_BASE = 8,	     /* the names are those of the directory that path starts from */
	MARK_SUBMITTED = 16, /* an io_uring request that has begun: the result comes later */
	MARK_COMPLETED = 32, /* an io_uring request that has ended: its beginning came earlier */
	MARK_IN_ROOT = 64,   /* RESOLVE_IN_ROOT: "/" is the base */
	MARK_NAMES = 128,    /* the names were walked: none of them is the root itself */
};

/* No padding. Behind it stand path_len bytes of path, then names_len bytes of names, leaf first. */
struct event {
	__u64 time_ns;	  /* since boot */
	__u64 latency_ns; /* 0 if it is not known */
	__u64 cgroup_id;
	__u64 flags;
	__u64 request; /* the io_uring request, or 0 */
	__u32 pid, tid, ppid, uid;
	__s32 ret; /* a descriptor, or a negative errno */
	__u32 mode;
	__u32 dev; /* of the names, if they start at the root of its file system */
	__u16 path_len, names_len;
	__u8 via, marks, names_marks, unused;
	__u32 mntns;
	__u8 comm[TASK_COMM_LEN];
};

/* A record put together on the BPF stack. */
struct short_record {
	struct event e;
	__u8 path[SHORT_PATH];
};

const volatile bool filter_failed = false;
const volatile __u64 filter_latency_ns = 0;
/* A call is wanted if it has all bits of one of the masks, or one of the access modes. */
const volatile __u32 filter_flag_count = 0;
const volatile __u32 filter_flag_masks[16] = {};
const volatile __u8 filter_access_modes = 0;
const volatile __u32 filter_prefix_len = 0;
const volatile __u8 filter_prefix[SHORT_PATH] = {};

const volatile bool want_latency = false;
const volatile bool want_details = false; /* what only JSON shows */
const volatile bool want_full_path = false;

/* Whether io_uring_complete has the result as its fourth argument (5.19), or a cqe as its third (6.15). */
const volatile bool uring_complete_has_result = false;

/* The functions and tracepoints below as this file takes them; user space compares with the kernel's. */
const volatile struct {
	long (*syscall)(const struct pt_regs *);
	void (*sys_enter)(struct pt_regs *, long);
	void (*sys_exit)(struct pt_regs *, long);
	void (*io_uring_submit_req)(struct io_kiocb *);
	void (*io_uring_submit_sqe)(struct io_kiocb *);
	void (*io_uring_req_failed)(const struct io_uring_sqe *, struct io_kiocb *, int);
} prototypes;

/* A call that has begun. */
struct begun {
	__u64 time_ns;
	const struct pt_regs *regs; /* for the kretprobe, which is not given them */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct begun);
} calls SEC(".maps");

struct begun_request {
	__u64 time_ns;
	__u32 pid;
	__u32 unused;
};

/* The io_uring requests that have begun. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct begun_request);
} requests SEC(".maps");

/* What was asked of the kernel. */
struct call {
	const void *path;
	__u64 flags;
	__u32 mode;
	__s32 dirfd;
	__u8 via;
	__u8 kernel_path; /* path is in kernel memory already */
	__u8 in_root;
	__u8 unused;
};

/* Puts these into the object's types, from which the Go ones are made. */
const volatile struct {
	struct event *event;
	enum via *via;
	enum mark *mark;
	enum path_mark *path_mark;
} types;

static __always_inline __u8 via_of(__s32 nr, bool compat)
{
#if defined(__TARGET_ARCH_x86)
	if (compat) {
		switch (nr) {
		case 5: return VIA_OPEN;
		case 8: return VIA_CREAT;
		case 295: return VIA_OPENAT;
		case 437: return VIA_OPENAT2;
		case 342: return VIA_HANDLE;
		}
		return VIA_NONE;
	}
	switch (nr) {
	case 2: return VIA_OPEN;
	case 85: return VIA_CREAT;
	case 257: return VIA_OPENAT;
	case 437: return VIA_OPENAT2;
	case 304: return VIA_HANDLE;
	}
#else
	if (compat) {
		switch (nr) {
		case 5: return VIA_OPEN;
		case 8: return VIA_CREAT;
		case 322: return VIA_OPENAT;
		case 437: return VIA_OPENAT2;
		case 371: return VIA_HANDLE;
		}
		return VIA_NONE;
	}
	switch (nr) {
	case 56: return VIA_OPENAT;
	case 437: return VIA_OPENAT2;
	case 265: return VIA_HANDLE;
	}
#endif
	return VIA_NONE;
}

/* Whether nr can be an open at all: asked at every system call, so it must be quick. */
static __always_inline bool may_open(__s32 nr)
{
	return via_of(nr, false) || via_of(nr, true);
}

static __always_inline void call_of(struct call *c, const struct pt_regs *regs, __u8 via,
				    bool compat, const bool known)
{
	struct syscall_args args = syscall_arguments(regs, compat, known);
	struct open_how how = {};

	c->via = via;
	c->dirfd = AT_FDCWD;
	c->mode = 0;
	c->kernel_path = 0;
	c->in_root = 0;
	switch (via) {
	case VIA_OPEN:
		c->path = (void *)args.a[0];
		c->flags = (__u32)args.a[1];
		c->mode = args.a[2];
		break;
	case VIA_CREAT:
		c->path = (void *)args.a[0];
		c->flags = O_CREAT | O_WRONLY | O_TRUNC;
		c->mode = args.a[1];
		break;
	case VIA_OPENAT:
		c->dirfd = args.a[0];
		c->path = (void *)args.a[1];
		c->flags = (__u32)args.a[2];
		c->mode = args.a[3];
		break;
	case VIA_OPENAT2:
		c->dirfd = args.a[0];
		c->path = (void *)args.a[1];
		bpf_probe_read_user(&how, sizeof(how), (void *)args.a[2]);
		c->flags = how.flags;
		c->mode = how.mode;
		c->in_root = !!(how.resolve & RESOLVE_IN_ROOT);
		break;
	default: /* VIA_HANDLE: no path, and the directory only names a file system */
		c->path = NULL;
		c->flags = (__u32)args.a[2];
		break;
	}
}

static __always_inline bool flags_wanted(__u64 flags)
{
	if (!filter_flag_count && !filter_access_modes)
		return true;
	if (filter_access_modes >> (flags & O_ACCMODE) & 1)
		return true;
	for (__u32 i = 0; i < 16; i++) {
		if (i >= filter_flag_count)
			break;
		if ((flags & filter_flag_masks[i]) == filter_flag_masks[i])
			return true;
	}
	return false;
}

/* path has at least SHORT_PATH bytes. */
static __always_inline bool prefix_wanted(const __u8 *path)
{
	for (__u32 i = 0; i < SHORT_PATH - 1; i++) {
		if (i >= filter_prefix_len)
			break;
		if (path[i] != filter_prefix[i])
			return false;
	}
	return true;
}

static __always_inline long read_path(void *to, __u32 size, const struct call *c)
{
	if (!c->path)
		return -1;
	return c->kernel_path ? bpf_probe_read_kernel_str(to, size, c->path) :
				bpf_probe_read_user_str(to, size, c->path);
}

/* Fills in all but ret, latency_ns, request and what belongs to the path. */
static __always_inline void describe(struct event *e, const struct call *c)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	e->time_ns = bpf_ktime_get_boot_ns();
	e->pid = current_pid();
	e->tid = current_tid();
	e->uid = bpf_get_current_uid_gid();
	e->ppid = 0;
	e->cgroup_id = 0;
	if (want_details) {
		e->ppid = pid_of(BPF_CORE_READ(task, real_parent));
		e->cgroup_id = bpf_get_current_cgroup_id();
	}
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->flags = c->flags;
	e->mode = c->mode;
	e->via = c->via;
	e->marks = c->in_root ? MARK_IN_ROOT : 0;
	e->names_marks = 0;
	e->path_len = 0;
	e->names_len = 0;
	e->dev = 0;
	e->mntns = 0;
	e->unused = 0;
}

/* The path that the names are to be walked from: the file's own, or its directory's. */
static __always_inline int names_start(struct path *start, struct event *e, const struct call *c,
				       __u8 first)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct file *file;

	if (e->ret >= 0 && !(e->marks & MARK_SUBMITTED)) {
		file = file_of(e->ret);
		if (!file)
			return -1;
		return bpf_core_read(start, sizeof(*start), &file->f_path);
	}
	e->marks |= MARK_BASE;
	if (first == '/' && !c->in_root) {
		if (!path_root_host) /* the path says it all */
			return -1;
		return bpf_core_read(start, sizeof(*start), &fs->root);
	}
	if (c->dirfd == AT_FDCWD)
		return bpf_core_read(start, sizeof(*start), &fs->pwd);
	file = file_of(c->dirfd);
	if (!file)
		return -1;
	return bpf_core_read(start, sizeof(*start), &file->f_path);
}

/* Sends an event with a long path, or with names. Returns 0 if it was sent. */
static __noinline int send_long(const struct event *head, const struct call *c)
{
	struct path start;
	struct scratch *s;
	struct event *e;
	__u32 slot, off = sizeof(struct event), end;
	__u8 first = 0;
	long n;

	if (scratch_take(&slot))
		return -1;
	s = bpf_map_lookup_elem(&scratch_slots, &slot);
	if (!s) /* can't be: the list holds no other numbers */
		return -1;
	e = (struct event *)s->record;
	*e = *head;
	if (!(e->marks & MARK_COMPLETED)) {
		/* With a byte more than a path can have, so that the longest is told from a longer one. */
		n = read_path(&s->record[sizeof(struct event)], PATH_MAX + 1, c);
		if (n > PATH_MAX) {
			n = PATH_MAX;
			e->marks |= MARK_PATH_CUT;
		}
		/* Of an empty string 6.12 and older say 0, and not the 1 of its NUL. */
		if (!n)
			n = 1;
		if (n > 0) {
			off += n - 1;
			e->path_len = n - 1;
			first = s->record[sizeof(struct event)];
		} else if (c->via != VIA_HANDLE) {
			e->marks |= MARK_UNREADABLE;
		}
	}
	end = off;
	if ((want_full_path || !e->path_len) && !names_start(&start, e, c, first)) {
		end = path_walk(slot, s, &start, off);
		e->names_marks = s->walk.marks;
		e->marks |= MARK_NAMES;
		if (end >= off && end <= SCRATCH_SIZE)
			e->names_len = end - off;
		if (e->names_marks & PATH_WHOLE_FS) {
			e->dev = BPF_CORE_READ(start.dentry, d_sb, s_dev);
			e->mntns = mount_namespace((void *)bpf_get_current_task());
		}
	}
	if (end > SCRATCH_SIZE)
		end = SCRATCH_SIZE;
	n = event_send(s->record, end);
	scratch_give_back(slot);
	return n;
}

/*
 * The body of every hook: a call has come to its end, or an io_uring request to its beginning.
 * Returns 0 if it was sent.
 */
static __always_inline int send(struct short_record *r, const struct call *c)
{
	long n;

	if (want_full_path)
		return send_long(&r->e, c);
	n = read_path(r->path, sizeof(r->path), c);
	if (n <= 1 || n >= SHORT_PATH)
		return send_long(&r->e, c);
	if (filter_prefix_len && !prefix_wanted(r->path))
		return -1;
	r->e.path_len = n - 1;
	return event_send(r, sizeof(r->e) + n - 1);
}

static __always_inline int begin(const struct pt_regs *regs, const bool needed)
{
	struct begun b = { .time_ns = bpf_ktime_get_ns(), .regs = regs };
	__u64 id = bpf_get_current_pid_tgid();
	long err;

	if (!task_wanted())
		return 0;
	err = bpf_map_update_elem(&calls, &id, &b, BPF_NOEXIST);
	if (!err)
		return 0;
	/* An entry still there is that of a call whose return was missed. */
	if (bpf_map_update_elem(&calls, &id, &b, BPF_EXIST)) {
		if (needed)
			count_lost(LOST_INFLIGHT_FULL);
	} else if (needed) {
		count_lost(LOST_RETURN_MISSED);
	}
	return 0;
}

static __always_inline int end(const struct pt_regs *regs, __s32 ret, __u8 via, bool compat,
			       const bool known)
{
	struct short_record r;
	struct call c;
	__u64 id;

	if (!task_wanted())
		return 0;
	r.e.latency_ns = 0;
	if (want_latency) {
		struct begun *b;

		id = bpf_get_current_pid_tgid();
		b = bpf_map_lookup_elem(&calls, &id);
		if (b) {
			r.e.latency_ns = bpf_ktime_get_ns() - b->time_ns;
			bpf_map_delete_elem(&calls, &id);
		}
	}
	if (filter_failed && ret >= 0)
		return 0;
	if (filter_latency_ns && r.e.latency_ns < filter_latency_ns)
		return 0;
	call_of(&c, regs, via, compat, known);
	if (!flags_wanted(c.flags))
		return 0;
	r.e.ret = ret;
	r.e.request = 0;
	describe(&r.e, &c);
	if (compat)
		r.e.marks |= MARK_COMPAT;
	send(&r, &c);
	return 0;
}

/* The end of a call in kprobe mode, where the registers are those kept at its beginning. */
static __always_inline int end_kept(__s32 ret, __u8 via, bool compat)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct begun *b = bpf_map_lookup_elem(&calls, &id);
	const struct pt_regs *regs;

	if (!b) /* not wanted, or it began before we did, or it was counted as lost */
		return 0;
	regs = b->regs;
	end(regs, ret, via, compat, false);
	bpf_map_delete_elem(&calls, &id);
	return 0;
}

/*
 * The functions behind the system calls, in the modes fentry and kprobe. On arm64 some serve 32-bit
 * programs too, so there the task is asked.
 */
#if defined(__TARGET_ARCH_x86)
#define COMPAT_NO false
#define COMPAT_MAYBE false
#else
#define COMPAT_NO in_compat_syscall(false)
#define COMPAT_MAYBE in_compat_syscall(false)
#endif

#define SYSCALL_HOOKS(name, fn, via, compat)                            \
	SEC("fentry/" fn)                                               \
	int BPF_PROG(name##_fentry, const struct pt_regs *regs)         \
	{                                                               \
		return begin(regs, false);                              \
	}                                                               \
	SEC("fexit/" fn)                                                \
	int BPF_PROG(name##_fexit, const struct pt_regs *regs, int ret) \
	{                                                               \
		return end(regs, ret, via, compat, true);               \
	}                                                               \
	SEC("kprobe/" fn)                                               \
	int BPF_KPROBE(name##_kprobe, const struct pt_regs *regs)       \
	{                                                               \
		return begin(regs, true);                               \
	}                                                               \
	SEC("kretprobe/" fn)                                            \
	int BPF_KRETPROBE(name##_kretprobe, int ret)                    \
	{                                                               \
		return end_kept(ret, via, compat);                      \
	}

SYSCALL_HOOKS(open, SYSCALL_FN(open), VIA_OPEN, COMPAT_NO)
SYSCALL_HOOKS(creat, SYSCALL_FN(creat), VIA_CREAT, COMPAT_MAYBE)
SYSCALL_HOOKS(openat, SYSCALL_FN(openat), VIA_OPENAT, COMPAT_NO)
SYSCALL_HOOKS(openat2, SYSCALL_FN(openat2), VIA_OPENAT2, COMPAT_MAYBE)
SYSCALL_HOOKS(handle, SYSCALL_FN(open_by_handle_at), VIA_HANDLE, COMPAT_NO)
SYSCALL_HOOKS(open32, COMPAT_FN(open), VIA_OPEN, true)
SYSCALL_HOOKS(openat32, COMPAT_FN(openat), VIA_OPENAT, true)
SYSCALL_HOOKS(handle32, COMPAT_FN(open_by_handle_at), VIA_HANDLE, true)
#if defined(__TARGET_ARCH_x86)
SYSCALL_HOOKS(creat32, SYSCALL32_FN(creat), VIA_CREAT, true)
SYSCALL_HOOKS(openat2_32, SYSCALL32_FN(openat2), VIA_OPENAT2, true)
#endif

/* All system calls, in tracepoint mode. */
static __always_inline int syscall_begins(const struct pt_regs *regs, __s32 nr)
{
	nr &= ~X32_BIT;
	if (!may_open(nr) || !via_of(nr, in_compat_syscall(false)))
		return 0;
	return begin(regs, false);
}

static __always_inline int syscall_ends(const struct pt_regs *regs, __s32 ret, const bool known)
{
	__s32 nr = syscall_number(regs, known);
	bool compat;
	__u8 via;

	if (!may_open(nr))
		return 0;
	compat = in_compat_syscall(known);
	via = via_of(nr, compat);
	return via ? end(regs, ret, via, compat, known) : 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter_tp, struct pt_regs *regs, long nr)
{
	return syscall_begins(regs, nr);
}

SEC("raw_tp/sys_enter")
int BPF_PROG(sys_enter_raw, struct pt_regs *regs, long nr)
{
	return syscall_begins(regs, nr);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit_tp, struct pt_regs *regs, long ret)
{
	return syscall_ends(regs, ret, true);
}

SEC("raw_tp/sys_exit")
int BPF_PROG(sys_exit_raw, struct pt_regs *regs, long ret)
{
	return syscall_ends(regs, ret, false);
}

/*
 * io_uring: a request begins in the task that asked for it, or in the ring's own thread, and ends
 * anywhere. By its end the path is gone, so it is sent at its beginning, and user space joins the two.
 */
static __always_inline __u8 via_of_opcode(__u8 opcode)
{
	/* io_uring's user API: IORING_OP_OPENAT and IORING_OP_OPENAT2. */
	return opcode == 18 ? VIA_URING_OPENAT : opcode == 28 ? VIA_URING_OPENAT2 : VIA_NONE;
}

static __always_inline bool opens(const struct io_kiocb *req, __u8 *via)
{
	*via = via_of_opcode(BPF_CORE_READ(req, opcode));
	return *via != VIA_NONE;
}

/* The name that a request is to open: in kernel memory, for it was read when the request was made. */
static __always_inline const char *name_of(struct io_open *open)
{
	struct io_open___delayed *delayed = (void *)open;

	if (bpf_core_field_exists(delayed->filename.__incomplete_filename))
		return BPF_CORE_READ(delayed, filename.__incomplete_filename, name);
	return BPF_CORE_READ(open, filename, name);
}

/* A worker of io_uring is named for its work; the process's name is its leader's. */
static __always_inline void describe_worker(struct event *e)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (BPF_CORE_READ(task, flags) & PF_IO_WORKER)
		BPF_CORE_READ_STR_INTO(&e->comm, task, group_leader, comm);
}

static __always_inline int request_begins(struct io_kiocb *req)
{
	struct begun_request b = {};
	struct io_open *open = (void *)&req->cmd;
	struct short_record r;
	struct call c = {};
	__u64 key = (__u64)req;

	if (!opens(req, &c.via) || !task_wanted())
		return 0;
	c.path = name_of(open);
	c.kernel_path = 1;
	c.dirfd = BPF_CORE_READ(open, dfd);
	c.flags = BPF_CORE_READ(open, how.flags);
	c.mode = BPF_CORE_READ(open, how.mode);
	c.in_root = !!(BPF_CORE_READ(open, how.resolve) & RESOLVE_IN_ROOT);
	if (!flags_wanted(c.flags))
		return 0;
	b.time_ns = bpf_ktime_get_ns();
	b.pid = current_pid();
	if (bpf_map_update_elem(&requests, &key, &b, BPF_NOEXIST)) {
		/* The request before it in the same place ended unseen, as IOSQE_CQE_SKIP_SUCCESS makes it. */
		if (bpf_map_update_elem(&requests, &key, &b, BPF_EXIST))
			return count_lost(LOST_INFLIGHT_FULL);
		count_lost(LOST_RETURN_MISSED);
	}
	r.e.ret = 0;
	r.e.latency_ns = 0;
	r.e.request = key;
	describe(&r.e, &c);
	describe_worker(&r.e);
	r.e.marks |= MARK_SUBMITTED;
	if (send(&r, &c)) /* without its beginning, its end says nothing */
		bpf_map_delete_elem(&requests, &key);
	return 0;
}

/* A request that could not even begin: its path was empty, too long or unreadable. */
static __always_inline int request_fails(const struct io_uring_sqe *sqe, __s32 error)
{
	struct short_record r;
	struct call c = {};
	struct open_how how = {};

	c.via = via_of_opcode(BPF_CORE_READ(sqe, opcode));
	if (!c.via || !task_wanted() || filter_latency_ns)
		return 0;
	c.path = (void *)BPF_CORE_READ(sqe, addr);
	c.dirfd = BPF_CORE_READ(sqe, fd);
	if (c.via == VIA_URING_OPENAT2) {
		bpf_probe_read_user(&how, sizeof(how), (void *)BPF_CORE_READ(sqe, off));
		c.flags = how.flags;
		c.mode = how.mode;
	} else {
		c.flags = BPF_CORE_READ(sqe, open_flags);
		c.mode = BPF_CORE_READ(sqe, len);
	}
	if (!flags_wanted(c.flags))
		return 0;
	r.e.ret = error;
	r.e.latency_ns = 0;
	r.e.request = 0;
	describe(&r.e, &c);
	describe_worker(&r.e);
	send(&r, &c);
	return 0;
}

static __always_inline int request_ends(const struct io_kiocb *req, __s32 ret)
{
	__u64 key = (__u64)req;
	struct begun_request *b = bpf_map_lookup_elem(&requests, &key);
	struct event e;
	struct call c = {};
	__u32 pid;

	if (!b)
		return 0;
	e.latency_ns = bpf_ktime_get_ns() - b->time_ns;
	pid = b->pid;
	bpf_map_delete_elem(&requests, &key);
	if (!opens(req, &c.via)) /* the request of an open that ended unseen, used again */
		return count_lost(LOST_RETURN_MISSED);
	e.ret = ret;
	e.request = key;
	describe(&e, &c);
	e.marks |= MARK_COMPLETED;
	if (want_full_path && ret >= 0 && current_pid() == pid)
		return send_long(&e, &c);
	event_send(&e, sizeof(e));
	return 0;
}

SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(uring_submit_tp, struct io_kiocb *req)
{
	return request_begins(req);
}

SEC("raw_tp/io_uring_submit_req")
int BPF_PROG(uring_submit_raw, struct io_kiocb *req)
{
	return request_begins(req);
}

/* The name until 6.3; with such an argument since 5.19 */
SEC("tp_btf/io_uring_submit_sqe")
int BPF_PROG(uring_submit_old_tp, struct io_kiocb *req)
{
	return request_begins(req);
}

SEC("raw_tp/io_uring_submit_sqe")
int BPF_PROG(uring_submit_old_raw, struct io_kiocb *req)
{
	return request_begins(req);
}

static __always_inline int uring_completes(unsigned long long *ctx)
{
	struct io_uring_cqe *cqe;

	if (uring_complete_has_result)
		return request_ends((void *)ctx[1], ctx[3]);
	cqe = (void *)ctx[2];
	return request_ends((void *)ctx[1], BPF_CORE_READ(cqe, res));
}

SEC("tp_btf/io_uring_complete")
int uring_complete_tp(unsigned long long *ctx)
{
	return uring_completes(ctx);
}

SEC("raw_tp/io_uring_complete")
int uring_complete_raw(unsigned long long *ctx)
{
	return uring_completes(ctx);
}

SEC("tp_btf/io_uring_req_failed")
int BPF_PROG(uring_failed_tp, const struct io_uring_sqe *sqe, struct io_kiocb *req, int error)
{
	return request_fails(sqe, error);
}

SEC("raw_tp/io_uring_req_failed")
int BPF_PROG(uring_failed_raw, const struct io_uring_sqe *sqe, struct io_kiocb *req, int error)
{
	return request_fails(sqe, error);
}
