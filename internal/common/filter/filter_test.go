package filter

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/attach"
)

// object has the constants and maps of filter.bpf.h.
func object() *ebpf.CollectionSpec {
	spec := &ebpf.CollectionSpec{Variables: map[string]*ebpf.VariableSpec{}, Maps: map[string]*ebpf.MapSpec{
		pidsMap:      {Type: ebpf.Hash, KeySize: 4, ValueSize: 1},
		cgroupsMap:   {Type: ebpf.CGroupArray, KeySize: 4, ValueSize: 4},
		cgroupMapMap: {Type: ebpf.Hash, KeySize: 8, ValueSize: 8},
		mntnsMapMap:  {Type: ebpf.Hash, KeySize: 8, ValueSize: 4},
	}}
	for name, size := range map[string]int{
		"filter_self": 4, "pid_namespace_inode": 4, "filter_pids": 1, "filter_tid": 4, "filter_uid": 1, "filter_uid_value": 4,
		"filter_comm": 1, "filter_comm_text": commSize, "filter_comm_mask": commSize,
		"filter_cgroups": 4, "filter_cgroup_map": 1, "filter_mntns_map": 1,
	} {
		spec.Variables[name] = &ebpf.VariableSpec{Name: name, Value: make([]byte, size)}
	}
	return spec
}

// parse makes the filter that a tool's arguments ask for.
func parse(args ...string) (*Filter, error) {
	fs := pflag.NewFlagSet("tool", pflag.ContinueOnError)
	f := Flags(fs, "")
	f.PIDFlag("p")
	f.TIDFlag("t")
	f.UserFlag("u")
	f.CommFlag("n")
	return f, fs.Parse(args)
}

// constantsOf writes down those that are set by flags: "filter_pids=1 filter_tid=7".
func constantsOf(spec *ebpf.CollectionSpec) string {
	var list []string
	for name, v := range spec.Variables {
		if name == "filter_self" || name == "pid_namespace_inode" || bytes.Equal(v.Value, make([]byte, len(v.Value))) {
			continue
		}
		text := fmt.Sprintf("%x", v.Value)
		var n uint32
		switch {
		case len(v.Value) == 1:
			text = strconv.Itoa(int(v.Value[0]))
		case len(v.Value) == 4 && v.Get(&n) == nil:
			text = strconv.FormatUint(uint64(n), 10)
		}
		list = append(list, name+"="+text)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestApplySetsConstants(t *testing.T) {
	self, tid := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getpid())
	zeros := func(n int) string { return strings.Repeat("00", n) }
	for _, test := range []struct{ args, want string }{
		{"", ""},
		{"-p " + self, "filter_pids=1"},
		{"-p " + self + " --follow", "filter_pids=1"},
		{"-t " + tid, "filter_tid=" + tid},
		{"-u 0", "filter_uid=1"},
		{"-u 1000", "filter_uid=1 filter_uid_value=1000"},
		{"-u root", "filter_uid=1"},
		{"-u 4294967295", "filter_uid=1 filter_uid_value=4294967295"},
		{"-n cat", "filter_comm=1 filter_comm_mask=ffffff" + zeros(13) + " filter_comm_text=636174" + zeros(13)},
		{"-n é", "filter_comm=1 filter_comm_mask=ffff" + zeros(14) + " filter_comm_text=c3a9" + zeros(14)},
		{"-n abcdefghijklmno", "filter_comm=1 filter_comm_mask=" + strings.Repeat("ff", 15) + "00 filter_comm_text=6162636465666768696a6b6c6d6e6f00"},
	} {
		f, err := parse(strings.Fields(test.args)...)
		if err != nil {
			t.Fatal(err)
		}
		spec := object()
		replace, err := f.Apply(spec)
		if err != nil || len(replace) > 0 {
			t.Errorf("%s: replaces %v, %v", test.args, replace, err)
		}
		if got := constantsOf(spec); got != test.want {
			t.Errorf("%s sets\n     %s\nnot  %s", test.args, got, test.want)
		}
		var own uint32
		if err := spec.Variables["filter_self"].Get(&own); err != nil || own != uint32(os.Getpid()) {
			t.Errorf("%s: the tool itself is %d, %v", test.args, own, err)
		}
		f.Close()
	}
}

// Pids are those of the namespace that the tool, and so its user, is in.
func TestApplySetsThePIDNamespace(t *testing.T) {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	f, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	spec := object()
	if _, err := f.Apply(spec); err != nil {
		t.Fatal(err)
	}
	var got uint32
	if err := spec.Variables["pid_namespace_inode"].Get(&got); err != nil {
		t.Fatal(err)
	}
	want := link
	if link == "pid:[4026531836]" { // the first: the kernel side need not look
		want = "pid:[0]"
	}
	if have := fmt.Sprintf("pid:[%d]", got); have != want {
		t.Errorf("the constant is %s, and the namespace %s", have, link)
	}
}

// gone is the id of no process: above what a kernel can be told to give.
const gone = "2147483647"

func TestApplyNamesTheFlagAtFault(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--follow", "--follow needs a process to follow: -p PID, or -- COMMAND"},
		{"-p " + gone, "--pid: there is no process " + gone},
		{"-p 1," + gone, "--pid: there is no process " + gone},
		{"-t " + gone, "--tid: there is no thread " + gone},
		{"-u no-such-user", `--uid: there is no user "no-such-user"`},
		{"-u -1", `--uid: there is no user "-1"`},
		{"-u 4294967296", `--uid: there is no user "4294967296"`},
		{"--uid=", `--uid: there is no user ""`},
		{"--name=", "--name: an empty text"},
		{"-n abcdefghijklmnop", `--name: "abcdefghijklmnop" is longer than the 15 bytes`},
		{"--cgroup no/such/cgroup", "--cgroup: "},
		{"--cgroup /etc", "--cgroup: "},
		{"--cgroup 18446744073709551615", "--cgroup: "},
		{"--cgroupmap /no/such/map", "--cgroupmap: open the pinned map /no/such/map: "},
		{"--mntnsmap /no/such/map", "--mntnsmap: open the pinned map /no/such/map: "},
	} {
		f, err := parse(strings.Fields(test.args)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Apply(object()); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v", test.args, err)
		}
		f.Close()
	}
}

func TestFlagsRefuse(t *testing.T) {
	for _, args := range []string{
		"-p 0", "-p -1", "-p abc", "-p 1,", "-p ,1", "-p 1,,2", "-p=", "-p 1;2", "-p 2147483648", "-p 0x10", "-p 1.5",
		"-t 0", "-t -1", "-t abc", "-t 1,2", "-t 99999999999999999999",
	} {
		if f, err := parse(strings.Fields(args)...); err == nil {
			t.Errorf("%s gives %v and %d", args, f.PIDs, f.TID())
		} else if !strings.Contains(err.Error(), "is not a process or thread id") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestPIDLists(t *testing.T) {
	for args, want := range map[string][]uint32{
		"-p 1": {1}, "-p 1,2,3": {1, 2, 3}, "-p 1 -p 2 --pid 3,4": {1, 2, 3, 4}, "-p 2147483647": {1<<31 - 1}, "-p 007": {7},
	} {
		f, err := parse(strings.Fields(args)...)
		if err != nil || !slices.Equal(f.PIDs, want) {
			t.Errorf("%s: %v, %v", args, f.PIDs, err)
		}
	}
	if f, err := parse("-p", "1, 2"); err != nil || !slices.Equal(f.PIDs, []uint32{1, 2}) {
		t.Errorf("with a blank: %v, %v", f.PIDs, err)
	}
}

func TestApplyRefusesTooManyCgroups(t *testing.T) {
	var args []string
	for range maxCgroups + 1 {
		args = append(args, "--cgroup", "/sys")
	}
	f, err := parse(args...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Apply(object()); err == nil || !strings.HasPrefix(err.Error(), "--cgroup: ") || !strings.Contains(err.Error(), "64") {
		t.Errorf("got %v", err)
	}
}

func TestApplyNamesWhatTheObjectLacks(t *testing.T) {
	f, err := parse("-u", "0")
	if err != nil {
		t.Fatal(err)
	}
	spec := object()
	delete(spec.Variables, "filter_uid")
	if _, err := f.Apply(spec); err == nil || !strings.Contains(err.Error(), "lacks the variable filter_uid") {
		t.Errorf("got %v", err)
	}
	spec = object()
	spec.Variables["filter_uid_value"].Value = make([]byte, 2)
	if _, err := f.Apply(spec); err == nil || !strings.Contains(err.Error(), "set filter_uid_value") {
		t.Errorf("got %v", err)
	}
}

func TestLookupUserAgreesWithTheSystem(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := lookupUser(me.Username); err != nil || strconv.FormatUint(uint64(got), 10) != me.Uid {
		t.Errorf("%s has the number %d (%v), not %s", me.Username, got, err, me.Uid)
	}
}

// The hook that watches the picked processes is the same in every mode, and can't
// be done without; what they start is only of interest with --follow, and a tool
// may see to their ends itself.
func TestHooks(t *testing.T) {
	for _, test := range []struct {
		args  string
		exits bool
		want  string
	}{
		{"-p 1", false, "follow_exit"},
		{"-p 1 --follow", false, "follow_exit follow_fork"},
		{"-p 1", true, ""},
		{"-p 1 --follow", true, "follow_fork"},
		{"", false, ""},
	} {
		f, err := parse(strings.Fields(test.args)...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range f.Hooks(test.exits) {
			if h.Optional || len(h.Choices) != 1 || h.Choices[0].Mode != attach.Auto || !slices.Equal(h.Choices[0].Needs, h.Choices[0].Programs) {
				t.Errorf("%s: %+v", test.args, h)
			}
			got = append(got, h.Choices[0].Programs...)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %s, not %s", test.args, got, test.want)
		}
	}
}

// otherThread starts a thread beside the one that runs the tests, and gives its
// id; it ends with the test.
func otherThread(t *testing.T) int {
	t.Helper()
	ids, done, ended := make(chan int), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		ids <- unix.Gettid()
		<-done
	}()
	t.Cleanup(func() { close(done); <-ended })
	return <-ids
}

// /proc has directories for threads too, though it doesn't list them: -p of one
// would show nothing at all.
func TestThreadsAreNoProcesses(t *testing.T) {
	tid := otherThread(t)
	if tid == os.Getpid() { // the process's first thread: take one more
		tid = otherThread(t)
	}
	f, err := parse("-p", strconv.Itoa(tid))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("--pid: %d is a thread of process %d, not a process", tid, os.Getpid())
	if _, err := f.Apply(object()); err == nil || err.Error() != want {
		t.Errorf("%v, not %s", err, want)
	}
	if f, err = parse("-t", strconv.Itoa(tid)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Apply(object()); err != nil {
		t.Error(err)
	}
}

func TestProcessOf(t *testing.T) {
	for tid, want := range map[uint32]uint32{
		uint32(os.Getpid()): uint32(os.Getpid()), uint32(otherThread(t)): uint32(os.Getpid()), 1<<31 - 1: 0,
	} {
		if got := processOf(tid); got != want {
			t.Errorf("thread %d belongs to process %d, not %d", tid, got, want)
		}
	}
}

// A thread that was picked ends the run with its own end; without a pick nothing
// does. Processes need the map, and so a kernel.
func TestEnded(t *testing.T) {
	for args, want := range map[string]bool{"": false, "-n cat": false, "-t " + strconv.Itoa(os.Getpid()): false, "-t " + gone: true} {
		f, err := parse(strings.Fields(args)...)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Ended(nil); err != nil || got != want {
			t.Errorf("%s: ended %v, %v", args, got, err)
		}
	}
}

// Which filters look at tasks, and at nothing but their cgroups.
func TestPicksTasks(t *testing.T) {
	root, err := cgroupRoot()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		args   string
		picks  bool
		cgroup bool
	}{
		{"", false, false},
		{"-p " + self, true, false},
		{"-t " + self, true, false},
		{"-u 0", true, false},
		{"-n x", true, false},
		{"--cgroup " + root, true, true},
		{"--cgroup " + root + " -u 0", true, false},
	} {
		f, err := parse(strings.Fields(test.args)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Apply(object()); err != nil {
			t.Fatal(err)
		}
		ids, err := f.OnlyCgroups()
		f.Close()
		if picks := f.PicksTasks(); picks != test.picks || err != nil || test.cgroup != slices.Equal(ids, []uint64{st.Ino}) || !test.cgroup && len(ids) > 0 {
			t.Errorf("%q picks tasks: %v, and the cgroups %d, %v", test.args, picks, ids, err)
		}
	}
}
