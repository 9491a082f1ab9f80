package command

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// toolVar makes the test binary a small tool that runs its arguments as a
// command: "run" does so, "hold" only holds it and says so.
const toolVar = "GOBCC_COMMAND_TEST"

func TestMain(m *testing.M) {
	Main()
	switch os.Getenv(toolVar) {
	case "run":
		os.Exit(runTool(os.Getenv(toolVar+"_USER"), func(c *Command) {}))
	case "hold":
		os.Exit(runTool("", func(c *Command) {
			fmt.Println(c.Pid())
			select {}
		}))
	}
	os.Exit(m.Run())
}

// runTool does to its own process what tools do: it handles interrupts and
// raises the limit on locked memory.
func runTool(user string, held func(*Command)) int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM)
	limit := memlock()
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c, err := Start(os.Args[1:], Options{RunAs: user})
	if err == nil {
		held(c)
		err = c.Release()
	}
	var bad *Error
	if errors.As(err, &bad) {
		fmt.Fprintln(os.Stderr, err)
		return bad.Status
	}
	var status int
	if err == nil {
		status, err = c.Wait()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// tool is that small tool in a process of its own, started by a shell that
// runs the commands in before first.
func tool(mode, before string, argv ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", before + "\nexec /proc/" + strconv.Itoa(os.Getpid()) + "/exe \"$@\"", "sh"}, argv...)...)
	cmd.Env = append(os.Environ(), toolVar+"="+mode)
	return cmd
}

// start starts argv with its output in a pipe.
func start(t *testing.T, opts Options, argv ...string) (*Command, *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	opts.Stdout = w
	c, err := Start(argv, opts)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, bufio.NewReader(r)
}

// finish releases c and returns what it printed and its exit status.
func finish(t *testing.T, c *Command, out io.Reader) (string, int) {
	t.Helper()
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(b), status
}

func TestHeldUntilRelease(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "ran")
	c, out := start(t, Options{}, "sh", "-c", `echo $$; : >"$0"`, mark)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Pid()))
	if err != nil || !strings.HasPrefix(string(cmdline), heldName+"\x00") {
		t.Errorf("command line of the held process: %q, %v", cmdline, err)
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command ran before its release (%v)", err)
	}
	got, status := finish(t, c, out)
	if want := fmt.Sprintln(c.Pid()); got != want || status != 0 {
		t.Errorf("the command printed %q, status %d; want its process id %q, 0", got, status, want)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
	if err := c.Release(); err == nil {
		t.Error("a second release is no error")
	}
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0":         0,
		"exit 23":        23,
		"kill -TERM $$":  128 + 15,
		"kill -KILL $$":  128 + 9,
		"exec false":     1,
		"no-such-cmd-23": 127, // the shell's own
	} {
		c, out := start(t, Options{}, "/bin/sh", "-c", script+" 2>/dev/null")
		if _, got := finish(t, c, out); got != want {
			t.Errorf("%s: status %d, want %d", script, got, want)
		}
	}
}

func TestSignal(t *testing.T) {
	c, out := start(t, Options{}, "sh", "-c", "echo ready; exec sleep 1000")
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Wait(); err != nil || status != 128+9 {
		t.Errorf("status %d, %v; want 137", status, err)
	}
	if err := c.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a command that is gone: %v", err)
	}
}

// TestCannotRun has the ways in which a command can be wrong, with the exit
// status that a shell gives.
func TestCannotRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	t.Setenv("PATH", dir)
	write("unexecutable", "#!/bin/sh\n", 0o644)
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		err    error
		status int
		text   string
	}{
		{"no-such-command", unix.ENOENT, 127, `run "no-such-command": no such command in PATH`},
		{"", unix.ENOENT, 127, `run "": no such command in PATH`},
		{"directory", unix.ENOENT, 127, `run "directory": no such command in PATH`},
		{"unexecutable", unix.EACCES, 126, `run "unexecutable": permission denied (no right to execute it, or its filesystem is mounted noexec)`},
		{"/no/such/file", unix.ENOENT, 127, `run "/no/such/file": no such file or directory`},
		{"/dev/null/x", unix.ENOTDIR, 127, `run "/dev/null/x": not a directory`},
		{"/", unix.EISDIR, 126, `run "/": is a directory`},
		{write("plain", "#!/bin/sh\n", 0o644), unix.EACCES, 126, ""},
		{write("script", "echo no first line\n", 0o755), unix.ENOEXEC, 126, ""},
		{write("orphan", "#!/no/such/interpreter\n", 0o755), unix.ENOENT, 126, ""},
	} {
		cmd, err := Start([]string{c.name}, Options{})
		if err == nil {
			err = cmd.Release()
			if s := cmd.process.Signal(syscall.Signal(0)); !errors.Is(s, os.ErrProcessDone) {
				t.Errorf("%q: process is still there: %v", c.name, s)
			}
		}
		var bad *Error
		if !errors.As(err, &bad) || !errors.Is(err, c.err) || bad.Status != c.status || bad.Name != c.name {
			t.Errorf("%q: %#v; want %v, status %d", c.name, err, c.err, c.status)
			continue
		}
		if c.text != "" && err.Error() != c.text {
			t.Errorf("%q: message\n\t%s\nwant\n\t%s", c.name, err, c.text)
		}
	}
	if _, err := Start(nil, Options{}); err == nil {
		t.Error("no command at all is no error")
	}
}

func TestCloseBeforeRelease(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "ran")
	c, _ := start(t, Options{}, "touch", mark)
	c.Close()
	c.Close()
	if err := unix.Kill(c.Pid(), 0); err != unix.ESRCH {
		t.Errorf("the held process is still there: %v", err)
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command ran (%v)", err)
	}
	if err := c.Release(); err == nil {
		t.Error("release after close is no error")
	}
}

func TestHeldProcessKilled(t *testing.T) {
	c, _ := start(t, Options{}, "true")
	fd, err := unix.PidfdOpen(c.Pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitGone(t, fd)
	err = c.Release()
	if err == nil || !strings.Contains(err.Error(), "ended before the command began: signal: killed") {
		t.Errorf("release of a killed process: %v", err)
	}
}

// TestToolKilled kills the tool while it holds a command.
func TestToolKilled(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "ran")
	parent := tool("hold", "", "touch", mark)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	waitGone(t, fd)
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command ran although its tool was killed (%v)", err)
	}
}

// waitGone waits until the process of a pidfd has ended.
func waitGone(t *testing.T, pidfd int) {
	t.Helper()
	defer unix.Close(pidfd)
	const limit = 60_000 // milliseconds
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, limit)
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("the held process has not ended: %d, %v", n, err)
		}
		return
	}
}

func TestSurroundings(t *testing.T) {
	t.Setenv("GOBCC_COMMAND_TEST_VALUE", "a b\nc")
	dir := t.TempDir()
	t.Chdir(dir)
	c, out := start(t, Options{}, "sh", "-c", `printf %s "$GOBCC_COMMAND_TEST_VALUE"; printf '|%s|' "$(pwd -P)" "$@"`, "0", "one", "", "two words")
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := finish(t, c, out)
	if want := "a b\nc|" + real + "||one||||two words|"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSession compares process group, session and terminal with the tool's.
func TestSession(t *testing.T) {
	session := func(stat []byte) []string {
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(rest)) // state, ppid, pgrp, session, tty, …
		if len(fields) < 5 {
			t.Fatalf("stat: %q", stat)
		}
		return fields[2:5]
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	c, out := start(t, Options{}, "cat", "/proc/self/stat")
	got, _ := finish(t, c, out)
	if !slices.Equal(session([]byte(got)), session(own)) {
		t.Errorf("process group, session and terminal %q, want %q", session([]byte(got)), session(own))
	}
}

// openFiles is the set of descriptors of a process that are not close-on-exec.
func openFiles(t *testing.T, pid int) (fds []int) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
		if errors.Is(err, os.ErrNotExist) {
			continue // The descriptor that read the directory.
		}
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := bytes.Cut(info, []byte("flags:"))
		flags, err := strconv.ParseInt(strings.Fields(string(rest))[0], 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		if flags&unix.O_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds
}

func TestFiles(t *testing.T) {
	// An inherited descriptor, as from `TOOL -- CMD 9>file`.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	inherited, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD, 30)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	want := openFiles(t, os.Getpid())

	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c, out := start(t, Options{Stdin: in}, "cat")
	in.Close()
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	// Once cat has copied a line, it has opened and closed all that it needs.
	if _, err := feed.WriteString("line\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); err != nil || line != "line\n" {
		t.Fatal(line, err)
	}
	if got := openFiles(t, c.Pid()); !slices.Equal(got, want) {
		t.Errorf("the command has descriptors %d, want those that the tool was given, %d", got, want)
	}
	feed.Close()
	if status, err := c.Wait(); status != 0 || err != nil {
		t.Error(status, err)
	}

	c, out = start(t, Options{}, "sh", "-c", `echo through >/proc/self/fd/$0`, strconv.Itoa(inherited))
	unix.Close(inherited)
	finish(t, c, out)
	if text, err := io.ReadAll(r); string(text) != "through\n" || err != nil {
		t.Errorf("through the inherited descriptor came %q, %v", text, err)
	}
}

// TestLimits sees that the command has the limits of the tool's caller, though
// the Go runtime and the tool raise theirs.
func TestLimits(t *testing.T) {
	out, err := tool("run", "ulimit -S -n 321; ulimit -S -l 32", "sh", "-c", "ulimit -S -n; ulimit -H -n; ulimit -S -l").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var nofile unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("321\n%d\n32\n", nofile.Max); string(out) != want {
		t.Errorf("open files soft and hard, locked memory soft:\n%swant\n%s", out, want)
	}
}

// TestIgnoredSignals runs the tool as nohup and a background job do.
func TestIgnoredSignals(t *testing.T) {
	const hup, interrupt = 1, 2 // signals 1 and 2 in a mask
	// What this process was told to ignore, by nohup, is not a child's to ignore while it is handled here.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, syscall.SIGHUP, syscall.SIGINT)
	defer signal.Stop(handled)
	for before, want := range map[string]uint64{
		"":                  0,
		"trap '' HUP":       hup,
		"trap '' INT":       interrupt,
		"trap '' HUP INT\n": hup | interrupt,
	} {
		out, err := tool("run", before, "cat", "/proc/self/status").Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := strconv.ParseUint(statusLine(t, out, "SigIgn")[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got&(hup|interrupt) != want {
			t.Errorf("after %q the command ignores %#x, want %#x", before, got, want)
		}
		if caught := statusLine(t, out, "SigCgt")[0]; strings.Trim(caught, "0") != "" {
			t.Errorf("cat handles signals %s", caught)
		}
	}
}

// statusLine is the words of a line of /proc/PID/status.
func statusLine(t *testing.T, status []byte, key string) []string {
	t.Helper()
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(rest)
		}
	}
	t.Fatalf("no %s in %s", key, status)
	return nil
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: changing the user needs root")
	}
}

func TestRunAs(t *testing.T) {
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := nobody.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec     string
		uid, gid string
		groups   []string
	}{
		{"nobody", nobody.Uid, nobody.Gid, groups},
		{nobody.Uid, nobody.Uid, nobody.Gid, groups},
		{"12345:54321", "12345", "54321", nil},
	} {
		cmd, out := start(t, Options{RunAs: c.spec}, "cat", "/proc/self/status")
		text, _ := finish(t, cmd, out)
		all := func(s string) []string { return []string{s, s, s, s} } // real, effective, saved, filesystem
		if got := statusLine(t, []byte(text), "Uid"); !slices.Equal(got, all(c.uid)) {
			t.Errorf("%s: user ids %s, want %s", c.spec, got, c.uid)
		}
		if got := statusLine(t, []byte(text), "Gid"); !slices.Equal(got, all(c.gid)) {
			t.Errorf("%s: group ids %s, want %s", c.spec, got, c.gid)
		}
		got := statusLine(t, []byte(text), "Groups")
		slices.Sort(got)
		slices.Sort(c.groups)
		if !slices.Equal(got, c.groups) {
			t.Errorf("%s: supplementary groups %s, want %s", c.spec, got, c.groups)
		}
		if got := statusLine(t, []byte(text), "CapEff")[0]; strings.Trim(got, "0") != "" {
			t.Errorf("%s: capabilities %s are left", c.spec, got)
		}
	}
}

func TestRunAsSearchesAsThatUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hidden"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if c, err := Start([]string{"hidden"}, Options{}); err != nil {
		t.Errorf("as root: %v", err)
	} else {
		c.Close()
	}
	var bad *Error
	_, err := Start([]string{filepath.Join(dir, "hidden")}, Options{RunAs: "nobody"})
	if !errors.As(err, &bad) || bad.Status != 126 || !errors.Is(err, unix.EACCES) {
		t.Errorf("as nobody, by its path: %v", err)
	}
	_, err = Start([]string{"hidden"}, Options{RunAs: "nobody"})
	if !errors.As(err, &bad) || bad.Status != 127 || !errors.Is(err, unix.ENOENT) {
		t.Errorf("as nobody: %v", err)
	}
}

func TestRunAsWithoutRights(t *testing.T) {
	needRoot(t)
	cmd := tool("run", "", "true")
	cmd.Env = append(cmd.Env, toolVar+"_USER=0")
	// The program under test is reached through our own /proc directory, which
	// another user may not look into, so it comes as a file.
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "gobcc-command-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "tool")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd = &exec.Cmd{Path: file, Args: []string{"tool", "true"}, Env: cmd.Env, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `run "true" as 0: operation not permitted (running as another user needs root`) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRunAsUnknown(t *testing.T) {
	for _, spec := range []string{"no-such-user-23", "4000000023", "-1", "1:", ":1", "1:2:3", "root:root", "4294967295", "4294967295:1"} {
		c, err := Start([]string{"true"}, Options{RunAs: spec})
		if err == nil {
			c.Close()
			t.Errorf("%q is no error", spec)
		} else if !strings.HasPrefix(err.Error(), fmt.Sprintf("run as %q: ", spec)) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}
