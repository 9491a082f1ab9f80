package main

import (
	"bytes"
	"testing"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// runs is an exec by a process, below these parents. All began at their pid's
// second.
func runs(pid uint32, ret int32, parents ...uint32) *started {
	s := &started{bpfExec: bpfExec{Pid: pid, StartNs: uint64(pid) * 1e9, Ret: ret}}
	for _, parent := range parents {
		s.Ppid = parents[0]
		s.ancestors = append(s.ancestors, bpfAncestor{Pid: parent, StartNs: uint64(parent) * 1e9})
	}
	return s
}

// A process is one below the nearest of its parents that ran something.
func TestTree(t *testing.T) {
	p, r := printerOf(t, "--tree", "--exit"), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	for i, test := range []struct {
		s    *started
		want int
	}{
		{runs(10, 0, 9, 1), 0},
		{runs(11, 0, 10, 9, 1), 1},
		{runs(12, 0, 11, 10, 9, 1), 2},
		{runs(13, 0, 10, 9, 1), 1},
		{runs(12, 0, 11, 10, 9, 1), 2},     // another program
		{runs(12, 0, 1), 2},                // its parent has died
		{runs(20, 0, 19, 18, 10, 9, 1), 1}, // under two subshells
		{runs(30, -2, 12, 11), 3},          // a failure
		{runs(31, 0, 30, 8, 1), 0},         // of which nothing is remembered
		{runs(40, 0), 0},
	} {
		if got := p.depths.of(test.s); got != test.want {
			t.Errorf("step %d: depth %d, not %d", i, got, test.want)
		}
	}
	before := len(p.depths.recent)
	feed(t, p, r, exited{Id: 5, Pid: 12, StartNs: 12e9}.records()...)
	feed(t, p, r, reaped{Id: 5}.records()...)
	if n := len(p.depths.recent); n != before-1 {
		t.Errorf("%d processes are remembered after one of %d has ended", n, before)
	}
}

// A pid that is used again is another process, whether the end of the first was
// seen or not: as a process, and as a parent.
func TestTreeOfPidsUsedAgain(t *testing.T) {
	var d depths
	again := func(s *started, pid uint32) *started {
		if s.Pid == pid {
			s.StartNs += 100e9
		}
		for i := range s.ancestors {
			if s.ancestors[i].Pid == pid {
				s.ancestors[i].StartNs += 100e9
			}
		}
		return s
	}
	for i, test := range []struct {
		s    *started
		want int
	}{
		{runs(10, 0, 1), 0},
		{runs(11, 0, 10, 1), 1},
		{runs(12, 0, 11, 10, 1), 2},
		{again(runs(12, 0, 1), 12), 0},         // not the 12 of before
		{again(runs(13, 0, 12, 1), 12), 1},     // below that one
		{runs(14, 0, 12, 11, 10, 1), 3},        // below the first
		{again(runs(15, 0, 11, 1), 11), 0},     // 11 has run nothing since it is another
		{again(runs(11, 0, 10, 1), 11), 1},     // and now it has
		{again(runs(16, 0, 11, 10, 1), 11), 2}, //
		{again(runs(10, 0, 7, 1), 10), 0},      //
		{again(runs(17, 0, 11, 10, 1), 10), 2}, // 11 is the first
		{runs(18, 0, 17, 1), 3},                //
	} {
		if got := d.of(test.s); got != test.want {
			t.Errorf("step %d: depth %d, not %d", i, got, test.want)
		}
	}
}

// As many processes as there are pids are remembered, and of more those that still
// have children.
func TestTreeIsBounded(t *testing.T) {
	var d depths
	if depth := d.of(runs(1, 0)); depth != 0 {
		t.Fatalf("the first process is at depth %d", depth)
	}
	for pid := range uint32(3*maxDepths + 100) {
		if depth := d.of(runs(pid+2, 0, 1)); depth != 1 {
			t.Fatalf("process %d is at depth %d", pid+2, depth)
		}
		if n := len(d.recent) + len(d.older); n > 2*maxDepths {
			t.Fatalf("%d processes are remembered", n)
		}
	}
}
