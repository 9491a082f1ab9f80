// Opencases opens files in the ways that tell tracers of opens apart, once each
// (and one of them 23 times), for `go run ./bench -compare`.
//
// Usage:
//
//	opencases DIR
//
// DIR is an empty directory. Every name that is opened contains the case's own
// word, listed in bench/compare.go, and nothing else that this program opens
// does. A case that this machine can't have is named on standard error.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

const int80Command = "int80"

func main() {
	// Opens of one thread stay in their order in every tracer.
	runtime.LockOSThread()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == int80Command:
		err = openInt80(args[1])
	case len(args) == 1:
		err = openAll(args[0])
	default:
		err = errors.New("want one directory")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "opencases:", err)
		os.Exit(1)
	}
}

// files are what the cases find in their directory.
var files = []string{
	"case-absolute", "case-relative", "case-open", "case-creat", "case-openat2", "case-handle", "case-int80", "case-uring", "case-cold",
	"case-newline\nand\x1b[7mescape", "case-utf8-\xff-\u202e", "case-symlink-target", "sub/case-dirfd",
}

func openAll(dir string) error {
	if err := prepare(dir); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	at := func(name string) *byte { return livetest.Name(filepath.Join(dir, name)) }

	if err := opened("case-absolute", livetest.Openat(unix.AT_FDCWD, at("case-absolute"), unix.O_RDONLY, 0)); err != nil {
		return err
	}
	if err := opened("case-relative", livetest.Openat(unix.AT_FDCWD, livetest.Name("case-relative"), unix.O_RDONLY, 0)); err != nil {
		return err
	}
	sub, err := unix.Open(filepath.Join(dir, "sub"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	if err := opened("case-dirfd", livetest.Openat(sub, livetest.Name("case-dirfd"), unix.O_RDONLY, 0)); err != nil {
		return err
	}
	if err := opened("case-symlink", livetest.Openat(unix.AT_FDCWD, at("case-symlink"), unix.O_RDONLY, 0)); err != nil {
		return err
	}
	if fd := livetest.Openat(unix.AT_FDCWD, at("case-missing"), unix.O_RDONLY, 0); fd != -int(unix.ENOENT) {
		return fmt.Errorf("case-missing: want ENOENT, got %d", fd)
	}
	if fd, ok := livetest.Open(at("case-open"), unix.O_RDONLY, 0); !ok {
		absent("case-open", "no open(2) on this architecture")
	} else if err := opened("case-open", fd); err != nil {
		return err
	}
	if fd, ok := livetest.Creat(at("case-creat"), 0o600); !ok {
		absent("case-creat", "no creat(2) on this architecture")
	} else if err := opened("case-creat", fd); err != nil {
		return err
	}
	if err := opened("case-openat2", livetest.Openat2(unix.AT_FDCWD, at("case-openat2"), &unix.OpenHow{Flags: unix.O_RDONLY})); err != nil {
		return err
	}
	if err := openHandle(dir); err != nil {
		return err
	}
	if err := openInt80InChild(dir); err != nil {
		return err
	}
	if err := openURing(at("case-uring")); err != nil {
		return err
	}
	for _, name := range []string{"case-newline\nand\x1b[7mescape", "case-utf8-\xff-\u202e"} {
		if err := opened(name, livetest.Openat(unix.AT_FDCWD, at(name), unix.O_RDONLY, 0)); err != nil {
			return err
		}
	}
	cold := livetest.ColdName(outside{}, filepath.Join(dir, "case-cold"))
	if err := opened("case-cold", livetest.Openat(unix.AT_FDCWD, cold, unix.O_RDONLY, 0)); err != nil {
		return err
	}
	for range 23 {
		if fd := livetest.Openat(unix.AT_FDCWD, at("case-23"), unix.O_RDONLY, 0); fd != -int(unix.ENOENT) {
			return fmt.Errorf("case-23: want ENOENT, got %d", fd)
		}
	}
	return nil
}

// prepare makes the files, in a process of its own, as making them opens them.
func prepare(dir string) error {
	script := `cd "$1" && shift && mkdir sub && ln -s case-symlink-target case-symlink && for f; do : >"$f" || exit; done`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", dir}, files...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make the files: %w", err)
	}
	return nil
}

func openHandle(dir string) error {
	handle, err := livetest.Handle(filepath.Join(dir, "case-handle"))
	if errors.Is(err, unix.EOPNOTSUPP) {
		absent("case-handle", "this file system has no handles")
		return nil
	} else if err != nil {
		return err
	}
	mount, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return opened("case-handle", livetest.OpenByHandleAt(mount, handle, unix.O_RDONLY))
}

// openInt80InChild has a child make the 32-bit call, as a kernel without such
// calls ends who tries.
func openInt80InChild(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, int80Command, filepath.Join(dir, "case-int80"))
	cmd.Stderr = os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		absent("case-int80", "no 32-bit calls on this machine")
		return nil
	} else if err != nil {
		return err
	}
	return nil
}

func openURing(name *byte) error {
	ring, err := livetest.NewURing(0)
	if errors.Is(err, livetest.ErrNoURing) {
		absent("case-uring", err.Error())
		return nil
	} else if err != nil {
		return err
	}
	defer ring.Close()
	fd, err := ring.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return opened("case-uring", fd)
}

// opened takes what the kernel returned for an open that must succeed.
func opened(name string, fd int) error {
	if fd < 0 {
		return fmt.Errorf("%q: %w", name, unix.Errno(-fd))
	}
	return unix.Close(fd)
}

func absent(name, why string) { fmt.Fprintf(os.Stderr, "opencases: no %s: %s\n", name, why) }

// outside lets livetest's helpers that want a test be used outside of one.
type outside struct{ testing.TB }

func (outside) Helper()        {}
func (outside) Cleanup(func()) {}
func (outside) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "opencases: "+format+"\n", args...)
	os.Exit(1)
}
