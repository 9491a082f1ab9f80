package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// What gobcc's tool that samples is to reach.
const (
	firstSampleLimit = 500.0  // ms, from its exec
	outputLimit      = 1000.0 // ms, from the end of sampling
	residentLimit    = 100.0  // MB
)

// sampleTimeLimits are for a sample of sampleDepth frames, in nanoseconds, by rate.
var sampleTimeLimits = []struct {
	hertz int
	ns    float64
}{{99, 20_000}, {999, 10_000}}

const sampleDepth = 32

// each gives a figure of each of the runs with a load.
func (s series) each(f func(r run) float64) (all figures) {
	for _, r := range s.runs {
		all = append(all, f(r))
	}
	return all
}

// ofBareCPU is by how much more CPU time a load took than without a tracer, as a
// percentage.
func (s series) ofBareCPU() (all figures) {
	for i, r := range s.runs {
		all = append(all, 100*float64(r.load.busy-s.bare[i].busy)/float64(s.bare[i].busy))
	}
	return all
}

// ofDue is which percentage of the samples due there were: one for each period of the
// load's CPU time.
func (s series) ofDue() figures {
	return s.each(func(r run) float64 {
		return 100 * float64(r.shown) / (r.load.busy.Seconds() * float64(s.tracer.hertz))
	})
}

// withoutStack is the percentage of the samples shown that have no stack.
func (s series) withoutStack() figures {
	return s.each(func(r run) float64 {
		if r.shown == 0 {
			return 0
		}
		return 100 * float64(r.missed) / float64(r.shown)
	})
}

func (s series) saidLostSamples() figures {
	return s.each(func(r run) float64 { return float64(r.lost) })
}

// inMilliseconds gives a time of each run, leaving out what is 0, as it was not measured.
func (s series) inMilliseconds(f func(r run) time.Duration) (all figures) {
	for _, r := range s.runs {
		if took := f(r); took != 0 {
			all = append(all, float64(took)/millisecond)
		}
	}
	return all
}

func (s series) firstSample() figures {
	return s.inMilliseconds(func(r run) time.Duration { return r.first })
}

func (s series) output() figures {
	return s.inMilliseconds(func(r run) time.Duration { return r.output })
}

func (r report) writeDepths(w io.Writer) {
	fmt.Fprintf(w, "\n### %s: BPF time of a sample by the depth of its user stack, ns\n\n", r.scenario.tool)
	fmt.Fprint(w, "| tracer | Hertz |")
	for _, depth := range r.scenario.depths {
		fmt.Fprintf(w, " %d frames |", depth)
	}
	fmt.Fprint(w, "\n|---|---|"+strings.Repeat("---|", len(r.scenario.depths))+"\n")
	for _, c := range r.depths {
		fmt.Fprintf(w, "| %s | %d |", c.tracer.name, c.tracer.hertz)
		for i, ns := range c.ns {
			fmt.Fprintf(w, " %.0f", ns)
			// A tracer that shows the load's stack otherwise has done something else.
			if shown := c.depths[i]; shown != 0 && shown != r.scenario.depths[i] {
				fmt.Fprintf(w, " (it shows %d)", shown)
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
}

func (r report) writeSampled(w io.Writer) {
	var bare figures
	for _, s := range r.quiet {
		for _, b := range s.bare {
			bare = append(bare, float64(b.elapsed))
		}
	}
	fmt.Fprintf(w, "\n### %s: one load, all processes sampled (rounds: %d)\n\n", r.scenario.tool, len(r.quiet[0].runs))
	fmt.Fprintf(w, "Without a tracer a load took %s %s.\n", r.time(bare), r.scenario.unit)
	for _, hertz := range r.scenario.rates {
		fmt.Fprintf(w, "\n| at %d Hertz | load slowed down, %% | of it CPU time | samples shown of those due, %% | of them without a stack, %% |"+
			" said that it lost | tracer's CPU, ms in all | peak memory, MB | beside the ring, MB | BPF maps beside buffers, KB |"+
			" start to ready, ms | start to first sample, ms | end to output, ms |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n", hertz)
		for _, s := range r.quiet {
			if s.tracer.hertz != hertz {
				continue
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", s.tracer.name,
				s.ofBare().text("%.2f"), s.ofBareCPU().text("%.2f"), s.ofDue().text("%.1f"), s.withoutStack().text("%.1f"),
				s.saidLostSamples().text("%.0f"), s.inMilliseconds(func(r run) time.Duration { return r.cpu }).text("%.0f"),
				s.peak().text("%.1f"), s.besideRing().text("%.1f"), s.mapMemory().text("%.0f"),
				s.ready().text("%.0f"), s.firstSample().text("%.0f"), s.output().text("%.0f"))
		}
	}
}

// sampledTargets are targets for a tool that samples, over all rates.
func (r report) sampledTargets() (targets []target) {
	var first, output, memory, lost figures
	for _, s := range r.quiet {
		if s.tracer.name == ownName {
			first, output = append(first, s.firstSample()...), append(output, s.output()...)
			memory, lost = append(memory, s.peak()...), append(lost, s.saidLostSamples()...)
		}
	}
	if len(first) == 0 {
		return nil
	}
	atMost := func(what string, limit, got float64, format string) {
		targets = append(targets, target{what, fmt.Sprintf("at most "+format, limit), fmt.Sprintf(format, got), got <= limit})
	}
	for _, limit := range sampleTimeLimits {
		for _, c := range r.depths {
			i := slices.Index(r.scenario.depths, sampleDepth)
			if c.tracer.name == ownName && c.tracer.hertz == limit.hertz && i >= 0 {
				atMost(fmt.Sprintf("BPF time of a sample of %d frames at %d Hertz, ns", sampleDepth, limit.hertz), limit.ns, c.ns[i], "%.0f")
			}
		}
	}
	atMost("samples lost, as it says, all rounds", 0, slices.Max(lost), "%.0f")
	atMost("start to first sample, ms", firstSampleLimit, first.median(), "%.0f")
	atMost("end to output, ms", outputLimit, slices.Max(output), "%.0f")
	atMost("peak memory, MB", residentLimit, slices.Max(memory), "%.1f")
	return targets
}
