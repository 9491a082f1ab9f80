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

/* So much of the arguments or the environment goes into one record. */
#define CHUNK 4096
/* So much of an argument is read at a time. */
#define PIECE 1024
#define MAX_ANCESTORS 32
#define TTY_LEN 16
/* The kernel keeps no more of an interpreter's path (BINPRM_BUF_SIZE). */
#define INTERP_LEN 256
#define UNSET 0xffffffff
#define SIGNAL_GROUP_EXIT 4
#define EXIT_ZOMBIE 0x20
/* A name that the kernel takes has up to 4,095 bytes; execveat() puts /dev/fd/N/ before it. */
#define NAME_SIZE (PATH_MAX + 32)

/* What a record is. All but the last two are parts that come before the exec that they belong to. */
enum kind {
	KIND_ARGS,	/* a piece of the arguments: strings with their NULs */
	KIND_ENV,	/* a piece of the environment */
	KIND_EXE,	/* the names of the file that runs, leaf first */
	KIND_CWD,	/* those of the working directory */
	KIND_ANCESTORS, /* struct ancestor, the parent first */
	KIND_EXEC,	/* struct exec, with what is left of the arguments behind it */
	KIND_EXIT,	/* struct exit */
	KIND_TIMES,	/* struct times */
};

enum mark {
	MARK_COMPAT = 1,   /* by a 32-bit program */
	MARK_EXECVEAT = 2, /* a failed execveat(), not execve(): of one that worked, nobody knows */
	MARK_UNREADABLE = 4, /* arguments could not be read from the program's memory */
	MARK_NO_NAME = 8,    /* nor could the file's name */
	MARK_NAME_CUT = 16,  /* the file's name goes on: the kernel refuses such a one */
};

/* What times_call gives. 0 is what the kernel gives if it does not run the program. */
enum answer {
	ANSWER_SENT = 1, /* the times are on their way */
	ANSWER_LATER,	 /* they are not complete yet */
	ANSWER_GONE,	 /* the process is no longer in the kernel's memory */
};

/* The head of a part. */
struct part {
	__u64 id; /* of the exec */
	__u8 kind;
	__u8 marks; /* enum path_mark, of names */
	__u16 unused;
	__u32 dev;
};

struct ancestor {
	__u64 start_ns;
	__u32 pid, unused;
	__u8 comm[TASK_COMM_LEN];
};

/* No padding. Behind it: the file's name, the interpreter's name, arguments. */
struct exec {
	__u64 id; /* the same in the exit; must come first */
	__u8 kind;
	__u8 marks;
	__u16 filename_len, interp_len, args_len;
	__u64 time_ns;
	__u64 start_ns; /* of the process */
	__u64 cgroup_id;
	__u64 args_bytes; /* in all, read or not */
	__u64 env_bytes;
	__u32 pid, tid, ppid, uid;
	__s32 ret;
	__u32 argc, cpu;
	__u32 loginuid, sessionid; /* UNSET if there is none */
	__u32 unused;
	__u8 comm[TASK_COMM_LEN];
	__u8 parent_comm[TASK_COMM_LEN];
	__u8 tty[TTY_LEN];
};

/* The end of a process. */
struct exit {
	__u64 id;
	__u8 kind, unused[3];
	__s32 code; /* as wait(2) gives it */
	__u64 time_ns, start_ns;
	__u64 cgroup_id;
	__u64 leader; /* its struct task_struct, for times_call */
	__u64 max_rss_pages;
	__u32 pid, ppid, uid, tid;
	__u8 comm[TASK_COMM_LEN];
	__u8 parent_comm[TASK_COMM_LEN];
};

/* What a process used. It comes when that is complete: some time after its end. */
struct times {
	__u64 id;
	__u8 kind, unused[7];
	__u64 user_ns, system_ns; /* by the tick, so only their ratio is good */
	__u64 runtime_ns;	  /* exact */
};

const volatile __u32 filter_ppid = 0;
const volatile __u32 max_bytes = 128 * 1024;
const volatile bool want_env = false;
const volatile bool want_exe = false;
const volatile bool want_cwd = false;
const volatile __u32 want_ancestors = 0;

/* The functions and tracepoints below as this file takes them; user space compares with the kernel's. */
const volatile struct {
	long (*syscall)(const struct pt_regs *);
	void (*sys_exit)(struct pt_regs *, long);
	void (*sched_process_exec)(struct task_struct *, int, struct linux_binprm *);
	void (*sched_process_exit)(struct task_struct *);
	void (*sched_process_free)(struct task_struct *);
} prototypes;

/* Puts these into the object's types, from which the Go ones are made. */
const volatile struct {
	struct part part;
	struct ancestor ancestor;
	struct exec exec;
	struct exit exit;
	struct times times;
	enum kind kind;
	enum mark mark;
	enum answer answer;
} types;

/* A call that has begun, in the modes fentry and kprobe. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, __u64);
	__type(value, __u64); /* the pt_regs */
} calls SEC(".maps");

static __always_inline void forget_call(__u32 tid)
{
	__u64 id = (bpf_get_current_pid_tgid() & ~0xffffffffull) | tid;

	bpf_map_delete_elem(&calls, &id);
}

/* A walk along the arguments that a failed call was given; one for each scratch buffer. */
struct args_walk {
	__u64 argv;  /* where the next pointer is */
	__u64 arg;   /* what is left of the argument at hand, or 0 */
	__u64 bytes; /* in all */
	__u64 id;
	__u32 argc;
	__u32 len; /* in the record */
	__u8 compat, unreadable, failed, unused[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct args_walk);
} args_walks SEC(".maps");

/*
 * What is still to be sent of a process's memory; one for each scratch buffer. It is not on the stack
 * because the verifier then follows the number through each turn of the loop, and gives up at 8 MiB.
 */
struct sending {
	__u64 id;
	__u64 from;
	__u64 left;
	__u32 kind;
	__u32 failed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct sending);
} sendings SEC(".maps");

/*
 * What was reported last of each thread, by its number: of the spares of a program, the first that
 * runs reports an event. Threads may share a slot, and then one event is reported again, which user
 * space finds out.
 */
#define REPORTED_SLOTS 8192
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REPORTED_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} reported SEC(".maps");

/*
 * Whether an event was reported, or is now to be. This comes before anything is taken that an event
 * may be lost for the want of, so that it is not lost by each of the spares.
 */
static __always_inline bool again(const struct task_struct *task, __u64 event)
{
	__u32 slot = (__u32)BPF_CORE_READ(task, pid) % REPORTED_SLOTS;
	__u64 *last = bpf_map_lookup_elem(&reported, &slot);

	if (!last || *last == event)
		return true;
	*last = event;
	return false;
}

/* Tells one run of a program from every other, with nothing to remember about it. */
static __always_inline __u64 id_of(const struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	return (BPF_CORE_READ(leader, start_boottime) ^ (__u64)BPF_CORE_READ(leader, tgid) << 42) +
	       BPF_CORE_READ(leader, self_exec_id) * 0x9e3779b97f4a7c15;
}

static __always_inline void part_head(struct scratch *s, __u64 id, __u8 kind)
{
	struct part *p = (struct part *)s->record;

	p->id = id;
	p->kind = kind;
	p->marks = 0;
	p->unused = 0;
	p->dev = 0;
}

/*
 * Loops stand within each other, each in a global function: the verifier then goes through the turns
 * of each once, and not through those of all.
 */
static __always_inline int send_step(struct sending *m, struct scratch *s)
{
	if (m->left <= CHUNK)
		return 1;
	part_head(s, m->id, m->kind);
	if (bpf_probe_read_user(&s->record[sizeof(struct part)], CHUNK, (void *)m->from))
		return 1; /* with more left than a record has room for: it can't be read */
	if (event_send(s->record, sizeof(struct part) + CHUNK)) {
		m->failed = 1;
		return 1;
	}
	m->from += CHUNK;
	m->left -= CHUNK;
	return 0;
}

__noinline int send_some_steps(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch_slots, &slot);
	struct sending *m = bpf_map_lookup_elem(&sendings, &slot);

	if (!s || !m)
		return 1;
	for (int i = 0; i < 4; i++)
		if (send_step(m, s))
			return 1;
	return 0;
}

__noinline int send_more_steps(__u32 slot)
{
	for (int i = 0; i < 32; i++)
		if (send_some_steps(slot))
			return 1;
	return 0;
}

__noinline int send_steps(__u32 slot)
{
	for (int i = 0; i < 32; i++)
		if (send_more_steps(slot))
			return 0;
	return 1;
}

/*
 * Sends what of a process's memory does not fit into the last record: all but the last CHUNK or less.
 * Returns how much of it remains, which is more than that if it can't be read, or a negative number
 * if something could not be sent.
 */
static __always_inline long send_memory(struct sending *m, __u32 slot, __u64 id, __u64 from,
					__u64 bytes, __u32 kind)
{
	m->id = id;
	m->from = from;
	m->left = bytes > max_bytes ? max_bytes : bytes;
	m->kind = kind;
	m->failed = 0;
	send_steps(slot);
	return m->failed ? -1 : m->left;
}

/* Sends the names of a path. Returns 0, or an error. */
static __noinline long send_names(struct scratch *s, __u32 slot, __u64 id, const struct path *path,
				  __u32 kind)
{
	struct part *p = (struct part *)s->record;
	__u32 end;

	part_head(s, id, kind);
	end = path_walk(slot, s, path, sizeof(struct part));
	if (end > SCRATCH_SIZE)
		end = SCRATCH_SIZE;
	p->marks = s->walk.marks;
	return event_send(s->record, end);
}

static __noinline long send_ancestors(struct scratch *s, __u64 id)
{
	struct task_struct *task = (void *)bpf_get_current_task(), *parent;
	struct ancestor *a = (void *)&s->record[sizeof(struct part)];
	__u32 n = 0;

	part_head(s, id, KIND_ANCESTORS);
	for (__u32 i = 0; i < MAX_ANCESTORS; i++) {
		if (i >= want_ancestors)
			break;
		parent = BPF_CORE_READ(task, real_parent, group_leader);
		if (!parent || parent == task || !BPF_CORE_READ(parent, tgid))
			break;
		a[i].start_ns = BPF_CORE_READ(parent, start_boottime);
		a[i].pid = pid_of(parent);
		a[i].unused = 0;
		BPF_CORE_READ_STR_INTO(&a[i].comm, parent, comm);
		task = parent;
		n = i + 1;
	}
	return event_send(s->record, sizeof(struct part) + n * sizeof(struct ancestor));
}

/* Sends what was asked for besides the arguments. Returns 0, or an error. */
static __always_inline long send_extras(struct scratch *s, __u32 slot, __u64 id, bool worked)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct path path;

	if (want_exe && worked) {
		struct file *file = BPF_CORE_READ(task, mm, exe_file);

		if (!bpf_core_read(&path, sizeof(path), &file->f_path) &&
		    send_names(s, slot, id, &path, KIND_EXE))
			return -1;
	}
	if (want_cwd) {
		struct fs_struct *fs = BPF_CORE_READ(task, fs);

		if (!bpf_core_read(&path, sizeof(path), &fs->pwd) &&
		    send_names(s, slot, id, &path, KIND_CWD))
			return -1;
	}
	if (want_ancestors && send_ancestors(s, id))
		return -1;
	return 0;
}

static __always_inline bool wanted(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (filter_ppid && pid_of(BPF_CORE_READ(task, real_parent)) != filter_ppid)
		return false;
	return task_wanted();
}

static __always_inline void describe(struct exec *e, __u64 id)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);
	struct tty_struct *tty = BPF_CORE_READ(task, signal, tty);

	e->id = id;
	e->kind = KIND_EXEC;
	e->marks = 0;
	e->filename_len = 0;
	e->interp_len = 0;
	e->args_len = 0;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	e->cgroup_id = bpf_get_current_cgroup_id();
	e->args_bytes = 0;
	e->env_bytes = 0;
	e->pid = current_pid();
	e->tid = current_tid();
	e->ppid = pid_of(parent);
	e->uid = bpf_get_current_uid_gid();
	e->ret = 0;
	e->argc = 0;
	e->cpu = bpf_get_smp_processor_id();
	e->loginuid = UNSET;
	e->sessionid = UNSET;
	e->unused = 0;
	if (bpf_core_field_exists(task->loginuid)) { /* CONFIG_AUDIT */
		e->loginuid = BPF_CORE_READ(task, loginuid.val);
		e->sessionid = BPF_CORE_READ(task, sessionid);
	}
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	BPF_CORE_READ_STR_INTO(&e->parent_comm, parent, comm);
	__builtin_memset(e->tty, 0, sizeof(e->tty));
	if (tty)
		BPF_CORE_READ_STR_INTO(&e->tty, tty, name);
}

/*
 * The length of a string that a helper has read into size bytes and returned n for, or 0. Lengths
 * have 64 bits throughout: between 32 and 64, the verifiers up to 6.12 forget what was compared.
 */
static __always_inline __u64 length(long n, __u32 size)
{
	__u64 len = n - 1;

	barrier_var(len); /* one comparison, and of what is used */
	return len < size ? len : 0;
}

/* An exec has worked: its arguments stand in the new memory, in one piece. */
static __always_inline int worked(struct linux_binprm *bprm, __u32 old_tid)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 from, bytes, id, left, len, off = sizeof(struct exec);
	struct sending *m;
	struct scratch *s;
	struct exec *e;
	__u32 slot;
	long n;

	/* A thread that execs takes the number of the first one, and its call ends under that. */
	if ((__u32)bpf_get_current_pid_tgid() != old_tid)
		forget_call(old_tid);
	if (!wanted())
		return 0;
	id = id_of(task);
	if (again(task, id) || scratch_take(&slot))
		return 0;
	s = bpf_map_lookup_elem(&scratch_slots, &slot);
	m = bpf_map_lookup_elem(&sendings, &slot);
	if (!s || !m)
		return 0;
	if (send_extras(s, slot, id, true))
		goto out;
	e = (struct exec *)s->record;
	if (want_env) {
		from = BPF_CORE_READ(mm, env_start);
		n = send_memory(m, slot, id, from, BPF_CORE_READ(mm, env_end) - from, KIND_ENV);
		if (n < 0)
			goto out;
		left = n;
		barrier_var(left);
		part_head(s, id, KIND_ENV);
		if (left <= CHUNK &&
		    !bpf_probe_read_user(&s->record[sizeof(struct part)], left, (void *)m->from) &&
		    event_send(s->record, sizeof(struct part) + left))
			goto out;
	}
	from = BPF_CORE_READ(mm, arg_start);
	bytes = BPF_CORE_READ(mm, arg_end) - from;
	n = send_memory(m, slot, id, from, bytes, KIND_ARGS);
	if (n < 0)
		goto out;
	describe(e, id);
	e->args_bytes = bytes;
	e->env_bytes = BPF_CORE_READ(mm, env_end) - BPF_CORE_READ(mm, env_start);
	e->argc = BPF_CORE_READ(bprm, argc);
	n = bpf_probe_read_kernel_str(&s->record[off], NAME_SIZE, BPF_CORE_READ(bprm, filename));
	len = length(n, NAME_SIZE);
	e->filename_len = len;
	off += len;
	if (BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename)) {
		n = bpf_probe_read_kernel_str(&s->record[off], INTERP_LEN,
					      BPF_CORE_READ(bprm, interp));
		len = length(n, INTERP_LEN);
		e->interp_len = len;
		off += len;
	}
	left = m->left;
	barrier_var(left); /* one comparison, as the verifier wants it */
	if (left <= CHUNK && off <= sizeof(struct exec) + NAME_SIZE + INTERP_LEN &&
	    !bpf_probe_read_user(&s->record[off], left, (void *)m->from)) {
		e->args_len = left;
		off += left;
	} else {
		e->marks |= MARK_UNREADABLE;
	}
	if (off <= SCRATCH_SIZE)
		event_send(s->record, off);
out:
	scratch_give_back(slot);
	return 0;
}

/* A step along the arguments of a failed call. Returns 1 at the end. */
static __always_inline int args_step(struct args_walk *w, struct scratch *s)
{
	__u64 len = w->len;
	__u32 pointer = 0;
	long n;

	barrier_var(len);
	if (len > CHUNK - PIECE) {
		part_head(s, w->id, KIND_ARGS);
		if (len > CHUNK)
			return 1;
		if (event_send(s->record, sizeof(struct part) + len)) {
			w->failed = 1;
			return 1;
		}
		w->len = len = 0;
	}
	if (!w->arg) {
		if (w->compat) {
			n = bpf_probe_read_user(&pointer, sizeof(pointer), (void *)w->argv);
			w->arg = pointer;
			w->argv += sizeof(pointer);
		} else {
			n = bpf_probe_read_user(&w->arg, sizeof(w->arg), (void *)w->argv);
			w->argv += sizeof(w->arg);
		}
		if (n) {
			w->unreadable = 1;
			return 1;
		}
		if (!w->arg)
			return 1;
		w->argc++;
	}
	n = bpf_probe_read_user_str(&s->record[sizeof(struct part) + len], PIECE, (void *)w->arg);
	if (!n) { /* of an empty string, 6.12 and older say 0, and not the 1 of its NUL */
		s->record[sizeof(struct part) + len] = 0;
		n = 1;
	}
	if (n < 0 || n > PIECE) {
		w->unreadable = 1;
		return 1;
	}
	if (n ==
	    PIECE) { /* the last byte is a NUL that is not the program's, or it ends just there */
		n--;
		w->arg += n;
	} else {
		w->arg = 0;
	}
	/* What is beyond the limit is only counted. */
	if (w->bytes < max_bytes)
		w->len = len + n;
	w->bytes += n;
	return 0;
}

__noinline int args_some_steps(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch_slots, &slot);
	struct args_walk *w = bpf_map_lookup_elem(&args_walks, &slot);

	if (!s || !w)
		return 1;
	for (int i = 0; i < 4; i++)
		if (args_step(w, s))
			return 1;
	return 0;
}

__noinline int args_more_steps(__u32 slot)
{
	for (int i = 0; i < 32; i++)
		if (args_some_steps(slot))
			return 1;
	return 0;
}

/* Walks up to 8,192 arguments or 8 MiB. */
__noinline int args_steps(__u32 slot)
{
	for (int i = 0; i < 64; i++)
		if (args_more_steps(slot))
			return 0;
	return 1;
}

/* An exec has failed: its arguments are still those of the caller. */
static __always_inline int failed(const struct pt_regs *regs, __s32 ret, bool at, bool compat,
				  const bool known)
{
	struct syscall_args args;
	struct args_walk *w;
	struct scratch *s;
	struct exec *e;
	const char *name;
	char next = 0;
	__u64 id, len;
	__u32 slot;
	long n;

	if (ret >= 0 || !wanted() || scratch_take(&slot))
		return 0;
	s = bpf_map_lookup_elem(&scratch_slots, &slot);
	w = bpf_map_lookup_elem(&args_walks, &slot);
	if (!s || !w)
		return 0;
	args = syscall_arguments(regs, compat, known);
	/* It has no run of a program to be named for. */
	id = bpf_ktime_get_ns() ^ bpf_get_current_pid_tgid() << 42;
	if (send_extras(s, slot, id, false))
		goto out;
	w->argv = at ? args.a[2] : args.a[1];
	w->arg = 0;
	w->bytes = 0;
	w->id = id;
	w->argc = 0;
	w->len = 0;
	w->compat = compat;
	w->unreadable = 0;
	w->failed = 0;
	if (w->argv) /* NULL is an empty list */
		args_steps(slot);
	if (w->failed)
		goto out;
	/* What is left goes first, so that the last record has only the head and the name. */
	len = w->len;
	barrier_var(len);
	part_head(s, id, KIND_ARGS);
	if (len <= CHUNK && event_send(s->record, sizeof(struct part) + len))
		goto out;
	e = (struct exec *)s->record;
	describe(e, id);
	e->ret = ret;
	e->argc = w->argc;
	e->args_bytes = w->bytes;
	e->marks = (compat ? MARK_COMPAT : 0) | (at ? MARK_EXECVEAT : 0) |
		   (w->unreadable ? MARK_UNREADABLE : 0);
	name = (const char *)(at ? args.a[1] : args.a[0]);
	n = bpf_probe_read_user_str(&s->record[sizeof(struct exec)], NAME_SIZE, name);
	if (n < 0)
		e->marks |= MARK_NO_NAME;
	else if (n == NAME_SIZE && (bpf_probe_read_user(&next, 1, name + NAME_SIZE - 1) || next))
		e->marks |= MARK_NAME_CUT;
	len = length(n, NAME_SIZE);
	e->filename_len = len;
	event_send(s->record, sizeof(struct exec) + len);
out:
	scratch_give_back(slot);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_tp, struct task_struct *task, int old_tid, struct linux_binprm *bprm)
{
	return worked(bprm, old_tid);
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(exec_raw, struct task_struct *task, int old_tid, struct linux_binprm *bprm)
{
	return worked(bprm, old_tid);
}

/* What wait(2) will give: of the group, or of its leader if its threads ended one by one. */
static __always_inline __s32 exit_code(const struct task_struct *task)
{
	if (BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT)
		return BPF_CORE_READ(task, signal, group_exit_code);
	return BPF_CORE_READ(task, group_leader, exit_code);
}

static __always_inline int ends(const struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);
	__u64 id = id_of(task);
	struct exit e;

	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	if (wanted() && !again(task, ~id)) {
		e.id = id;
		e.kind = KIND_EXIT;
		__builtin_memset(e.unused, 0, sizeof(e.unused));
		e.code = exit_code(task);
		e.time_ns = bpf_ktime_get_boot_ns();
		e.start_ns = BPF_CORE_READ(leader, start_boottime);
		e.cgroup_id = bpf_get_current_cgroup_id();
		e.leader = (__u64)leader;
		e.max_rss_pages = BPF_CORE_READ(task, signal, maxrss);
		e.pid = current_pid();
		e.tid = current_tid();
		e.ppid = pid_of(parent);
		e.uid = bpf_get_current_uid_gid();
		bpf_get_current_comm(e.comm, sizeof(e.comm));
		BPF_CORE_READ_STR_INTO(&e.parent_comm, parent, comm);
		event_send(&e, sizeof(e));
	}
	return exited(task);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exit_tp, struct task_struct *task)
{
	return ends(task);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(exit_raw, struct task_struct *task)
{
	return ends(task);
}

/* What the threads of a process have used, but for those that are not yet released. */
static __always_inline void times_of(const struct task_struct *leader, __u64 id, struct times *t)
{
	t->id = id;
	t->kind = KIND_TIMES;
	t->user_ns = BPF_CORE_READ(leader, signal, utime);
	t->system_ns = BPF_CORE_READ(leader, signal, stime);
	t->runtime_ns = BPF_CORE_READ(leader, signal, sum_sched_runtime);
}

/* Not an event of its own: an exit is shown without if it can't be sent, and user space asks again. */
static __always_inline long times_send(struct times *t)
{
	return bpf_ringbuf_output(&events, t, sizeof(*t), BPF_RB_NO_WAKEUP);
}

/*
 * A process that was reaped, a grace period ago. On a machine that is idle, or that puts callbacks
 * off (CONFIG_RCU_LAZY, since 6.2), this comes seconds later, and user space asks before.
 */
static __always_inline int freed(const struct task_struct *task)
{
	struct times t = {};

	if (BPF_CORE_READ(task, pid) != BPF_CORE_READ(task, tgid))
		return 0;
	times_of(task, id_of(task), &t);
	times_send(&t);
	return 0;
}

/* Whether a pointer still leads to the process with that id. */
static __always_inline bool is(const struct task_struct *leader, __u64 id)
{
	return BPF_CORE_READ(leader, usage.refs.counter) && id_of(leader) == id; /* in this order */
}

/*
 * Sends what a process has used that has ended, for user space to ask; its leader may be a stale
 * pointer. What was read counts only if the task was still in use and itself afterwards, as it was
 * then neither freed nor another meanwhile. The result is an enum answer.
 */
SEC("raw_tp/call")
int BPF_PROG(times_call, const struct task_struct *leader, __u64 id)
{
	struct times t = {};
	bool zombie;

	if (!is(leader, id))
		return ANSWER_GONE;
	zombie = BPF_CORE_READ(leader, exit_state) == EXIT_ZOMBIE;
	if (!zombie && BPF_CORE_READ(leader, sighand))
		return ANSWER_LATER;
	times_of(leader, id, &t);
	if (zombie) {
		/* The last of its threads, and off its CPU for good: it will use no more. */
		if (!bpf_core_field_exists(leader->on_cpu) || BPF_CORE_READ(leader, on_cpu) ||
		    BPF_CORE_READ(leader, on_rq) || BPF_CORE_READ(leader, signal, nr_threads) != 1)
			return ANSWER_LATER;
		t.user_ns += BPF_CORE_READ(leader, utime);
		t.system_ns += BPF_CORE_READ(leader, stime);
		t.runtime_ns += BPF_CORE_READ(leader, se.sum_exec_runtime);
		/* It is marked as being reaped before its times are added to the others'. */
		if (BPF_CORE_READ(leader, exit_state) != EXIT_ZOMBIE)
			return ANSWER_LATER;
	}
	if (!is(leader, id))
		return ANSWER_GONE;
	return times_send(&t) ? ANSWER_LATER : ANSWER_SENT;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(free_tp, struct task_struct *task)
{
	return freed(task);
}

SEC("raw_tp/sched_process_free")
int BPF_PROG(free_raw, struct task_struct *task)
{
	return freed(task);
}

/*
 * The functions behind the system calls, in the modes fentry and kprobe; only failures are of interest.
 * A call that ends is taken out of those that have begun: of spares, the first that does so has it.
 */
static __always_inline int begin(const struct pt_regs *regs)
{
	__u64 id = bpf_get_current_pid_tgid(), value = (__u64)regs;

	if (bpf_map_update_elem(&calls, &id, &value, BPF_ANY))
		count_lost(LOST_INFLIGHT_FULL);
	return 0;
}

static __always_inline int end(const struct pt_regs *regs, __s32 ret, bool at, bool compat)
{
	__u64 id = bpf_get_current_pid_tgid();

	if (bpf_map_delete_elem(&calls, &id))
		return 0;
	return failed(regs, ret, at, compat, true);
}

static __always_inline int end_kept(__s32 ret, bool at, bool compat)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 *kept = bpf_map_lookup_elem(&calls, &id), regs;

	if (!kept)
		return 0;
	regs = *kept;
	if (bpf_map_delete_elem(&calls, &id))
		return 0;
	return failed((const struct pt_regs *)regs, ret, at, compat, false);
}

#define SYSCALL_HOOKS(name, fn, at, compat)                             \
	SEC("fentry/" fn)                                               \
	int BPF_PROG(name##_fentry, const struct pt_regs *regs)         \
	{                                                               \
		return begin(regs);                                     \
	}                                                               \
	SEC("fexit/" fn)                                                \
	int BPF_PROG(name##_fexit, const struct pt_regs *regs, int ret) \
	{                                                               \
		return end(regs, ret, at, compat);                      \
	}                                                               \
	SEC("kprobe/" fn)                                               \
	int BPF_KPROBE(name##_kprobe, const struct pt_regs *regs)       \
	{                                                               \
		return begin(regs);                                     \
	}                                                               \
	SEC("kretprobe/" fn)                                            \
	int BPF_KRETPROBE(name##_kretprobe, int ret)                    \
	{                                                               \
		return end_kept(ret, at, compat);                       \
	}

SYSCALL_HOOKS(execve, SYSCALL_FN(execve), false, false)
SYSCALL_HOOKS(execveat, SYSCALL_FN(execveat), true, false)
SYSCALL_HOOKS(execve32, COMPAT_FN(execve), false, true)
SYSCALL_HOOKS(execveat32, COMPAT_FN(execveat), true, true)

/* All system calls, in tracepoint mode. */
static __always_inline int syscall_ends(const struct pt_regs *regs, __s32 ret, const bool known)
{
	__s32 nr;
	bool compat, at;

	if (ret >= 0)
		return 0;
	nr = syscall_number(regs, known);
#if defined(__TARGET_ARCH_x86)
	if (nr == 59 || nr == 322 || nr == 520 || nr == 545) { /* the last two are x32's */
		compat = false;
		at = nr == 322 || nr == 545;
	} else if (nr == 11 || nr == 358) {
		compat = true;
		at = nr == 358;
	} else {
		return 0;
	}
#else
	if (nr == 221 || nr == 281) {
		compat = false;
		at = nr == 281;
	} else if (nr == 11 || nr == 387) {
		compat = true;
		at = nr == 387;
	} else {
		return 0;
	}
#endif
	if (compat != in_compat_syscall(known))
		return 0;
	return failed(regs, ret, at, compat, known);
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
