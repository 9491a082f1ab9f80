package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// The kernel's walk finds the same chains as that of a copy does, in each sample of a
// program that ran before.
func TestKernelTableChains(t *testing.T) {
	livetest.NeedFast(t) // guests have no compiler
	all, few, deep := chains()
	for _, build := range []struct {
		command string
		chains  []chain
		args    []string
	}{
		{"gcc -O2", all, nil},
		{"gcc -O1 -no-pie -fcf-protection=full", few, nil},
		{"gcc -O3 -static", append(slices.Clone(few), all[9]), nil},
		{"clang-19 -O2 -static-pie", few, nil},
		{"gcc -O2", deep, []string{"--max-user-depth", "1024"}},
	} {
		path := buildChains(t, build.command+" -DSPINS=4000000000")
		for _, c := range build.chains {
			t.Run(build.command+" "+c.args, func(t *testing.T) {
				cmd := exec.Command(path, strings.Fields(c.args)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait() // by the signal
				}()
				args := append([]string{"--json", "-F", "499", "--unwind", "table", "-p", fmt.Sprint(cmd.Process.Pid)}, build.args...)
				stacks, run := objects(t, livetest.Run(t, append(args, "0.5")...))
				spinning := uint64(0)
				for _, s := range stacks {
					if !has(s.User, "spin") {
						continue
					}
					if own := ownFunctions(s, path); s.Unwind != "complete" || !slices.Equal(own, c.want) {
						t.Errorf("%d samples are %s: %v", s.Count, s.Unwind, own)
					}
					spinning += s.Count
				}
				if spinning < 23 || run.Lost != 0 {
					t.Errorf("%d samples of the end, %+v", spinning, run)
				}
			})
		}
	}
}

// A program without frame pointers that has a table of its frames: the way of the kernel's
// walk, as it is found on all kernels.
func TestKernelTables(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "chain")
	writeChain(t, path, 1<<32-1)
	cmd := exec.Command(path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // by the signal
	}()
	checkChain(t, "-p", fmt.Sprint(cmd.Process.Pid), "--unwind", "table", "1")
}

// What a process does before its tables are there is found by copies.
func TestKernelTablesAtOnce(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "chain")
	writeChain(t, path, 8*spinsHere())
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

// verified is how many instructions the kernel's verifier went through when the program was
// last made larger with open eyes: 11,347 on 6.1, 9,416 on 6.12, 10,378 on 6.18 and 9,636 on
// 7.3. Kernels before 5.16 don't tell.
const verified = 11_400

// The walk stays as cheap to verify as it was, on every kernel.
func TestKernelTablesVerified(t *testing.T) {
	livetest.Need(t)
	_ = rlimit.RemoveMemlock() // up to 5.10
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	if err := optionsOf(t, "--unwind", "auto").prepare(spec); err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != "sample" {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer coll.Close()
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
