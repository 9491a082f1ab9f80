package main

import (
	"strings"

	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/output"
)

func (l *line) comm() []byte { return events.CString(l.Comm[:]) }

// appendJSON appends a table as JSON objects; manual.go describes the keys.
func (p *printer) appendJSON(dst []byte, t *table) []byte {
	for _, l := range t.lines {
		for phase := range l.phases {
			dst = p.appendHistogramJSON(dst, t, l, phase)
		}
	}
	for _, f := range t.failed {
		j := output.Begin(dst)
		j.Time("time", t.time.UnixNano())
		j.String("kind", "error")
		j.Int("interval_ns", int64(t.took))
		diskJSON(&j, f.disk)
		j.String("error", f.error)
		j.Uint("count", f.count)
		dst = j.End()
	}
	return dst
}

func diskJSON(j *output.Object, name []byte) {
	if len(name) == 0 {
		j.Null("disk")
	} else {
		j.Str("disk", name)
	}
}

func (p *printer) appendHistogramJSON(dst []byte, t *table, l *line, phase int) []byte {
	j := output.Begin(dst)
	j.Time("time", t.time.UnixNano())
	j.String("kind", "histogram")
	j.Int("interval_ns", int64(t.took))
	if p.opts.by.disk {
		diskJSON(&j, l.disk)
	}
	if p.opts.by.op {
		j.String("op", strings.ToLower(p.operations.op(l.OpFlags)))
		j.Array("flags")
		for _, name := range p.operations.set(l.OpFlags) {
			j.String("", strings.ToLower(name))
		}
		j.Close()
	}
	if p.opts.by.cgroup {
		j.Uint("cgroup_id", l.CgroupId)
	}
	if p.opts.by.comm {
		j.Str("comm", l.comm())
	}
	c := &l.phases[phase]
	j.String("phase", p.opts.phases()[phase])
	j.String("unit", "ns")
	j.Uint("count", c.Count)
	j.Uint("sum", c.Sum)
	j.Uint("min", c.Min)
	j.Uint("max", c.Max)
	for _, q := range quantiles {
		j.Uint(q.key, c.Quantile(q.share))
	}
	j.Uint("errors", c.Errors)
	j.Array("buckets")
	for _, b := range c.Buckets() {
		j.Object("")
		j.Uint("le", b.Le)
		j.Uint("count", b.Count)
		j.Close()
	}
	j.Close()
	return j.End()
}
