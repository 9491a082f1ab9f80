package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// int80Openat is openat(2) through the 32-bit entry of a 64-bit kernel. name is
// an address below 4 GiB. On a kernel without such calls it raises SIGSEGV.
func int80Openat(dirfd int32, name, flags, mode uint32) int32

func openInt80(path string) error {
	memory, err := unix.Mmap(-1, 0, len(path)+1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
	if err != nil {
		return err
	}
	copy(memory, path)
	fd := int80Openat(unix.AT_FDCWD, uint32(uintptr(unsafe.Pointer(&memory[0]))), unix.O_RDONLY, 0)
	return opened("case-int80", int(fd))
}
