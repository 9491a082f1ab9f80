package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// maxCounts bounds the pairs of process and path that a summary tells apart.
// Those that come after are counted together.
const maxCounts = 200_000

// counted is a line of the summary: a process and a path.
type counted struct {
	pid  uint32
	comm string
	path string // escaped

	opens, failed uint64
	total, max    uint64 // latency in ns
	timed         uint64 // opens of which the latency is known
}

type countKey struct {
	pid        uint32
	comm, path string
}

// counts is a summary in the making.
type counts struct {
	lines  map[countKey]*counted
	others *counted // what no longer had a line of its own
	key    []byte
}

// add counts an open of the path that would stand in its row.
func (c *counts) add(o *opened, path []byte, text string) {
	if c.lines == nil {
		c.lines = map[countKey]*counted{}
	}
	c.key = appendPath(c.key[:0], o, path, text)
	key := countKey{o.Pid, string(o.comm()), string(c.key)}
	line := c.lines[key]
	if line == nil {
		line = &counted{pid: o.Pid, comm: key.comm, path: key.path}
		if len(c.lines) < maxCounts {
			c.lines[key] = line
		} else {
			if c.others == nil {
				c.others = &counted{path: "<others>"}
			}
			line = c.others
		}
	}
	line.opens++
	if o.Ret < 0 {
		line.failed++
	}
	if o.LatencyNs > 0 {
		line.timed++
		line.total += o.LatencyNs
		line.max = max(line.max, o.LatencyNs)
	}
}

// sorted gives the lines, most opens first.
func (c *counts) sorted() []*counted {
	lines := make([]*counted, 0, len(c.lines)+1)
	for _, line := range c.lines {
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b *counted) int {
		return cmp.Or(cmp.Compare(b.opens, a.opens), cmp.Compare(b.failed, a.failed),
			cmp.Compare(a.path, b.path), cmp.Compare(a.comm, b.comm), cmp.Compare(a.pid, b.pid))
	})
	if c.others != nil {
		lines = append(lines, c.others)
	}
	return lines
}

// finish writes the summary, if that was asked for.
func (p *printer) finish(r *trace.Run) error {
	if n := len(p.pending); n > 0 {
		r.Say(fmt.Sprintf("%d opens through io_uring were not seen to end", n))
	}
	if !p.opts.summary {
		return nil
	}
	return p.counts.write(r.Out)
}

func (c *counts) write(w *output.Writer) error {
	if err := w.EndRow(append(w.Row(), "   OPENS   FAILED   AVG(us)   MAX(us) PID    COMM             PATH\n"...)); err != nil {
		return err
	}
	for _, line := range c.sorted() {
		dst := w.Row()
		dst = append(output.AppendUint(dst, line.opens, 8), ' ')
		dst = append(output.AppendUint(dst, line.failed, 8), ' ')
		if line.timed == 0 {
			dst = append(dst, "        ?         ? "...)
		} else {
			dst = append(output.AppendDuration(dst, int64(line.total/line.timed), time.Microsecond, 1, 9), ' ')
			dst = append(output.AppendDuration(dst, int64(line.max), time.Microsecond, 1, 9), ' ')
		}
		dst = append(output.AppendUint(dst, uint64(line.pid), -6), ' ')
		dst = append(output.AppendPadded(dst, []byte(line.comm), commWidth), ' ')
		dst = append(append(dst, line.path...), '\n')
		if err := w.EndRow(dst); err != nil {
			return err
		}
	}
	return nil
}
