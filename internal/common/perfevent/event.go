// Package perfevent takes samples by the kernel's performance events, and reads what the
// kernel tells of processes beside them.
package perfevent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Event is something that the kernel or the processor counts.
type Event struct {
	Name   string // as perf calls it: "cpu-clock"
	Type   uint32 // PERF_TYPE_
	Config uint64
}

// events are those of perf that need no description of the processor, with perf's other
// names for them.
var events = []struct {
	Event
	alias string
}{
	{Event{"cpu-clock", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_CLOCK}, ""},
	{Event{"task-clock", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_TASK_CLOCK}, ""},
	{Event{"page-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_PAGE_FAULTS}, "faults"},
	{Event{"minor-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_PAGE_FAULTS_MIN}, ""},
	{Event{"major-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ}, ""},
	{Event{"context-switches", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CONTEXT_SWITCHES}, "cs"},
	{Event{"cpu-migrations", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_MIGRATIONS}, "migrations"},
	{Event{"alignment-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_ALIGNMENT_FAULTS}, ""},
	{Event{"emulation-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_EMULATION_FAULTS}, ""},
	{Event{"cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES}, "cpu-cycles"},
	{Event{"instructions", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_INSTRUCTIONS}, ""},
	{Event{"cache-references", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CACHE_REFERENCES}, ""},
	{Event{"cache-misses", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CACHE_MISSES}, ""},
	{Event{"branches", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_BRANCH_INSTRUCTIONS}, "branch-instructions"},
	{Event{"branch-misses", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_BRANCH_MISSES}, ""},
	{Event{"bus-cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_BUS_CYCLES}, ""},
	{Event{"stalled-cycles-frontend", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_STALLED_CYCLES_FRONTEND}, "idle-cycles-frontend"},
	{Event{"stalled-cycles-backend", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_STALLED_CYCLES_BACKEND}, "idle-cycles-backend"},
	{Event{"ref-cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_REF_CPU_CYCLES}, ""},
}

// CPUClock is the event that every machine has: a timer on each CPU.
var CPUClock = events[0].Event

// Names are the names of all events that [ParseEvent] knows, but for their other names.
func Names() []string {
	var names []string
	for _, e := range events {
		names = append(names, e.Name)
	}
	return names
}

// ParseEvent gives the event that perf has this name for. rHEX is the processor's own event
// with that code.
func ParseEvent(name string) (Event, error) {
	for _, e := range events {
		if name == e.Name || name != "" && name == e.alias {
			return e.Event, nil
		}
	}
	if hex, ok := strings.CutPrefix(name, "r"); ok {
		if config, err := strconv.ParseUint(hex, 16, 64); err == nil {
			return Event{name, unix.PERF_TYPE_RAW, config}, nil
		}
	}
	return Event{}, fmt.Errorf("there is no event %q: %s, or rHEX", name, strings.Join(Names(), ", "))
}

// Clock reports whether the event counts nanoseconds.
func (e Event) Clock() bool {
	clocks := []uint64{unix.PERF_COUNT_SW_CPU_CLOCK, unix.PERF_COUNT_SW_TASK_CLOCK}
	return e.Type == unix.PERF_TYPE_SOFTWARE && slices.Contains(clocks, e.Config)
}

// Unit is what the event counts in, for people: nanoseconds, or times.
func (e Event) Unit() string {
	if e.Clock() {
		return "nanoseconds"
	}
	return "count"
}
