package livetest

import "golang.org/x/sys/unix"

// Open is open(2), which arm64 has not.
func Open(name *byte, flags int, mode uint32) (int, bool) { return 0, false }

// Creat is creat(2), which arm64 has not.
func Creat(name *byte, mode uint32) (int, bool) { return 0, false }

// HasInt80 is false: the 32-bit entry is amd64's.
func HasInt80() bool { return false }

// Int80Open exists on amd64 only.
func Int80Open(name *byte, flags int, mode uint32) (int, bool) { return 0, false }

// Int80Creat exists on amd64 only.
func Int80Creat(name *byte, mode uint32) (int, bool) { return 0, false }

// Int80Openat exists on amd64 only.
func Int80Openat(dirfd int, name *byte, flags int, mode uint32) (int, bool) { return 0, false }

// Int80Openat2 exists on amd64 only.
func Int80Openat2(dirfd int, name *byte, how *unix.OpenHow) (int, bool) { return 0, false }

func lowMemory(size int) ([]byte, error) { return nil, unix.EOPNOTSUPP }

func int80(_, _, _, _, _ uint32) int32 { return -int32(unix.ENOSYS) }

func low(*byte) uint32 { return 0 }
