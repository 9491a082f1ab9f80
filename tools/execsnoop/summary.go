package main

import (
	"cmp"
	"time"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/summary"
)

// maxCounts bounds the programs that a summary tells apart.
const maxCounts = 100_000

// counted is a line of the summary: a program.
type counted struct {
	path         string // escaped
	runs, failed uint64
	ended        uint64
	total        time.Duration // of the runs that ended
}

// counts is a summary in the making.
type counts struct {
	lines   summary.Lines[string, counted]
	running map[uint64]*counted // by id
	hiding  map[uint64]bool     // those that -n or -l leave out
}

func newCounts() counts {
	return counts{running: map[uint64]*counted{}, hiding: map[uint64]bool{}}
}

// hide remembers that an exec was left out, so that its end is too.
func (c *counts) hide(id uint64) {
	if len(c.hiding) < maxCounts {
		c.hiding[id] = true
	}
}

// hidden reports whether the exec of that id was left out, and forgets it.
func (c *counts) hidden(id uint64) bool {
	hidden := c.hiding[id]
	delete(c.hiding, id)
	return hidden
}

func (c *counts) start(s *started) {
	path := string(s.appendName(nil))
	line := c.lines.Of(path, maxCounts, counted{path: path}, counted{path: "<others>"})
	if s.Ret < 0 {
		line.failed++
		return
	}
	line.runs++
	if len(c.running) < maxRunning {
		c.running[s.Id] = line
	}
}

func (c *counts) end(e *ended) {
	line := c.running[e.Id]
	if line == nil {
		return
	}
	delete(c.running, e.Id)
	line.ended++
	line.total += e.ran
}

// sorted gives the lines, most runs first.
func (c *counts) sorted() []*counted {
	return c.lines.Sorted(func(a, b *counted) int {
		return cmp.Or(cmp.Compare(b.runs+b.failed, a.runs+a.failed), cmp.Compare(b.total, a.total), cmp.Compare(a.path, b.path))
	})
}

func (c *counts) write(w *output.Writer) error {
	if err := w.EndRow(append(w.Row(), "    RUNS   FAILED    ENDED    TOTAL(s) PROGRAM\n"...)); err != nil {
		return err
	}
	for _, line := range c.sorted() {
		dst := w.Row()
		dst = append(output.AppendUint(dst, line.runs, 8), ' ')
		dst = append(output.AppendUint(dst, line.failed, 8), ' ')
		dst = append(output.AppendUint(dst, line.ended, 8), ' ')
		dst = append(output.AppendDuration(dst, int64(line.total), time.Second, 3, 11), ' ')
		if err := w.EndRow(append(append(dst, line.path...), '\n')); err != nil {
			return err
		}
	}
	return nil
}
