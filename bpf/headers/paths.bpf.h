/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The path of a file, walked in the kernel from its dentry up to a root: symbolic links are long
 * resolved there, and mount points are crossed. Names are written leaf first, each with its NUL;
 * internal/common/paths puts them in order. bpf_d_path() would do this, but only from a few hooks
 * (5.10), none of which these tools can use everywhere.
 */
#ifndef PATHS_BPF_H
#define PATHS_BPF_H

#include "scratch.bpf.h"

/* More names than this can't stand in PATH_MAX bytes. */
#define PATH_DEPTH (PATH_MAX / 2)
#define PATH_STEPS 16 /* at a time */

/* What is to be known of a path that was walked. User space takes these from the object's BTF. */
enum path_mark {
	PATH_CUT = 1,	      /* too long or too deep: the names nearest the root are missing */
	PATH_DELETED = 2,     /* no longer has a name */
	PATH_UNREACHABLE = 4, /* does not lie below the root it was looked at from */
	PATH_WHOLE_FS = 8,    /* given from the root of its file system */
};

/* Shows paths from the root of the mount tree, not from the root of the process. */
const volatile bool path_root_host = false;
const volatile __u32 path_host_mntns = 0;

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* Makes ready to walk from path, writing from off on. */
static __always_inline void path_begin(struct scratch *s, const struct path *path, __u32 off)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct dentry *dentry = BPF_CORE_READ(path, dentry);
	struct fs_struct *fs = BPF_CORE_READ(task, fs);

	s->walk.dentry = dentry;
	s->walk.mnt = mount_of(BPF_CORE_READ(path, mnt));
	s->walk.root_dentry = NULL;
	s->walk.root_mnt = NULL;
	s->walk.off = off;
	s->walk.marks = 0;
	if (!path_root_host) {
		s->walk.root_dentry = BPF_CORE_READ(fs, root.dentry);
		s->walk.root_mnt = mount_of(BPF_CORE_READ(fs, root.mnt));
	} else if (mount_namespace(task) != path_host_mntns) {
		/*
		 * Where another namespace has it mounted says nothing on the host; where it is in
		 * its file system does.
		 */
		s->walk.marks |= PATH_WHOLE_FS;
	}
	/* As d_unlinked(): out of the hash, and not the root of anything. */
	if (!BPF_CORE_READ(dentry, d_hash.pprev) && BPF_CORE_READ(dentry, d_parent) != dentry)
		s->walk.marks |= PATH_DELETED;
}

/* One step up. Returns 1 at the end. */
static __always_inline int path_step(struct scratch *s)
{
	struct dentry *dentry, *parent;
	struct mount *mnt, *parent_mnt;
	__u32 off;
	long n;

	dentry = s->walk.dentry;
	mnt = s->walk.mnt;
	if (dentry == s->walk.root_dentry && mnt == s->walk.root_mnt)
		return 1;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (!(s->walk.marks & PATH_WHOLE_FS) && dentry == BPF_CORE_READ(mnt, mnt.mnt_root)) {
		parent_mnt = BPF_CORE_READ(mnt, mnt_parent);
		if (parent_mnt != mnt) {
			s->walk.dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
			s->walk.mnt = parent_mnt;
			return 0;
		}
		if (s->walk.root_dentry)
			s->walk.marks |= PATH_UNREACHABLE;
		return 1;
	}
	if (parent == dentry || !parent) {
		if (!(s->walk.marks & PATH_WHOLE_FS))
			s->walk.marks |= PATH_UNREACHABLE;
		return 1;
	}
	off = s->walk.off;
	if (off > SCRATCH_SIZE - (NAME_MAX + 1)) {
		s->walk.marks |= PATH_CUT;
		return 1;
	}
	n = bpf_probe_read_kernel_str(&s->record[off], NAME_MAX + 1,
				      BPF_CORE_READ(dentry, d_name.name));
	if (n <= 0) {
		s->walk.marks |= PATH_CUT;
		return 1;
	}
	s->walk.off = off + n;
	s->walk.dentry = parent;
	return 0;
}

/*
 * Steps by the dozen, in global functions with no pointers among their arguments (5.10 takes none):
 * the verifier then goes through each loop once, however often the function is called.
 */
__noinline int path_some_steps(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratch_slots, &slot);

	if (!s)
		return 1;
	for (int i = 0; i < PATH_STEPS; i++)
		if (path_step(s))
			return 1;
	return 0;
}

__noinline int path_steps(__u32 slot)
{
	for (int i = 0; i < PATH_DEPTH / PATH_STEPS; i++)
		if (path_some_steps(slot))
			return 0;
	return PATH_CUT;
}

/*
 * Writes the names from path to its root into the buffer's record, from off on. Returns the offset
 * behind them.
 */
static __always_inline __u32 path_walk(__u32 slot, struct scratch *s, const struct path *path,
				       __u32 off)
{
	path_begin(s, path, off);
	s->walk.marks |= path_steps(slot);
	return s->walk.off;
}

#endif
