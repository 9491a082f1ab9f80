package main

import (
	"strings"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/cli"
)

func TestSummary(t *testing.T) {
	p := &session{engine: testEngine(), sampled: 20 * time.Second}
	defer p.engine.close()
	r := testReport()
	const rest = ", of 2 CPUs in 10s (300.0 a second and CPU): 5245 shown, 700 idle, 32 filtered, 23 lost" +
		"; the kernel held back the sampling 2 times; 1 user stacks were cut at the greatest depth; 5 user stacks could not be read"
	for _, test := range []struct {
		event, unit   string
		hertz, period uint64
		want          string
	}{
		{"cpu-clock", "nanoseconds", 49, 20408163, "6000 samples by cpu-clock at 49 Hertz"},
		{"cpu-clock", "nanoseconds", 0, 1000000, "6000 samples by cpu-clock every 1000000 nanoseconds"},
		{"cycles", "count", 49, 0, "6000 samples by cycles at 49 Hertz"},
		{"cycles", "count", 0, 1000000, "6000 samples by cycles, one in 1000000 of them"},
		{"page-faults", "count", 0, 1, "6000 samples by page-faults, at each of them"},
	} {
		r.Event, r.Unit, r.Hertz, r.Period = test.event, test.unit, test.hertz, test.period
		if got := p.summary(r); got != test.want+rest {
			t.Errorf("got  %s\nwant %s", got, test.want+rest)
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
