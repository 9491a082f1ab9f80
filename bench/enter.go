package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterCommand is the word by which the bench starts itself as the process that
// becomes a tracer.
const enterCommand = "enter-and-exec"

// The descriptors that a process started with enterCommand gets beside the
// standard ones.
const (
	startedFD = 3 // takes the time of the exec and the CPU time until then, 8 bytes each
	readyFD   = 4 // the write end for GOBCC_READY_FD
	controlFD = 5 // has a command for perf, which says at readyFD that it took it
)

// enterAndExec mounts what a tracer needs, changes the root directory to
// args[0] unless that is empty, and becomes the command in args[1:]. It runs in
// a mount namespace of its own, so nothing that it mounts outlives the tracer.
// It returns only if that failed.
func enterAndExec(args []string) error {
	if len(args) < 2 {
		return errors.New("want a root directory, which may be empty, and a command")
	}
	root, argv := args[0], args[1:]
	if root != "" {
		for _, m := range []struct {
			source, target, kind string
			flags                uintptr
		}{
			{"proc", "/proc", "proc", 0},
			{"/sys", "/sys", "", unix.MS_BIND | unix.MS_REC},
			{"/dev", "/dev", "", unix.MS_BIND | unix.MS_REC},
			// Where the load and its files are.
			{os.TempDir(), os.TempDir(), "", unix.MS_BIND},
		} {
			if err := os.MkdirAll(filepath.Join(root, m.target), 0o755); err != nil {
				return err
			}
			if err := unix.Mount(m.source, filepath.Join(root, m.target), m.kind, m.flags, ""); err != nil {
				return fmt.Errorf("mount %s for the tracer: %w", m.target, err)
			}
		}
		if err := unix.Chroot(root); err != nil {
			return fmt.Errorf("change the root directory: %w", err)
		}
		if err := unix.Chdir("/"); err != nil {
			return err
		}
	}
	const tracefs = "/sys/kernel/tracing"
	if _, err := os.Stat(tracefs + "/events"); err != nil {
		if err := unix.Mount("tracefs", tracefs, "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount tracefs for the tracer: %w", err)
		}
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}

	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	var started [16]byte
	unix.CloseOnExec(startedFD)
	binary.LittleEndian.PutUint64(started[8:], uint64(usage.Utime.Nano()+usage.Stime.Nano()))
	binary.LittleEndian.PutUint64(started[:8], uint64(now()))
	if _, err := unix.Write(startedFD, started[:]); err != nil {
		return fmt.Errorf("tell the time of the start: %w", err)
	}
	return syscall.Exec(program, argv, os.Environ())
}
