package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/output"
)

func summaryOf(t *testing.T, c *counts) string {
	t.Helper()
	var b bytes.Buffer
	w := output.NewWriter(&b)
	if err := errors.Join(c.write(w), w.Flush()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSummary(t *testing.T) {
	c := newCounts()
	id := uint64(0)
	begin := func(times int, path string, ret int32) {
		for range times {
			id++
			c.start(&started{bpfExec: bpfExec{Id: id, Ret: ret}, filename: []byte(path)})
		}
	}
	end := func(id uint64, ran time.Duration) { c.end(&ended{bpfExit: bpfExit{Id: id}, ran: ran}) }
	begin(3, "/thrice", 0)
	begin(1, "/mixed", 0)
	begin(3, "/mixed", -2)
	begin(2, "/short", 0)
	begin(2, "/long", 0)
	begin(1, "/new\nline", 0)
	begin(1, "/b", 0)
	begin(1, "/a", 0)
	begin(1, "", -2)
	end(1, 1_234_567)
	end(2, 1e9)
	end(2, 1e9) // has ended already
	end(4, 500*time.Microsecond)
	end(5, time.Hour) // a failure has no end
	end(8, time.Second)
	end(10, 100*time.Hour)
	end(999, time.Hour) // not one of ours
	const want = `    RUNS   FAILED    ENDED    TOTAL(s) PROGRAM
       1        3        1       0.001 /mixed
       3        0        2       1.001 /thrice
       2        0        1  360000.000 /long
       2        0        1       1.000 /short
       0        1        0       0.000 ""
       1        0        0       0.000 /a
       1        0        0       0.000 /b
       1        0        0       0.000 /new\nline
`
	if got := summaryOf(t, &c); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEmptySummary(t *testing.T) {
	c := newCounts()
	if got := summaryOf(t, &c); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, " PROGRAM\n") {
		t.Errorf("got %q", got)
	}
}

// What a summary has no room for is counted together, last, and nothing is lost.
func TestSummaryIsBounded(t *testing.T) {
	c := newCounts()
	for i := range maxCounts + 10 {
		c.start(&started{bpfExec: bpfExec{Id: uint64(i)}, filename: fmt.Appendf(nil, "/%d", i)})
	}
	c.start(&started{bpfExec: bpfExec{Id: maxCounts + 10}, filename: []byte("/0")}) // has its line already
	for i := range maxCounts + 11 {
		c.end(&ended{bpfExit: bpfExit{Id: uint64(i)}, ran: time.Millisecond})
	}
	counts := c.sorted()
	if last := counts[len(counts)-1]; len(counts) != maxCounts+1 || last.path != "<others>" || last.runs != 10 {
		t.Fatalf("%d lines, the last %+v", len(counts), last)
	}
	lines := strings.Split(summaryOf(t, &c), "\n")
	if len(lines) != maxCounts+3 || !strings.HasSuffix(lines[1], " /0") || !strings.HasPrefix(lines[1], "       2 ") {
		t.Errorf("%d lines, the first %q", len(lines), lines[1])
	}
	if last := lines[len(lines)-2]; !strings.HasSuffix(last, " <others>") || !strings.HasPrefix(last, "      10 ") {
		t.Errorf("the last line is %q", last)
	}
	// Only so many runs are remembered; the ends of the others are not counted.
	var ended uint64
	for _, l := range counts {
		ended += l.ended
	}
	if len(c.running) != 0 || ended != maxRunning {
		t.Errorf("%d runs are remembered, and %d have ended", len(c.running), ended)
	}
}

func TestHidingIsBounded(t *testing.T) {
	c := newCounts()
	for id := range uint64(maxCounts + 10) {
		c.hide(id)
	}
	if len(c.hiding) != maxCounts {
		t.Errorf("%d execs are remembered to be hidden", len(c.hiding))
	}
	if !c.hidden(5) || c.hidden(5) || c.hidden(maxCounts+5) {
		t.Error("one that was hidden is not, or one that was not is")
	}
}
