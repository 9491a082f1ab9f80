package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

// lines gives the rows of text about processes of a stage, and the header.
func (s *stage) lines(res livetest.Result) (header string, rows []string) {
	for i, line := range res.Lines() {
		if i == 0 {
			header = line
		} else if strings.Contains(line, s.dir) {
			rows = append(rows, strings.ReplaceAll(line, s.dir, "DIR"))
		}
	}
	return header, rows
}

// TestKernelColumns compares rows of text, byte by byte, with what BCC's format
// strings make of the same execs.
func TestKernelColumns(t *testing.T) {
	livetest.NeedFast(t)
	me := self()
	const clock, seconds = `\d\d:\d\d:\d\d `, `\d+\.\d{3} {3}`
	argv := []string{"zero", "a b", `"q"`, "new\nline", "\xff"}
	const plain, quoted = `DIR/leaf a b "q" new\nline \xff`, `"DIR/leaf" "a b" "\"q\"" "new\nline" "\xff"`
	for _, test := range []struct {
		args   []string
		header string
		row    string // a regular expression where a time stands
		ret    string
	}{
		{nil, "PCOMM            PID     PPID    RET ARGS", fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID), plain},
		{[]string{"-T"}, "TIME     PCOMM            PID     PPID    RET ARGS", clock + fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID), plain},
		{[]string{"-t"}, "TIME(s) PCOMM            PID     PPID    RET ARGS", seconds + fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID), plain},
		{[]string{"-U"}, "UID   PCOMM            PID     PPID    RET ARGS", fmt.Sprintf("%-6d%-16s PID     %-7d   0 ", 0, "leaf", me.PPID), plain},
		{[]string{"-C"}, "PCOMM            PID     PPID    CPU  RET ARGS", fmt.Sprintf("%-16s PID     %-7d %-4d   0 ", "leaf", me.PPID, 0), plain},
		{[]string{"-M"}, "COMM             PID     PCOMM            PPID    RET ARGS", fmt.Sprintf("%-16s PID     %-16s %-7d   0 ", "leaf", me.ParentComm, me.PPID), plain},
		{[]string{"-q"}, "PCOMM            PID     PPID    RET ARGS", fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID), quoted},
		{[]string{"--max-args", "2"}, "PCOMM            PID     PPID    RET ARGS", fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID), "DIR/leaf a b ..."},
		{[]string{"--max-args=5"}, "PCOMM            PID     PPID    RET ARGS", fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID), plain},
		{[]string{"--exe", "--cwd", "--tty", "--loginuid", "--env", "GOBCC_B,GOBCC_A"}, "PCOMM            PID     PPID    RET ARGS",
			fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID),
			plain + "  [exe=DIR/leaf cwd=DIR tty=none loginuid=" + strings.ReplaceAll(number(me.Loginuid), null, "unset") + ` $GOBCC_A=1 $GOBCC_B=x=y\n]`},
		{[]string{"--ancestors=1"}, "PCOMM            PID     PPID    RET ARGS", fmt.Sprintf("%-16s PID     %-7d   0 ", "leaf", me.PPID),
			plain + fmt.Sprintf("  [ancestors=%s:%d]", me.ParentComm, me.PPID)},
		{[]string{"-TtUMC"}, "TIME     TIME(s) UID   COMM             PID     PCOMM            PPID    CPU  RET ARGS",
			clock + seconds + fmt.Sprintf("%-6d%-16s PID     %-16s %-7d %-4d   0 ", 0, "leaf", me.ParentComm, me.PPID, 0), plain},
	} {
		t.Run(strings.Join(append([]string{"execsnoop"}, test.args...), " "), func(t *testing.T) {
			s := newStage(t)
			path := leaf(s, "leaf")
			livetest.Attempts(t, func(a *livetest.Attempt) {
				s.order = nil
				tool := livetest.Start(t, append(test.args, "-P", fmt.Sprint(os.Getpid()))...)
				tool.Ready()
				onFirstCPU(t, func() {
					for range times {
						s.run(0, func(cmd *exec.Cmd) {
							cmd.Path, cmd.Env = path, []string{"GOBCC_A=1", "OTHER=2", "GOBCC_B=x=y\n", "GOBCC_AB=3"}
						}, argv, ran(s.dir, path, argv...))
					}
				})
				res := tool.Stop().Over(t, 0)
				a.Lost(res)
				header, rows := s.lines(res)
				if header != test.header {
					t.Errorf("the header\n got %q\nwant %q", header, test.header)
				}
				if len(rows) != times {
					a.Errorf("%d rows of %d", len(rows), times)
					return
				}
				for i, line := range rows {
					want := strings.ReplaceAll(test.row, "PID    ", fmt.Sprintf("%-7d", s.order[i])) + regexp.QuoteMeta(test.ret)
					if !regexp.MustCompile(`\A` + want + `\z`).MatchString(line) {
						a.Errorf("row %d\n got %q\nwant %q", i, line, want)
					}
				}
			})
		})
	}
}

// onFirstCPU runs do on a thread that stays on CPU 0, as what it starts does.
func onFirstCPU(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with do
		var cpus unix.CPUSet
		cpus.Set(0)
		if err := unix.SchedSetaffinity(0, &cpus); err != nil {
			t.Errorf("stay on CPU 0: %v", err)
			return
		}
		do()
	}()
	<-done
}

// TestKernelCPU compares the CPU that an exec happened on with the one its process
// was bound to, for each CPU.
func TestKernelCPU(t *testing.T) {
	livetest.Need(t)
	s := newStage(t)
	path := leaf(s, "leaf")
	livetest.Attempts(t, func(a *livetest.Attempt) {
		s.order = nil
		tool := livetest.Start(t, "--json", "-P", fmt.Sprint(os.Getpid()))
		tool.Ready()
		onFirstCPU(t, func() {
			for i := range times {
				var cpus unix.CPUSet
				cpus.Set(i % runtime.NumCPU())
				if err := unix.SchedSetaffinity(0, &cpus); err != nil {
					t.Fatalf("stay on CPU %d: %v", i%runtime.NumCPU(), err)
				}
				s.run(0, nil, []string{path}, ran(s.dir, path, path))
			}
		})
		res := tool.Stop().Over(t, 0)
		a.Lost(res)
		n := 0
		for _, r := range decode(t, res.Lines()) {
			if r.filename() != path {
				continue
			}
			if want := n % runtime.NumCPU(); r.CPU != want {
				a.Errorf("an exec was on CPU %d, not %d", r.CPU, want)
			}
			n++
		}
		if n != times {
			a.Errorf("%d rows of %d", n, times)
		}
	})
}

// limits are arguments of 8,192 bytes with their NULs, and of a bit more.
var limits = []struct {
	argv               []string
	shown              []string
	missing, bytesMore int
	text               string // behind the arguments shown
}{
	{[]string{"zero", strings.Repeat("x", 8192-6)}, []string{"zero", strings.Repeat("x", 8192-6)}, 0, 0, ""},
	{[]string{"zero", strings.Repeat("x", 8192-5)}, []string{"zero", strings.Repeat("x", 8192-5)}, 0, 1, " ... (0 arguments and 1 bytes more)"},
	{[]string{"zero", strings.Repeat("x", 8192-4)}, []string{"zero", strings.Repeat("x", 8192-5)}, 0, 2, " ... (0 arguments and 2 bytes more)"},
	{[]string{"zero", strings.Repeat("x", 8192-6), "more"}, []string{"zero", strings.Repeat("x", 8192-6)}, 1, 5, " ... (1 arguments and 5 bytes more)"},
	{[]string{"zero", strings.Repeat("x", 9000), "", "more"}, []string{"zero", strings.Repeat("x", 8192-5)}, 2, 9012 - 8192, ""},
}

// TestKernelMaxBytes has arguments of just the limit, and of more, in each mode
// for those that fail.
func TestKernelMaxBytes(t *testing.T) {
	eachModeInTurn(t, func(t *testing.T, mode string) {
		perform(t, []scene{{"limits", func(s *stage) {
			for _, l := range limits {
				path := leaf(s, "leaf")
				first := s.program("first", livetest.Call(unix.SYS_MLOCKALL, unix.MCL_CURRENT),
					livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, "missing", l.argv, nil)),
					livetest.Call(unix.SYS_EXECVE, path, l.argv, nil))
				want := []row{ran(s.dir, first, first)}
				failed := want[0].failed("missing", unix.ENOENT, l.shown...)
				failed.ArgsMissing, failed.BytesMissing = l.missing, l.bytesMore
				for range times {
					want = append(want, failed)
				}
				last := ran(s.dir, path, l.shown...)
				last.ArgsMissing, last.BytesMissing = l.missing, l.bytesMore
				s.run(0, nil, []string{first}, append(want, last)...)
			}
		}}}, []string{"--attach", mode, "-x", "--max-bytes", "8K"}, nil)
	})
}

// TestKernelMegabyte has as many arguments as the kernel takes, or nearly so, and
// they are all shown if asked for.
func TestKernelMegabyte(t *testing.T) {
	livetest.NeedOnce(t)
	perform(t, []scene{{"arguments", func(s *stage) {
		path, argv := leaf(s, "leaf"), []string{"leaf"}
		for i := range 20 {
			argv = append(argv, strings.Repeat(fmt.Sprint(i%10), 70_000))
		}
		first := s.program("first", livetest.Call(unix.SYS_MLOCKALL, unix.MCL_CURRENT),
			livetest.Repeat(timesOf(argv), livetest.Call(unix.SYS_EXECVE, "missing", argv, nil)),
			livetest.Call(unix.SYS_EXECVE, path, argv, nil))
		want := []row{ran(s.dir, first, first)}
		for range timesOf(argv) {
			want = append(want, want[0].failed("missing", unix.ENOENT, argv...))
		}
		s.run(0, nil, []string{first}, append(want, ran(s.dir, path, argv...))...)
	}}}, []string{"-x", "--max-bytes", "8M", "-b", "16384"}, nil)
}

// TestKernelMaxBytesText is the same as text.
func TestKernelMaxBytesText(t *testing.T) {
	livetest.Need(t)
	s := newStage(t)
	path := leaf(s, "leaf")
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "--max-bytes", "8192", "-P", fmt.Sprint(os.Getpid()))
		tool.Ready()
		for _, l := range limits {
			s.run(0, func(cmd *exec.Cmd) { cmd.Path = path }, l.argv)
		}
		res := tool.Stop().Over(t, 0)
		a.Lost(res)
		_, rows := s.lines(res)
		if len(rows) != len(limits) {
			a.Errorf("%d rows of %d", len(rows), len(limits))
			return
		}
		for i, l := range limits {
			if l.text == "" && l.missing > 0 {
				l.text = fmt.Sprintf(" ... (%d arguments and %d bytes more)", l.missing, l.bytesMore)
			}
			if want := "DIR/leaf " + l.shown[1] + l.text; !strings.HasSuffix(rows[i], want) {
				t.Errorf("%d bytes of arguments: the row ends with %q, not %q", 5+len(l.argv[1])+1, rows[i][max(0, len(rows[i])-80):], want[max(0, len(want)-80):])
			}
		}
	})
}

// TestKernelTree has rows indented under their parents.
func TestKernelTree(t *testing.T) {
	livetest.Need(t)
	s := newStage(t)
	grandchild := leaf(s, "grandchild")
	child := s.program("child", livetest.Fork(livetest.Call(unix.SYS_EXECVE, grandchild, []string{"g"}, nil)), livetest.Await(),
		livetest.Call(unix.SYS_EXECVE, grandchild, []string{"g", "again"}, nil))
	parent := s.program("parent", livetest.Repeat(times, livetest.Fork(livetest.Call(unix.SYS_EXECVE, child, []string{"c"}, nil)), livetest.Await()), livetest.Exit(0))
	livetest.Attempts(t, func(a *livetest.Attempt) {
		res := livetest.Run(t, "--tree", "--", parent).Over(t, 0)
		a.Lost(res)
		_, rows := s.lines(res)
		want := []string{"  0 DIR/parent"}
		for range times {
			want = append(want, "  0   DIR/child", "  0     DIR/grandchild", "  0   DIR/grandchild again")
		}
		if len(rows) != len(want) {
			a.Errorf("%d rows of %d", len(rows), len(want))
			return
		}
		for i := range want {
			if !strings.HasSuffix(rows[i], want[i]) {
				a.Errorf("row %d is %q, not %q", i, rows[i], want[i])
			}
		}
	})
}

// TestKernelSummary counts programs.
func TestKernelSummary(t *testing.T) {
	livetest.NeedOnce(t)
	s := newStage(t)
	naps, quick := s.program("naps", sleep(nap), livetest.Exit(0)), leaf(s, "quick")
	fork := func(path string) livetest.Step {
		return livetest.Fork(livetest.Call(unix.SYS_EXECVE, path, []string{"x"}, nil))
	}
	missing := filepath.Join(s.dir, "missing")
	all := s.program("all", livetest.Repeat(times, fork(naps), livetest.Await(), fork(quick), livetest.Await(), fork(quick), livetest.Await()),
		livetest.Repeat(times, livetest.Call(unix.SYS_EXECVE, missing, []string{"x"}, nil)), livetest.Exit(0))
	livetest.Attempts(t, func(a *livetest.Attempt) {
		res := livetest.Run(t, "-x", "--summary", "--", all).Over(t, 0)
		a.Lost(res)
		text := strings.ReplaceAll(res.Stdout, s.dir, "DIR")
		want := `\A    RUNS   FAILED    ENDED    TOTAL\(s\) PROGRAM
      46        0       46 +\d+\.\d{3} DIR/quick
      23        0       23 +(\d+\.\d{3}) DIR/naps
       0       23        0       0.000 DIR/missing
       1        0        1 +\d+\.\d{3} DIR/all
\z`
		m := regexp.MustCompile(want).FindStringSubmatch(text)
		if m == nil {
			a.Errorf("the summary\n%s is not\n%s", text, want)
			return
		}
		var total float64
		if _, err := fmt.Sscan(m[1], &total); err != nil || total < times*nap.Seconds() {
			t.Errorf("%d naps of %v took %s s: %v", times, nap, m[1], err)
		}
	})
}

// TestKernelStats has the tool say what it did, and what that cost, in lines that
// name a program once with all its spares.
func TestKernelStats(t *testing.T) {
	livetest.Need(t)
	s := newStage(t)
	path := leaf(s, "leaf")
	some := s.program("some", livetest.Repeat(times, livetest.Fork(livetest.Call(unix.SYS_EXECVE, path, nil, nil)), livetest.Await()), livetest.Exit(0))
	res := livetest.Run(t, "-v", "--stats", "--exit", "--", some).Over(t, 0)
	_, possibly := res.Lost()
	var execs, shown int
	for line := range strings.Lines(res.Stderr) {
		name := "execsnoop: program exec_tp"
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, rest, _ = strings.Cut(rest, " ran ")
			if _, err := fmt.Sscanf(rest, "%d times", &execs); err != nil || execs != 0 && strings.Count(res.Stderr, name) != 1 {
				t.Errorf("%v: %s", err, res.Stderr)
			}
		}
		_, _ = fmt.Sscanf(line, "execsnoop: %d events shown", &shown) // one line has it
	}
	// Others may run something meanwhile, but none of it is shown.
	if execs < times+1 || shown != 2*(times+1) && possibly == 0 {
		t.Errorf("%d execs were seen, and %d rows shown: %s", execs, shown, res.Stderr)
	}
	spares, tells := regexp.MustCompile(`program exec_tp and 3 spares ran`).MatchString(res.Stderr), strings.Contains(res.Stderr, "exec: with 3 spares,")
	if !strings.Contains(res.Stderr, "execsnoop: exec: by tracepoint\n") || spares != tells {
		t.Errorf("-v and --stats say\n%s", res.Stderr)
	}
}

// TestKernelBadUsage gives what makes no sense: status 2, one line, and nothing
// done.
func TestKernelBadUsage(t *testing.T) {
	livetest.Need(t)
	before := livetest.Snapshot(t)
	for args, word := range map[string]string{
		"-n (": "--name", "-l [z-a]": "--line", "-u no-such-user": "no-such-user", "--max-bytes 9M": "--max-bytes",
		"--max-bytes x": "--max-bytes", "--ancestors=-1": "--ancestors", "--ancestors=0": "--ancestors", "--ancestors=33": "--ancestors",
		"--exit-only -x": "--exit-only", "--summary --json": "--summary", "--summary --tree": "--summary", "stray": "stray",
		"--max-args -1": "--max-args", "-P 0": "-P", "--env A=B": "--env", "-b 0": "--buffer-pages", "--attach magic": "magic", "--nonsense": "--nonsense",
	} {
		res := livetest.Run(t, strings.Fields(args)...)
		if res.Status != cli.BadUsage || res.Stdout != "" || strings.Count(res.Stderr, "\n") != 1 || !strings.Contains(res.Stderr, word) {
			t.Errorf("execsnoop %s: status %d, %q, %q", args, res.Status, res.Stdout, res.Stderr)
		}
	}
	livetest.NoLeak(t, before)
}
