package perfevent

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Watch finds out whether the kernel shields a process from tracing. There are kernels
// that run no BPF program, and write no sample of a perf event, while certain processes
// are on the CPU; nothing tells which (found on 6.18.44-fc-v782, of process 1). But they
// still count: so context switches are counted that each should also give a sample.
type Watch struct{ threads []watched }

// watched is a thread: its switches are counted, and put into the ring.
type watched struct {
	counting
	ring *ring
}

// maxWatched bounds the threads that are watched.
const maxWatched = 64

// WatchProcess watches the threads that a process has by now, 64 at most. Those that can't
// be watched are left out: no process is taken to be shielded for that.
func WatchProcess(pid int) *Watch {
	w := &Watch{}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CONTEXT_SWITCHES,
		Sample: 1, Sample_type: unix.PERF_SAMPLE_TID, Read_format: countingFormat,
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // none, if it is gone
	for _, task := range tasks[:min(len(tasks), maxWatched)] {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			continue
		}
		r, err := newRing(fd, 1)
		if err != nil {
			unix.Close(fd)
			continue
		}
		w.threads = append(w.threads, watched{counting{fd: fd}, r})
	}
	return w
}

// Shielded reports whether the process was switched off the CPU since it is watched, and
// the kernel wrote no sample of that.
func (w *Watch) Shielded() bool {
	if w.switches() == 0 || w.sampled() {
		return false
	}
	// What is counted just now is written in some nanoseconds, but for a CPU of a virtual machine
	// that stands still meanwhile.
	time.Sleep(time.Millisecond)
	return !w.sampled()
}

func (w *Watch) switches() (sum uint64) {
	for i := range w.threads {
		if _, err := w.threads[i].time(); err == nil {
			sum += w.threads[i].counted
		}
	}
	return sum
}

func (w *Watch) sampled() bool {
	return slices.ContainsFunc(w.threads, func(t watched) bool { return atomic.LoadUint64(&t.ring.head.Data_head) > 0 })
}

// Close ends watching.
func (w *Watch) Close() {
	for _, t := range w.threads {
		t.ring.close()
	}
	w.threads = nil
}
