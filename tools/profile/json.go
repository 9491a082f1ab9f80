package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/gobcc/gobcc/internal/common/output"
)

// String is the name of a status in pprof's labels and in JSON.
func (s status) String() string {
	if s < statuses {
		return [statuses]string{
			"none", "frame-pointers", "depth", "fault", "complete", "guessed", "no-mapping", "no-table", "no-rule", "broken",
			"32-bit", "leaf", "budget", "copy-end",
		}[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// String is the name of a kind in JSON.
func (k kind) String() string {
	if k <= kindUnknown {
		return [...]string{"user", "kernel", "jit", "unknown"}[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// writeJSON writes an object a stack, and one of the run as the last.
func writeJSON(out io.Writer, r *report) error {
	w := output.NewWriter(out)
	for _, s := range r.Stacks {
		o := output.Begin(w.Row())
		o.String("kind", "stack")
		o.Uint("count", s.Count)
		o.Uint("pid", uint64(s.Process.PID))
		o.Uint("tid", uint64(s.TID))
		o.Str("comm", []byte(s.Comm))
		o.Str("process_comm", []byte(s.Process.Comm))
		jsonOrNull(&o, "exe", s.Process.Exe)
		o.Uint("cgroup_id", s.Process.CgroupID)
		jsonOrNull(&o, "cgroup", s.Process.Cgroup)
		jsonOrNull(&o, "container", s.Process.Container)
		o.Bool("kernel_thread", s.Process.Kernel)
		o.String("unwind", s.Status.String())
		jsonFrames(&o, "kernel_stack", s.Kernel)
		jsonFrames(&o, "user_stack", s.User)
		if err := w.EndRow(o.End()); err != nil {
			return err
		}
	}
	o := output.Begin(w.Row())
	o.String("kind", "run")
	o.Time("time", r.Start.UnixNano())
	o.Int("duration_ns", r.Duration.Nanoseconds())
	command := make([][]byte, len(r.Command))
	for i, arg := range r.Command {
		command[i] = []byte(arg)
	}
	o.Strings("command", command)
	o.String("version", r.Version)
	o.String("kernel", r.Kernel)
	o.Int("cpus", int64(r.CPUs))
	o.String("event", r.Event)
	o.String("unit", r.Unit)
	o.Uint("period", r.Period)
	o.Uint("hertz", r.Hertz)
	t := &r.Totals
	o.Uint("taken", t.Taken)
	o.Uint("shown", t.Shown)
	o.Uint("idle", t.Idle)
	o.Uint("filtered", t.Filtered)
	lost := uint64(0)
	for _, n := range t.Lost {
		lost += n
	}
	o.Uint("lost", lost)
	o.Uint("possibly_lost", t.Possibly)
	o.Object("causes")
	for _, cause := range slices.Sorted(maps.Keys(t.Lost)) {
		o.Uint(cause, t.Lost[cause])
	}
	o.Close()
	o.Uint("throttled", t.Throttled)
	o.Object("unwinds")
	for s := range statuses {
		if n := t.Unwinds[s]; n > 0 {
			o.Uint(s.String(), n)
		}
	}
	o.Close()
	if err := w.EndRow(o.End()); err != nil {
		return err
	}
	return w.Flush()
}

// jsonFrames writes functions, the leaf first, with those that were inlined.
func jsonFrames(o *output.Object, key string, frames []*frame) {
	o.Array(key)
	for _, f := range frames {
		for i, l := range f.Lines {
			o.Object("")
			o.Str("function", []byte(l.Function))
			if l.Linkage != "" && l.Linkage != l.Function {
				o.Str("linkage", []byte(l.Linkage))
			}
			o.String("type", f.Kind.String())
			o.Bool("inlined", i < len(f.Lines)-1)
			// A number of so many bits is more than many readers of JSON have room for.
			o.String("address", fmt.Sprintf("%#x", f.Address))
			if f.File != nil {
				o.Str("file", []byte(f.File.Path))
				if f.File.BuildID != "" {
					o.String("build_id", f.File.BuildID)
				}
			}
			if l.File != "" {
				o.Str("source", []byte(l.File))
				o.Int("line", int64(l.Line))
			}
			o.Close()
		}
	}
	o.Close()
}

func jsonOrNull(o *output.Object, key, value string) {
	if value == "" {
		o.Null(key)
		return
	}
	o.Str(key, []byte(value))
}
