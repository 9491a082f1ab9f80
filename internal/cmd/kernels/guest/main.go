// Guest is the init of the small guest that kernel tests run in: it mounts what
// tests need, loads modules, runs each test binary and powers the guest off.
// All it says goes to the console, line by line, as package plan describes.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/cmd/kernels/plan"
)

// margin is kept between a test binary's time limit and the guest's, so that
// the goroutine traces of a test that hangs get out before QEMU is killed.
const margin = 15 * time.Second

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the init of a test guest; it powers the machine off, and so runs as process 1 only")
		os.Exit(2)
	}
	if err := run(); err != nil {
		say(plan.Error, err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		say(plan.Error, fmt.Errorf("power off: %w", err))
	}
	// Init must not return: the kernel would panic and hide the error above.
	select {}
}

func run() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	// The empty line ends whatever the firmware left on the console's last one.
	fmt.Println()
	say(plan.Start, unix.ByteSliceToString(name.Release[:]))

	if err := mounts(); err != nil {
		return err
	}
	// Kernel messages would cut test output in two. Only emergencies, and all
	// that belongs to an oops or a panic, still reach the console.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0); err != nil {
		return err
	}
	// Not an os.File: its reads would wait for the next message at the end.
	kmsg, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kmsg: %w", err)
	}
	if _, err := unix.Seek(kmsg, 0, io.SeekEnd); err != nil {
		return fmt.Errorf("skip old kernel messages: %w", err)
	}

	text, err := os.ReadFile(plan.Path)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("read %s: %w", plan.Path, err)
	}
	if err := settings(); err != nil {
		return err
	}
	loaded, err := modules(p.Modules)
	if err != nil {
		return err
	}
	env := []string{
		"GOBCC_KERNEL_TESTS=1",
		"GOBCC_GUEST=" + p.Kernel,
		"GOBCC_MODULES=" + strings.Join(loaded, " "),
		"HOME=/root",
		"PATH=/bin",
	}
	if p.Short {
		env = append(env, "GOBCC_SHORT=1")
	}
	for _, t := range p.Tests {
		say(plan.Package, t.Package)
		status, err := test(t, p, env)
		if err != nil {
			return fmt.Errorf("run the tests of %s: %w", t.Package, err)
		}
		say(plan.Exit, status)
	}
	warnings(kmsg)
	say(plan.Done, "")
	return nil
}

// say writes one control line, in one write: a line is not to be cut by our own
// doing.
func say(word string, rest any) {
	text := strings.TrimSpace(fmt.Sprintf("%s %v", word, rest))
	fmt.Print(plan.Control + strings.ReplaceAll(text, "\n", " ") + "\n")
}

func mounts() error {
	for _, m := range []struct{ kind, dir, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "mode=620,ptmxmode=666"},
		{"tracefs", "/sys/kernel/tracing", ""},
		{"bpf", "/sys/fs/bpf", "mode=700"},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
	} {
		// Most of these directories are there already; those in sysfs can't be
		// made, and then it is the mount that fails.
		_ = os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.dir, err)
		}
	}
	return nil
}

func settings() error {
	if err := unix.Sethostname([]byte("gobcc")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	limit := unix.Rlimit{Cur: 65536, Max: 65536}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the number of open files: %w", err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(sock)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// modules loads the modules in the order given and returns their names.
func modules(paths []string) ([]string, error) {
	var names []string
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := unix.InitModule(data, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("load module %s: %w", path, err)
		}
		names = append(names, strings.TrimSuffix(filepath.Base(path), ".ko"))
	}
	return names, nil
}

// test runs one test binary and returns its exit status, or 128 and the number
// of the signal that ended it.
func test(t plan.Test, p plan.Plan, env []string) (int, error) {
	limit, err := remaining(p.Seconds)
	if err != nil {
		return 0, err
	}
	args := []string{t.Binary,
		// The marks of this form tell a test's result from output that looks like one.
		"-test.v=test2json",
		"-test.paniconexit0",
		"-test.run=" + p.Run,
		"-test.timeout=" + limit.String(),
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	child, err := syscall.ForkExec(t.Binary, args, &syscall.ProcAttr{
		Dir:   t.Dir,
		Env:   env,
		Files: []uintptr{null.Fd(), w.Fd(), w.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		r.Close()
		return 0, err
	}
	copied := make(chan error, 1)
	go func() {
		copied <- copyLines(os.Stdout, r)
		r.Close()
	}()
	status, err := reap(child)
	if err != nil {
		return 0, err
	}
	// What a test leaves behind would hold the pipe open and disturb the next.
	_ = unix.Kill(-1, unix.SIGKILL)
	return status, <-copied
}

// remaining returns how long a test binary started now may run.
func remaining(seconds int) (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	left := time.Duration(seconds)*time.Second - time.Duration(now.Nano()) - margin
	if left < time.Second {
		return 0, errors.New("no time is left")
	}
	return left.Round(time.Second), nil
}

// reap waits for the child, and on the way for every orphan that became a child
// of process 1.
func reap(child int) (int, error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid != child:
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		default:
			return ws.ExitStatus(), nil
		}
	}
}

// copyLines copies r's lines to w, each in one write and with plan.Output
// before it. A last line without an end gets one.
func copyLines(w io.Writer, r io.Reader) error {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			if _, err := io.WriteString(w, plan.Output+strings.TrimSuffix(line, "\n")+"\n"); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
}

// warnings repeats what the kernel logged as a warning or worse while the tests
// ran: the console was closed to it.
func warnings(kmsg int) {
	buf := make([]byte, 8192)
	for range 200 {
		n, err := unix.Read(kmsg, buf)
		if errors.Is(err, unix.EPIPE) {
			continue // overwritten before it was read; the next read goes on
		}
		if err != nil {
			return
		}
		// "6,339,5140900,-;message\n KEY=value"
		head, message, ok := strings.Cut(string(buf[:n]), ";")
		first, _, _ := strings.Cut(head, ",")
		level, err := strconv.Atoi(first)
		if !ok || err != nil || level > 4 {
			// Priorities above 7 are of other facilities: user space wrote these.
			continue
		}
		message, _, _ = strings.Cut(message, "\n")
		say(plan.Kmsg, message)
	}
}
