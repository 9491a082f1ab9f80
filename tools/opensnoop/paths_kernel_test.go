package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

//kernel:modules overlay

// pathScenes are of the two paths of a row: as the program gave it, and in full.
var pathScenes = []scene{
	{name: "working directory", play: func(s *script) {
		s.file(s.dir, "file")
		s.mkdir(s.dir, "sub")
		s.must(unix.Chdir(s.dir))
		for range times {
			s.reads("file", s.dir+"/file")
			s.reads("sub/../file", s.dir+"/file")
			s.reads(".", s.dir)
			s.fails("missing", s.dir+"/missing", unix.ENOENT)
			s.fails("sub/../missing", s.dir+"/sub/../missing", unix.ENOENT)
		}
	}},
	{name: "dirfd", play: func(s *script) {
		sub := s.mkdir(s.dir, "sub")
		file := s.file(sub, "file")
		dir := s.directory(sub, sub)
		defer unix.Close(dir)
		not := s.keep(reads(file, file), livetest.Openat(unix.AT_FDCWD, name(file), unix.O_RDONLY, 0))
		defer unix.Close(not)
		for range times {
			s.open(reads("file", file), livetest.Openat(dir, name("file"), unix.O_RDONLY, 0))
			s.open(reads("../sub/file", file), livetest.Openat(dir, name("../sub/file"), unix.O_RDONLY, 0))
			s.open(reads(file, file), livetest.Openat(dir, name(file), unix.O_RDONLY, 0))
			s.open(fails("missing", sub+"/missing", unix.ENOENT), livetest.Openat(dir, name("missing"), unix.O_RDONLY, 0))
			s.open(fails("x", null, unix.EBADF), livetest.Openat(1<<20, name("x"), unix.O_RDONLY, 0))
			s.open(fails("x", null, unix.EBADF), livetest.Openat(-1, name("x"), unix.O_RDONLY, 0))
			s.open(fails("x", file+"/x", unix.ENOTDIR), livetest.Openat(not, name("x"), unix.O_RDONLY, 0))
		}
	}},
	{name: "symlink", play: func(s *script) {
		sub := s.mkdir(s.dir, "sub")
		file := s.file(sub, "file")
		toFile, toDir, toNothing := filepath.Join(s.dir, "to-file"), filepath.Join(s.dir, "to-dir"), filepath.Join(s.dir, "to-nothing")
		s.must(unix.Symlink("sub/file", toFile))
		s.must(unix.Symlink(sub, toDir))
		s.must(unix.Symlink("nothing", toNothing))
		for range times {
			s.reads(toFile, file)
			s.reads(toDir, sub)
			s.reads(toDir+"/file", file)
			s.fails(toNothing, toNothing, unix.ENOENT)
			want := fails(toFile, toFile, unix.ELOOP)
			want.flags, want.value = "O_RDONLY|O_NOFOLLOW", unix.O_NOFOLLOW
			s.open(want, livetest.Openat(unix.AT_FDCWD, name(toFile), unix.O_NOFOLLOW, 0))
		}
		s.reads("/proc/self/cmdline", fmt.Sprintf("/proc/%d/cmdline", os.Getpid()))
	}},
	{name: "roots", play: func(s *script) {
		s.reads("/", "/")
		s.reads("//", "/")
		s.reads("/proc", "/proc")
		s.reads("/proc/..", "/")
	}},
	{name: "chroot", mounts: true, play: func(s *script) {
		outside := s.directory(s.dir, s.dir)
		defer unix.Close(outside)
		s.file(s.dir, "outside")
		jail := s.mkdir(s.dir, "jail")
		s.mkdir(jail, "sub")
		s.file(jail, "sub", "file")
		livetest.Chroot(s.t, jail)
		for range times {
			s.reads("/", "/")
			s.reads("/sub/file", "/sub/file")
			s.reads("sub/file", "/sub/file")
			s.fails("/missing", "/missing", unix.ENOENT)
			s.fails("missing", "/missing", unix.ENOENT)
			// What is not below the process's root has no path that it could use.
			s.open(reads("outside", "(unreachable)"+s.dir+"/outside"), livetest.Openat(outside, name("outside"), unix.O_RDONLY, 0))
			s.open(fails("missing", "(unreachable)"+s.dir+"/missing", unix.ENOENT), livetest.Openat(outside, name("missing"), unix.O_RDONLY, 0))
		}
	}},
	{name: "bind mount", mounts: true, play: func(s *script) {
		a, b := s.mkdir(s.dir, "a"), s.mkdir(s.dir, "b")
		s.file(a, "file")
		single := s.file(s.dir, "single")
		livetest.BindMount(s.t, a, b)
		livetest.BindMount(s.t, a+"/file", single)
		for range times {
			s.reads(a+"/file", a+"/file")
			s.reads(b+"/file", b+"/file")
			s.reads(b, b)
			s.reads(single, single)
			s.fails(b+"/missing", b+"/missing", unix.ENOENT)
		}
		s.must(unix.Chdir(b))
		s.reads("file", b+"/file")
		s.fails("missing", b+"/missing", unix.ENOENT)
	}},
	{name: "tmpfs", mounts: true, play: func(s *script) {
		mnt := s.mkdir(s.dir, "mnt")
		livetest.Tmpfs(s.t, mnt)
		s.file(mnt, "file")
		inner := s.mkdir(mnt, "inner")
		livetest.Tmpfs(s.t, inner)
		s.file(inner, "file")
		for range times {
			s.reads(mnt+"/file", mnt+"/file")
			s.reads(inner+"/file", inner+"/file")
			s.reads(inner+"/..", mnt)
			s.fails(inner+"/missing", inner+"/missing", unix.ENOENT)
		}
		// A mount that hangs in no tree any more has no path.
		dir := s.directory(mnt, mnt)
		defer unix.Close(dir)
		s.must(unix.Unmount(mnt, unix.MNT_DETACH))
		s.open(reads("file", "(unreachable)/file"), livetest.Openat(dir, name("file"), unix.O_RDONLY, 0))
	}},
	{name: "overlay", mounts: true, play: func(s *script) {
		livetest.Tmpfs(s.t, s.dir)
		lower, upper, work, merged := s.mkdir(s.dir, "lower"), s.mkdir(s.dir, "upper"), s.mkdir(s.dir, "work"), s.mkdir(s.dir, "merged")
		s.file(lower, "below")
		s.file(upper, "above")
		if !livetest.Overlay(s.t, lower, upper, work, merged) {
			s.skip("no overlayfs on this kernel")
		}
		for range times {
			s.reads(merged+"/below", merged+"/below")
			s.reads(merged+"/above", merged+"/above")
			s.fails(merged+"/missing", merged+"/missing", unix.ENOENT)
		}
		want := reads(merged+"/below", merged+"/below")
		want.flags, want.value = "O_RDWR", unix.O_RDWR
		s.open(want, livetest.Openat(unix.AT_FDCWD, name(merged+"/below"), unix.O_RDWR, 0))
	}},
	{name: "deleted", play: func(s *script) {
		path := s.file(s.dir, "gone")
		fd := s.keep(reads(path, path), livetest.Openat(unix.AT_FDCWD, name(path), unix.O_RDONLY, 0))
		defer unix.Close(fd)
		s.must(unix.Unlink(path))
		link := fmt.Sprintf("/proc/self/fd/%d", fd)
		for range times {
			want := reads(link, path)
			want.deleted = true
			s.open(want, livetest.Openat(unix.AT_FDCWD, name(link), unix.O_RDONLY, 0))
		}
		// Another file of that name is not deleted.
		s.file(s.dir, "gone")
		s.reads(path, path)
		// A working directory that is gone.
		sub := s.mkdir(s.dir, "sub")
		s.must(unix.Chdir(sub))
		s.must(unix.Rmdir(sub))
		s.fails("missing", sub+"/missing", unix.ENOENT)
	}},
	{name: "O_TMPFILE", play: func(s *script) {
		for range times {
			fd := livetest.Openat(unix.AT_FDCWD, name(s.dir), unix.O_TMPFILE|unix.O_RDWR, 0o600)
			var st unix.Stat_t
			s.must(unix.Fstat(fd, &st))
			want := reads(s.dir, fmt.Sprintf("%s/#%d", s.dir, st.Ino))
			want.flags, want.value, want.mode, want.deleted = "O_RDWR|O_TMPFILE", unix.O_TMPFILE|unix.O_RDWR, "0600", true
			s.open(want, fd)
		}
	}},
	{name: "no file", play: func(s *script) {
		var pipe [2]int
		s.must(unix.Pipe(pipe[:]))
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		link := fmt.Sprintf("/proc/self/fd/%d", pipe[0])
		for range times {
			s.reads(link, null)
			s.fails("", null, unix.ENOENT)
		}
	}},
	{name: "RESOLVE_IN_ROOT", play: func(s *script) {
		s.file(s.dir, "file")
		dir := s.directory(s.dir, s.dir)
		defer unix.Close(dir)
		inRoot := &unix.OpenHow{Resolve: unix.RESOLVE_IN_ROOT}
		openat2 := func(want open) {
			want.via = "openat2"
			s.open(want, livetest.Openat2(dir, name(want.path), inRoot))
		}
		for range times {
			openat2(reads("/file", s.dir+"/file"))
			openat2(reads("/../../file", s.dir+"/file"))
			openat2(fails("/missing", s.dir+"/missing", unix.ENOENT))
			openat2(fails("missing", s.dir+"/missing", unix.ENOENT))
		}
	}},
	{name: "long component", play: func(s *script) {
		longest := s.file(s.dir, strings.Repeat("n", 255))
		s.mkdir(s.dir, strings.Repeat("d", 255))
		inner := s.file(s.dir, strings.Repeat("d", 255), strings.Repeat("e", 255))
		tooLong := filepath.Join(s.dir, strings.Repeat("n", 256))
		for range times {
			s.reads(longest, longest)
			s.reads(inner, inner)
			s.fails(tooLong, tooLong, unix.ENAMETOOLONG)
		}
	}},
	{name: "long path", play: func(s *script) {
		there, missing := s.file(s.dir, "there"), filepath.Join(s.dir, "missing")
		for _, size := range []int{110, 111, 112, 113, 4094, 4095} {
			s.reads(stretch(there, size), there)
			s.fails(stretch(missing, size), stretch(missing, size), unix.ENOENT)
		}
		for _, size := range []int{4096, 4097, 5000} {
			// No more of it than could have been a path.
			path := stretch(there, size)
			want := fails(path[:4095], path[:4095], unix.ENAMETOOLONG)
			want.cut = true
			s.open(want, livetest.Openat(unix.AT_FDCWD, name(path), unix.O_RDONLY, 0))
		}
	}},
	{name: "deep", mounts: true, play: func(s *script) {
		// In a file system that goes with the script, as removing this is hard.
		livetest.Tmpfs(s.t, s.dir)
		for _, deep := range []struct {
			name  string
			depth int
		}{{strings.Repeat("d", 200), 50}, {"a", 2100}} {
			s.must(unix.Chdir(s.dir))
			for range deep.depth {
				s.must(unix.Mkdir(deep.name, 0o755))
				s.must(unix.Chdir(deep.name))
			}
			s.must(unix.Mknod("file", unix.S_IFREG|0o644, 0))
			path := s.dir + strings.Repeat("/"+deep.name, deep.depth) + "/file"
			// The end of the path, at least as much as a path may have.
			cut := func(path string) func(string) bool {
				return func(full string) bool {
					tail, marked := strings.CutPrefix(full, ".../")
					return !marked || !strings.HasSuffix(path, "/"+tail) || len(tail) < 4096-256
				}
			}
			for range times {
				want := reads("file", "")
				want.cut, want.wrongFull = true, cut(path)
				s.open(want, livetest.Openat(unix.AT_FDCWD, name("file"), unix.O_RDONLY, 0))
				want = fails("missing", "", unix.ENOENT)
				want.cut, want.wrongFull = true, cut(strings.TrimSuffix(path, "file")+"missing")
				s.open(want, livetest.Openat(unix.AT_FDCWD, name("missing"), unix.O_RDONLY, 0))
			}
		}
		// Deep, but not too deep to be shown; the second is longer than a path
		// may be.
		for depth, name := range map[int]string{1900: "b", 30: strings.Repeat("e", 200)} {
			s.must(unix.Chdir(s.dir))
			for range depth {
				s.must(unix.Mkdir(name, 0o755))
				s.must(unix.Chdir(name))
			}
			s.must(unix.Mknod("file", unix.S_IFREG|0o644, 0))
			s.reads("file", s.dir+strings.Repeat("/"+name, depth)+"/file")
		}
	}},
}

// stretch makes a path longer without another meaning.
func stretch(path string, size int) string {
	if len(path) >= size {
		return path
	}
	dir, file := filepath.Split(path)
	return dir + strings.Repeat("/", size-len(path)) + file
}

// TestKernelHostRoot compares the full paths that --path-root host gives.
func TestKernelHostRoot(t *testing.T) {
	livetest.NeedOnce(t)
	scenes := []scene{
		{name: "host", play: func(s *script) {
			file := s.file(s.dir, "file")
			s.reads(file, file)
			s.fails("/nothing/here", "/nothing/here", unix.ENOENT)
			s.must(unix.Chdir(s.dir))
			s.fails("missing", s.dir+"/missing", unix.ENOENT)
		}},
		{name: "chroot", play: func(s *script) {
			jail := s.mkdir(s.dir, "jail")
			file := s.file(jail, "file")
			// Only this thread's root: it has one of its own.
			s.must(errors.Join(unix.Chroot(jail), unix.Chdir("/")))
			for range times {
				s.reads("/", jail)
				s.reads("/file", file)
				s.reads("file", file)
				s.fails("/missing", jail+"/missing", unix.ENOENT)
				s.fails("missing", jail+"/missing", unix.ENOENT)
			}
		}},
		{name: "another mount namespace", mounts: true, play: func(s *script) {
			a, b, mnt := s.mkdir(s.dir, "a"), s.mkdir(s.dir, "b"), s.mkdir(s.dir, "mnt")
			s.file(a, "file")
			livetest.BindMount(s.t, a, b)
			livetest.Tmpfs(s.t, mnt)
			s.file(mnt, "file")
			for range times {
				s.reads(a+"/file", a+"/file")
				// The host does not have this mount, but it has the file.
				s.reads(b+"/file", a+"/file")
				s.fails("/nothing/here", "/nothing/here", unix.ENOENT)
				// The host has this file nowhere.
				s.reads(mnt+"/file", null)
			}
			livetest.Chroot(s.t, b)
			for range times {
				s.reads("/file", a+"/file")
				s.fails("/missing", a+"/missing", unix.ENOENT)
			}
		}},
	}
	perform(t, scenes, "--path-root", "host")
}
