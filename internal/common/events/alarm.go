package events

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// alarm is a timer of the kernel's that goroutines wait for as for a file. For one of its own,
// and for each system call after a rest, Go's runtime wakes the thread that watches over the
// others, which then looks around 20 µs apart for as long as anything runs: a third of the CPU time
// of a tool that has little to do. It may be set by one goroutine, and waited for by one.
type alarm struct {
	rang chan struct{} // has one word when it went off
	file *os.File
	fd   uintptr
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	a := &alarm{rang: make(chan struct{}, 1), file: os.NewFile(uintptr(fd), "timer"), fd: uintptr(fd)}
	if err := a.file.SetDeadline(time.Time{}); err != nil { // of what can't be waited for
		a.file.Close()
		return nil, err
	}
	go a.watch()
	return a, nil
}

// set has it go off once, after d, and not at an earlier time that it was set to.
func (a *alarm) set(d time.Duration) error {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if _, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, a.fd, 0, uintptr(unsafe.Pointer(&at)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// watch tells when it goes off, until it is closed.
func (a *alarm) watch() {
	conn, err := a.file.SyscallConn()
	for err == nil {
		err = conn.Read(func(fd uintptr) bool {
			var times [8]byte // that it went off since it was read
			_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&times)), unsafe.Sizeof(times))
			return errno == 0
		})
		tell(a.rang)
	}
}

func (a *alarm) close() { a.file.Close() }
