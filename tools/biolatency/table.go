package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/output"
)

// The widths of bars, in cells.
const (
	barWidth      = 40
	wideBarWidth  = 20 // with large numbers before it
	splitBarWidth = 20
)

// appendTable appends a table as text, as BCC has it.
func (p *printer) appendTable(dst []byte, t *table) []byte {
	dst = append(dst, '\n')
	if p.opts.timestamp {
		dst = append(t.time.AppendFormat(dst, time.TimeOnly), '\n')
	}
	var sum, count uint64
	for _, l := range t.lines {
		sum, count = sum+l.last().Sum, count+l.last().Count
		if p.opts.by.any() {
			dst = append(p.appendHeading(append(dst, '\n'), l), '\n')
		}
		if p.opts.split {
			dst = p.appendSplit(dst, l)
		} else {
			dst = appendHistogram(dst, l.last(), p.opts.unit())
		}
		if p.opts.percentiles {
			dst = p.appendPercentiles(dst, l)
		}
	}
	if unit := p.opts.unit(); p.opts.extension && count > 0 {
		dst = fmt.Appendf(dst, "\navg = %d %s, total: %d %s, count: %d\n\n", sum/unit.Nanos/count, unit.Name, sum/unit.Nanos, unit.Name, count)
	}
	if len(t.failed) > 0 {
		dst = append(dst, '\n')
	}
	return appendFailures(dst, t.failed)
}

// appendFailures appends a line for each error on a disk.
func appendFailures(dst []byte, all []failed) []byte {
	for _, f := range all {
		dst = append(output.AppendEscaped(append(dst, "errors on "...), diskName(f.disk)), fmt.Sprintf(": %d %s\n", f.count, f.error)...)
	}
	return dst
}

// diskName is what stands for a disk in text.
func diskName(name []byte) []byte {
	if len(name) == 0 {
		return []byte("<unknown>")
	}
	return name
}

// appendHeading says what a histogram is for.
func (p *printer) appendHeading(dst []byte, l *line) []byte {
	start := len(dst)
	key := func(name string, value []byte) {
		if len(dst) > start {
			dst = append(dst, '\t')
		}
		dst = output.AppendEscaped(append(append(dst, name...), " = "...), value)
	}
	if p.opts.by.disk {
		key("disk", diskName(l.disk))
	}
	if p.opts.by.op {
		key("flags", []byte(p.operations.text(l.OpFlags)))
	}
	if p.opts.by.cgroup {
		name := p.cgroup(l.CgroupId)
		if name == "" {
			name = fmt.Sprint(l.CgroupId)
		}
		key("cgroup", []byte(name))
	}
	if p.opts.by.comm {
		key("comm", l.comm())
	}
	return dst
}

// ends are the first and the last number that a power of two stands for: 0 and 1, 2
// and 3, 4 and 7.
func ends(power int) (low, high uint64) {
	if power == 1 {
		return 0, 1
	}
	return 1 << (power - 1), 1<<power - 1
}

// appendHistogram appends the powers of two as BCC does.
func appendHistogram(dst []byte, c *histogram.Counts, unit histogram.Unit) []byte {
	powers := c.Powers()
	if len(powers) == 0 {
		return dst
	}
	header, body, width := "     %-19s : count     distribution\n", "%10d -> %-10d : %-8d |%-*s|\n", barWidth
	if len(powers) > 33 {
		header, body, width = "               %-29s : count     distribution\n", "%20d -> %-20d : %-8d |%-*s|\n", wideBarWidth
	}
	dst = fmt.Appendf(dst, header, unit.Name)
	most := most(powers)
	for power := 1; power < len(powers); power++ {
		low, high := ends(power)
		dst = fmt.Appendf(dst, body, low, high, powers[power], width, bar(powers[power], most, width))
	}
	return dst
}

// appendSplit appends the powers of two of all phases side by side.
func (p *printer) appendSplit(dst []byte, l *line) []byte {
	dst = fmt.Appendf(dst, "     %-19s :", p.opts.unit().Name)
	var powers [][]uint64
	rows := 0
	for i, name := range p.opts.phases() {
		powers = append(powers, l.phases[i].Powers())
		rows = max(rows, len(powers[i]))
		dst = fmt.Appendf(dst, " %-31s", name)
	}
	dst = append(trimRight(dst), '\n')
	for power := 1; power < rows; power++ {
		low, high := ends(power)
		dst = fmt.Appendf(dst, "%10d -> %-10d :", low, high)
		for _, of := range powers {
			n := uint64(0)
			if power < len(of) {
				n = of[power]
			}
			dst = fmt.Appendf(dst, " %-8d |%-*s|", n, splitBarWidth, bar(n, most(of), splitBarWidth))
		}
		dst = append(dst, '\n')
	}
	return dst
}

func trimRight(dst []byte) []byte {
	for len(dst) > 0 && dst[len(dst)-1] == ' ' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func most(counts []uint64) uint64 {
	n := uint64(0)
	for _, c := range counts {
		n = max(n, c)
	}
	return n
}

// bar is as long as n's share of the most.
func bar(n, most uint64, width int) string {
	if most == 0 {
		return ""
	}
	return strings.Repeat("*", int(uint64(width)*n/most))
}

// quantiles are those that are shown.
var quantiles = []struct {
	text, key string
	share     float64
}{{"p50", "p50", 0.5}, {"p90", "p90", 0.9}, {"p99", "p99", 0.99}, {"p99.9", "p999", 0.999}}

func (p *printer) appendPercentiles(dst []byte, l *line) []byte {
	unit, decimals := time.Microsecond, 1
	if p.opts.millis {
		unit, decimals = time.Millisecond, 3
	}
	for i, name := range p.opts.phases() {
		c := &l.phases[i]
		dst = append(dst, "     "...)
		if p.opts.split {
			dst = fmt.Appendf(dst, "%-6s ", name)
		}
		for _, q := range quantiles {
			dst = append(append(dst, q.text...), " = "...)
			dst = append(output.AppendDuration(dst, int64(c.Quantile(q.share)), unit, decimals, 0), ", "...)
		}
		dst = output.AppendDuration(append(dst, "max = "...), int64(c.Max), unit, decimals, 0)
		dst = append(append(dst, ' '), p.opts.unit().Name+"\n"...)
	}
	return dst
}
