package perfevent

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// sleeper waits for a moment, each time it is asked to.
var sleeper = livetest.Role("sleeper", func([]string) string {
	if err := unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil); err != nil {
		return err.Error()
	}
	return ""
})

// TestKernelWatch watches a process that waits and one that does not exist, and then the
// kernel's first one.
func TestKernelWatch(t *testing.T) {
	livetest.Need(t)
	child := livetest.Child(t, sleeper)
	w := WatchProcess(child.Pid())
	defer w.Close()
	if w.Shielded() {
		t.Error("a process that did nothing seems to be shielded")
	}
	for range 3 {
		if problem := child.Do(); problem != "" {
			t.Fatal(problem)
		}
	}
	if switches := w.switches(); switches < 3 {
		t.Errorf("a process that waits three times is switched off the CPU only %d times", switches)
	}
	if w.Shielded() {
		t.Error("a process of ours seems to be shielded")
	}
	// As the kernel has it that shields a process: it counts, but writes nothing.
	for i := range w.threads {
		w.threads[i].ring.head = &unix.PerfEventMmapPage{}
	}
	if !w.Shielded() {
		t.Error("a process that is counted and not sampled seems not to be shielded")
	}
	none := WatchProcess(1 << 30)
	defer none.Close()
	if none.Shielded() {
		t.Error("a process that does not exist seems to be shielded")
	}
	first := WatchProcess(1)
	defer first.Close()
	if len(first.threads) == 0 && os.Getpid() != 1 {
		t.Error("process 1 can't be watched")
	}
}
