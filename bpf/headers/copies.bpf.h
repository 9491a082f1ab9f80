/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which of several copies of a program runs, where package internal/common/attach loads spares of it:
 * the kernel never runs one of them twice at a time on a CPU (since 6.1; before, it does where an
 * interrupt comes while the program runs), so what belongs to a copy and a CPU is its own.
 */
#ifndef COPIES_BPF_H
#define COPIES_BPF_H

#define MAX_COPIES 4

/* 0, and from 1 on in spares. Package attach puts the numbers where the markers stand. */
static __always_inline __u64 copy_number(void)
{
	__u64 n;

	asm volatile("%0 = 0x6f6e79706f635f5f ll" : "=r"(n));
	return n;
}

/* How many there are: 1 if the program has no spares. The verifier knows it as a constant. */
static __always_inline __u64 number_of_copies(void)
{
	__u64 n;

	asm volatile("%0 = 0x736569706f635f5f ll" : "=r"(n));
	return n;
}

#endif
