package events

import (
	"bytes"
	"context"
	"math/bits"
	"os"
	"strings"
	"structs"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// ring is a spec with what Configure sets.
func ring() *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps:      map[string]*ebpf.MapSpec{ringMap: {Name: ringMap, Type: ebpf.RingBuf, MaxEntries: 1}},
		Variables: map[string]*ebpf.VariableSpec{wakeupShift: {Name: wakeupShift, Value: make([]byte, 1)}},
	}
}

func TestConfigureRoundsUpToAPowerOfTwo(t *testing.T) {
	for _, test := range []struct {
		pages int
		size  uint32
		shift uint8
	}{
		{1, 4 << 10, 10},
		{2, 8 << 10, 11},
		{3, 16 << 10, 12},
		{4, 16 << 10, 12},
		{5, 32 << 10, 13},
		{64, 256 << 10, 16},
		{DefaultPages, 8 << 20, 21},
		{DefaultPages + 1, 16 << 20, 22},
		{1<<18 - 1, 1 << 30, 28},
		{1 << 18, 1 << 30, 28},
	} {
		spec := ring()
		if err := Configure(spec, test.pages); err != nil {
			t.Errorf("%d pages: %v", test.pages, err)
			continue
		}
		if page := os.Getpagesize(); test.size < uint32(page) { // arm64 may have larger ones
			test.size, test.shift = uint32(page), uint8(bits.TrailingZeros(uint(page))-2)
		}
		size, shift := spec.Maps[ringMap].MaxEntries, spec.Variables[wakeupShift].Value[0]
		if size != test.size || shift != test.shift {
			t.Errorf("%d pages make %d bytes and a shift of %d, not %d and %d", test.pages, size, shift, test.size, test.shift)
		}
		if 4<<shift != size {
			t.Errorf("%d pages: the reader is woken by %d bytes of %d, not by a quarter", test.pages, 1<<shift, size)
		}
	}
}

func TestConfigureRefuses(t *testing.T) {
	for _, pages := range []int{-1, 0, 1<<18 + 1, 1 << 40} {
		spec := ring()
		err := Configure(spec, pages)
		if err == nil || !strings.Contains(err.Error(), "1 to 262144") {
			t.Errorf("%d pages: %v", pages, err)
		}
		if spec.Maps[ringMap].MaxEntries != 1 {
			t.Errorf("%d pages were refused, and set", pages)
		}
	}
	spec := ring()
	delete(spec.Variables, wakeupShift)
	if err := Configure(spec, 1); err == nil || !strings.Contains(err.Error(), wakeupShift) {
		t.Errorf("an object without %s: %v", wakeupShift, err)
	}
}

// head is laid out as bpf2go does it.
type head struct {
	_    structs.HostLayout
	Time uint64
	PID  uint32
	Ret  int32
	Comm [16]uint8
}

const headSize = 32

func TestDecode(t *testing.T) {
	want := head{Time: 0x0102030405060708, PID: 0xfffffffe, Ret: -2, Comm: [16]uint8{'c', 'a', 't'}}
	record := make([]byte, 0, headSize+3)
	// As the kernel writes it, in this machine's order of bytes.
	for shift := 0; shift < 64; shift += 8 {
		record = append(record, byte(want.Time>>shift))
	}
	record = append(record, 0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff)
	record = append(record, want.Comm[:]...)
	if len(record) != headSize {
		t.Fatalf("the test's record has %d bytes", len(record))
	}
	for _, tail := range []string{"", "a\x00b"} {
		var got head
		rest, err := Decode(&got, append(record, tail...))
		if err != nil || got != want || string(rest) != tail {
			t.Errorf("with %q behind it: %+v, %q, %v", tail, got, rest, err)
		}
	}
	for n := range headSize {
		got := want
		if _, err := Decode(&got, record[:n]); err == nil || !strings.Contains(err.Error(), "shorter than its head of 32") {
			t.Errorf("%d bytes: %v", n, err)
		}
		if got != want {
			t.Errorf("%d bytes were refused, and decoded", n)
		}
	}
}

// The record belongs to the reader, which overwrites it: nothing of the event may
// change with it.
func TestDecodeCopies(t *testing.T) {
	record := bytes.Repeat([]byte{1}, headSize)
	var got head
	if _, err := Decode(&got, record); err != nil {
		t.Fatal(err)
	}
	before := got
	clear(record)
	if got != before {
		t.Error("the event changed with the record")
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	record := make([]byte, headSize+100)
	var e head
	var err error
	if n := testing.AllocsPerRun(100, func() { _, err = Decode(&e, record) }); n != 0 || err != nil {
		t.Errorf("%v allocations a record, %v", n, err)
	}
}

func TestCString(t *testing.T) {
	for in, want := range map[string]string{"": "", "\x00": "", "sh\x00\x00": "sh", "sh\x00rest": "sh", "sixteen-chars-no": "sixteen-chars-no"} {
		if got := string(CString([]byte(in))); got != want {
			t.Errorf("%q holds %q, not %q", in, got, want)
		}
	}
}

// Where there is no ring buffer, the reader only tells the time.
// Few records are no reason to look often, nor are many that nobody waits for.
func TestPause(t *testing.T) {
	patient := false
	for _, test := range []struct {
		r       Reader
		n       int
		patient bool
		want    time.Duration
	}{
		{Reader{}, 0, false, longestDrain},
		{Reader{}, fewRecords, false, longestDrain},
		{Reader{}, fewRecords + 1, false, shortestDrain},
		{Reader{Patient: func() bool { return patient }}, fewRecords, false, longestDrain},
		{Reader{Patient: func() bool { return patient }}, fewRecords + 1, false, shortestDrain},
		{Reader{Patient: func() bool { return patient }}, 0, true, patientDrain},
		{Reader{Patient: func() bool { return patient }}, 1000, true, patientDrain},
	} {
		patient = test.patient
		if got := test.r.pause(test.n); got != test.want {
			t.Errorf("after %d records, patient %t: %v, not %v", test.n, test.patient, got, test.want)
		}
	}
}

func TestNoRing(t *testing.T) {
	if err := Configure(&ebpf.CollectionSpec{}, 1); err != nil {
		t.Error(err)
	}
	r, err := NewReader(&ebpf.Collection{})
	if err != nil {
		t.Fatal(err)
	}
	handle := func([]byte) error {
		t.Error("there is a record")
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	err = r.Run(ctx, handle, func() error {
		if n++; n == 3 {
			stop()
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("called %d times: %v", n, err)
	}
	if err := r.Run(t.Context(), handle, func() error { return os.ErrClosed }); err != os.ErrClosed {
		t.Errorf("the error is %v", err)
	}
	if err := r.Drain(handle); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
