package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

func TestMain(m *testing.M) { livetest.Main(m, main) }

// times is how often each thing is done: a number that no accident gives.
const times = 23

// row is what the tool writes with --json of an attempt.
type row struct {
	Time        string
	Kind        string
	PID, TID    int
	UID         uint32
	Comm        string
	CgroupID    uint64 `json:"cgroup_id"`
	Netns       uint64
	Family      int
	Saddr       *string
	Sport       uint16
	Daddr       string
	Dport       uint16
	Result      string
	Errno       int
	Error       *string
	LatencyNS   *uint64 `json:"latency_ns"`
	Retransmits int
	Via         string

	Query          *string
	QueryBytes     []byte  `json:"query_bytes"`
	QueryLatencyNS *uint64 `json:"query_latency_ns"`

	Lost         uint64
	PossiblyLost uint64 `json:"possibly_lost"`
	Causes       map[string]uint64
}

// rows gives the attempts that a tool showed, which must have ended with that status.
func rows(t testing.TB, res livetest.Result, status int) []row {
	t.Helper()
	var list []row
	for _, r := range livetest.Decode[row](t, res.Over(t, status).Lines()) {
		if r.Kind == "connect" {
			list = append(list, r)
		}
	}
	return list
}

// what says what a row tells that does not differ from one attempt to the next.
func (r row) what() string {
	source := livetest.Null
	if r.Saddr != nil {
		source = *r.Saddr
	}
	text := fmt.Sprintf("IPv%d %s to %s by %s: %s", r.Family, source, r.Daddr, r.Via, r.Result)
	if r.Sport == 0 {
		text += ", no port"
	}
	if r.LatencyNS == nil {
		text += ", no latency"
	}
	// On a slow machine any SYN may be sent again.
	if r.Result == "ETIMEDOUT" {
		text += fmt.Sprintf(", %d retransmits", r.Retransmits)
	}
	return text
}

var (
	home  = netip.MustParseAddr("127.0.0.1")
	home6 = netip.MustParseAddr("::1")
	// From the ranges for documentation: in a namespace with nothing but loopback there
	// is no route to them.
	nowhere  = netip.MustParseAddr("192.0.2.1")
	nowhere6 = netip.MustParseAddr("2001:db8::1")
)

// A server is a listening socket, or one that only keeps its port closed.
type server struct {
	fd int
	to netip.AddrPort
}

// newServer makes a server on a port of its own. With backlog -1 it does not listen:
// who connects to it is refused.
func newServer(t testing.TB, addr netip.Addr, backlog int, protocol int) server {
	t.Helper()
	s := server{fd: newSocket(t, addr, protocol)}
	if err := unix.Bind(s.fd, livetest.Sockaddr(netip.AddrPortFrom(addr, 0))); err != nil {
		t.Fatalf("bind to %s: %v", addr, err)
	}
	if backlog >= 0 {
		if err := unix.Listen(s.fd, backlog); err != nil {
			t.Fatalf("listen on %s: %v", addr, err)
		}
	}
	s.to = netip.AddrPortFrom(addr, livetest.LocalPort(t, s.fd))
	return s
}

// newSocket makes a TCP socket that is closed when the test ends. The end of it needs
// no time to wait, so that its port is free at once.
func newSocket(t testing.TB, addr netip.Addr, protocol int) int {
	t.Helper()
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// closeNow closes a connection by a reset.
func closeNow(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// socket makes a socket that the caller closes.
func socket(addr netip.Addr, flags, protocol int) (int, error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, protocol)
}

// connect connects to a server and gives the error; the connection is closed.
func connect(to netip.AddrPort) error {
	fd, err := socket(to.Addr(), 0, 0)
	if err != nil {
		return err
	}
	defer closeNow(fd)
	return unix.Connect(fd, livetest.Sockaddr(to))
}

// meet connects to the server, which accepts it. The client closes the connection last:
// its reset may overtake the end of the handshake, and then there is nothing to accept.
func (s server) meet() error {
	fd, err := socket(s.to.Addr(), 0, 0)
	if err != nil {
		return err
	}
	defer closeNow(fd)
	if err := unix.Connect(fd, livetest.Sockaddr(s.to)); err != nil {
		return err
	}
	return s.accept()
}

// drain takes what connections there are, of clients that have closed them.
func (s server) drain() error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 0)
		if err != nil || n == 0 {
			return err
		}
		if err := s.accept(); err != nil {
			return err
		}
	}
}

// accept takes a connection and closes it.
func (s server) accept() error {
	fd, _, err := unix.Accept(s.fd)
	if err == nil {
		closeNow(fd)
	}
	return err
}

// await waits until a socket that is not blocking has its result, and gives it.
func await(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 60_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			return fmt.Errorf("poll: %d, %w", n, err)
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		if errno != 0 {
			return unix.Errno(errno)
		}
		return nil
	}
}

// connector is a child that connects to an address so many times, and answers with the
// errors that it got, each once.
var connector = livetest.Role("connector", func(args []string) string {
	to := netip.MustParseAddrPort(args[0])
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err.Error()
	}
	var answers []string
	for range n {
		answer := "ok"
		if err := connect(to); err != nil {
			answer = err.Error()
		}
		if len(answers) == 0 || answers[len(answers)-1] != answer {
			answers = append(answers, answer)
		}
	}
	return strings.Join(answers, ", ")
})
