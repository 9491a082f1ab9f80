package main

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/paths"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// opened is an event with what stands behind it in its record.
type opened struct {
	bpfEvent
	path  []byte // as the program gave it
	names []byte // as paths.bpf.h walked them
}

// What stands in a PATH column where there is no path.
const (
	unreadable = "<unreadable>"  // the program's memory could not be read
	fromHandle = "<file handle>" // open_by_handle_at() has none
	empty      = `""`            // the program gave an empty path
)

// vias are the ways to open a file, by enum via.
var vias = [...]string{
	bpfViaVIA_OPEN:          "open",
	bpfViaVIA_CREAT:         "creat",
	bpfViaVIA_OPENAT:        "openat",
	bpfViaVIA_OPENAT2:       "openat2",
	bpfViaVIA_HANDLE:        "open_by_handle_at",
	bpfViaVIA_URING_OPENAT:  "io_uring/openat",
	bpfViaVIA_URING_OPENAT2: "io_uring/openat2",
}

func (o *opened) has(mark bpfMark) bool { return o.Marks&uint8(mark) != 0 }

func (o *opened) fd() int64 { return int64(max(o.Ret, -1)) }

func (o *opened) errno() int32 { return max(-o.Ret, 0) }

func (o *opened) comm() []byte { return events.CString(o.Comm[:]) }

func (o *opened) via() string {
	name := "?"
	if int(o.Via) < len(vias) {
		name = vias[o.Via]
	}
	if o.has(bpfMarkMARK_COMPAT) {
		name += "/32"
	}
	return name
}

// hasMode reports whether the mode means anything.
func (o *opened) hasMode() bool {
	return o.Flags&unix.O_CREAT != 0 || o.Flags&unix.O_TMPFILE == unix.O_TMPFILE
}

// printer writes rows.
type printer struct {
	opts    *options
	mounts  *paths.Mounts // the host's, with --path-root host
	pending map[uint64]*opened
	counts  counts
	first   uint64 // when the first row happened
	full    []byte // the full path of the event at hand
	scratch []byte
}

// maxPending bounds the io_uring requests waited for. More are never under way
// (the kernel side has 16,384 places), so the surplus are ones whose end was
// lost, and counted as lost.
const maxPending = 1 << 16

// handle takes a record of the ring buffer.
func (p *printer) handle(r *trace.Run, record []byte) error {
	var o opened
	rest, err := events.Decode(&o.bpfEvent, record)
	if err != nil {
		return err
	}
	if len(rest) < int(o.PathLen)+int(o.NamesLen) {
		return fmt.Errorf("a record's paths of %d bytes are cut to %d", int(o.PathLen)+int(o.NamesLen), len(rest))
	}
	o.path, o.names = rest[:o.PathLen], rest[o.PathLen:][:o.NamesLen]
	switch {
	case o.has(bpfMarkMARK_SUBMITTED):
		p.begin(&o)
		return nil
	case o.has(bpfMarkMARK_COMPLETED):
		if !p.complete(&o) {
			return nil
		}
	}
	return p.show(r, &o)
}

// begin keeps an io_uring request until it has ended.
func (p *printer) begin(o *opened) {
	if len(p.pending) >= maxPending {
		for key := range p.pending {
			delete(p.pending, key)
			break
		}
	}
	kept := *o
	both := append(append([]byte(nil), o.path...), o.names...)
	kept.path, kept.names = both[:len(o.path)], both[len(o.path):]
	p.pending[o.Request] = &kept
}

// complete puts the end of an io_uring request, which may happen in any task,
// together with its beginning. It reports whether there is a row to show.
func (p *printer) complete(end *opened) bool {
	o := p.pending[end.Request]
	if o == nil { // its beginning was lost, and counted
		return false
	}
	delete(p.pending, end.Request)
	o.Ret, o.LatencyNs, o.TimeNs = end.Ret, end.LatencyNs, end.TimeNs
	if end.has(bpfMarkMARK_NAMES) {
		o.names, o.NamesMarks, o.Dev, o.Mntns = end.names, end.NamesMarks, end.Dev, end.Mntns
		o.Marks = o.Marks&^uint8(bpfMarkMARK_BASE) | uint8(bpfMarkMARK_NAMES)
	}
	*end = *o
	return !(p.opts.failed && o.Ret >= 0) && o.LatencyNs >= uint64(p.opts.minLatency)
}

// show writes a row, or counts it.
func (p *printer) show(r *trace.Run, o *opened) error {
	full := p.fullPath(o)
	shown, text := p.shownPath(o, full)
	if !p.opts.matches(shown) {
		return nil
	}
	r.Shown++
	switch {
	case p.opts.JSON:
		return p.writeJSON(r, o, full)
	case p.opts.summary:
		p.counts.add(o, shown, text)
		return nil
	}
	return r.Out.EndRow(p.appendRow(r.Out.Row(), o, shown, text))
}

// fullPath gives the path of the file that was opened, or nil if it isn't known.
// It is valid until the next call.
func (p *printer) fullPath(o *opened) []byte {
	base := o.has(bpfMarkMARK_BASE)
	if !o.has(bpfMarkMARK_NAMES) {
		if p.opts.walked() && p.mounts == nil && o.Ret < 0 && len(o.path) > 0 && o.path[0] == '/' && !o.has(bpfMarkMARK_IN_ROOT) {
			return o.path
		}
		return nil
	}
	marks := paths.Marks(o.NamesMarks)
	if marks&paths.Unreachable != 0 && len(o.names) == 0 { // a pipe or the like, in no directory
		return nil
	}
	p.full = p.full[:0]
	switch {
	case marks&paths.WholeFS != 0 && p.mounts != nil:
		p.scratch = paths.Join(p.scratch[:0], o.names)
		var ok bool
		if p.full, ok = p.mounts.Path(p.full, o.Dev, p.scratch); !ok {
			return nil
		}
	case marks&paths.Unreachable != 0:
		p.full = paths.Join(append(p.full, "(unreachable)"...), o.names)
	case marks&paths.Cut != 0:
		p.full = paths.Join(append(p.full, "..."...), o.names)
	default:
		p.full = paths.Join(p.full, o.names)
	}
	if !base {
		return p.full
	}
	if len(o.path) == 0 {
		return nil
	}
	// path starts from there. A path from the root brings its own slash.
	p.full = bytes.TrimSuffix(p.full, []byte{'/'})
	if o.path[0] != '/' {
		p.full = append(p.full, '/')
	}
	return append(p.full, o.path...)
}

// shownPath gives what stands in the PATH column: the bytes of a path, or a text
// of ours where there is none.
func (p *printer) shownPath(o *opened, full []byte) (path []byte, text string) {
	if full != nil && (p.opts.fullPath || len(o.path) == 0 && !o.has(bpfMarkMARK_BASE)) {
		return full, ""
	}
	switch {
	case len(o.path) > 0:
		return o.path, ""
	case o.has(bpfMarkMARK_UNREADABLE):
		return nil, unreadable
	case uint32(o.Via) == uint32(bpfViaVIA_HANDLE):
		return nil, fromHandle
	}
	return nil, empty
}

// The widths of columns. PATH has one only where another follows.
const (
	commWidth  = 16
	errWidth   = 12 // with --errno-names
	flagsWidth = 30 // with --flag-names
	pathWidth  = 32
)

// header gives the names of the columns, as BCC has them.
func (p *printer) header() string {
	if p.opts.summary {
		return ""
	}
	var h []byte
	column := func(name string, width int) {
		start := len(h)
		h = output.Pad(append(h, name...), start, width)
	}
	if p.opts.timestamp {
		column("TIME(s)", 14)
	}
	if p.opts.uid {
		column("UID", 6)
	}
	if p.opts.Filter.TID() != 0 {
		column("TID", 7)
	} else {
		column("PID", 7)
	}
	column("COMM", commWidth+1)
	h = append(h, "  FD "...)
	if p.opts.errnoNames {
		column("ERR", errWidth+1)
	} else {
		h = append(h, "ERR "...)
	}
	if p.opts.latency {
		h = append(h, "  LAT(us) "...)
	}
	if p.opts.extended {
		if p.opts.flagNames {
			column("FLAGS", flagsWidth+1)
		} else {
			column("FLAGS", 9)
		}
		h = append(h, "MODE "...)
		column("PATH", pathWidth+1)
		return string(append(h, "VIA"...))
	}
	return string(append(h, "PATH"...))
}

// appendRow appends a row of text.
func (p *printer) appendRow(dst []byte, o *opened, path []byte, text string) []byte {
	opts := p.opts
	if opts.timestamp {
		if p.first == 0 {
			p.first = o.TimeNs
		}
		dst = append(output.AppendDuration(dst, int64(o.TimeNs-p.first), time.Second, 9, -13), ' ')
	}
	if opts.uid {
		dst = append(output.AppendUint(dst, uint64(o.Uid), -5), ' ')
	}
	id := o.Pid
	if opts.Filter.TID() != 0 {
		id = o.Tid
	}
	dst = append(output.AppendInt(dst, int64(id), -6), ' ')
	dst = append(output.AppendPadded(dst, o.comm(), commWidth), ' ')
	dst = append(output.AppendInt(dst, o.fd(), 4), ' ')
	if opts.errnoNames {
		start := len(dst)
		if errno := o.errno(); errno != 0 {
			dst = append(dst, output.ErrnoName(errno)...)
		} else {
			dst = append(dst, '0')
		}
		dst = append(output.Pad(dst, start, errWidth), ' ')
	} else {
		dst = append(output.AppendInt(dst, int64(o.errno()), 3), ' ')
	}
	if opts.latency {
		if o.LatencyNs == 0 {
			dst = append(dst, "        ? "...)
		} else {
			dst = append(output.AppendDuration(dst, int64(o.LatencyNs), time.Microsecond, 1, 9), ' ')
		}
	}
	if opts.extended {
		dst = appendExtended(dst, o, opts.flagNames)
	}
	start := len(dst)
	dst = appendPath(dst, o, path, text)
	if opts.extended {
		dst = append(append(output.Pad(dst, start, pathWidth), ' '), o.via()...)
	}
	return append(dst, '\n')
}

// appendPath appends what stands in the PATH column.
func appendPath(dst []byte, o *opened, path []byte, text string) []byte {
	if text != "" {
		return append(dst, text...)
	}
	dst = output.AppendEscaped(dst, path)
	if o.has(bpfMarkMARK_PATH_CUT) {
		dst = append(dst, "..."...)
	}
	if o.has(bpfMarkMARK_NAMES) && !o.has(bpfMarkMARK_BASE) && paths.Marks(o.NamesMarks)&paths.Deleted != 0 {
		dst = append(dst, " (deleted)"...)
	}
	return dst
}

func appendExtended(dst []byte, o *opened, names bool) []byte {
	if names {
		start := len(dst)
		dst = output.Pad(appendFlags(dst, o.Flags), start, flagsWidth)
	} else {
		dst = output.AppendOctal(dst, o.Flags, 8)
	}
	if o.hasMode() {
		return append(output.AppendOctal(append(dst, ' '), uint64(o.Mode), 4), ' ')
	}
	return append(dst, " n/a  "...)
}

// writeJSON writes an event as a JSON object; manual.go describes the keys.
func (p *printer) writeJSON(r *trace.Run, o *opened, full []byte) error {
	j := output.Begin(r.Out.Row())
	j.Time("time", r.Wall.Nanos(o.TimeNs))
	j.String("kind", "open")
	j.Uint("pid", uint64(o.Pid))
	j.Uint("tid", uint64(o.Tid))
	j.Uint("ppid", uint64(o.Ppid))
	j.Uint("uid", uint64(o.Uid))
	j.Str("comm", o.comm())
	j.Uint("cgroup_id", o.CgroupId)
	if o.has(bpfMarkMARK_UNREADABLE) || uint32(o.Via) == uint32(bpfViaVIA_HANDLE) {
		j.Null("path")
	} else {
		j.Str("path", o.path)
	}
	if full == nil {
		j.Null("full_path")
	} else {
		j.Str("full_path", full)
	}
	j.Bool("path_unreadable", o.has(bpfMarkMARK_UNREADABLE))
	j.Bool("path_cut", o.has(bpfMarkMARK_PATH_CUT) || full != nil && paths.Marks(o.NamesMarks)&paths.Cut != 0)
	j.Bool("deleted", full != nil && !o.has(bpfMarkMARK_BASE) && paths.Marks(o.NamesMarks)&paths.Deleted != 0)
	j.Int("fd", o.fd())
	j.Int("errno", int64(o.errno()))
	if errno := o.errno(); errno != 0 {
		j.String("error", output.ErrnoName(errno))
	} else {
		j.Null("error")
	}
	j.Array("flags")
	for _, name := range flagNames(o.Flags) {
		j.String("", name)
	}
	j.Close()
	j.Uint("flags_value", o.Flags)
	if o.hasMode() {
		p.scratch = output.AppendOctal(p.scratch[:0], uint64(o.Mode), 4)
		j.Str("mode", p.scratch)
	} else {
		j.Null("mode")
	}
	j.String("via", o.via())
	if o.LatencyNs == 0 {
		j.Null("latency_ns")
	} else {
		j.Uint("latency_ns", o.LatencyNs)
	}
	return r.Out.EndRow(j.End())
}
