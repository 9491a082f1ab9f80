package livetest

import (
	"bytes"
	"os/exec"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Open is open(2), which amd64 has and arm64 has not.
func Open(name *byte, flags int, mode uint32) (int, bool) {
	fd, _, errno := unix.Syscall(unix.SYS_OPEN, uintptr(unsafe.Pointer(name)), uintptr(flags), uintptr(mode))
	return result(fd, errno), true
}

// Creat is creat(2), which amd64 has and arm64 has not.
func Creat(name *byte, mode uint32) (int, bool) {
	fd, _, errno := unix.Syscall(unix.SYS_CREAT, uintptr(unsafe.Pointer(name)), uintptr(mode), 0)
	return result(fd, errno), true
}

// Numbers of the 32-bit system calls.
const (
	int80SysOpen    = 5
	int80SysCreat   = 8
	int80SysGetpid  = 20
	int80SysOpenat  = 295
	int80SysOpenat2 = 437
)

// int80 makes a 32-bit system call, as a 32-bit program does. Its arguments are
// 32 bits wide, so memory that they point to must be below 4 GiB. On a kernel
// without such calls it raises SIGSEGV.
func int80(number, a, b, c, d uint32) int32

// Int80Open is open(2) through the 32-bit entry of a 64-bit kernel. The name is
// from LowName.
func Int80Open(name *byte, flags int, mode uint32) (int, bool) {
	if !HasInt80() {
		return 0, false
	}
	return int(int80(int80SysOpen, low(name), uint32(flags), mode, 0)), true
}

// Int80Creat is creat(2) through the 32-bit entry.
func Int80Creat(name *byte, mode uint32) (int, bool) {
	if !HasInt80() {
		return 0, false
	}
	return int(int80(int80SysCreat, low(name), mode, 0, 0)), true
}

// Int80Openat is openat(2) through the 32-bit entry.
func Int80Openat(dirfd int, name *byte, flags int, mode uint32) (int, bool) {
	if !HasInt80() {
		return 0, false
	}
	return int(int80(int80SysOpenat, uint32(dirfd), low(name), uint32(flags), mode)), true
}

// Int80Openat2 is openat2(2) through the 32-bit entry.
func Int80Openat2(dirfd int, name *byte, how *unix.OpenHow) (int, bool) {
	if !HasInt80() {
		return 0, false
	}
	b, err := lowMemory(unix.SizeofOpenHow)
	if err != nil {
		return -int(unix.ENOMEM), true
	}
	defer unix.Munmap(b)
	*(*unix.OpenHow)(unsafe.Pointer(&b[0])) = *how
	return int(int80(int80SysOpenat2, uint32(dirfd), low(name), low(&b[0]), unix.SizeofOpenHow)), true
}

// HasInt80 tells whether this kernel runs 32-bit calls. It may have been built
// without them, or started with ia32_emulation=0.
var HasInt80 = sync.OnceValue(func() bool {
	// In a process of its own, because a kernel that doesn't kills the caller.
	if !mainRan {
		panic("this package's TestMain does not call livetest.Main")
	}
	out, err := exec.Command("/proc/self/exe", roleArg, int80Role).Output()
	return err == nil && bytes.Equal(out, []byte("yes"))
})

var int80Role = Role("livetest 32-bit call", func([]string) string {
	if int(int80(int80SysGetpid, 0, 0, 0, 0)) != unix.Getpid() {
		return "no"
	}
	return "yes"
})

// low is the address of memory that a 32-bit call can reach.
func low(p *byte) uint32 {
	address := uintptr(unsafe.Pointer(p))
	if address >= 1<<32 {
		panic("32-bit call with a name that is not from LowName")
	}
	return uint32(address)
}

func lowMemory(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
}
