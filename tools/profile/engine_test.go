package main

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/perfevent"
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
	rep.Totals.Possibly = 0
	if got := p.summary(rep); strings.Contains(got, "perhaps") {
		t.Errorf("%q of none", got)
	}
}
