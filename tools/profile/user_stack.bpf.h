/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The user stack of a sample. There is one way by now: the kernel follows the frame pointers. Another
 * unwinder goes in here, and gives the same.
 */
#ifndef USER_STACK_BPF_H
#define USER_STACK_BPF_H

#define MAX_USER_FRAMES 1024

/* How the user stack came out; status in model.go is the same. */
enum user_status {
	USER_NONE,	     /* not asked for, or there is none */
	USER_FRAME_POINTERS, /* by frame pointers: what has none is missing, unnoticed */
	USER_DEPTH,	     /* cut at the greatest depth */
	USER_FAULT,	     /* could not be read */
};

/* How many frames at most: the kernel gives no more than kernel.perf_event_max_stack. */
const volatile __u32 max_user_frames = 127;

/*
 * Writes the return addresses of the user stack to frames, the leaf first, and gives their number, at
 * most MAX_USER_FRAMES. A sample that interrupted the kernel has the user stack that the thread
 * entered the kernel with.
 */
static __always_inline __u32 user_stack(void *ctx, __u64 *frames, __u8 *status)
{
	__u32 limit = max_user_frames > MAX_USER_FRAMES ? MAX_USER_FRAMES : max_user_frames;
	struct task_struct *task = (void *)bpf_get_current_task();
	long size;

	/*
	 * Within execve(2) the memory is that of the new program already, while the registers are still
	 * those of the old one: another function than the one that called would be named. The new memory
	 * has no start_code until all is in its place, which is some microseconds before the end.
	 */
	if (BPF_CORE_READ(task, mm, start_code) == 0) {
		*status = USER_NONE;
		return 0;
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
	*status = (__u64)size >= limit * sizeof(__u64) ? USER_DEPTH : USER_FRAME_POINTERS;
	return size / sizeof(__u64);
}

#endif
