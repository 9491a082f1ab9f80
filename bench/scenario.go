package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// scenario is how one tool is measured. Each tool has a file of its own with one,
// and scenarios lists them.
type scenario struct {
	tool  string // its directory in tools/, and what its peers call it
	event string // one of what it shows, as the tables name it
	load  string // the directory in bench/ of the load's program
	about string // of a load, for the tables; %d is how many events it is
	count int    // that many
	// comm is part of every row of the load, if it is not "".
	comm string
	// arguments are the load's, for the files in p.
	arguments func(b *bench, p paths) []string
	// prepare makes the files that the load needs, if it needs any.
	prepare func(p paths) error
	// name gives what stands for a name in paths; nil for a file of that name.
	name func(name string) string
	// row gives that part of a row which ends in one of paths, and how many events the
	// row stands for; nil where that is the whole row, and one.
	row func(line []byte) (what []byte, events int64)
	// counted gives how many events a line of output stands for, of a tool that counts
	// them: it tells neither which they are nor, till it is told to end, how many. nil
	// for others.
	counted func(line []byte) int64
	// rates are those, in Hertz, at which a tool that samples is measured, and depths, in
	// frames of the load's stack, for what a sample takes. nil for others.
	rates, depths []int
	// files is where the load's files are made; "" for the temporary directory.
	files string
	// own are the ways in which gobcc's tool is measured.
	own []way
	// peerOptions are what the peers are called with, by their keys. bpftrace gets the
	// script with the tool's name if there are none for it.
	peerOptions map[string][]string

	unit    string  // of times for an event
	unitNS  float64 // in nanoseconds
	decimal string  // how they are printed

	hard hard

	// The most that the tool may cost.
	addedOfLibbpf float64 // time an event, of what libbpf-tools' adds
	cpuOfLibbpf   float64 // CPU time a row, of libbpf-tools'; 0 for no limit
	// Run time of its programs an event, by the kernel's statistics, of libbpf-tools'.
	programsOfLibbpf float64
	addedOfBare      float64 // time an event, of the bare event, where libbpf-tools' does not run; 0 for no limit
	mapMemory        float64 // KB of BPF maps beside buffers; 0 for no limit

	needKprobes bool   // the peers do, so that it is no failure where they don't run for that
	packets     string // the way which may cost packets something; "" for none
}

// one is an event, with its article.
func (s *scenario) one() string {
	if strings.HasPrefix(s.event, "o") || strings.HasPrefix(s.event, "e") {
		return "an " + s.event
	}
	return "a " + s.event
}

// samples reports whether the tool does so, and has no events that are the load's.
func (s *scenario) samples() bool { return s.rates != nil }

// peers are the keys of those that are missing where they can't be measured.
func (s *scenario) peers() []string {
	if s.samples() {
		return []string{"libbpf", "bpftrace", "perf"}
	}
	return []string{"libbpf", "bpftrace"}
}

// first is what a tracer's start ends with, but for its own word of readiness.
func (s *scenario) first() string {
	if s.counted != nil {
		return "first count"
	}
	return "first row"
}

// way is one way to call a tool.
type way struct {
	name    string // as the tables name it behind gobcc's, as "-x"
	options []string
	load    []string // more of the load's arguments
	none    bool     // by its options it shows none of the load's events
}

// hard is what makes it hard for a tracer, in rounds of their own.
type hard struct {
	title   string
	spin    bool // every CPU is kept busy
	parents int  // that many processes make the load at once, on any CPU
}

var scenarios = []*scenario{&opensnoop, &execsnoop, &tcpconnect, &biolatency, &profile}

// toolNames are those of scenarios.
func toolNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.tool)
	}
	return names
}

func scenarioOf(tool string) *scenario {
	i := slices.IndexFunc(scenarios, func(s *scenario) bool { return s.tool == tool })
	if i < 0 {
		return nil
	}
	return scenarios[i]
}

// close removes the files of the load; what else there is goes with the bench's.
func (b *bench) close() { _ = os.RemoveAll(b.files) }

// newBench makes ready for a scenario below dir: it builds the load, and makes its
// files.
func newBench(ctx context.Context, o options, s *scenario, dir string) (*bench, error) {
	b := &bench{scenario: s, dir: filepath.Join(dir, s.tool), cpu: o.cpu}
	b.load = filepath.Join(b.dir, s.load)
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		return nil, err
	}
	b.files = b.dir
	if s.files != "" {
		if b.files, err = os.MkdirTemp(s.files, "gobcc-bench-"); err != nil {
			return nil, err
		}
	}
	if s.prepare != nil {
		if err := s.prepare(b.paths()); err != nil {
			b.close()
			return nil, fmt.Errorf("make the files of the load: %w", err)
		}
	}
	if err := goBuild(ctx, b.load, "./bench/"+s.load); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}
