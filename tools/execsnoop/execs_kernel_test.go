package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// TestKernelExecs runs programs in every way there is. The modes are not about
// those that run.
func TestKernelExecs(t *testing.T) {
	livetest.Need(t)
	perform(t, slices.Concat(execScenes, argumentScenes()), nil, nil)
}

// TestKernelFailures tries to run programs in vain, in each mode, and some that
// do run in between.
func TestKernelFailures(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		scenes := failureScenes()
		for _, scene := range execScenes {
			if slices.Contains([]string{"execve", "execveat descriptor", "thread", "script", "several", "int80 execve"}, scene.name) {
				scenes = append(scenes, scene)
			}
		}
		if hides(t, mode, "execveat") {
			for i, scene := range scenes {
				if slices.Contains([]string{"failed execveat", "failed in a thread", "failed int80 execs"}, scene.name) {
					scenes[i].play = func(s *stage) {
						s.skipped = "SKIPPED: this mode does not show failed execveat() on this kernel, and says so"
					}
				}
			}
		}
		perform(t, scenes, []string{"--attach", mode, "-x"}, nil)
	})
}

// hides reports whether a mode does not show what the hook of that name would.
func hides(t *testing.T, mode, hook string) bool {
	t.Helper()
	for _, h := range livetest.Modes(t, "-x")[mode].Hooks {
		if h.Name == hook {
			return h.Mode == nil
		}
	}
	return false
}

// leaf makes a program that ends at once.
func leaf(s *stage, name string) string { return s.program(name, livetest.Exit(0)) }

// becomes is a scene of a program that becomes another by that call.
func becomes(call func(path string, argv, envp []string) livetest.Step, change func(s *stage, r row) row) func(s *stage) {
	return func(s *stage) {
		path := leaf(s, "leaf")
		argv := []string{"zero", "one", ""}
		first := s.program("first", call(path, argv, []string{"GOBCC_B=2"}))
		want := ran(s.dir, path, argv...)
		if change != nil {
			want = change(s, want)
		}
		for range times {
			s.run(0, func(cmd *exec.Cmd) {
				cmd.ExtraFiles = []*os.File{s.open(s.dir), s.open(path)} // 3 and 4
			}, []string{first}, ran(s.dir, first, first), want)
		}
	}
}

var execScenes = []scene{
	{"execve", func(s *stage) {
		path := leaf(s, "execve-of-a-long-name")
		for i := range times {
			argv := []string{path, fmt.Sprint(i)}
			s.run(0, nil, argv, ran(s.dir, path, argv...))
		}
	}},
	{"path", func(s *stage) {
		// By a link, from another directory.
		path, below := leaf(s, "leaf"), filepath.Join(s.dir, "below")
		if err := errors.Join(os.Mkdir(below, 0o755), os.Symlink("../leaf", filepath.Join(below, "link"))); err != nil {
			s.t.Fatal(err)
		}
		for range times {
			want := ran(below, "./link", "link")
			want.Exe = &path
			s.run(0, func(cmd *exec.Cmd) { cmd.Path, cmd.Dir = "./link", below }, []string{"link"}, want)
		}
	}},
	{"deleted", func(s *stage) {
		for range times {
			path := leaf(s, "deleted")
			first := s.program("first",
				livetest.Call(unix.SYS_UNLINKAT, unix.AT_FDCWD, path, 0),
				livetest.Call(unix.SYS_EXECVEAT, 3, "", []string{"x"}, nil, unix.AT_EMPTY_PATH))
			name, exe := "/dev/fd/3", path+" (deleted)"
			want := ran(s.dir, name, "x")
			want.Exe, want.Comm = &exe, s.descriptorComm("3", "deleted")
			s.run(0, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{s.open(path)} }, []string{first}, ran(s.dir, first, first), want)
		}
	}},
	{"execveat path", becomes(func(path string, argv, envp []string) livetest.Step {
		return livetest.Call(unix.SYS_EXECVEAT, unix.AT_FDCWD, path, argv, envp, 0)
	}, nil)},
	{"execveat dirfd", becomes(func(_ string, argv, envp []string) livetest.Step {
		return livetest.Call(unix.SYS_EXECVEAT, 3, "leaf", argv, envp, 0)
	}, func(_ *stage, r row) row {
		name := "/dev/fd/3/leaf"
		r.Filename = &name
		return r
	})},
	{"execveat descriptor", becomes(func(_ string, argv, envp []string) livetest.Step {
		return livetest.Call(unix.SYS_EXECVEAT, 4, "", argv, envp, unix.AT_EMPTY_PATH)
	}, func(s *stage, r row) row {
		name := "/dev/fd/4"
		r.Filename, r.Comm = &name, s.descriptorComm("4", "leaf")
		return r
	})},
	{"execveat of a long name", func(s *stage) {
		// The longest that there is: what the kernel makes of it is longer yet.
		path := leaf(s, "leaf")
		long := strings.Repeat("/", 4095-len("leaf")) + "leaf"
		long = "." + long[1:]
		first := s.program("first", livetest.Call(unix.SYS_EXECVEAT, 3, long, []string{"x"}, nil, 0))
		name := "/dev/fd/3/" + long
		for range times {
			want := ran(s.dir, path, "x")
			want.Filename = &name
			s.run(0, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{s.open(s.dir)} }, []string{first}, ran(s.dir, first, first), want)
		}
	}},
	{"thread", becomes(func(path string, argv, envp []string) livetest.Step {
		return livetest.Thread(livetest.Call(unix.SYS_EXECVE, path, argv, envp))
	}, nil)},
	{"int80 execve", func(s *stage) {
		s.needInt80()
		becomes(func(path string, argv, envp []string) livetest.Step {
			return livetest.Int80Call(11, path, argv, envp)
		}, nil)(s)
	}},
	{"int80 execveat", func(s *stage) {
		s.needInt80()
		becomes(func(path string, argv, envp []string) livetest.Step {
			return livetest.Int80Call(358, 3, path, argv, envp, 0)
		}, nil)(s)
	}},
	{"script", func(s *stage) {
		interp := leaf(s, "interp")
		for name, line := range map[string]string{"script": "#!" + interp, "option": "#!" + interp + " -o more"} {
			script := s.file(name, line+"\n", 0o755)
			for range times {
				want := ran(s.dir, script, script, "one", "")
				want.Exe, want.Interpreter = &interp, &interp
				s.run(0, func(cmd *exec.Cmd) { cmd.Path = script }, []string{"zero", "one", ""}, want)
			}
		}
	}},
	{"script of a script", func(s *stage) {
		interp := leaf(s, "interp")
		inner := s.file("inner", "#!"+interp+" -i\n", 0o755)
		script := s.file("script", "#! "+inner+" -s\n", 0o755)
		for range times {
			want := ran(s.dir, script, script, "one")
			want.Exe, want.Interpreter = &interp, &interp
			s.run(0, nil, []string{script, "one"}, want)
		}
	}},
	{"several", func(s *stage) {
		// A process that execs several times: each by its own id, which perform checks.
		last := leaf(s, "last")
		second := s.program("second", livetest.Call(unix.SYS_EXECVE, last, []string{"3"}, nil))
		first := s.program("first", livetest.Call(unix.SYS_EXECVE, second, []string{"2"}, nil))
		for range times {
			s.run(0, nil, []string{first}, ran(s.dir, first, first), ran(s.dir, second, "2"), ran(s.dir, last, "3"))
		}
	}},
	{"user", func(s *stage) {
		path := leaf(s, "leaf")
		suid := leaf(s, "suid")
		if err := os.Chmod(suid, 0o755|os.ModeSetuid); err != nil {
			s.t.Fatal(err)
		}
		for range times {
			for _, path := range []string{path, suid} {
				want := ran(s.dir, path, path)
				want.UID = 65534 // the real one
				s.run(0, func(cmd *exec.Cmd) {
					cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
				}, []string{path}, want)
			}
		}
	}},
	{"terminal", func(s *stage) {
		path := leaf(s, "leaf")
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		defer master.Close()
		n, err1 := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		err2 := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
		tty, err3 := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		if err := errors.Join(err1, err2, err3); err != nil {
			s.t.Fatal(err)
		}
		defer tty.Close()
		for range times {
			want := ran(s.dir, path, path)
			name := fmt.Sprintf("pts%d", n)
			want.TTY = &name
			s.run(0, func(cmd *exec.Cmd) {
				cmd.Stdin, cmd.SysProcAttr.Setctty = tty, true
			}, []string{path}, want)
		}
	}},
	{"family", func(s *stage) {
		// Each waits for its child, so the chain is known.
		grandchild := leaf(s, "grandchild")
		child := s.program("child", livetest.Fork(livetest.Call(unix.SYS_EXECVE, grandchild, []string{"g"}, nil)), livetest.Await(), livetest.Exit(0))
		parent := s.program("parent", livetest.Fork(livetest.Call(unix.SYS_EXECVE, child, []string{"c"}, nil)), livetest.Await(), livetest.Exit(0))
		var parents []row
		for range times {
			want := ran(s.dir, parent, parent)
			s.run(0, nil, []string{parent}, want)
			want.PID = s.order[len(s.order)-1]
			parents = append(parents, want)
		}
		s.more = func(all []row) (problems []string) {
			below := map[int]row{}
			for _, r := range all {
				below[r.PPID] = r
			}
			cgroup := livetest.OwnCgroup(s.t).ID
			for _, p := range parents {
				p.CgroupID = cgroup
				c := below[p.PID]
				g := below[c.PID]
				for _, pair := range [][2]row{{c, p.child(c.PID, child, "c")}, {g, p.child(c.PID, child, "c").child(g.PID, grandchild, "g")}} {
					if got, want := pair[0].all(), pair[1].all(); got != want {
						problems = append(problems, fmt.Sprintf("\n got %s\nwant %s", got, want))
					}
				}
			}
			return problems
		}
	}},
	{"orphan", func(s *stage) {
		// Its parent is dead, and this process has it.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			s.t.Fatal(err)
		}
		defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
		path := leaf(s, "leaf")
		parent := s.program("parent", livetest.Fork(
			livetest.Call(unix.SYS_READ, 3, make([]byte, 16), 16),
			livetest.Call(unix.SYS_EXECVE, path, []string{"orphan"}, nil)), livetest.Exit(0))
		for range times {
			r, w, err := os.Pipe()
			if err != nil {
				s.t.Fatal(err)
			}
			s.run(0, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{r} }, []string{parent}, ran(s.dir, parent, parent))
			r.Close()
			pid := childNamed(s.t, "parent")
			w.Close()
			var ws unix.WaitStatus
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
				s.t.Fatalf("wait for the orphan: %v, status %d", err, ws)
			}
			s.expect(pid, ran(s.dir, path, "orphan"))
		}
	}},
}

// childNamed finds the child of this process that has that name.
func childNamed(t *testing.T, name string) int {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, ppid int
		var state string
		if n, _ := fmt.Sscanf(string(text), "%d ("+name+") %s %d", &pid, &state, &ppid); n == 3 && ppid == os.Getpid() {
			return pid
		}
	}
	t.Fatalf("this process has no child named %s", name)
	return 0
}

// pauses are the steps of a program that says that it runs, and waits.
var pauses = []livetest.Step{
	livetest.Call(unix.SYS_WRITE, 1, "x", 1), livetest.Call(unix.SYS_READ, 0, make([]byte, 16), 16),
}

// paused starts a program that pauses, and calls do while it does.
func (s *stage) paused(change func(*exec.Cmd), argv []string, do func(pid int)) *exec.Cmd {
	s.t.Helper()
	in, resume, err1 := os.Pipe()
	says, out, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.start(func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout = in, out
		if change != nil {
			change(cmd)
		}
	}, argv)
	in.Close()
	out.Close()
	if _, err := says.Read(make([]byte, 1)); err != nil {
		s.t.Fatalf("%s did not come to its pause: %v", argv, err)
	}
	do(cmd.Process.Pid)
	resume.Close()
	says.Close()
	return cmd
}

// read reads a file of a process.
func (s *stage) read(pid int, name string) string {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// descriptorComm is how this kernel names a process that runs a file by its
// descriptor: since 6.14 as the file, before that as the descriptor.
func (s *stage) descriptorComm(descriptor, name string) string {
	s.t.Helper()
	path := s.program("by-name", append(pauses, livetest.Exit(0))...)
	first := s.program("descriptor", livetest.Call(unix.SYS_EXECVEAT, 3, "", []string{"x"}, nil, unix.AT_EMPTY_PATH))
	comm := name
	cmd := s.paused(func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{s.open(path)} }, []string{first}, func(pid int) {
		if s.read(pid, "comm") == "3\n" {
			comm = descriptor
		}
	})
	_ = cmd.Wait() // it has nothing to say
	return comm
}

// argumentScenes run a program with many kinds of arguments.
func argumentScenes() (scenes []scene) {
	for name, argv := range argvs() {
		scenes = append(scenes, scene{"arguments " + name, func(s *stage) {
			path := leaf(s, "leaf")
			for range timesOf(argv) {
				s.run(0, func(cmd *exec.Cmd) { cmd.Path = path }, argv, ran(s.dir, path, argv...))
			}
		}})
	}
	scenes = append(scenes, scene{"arguments of more than 128 KiB", func(s *stage) {
		path, argv := leaf(s, "leaf"), []string{"leaf"}
		for range 200 {
			argv = append(argv, strings.Repeat("m", 999))
		}
		for range timesOf(argv) {
			want := ran(s.dir, path, append(slices.Clone(argv[:132]), argv[132][:67])...)
			want.ArgsMissing, want.BytesMissing = 68, 5+200*1000-128<<10
			s.run(0, func(cmd *exec.Cmd) { cmd.Path = path }, argv, want)
		}
	}})
	return append(scenes, scene{"arguments none", func(s *stage) {
		// Since 5.18 the kernel makes an empty one of none.
		path := s.program("leaf", append(pauses, livetest.Exit(0))...)
		first := s.program("first", livetest.Call(unix.SYS_EXECVE, path, nil, nil))
		for range times {
			want, begin := ran(s.dir, path), time.Now()
			cmd := s.paused(nil, []string{first}, func(pid int) {
				if s.read(pid, "cmdline") == "\x00" {
					want.Args = []string{""}
				}
			})
			s.end(0, cmd, begin, ran(s.dir, first, first), want)
		}
	}})
}

// timesOf is how often a program is run with these arguments: fewer times where
// much text takes long.
func timesOf(argv []string) int {
	if livetest.Guest() && len(strings.Join(argv, " ")) > 50_000 {
		return 3
	}
	return times
}

// argvs are lists of arguments.
func argvs() map[string][]string {
	several := func(n int) []string {
		list := []string{"leaf"}
		for i := range n - 1 {
			list = append(list, fmt.Sprintf("argument-%d", i))
		}
		return list
	}
	lists := map[string][]string{
		"1":             several(1),
		"19":            several(19),
		"20":            several(20),
		"21":            several(21),
		"301":           several(301),
		"5000":          several(5000),
		"100 KB":        {"leaf", strings.Repeat("0123456789", 10_240)},
		"just a piece":  {"l", strings.Repeat("p", 1023), strings.Repeat("p", 1022), strings.Repeat("p", 1024)},
		"just a record": {"leaf", strings.Repeat("r", 4096-6)},
		"two records":   {"leaf", strings.Repeat("r", 8192-6)},
		"odd":           {"new\nline", "\x1b[31mred", "\xff\xfe", "é", "", " ", "\t\\", "\u202e"},
		"all empty":     {"", "", "", ""},
	}
	if livetest.Guest() {
		delete(lists, "5000") // which takes long there
	}
	return lists
}

// failureScenes run programs that can't be run.
func failureScenes() (scenes []scene) {
	// fails is a scene of a program that tries to become another in vain.
	fails := func(name string, play func(s *stage, first func(steps ...livetest.Step) row, expect func(want row))) {
		scenes = append(scenes, scene{"failed " + name, func(s *stage) {
			var path string
			var wants []row
			play(s, func(steps ...livetest.Step) row {
				// What is not yet in memory can't be read by a tracer, unless the call read
				// it before it failed.
				inMemory := livetest.Call(unix.SYS_MLOCKALL, unix.MCL_CURRENT)
				path = s.program("first", append(append([]livetest.Step{inMemory}, steps...), livetest.Exit(0))...)
				return ran(s.dir, path, path)
			}, func(want row) {
				for range timesOf(want.Args) {
					wants = append(wants, want)
				}
			})
			s.run(0, func(cmd *exec.Cmd) {
				cmd.ExtraFiles = []*os.File{s.open(s.dir)} // 3
			}, []string{path}, append([]row{ran(s.dir, path, path)}, wants...)...)
		}})
	}
	// one has execve called for a path that prepare makes.
	one := func(name string, errno unix.Errno, prepare func(s *stage) string) {
		fails(name, func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
			path, argv := prepare(s), []string{"zero", "", "two\n"}
			r := first(livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, path, argv, []string{"GOBCC_B=2"})))
			expect(r.failed(path, errno, argv...))
		})
	}
	one("ENOENT", unix.ENOENT, func(s *stage) string { return filepath.Join(s.dir, "missing") })
	one("ENOENT of nothing", unix.ENOENT, func(*stage) string { return "" })
	one("ENOENT of the interpreter", unix.ENOENT, func(s *stage) string { return s.file("script", "#!/no/such/file\n", 0o755) })
	one("EACCES", unix.EACCES, func(s *stage) string { return s.file("file", "", 0o644) })
	one("ENOEXEC", unix.ENOEXEC, func(s *stage) string { return s.file("file", "text", 0o755) })
	one("ENOTDIR", unix.ENOTDIR, func(s *stage) string { return filepath.Join(s.file("file", "", 0o755), "below") })

	for name, argv := range argvs() {
		fails("with arguments "+name, func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
			expect(first(livetest.Repeat(timesOf(argv), livetest.Call(unix.SYS_EXECVE, "missing", argv, nil))).failed("missing", unix.ENOENT, argv...))
		})
	}
	fails("E2BIG", func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
		// More than one argument may be, and more than is shown by default.
		path, argv := leaf(s, "leaf"), []string{"x", strings.Repeat("E", 131_072), "last"}
		r := first(livetest.Repeat(timesOf(argv), livetest.Call(unix.SYS_EXECVE, path, argv, nil))).failed(path, unix.E2BIG, "x", argv[1][:131_072-2])
		r.ArgsMissing, r.BytesMissing = 1, 2+1+5
		expect(r)
	})
	fails("EFAULT", func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
		path, argv := leaf(s, "leaf"), []string{"zero", "one"}
		notOne := append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 8)...)
		r := first(
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, nil, argv, nil)),
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, 1, argv, nil)),
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, path, 1, nil)),
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, path, notOne, nil)),
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, "missing", nil, nil)))
		noName := r.failed("", unix.EFAULT, argv...)
		noName.Filename = nil
		noArgs := r.failed(path, unix.EFAULT)
		noArgs.ArgsUnreadable = true
		expect(noName)
		expect(noName)
		expect(noArgs)
		noArgs.ArgsMissing = 1
		expect(noArgs)
		expect(r.failed("missing", unix.ENOENT))
	})
	fails("execveat", func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
		path, argv, link := leaf(s, "leaf"), []string{"zero", "one"}, filepath.Join(s.dir, "link")
		if err := os.Symlink(path, link); err != nil {
			s.t.Fatal(err)
		}
		try := func(fd int, path string, flags int) livetest.Step {
			return livetest.Repeat(times, livetest.Call(unix.SYS_EXECVEAT, fd, path, argv, nil, flags))
		}
		r := first(try(3, "missing", 0), try(unix.AT_FDCWD, "missing", 0), try(0, "", unix.AT_EMPTY_PATH), try(99, "x", 0),
			try(3, "link", unix.AT_SYMLINK_NOFOLLOW), try(3, "leaf", 8))
		expect(r.failed("missing", unix.ENOENT, argv...))
		expect(r.failed("missing", unix.ENOENT, argv...))
		expect(r.failed("", unix.EACCES, argv...))
		expect(r.failed("x", unix.EBADF, argv...))
		expect(r.failed("link", unix.ELOOP, argv...))
		expect(r.failed("leaf", unix.EINVAL, argv...))
	})
	fails("names", func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
		// The kernel takes 4,095 bytes. Of longer ones 4,127 are shown.
		dots := strings.Repeat("./", 2500)
		var steps []livetest.Step
		lengths := []int{4094, 4095, 4096, 4127, 4128, 5000}
		for _, n := range lengths {
			steps = append(steps, livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, dots[:n-1]+"m", []string{"m"}, nil)))
		}
		r := first(steps...)
		for _, n := range lengths {
			errno := unix.ENOENT
			if n > 4095 {
				errno = unix.ENAMETOOLONG
			}
			name := dots[:n-1] + "m"
			want := r.failed(name[:min(n, 4127)], errno, "m")
			want.FilenameCut = n > 4127
			expect(want)
		}
	})
	fails("in a thread", func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
		argv := []string{"zero", "one"}
		r := first(livetest.Thread(
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, "missing", argv, nil)),
			livetest.Repeat(times, livetest.Call(unix.SYS_EXECVEAT, 3, "missing", argv, nil, 0)), livetest.Exit(0))).failed("missing", unix.ENOENT, argv...)
		r.TID = -1
		expect(r)
		expect(r)
	})
	fails("int80 execs", func(s *stage, first func(steps ...livetest.Step) row, expect func(want row)) {
		s.needInt80()
		argv := []string{"zero", "", strings.Repeat("2", 5000)}
		r := first(
			livetest.Repeat(times, livetest.Int80Call(11, "missing", argv, nil)),
			livetest.Repeat(times, livetest.Int80Call(358, 3, "missing", argv, nil, 0)),
			livetest.Repeat(times, livetest.Int80Call(11, "missing", nil, nil)))
		expect(r.failed("missing", unix.ENOENT, argv...))
		expect(r.failed("missing", unix.ENOENT, argv...))
		expect(r.failed("missing", unix.ENOENT))
	})
	return scenes
}
