package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/scratch"
)

// TestKernelStorm has programs run faster than can be shown through a small buffer,
// some at the same time: shown and lost are all there were. The tool stands still for
// half of them, as no buffer is too small for a reader that is quick.
func TestKernelStorm(t *testing.T) {
	livetest.Need(t)
	const families = 4
	each := 600
	if livetest.Guest() {
		each = 75
	}
	s := newStage(t)
	path := leaf(s, "true")
	one := livetest.Fork(livetest.Call(unix.SYS_EXECVE, path, []string{path, strings.Repeat("x", 100)}, nil))
	var steps []livetest.Step
	for range families {
		steps = append(steps, livetest.Fork(livetest.Repeat(each, one, livetest.Await()), livetest.Exit(0)))
	}
	for range families {
		steps = append(steps, livetest.Await())
	}
	storm := s.program("storm", append(steps, livetest.Exit(0))...)
	runs := [][]string{nil, {"-b", "1"}, {"--json"}, {"--json", "-b", "1"}}
	if livetest.Guest() {
		runs = [][]string{nil, {"--json", "-b", "1"}}
	}
	for _, args := range runs {
		t.Run("execsnoop "+strings.Join(args, " "), func(t *testing.T) {
			small := slices.Contains(args, "-b")
			tool := livetest.Start(t, append(args, "--pid", fmt.Sprint(os.Getpid()), "--follow")...)
			tool.Ready()
			if small {
				tool.Signal(unix.SIGSTOP)
			}
			s.run(0, nil, []string{storm})
			tool.Signal(unix.SIGCONT)
			s.run(0, nil, []string{storm})
			res := tool.Stop().Over(t, 0)
			lost, possibly := res.Lost()
			shown := uint64(0)
			for _, line := range res.Lines() {
				if strings.Contains(line, path) || strings.Contains(line, storm) {
					shown++
				}
			}
			done := uint64(2 * (families*each + 1))
			livetest.Account(t, "execs", done, shown, lost, possibly)
			t.Logf("%d shown, %d lost, perhaps %d more", shown, lost, possibly)
			switch {
			case !small && lost > 0:
				t.Errorf("of %d execs %d were lost: %s", done, lost, res.Stderr)
			case small && lost == 0:
				t.Error("nothing was lost in a ring of a page")
			case small && !strings.Contains(res.Stderr, "ring buffer full"):
				t.Errorf("%d are lost, and not for want of room: %s", lost, res.Stderr)
			}
		})
	}
}

// attached loads and attaches the kernel side alone, until the test ends.
func attached(t *testing.T, hooks []attach.Hook, mode attach.Mode) *attach.Set {
	t.Helper()
	kernel, err := attach.Open("")
	if err != nil {
		t.Fatal(err)
	}
	set, err := kernel.Open(object(t), hooks, attach.Options{Mode: mode, Ready: scratch.Fill})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	return set
}

// TestKernelCallsAreForgotten has execs that work and that fail, from first threads
// and from others, and then no call may be left of those that have begun.
func TestKernelCallsAreForgotten(t *testing.T) {
	eachModeInTurn(t, func(t *testing.T, mode string) {
		set := attached(t, hooks(true, false), attach.Mode(mode))
		s := newStage(t)
		path := leaf(s, "leaf")
		first := s.program("first", livetest.Thread(
			livetest.Call(unix.SYS_EXECVE, "missing", nil, nil), livetest.Call(unix.SYS_EXECVE, path, nil, nil)))
		for range times {
			s.run(0, nil, []string{first})
		}
		var id, regs uint64
		left := 0
		for calls := set.Maps["calls"].Iterate(); calls.Next(&id, &regs); left++ {
			t.Logf("left of process %d: a call of thread %d", id>>32, uint32(id))
		}
		if left > 0 && set.Missed() == 0 {
			t.Errorf("%d calls that have ended are remembered", left)
		}
	})
}

// TestKernelSpares looks at what the kernel side sends, before what came twice is
// dropped: with all spares at work, it is each exec and each end once.
func TestKernelSpares(t *testing.T) {
	livetest.Need(t)
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer counting.Close()
	set := attached(t, hooks(false, true), attach.Auto)
	spares := set.Results[0].Spares // where the kernel can preempt these programs
	reader, err := events.NewReader(set.Collection)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s := newStage(t)
	path := leaf(s, "leaf")
	for range times {
		s.run(0, nil, []string{path, strings.Repeat("x", 10_000)})
	}
	set.Detach()
	execs, exits := map[uint64]int{}, map[uint64]int{}
	err = reader.Drain(func(record []byte) error {
		var e bpfExec
		var x bpfExit
		switch bpfKind(record[kindAt]) {
		case bpfKindKIND_EXEC:
			if rest, err := events.Decode(&e, record); err != nil {
				return err
			} else if string(rest[:e.FilenameLen]) == path {
				execs[e.Id]++
			}
		case bpfKindKIND_EXIT:
			if _, err := events.Decode(&x, record); err != nil {
				return err
			}
			exits[x.Id]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(execs) != times {
		t.Errorf("%d of %d execs were sent", len(execs), times)
	}
	for id, n := range execs {
		if n != 1 || exits[id] != 1 {
			t.Errorf("an exec was sent %d times, and its end %d times", n, exits[id])
		}
	}
	ran := map[string]int{} // copies of each program that ran as often as they should
	for name, p := range set.Programs {
		stats, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		base, _, _ := strings.Cut(name, "_")
		if stats.RunCount+stats.RecursionMisses >= times {
			ran[base]++
		}
	}
	if ran["exec"] != 1+spares || ran["exit"] != 1+spares || ran["free"] > 1 {
		t.Errorf("with %d spares, copies ran: %v", spares, ran)
	}
}

// TestKernelCommand traces a command that runs others at the same time, as make -j
// does: all that it ran is shown, from its own exec on, and how that ended.
func TestKernelCommand(t *testing.T) {
	eachModeInTurn(t, func(t *testing.T, mode string) {
		const jobs = 8
		s := newStage(t)
		want := map[string]int{}
		run := func(path string, args ...string) livetest.Step {
			argv := append([]string{path}, args...)
			want[strings.Join(argv, " ")]++
			return livetest.Fork(livetest.Call(unix.SYS_EXECVE, path, argv, nil))
		}
		as, nowhere := leaf(s, "as"), filepath.Join(s.dir, "missing")
		var steps []livetest.Step
		for i := range jobs {
			var compile []livetest.Step
			for j := range times {
				// A search in vain, and a child.
				compile = append(compile, livetest.Call(unix.SYS_EXECVE, nowhere, []string{nowhere}, nil),
					run(as, fmt.Sprint(i), fmt.Sprint(j)), livetest.Await())
			}
			cc := s.program(fmt.Sprintf("cc%d", i), append(compile, livetest.Exit(0))...)
			steps = append(steps, run(cc, "-c"))
		}
		for range jobs {
			steps = append(steps, livetest.Await())
		}
		want[nowhere] = jobs * times
		maker := s.program("maker", append(steps, livetest.Exit(5))...)
		want[maker] = 1
		livetest.Attempts(t, func(a *livetest.Attempt) {
			res := livetest.Run(t, "--attach", mode, "-x", "--exit", "--json", "--", maker).Over(t, 5)
			a.Lost(res)
			lost, possibly := res.Lost()
			var unwanted uint64 // ends whose execs must have been lost
			untimed := 0        // ends without CPU times
			shown, running := map[string]int{}, map[string]bool{}
			for i, r := range decode(t, res.Lines()) {
				if r.Kind == "exit" && r.UserNs == nil {
					untimed++
				}
				switch {
				case r.Kind == "exec" && r.Ret < 0:
					shown[r.filename()]++
				case r.Kind == "exec":
					shown[strings.Join(append([]string{r.filename()}, r.Args[1:]...), " ")]++
					running[*r.ExecID] = true
				case !running[*r.ExecID]:
					unwanted++
				default:
					delete(running, *r.ExecID)
				}
				if i == 0 && r.filename() != maker && lost+possibly == 0 {
					t.Errorf("the first row is %s", r.all())
				}
			}
			var failures, execs uint64 // not shown
			for line, n := range want {
				if shown[line] > n {
					t.Errorf("%s ran %d times, and is shown %d times", line, n, shown[line])
				}
				if missing := uint64(max(n-shown[line], 0)); line == nowhere {
					failures = missing
				} else {
					execs += missing
				}
			}
			ends := uint64(len(running))
			if failures+execs+ends > lost+possibly || unwanted > execs {
				t.Errorf("%d failures, %d execs and %d ends are not shown, %d ends without their execs are; %d events are lost, and perhaps %d more",
					failures, execs, ends, unwanted, lost, possibly)
			}
			checkUntimed(t, res, untimed, jobs*times+jobs+1)
			// With spares nothing is lost, even on 7.x; sys_exit has none.
			if execs+ends > 0 || failures > 0 && mode != "tracepoint" {
				a.Errorf("%d failures, %d execs and %d ends are not shown", failures, execs, ends)
			}
			t.Logf("%d failures, %d execs and %d ends are not shown; %d events are lost, and perhaps %d more", failures, execs, ends, lost, possibly)
		})
	})
}

// TestKernelMemory sums up what the tool's maps take of the kernel's memory.
func TestKernelMemory(t *testing.T) {
	eachModeInTurn(t, func(t *testing.T, mode string) {
		runs := [][]string{{"-x", "--exit", "--json", "--ancestors", "--env", "PATH", "--cwd", "--exe", "--max-bytes", "8M", "--pid", fmt.Sprint(os.Getpid()), "--follow"}}
		if !livetest.Guest() {
			runs = append(runs, nil)
		}
		for _, args := range runs {
			tool := livetest.Start(t, append(args, "--attach", mode)...)
			tool.Ready()
			sum, text := mapMemory(t, tool.Pid())
			tool.Stop().Over(t, 0)
			t.Logf("execsnoop %s: %d bytes", strings.Join(args, " "), sum)
			if sum == 0 || sum > 2<<20 {
				t.Errorf("execsnoop %s: the maps take %d bytes:\n%s", strings.Join(args, " "), sum, text)
			}
		}
	})
}

// mapMemory is what the maps of a process take, but for ring buffers.
func mapMemory(t *testing.T, pid int) (sum int, text string) {
	t.Helper()
	const ringbuf = "27" // BPF_MAP_TYPE_RINGBUF
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := os.Open(filepath.Join(dir, file.Name()))
		if err != nil {
			continue // closed since
		}
		info := map[string]string{}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			info[key] = strings.TrimSpace(value)
		}
		f.Close()
		if info["map_type"] == "" || info["map_type"] == ringbuf {
			continue
		}
		n, err := strconv.Atoi(info["memlock"])
		if err != nil {
			t.Fatalf("a map's memory is %q", info["memlock"])
		}
		sum += n
		text += fmt.Sprintf("type %s, %s entries of %s + %s bytes: %d\n", info["map_type"], info["max_entries"], info["key_size"], info["value_size"], n)
	}
	return sum, text
}
