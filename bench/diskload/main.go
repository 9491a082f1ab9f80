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
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/bench/load"
)

func main() { load.Main("diskload", run) }

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
	if err := load.Pin(*cpu); err != nil {
		return err
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
	return load.Measure(*n, 10, func() error {
		if *parents == 0 {
			return d.read(*n)
		}
		return load.Share(*n, *parents, func(int) []string {
			return []string{"-file", *file, "-names", strconv.Itoa(*names)}
		})
	})
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

const markBurst = 8

func markForever(file string) error {
	d, err := open(file, 1)
	if err != nil {
		return err
	}
	return load.Forever(func() error { return d.read(markBurst) })
}
