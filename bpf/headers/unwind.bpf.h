/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * User stacks without frame pointers: the rules of internal/common/unwind, walked at the time of the
 * sample by tables in maps. What each of it means is told there.
 */
#ifndef UNWIND_BPF_H
#define UNWIND_BPF_H

enum unwind_cfa {
	UNWIND_UNKNOWN,
	UNWIND_END,
	UNWIND_SP,
	UNWIND_FP,
	UNWIND_PLT,
	UNWIND_SP_DEREF,
	UNWIND_FP_DEREF,
	UNWIND_SIGNAL,
};

enum unwind_saved {
	UNWIND_SAME,
	UNWIND_AT_CFA,
	UNWIND_LOST,
	UNWIND_AT_FP,
};

enum unwind_status {
	UNWIND_COMPLETE,
	UNWIND_GUESSED,
	UNWIND_DEPTH,
	UNWIND_NO_MAPPING,
	UNWIND_NO_TABLE,
	UNWIND_NO_RULE,
	UNWIND_FAULT,
	UNWIND_BROKEN,
};

struct unwind_rule {
	__u8 cfa, fp, ra, flags; /* enum unwind_cfa, unwind_saved */
	__s32 offset, add;
	__s16 fp_offset, ra_offset; /* in units of 8 bytes */
};

#endif
