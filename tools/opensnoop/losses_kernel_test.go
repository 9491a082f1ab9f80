package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// TestKernelThreads opens in 64 threads at the same time, each as often.
func TestKernelThreads(t *testing.T) {
	const threads = 64
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		there := filepath.Join(t.TempDir(), "there")
		if err := os.WriteFile(there, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		tool := livetest.Start(t, "--attach", mode, "--json", "-F", "--path", there, "-p", fmt.Sprint(os.Getpid()))
		tool.Ready()
		fds := make([]map[[2]int]int, threads) // how often a thread got a descriptor
		livetest.Threads(threads, func(i int) {
			fds[i] = map[[2]int]int{}
			name := livetest.Name(there)
			for range times {
				fd := livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
				fds[i][[2]int{unix.Gettid(), fd}]++
				unix.Close(fd)
			}
		})
		list, last := decode(t, tool.Stop())
		want := map[[2]int]int{}
		for _, of := range fds {
			for key, n := range of {
				want[key] += n
			}
		}
		for _, r := range list {
			key := [2]int{r.TID, r.FD}
			if want[key]--; want[key] < 0 {
				t.Errorf("thread %d got descriptor %d less often than shown", r.TID, r.FD)
			}
		}
		t.Logf("%d shown, %d lost (%v), perhaps %d more", len(list), last.Lost, last.Causes, last.PossiblyLost)
		livetest.Account(t, "64 threads", threads*times, uint64(len(list)), last.Lost, last.PossiblyLost)
	})
}

// TestKernelStorm opens faster than can be shown through a small buffer.
func TestKernelStorm(t *testing.T) {
	const threads = 64
	each := uint64(400) // as many in all as the default buffer can hold, at least
	if livetest.Guest() {
		each = 100
	}
	livetest.EachMode(t, func(t *testing.T, mode string) {
		// The threads' paths are of one kind, and the prefix is compared in the
		// kernel: whatever else this process opens takes no part.
		dir := t.TempDir()
		if len(dir) > 100 {
			t.Fatalf("the prefix %s is too long for the kernel", dir)
		}
		tools := map[string]*livetest.Tool{"one page": livetest.Start(t, "--attach", mode, "-b", "1", "--path-prefix", dir)}
		if !livetest.Guest() {
			tools["default"] = livetest.Start(t, "--attach", mode, "--path-prefix", dir)
		}
		for _, tool := range tools {
			tool.Ready()
		}
		livetest.Threads(threads, func(i int) {
			name := livetest.Name(fmt.Sprintf("%s/%d", dir, i))
			for range each {
				livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
			}
		})
		for what, tool := range tools {
			res := tool.Stop()
			if res.Status != 0 {
				t.Fatalf("status %d: %s", res.Status, res.Stderr)
			}
			lost, possibly := res.Lost()
			shown := uint64(len(res.Lines()) - 1)
			t.Logf("%s: %d shown, %d lost, perhaps %d more", what, shown, lost, possibly)
			livetest.Account(t, what, threads*each, shown, lost, possibly)
			if full := strings.Contains(res.Stderr, "ring buffer full"); full != (what == "one page") {
				t.Errorf("%s, and the ring was full: %t", what, full)
			}
		}
	})
}

// TestKernelStormJSON has the losses in JSON and in words, which must agree.
func TestKernelStormJSON(t *testing.T) {
	const done = 5000
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		var tool *livetest.Tool
		// -t instead of a prefix, which with --json is not compared in the kernel.
		livetest.Threads(1, func(int) {
			tool = livetest.Start(t, "--attach", mode, "-b", "1", "--json", "-t", fmt.Sprint(unix.Gettid()))
			tool.Ready()
			name := livetest.Name("/no/such/file")
			for range done {
				livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
			}
		})
		res := tool.Stop()
		list, last := decode(t, res)
		lost, possibly := res.Lost()
		if last.Lost != lost || last.PossiblyLost != possibly || last.Causes["ring_full"] == 0 {
			t.Errorf("in JSON %d and %d are lost, in words %d and %d", last.Lost, last.PossiblyLost, lost, possibly)
		}
		var sum uint64
		for _, n := range last.Causes {
			sum += n
		}
		if sum != last.Lost {
			t.Errorf("the causes %v are not %d in all", last.Causes, last.Lost)
		}
		livetest.Account(t, "JSON", done, uint64(len(list)), last.Lost, last.PossiblyLost)
	})
}

// waiters is a process whose 64 threads open a FIFO, all at the same time, and
// open nothing else. It is asked to make the threads, to have them begin, and to
// wait for their end.
var waiters = livetest.Role("waiters", func(args []string) string {
	w := &waiting
	switch fifo, request := args[0], args[1]; request {
	case "make":
		w.begin, w.end = make(chan struct{}), make(chan struct{})
		tids := make(chan string, waitingThreads)
		go func() {
			defer close(w.end)
			livetest.Threads(waitingThreads, func(int) {
				name := livetest.Name(fifo)
				tids <- strconv.Itoa(unix.Gettid())
				<-w.begin
				if fd := livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0); fd >= 0 {
					unix.Close(fd)
				}
			})
		}()
		var list []string
		for range waitingThreads {
			list = append(list, <-tids)
		}
		return strings.Join(list, " ")
	case "begin":
		close(w.begin)
	case "end":
		<-w.end
	}
	return ""
})

const waitingThreads = 64

var waiting struct{ begin, end chan struct{} }

// TestKernelBlocked has more opens under way at the same time than the kernel by
// itself has room for kretprobes to wait for.
func TestKernelBlocked(t *testing.T) {
	livetest.EachModeOrOne(t, "kprobe", func(t *testing.T, mode string) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		child := livetest.ChildWith(t, func(cmd *exec.Cmd) {
			// The runtime's signals would interrupt an open now and then, which is then
			// made again: another event.
			cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1")
		}, waiters, fifo)
		tids := strings.Fields(child.Do("make"))
		tool := livetest.Start(t, "--attach", mode, "--json", "-p", fmt.Sprint(child.Pid()))
		tool.Ready()
		child.Do("begin")
		for _, tid := range tids {
			waitBlocked(t, child.Pid(), tid)
		}
		w := livetest.Openat(unix.AT_FDCWD, livetest.Name(fifo), unix.O_WRONLY, 0)
		defer unix.Close(w)
		child.Do("end")
		list, last := decode(t, tool.Stop())
		t.Logf("%d shown, lost %v, perhaps %d more", len(list), last.Causes, last.PossiblyLost)
		for _, r := range list {
			if r.path() != fifo || r.Errno != 0 {
				t.Errorf("another open: %s", r.all())
			}
		}
		if last.Lost > 0 {
			t.Errorf("lost %v", last.Causes)
		}
		livetest.Account(t, "blocked opens", waitingThreads, uint64(len(list)), last.Lost, last.PossiblyLost)
	})
}

// TestKernelStartStop attaches and detaches 200 times while files are opened,
// with several tools at a time, and looks for what is left.
func TestKernelStartStop(t *testing.T) {
	livetest.NeedOnce(t)
	rounds, atOnce := 50, 4
	pause := 50 * time.Microsecond // leaves the processor to the tools
	if livetest.Guest() {
		rounds, atOnce, pause = 1, 2, 5*time.Millisecond
	}
	livetest.EachModeOrOne(t, "kprobe", func(t *testing.T, mode string) {
		var over atomic.Bool
		var opened atomic.Uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			livetest.Threads(2, func(int) {
				name := livetest.Name("/no/such/file")
				for !over.Load() {
					livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
					opened.Add(1)
					time.Sleep(pause)
				}
			})
		}()
		defer func() {
			over.Store(true)
			<-done
		}()
		before := livetest.Snapshot(t)
		for round := range rounds {
			was := opened.Load()
			tools := make([]*livetest.Tool, atOnce)
			for i := range tools {
				tools[i] = livetest.Start(t, "--attach", mode, "-b", "16", "-x", "-t", "1")
			}
			for _, tool := range tools {
				tool.Ready()
				tool.Signal(os.Interrupt)
			}
			for _, tool := range tools {
				if res := tool.Wait(); res.Status != 0 || len(res.Lines()) != 1 {
					t.Fatalf("round %d: status %d: %s%s", round, res.Status, res.Stdout, res.Stderr)
				}
			}
			if opened.Load() == was {
				t.Errorf("round %d: nothing was opened meanwhile", round)
			}
		}
		livetest.NoLeak(t, before)
	})
}
