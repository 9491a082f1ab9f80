/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * System calls, whoever makes them: a 32-bit program on a 64-bit kernel has other numbers and other
 * registers. The syscalls:* tracepoints leave such programs out (ARCH_TRACE_IGNORE_COMPAT_SYSCALLS).
 */
#ifndef SYSCALL_BPF_H
#define SYSCALL_BPF_H

/* The function behind a system call, since 4.17 (x86) and 4.19 (arm64) with one argument: pt_regs. */
#if defined(__TARGET_ARCH_x86)
#define SYSCALL_FN(name) "__x64_sys_" #name
#define SYSCALL32_FN(name) "__ia32_sys_" #name	   /* same arguments as the 64-bit one */
#define COMPAT_FN(name) "__ia32_compat_sys_" #name /* arguments of its own */
#elif defined(__TARGET_ARCH_arm64)
#define SYSCALL_FN(name) "__arm64_sys_" #name
#define COMPAT_FN(name) "__arm64_compat_sys_" #name
#endif

#define X32_BIT 0x40000000 /* marks a call by the x32 ABI, otherwise 64-bit */
#define TS_COMPAT 2	   /* thread_info.status, x86 */
#define TIF_32BIT 22	   /* thread_info.flags, arm64 */

struct syscall_args {
	__u64 a[4];
};

/* Reads a field straight where the verifier knows the pointer (tp_btf, fexit), else by a helper. */
#define FIELD_OF(p, field, known) ((known) ? (p)->field : BPF_CORE_READ(p, field))

/*
 * The same of the current task: FIELD_OF(current_task(known), field, TASK_KNOWN(known)). The helper that makes
 * it known came in 5.11. It needs a kernel with BTF of its own, as programs do for which anything is known.
 */
#define TASK_KNOWN(known) \
	((known) && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))

static __always_inline struct task_struct *current_task(const bool known)
{
	return TASK_KNOWN(known) ? bpf_get_current_task_btf() : (void *)bpf_get_current_task();
}

/* Whether the current task is inside a 32-bit system call. */
static __always_inline bool in_compat_syscall(const bool known)
{
	const struct task_struct *task = current_task(known);

#if defined(__TARGET_ARCH_x86)
	return FIELD_OF(task, thread_info.status, TASK_KNOWN(known)) & TS_COMPAT;
#else
	return FIELD_OF(task, thread_info.flags, TASK_KNOWN(known)) >> TIF_32BIT & 1;
#endif
}

static __always_inline __s32 syscall_number(const struct pt_regs *regs, const bool known)
{
#if defined(__TARGET_ARCH_x86)
	return (__s32)FIELD_OF(regs, orig_ax, known) & ~X32_BIT;
#else
	return FIELD_OF(regs, syscallno, known);
#endif
}

/* The first four arguments. They stand in pt_regs until the call has returned, too. */
static __always_inline struct syscall_args syscall_arguments(const struct pt_regs *regs,
							     bool compat, const bool known)
{
	struct syscall_args args;

#if defined(__TARGET_ARCH_x86)
	if (compat) {
		args.a[0] = (__u32)FIELD_OF(regs, bx, known);
		args.a[1] = (__u32)FIELD_OF(regs, cx, known);
		args.a[2] = (__u32)FIELD_OF(regs, dx, known);
		args.a[3] = (__u32)FIELD_OF(regs, si, known);
	} else {
		args.a[0] = FIELD_OF(regs, di, known);
		args.a[1] = FIELD_OF(regs, si, known);
		args.a[2] = FIELD_OF(regs, dx, known);
		args.a[3] = FIELD_OF(regs, r10, known);
	}
#else
	args.a[0] = FIELD_OF(regs, orig_x0, known); /* x0 holds the result by now */
	args.a[1] = FIELD_OF(regs, regs[1], known);
	args.a[2] = FIELD_OF(regs, regs[2], known);
	args.a[3] = FIELD_OF(regs, regs[3], known);
#endif
	return args;
}

/* Whether the kernel has BTF of its own; package attach says so. Without, it refuses what returns its types. */
const volatile bool kernel_has_btf = true;

/*
 * The registers with which the current task came into the kernel. bpf_task_pt_regs() came in 5.15; until
 * then, and where it can't be had, they are taken to stand at the very end of a stack of 16 KiB.
 */
static __always_inline const struct pt_regs *current_regs(void)
{
	struct task_struct *task;

	if (kernel_has_btf && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, stack) + 16 * 1024 - bpf_core_type_size(struct pt_regs);
}

/* The number of the system call that the current task is in. */
static __always_inline __s32 current_syscall(const bool known)
{
	if (known && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return syscall_number(current_regs(), true);
	return syscall_number(current_regs(), false);
}

/* The current task's file of that number, or NULL. */
static __always_inline struct file *file_of(int fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = NULL;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

#endif
