package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/filter"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// sample is what the kernel found when it looked at a CPU.
type sample struct {
	Time         uint64 // nanoseconds of CLOCK_MONOTONIC
	Period       uint64 // of the event, since the sample before
	CPU          uint32
	PID, TID     uint32
	CgroupID     uint64
	Comm         string // of the thread
	KernelThread bool
	Kernel, User []uint64 // leaf first, as sampled
	Status       status
	// Mapped is when what the process has mapped last changed, as far as the kernel knew
	// when it walked the user stack by tables; otherwise 0.
	Mapped uint64
	// InSyscall says that the leaf of User is behind the instruction of a system call.
	InSyscall bool
	// Copied is what User is still to be found by; nil if it is there already.
	Copied *copied
}

// engine puts samples and what the kernel tells of processes into one order, finds out
// what the addresses of each sample were at its time, and has the counter count it. It is
// not safe for concurrent use.
type engine struct {
	sideband *perfevent.Sideband
	timeline *mappings.Timeline
	counter  *counter
	recorder recording // nil unless the run is recorded
	// command is the process whose samples are of nobody's interest before it has executed
	// its program, or 0.
	command  uint32
	early    uint64 // samples that were of none
	crowded  uint64 // samples that there was no room for
	reader   *tableReader
	unwinder *unwinder
	tables   *tables // nil if the kernel walks by none
	copySize uint32  // of stacks, at most, in bytes
	copies   int     // bytes of stacks that are not walked yet
	// generated is called for a process that runs code which it made itself.
	generated func(*mappings.Process)

	samples []*sample           // not yet in order
	records []*perfevent.Record // likewise
	until   uint64              // what is older is all there
	news    bool                // something began of late, or is waited for

	slots     map[slot]*sample
	comms     map[[16]uint8]string
	processes map[*mappings.Process]*process
	outside   map[string]*process // those that have no pid here, by comm
	groups    []*group            // all frames, in the order of first use
	origins   map[origin]*group
	found     []*frame // of one sample
	// Samples with frames of user space of which nothing is known, by process, since what
	// it has mapped can't be read: nil stands for those of other pid namespaces.
	unread map[*mappings.Process]uint64
}

// recording takes what the engine takes in, in the order of time.
type recording interface {
	record(r *perfevent.Record) error
	sample(s *sample, p *process, kernel, user []*frame) error
}

// slot is where the kernel keeps what a sample is compared with.
type slot struct{ cpu, slot uint32 }

// origin is where addresses are told apart by themselves: a file, the programs of a process
// where the code is of no file, the kernel, or nothing that is known.
type origin struct {
	kind    kind
	file    *mappings.File
	process *mappings.Process // with kindJIT
	execs   int               // with kindJIT: which of its programs made it
}

func newEngine(c *counter) *engine {
	reader := newTableReader()
	return &engine{
		counter: c, reader: reader, unwinder: newUnwinder(reader), slots: map[slot]*sample{}, comms: map[[16]uint8]string{},
		processes: map[*mappings.Process]*process{}, outside: map[string]*process{},
		origins: map[origin]*group{}, unread: map[*mappings.Process]uint64{},
	}
}

// handle takes a record of the ring buffer.
func (e *engine) handle(record []byte) error {
	var head bpfRepeat
	if _, err := events.Decode(&head, record); err != nil {
		return err
	}
	at := slot{head.Cpu, head.Slot}
	if bpfKind(head.Kind) == bpfKindKIND_REPEAT {
		first := e.slots[at]
		if first == nil {
			return fmt.Errorf("a sample of CPU %d repeats one that is not there", head.Cpu)
		}
		again := *first
		again.Time, again.Period = head.TimeNs, head.Period
		e.samples = append(e.samples, &again)
		return nil
	}
	s, err := e.decode(record)
	if err != nil {
		return err
	}
	if head.Slot != noSlot {
		e.slots[at] = s
	}
	e.samples = append(e.samples, s)
	return nil
}

// noSlot is NO_SLOT in profile.bpf.c.
const noSlot = 1<<32 - 1

func (e *engine) decode(record []byte) (*sample, error) {
	var ev bpfEvent
	rest, err := events.Decode(&ev, record)
	if err != nil {
		return nil, err
	}
	k, u := int(ev.KernelFrames), int(ev.UserFrames)
	if len(rest) < 8*(k+u) {
		return nil, fmt.Errorf("a sample of %d and %d frames has %d bytes", k, u, len(rest))
	}
	behind := rest[8*(k+u):]
	addrs := make([]uint64, k+u)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(addrs))), 8*len(addrs)), rest)
	comm, ok := e.comms[ev.Comm]
	if !ok {
		comm = string(events.CString(ev.Comm[:]))
		e.comms[ev.Comm] = comm
	}
	s := &sample{
		Time: ev.TimeNs, Period: ev.Period, CPU: ev.Cpu, PID: ev.Pid, TID: ev.Tid, CgroupID: ev.CgroupId, Comm: comm,
		KernelThread: ev.KernelThread != 0, Kernel: addrs[:k:k], User: addrs[k:], Status: status(ev.UserStatus),
		InSyscall: ev.InSyscall != 0, Mapped: ev.MappedNs,
	}
	if bpfUserStatus(ev.UserStatus) == bpfUserStatusUSER_COPIED {
		if s.Copied, err = e.copied(behind); err != nil {
			return nil, err
		}
	}
	// Threads that the kernel made within a process, as those of io_uring, have none of
	// their own.
	if len(s.User) == 1 && s.User[0] == 0 {
		s.User, s.Status = nil, statusNone
	}
	return s, nil
}

// copiesMemory is how much the copies of stacks that wait for their time may take, in
// bytes. Of what comes beyond that, the leaf is all there is.
const copiesMemory = 64 << 20

// copied takes what is behind the frames of a sample: the registers, and copies of stacks.
func (e *engine) copied(record []byte) (*copied, error) {
	var head bpfCopy
	rest, err := events.Decode(&head, record)
	if err != nil {
		return nil, err
	}
	first, size := int(head.Size), int(head.Size)+int(head.InterruptedSize)
	if len(rest) < size {
		return nil, fmt.Errorf("copies of %d bytes of stacks have %d", size, len(rest))
	}
	r := head.Regs
	c := &copied{Registers: unwind.Registers{IP: r.Ip, SP: r.Sp, FP: r.Fp, LR: r.Lr, Syscall: r.InSyscall != 0}}
	c.Most = uint64(e.copySize)
	if e.copies+size <= copiesMemory {
		bytes := bytes.Clone(rest[:size])
		c.add(head.Start, bytes[:first], head.Holes)
		c.add(head.InterruptedStart, bytes[first:], head.InterruptedHoles)
		e.copies += c.size()
	}
	return c, nil
}

// drained is to be called each time the ring buffer is empty. It handles what is older
// than the last time: younger samples may have records beside them that have not been read.
func (e *engine) drained() error {
	until := e.until
	e.until = perfevent.Now()
	if err := e.read(); err != nil {
		return err
	}
	if err := e.advance(until); err != nil {
		return err
	}
	if err := e.timeline.Resync(); err != nil || e.tables == nil {
		return err
	}
	return e.tables.resynced(e.timeline)
}

// quiet reports whether no process is known to have begun, ended or mapped a file of late:
// of those that do the files are better opened soon, while they are there.
func (e *engine) quiet() bool { return !e.news }

func (e *engine) read() error {
	before := len(e.records)
	err := e.sideband.Read(func(r *perfevent.Record) error {
		e.timeline.Hold(r)
		e.records = append(e.records, r)
		return nil
	})
	e.news = len(e.records) > before
	if err != nil || e.tables == nil {
		return err
	}
	return e.tables.update(e.timeline, e.records, e.records[before:])
}

// finish handles what is left, when nothing more can come.
func (e *engine) finish() error {
	err := e.read()
	for {
		if err := errors.Join(err, e.advance(1<<64-1)); err != nil || len(e.samples) == 0 {
			return err
		}
		e.unwinder.wait()
	}
}

// advance handles what is not younger than until, in the order of time, up to a sample whose
// stack can't be walked yet.
func (e *engine) advance(until uint64) error {
	slices.SortStableFunc(e.samples, func(a, b *sample) int { return cmp.Compare(a.Time, b.Time) })
	slices.SortStableFunc(e.records, func(a, b *perfevent.Record) int { return cmp.Compare(a.Time, b.Time) })
	records, samples := e.records, e.samples
	apply := func(until uint64) error {
		for len(records) > 0 && records[0].Time <= until {
			e.timeline.Apply(records[0])
			if e.recorder != nil {
				if err := e.recorder.record(records[0]); err != nil {
					return err
				}
			}
			records = records[1:]
		}
		return nil
	}
	for len(samples) > 0 && samples[0].Time <= until {
		if err := apply(samples[0].Time); err != nil {
			return err
		}
		if !e.walk(samples[0]) {
			until, e.news = 0, true
			break
		}
		if err := e.sample(samples[0]); err != nil {
			return err
		}
		samples = samples[1:]
	}
	if err := apply(until); err != nil {
		return err
	}
	e.records = rest(e.records, records)
	e.samples = rest(e.samples, samples)
	return nil
}

// rest moves what is left of all to its beginning.
func rest[T any](all, left []T) []T {
	n := copy(all, left)
	clear(all[n:])
	return all[:n]
}

// walk finds the frames of a sample that has a copy of its stack. It reports whether that
// could be done, or is to be tried again.
func (e *engine) walk(s *sample) bool {
	if s.Copied == nil || s.PID != 0 && s.PID == e.command && e.timeline.Process(s.PID).Execs == 0 {
		return true
	}
	var owner *mappings.Process
	if s.PID != 0 {
		owner = e.timeline.Process(s.PID)
	}
	var done bool
	s.User, s.Status, done = e.unwinder.walk(owner, s.Copied)
	return done
}

// sample finds out what a sample's addresses are, and counts it.
func (e *engine) sample(s *sample) error {
	if s.Copied != nil {
		e.copies -= s.Copied.size()
	}
	var owner *mappings.Process
	if s.PID != 0 {
		owner = e.timeline.Process(s.PID)
		if s.PID == e.command && owner.Execs == 0 {
			e.early++
			return nil
		}
	}
	p := e.process(s, owner)
	if e.tables != nil && owner != nil {
		if err := e.tables.check(s, owner); err != nil {
			return err
		}
	}
	e.found = slices.Grow(e.found[:0], len(s.Kernel)+len(s.User))[:len(s.Kernel)+len(s.User)]
	kernel, user := e.found[:len(s.Kernel)], e.found[len(s.Kernel):]
	for i, addr := range s.Kernel {
		kernel[i] = e.frame(nil, origin{kind: kindKernel}, addr-caller(i))
	}
	exact := !s.InSyscall // whether the frame's address is that of what runs next
	for i, addr := range s.User {
		called := find(owner, addr-1)
		signal := i > 0 && e.inSignal(called, addr-1)
		if exact || signal {
			user[i] = e.user(owner, find(owner, addr), addr)
		} else {
			user[i] = e.user(owner, called, addr-1)
		}
		exact = signal // what a signal interrupted
	}
	if !e.counter.add(s, p, kernel, user) {
		e.crowded++
		return nil
	}
	if unknown := func(f *frame) bool { return f.Kind == kindUnknown }; (owner == nil || owner.Denied) && slices.ContainsFunc(user, unknown) {
		e.unread[owner]++
	}
	if e.recorder != nil {
		if err := e.recorder.sample(s, p, kernel, user); err != nil {
			return err
		}
	}
	return nil
}

// find gives the mapping that an address is in; its File is nil if there is none.
func find(owner *mappings.Process, addr uint64) mappings.Mapping {
	if owner == nil {
		return mappings.Mapping{}
	}
	m, _ := owner.Find(addr)
	return m
}

// inSignal reports whether an address of a mapping is one that a signal's handler returns to.
// Of files whose table nobody was in want of nothing is known.
func (e *engine) inSignal(m mappings.Mapping, addr uint64) bool {
	if m.File == nil {
		return false
	}
	if t := e.unwinder.files[m.File]; t != nil && t.read == nil && t.table != nil {
		return t.table.Layout.Signal(m.FileOffset(addr))
	}
	if e.tables != nil {
		if t := e.tables.files[m.File]; t != nil {
			return t.layout.Signal(m.FileOffset(addr))
		}
	}
	return false
}

// caller is how much a frame's address is to be less to be in the call and not behind it,
// where another function may begin.
func caller(i int) uint64 {
	if i == 0 {
		return 0
	}
	return 1
}

// process gives the process of a sample. owner is nil if it has no pid that is known here.
func (e *engine) process(s *sample, owner *mappings.Process) *process {
	if owner == nil {
		p := e.outside[s.Comm]
		if p == nil {
			p = &process{Comm: s.Comm, Kernel: s.KernelThread, CgroupID: s.CgroupID}
			e.outside[s.Comm] = p
		}
		return p
	}
	p := e.processes[owner]
	if p == nil {
		p = &process{PID: s.PID}
		e.processes[owner] = p
	}
	p.Kernel = s.KernelThread
	p.CgroupID = s.CgroupID
	if p.Comm == "" || s.TID == s.PID {
		p.Comm = s.Comm
	}
	return p
}

// user gives the frame of an address of a process, in a mapping of it.
func (e *engine) user(owner *mappings.Process, m mappings.Mapping, addr uint64) *frame {
	switch {
	case m.File == nil:
		return e.frame(owner, origin{kind: kindUnknown}, addr)
	case m.File.Kind == mappings.Anonymous || m.File.Kind == mappings.Memfd:
		e.generated(owner)
		return e.frame(owner, origin{kind: kindJIT, file: m.File, process: owner, execs: owner.Execs}, addr)
	}
	return e.frame(owner, origin{kind: kindUser, file: m.File}, m.FileOffset(addr))
}

// frame gives the one frame of an address: in a file, that is an offset.
func (e *engine) frame(owner *mappings.Process, from origin, addr uint64) *frame {
	g := e.origins[from]
	if g == nil {
		g = newGroup(from)
		if owner != nil {
			g.root = fmt.Sprintf("/proc/%d/root", owner.PID)
		}
		e.origins[from] = g
		e.groups = append(e.groups, g)
	}
	return g.frame(addr)
}

// describe completes the processes by what is known of them at the end.
func (e *engine) describe() {
	for owner, p := range e.processes {
		p.Exe, p.Cgroup, p.Container = owner.Exe, owner.Cgroup, owner.Container
		if owner.Comm != "" {
			p.Comm = owner.Comm
		}
		if path := e.cgroup(p.CgroupID); path != "" {
			p.Cgroup = path
		}
		if p.Container == "" {
			p.Container = mappings.ContainerID(p.Cgroup)
		}
	}
}

// cgroup gives the path of a cgroup, or "".
func (e *engine) cgroup(id uint64) string {
	if path, ok := e.timeline.Cgroup(id); ok {
		return path
	}
	path, err := filter.CgroupPath(id)
	if err != nil {
		return "" // it is gone, or there are no version 2 cgroups
	}
	return path
}

// close lets go of what was watched.
func (e *engine) close() {
	if e.sideband != nil {
		_ = e.sideband.Close()
	}
	if e.timeline != nil {
		_ = e.timeline.Close()
	}
}
