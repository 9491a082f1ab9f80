package livetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// An opener is one way to open, as a test uses it: ok is false where there is
// no such way here.
type opener struct {
	name string
	open func(t *testing.T, path string) (result int, ok bool)
}

var openers = []opener{
	{"open", func(t *testing.T, path string) (int, bool) { return Open(Name(path), unix.O_RDONLY, 0) }},
	{"openat", func(t *testing.T, path string) (int, bool) {
		return Openat(unix.AT_FDCWD, Name(path), unix.O_RDONLY, 0), true
	}},
	{"openat2", func(t *testing.T, path string) (int, bool) {
		return Openat2(unix.AT_FDCWD, Name(path), &unix.OpenHow{Flags: unix.O_RDONLY}), true
	}},
	{"cold openat", func(t *testing.T, path string) (int, bool) {
		return Openat(unix.AT_FDCWD, ColdName(t, path), unix.O_RDONLY, 0), true
	}},
	{"int80 open", func(t *testing.T, path string) (int, bool) {
		return ifInt80(t, path, func(name *byte) (int, bool) { return Int80Open(name, unix.O_RDONLY, 0) })
	}},
	{"int80 openat", func(t *testing.T, path string) (int, bool) {
		return ifInt80(t, path, func(name *byte) (int, bool) { return Int80Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0) })
	}},
	{"int80 openat2", func(t *testing.T, path string) (int, bool) {
		return ifInt80(t, path, func(name *byte) (int, bool) { return Int80Openat2(unix.AT_FDCWD, name, &unix.OpenHow{}) })
	}},
}

func ifInt80(t *testing.T, path string, open func(*byte) (int, bool)) (int, bool) {
	if !HasInt80() {
		return 0, false
	}
	return open(LowName(t, path))
}

// A watch counts how often a file is opened, by the kernel's own account.
type watch struct{ fd int }

func newWatch(t *testing.T, path string) watch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return watch{fd}
}

// count is the number of opens since the last count. Opens that follow each
// other are one event to inotify, so it is to be asked after each.
func (w watch) count(t *testing.T) (n int) {
	t.Helper()
	b := make([]byte, 4096)
	size, err := unix.Read(w.fd, b)
	if err == unix.EAGAIN {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return size / unix.SizeofInotifyEvent
}

// checkOpened checks the result of the open of a file that exists.
func checkOpened(t *testing.T, what string, fd int, path string) {
	t.Helper()
	if fd < 0 {
		t.Fatalf("%s: %v", what, unix.Errno(-fd))
	}
	defer unix.Close(fd)
	if got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); got != path || err != nil {
		t.Fatalf("%s opened %q, %v; want %q", what, got, err, path)
	}
}

func tempFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKernelOpeners(t *testing.T) {
	Need(t)
	path := tempFile(t)
	opens := newWatch(t, path)
	for _, o := range openers {
		t.Run(o.name, func(t *testing.T) {
			for range 23 {
				fd, ok := o.open(t, path)
				if !ok {
					t.Skipf("SKIPPED: no %s on this machine", o.name)
				}
				checkOpened(t, o.name, fd, path)
				if n := opens.count(t); n != 1 {
					t.Fatalf("%d opens, want 1", n)
				}
			}
			if got, _ := o.open(t, path+".missing"); got != -int(unix.ENOENT) {
				t.Errorf("a missing file gives %d, want %d", got, -int(unix.ENOENT))
			}
		})
	}
	if runtime.GOARCH == "amd64" {
		if _, ok := Open(Name(path+".missing"), 0, 0); !ok {
			t.Error("no open(2) on amd64")
		}
	}
}

func TestKernelCreators(t *testing.T) {
	Need(t)
	path := filepath.Join(t.TempDir(), "new")
	for _, o := range []opener{
		{"creat", func(t *testing.T, path string) (int, bool) { return Creat(Name(path), 0o600) }},
		{"int80 creat", func(t *testing.T, path string) (int, bool) {
			return ifInt80(t, path, func(name *byte) (int, bool) { return Int80Creat(name, 0o600) })
		}},
		{"openat", func(t *testing.T, path string) (int, bool) {
			return Openat(unix.AT_FDCWD, Name(path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600), true
		}},
		{"openat2", func(t *testing.T, path string) (int, bool) {
			return Openat2(unix.AT_FDCWD, Name(path), &unix.OpenHow{Flags: unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY, Mode: 0o600}), true
		}},
	} {
		t.Run(o.name, func(t *testing.T) {
			fd, ok := o.open(t, path)
			if !ok {
				t.Skipf("SKIPPED: no %s on this machine", o.name)
			}
			checkOpened(t, o.name, fd, path)
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestKernelDirfd(t *testing.T) {
	Need(t)
	path := tempFile(t)
	dir := Openat(unix.AT_FDCWD, Name(filepath.Dir(path)), unix.O_PATH|unix.O_DIRECTORY, 0)
	if dir < 0 {
		t.Fatal(unix.Errno(-dir))
	}
	defer unix.Close(dir)
	checkOpened(t, "openat", Openat(dir, Name("file"), unix.O_RDONLY, 0), path)
	how := unix.OpenHow{Flags: unix.O_RDONLY, Resolve: unix.RESOLVE_BENEATH}
	checkOpened(t, "openat2", Openat2(dir, Name("file"), &how), path)
	if got := Openat2(dir, Name("../x"), &how); got != -int(unix.EXDEV) {
		t.Errorf("openat2 out of the directory gives %d", got)
	}
	if HasInt80() {
		fd, _ := Int80Openat(dir, LowName(t, "file"), unix.O_RDONLY, 0)
		checkOpened(t, "int80 openat", fd, path)
		if got, _ := Int80Openat2(dir, LowName(t, "../x"), &how); got != -int(unix.EXDEV) {
			t.Errorf("int80 openat2 out of the directory gives %d", got)
		}
	}
	if got := Openat(unix.AT_FDCWD, nil, unix.O_RDONLY, 0); got != -int(unix.EFAULT) {
		t.Errorf("openat of no name gives %d", got)
	}
}

func TestKernelOpenByHandle(t *testing.T) {
	Need(t)
	path := tempFile(t)
	opens := newWatch(t, path)
	handle, err := Handle(path)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("SKIPPED: no file handles on this filesystem: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	mount := Openat(unix.AT_FDCWD, Name(filepath.Dir(path)), unix.O_RDONLY, 0)
	if mount < 0 {
		t.Fatal(unix.Errno(-mount))
	}
	defer unix.Close(mount)
	checkOpened(t, "open_by_handle_at", OpenByHandleAt(mount, handle, unix.O_RDONLY), path)
	if n := opens.count(t); n != 1 {
		t.Errorf("%d opens, want 1", n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := OpenByHandleAt(mount, handle, unix.O_RDONLY); got != -int(unix.ESTALE) {
		t.Errorf("the handle of a file that is gone gives %d", got)
	}
}

// TestKernelColdName sees that the page is mapped only by the open.
func TestKernelColdName(t *testing.T) {
	Need(t)
	path := tempFile(t)
	name := ColdName(t, path)
	if mapped(t, name) {
		t.Error("the name is mapped before its use")
	}
	checkOpened(t, "openat", Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0), path)
	if !mapped(t, name) {
		t.Error("the name is not mapped after its use")
	}
	if !mapped(t, Name(path)) {
		t.Error("an ordinary name is not mapped")
	}
}

// mapped tells whether the page of an address is present in this process.
func mapped(t *testing.T, p *byte) bool {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [8]byte
	page := int64(uintptr(unsafe.Pointer(p))) / int64(os.Getpagesize())
	if _, err := f.ReadAt(b[:], page*8); err != nil {
		t.Fatal(err)
	}
	const present = 1 << 63
	return binary.NativeEndian.Uint64(b[:])&present != 0
}

func TestKernelURing(t *testing.T) {
	Need(t)
	path := tempFile(t)
	how := &unix.OpenHow{Flags: unix.O_RDONLY}
	for name, flags := range map[string]uint32{"plain": 0, "sqpoll": SetupSQPoll} {
		t.Run(name, func(t *testing.T) {
			ring, err := NewURing(flags)
			if errors.Is(err, ErrNoURing) {
				t.Skipf("SKIPPED: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer ring.Close()
			opens := newWatch(t, path)
			if fd, err := ring.Openat(unix.AT_FDCWD, Name(path), unix.O_RDONLY, 0); fd == -int(unix.EINVAL) && flags == SetupSQPoll {
				t.Skip("SKIPPED: this kernel opens no files for a ring with SQPOLL")
			} else if err != nil {
				t.Fatal(err)
			} else {
				checkOpened(t, "IORING_OP_OPENAT", fd, path)
			}
			if n := opens.count(t); n != 1 {
				t.Errorf("%d opens by IORING_OP_OPENAT, want 1", n)
			}
			fd, err := ring.Openat2(unix.AT_FDCWD, Name(path), how)
			if err != nil {
				t.Fatal(err)
			}
			checkOpened(t, "IORING_OP_OPENAT2", fd, path)
			if n := opens.count(t); n != 1 {
				t.Errorf("%d opens by IORING_OP_OPENAT2, want 1", n)
			}

			// Three times round the ring, with failures among the rest.
			for range 3 * URingEntries / 23 {
				var batch []Opening
				for i := range 23 {
					o := Opening{Dirfd: unix.AT_FDCWD, Name: Name(path), Async: i%2 == 0}
					if i%3 == 0 {
						o.How = how
					}
					if i%5 == 0 {
						o.Name = Name(path + ".missing")
					}
					batch = append(batch, o)
				}
				results, err := ring.Submit(batch...)
				if err != nil {
					t.Fatal(err)
				}
				for i, got := range results {
					if i%5 != 0 {
						checkOpened(t, fmt.Sprint("open ", i), got, path)
					} else if got != -int(unix.ENOENT) {
						t.Fatalf("open %d of a missing file gives %d", i, got)
					}
				}
			}
			if _, err := ring.Submit(make([]Opening, URingEntries+1)...); err == nil {
				t.Error("more opens than entries are no error")
			}
			whole := make([]Opening, URingEntries)
			for i := range whole {
				whole[i] = Opening{Dirfd: unix.AT_FDCWD, Name: Name("/no/such/file")}
			}
			results, err := ring.Submit(whole...)
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range results {
				if got != -int(unix.ENOENT) {
					t.Fatalf("open %d of a full ring gives %d", i, got)
				}
			}
		})
	}
}

func TestKernelNamespace(t *testing.T) {
	Need(t)
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	for _, d := range []string{source, target} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(source, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ran := false
	Namespace(t, func() {
		BindMount(t, source, target)
		if _, err := os.Stat(filepath.Join(target, "file")); err != nil {
			t.Errorf("through the bind mount: %v", err)
		}
		Chroot(t, target)
		if _, err := os.Stat("/file"); err != nil {
			t.Errorf("in the changed root: %v", err)
		}
		if wd, err := unix.Getwd(); err != nil || wd != "/" {
			t.Errorf("working directory: %q, %v", wd, err)
		}
		ran = true
	})
	if !ran {
		t.Error("it did not run to its end")
	}
	if _, err := os.Stat(filepath.Join(target, "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount is seen outside: %v", err)
	}
	if root, err := os.Readlink("/proc/self/root"); root != "/" || err != nil {
		t.Errorf("root of the process: %q, %v", root, err)
	}
	for range 3 {
		Threads(5, func(int) {
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("a thread is still in the changed root: %v", err)
			}
		})
	}
	if got := failure(t, func(f testing.TB) { BindMount(fatalTB{f}, source, target) }); got != "not within livetest.Namespace" {
		t.Errorf("bind mount outside: %q", got)
	}
}

// fatalTB sends Fatal to Fatalf.
type fatalTB struct{ testing.TB }

func (f fatalTB) Fatal(args ...any) { f.Fatalf("%s", fmt.Sprint(args...)) }

func TestKernelOverlay(t *testing.T) {
	Need(t)
	dir := t.TempDir()
	Namespace(t, func() {
		Tmpfs(t, dir)
		path := func(name string) string { return filepath.Join(dir, name) }
		for _, d := range []string{"lower", "upper", "work", "merged"} {
			if err := os.Mkdir(path(d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path("lower/file"), []byte("below"), 0o644); err != nil {
			t.Fatal(err)
		}
		if !Overlay(t, path("lower"), path("upper"), path("work"), path("merged")) {
			t.Skip("SKIPPED: no overlayfs in this kernel")
		}
		if err := os.WriteFile(path("merged/file"), []byte("above"), 0o644); err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]string{"lower/file": "below", "upper/file": "above", "merged/file": "above"} {
			if got, err := os.ReadFile(path(file)); string(got) != want || err != nil {
				t.Errorf("%s: %q, %v; want %q", file, got, err, want)
			}
		}
	})
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("the mounts are seen outside: %v, %v", entries, err)
	}
}

var status = Role("status", func([]string) string {
	b, err := os.ReadFile("/proc/self/cgroup")
	return fmt.Sprintf("uid %d cgroup %s %v", os.Getuid(), b, err)
})

func TestKernelCgroup(t *testing.T) {
	Need(t)
	var dir string
	t.Run("use", func(t *testing.T) {
		group := Cgroup(t)
		dir = group.Path
		below := group.Sub("below")
		if group.ID == 0 || group.ID == below.ID {
			t.Errorf("cgroup ids %d and %d", group.ID, below.ID)
		}
		c := Child(t, status)
		line := func(answer string) string {
			for l := range strings.Lines(answer) {
				if _, path, ok := strings.Cut(l, "0::"); ok {
					return strings.TrimSpace(path)
				}
			}
			return answer
		}
		for _, g := range []*CgroupDir{group, below} {
			g.Enter(c.Pid())
			if got := line(c.Do()); !strings.HasSuffix(g.Path, got) || got == "/" {
				t.Errorf("the child is in %q, want %q", got, g.Path)
			}
		}
		fd, err := os.Open(below.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer fd.Close()
		c = ChildWith(t, func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
		}, status)
		if got := line(c.Do()); !strings.HasSuffix(below.Path, got) || got == "/" {
			t.Errorf("the child started in %q, want %q", got, below.Path)
		}
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func TestKernelChildOfAnotherUser(t *testing.T) {
	Need(t)
	c := ChildWith(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}, status)
	if got := c.Do(); !strings.HasPrefix(got, "uid 65534 ") {
		t.Error(got)
	}
}

func TestKernelNoLeak(t *testing.T) {
	Need(t)
	before := Snapshot(t)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "livetest_prog", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "livetest_map", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = leftBehind(before)
	for _, want := range []string{"(livetest_prog)", "(livetest_map)", "(/dev/null)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not seen: %v", want, err)
		}
	}
	program.Close()
	m.Close()
	f.Close()
	NoLeak(t, before)
}
