// Openload is the load of `make bench`: it opens a file and a missing file in
// turn, as fast as it can, and prints how long that took.
//
// Usage:
//
//	openload [-cpu N] [-n PAIRS] DIR
//	openload [-cpu N] -mark PATH
//
// The first form opens DIR/present, closes it, tries to open DIR/missing, and
// does both PAIRS times. Then it makes twice PAIRS other system calls, because
// a tracer of opens may cost those something too. It prints three numbers, in
// nanoseconds: the elapsed time of the opens, the CPU time of its thread for
// them, and that for the other calls.
//
// The second form tries to open PATH again and again, in small bursts, until it
// is killed. Its rows in a tracer's output mark a moment: once one of them has
// come through, so has everything that the tracer saw before.
package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/bench/load"
)

func main() { load.Main("openload", run) }

func run(args []string) error {
	flags := flag.NewFlagSet("openload", flag.ContinueOnError)
	cpu := flags.Int("cpu", -1, "run on this CPU only; -1 leaves the choice to the kernel")
	pairs := flags.Int("n", 300000, "pairs of opens")
	mark := flags.String("mark", "", "open this path in bursts until killed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := load.Pin(*cpu); err != nil {
		return err
	}
	if *mark != "" {
		return markForever(*mark)
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("want one directory, got %q", flags.Args())
	}
	dir := flags.Arg(0)
	elapsed, busy, err := openPairs(filepath.Join(dir, "present"), filepath.Join(dir, "missing"), *pairs)
	if err != nil {
		return err
	}
	others := load.OtherCalls(2 * *pairs)
	fmt.Println(elapsed.Nanoseconds(), busy.Nanoseconds(), others.Nanoseconds())
	return nil
}

// openPairs opens present and missing n times in turn, and returns the elapsed
// time and the CPU time of the calling thread. It is an error if a single open
// of present fails or one of missing does not fail with ENOENT, as the number
// of opens would be another one than the caller counts on.
func openPairs(present, missing string, n int) (elapsed, busy time.Duration, err error) {
	presentName, err := unix.BytePtrFromString(present)
	if err != nil {
		return 0, 0, err
	}
	missingName, err := unix.BytePtrFromString(missing)
	if err != nil {
		return 0, 0, err
	}
	startBusy, start := load.Clock(unix.CLOCK_THREAD_CPUTIME_ID), load.Clock(unix.CLOCK_MONOTONIC)
	for range n {
		fd, errno := open(presentName)
		if errno != 0 {
			return 0, 0, fmt.Errorf("open %s: %w", present, errno)
		}
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		if _, errno = open(missingName); errno != unix.ENOENT {
			return 0, 0, fmt.Errorf("open %s: want ENOENT, got %w", missing, errno)
		}
	}
	elapsed = load.Clock(unix.CLOCK_MONOTONIC) - start
	return elapsed, load.Clock(unix.CLOCK_THREAD_CPUTIME_ID) - startBusy, nil
}

const markBurst = 16

func markForever(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	return load.Forever(func() error {
		for range markBurst {
			if fd, errno := open(name); errno == 0 {
				_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
			}
		}
		return nil
	})
}

// open goes past the Go scheduler: it costs the system call and a few
// nanoseconds, the same ones each time.
func open(name *byte) (fd uintptr, errno unix.Errno) {
	at := unix.AT_FDCWD
	fd, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(name)),
		unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	return fd, errno
}
