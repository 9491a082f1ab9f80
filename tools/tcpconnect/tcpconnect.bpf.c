//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "events.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What a record is. */
enum kind {
	KIND_ATTEMPT,
	KIND_DNS,
};

#include "dns.bpf.h"
