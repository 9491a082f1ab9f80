//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
#include "events.bpf.h"
#include "filter.bpf.h"
#include "follow.bpf.h"
#include "syscall.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define MSG_FASTOPEN 0x20000000
#define SYS_CONNECT 3 /* of socketcall() */
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define PF_IO_WORKER 0x10
#define PF_KTHREAD 0x200000

#define EPERM 1
#define EINTR 4
#define EBADF 9
#define EACCES 13
#define EFAULT 14
#define ENOTSOCK 88
#define EAFNOSUPPORT 97
#define ECONNABORTED 103
#define ECONNRESET 104
#define EISCONN 106
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EALREADY 114
#define EINPROGRESS 115
#define ERESTARTSYS 512

/* The states of a TCP socket that are of interest here. */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_CLOSE = 7,
};

/* What a record is. */
enum kind {
	KIND_ATTEMPT, /* struct attempt */
	KIND_DNS,     /* struct dns_packet, of dns.bpf.h */
};

#include "dns.bpf.h"

/* What became of an attempt. */
enum result {
	RESULT_PENDING, /* it has begun */
	RESULT_OK,	/* the connection is established */
	RESULT_FAILED,
	RESULT_ABORTED, /* the program closed the socket, or died, before there was a result */
};

/* By which way it was made. */
enum via {
	VIA_CONNECT,
	VIA_FASTOPEN,
	VIA_MPTCP,
	VIA_IO_URING,
	VIA_KERNEL,
};

enum mark {
	MARK_COMPAT = 1,     /* by a 32-bit program */
	MARK_NO_SOURCE = 2,  /* it has no source address yet */
	MARK_NO_LATENCY = 4, /* its beginning was not seen */
	MARK_SENT = 8,	     /* of one that is kept: it has been shown already */
};

/* No padding. It is kept while the attempt is under way, and sent at its end. */
struct attempt {
	__u32 kind;
	__s32 error;	  /* errno, positive; of a failure, 0 if it is not known */
	__u64 time_ns;	  /* since boot, of the beginning */
	__u64 latency_ns; /* till the result */
	__u64 cgroup_id;
	__u32 pid, tid, uid, netns;
	__u32 retransmits; /* of the SYN; while it is under way, what the socket counted before */
	__u16 sport, dport;
	__u8 result, via, marks, unused[5];
	__u8 saddr[16], daddr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 comm[TASK_COMM_LEN];
};

const volatile bool want_outcome = false; /* a row tells how the attempt ended, and is sent then */
const volatile bool want_lport = false;	  /* no row without the local port */
const volatile bool want_time = false;	  /* it is asked when an attempt began */
const volatile bool want_guard = false;	  /* a change of state may be seen several times */
const volatile bool filter_failed = false;
const volatile __u64 filter_latency_ns = 0;
const volatile __u8 filter_family = 0;
const volatile __u32 filter_netns = 0;
const volatile bool filter_ports = false;
const volatile __u64 filter_port_bits[1024] = {}; /* a bit for each destination port */
/* Whether there are networks to compare with, and what holds for an address in none of them. */
const volatile bool filter_daddr = false, filter_daddr_others = false;
const volatile bool filter_saddr = false, filter_saddr_others = false;

/*
 * The functions and tracepoints below as this file takes them; user space compares with the kernel's.
 * An address is a struct sockaddr up to 6.18, a struct sockaddr_unsized since.
 */
const volatile struct {
	long (*syscall)(const struct pt_regs *);
	void (*sys_exit)(struct pt_regs *, long);
	void (*inet_sock_set_state)(const struct sock *, int, int);
	int (*tcp_v4_connect)(struct sock *, void *, int);
	int (*tcp_v6_connect)(struct sock *, void *, int);
} prototypes;

/* Puts these into the object's types, from which the Go ones are made. */
const volatile struct {
	struct attempt attempt;
	enum kind kind;
	enum result result;
	enum via via;
	enum mark mark;
} types;

struct network {
	__u32 bits;
	__u8 addr[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network);
	__type(value, __u8); /* whether addresses in it are wanted */
} daddrs SEC(".maps"), saddrs SEC(".maps");

/* The attempts under way, by socket. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

/* A call that has begun: of tcp_v4_connect and its like, or, in tracepoint mode, of the system. */
struct call {
	struct sock *sk;
	void *addr;
	__u64 time_ns;
	__u64 closed; /* the socket was closed again within the call */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct call);
} calls SEC(".maps");

/* The threads whose call TCP itself has refused, so that it is not shown once more as refused before. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u8);
} refusals SEC(".maps");

/*
 * Sockets whose attempt has failed in the background. The next connect() on one gives the error and
 * is no attempt of its own. By socket, the number of its inode, since sockets are used again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} background_failures SEC(".maps");

/* io_uring_enter has the same number everywhere. */
#define NR_IO_URING_ENTER 426

enum call_kind {
	CALL_OTHER,
	CALL_CONNECT,	 /* (fd, address, length) */
	CALL_SENDTO,	 /* (fd, data, length, flags, address, length) */
	CALL_SENDMSG,	 /* (fd, message, flags) */
	CALL_SOCKETCALL, /* (which, arguments): the way of older 32-bit programs */
	CALL_IO_URING,
};

/* Which of the system calls that can connect this one is, if any. */
static __always_inline enum call_kind call_kind(__s32 nr, bool compat)
{
	if (nr == NR_IO_URING_ENTER)
		return CALL_IO_URING;
#if defined(__TARGET_ARCH_x86)
	if (compat) {
		switch (nr) {
		case 102: return CALL_SOCKETCALL;
		case 362: return CALL_CONNECT;
		case 369: return CALL_SENDTO;
		case 370: return CALL_SENDMSG;
		}
		return CALL_OTHER;
	}
	switch (nr) {
	case 42: return CALL_CONNECT;
	case 44: return CALL_SENDTO;
	case 46:
	case 518: return CALL_SENDMSG; /* the latter is x32's */
	}
#else
	if (compat) {
		switch (nr) {
		case 283: return CALL_CONNECT;
		case 290: return CALL_SENDTO;
		case 296: return CALL_SENDMSG;
		}
		return CALL_OTHER;
	}
	switch (nr) {
	case 203: return CALL_CONNECT;
	case 206: return CALL_SENDTO;
	case 211: return CALL_SENDMSG;
	}
#endif
	return CALL_OTHER;
}

static __always_inline void put_ipv4(__u8 *to, __be32 addr)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &addr, sizeof(addr));
}

/* The time of an attempt's beginning, which is now. It is a good part of what a short program costs. */
static __always_inline __u64 beginning(void)
{
	return want_time ? bpf_ktime_get_boot_ns() : 0;
}

/* Whether the current task, which is of a program, is in io_uring's system call. */
static __always_inline bool in_io_uring(const struct task_struct *task, const bool known)
{
	/* Few programs use it at all, which is quicker to tell. */
	if (bpf_core_field_exists(task->io_uring) && !FIELD_OF(task, io_uring, TASK_KNOWN(known)))
		return false;
	return current_syscall(known) == NR_IO_URING_ENTER;
}

/*
 * Who makes an attempt, and when it began. Call it in the caller's context. What only rows with results
 * show is left out of others.
 */
static __always_inline void identify(struct attempt *a, __u64 time_ns, const bool known)
{
	const struct task_struct *task = current_task(known);
	__u32 flags = FIELD_OF(task, flags, TASK_KNOWN(known));

	a->kind = KIND_ATTEMPT;
	a->error = 0;
	a->time_ns = time_ns;
	a->latency_ns = 0;
	a->cgroup_id = want_outcome ? bpf_get_current_cgroup_id() : 0;
	a->pid = current_pid();
	a->tid = current_tid();
	a->retransmits = 0;
	a->result = RESULT_PENDING;
	a->via = VIA_CONNECT;
	a->marks = 0;
	__builtin_memset(a->unused, 0, sizeof(a->unused));
	if (TASK_KNOWN(known)) { /* both helpers take much longer than this */
		a->uid = task->cred->uid.val;
		((__u64 *)a->comm)[0] = ((const __u64 *)task->comm)[0];
		((__u64 *)a->comm)[1] = ((const __u64 *)task->comm)[1];
	} else {
		a->uid = bpf_get_current_uid_gid();
		bpf_get_current_comm(a->comm, sizeof(a->comm));
	}
	if (flags &
	    PF_IO_WORKER) { /* it is named for its work; the process's name is its leader's */
		a->via = VIA_IO_URING;
		BPF_CORE_READ_STR_INTO(&a->comm, task, group_leader, comm);
	} else if (flags & PF_KTHREAD) {
		a->via = VIA_KERNEL;
	} else if (want_outcome) {
		if (in_compat_syscall(known))
			a->marks |= MARK_COMPAT;
		if (in_io_uring(task, known))
			a->via = VIA_IO_URING;
	}
}

/*
 * The fields of a TCP socket behind those of all sockets, which may be read straight only after a helper
 * has told the verifier that it is one. NULL if it is not.
 */
static __always_inline const struct tcp_sock *tcp_of(const struct sock *sk, const bool known)
{
	if (known)
		return bpf_skc_to_tcp_sock((void *)sk);
	/* An MPTCP socket is none itself. */
	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP ? (const void *)sk : NULL;
}

#define BITS_OF(p, field, known) \
	((known) ? BPF_CORE_READ_BITFIELD(p, field) : BPF_CORE_READ_BITFIELD_PROBED(p, field))

/* By which way, as far as the socket tells. */
static __always_inline void tell_kind(struct attempt *a, const struct tcp_sock *tp,
				      const bool known)
{
	if (!tp || (bpf_core_field_exists(tp->is_mptcp) && BITS_OF(tp, is_mptcp, known)))
		a->via = VIA_MPTCP;
	if (tp && (FIELD_OF(tp, fastopen_req, known) || BITS_OF(tp, fastopen_connect, known)))
		a->via = VIA_FASTOPEN;
}

/* What there is to know of a socket: after the kernel has chosen its addresses. */
static __always_inline void locate(struct attempt *a, const struct sock *sk, const bool known)
{
	const struct tcp_sock *tp;

	a->netns = known ? sk->__sk_common.skc_net.net->ns.inum :
			   BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	a->sport = FIELD_OF(sk, __sk_common.skc_num, known);
	a->dport = bpf_ntohs(FIELD_OF(sk, __sk_common.skc_dport, known));
	if (FIELD_OF(sk, __sk_common.skc_family, known) == AF_INET6 &&
	    bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		BPF_CORE_READ_INTO(&a->saddr, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&a->daddr, sk, __sk_common.skc_v6_daddr);
	} else {
		put_ipv4(a->saddr, FIELD_OF(sk, __sk_common.skc_rcv_saddr, known));
		put_ipv4(a->daddr, FIELD_OF(sk, __sk_common.skc_daddr, known));
	}
	if (!want_outcome)
		return;
	tp = tcp_of(sk, known);
	a->retransmits = tp ? FIELD_OF(tp, total_retrans, known) : 0;
	tell_kind(a, tp, known);
}

/* What there is to know of an attempt that failed before the kernel had chosen anything. */
static __always_inline bool locate_early(struct attempt *a, const struct sock *sk, const void *addr,
					 const bool user)
{
	struct sockaddr_in6 to = {};
	struct sockaddr_in *to4 = (void *)&to;
	long err;

	/* Of the address, as much as its family has: what is behind may not be readable. */
	err = user ? bpf_probe_read_user(&to, sizeof(*to4), addr) :
		     bpf_probe_read_kernel(&to, sizeof(*to4), addr);
	if (!err && to.sin6_family == AF_INET6)
		err = user ? bpf_probe_read_user(&to, sizeof(to), addr) :
			     bpf_probe_read_kernel(&to, sizeof(to), addr);
	if (err || (to.sin6_family != AF_INET && to.sin6_family != AF_INET6))
		return false;
	a->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	a->sport = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	a->dport = bpf_ntohs(to.sin6_port);
	a->marks |= MARK_NO_SOURCE;
	tell_kind(a, tcp_of(sk, false), false);
	__builtin_memset(a->saddr, 0, sizeof(a->saddr));
	if (to.sin6_family == AF_INET6)
		__builtin_memcpy(a->daddr, to.sin6_addr, sizeof(a->daddr));
	else
		put_ipv4(a->daddr, to4->sin_addr);
	return true;
}

static __always_inline bool is_ipv4(const __u8 *addr)
{
	const __u32 *words = (const void *)addr;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

static __always_inline bool network_wanted(void *networks, const __u8 *addr, bool others)
{
	struct network key = { .bits = 128 };
	__u8 *wanted;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	wanted = bpf_map_lookup_elem(networks, &key);
	return wanted ? *wanted : others;
}

/* Whether the ends of an attempt are to be traced. */
static __always_inline bool ends_wanted(const struct attempt *a)
{
	if (filter_family && filter_family != (is_ipv4(a->daddr) ? 4 : 6))
		return false;
	if (filter_netns && a->netns != filter_netns)
		return false;
	if (filter_ports && !(filter_port_bits[a->dport >> 6 & 1023] >> (a->dport & 63) & 1))
		return false;
	if (filter_daddr && !network_wanted(&daddrs, a->daddr, filter_daddr_others))
		return false;
	if (filter_saddr && ((a->marks & MARK_NO_SOURCE) ||
			     !network_wanted(&saddrs, a->saddr, filter_saddr_others)))
		return false;
	return true;
}

/* Sends an attempt that has come to its end. */
static __always_inline void finish(struct attempt *a, enum result result, __s32 error)
{
	a->result = result;
	a->error = error;
	if (!(a->marks & MARK_NO_LATENCY))
		a->latency_ns = bpf_ktime_get_boot_ns() - a->time_ns;
	if (filter_failed && result == RESULT_OK)
		return;
	if (filter_latency_ns && a->latency_ns < filter_latency_ns)
		return;
	event_send(a, sizeof(*a));
}

/* The same for one that was kept; where several see the end, the first one sends it. */
static __always_inline void finish_kept(const struct sock *sk, struct attempt *kept,
					enum result result, __s32 error, const bool known)
{
	const struct tcp_sock *tp;
	struct attempt a = *kept;
	__u64 key = (__u64)sk;

	if (bpf_map_delete_elem(&attempts, &key) || (a.marks & MARK_SENT))
		return;
	a.sport = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport)) ?: a.sport;
	tp = tcp_of(sk, known);
	a.retransmits = tp ? FIELD_OF(tp, total_retrans, known) - a.retransmits : 0;
	if (want_outcome)
		finish(&a, result, error);
	else
		event_send(&a, sizeof(a));
}

/* Keeps an attempt until its end. Returns false if it is kept already, or can't be. */
static __always_inline bool keep(struct attempt *a, const struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct attempt *kept;

	if (!bpf_map_update_elem(&attempts, &key, a, BPF_NOEXIST))
		return true;
	/* Another program has seen the same beginning: where spares are, they all do. */
	kept = bpf_map_lookup_elem(&attempts, &key);
	if (kept && kept->tid == a->tid)
		return false;
	/* One that is still there for another reason is of a socket whose end was missed. */
	if (bpf_map_update_elem(&attempts, &key, a, BPF_EXIST)) {
		count_lost(LOST_INFLIGHT_FULL);
		return false;
	}
	count_lost(LOST_RETURN_MISSED);
	return true;
}

/* The SYN is being sent: the body of all hooks on the beginning. Whether the attempt is kept. */
static __always_inline bool begin(const struct sock *sk, __u64 time_ns, bool guard,
				  const bool known)
{
	struct attempt a;

	identify(&a, time_ns, known);
	locate(&a, sk, known);
	if (!ends_wanted(&a))
		return false;
	if (want_outcome || (want_lport && !a.sport))
		return keep(&a, sk);
	if (guard) {
		a.marks |= MARK_SENT;
		if (!keep(&a, sk))
			return false;
		a.marks &= ~MARK_SENT;
	}
	a.retransmits = 0;
	event_send(&a, sizeof(a));
	return false;
}

/* An attempt has failed before there was a socket to be kept by. */
static __always_inline void fail_early(const struct sock *sk, const void *addr, const bool user,
				       __u64 time_ns, __s32 ret, bool fastopen)
{
	struct attempt a;

	identify(&a, time_ns ?: bpf_ktime_get_boot_ns(), false);
	if (!time_ns)
		a.marks |= MARK_NO_LATENCY;
	if (!locate_early(&a, sk, addr, user))
		return;
	if (fastopen) /* the socket no longer tells */
		a.via = VIA_FASTOPEN;
	if (ends_wanted(&a))
		finish(&a, RESULT_FAILED, -ret);
}

/* Modes fentry and kprobe: tcp_v4_connect and tcp_v6_connect. */

/* For an IPv4 address the latter calls the former, which is then not of interest. */
#define INNER(sk, family) \
	((family) == AF_INET && BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6)

static __always_inline int call_begins(struct sock *sk, void *addr, const bool needed)
{
	struct call c = { .sk = sk, .addr = addr, .time_ns = beginning() };
	__u64 id = bpf_get_current_pid_tgid();

	if (!task_wanted())
		return 0;
	if (!bpf_map_update_elem(&calls, &id, &c, BPF_NOEXIST))
		return 0;
	/* An entry still there is that of a call whose return was missed. */
	if (bpf_map_update_elem(&calls, &id, &c, BPF_EXIST)) {
		if (needed)
			count_lost(LOST_INFLIGHT_FULL);
	} else if (needed) {
		count_lost(LOST_RETURN_MISSED);
	}
	return 0;
}

static __always_inline int call_ends(struct sock *sk, void *addr, __u64 time_ns, __s32 ret,
				     const bool known)
{
	__u64 id;
	__u8 yes = 1;

	if (!ret) {
		begin(sk, time_ns, false, known);
		return 0;
	}
	if (want_outcome && (ret == -EPERM || ret == -EACCES)) {
		id = bpf_get_current_pid_tgid();
		bpf_map_update_elem(&refusals, &id, &yes, BPF_ANY);
	}
	fail_early(sk, addr, false, time_ns, ret, false);
	return 0;
}

/* The call is taken out of those that have begun: of spares, the first that does so has it. */
static __always_inline int call_ends_kept(struct sock *sk, __s32 ret, const bool known)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct call *kept = bpf_map_lookup_elem(&calls, &id), c;

	if (!kept)
		return 0;
	c = *kept;
	if (bpf_map_delete_elem(&calls, &id))
		return 0;
	return call_ends(known ? sk : c.sk, c.addr, c.time_ns, ret, known);
}

#define CONNECT_HOOKS(name, fn, family)                                           \
	SEC("fentry/" fn)                                                         \
	int BPF_PROG(name##_fentry, struct sock *sk, void *addr, int len)         \
	{                                                                         \
		return INNER(sk, family) ? 0 : call_begins(sk, addr, false);      \
	}                                                                         \
	SEC("fexit/" fn)                                                          \
	int BPF_PROG(name##_fexit, struct sock *sk, void *addr, int len, int ret) \
	{                                                                         \
		return INNER(sk, family) ? 0 : call_ends_kept(sk, ret, true);     \
	}                                                                         \
	SEC("kprobe/" fn)                                                         \
	int BPF_KPROBE(name##_kprobe, struct sock *sk, void *addr)                \
	{                                                                         \
		return INNER(sk, family) ? 0 : call_begins(sk, addr, true);       \
	}                                                                         \
	SEC("kretprobe/" fn)                                                      \
	int BPF_KRETPROBE(name##_kretprobe, int ret)                              \
	{                                                                         \
		return call_ends_kept(NULL, ret, false);                          \
	}

CONNECT_HOOKS(connect4, "tcp_v4_connect", AF_INET)
CONNECT_HOOKS(connect6, "tcp_v6_connect", AF_INET6)

/* All modes: what becomes of a socket. */

static __always_inline __u64 inode_of(const struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

/* An error that connect() gives for no other reason than that an attempt has failed in the background. */
static __always_inline bool only_background(__s32 error)
{
	return error == ECONNREFUSED || error == ETIMEDOUT || error == ECONNRESET ||
	       error == ECONNABORTED;
}

static __always_inline int attempt_ends(const struct sock *sk, int state, const bool known)
{
	__u64 key = (__u64)sk, id = bpf_get_current_pid_tgid(), inode;
	__s32 error = state == TCP_CLOSE ? FIELD_OF(sk, sk_err, known) : 0;
	struct attempt *a;
	struct call *c;

	if (want_outcome && error && !only_background(error)) {
		inode = inode_of(sk);
		bpf_map_update_elem(&background_failures, &key, &inode, BPF_ANY);
	}
	a = bpf_map_lookup_elem(&attempts, &key);
	if (!a)
		return 0;
	if (state != TCP_CLOSE) {
		finish_kept(sk, a, RESULT_OK, 0, known);
	} else if (error) {
		finish_kept(sk, a, RESULT_FAILED, error, known);
	} else if ((c = bpf_map_lookup_elem(&calls, &id)) && c->sk == sk) {
		c->closed = 1; /* within the call: that will tell why */
	} else if (a->via == VIA_IO_URING && a->tid == current_tid()) {
		finish_kept(sk, a, RESULT_FAILED, 0, known);
	} else {
		finish_kept(sk, a, RESULT_ABORTED, 0, known);
	}
	return 0;
}

/* Of tracepoint mode: an attempt begins as its socket changes to this state. */
static __always_inline int attempt_begins(const struct sock *sk, const bool known)
{
	struct call c = { .sk = (struct sock *)sk };
	const struct task_struct *task;
	__u64 id;

	if (!task_wanted() || !begin(sk, beginning(), want_guard, known))
		return 0;
	task = current_task(known);
	if (FIELD_OF(task, flags, TASK_KNOWN(known)) & (PF_IO_WORKER | PF_KTHREAD))
		return 0; /* they make no calls */
	/* The system call's return tells the port, and why it failed at once if it did. */
	id = bpf_get_current_pid_tgid();
	if (bpf_map_update_elem(&calls, &id, &c, BPF_ANY))
		count_lost(LOST_INFLIGHT_FULL);
	return 0;
}

static __always_inline int state_changes(const struct sock *sk, int from, int to, const bool begins,
					 const bool known)
{
	/* SYN_RECV comes in between where both ends connect to each other at once. */
	if (from == TCP_SYN_SENT || from == TCP_SYN_RECV) {
		if ((want_outcome || want_lport || want_guard) && to != TCP_SYN_RECV &&
		    FIELD_OF(sk, sk_protocol, known) == IPPROTO_TCP)
			return attempt_ends(sk, to, known);
	} else if (begins && to == TCP_SYN_SENT &&
		   FIELD_OF(sk, sk_protocol, known) == IPPROTO_TCP) {
		return attempt_begins(sk, known);
	}
	return 0;
}

#define STATE_HOOKS(name, begins)                                         \
	SEC("tp_btf/inet_sock_set_state")                                 \
	int BPF_PROG(name##_tp, const struct sock *sk, int from, int to)  \
	{                                                                 \
		return state_changes(sk, from, to, begins, true);         \
	}                                                                 \
	SEC("raw_tp/inet_sock_set_state")                                 \
	int BPF_PROG(name##_raw, const struct sock *sk, int from, int to) \
	{                                                                 \
		return state_changes(sk, from, to, begins, false);        \
	}

STATE_HOOKS(state, true)
STATE_HOOKS(outcome, false)

/* System calls that fail before TCP is asked, and in tracepoint mode also those that TCP refuses. */

/* The socket behind a descriptor, if it is one that can make a TCP connection. */
static __always_inline struct sock *tcp_socket(int fd)
{
	struct file *file = file_of(fd);
	struct socket *socket;
	struct sock *sk;
	__u16 protocol, family;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	protocol = BPF_CORE_READ(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) ||
	    BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return NULL;
	return sk;
}

/* Whether a call that did not begin an attempt has refused one, and not failed for another reason. */
static __always_inline bool refuses(const struct sock *sk, __s32 error)
{
	__u64 key = (__u64)sk, *inode;

	switch (error) {
	case EINTR:
	case EBADF:
	case EFAULT:
	case ENOTSOCK:
	case EAFNOSUPPORT:
	case EISCONN:
	case EALREADY:
	case EINPROGRESS: return false;
	}
	if (only_background(error) || (error >= ERESTARTSYS && error < ERESTARTSYS + 5) ||
	    BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_CLOSE)
		return false;
	inode = bpf_map_lookup_elem(&background_failures, &key);
	if (!inode)
		return true;
	bpf_map_delete_elem(&background_failures, &key);
	return *inode != inode_of(sk);
}

static __always_inline int connect_fails(int fd, const void *addr, __s32 ret, bool fastopen)
{
	struct sock *sk;

	if (ret >= 0 || !want_outcome || !task_wanted())
		return 0;
	sk = tcp_socket(fd);
	if (sk && refuses(sk, -ret))
		fail_early(sk, addr, true, 0, ret, fastopen);
	return 0;
}

/* In the modes fentry and kprobe TCP's own refusals are known already. */
static __always_inline int connect_refused(const struct pt_regs *regs, __s32 ret, const bool known)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct syscall_args args;

	if (ret != -EPERM && ret != -EACCES)
		return 0;
	if (!bpf_map_delete_elem(&refusals, &id))
		return 0;
	args = syscall_arguments(regs, in_compat_syscall(known), known);
	return connect_fails(args.a[0], (void *)args.a[1], ret, false);
}

#define SYSCALL_HOOKS(name, fn)                                         \
	SEC("fexit/" fn)                                                \
	int BPF_PROG(name##_fexit, const struct pt_regs *regs, int ret) \
	{                                                               \
		return connect_refused(regs, ret, true);                \
	}                                                               \
	SEC("kretprobe/" fn)                                            \
	int BPF_KRETPROBE(name##_kretprobe, int ret)                    \
	{                                                               \
		return connect_refused(current_regs(), ret, false);     \
	}

SYSCALL_HOOKS(refusal, SYSCALL_FN(connect))
#if defined(SYSCALL32_FN)
SYSCALL_HOOKS(refusal32, SYSCALL32_FN(connect))
#endif

static __always_inline __u64 fifth_argument(const struct pt_regs *regs, bool compat)
{
#if defined(__TARGET_ARCH_x86)
	return compat ? (__u32)BPF_CORE_READ(regs, di) : BPF_CORE_READ(regs, r8);
#else
	return BPF_CORE_READ(regs, regs[4]);
#endif
}

/* The system call in which an attempt began has returned. */
static __always_inline void settle(const struct call *c, __s32 ret, bool tells)
{
	const struct inet_sock *sk = (const void *)c->sk;
	__u64 key = (__u64)sk;
	struct attempt *a = bpf_map_lookup_elem(&attempts, &key);

	if (!a)
		return;
	if (c->closed)
		finish_kept((const void *)sk, a, RESULT_FAILED, tells && ret < 0 ? -ret : 0, false);
	else if (!want_outcome)
		finish_kept((const void *)sk, a, RESULT_PENDING, 0, false);
	else /* by now it has a port */
		a->sport = bpf_ntohs(BPF_CORE_READ(sk, inet_sport));
}

static __always_inline int syscall_ends(const struct pt_regs *regs, __s32 ret, const bool known)
{
	__s32 nr = syscall_number(regs, known);
	struct syscall_args args;
	struct call *kept, c;
	__u32 words[2] = {};
	enum call_kind kind;
	bool compat;
	__u64 id;

	/* This runs for every system call of the machine, so nothing comes before this. */
	if (!call_kind(nr, false) && !call_kind(nr, true))
		return 0;
	compat = in_compat_syscall(known);
	kind = call_kind(nr, compat);
	if (kind == CALL_OTHER)
		return 0;
	id = bpf_get_current_pid_tgid();
	kept = bpf_map_lookup_elem(&calls, &id);
	if (kept) {
		c = *kept;
		bpf_map_delete_elem(&calls, &id);
		settle(&c, ret, kind != CALL_IO_URING);
		return 0;
	}
	if (ret >= 0 || !want_outcome)
		return 0;
	args = syscall_arguments(regs, compat, known);
	switch (kind) {
	case CALL_CONNECT: break;
	case CALL_SOCKETCALL:
		if (args.a[0] != SYS_CONNECT ||
		    bpf_probe_read_user(words, sizeof(words), (void *)args.a[1]))
			return 0;
		args.a[0] = words[0];
		args.a[1] = words[1];
		break;
	case CALL_SENDTO:
		if (!(args.a[3] & MSG_FASTOPEN))
			return 0;
		args.a[1] = fifth_argument(regs, compat);
		break;
	case CALL_SENDMSG:
		/* The address is the first thing in the message. */
		if (!(args.a[2] & MSG_FASTOPEN) ||
		    bpf_probe_read_user(words, compat ? 4 : 8, (void *)args.a[1]))
			return 0;
		args.a[1] = words[0] | (__u64)words[1] << 32;
		break;
	default: return 0;
	}
	return connect_fails(args.a[0], (void *)args.a[1], ret,
			     kind == CALL_SENDTO || kind == CALL_SENDMSG);
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
