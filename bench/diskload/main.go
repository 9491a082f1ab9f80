// Diskload is the load of `make bench` for biolatency: it reads from a disk again and
// again, past the cache, and prints how long that took.
//
// Usage:
//
//	diskload -file FILE [-cpu N] [-n READS] [-names N] [-parents N]
//	diskload -mark FILE [-cpu N]
//
// The first form reads 4 KiB at some place of FILE, a file or a disk, in one thread,
// READS times. Before each it gives its thread a name, one of so many in turn, because a
// tool may count by names. With -parents, that many processes do it at once, READS times
// together. Then it makes other system calls, because a tracer may cost those something
// too. It prints three numbers, in nanoseconds: the elapsed time of the reads, the CPU
// time for them, and that for as many other calls.
//
// The second form does the same in small bursts until it is killed.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "diskload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("diskload", flag.ContinueOnError)
	cpu := flags.Int("cpu", -1, "run on this CPU only; -1 leaves the choice to the kernel")
	n := flags.Int("n", 50000, "reads")
	names := flags.Int("names", 1, "read under so many names in turn")
	parents := flags.Int("parents", 0, "share the reads among this many processes")
	file := flags.String("file", "", "read from this file")
	mark := flags.String("mark", "", "read from this file in bursts until killed")
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
	switch {
	case flags.NArg() > 0 || *file == "" == (*mark == ""):
		return fmt.Errorf("want -file or -mark, and no more; got %q", args)
	case *mark != "":
		return markForever(*mark)
	}
	d, err := open(*file, *names)
	if err != nil {
		return err
	}
	defer d.close()
	start := clock(unix.CLOCK_MONOTONIC)
	if *parents > 0 {
		err = share(*file, *n, *names, *parents)
	} else {
		err = d.read(*n)
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

// readSize is that of a read, and what its place and memory are a multiple of.
const readSize = 4096

// disk is a file to read from.
type disk struct {
	fd     int
	blocks uint64
	buf    []byte
	names  [][]byte // each with a zero at its end
	random uint64
	done   int
}

func open(path string, names int) (*disk, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s without a cache: %w", path, err)
	}
	d := &disk{fd: fd, random: uint64(os.Getpid())}
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil || size < readSize {
		d.close()
		return nil, fmt.Errorf("%s has %d bytes, and %d are needed: %w", path, size, readSize, err)
	}
	d.blocks = uint64(size) / readSize
	room := make([]byte, 2*readSize)
	at := readSize - int(uintptr(unsafe.Pointer(&room[0]))%readSize)
	d.buf = room[at : at+readSize]
	for i := range names {
		d.names = append(d.names, fmt.Appendf(nil, "diskload %d\x00", i))
	}
	return d, nil
}

func (d *disk) close() { _ = unix.Close(d.fd) }

// read reads n times.
func (d *disk) read(n int) error {
	for range n {
		name := d.names[d.done%len(d.names)]
		d.done++
		_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0)
		d.random = d.random*6364136223846793005 + 1442695040888963407 // Knuth's
		at := d.random >> 20 % d.blocks * readSize
		got, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(d.fd), uintptr(unsafe.Pointer(&d.buf[0])), readSize, uintptr(at), 0, 0)
		if errno != 0 || got != readSize {
			return fmt.Errorf("read at %d: got %d bytes: %w", at, got, errno)
		}
	}
	return nil
}

// share has several processes read n times at once. They end with this one, which must
// be in its first thread.
func share(file string, n, names, parents int) error {
	var running []*exec.Cmd
	for i := range parents {
		part := n*(i+1)/parents - n*i/parents
		cmd := exec.Command("/proc/self/exe", "-file", file, "-names", strconv.Itoa(names), "-n", strconv.Itoa(part))
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

// otherCalls makes system calls that read nothing and do next to nothing, and returns
// the CPU time of the calling thread for n of them. It makes more than n: they are much
// shorter than a read.
func otherCalls(n int) time.Duration {
	const more = 10
	start := clock(unix.CLOCK_THREAD_CPUTIME_ID)
	for range more * n {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	return (clock(unix.CLOCK_THREAD_CPUTIME_ID) - start) / more
}

const (
	markBurst = 8
	markPause = time.Millisecond
)

func markForever(file string) error {
	d, err := open(file, 1)
	if err != nil {
		return err
	}
	pause := unix.NsecToTimespec(markPause.Nanoseconds())
	for {
		if err := d.read(markBurst); err != nil {
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
