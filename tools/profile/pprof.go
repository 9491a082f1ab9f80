package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/gobcc/gobcc/internal/common/output"
)

// writePprof writes the report as pprof has it, compressed.
func writePprof(w io.Writer, r *report) error {
	if err := pprofOf(r).Write(w); err != nil {
		return fmt.Errorf("write the profile for pprof: %w", err)
	}
	return nil
}

// pprofOf makes a profile of a report. Its strings are escaped, since pprof prints them
// as they are, and since other readers take nothing but UTF-8.
func pprofOf(r *report) *profile.Profile {
	p := &profile.Profile{
		SampleType:    []*profile.ValueType{{Type: "samples", Unit: "count"}},
		TimeNanos:     r.Start.UnixNano(),
		DurationNanos: r.Duration.Nanoseconds(),
		Comments:      comments(r),
	}
	value := profile.ValueType{Type: r.Event, Unit: r.Unit}
	if r.Unit == "nanoseconds" {
		value.Type = "cpu"
	}
	p.PeriodType, p.Period = &value, int64(r.Period)
	p.SampleType = append(p.SampleType, &profile.ValueType{Type: value.Type, Unit: value.Unit})
	b := pprofBuilder{p: p,
		mappings: map[*mapped]*profile.Mapping{}, locations: map[*frame]*profile.Location{}, functions: map[function]*profile.Function{}}
	for _, m := range mainFirst(r) {
		b.mapping(m)
	}
	for _, s := range r.Stacks {
		events := s.Count * r.Period
		// At a frequency of events that are no clock's the kernel changes the period all
		// the time.
		if r.Period == 0 {
			events = s.Events
		}
		sample := &profile.Sample{Value: []int64{int64(s.Count), int64(events)}, Label: labels(s),
			NumLabel: map[string][]int64{"pid": {int64(s.Process.PID)}, "tid": {int64(s.TID)}}}
		for _, frames := range [][]*frame{s.Kernel, s.user()} {
			for _, f := range frames {
				sample.Location = append(sample.Location, b.location(f))
			}
		}
		p.Sample = append(p.Sample, sample)
	}
	return p
}

// mainFirst gives the files, with the program that has the most samples first: pprof
// takes the first mapping for the program that the profile is of.
func mainFirst(r *report) []*mapped {
	counts := map[string]uint64{}
	for _, s := range r.Stacks {
		counts[s.Process.Exe] += s.Count
	}
	main, most := 0, uint64(0)
	for i, m := range r.Files {
		if n := counts[m.Path]; n > most {
			main, most = i, n
		}
	}
	if most == 0 {
		return r.Files
	}
	return slices.Concat(r.Files[main:main+1], r.Files[:main], r.Files[main+1:])
}

// labels are what pprof can take samples apart by: -tagroot comm, -tagfocus pid=1.
func labels(s *stack) map[string][]string {
	all := map[string][]string{"unwind": {s.Status.String()}}
	comm := s.Process.Comm
	if comm == "" {
		comm = s.Comm
	}
	for key, value := range map[string]string{
		"comm": comm, "thread": s.Comm, "exe": s.Process.Exe, "cgroup": s.Process.Cgroup, "container": s.Process.Container,
	} {
		if value != "" {
			all[key] = []string{escaped(value)}
		}
	}
	return all
}

// comments are for people.
func comments(r *report) []string {
	t := &r.Totals
	list := []string{
		"command: " + escaped(strings.Join(r.Command, " ")),
		"version: " + escaped(r.Version),
		"kernel: " + escaped(r.Kernel),
		fmt.Sprintf("sampled: %s on %d CPUs", escaped(r.Event), r.CPUs),
		fmt.Sprintf("samples: %d taken, %d shown, %d idle, %d filtered", t.Taken, t.Shown, t.Idle, t.Filtered),
	}
	for _, cause := range slices.Sorted(maps.Keys(t.Lost)) {
		if n := t.Lost[cause]; n > 0 {
			list = append(list, fmt.Sprintf("lost: %d (%s)", n, escaped(cause)))
		}
	}
	if t.Possibly > 0 {
		list = append(list, fmt.Sprintf("possibly lost: %d", t.Possibly))
	}
	if t.Throttled > 0 {
		list = append(list, fmt.Sprintf("throttled: %d times", t.Throttled))
	}
	return list
}

// function is what tells functions apart.
type function struct {
	name, linkage, file string
	line                int
}

// pprofBuilder gives each file, frame and function its one place in the profile.
type pprofBuilder struct {
	p         *profile.Profile
	mappings  map[*mapped]*profile.Mapping
	locations map[*frame]*profile.Location
	functions map[function]*profile.Function
}

func (b *pprofBuilder) mapping(m *mapped) *profile.Mapping {
	if m == nil {
		return nil
	}
	if found := b.mappings[m]; found != nil {
		return found
	}
	// Addresses are the file's own, so that pprof finds nothing to relocate.
	made := &profile.Mapping{
		ID: uint64(len(b.p.Mapping) + 1), Start: m.Start, Limit: m.Limit, Offset: m.Offset,
		File: escaped(m.Path), BuildID: m.BuildID,
		HasFunctions: m.Symbols, HasFilenames: m.SourceFiles, HasLineNumbers: m.LineNumbers, HasInlineFrames: m.Inlining,
	}
	b.p.Mapping = append(b.p.Mapping, made)
	b.mappings[m] = made
	return made
}

func (b *pprofBuilder) location(f *frame) *profile.Location {
	if found := b.locations[f]; found != nil {
		return found
	}
	made := &profile.Location{ID: uint64(len(b.p.Location) + 1), Address: f.Address, Mapping: b.mapping(f.File)}
	for _, l := range f.Lines {
		fn := b.function(function{escaped(l.Function), escaped(l.Linkage), escaped(l.File), l.StartLine})
		made.Line = append(made.Line, profile.Line{Function: fn, Line: int64(l.Line)})
	}
	b.p.Location = append(b.p.Location, made)
	b.locations[f] = made
	return made
}

func (b *pprofBuilder) function(f function) *profile.Function {
	if found := b.functions[f]; found != nil {
		return found
	}
	made := &profile.Function{
		ID: uint64(len(b.p.Function) + 1), Name: f.name, SystemName: f.linkage, Filename: f.file, StartLine: int64(f.line),
	}
	if made.SystemName == "" {
		made.SystemName = made.Name
	}
	b.p.Function = append(b.p.Function, made)
	b.functions[f] = made
	return made
}

// escaped makes a string of others' harmless.
func escaped(s string) string { return string(output.AppendEscaped(nil, []byte(s))) }
