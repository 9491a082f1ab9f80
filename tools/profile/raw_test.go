package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/gobcc/gobcc/internal/common/perfevent"
)

var _ recording = (*recorder)(nil)

// recordingOf records a report as the engine does it: each sample, with a record before it,
// in another order than that of the stacks.
func recordingOf(t testing.TB, r *report) ([]byte, []*perfevent.Record) {
	t.Helper()
	var b bytes.Buffer
	rec, err := newRecorder(&b, r)
	if err != nil {
		t.Fatal(err)
	}
	var records []*perfevent.Record
	time := uint64(1 << 40)
	for left := true; left; {
		left = false
		for i, s := range r.Stacks {
			if time%7 >= s.Count {
				continue
			}
			left = true
			s.Count--
			time += 1_000_003
			record := &perfevent.Record{Kind: perfevent.Mmap, Time: time, CPU: -1, PID: uint32(i), BuildID: []byte{1, 2, 255}, Path: "/\xff"}
			records = append(records, record)
			if err := rec.record(record); err != nil {
				t.Fatal(err)
			}
			one := sample{Time: time, CPU: uint32(i), PID: s.Process.PID, TID: s.TID, CgroupID: s.Process.CgroupID, Comm: s.Comm,
				Kernel: make([]uint64, len(s.Kernel)), User: make([]uint64, len(s.User)), Status: s.Status}
			if err := rec.sample(&one, s.Process, s.Kernel, s.User); err != nil {
				t.Fatal(err)
			}
		}
		if !left && time%7 > 0 {
			time, left = time-time%7, true // to those of which few are left
		}
	}
	if err := rec.end(r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), records
}

// TestRecording compares what is written of a report with what is written of its
// recording.
func TestRecording(t *testing.T) {
	raw, records := recordingOf(t, testReport())
	var got []*perfevent.Record
	if _, err := replay(bytes.NewReader(raw), replayed{
		record: func(r *perfevent.Record) error { got = append(got, r); return nil },
		sample: func(*sample, *process, []*frame, []*frame) error { return nil },
	}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, records) {
		t.Errorf("%d records, %d written: or not the same", len(got), len(records))
	}
	again, err := readRecording(bytes.NewReader(raw), true)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Moments) != int(again.Totals.Shown) {
		t.Errorf("%d moments of %d samples", len(again.Moments), again.Totals.Shown)
	}
	once := testReport()
	c := newCounter(false)
	for _, s := range once.Stacks {
		for range s.Count {
			c.add(&sample{TID: s.TID, Comm: s.Comm, Status: s.Status}, s.Process, s.Kernel, s.User)
		}
	}
	c.fill(once)
	for name, write := range map[string]func(w io.Writer, r *report) error{
		"json": writeJSON, "pprof": writePprof, "svg": writeFlameGraph,
		"folded": func(w io.Writer, r *report) error { return writeFolded(w, r, style{annotations: true}) },
	} {
		var live, later bytes.Buffer
		if err := write(&live, once); err != nil {
			t.Fatal(err)
		}
		if err := write(&later, again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(live.Bytes(), later.Bytes()) {
			t.Errorf("%s differs:\n%s\n%s", name, live.Bytes(), later.Bytes())
		}
	}
}

// fill sets all fields to something, so that one that is forgotten is seen.
func fill(v reflect.Value, n *uint64) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range 3 {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d \xff\x00", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-int64(*n))
	case reflect.Uint8:
		v.SetUint(*n % 256)
	case reflect.Uint32:
		v.SetUint(1<<32 - *n)
	case reflect.Uint64:
		v.SetUint(^*n)
	default:
		panic(v.Kind())
	}
}

func TestRecordingFields(t *testing.T) {
	for _, thing := range []struct {
		new  func() any
		code func(c *codec, v any)
	}{
		{func() any { return &perfevent.Record{} }, func(c *codec, v any) { c.perfRecord(v.(*perfevent.Record)) }},
		{func() any { return &sample{} }, func(c *codec, v any) { c.sampled(v.(*sample)) }},
		{func() any { return &process{} }, func(c *codec, v any) { c.process(v.(*process)) }},
		{func() any { return &mapped{} }, func(c *codec, v any) { c.mapped(v.(*mapped)) }},
	} {
		in, out := thing.new(), thing.new()
		n := uint64(0)
		fill(reflect.ValueOf(in).Elem(), &n)
		roundTrip(t, func(c *codec) { thing.code(c, in) }, func(c *codec) { thing.code(c, out) })
		if !reflect.DeepEqual(in, out) {
			t.Errorf("%+v is read as %+v", in, out)
		}
	}
}

func TestRecordingReport(t *testing.T) {
	r := testReport()
	in := report{Command: r.Command, Version: r.Version, Kernel: r.Kernel, CPUs: r.CPUs, Event: r.Event, Unit: r.Unit, Period: r.Period,
		Hertz: r.Hertz, Header: "a header", Start: r.Start, Duration: r.Duration, Totals: r.Totals, Files: r.Files}
	in.Totals.Unwinds = nil // the counter's
	var frames numbers[frame]
	for _, s := range r.Stacks {
		for _, f := range append(s.Kernel, s.User...) {
			frames.of(f)
		}
	}
	var out report
	got := make([]*frame, len(frames.list))
	for i := range got {
		got[i] = &frame{}
	}
	roundTrip(t, func(c *codec) { c.head(&in); c.tail(&in, &[]*process{}, &frames.list) },
		func(c *codec) { c.head(&out); c.tail(&out, &[]*process{}, &got) })
	if !reflect.DeepEqual(in, out) {
		t.Errorf("%+v is read as %+v", in, out)
	}
	if !reflect.DeepEqual(frames.list, got) {
		t.Error("the frames are not those that were written")
	}
}

func roundTrip(t *testing.T, write, read func(c *codec)) {
	t.Helper()
	var b bytes.Buffer
	w := codec{w: bufio.NewWriter(&b)}
	write(&w)
	if err := w.w.Flush(); err != nil || w.err != nil {
		t.Fatal(err, w.err)
	}
	r := codec{r: bufio.NewReader(&b)}
	read(&r)
	if r.err != nil || b.Len() > 0 || r.r.Buffered() > 0 {
		t.Fatalf("%v, with %d bytes left", r.err, b.Len()+r.r.Buffered())
	}
}

// full takes so many bytes and no more.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// TestRecordingFull records to a disk that is soon full: the run goes on.
func TestRecordingFull(t *testing.T) {
	r := testReport()
	for _, room := range []full{0, 20, 5000} {
		rec, err := newRecorder(&room, r)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(100_000) {
			if err := rec.sample(&sample{Time: i * i * i, TID: uint32(i), Comm: fmt.Sprint(i)}, r.Stacks[0].Process, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := rec.end(r); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v", err)
		}
	}
}

// rawStart is what all recordings begin with.
var rawStart = rawMagic + string([]byte{rawVersion})

func TestRecordingBad(t *testing.T) {
	raw, _ := recordingOf(t, testReport())
	packed := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	head := rawStart + strings.Repeat("\x00", 10) // nothing is known
	for name, test := range map[string]struct{ in, want string }{
		"nothing":         {"", "no recording of profile's"},
		"something else":  {packed("PERFILE2 and so on and so on"), "no recording of profile's"},
		"a later version": {packed(rawMagic + "\x03"), "has version 3"},
		"half of one":     {string(raw[:len(raw)/2]), "cut off before its end"},
		"no end":          {packed(head), "cut off before its end"},
		"unknown part":    {packed(head + "\x09"), "a part 9"},
		"too many":        {packed(rawStart + "\xff\xff\xff\xff\x0f"), "a list of 4294967295"},
		"a long string":   {packed(rawStart + "\x01\xff\xff\xff\xff\x0f"), "a string of 4294967295"},
		"no such process": {packed(head + "\x02" + strings.Repeat("\x00", 14) + "\x05"), "number 5, where there are 0"},
	} {
		if r, err := readRecording(strings.NewReader(test.in), false); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// FuzzRecording replays what is in no recording of ours.
func FuzzRecording(f *testing.F) {
	small := testReport()
	for _, s := range small.Stacks {
		s.Count = 2
	}
	small.Totals.Shown = 12
	raw, _ := recordingOf(f, small)
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	plain = plain[len(rawMagic)+1:]
	f.Add(plain)
	f.Add(plain[:len(plain)/2])
	if r, err := countRecording(replayPlain, strings.NewReader(rawStart+string(plain)), true); err != nil {
		f.Fatalf("what is to be changed can't be read: %+v, %v", r, err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := countRecording(replayPlain, strings.NewReader(rawStart+string(b)), true)
		if err != nil {
			return
		}
		for _, write := range []func(io.Writer, *report) error{writeJSON, writePprof, writeScript, writeFlameGraph} {
			if err := write(io.Discard, r); err != nil {
				t.Error(err)
			}
		}
	})
}
