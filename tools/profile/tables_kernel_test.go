package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

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
