/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which tasks are traced. As everywhere in these tools, the words are those of user space: a pid is
 * a process (the kernel's tgid), a tid is a thread (the kernel's pid). Its other half is
 * internal/common/filter. A filter that is off costs nothing: the verifier drops its branch, since
 * the switches are constants by the time it looks.
 */
#ifndef FILTER_BPF_H
#define FILTER_BPF_H

const volatile bool filter_pids = false;
const volatile __u32 filter_tid = 0; /* 0 is the idle task, which calls nothing: off */
const volatile bool filter_uid = false;
const volatile __u32 filter_uid_value = 0;
const volatile __u32 filter_cgroups = 0;
const volatile bool filter_cgroup_map = false;
const volatile bool filter_mntns_map = false;
const volatile bool filter_comm = false;
/* The text looked for, and 0xff for each byte of it, so that comparing needs no branch. */
const volatile __u8 filter_comm_text[TASK_COMM_LEN] = {};
const volatile __u8 filter_comm_mask[TASK_COMM_LEN] = {};

/* Never traced: the tool itself. */
const volatile __u32 filter_self = 0;

/*
 * The pid namespace whose numbers the user knows, if it is not the machine's first: that of a
 * container which the tool runs in. 0 stands for the first.
 */
const volatile __u32 pid_namespace_inode = 0;
#define PID_LEVELS 8 /* the kernel allows 32; more than three have not been seen */

/* User space makes it only as large as it must be. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, __u8);
} pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} cgroups SEC(".maps");

/* BCC's pinned maps; user space replaces them by those it is given. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} cgroup_map SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} mntns_map SEC(".maps");

/* A thread's number in the user's namespace, or 0 if it has none there. */
static __noinline __u32 number_of(const struct task_struct *thread)
{
	struct pid *pid = BPF_CORE_READ(thread, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *number = (void *)pid + bpf_core_field_offset(struct pid, numbers);

	for (__u32 i = 0; i < PID_LEVELS; i++) {
		if (i > level)
			break;
		if (BPF_CORE_READ(number, ns, ns.inum) == pid_namespace_inode)
			return BPF_CORE_READ(number, nr);
		number = (void *)number + bpf_core_type_size(struct upid);
	}
	return 0;
}

/* The pid of a task. */
static __always_inline __u32 pid_of(const struct task_struct *task)
{
	if (pid_namespace_inode)
		return number_of(BPF_CORE_READ(task, group_leader));
	return BPF_CORE_READ(task, tgid);
}

static __always_inline __u32 current_pid(void)
{
	if (pid_namespace_inode)
		return pid_of((void *)bpf_get_current_task());
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline __u32 current_tid(void)
{
	if (pid_namespace_inode)
		return number_of((void *)bpf_get_current_task());
	return bpf_get_current_pid_tgid();
}

static __always_inline __u32 mount_namespace(const struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

static __always_inline bool in_cgroups(void)
{
	for (__u32 i = 0; i < 64; i++) {
		if (i >= filter_cgroups)
			break;
		if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
			return true;
	}
	return false;
}

/*
 * Whether comm has the text looked for anywhere in it. A global function, so that the verifier goes
 * through its loops once and not once for each of its callers.
 */
__noinline int comm_wanted(void)
{
	__u8 comm[2 * TASK_COMM_LEN] = {};

	bpf_get_current_comm(comm, TASK_COMM_LEN);
	for (int i = 0; i < TASK_COMM_LEN; i++) {
		__u8 differs = 0;

		for (int j = 0; j < TASK_COMM_LEN; j++)
			differs |= (comm[i + j] ^ filter_comm_text[j]) & filter_comm_mask[j];
		if (!differs)
			return 1;
	}
	return 0;
}

/* Whether the current task is to be traced. */
static __always_inline bool task_wanted(void)
{
	__u32 pid = current_pid();

	if (filter_self && pid == filter_self)
		return false;
	if (filter_tid && current_tid() != filter_tid)
		return false;
	if (filter_pids && !bpf_map_lookup_elem(&pids, &pid))
		return false;
	if (filter_uid && (__u32)bpf_get_current_uid_gid() != filter_uid_value)
		return false;
	if (filter_comm && !comm_wanted())
		return false;
	if (filter_cgroups && !in_cgroups())
		return false;
	if (filter_cgroup_map) {
		__u64 cgroup = bpf_get_current_cgroup_id();

		if (!bpf_map_lookup_elem(&cgroup_map, &cgroup))
			return false;
	}
	if (filter_mntns_map) {
		__u64 ns = mount_namespace((void *)bpf_get_current_task());

		if (!bpf_map_lookup_elem(&mntns_map, &ns))
			return false;
	}
	return true;
}

#endif
