package main

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// bytesOf gives a record as the kernel would write it.
func bytesOf[T any](head T, frames ...uint64) []byte {
	b := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&head)), unsafe.Sizeof(head)))
	if len(frames) == 0 {
		return b
	}
	return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&frames[0])), 8*len(frames))...)
}

func testEngine() *engine {
	e := newEngine(newCounter(true))
	e.timeline = mappings.New(mappings.Options{})
	e.generated = func(*mappings.Process) {}
	return e
}

// A pid that no process can have, so that nothing is read of it from /proc.
const nobody = 1<<22 + 1

// Samples are taken with what was mapped at their time, whatever the order in which the
// rings were read.
func TestEngineOrder(t *testing.T) {
	e := testEngine()
	for _, at := range []uint64{300, 100} {
		ev := bpfEvent{TimeNs: at, Slot: noSlot, UserFrames: 1, UserStatus: uint8(statusFramePointers), Pid: nobody, Tid: nobody}
		if err := e.handle(bytesOf(ev, 0x1010)); err != nil {
			t.Fatal(err)
		}
	}
	e.records = []*perfevent.Record{
		{Kind: perfevent.Mmap, Time: 200, PID: nobody, TID: nobody, Addr: 0x1000, Len: 0x1000, Path: "//anon"},
		{Kind: perfevent.Fork, Time: 50, PID: nobody, TID: nobody},
	}
	if err := e.advance(250); err != nil {
		t.Fatal(err)
	}
	if len(e.samples) != 1 || len(e.records) != 0 || e.counter.shown != 1 {
		t.Fatalf("%d samples and %d records are left, %d shown", len(e.samples), len(e.records), e.counter.shown)
	}
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	var kinds []kind
	for _, m := range e.counter.moments {
		kinds = append(kinds, m.Stack.User[0].Kind)
	}
	if !slices.Equal(kinds, []kind{kindUnknown, kindJIT}) {
		t.Errorf("before and after the mapping: %v", kinds)
	}
}

// A repeat is as the last sample of its CPU and slot, but for its time.
func TestEngineRepeats(t *testing.T) {
	e := testEngine()
	for cpu := range uint32(2) {
		ev := bpfEvent{TimeNs: 10, Cpu: cpu, Slot: 7, KernelFrames: 2, Pid: nobody, Tid: nobody + cpu}
		if err := e.handle(bytesOf(ev, 0xffffffff81000010, 0xffffffff81000020)); err != nil {
			t.Fatal(err)
		}
	}
	for at := range uint64(23) {
		repeat := bpfRepeat{TimeNs: 20 + at, Cpu: 1, Slot: 7, Kind: uint16(bpfKindKIND_REPEAT)}
		if err := e.handle(bytesOf(repeat)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	r := &report{}
	e.counter.fill(r)
	if len(r.Stacks) != 2 || r.Stacks[0].Count != 1 || r.Stacks[1].Count != 24 || r.Stacks[1].TID != nobody+1 || r.Totals.Shown != 25 {
		t.Errorf("%+v", r)
	}
	if f := r.Stacks[0].Kernel; f[0].Address != 0xffffffff81000010 || f[1].Address != 0xffffffff8100001f {
		t.Errorf("%#x, and its caller %#x", f[0].Address, f[1].Address)
	}
	if err := e.handle(bytesOf(bpfRepeat{Slot: 8, Kind: uint16(bpfKindKIND_REPEAT)})); err == nil {
		t.Error("a repeat of nothing was taken")
	}
}

// A command's samples count from its exec on.
func TestEngineCommand(t *testing.T) {
	e := testEngine()
	e.command = nobody
	for _, at := range []uint64{100, 300} {
		if err := e.handle(bytesOf(bpfEvent{TimeNs: at, Slot: noSlot, Pid: nobody, Tid: nobody})); err != nil {
			t.Fatal(err)
		}
	}
	e.records = []*perfevent.Record{{Kind: perfevent.Comm, Exec: true, Time: 200, PID: nobody, TID: nobody, Comm: "command"}}
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	if e.early != 1 || e.counter.shown != 1 {
		t.Errorf("%d samples before, %d from then on", e.early, e.counter.shown)
	}
}

// TestEngineUnread counts the samples whose functions can't be named, by process, since what
// it has mapped may not be read.
func TestEngineUnread(t *testing.T) {
	e := testEngine()
	for pid := range uint32(5) {
		e.timeline.Apply(&perfevent.Record{Kind: perfevent.Fork, Time: 1, PID: nobody + pid, TID: nobody + pid})
		e.timeline.Apply(&perfevent.Record{Kind: perfevent.Comm, Time: 2, PID: nobody + pid, TID: nobody + pid, Comm: "od\nd"})
		e.timeline.Apply(&perfevent.Record{Kind: perfevent.Mmap, Time: 3, PID: nobody + pid, TID: nobody + pid, Addr: 0x1000, Len: 0x1000, Path: "//anon"})
		e.timeline.Process(nobody + pid).Denied = pid < 4
	}
	send := func(n int, ev bpfEvent, addr ...uint64) {
		ev.TimeNs, ev.Slot, ev.UserFrames, ev.UserStatus = 100, noSlot, uint16(len(addr)), uint8(statusFramePointers)
		for range n {
			if err := e.handle(bytesOf(ev, addr...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(3, bpfEvent{Pid: nobody, Tid: nobody}, 0x1010, 0x9999)
	send(23, bpfEvent{Pid: nobody + 1, Tid: nobody + 1}, 0x9999)
	send(23, bpfEvent{Pid: nobody + 2, Tid: nobody + 2}, 0x1010) // which is known
	send(23, bpfEvent{Pid: nobody + 3, Tid: nobody + 3})         // of the kernel
	send(23, bpfEvent{Pid: nobody + 4, Tid: nobody + 4}, 0x9999) // not for that reason
	send(5, bpfEvent{}, 0x9999)
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	p := &session{engine: e, env: &cli.Env{Name: "profile", Stderr: &stderr}}
	p.sayUnread()
	got := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	slices.Sort(got)
	want := []string{
		fmt.Sprintf(`profile: no names of user functions in 26 samples: what process %d (od\nd) and 1 more mapped may not be read (it takes CAP_SYS_PTRACE, and no fewer capabilities than the process has)`, nobody+1),
		"profile: no names of user functions in 5 samples: their processes are outside of this pid namespace",
	}
	if !slices.Equal(got, want) {
		t.Errorf("it said %q\nnot %q", got, want)
	}
	stderr.Reset()
	clear(e.unread)
	if p.sayUnread(); stderr.Len() > 0 {
		t.Errorf("without such samples it said %q", &stderr)
	}
}

func TestEngineFull(t *testing.T) {
	e := testEngine()
	e.counter.room = 2*(stackSize+2*frameSize) + 5*momentSize
	for i := range uint64(23) {
		stack := []uint64{0xffffffff81000010, 0xffffffff81000020 + i/2}
		if err := e.handle(bytesOf(bpfEvent{TimeNs: i, Slot: noSlot, KernelFrames: 2}, stack...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	// Two samples each of two stacks; there is no room for a third.
	if e.counter.shown != 4 || e.crowded != 19 || len(e.counter.stacks) != 2 {
		t.Errorf("%d shown of %d stacks, %d that there was no room for", e.counter.shown, len(e.counter.stacks), e.crowded)
	}
}

func TestShortRecords(t *testing.T) {
	whole := bytesOf(bpfEvent{Slot: noSlot, KernelFrames: 1, UserFrames: 2}, 1, 2, 3)
	for n := range whole {
		if err := testEngine().handle(whole[:n]); err == nil {
			t.Errorf("%d bytes were taken for a sample", n)
		}
	}
}

func TestSummary(t *testing.T) {
	p := &session{engine: &engine{timeline: mappings.New(mappings.Options{})}, sampled: 4 * time.Second}
	rep := testReport()
	got := p.summary(rep)
	for _, want := range []string{" 5245 shown", " 700 idle", " 32 filtered", " 23 lost, and perhaps 1 more"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got, want)
		}
	}
	rep.Period, rep.Unit = 600_000, "nanoseconds" // of 4 s: 6666
	if got := p.summary(rep); strings.Contains(got, "were due") {
		t.Errorf("%q of nearly all", got)
	}
	rep.Period = 400_000
	if got := p.summary(rep); !strings.Contains(got, "of a clock 10000 were due") {
		t.Errorf("%q of 10000", got)
	}
	rep.Totals.Possibly = 0
	if got := p.summary(rep); strings.Contains(got, "perhaps") {
		t.Errorf("%q of none", got)
	}
}

// A stack that was copied is walked when its time has come, by what is mapped then.
func TestEngineCopies(t *testing.T) {
	e := testEngine()
	e.copySize = 4096
	copied := func(at uint64, head bpfCopy, bytes ...byte) {
		t.Helper()
		head.Size = uint32(len(bytes))
		ev := bpfEvent{TimeNs: at, Slot: noSlot, KernelFrames: 1, UserStatus: uint8(bpfUserStatusUSER_COPIED), Pid: nobody, Tid: nobody}
		record := append(bytesOf(ev, 0xffffffff81000010), bytesOf(head)...)
		if err := e.handle(append(record, bytes...)); err != nil {
			t.Fatal(err)
		}
	}
	const sp = 0x7ffd00001000
	var head bpfCopy
	head.Regs.Ip, head.Regs.Sp, head.Regs.Fp, head.Start = 0x1010, sp, sp, sp
	stack := bytesOf([4]uint64{sp + 16, 0x1020, 0, 0})
	copied(300, head, stack...)
	copied(100, head, stack...)
	head.Holes = 1 // which is all of it
	copied(301, head, stack...)
	head.Holes = 0
	copied(302, head, make([]byte, 4096)...)
	if e.copies != 2*len(stack)+4096 {
		t.Errorf("%d bytes of copies", e.copies)
	}
	e.records = []*perfevent.Record{{Kind: perfevent.Mmap, Time: 200, PID: nobody, TID: nobody, Addr: 0x1000, Len: 0x1000, Path: "//anon"}}
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		status
		kinds []kind
	}{
		// Where nothing is known, the frame pointers may be right.
		{statusGuessed, []kind{kindUnknown, kindUnknown}},
		{statusGuessed, []kind{kindJIT, kindJIT}},
		{statusFault, []kind{kindJIT}},
		{statusGuessed, []kind{kindJIT}},
	} {
		s := e.counter.moments[i].Stack
		var kinds []kind
		for _, f := range s.User {
			kinds = append(kinds, f.Kind)
		}
		if s.Status != want.status || !slices.Equal(kinds, want.kinds) || len(s.Kernel) != 1 {
			t.Errorf("%d: %v, %v, not %v, %v", i, s.Status, kinds, want.status, want.kinds)
		}
	}
	if e.copies != 0 {
		t.Errorf("%d bytes of copies are left", e.copies)
	}
}

// Copies that there is no memory for leave the leaf.
func TestEngineCopiesBounded(t *testing.T) {
	e := testEngine()
	e.copies = copiesMemory - 15
	record := append(bytesOf(bpfEvent{Slot: noSlot, UserStatus: uint8(bpfUserStatusUSER_COPIED), Pid: nobody}), bytesOf(bpfCopy{Size: 16})...)
	if err := e.handle(append(record, make([]byte, 16)...)); err != nil {
		t.Fatal(err)
	}
	if c := e.samples[0].Copied; c == nil || len(c.Memory) != 0 || e.copies != copiesMemory-15 {
		t.Errorf("%+v, %d bytes", c, e.copies)
	}
}

func TestCopiedHoles(t *testing.T) {
	all := make([]byte, 3*4096)
	for i := range all {
		all[i] = byte(i / 512)
	}
	const start = 0x7ffd00000f80 // 128 bytes of a page, two pages, and the rest of a third
	for holes, want := range map[uint32][][2]int{
		0:    {{0, len(all)}},
		1:    {{128, len(all)}},
		2:    {{0, 128}, {4224, len(all)}},
		4:    {{0, 4224}, {8320, len(all)}},
		5:    {{128, 4224}, {8320, len(all)}},
		0xf:  nil,
		0xf0: {{0, len(all)}},
	} {
		var c copied
		c.add(start, all, holes)
		var pieces unwind.Memory
		for _, w := range want {
			pieces = append(pieces, unwind.Piece{Start: start + uint64(w[0]), Bytes: all[w[0]:w[1]]})
		}
		if !reflect.DeepEqual(c.Memory, pieces) {
			t.Errorf("holes %#x: %d pieces", holes, len(c.Memory))
		}
	}
}

// In a system call, and where a signal interrupted, a frame's address is not that of a caller.
func TestEngineInSyscall(t *testing.T) {
	e := testEngine()
	for i, in := range []uint32{0, 1} {
		ev := bpfEvent{TimeNs: uint64(i), Slot: noSlot, UserFrames: 2, UserStatus: uint8(statusComplete), Pid: nobody, InSyscall: in}
		if err := e.handle(bytesOf(ev, 0x1010, 0x1020)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.advance(1 << 62); err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{0x1010, 0x100f} {
		if f := e.counter.moments[i].Stack.User; f[0].Address != want || f[1].Address != 0x101f {
			t.Errorf("%#x and its caller %#x", f[0].Address, f[1].Address)
		}
	}
}

// Stacks that have the same hash are told apart.
func TestEqualHashes(t *testing.T) {
	c := newCounter(false)
	s, p := &sample{Comm: "c"}, &process{}
	one, other := []*frame{{Address: 1}}, []*frame{{Address: 2}}
	c.add(s, p, nil, one)
	c.stacks[c.hash(s, p, nil, other)] = c.stacks[c.hash(s, p, nil, one)]
	delete(c.stacks, c.hash(s, p, nil, one))
	c.add(s, p, nil, other)
	c.add(s, p, nil, other)
	r := &report{}
	c.fill(r)
	if len(r.Stacks) != 2 || r.Stacks[0].Count != 1 || r.Stacks[1].Count != 2 || r.Stacks[1].User[0] != other[0] {
		t.Errorf("%+v", r.Stacks)
	}
}
