package livetest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Network is Namespace with a new network namespace besides, which has loopback and
// nothing else: no packet leaves it. Children that do starts are in it too.
func Network(t testing.TB, do func()) {
	t.Helper()
	Namespace(t, func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Fatalf("new network namespace: %v", err)
		}
		if err := loopbackUp(); err != nil {
			t.Fatalf("bring up loopback in a new network namespace: %v", err)
		}
		do()
	})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// NetworkPath is the file of the calling thread's network namespace, by a name that
// other processes can open.
func NetworkPath() string {
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
}

// NetworkInode is its number.
func NetworkInode(t testing.TB) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// SetSysctl sets a kernel parameter of the calling thread's network namespace, such as
// "net/ipv4/tcp_syn_retries", within Network.
func SetSysctl(t testing.TB, name, value string) {
	t.Helper()
	own, err1 := os.Readlink("/proc/thread-self/ns/net")
	process, err2 := os.Readlink("/proc/self/ns/net")
	if err1 != nil || err2 != nil || own == process {
		t.Fatalf("not within livetest.Network: %v, %v", err1, err2)
	}
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		t.Fatalf("set %s: %v", name, err)
	}
}

// Sockaddr is the address that the calls of package unix take.
func Sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// SockaddrBytes is the same as the kernel takes it: struct sockaddr_in or sockaddr_in6.
func SockaddrBytes(to netip.AddrPort) []byte {
	if to.Addr().Is4() {
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
		b = binary.BigEndian.AppendUint16(b, to.Port())
		return append(append(b, to.Addr().AsSlice()...), make([]byte, 8)...)
	}
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = append(append(b, make([]byte, 4)...), to.Addr().AsSlice()...)
	return append(b, make([]byte, 4)...)
}

// LocalPort is the port that a socket has been given.
func LocalPort(t testing.TB, fd int) uint16 {
	t.Helper()
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatalf("getsockname: %v", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	t.Fatalf("getsockname: %T", name)
	return 0
}

// Int80Connect is connect(2) through the 32-bit entry of a 64-bit kernel, and
// Int80Socketcall the same by socketcall(2), which 32-bit programs had first. They
// return 0 or a negative errno, and false where there is no such entry.
func Int80Connect(fd int, to netip.AddrPort) (int, bool) {
	const sysConnect = 362
	return int80WithAddress(to, func(memory []byte, length int) int32 {
		return int80(sysConnect, uint32(fd), low(&memory[0]), uint32(length), 0)
	})
}

// Int80Socketcall is described at Int80Connect.
func Int80Socketcall(fd int, to netip.AddrPort) (int, bool) {
	const sysSocketcall, connect = 102, 3
	return int80WithAddress(to, func(memory []byte, length int) int32 {
		args := memory[128:]
		binary.LittleEndian.PutUint32(args, uint32(fd))
		binary.LittleEndian.PutUint32(args[4:], low(&memory[0]))
		binary.LittleEndian.PutUint32(args[8:], uint32(length))
		return int80(sysSocketcall, connect, low(&args[0]), 0, 0)
	})
}

func int80WithAddress(to netip.AddrPort, call func(memory []byte, length int) int32) (int, bool) {
	if !HasInt80() {
		return 0, false
	}
	memory, err := lowMemory(4096)
	if err != nil {
		return -int(unix.ENOMEM), true
	}
	defer unix.Munmap(memory)
	return int(call(memory, copy(memory, SockaddrBytes(to)))), true
}

// FastOpen is sendto(2) with MSG_FASTOPEN: a connect with data.
func FastOpen(fd int, to netip.AddrPort, data []byte) (int, error) {
	addr := SockaddrBytes(to)
	n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)),
		unix.MSG_FASTOPEN, uintptr(unsafe.Pointer(&addr[0])), uintptr(len(addr)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
