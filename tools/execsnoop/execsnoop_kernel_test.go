package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// This file has what the kernel tests share: the rows of execsnoop --json, and
// stages, on which programs are run whose rows are known.

func TestMain(m *testing.M) { livetest.Main(m, main) }

// times is how often a test does each thing: a prime, as in BCC's own tests.
const times = 23

// eachMode runs a test in every attach mode that this kernel has. They differ only
// with -x.
func eachMode(t *testing.T, test func(t *testing.T, mode string)) {
	t.Helper()
	livetest.EachMode(t, test, "-x")
}

// eachModeInTurn is the same for what the modes have in common.
func eachModeInTurn(t *testing.T, test func(t *testing.T, mode string)) {
	t.Helper()
	livetest.EachModeInTurn(t, test, "-x")
}

// row is an object that execsnoop --json writes.
type row struct {
	Kind            string
	Time            time.Time
	PID             int
	TID             int
	PPID            int
	UID             int
	Comm            string
	CommBytes       []byte  `json:"comm_bytes"`
	CgroupID        uint64  `json:"cgroup_id"`
	ParentComm      string  `json:"parent_comm"`
	ParentCommBytes []byte  `json:"parent_comm_bytes"`
	ExecID          *string `json:"exec_id"`

	Filename       *string
	FilenameBytes  []byte `json:"filename_bytes"`
	FilenameCut    bool   `json:"filename_cut"`
	Interpreter    *string
	Exe            *string
	ExeBytes       []byte `json:"exe_bytes"`
	Args           []string
	ArgsBytes      [][]byte `json:"args_bytes"`
	ArgsMissing    int      `json:"args_missing"`
	BytesMissing   int      `json:"args_bytes_missing"`
	ArgsUnreadable bool     `json:"args_unreadable"`
	Cwd            *string
	CwdBytes       []byte `json:"cwd_bytes"`
	Ret            int
	Error          *string
	CPU            int
	TTY            *string
	Loginuid       *uint32
	Sessionid      *uint32
	Ancestors      []ancestor
	Env            []string

	// Of the kind exit.
	ExitCode   *int `json:"exit_code"`
	Signal     *string
	CoreDumped bool   `json:"core_dumped"`
	DurationNs int64  `json:"duration_ns"`
	UserNs     *int64 `json:"user_ns"`
	SystemNs   *int64 `json:"system_ns"`
	MaxRss     int64  `json:"max_rss_bytes"`

	// Of the kind lost.
	Lost         uint64
	PossiblyLost uint64 `json:"possibly_lost"`
	Causes       map[string]uint64
}

type ancestor struct {
	PID  int
	Comm string
}

// decode gives the rows that a tool wrote with --json, without those on losses.
func decode(t *testing.T, lines []string) (list []row) {
	t.Helper()
	for _, r := range livetest.Decode[row](t, lines) {
		if r.Kind != "lost" {
			list = append(list, r)
		}
	}
	return list
}

const null = livetest.Null

func (r *row) filename() string { return livetest.Exact(r.Filename, r.FilenameBytes) }

func (r *row) args() []string {
	args := slices.Clone(r.Args)
	for i, b := range r.ArgsBytes {
		if b != nil {
			args[i] = string(b)
		}
	}
	return args
}

func number[T any](p *T) string {
	if p == nil {
		return null
	}
	return fmt.Sprint(*p)
}

// all says in one text what the keys of an exec hold, but for the time, the CPU
// and the id.
func (r *row) all() string {
	return fmt.Sprintf("pid=%d tid=%d ppid=%d uid=%d comm=%q cgroup=%d parent=%q file=%s cut=%t interp=%q exe=%q args=%s missing=%d,%d unreadable=%t cwd=%q ret=%d error=%s tty=%s loginuid=%s sessionid=%s ancestors=%v env=%q",
		r.PID, r.TID, r.PPID, r.UID, livetest.Exact(&r.Comm, r.CommBytes), r.CgroupID, livetest.Exact(&r.ParentComm, r.ParentCommBytes), summarize([]string{r.filename()}), r.FilenameCut,
		livetest.Exact(r.Interpreter, nil), livetest.Exact(r.Exe, r.ExeBytes), summarize(r.args()), r.ArgsMissing, r.BytesMissing, r.ArgsUnreadable,
		livetest.Exact(r.Cwd, r.CwdBytes), r.Ret, number(r.Error), number(r.TTY), number(r.Loginuid), number(r.Sessionid), r.Ancestors, r.Env)
}

// summarize writes arguments so that a failed test can be read.
func summarize(args []string) string {
	text := fmt.Sprintf("%q", args)
	if len(text) > 2000 {
		return fmt.Sprintf("%s...%s (%d arguments, hash %x)", text[:200], text[len(text)-200:], len(args), hash(text))
	}
	return text
}

func hash(s string) (h uint64) {
	for i := range len(s) {
		h = h*1099511628211 + uint64(s[i]) + 1
	}
	return h
}

// self is what the processes that this one starts have in common.
var self = sync.OnceValue(func() row {
	read := func(name string) *uint32 {
		text, err := os.ReadFile("/proc/self/" + name)
		n, err2 := strconv.ParseUint(string(text), 10, 32)
		if err != nil || err2 != nil || n == unset {
			return nil
		}
		u := uint32(n)
		return &u
	}
	r := row{PPID: os.Getpid(), Loginuid: read("loginuid"), Sessionid: read("sessionid")}
	for pid := os.Getpid(); pid > 0; {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			panic(err)
		}
		a := ancestor{PID: pid}
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch key {
			case "Name":
				a.Comm = value
			case "PPid":
				pid, _ = strconv.Atoi(value)
			}
		}
		r.Ancestors = append(r.Ancestors, a)
	}
	r.ParentComm = r.Ancestors[0].Comm
	return r
})

// commOf is how the kernel names a process that runs this file.
func commOf(path string) string {
	name := filepath.Base(path)
	return name[:min(len(name), 15)]
}

// ran is the row of a program that this process starts from dir.
func ran(dir, path string, args ...string) row {
	r := self()
	r.Kind, r.Comm, r.Filename, r.Exe, r.Cwd, r.Args = "exec", commOf(path), &path, &path, &dir, args
	return r
}

// failed makes a row that of an exec which failed, by the same program.
func (r row) failed(path string, errno unix.Errno, args ...string) row {
	name := unix.ErrnoName(errno)
	r.Filename, r.Exe, r.Interpreter, r.Args, r.Ret, r.Error = &path, nil, nil, args, -int(errno), &name
	return r
}

// child makes a row that of a child of a process which r is the last exec of.
func (r row) child(pid int, path string, args ...string) row {
	c := ran(*r.Cwd, path, args...)
	c.PID, c.TID, c.PPID, c.ParentComm, c.CgroupID = pid, pid, r.PID, r.Comm, r.CgroupID
	c.Ancestors = append([]ancestor{{r.PID, r.Comm}}, r.Ancestors...)
	return c
}

// A stage is where a scene plays.
type stage struct {
	t       *testing.T
	dir     string // of its own
	want    map[int][]row
	order   []int      // of processes
	opened  []*os.File // for the program to be started
	skipped string
	states  []*os.ProcessState
	taken   []time.Duration                     // by each process, at most
	more    func(all []row) (problems []string) // what is to be checked besides
}

// program makes a program with these steps and gives its path.
func (s *stage) program(name string, steps ...livetest.Step) string {
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	livetest.CallProgram(s.t, path, steps...)
	return path
}

// open opens a file for a program that is started next.
func (s *stage) open(path string) *os.File {
	s.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.opened = append(s.opened, f)
	return f
}

// needInt80 ends a scene for want of 32-bit calls.
func (s *stage) needInt80() {
	if !livetest.HasInt80() {
		s.skipped = "SKIPPED: no 32-bit execs on this machine"
		runtime.Goexit()
	}
}

// file makes a file and gives its path.
func (s *stage) file(name, text string, mode os.FileMode) string {
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// run runs a program to its end, which must be that exit status (or 128 and the
// signal), and expects these rows of its process. Its number is put into them, and
// what all children of this process have in common stands in ran.
func (s *stage) run(status int, change func(*exec.Cmd), argv []string, want ...row) {
	s.t.Helper()
	begin := time.Now()
	cmd := s.start(change, argv)
	s.end(status, cmd, begin, want...)
}

func (s *stage) start(change func(*exec.Cmd), argv []string) *exec.Cmd {
	s.t.Helper()
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Env: []string{"GOBCC_A=1"}, Dir: s.dir, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if change != nil {
		change(cmd)
	}
	err := cmd.Start()
	for _, f := range s.opened {
		f.Close()
	}
	s.opened = nil
	if err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

func (s *stage) end(status int, cmd *exec.Cmd, begin time.Time, want ...row) {
	s.t.Helper()
	_ = cmd.Wait() // its error is the status
	s.taken = append(s.taken, time.Since(begin))
	s.states = append(s.states, cmd.ProcessState)
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Exited() && ws.ExitStatus() != status || ws.Signaled() && 128+int(ws.Signal()) != status {
		s.t.Fatalf("%s ended with %v, not %d", cmd.Path, cmd.ProcessState, status)
	}
	s.expect(cmd.Process.Pid, want...)
}

// expect expects rows of a process, with its number where there is none.
func (s *stage) expect(pid int, want ...row) {
	if s.want[pid] == nil {
		s.order = append(s.order, pid)
	}
	for _, r := range want {
		r.PID = pid
		r.TID = cmp.Or(r.TID, pid)
		s.want[pid] = append(s.want[pid], r)
	}
}

// check says what is wrong with the rows of the execs of a stage's processes. A row
// that is expected with tid -1 has that of a thread other than the first.
func (s *stage) check(all []row) (problems []string) {
	if s.skipped != "" {
		return nil
	}
	got := map[int][]row{}
	for _, r := range all {
		if r.Kind == "exec" && s.want[r.PID] != nil {
			got[r.PID] = append(got[r.PID], r)
		}
	}
	n := 0
	cgroup := livetest.OwnCgroup(s.t).ID
	for _, pid := range s.order {
		want, got := s.want[pid], got[pid]
		for i := range want {
			want[i].CgroupID = cmp.Or(want[i].CgroupID, cgroup)
		}
		for i := range max(len(want), len(got)) {
			w, g := "nothing", "nothing"
			if i < len(got) {
				r := got[i]
				if i < len(want) && want[i].TID == -1 && r.TID != pid {
					r.TID = -1
				}
				g = r.all()
			}
			if i < len(want) {
				w = want[i].all()
			}
			if w != g {
				problems = append(problems, fmt.Sprintf("exec %d of %d, where %d were expected:\n got %s\nwant %s", i, len(got), len(want), g, w))
				break
			}
			n++
		}
	}
	if n == 0 && len(problems) == 0 {
		problems = append(problems, "nothing was run")
	}
	if s.more != nil && len(problems) == 0 {
		problems = append(problems, s.more(all)...)
	}
	return problems
}

// A scene is something that programs do.
type scene struct {
	name string
	play func(s *stage)
}

// perform plays scenes for a tool with these arguments and gives to check all rows
// and the stages, in which to look for more than their execs.
func perform(t *testing.T, scenes []scene, args []string, check func(a *livetest.Attempt, stages []*stage, all []row, res livetest.Result)) {
	t.Helper()
	problems, skips := map[string][]string{}, map[string]string{}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		clear(problems)
		tool := livetest.Start(t, append(args, "--json", "--ancestors")...)
		tool.Ready()
		begin := time.Now()
		var stages []*stage
		for _, scene := range scenes {
			s := newStage(t)
			stages = append(stages, s)
			done := make(chan struct{})
			go func() { // which a scene may end
				defer close(done)
				scene.play(s)
			}()
			<-done
			skips[scene.name] = s.skipped
			if t.Failed() {
				t.FailNow()
			}
		}
		end := time.Now()
		if slices.Contains(args, "--exit") {
			waitExits(tool, stages)
		}
		res := tool.Stop().Over(t, 0)
		a.Lost(res)
		all := decode(t, res.Lines())
		ids := map[string]bool{}
		for i, s := range stages {
			problems[scenes[i].name] = s.check(all)
			if len(problems[scenes[i].name]) > 0 {
				a.Errorf("%s", scenes[i].name)
			}
			for _, r := range all {
				if s.want[r.PID] == nil || r.Kind != "exec" {
					continue
				}
				// Two clocks are compared here, which may be adjusted against each other.
				if slack := 20 * time.Millisecond; r.Time.Before(begin.Add(-slack)) || r.Time.After(end.Add(slack)) {
					a.Errorf("an exec at %v, not between %v and %v", r.Time, begin, end)
				}
				if r.Ret < 0 != (r.ExecID == nil) || r.ExecID != nil && ids[*r.ExecID] {
					a.Errorf("the id %s of an exec that returned %d", number(r.ExecID), r.Ret)
				}
				ids[number(r.ExecID)] = true
			}
		}
		if check != nil {
			check(a, stages, all, res)
		}
	})
	for _, scene := range scenes {
		t.Run(scene.name, func(t *testing.T) {
			for i, text := range problems[scene.name] {
				if i == 3 {
					t.Fatalf("and %d more", len(problems[scene.name])-i)
				}
				t.Error(text)
			}
			if text := skips[scene.name]; text != "" {
				t.Skip(text)
			}
		})
	}
}

// waitExits waits until all processes of the stages have been shown to end, or the
// tool says that it lost something.
func waitExits(tool *livetest.Tool, stages []*stage) {
	wanted := map[string]bool{}
	for _, s := range stages {
		for _, pid := range s.order {
			wanted[fmt.Sprint(pid)] = true
		}
	}
	tool.WaitLine(func(line string) bool {
		if _, rest, ok := strings.Cut(line, `"kind":"exit","pid":`); ok {
			pid, _, _ := strings.Cut(rest, ",")
			delete(wanted, pid)
		}
		return len(wanted) == 0 || strings.Contains(line, `"kind":"lost"`)
	})
}

func newStage(t *testing.T) *stage {
	dir := t.TempDir()
	livetest.OpenToAll(t, dir)
	return &stage{t: t, dir: dir, want: map[int][]row{}}
}

// TestKernelEverything loads all that the kernel side has, in each mode.
func TestKernelEverything(t *testing.T) {
	everything := []string{"-x", "--exe", "--cwd", "--tty", "--loginuid", "--env", "HOME", "--ancestors", "--exit", "--max-bytes", "8M"}
	eachModeInTurn(t, func(t *testing.T, mode string) {
		path := newStage(t).program("everything", livetest.Exit(3))
		runs := [][]string{{"--json", "-u", "0", "-P", "1"}}
		if !livetest.Guest() {
			runs = append(runs, []string{"-TtUCMq", "--tree"})
		}
		for _, more := range runs {
			args := append(append([]string{"--attach", mode}, more...), everything...)
			livetest.Run(t, append(args, "--", path)...).Over(t, 3)
		}
	})
}
