// Connectload is the load of `make bench` for tcpconnect: it connects to itself on
// the loopback interface again and again, and prints how long that took.
//
// Usage:
//
//	connectload -port PORT [-cpu N] [-n CONNECTS] [-parents N]
//	connectload -mark PORT [-cpu N]
//	connectload -packets udp|tcp -port PORT [-cpu N] [-n ROUND TRIPS]
//
// The first form makes a socket, connects it to a listener on 127.0.0.1 that is
// its own, accepts the connection in the same thread, and closes both ends, the
// connecting one first and by a reset, so that no port stays in TIME_WAIT and the
// load can go on for as long as it likes. It does so CONNECTS times. With -parents,
// that many processes do it at once, CONNECTS times together, each to an address
// of its own, 127.0.0.1 and the next ones, with the same port. Then it makes other
// system calls, because a tracer of connects may cost those something too. It
// prints three numbers, in nanoseconds: the elapsed time of the connects, the CPU
// time for them, and that for as many other calls.
//
// The second form does the same in small bursts until it is killed. Its rows in a
// tracer's output mark a moment: once one of them has come through, so has
// everything that the tracer saw before on the same CPU.
//
// The third form sends a byte to and fro between two sockets of its own, that many
// times, because a tool that looks at packets for names may cost those something.
// It prints the elapsed time of that in nanoseconds.
package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/bench/load"
)

func main() { load.Main("connectload", run) }

func run(args []string) error {
	flags := flag.NewFlagSet("connectload", flag.ContinueOnError)
	cpu := flags.Int("cpu", -1, "run on this CPU only; -1 leaves the choice to the kernel")
	n := flags.Int("n", 100000, "connects, or round trips")
	parents := flags.Int("parents", 0, "share the connects among this many processes")
	port := flags.Uint("port", 0, "listen on this port, and connect to it")
	host := flags.Uint("host", 1, "of the address, the last of four numbers")
	mark := flags.Uint("mark", 0, "connect to this port in bursts until killed")
	packets := flags.String("packets", "", "send a byte to and fro by udp or tcp")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := load.Pin(*cpu); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0 || *port == 0 == (*mark == 0):
		return fmt.Errorf("want -port or -mark, and no more; got %q", args)
	case *mark != 0:
		return markForever(uint16(*mark))
	case *packets != "":
		took, err := roundTrips(*packets, uint16(*port), *n)
		if err != nil {
			return err
		}
		fmt.Println(took.Nanoseconds())
		return nil
	}
	return load.Measure(*n, 10, func() error {
		if *parents == 0 {
			return repeat(byte(*host), uint16(*port), *n)
		}
		return load.Share(*n, *parents, func(i int) []string {
			return []string{"-port", strconv.Itoa(int(*port)), "-host", strconv.Itoa(i + 1)}
		})
	})
}

// repeat connects n times, one after the other.
func repeat(host byte, port uint16, n int) error {
	l, err := listen(host, port)
	if err != nil {
		return err
	}
	defer l.close()
	for range n {
		if err := l.connect(); err != nil {
			return err
		}
	}
	return nil
}

// listener is a socket that listens, and what it takes to connect to it.
type listener struct {
	fd     int
	addr   unix.RawSockaddrInet4
	linger unix.Linger
}

func listen(host byte, port uint16) (*listener, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	l := &listener{fd: fd, linger: unix.Linger{Onoff: 1}}
	l.addr = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte{127, 0, 0, host}}
	*(*[2]byte)(unsafe.Pointer(&l.addr.Port)) = [2]byte{byte(port >> 8), byte(port)}
	to := &unix.SockaddrInet4{Port: int(port), Addr: l.addr.Addr}
	// One may have been here a moment ago.
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, to), unix.Listen(fd, 16))
	if err != nil {
		l.close()
		return nil, fmt.Errorf("listen on port %d of 127.0.0.%d: %w", port, host, err)
	}
	return l, nil
}

func (l *listener) close() { _ = unix.Close(l.fd) }

// connect connects once and closes both ends. On the loopback interface the kernel
// has done the whole handshake when connect() returns, so that no call waits. All go
// past the Go scheduler: each costs the system call and a few nanoseconds.
func (l *listener) connect() error {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return fmt.Errorf("make a socket: %w", errno)
	}
	// Its close then sends a reset.
	_, _, errno = unix.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&l.linger)), unsafe.Sizeof(l.linger), 0)
	if errno != 0 {
		return fmt.Errorf("have a socket closed by a reset: %w", errno)
	}
	if _, _, errno = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&l.addr)), unsafe.Sizeof(l.addr)); errno != 0 {
		return fmt.Errorf("connect: %w", errno)
	}
	accepted, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(l.fd), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return fmt.Errorf("accept: %w", errno)
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, accepted, 0, 0)
	return nil
}

// roundTrips sends a byte n times from one socket to another and back, by a protocol,
// and returns the elapsed time.
func roundTrips(protocol string, port uint16, n int) (time.Duration, error) {
	var near, far int
	var err error
	switch protocol {
	case "udp":
		near, far, err = datagrams(port)
	case "tcp":
		near, far, err = stream(port)
	default:
		err = fmt.Errorf("-packets: no %q among udp, tcp", protocol)
	}
	if err != nil {
		return 0, err
	}
	buf := []byte{1}
	start := load.Clock(unix.CLOCK_MONOTONIC)
	for range n {
		for _, way := range [][2]int{{near, far}, {far, near}} {
			if _, err := unix.Write(way[0], buf); err != nil {
				return 0, fmt.Errorf("send: %w", err)
			}
			if got, err := unix.Read(way[1], buf); err != nil || got != 1 {
				return 0, fmt.Errorf("receive: got %d bytes: %w", got, err)
			}
		}
	}
	return load.Clock(unix.CLOCK_MONOTONIC) - start, nil
}

// datagrams makes two UDP sockets that are connected to each other.
func datagrams(port uint16) (near, far int, err error) {
	fds, addrs := [2]int{}, [2]*unix.SockaddrInet4{}
	for i := range fds {
		if fds[i], err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return 0, 0, fmt.Errorf("make a socket: %w", err)
		}
		addrs[i] = &unix.SockaddrInet4{Port: int(port) + i, Addr: [4]byte{127, 0, 0, 1}}
		if err := unix.Bind(fds[i], addrs[i]); err != nil {
			return 0, 0, fmt.Errorf("take UDP port %d: %w", int(port)+i, err)
		}
	}
	for i := range fds {
		if err := unix.Connect(fds[i], addrs[1-i]); err != nil {
			return 0, 0, fmt.Errorf("connect: %w", err)
		}
	}
	return fds[0], fds[1], nil
}

// stream makes two TCP sockets that are connected to each other.
func stream(port uint16) (near, far int, err error) {
	l, err := listen(1, port)
	if err != nil {
		return 0, 0, err
	}
	defer l.close()
	if near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Connect(near, &unix.SockaddrInet4{Port: int(port), Addr: l.addr.Addr}); err != nil {
		return 0, 0, fmt.Errorf("connect: %w", err)
	}
	if far, _, err = unix.Accept4(l.fd, unix.SOCK_CLOEXEC); err != nil {
		return 0, 0, fmt.Errorf("accept: %w", err)
	}
	for _, fd := range []int{near, far} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return 0, 0, fmt.Errorf("have a socket send at once: %w", err)
		}
	}
	return near, far, nil
}

const markBurst = 8

func markForever(port uint16) error {
	l, err := listen(1, port)
	if err != nil {
		return err
	}
	return load.Forever(func() error {
		for range markBurst {
			if err := l.connect(); err != nil {
				return err
			}
		}
		return nil
	})
}
