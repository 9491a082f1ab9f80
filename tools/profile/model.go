package main

import (
	"slices"
	"time"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// report is what a run found: the samples, counted by stack, and what became of those
// that are in none. All outputs are made of one report and nothing else.
type report struct {
	Command  []string // the tool's command line
	Version  string   // the tool's
	Kernel   string   // release
	CPUs     int      // that were sampled
	Event    string   // cpu-clock, cycles, …
	Unit     string   // of Period: nanoseconds for clocks, else count
	Period   uint64   // between two samples of a CPU, in Unit
	Hertz    uint64   // 0 if a period was asked for
	Start    time.Time
	Duration time.Duration
	Header   string // what the text begins with

	Totals  totals
	Files   []*mapped // those that frames are in, in the order of first use
	Stacks  []*stack  // sorted by comm, pid, tid and frames, so that equal runs give equal bytes
	Moments []moment  // each sample, in the order of time; only kept if an output wants them
}

// totals account for every sample: Taken = Shown + Idle + Filtered + the sum of Lost.
type totals struct {
	Taken, Shown, Idle, Filtered uint64
	Lost                         map[string]uint64 // by cause
	Possibly                     uint64            // lost, or of nobody's interest: the kernel doesn't tell
	Throttled                    uint64            // times that the kernel held back the sampling
	Unwinds                      map[status]uint64 // samples shown, by how the user stack was
}

// process is one that samples are of. One that executes another program stays the
// same, with its last Exe.
type process struct {
	PID       uint32
	Comm      string // of its main thread
	Exe       string // path, or empty for the kernel's own
	Cgroup    string // path
	CgroupID  uint64
	Container string // id, or empty
	Kernel    bool   // a kernel thread
}

// stack is a stack that samples found, with the thread whose it was.
type stack struct {
	Process *process
	TID     uint32
	Comm    string   // of the thread, when sampled
	Kernel  []*frame // leaf first
	User    []*frame // leaf first
	Status  status
	Count   uint64
	Events  uint64 // how much of the event the samples stand for: the sum of their periods

	number int    // of its first sight
	next   *stack // that has the same hash, while they are counted
}

// frame is an address of a stack and what is known of it. Equal ones are the same.
type frame struct {
	Kind kind
	File *mapped // nil if it is in none
	// Address is as sampled for the kernel and for code in no file; for code in a file
	// it is the file's own (ELF virtual address), so that the same code has the same
	// address in all processes. That of a caller is its return address less 1.
	Address uint64
	// Lines are the functions here, the innermost first: all but the last are inlined
	// into the next one. There is always one; where no symbol is known, its name
	// says what is: [libfoo.so+0x1234], [anon], [unknown].
	Lines []symbols.Line
}

// kind tells frames apart: by colour, and by suffix with --annotations.
type kind uint8

const (
	kindUser kind = iota
	kindKernel
	kindJIT
	kindUnknown // an address that nothing is known of
)

// mapped is a file, or what stands for one, that code was mapped from.
type mapped struct {
	Path    string // as its process sees it; [kernel.kallsyms], [vdso]
	BuildID string // hexadecimal; empty if it has none
	// Start, Limit and Offset are those of the segment with the code, in the file's own
	// addresses (Start rounded down to a page).
	Start, Limit, Offset                        uint64
	Symbols, SourceFiles, LineNumbers, Inlining bool // what its frames have
}

// moment is one sample.
type moment struct {
	Time   uint64 // nanoseconds of CLOCK_MONOTONIC
	Period uint64 // of the event, since the sample before
	CPU    uint32
	Stack  *stack
}

// status is how the user stack of a sample came out.
type status uint8

// Those of enum user_status in user_stack.bpf.h.
const (
	statusNone          status = iota // not asked for, or none: a kernel thread
	statusFramePointers               // by frame pointers: what has none is missing, unnoticed
	statusDepth                       // cut at the greatest depth
	statusFault                       // could not be read
	statusComplete                    // to the root
	statusGuessed                     // to the root, in part by frame pointers that may be none
	statusNoMapping                   // cut where nothing is known to be mapped
	statusNoTable                     // cut in a file that has no table, or whose table is not there yet
	statusNoRule                      // cut where the table has no rule
	statusBroken                      // cut where it went astray
	status32Bit                       // of a 32-bit program: by frame pointers
	statusLeaf                        // no more was asked for
	statusBudget                      // by frame pointers, as more copies were made than may be
	statusCopyEnd                     // cut at the end of what was copied
	statuses
)

// cut reports whether the root of a stack is missing, as far as is known.
func (s status) cut() bool {
	switch s {
	case statusNone, statusFramePointers, statusComplete, statusGuessed, statusLeaf:
		return false
	}
	return true
}

// truncated stands in place of the root of a stack that is cut, so that in no flame graph the
// frame where it was cut seems to be one.
var truncated = &frame{Kind: kindUnknown, Lines: []symbols.Line{{Function: "[truncated]"}}}

// user gives the frames of user space as they are to be shown in trees, the leaf first.
func (s *stack) user() []*frame {
	if s.Status.cut() {
		return append(slices.Clip(s.User), truncated)
	}
	return s.User
}
