/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Following: the children of a process in the pids map (filter.bpf.h) enter it at their fork, before
 * they run, and a process leaves it with its last thread. These programs are loaded only when
 * following is asked for; internal/common/filter decides.
 */
#ifndef FOLLOW_BPF_H
#define FOLLOW_BPF_H

static __always_inline int forked(const struct task_struct *parent, const struct task_struct *child)
{
	__u32 parent_pid = pid_of(parent), pid = pid_of(child);
	__u8 yes = 1;

	if (pid == parent_pid) /* a new thread */
		return 0;
	if (bpf_map_lookup_elem(&pids, &parent_pid) &&
	    bpf_map_update_elem(&pids, &pid, &yes, BPF_ANY))
		count_lost(LOST_FOLLOW_FULL);
	return 0;
}

static __always_inline int exited(const struct task_struct *task)
{
	__u32 pid = pid_of(task);

	/* do_exit() has counted this thread out by now. A pid used again is another process. */
	if (!BPF_CORE_READ(task, signal, live.counter))
		bpf_map_delete_elem(&pids, &pid);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(follow_fork_tp, struct task_struct *parent, struct task_struct *child)
{
	return forked(parent, child);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(follow_fork_raw, struct task_struct *parent, struct task_struct *child)
{
	return forked(parent, child);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(follow_exit_tp, struct task_struct *task)
{
	return exited(task);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(follow_exit_raw, struct task_struct *task)
{
	return exited(task);
}

#endif
