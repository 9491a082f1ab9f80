package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

// In the tests of filters three actors open the same kinds of files, each at
// paths of its own: this process, a child of user nobody, and one of root's. A
// filter must show all rows of some of these paths, and no others.

var kinds = map[string]int{
	"read":    unix.O_RDONLY,
	"write":   unix.O_WRONLY,
	"creat":   unix.O_RDWR | unix.O_CREAT,
	"sync":    unix.O_RDONLY | unix.O_SYNC,
	"missing": unix.O_RDONLY,
	"near":    unix.O_RDONLY, // not in the directory with the long name
	"link":    unix.O_RDONLY, // a symbolic link to "target" and the actor
}

// long is the name of a directory: paths below it can't be compared in the
// kernel alone.
var long = strings.Repeat("long", 30)

func kindPath(dir, actor, kind string) string {
	if kind == "near" || kind == "link" {
		return filepath.Join(dir, actor+"-"+kind)
	}
	return filepath.Join(dir, long, actor+"-"+kind)
}

// makeKinds makes the files that an actor opens.
func makeKinds(dir, actor string) error {
	err := os.Mkdir(filepath.Join(dir, long), 0o755)
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	for kind := range kinds {
		path := kindPath(dir, actor, kind)
		switch kind {
		case "missing":
			continue
		case "link":
			target := filepath.Join(dir, long, "target-"+actor)
			err = errors.Join(err, os.Symlink(target, path))
			path = target
		}
		err = errors.Join(err, unix.Mknod(path, unix.S_IFREG, 0), os.Chmod(path, 0o666))
	}
	return err
}

// openKinds is what an actor does. It gives what went wrong.
func openKinds(dir, actor string) string {
	for kind, flags := range kinds {
		for range times {
			fd := livetest.Openat(unix.AT_FDCWD, livetest.Name(kindPath(dir, actor, kind)), flags, 0o600)
			if fd < 0 != (kind == "missing") {
				return fmt.Sprintf("%s opens %s: %d", actor, kind, fd)
			}
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
	return ""
}

var actorRole = livetest.Role("actor", func(args []string) string {
	dir, actor := args[0], args[1]
	if err := livetest.SetComm("filter-" + actor); err != nil {
		return err.Error()
	}
	return openKinds(dir, actor)
})

// A filterTest is a tool with filters, and what it is to show.
type filterTest struct {
	name string
	args []string
	want func(actor, kind string) bool
}

// setting is what the filters are given.
type setting struct {
	t            *testing.T
	dir          string // of files
	pins         string // of BPF maps
	tid          int    // of this actor's thread
	nobody, root *livetest.ChildProcess
	above, below *livetest.CgroupDir // nobody's is below
	beside       *livetest.CgroupDir // root's
}

// newSetting makes it. It must be called within a mount namespace.
func newSetting(t *testing.T) *setting {
	s := &setting{t: t, dir: t.TempDir(), pins: "/sys/fs/bpf", tid: unix.Gettid(), above: livetest.Cgroup(t), beside: livetest.Cgroup(t)}
	s.below = s.above.Sub("below")
	err := os.Chmod(s.dir, 0o755)
	for _, actor := range []string{"self", "nobody", "root"} {
		err = errors.Join(err, makeKinds(s.dir, actor))
	}
	if err != nil {
		t.Fatal(err)
	}
	child := func(actor string, cgroup *livetest.CgroupDir, attr *syscall.SysProcAttr) *livetest.ChildProcess {
		c := livetest.ChildWith(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = attr }, actorRole, s.dir, actor)
		cgroup.Enter(c.Pid())
		return c
	}
	livetest.OpenToAll(t, s.dir)
	s.nobody = child("nobody", s.below, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	s.root = child("root", s.beside, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	s.pins = livetest.PinDir(t, s.pins)
	return s
}

// pin pins a map that has one key, and gives its path.
func (s *setting) pin(name string, spec ebpf.MapSpec, key any) string {
	path := filepath.Join(s.pins, name)
	livetest.PinMap(s.t, path, spec, key)
	return path
}

// As BCC's documentation has these maps made.
func cgroupMap(entries uint32) ebpf.MapSpec {
	return ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: entries}
}

func mntnsMap(entries uint32) ebpf.MapSpec {
	return ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: entries}
}

func (s *setting) play() {
	if text := openKinds(s.dir, "self"); text != "" {
		s.t.Fatal(text)
	}
	for _, child := range []*livetest.ChildProcess{s.nobody, s.root} {
		if text := child.Do(); text != "" {
			s.t.Fatal(text)
		}
	}
}

// run starts the tools, a few at a time, has the files opened, and checks what
// each tool showed.
func (s *setting) run(t *testing.T, mode string, tests []filterTest) {
	t.Helper()
	// Without these the comm of the children is that of their first open.
	s.play()
	for some := range slices.Chunk(tests, 8) {
		problems := map[string]string{}
		livetest.Attempts(t, func(a *livetest.Attempt) {
			clear(problems)
			tools := make([]*livetest.Tool, len(some))
			for i, test := range some {
				tools[i] = livetest.Start(t, append([]string{"--attach", mode, "-b", "256"}, test.args...)...)
			}
			for _, tool := range tools {
				tool.Ready()
			}
			s.play()
			for _, tool := range tools {
				tool.Signal(os.Interrupt)
			}
			for i, tool := range tools {
				res := tool.Wait()
				a.Lost(res)
				if text := s.check(some[i], res); text != "" {
					problems[some[i].name] = text
					a.Errorf("%s", some[i].name)
				}
			}
		})
		for _, test := range some {
			t.Run(test.name, func(t *testing.T) {
				if text := problems[test.name]; text != "" {
					t.Error(text)
				}
			})
		}
	}
}

// check says what a tool did wrong.
func (s *setting) check(test filterTest, res livetest.Result) string {
	if res.Status != 0 {
		return fmt.Sprintf("status %d: %s", res.Status, res.Stderr)
	}
	got, want := map[string]int{}, map[string]int{}
	for _, line := range res.Lines() {
		// The path is what stands last. None of ours has a space.
		fields := strings.Fields(line)
		if path := fields[len(fields)-1]; strings.HasPrefix(path, s.dir) {
			got[path]++
		}
	}
	for _, actor := range []string{"self", "nobody", "root"} {
		for kind := range kinds {
			if !test.want(actor, kind) {
				continue
			}
			path := kindPath(s.dir, actor, kind)
			if kind == "link" && slices.Contains(test.args, "-F") {
				path = filepath.Join(s.dir, long, "target-"+actor)
			}
			want[path] = times
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Sprintf("opensnoop %s\n got %v\nwant %v\n%s", strings.Join(test.args, " "), got, want, res.Stderr)
	}
	return ""
}

func only(actors ...string) func(actor, kind string) bool {
	return func(actor, _ string) bool { return slices.Contains(actors, actor) }
}

func onlyKinds(kinds ...string) func(actor, kind string) bool {
	return func(_, kind string) bool { return slices.Contains(kinds, kind) }
}

// tests are of each filter, for rows that it lets through and others that it
// does not.
func (s *setting) tests() []filterTest {
	self, nobody, root := fmt.Sprint(os.Getpid()), fmt.Sprint(s.nobody.Pid()), fmt.Sprint(s.root.Pid())
	near := filepath.Join(s.dir, "nobody-n")
	far := filepath.Join(s.dir, long, "nobody-r")
	args := func(a ...string) []string { return a }
	return []filterTest{
		{"none", nil, only("self", "nobody", "root")},
		{"pid", args("-p", nobody), only("nobody")},
		{"pids by comma", args("-p", nobody+","+root), only("nobody", "root")},
		{"pids repeated", args("-p", nobody, "-p", self), only("nobody", "self")},
		{"tid", args("-t", fmt.Sprint(s.tid)), only("self")},
		{"tid of a process", args("--tid", root), only("root")},
		{"user by name", args("-u", "nobody"), only("nobody")},
		{"user by number", args("-u", "65534"), only("nobody")},
		{"root by number", args("-u", "0"), only("self", "root")},
		{"root by name", args("--uid", "root"), only("self", "root")},
		{"comm", args("-n", "filter-root"), only("root")},
		{"part of comm", args("-n", "ter-"), only("nobody", "root")},
		{"end of comm", args("--name", "nobody"), only("nobody")},
		{"no comm", args("-n", "filter-rooted"), only()},
		{"cgroup and what is below", args("--cgroup", s.above.Path), only("nobody")},
		{"cgroup by path below the mount", args("--cgroup", filepath.Base(s.above.Path)+"/below"), only("nobody")},
		{"cgroup by id", args("--cgroup", fmt.Sprint(s.above.ID)), only("nobody")},
		{"cgroups", args("--cgroup", fmt.Sprint(s.below.ID), "--cgroup", s.beside.Path), only("nobody", "root")},
		{"cgroupmap", args("--cgroupmap", s.pin("cgroup", cgroupMap(1024), s.below.ID)), only("nobody")},
		{"cgroupmap of another size", args("--cgroupmap", s.pin("cgroup7", cgroupMap(7), s.beside.ID)), only("root")},
		{"cgroupmap has no descendants", args("--cgroupmap", s.pin("above", cgroupMap(100_000), s.above.ID)), only()},
		{"mntnsmap", args("--mntnsmap", s.pin("mntns", mntnsMap(1024), livetest.MountNamespace(s.t, s.root.Pid()))), only("root")},
		{"mntnsmap of another size", args("--mntnsmap", s.pin("mntns3", mntnsMap(3), livetest.MountNamespace(s.t, s.nobody.Pid()))), only("self", "nobody")},
		{"empty mntnsmap", args("--mntnsmap", s.pin("mntns0", mntnsMap(1), nil)), only()},
		{"failed", args("-x"), onlyKinds("missing")},
		{"O_WRONLY", args("-f", "O_WRONLY"), onlyKinds("write")},
		{"O_RDONLY", args("-f", "O_RDONLY"), onlyKinds("read", "sync", "missing", "near", "link")},
		{"O_CREAT", args("-f", "O_CREAT"), onlyKinds("creat")},
		{"O_SYNC", args("--flag-filter", "O_SYNC"), onlyKinds("sync")},
		{"O_DSYNC, which O_SYNC has", args("-f", "O_DSYNC"), onlyKinds("sync")},
		{"O_EXCL", args("-f", "O_EXCL"), only()},
		{"flags", args("-f", "O_WRONLY", "-f", "O_CREAT", "-f", "O_SYNC"), onlyKinds("write", "creat", "sync")},
		{"BCC's spelling", args("--flag_filter", "O_RDWR"), onlyKinds("creat")},
		{"path", args("--path", "*/nobody-read"), func(a, k string) bool { return a == "nobody" && k == "read" }},
		{"paths", args("--path", "*-s?nc", "--path", "/*/root-[nm]*"), func(a, k string) bool {
			return k == "sync" || a == "root" && (k == "near" || k == "missing")
		}},
		{"path of a link", args("--path", "*-link"), onlyKinds("link")},
		{"full path", args("-F", "--path", "*target-root"), func(a, k string) bool { return a == "root" && k == "link" }},
		{"path but not the full one", args("--path", "*target-root"), only()},
		{"prefix", args("--path-prefix", near), func(a, k string) bool { return a == "nobody" && k == "near" }},
		{"long prefix", args("--path-prefix", far), func(a, k string) bool { return a == "nobody" && k == "read" }},
		{"prefix of full path", args("-F", "--path-prefix", filepath.Join(s.dir, long, "t")), onlyKinds("link")},
		{"all at once", args("-p", nobody, "-u", "nobody", "-n", "nobody", "--cgroup", s.above.Path,
			"--cgroupmap", filepath.Join(s.pins, "cgroup"), "--mntnsmap", filepath.Join(s.pins, "mntns3"),
			"-f", "O_CREAT", "-f", "O_RDONLY", "--path-prefix", filepath.Join(s.dir, long), "--min-latency", "1ns"),
			func(a, k string) bool { return a == "nobody" && k != "write" && k != "near" && k != "link" }},
		{"all but one", args("-p", nobody+","+root, "-u", "root", "-n", "nobody"), only()},
	}
}

func TestKernelFilters(t *testing.T) {
	livetest.NeedFast(t)
	livetest.EachMode(t, func(t *testing.T, mode string) {
		livetest.Namespace(t, func() {
			s := newSetting(t)
			s.run(t, mode, s.tests())
		})
	})
}

// TestKernelFiltersTogether tries in few tools that each filter works in each
// mode, for the kernels that only emulated guests have.
func TestKernelFiltersTogether(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		livetest.Namespace(t, func() {
			s := newSetting(t)
			var few []filterTest
			for _, test := range s.tests() {
				if test.name == "all at once" {
					few = append(few, test)
				}
			}
			few = append(few, filterTest{"failed in a thread", []string{"-t", fmt.Sprint(s.tid), "-x", "-F"},
				func(a, k string) bool { return a == "self" && k == "missing" }})
			s.run(t, mode, few)
		})
	})
}

// TestKernelMinLatency has an open wait for a time that is known.
func TestKernelMinLatency(t *testing.T) {
	const wait = 50 * time.Millisecond
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		self := fmt.Sprint(os.Getpid())
		livetest.Attempts(t, func(a *livetest.Attempt) {
			slow := livetest.Start(t, "--attach", mode, "--json", "-p", self, "--min-latency", "50ms")
			slower := livetest.Start(t, "--attach", mode, "--latency", "-p", self, "--min-latency", "600s")
			slow.Ready()
			slower.Ready()
			for range times {
				blockedOpen(t, fifo, wait)
			}
			if res := slower.Stop(); res.Status != 0 || len(res.Lines()) != 1 {
				t.Errorf("status %d, and opens of 10 minutes: %s%s", res.Status, res.Stdout, res.Stderr)
			}
			readers := 0
			for _, r := range rows(t, a, slow.Stop(), 0) {
				if time.Duration(*r.LatencyNs) < wait {
					t.Errorf("an open of %s in %d ns", r.path(), *r.LatencyNs)
				}
				if r.path() == fifo && r.Flags[0] == "O_RDONLY" {
					readers++
				}
			}
			if readers != times {
				a.Errorf("%d of %d opens that waited", readers, times)
			}
		})
	})
}

// blockedOpen opens a FIFO for reading, in a thread of its own, and for writing
// at least wait after that thread has begun to wait for it.
func blockedOpen(t *testing.T, fifo string, wait time.Duration) {
	t.Helper()
	tid, reader := make(chan int), make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		name := livetest.Name(fifo)
		tid <- unix.Gettid()
		reader <- livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
	}()
	waitBlocked(t, os.Getpid(), fmt.Sprint(<-tid))
	time.Sleep(wait)
	w := livetest.Openat(unix.AT_FDCWD, livetest.Name(fifo), unix.O_WRONLY, 0)
	r := <-reader
	if r < 0 || w < 0 {
		t.Fatalf("open %s: %d, %d", fifo, r, w)
	}
	unix.Close(r)
	unix.Close(w)
}

// waitBlocked waits until a thread of a process waits in openat(2).
func waitBlocked(t *testing.T, pid int, tid string) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/task/%s/syscall", pid, tid)
	want := fmt.Sprintf("%d ", unix.SYS_OPENAT)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		call, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(call), want) {
			return
		}
		runtime.Gosched()
	}
	t.Fatalf("thread %s did not wait in openat", tid)
}

// TestKernelPinnedMaps gives --cgroupmap and --mntnsmap what they can't use.
func TestKernelPinnedMaps(t *testing.T) {
	livetest.Need(t)
	livetest.Namespace(t, func() {
		s := newSetting(t)
		array := ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}
		for _, args := range [][]string{
			{"--cgroupmap", s.pin("array", array, nil)},
			{"--cgroupmap", s.pin("narrow", mntnsMap(1024), nil)},
			{"--mntnsmap", s.pin("wide", cgroupMap(1024), nil)},
			{"--mntnsmap", filepath.Join(s.pins, "nothing")},
			{"--cgroupmap", s.dir},
		} {
			refused(t, cli.BadUsage, livetest.Run(t, args...), args[0])
		}
	})
}

// refused checks that a tool ended with one line on standard error, which says
// all of the words, and did nothing.
func refused(t *testing.T, status int, res livetest.Result, words ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(res.Stderr, "\n"), "\n")
	if res.Status != status || len(lines) != 1 || res.Stdout != "" || !strings.HasPrefix(res.Stderr, "opensnoop: ") {
		t.Errorf("status %d instead of %d, stdout %q, stderr %q", res.Status, status, res.Stdout, res.Stderr)
	}
	for _, word := range words {
		if !strings.Contains(res.Stderr, word) {
			t.Errorf("stderr lacks %q: %s", word, res.Stderr)
		}
	}
}
