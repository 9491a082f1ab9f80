package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// TestKernelKilled kills a tool and looks at what it leaves in tracefs: its return
// probes, which the next one takes away.
func TestKernelKilled(t *testing.T) {
	livetest.NeedOnce(t)
	const probes = "/sys/kernel/tracing/kprobe_events"
	ours := func() int {
		list, err := os.ReadFile(probes)
		if errors.Is(err, os.ErrNotExist) {
			return 0 // a kernel without kprobes, or no tracefs
		}
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(list), ":gobcc_")
	}
	livetest.EachModeOrOne(t, "kprobe", func(t *testing.T, mode string) {
		if n := ours(); n != 0 {
			t.Fatalf("%d probes were there before", n)
		}
		tool := livetest.Start(t, "--attach", mode)
		tool.Ready()
		if got := ours() > 0; got != (mode == "kprobe") {
			t.Fatalf("%d probes in %s mode", ours(), mode)
		}
		tool.Signal(syscall.SIGKILL)
		tool.Wait()
		if mode == "kprobe" && ours() == 0 {
			t.Fatal("the kernel removed the probes itself: nothing is tested")
		}
		tool = livetest.Start(t, "--attach", mode)
		tool.Ready()
		if res := tool.Stop(); res.Status != 0 {
			t.Errorf("status %d: %s", res.Status, res.Stderr)
		}
		if n := ours(); n != 0 {
			t.Errorf("%d probes are left", n)
		}
	})
}
