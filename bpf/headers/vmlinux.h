/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's types that these tools touch, and of each only the fields used. Kept by hand: CO-RE
 * finds every field by name in the running kernel's BTF, so order, size and neighbours don't matter
 * here. A type that changed its shape has a second form with a ___suffix, which CO-RE ignores when
 * it looks the name up.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
typedef __u32 dev_t;

#define true 1
#define false 0
#define NULL ((void *)0)

#define TASK_COMM_LEN 16
#define NAME_MAX 255
#define PATH_MAX 4096

/* From the BPF user API: values that the kernel can't change. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

enum {
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1024,
};

enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

enum {
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
};

enum {
	BPF_F_USER_STACK = 256,
};

/*
 * What a program on a perf event is given: the registers of what was interrupted, user space or kernel. An
 * interface of the kernel, which keeps its layout; only whole words may be read of it.
 */
struct bpf_perf_event_data {
#if defined(__TARGET_ARCH_x86)
	struct {
		__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip;
		__u64 cs, flags, sp, ss;
	} regs;
#elif defined(__TARGET_ARCH_arm64)
	struct {
		__u64 regs[31];
		__u64 sp, pc, pstate;
	} regs;
#endif
	__u64 sample_period; /* how much of the event this sample stands for */
};

/* What a program on a packet is given: an interface of the kernel, which keeps its layout. */
struct __sk_buff {
	__u32 len;
	__u32 unused_1[18];
	__u32 data, data_end; /* 32 bits, and yet pointers */
	__u32 unused_2[12];
	__u32 remote_port; /* of the socket; in network byte order, in the upper half */
	__u32 local_port;  /* of the socket; in host byte order */
};

/* Here only to ask whether the kernel has it. */
enum bpf_func_id {
	BPF_FUNC_get_current_task_btf = 158,
	BPF_FUNC_task_pt_regs = 175,
};

/* From the socket API: */
struct sockaddr_in {
	__u16 sin_family;
	__be16 sin_port;
	__be32 sin_addr;
};

struct sockaddr_in6 {
	__u16 sin6_family;
	__be16 sin6_port;
	__be32 sin6_flowinfo;
	__u8 sin6_addr[16];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, sp;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
	__u64 orig_x0;
	__s32 syscallno;
};
#endif

struct thread_info {
	unsigned long flags;
#if defined(__TARGET_ARCH_x86)
	u32 status;
#endif
};

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct qstr {
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node *next, **pprev;
};

struct super_block {
	dev_t s_dev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root, pwd;
};

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1]; /* of any length since 6.5 (b69f0aeb0689) */
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct tty_struct {
	char name[64];
};

struct signal_struct {
	atomic_t live;
	int nr_threads;
	int group_exit_code;
	unsigned int flags;
	struct tty_struct *tty;
	u64 utime, stime;
	unsigned long maxrss;
	unsigned long long sum_sched_runtime;
};

struct mm_struct {
	unsigned long start_code;
	unsigned long arg_start, arg_end, env_start, env_end;
	struct file *exe_file;
};

struct linux_binprm {
	int argc;
	const char *filename, *interp;
};

struct sched_entity {
	u64 sum_exec_runtime;
};

struct sighand_struct;

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	refcount_t usage;
	unsigned int flags;
	u8 on_cpu, on_rq; /* bytes in 7.3, and in 6.18 ints, of which the first byte says it all */
	struct sched_entity se;
	struct mm_struct *mm;
	int exit_state, exit_code;
	int pid, tgid;
	struct task_struct *real_parent, *group_leader;
	struct pid *thread_pid;
	u64 utime, stime;
	u64 start_boottime;
	kuid_t loginuid;
	unsigned int sessionid;
	u64 self_exec_id;
	char comm[TASK_COMM_LEN];
	unsigned long sas_ss_sp, sas_ss_size; /* of sigaltstack(2) */
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct sighand_struct *sighand;
	const struct cred *cred;
	struct io_uring_task *io_uring; /* only with CONFIG_IO_URING */
};

struct open_how {
	__u64 flags, mode, resolve;
};

struct filename {
	const char *name;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr; /* only with CONFIG_IPV6 */
};

struct socket {
	struct sock *sk;
	struct file *file;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_type, sk_protocol;
	int sk_err;
	struct socket *sk_socket;
};

struct inet_sock {
	__be16 inet_sport;
};

struct tcp_sock {
	u32 total_retrans;
	u8 fastopen_connect : 1, is_mptcp : 1;
	void *fastopen_req;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct gendisk {
	int major, first_minor;
	char disk_name[32];
};

struct request_queue {
	struct gendisk *disk; /* since 5.15 */
};

struct block_device {
	struct gendisk *bd_disk;
};

struct bvec_iter {
	unsigned int bi_size;
};

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev; /* since 5.12 */
	unsigned int bi_opf;
	__u8 bi_status;
	struct bvec_iter bi_iter;
	void *bi_private;
	struct blkcg_gq *bi_blkg; /* only with CONFIG_BLK_CGROUP */
};

/* Up to 5.11. */
struct bio___old {
	struct gendisk *bi_disk;
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int rq_flags;
	unsigned int __data_len;
	struct bio *bio;
};

/* Up to 5.16. */
struct request___old {
	struct gendisk *rq_disk;
};

struct io_cmd_data {
	__u8 data[56];
};

struct io_kiocb {
	struct io_cmd_data cmd;
	u8 opcode;
};

struct io_open {
	int dfd;
	struct filename *filename;
	struct open_how how;
};

/* Since 7.0 a request keeps its name in a struct of its own. */
struct delayed_filename {
	struct filename *__incomplete_filename;
};

struct io_open___delayed {
	struct delayed_filename filename;
};

struct io_uring_sqe {
	u8 opcode;
	s32 fd;
	u64 off;
	u64 addr;
	u32 len;
	u32 open_flags;
};

struct io_uring_cqe {
	__s32 res;
};

#pragma clang attribute pop

#endif
