package attach

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// How many times a program that may have spares is attached. The kernel skips a program
// on a CPU where it runs already: where some task was preempted in it, as may happen in
// fentry programs since 5.12 and in those on tracepoints since 7.0, or where an interrupt
// came while it ran. A copy of it is another program, so that an event is missed
// only if tasks were preempted in all of them, on one CPU at the same time. An
// interrupt finds one copy busy at most.
const (
	copies       = 4
	copiesNested = 2
)

// copiesOf gives how many times each of the chosen programs is attached that is so more
// than once.
func (k *Kernel) copiesOf(spec *ebpf.CollectionSpec, c *Choice, chosen []string) map[string]int {
	counts := map[string]int{}
	for _, name := range c.Repeatable {
		p, err := k.program(spec, name)
		if err != nil || !slices.Contains(chosen, p.Name) {
			continue
		}
		preempted := k.preempts
		if kindOfProgram(p) == diagnose.RawTracepoint {
			preempted = k.PreemptsTracepoints()
		}
		switch {
		case preempted:
			counts[p.Name] = copies
		case slices.Contains(c.Nested, name):
			counts[p.Name] = copiesNested
		}
	}
	return counts
}

// What stands in a program for its number among its copies, and for how many there are;
// see bpf/headers/copies.bpf.h.
const (
	copyMarker   = 0x6f6e79706f635f5f
	copiesMarker = 0x736569706f635f5f
)

// number tells a program which of how many copies it is: 0 for itself, and from 1 on
// for spares.
func number(p *ebpf.ProgramSpec, n, of int) {
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		switch {
		case !ins.OpCode.IsDWordLoad():
		case ins.Constant == copyMarker:
			ins.Constant = int64(n)
		case ins.Constant == copiesMarker:
			ins.Constant = int64(of)
		}
	}
}

// addSpares adds copies of the programs that may have some to spec, and numbers them.
func addSpares(spec *ebpf.CollectionSpec, results []Result) {
	for _, r := range results {
		for name, n := range r.copies {
			for i := 2; i <= n; i++ {
				spare := spec.Programs[name].Copy()
				spare.Name = fmt.Sprintf("%s.%d", name, i)
				number(spare, i-1, n)
				spec.Programs[spare.Name] = spare
			}
			number(spec.Programs[name], 0, n)
		}
	}
	for _, p := range spec.Programs {
		number(p, 0, 1) // those that have a number already have no marker left
	}
}

// original is the name of the program that a program is a spare of, or its own.
func original(name string) string {
	name, _, _ = strings.Cut(name, ".")
	return name
}

// A Count is the kernel's account of a program and its spares.
type Count struct {
	Copies  int    // 1 if it has no spares
	Runs    uint64 // of the copy that ran most often; 0 unless statistics are on
	Runtime time.Duration
	// Missed is how many events it was skipped for at most, with all its spares: one
	// copy that ran is enough.
	Missed uint64
}

// add takes another copy into account.
func (c Count) add(s *ebpf.ProgramStats) Count {
	missed := s.RecursionMisses
	if c.Copies > 0 {
		missed = min(missed, c.Missed)
	}
	return Count{c.Copies + 1, max(c.Runs, s.RunCount), c.Runtime + s.Runtime, missed}
}

// Counts gives the accounts of the programs by name.
func (s *Set) Counts() (map[string]Count, error) {
	counts := map[string]Count{}
	var errs []error
	for name, p := range s.Programs {
		stats, err := p.Stats()
		if err != nil {
			errs = append(errs, fmt.Errorf("read the account of program %s: %w", name, err))
			continue
		}
		counts[original(name)] = counts[original(name)].add(stats)
	}
	return counts, errors.Join(errs...)
}

// Missed is how many times at most the kernel did not run a program, nor any spare
// of it, because all were running already on that CPU: tasks were preempted in them
// (since 5.12; before, the kernel does not tell). None is certain to be an event
// missed: the program might have had nothing to report, since the task that it was
// skipped for may be one that no filter lets through. A kretprobe that was skipped
// is found out otherwise, by the call that has begun and not ended.
func (s *Set) Missed() uint64 {
	counts, _ := s.Counts() // what can't be read is not known to be missed
	return missed(counts)
}

func missed(counts map[string]Count) uint64 {
	var n uint64
	for name, c := range counts {
		if !strings.HasSuffix(name, "_kretprobe") && !strings.HasSuffix(name, calledSuffix) {
			n += c.Missed
		}
	}
	return n
}
