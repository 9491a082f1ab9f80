package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

//kernel:modules loop dm-mod virtio_pci? virtio_blk mq-deadline?

// ioctl makes a call whose argument is a structure, and gives its result.
func ioctl[T any](fd int, request uintptr, arg *T) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// newLoop makes a loop device of a file or of another device, and gives its path.
func newLoop(t testing.TB, file string, flags uint32) string {
	t.Helper()
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open the control of loop devices: %v", err)
	}
	defer unix.Close(control)
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	var path string
	livetest.Eventually(t, func() error {
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		device, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		// Somebody else may take it between the two.
		if err := unix.IoctlLoopConfigure(device, &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: flags}}); err != nil {
			unix.Close(device)
			return fmt.Errorf("make %s of %s: %w", path, file, err)
		}
		t.Cleanup(func() {
			if err := unix.IoctlSetInt(device, unix.LOOP_CLR_FD, 0); err != nil {
				t.Errorf("take %s back: %v", path, err)
			}
			unix.Close(device)
		})
		return nil
	})
	return path
}

// emptyFile makes a file of that many bytes, which are all 0.
func emptyFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// virtioSerial is the serial number of the disk that the kernel runner gives its guests.
const virtioSerial = "gobcc-test"

// virtioDisk gives the path of that disk. No other one of virtio's is ever touched.
func virtioDisk(t testing.TB) string {
	t.Helper()
	serials, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range serials {
		serial, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(serial) == virtioSerial {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	t.Fatalf("this guest has no disk with the serial number %s: %q", virtioSerial, serials)
	return ""
}

// Requests to the device mapper, of <linux/dm-ioctl.h>.
const (
	dmCreate  = 0xc138fd03
	dmRemove  = 0xc138fd04
	dmSuspend = 0xc138fd06 // or resume
	dmLoad    = 0xc138fd09
)

// dmRequest is struct dm_ioctl, and room for a table of one line.
type dmRequest struct {
	version             [3]uint32
	dataSize, dataStart uint32
	targets             uint32
	_                   [4]uint32
	dev                 uint64
	name                [128]byte
	_                   [129 + 7]byte // the first of them for a UUID
	sectorStart, length uint64
	_                   [2]uint32
	targetType          [16]byte
	arguments           [64]byte
}

// newMapped makes a device of the device mapper, which is the whole of another one, and
// gives its path.
func newMapped(t testing.TB, lower string, sectors uint64) string {
	t.Helper()
	control, err := unix.Open("/dev/mapper/control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open the control of the device mapper: %v", err)
	}
	t.Cleanup(func() { unix.Close(control) })
	request := func() *dmRequest {
		r := &dmRequest{version: [3]uint32{4, 0, 0}, dataStart: uint32(unsafe.Offsetof(dmRequest{}.sectorStart))}
		r.dataSize = uint32(unsafe.Sizeof(*r))
		copy(r.name[:], filepath.Base(lower))
		return r
	}
	created := request()
	if _, err := ioctl(control, dmCreate, created); err != nil {
		t.Fatalf("make a device of the device mapper: %v", err)
	}
	t.Cleanup(func() {
		// What looks at new disks may have it open.
		livetest.Eventually(t, func() error {
			_, err := ioctl(control, dmRemove, request())
			return err
		})
	})
	table := request()
	table.targets, table.length = 1, sectors
	copy(table.targetType[:], "linear")
	copy(table.arguments[:], lower+" 0")
	if _, err := ioctl(control, dmLoad, table); err != nil {
		t.Fatalf("load the table of a device: %v", err)
	}
	if _, err := ioctl(control, dmSuspend, request()); err != nil {
		t.Fatalf("resume a device: %v", err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(created.dev))
}

// setQueue changes a setting of a disk's queue, for this test.
func setQueue(t testing.TB, disk, name, value string) {
	t.Helper()
	file := filepath.Join("/sys/block", disk, "queue", name)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.TrimSpace(string(text))
	if _, rest, ok := strings.Cut(old, "["); ok { // one of several
		old, _, _ = strings.Cut(rest, "]")
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatalf("set %s of %s: %v", name, disk, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, []byte(old), 0); err != nil {
			t.Errorf("set %s of %s back: %v", name, disk, err)
		}
	})
}

// kernelCounts reads how many requests of each operation the kernel itself has counted
// for a disk, and how often it made one request of two.
func kernelCounts(t testing.TB, disk string) (requests map[string]uint64, merges uint64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/block", disk, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	var n []uint64
	for _, word := range strings.Fields(string(text)) {
		v, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatalf("the counts of %s: %q", disk, text)
		}
		n = append(n, v)
	}
	if len(n) < 17 {
		t.Fatalf("the counts of %s: %q", disk, text)
	}
	return map[string]uint64{"read": n[0], "write": n[4], "discard": n[11], "flush": n[15]}, n[1] + n[5] + n[12]
}

// writeThrough writes that many bytes, n times, and returns when they are not just in
// the disk's cache.
func (f *directFile) writeThrough(n, size int) {
	f.t.Helper()
	b := aligned(size)
	for i := range n {
		if got, err := unix.Pwritev2(f.fd, [][]byte{b}, int64(i%64)*128<<10, unix.RWF_DSYNC); err != nil || got != size {
			f.t.Fatalf("write %d bytes through the cache: %d, %v", size, got, err)
		}
	}
}

// zero has the disk write zeroes, n times.
func (f *directFile) zero(n, size int) {
	f.t.Helper()
	for i := range n {
		if _, err := ioctl(f.fd, unix.BLKZEROOUT, &[2]uint64{uint64(i%64) * 128 << 10, uint64(size)}); err != nil {
			f.t.Fatalf("zero %d bytes: %v", size, err)
		}
	}
}

// Requests to zones, of <linux/blkzoned.h>.
const (
	resetZone  = 0x40101283
	openZone   = 0x40101286
	closeZone  = 0x40101287
	finishZone = 0x40101288
)

// zone does something with zones: sectors is a span.
func (f *directFile) zone(request uintptr, sector, sectors uint64) {
	f.t.Helper()
	if _, err := ioctl(f.fd, request, &[2]uint64{sector, sectors}); err != nil {
		f.t.Fatalf("zone request %#x: %v", request, err)
	}
}

// aioRead is struct iocb, of <linux/aio_abi.h>. What is not named stays 0, which is an
// IOCB_CMD_PREAD too.
type aioRead struct {
	_      [5]uint32
	fd     uint32
	buf    uint64
	nbytes uint64
	offset int64
	_      [2]uint64
}

// readAtOnce begins to read that many bytes from each of these places, one after the
// other, and then waits for all of them.
func (f *directFile) readAtOnce(size int, places ...int64) {
	f.t.Helper()
	var context uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(len(places)), uintptr(unsafe.Pointer(&context)), 0); errno != 0 {
		f.t.Fatalf("set up asynchronous I/O: %v", errno)
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, context, 0, 0) //nolint:errcheck // it is empty
	b := aligned(size)
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(&b[0])
	for _, place := range places {
		// One at a time: of several the kernel itself would make one.
		read := &aioRead{fd: uint32(f.fd), buf: uint64(uintptr(unsafe.Pointer(&b[0]))), nbytes: uint64(size), offset: place}
		pinned.Pin(read)
		list := [1]*aioRead{read}
		if n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, context, 1, uintptr(unsafe.Pointer(&list))); n != 1 {
			f.t.Fatalf("begin to read: %v", errno)
		}
	}
	for done := 0; done < len(places); {
		var event struct {
			data, obj uint64
			res, res2 int64
		}
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, context, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
		switch {
		case errno == unix.EINTR: // by a signal of the Go runtime
		case n != 1 || event.res != int64(size):
			f.t.Fatalf("read: %d, %v", event.res, errno)
		default:
			done++
		}
	}
}

// underWay gives how many requests a tool has noted that have not ended.
func underWay(t testing.TB, pid int) (n int) {
	t.Helper()
	starts, ok := tooltest.Object(t, loadBpf).Maps[bpfMapStarts].Value.(*btf.Struct)
	if !ok {
		t.Fatal("the type of what is noted of a request is no structure")
	}
	made := slices.IndexFunc(starts.Members, func(m btf.Member) bool { return m.Name == "made_ns" })
	if made < 0 {
		t.Fatal("it has no made_ns")
	}
	offset := starts.Members[made].Offset.Bytes()
	m := mapOfTool(t, pid, bpfMapStarts)
	defer m.Close()
	var key uint64
	value := make([]byte, m.ValueSize())
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if binary.NativeEndian.Uint64(value[offset:]) != 0 {
			n++
		}
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// mapOfTool opens the BPF map of that name that a process has open.
func mapOfTool(t testing.TB, pid int, name string) *ebpf.Map {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), "\nmap_id:")
		if !found {
			continue
		}
		var id ebpf.MapID
		if _, err := fmt.Sscan(rest, &id); err != nil {
			t.Fatalf("%s: %q", file, text)
		}
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Name == name {
			return m
		}
		m.Close()
	}
	t.Fatalf("process %d has no map %s", pid, name)
	return nil
}
