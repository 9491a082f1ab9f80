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

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/bench/load"
)

func main() { load.Main("execload", run) }

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
	if err := load.Pin(*cpu); err != nil {
		return err
	}
	if *mark != "" {
		return markForever(*mark)
	}
	if *program == "" || flags.NArg() > 0 {
		return fmt.Errorf("want -program or -mark, and no more; got %q", args)
	}
	return load.Measure(*n, 50, func() error {
		if *parents == 0 {
			return repeat(*program, *n)
		}
		return load.Share(*n, *parents, func(int) []string { return []string{"-program", *program} })
	})
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

const markBurst = 4

func markForever(program string) error {
	return load.Forever(func() error { return repeat(program, markBurst) })
}
