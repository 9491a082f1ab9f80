package perfevent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/clock"
	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// Sideband is what the kernel tells of processes and their memory while samples are
// taken: who maps which file where, forks, execs and exits. It takes one event a CPU.
// It is not safe for concurrent use.
type Sideband struct {
	attr    unix.PerfEventAttr
	pages   int
	rings   map[int]*listening // by CPU
	failed  map[int]bool       // CPUs that came online and could not be listened to
	checked time.Time          // when the CPUs were looked at
}

// listening is the event of one CPU.
type listening struct {
	*ring
	event counting
}

// sidebandPages is the size of a CPU's ring, in pages of 4096 bytes. With the one for its
// head this is kernel.perf_event_mlock_kb as it is by default, so that no CAP_IPC_LOCK is
// needed. The start and end of a process take about 1500 bytes.
const sidebandPages = 128

// More bits of perf_event_attr than package unix has.
const (
	bitCgroup  = 1 << 32 // Linux 5.7
	bitBuildID = 1 << 34 // Linux 5.12
)

// OpenSideband starts to listen on all CPUs that are online. Those that come online later
// are taken in by Read.
func OpenSideband() (*Sideband, error) {
	s := &Sideband{
		attr: unix.PerfEventAttr{
			Type:        unix.PERF_TYPE_SOFTWARE,
			Config:      unix.PERF_COUNT_SW_DUMMY,
			Sample_type: sampleType,
			// Of all mappings only executable ones are told (no mmap_data).
			Bits: unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitCommExec |
				unix.PerfBitTask | unix.PerfBitSampleIDAll | unix.PerfBitUseClockID | bitCgroup | bitBuildID,
			Read_format: countingFormat,
			Clockid:     unix.CLOCK_MONOTONIC,
		},
		pages:  max(sidebandPages*4096/os.Getpagesize(), 1),
		rings:  map[int]*listening{},
		failed: map[int]bool{},
	}
	s.attr.Size = uint32(unsafe.Sizeof(s.attr))
	if err := s.openOnline(nil); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Read gives handle all records that are there by now, CPU by CPU; those of one CPU are in
// the order of time, those of several are not. The record is handle's to keep. An error of
// handle ends it and is returned.
//
// A Lost record whose number is 0 says that some may be missing: from a ring that was full,
// or of a CPU that came online, or came back; such are taken in at most once a second.
func (s *Sideband) Read(handle func(*Record) error) error {
	for cpu, r := range s.rings {
		if err := r.read(handle); err != nil {
			return fmt.Errorf("read what processes map, on CPU %d: %w", cpu, err)
		}
	}
	if time.Since(s.checked) < time.Second {
		return nil
	}
	return s.openOnline(handle)
}

// openOnline opens an event on each CPU that is online and has none, once it has closed those of
// CPUs that are not, or that were not for a moment.
func (s *Sideband) openOnline(handle func(*Record) error) error {
	s.checked = time.Now()
	cpus, err := onlineCPUs()
	if err != nil {
		return err
	}
	for cpu, l := range s.rings {
		// The kernel has taken the event off a CPU for good that was off, as it will not say.
		if slices.Contains(cpus, cpu) && l.event.alive() {
			continue
		}
		delete(s.rings, cpu)
		if handle != nil {
			err = errors.Join(err, l.read(handle))
		}
		l.close()
	}
	for _, cpu := range cpus {
		if s.rings[cpu] != nil || s.failed[cpu] {
			continue
		}
		r, openErr := s.open(cpu)
		if errors.Is(openErr, unix.ENODEV) {
			continue // It went off just now.
		}
		if handle == nil && openErr != nil {
			return diagnose.Explain(fmt.Sprintf("listen to what processes map, on CPU %d", cpu), diagnose.PerfEvent, openErr)
		}
		if openErr != nil {
			// The samples of the other CPUs are worth more than a clean end.
			s.failed[cpu] = true
		} else {
			s.rings[cpu] = &listening{r, counting{fd: r.fd, since: time.Now()}}
		}
		if handle != nil {
			err = errors.Join(err, handle(&Record{Kind: Lost, Time: Now(), CPU: cpu}))
		}
	}
	return err
}

// open opens the event of a CPU.
func (s *Sideband) open(cpu int) (*ring, error) {
	for {
		fd, err := unix.PerfEventOpen(&s.attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		switch {
		case err == nil:
			r, err := newRing(fd, s.pages)
			if err == nil {
				return r, nil
			}
			unix.Close(fd)
			// EPERM is about kernel.perf_event_mlock_kb.
			if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOMEM) || s.pages == 1 {
				return nil, err
			}
			s.pages /= 2
		case errors.Is(err, unix.EINVAL) && s.attr.Bits&bitBuildID != 0:
			s.attr.Bits &^= bitBuildID
		case errors.Is(err, unix.EINVAL) && s.attr.Bits&bitCgroup != 0:
			// It needs CONFIG_CGROUP_PERF, too.
			s.attr.Bits &^= bitCgroup
		default:
			return nil, err
		}
	}
}

// Close stops listening. What was not read is lost.
func (s *Sideband) Close() error {
	for cpu, r := range s.rings {
		r.close()
		delete(s.rings, cpu)
	}
	return nil
}

// Now is the time of now as records and samples have it.
func Now() uint64 { return clock.Monotonic() }

// ring is the memory that an event's records are in.
type ring struct {
	fd   int
	mem  []byte
	head *unix.PerfEventMmapPage
	data []byte
	one  []byte // room for a record that is in two parts
}

func newRing(fd, pages int) (*ring, error) {
	size := os.Getpagesize()
	mem, err := unix.Mmap(fd, 0, (1+pages)*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a ring of %d pages: %w", pages, err)
	}
	return &ring{fd: fd, mem: mem, head: (*unix.PerfEventMmapPage)(unsafe.Pointer(&mem[0])), data: mem[size:]}, nil
}

// read gives handle what is between tail and head.
func (r *ring) read(handle func(*Record) error) error {
	// The kernel writes the data before the head, and reads the tail before it writes over
	// what is in front of it; package atomic keeps that order.
	head := atomic.LoadUint64(&r.head.Data_head)
	tail := r.head.Data_tail
	full := tail < head && head-tail > uint64(len(r.data))-largest
	defer func() { atomic.StoreUint64(&r.head.Data_tail, tail) }()
	for tail < head {
		rec := &Record{}
		size, known, err := parse(r.at(tail, head-tail), rec)
		if err != nil {
			// No record's start is known any more but that of the next one to be written.
			tail = head
			rec = &Record{Kind: Lost, Time: Now()}
			known = true
		}
		tail += uint64(size)
		if !known {
			continue
		}
		if err := handle(rec); err != nil {
			return err
		}
	}
	if full {
		// The kernel tells of records that it had no room for with the next one that it has
		// room for, which may take long.
		return handle(&Record{Kind: Lost, Time: Now()})
	}
	return nil
}

// largest is no less than the size of any record: one with a path of 4096 bytes.
const largest = 4096 + 256

// at gives the record at a place in the stream, of which n bytes are there.
func (r *ring) at(place, n uint64) []byte {
	const most = 1<<16 - 1 // a record's size has 16 bits
	n = min(n, most)
	start := place % uint64(len(r.data))
	if start+n <= uint64(len(r.data)) {
		return r.data[start : start+n]
	}
	// Records are aligned to 8 bytes, so the header, with the size, is whole.
	b := r.data[start:]
	if size := uint64(binary.NativeEndian.Uint16(b[6:])); size <= uint64(len(b)) {
		return b
	} else if size < n {
		n = size
	}
	r.one = append(r.one[:0], b...)
	r.one = append(r.one, r.data[:n-uint64(len(b))]...)
	return r.one
}

func (r *ring) close() {
	unix.Munmap(r.mem)
	unix.Close(r.fd)
}

// onlineCPUs are the numbers of the CPUs that are online.
func onlineCPUs() ([]int, error) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("find the CPUs that are online: %w", err)
	}
	cpus, err := parseCPUs(string(text))
	if err != nil {
		return nil, fmt.Errorf("find the CPUs that are online: %w", err)
	}
	return cpus, nil
}

// parseCPUs reads a list as "0-3,8".
func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || last < first {
			return nil, fmt.Errorf("%q is no list of CPUs", list)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	return cpus, nil
}
