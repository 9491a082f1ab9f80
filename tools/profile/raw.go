package main

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/symbols"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// A recording is what the engine took in, and what it found that to be, compressed by
// gzip: a head, then samples and the kernel's records in the order of time, then an end
// with the names of all that samples were in. The first sample of a process or in a frame
// gives it the next number.
const (
	rawMagic   = "gobcc profile recording\n"
	rawVersion = 2 // 1 had no periods, and no copies of stacks
)

// part is what comes next in a recording.
type part uint8

const (
	partRecord part = iota + 1
	partSample
	partEnd
)

// A recording may come from anywhere: nothing in it is larger than these, whatever it
// says.
const (
	rawString = 1 << 20 // bytes
	rawFrames = 1 << 11 // of a stack
	rawLines  = 1 << 8  // of a frame
	rawPieces = 1 << 4  // of memory, of a sample
	rawThings = 1 << 22 // processes, frames, files, arguments
)

// recorder writes a recording. Once it can't be written, as the disk is full, the run goes
// on for what else it is to write, and end tells of it.
type recorder struct {
	codec
	compressed *gzip.Writer
	processes  numbers[process]
	frames     numbers[frame]
}

// newRecorder begins a recording with what is known of the report before there are
// samples.
func newRecorder(w io.Writer, r *report) (*recorder, error) {
	// What is written at the best speed is about a tenth larger than at the default.
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	rec := &recorder{codec: codec{w: bufio.NewWriterSize(compressed, 64<<10)}, compressed: compressed}
	rec.w.WriteString(rawMagic)
	rec.w.WriteByte(rawVersion)
	rec.head(r)
	return rec, rec.err
}

// record writes a record, when the engine applies it.
func (rec *recorder) record(r *perfevent.Record) error {
	rec.part(partRecord)
	rec.perfRecord(r)
	return nil
}

// sample writes a sample, when the engine has found out what it is of. What these are
// called is written at the end.
func (rec *recorder) sample(s *sample, p *process, kernel, user []*frame) error {
	rec.part(partSample)
	rec.sampled(s)
	n := rec.processes.of(p)
	rec.uint(&n)
	for _, frames := range [][]*frame{kernel, user} {
		for _, f := range frames {
			n := rec.frames.of(f)
			rec.uint(&n)
		}
	}
	return nil
}

// end writes what was found out, and all that is not written yet. The caller closes the
// file.
func (rec *recorder) end(r *report) error {
	rec.part(partEnd)
	rec.tail(r, &rec.processes.list, &rec.frames.list)
	if err := cmp.Or(rec.err, rec.w.Flush(), rec.compressed.Close()); err != nil {
		return fmt.Errorf("record the run: %w", err)
	}
	return nil
}

// numbers are given to things in the order in which they come.
type numbers[T any] struct {
	list []*T
	by   map[*T]uint64
}

func (n *numbers[T]) of(thing *T) uint64 {
	number, ok := n.by[thing]
	if !ok {
		if n.by == nil {
			n.by = map[*T]uint64{}
		}
		number = uint64(len(n.list))
		n.by[thing] = number
		n.list = append(n.list, thing)
	}
	return number
}

// replayed takes what is in a recording, in its order.
type replayed struct {
	record func(r *perfevent.Record) error
	// Processes and frames are the same pointers for the same ones; what is in them is
	// there when the replay has ended.
	sample func(s *sample, p *process, kernel, user []*frame) error
}

// replay reads a recording. The report has neither stacks nor moments: those are for
// whoever took the samples to count.
func replay(in io.Reader, to replayed) (*report, error) {
	compressed, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("this is no recording of profile's: %w", err)
	}
	return replayPlain(compressed, to)
}

// replayPlain is replay of what is not compressed.
func replayPlain(in io.Reader, to replayed) (*report, error) {
	p := &player{codec: codec{r: bufio.NewReaderSize(in, 64<<10)}, to: to}
	magic := make([]byte, len(rawMagic)+1)
	if _, err := io.ReadFull(p.r, magic); err != nil || string(magic[:len(rawMagic)]) != rawMagic {
		return nil, errors.New("this is no recording of profile's")
	}
	if version := magic[len(rawMagic)]; version != rawVersion {
		return nil, fmt.Errorf("this recording has version %d, and this profile reads version %d: use the profile that made it", version, rawVersion)
	}
	r := &report{}
	p.head(r)
	for {
		var next part
		number(&p.codec, &next)
		switch {
		case p.err != nil:
		case next == partRecord:
			p.passRecord()
		case next == partSample:
			p.passSample()
		case next == partEnd:
			p.tail(r, &p.processes, &p.frames)
			if p.err == nil {
				return r, nil
			}
		default:
			p.fail("a part %d, which there is none of", next)
		}
		if p.err != nil {
			if errors.Is(p.err, io.EOF) || errors.Is(p.err, io.ErrUnexpectedEOF) {
				p.err = errors.New("it is cut off before its end")
			}
			return nil, fmt.Errorf("read the recording: %w", p.err)
		}
	}
}

// readRecording makes the report of a recording.
func readRecording(in io.Reader, keepMoments bool) (*report, error) {
	return countRecording(replay, in, keepMoments)
}

func countRecording(replay func(io.Reader, replayed) (*report, error), in io.Reader, keepMoments bool) (*report, error) {
	c := newCounter(keepMoments)
	r, err := replay(in, replayed{
		record: func(*perfevent.Record) error { return nil },
		sample: func(s *sample, p *process, kernel, user []*frame) error {
			if !c.add(s, p, kernel, user) {
				return errors.New("it has more stacks than there is memory for")
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	shown := r.Totals.Shown
	c.fill(r)
	if shown != r.Totals.Shown {
		return nil, fmt.Errorf("read the recording: it has %d samples and says that it has %d", r.Totals.Shown, shown)
	}
	return r, nil
}

// player reads a recording.
type player struct {
	codec
	to        replayed
	processes []*process
	frames    []*frame
}

func (p *player) passRecord() {
	r := &perfevent.Record{}
	p.perfRecord(r)
	if p.err == nil {
		p.err = p.to.record(r)
	}
}

func (p *player) passSample() {
	s := &sample{}
	p.sampled(s)
	owner := known(&p.codec, &p.processes)
	frames := make([]*frame, len(s.Kernel)+len(s.User))
	for i := range frames {
		frames[i] = known(&p.codec, &p.frames)
	}
	if p.err == nil {
		k := len(s.Kernel)
		p.err = p.to.sample(s, owner, frames[:k:k], frames[k:])
	}
}

// known reads a number of one of the list, or of the next.
func known[T any](c *codec, list *[]*T) *T {
	var n uint64
	c.uint(&n)
	switch {
	case c.err != nil:
		return nil
	case n < uint64(len(*list)):
		return (*list)[n]
	case n > uint64(len(*list)) || n >= rawThings:
		c.fail("number %d, where there are %d", n, len(*list))
		return nil
	}
	*list = append(*list, new(T))
	return (*list)[n]
}

// head is what is known before there are samples.
func (c *codec) head(r *report) {
	items(c, &r.Command, rawThings, c.string)
	c.string(&r.Version)
	c.string(&r.Kernel)
	c.string(&r.Header)
	number(c, &r.CPUs)
	c.string(&r.Event)
	c.string(&r.Unit)
	c.uint(&r.Period)
	c.uint(&r.Hertz)
	start := r.Start.UnixNano()
	number(c, &start)
	if c.w == nil {
		r.Start = time.Unix(0, start).UTC()
	}
}

func (c *codec) sampled(s *sample) {
	c.uint(&s.Time)
	c.uint(&s.Period)
	number(c, &s.CPU)
	number(c, &s.PID)
	number(c, &s.TID)
	c.uint(&s.CgroupID)
	c.string(&s.Comm)
	c.bool(&s.KernelThread)
	items(c, &s.Kernel, rawFrames, c.uint)
	items(c, &s.User, rawFrames, c.uint)
	number(c, &s.Status)
	c.uint(&s.Mapped)
	c.bool(&s.InSyscall)
	has := s.Copied != nil
	c.bool(&has)
	if !has {
		return
	}
	if s.Copied == nil {
		s.Copied = &copied{}
	}
	r := &s.Copied.Registers
	for _, n := range []*uint64{&r.IP, &r.SP, &r.FP, &r.LR} {
		c.uint(n)
	}
	c.bool(&r.Syscall)
	c.uint(&s.Copied.Most)
	items(c, (*[]unwind.Piece)(&s.Copied.Memory), rawPieces, func(p *unwind.Piece) {
		c.uint(&p.Start)
		text := string(p.Bytes)
		c.string(&text)
		if c.w == nil {
			p.Bytes = []byte(text)
		}
	})
}

func (c *codec) perfRecord(r *perfevent.Record) {
	number(c, &r.Kind)
	c.uint(&r.Time)
	number(c, &r.CPU)
	number(c, &r.PID)
	number(c, &r.TID)
	number(c, &r.PPID)
	number(c, &r.PTID)
	c.bool(&r.Exec)
	c.string(&r.Comm)
	c.uint(&r.Addr)
	c.uint(&r.Len)
	c.uint(&r.Offset)
	number(c, &r.Prot)
	number(c, &r.Flags)
	number(c, &r.Major)
	number(c, &r.Minor)
	c.uint(&r.Inode)
	c.uint(&r.InodeGeneration)
	items(c, &r.BuildID, rawString, func(b *byte) { number(c, b) })
	c.string(&r.Path)
	c.uint(&r.Lost)
	c.uint(&r.CgroupID)
}

// tail is what is known at the end. There are as many processes and frames as samples
// had.
func (c *codec) tail(r *report, processes *[]*process, frames *[]*frame) {
	number(c, &r.CPUs)
	number(c, &r.Duration)
	c.totals(&r.Totals)
	for _, p := range *processes {
		c.process(p)
	}
	// Writing, all files are in the report; a frame has one more than its file's number.
	at := map[*mapped]uint64{}
	for i, m := range r.Files {
		at[m] = uint64(i) + 1
	}
	items(c, &r.Files, rawThings, func(m **mapped) {
		if *m == nil {
			*m = &mapped{}
		}
		c.mapped(*m)
	})
	for _, f := range *frames {
		if c.err != nil {
			return
		}
		number(c, &f.Kind)
		n := at[f.File]
		if f.File != nil && n == 0 {
			c.fail("a frame in %s, which is not in the report", f.File.Path)
			return
		}
		c.uint(&n)
		if n > uint64(len(r.Files)) {
			c.fail("a frame in file %d of %d", n, len(r.Files))
			return
		}
		if n > 0 {
			f.File = r.Files[n-1]
		}
		c.uint(&f.Address)
		items(c, &f.Lines, rawLines, c.line)
	}
}

func (c *codec) totals(t *totals) {
	for _, n := range []*uint64{&t.Taken, &t.Shown, &t.Idle, &t.Filtered, &t.Possibly, &t.Throttled} {
		c.uint(n)
	}
	causes := slices.Sorted(maps.Keys(t.Lost))
	items(c, &causes, rawLines, c.string)
	if c.w == nil {
		t.Lost = map[string]uint64{}
	}
	for _, cause := range causes {
		n := t.Lost[cause]
		c.uint(&n)
		t.Lost[cause] = n
	}
}

func (c *codec) process(p *process) {
	number(c, &p.PID)
	c.string(&p.Comm)
	c.string(&p.Exe)
	c.string(&p.Cgroup)
	c.uint(&p.CgroupID)
	c.string(&p.Container)
	c.bool(&p.Kernel)
}

func (c *codec) mapped(m *mapped) {
	c.string(&m.Path)
	c.string(&m.BuildID)
	c.uint(&m.Start)
	c.uint(&m.Limit)
	c.uint(&m.Offset)
	c.bool(&m.Symbols)
	c.bool(&m.SourceFiles)
	c.bool(&m.LineNumbers)
	c.bool(&m.Inlining)
}

func (c *codec) line(l *symbols.Line) {
	c.string(&l.Function)
	c.string(&l.Linkage)
	c.uint(&l.Start)
	c.string(&l.File)
	number(c, &l.Line)
	number(c, &l.StartLine)
}

// codec writes what it is given, or reads it if w is nil: so that what is in a recording,
// and in which order, is written down once. After an error it does nothing.
type codec struct {
	w   *bufio.Writer
	r   *bufio.Reader
	err error
	buf [binary.MaxVarintLen64]byte
}

func (c *codec) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *codec) part(p part) { number(c, &p) }

func (c *codec) uint(v *uint64) {
	switch {
	case c.err != nil:
	case c.w != nil:
		_, c.err = c.w.Write(binary.AppendUvarint(c.buf[:0], *v))
	default:
		*v, c.err = binary.ReadUvarint(c.r)
	}
}

// number is for integers of any size. Negative ones are few and may be long.
func number[T ~int | ~int64 | ~uint8 | ~uint32](c *codec, v *T) {
	n := uint64(int64(*v))
	c.uint(&n)
	*v = T(n)
	if c.err == nil && uint64(int64(*v)) != n {
		c.fail("%d, which is too large", n)
	}
}

func (c *codec) bool(v *bool) {
	n := uint8(0)
	if *v {
		n = 1
	}
	number(c, &n)
	*v = n != 0
}

func (c *codec) string(s *string) {
	n := uint64(len(*s))
	if c.w != nil && n > rawString {
		n = rawString
	}
	c.uint(&n)
	switch {
	case c.err != nil:
	case c.w != nil:
		_, c.err = c.w.WriteString((*s)[:n])
	case n > rawString:
		c.fail("a string of %d bytes", n)
	default:
		b := make([]byte, n)
		_, c.err = io.ReadFull(c.r, b)
		*s = string(b)
	}
}

// items is for lists of up to most.
func items[T any](c *codec, l *[]T, most int, each func(*T)) {
	n := uint64(len(*l))
	c.uint(&n)
	if c.err == nil && n > uint64(most) {
		c.fail("a list of %d, and %d is the most", n, most)
	}
	if c.w != nil {
		for i := range *l {
			each(&(*l)[i])
		}
		return
	}
	for range n {
		if c.err != nil {
			return
		}
		*l = append(*l, *new(T))
		each(&(*l)[len(*l)-1])
	}
}
