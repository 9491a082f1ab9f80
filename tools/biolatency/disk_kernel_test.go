package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

//kernel:modules configfs null_blk kyber-iosched scsi_debug? sd_mod

// configfs is where the disks of null_blk are made.
const configfs = "/sys/kernel/config"

// A testDisk is a disk of null_blk that is there for one test.
type testDisk struct {
	t    testing.TB
	dir  string // in configfs
	name string
	gone bool
}

// disksMade is how many were made.
var disksMade int

// newDisk makes a disk with these settings, as "completion_nsec=1000". It has a queue
// for requests, and 64 MiB.
func newDisk(t testing.TB, settings ...string) *testDisk {
	t.Helper()
	if _, err := os.Stat("/sys/module/null_blk"); err != nil {
		t.Skip("SKIPPED: the module null_blk is not loaded here")
	}
	if err := unix.Mount("none", configfs, "configfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatalf("mount configfs: %v", err)
	}
	disksMade++
	d := &testDisk{t: t, dir: filepath.Join(configfs, "nullb", fmt.Sprintf("gobcc%d-%d", os.Getpid(), disksMade))}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatalf("make a disk: %v", err)
	}
	t.Cleanup(d.remove)
	for _, s := range append([]string{"queue_mode=2", "submit_queues=1", "size=64", "blocksize=512"}, settings...) {
		name, value, _ := strings.Cut(s, "=")
		d.set(name, value)
	}
	d.set("power", "1")
	// Newer kernels name a disk for its directory.
	d.name = filepath.Base(d.dir)
	if _, err := os.Stat("/sys/block/" + d.name); err != nil {
		index, err := os.ReadFile(filepath.Join(d.dir, "index"))
		if err != nil {
			t.Fatal(err)
		}
		d.name = "nullb" + strings.TrimSpace(string(index))
	}
	return d
}

func (d *testDisk) set(name, value string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(value), 0); err != nil {
		d.t.Fatalf("set %s of a disk: %v", name, err)
	}
}

// remove takes the disk away, once.
func (d *testDisk) remove() {
	if d.gone {
		return
	}
	d.gone = true
	d.set("power", "0")
	if err := os.Remove(d.dir); err != nil {
		d.t.Errorf("remove a disk: %v", err)
	}
}

// scsiDebug is where the settings of the module scsi_debug are.
const scsiDebug = "/sys/bus/pseudo/drivers/scsi_debug/"

func hasScsiDebug() bool {
	_, err := os.Stat(scsiDebug)
	return err == nil
}

// scsiDisk gives the path of scsi_debug's disk, once it is there. The settings are for
// this test.
func scsiDisk(t testing.TB, settings ...string) string {
	t.Helper()
	if !hasScsiDebug() {
		t.Skip("SKIPPED: the module scsi_debug is not loaded here")
	}
	const pattern = "/sys/bus/pseudo/devices/adapter0/host*/target*/*/block/*"
	var path string
	livetest.Eventually(t, func() error {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%s: %q, %v", pattern, found, err)
		}
		path = "/dev/" + filepath.Base(found[0])
		_, err = os.Stat(path)
		return err
	})
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		scsiSet(t, name, value)
	}
	return path
}

// scsiSet changes one of the settings, for this test.
func scsiSet(t testing.TB, name, value string) {
	t.Helper()
	file := scsiDebug + name
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := func(value []byte) {
		// Some can't be changed while the kernel looks at the disk.
		livetest.Eventually(t, func() error { return os.WriteFile(file, value, 0) })
	}
	set([]byte(value))
	t.Cleanup(func() { set(old) })
}

// scanScsi has the kernel find scsi_debug's disk, after it was taken away.
func scanScsi(t testing.TB) {
	t.Helper()
	scans, err := filepath.Glob("/sys/bus/pseudo/devices/adapter0/host*/scsi_host/host*/scan")
	if err != nil || len(scans) != 1 {
		t.Fatalf("%q, %v", scans, err)
	}
	if err := os.WriteFile(scans[0], []byte("- - -"), 0); err != nil {
		t.Fatal(err)
	}
}

func (d *testDisk) path() string { return "/dev/" + d.name }

// open opens the disk for direct I/O.
func (d *testDisk) open() *directFile { return openDirect(d.t, d.path()) }

// A directFile is read and written without the cache.
type directFile struct {
	t  testing.TB
	fd int
}

func openDirect(t testing.TB, path string) *directFile {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &directFile{t, fd}
}

// aligned is memory that direct I/O can use.
func aligned(size int) []byte {
	b := make([]byte, size+4096)
	off := int(4096 - uintptr(unsafe.Pointer(&b[0]))%4096)
	return b[off : off+size]
}

// read reads that many bytes, n times, each from another place.
func (f *directFile) read(n, size int) {
	f.t.Helper()
	if err := readDirect(f.fd, n, size); err != nil {
		f.t.Fatal(err)
	}
}

func readDirect(fd, n, size int) error {
	b := aligned(size)
	for i := range n {
		if got, err := unix.Pread(fd, b, int64(i%64)*128<<10); err != nil || got != size {
			return fmt.Errorf("read %d bytes: %d, %w", size, got, err)
		}
	}
	return nil
}

// write writes that many bytes, n times.
func (f *directFile) write(n, size int) {
	f.t.Helper()
	b := aligned(size)
	for i := range n {
		if got, err := unix.Pwrite(f.fd, b, int64(i%64)*128<<10); err != nil || got != size {
			f.t.Fatalf("write %d bytes: %d, %v", size, got, err)
		}
	}
}

// flush has the disk write its cache, n times.
func (f *directFile) flush(n int) {
	f.t.Helper()
	for range n {
		if err := unix.Fsync(f.fd); err != nil {
			f.t.Fatalf("fsync: %v", err)
		}
	}
}

// discard tells the disk that a part of it is of no use any more, n times.
func (f *directFile) discard(n, size int) {
	f.t.Helper()
	for i := range n {
		span := [2]uint64{uint64(i) * 128 << 10, uint64(size)}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); errno != 0 {
			f.t.Fatalf("discard: %v", errno)
		}
	}
}

// reader is a child that reads from a file: its arguments are the path, how many
// times, and how much.
var reader = livetest.Role("reader", func(args []string) string {
	var n, size int
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &n, &size); err != nil {
		return err.Error()
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	if err := readDirect(fd, n, size); err != nil {
		return err.Error()
	}
	return "read"
})

// actor is a child that reads once under each of so many names: its arguments are the
// path, and how many.
var actor = livetest.Role("actor", func(args []string) string {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err.Error()
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	for i := range n {
		if err := livetest.SetComm(fmt.Sprintf("actor %d", i)); err != nil {
			return err.Error()
		}
		if err := readDirect(fd, 1, 4096); err != nil {
			return err.Error()
		}
	}
	return "read"
})

// writer is a child that writes a megabyte to a file, and leaves it to the kernel when
// that gets to the disk.
var writer = livetest.Role("writer", func(args []string) string {
	f, err := os.OpenFile(args[0], os.O_WRONLY, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		return err.Error()
	}
	return "written"
})
