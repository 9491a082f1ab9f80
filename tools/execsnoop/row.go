package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gobcc/gobcc/internal/common/clock"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// unset is a login user or session that there is none of.
const unset = 0xffffffff

// maxRunning bounds the processes whose exec is remembered until they end.
const maxRunning = 100_000

// printer writes rows.
type printer struct {
	opts    *options
	parts   map[uint64]*parts
	joined  uint64            // how many execs have come in parts
	execs   events.Recent     // by id
	exits   events.Recent     // by id
	running map[uint64]uint64 // when an exec happened, by id, if ends are of interest
	ending  []*ended          // in the order of their ends
	// askTimes asks the kernel what a process used; nil if it can't be asked.
	askTimes func(*trace.Run, *ended) (bpfAnswer, error)
	untimed  untimed
	say      func(*trace.Run, string)
	counts   counts
	depths   depths // with --tree
	begin    uint64 // when tracing began, since boot
}

func newPrinter(o *options) *printer {
	return &printer{
		opts: o, parts: map[uint64]*parts{}, running: map[uint64]uint64{},
		askTimes: callTimes, say: (*trace.Run).Say, counts: newCounts(), begin: clock.Boot(),
	}
}

// showStart writes an exec, or counts it.
func (p *printer) showStart(r *trace.Run, s *started) error {
	o := p.opts
	lives := o.exits() && s.Ret >= 0 // its end will come
	if lives {
		p.forget(s.Id - execStep)
		if len(p.running) < maxRunning {
			p.running[s.Id] = s.TimeNs
		}
	}
	if o.nameRE != nil && !o.nameRE.Match(events.CString(s.Comm[:])) || o.lineRE != nil && !o.lineRE.Match(s.line()) {
		if lives {
			p.counts.hide(s.Id)
		}
		return nil
	}
	if o.exitOnly {
		return nil
	}
	r.Shown++
	switch {
	case o.JSON:
		return r.Out.EndRow(p.appendJSON(r.Out.Row(), s, r.Wall.Nanos(s.TimeNs)))
	case o.summary:
		p.counts.start(s)
		return nil
	}
	return r.Out.EndRow(p.appendStart(r.Out.Row(), s, r.Wall.Nanos(s.TimeNs)))
}

// execStep is by how much the id of a process grows with each exec (id_of in
// execsnoop.bpf.c).
const execStep = 0x9e3779b97f4a7c15

// forget drops what is remembered of a run whose end will not come, as its process
// runs another program now.
func (p *printer) forget(id uint64) {
	delete(p.running, id)
	delete(p.counts.running, id)
	delete(p.counts.hiding, id)
}

// line is the command line as -l sees it.
func (s *started) line() []byte {
	line := append([]byte(nil), s.filename...)
	for i, arg := range s.args {
		if i > 0 {
			line = append(append(line, ' '), arg...)
		}
	}
	return line
}

// header gives the names of the columns, as BCC has them.
func (p *printer) header() string {
	if p.opts.summary {
		return ""
	}
	var h strings.Builder
	if p.opts.time {
		fmt.Fprintf(&h, "%-9s", "TIME")
	}
	if p.opts.timestamp {
		fmt.Fprintf(&h, "%-8s", "TIME(s)")
	}
	if p.opts.uid {
		fmt.Fprintf(&h, "%-6s", "UID")
	}
	if p.opts.parent {
		fmt.Fprintf(&h, "%-16s %-7s %-16s %-7s ", "COMM", "PID", "PCOMM", "PPID")
	} else {
		fmt.Fprintf(&h, "%-16s %-7s %-7s ", "PCOMM", "PID", "PPID")
	}
	if p.opts.cpu {
		fmt.Fprintf(&h, "%-4s ", "CPU")
	}
	return h.String() + "RET ARGS"
}

// task is what the first columns show, of an exec or an exit.
type task struct {
	boot           uint64
	wall           int64
	uid, pid, ppid uint32
	comm, parent   []byte
	cpu            int64 // -1 if there is none
	ret            int64
}

func (p *printer) appendTask(dst []byte, t *task) []byte {
	o := p.opts
	if o.time {
		dst = append(time.Unix(0, t.wall).AppendFormat(dst, time.TimeOnly), ' ')
	}
	if o.timestamp {
		dst = append(output.AppendDuration(dst, int64(t.boot-p.begin), time.Second, 3, -7), ' ')
	}
	if o.uid {
		dst = append(output.AppendInt(dst, int64(t.uid), -5), ' ')
	}
	dst = append(output.AppendPadded(dst, t.comm, 16), ' ')
	dst = append(output.AppendInt(dst, int64(t.pid), -7), ' ')
	if o.parent {
		dst = append(output.AppendPadded(dst, t.parent, 16), ' ')
	}
	dst = append(output.AppendInt(dst, int64(t.ppid), -7), ' ')
	if o.cpu {
		if t.cpu < 0 {
			dst = append(dst, "     "...)
		} else {
			dst = append(output.AppendInt(dst, t.cpu, -4), ' ')
		}
	}
	return append(output.AppendInt(dst, t.ret, 3), ' ')
}

// appendStart appends an exec as a row of text.
func (p *printer) appendStart(dst []byte, s *started, wall int64) []byte {
	dst = p.appendTask(dst, &task{
		boot: s.TimeNs, wall: wall, uid: s.Uid, pid: s.Pid, ppid: s.Ppid,
		comm: events.CString(s.Comm[:]), parent: events.CString(s.ParentComm[:]), cpu: int64(s.Cpu), ret: int64(s.Ret),
	})
	if p.opts.tree {
		for range p.depths.of(s) {
			dst = append(dst, "  "...)
		}
	}
	dst = p.appendArgs(dst, s)
	return append(p.appendExtras(dst, s), '\n')
}

func (s *started) marked(mark bpfMark) bool { return uint32(s.Marks)&uint32(mark) != 0 }

// named reports whether the file's name is known.
func (s *started) named() bool { return !s.marked(bpfMarkMARK_NO_NAME) }

// appendName appends the file's name, or what stands for it: an empty one would
// look like none at all.
func (s *started) appendName(dst []byte) []byte {
	switch {
	case !s.named():
		return append(dst, "<unreadable>"...)
	case len(s.filename) == 0:
		return append(dst, `""`...)
	}
	return output.AppendEscaped(dst, s.filename)
}

// appendArgs appends the file's name and the arguments but the first, as BCC does.
func (p *printer) appendArgs(dst []byte, s *started) []byte {
	if p.opts.quote && s.named() {
		dst = p.appendArg(dst, s.filename)
	} else {
		dst = s.appendName(dst)
	}
	if s.marked(bpfMarkMARK_NAME_CUT) {
		dst = append(dst, "..."...)
	}
	shown := 0
	for i, arg := range s.args {
		if i == 0 {
			shown++
			continue
		}
		if p.opts.maxArgs > 0 && shown >= p.opts.maxArgs {
			break
		}
		dst = p.appendArg(append(dst, ' '), arg)
		shown++
	}
	if s.marked(bpfMarkMARK_UNREADABLE) {
		dst = append(dst, " <unreadable>"...)
	}
	missing := s.argsMissing + uint64(len(s.args)-shown)
	if missing > 0 || s.bytesMissing > 0 {
		dst = append(dst, " ..."...)
		if s.bytesMissing > 0 {
			dst = fmt.Appendf(dst, " (%d arguments and %d bytes more)", missing, s.bytesMissing)
		}
	}
	return dst
}

func (p *printer) appendArg(dst, arg []byte) []byte {
	if !p.opts.quote {
		return output.AppendEscaped(dst, arg)
	}
	dst = append(dst, '"')
	dst = append(dst, bytes.ReplaceAll(output.AppendEscaped(nil, arg), []byte{'"'}, []byte{'\\', '"'})...)
	return append(dst, '"')
}

// appendExtras appends what BCC has no column for, behind the arguments.
func (p *printer) appendExtras(dst []byte, s *started) []byte {
	o := p.opts
	start := len(dst)
	field := func(name string, value []byte) {
		if len(dst) == start {
			dst = append(dst, "  ["...)
		} else {
			dst = append(dst, ' ')
		}
		dst = output.AppendEscaped(append(append(dst, name...), '='), value)
	}
	if o.exe && s.exe != nil {
		field("exe", s.exe)
	}
	if o.cwd && s.cwd != nil {
		field("cwd", s.cwd)
	}
	if o.tty {
		if tty := events.CString(s.Tty[:]); len(tty) > 0 {
			field("tty", tty)
		} else {
			field("tty", []byte("none"))
		}
	}
	if o.loginuid {
		if s.Loginuid == unset {
			field("loginuid", []byte("unset"))
		} else {
			field("loginuid", strconv.AppendUint(nil, uint64(s.Loginuid), 10))
		}
	}
	if o.ancestors > 0 {
		var chain []byte
		for i := range min(len(s.ancestors), int(o.ancestors)) {
			if i > 0 {
				chain = append(chain, '<')
			}
			chain = append(chain, events.CString(s.ancestors[i].Comm[:])...)
			chain = strconv.AppendUint(append(chain, ':'), uint64(s.ancestors[i].Pid), 10)
		}
		field("ancestors", chain)
	}
	for _, v := range s.env {
		name, value, _ := bytes.Cut(v, []byte{'='})
		field("$"+string(output.AppendEscaped(nil, name)), value)
	}
	if len(dst) > start {
		dst = append(dst, ']')
	}
	return dst
}

// appendJSON appends an exec as a JSON object; manual.go describes the keys.
func (p *printer) appendJSON(dst []byte, s *started, wall int64) []byte {
	j := output.Begin(dst)
	j.Time("time", wall)
	j.String("kind", "exec")
	j.Uint("pid", uint64(s.Pid))
	j.Uint("tid", uint64(s.Tid))
	j.Uint("ppid", uint64(s.Ppid))
	j.Uint("uid", uint64(s.Uid))
	j.Str("comm", events.CString(s.Comm[:]))
	j.Uint("cgroup_id", s.CgroupId)
	j.Str("parent_comm", events.CString(s.ParentComm[:]))
	if s.Ret < 0 {
		j.Null("exec_id")
	} else {
		j.String("exec_id", id(s.Id))
	}
	bytesOrNull(&j, "filename", s.filename, s.named())
	j.Bool("filename_cut", s.marked(bpfMarkMARK_NAME_CUT))
	bytesOrNull(&j, "interpreter", s.interp, len(s.interp) > 0)
	bytesOrNull(&j, "exe", s.exe, s.exe != nil)
	j.Strings("args", s.args)
	j.Uint("args_missing", s.argsMissing)
	j.Uint("args_bytes_missing", s.bytesMissing)
	j.Bool("args_unreadable", s.marked(bpfMarkMARK_UNREADABLE))
	bytesOrNull(&j, "cwd", s.cwd, s.cwd != nil)
	j.Int("ret", int64(s.Ret))
	if s.Ret < 0 {
		j.String("error", output.ErrnoName(-s.Ret))
	} else {
		j.Null("error")
	}
	j.Uint("cpu", uint64(s.Cpu))
	tty := events.CString(s.Tty[:])
	bytesOrNull(&j, "tty", tty, len(tty) > 0)
	uintOrNull(&j, "loginuid", uint64(s.Loginuid), s.Loginuid != unset)
	uintOrNull(&j, "sessionid", uint64(s.Sessionid), s.Sessionid != unset)
	if p.opts.ancestors > 0 {
		j.Array("ancestors")
		for i := range min(len(s.ancestors), int(p.opts.ancestors)) {
			j.Object("")
			j.Uint("pid", uint64(s.ancestors[i].Pid))
			j.Str("comm", events.CString(s.ancestors[i].Comm[:]))
			j.Close()
		}
		j.Close()
	}
	if len(p.opts.env) > 0 {
		j.Strings("env", s.env)
	}
	return j.End()
}

// id writes the number of a run of a program. JSON's numbers are too small for it
// in most readers.
func id(n uint64) string { return fmt.Sprintf("%016x", n) }

func bytesOrNull(j *output.Object, key string, value []byte, known bool) {
	if known {
		j.Str(key, value)
	} else {
		j.Null(key)
	}
}

func uintOrNull(j *output.Object, key string, value uint64, known bool) {
	if known {
		j.Uint(key, value)
	} else {
		j.Null(key)
	}
}
