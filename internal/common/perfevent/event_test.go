package perfevent

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseEvent(t *testing.T) {
	for name, want := range map[string]Event{
		"cpu-clock":  CPUClock,
		"faults":     {"page-faults", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_PAGE_FAULTS},
		"cs":         {"context-switches", unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CONTEXT_SWITCHES},
		"cpu-cycles": {"cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES},
		"r1A8":       {"r1A8", unix.PERF_TYPE_RAW, 0x1a8},
	} {
		if e, err := ParseEvent(name); err != nil || e != want {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	for _, name := range []string{"", "clock", "r", "rxyz", "Cycles", "r11111111111111111"} {
		if e, err := ParseEvent(name); err == nil {
			t.Errorf("%q is %+v", name, e)
		}
	}
	for _, name := range Names() {
		e, err := ParseEvent(name)
		if err != nil || e.Name != name || e.Clock() != (name == "cpu-clock" || name == "task-clock") {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}
