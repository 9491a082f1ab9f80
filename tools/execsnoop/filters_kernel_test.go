package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// In the tests of filters three actors run the same kinds of programs, each in a
// directory of its own: this process, a child of user nobody, and one of root's. A
// filter must show all rows of some of these programs, and no others.

var kinds = []string{"plain", "other", "missing"}

// act is what an actor does. It gives what went wrong.
func act(dir, actor string) string {
	for _, kind := range kinds {
		path := filepath.Join(dir, actor, kind)
		for range times {
			out, err := exec.Command(path, "-o", "an argument of "+actor).CombinedOutput()
			if err != nil != (kind == "missing") {
				return fmt.Sprintf("%s runs %s: %v: %s", actor, kind, err, out)
			}
		}
	}
	return ""
}

var actorRole = livetest.Role("actor", func(args []string) string { return act(args[0], args[1]) })

// A filterTest is a tool with filters, and what it is to show: of actor and kind,
// and whether those are the ends.
type filterTest struct {
	name string
	args []string
	want func(actor, kind string) bool
}

// setting is what the filters are given.
type setting struct {
	*stage
	pins         string // of BPF maps
	nobody, root *livetest.ChildProcess
	above, below *livetest.CgroupDir // nobody's is below
	beside       *livetest.CgroupDir // root's
}

// newSetting makes it. It must be called within a mount namespace.
func newSetting(t *testing.T) *setting {
	s := &setting{stage: newStage(t), pins: "/sys/fs/bpf", above: livetest.Cgroup(t), beside: livetest.Cgroup(t)}
	s.below = s.above.Sub("below")
	for _, actor := range []string{"self", "nobody", "root"} {
		for _, kind := range kinds {
			if kind != "missing" {
				leaf(s.stage, filepath.Join(actor, kind))
			}
		}
	}
	child := func(actor string, cgroup *livetest.CgroupDir, attr *syscall.SysProcAttr) *livetest.ChildProcess {
		c := livetest.ChildWith(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = attr }, actorRole, s.dir, actor)
		cgroup.Enter(c.Pid())
		return c
	}
	s.nobody = child("nobody", s.below, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	s.root = child("root", s.beside, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	s.pins = livetest.PinDir(t, s.pins)
	return s
}

// pin pins a map of one key, as BCC's documentation has these maps made, and gives
// its path.
func (s *setting) pin(name string, valueSize uint32, key uint64) string {
	path := filepath.Join(s.pins, name)
	livetest.PinMap(s.t, path, ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: valueSize, MaxEntries: 1024}, key)
	return path
}

func (s *setting) play() {
	text := act(s.dir, "self")
	text += s.nobody.Do() + s.root.Do()
	if text != "" {
		s.t.Fatal(text)
	}
}

// run starts the tools, a few at a time, has the programs run, and checks what each
// tool showed.
func (s *setting) run(t *testing.T, tests []filterTest) {
	t.Helper()
	for some := range slices.Chunk(tests, 8) {
		problems := map[string]string{}
		livetest.Attempts(t, func(a *livetest.Attempt) {
			clear(problems)
			tools := make([]*livetest.Tool, len(some))
			for i, test := range some {
				tools[i] = livetest.Start(t, append([]string{"--json", "-b", "256"}, test.args...)...)
			}
			for _, tool := range tools {
				tool.Ready()
			}
			s.play()
			for _, tool := range tools {
				tool.Signal(os.Interrupt)
			}
			for i, tool := range tools {
				res := tool.Wait().Over(t, 0)
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
	got, want := map[string]int{}, map[string]int{}
	all := decode(s.t, res.Lines())
	paths := map[string]string{} // by exec_id
	for _, r := range all {
		path, ok := strings.CutPrefix(r.filename(), s.dir+"/")
		switch {
		case r.Kind == "exec" && ok:
			paths[number(r.ExecID)] = path
			got[path]++
		case r.Kind == "exit" && paths[number(r.ExecID)] != "":
			got["end of "+paths[number(r.ExecID)]]++
		case r.Kind == "exit" && slices.Contains(test.args, "--exit-only") && slices.Contains(kinds, r.Comm):
			got["end of "+r.Comm]++
		}
	}
	for _, actor := range []string{"self", "nobody", "root"} {
		for _, kind := range kinds {
			if !test.want(actor, kind) || kind == "missing" && !slices.Contains(test.args, "-x") {
				continue
			}
			if !slices.Contains(test.args, "--exit-only") {
				want[actor+"/"+kind] = times
			} else {
				want["end of "+kind] += times
			}
			if slices.Contains(test.args, "--exit") && kind != "missing" {
				want["end of "+actor+"/"+kind] = times
			}
		}
	}
	if !maps.Equal(got, want) {
		return fmt.Sprintf("execsnoop %s\n got %v\nwant %v\n%s", strings.Join(test.args, " "), got, want, res.Stderr)
	}
	return ""
}

func only(actors ...string) func(actor, kind string) bool {
	return func(actor, _ string) bool { return slices.Contains(actors, actor) }
}

func onlyKinds(kinds ...string) func(actor, kind string) bool {
	return func(_, kind string) bool { return slices.Contains(kinds, kind) }
}

// tests are of each filter, for rows that it lets through and others that it does
// not. What several name is for the guests too.
func (s *setting) tests() []filterTest {
	self, nobody, root := fmt.Sprint(os.Getpid()), fmt.Sprint(s.nobody.Pid()), fmt.Sprint(s.root.Pid())
	args := func(a ...string) []string { return a }
	// Only programs that ran, of one actor, by what failed ones have not: their comm.
	plain := func(actor, kind string) bool { return kind == "plain" }
	return []filterTest{
		{"none", nil, only("self", "nobody", "root")},
		{"failed too", args("-x"), only("self", "nobody", "root")},
		{"parent", args("-x", "-P", nobody), only("nobody")},
		{"parent and ends", args("-x", "--exit", "--ppid", self), only("self")},
		{"no such parent", args("-x", "-P", "2147483647"), only()},
		{"user by name", args("-x", "-u", "nobody"), only("nobody")},
		{"user by number", args("-u", "65534", "--exit"), only("nobody")},
		{"root by number", args("-u", "0"), only("self", "root")},
		{"root by name", args("-x", "--uid", "root"), only("self", "root")},
		{"name", args("-n", "^pla.n$"), plain},
		{"name, and ends", args("-n", "^plain$", "--exit"), plain},
		{"name of the caller", args("-n", "no-such-name", "-x"), only()},
		{"part of a name", args("--name", "the", "--exit"), onlyKinds("other")},
		{"line", args("-x", "-l", "/plain -o an argument of [sn]"), func(a, k string) bool { return k == "plain" && a != "root" }},
		{"line, and ends", args("-x", "--exit", "--line", "of root$"), only("root")},
		{"no line", args("-l", "^-o"), only()},
		{"process without its children", args("-x", "--pid", nobody), only()},
		{"process and its children", args("-x", "--exit", "--pid", nobody, "--follow"), only("nobody")},
		{"processes", args("-x", "--pid", nobody+","+root, "--follow"), only("nobody", "root")},
		{"cgroup and what is below", args("-x", "--cgroup", s.above.Path), only("nobody")},
		{"cgroup by id", args("-x", "--exit", "--cgroup", fmt.Sprint(s.beside.ID)), only("root")},
		{"cgroups", args("--cgroup", fmt.Sprint(s.below.ID), "--cgroup", s.beside.Path), only("nobody", "root")},
		{"cgroupmap", args("-x", "--cgroupmap", s.pin("cgroup", 8, s.below.ID)), only("nobody")},
		{"cgroupmap has no descendants", args("--cgroupmap", s.pin("above", 8, s.above.ID)), only()},
		{"mntnsmap", args("-x", "--mntnsmap", s.pin("mntns", 4, livetest.MountNamespace(s.t, s.root.Pid()))), only("root")},
		{"mntnsmap of the others", args("--exit", "--mntnsmap", s.pin("mntns2", 4, livetest.MountNamespace(s.t, s.nobody.Pid()))), only("self", "nobody")},
		{"ends", args("--exit-only", "--cgroup", s.above.Path), only("nobody")},
		{"ends by name", args("--exit-only", "--cgroup", s.above.Path, "-n", "other"),
			func(a, k string) bool { return a == "nobody" && k == "other" }},
		{"all at once", args("-x", "--exit", "--pid", nobody, "--follow", "-P", nobody, "-u", "nobody", "--cgroup", s.above.Path,
			"--cgroupmap", filepath.Join(s.pins, "cgroup"), "--mntnsmap", filepath.Join(s.pins, "mntns2"), "-l", "other|missing"),
			func(a, k string) bool { return a == "nobody" && k != "plain" }},
		{"all but one", args("-x", "-P", nobody, "-u", "root", "--cgroup", s.above.Path), only()},
	}
}

func TestKernelFilters(t *testing.T) {
	livetest.NeedOnce(t)
	livetest.Namespace(t, func() {
		s := newSetting(t)
		tests := s.tests()
		if livetest.Guest() { // where all takes long, a few that have all filters between them
			tests = slices.DeleteFunc(tests, func(test filterTest) bool {
				return !slices.Contains([]string{"parent and ends", "process and its children", "all at once", "ends by name"}, test.name)
			})
		}
		s.run(t, tests)
	})
}
