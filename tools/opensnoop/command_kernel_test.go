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

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

// family is a process that opens dir/family, starts another like it that opens
// dir/familyfamily, and so on. The last starts the program dir/last, whose first
// instructions open dir/first.
var family = livetest.Role("family", func(args []string) string {
	dir, name, child := args[0], args[1], []string{args[0] + "/last"}
	livetest.Openat(unix.AT_FDCWD, livetest.Name(dir+"/"+name), unix.O_RDONLY, 0)
	if len(name) < len("familyfamily") {
		child = livetest.RoleArgv("family", dir, name+"family")
	}
	out, err := exec.Command(child[0], child[1:]...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error()
	}
	return string(out)
})

// makeFamily makes what the role family needs, and gives its directory.
func makeFamily(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	livetest.Program(t, dir+"/last", dir+"/first", 3)
	return dir
}

// pathsBelow are the paths of rows that begin with dir, in their order.
func pathsBelow(dir string, all []row) (paths []string) {
	for _, r := range all {
		if rest, ok := strings.CutPrefix(r.path(), dir+"/"); ok {
			paths = append(paths, rest)
		}
	}
	return paths
}

// TestKernelCommand traces commands from their first instruction to their end.
func TestKernelCommand(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		dir := makeFamily(t)
		livetest.Attempts(t, func(a *livetest.Attempt) {
			alone := livetest.Start(t, "--attach", mode, "--json", "--", dir+"/last")

			list := rows(t, a, alone.Wait(), 3)
			if len(list) == 1 {
				r := list[0]
				if r.path() != dir+"/first" || r.full() != dir+"/first" || r.Errno != int(unix.ENOENT) || r.Comm != "last" || r.PPID != alone.Pid() || r.PID != r.TID {
					t.Errorf("the row of the command's only open: %s", r.all())
				}
			} else {
				a.Errorf("a program that opens one file gave %d rows: %v", len(list), list)
			}

			if livetest.Guest() { // TestKernelFollow must do
				return
			}
			whole := livetest.Start(t, append([]string{"--attach", mode, "--json", "--"}, livetest.RoleArgv(family, dir, "family")...)...)
			all := rows(t, a, whole.Wait(), 0)
			if got, want := pathsBelow(dir, all), []string{"family", "familyfamily", "first"}; !slices.Equal(got, want) {
				a.Errorf("opened %q, not %q", got, want)
			}
			for i, r := range all {
				if r.PID != all[0].PID && r.PPID == all[0].PPID {
					t.Errorf("row %d is of a process that is not of the family: %s", i, r.all())
				}
			}
		})
	})
}

// TestKernelFollow follows what a process starts, and nothing else.
func TestKernelFollow(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		livetest.Attempts(t, func(a *livetest.Attempt) { follow(t, mode, a) })
	})
}

func follow(t *testing.T, mode string, a *livetest.Attempt) {
	dir, other := makeFamily(t), makeFamily(t)
	picked, stranger := livetest.Child(t, family, dir, "family"), livetest.Child(t, family, other, "family")
	pid := fmt.Sprint(picked.Pid())
	tools := []*livetest.Tool{livetest.Start(t, "--attach", mode, "--json", "-b", "64", "-p", pid, "--follow")}
	rounds := times
	if livetest.Guest() {
		rounds = 3
	} else {
		tools = append(tools, livetest.Start(t, "--attach", mode, "--json", "-b", "64", "-p", pid))
	}
	for _, tool := range tools {
		tool.Ready()
	}
	for range rounds {
		for _, child := range []*livetest.ChildProcess{picked, stranger} {
			if out := child.Do(); out != "" {
				t.Fatal(out)
			}
		}
	}
	// Those that have ended are no longer followed: their ids may come again.
	alone := slices.Repeat([][]uint32{{uint32(picked.Pid())}}, len(tools))
	same := func() bool { return slices.EqualFunc(picks(t, uint32(picked.Pid())), alone, slices.Equal) }
	for end := time.Now().Add(time.Minute); !same() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if !same() {
		t.Errorf("the tools follow %v and not %v", picks(t, uint32(picked.Pid())), alone)
	}
	// A tool ends with the last of its processes.
	picked.End()
	for i, tool := range tools {
		all := rows(t, a, tool.Wait(), 0)
		want := slices.Repeat([]string{"family", "familyfamily", "first"}, rounds)
		if i == 1 {
			want = slices.Repeat([]string{"family"}, rounds)
			if i := slices.IndexFunc(all, func(r row) bool { return r.PID != picked.Pid() }); i >= 0 {
				t.Errorf("another process: %s", all[i].all())
			}
		}
		if got := pathsBelow(dir, all); !slices.Equal(got, want) {
			a.Errorf("tool %d saw %d rows: %q", i, len(got), got)
		}
		if got := pathsBelow(other, all); len(got) > 0 {
			t.Errorf("a stranger opened %q", got)
		}
	}
}

// picks gives the keys of all maps of processes that have this one.
func picks(t *testing.T, pid uint32) (sets [][]uint32) {
	t.Helper()
	for id := ebpf.MapID(0); ; {
		var err error
		if id, err = ebpf.MapGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return sets
		} else if err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		info, err := m.Info()
		if err == nil && info.Name == "pids" && m.Type() == ebpf.Hash {
			var set []uint32
			var key uint32
			var value []byte
			for all := m.Iterate(); all.Next(&key, &value); {
				set = append(set, key)
			}
			if slices.Contains(set, pid) {
				sets = append(sets, set)
			}
		}
		m.Close()
	}
}

// TestKernelCommandFirst compares what a command is seen to open with what the
// same process is seen to open by a tool that follows its parent.
func TestKernelCommandFirst(t *testing.T) {
	livetest.NeedOnce(t)
	argv := livetest.RoleArgv(whoami)
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "--json", "-p", fmt.Sprint(os.Getpid()), "--follow")
		tool.Ready()
		cmd := exec.Command(argv[0], argv[1:]...)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, r := range rows(t, a, tool.Stop(), 0) {
			if r.TID == cmd.Process.Pid {
				want = append(want, r.path())
			}
		}
		res := livetest.Run(t, append([]string{"--json", "--"}, argv...)...)
		before, _, _ := strings.Cut(res.Stdout, whoamiMark)
		_, after, _ := strings.Cut(res.Stdout, whoamiEnd)
		res.Stdout = before + after
		for _, r := range rows(t, a, res, 0) {
			if r.PID == r.TID {
				got = append(got, r.path())
			}
		}
		if len(want) == 0 || !slices.Equal(got, want) {
			a.Errorf("as a command it opened\n%q\nand else\n%q", got, want)
		}
	})
}

// whoami says who a command is and what its environment is.
const whoamiMark, whoamiEnd = "I am ", "that was me"

var whoami = livetest.Role("whoami", func(args []string) string {
	dir, _ := os.Getwd()
	return fmt.Sprintf("%suid %d gid %d in %s with %s ignoring INT: %s%s", whoamiMark, os.Getuid(), os.Getgid(), dir,
		os.Getenv("GOBCC_TEST_WORD"), strings.Join(os.Environ(), "\n"), whoamiEnd)
})

// victim ends by a signal: the one that is named, or one that comes.
var victim = livetest.Role("victim", func(args []string) string {
	if args[0] == "KILL" {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	livetest.Openat(unix.AT_FDCWD, livetest.Name(args[1]+"/before"), unix.O_RDONLY, 0)
	fmt.Println("waiting")
	select {}
})

// TestKernelCommandEnds passes on what a command ends with.
func TestKernelCommandEnds(t *testing.T) {
	livetest.NeedFast(t)
	dir := makeFamily(t)
	livetest.Program(t, dir+"/well", dir+"/x", 0)
	if err := os.WriteFile(dir+"/no program", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command []string
		status  int
	}{
		{[]string{dir + "/well"}, 0},
		{[]string{dir + "/last"}, 3},
		{livetest.RoleArgv(victim, "KILL"), 128 + 9},
	} {
		res := livetest.Run(t, append([]string{"--"}, test.command...)...)
		if res.Status != test.status || strings.Contains(res.Stderr, "lost") {
			t.Errorf("%s: status %d instead of %d: %s", test.command, res.Status, test.status, res.Stderr)
		}
	}
	before := livetest.Snapshot(t)
	refused(t, 127, livetest.Run(t, "--", dir+"/nothing"), "nothing", "no such file")
	refused(t, 127, livetest.Run(t, "--", "gobcc-no-such-command"), "gobcc-no-such-command")
	refused(t, 126, livetest.Run(t, "--", dir+"/no program"), "no program", "permission denied")
	refused(t, 126, livetest.Run(t, "--", dir), dir)
	refused(t, cli.BadUsage, livetest.Run(t, "-p", "1", "--", dir+"/well"), "-p")
	refused(t, cli.BadUsage, livetest.Run(t, "--run-as", "nobody"), "--run-as")
	livetest.NoLeak(t, before)

	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		tool := livetest.Start(t, append([]string{"--json", "--path", dir + "/*", "--"}, livetest.RoleArgv(victim, "wait", dir)...)...)
		tool.WaitLine(func(line string) bool { return strings.HasPrefix(line, "waiting") })
		tool.Signal(sig)
		res := tool.Wait()
		if res.Status != 128+int(sig) {
			t.Errorf("%v: status %d: %s", sig, res.Status, res.Stderr)
		}
		if n := strings.Count(res.Stdout, dir+`/before","full_path"`); n != 1 {
			t.Errorf("%v: %d rows of what the command opened: %s", sig, n, res.Stdout)
		}
	}
}

// TestKernelCommandIdentity runs commands as who they are to be.
func TestKernelCommandIdentity(t *testing.T) {
	livetest.NeedFast(t)
	// nobody must get at the test binary.
	exe := makeFamily(t) + "/test"
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, text, 0o755); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{exe}, livetest.RoleArgv(whoami)[1:]...)
	said := func(args ...string) string {
		tool := livetest.StartWith(t, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "GOBCC_TEST_WORD=kept")
			cmd.Dir = "/usr"
		}, append(append(args, "--"), argv...)...)
		res := tool.Wait()
		if res.Status != 0 {
			t.Errorf("status %d: %s", res.Status, res.Stderr)
		}
		_, text, _ := strings.Cut(res.Stdout, whoamiMark)
		return text
	}
	if text := said(); !strings.HasPrefix(text, "uid 0 gid 0 in /usr with kept") || strings.Contains(text, "GOBCC_READY_FD") {
		t.Errorf("the command is %s", text)
	}
	for _, user := range []string{"nobody", "65534"} {
		if text := said("--run-as", user); !strings.HasPrefix(text, "uid 65534 gid 65534 in /usr with kept") {
			t.Errorf("--run-as %s: the command is %s", user, text)
		}
	}
	refused(t, cli.Failed, livetest.Run(t, "--run-as", "gobcc-no-such-user", "--", "true"), "gobcc-no-such-user")
}
