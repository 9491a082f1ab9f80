package main

import (
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/cli"
)

// TestSummaryEvents has the summary say how samples were taken.
func TestSummaryEvents(t *testing.T) {
	p := &session{engine: testEngine()}
	defer p.engine.close()
	r := testReport()
	for _, test := range []struct {
		event, unit   string
		hertz, period uint64
		want          string
	}{
		{"cpu-clock", "nanoseconds", 49, 20408163, "6000 samples by cpu-clock at 49 Hertz, of 2 CPUs"},
		{"cpu-clock", "nanoseconds", 0, 1000000, "6000 samples by cpu-clock every 1000000 nanoseconds, of 2 CPUs"},
		{"cycles", "count", 49, 0, "6000 samples by cycles at 49 Hertz, of 2 CPUs"},
		{"cycles", "count", 0, 1000000, "6000 samples by cycles, one in 1000000 of them, of 2 CPUs"},
		{"page-faults", "count", 0, 1, "6000 samples by page-faults, at each of them, of 2 CPUs"},
	} {
		r.Event, r.Unit, r.Hertz, r.Period = test.event, test.unit, test.hertz, test.period
		if got := p.summary(r); !strings.HasPrefix(got, test.want) {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// TestEvents has each event's report say what it counts in.
func TestEvents(t *testing.T) {
	for args, want := range map[string]report{
		"":                         {Event: "cpu-clock", Unit: "nanoseconds", Period: 20408163, Hertz: 49},
		"-F99":                     {Event: "cpu-clock", Unit: "nanoseconds", Period: 10101010, Hertz: 99},
		"-c1000000":                {Event: "cpu-clock", Unit: "nanoseconds", Period: 1000000},
		"-ecycles":                 {Event: "cycles", Unit: "count", Hertz: 49},
		"-ecpu-cycles -c1000000":   {Event: "cycles", Unit: "count", Period: 1000000},
		"-einstructions -F99":      {Event: "instructions", Unit: "count", Hertz: 99},
		"-er1a8 -c23":              {Event: "r1a8", Unit: "count", Period: 23},
		"-efaults -c1":             {Event: "page-faults", Unit: "count", Period: 1},
		"-etask-clock":             {Event: "task-clock", Unit: "nanoseconds", Period: 20408163, Hertz: 49},
		"-ecache-misses -c 100000": {Event: "cache-misses", Unit: "count", Period: 100000},
	} {
		p := &session{opts: optionsOf(t, strings.Fields(args)...), env: &cli.Env{Name: "profile"}}
		got := p.report()
		if got.Event != want.Event || got.Unit != want.Unit || got.Period != want.Period || got.Hertz != want.Hertz {
			t.Errorf("%q: %s in %s, period %d, %d Hertz", args, got.Event, got.Unit, got.Period, got.Hertz)
		}
	}
}
