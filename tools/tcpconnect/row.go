package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/gobcc/gobcc/internal/common/clock"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// attempt is a record, with its addresses as Go has them.
type attempt struct {
	bpfAttempt
	source, destination netip.Addr
	query               string        // the name that destination was looked up by, or ""
	queryTook           time.Duration // -1 if it is not known
}

// vias are the ways to make a connection, by enum via.
var vias = [...]string{
	bpfViaVIA_CONNECT:  "connect",
	bpfViaVIA_FASTOPEN: "fastopen",
	bpfViaVIA_MPTCP:    "mptcp",
	bpfViaVIA_IO_URING: "io_uring",
	bpfViaVIA_KERNEL:   "kernel",
}

func (a *attempt) has(mark bpfMark) bool { return a.Marks&uint8(mark) != 0 }

func (a *attempt) is(result bpfResult) bool { return bpfResult(a.Result) == result }

func (a *attempt) comm() []byte { return events.CString(a.Comm[:]) }

func (a *attempt) via() string {
	name := "?"
	if int(a.Via) < len(vias) {
		name = vias[a.Via]
	}
	if a.has(bpfMarkMARK_COMPAT) {
		name += "/32"
	}
	return name
}

// family is 4 or 6.
func (a *attempt) family() int {
	if a.destination.Is4() {
		return 4
	}
	return 6
}

// sourced reports whether the kernel had chosen a source address.
func (a *attempt) sourced() bool {
	return !a.has(bpfMarkMARK_NO_SOURCE) && !a.source.IsUnspecified()
}

// timed reports whether it is known how long the attempt took.
func (a *attempt) timed() bool {
	return !a.is(bpfResultRESULT_PENDING) && !a.has(bpfMarkMARK_NO_LATENCY)
}

// result is "ok", an error's name, or a word of ours.
func (a *attempt) result() string {
	switch bpfResult(a.Result) {
	case bpfResultRESULT_PENDING:
		return "pending"
	case bpfResultRESULT_OK:
		return "ok"
	case bpfResultRESULT_ABORTED:
		return "aborted"
	}
	if a.Error == 0 { // the kernel did not tell which error
		return "failed"
	}
	return output.ErrnoName(a.Error)
}

// printer writes rows.
type printer struct {
	opts     *options
	names    *names
	terminal bool
	// How wide addresses have been so far, at least as in BCC.
	sourceWidth, destinationWidth int

	counts counts
	next   time.Time // when the next table of -c is due
	tables int       // written so far
	first  uint64    // when the first row's attempt began
	began  bool      // first is known
}

func newPrinter(o *options, stdout io.Writer) *printer {
	p := &printer{opts: o, sourceWidth: addrWidth, destinationWidth: addrWidth}
	if o.named() {
		p.names = newNames()
	}
	if f, ok := stdout.(*os.File); ok {
		p.terminal = output.IsTerminal(f.Fd())
	}
	return p
}

// handle takes a record of the ring buffer.
func (p *printer) handle(r *trace.Run, record []byte) error {
	if p.names != nil && len(record) > 0 && bpfKind(record[0]) == bpfKindKIND_DNS {
		return p.names.packet(record)
	}
	a := &attempt{}
	if _, err := events.Decode(&a.bpfAttempt, record); err != nil {
		return err
	}
	return p.show(r, a)
}

// show writes a row, or counts it.
func (p *printer) show(r *trace.Run, a *attempt) error {
	a.source, a.destination = netip.AddrFrom16(a.Saddr).Unmap(), netip.AddrFrom16(a.Daddr).Unmap()
	a.queryTook = -1
	if p.names != nil {
		if name, took, ok := p.names.of(a.destination, a.TimeNs); ok {
			a.query, a.queryTook = name, took
		}
	}
	r.Shown++
	if p.opts.count {
		p.counts.add(a, p.opts.lport)
		return nil
	}
	if p.opts.JSON {
		return r.Out.EndRow(p.appendJSON(r.Out.Row(), a, r.Wall.Nanos(a.TimeNs)))
	}
	return r.Out.EndRow(p.appendRow(r.Out.Row(), a))
}

// drained writes the tables of -c as they are due, but for the last.
func (p *printer) drained(r *trace.Run) error {
	every, now := p.opts.interval, time.Now()
	switch {
	case every == 0, now.Before(p.next):
		return nil
	case p.next.IsZero(): // it begins
		p.next = now.Add(every)
		return nil
	}
	// Of several that are late, as after a SIGSTOP, only one is written.
	p.next = p.next.Add(every * (1 + now.Sub(p.next)/every))
	p.tables++
	if p.tables == p.opts.tables {
		r.Stop()
		return nil
	}
	return p.writeCounts(r)
}

// finish shows the attempts that are still under way, and the last table of -c.
func (p *printer) finish(r *trace.Run) error {
	pending, err := p.pending(r)
	if err != nil {
		return err
	}
	for _, a := range pending {
		if err := p.show(r, a); err != nil {
			return err
		}
	}
	if err := p.sayLostNames(r); err != nil {
		return err
	}
	if p.opts.count {
		return p.writeCounts(r)
	}
	return nil
}

// sayLostNames says how many DNS messages did not come through: they are no events, but
// a name may be missing for it.
func (p *printer) sayLostNames(r *trace.Run) error {
	lost := r.Map(bpfMapDnsLost)
	if lost == nil {
		return nil
	}
	n, err := lostNames(lost)
	if err == nil && n > 0 {
		r.Say(fmt.Sprintf("%d DNS messages did not reach the tool: some names may be missing", n))
	}
	return err
}

// pending gives the attempts under way, by their beginning. Of those that are still
// too young for --min-ms nobody knows whether they will be slow.
func (p *printer) pending(r *trace.Run) ([]*attempt, error) {
	kept := r.Map(bpfMapAttempts)
	if kept == nil || p.opts.failed {
		return nil, nil
	}
	var all []*attempt
	var key uint64
	var value []byte
	latest := clock.Boot()
	entries := kept.Iterate()
	for entries.Next(&key, &value) {
		a := &attempt{}
		if _, err := events.Decode(&a.bpfAttempt, value); err != nil {
			return nil, err
		}
		a.Retransmits = 0 // the socket's count from before
		if a.has(bpfMarkMARK_SENT) {
			continue
		}
		if latest-a.TimeNs >= uint64(p.opts.minLatency) {
			all = append(all, a)
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read the attempts that are still under way: %w", err)
	}
	slices.SortFunc(all, func(a, b *attempt) int { return cmp.Compare(a.TimeNs, b.TimeNs) })
	return all, nil
}

// The widths of columns.
const (
	commWidth   = 16
	addrWidth   = 16 // enough for IPv4; it grows as longer ones come
	portWidth   = 6
	resultWidth = 13
	tookWidth   = 10
	syncsWidth  = 4
)

// header gives the names of the columns, as BCC has them.
func (p *printer) header() string {
	if p.opts.count {
		return ""
	}
	var h []byte
	column := func(name string, width int) {
		start := len(h)
		h = append(output.Pad(append(h, name...), start, width), ' ')
	}
	o := p.opts
	if o.timestamp {
		column("TIME(s)", 8)
	}
	if o.uid {
		column("UID", 5)
	}
	column("PID", 7)
	column("COMM", commWidth)
	column("IP", 2)
	column("SADDR", p.sourceWidth)
	if o.lport {
		column("LPORT", portWidth)
	}
	column("DADDR", p.destinationWidth)
	column("DPORT", portWidth)
	if o.outcome {
		column("RESULT", resultWidth)
		h = append(h, "   LAT(ms) RETR "...)
	}
	switch {
	case o.dns:
		column("QUERY", 0)
	case o.domains:
		column("DOMAIN", 0)
	}
	return string(bytes.TrimRight(h, " "))
}

// widen makes room for the addresses of a row. On a terminal the names of the columns
// are then repeated above it.
func (p *printer) widen(dst []byte, a *attempt) []byte {
	source, destination := len(a.sourceText()), len(a.destination.String())
	if source <= p.sourceWidth && destination <= p.destinationWidth {
		return dst
	}
	p.sourceWidth, p.destinationWidth = max(p.sourceWidth, source), max(p.destinationWidth, destination)
	if p.terminal {
		dst = append(append(dst, p.header()...), '\n')
	}
	return dst
}

// sourceText is the source address, or what stands for none.
func (a *attempt) sourceText() string {
	if !a.sourced() {
		return "-"
	}
	return a.source.String()
}

// appendRow appends an attempt as a row of text.
func (p *printer) appendRow(dst []byte, a *attempt) []byte {
	o := p.opts
	dst = p.widen(dst, a)
	column := func(text string, width int) {
		start := len(dst)
		dst = append(output.Pad(append(dst, text...), start, width), ' ')
	}
	if o.timestamp {
		if !p.began {
			p.first, p.began = a.TimeNs, true
		}
		dst = append(output.AppendDuration(dst, int64(a.TimeNs-p.first), time.Second, 3, -8), ' ')
	}
	if o.uid {
		dst = append(output.AppendInt(dst, int64(a.Uid), -5), ' ')
	}
	dst = append(output.AppendInt(dst, int64(a.Pid), -7), ' ')
	dst = append(output.AppendPadded(dst, a.comm(), commWidth), ' ')
	dst = append(output.AppendInt(dst, int64(a.family()), -2), ' ')
	column(a.sourceText(), p.sourceWidth)
	if o.lport {
		dst = append(output.AppendInt(dst, int64(a.Sport), -portWidth), ' ')
	}
	column(a.destination.String(), p.destinationWidth)
	dst = append(output.AppendInt(dst, int64(a.Dport), -portWidth), ' ')
	if o.outcome {
		column(a.result(), resultWidth)
		if a.timed() {
			dst = output.AppendDuration(dst, int64(a.LatencyNs), time.Millisecond, 3, tookWidth)
		} else {
			dst = append(dst, "         -"...)
		}
		dst = append(output.AppendUint(append(dst, ' '), uint64(a.Retransmits), syncsWidth), ' ')
	}
	if a.query == "" {
		return append(bytes.TrimRight(dst, " "), '\n')
	}
	dst = output.AppendEscaped(dst, []byte(a.query))
	if o.dns && a.queryTook >= 0 {
		dst = output.AppendDuration(append(dst, " ("...), int64(a.queryTook), time.Millisecond, 3, 0)
		dst = append(dst, "ms)"...)
	}
	return append(dst, '\n')
}

// appendJSON appends an attempt as a JSON object; manual.go describes the keys.
func (p *printer) appendJSON(dst []byte, a *attempt, wall int64) []byte {
	j := output.Begin(dst)
	j.Time("time", wall)
	j.String("kind", "connect")
	j.Uint("pid", uint64(a.Pid))
	j.Uint("tid", uint64(a.Tid))
	j.Uint("uid", uint64(a.Uid))
	j.Str("comm", a.comm())
	j.Uint("cgroup_id", a.CgroupId)
	j.Uint("netns", uint64(a.Netns))
	j.Int("family", int64(a.family()))
	if a.sourced() {
		j.String("saddr", a.source.String())
	} else {
		j.Null("saddr")
	}
	j.Uint("sport", uint64(a.Sport))
	j.String("daddr", a.destination.String())
	j.Uint("dport", uint64(a.Dport))
	j.String("result", a.result())
	j.Int("errno", int64(a.Error))
	if a.Error != 0 {
		j.String("error", output.ErrnoName(a.Error))
	} else {
		j.Null("error")
	}
	if a.timed() {
		j.Uint("latency_ns", a.LatencyNs)
	} else {
		j.Null("latency_ns")
	}
	j.Uint("retransmits", uint64(a.Retransmits))
	j.String("via", a.via())
	if p.names == nil {
		return j.End()
	}
	if a.query == "" {
		j.Null("query")
	} else {
		j.Str("query", []byte(a.query))
	}
	if a.queryTook < 0 {
		j.Null("query_latency_ns")
	} else {
		j.Uint("query_latency_ns", uint64(a.queryTook))
	}
	return j.End()
}
