/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The registers that user space was left with when a sample was taken.
 */
#ifndef REGISTERS_BPF_H
#define REGISTERS_BPF_H

#include "syscall.bpf.h"

struct user_registers {
	__u64 ip, sp, fp;
	__u64 lr; /* arm64: the link register */
	/* The thread is in a system call: ip is behind the instruction, where another function may begin. */
	__u64 in_syscall;
};

enum registers_found {
	REGISTERS_FOUND,
	REGISTERS_NONE,	 /* there is no user space */
	REGISTERS_32BIT, /* it is that of a 32-bit program */
};

/*
 * The end of what user space has. Nothing is read above: a read of the page of vsyscalls by a program on a
 * perf event has hung 6.1 kernels.
 */
#if defined(__TARGET_ARCH_x86)
#define USER_ADDRESSES (1ULL << 47)
#elif defined(__TARGET_ARCH_arm64)
#define USER_ADDRESSES (1ULL << 48)
#endif

#define USER32_CS 0x23
#define XEN_USER32_CS 0xe023
#define PSR_MODE_MASK 0xf
#define PSR_MODE32_BIT 0x10

/*
 * Whether the instruction before an address makes system calls. At the end of execve(2), and where a signal
 * is delivered, the thread is in a system call, and its registers are those of the beginning of a function.
 */
static __always_inline bool behind_syscall(__u64 ip)
{
#if defined(__TARGET_ARCH_x86)
	__u16 instruction, syscall = 0x050f;
#elif defined(__TARGET_ARCH_arm64)
	__u32 instruction, syscall = 0xd4000001; /* svc #0 */
#endif
	if (ip >= USER_ADDRESSES || bpf_probe_read_user(&instruction, sizeof(instruction),
							(void *)(ip - sizeof(instruction))))
		return false;
	return instruction == syscall;
}

/*
 * Takes the registers of the sample or, if that interrupted the kernel, those that the thread came in
 * with. What interrupts user space has the number -1 where that of a system call is.
 */
static __always_inline enum registers_found user_registers(struct bpf_perf_event_data *ctx,
							   struct user_registers *to)
{
	const volatile struct bpf_perf_event_data *now = ctx;
	const struct pt_regs *regs;

	to->lr = to->in_syscall = 0;
#if defined(__TARGET_ARCH_x86)
	__u64 cs = now->regs.cs;

	if (cs & 3) {
		to->ip = now->regs.ip;
		to->sp = now->regs.sp;
		to->fp = now->regs.bp;
	} else {
		regs = current_regs();
		cs = BPF_CORE_READ(regs, cs);
		to->ip = BPF_CORE_READ(regs, ip);
		to->sp = BPF_CORE_READ(regs, sp);
		to->fp = BPF_CORE_READ(regs, bp);
		to->in_syscall = (__s64)BPF_CORE_READ(regs, orig_ax) != -1 &&
				 behind_syscall(to->ip);
	}
	if (!(cs & 3) || !to->ip)
		return REGISTERS_NONE;
	if ((__u16)cs == USER32_CS || (__u16)cs == XEN_USER32_CS)
		return REGISTERS_32BIT;
#elif defined(__TARGET_ARCH_arm64)
	__u64 state = now->regs.pstate;

	if (!(state & PSR_MODE_MASK)) {
		to->ip = now->regs.pc;
		to->sp = now->regs.sp;
		to->fp = now->regs.regs[29];
		to->lr = now->regs.regs[30];
	} else {
		regs = current_regs();
		state = BPF_CORE_READ(regs, pstate);
		to->ip = BPF_CORE_READ(regs, pc);
		to->sp = BPF_CORE_READ(regs, sp);
		to->fp = BPF_CORE_READ(regs, regs[29]);
		to->lr = BPF_CORE_READ(regs, regs[30]);
		to->in_syscall = BPF_CORE_READ(regs, syscallno) != -1 && behind_syscall(to->ip);
	}
	if (state & PSR_MODE_MASK || !to->ip)
		return REGISTERS_NONE;
	if (state & PSR_MODE32_BIT)
		return REGISTERS_32BIT;
#endif
	return REGISTERS_FOUND;
}

#endif
