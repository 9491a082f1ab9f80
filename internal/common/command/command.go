// Package command starts the command of `TOOL [options] -- CMD ARGS…` and holds
// it before its first instruction, so that tracing can be attached to its
// process id first and nothing that it does is missed.
//
// The child is the tool's own binary, started again. It calls Main, which says
// that it is ready and waits; Release lets it go on to its execve. The process
// id stays the same over that execve, and the child opens no file between being
// released and the execve, so that the first event of the process is CMD's own.
//
// CMD has what it would have had without the tool: environment, working
// directory, identity, process group, controlling terminal, resource limits,
// and every file descriptor that the tool was started with. One thing is lost:
// of the signals that the tool's caller ignored, only SIGHUP and SIGINT (those
// of nohup and of a shell's background jobs) are still ignored in CMD, because
// the Go runtime takes over the others before any code of ours runs.
package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options says how the command differs from what the tool itself was given.
type Options struct {
	// RunAs is the user that the command runs as: a name or a number in
	// /etc/passwd, or UID:GID. Empty is the tool's own identity. The
	// environment stays the caller's, HOME and USER with it, as in strace -u.
	RunAs string

	// Standard input, output and error; nil is the tool's own.
	Stdin, Stdout, Stderr *os.File
}

// A Command is a process that is held before its execve, or that runs since
// Release. Signal may be called at any time; the other methods are for one
// goroutine.
type Command struct {
	name    string
	process *os.Process
	conn    int // our end of the socket to the held child; -1 once it is released or gone
}

// An Error says that the command itself can't be run, as opposed to a failure
// of the tool.
type Error struct {
	Name   string // the command as the user gave it
	Err    error  // why: an errno of the path search or of execve
	Status int    // exit status a shell gives: 127 not found, 126 found but can't be run
	reason string // Err in words that say what the user can do
}

func (e *Error) Error() string { return fmt.Sprintf("run %q: %s", e.Name, e.reason) }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Err }

// The limit on locked memory and the ignored signals that the tool was started
// with. They are read before main runs, because a tool raises the limit for
// its BPF maps on kernels before 5.11 and handles signals itself.
var (
	startMemlock = memlock()
	startIgnored = ignored()
)

// Start makes the child process that will become argv and returns when that
// process is held: it has its final identity, has found the program file, and
// has nothing left to do but execve. A command that isn't there or can't be
// executed, as far as that shows before execve, is an *Error already here.
//
// When the tool ends before Release, however that comes, the command never runs.
func Start(argv []string, opts Options) (*Command, error) {
	if len(argv) == 0 {
		return nil, errors.New("start command: no command given")
	}
	id, err := lookup(opts.RunAs)
	if err != nil {
		return nil, err
	}
	// Each side sees at once when the other is gone, and the child's end tells
	// who made it.
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start command: make a socket pair: %w", err)
	}
	process, err := startHeld(argv, opts, id, ends[1])
	unix.Close(ends[1]) // The child has the only one now, so we see when it ends.
	if err != nil {
		unix.Close(ends[0])
		return nil, fmt.Errorf("start command: %w", err)
	}
	c := &Command{name: argv[0], process: process, conn: ends[0]}
	if err := c.setMemlock(); err != nil {
		c.Close()
		return nil, err
	}
	m, err := readMessage(c.conn)
	switch {
	case err != nil:
		return nil, c.ended(err)
	case m.stage != stageHeld:
		c.Close()
		return nil, m.error(c.name, opts.RunAs)
	}
	return c, nil
}

// Pid is the process id of the command, before and after Release.
func (c *Command) Pid() int { return c.process.Pid }

// Release lets the child go on to its execve and returns when that is done. An
// execve that fails is an *Error, and the process is gone.
func (c *Command) Release() error {
	if c.conn < 0 {
		return fmt.Errorf("release %q: it is not held", c.name)
	}
	if _, err := unix.Write(c.conn, []byte{releaseByte}); err != nil {
		return c.ended(err)
	}
	m, err := readMessage(c.conn)
	if errors.Is(err, io.EOF) {
		// The child's end closes by itself when execve has succeeded.
		unix.Close(c.conn)
		c.conn = -1
		return nil
	}
	if err != nil {
		return c.ended(err)
	}
	c.Close()
	return m.error(c.name, "")
}

// Wait waits until the command ends and returns its exit status, which is 128
// plus the number of the signal for a command that a signal has ended.
func (c *Command) Wait() (status int, err error) {
	state, err := c.process.Wait()
	if err != nil {
		return 0, fmt.Errorf("wait for %q: %w", c.name, err)
	}
	ws := state.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// Signal sends sig to the command. It returns os.ErrProcessDone when the
// command has been waited for.
func (c *Command) Signal(sig os.Signal) error { return c.process.Signal(sig) }

// Close gives up a command that is still held: its process ends without having
// run it. After Release, Close does nothing.
func (c *Command) Close() {
	if c.conn < 0 {
		return
	}
	unix.Close(c.conn)
	c.conn = -1
	// A held child that somebody stopped would not see that the socket is closed.
	_ = c.process.Kill() // It may have ended already.
	_, _ = c.process.Wait()
}

// ended is the error for a held child that is gone or out of reach.
func (c *Command) ended(cause error) error {
	unix.Close(c.conn)
	c.conn = -1
	_ = c.process.Kill() // It has usually ended already.
	state, err := c.process.Wait()
	if err != nil {
		return fmt.Errorf("run %q: its process is lost: %w", c.name, errors.Join(cause, err))
	}
	return fmt.Errorf("run %q: its process ended before the command began: %s", c.name, state)
}

// startHeld starts this program again as the held child.
func startHeld(argv []string, opts Options, id *identity, socket int) (*os.Process, error) {
	files, fd, err := childFiles(opts, socket)
	if err != nil {
		return nil, fmt.Errorf("list open files (is /proc mounted?): %w", err)
	}
	args := heldArgs{fd: fd, ignored: startIgnored, id: id}.encode()
	pid, err := syscall.ForkExec(self, append(args, argv...), &syscall.ProcAttr{Env: os.Environ(), Files: files})
	runtime.KeepAlive(opts)
	if err != nil {
		return nil, fmt.Errorf("start %s again: %w", self, err)
	}
	return os.FindProcess(pid)
}

// childFiles is the list of descriptors that the child gets, by their number
// there: standard input, output and error, what the tool itself was started
// with, and the socket, whose number is fd.
func childFiles(opts Options, socket int) (files []uintptr, fd int, err error) {
	const closed = ^uintptr(0)
	stdio := []*os.File{opts.Stdin, opts.Stdout, opts.Stderr}
	for i, own := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if stdio[i] != nil {
			own = stdio[i]
		}
		files = append(files, own.Fd())
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		// All descriptors of ours are close-on-exec; the others were inherited
		// (a lock, make's job server) and are for the command. One error is
		// usual: the descriptor of the directory being read is closed by now.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		for len(files) <= fd {
			files = append(files, closed)
		}
		files[fd] = uintptr(fd)
	}
	if free := slices.Index(files, closed); free > 2 {
		files[free] = uintptr(socket)
		return files, free, nil
	}
	return append(files, uintptr(socket)), len(files), nil
}

// setMemlock gives the child the limit that the tool was started with. The
// limit on open files, which the Go runtime raises, needs no such care: package
// syscall puts it back at each fork and exec.
func (c *Command) setMemlock() error {
	if startMemlock == memlock() {
		return nil
	}
	if err := unix.Prlimit(c.Pid(), unix.RLIMIT_MEMLOCK, &startMemlock, nil); err != nil {
		return fmt.Errorf("run %q: give it back the caller's limit on locked memory: %w", c.name, err)
	}
	return nil
}

func memlock() (limit unix.Rlimit) {
	// It fails for no process that asks for its own.
	_ = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	return limit
}

func ignored() (signals []syscall.Signal) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signals = append(signals, sig)
		}
	}
	return signals
}
