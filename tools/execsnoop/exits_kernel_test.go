package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// tick is what the kernel's account of user and system time is exact to, at most.
const tick = 10 * time.Millisecond

// nap is how long a program sleeps.
const nap = 20 * time.Millisecond

func sleep(d time.Duration) livetest.Step {
	ts := binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(d))
	return livetest.Call(unix.SYS_NANOSLEEP, ts, nil)
}

// coreLimit has a program's own limit on core dumps set.
func coreLimit(n uint64) livetest.Step {
	limit := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, n), n)
	return livetest.Call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, limit, nil)
}

// exits is a scene of a program that ends so.
func exits(status int, steps ...livetest.Step) func(s *stage) {
	return func(s *stage) {
		path := s.program("ends", steps...)
		for range times {
			s.run(status, nil, []string{path}, ran(s.dir, path, path))
		}
	}
}

// signalled is a scene of a program that a signal ends.
func signalled(sig unix.Signal) func(s *stage) {
	return func(s *stage) {
		path := s.program("killed", append(pauses, livetest.Exit(0))...)
		for range times {
			begin := time.Now()
			cmd := s.paused(nil, []string{path}, func(pid int) {
				if err := unix.Kill(pid, sig); err != nil {
					s.t.Fatal(err)
				}
			})
			s.end(128+int(sig), cmd, begin, ran(s.dir, path, path))
		}
	}
}

var exitScenes = []scene{
	{"status 0", exits(0, livetest.Exit(0))},
	{"status 3", exits(3, livetest.Exit(3))},
	{"status 255", exits(255, livetest.Exit(255))},
	{"SIGTERM", signalled(unix.SIGTERM)},
	{"SIGKILL", signalled(unix.SIGKILL)},
	{"realtime signal", signalled(unix.Signal(40))},
	{"no core", exits(128+int(unix.SIGILL), coreLimit(0), livetest.Crash())},
	{"core", exits(128+int(unix.SIGILL), coreLimit(1<<30), livetest.Crash())},
	{"sleeps", exits(0, sleep(nap), livetest.Exit(0))},
	{"memory", exits(0, livetest.Call(unix.SYS_MMAP, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE, -1, 0), livetest.Exit(0))},
	{"thread's exec", func(s *stage) {
		path := s.program("leaf", sleep(nap), livetest.Exit(9))
		first := s.program("first", livetest.Thread(livetest.Call(unix.SYS_EXECVE, path, []string{"x"}, nil)))
		for range times {
			s.run(9, nil, []string{first}, ran(s.dir, first, first), ran(s.dir, path, "x"))
		}
	}},
	{"thread's exit", exits(5, livetest.Thread(livetest.Exit(5)))},
	{"several", func(s *stage) {
		last := s.program("last", sleep(nap), livetest.Exit(4))
		second := s.program("second", livetest.Call(unix.SYS_EXECVE, last, []string{"3"}, nil))
		first := s.program("first", livetest.Call(unix.SYS_EXECVE, second, []string{"2"}, nil))
		for range times {
			s.run(4, nil, []string{first}, ran(s.dir, first, first), ran(s.dir, second, "2"), ran(s.dir, last, "3"))
		}
	}},
	{"user", func(s *stage) {
		path := s.program("ends", livetest.Exit(1))
		for range times {
			want := ran(s.dir, path, path)
			want.UID = 65534
			s.run(1, func(cmd *exec.Cmd) {
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
			}, []string{path}, want)
		}
	}},
	{"busy", func(s *stage) {
		n, loops, calls := times, 20_000_000, 100_000
		if livetest.Guest() {
			n, loops, calls = 5, 10_000_000, 20_000
		}
		path := s.program("busy", livetest.Repeat(loops), livetest.Repeat(calls, livetest.Call(unix.SYS_GETPPID)), livetest.Exit(0))
		for range n {
			s.run(0, nil, []string{path}, ran(s.dir, path, path))
		}
	}},
	{"subshell", func(s *stage) {
		// A child that never execs.
		path := s.program("shell", livetest.Fork(sleep(nap), livetest.Exit(7)), livetest.Await(), livetest.Exit(0))
		for range times {
			s.run(0, nil, []string{path}, ran(s.dir, path, path))
		}
		s.more = func(all []row) (problems []string) {
			parents, ids := map[int]bool{}, map[string]bool{}
			for _, pid := range s.order {
				parents[pid] = true
			}
			n := 0
			for _, r := range all {
				switch {
				case r.Kind == "exec":
					ids[number(r.ExecID)] = true
				case parents[r.PPID]:
					n++
					if number(r.ExitCode) != "7" || r.Comm != "shell" || r.ParentComm != "shell" || ids[number(r.ExecID)] ||
						time.Duration(r.DurationNs) < nap {
						problems = append(problems, fmt.Sprintf("a subshell ended as %+v", r))
					}
				}
			}
			if n != times {
				problems = append(problems, fmt.Sprintf("%d subshells ended, not %d", n, times))
			}
			return problems
		}
	}},
}

// micro is what rusage is exact to.
const micro = time.Microsecond

// used gives what wait4 says of the CPU time of a process.
func used(state *os.ProcessState) (user, system time.Duration) {
	usage := state.SysUsage().(*syscall.Rusage)
	return time.Duration(usage.Utime.Nano()), time.Duration(usage.Stime.Nano())
}

var untimedText = regexp.MustCompile(`not known: CPU times of ended processes, (\d+) freed by the kernel`)

// checkUntimed checks that ends without CPU times are said. There are none where the kernel
// runs programs at all times; 6.18.44-fc-v782 runs none in process 1.
func checkUntimed(t *testing.T, res livetest.Result, untimed, ends int) {
	t.Helper()
	said := 0
	if m := untimedText.FindStringSubmatch(res.Stderr); m != nil {
		said, _ = strconv.Atoi(m[1])
	}
	if untimed > said || untimed > ends/20 || livetest.Guest() && untimed > 0 {
		t.Errorf("%d of %d ends are shown without CPU times: %s", untimed, ends, res.Stderr)
	}
	if untimed > 0 {
		t.Logf("%d of %d ends are shown without CPU times, and that is said", untimed, ends)
	}
}

// TestKernelExits compares the ends of processes with what wait4 says of them.
func TestKernelExits(t *testing.T) {
	livetest.Need(t)
	perform(t, exitScenes, []string{"--exit"}, func(a *livetest.Attempt, stages []*stage, all []row, res livetest.Result) {
		execs, ends := map[int]row{}, map[int][]row{}
		for _, r := range all {
			if r.Kind == "exec" {
				execs[r.PID] = r // the last
			} else {
				ends[r.PID] = append(ends[r.PID], r)
			}
		}
		processes, exact, untimed := 0, 0, 0
		for i, s := range stages {
			var off, sum time.Duration
			for j, pid := range s.order {
				if len(ends[pid]) != 1 {
					a.Errorf("%s: process %d ended %d times", exitScenes[i].name, pid, len(ends[pid]))
					continue
				}
				e := ends[pid][0]
				ws, usage := s.states[j].Sys().(syscall.WaitStatus), s.states[j].SysUsage().(*syscall.Rusage)
				got, want := endText(e), waitText(execs[pid], ws)
				if got != want {
					a.Errorf("%s\n got %s\nwant %s", exitScenes[i].name, got, want)
				}
				if d := time.Duration(e.DurationNs); d <= 0 || d > s.taken[j] {
					a.Errorf("%s: ran %v of %v", exitScenes[i].name, d, s.taken[j])
				}
				if name := exitScenes[i].name; (name == "sleeps" || name == "several" || name == "thread's exec") && time.Duration(e.DurationNs) < nap {
					a.Errorf("%s: ran for %v only", name, time.Duration(e.DurationNs))
				}
				if exitScenes[i].name == "core" && livetest.Guest() && !e.CoreDumped {
					a.Errorf("no core was dumped")
				}
				if want := usage.Maxrss * 1024; e.MaxRss != want {
					a.Errorf("%s: %d bytes at most, but rusage has %d", exitScenes[i].name, e.MaxRss, want)
				}
				processes++
				if e.UserNs == nil || e.SystemNs == nil {
					untimed++
					continue
				}
				if exitScenes[i].name == "subshell" {
					continue // rusage has the child's, too
				}
				user, system := time.Duration(*e.UserNs), time.Duration(*e.SystemNs)
				wantUser, wantSystem := used(s.states[j])
				// wait4 may return while the process takes its last steps in the kernel, but
				// never knows of more.
				more := user + system - wantUser - wantSystem
				if more < 0 {
					a.Errorf("%s: %v less CPU time than rusage has", exitScenes[i].name, -more)
				}
				if more <= 2*micro {
					exact++
				}
				off = max(off, (user - wantUser).Abs(), (system - wantSystem).Abs())
				sum += user + system
			}
			if off > tick {
				a.Errorf("%s: user or system time differs from rusage by %v", exitScenes[i].name, off)
			}
			if exitScenes[i].name == "busy" && sum < time.Duration(len(s.order))*time.Millisecond {
				a.Errorf("busy processes took %v in all", sum)
			}
			t.Logf("%s: CPU times differ from rusage by %v at most", exitScenes[i].name, off)
		}
		t.Logf("CPU times of %d of %d processes are those of rusage", exact, processes)
		checkUntimed(t, res, untimed, processes)
	})
}

func endText(e row) string {
	return fmt.Sprintf("id=%s ppid=%d uid=%d comm=%q parent=%q cgroup=%d status=%s signal=%s core=%t",
		number(e.ExecID), e.PPID, e.UID, e.Comm, e.ParentComm, e.CgroupID, number(e.ExitCode), number(e.Signal), e.CoreDumped)
}

// waitText is endText as the last exec and the status that wait4 gave have it.
func waitText(e row, ws syscall.WaitStatus) string {
	if ws.Signaled() {
		name := unix.SignalName(ws.Signal())
		if name == "" {
			name = fmt.Sprintf("signal %d", int(ws.Signal()))
		}
		e.Signal = &name
	} else {
		status := ws.ExitStatus()
		e.ExitCode = &status
	}
	e.CoreDumped = ws.CoreDump()
	return endText(e)
}

// TestKernelZombie has processes that nobody waits for until their ends are shown,
// with the CPU times that wait4 then gives.
func TestKernelZombie(t *testing.T) {
	livetest.Need(t)
	s := newStage(t)
	path := s.program("zombie", livetest.Exit(6))
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "--exit-only", "--json", "-n", "^zombie$")
		tool.Ready()
		s.order = nil
		var cmds []*exec.Cmd
		for range times {
			cmd := s.start(nil, []string{path})
			cmds, s.order = append(cmds, cmd), append(s.order, cmd.Process.Pid)
		}
		waitExits(tool, []*stage{s})
		states := map[int]*os.ProcessState{}
		for _, cmd := range cmds {
			_ = cmd.Wait() // its status is checked below
			states[cmd.Process.Pid] = cmd.ProcessState
		}
		res := tool.Stop().Over(t, 0)
		a.Lost(res)
		n := 0
		for _, r := range decode(t, res.Lines()) {
			if r.Kind != "exit" || number(r.ExitCode) != "6" || r.UserNs == nil || r.SystemNs == nil || r.MaxRss <= 0 || states[r.PID] == nil {
				t.Errorf("a zombie is shown as %+v", r)
				continue
			}
			user, system := used(states[r.PID])
			if time.Duration(*r.UserNs).Truncate(micro) != user || time.Duration(*r.SystemNs).Truncate(micro) != system {
				t.Errorf("a zombie took %d ns in user mode and %d ns in the kernel, but rusage has %v and %v", *r.UserNs, *r.SystemNs, user, system)
			}
			n++
		}
		if n != times {
			a.Errorf("%d of %d zombies", n, times)
		}
	})
}
