// Package clock turns the kernel's time stamps into time of day.
package clock

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refresh is how long an offset is good for: the clock of the day may be set
// while a tool runs.
const refresh = time.Second

// Wall turns nanoseconds since boot, as bpf_ktime_get_boot_ns() gives them, into
// nanoseconds since 1970. The zero Wall is ready for use.
type Wall struct {
	offset int64
	at     time.Time
}

// Refresh reads the clocks again if that is due. Call it every now and then, not
// for each event.
func (w *Wall) Refresh() {
	if now := time.Now(); w.at.IsZero() || now.Sub(w.at) >= refresh {
		w.offset, w.at = offset(), now
	}
}

// Nanos gives nanoseconds since 1970.
func (w *Wall) Nanos(boot uint64) int64 {
	if w.at.IsZero() {
		w.Refresh()
	}
	return int64(boot) + w.offset
}

// Boot gives nanoseconds since boot, as bpf_ktime_get_boot_ns() does.
func Boot() uint64 { return uint64(read(unix.CLOCK_BOOTTIME)) }

// Monotonic gives the nanoseconds of CLOCK_MONOTONIC, as bpf_ktime_get_ns() does.
func Monotonic() uint64 { return uint64(read(unix.CLOCK_MONOTONIC)) }

// read reads a clock by a raw system call: for the others Go's runtime wakes the thread that
// watches over them, which costs more (see events).
func read(clock int32) int64 {
	var ts unix.Timespec
	// It can't fail: the clock exists and the pointer is good.
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

// offset is the time of day when the machine booted. Of three readings it takes
// the one with the least between its two clocks.
func offset() int64 {
	best, least := int64(0), int64(1<<62)
	for range 3 {
		before := read(unix.CLOCK_BOOTTIME)
		wall := read(unix.CLOCK_REALTIME)
		if took := read(unix.CLOCK_BOOTTIME) - before; took < least {
			best, least = wall-before-took/2, took
		}
	}
	return best
}
