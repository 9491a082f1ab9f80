package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// A scene is one way to make attempts, each to a port of its own, by which its rows are
// found.
type scene struct {
	t    *testing.T
	name string
	mode string
	// want is what the rows must say, and how many of each there must be.
	want map[uint16]map[string]int
	// late is done when all other scenes are over, shortly before the tool ends.
	late func()
	// ignored are ports whose rows say nothing.
	ignored []uint16
	// skipped is why the scene could not be made.
	skipped string
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// fails checks that a call failed with that error.
func (s *scene) fails(err error, want unix.Errno) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Fatalf("%s: %v instead of %v", s.name, err, want)
	}
}

// expect says what the rows to a port are to say.
func (s *scene) expect(port uint16, n int, format string, args ...any) {
	if s.want[port] == nil {
		s.want[port] = map[string]int{}
	}
	s.want[port][fmt.Sprintf(format, args...)] += n
}

func (s *scene) nonblocking(to netip.AddrPort, protocol int) int {
	s.t.Helper()
	fd, err := socket(to.Addr(), unix.SOCK_NONBLOCK, protocol)
	s.must(err)
	s.fails(unix.Connect(fd, livetest.Sockaddr(to)), unix.EINPROGRESS)
	return fd
}

// full makes a server whose queue is full, so that it drops what comes: it answers no
// SYN, as a host behind a firewall does.
func (s *scene) full() server {
	to := newServer(s.t, home, 0, 0)
	fd, err := socket(home, 0, 0)
	s.must(err)
	s.t.Cleanup(func() { closeNow(fd) })
	s.must(unix.Connect(fd, livetest.Sockaddr(to.to)))
	s.expect(to.to.Port(), 1, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ok")
	return to
}

var scenes = []struct {
	name string
	play func(s *scene)
}{
	{"established", func(s *scene) {
		for _, addr := range []netip.Addr{home, home6} {
			to := newServer(s.t, addr, 5, 0)
			for range times {
				s.must(to.meet())
			}
			family := 4
			if addr.Is6() {
				family = 6
			}
			s.expect(to.to.Port(), times, "IPv%d %s to %s by connect: ok", family, addr, addr)
		}
	}},
	{"IPv4 by an IPv6 socket", func(s *scene) {
		to := newServer(s.t, home, 5, 0)
		mapped := netip.AddrPortFrom(netip.AddrFrom16(home.As16()), to.to.Port())
		for range times {
			s.must(server{to.fd, mapped}.meet())
		}
		closed := newServer(s.t, home, -1, 0)
		for range times {
			s.fails(connect(netip.AddrPortFrom(mapped.Addr(), closed.to.Port())), unix.ECONNREFUSED)
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ok")
		s.expect(closed.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ECONNREFUSED")
		unreachable := netip.AddrPortFrom(netip.AddrFrom16(nowhere.As16()), 1001)
		for range times {
			s.fails(connect(unreachable), unix.ENETUNREACH)
		}
		s.early(1001, 4, nowhere, "connect", "ENETUNREACH")
	}},
	{"refused", func(s *scene) {
		for _, addr := range []netip.Addr{home, home6} {
			to := newServer(s.t, addr, -1, 0)
			for range times {
				s.fails(connect(to.to), unix.ECONNREFUSED)
			}
			family := 4
			if addr.Is6() {
				family = 6
			}
			s.expect(to.to.Port(), times, "IPv%d %s to %s by connect: ECONNREFUSED", family, addr, addr)
		}
	}},
	{"in the background", func(s *scene) {
		to, closed := newServer(s.t, home, times, 0), newServer(s.t, home, -1, 0)
		for range times {
			fd := s.nonblocking(to.to, 0)
			s.must(await(fd))
			s.must(to.accept())
			closeNow(fd)
			// Another connect() on the same socket gets the error, and is no attempt.
			fd, err := socket(home, unix.SOCK_NONBLOCK, 0)
			s.must(err)
			s.fails(unix.Connect(fd, livetest.Sockaddr(closed.to)), unix.EINPROGRESS)
			for err = unix.EALREADY; errors.Is(err, unix.EALREADY); {
				err = unix.Connect(fd, livetest.Sockaddr(closed.to))
			}
			s.fails(err, unix.ECONNREFUSED)
			closeNow(fd)
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ok")
		s.expect(closed.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ECONNREFUSED")
	}},
	{"no answer", func(s *scene) {
		to := s.full()
		livetest.SetSysctl(s.t, "net/ipv4/tcp_syn_retries", "1")
		defer livetest.SetSysctl(s.t, "net/ipv4/tcp_syn_retries", "6")
		const linear = "net/ipv4/tcp_syn_linear_timeouts" // before the others, since 6.5
		if _, err := os.Stat("/proc/sys/" + linear); err == nil {
			livetest.SetSysctl(s.t, linear, "0")
		}
		var fds []int
		for range times {
			fds = append(fds, s.nonblocking(to.to, 0))
		}
		for _, fd := range fds {
			s.fails(await(fd), unix.ETIMEDOUT)
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			s.must(err)
			if info.Total_retrans == 0 {
				s.t.Fatalf("%s: no SYN was sent again", s.name)
			}
			s.expect(to.to.Port(), 1, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ETIMEDOUT, %d retransmits", info.Total_retrans)
			closeNow(fd)
		}
	}},
	{"no route", func(s *scene) {
		for i, addr := range []netip.Addr{nowhere, nowhere6} {
			port := uint16(1002 + i)
			for range times {
				s.fails(connect(netip.AddrPortFrom(addr, port)), unix.ENETUNREACH)
			}
			family := 4
			if addr.Is6() {
				family = 6
			}
			s.early(port, family, addr, "connect", "ENETUNREACH")
		}
	}},
	{"no address left", func(s *scene) {
		to := newServer(s.t, home, 5, 0)
		first, err := socket(home, 0, 0)
		s.must(err)
		defer closeNow(first)
		s.must(unix.SetsockoptInt(first, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		s.must(unix.Bind(first, livetest.Sockaddr(netip.AddrPortFrom(home, 0))))
		own := netip.AddrPortFrom(home, livetest.LocalPort(s.t, first))
		s.must(unix.Connect(first, livetest.Sockaddr(to.to)))
		for range times {
			fd, err := socket(home, 0, 0)
			s.must(err)
			s.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			s.must(unix.Bind(fd, livetest.Sockaddr(own)))
			s.fails(unix.Connect(fd, livetest.Sockaddr(to.to)), unix.EADDRNOTAVAIL)
			unix.Close(fd)
		}
		s.expect(to.to.Port(), 1, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ok")
		source := livetest.Null // TCP's own functions give an error before it is chosen
		if s.mode == "tracepoint" {
			source = "127.0.0.1"
		}
		s.expect(to.to.Port(), times, "IPv4 %s to 127.0.0.1 by connect: EADDRNOTAVAIL", source)
	}},
	{"closed by the program", func(s *scene) {
		to := s.full()
		for range times {
			closeNow(s.nonblocking(to.to, 0))
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: aborted")
	}},
	{"killed", func(s *scene) {
		to := s.full()
		for range times {
			s.kill(to)
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: aborted")
	}},
	{"fast open", func(s *scene) {
		to := newServer(s.t, home, 5, 0)
		for range times {
			fd, err := socket(home, 0, 0)
			s.must(err)
			_, err = livetest.FastOpen(fd, to.to, []byte("x"))
			s.must(err)
			s.must(to.accept())
			closeNow(fd)
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by fastopen: ok")
		for range times {
			fd, err := socket(home, 0, 0)
			s.must(err)
			_, err = livetest.FastOpen(fd, netip.AddrPortFrom(nowhere, 1004), []byte("x"))
			s.fails(err, unix.ENETUNREACH)
			unix.Close(fd)
		}
		s.early(1004, 4, nowhere, "fastopen", "ENETUNREACH")
	}},
	{"fast open by connect()", func(s *scene) {
		livetest.SetSysctl(s.t, "net/ipv4/tcp_fastopen", "3")
		to := newServer(s.t, home, 5, 0)
		s.must(unix.SetsockoptInt(to.fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 5))
		for range times {
			fd, err := socket(home, 0, 0)
			s.must(err)
			s.must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
			s.must(unix.Connect(fd, livetest.Sockaddr(to.to)))
			_, err = unix.Write(fd, []byte("x"))
			s.must(err)
			s.must(to.accept())
			closeNow(fd)
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by fastopen: ok")
	}},
	{"MPTCP", func(s *scene) {
		fd, err := socket(home, 0, unix.IPPROTO_MPTCP)
		if err != nil {
			s.skipped = fmt.Sprintf("this kernel makes no MPTCP sockets: %v", err)
			return
		}
		unix.Close(fd)
		to, closed := newServer(s.t, home, 5, unix.IPPROTO_MPTCP), newServer(s.t, home, -1, 0)
		for range times {
			fd, err := socket(home, 0, unix.IPPROTO_MPTCP)
			s.must(err)
			s.must(unix.Connect(fd, livetest.Sockaddr(to.to)))
			s.must(to.accept())
			closeNow(fd)
			fd, err = socket(home, 0, unix.IPPROTO_MPTCP)
			s.must(err)
			s.fails(unix.Connect(fd, livetest.Sockaddr(closed.to)), unix.ECONNREFUSED)
			unix.Close(fd)
			fd, err = socket(home, 0, unix.IPPROTO_MPTCP)
			s.must(err)
			s.fails(unix.Connect(fd, livetest.Sockaddr(netip.AddrPortFrom(nowhere, 1005))), unix.ENETUNREACH)
			unix.Close(fd)
		}
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by mptcp: ok")
		s.expect(closed.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by mptcp: ECONNREFUSED")
		s.early(1005, 4, nowhere, "mptcp", "ENETUNREACH")
	}},
	{"io_uring", func(s *scene) {
		for _, async := range []bool{false, true} {
			ring, err := livetest.NewURing(0)
			if errors.Is(err, livetest.ErrNoURing) {
				s.skipped = err.Error()
				return
			}
			s.must(err)
			defer ring.Close()
		again:
			to, closed := newServer(s.t, home, times, 0), newServer(s.t, home, -1, 0)
			for _, server := range []server{to, closed} {
				var fds []int
				for range times {
					fd, err := socket(home, 0, 0)
					s.must(err)
					defer closeNow(fd)
					fds = append(fds, fd)
				}
				results, err := ring.Connect(livetest.SockaddrBytes(server.to), async, fds...)
				s.must(err)
				want := 0
				if server == closed {
					want = -int(unix.ECONNREFUSED)
				}
				// 5.10 cancels requests now and then, which says nothing of the tool.
				if slices.Contains(results, -int(unix.ECANCELED)) {
					s.t.Logf("%s: the kernel cancelled some of %v: once more", s.name, results)
					s.ignored = append(s.ignored, to.to.Port(), closed.to.Port())
					goto again
				}
				for _, res := range results {
					if res != want {
						s.t.Fatalf("%s: a request's result is %d, not %d", s.name, res, want)
					}
				}
			}
			s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by io_uring: ok")
			s.expect(closed.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by io_uring: ECONNREFUSED")
		}
	}},
	{"io_uring, no route", func(s *scene) {
		ring, err := livetest.NewURing(0)
		if errors.Is(err, livetest.ErrNoURing) {
			s.skipped = err.Error()
			return
		}
		s.must(err)
		defer ring.Close()
		for range times {
			fd, err := socket(nowhere, 0, 0)
			s.must(err)
			results, err := ring.Connect(livetest.SockaddrBytes(netip.AddrPortFrom(nowhere, 1006)), false, fd)
			s.must(err)
			s.fails(unix.Errno(-results[0]), unix.ENETUNREACH)
			unix.Close(fd)
		}
		if s.mode != "tracepoint" { // which says that it does not see these
			s.early(1006, 4, nowhere, "io_uring", "ENETUNREACH")
		}
	}},
	{"32-bit", func(s *scene) {
		if !livetest.HasInt80() {
			s.skipped = "this kernel runs no 32-bit calls"
			return
		}
		to := newServer(s.t, home, 5, 0)
		for i, call := range []func(int, netip.AddrPort) (int, bool){livetest.Int80Connect, livetest.Int80Socketcall} {
			port := uint16(1007 + i)
			for range times {
				fd, err := socket(home, 0, 0)
				s.must(err)
				if res, _ := call(fd, to.to); res != 0 {
					s.t.Fatalf("%s: %d", s.name, res)
				}
				s.must(to.accept())
				closeNow(fd)
				fd, err = socket(home, 0, 0)
				s.must(err)
				res, _ := call(fd, netip.AddrPortFrom(nowhere, port))
				s.fails(unix.Errno(-res), unix.ENETUNREACH)
				unix.Close(fd)
			}
			s.early(port, 4, nowhere, "connect/32", "ENETUNREACH")
		}
		s.expect(to.to.Port(), 2*times, "IPv4 127.0.0.1 to 127.0.0.1 by connect/32: ok")
	}},
	{"refused by a policy", func(s *scene) {
		cgroup := livetest.Cgroup(s.t)
		child := livetest.Child(s.t, connector)
		cgroup.Enter(child.Pid())
		to := newServer(s.t, home, 5, 0)
		s.must(forbid(s.t, cgroup.Path))
		if answer := child.Do(to.to.String(), fmt.Sprint(times)); answer != unix.EPERM.Error() {
			s.t.Fatalf("%s: %s", s.name, answer)
		}
		if !s.hidden("refusals") {
			s.expect(to.to.Port(), times, "IPv4 %s to 127.0.0.1 by connect: EPERM, no port, no latency", livetest.Null)
		}
	}},
	{"no attempts", func(s *scene) {
		// UDP, a socket that is connected, one that listens, a disconnect, and calls that
		// make no sense.
		const port = 1010
		udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		s.must(err)
		defer unix.Close(udp)
		s.must(unix.Connect(udp, livetest.Sockaddr(netip.AddrPortFrom(home, port))))
		s.fails(unix.Connect(udp, livetest.Sockaddr(netip.AddrPortFrom(nowhere, port))), unix.ENETUNREACH)
		s.fails(unix.Connect(-1, livetest.Sockaddr(netip.AddrPortFrom(home, port))), unix.EBADF)
		s.fails(unix.Connect(int(os.Stderr.Fd()), livetest.Sockaddr(netip.AddrPortFrom(home, port))), unix.ENOTSOCK)
		to := newServer(s.t, home, 5, 0)
		s.fails(unix.Connect(to.fd, livetest.Sockaddr(netip.AddrPortFrom(home, port))), unix.EISCONN)
		fd, err := socket(home, 0, 0)
		s.must(err)
		defer closeNow(fd)
		s.must(unix.Connect(fd, livetest.Sockaddr(to.to)))
		s.fails(unix.Connect(fd, livetest.Sockaddr(netip.AddrPortFrom(home, port))), unix.EISCONN)
		s.expect(to.to.Port(), 1, "IPv4 127.0.0.1 to 127.0.0.1 by connect: ok")
		s.want[port] = map[string]int{}
	}},
	{"under way at the end", func(s *scene) {
		to := s.full()
		s.expect(to.to.Port(), times, "IPv4 127.0.0.1 to 127.0.0.1 by connect: pending, no latency")
		s.late = func() {
			for range times {
				fd := s.nonblocking(to.to, 0)
				s.t.Cleanup(func() { closeNow(fd) })
			}
		}
	}},
}

// hidden reports whether the tool says that it does not see what a hook is for: some
// kernels' types don't tell enough of a function for fentry (Debian's 6.1).
func (s *scene) hidden(hook string) bool {
	for _, h := range livetest.Modes(s.t, "--outcome")[s.mode].Hooks {
		if h.Name == hook {
			return len(h.NotSeen) > 0
		}
	}
	return false // superfluous in this mode
}

// early says what the rows to a port are to say of attempts that fail before a packet
// is sent.
func (s *scene) early(port uint16, family int, to netip.Addr, via, result string) {
	latency := ""
	if s.mode == "tracepoint" { // where only the end is seen
		latency = ", no latency"
	}
	s.expect(port, times, "IPv%d %s to %s by %s: %s, no port%s", family, livetest.Null, to, via, result, latency)
}

// kill kills a child that waits in connect().
func (s *scene) kill(to server) {
	argv := livetest.RoleArgv(connector, to.to.String(), "1")
	child := exec.Command(argv[0], argv[1:]...)
	s.must(child.Start())
	s.awaitWait(child.Process.Pid)
	s.must(child.Process.Kill())
	_ = child.Wait() // its error says that it was killed
}

// awaitWait waits until a process sleeps in connect().
func (s *scene) awaitWait(pid int) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		s.must(err)
		if strings.HasPrefix(string(text), fmt.Sprintf("%d ", unix.SYS_CONNECT)) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: process %d is not in connect(): %s", s.name, pid, text)
		}
	}
}

// forbid has a cgroup refuse all connects over IPv4.
func forbid(t *testing.T, cgroup string) error {
	if err := rlimit.RemoveMemlock(); err != nil { // up to 5.10
		return err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "forbid", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	t.Cleanup(func() { prog.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: prog})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}

// TestKernelAttempts makes attempts of every kind and looks at the rows of each.
func TestKernelAttempts(t *testing.T) {
	livetest.EachMode(t, func(t *testing.T, mode string) {
		livetest.Network(t, func() {
			tool := livetest.Start(t, "--json", "--attach", mode, "--netns", livetest.NetworkPath())
			tool.Ready()
			want := map[uint16]map[string]int{}
			names, ignored := map[uint16]string{}, map[uint16]bool{}
			var late []func()
			for _, sc := range scenes {
				s := &scene{t: t, name: sc.name, mode: mode, want: map[uint16]map[string]int{}}
				watch := time.AfterFunc(5*time.Minute, func() {
					_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
					panic("the scene hangs: " + sc.name)
				})
				sc.play(s)
				watch.Stop()
				if s.skipped != "" {
					t.Run(sc.name, func(t *testing.T) { t.Skip("SKIPPED: " + s.skipped) })
				}
				for _, port := range s.ignored {
					ignored[port] = true
				}
				for port, rows := range s.want {
					// Two scenes may be given the same port, one after the other.
					for row, n := range want[port] {
						rows[row] += n
					}
					want[port], names[port] = rows, sc.name
				}
				if s.late != nil {
					late = append(late, s.late)
				}
			}
			for _, do := range late {
				do()
			}
			res := tool.Stop()
			got := map[uint16]map[string]int{}
			inode := livetest.NetworkInode(t)
			for _, r := range rows(t, res, 0) {
				if ignored[r.Dport] {
					continue
				}
				if got[r.Dport] == nil {
					got[r.Dport] = map[string]int{}
				}
				got[r.Dport][r.what()]++
				if r.Netns != inode || r.Error != nil && *r.Error != r.Result || (r.Error != nil) != (r.Errno != 0) {
					t.Errorf("%+v", r)
				}
			}
			for _, port := range slices.Sorted(maps.Keys(want)) {
				if !maps.Equal(got[port], want[port]) {
					t.Errorf("%s: to port %d: got %v, not %v", names[port], port, got[port], want[port])
				}
				delete(got, port)
			}
			if len(got) > 0 {
				t.Errorf("attempts that nobody made: %v", got)
			}
			if lost, possibly := res.Lost(); lost+possibly > 0 {
				t.Logf("lost %d, possibly %d", lost, possibly)
			}
		})
	}, "--outcome")
}
