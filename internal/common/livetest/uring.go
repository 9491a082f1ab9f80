package livetest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags for NewURing and constants of <linux/io_uring.h>.
const (
	SetupSQPoll = 1 << 1 // a kernel thread takes what is submitted

	uringOpConnect     = 16
	uringOpOpenat      = 18
	uringOpOpenat2     = 28
	uringAsync         = 1 << 4 // IOSQE_ASYNC
	uringEnterEvents   = 1 << 0 // IORING_ENTER_GETEVENTS
	uringEnterWakeup   = 1 << 1 // IORING_ENTER_SQ_WAKEUP
	uringNeedWakeup    = 1 << 0 // IORING_SQ_NEED_WAKEUP
	uringSingleMmap    = 1 << 0 // IORING_FEAT_SINGLE_MMAP, since 5.4
	uringOffsetEntries = 0x10000000
)

// ErrNoURing is why NewURing fails where io_uring is absent or switched off.
var ErrNoURing = errors.New("no io_uring here")

// URingEntries is how many requests a URing takes in one batch.
const URingEntries = 256

// A URing is an io_uring. It is for one goroutine at a time.
type URing struct {
	fd      int
	polled  bool
	creator int    // the thread that made it
	rings   []byte // submission and completion ring
	memory  []byte // of entries
	entries []uringEntry
	array   []uint32 // submission ring: which entry is in which place
	results []uringResult

	submitTail, submitFlags    *uint32
	completeHead, completeTail *uint32
	submitMask, completeMask   uint32
}

// uringEntry is struct io_uring_sqe.
type uringEntry struct {
	opcode    uint8
	flags     uint8
	ioprio    uint16
	fd        int32
	off       uint64
	addr      uint64
	len       uint32
	openFlags uint32
	userData  uint64
	_         [24]byte
}

// uringResult is struct io_uring_cqe.
type uringResult struct {
	userData uint64
	res      int32
	flags    uint32
}

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32

	_  [3]uint32
	sq struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

// NewURing makes an io_uring. flags is 0 or SetupSQPoll. The error is
// ErrNoURing where this kernel has none or doesn't let us.
func NewURing(flags uint32) (*URing, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := uringParams{flags: flags, sqThreadIdle: 100} // milliseconds
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, URingEntries, uintptr(unsafe.Pointer(&p)), 0)
	switch errno {
	case 0:
	case unix.ENOSYS:
		return nil, fmt.Errorf("%w: the kernel is built without it", ErrNoURing)
	case unix.EPERM, unix.EACCES:
		return nil, fmt.Errorf("%w: it is switched off (sysctl kernel.io_uring_disabled, seccomp)", ErrNoURing)
	default:
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &URing{fd: int(fd), polled: flags&SetupSQPoll != 0, creator: unix.Gettid(), submitMask: p.sqEntries - 1, completeMask: p.cqEntries - 1}
	if p.features&uringSingleMmap == 0 {
		r.Close()
		return nil, errors.New("io_uring_setup: this kernel maps the rings apart, which only kernels before 5.4 did")
	}
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(uringResult{})))
	var err error
	if r.rings, err = r.mmap(0, int(size)); err != nil {
		r.Close()
		return nil, err
	}
	if r.memory, err = r.mmap(uringOffsetEntries, int(p.sqEntries)*int(unsafe.Sizeof(uringEntry{}))); err != nil {
		r.Close()
		return nil, err
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }
	r.submitTail, r.submitFlags = at(p.sq.tail), at(p.sq.flags)
	r.completeHead, r.completeTail = at(p.cq.head), at(p.cq.tail)
	r.array = unsafe.Slice(at(p.sq.array), p.sqEntries)
	r.results = unsafe.Slice((*uringResult)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	r.entries = unsafe.Slice((*uringEntry)(unsafe.Pointer(&r.memory[0])), p.sqEntries)
	return r, nil
}

func (r *URing) mmap(offset int64, size int) ([]byte, error) {
	b, err := unix.Mmap(r.fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map an io_uring: %w", err)
	}
	return b, nil
}

// Poller is the thread id of the kernel thread of a ring with SetupSQPoll. It
// opens a file to find out.
func (r *URing) Poller() (tid int, err error) {
	err = retry(patience, func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", r.fd))
		if err != nil {
			return fmt.Errorf("find the thread of an io_uring: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if number, ok := strings.CutPrefix(line, "SqThread:"); ok {
				tid, err = strconv.Atoi(strings.TrimSpace(number))
			}
		}
		// It is -1 while the kernel uses the ring, and the ring's creator until the
		// thread runs.
		if err != nil || tid <= 0 || tid == r.creator {
			return fmt.Errorf("find the thread of an io_uring: none is named in %q", text)
		}
		return nil
	})
	return tid, err
}

// Close ends the ring. With SetupSQPoll its thread may go on for a moment.
func (r *URing) Close() {
	if r.rings != nil {
		_ = unix.Munmap(r.rings)
	}
	if r.memory != nil {
		_ = unix.Munmap(r.memory)
	}
	_ = unix.Close(r.fd)
}

// An Opening is one open to be made through a URing.
type Opening struct {
	Dirfd int
	Name  *byte
	Flags int
	Mode  uint32
	How   *unix.OpenHow // if not nil, IORING_OP_OPENAT2 with it in place of Flags and Mode
	Async bool          // have a worker thread make it, rather than trying in the caller first
}

// Openat is IORING_OP_OPENAT: it returns a descriptor or a negative errno, as
// the functions that make system calls do.
func (r *URing) Openat(dirfd int, name *byte, flags int, mode uint32) (int, error) {
	return first(r.Submit(Opening{Dirfd: dirfd, Name: name, Flags: flags, Mode: mode}))
}

// Openat2 is IORING_OP_OPENAT2.
func (r *URing) Openat2(dirfd int, name *byte, how *unix.OpenHow) (int, error) {
	return first(r.Submit(Opening{Dirfd: dirfd, Name: name, How: how}))
}

func first(results []int, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return results[0], nil
}

// Submit makes all of these opens with one io_uring_enter, at most URingEntries
// of them, waits for them and returns the result of each in the same order. The
// error is for the ring itself. Some kernels before 5.12 refuse to open files for a
// ring with SetupSQPoll: the results are -EINVAL there.
func (r *URing) Submit(openings ...Opening) ([]int, error) {
	var pinned runtime.Pinner
	defer pinned.Unpin()
	return r.submit(len(openings), func(i int, e *uringEntry) {
		o := &openings[i]
		*e = uringEntry{opcode: uringOpOpenat, fd: int32(o.Dirfd), len: o.Mode, openFlags: uint32(o.Flags)}
		if o.Name != nil {
			pinned.Pin(o.Name)
			e.addr = uint64(pointer(o.Name))
		}
		if o.How != nil {
			pinned.Pin(o.How)
			e.opcode, e.len, e.openFlags = uringOpOpenat2, unix.SizeofOpenHow, 0
			e.off = uint64(uintptr(unsafe.Pointer(o.How)))
		}
		if o.Async {
			e.flags = uringAsync
		}
	})
}

// Connect connects all of these sockets to an address, as SockaddrBytes gives it, with
// one io_uring_enter; otherwise it is as Submit. async has worker threads make the
// connections.
func (r *URing) Connect(addr []byte, async bool, sockets ...int) ([]int, error) {
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(&addr[0])
	return r.submit(len(sockets), func(i int, e *uringEntry) {
		*e = uringEntry{opcode: uringOpConnect, fd: int32(sockets[i]), addr: uint64(pointer(&addr[0])), off: uint64(len(addr))}
		if async {
			e.flags = uringAsync
		}
	})
}

// submit makes n requests, which fill describes, and waits for their results.
func (r *URing) submit(requests int, fill func(i int, e *uringEntry)) ([]int, error) {
	if requests > len(r.entries) {
		return nil, fmt.Errorf("%d requests for an io_uring of %d entries", requests, len(r.entries))
	}
	// The thread that submits is the one that a tracer may see.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tail := *r.submitTail // Only we write it.
	for i := range requests {
		place := (tail + uint32(i)) & r.submitMask
		fill(i, &r.entries[place])
		r.entries[place].userData = uint64(i)
		r.array[place] = place
	}
	atomic.StoreUint32(r.submitTail, tail+uint32(requests))

	results := make([]int, requests)
	submitted := 0
	for done := 0; done < requests; done += r.collect(results) {
		flags, submit := uint(uringEnterEvents), requests-submitted
		if r.polled {
			submit = 0
			if atomic.LoadUint32(r.submitFlags)&uringNeedWakeup != 0 {
				flags |= uringEnterWakeup
			}
		}
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(requests-done), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			if !r.polled {
				submitted += int(n)
			}
		case unix.EINTR: // By a signal of the Go runtime, after the submission.
		default:
			return nil, fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
	return results, nil
}

// collect stores the results that have come and returns their number.
func (r *URing) collect(results []int) (n int) {
	head := *r.completeHead // Only we write it.
	for ; head != atomic.LoadUint32(r.completeTail); head++ {
		c := r.results[head&r.completeMask]
		results[c.userData] = int(c.res)
		n++
	}
	atomic.StoreUint32(r.completeHead, head)
	return n
}
