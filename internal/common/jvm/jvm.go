// Package jvm asks a Java virtual machine for the names of the code that it generated.
package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoHotSpot is returned for a process that is no HotSpot JVM which could be asked.
var ErrNoHotSpot = errors.New("not a HotSpot JVM")

// ErrNoJVM is the ErrNoHotSpot of a process that is no JVM at all.
var ErrNoJVM = fmt.Errorf("%w: it has no libjvm.so", ErrNoHotSpot)

// maxReply is how many bytes of a JVM's answer are read.
const maxReply = 64 << 10

// maxMaps is how many bytes of a process's mappings are searched for the JVM's library.
const maxMaps = 16 << 20

// target is a JVM as it is to be asked.
type target struct {
	pid      int
	nspid    int    // in the process's own pid namespace
	uid, gid uint32 // effective
	handles  bool   // SIGQUIT
}

// WritePerfMap has a HotSpot JVM of version 17 or later write /tmp/perf-PID.map, in its
// own root directory and with its own pid, as `jcmd PID Compiler.perfmap` does. It ends
// with the context at the latest. The error is ErrNoHotSpot if the process is no such
// JVM: that is found out before it is sent a signal, which would end another program.
func WritePerfMap(ctx context.Context, pid int) error {
	if err := writePerfMap(ctx, pid); err != nil {
		return fmt.Errorf("ask process %d for its perf map: %w", pid, err)
	}
	return nil
}

func writePerfMap(ctx context.Context, pid int) error {
	// With a handle on the process, the signal can't reach another one that has got its
	// pid. (Kernels from 5.3 have it.)
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	t, err := examine(pid)
	if err != nil {
		return err
	}
	tmp, err := t.openTmp()
	if err != nil {
		return err
	}
	defer unix.Close(tmp)
	if !t.listens(tmp) {
		if err := t.wake(ctx, handle, tmp); err != nil {
			return err
		}
	}
	conn, err := t.connect(tmp)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return t.ask(ctx, conn)
}

// ask sends the command and reads the answer.
func (t *target) ask(ctx context.Context, conn net.Conn) error {
	// A version, a command and three arguments, each ended by a zero.
	if _, err := io.WriteString(conn, "1\x00jcmd\x00Compiler.perfmap\x00\x00\x00"); err != nil {
		return cause(ctx, err)
	}
	reply, err := io.ReadAll(io.LimitReader(conn, maxReply))
	if err != nil {
		return cause(ctx, err)
	}
	return parseReply(reply)
}

// parseReply reads a JVM's answer: a number in the first line, which is 0 if all went
// well, and text.
func parseReply(reply []byte) error {
	code, text, ok := bytes.Cut(reply, []byte("\n"))
	n, err := strconv.Atoi(string(code))
	if !ok || err != nil {
		return fmt.Errorf("it answered %q, which is not understood", clip(reply))
	}
	text = bytes.TrimSpace(text)
	if bytes.Contains(text, []byte("Unknown diagnostic command")) {
		return errors.New("it doesn't know Compiler.perfmap, which Java has from version 17")
	}
	if n != 0 {
		return fmt.Errorf("it answered with error %d: %q", n, clip(text))
	}
	return nil
}

func clip(b []byte) []byte { return b[:min(len(b), 200)] }

// cause tells that a context ended rather than what that led to.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("it doesn't answer: %w", ctx.Err())
	}
	return err
}

// examine finds out whether a process is a JVM that can be asked.
func examine(pid int) (*target, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	t, err := parseStatus(status)
	if err != nil {
		return nil, err
	}
	t.pid = pid
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	all, err := io.ReadAll(io.LimitReader(maps, maxMaps))
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.Contains(all, []byte("/libj9vm")):
		return nil, fmt.Errorf("%w: it is an OpenJ9 JVM", ErrNoHotSpot)
	case !bytes.Contains(all, []byte("/libjvm.so")):
		return nil, ErrNoJVM
	case t.disabled():
		return nil, fmt.Errorf("%w that can be asked: it runs with -XX:+DisableAttachMechanism", ErrNoHotSpot)
	case !t.handles:
		return nil, fmt.Errorf("%w: it is still starting, or has been told by -Xrs not to handle the signal that is needed to ask it", ErrNoHotSpot)
	}
	return t, nil
}

// disabled reports whether the JVM was started with the option that has it answer a
// request by printing its threads' stacks.
func (t *target) disabled() bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", t.pid))
	return err == nil && bytes.Contains(args, []byte("\x00-XX:+DisableAttachMechanism\x00"))
}

// parseStatus reads /proc/PID/status.
func parseStatus(status []byte) (*target, error) {
	t := &target{}
	seen := 0
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		var n uint64
		var err error
		switch {
		case key == "Uid" && len(f) > 1:
			n, err = strconv.ParseUint(f[1], 10, 32)
			t.uid = uint32(n)
		case key == "Gid" && len(f) > 1:
			n, err = strconv.ParseUint(f[1], 10, 32)
			t.gid = uint32(n)
		case key == "NSpid" && len(f) > 0:
			t.nspid, err = strconv.Atoi(f[len(f)-1])
		case key == "SigCgt" && len(f) > 0:
			n, err = strconv.ParseUint(f[0], 16, 64)
			t.handles = n>>(unix.SIGQUIT-1)&1 == 1
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read its status: %w", err)
		}
		seen++
	}
	if seen < 4 {
		return nil, errors.New("read its status: something is missing there")
	}
	return t, nil
}

// openTmp opens the directory where the JVM has its socket: /tmp as the JVM sees it.
func (t *target) openTmp() (int, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", t.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open its root directory: %w", err)
	}
	defer unix.Close(root)
	tmp, err := unix.Openat2(root, "tmp", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("open its /tmp: %w", err)
	}
	return tmp, nil
}

func (t *target) socket() string { return fmt.Sprintf(".java_pid%d", t.nspid) }

// listens reports whether the JVM has made its socket: it does when first asked to.
func (t *target) listens(tmp int) bool {
	var st unix.Stat_t
	err := unix.Fstatat(tmp, t.socket(), &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// wake has the JVM make its socket. It does on SIGQUIT, if there is a file of a certain
// name and of its own user; without that it would print its threads' stacks.
func (t *target) wake(ctx context.Context, handle, tmp int) error {
	name := fmt.Sprintf(".attach_pid%d", t.nspid)
	fd, err := unix.Openat(tmp, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("/tmp/%s is there: another program is about to ask it, or has failed to", name)
		}
		return fmt.Errorf("create its /tmp/%s: %w", name, err)
	}
	defer unix.Close(fd)
	defer func() { _ = unix.Unlinkat(tmp, name, 0) }()
	if err := unix.Fchown(fd, int(t.uid), int(t.gid)); err != nil {
		return fmt.Errorf("give it /tmp/%s: %w", name, err)
	}
	if err := unix.PidfdSendSignal(handle, unix.SIGQUIT, nil, 0); err != nil {
		return err
	}
	// There is nothing to wait on: the socket appears in a directory whose changes can't
	// be watched from here if it is in another mount namespace.
	for pause := time.Millisecond; !t.listens(tmp); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("it doesn't listen, as with -XX:+DisableAttachMechanism: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
	return nil
}

// connect connects to the JVM's socket with the JVM's own user and group, the only ones
// besides root's that it takes: and root here may be nobody there.
func (t *target) connect(tmp int) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// The thread is changed beyond repair and ends with this goroutine, because it
		// is never unlocked.
		runtime.LockOSThread()
		conn, err := t.connectAs(tmp)
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("connect to its /tmp/%s: %w", t.socket(), r.err)
	}
	return r.conn, nil
}

// connectAs gives the calling thread another working directory, user and group, none of
// which can be undone.
func (t *target) connectAs(tmp int) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// Paths below /proc are out of reach once the user is another, and that of a socket
	// can't be given relative to a descriptor: so it is to the working directory.
	if err = unix.Unshare(unix.CLONE_FS); err == nil {
		err = unix.Fchdir(tmp)
	}
	if err == nil {
		err = setID(unix.SYS_SETRESGID, t.gid)
	}
	if err == nil {
		err = setID(unix.SYS_SETRESUID, t.uid)
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: t.socket()})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Anyone can have made a socket of that name.
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err == nil && int(peer.Pid) != t.pid {
		err = fmt.Errorf("it is process %d's", peer.Pid)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), t.socket())
	defer file.Close()
	return net.FileConn(file)
}

// setID makes id the effective one of this thread. The system call is made as it is,
// because package unix would change all threads.
func setID(call uintptr, id uint32) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(call, keep, uintptr(id), keep); errno != 0 {
		return errno
	}
	return nil
}
