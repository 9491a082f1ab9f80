package main

import (
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/clock"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// ended is the end of a process.
type ended struct {
	bpfExit
	ran          time.Duration // since the exec, or since the process began
	user, system time.Duration
	timed        bool   // user and system are known
	asked        uint64 // when the kernel was first asked for them, as TimeNs
	gone         bool   // it was asked too late: they come by themselves, or not at all
}

// untimed counts the ends that are shown without CPU times.
type untimed struct {
	unseen uint64 // the kernel freed the process and ran no program for it
	early  uint64 // they were not complete in time
	mute   uint64 // the kernel can't be asked
}

func (u *untimed) count(e *ended, asked bool) {
	switch {
	case e.gone:
		u.unseen++
	case asked:
		u.early++
	default:
		u.mute++
	}
}

// text says how many there were by cause, or is empty.
func (u *untimed) text() string {
	var causes []string
	for _, c := range []struct {
		n    uint64
		text string
	}{
		{u.unseen, "freed by the kernel at a moment when it runs no BPF programs"},
		{u.early, "not complete in time"},
		{u.mute, "the kernel could not be asked"},
	} {
		if c.n > 0 {
			causes = append(causes, fmt.Sprintf("%d %s", c.n, c.text))
		}
	}
	if len(causes) == 0 {
		return ""
	}
	return "not known: CPU times of ended processes, " + strings.Join(causes, ", ")
}

// timesCall is the program to ask for what a process used.
const timesCall = "times_call"

// An end waits for what the process used in all. The kernel tells that by itself a
// grace period after the process was reaped: mostly within the first of these
// times, and sometimes many seconds later. So it is asked then. It knows, unless
// the process still gives its memory back or is held by a debugger; when it has been
// asked for the second of these times the end is shown without. So is one whose process
// was freed and who heard nothing of it: there are kernels that run no programs while a
// task is on the CPU that they shield, and they may free others in an interrupt then.
const (
	askAfter = 50 * time.Millisecond
	patience = 2 * time.Second
)

func (e *ended) signal() unix.Signal { return unix.Signal(e.Code & 0x7f) }
func (e *ended) dumped() bool        { return e.Code&0x80 != 0 }
func (e *ended) status() int         { return int(e.Code>>8) & 0xff }

// times adds what a process used to its end, and shows that.
func (p *printer) times(r *trace.Run, t *bpfTimes) error {
	i := slices.IndexFunc(p.ending, func(e *ended) bool { return e.Id == t.Id })
	if i < 0 {
		return nil // not one of ours, or told already
	}
	e := p.ending[i]
	e.user, e.system = share(t.UserNs, t.SystemNs, t.RuntimeNs)
	e.timed = true
	p.ending = slices.Delete(p.ending, i, i+1)
	return p.showEnd(r, e)
}

// share divides the run time of a process as getrusage(2) does: the tick finds out
// in which mode it runs, and the scheduler how long (cputime_adjust).
func share(user, system, runtime uint64) (time.Duration, time.Duration) {
	if system == 0 {
		return time.Duration(runtime), 0
	}
	// Exact, since a float would make more of the whole than there is, from 104
	// days on.
	ticks, carry := bits.Add64(user, system, 0)
	high, low := bits.Mul64(runtime, system)
	if high >= ticks || carry != 0 {
		return time.Duration(runtime), 0 // no process runs for 500 years
	}
	s, _ := bits.Div64(high, low, ticks)
	return time.Duration(runtime - s), time.Duration(s)
}

// end keeps the end of a process until it is known what it used.
func (p *printer) end(record []byte) error {
	e := &ended{}
	if _, err := events.Decode(&e.bpfExit, record); err != nil {
		return err
	}
	// Of threads that end at once, each may find that it is the last one.
	if p.exits.Again(e.Id) {
		return nil
	}
	since := e.StartNs
	if began, ok := p.running[e.Id]; ok {
		since = began
		delete(p.running, e.Id)
	}
	e.ran = time.Duration(e.TimeNs - since)
	p.ending = append(p.ending, e)
	return nil
}

// drained asks for what ended processes used, and shows the ends that have waited
// long enough.
func (p *printer) drained(r *trace.Run) error {
	latest := clock.Boot()
	for i := 0; i < len(p.ending); {
		e := p.ending[i]
		if e.TimeNs+uint64(askAfter) >= latest {
			break // as those behind it
		}
		if e.asked == 0 {
			e.asked = latest
		}
		// Counted from here, as the machine may have stood still since the end. What came
		// before a process was gone has been read by now.
		if !e.gone && e.asked+uint64(patience) >= latest {
			p.ask(r, e)
			i++
			continue
		}
		if err := p.showEnd(r, e); err != nil {
			return err
		}
		p.ending = slices.Delete(p.ending, i, i+1)
	}
	return nil
}

// last asks once more, for those that have ended just now.
func (p *printer) last(r *trace.Run) {
	for _, e := range p.ending {
		p.ask(r, e)
	}
}

// ask has the kernel side send what a process used, if that is known by now.
func (p *printer) ask(r *trace.Run, e *ended) {
	if p.askTimes == nil {
		return
	}
	answer, err := p.askTimes(r, e)
	if err != nil {
		p.say(r, "not seen here: CPU times of some processes: "+err.Error())
		p.askTimes = nil
	}
	e.gone = answer == bpfAnswerANSWER_GONE
}

func callTimes(r *trace.Run, e *ended) (bpfAnswer, error) {
	answer, err := r.Call(timesCall, e.Leader, e.Id)
	return bpfAnswer(answer), err
}

// finish shows what still waits, and the summary.
func (p *printer) finish(r *trace.Run) error {
	for _, e := range p.ending {
		if err := p.showEnd(r, e); err != nil {
			return err
		}
	}
	p.ending = nil
	if text := p.untimed.text(); text != "" {
		p.say(r, text)
	}
	if !p.opts.summary {
		return nil
	}
	return p.counts.write(r.Out)
}

// showEnd writes the end of a process, or counts it.
func (p *printer) showEnd(r *trace.Run, e *ended) error {
	o := p.opts
	p.depths.forget(process{e.Pid, e.StartNs})
	if p.counts.hidden(e.Id) || o.nameRE != nil && !o.nameRE.Match(events.CString(e.Comm[:])) {
		return nil
	}
	if o.summary {
		p.counts.end(e)
		return nil
	}
	if !e.timed {
		p.untimed.count(e, p.askTimes != nil)
	}
	r.Shown++
	wall := r.Wall.Nanos(e.TimeNs)
	if o.JSON {
		return r.Out.EndRow(appendEndJSON(r.Out.Row(), e, wall))
	}
	return r.Out.EndRow(p.appendEnd(r.Out.Row(), e, wall))
}

// pageKiB is the size of a page.
var pageKiB = uint64(os.Getpagesize() / 1024)

// appendEnd appends the end of a process as a row of text. In RET stands what a
// shell would give: the exit status, or 128 and the signal.
func (p *printer) appendEnd(dst []byte, e *ended, wall int64) []byte {
	ret := e.status()
	if s := e.signal(); s != 0 {
		ret = 128 + int(s)
	}
	dst = p.appendTask(dst, &task{
		boot: e.TimeNs, wall: wall, uid: e.Uid, pid: e.Pid, ppid: e.Ppid,
		comm: events.CString(e.Comm[:]), parent: events.CString(e.ParentComm[:]), cpu: -1, ret: int64(ret),
	})
	if s := e.signal(); s != 0 {
		dst = append(append(dst, "<killed by "...), signalName(s)...)
		if e.dumped() {
			dst = append(dst, ", core dumped"...)
		}
	} else {
		dst = fmt.Appendf(dst, "<exited with %d", e.status())
	}
	dst = output.AppendDuration(append(dst, " after "...), int64(e.ran), time.Second, 6, 0)
	dst = append(dst, " s"...)
	if e.timed {
		dst = output.AppendDuration(append(dst, ", user "...), int64(e.user), time.Second, 6, 0)
		dst = output.AppendDuration(append(dst, " s, system "...), int64(e.system), time.Second, 6, 0)
		dst = append(dst, " s"...)
	}
	return fmt.Appendf(dst, ", at most %d KiB>\n", e.MaxRssPages*pageKiB)
}

func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

func appendEndJSON(dst []byte, e *ended, wall int64) []byte {
	j := output.Begin(dst)
	j.Time("time", wall)
	j.String("kind", "exit")
	j.Uint("pid", uint64(e.Pid))
	j.Uint("tid", uint64(e.Tid))
	j.Uint("ppid", uint64(e.Ppid))
	j.Uint("uid", uint64(e.Uid))
	j.Str("comm", events.CString(e.Comm[:]))
	j.Uint("cgroup_id", e.CgroupId)
	j.Str("parent_comm", events.CString(e.ParentComm[:]))
	j.String("exec_id", id(e.Id))
	if s := e.signal(); s != 0 {
		j.Null("exit_code")
		j.String("signal", signalName(s))
	} else {
		j.Int("exit_code", int64(e.status()))
		j.Null("signal")
	}
	j.Bool("core_dumped", e.dumped())
	j.Uint("duration_ns", uint64(e.ran))
	uintOrNull(&j, "user_ns", uint64(e.user), e.timed)
	uintOrNull(&j, "system_ns", uint64(e.system), e.timed)
	j.Uint("max_rss_bytes", e.MaxRssPages*pageKiB*1024)
	return j.End()
}
