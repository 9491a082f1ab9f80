package perfevent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Kind is what a record tells of.
type Kind uint8

// The kinds of records; those of the kernel that are not here are passed over.
const (
	Mmap       Kind = iota + 1 // executable memory was mapped, or made executable
	Comm                       // a thread got a name; with Exec, its process another program
	Fork                       // a process or a thread came to be
	Exit                       // a thread ended
	Lost                       // records of this CPU are missing before this one
	Throttle                   // the kernel holds back an event
	Unthrottle                 // and goes on with it
	Cgroup                     // a cgroup was made
)

// Record is what the kernel says beside the samples. Strings are the kernel's bytes,
// which a traced process may have chosen.
type Record struct {
	Kind Kind
	Time uint64 // nanoseconds of CLOCK_MONOTONIC
	CPU  int    // -1 for what was read from /proc

	// PID and TID are the process and the thread that the record is of, by the numbers of
	// the pid namespace that the tool runs in, and 0 for those that are outside of it.
	PID, TID   uint32
	PPID, PTID uint32 // with Fork: who called; with Exit: the parent

	Exec bool   // with Comm
	Comm string // with Comm

	// With Mmap: Len bytes at Addr, which is where Offset of the file is. Path is as the
	// process sees it, and //anon, [vdso] or the like for memory of no file. A file is
	// told by its device and inode or, from Linux 5.12 and if it has one, by its build id.
	Addr, Len, Offset      uint64
	Prot, Flags            uint32 // of mmap(2)
	Major, Minor           uint32
	Inode, InodeGeneration uint64
	BuildID                []byte
	Path                   string // with Cgroup: below the root of the cgroups

	Lost     uint64 // with Lost: how many records
	CgroupID uint64 // with Cgroup
}

// sampleType is what sidebandEvent has the kernel add to each record, and parse reads:
// with sample_id_all, the last 24 bytes are the pid and tid, the time, and the CPU.
const (
	sampleType = unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_TIME | unix.PERF_SAMPLE_CPU
	sampleSize = 24
)

const headerSize = 8

// Bits of a header's misc field; what bit 13 says depends on the type.
const (
	miscCommExec    = 1 << 13
	miscMmapBuildID = 1 << 14
)

var errShort = errors.New("a perf record is shorter than what it holds")

// parse reads the record at the start of b and says how many bytes it has. known is
// false if it is of a kind that nobody wants; then r is of no use. r keeps nothing of b.
// After an error, what follows can't be made sense of.
func parse(b []byte, r *Record) (size int, known bool, err error) {
	if len(b) < headerSize {
		return 0, false, errShort
	}
	kind := binary.NativeEndian.Uint32(b)
	misc := binary.NativeEndian.Uint16(b[4:])
	size = int(binary.NativeEndian.Uint16(b[6:]))
	if size < headerSize || size > len(b) {
		return 0, false, fmt.Errorf("a perf record has %d bytes of %d", size, len(b))
	}
	*r = Record{}
	body := b[headerSize:size]
	switch kind {
	case unix.PERF_RECORD_MMAP2, unix.PERF_RECORD_COMM, unix.PERF_RECORD_FORK, unix.PERF_RECORD_EXIT,
		unix.PERF_RECORD_LOST, unix.PERF_RECORD_THROTTLE, unix.PERF_RECORD_UNTHROTTLE, unix.PERF_RECORD_CGROUP:
	default:
		return size, false, nil
	}
	if len(body) < sampleSize {
		return 0, false, errShort
	}
	id := fields{b: body[len(body)-sampleSize:]}
	r.PID, r.TID = id.u32(), id.u32()
	r.Time = id.u64()
	r.CPU = int(id.u32())

	f := fields{b: body[:len(body)-sampleSize]}
	switch kind {
	case unix.PERF_RECORD_MMAP2:
		r.Kind = Mmap
		r.PID, r.TID = f.u32(), f.u32()
		r.Addr, r.Len, r.Offset = f.u64(), f.u64(), f.u64()
		file := fields{b: f.next(24)}
		if misc&miscMmapBuildID == 0 {
			r.Major, r.Minor = file.u32(), file.u32()
			r.Inode, r.InodeGeneration = file.u64(), file.u64()
		} else if n := int(file.u32() & 0xff); n <= 20 {
			r.BuildID = slices.Clone(file.next(n))
		}
		r.Prot, r.Flags = f.u32(), f.u32()
		r.Path = f.string()
	case unix.PERF_RECORD_COMM:
		r.Kind = Comm
		r.Exec = misc&miscCommExec != 0
		r.PID, r.TID = f.u32(), f.u32()
		r.Comm = f.string()
	case unix.PERF_RECORD_FORK, unix.PERF_RECORD_EXIT:
		r.Kind = Fork
		if kind == unix.PERF_RECORD_EXIT {
			r.Kind = Exit
		}
		r.PID, r.PPID, r.TID, r.PTID = f.u32(), f.u32(), f.u32(), f.u32()
		f.u64() // its time once more
	case unix.PERF_RECORD_LOST:
		r.Kind = Lost
		f.u64() // the id of the event
		r.Lost = f.u64()
	case unix.PERF_RECORD_THROTTLE, unix.PERF_RECORD_UNTHROTTLE:
		r.Kind = Throttle
		if kind == unix.PERF_RECORD_UNTHROTTLE {
			r.Kind = Unthrottle
		}
		f.u64() // its time, by a clock of the kernel's choice
	case unix.PERF_RECORD_CGROUP:
		r.Kind = Cgroup
		r.CgroupID = f.u64()
		r.Path = f.string()
	}
	if f.short {
		return 0, false, errShort
	}
	return size, true, nil
}

// fields takes one field after another from b, and zeroes once that is at its end.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) next(n int) []byte {
	if n > len(f.b) {
		f.b, f.short = nil, true
		return make([]byte, n)
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) u32() uint32 { return binary.NativeEndian.Uint32(f.next(4)) }
func (f *fields) u64() uint64 { return binary.NativeEndian.Uint64(f.next(8)) }

// string takes all that is left, up to a NUL.
func (f *fields) string() string {
	s, _, _ := bytes.Cut(f.b, []byte{0})
	f.b = nil
	return string(s)
}
