package livetest

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions below make exactly one attempt to open a file each, in the
// calling thread, and return what the kernel returned: a descriptor, which the
// caller closes, or a negative errno. The second result is false where this
// architecture or kernel has no such call; nothing was attempted then.
//
// Names are pointers to NUL-terminated bytes (see Name, LowName and ColdName),
// because what a tracer can read of a name depends on where it is.

// Openat is openat(2).
func Openat(dirfd int, name *byte, flags int, mode uint32) int {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(name)), uintptr(flags), uintptr(mode), 0, 0)
	return result(fd, errno)
}

// Openat2 is openat2(2).
func Openat2(dirfd int, name *byte, how *unix.OpenHow) int {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dirfd), uintptr(unsafe.Pointer(name)),
		uintptr(unsafe.Pointer(how)), unix.SizeofOpenHow, 0, 0)
	return result(fd, errno)
}

// OpenByHandleAt is open_by_handle_at(2), with a handle from Handle and a
// descriptor of any file in the same filesystem.
func OpenByHandleAt(mountFD int, handle unix.FileHandle, flags int) int {
	fd, err := unix.OpenByHandleAt(mountFD, handle, flags)
	var errno unix.Errno
	if errors.As(err, &errno) {
		return -int(errno)
	}
	return fd
}

// Handle is the handle of a file, which no open is needed for. Some filesystems,
// such as overlayfs by default, have none: EOPNOTSUPP.
func Handle(path string) (unix.FileHandle, error) {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return handle, &os.PathError{Op: "name_to_handle_at", Path: path, Err: err}
	}
	return handle, nil
}

func result(fd uintptr, errno unix.Errno) int {
	if errno != 0 {
		return -int(errno)
	}
	return int(fd)
}

// Name is s as the kernel takes it. It panics if s has a NUL byte.
func Name(s string) *byte {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		panic("a file's name with a NUL byte")
	}
	return p
}

// LowName is s below 4 GiB, where 32-bit calls reach it. It stays until the test
// ends. Only amd64 has such memory for the asking; elsewhere the test fails.
func LowName(t testing.TB, s string) *byte {
	t.Helper()
	b, err := lowMemory(len(s) + 1)
	if err != nil {
		t.Fatalf("map memory below 4 GiB: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	copy(b, s)
	return &b[0]
}

// ColdName is s in memory that this process has not touched, so that it is not
// mapped until the kernel itself reads it in the call: a tracer at the entry of
// the call can't read it. It serves once, and stays until the test ends.
func ColdName(t testing.TB, s string) *byte {
	t.Helper()
	fd, err := unix.MemfdCreate("name", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatalf("memfd_create: %v", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, append([]byte(s), 0)); err != nil {
		t.Fatalf("write a name to memory: %v", err)
	}
	b, err := unix.Mmap(fd, 0, len(s)+1, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("map a name: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return unsafe.SliceData(b)
}

// NoName points to memory that nobody may read, so that opening it fails with
// EFAULT. It stays until the test ends.
func NoName(t testing.TB) *byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, 1, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatalf("map memory that can't be read: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return unsafe.SliceData(b)
}

func pointer(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }
