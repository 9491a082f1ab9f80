package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

//kernel:modules loop lzo-rle? zram? dm-mod

// dmIoctl does something (by its number) to a device of the device mapper; the target
// is "" but where a table is loaded.
func dmIoctl(nr uintptr, name, target, params string, sectors uint64) error {
	const header = 312 // struct dm_ioctl
	fd, err := unix.Open("/dev/mapper/control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the device mapper: %w", err)
	}
	defer unix.Close(fd)
	b := make([]byte, 1024)
	for i, v := range []uint32{4, 0, 0, uint32(len(b)), header} {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	copy(b[48:], name)
	if target != "" {
		binary.NativeEndian.PutUint32(b[20:], 1) // the number of targets
		spec := b[header:]                       // struct dm_target_spec, and the parameters
		binary.NativeEndian.PutUint64(spec[8:], sectors)
		copy(spec[24:], target)
		copy(spec[40:], params)
	}
	request := uintptr(0xc138fd00) | nr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return fmt.Errorf("device mapper, request %d for %s: %w", nr, name, errno)
	}
	return nil
}

// linear makes a device of the device mapper that is the same as a disk, and gives its
// name.
func linear(t testing.TB, disk string) string {
	t.Helper()
	if _, err := os.Stat("/dev/mapper/control"); err != nil {
		t.Skip("SKIPPED: there is no device mapper here")
	}
	const create, remove, resume, load = 3, 4, 6, 9
	name := fmt.Sprintf("gobcc%d", os.Getpid())
	before, _ := filepath.Glob("/sys/block/dm-*")
	do := func(nr uintptr, target, params string, sectors uint64) {
		t.Helper()
		if err := dmIoctl(nr, name, target, params, sectors); err != nil {
			t.Fatal(err)
		}
	}
	do(create, "", "", 0)
	t.Cleanup(func() {
		if err := dmIoctl(remove, name, "", "", 0); err != nil {
			t.Error(err)
		}
	})
	do(load, "linear", "/dev/"+disk+" 0", 64<<20/512)
	do(resume, "", "", 0)
	after, _ := filepath.Glob("/sys/block/dm-*")
	for _, path := range after {
		if !slices.Contains(before, path) {
			return filepath.Base(path)
		}
	}
	t.Fatal("the device mapper made no device")
	return ""
}

// diskAndBio tells flushes, which are writes of nothing, from writes.
func diskAndBio(o object) string {
	if slices.Contains(o.Flags, "preflush") {
		return diskAndOp(o) + " flush"
	}
	return diskAndOp(o)
}

// bios counts what is done to some disks, with --bio.
func bios(t testing.TB, a *livetest.Attempt, disks []string, do func(), args ...string) map[string]uint64 {
	tool := livetest.Start(t, append(args, "--bio", "-j", "-D", "-F")...)
	tool.Ready()
	do()
	res := tool.Stop()
	a.Lost(res)
	all, failed := histograms(t, res)
	if len(failed) > 0 {
		a.Errorf("errors %+v", failed)
	}
	for _, o := range all {
		if o.Phase != "bio" {
			a.Errorf("%+v", o)
		}
	}
	return counted(slices.DeleteFunc(all, func(o object) bool { return o.Disk == nil || !slices.Contains(disks, *o.Disk) }), diskAndBio)
}

// TestKernelBios counts bios at each device of a stack: device mapper, and a disk with
// requests, which splits the large ones.
func TestKernelBios(t *testing.T) {
	livetest.Need(t)
	disk := newDisk(t, "memory_backed=1", "discard=1", "cache_size=1")
	if err := os.WriteFile("/sys/block/"+disk.name+"/queue/max_sectors_kb", []byte("64"), 0); err != nil {
		t.Fatal(err)
	}
	upper := linear(t, disk.name)
	f := openDirect(t, "/dev/"+upper)
	disks := []string{upper, disk.name}
	do := func() {
		f.read(times, 4096)
		f.read(2*times, 256<<10) // in parts
		f.write(times, 65536)
		f.flush(times)
		f.discard(times, 65536)
	}
	want := map[string]uint64{}
	for _, name := range disks {
		for op, n := range map[string]uint64{"read": 3 * times, "write": times, "write flush": times, "discard": times} {
			want[name+" "+op] = n
		}
	}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		check(a, "all", bios(t, a, disks, do), want)
		for _, name := range disks {
			of := map[string]uint64{}
			for key, n := range want {
				if strings.HasPrefix(key, name+" ") {
					of[key] = n
				}
			}
			check(a, "-d "+name, bios(t, a, disks, do, "-d", name), of)
		}
		check(a, "by another task", bios(t, a, disks, do, "-n", "no-such"), nil)
	})
}

// TestKernelBiosOfLoop counts bios at a loop device, and below it.
func TestKernelBiosOfLoop(t *testing.T) {
	livetest.Need(t)
	disk := newDisk(t)
	loop := filepath.Base(newLoop(t, "/dev/"+disk.name, unix.LO_FLAGS_DIRECT_IO))
	f := openDirect(t, "/dev/"+loop)
	disks := []string{loop, disk.name}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		got := bios(t, a, disks, func() { f.read(times, 4096); f.write(2*times, 4096) })
		want := map[string]uint64{}
		for _, name := range disks {
			want[name+" read"], want[name+" write"] = times, 2*times
		}
		check(a, "loop", got, want)
	})
}

// TestKernelBiosOfMemory has a device that makes no requests of bios.
func TestKernelBiosOfMemory(t *testing.T) {
	livetest.Need(t)
	const name, size = "zram0", "/sys/block/zram0/disksize"
	if text, err := os.ReadFile(size); err != nil || strings.TrimSpace(string(text)) != "0" {
		t.Skipf("SKIPPED: there is no unused zram0 here: %q, %v", text, err)
	}
	if err := os.WriteFile(size, []byte("64M"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile("/sys/block/zram0/reset", []byte("1"), 0); err != nil {
			t.Error(err)
		}
	})
	f := openDirect(t, "/dev/"+name)
	t.Cleanup(func() { unix.Close(f.fd); f.fd = -1 })
	livetest.Attempts(t, func(a *livetest.Attempt) {
		got := bios(t, a, []string{name}, func() {
			f.read(times, 4096)
			f.write(2*times, 4096)
			f.discard(times, 65536)
		})
		check(a, name, got, map[string]uint64{name + " read": times, name + " write": 2 * times, name + " discard": times})
	})
}

// TestKernelBioErrors reads what the disk can't.
func TestKernelBioErrors(t *testing.T) {
	livetest.Need(t)
	disk := newDisk(t, "memory_backed=1")
	disk.set("badblocks", "+0-7")
	upper := linear(t, disk.name)
	f := openDirect(t, "/dev/"+upper)
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "--bio", "-j", "-D")
		tool.Ready()
		b := aligned(4096)
		for range times {
			if _, err := unix.Pread(f.fd, b, 0); err != unix.EIO {
				t.Fatalf("a bad block was read: %v", err)
			}
		}
		res := tool.Stop()
		a.Lost(res)
		_, failed := histograms(t, res)
		got := map[string]uint64{}
		for _, o := range failed {
			if o.Disk != nil {
				got[*o.Disk+" "+o.Error] += o.Count
			}
		}
		check(a, "errors", got, map[string]uint64{upper + " EIO": times, disk.name + " EIO": times})
	})
}

// TestKernelUnissued reads from a disk that is offline: the requests fail before they
// are issued.
func TestKernelUnissued(t *testing.T) {
	livetest.Need(t)
	path := scsiDisk(t)
	f, b := openDirect(t, path), aligned(4096)
	name := filepath.Base(path)
	state := func(s string) {
		if err := os.WriteFile("/sys/block/"+name+"/device/state", []byte(s+"\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "-j", "-D")
		tool.Ready()
		state("offline")
		defer state("running")
		for range times {
			if _, err := unix.Pread(f.fd, b, 0); err == nil {
				t.Fatal("a disk that is offline was read")
			}
		}
		res := tool.Stop()
		a.Lost(res)
		all, failed := histograms(t, res)
		got := map[string]uint64{}
		for _, o := range failed {
			if o.Disk != nil {
				got[*o.Disk] += o.Count
			}
		}
		check(a, "errors", got, map[string]uint64{name: times})
		if n := counted(all, diskAndOp)[name+" "]; n != 0 {
			a.Errorf("%d requests that the disk never had were counted", n)
		}
	})
}
