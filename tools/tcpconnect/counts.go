package main

import (
	"cmp"
	"net/netip"
	"strconv"
	"time"

	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/summary"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// maxCounts bounds the lines that a table tells apart. What comes after is counted
// together.
const maxCounts = 50_000

// ends are what attempts are counted by.
type ends struct {
	source, destination netip.Addr
	sport, dport        uint16 // sport is 0 unless it is asked for
}

// counted is a line of the table.
type counted struct {
	ends
	others           bool // what no longer had a line of its own
	attempts, failed uint64
	took             histogram.Histogram // of those that were established, in ns
}

// counts is a table in the making.
type counts struct {
	lines summary.Lines[ends, counted]
}

func (c *counts) add(a *attempt, lport bool) {
	key := ends{source: a.source, destination: a.destination, dport: a.Dport}
	if !a.sourced() {
		key.source = netip.Addr{}
	}
	if lport {
		key.sport = a.Sport
	}
	line := c.lines.Of(key, maxCounts, counted{ends: key}, counted{others: true})
	line.attempts++
	switch {
	case a.is(bpfResultRESULT_OK):
		line.took.Add(a.LatencyNs)
	case !a.is(bpfResultRESULT_PENDING):
		line.failed++
	}
}

// sorted gives the lines, most attempts first.
func (c *counts) sorted() []*counted {
	return c.lines.Sorted(func(a, b *counted) int {
		return cmp.Or(cmp.Compare(b.attempts, a.attempts), cmp.Compare(b.failed, a.failed),
			a.destination.Compare(b.destination), cmp.Compare(a.dport, b.dport),
			a.source.Compare(b.source), cmp.Compare(a.sport, b.sport))
	})
}

func (l *counted) sourceText() string {
	switch {
	case l.others:
		return "<others>"
	case !l.source.IsValid():
		return "-"
	}
	return l.source.String()
}

func (l *counted) destinationText() string {
	if l.others {
		return "<others>"
	}
	return l.destination.String()
}

func (l *counted) portText(port uint16) string {
	if l.others {
		return "-"
	}
	return strconv.Itoa(int(port))
}

// writeCounts writes the table and begins another.
func (p *printer) writeCounts(r *trace.Run) error {
	lines := p.counts.sorted()
	p.counts = counts{}
	wall := time.Now()
	if p.opts.JSON {
		for _, l := range lines {
			if err := r.Out.EndRow(p.appendCountJSON(r.Out.Row(), l, wall.UnixNano())); err != nil {
				return err
			}
		}
		return nil
	}
	dst := r.Out.Row()
	if p.opts.interval > 0 {
		dst = append(wall.AppendFormat(dst, time.TimeOnly), '\n')
	}
	if err := r.Out.EndRow(p.appendTable(dst, lines)); err != nil {
		return err
	}
	return r.Out.Flush()
}

// The widths of the table's columns, which are BCC's.
const (
	countedAddrWidth = 25 // it grows with longer ones
	countedPortWidth = 20
)

// appendTable appends the lines with the columns that BCC has, and others behind.
func (p *printer) appendTable(dst []byte, lines []*counted) []byte {
	source, destination := countedAddrWidth, countedAddrWidth
	for _, l := range lines {
		source, destination = max(source, len(l.sourceText())), max(destination, len(l.destinationText()))
	}
	column := func(text string, width int) {
		start := len(dst)
		dst = append(output.Pad(append(dst, text...), start, width), ' ')
	}
	column("LADDR", source)
	if p.opts.lport {
		column("LPORT", portWidth)
	}
	column("RADDR", destination)
	column("RPORT", countedPortWidth)
	dst = append(dst, "CONNECTS     FAILED    P50(ms)    P99(ms)    MAX(ms)\n"...)
	for _, l := range lines {
		column(l.sourceText(), source)
		if p.opts.lport {
			column(l.portText(l.sport), portWidth)
		}
		column(l.destinationText(), destination)
		column(l.portText(l.dport), countedPortWidth)
		dst = append(output.AppendUint(dst, l.attempts, -10), ' ')
		dst = output.AppendUint(dst, l.failed, 8)
		for _, ns := range []uint64{l.took.Quantile(0.5), l.took.Quantile(0.99), l.took.Max} {
			if l.took.Count == 0 {
				dst = append(dst, "          -"...)
				continue
			}
			dst = output.AppendDuration(append(dst, ' '), int64(ns), time.Millisecond, 3, 10)
		}
		dst = append(dst, '\n')
	}
	if p.opts.interval > 0 {
		dst = append(dst, '\n')
	}
	return dst
}

func (p *printer) appendCountJSON(dst []byte, l *counted, wall int64) []byte {
	j := output.Begin(dst)
	j.Time("time", wall)
	j.String("kind", "count")
	text := func(key string, addr netip.Addr) {
		if addr.IsValid() {
			j.String(key, addr.String())
		} else {
			j.Null(key)
		}
	}
	number := func(key string, port uint16) {
		if l.others {
			j.Null(key)
		} else {
			j.Uint(key, uint64(port))
		}
	}
	text("saddr", l.source)
	if p.opts.lport {
		number("sport", l.sport)
	}
	text("daddr", l.destination)
	number("dport", l.dport)
	j.Uint("connects", l.attempts)
	j.Uint("failed", l.failed)
	for _, q := range []struct {
		key string
		ns  uint64
	}{{"p50_ns", l.took.Quantile(0.5)}, {"p99_ns", l.took.Quantile(0.99)}, {"max_ns", l.took.Max}} {
		if l.took.Count == 0 {
			j.Null(q.key)
		} else {
			j.Uint(q.key, q.ns)
		}
	}
	return j.End()
}
