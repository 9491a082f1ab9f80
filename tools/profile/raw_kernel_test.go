package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// TestKernelReplay compares what a run writes with what is written from its recording.
func TestKernelReplay(t *testing.T) {
	livetest.NeedOnce(t)
	child := livetest.Child(t, faulter)
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	outputs := func(when string) []string {
		var flags []string
		for _, name := range []string{"pprof", "svg", "script"} {
			flags = append(flags, "--"+name, filepath.Join(dir, name+when))
		}
		return flags
	}
	objectsOf := livetest.Start(t, eachFault(append(outputs("1"), "--save-raw", raw, "-p", fmt.Sprint(child.Pid()))...)...)
	text := livetest.Start(t, "-e", "page-faults", "-c", "1", "-p", fmt.Sprint(child.Pid()), "--save-raw", raw+"text")
	objectsOf.Ready()
	text.Ready()
	most := faults + besides(t, child.Do(fmt.Sprint(faults), "-1"))
	live, shown := objectsOf.Stop(), text.Stop()
	stacks, _ := objects(t, live)
	n := count(stacks, touching)
	if n < faults || n > most {
		t.Errorf("%d samples of %d", n, faults)
	}
	script, err := os.ReadFile(filepath.Join(dir, "script1"))
	if err != nil {
		t.Fatal(err)
	}
	if in := strings.Count(string(script), "profile.touch+"); uint64(in) != n {
		t.Errorf("%d samples of %d in the script", in, n)
	}

	again := livetest.Run(t, append(outputs("2"), "--replay", raw, "--json")...)
	if again.Status != 0 || again.Stderr != "" || again.Stdout != live.Stdout {
		t.Errorf("status %d: %s\n%s\nand live it was\n%s", again.Status, again.Stderr, again.Stdout, live.Stdout)
	}
	for _, name := range []string{"pprof", "svg", "script"} {
		one, err1 := os.ReadFile(filepath.Join(dir, name+"1"))
		two, err2 := os.ReadFile(filepath.Join(dir, name+"2"))
		if err1 != nil || err2 != nil || string(one) != string(two) || len(one) == 0 {
			t.Errorf("%s: %d bytes, %v, and %d again, %v", name, len(one), err1, len(two), err2)
		}
	}
	if again := livetest.Run(t, "--replay", raw+"text"); again.Status != 0 || again.Stdout != shown.Stdout || !strings.Contains(again.Stdout, "profile.touch\n") {
		t.Errorf("status %d: %s\n%s\nand live it was\n%s", again.Status, again.Stderr, again.Stdout, shown.Stdout)
	}
	for _, args := range [][]string{{"-p", "1"}, {"5"}, {"-F", "49"}, {"--save-raw", raw + "2"}, {"--", "true"}} {
		if r := livetest.Run(t, append([]string{"--replay", raw}, args...)...); r.Status != 2 || !strings.Contains(r.Stderr, "--replay samples nothing") {
			t.Errorf("%v: status %d: %s", args, r.Status, r.Stderr)
		}
	}
	if r := livetest.Run(t, eachFault("--save-raw", "/dev/full", "1")...); r.Status != 1 ||
		!strings.Contains(r.Stderr, "no space left on device") || !strings.Contains(r.Stdout, `"kind":"run"`) {
		t.Errorf("with a disk that is full: status %d: %s\n%s", r.Status, r.Stderr, r.Stdout)
	}
	if r := livetest.Run(t, "--replay", filepath.Join(dir, "svg1")); r.Status != 1 || !strings.Contains(r.Stderr, "no recording of profile's") {
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
}
