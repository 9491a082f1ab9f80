package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is the child's side, and the words that both sides exchange.

const (
	// self is this program's file, also when it has been replaced or deleted,
	// and for a user who couldn't reach it by its path.
	self = "/proc/self/exe"

	// heldName is argv[0] of the held child.
	heldName = "gobcc: held command"

	// releaseByte is all that the parent ever sends.
	releaseByte = 'r'
)

// heldArgs is what the child is told by its own arguments, before those of the
// command.
type heldArgs struct {
	fd      int              // the child's end of the socket
	ignored []syscall.Signal // to be ignored in the command
	id      *identity        // nil: keep the caller's
}

func (h heldArgs) encode() []string {
	var signals []string
	for _, sig := range h.ignored {
		signals = append(signals, strconv.Itoa(int(sig)))
	}
	return []string{heldName, strconv.Itoa(h.fd), strings.Join(signals, ","), h.id.encode()}
}

// decodeHeldArgs splits the arguments of a held child into what it is told and
// the command. ok is false for the arguments of anything else.
func decodeHeldArgs(args []string) (h heldArgs, argv []string, ok bool) {
	if len(args) < 5 || args[0] != heldName {
		return heldArgs{}, nil, false
	}
	var err error
	if h.fd, err = strconv.Atoi(args[1]); err != nil {
		return heldArgs{}, nil, false
	}
	for s := range strings.SplitSeq(args[2], ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return heldArgs{}, nil, false
		}
		h.ignored = append(h.ignored, syscall.Signal(n))
	}
	if h.id, err = decodeIdentity(args[3]); err != nil {
		return heldArgs{}, nil, false
	}
	return h, args[4:], true
}

func init() {
	// The thread that calls execve must be the first one, whose id is the
	// process id: tracers name the thread that made the call. Only during
	// initialization is the main goroutine sure to be on it.
	if os.Args[0] == heldName {
		runtime.LockOSThread()
	}
}

// Main is to be called first in main, and in a TestMain: in the child process
// that Start makes it holds and then becomes the command, and doesn't return. In
// any other process it does nothing.
func Main() {
	h, argv, ok := decodeHeldArgs(os.Args)
	if !ok || !isHeldSocket(h.fd) {
		return
	}
	unix.CloseOnExec(h.fd)
	m := h.become(argv)
	m.write(h.fd)
	os.Exit(1) // The parent gives the user the status that m stands for.
}

// isHeldSocket tells the socket of Start from any other file: arguments alone
// could be given by accident.
func isHeldSocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return false
	}
	_, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil
}

// become waits for the release and executes argv. It returns only if it can't.
func (h heldArgs) become(argv []string) message {
	// Who made the socket must be who started this process; if the parent has
	// ended already, it no longer is.
	peer, err := unix.GetsockoptUcred(h.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || int(peer.Pid) != os.Getppid() {
		os.Exit(1)
	}
	for _, sig := range h.ignored {
		signal.Ignore(sig)
	}
	if h.id != nil {
		if err := h.id.assume(); err != nil {
			return failure(stageIdentity, err)
		}
	}
	// As the user that the command runs as, who may not see all of the
	// directories that the caller sees.
	path, err := search(argv[0], os.LookupEnv)
	if err != nil {
		return failure(stageSearch, err)
	}
	env := os.Environ()
	message{stage: stageHeld}.write(h.fd)

	// A plain read, with no help from the runtime's poller: from here to the
	// execve nothing may open a file.
	var b [1]byte
	for {
		n, err := unix.Read(h.fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if n != 1 || b[0] != releaseByte {
			os.Exit(1) // The parent is gone or has given up.
		}
		break
	}
	return failure(stageExec, syscall.Exec(path, argv, env))
}

// A stage is how far the child has come.
type stage byte

const (
	stageHeld     stage = iota + 1 // ready, waits
	stageIdentity                  // could not take on the user's identity
	stageSearch                    // the command was not found, or is no program
	stageExec                      // execve failed
)

// A message is what the child sends: that it is held, or why it fails.
type message struct {
	stage stage
	errno syscall.Errno
}

const messageSize = 5 // one byte of stage, four of errno

func failure(s stage, err error) message {
	var errno syscall.Errno
	errors.As(err, &errno)
	return message{s, errno}
}

func (m message) write(fd int) {
	var b [messageSize]byte
	b[0] = byte(m.stage)
	binary.NativeEndian.PutUint32(b[1:], uint32(m.errno))
	// If it can't be written the parent is gone, and nobody is left to tell.
	_, _ = unix.Write(fd, b[:])
}

// readMessage returns io.EOF when the child's end is closed.
func readMessage(fd int) (message, error) {
	var b [messageSize]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return message{}, err
		case n == 0:
			return message{}, io.EOF
		case n != messageSize:
			return message{}, fmt.Errorf("message of %d bytes from the held process", n)
		default:
			return message{stage(b[0]), syscall.Errno(binary.NativeEndian.Uint32(b[1:]))}, nil
		}
	}
}

// error puts a failure of the child into words for the user.
func (m message) error(name, user string) error {
	if m.stage == stageIdentity {
		err := fmt.Errorf("run %q as %s: %w", name, user, m.errno)
		if m.errno == unix.EPERM {
			err = fmt.Errorf("%w (running as another user needs root, or CAP_SETUID and CAP_SETGID)", err)
		}
		return err
	}
	e := &Error{Name: name, Err: m.errno, Status: 126, reason: m.errno.Error()}
	switch {
	case m.stage == stageSearch && (m.errno == unix.ENOENT || m.errno == unix.ENOTDIR):
		e.Status = 127
		if !strings.Contains(name, "/") {
			e.reason = "no such command in PATH"
		}
	case m.stage == stageExec && m.errno == unix.ENOENT:
		// The file itself was found a moment ago.
		e.reason = "the interpreter that it names (first line of a script, or dynamic loader) does not exist"
	case m.errno == unix.ENOEXEC:
		e.reason = "not a program for this machine (a script needs a first line such as #!/bin/sh)"
	case m.errno == unix.EACCES:
		e.reason = "permission denied (no right to execute it, or its filesystem is mounted noexec)"
	}
	return e
}
