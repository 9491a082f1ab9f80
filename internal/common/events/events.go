// Package events takes records out of the ring buffer that bpf/headers/events.bpf.h
// puts them into, and tells how many were lost, and why.
package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// The names in events.bpf.h.
const (
	ringMap       = "events"
	wakeupShift   = "ring_wakeup_shift"
	shortestDrain = 10 * time.Millisecond
	longestDrain  = 50 * time.Millisecond
	patientDrain  = 150 * time.Millisecond
	fewRecords    = 16 // so many at a time are no reason to look more often
)

// DefaultPages is the size of the ring buffer in pages of 4 KiB: 8 MiB.
const DefaultPages = 2048

// Configure sets the size of the ring buffer, in pages of 4 KiB, in a spec that is
// not loaded yet. The kernel takes powers of two only, and at least one page of
// its own: pages is rounded up. An object without a ring buffer is left alone.
func Configure(spec *ebpf.CollectionSpec, pages int) error {
	if pages < 1 || pages > 1<<18 {
		return fmt.Errorf("a ring buffer of %d pages can't be had: 1 to %d", pages, 1<<18)
	}
	if spec.Maps[ringMap] == nil {
		return nil
	}
	size := max(uint32(os.Getpagesize()), 4096<<bits.Len(uint(pages-1)))
	spec.Maps[ringMap].MaxEntries = size
	v := spec.Variables[wakeupShift]
	if v == nil {
		return fmt.Errorf("the object lacks the variable %s", wakeupShift)
	}
	// The reader is woken when another quarter is full.
	return v.Set(uint8(bits.TrailingZeros32(size) - 2))
}

// Decode copies a record's head into e, a struct that bpf2go made of the C one
// and that has the same layout, and gives what is behind it. It neither
// allocates nor reflects: events come by the million.
func Decode[T any](e *T, record []byte) (rest []byte, err error) {
	size := int(unsafe.Sizeof(*e))
	if len(record) < size {
		return nil, fmt.Errorf("a record of %d bytes is shorter than its head of %d", len(record), size)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(e)), size), record)
	return record[size:], nil
}

// CString gives the text of a buffer that it ends in with a NUL, or fills.
func CString(buf []byte) []byte {
	if n := bytes.IndexByte(buf, 0); n >= 0 {
		return buf[:n]
	}
	return buf
}

// Reader reads the ring buffer.
type Reader struct {
	// ring is nil if there is none: then there are only the times to look for other
	// things.
	ring   *ringbuf.Reader
	record ringbuf.Record
	polled *os.File // the ring's map, for Go's own poller
	// Patient is asked each time the ring is empty; may be nil. While nobody waits for what
	// the records say, they may lie for 150 ms, however many there are: most of what
	// little to see costs is to look.
	Patient func() bool
}

// NewReader opens the ring buffer of a loaded collection, if it has one.
func NewReader(coll *ebpf.Collection) (*Reader, error) {
	if coll.Maps[ringMap] == nil {
		return &Reader{}, nil
	}
	polled, err := pollable(coll.Maps[ringMap].FD())
	if err != nil {
		return nil, fmt.Errorf("open the ring buffer: %w", err)
	}
	ring, err := ringbuf.NewReader(coll.Maps[ringMap])
	if err != nil {
		polled.Close()
		return nil, fmt.Errorf("open the ring buffer: %w", err)
	}
	ring.SetDeadline(time.Unix(0, 0)) // to read doesn't wait
	return &Reader{ring: ring, polled: polled}, nil
}

// pollable gives a file that goroutines can wait for. A goroutine that waits in a system call
// of its own, as the library's would, has the runtime watch over it: that takes more time of a CPU
// than all else while there is little to see.
func pollable(fd int) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(own, true); err != nil {
		unix.Close(own)
		return nil, err
	}
	file := os.NewFile(uintptr(own), ringMap)
	if err := file.SetDeadline(time.Time{}); err != nil { // of what can't be waited for
		file.Close()
		return nil, err
	}
	return file, nil
}

// Run hands every record to handle until ctx is done, in the ring's order. Each
// time the ring is empty, at most 50 ms apart, or 150 where that is enough, it calls drained. The
// first error of either ends it and is returned.
func (r *Reader) Run(ctx context.Context, handle func(record []byte) error, drained func() error) error {
	// Records don't wake the reader, so it looks for itself: often while there
	// is much to see, seldom while there is not, as to look takes longer than to read a few.
	alarm, err := newAlarm()
	if err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	defer alarm.close()
	filling := make(chan struct{}, 1)
	if r.ring != nil {
		go r.watch(filling)
	}
	for ctx.Err() == nil {
		n, err := r.read(handle)
		if err != nil {
			return err
		}
		if err := drained(); err != nil {
			return err
		}
		if err := alarm.set(r.pause(n)); err != nil {
			return fmt.Errorf("set a timer: %w", err)
		}
		select {
		case <-alarm.rang:
		case <-filling:
		case <-ctx.Done():
		}
	}
	return nil
}

// pause is how long to wait after n records.
func (r *Reader) pause(n int) time.Duration {
	switch {
	case r.Patient != nil && r.Patient():
		return patientDrain
	case n > fewRecords:
		return shortestDrain
	}
	return longestDrain
}

// watch tells when another quarter of the ring is full, until the reader is closed. One that
// it misses is no harm.
func (r *Reader) watch(filling chan<- struct{}) {
	conn, err := r.polled.SyscallConn()
	for err == nil {
		woken := false
		err = conn.Read(func(uintptr) bool {
			before := woken
			woken = true
			return before
		})
		tell(filling)
	}
}

// tell leaves a word for who listens to c, if there is none yet.
func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Drain hands over what is left in the ring. Detach the programs before.
func (r *Reader) Drain(handle func(record []byte) error) error {
	_, err := r.read(handle)
	return err
}

// read hands over records until the ring is empty. It asks for none that is not there: the
// library would look for one in a system call then, which wakes Go's watcher as timers do
// (see alarm).
func (r *Reader) read(handle func(record []byte) error) (n int, err error) {
	for r.ring != nil && r.ring.AvailableBytes() > 0 {
		err := r.ring.ReadInto(&r.record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// What was there has been taken back.
		case err != nil:
			return n, fmt.Errorf("read the ring buffer: %w", err)
		default:
			n++
			if err := handle(r.record.RawSample); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Close frees the reader.
func (r *Reader) Close() error {
	if r.ring == nil {
		return nil
	}
	return errors.Join(r.polled.Close(), r.ring.Close())
}
