package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

func TestMain(m *testing.M) { livetest.Main(m, main) }

// faults is how many samples the tests cause that count them.
const faults = 23

// faulter maps memory and touches each page of it, which causes a page fault each, on a
// CPU if one is given: page faults can be counted, as time can't. Its arguments are the
// number of pages and the CPU, or -1. The answer is how many faults there were besides: the
// kernel takes a page away again here and there, so that it faults twice.
var faulter = livetest.Role("faulter", func(args []string) string {
	pages, _ := strconv.Atoi(args[0])
	cpu, _ := strconv.Atoi(args[1])
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err.Error()
		}
	}
	more, err := touchNewPages(pages)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(more)
})

// touchNewPages causes a page fault for each of that many pages, and tells how many faults
// there were besides.
func touchNewPages(pages int) (more uint64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	size := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, pages*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, err
	}
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		return 0, err
	}
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return 0, err
	}
	touch(mem, size)
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		return 0, err
	}
	return uint64(after.Minflt - before.Minflt - int64(pages)), unix.Munmap(mem)
}

// besides reads the answer of a faulter.
func besides(t testing.TB, answer string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(answer, 10, 32)
	if err != nil {
		t.Fatalf("a faulter answered %q", answer)
	}
	return n
}

// The code of touch may be in a page that nothing has run in yet, which is a fault too: it
// is to be one that no test counts.
func init() { touch(make([]byte, 1), 1) }

//go:noinline
func touch(mem []byte, size int) {
	for i := 0; i < len(mem); i += size {
		mem[i] = 1
	}
}

// thread does something on a thread with a number that it can be told by.
type thread struct {
	do  chan int
	tid int
}

func newThread() *thread {
	t := &thread{do: make(chan int)}
	ready := make(chan int)
	go func() {
		runtime.LockOSThread()
		ready <- unix.Gettid()
		for pages := range t.do {
			_, _ = touchNewPages(pages)
			ready <- 0
		}
	}()
	t.tid = <-ready
	go func() {
		for range ready {
		}
	}()
	return t
}

var threads []*thread

// threaded has two threads: its first request is answered by their numbers, and each
// later one has the first touch so many pages, and the second one more.
var threaded = livetest.Role("threaded", func(args []string) string {
	if threads == nil {
		threads = []*thread{newThread(), newThread()}
		return fmt.Sprintf("%d %d", threads[0].tid, threads[1].tid)
	}
	pages, _ := strconv.Atoi(args[0])
	for i, t := range threads {
		t.do <- pages + i
		t.do <- 1 // taken when the one before is done
	}
	return ""
})

// object is one of those that --json writes.
type object struct {
	Kind         string
	Count        uint64
	PID, TID     int
	Comm         string
	Exe          string
	KernelThread bool `json:"kernel_thread"`
	Unwind       string
	Kernel       []jsonFunction `json:"kernel_stack"`
	User         []jsonFunction `json:"user_stack"`

	Taken, Shown, Idle, Filtered, Lost uint64
	PossiblyLost                       uint64 `json:"possibly_lost"`
	Throttled                          uint64
	CPUs                               int
	Event, Unit                        string
	Period                             uint64
}

type jsonFunction struct{ Function, Type, File string }

func has(list []jsonFunction, name string) bool {
	return slices.ContainsFunc(list, func(f jsonFunction) bool { return strings.Contains(f.Function, name) })
}

// objects reads what --json wrote, and checks that all samples are accounted for.
func objects(t *testing.T, r livetest.Result) (stacks []object, run object) {
	t.Helper()
	if r.Status != 0 {
		t.Fatalf("status %d: %s", r.Status, r.Stderr)
	}
	for _, line := range r.Lines() {
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch o.Kind {
		case "stack":
			stacks = append(stacks, o)
		case "run":
			run = o
		}
	}
	var sum uint64
	for _, s := range stacks {
		sum += s.Count
	}
	if run.Kind == "" || run.Taken == 0 || sum != run.Shown || run.Shown+run.Idle+run.Filtered+run.Lost != run.Taken {
		t.Errorf("%d samples in the stacks, and in all %+v", sum, run)
	}
	return stacks, run
}

// count adds up the samples of the stacks that match.
func count(stacks []object, match func(object) bool) (n uint64) {
	for _, s := range stacks {
		if match(s) {
			n += s.Count
		}
	}
	return n
}

func touching(s object) bool {
	return has(s.User, ".touchNewPages") &&
		slices.ContainsFunc(s.User, func(f jsonFunction) bool { return strings.HasSuffix(f.Function, ".touch") })
}

// slower gives a tenth of n where the machine is that much slower.
func slower(n int) int {
	if livetest.Guest() {
		return n / 10
	}
	return n
}

// eachFault has the tool take a sample for each page fault.
func eachFault(args ...string) []string {
	return append([]string{"--json", "-e", "page-faults", "-c", "1"}, args...)
}

func TestKernelCounts(t *testing.T) {
	livetest.Need(t)
	wanted, other := livetest.Child(t, faulter), livetest.Child(t, faulter)
	tool := livetest.Start(t, eachFault("-p", fmt.Sprint(wanted.Pid()))...)
	tool.Ready()
	more := besides(t, wanted.Do(fmt.Sprint(faults), "-1"))
	other.Do(fmt.Sprint(faults), "-1")
	stacks, run := objects(t, tool.Stop())
	if n := count(stacks, touching); n < faults || n > faults+more {
		t.Errorf("%d samples of %d", n, faults)
	}
	for _, s := range stacks {
		if s.PID != wanted.Pid() {
			t.Errorf("a stack of process %d: %+v", s.PID, s)
		}
		if touching(s) && (s.Unwind != "complete" || s.User[0].Type != "user" || s.User[0].File == "" || s.Exe == "") {
			t.Errorf("%+v", s)
		}
	}
	if run.Filtered < faults || run.Event != "page-faults" {
		t.Errorf("%+v", run)
	}
}

// A hardware event works where there is one. Elsewhere it is said that there is none, before
// anything is sampled, and --preflight says it too.
func TestKernelHardwareEvent(t *testing.T) {
	livetest.NeedOnce(t)
	tried := livetest.Run(t, "--preflight", "-e", "cycles")
	r := livetest.Run(t, "--json", "-e", "cycles", "-c", "100000000", "0.1")
	if r.Status != tried.Status {
		t.Errorf("status %d, and %d of --preflight: %s%s", r.Status, tried.Status, r.Stderr, tried.Stderr)
	}
	switch r.Status {
	case 0:
		_, run := objects(t, r)
		if run.Event != "cycles" || run.Unit != "count" || run.Period != 100000000 {
			t.Errorf("%+v", run)
		}
	case 3:
		t.Log("this machine has no cycles to sample by")
		for _, text := range []string{r.Stderr, tried.Stderr} {
			if !strings.Contains(text, "open the perf event cycles: this machine has no such perf event") || !strings.Contains(text, "such as cpu-clock") {
				t.Errorf("it said %q", text)
			}
		}
		if r.Stdout != "" {
			t.Errorf("it wrote %q", r.Stdout)
		}
	default:
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
}

// The kernel tells with each sample how many events it stands for, also with those that are
// sent in short. At a frequency that changes all the time.
func TestKernelPeriods(t *testing.T) {
	livetest.NeedOnce(t)
	const period = 7
	child := livetest.Child(t, faulter)
	for _, rate := range []string{"-c7", "-F499"} {
		path := filepath.Join(t.TempDir(), "raw")
		tool := livetest.Start(t, "-e", "page-faults", rate, "--save-raw", path, "-p", fmt.Sprint(child.Pid()))
		tool.Ready()
		child.Do(fmt.Sprint(100*period), "-1")
		child.Do(fmt.Sprint(100*period), "-1")
		tool.Stop().Over(t, 0)
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		r, err := readRecording(file, true)
		if err != nil {
			t.Fatal(err)
		}
		var events, sum uint64
		for _, m := range r.Moments {
			events += m.Period
			if fixed := rate == "-c7"; fixed && m.Period != period || !fixed && (m.Period == 0 || m.Period > 1<<40) {
				t.Fatalf("%s: a sample stands for %d", rate, m.Period)
			}
		}
		for _, s := range r.Stacks {
			sum += s.Events
		}
		t.Logf("%s: %d samples of %d faults", rate, len(r.Moments), events)
		// With a period, about one in seven of 1400. At a frequency there may be none at all.
		if rate == "-c7" && len(r.Moments) < 23 || sum != events {
			t.Errorf("%s: %d samples stand for %d faults, and their stacks for %d", rate, len(r.Moments), events, sum)
		}
	}
}

// Samples that are alike are sent in short, which makes them no fewer.
func TestKernelRepeats(t *testing.T) {
	livetest.NeedOnce(t)
	child := livetest.Child(t, faulter)
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	tool := livetest.Start(t, eachFault("-p", fmt.Sprint(child.Pid()), "--script", script, "-b", "4096")...)
	tool.Ready()
	const many = 100 * faults
	more := besides(t, child.Do(fmt.Sprint(many), "-1"))
	stacks, run := objects(t, tool.Stop())
	if n := count(stacks, touching); n < many || n > many+more || run.Lost != 0 {
		t.Errorf("%d samples of %d: %+v", n, many, run)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), " page-faults:"); uint64(n) != run.Shown {
		t.Errorf("--script has %d samples of %d", n, run.Shown)
	}
}

// What finds no room is counted as lost, to the sample.
func TestKernelLosses(t *testing.T) {
	livetest.Need(t)
	child := livetest.Child(t, faulter)
	tool := livetest.Start(t, "--json", "-F", "49", "-e", "page-faults", "-c", "1", "-b", "1")
	if res := tool.Wait(); res.Status != 2 {
		t.Errorf("-F with -c: status %d", res.Status)
	}
	tool = livetest.Start(t, eachFault("-b", "1", "-U", "-p", fmt.Sprint(child.Pid()))...)
	tool.Ready()
	child.Do(fmt.Sprint(1000*faults), "-1")
	r := tool.Stop()
	stacks, run := objects(t, r)
	if run.Lost == 0 {
		t.Errorf("nothing was lost: %+v", run)
	}
	// Where the kernel throttles, it takes no sample of what it leaves out.
	n := count(stacks, touching) + run.Lost
	t.Logf("%d samples and losses of %d, %d perhaps; throttled %d times", n, 1000*faults, run.PossiblyLost, run.Throttled)
	if n+run.PossiblyLost < 1000*faults && run.Throttled == 0 {
		t.Errorf("%d samples and losses of %d: %+v\n%s", n, 1000*faults, run, r.Stderr)
	}
}

func TestKernelThreads(t *testing.T) {
	livetest.NeedOnce(t)
	child := livetest.Child(t, threaded)
	var first, second int
	if _, err := fmt.Sscan(child.Do(), &first, &second); err != nil {
		t.Fatal(err)
	}
	one := livetest.Start(t, eachFault("-L", fmt.Sprint(second))...)
	both := livetest.Start(t, eachFault("-L", fmt.Sprintf("%d,%d", first, second))...)
	one.Ready()
	both.Ready()
	child.Do(fmt.Sprint(faults))
	stacks, _ := objects(t, one.Stop())
	for _, s := range stacks {
		if s.TID != second || s.PID != child.Pid() {
			t.Errorf("-L %d shows %+v", second, s)
		}
	}
	if n := count(stacks, touching); n < faults+1 || n > faults+2 {
		t.Errorf("%d samples of %d", n, faults+1)
	}
	stacks, _ = objects(t, both.Stop())
	for _, tid := range []int{first, second} {
		n := count(stacks, func(s object) bool { return s.TID == tid && touching(s) })
		if n < faults || n > faults+2 {
			t.Errorf("%d samples of thread %d", n, tid)
		}
	}
}

func TestKernelCPU(t *testing.T) {
	livetest.NeedOnce(t)
	if runtime.NumCPU() < 2 {
		t.Skip("SKIPPED: this machine has one CPU")
	}
	child := livetest.Child(t, faulter)
	tool := livetest.Start(t, eachFault("-C", "1")...)
	tool.Ready()
	child.Do(fmt.Sprint(2*faults), "0")
	more := besides(t, child.Do(fmt.Sprint(faults), "1"))
	stacks, run := objects(t, tool.Stop())
	n := count(stacks, func(s object) bool { return s.PID == child.Pid() && touching(s) })
	if n < faults || n > faults+more || run.CPUs != 1 {
		t.Errorf("%d samples of %d on one of %d CPUs", n, faults, run.CPUs)
	}
}

// A command is sampled from its own beginning on, to its end.
func TestKernelCommand(t *testing.T) {
	livetest.Need(t)
	args := append(eachFault("--"), livetest.RoleArgv(faulter, fmt.Sprint(faults), "-1")...)
	tool := livetest.Start(t, args...)
	res := tool.Wait()
	start := strings.IndexByte(res.Stdout, '{') // the role's answer stands before
	if start < 0 {
		t.Fatalf("%+v", res)
	}
	more := besides(t, strings.TrimSpace(res.Stdout[:start]))
	res.Stdout = res.Stdout[start:]
	stacks, _ := objects(t, res)
	if n := count(stacks, touching); n < faults || n > faults+more {
		t.Errorf("%d samples of %d", n, faults)
	}
	for _, s := range stacks {
		if has(s.User, "command.Main") && !has(s.User, "livetest.Main") {
			t.Errorf("before the command began: %+v", s)
		}
	}
	failing := filepath.Join(t.TempDir(), "failing")
	livetest.CallProgram(t, failing, livetest.Exit(23))
	if res := livetest.Run(t, "--json", "--", failing); res.Status != 23 {
		t.Errorf("status %d", res.Status)
	}
}

// burner spends three times as much time in one function as in another.
var burner = livetest.Role("burner", func([]string) string {
	for range 40 {
		burnThree()
		burnOne()
	}
	return ""
})

const units = 300_000

var sink uint64

// burn is one loop for all, and not inlined: QEMU's emulation is ten times slower where a
// loop is on two pages. It calls something so that it has a frame, without which its caller
// would be missing.
//
//go:noinline
func burn(n int) {
	x := sink
	for i := range n {
		x = x*6364136223846793005 + uint64(i)
	}
	keep(x)
}

//go:noinline
func keep(x uint64) { sink = x }

//go:noinline
func burnThree() { burn(3 * units) }

//go:noinline
func burnOne() { burn(units) }

// Samples are where the time goes.
func TestKernelShares(t *testing.T) {
	livetest.NeedOnce(t)
	child := livetest.Child(t, burner)
	tool := livetest.Start(t, "--json", "-F", "997", "-p", fmt.Sprint(child.Pid()))
	tool.Ready()
	for range 5 {
		child.Do()
	}
	stacks, _ := objects(t, tool.Stop())
	three := count(stacks, func(s object) bool { return has(s.User, ".burnThree") })
	one := count(stacks, func(s object) bool { return has(s.User, ".burnOne") })
	share := float64(three) / float64(three+one)
	// Six standard deviations of as few as 150 samples.
	if three+one < 150 || share < 0.75-0.21 || share > 0.75+0.21 {
		t.Errorf("%d and %d samples: %.3f", three, one, share)
	}
}

// asker asks the kernel for something small, again and again.
var asker = livetest.Role("asker", func(args []string) string {
	times, _ := strconv.Atoi(args[0])
	ask(times)
	return ""
})

//go:noinline
func ask(times int) {
	for range times {
		unix.Getppid()
	}
}

func TestKernelStacks(t *testing.T) {
	livetest.Need(t)
	child := livetest.Child(t, asker)
	pid := fmt.Sprint(child.Pid())
	hertz := fmt.Sprint(slower(997))
	both := livetest.Start(t, "--json", "-F", hertz, "-p", pid)
	user := livetest.Start(t, "--json", "-F", hertz, "-U", "-p", pid)
	kernel := livetest.Start(t, "--json", "-F", hertz, "-K", "-p", pid)
	for _, tool := range []*livetest.Tool{both, user, kernel} {
		tool.Ready()
	}
	asks := 3_000_000
	if livetest.Guest() {
		asks /= 4 // a few samples of each kind are wanted, at a tenth of the rate
	}
	child.Do(fmt.Sprint(asks))
	stacks, _ := objects(t, both.Stop())
	if n := count(stacks, func(s object) bool { return has(s.Kernel, "getppid") && has(s.User, ".ask") && has(s.User, ".runRole") }); n == 0 {
		t.Errorf("no stacks of both: %+v", stacks)
	}
	if n := count(stacks, func(s object) bool { return has(s.Kernel, "[kernel]") }); n > 0 {
		t.Errorf("%d samples of the kernel have no names", n)
	}
	stacks, _ = objects(t, user.Stop())
	if n := count(stacks, func(s object) bool { return len(s.Kernel) > 0 || len(s.User) == 0 }); n > 0 {
		t.Errorf("-U: %d samples of the kernel", n)
	}
	stacks, _ = objects(t, kernel.Stop())
	if n := count(stacks, func(s object) bool { return len(s.User) > 0 }); n > 0 || count(stacks, func(s object) bool { return len(s.Kernel) > 0 }) == 0 {
		t.Errorf("-K: %d samples of user space: %+v", n, stacks)
	}
}

// Text and folded stacks have the form of BCC's, and the tool ends with its process.
func TestKernelTexts(t *testing.T) {
	livetest.NeedOnce(t)
	before := livetest.Snapshot(t)
	child := livetest.Child(t, faulter)
	pid := fmt.Sprint(child.Pid())
	text := livetest.Start(t, "-e", "page-faults", "-c", "1", "-d", "-p", pid)
	folded := livetest.Start(t, "-e", "page-faults", "-c", "1", "-fda", "-p", pid)
	text.Ready()
	folded.Ready()
	child.Do(fmt.Sprint(faults), "-1")
	child.End()
	for _, tool := range []*livetest.Tool{text, folded} {
		if r := tool.Wait(); r.Status != 0 || !strings.Contains(r.Stderr, "what was to be traced has ended") {
			t.Errorf("status %d: %s", r.Status, r.Stderr)
		}
	}
	lines := text.Lines()
	if want := fmt.Sprintf("Sampling at every 1 events of PID [%s] by user + kernel stack... Hit Ctrl-C to end.", pid); lines[0] != want || lines[1] != "" {
		t.Errorf("begins with %q, not %q", lines[:2], want)
	}
	if want := "        23"; !slices.Contains(lines, want) {
		t.Errorf("no line %q in %q", want, lines)
	}
	lines = folded.Lines()
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, ".touch 23") }) {
		t.Errorf("no such line in %q", lines)
	}
	for _, l := range lines {
		if _, n, ok := strings.Cut(l[strings.LastIndexByte(l, ' '):], " "); !ok || n == "" || strings.Contains(l, ";;") {
			t.Errorf("%q", l)
		}
	}
	livetest.NoLeak(t, before)
}

// Many samples a second are no reason to lose count.
func TestKernelFast(t *testing.T) {
	livetest.NeedOnce(t)
	child := livetest.Child(t, burner)
	// 20,000 a second and CPU; an emulated CPU would do nothing else.
	tool := livetest.Start(t, "--json", "-c", fmt.Sprint(1_000_000_000/slower(20_000)))
	tool.Ready()
	child.Do()
	stacks, _ := objects(t, tool.Stop())
	if n := count(stacks, func(s object) bool { return s.PID == child.Pid() && has(s.User, ".burn") }); n == 0 {
		t.Error("the burner was not seen")
	}
}
