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

	c := newRowCounter(&opensnoop, p)
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
		c := newRowCounter(&opensnoop, paths{})
		if err := c.count(strings.NewReader("PID COMM FD ERR PATH\n" + line + "\n")); err != nil {
			t.Fatal(err)
		}
		if !c.saidLost {
			t.Errorf("%q: not taken for a report of losses", line)
		}
	}
}

func TestConnectRows(t *testing.T) {
	// Of the tools of all sides, and with the options that are measured.
	const output = `PID     COMM             IP SADDR            DADDR            DPORT
101     connectload      4  127.0.0.1        127.0.0.1        29003
101     connectload      4  127.0.0.1        127.0.0.1        29001
101     connectload      4  127.0.0.1        127.0.0.3        29001
102     curl             4  127.0.0.1        127.0.0.1        80
101     connectload      4  127.0.0.1        127.0.0.1        29001  ok                 0.020    0
10:00:00 101    connectload      127.0.0.1                               41000  127.0.0.1                               29001
LADDR                     RADDR                     RPORT  CONNECTS    FAILED    P50(ms)    P99(ms)    MAX(ms)
127.0.0.1                 127.0.0.1                 29001      1000         0      0.020      0.030      1.000
127.0.0.1                 127.0.0.1                 29004        16         0      0.020      0.030      1.000
127.0.0.1                 192.0.2.1                 29001         7         0      0.020      0.030      1.000
Lost 1 events`
	p := (&bench{scenario: &tcpconnect}).paths()
	c := newRowCounter(&tcpconnect, p)
	if err := c.count(strings.NewReader(output)); err != nil {
		t.Fatal(err)
	}
	if c.shown != 1004 || !c.saidLost {
		t.Errorf("shown %d connects, want 1004; said lost: %t", c.shown, c.saidLost)
	}
	if len(c.openingSeen) != 1 || len(c.closingSeen[0]) != 1 {
		t.Errorf("marks seen: %d opening, %d closing, want one of each", len(c.openingSeen), len(c.closingSeen[0]))
	}
}
