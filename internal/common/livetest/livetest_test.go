package livetest

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m, demoTool) }

// demoTool stands for a tool: it says that it is ready, shows a line for each
// argument, and goes on until it is interrupted.
func demoTool() {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT)
	if os.Getenv(toolVar) != "" {
		fmt.Println("the children of the tool would be tools")
	}
	switch os.Args[1] {
	case "fail":
		fmt.Fprintln(os.Stderr, "cannot attach")
		os.Exit(3)
	case "quick":
		sayReady()
		fmt.Println("all done")
		os.Exit(0)
	case "die":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	fmt.Println("HEADER")
	sayReady()
	for _, arg := range os.Args[1:] {
		fmt.Println(arg)
	}
	<-interrupted
	fmt.Fprintln(os.Stderr, "interrupted")
	fmt.Print("no newline")
	os.Exit(23)
}

func sayReady() {
	fd, err := strconv.Atoi(os.Getenv(readyVar))
	if err != nil {
		panic(err)
	}
	f := os.NewFile(uintptr(fd), "ready")
	if _, err := f.WriteString("r"); err != nil {
		panic(err)
	}
	f.Close()
}

func TestTool(t *testing.T) {
	tool := Start(t, "one", "two words", "three")
	tool.Ready()
	if got := tool.WaitLine(func(line string) bool { return strings.HasPrefix(line, "two") }); got != "two words" {
		t.Errorf("line %q", got)
	}
	tool.WaitLine(func(line string) bool { return line == "three" })
	if got, want := tool.Lines(), []string{"HEADER", "one", "two words", "three"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	if err := unix.Kill(tool.Pid(), 0); err != nil {
		t.Errorf("the tool's process: %v", err)
	}
	got := tool.Stop()
	want := Result{"HEADER\none\ntwo words\nthree\nno newline", "interrupted\n", 23}
	if got != want {
		t.Errorf("result %+v, want %+v", got, want)
	}
	if lines := got.Lines(); lines[len(lines)-1] != "no newline" {
		t.Errorf("lines %q", lines)
	}
	tool.WaitErrLine(func(line string) bool { return line == "interrupted" })
	if lines := tool.Lines(); len(lines) != 4 {
		t.Errorf("lines %q have one without its end", lines)
	}
}

func TestToolEndsItself(t *testing.T) {
	for arg, want := range map[string]Result{
		"quick": {"all done\n", "", 0},
		"fail":  {"", "cannot attach\n", 3},
		"die":   {"", "", 128 + 9},
	} {
		if got := Run(t, arg); got != want {
			t.Errorf("%s: %+v, want %+v", arg, got, want)
		}
	}
	tool := Start(t, "quick")
	tool.Ready()
	tool.Wait()
	tool.Ready() // Still, although it has ended.
}

func TestStartWith(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	tool := StartWith(t, func(cmd *exec.Cmd) { cmd.Stdout = full }, "quick")
	if got := tool.Wait(); got.Stdout != "" || got.Status != 0 {
		t.Errorf("%+v", got)
	}
}

// A failingTB is a test that records how a helper fails it.
type failingTB struct {
	testing.TB
	message string
}

func (f *failingTB) Helper() {}

func (f *failingTB) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(f)
}

// failure runs do, which must fail its test, and returns what it said.
func failure(t *testing.T, do func(testing.TB)) string {
	t.Helper()
	f := &failingTB{TB: t}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(f) {
				panic(r)
			}
		}()
		do(f)
	}()
	if f.message == "" {
		t.Error("the test was not failed")
	}
	return f.message
}

func TestFailuresShowOutput(t *testing.T) {
	for what, do := range map[string]func(testing.TB){
		"ended before it was ready": func(f testing.TB) { Start(f, "fail").Ready() },
		"ended without the line":    func(f testing.TB) { Start(f, "fail").WaitLine(func(string) bool { return false }) },
	} {
		got := failure(t, do)
		if !strings.Contains(got, what) || !strings.Contains(got, "cannot attach") || !strings.Contains(got, "exit status 3") {
			t.Errorf("%s: %s", what, got)
		}
	}
}

var (
	echo = Role("echo", func(args []string) string { return strings.Join(args, "|") })
	who  = Role("who", func([]string) string {
		if err := SetComm("a name of many bytes"); err != nil {
			return err.Error()
		}
		comm, err := os.ReadFile("/proc/self/comm")
		return fmt.Sprintf("%d %d %q %v", os.Getpid(), unix.Gettid(), comm, err)
	})
)

func TestChild(t *testing.T) {
	c := Child(t, echo, "first")
	raw := "\xff\n\x00"
	for range 3 {
		if got, want := c.Do("a", "", raw), "first|a||"+raw; got != want {
			t.Errorf("answer %q, want %q", got, want)
		}
	}
	if got := c.Do(); got != "first" {
		t.Errorf("answer %q", got)
	}
	if status := c.End(); status != 0 || c.End() != 0 {
		t.Errorf("status %d", status)
	}
	if err := unix.Kill(c.Pid(), 0); err != unix.ESRCH {
		t.Errorf("the child is still there: %v", err)
	}

	c = Child(t, who)
	if got, want := c.Do(), fmt.Sprintf("%d %d %q <nil>", c.Pid(), c.Pid(), "a name of many \n"); got != want {
		t.Errorf("pid, tid, comm: %s, want %s", got, want)
	}
}

func TestRoleArgv(t *testing.T) {
	argv := RoleArgv(echo, "x", "y z")
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if string(out) != "x|y z" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

func TestThreads(t *testing.T) {
	const n = 23
	tids := make([]int, n)
	Threads(n, func(i int) { tids[i] = unix.Gettid() })
	slices.Sort(tids)
	if len(slices.Compact(tids)) != n || tids[0] == 0 {
		t.Errorf("thread ids %d", tids)
	}
	if slices.Contains(tids, os.Getpid()) {
		t.Error("the first thread is among them")
	}
}

func TestCgroup2Mount(t *testing.T) {
	const v1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
	for _, c := range []struct{ mountinfo, want string }{
		{v1 + "38 20 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		{"30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 master:1 - cgroup2 cgroup rw\n" + v1, "/sys/fs/cgroup"},
		{`30 23 0:26 / /a\040b\134c rw - cgroup2 none rw`, `/a b\c`},
		{v1, ""},
		{"", ""},
		{`30 23 0:26 / /a\04 rw - cgroup2 none rw`, ""},
		{`30 23 0:26 / /a\999 rw - cgroup2 none rw`, ""},
		{"30 23 - cgroup2 none rw", ""},
	} {
		got, err := cgroup2Mount(strings.NewReader(c.mountinfo))
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.mountinfo, got, err, c.want)
		}
	}
}
