package main

import (
	"strings"
	"testing"
	"testing/iotest"
)

func TestRowCounter(t *testing.T) {
	const output = `PID    COMM              FD ERR PATH
100    openload           -1   2 /b/opening
100    openload           -1   2 /b/opening
101    openload            3   0 /b/present
101    openload           -1   2 /b/missing 
101    openload            3   0 /b/present
102    cat                 3   0 /b/present
101    openload            3   0 /lib/libc.so
103    openload           -1   2 /b/closing
101    openload           -1   2 /b/missing`
	p := paths{present: "/b/present", missing: "/b/missing", opening: "/b/opening", closing: []string{"/b/closing", "/b/closing-2"}}

	c := newRowCounter("openload", p)
	// One byte a read, so that rows fall across the edges of reads.
	if err := c.count(iotest.OneByteReader(strings.NewReader(output))); err != nil {
		t.Fatal(err)
	}
	if c.shown != 4 {
		t.Errorf("shown %d rows, want 4", c.shown)
	}
	if c.saidLost {
		t.Error("said lost, and no line says so")
	}
	if len(c.openingSeen) != 1 || len(c.closingSeen[0]) != 1 || len(c.closingSeen[1]) != 0 {
		t.Errorf("marks seen: %d opening, %d closing, want one of each", len(c.openingSeen), len(c.closingSeen[0]))
	}
}

func TestRowCounterLosses(t *testing.T) {
	for _, line := range []string{"Lost 12 events on CPU #1!", "WARNING: Lost 12 events"} {
		c := newRowCounter("openload", paths{})
		if err := c.count(strings.NewReader("PID COMM FD ERR PATH\n" + line + "\n")); err != nil {
			t.Fatal(err)
		}
		if !c.saidLost {
			t.Errorf("%q: not taken for a report of losses", line)
		}
	}
}
