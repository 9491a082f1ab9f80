// Package load is what the load programs of `make bench` have in common.
package load

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Main runs a load program.
func Main(name string, run func(args []string) error) {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Pin gives the calling goroutine a thread of its own, so that its CPU and its clock are
// those of the load, and keeps it on a CPU; -1 leaves the choice to the kernel.
func Pin(cpu int) error {
	runtime.LockOSThread()
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on CPU %d: %w", cpu, err)
	}
	return nil
}

// Measure does the load of n events and prints three numbers, in nanoseconds: the elapsed
// time, the CPU time of this process and of all that it has waited for, and the CPU time
// of n other system calls. more is how many times shorter those are than an event, at
// least: so many times as many are made, to measure them.
func Measure(n, more int, do func() error) error {
	start := Clock(unix.CLOCK_MONOTONIC)
	if err := do(); err != nil {
		return err
	}
	elapsed := Clock(unix.CLOCK_MONOTONIC) - start
	busy, err := Used()
	if err != nil {
		return err
	}
	fmt.Println(elapsed.Nanoseconds(), busy.Nanoseconds(), (OtherCalls(more*n) / time.Duration(more)).Nanoseconds())
	return nil
}

// Share has several processes of this program share n events, at once: with -n and the
// part of each, and args of the process with that number. They end with this one, which
// must be in its first thread.
func Share(n, parents int, args func(i int) []string) error {
	var running []*exec.Cmd
	for i := range parents {
		part := n*(i+1)/parents - n*i/parents
		cmd := exec.Command("/proc/self/exe", append(args(i), "-n", strconv.Itoa(part))...)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// Used is the CPU time of this process and of all that it has waited for.
func Used() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if err := unix.Getrusage(who, &usage); err != nil {
			return 0, fmt.Errorf("ask for CPU times: %w", err)
		}
		sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return sum, nil
}

// OtherCalls makes n system calls that do next to nothing, and returns the CPU time of
// the calling thread for them. It is not the elapsed time, as the tracer still works on
// the events before.
func OtherCalls(n int) time.Duration {
	start := Clock(unix.CLOCK_THREAD_CPUTIME_ID)
	for range n {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	return Clock(unix.CLOCK_THREAD_CPUTIME_ID) - start
}

// Forever makes marks, bursts of a few events, until it is killed or one fails. A burst is
// to be enough to fill the 4 KiB that C's standard output holds back on a pipe within a
// few, and too small to be a load of its own.
func Forever(burst func() error) error {
	pause := unix.NsecToTimespec(time.Millisecond.Nanoseconds())
	for {
		if err := burst(); err != nil {
			return err
		}
		// An interrupted pause is only a shorter one.
		_ = unix.Nanosleep(&pause, nil)
	}
}

// Clock reads a clock.
func Clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		// All that are asked for exist on every kernel since 2.6.12.
		panic(err)
	}
	return time.Duration(ts.Nano())
}
