// Execload is the load of `make bench` for execsnoop: it runs a program again and
// again, each time in a new process that it waits for, and prints how long that
// took.
//
// Usage:
//
//	execload -program FILE [-cpu N] [-n EXECS] [-parents N]
//	execload -mark FILE [-cpu N]
//
// The first form runs FILE, which must end with status 0, EXECS times. A
// process is made by vfork, without the preparations of a Go program's or a
// shell's, so that most of the time is the kernel's for the exec. With -parents,
// that many processes do it at once, EXECS times together. Then it makes other
// system calls, because a tracer of execs may cost those something too. It prints
// three numbers, in nanoseconds: the elapsed time of the execs, the CPU time for
// them, and that for as many other calls.
//
// The second form runs FILE again and again, in small bursts, until it is
// killed. Its rows in a tracer's output mark a moment: once one of them has come
// through, so has everything that the tracer saw before on the same CPU.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "execload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("execload", flag.ContinueOnError)
	cpu := flags.Int("cpu", -1, "run on this CPU only; -1 leaves the choice to the kernel")
	n := flags.Int("n", 20000, "execs")
	parents := flags.Int("parents", 0, "share the execs among this many processes")
	program := flags.String("program", "", "run this program")
	mark := flags.String("mark", "", "run this program in bursts until killed")
	if err := flags.Parse(args); err != nil {
		return err
	}

	runtime.LockOSThread()
	if *cpu >= 0 {
		var set unix.CPUSet
		set.Set(*cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("run on CPU %d: %w", *cpu, err)
		}
	}
	if *mark != "" {
		return markForever(*mark)
	}
	if *program == "" || flags.NArg() > 0 {
		return fmt.Errorf("want -program or -mark, and no more; got %q", args)
	}
	start := clock(unix.CLOCK_MONOTONIC)
	var err error
	if *parents > 0 {
		err = share(*program, *n, *parents)
	} else {
		err = repeat(*program, *n)
	}
	if err != nil {
		return err
	}
	elapsed := clock(unix.CLOCK_MONOTONIC) - start
	busy, err := used()
	if err != nil {
		return err
	}
	fmt.Println(elapsed.Nanoseconds(), busy.Nanoseconds(), otherCalls(*n).Nanoseconds())
	return nil
}

// repeat runs a program n times, one after the other.
func repeat(program string, n int) error {
	c, err := newCall(program)
	if err != nil {
		return err
	}
	for range n {
		if err := c.run(); err != nil {
			return fmt.Errorf("run %s: %w", program, err)
		}
	}
	return nil
}

// share has a program run n times by several processes at once. They end with this
// one, which must be in its first thread.
func share(program string, n, parents int) error {
	var running []*exec.Cmd
	for i := range parents {
		part := n*(i+1)/parents - n*i/parents
		cmd := exec.Command("/proc/self/exe", "-program", program, "-n", strconv.Itoa(part))
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

// call is what it takes to run a program.
type call struct {
	path *byte
	argv [2]*byte
	envp [1]*byte
}

func newCall(program string) (*call, error) {
	path, err := unix.BytePtrFromString(program)
	if err != nil {
		return nil, err
	}
	return &call{path: path, argv: [2]*byte{path, nil}}, nil
}

// run runs the program once, in a new process, and waits for its end.
func (c *call) run() error {
	pid := spawn(c.path, &c.argv[0], &c.envp[0])
	if pid < 0 {
		return unix.Errno(-pid)
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		return fmt.Errorf("it ended with %#x", uint32(status))
	}
	return nil
}

// spawn runs a program in a new process, and returns that one's number, or a
// negative error. It returns when the program is running. Where that fails, the
// process ends with status 127.
//
//go:noescape
func spawn(path *byte, argv, envp **byte) int

// used is the CPU time of this process and of all that it has waited for.
func used() (time.Duration, error) {
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

// otherCalls makes system calls that run nothing and do next to nothing, and
// returns the CPU time of the calling thread for n of them. It makes more than n:
// they are much shorter than an exec.
func otherCalls(n int) time.Duration {
	const more = 50
	start := clock(unix.CLOCK_THREAD_CPUTIME_ID)
	for range more * n {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	return (clock(unix.CLOCK_THREAD_CPUTIME_ID) - start) / more
}

// As many execs in a burst fill the 4 KiB that C's standard output holds back on a
// pipe within some bursts, and are no load of their own.
const (
	markBurst = 4
	markPause = time.Millisecond
)

func markForever(program string) error {
	pause := unix.NsecToTimespec(markPause.Nanoseconds())
	for {
		if err := repeat(program, markBurst); err != nil {
			return err
		}
		// An interrupted pause is only a shorter one.
		_ = unix.Nanosleep(&pause, nil)
	}
}

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		// Both clocks exist on every kernel since 2.6.12.
		panic(err)
	}
	return time.Duration(ts.Nano())
}
