package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/gobcc/gobcc/internal/common/constants"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// start runs a program until the test ends, and gives its pid.
func start(t *testing.T, path string, args ...string) string {
	t.Helper()
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // by the signal
	})
	return fmt.Sprint(cmd.Process.Pid)
}

// The kernel's walk finds the same chains as that of a copy does, in each sample of a
// program that ran before.
func TestKernelTableChains(t *testing.T) {
	livetest.NeedCompilers(t)
	all, few, deep := chains()
	const forever = " -DSPINS=4000000000"
	checkChains(t, []chainBuild{
		{"gcc -O2" + forever, all, nil},
		{"gcc -O1 -no-pie -fcf-protection=full" + forever, few, nil},
		{"gcc -O3 -static" + forever, append(slices.Clone(few), all[9]), nil},
		{"clang-19 -O2 -static-pie" + forever, few, nil},
		{"gcc -O2" + forever, deep, []string{"--max-user-depth", "1024"}},
	}, func(t *testing.T, program, args []string) livetest.Result {
		return livetest.Run(t, append(args, "--unwind", "table", "-p", start(t, program[0], program[1:]...), "0.5")...)
	})
}

// A program without frame pointers that has a table of its frames: the way of the kernel's
// walk, as it is found on all kernels.
func TestKernelTables(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "chain")
	writeChain(t, path, 1<<32-1)
	checkChain(t, "-p", start(t, path), "--unwind", "table", "1")
}

// What a process does before its tables are there is found by copies.
func TestKernelTablesAtOnce(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "chain")
	writeChain(t, path, 32*spinsHere())
	checkChain(t, "--", path)
}

// checkChain runs the tool, and expects all samples to have the stack of writeChain's program.
func checkChain(t *testing.T, args ...string) {
	t.Helper()
	stacks, _ := objects(t, livetest.Run(t, append([]string{"--json", "-U", "-F", fmt.Sprint(slower(997))}, args...)...))
	n := uint64(0)
	for _, s := range stacks {
		if len(s.User) == 0 || s.User[0].Function != "burn_it" {
			continue // a page that is read the first time, and the like
		}
		var names []string
		for _, f := range s.User {
			names = append(names, f.Function)
		}
		if s.Unwind != "complete" || !slices.Equal(names, []string{"burn_it", "middle", "outer", "_start"}) {
			t.Errorf("%d samples are %s: %v", s.Count, s.Unwind, names)
		}
		n += s.Count
	}
	if n < 5 {
		t.Errorf("%d samples", n)
	}
}

// loaded gives the program that takes samples, loaded with what the options ask for and with
// some constants of its own.
func loaded(t *testing.T, o *options, more map[string]any) *ebpf.Collection {
	t.Helper()
	_ = rlimit.RemoveMemlock() // up to 5.10
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(o.prepare(spec), events.Configure(spec, events.DefaultPages), constants.Set(spec, more)); err != nil {
		t.Fatal(err)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{"sample": spec.Programs["sample"]}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(coll.Close)
	return coll
}

// verified is how many instructions the kernel's verifier went through when the program was
// last made larger with open eyes: 9,596 on 6.1, 7,692 on 6.12 (8,193 for arm64), 9,505 on 6.18
// and 8,536 on 7.3. Kernels before 5.16 don't tell.
const verified = 9_600

// The walk stays as cheap to verify as it was, on every kernel.
func TestKernelTablesVerified(t *testing.T) {
	livetest.Need(t)
	coll := loaded(t, optionsOf(t, "--unwind", "auto"), nil)
	info, err := coll.Programs["sample"].Info()
	if err != nil {
		t.Fatal(err)
	}
	n, known := info.VerifiedInstructions()
	t.Logf("%d instructions were verified", n)
	if known && n > verified*3/2 {
		t.Errorf("%d instructions were verified: they were %d", n, verified)
	}
}

// comparison takes samples that were walked in the kernel and copied, and compares what the
// kernel found with what the copy's walk did.
type comparison struct {
	t        *testing.T
	engine   *engine
	statuses map[slot]status // of the kernel's walks, by CPU and the lower half of the time
	compared int
	ended    map[status]int
}

func (c *comparison) record(*perfevent.Record) error { return nil }

func (c *comparison) handle(record []byte) error {
	var ev bpfEvent
	if _, err := events.Decode(&ev, record); err != nil {
		return err
	}
	c.statuses[slot{ev.Cpu, uint32(ev.TimeNs)}] = status(ev.WalkStatus)
	return c.engine.handle(record)
}

func (c *comparison) sample(s *sample, _ *process, _, _ []*frame) error {
	in, ok := c.statuses[slot{s.CPU, uint32(s.Time)}]
	if !ok || s.Copied == nil || len(s.Copied.Memory) == 0 || s.PID == 0 {
		return nil
	}
	// Both are to know the same. What a runtime made is read by the copy's walk only now.
	p := c.engine.timeline.Process(s.PID)
	if s.Mapped == 0 || s.Mapped != p.Changed() {
		return nil
	}
	for _, addr := range slices.Concat(s.Kernel, s.User) {
		if m, ok := p.Find(addr - 1); ok && m.File.Kind == mappings.Anonymous {
			return nil
		}
	}
	kernel, copied := s.Kernel, s.User
	// A stack that a Go program has gone on from with another is not copied.
	short := s.Status == statusCopyEnd || s.Status == statusFault
	if in == statusNoMapping || in == statusNoTable {
		copied = copied[:min(len(kernel), len(copied))] // which may know more by now
	} else if s.Status != in && !short {
		c.t.Errorf("the kernel's walk is %s, the copy's %s", in, s.Status)
	}
	if short {
		kernel = kernel[:min(len(kernel), len(s.User))]
	}
	if !slices.Equal(kernel, copied) {
		c.t.Errorf("%s: the kernel's walk (%s) is %x, the copy's (%s) %x", s.Comm, in, s.Kernel, s.Status, s.User)
	}
	c.compared++
	c.ended[in]++
	return nil
}

// Of each stack the kernel's walk and that of a copy find the same.
func TestKernelTableAgrees(t *testing.T) {
	livetest.Need(t)
	o := optionsOf(t, "-U", "--max-user-depth", "127", "-F", fmt.Sprint(slower(997)))
	least := 300
	if livetest.Guest() { // where no compiler is
		for i, code := range [][]byte{burnerCode(true, 1<<32-1), askerCode(1<<32 - 1)} {
			path := filepath.Join(t.TempDir(), fmt.Sprint("chain", i))
			writeChainOf(t, path, code)
			start(t, path)
		}
		least = 23
	} else {
		path := buildChains(t, "gcc -O2 -DSPINS=4000000000")
		all, _, _ := chains()
		for _, args := range append(all, chain{args: "plt 1"}, chain{args: "syscall 1"}) {
			start(t, path, strings.Fields(args.args)...)
		}
	}
	coll := loaded(t, o, map[string]any{bpfVarWalkAndCopy: true, bpfVarCopySize: uint32(defaultCopyKiB << 10)})
	kernel, err := unwind.OpenKernel(func(name string) *ebpf.Map { return coll.Maps[name] })
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(newCounter(false))
	e.generated = func(*mappings.Process) {}
	e.unwinder.most, e.copySize = 127, defaultCopyKiB<<10
	e.tables = newTables(kernel, e.reader, nil, false)
	defer e.tables.close()
	c := &comparison{t: t, engine: e, statuses: map[slot]status{}, ended: map[status]int{}}
	e.recorder = c
	if e.sideband, err = perfevent.OpenSideband(); err != nil {
		t.Fatal(err)
	}
	e.timeline = mappings.New(mappings.Options{})
	defer e.close()
	_ = e.timeline.Snapshot(nil) // what is hidden from us is not compared
	if err := e.tables.start(e.timeline); err != nil {
		t.Fatal(err)
	}
	reader, err := events.NewReader(coll)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	sampler, err := perfevent.NewSampler(coll.Programs["sample"], o.event, o.rate, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := reader.Run(ctx, c.handle, e.drained); err != nil {
		t.Fatal(err)
	}
	sampler.Close()
	if err := errors.Join(reader.Drain(c.handle), e.finish()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d samples agree: %v", c.compared, c.ended)
	if c.compared < least || c.ended[statusComplete] < c.compared/2 {
		t.Errorf("%d samples were compared: %v", c.compared, c.ended)
	}
}

// Libraries that come and go at one place are never walked by each other's tables: what the
// kernel knew too late is copied, or cut.
func TestKernelTableReloads(t *testing.T) {
	livetest.NeedCompilers(t)
	dir := t.TempDir()
	build := func(args ...string) {
		t.Helper()
		args = append(args, "-w", "-O2", "-fomit-frame-pointer")
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("gcc %q: %v\n%s", args, err, out)
		}
	}
	build("-o", dir+"/reload", "testdata/reload.c")
	libraries := []string{dir + "/small.so", dir + "/large.so"}
	for i, size := range []string{"100", "3000"} {
		build("-shared", "-fPIC", "-DNAME=inner_"+size, "-DSIZE="+size, "-o", libraries[i], "testdata/reloaded.c")
	}
	pid := start(t, dir+"/reload", libraries...)
	for _, way := range []string{"table", "auto"} {
		stacks, _ := objects(t, livetest.Run(t, "--json", "-U", "-F", "499", "--unwind", way, "-p", pid, "3"))
		inside := map[string]uint64{}
		for _, s := range stacks {
			if len(s.User) == 0 || !strings.HasPrefix(s.User[0].Function, "inner_") {
				continue
			}
			inside[s.Unwind] += s.Count
			var names []string
			for _, f := range s.User {
				names = append(names, f.Function)
			}
			want := []string{s.User[0].Function, "enter", "main"}
			if size, _ := strings.CutPrefix(s.User[0].Function, "inner_"); len(names) > 1 && (s.User[0].File != s.User[1].File || size == "") {
				t.Errorf("--unwind %s: %d are called from another library: %v", way, s.Count, s.User)
			}
			if n := min(len(want), len(names)); !slices.Equal(names[:n], want[:n]) || s.Unwind == "complete" && len(names) < 5 {
				t.Errorf("--unwind %s: %d are %s: %v", way, s.Count, s.Unwind, names)
			}
		}
		t.Logf("--unwind %s: %v", way, inside)
		if inside["complete"] < 23 || inside["no-mapping"] == 0 && way == "table" {
			t.Errorf("--unwind %s: %v", way, inside)
		}
	}
}
