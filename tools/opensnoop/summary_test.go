package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/output"
)

func summaryOf(t *testing.T, c *counts) string {
	t.Helper()
	var b bytes.Buffer
	w := output.NewWriter(&b)
	if err := c.write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSummary(t *testing.T) {
	var c counts
	add := func(times int, pid uint32, name, path string, ret int32, latency uint64) {
		for range times {
			o := opened{bpfEvent: bpfEvent{Pid: pid, Comm: comm(name), Ret: ret, LatencyNs: latency}}
			c.add(&o, []byte(path), "")
		}
	}
	add(1, 1, "once", "/o", 3, 1500)
	add(3, 2, "thrice", "/t", 3, 0) // no latency is known
	add(2, 3, "both", "/b", 3, 1000)
	add(1, 3, "both", "/b", -2, 4000)
	add(1, 1, "once", "/a", 3, 0)
	add(1, 1, "also", "/a", 3, 0)
	add(1, 0, "also", "/a", 3, 0)
	add(1, 1, "a\nb", "/new\nline", -2, 1)
	o := opened{}
	c.add(&o, nil, unreadable)
	const want = `   OPENS   FAILED   AVG(us)   MAX(us) PID    COMM             PATH
       3        1       2.0       4.0 3      both             /b
       3        0         ?         ? 2      thrice           /t
       1        1       0.0       0.0 1      a\nb             /new\nline
       1        0         ?         ? 0      also             /a
       1        0         ?         ? 1      also             /a
       1        0         ?         ? 1      once             /a
       1        0       1.5       1.5 1      once             /o
       1        0         ?         ? 0                       <unreadable>
`
	if got := summaryOf(t, &c); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEmptySummary(t *testing.T) {
	if got := summaryOf(t, &counts{}); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "PATH\n") {
		t.Errorf("got %q", got)
	}
}

// What a summary has no room for is counted together, last, and nothing is lost.
func TestSummaryIsBounded(t *testing.T) {
	var c counts
	o := opened{bpfEvent: bpfEvent{Pid: 1, Comm: comm("x"), Ret: 3, LatencyNs: 1000}}
	for i := range maxCounts + 10 {
		c.add(&o, fmt.Appendf(nil, "/%d", i), "")
	}
	c.add(&o, []byte("/0"), "") // has its line already
	lines := c.sorted()
	last := lines[len(lines)-1]
	if len(lines) != maxCounts+1 || last.path != "<others>" || last.opens != 10 || last.timed != 10 || last.total != 10_000 {
		t.Errorf("%d lines, the last %+v", len(lines), last)
	}
	if lines[0].path != "/0" || lines[0].opens != 2 {
		t.Errorf("the first is %+v", lines[0])
	}
	var sum uint64
	for _, l := range lines {
		sum += l.opens
	}
	if sum != maxCounts+11 {
		t.Errorf("%d opens in all", sum)
	}
}

// The numbers by which a thread is found to wait in an open are the kernel's.
func TestOpenNumbers(t *testing.T) {
	for _, nr := range []int{unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_BY_HANDLE_AT} {
		found := false
		for _, n := range openNumbers {
			found = found || n == nr
		}
		if !found {
			t.Errorf("system call %d is not among those of %s", nr, runtime.GOARCH)
		}
	}
	if inOpen(uint32(os.Getpid())) {
		t.Error("this process is said to wait in an open")
	}
	if inOpen(1<<31 - 1) {
		t.Error("a thread that is not there is said to wait in an open")
	}
}
