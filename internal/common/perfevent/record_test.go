package perfevent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// record puts a record together as the kernel does: the fields, padded to 8 bytes, then
// pid, tid, time and CPU.
func record(kind uint32, misc uint16, fields ...any) []byte {
	body := pack(fields...)
	for len(body)%8 != 0 {
		body = append(body, 0)
	}
	body = append(body, pack(uint32(11), uint32(12), uint64(1_000_000_007), uint32(3), uint32(0))...)
	return append(pack(kind, misc, uint16(headerSize+len(body))), body...)
}

func pack(fields ...any) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		if s, ok := f.(string); ok {
			f = append([]byte(s), 0)
		}
		if err := binary.Write(&b, binary.NativeEndian, f); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// samples are records of all kinds, and what they say.
var samples = []struct {
	bytes []byte
	want  Record
}{
	{record(unix.PERF_RECORD_MMAP2, 0, uint32(21), uint32(22), uint64(0x7f0000001000), uint64(0x2000), uint64(0x3000),
		uint32(8), uint32(1), uint64(77), uint64(5), uint32(5), uint32(2), "/usr/lib/a b\n\xff.so"),
		Record{Kind: Mmap, PID: 21, TID: 22, Addr: 0x7f0000001000, Len: 0x2000, Offset: 0x3000, Major: 8, Minor: 1,
			Inode: 77, InodeGeneration: 5, Prot: 5, Flags: 2, Path: "/usr/lib/a b\n\xff.so"}},
	{record(unix.PERF_RECORD_MMAP2, miscMmapBuildID, uint32(21), uint32(22), uint64(0x1000), uint64(0x2000), uint64(0),
		uint8(20), uint8(0), uint16(0), []byte("abcdefghijklmnopqrst"), uint32(5), uint32(2), "/bin/x"),
		Record{Kind: Mmap, PID: 21, TID: 22, Addr: 0x1000, Len: 0x2000, BuildID: []byte("abcdefghijklmnopqrst"), Prot: 5, Flags: 2, Path: "/bin/x"}},
	{record(unix.PERF_RECORD_MMAP2, miscMmapBuildID, uint32(21), uint32(22), uint64(0x1000), uint64(0x2000), uint64(0),
		uint8(8), uint8(0), uint16(0), []byte("abcdefgh\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), uint32(5), uint32(2), "/bin/x"),
		Record{Kind: Mmap, PID: 21, TID: 22, Addr: 0x1000, Len: 0x2000, BuildID: []byte("abcdefgh"), Prot: 5, Flags: 2, Path: "/bin/x"}},
	{record(unix.PERF_RECORD_COMM, 0, uint32(21), uint32(22), "odd;name\n"),
		Record{Kind: Comm, PID: 21, TID: 22, Comm: "odd;name\n"}},
	{record(unix.PERF_RECORD_COMM, miscCommExec, uint32(21), uint32(21), ""),
		Record{Kind: Comm, PID: 21, TID: 21, Exec: true}},
	// The pid, the parent, the tid, the parent's; bit 13 is another thing here.
	{record(unix.PERF_RECORD_FORK, miscCommExec, uint32(31), uint32(21), uint32(32), uint32(22), uint64(9)),
		Record{Kind: Fork, PID: 31, PPID: 21, TID: 32, PTID: 22}},
	{record(unix.PERF_RECORD_EXIT, 0, uint32(31), uint32(21), uint32(32), uint32(22), uint64(9)),
		Record{Kind: Exit, PID: 31, PPID: 21, TID: 32, PTID: 22}},
	{record(unix.PERF_RECORD_LOST, 0, uint64(99), uint64(23)), Record{Kind: Lost, PID: 11, TID: 12, Lost: 23}},
	{record(unix.PERF_RECORD_THROTTLE, 0, uint64(9), uint64(99), uint64(99)), Record{Kind: Throttle, PID: 11, TID: 12}},
	{record(unix.PERF_RECORD_UNTHROTTLE, 0, uint64(9), uint64(99), uint64(99)), Record{Kind: Unthrottle, PID: 11, TID: 12}},
	{record(unix.PERF_RECORD_CGROUP, 0, uint64(1234), "/a.slice/b"), Record{Kind: Cgroup, PID: 11, TID: 12, CgroupID: 1234, Path: "/a.slice/b"}},
}

func TestParse(t *testing.T) {
	for _, test := range samples {
		want := test.want
		want.Time, want.CPU = 1_000_000_007, 3
		var got Record
		size, known, err := parse(append(slices.Clone(test.bytes), "what follows"...), &got)
		if err != nil || !known || size != len(test.bytes) || !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n%+v, %d bytes, %v, %v, not\n%+v, %d bytes", test.bytes, got, size, known, err, want, len(test.bytes))
		}
	}
}

// A record that is not of interest is passed over by its size, whatever is in it.
func TestParseUnknown(t *testing.T) {
	var r Record
	for _, b := range [][]byte{
		record(unix.PERF_RECORD_SWITCH, 0),
		record(unix.PERF_RECORD_KSYMBOL, 0, "bpf_prog"),
		pack(uint32(200), uint16(0), uint16(8)),
	} {
		if size, known, err := parse(b, &r); size != len(b) || known || err != nil {
			t.Errorf("%q: %d bytes, %v, %v", b, size, known, err)
		}
	}
}

// What is cut is an error, wherever it is cut.
func TestParseShort(t *testing.T) {
	for _, test := range samples {
		var r Record
		for n := range test.bytes {
			if _, _, err := parse(test.bytes[:n], &r); err == nil {
				t.Errorf("%q: no error for %d bytes of it", test.bytes, n)
			}
		}
		// Neither must the fixed fields be missing though the header says that all is there.
		if test.want.Kind == Comm || test.want.Kind == Cgroup || test.want.Kind == Lost {
			continue
		}
		b := append(slices.Clone(test.bytes[:headerSize]), test.bytes[len(test.bytes)-sampleSize:]...)
		binary.NativeEndian.PutUint16(b[6:], uint16(len(b)))
		if _, _, err := parse(b, &r); !errors.Is(err, errShort) {
			t.Errorf("%q without its fields: %v", test.bytes, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, test := range samples {
		f.Add(test.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		size, known, err := parse(b, &r)
		if err == nil && (size < headerSize || size > len(b)) || known && err != nil {
			t.Errorf("%d of %d bytes, %v, %v", size, len(b), known, err)
		}
		if known && (r.Kind == 0 || len(r.BuildID) > 20 || len(r.Path)+len(r.Comm) > size) {
			t.Errorf("%+v", r)
		}
	})
}

// fakeRing is a ring of four pages, with no kernel.
func fakeRing() *ring {
	return &ring{head: &unix.PerfEventMmapPage{}, data: make([]byte, 4*4096)}
}

// put writes as the kernel does, over the end too.
func (r *ring) put(b []byte) {
	for _, c := range b {
		r.data[r.head.Data_head%uint64(len(r.data))] = c
		r.head.Data_head++
	}
}

// Records come whole wherever in the ring they are, and each once.
func TestRingWraps(t *testing.T) {
	r := fakeRing()
	var put, got []Record
	for i := range 1000 {
		for j := range i % 7 {
			test := samples[(i+j)%len(samples)]
			r.put(test.bytes)
			want := test.want
			want.Time, want.CPU = 1_000_000_007, 3
			put = append(put, want)
		}
		if err := r.read(func(rec *Record) error { got = append(got, *rec); return nil }); err != nil {
			t.Fatal(err)
		}
		if r.head.Data_tail != r.head.Data_head {
			t.Fatalf("read up to %d of %d", r.head.Data_tail, r.head.Data_head)
		}
	}
	if !reflect.DeepEqual(got, put) {
		t.Errorf("%d records of %d, or others", len(got), len(put))
	}
}

// A record that makes no sense costs what is behind it, and that is said; what comes later
// is read. A handler's error stops it, with the rest left for the next time.
func TestRingErrors(t *testing.T) {
	r := fakeRing()
	r.put(samples[3].bytes)
	r.put(pack(uint32(unix.PERF_RECORD_COMM), uint16(0), uint16(5000)))
	var kinds []Kind
	handle := func(rec *Record) error { kinds = append(kinds, rec.Kind); return nil }
	if err := r.read(handle); err != nil {
		t.Fatal(err)
	}
	r.put(samples[5].bytes)
	r.put(samples[6].bytes)
	stop := errors.New("stop")
	err := r.read(func(rec *Record) error { kinds = append(kinds, rec.Kind); return stop })
	if !errors.Is(err, stop) {
		t.Errorf("error %v, not that of the handler", err)
	}
	if err := r.read(handle); err != nil {
		t.Fatal(err)
	}
	if want := []Kind{Comm, Lost, Fork, Exit}; !slices.Equal(kinds, want) {
		t.Errorf("%v, not %v", kinds, want)
	}
}

// A ring with no room for another record may have lost some, which is said at once.
func TestRingFull(t *testing.T) {
	for fill, want := range map[int]int{len(fakeRing().data) - largest: 0, len(fakeRing().data) - largest + 8: 1} {
		r := fakeRing()
		n := 0
		for ; int(r.head.Data_head)+len(samples[0].bytes) <= fill; n++ {
			r.put(samples[0].bytes)
		}
		r.put(pack(uint32(200), uint16(0), uint16(fill-int(r.head.Data_head)), make([]byte, fill-int(r.head.Data_head)-8)))
		var lost int
		err := r.read(func(rec *Record) error {
			n--
			if rec.Kind == Lost {
				n++
				lost++
			}
			return nil
		})
		if err != nil || n != 0 || lost != want {
			t.Errorf("%d bytes: %v, %d records are missing, and it is said %d times that some may be", fill, err, n, lost)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string][]int{
		"0\n":         {0},
		"0-3,8\n":     {0, 1, 2, 3, 8},
		"1,3,127-128": {1, 3, 127, 128},
		"":            nil,
		"3-1":         nil,
		"a":           nil,
		"0-99999999":  nil,
	} {
		got, err := parseCPUs(list)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v, not %v", list, got, err, want)
		}
	}
}
