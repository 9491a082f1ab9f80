package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/summary"
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
	lines summary.Lines[countKey, counted]
	key   []byte
}

// add counts an open of the path that would stand in its row.
func (c *counts) add(o *opened, path []byte, text string) {
	c.key = appendPath(c.key[:0], o, path, text)
	key := countKey{o.Pid, string(o.comm()), string(c.key)}
	line := c.lines.Of(key, maxCounts, counted{pid: o.Pid, comm: key.comm, path: key.path}, counted{path: "<others>"})
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
	return c.lines.Sorted(func(a, b *counted) int {
		return cmp.Or(cmp.Compare(b.opens, a.opens), cmp.Compare(b.failed, a.failed),
			cmp.Compare(a.path, b.path), cmp.Compare(a.comm, b.comm), cmp.Compare(a.pid, b.pid))
	})
}

// finish says what was left open when tracing ended, and writes the summary.
func (p *printer) finish(r *trace.Run) error {
	waiting := len(p.pending)
	if r.Mode(syscalls) == attach.Kprobe {
		n, err := unfinished(r)
		if err != nil {
			return err
		}
		waiting += n
	}
	if waiting > 0 {
		r.Say(fmt.Sprintf("%d opens had not ended yet", waiting))
	}
	if !p.opts.summary {
		return nil
	}
	return p.counts.write(r.Out)
}

// unfinished looks at the calls that have begun and not ended, in kprobe mode:
// some still wait, for the other end of a FIFO, say. Of the rest the kretprobe was
// missed, and they are lost.
func unfinished(r *trace.Run) (waiting int, err error) {
	var id uint64
	var begun []byte
	calls := r.Map(bpfMapCalls).Iterate()
	for calls.Next(&id, &begun) {
		if inOpen(uint32(id)) {
			waiting++
		} else {
			r.Lose("return_missed", 1)
		}
	}
	if err := calls.Err(); err != nil {
		return 0, fmt.Errorf("look for calls that have not returned: %w", err)
	}
	return waiting, nil
}

// openNumbers are the numbers of the open family: 64-bit and 32-bit on amd64, then
// on arm64.
var openNumbers = map[string][]int{
	"amd64": {2, 85, 257, 304, 437, 5, 8, 295, 342},
	"arm64": {56, 265, 437, 5, 8, 322, 371},
}[runtime.GOARCH]

// inOpen reports whether a thread waits in an open right now.
func inOpen(tid uint32) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
	if err != nil {
		return false
	}
	nr, err := strconv.Atoi(strings.SplitN(string(state), " ", 2)[0])
	return err == nil && slices.Contains(openNumbers, nr)
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
