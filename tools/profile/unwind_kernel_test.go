package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// buildChains compiles chains.c of package unwind without frame pointers, by a compiler and with flags.
func buildChains(t *testing.T, command string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chains")
	args := append(strings.Fields(command), "-w", "-pthread", "-fomit-frame-pointer", "-o", path, "../../internal/common/unwind/testdata/chains.c")
	args = slices.Insert(args, 1, "-DSPINS=400000000") // unless the command has another
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return path
}

func times(n int, names ...string) []string { return slices.Repeat(names, n) }

// chain is what chains.c does with some arguments, and the functions that it is in then.
type chain struct {
	args string
	want []string
}

// chains gives all, some that differ the most, and one that is deep.
func chains() (all, few, deep []chain) {
	call := func(args string, want ...[]string) chain {
		return chain{args, slices.Concat(append([][]string{{"_start", "main"}}, want...)...)}
	}
	spin := []string{"spin"}
	all = []chain{
		call("chain 1", times(1, "chain"), spin),
		call("chain 100", times(100, "chain"), spin),
		call("qsort 16", times(16, "sort", "compare"), []string{"sort"}, spin),
		call("alloca 9", times(9, "with_alloca"), spin),
		call("aligned 3", []string{"aligned_and_alloca", "aligned"}, times(3, "with_alloca"), spin),
		call("arguments 1", []string{"many_arguments"}, spin),
		call("tail 1", []string{"last"}, spin),
		call("signal 3", times(3, "interrupted"), []string{"faulty", "handler"}, spin),
		call("altstack 3", times(3, "interrupted"), []string{"faulty", "handler"}, spin),
		{"thread 5", slices.Concat([]string{"thread"}, times(5, "chain"), spin)},
		call("setjmp 3", []string{"jumped"}, times(3, "chain"), spin),
	}
	return all, []chain{all[1], all[2], all[4], all[8]}, []chain{call("chain 500", times(500, "chain"), spin)}
}

// chainBuild is a compiler with its flags, the chains that its program is to go through, and
// what else the tool is to be told.
type chainBuild struct {
	command string
	chains  []chain
	args    []string
}

// checkChains has the tool look at each of the chains, and expects that in the program's own
// part of a stack there is what called what, root to leaf, and nothing else: whatever the
// compiler made of it.
func checkChains(t *testing.T, builds []chainBuild, look func(t *testing.T, program []string, args []string) livetest.Result) {
	t.Helper()
	for _, build := range builds {
		path := buildChains(t, build.command)
		for _, c := range build.chains {
			t.Run(build.command+" "+c.args, func(t *testing.T) {
				args := append([]string{"--json", "-F", "499"}, build.args...)
				stacks, run := objects(t, look(t, append([]string{path}, strings.Fields(c.args)...), args))
				spinning := uint64(0)
				bad := map[string]uint64{}
				for _, s := range stacks {
					if !has(s.User, "spin") {
						continue
					}
					own := ownFunctions(s, path)
					if s.Unwind != "complete" || !slices.Equal(own, c.want) {
						bad[s.Unwind+": "+strings.Join(own, " ")] += s.Count
					}
					spinning += s.Count
				}
				for what, n := range bad {
					t.Errorf("%d of %d samples are %s", n, spinning, what)
				}
				if spinning < 10 || run.Lost != 0 {
					t.Errorf("%d samples of the end, %+v", spinning, run)
				}
				sound(t, stacks)
			})
		}
	}
}

// The walk of a copy finds the chains, from the program's beginning on.
func TestKernelUnwindChains(t *testing.T) {
	livetest.NeedCompilers(t)
	all, few, deep := chains()
	checkChains(t, []chainBuild{
		{"gcc -O2", all, nil},
		{"gcc -O1 -no-pie -fcf-protection=full", few, nil},
		{"gcc -O3 -static", append(slices.Clone(few), all[9]), nil},
		{"gcc -O2 -static-pie", few, nil},
		{"clang-19 -O2", few, nil},
		{"clang-19 -O1 -mavx", few, nil},
		{"gcc -O2", deep, []string{"--max-user-depth", "1024"}},
	}, func(t *testing.T, program, args []string) livetest.Result {
		return livetest.Run(t, slices.Concat(args, []string{"--unwind", "copy", "--"}, program)...)
	})
}

// ownFunctions gives the functions of a user stack that chains.c has itself, from the root on.
func ownFunctions(s object, file string) (own []string) {
	for _, f := range slices.Backward(s.User) {
		if f.File == file && slices.Contains(chainFunctions, f.Function) {
			own = append(own, f.Function)
		}
	}
	return own
}

var chainFunctions = []string{
	"_start", "main", "spin", "chain", "sort", "compare", "with_alloca", "aligned", "aligned_and_alloca", "many_arguments",
	"last", "tail_call", "before_faulty", "faulty", "handler", "interrupted", "catch_signals", "thread", "start_thread_and_wait",
	"jumped", "library_calls", "system_calls",
}

// sound checks that 99 of 100 stacks reach the root: also those before main. One that does
// not is no share: of _dl_runtime_resolve_xsavec there are no rules.
func sound(t *testing.T, stacks []object) {
	t.Helper()
	whole := count(stacks, func(s object) bool { return s.Unwind == "complete" || s.Unwind == "guessed" })
	user := count(stacks, func(s object) bool { return s.Unwind != "none" })
	if user-whole > max(1, user/100) {
		slices.SortFunc(stacks, func(a, b object) int { return cmp.Compare(b.Count, a.Count) })
		t.Errorf("%d of %d stacks reach the root", whole, user)
		for _, s := range stacks {
			if s.Unwind != "complete" && s.Unwind != "guessed" && s.Unwind != "none" {
				t.Logf("%d: %s: %v in %v", s.Count, s.Unwind, s.User, s.Kernel)
			}
		}
	}
}

// Wherever a sample hits on the way into a library or the kernel, its callers are there.
func TestKernelUnwindLeafs(t *testing.T) {
	livetest.NeedCompilers(t)
	for _, flags := range []string{"-O2", "-O2 -Wl,-z,lazy -no-pie", "-O2 -static -fno-builtin"} {
		path := buildChains(t, "gcc -fno-builtin "+flags)
		for what, function := range map[string]string{"plt": "library_calls", "syscall": "system_calls"} {
			t.Run(flags+" "+what, func(t *testing.T) {
				stacks, _ := objects(t, livetest.Run(t, "--json", "-F", "997", "--unwind", "copy", "--", path, what, "1"))
				ours, stubs, calls := uint64(0), uint64(0), uint64(0)
				bad := map[string]uint64{}
				for _, s := range stacks {
					own := ownFunctions(s, path)
					// What main does before is not of interest.
					leaf := s.User[:min(len(s.User), 1)]
					called := has(leaf, "abs") || has(leaf, "ffs") || has(leaf, "getppid")
					if !slices.Contains(own, "main") || !slices.Contains(own, function) && !called {
						continue
					}
					ours += s.Count
					if s.Unwind != "complete" || !slices.Equal(own, []string{"_start", "main", function}) {
						bad[s.Unwind+": "+strings.Join(own, " ")] += s.Count
					}
					if strings.HasSuffix(s.User[0].Function, "@plt") {
						stubs += s.Count
					}
					if has(s.Kernel, "getppid") {
						calls += s.Count
					}
				}
				for what, n := range bad {
					t.Errorf("%d of %d samples are %s", n, ours, what)
				}
				t.Logf("%d samples, %d of them in stubs, %d in system calls", ours, stubs, calls)
				if ours < 30 || what == "syscall" && calls == 0 {
					t.Errorf("%d samples, %d of them in system calls", ours, calls)
				}
				sound(t, stacks)
			})
		}
	}
}

// What --unwind says is what is done, and said.
func TestKernelUnwindWays(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "burner")
	writeBurner(t, path, "burn_it", true, 10*spinsHere())
	for way, want := range map[string][]string{
		"fp": {"frame-pointers"}, "off": {"leaf"},
		// A burner has no table. Its registers are 0 where they are not used, so that its frame
		// pointer is none.
		"copy": {"no-table"}, "auto": {"no-table", "no-mapping"}, // the latter right behind its exec
	} {
		r := livetest.Run(t, "--json", "-F", fmt.Sprint(slower(997)), "--unwind", way, "--", path)
		stacks, _ := objects(t, r)
		n := uint64(0)
		for _, s := range stacks {
			if len(s.User) == 0 || s.User[0].Function != "burn_it" {
				continue
			}
			n += s.Count
			if len(s.User) != 1 || !slices.Contains(want, s.Unwind) {
				t.Errorf("--unwind %s: %s: %v", way, s.Unwind, s.User)
			}
		}
		if n == 0 {
			t.Errorf("--unwind %s: no samples:\n%s", way, r.Stderr)
		}
	}
}

// Samples that hit the kernel have the stack that the thread came in with, on all kernels.
func TestKernelUnwindInKernel(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "chain")
	writeChainOf(t, path, askerCode(1<<32-1))
	pid := start(t, path)
	for _, way := range []string{"copy", "table"} {
		stacks, _ := objects(t, livetest.Run(t, "--json", "-F", fmt.Sprint(slower(997)), "-p", pid, "--unwind", way, "1"))
		in, out := uint64(0), uint64(0)
		for _, s := range stacks {
			var names []string
			for _, f := range s.User {
				names = append(names, f.Function)
			}
			if s.Unwind != "complete" || !slices.Equal(names, []string{"burn_it", "middle", "outer", "_start"}) {
				t.Errorf("--unwind %s: %d samples are %s: %v in %v", way, s.Count, s.Unwind, names, s.Kernel)
			}
			if len(s.Kernel) > 0 {
				in += s.Count
			} else {
				out += s.Count
			}
		}
		t.Logf("%d samples in the kernel, %d not", in, out)
		if in == 0 {
			t.Errorf("--unwind %s: no samples in the kernel", way)
		}
	}
}

// A program that runs from memory, as container runtimes do, is like any other.
func TestKernelUnwindMemfd(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "chain")
	writeChain(t, path, 1<<32-1)
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("sealed", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "sealed")
	defer memory.Close()
	if _, err := memory.Write(program); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"copy", "table"} {
		pid := start(t, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)) // it ends after some seconds
		stacks, _ := objects(t, livetest.Run(t, "--json", "-F", fmt.Sprint(slower(997)), "-p", pid, "--unwind", way, "1"))
		n := uint64(0)
		for _, s := range stacks {
			if len(s.User) == 0 || s.User[0].Function != "burn_it" {
				continue // it has just begun
			}
			n += s.Count
			if s.Unwind != "complete" || len(s.User) != 4 || s.User[3].Function != "_start" || s.User[0].File != "/memfd:sealed" {
				t.Errorf("--unwind %s: %d samples are %s: %+v", way, s.Count, s.Unwind, s.User)
			}
		}
		if n < 5 {
			t.Errorf("--unwind %s: %d samples", way, n)
		}
	}
}

// More is not copied than the budget has room for: what is beyond it has the stack by frame
// pointers, and says so.
func TestKernelUnwindBudget(t *testing.T) {
	livetest.Need(t)
	options := optionsOf(t, "--unwind", "copy", "-e", "page-faults", "-c", "1")
	const most = 3 * defaultCopyKiB << 10
	// The budget is of a second. It may begin anew within the test, once.
	coll := loaded(t, options, map[string]any{bpfVarCopyBudget: uint64(most)})
	reader, err := events.NewReader(coll)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	sampler, err := perfevent.NewSampler(coll.Programs["sample"], options.event, options.rate, nil)
	if err != nil {
		t.Fatal(err)
	}
	const pages = 10 * faults
	more, err := touchNewPages(pages)
	sampler.Close()
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(newCounter(false))
	statuses := map[status]uint64{}
	bytes := 0
	if err := reader.Drain(e.handle); err != nil {
		t.Fatal(err)
	}
	for _, s := range e.samples {
		if s.Copied != nil {
			bytes += s.Copied.size()
		}
		if int(s.PID) == os.Getpid() {
			statuses[s.Status]++
		}
	}
	copies := statuses[status(bpfUserStatusUSER_COPIED)]
	if n := copies + statuses[statusBudget] + statuses[statusNone]; n < pages || statuses[statusBudget] == 0 || copies == 0 {
		t.Errorf("%v of %d pages and %d more", statuses, pages, more)
	}
	// What CPUs copy at the same time may go beyond it.
	if over := 2 * runtime.NumCPU() * defaultCopyKiB << 10; bytes > 2*most+over {
		t.Errorf("%d bytes were copied, of %d", bytes, most)
	}
}

// What --save-raw keeps of stacks is walked again, and gives the frames that were found.
func TestKernelUnwindRecorded(t *testing.T) {
	livetest.NeedCompilers(t)
	path := buildChains(t, "gcc -O2")
	raw := filepath.Join(t.TempDir(), "raw")
	if r := livetest.Run(t, "--json", "-F", "997", "--unwind", "copy", "--save-raw", raw, "--", path, "qsort", "9"); r.Status != 0 {
		t.Fatalf("status %d: %s", r.Status, r.Stderr)
	}
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	timeline := mappings.New(mappings.Options{})
	defer timeline.Close()
	u := newUnwinder(newTableReader())
	walked, different := 0, 0
	_, err = replay(f, replayed{
		record: func(r *perfevent.Record) error {
			timeline.Apply(r)
			return nil
		},
		sample: func(s *sample, _ *process, _, _ []*frame) error {
			if s.Copied == nil {
				return nil
			}
			again, st, done := u.walk(timeline.Process(s.PID), s.Copied)
			for !done {
				u.wait()
				again, st, done = u.walk(timeline.Process(s.PID), s.Copied)
			}
			walked++
			if st != s.Status || !slices.Equal(again, s.User) {
				if different++; different < 5 {
					t.Errorf("%#x, %v, and it was %#x, %v", again, st, s.User, s.Status)
				}
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%d stacks, %d of them different", walked, different); walked < 30 {
		t.Errorf("%d stacks were recorded", walked)
	}
}
