package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

// dnsPort gives the address of a server of the test's own.
func dnsPort(addr string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(addr), 53) }

// listenUDP makes a socket of a server on the calling thread, in its network namespace.
func listenUDP(t testing.TB, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func listenTCP(t testing.TB, at netip.AddrPort) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// udpSocket makes a client's socket.
func udpSocket(t testing.TB, family int) int {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func connectUDP(t testing.TB, family int, to unix.Sockaddr) int {
	t.Helper()
	fd := udpSocket(t, family)
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	return fd
}

func dialTCP(t testing.TB, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// destinationOptions makes all packets of an IPv6 socket have an extension header.
func destinationOptions(t testing.TB, fd int) {
	t.Helper()
	padding := "\x00\x00\x01\x04\x00\x00\x00\x00"
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, padding); err != nil {
		t.Fatalf("set an extension header: %v", err)
	}
}

func control(t testing.TB, conn *net.UDPConn, do func(fd int)) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { do(int(fd)) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// smallPackets makes loopback pass packets of 1280 bytes at most, within livetest.Network.
func smallPackets(t testing.TB) {
	t.Helper()
	fd := udpSocket(t, unix.AF_INET)
	ifr, err := unix.NewIfreq("lo")
	if err == nil {
		ifr.SetUint32(1280)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr)
	}
	if err != nil {
		t.Fatalf("set loopback's MTU: %v", err)
	}
}

// dnsWays are the ways a resolver may ask. Each is to do times lookups in its zone.
var dnsWays = []struct {
	name string
	ipv6 bool
	do   func(t *testing.T, zone byte) []lookup
}{
	{"a connected socket", false, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{}, dnsPort("127.77.53.1")
		s.serveUDP(t, listenUDP(t, at))
		return s.lookups(t, zone, overUDP(connectUDP(t, unix.AF_INET, livetest.Sockaddr(at)), nil))
	}},
	{"a socket that is not connected", false, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{}, dnsPort("127.77.53.2")
		s.serveUDP(t, listenUDP(t, at))
		return s.lookups(t, zone, overUDP(udpSocket(t, unix.AF_INET), livetest.Sockaddr(at)))
	}},
	{"an IPv4 server on an IPv6 socket", true, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{}, dnsPort("127.77.53.3")
		s.serveUDP(t, listenUDP(t, at))
		mapped := netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), 53)
		return s.lookups(t, zone, overUDP(connectUDP(t, unix.AF_INET6, livetest.Sockaddr(mapped)), nil))
	}},
	{"IPv6", true, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{}, dnsPort("::1")
		s.serveUDP(t, listenUDP(t, at))
		return s.lookups(t, zone, overUDP(udpSocket(t, unix.AF_INET6), livetest.Sockaddr(at)))
	}},
	{"IPv6 with an extension header", true, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{}, dnsPort("::1")
		conn := listenUDP(t, at)
		control(t, conn, func(fd int) { destinationOptions(t, fd) })
		s.serveUDP(t, conn)
		fd := udpSocket(t, unix.AF_INET6)
		destinationOptions(t, fd)
		return s.lookups(t, zone, overUDP(fd, livetest.Sockaddr(at)))
	}},
	{"answers of 3000 bytes", false, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{padding: 3000}, dnsPort("127.77.53.4")
		s.serveUDP(t, listenUDP(t, at))
		return s.lookups(t, zone, overUDP(udpSocket(t, unix.AF_INET), livetest.Sockaddr(at)))
	}},
	{"answers in fragments", false, func(t *testing.T, zone byte) (list []lookup) {
		livetest.Network(t, func() {
			smallPackets(t)
			s, at := &dnsServer{padding: 3000}, dnsPort("127.77.53.4")
			s.serveUDP(t, listenUDP(t, at))
			list = s.lookups(t, zone, overUDP(udpSocket(t, unix.AF_INET), livetest.Sockaddr(at)))
		})
		return list
	}},
	{"names of any bytes", false, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{suffix: "\xff\n"}, dnsPort("127.77.53.7")
		s.serveUDP(t, listenUDP(t, at))
		return s.lookups(t, zone, overUDP(connectUDP(t, unix.AF_INET, livetest.Sockaddr(at)), nil))
	}},
	{"another network namespace", false, func(t *testing.T, zone byte) (list []lookup) {
		livetest.Network(t, func() {
			s, at := &dnsServer{}, dnsPort("127.77.53.1")
			s.serveUDP(t, listenUDP(t, at))
			list = s.lookups(t, zone, overUDP(connectUDP(t, unix.AF_INET, livetest.Sockaddr(at)), nil))
		})
		return list
	}},
	{"TCP", false, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{}, dnsPort("127.77.53.5")
		s.serveTCP(t, listenTCP(t, at))
		return s.lookups(t, zone, overTCP(dialTCP(t, at), true))
	}},
	{"TCP in pieces, by IPv6", true, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{pieces: true}, dnsPort("::1")
		s.serveTCP(t, listenTCP(t, at))
		return s.lookups(t, zone, overTCP(dialTCP(t, at), true))
	}},
	{"TCP with all answers at once", false, func(t *testing.T, zone byte) []lookup {
		s, at := &dnsServer{gather: times, padding: 600}, dnsPort("127.77.53.6")
		s.serveTCP(t, listenTCP(t, at))
		return s.lookups(t, zone, overTCP(dialTCP(t, at), false))
	}},
	{"TCP in another network namespace", false, func(t *testing.T, zone byte) (list []lookup) {
		livetest.Network(t, func() {
			s, at := &dnsServer{}, dnsPort("127.77.53.5")
			s.serveTCP(t, listenTCP(t, at))
			list = s.lookups(t, zone, overTCP(dialTCP(t, at), true))
		})
		return list
	}},
}

// seenNames are the two programs, attached without the rest of the tool.
type seenNames struct {
	*names
	set    *attach.Set
	reader *events.Reader
	// The records of messages so far.
	records []bpfDnsPacket
}

func openNames(t testing.TB, pages int) *seenNames {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Configure(spec, pages); err != nil {
		t.Fatal(err)
	}
	kernel, err := attach.Open("")
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"dns_ingress", "dns_egress"}
	set, err := kernel.Open(spec, []attach.Hook{{
		Name: "names", Choices: []attach.Choice{{Mode: attach.Auto, Programs: both, Needs: both}},
	}}, attach.Options{Mode: attach.Auto})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	reader, err := events.NewReader(set.Collection)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	return &seenNames{names: newNames(), set: set, reader: reader}
}

// drain takes what is in the ring buffer.
func (s *seenNames) drain(t testing.TB) {
	t.Helper()
	err := s.reader.Drain(func(record []byte) error {
		var p bpfDnsPacket
		if _, err := events.Decode(&p, record); err != nil {
			return err
		}
		s.records = append(s.records, p)
		return s.packet(record)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *seenNames) lost(t testing.TB) uint64 {
	t.Helper()
	lost, err := lostNames(s.set.Maps[bpfMapDnsLost])
	if err != nil {
		t.Fatal(err)
	}
	return lost
}

// lookedUp is the name of the threads that connect, after they have looked up all they
// want to know. What other threads do is not traced here.
const lookedUp = "names-connect"

// connectTo connects to these addresses, where nobody listens, and gives the calling
// thread that name, within livetest.Network.
func connectTo(t *testing.T, list []lookup) {
	t.Helper()
	if err := livetest.SetComm(lookedUp); err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if err := connect(netip.AddrPortFrom(l.addr, 9)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect to %s: %v", l.addr, err)
		}
	}
}

// The names of addresses looked up in every way, in network namespaces that the tool is
// not in.
func TestKernelDomains(t *testing.T) {
	livetest.NeedOnce(t)
	tool := livetest.Start(t, "--domains", "--json", "--name", lookedUp)
	tool.Ready()
	var all []lookup
	for i, way := range dnsWays {
		t.Run(way.name, func(t *testing.T) {
			if way.ipv6 && !hasIPv6() {
				t.Skip("SKIPPED: this kernel has no IPv6")
			}
			livetest.Network(t, func() {
				list := way.do(t, byte(i))
				connectTo(t, list)
				all = append(all, list...)
			})
		})
	}
	// What is no answer to a lookup gives no name.
	livetest.Network(t, func() {
		s, at := &dnsServer{}, netip.MustParseAddrPort("127.77.53.1:5353")
		s.serveUDP(t, listenUDP(t, at))
		list := s.lookups(t, 92, overUDP(udpSocket(t, unix.AF_INET), livetest.Sockaddr(at)))
		list = append(list, s.lookups(t, 93, overUDP(connectUDP(t, unix.AF_INET, livetest.Sockaddr(at)), nil))...)
		connectTo(t, list)
		for _, l := range list {
			all = append(all, lookup{addr: l.addr})
		}
	})
	res := tool.Stop()
	got := map[string]row{}
	shown := rows(t, res, 0)
	for _, r := range shown {
		got[r.Daddr] = r
	}
	if len(shown) != len(all) || len(got) != len(all) {
		t.Errorf("%d rows, to %d addresses, of %d connects", len(shown), len(got), len(all))
	}
	for _, l := range all {
		r := got[l.addr.String()]
		name := livetest.Exact(r.Query, r.QueryBytes)
		if l.name == "" {
			if r.Query != nil || r.QueryLatencyNS != nil {
				t.Errorf("%s is %s, by port 5353", l.addr, name)
			}
			continue
		}
		if name != l.name || r.QueryLatencyNS == nil {
			t.Errorf("%s is %q, not %q", l.addr, name, l.name)
			continue
		}
		// The query leaves the client before it comes to the server, and so on.
		if most, least := l.asks.to-l.asks.from, l.work.to-l.work.from; *r.QueryLatencyNS > most || *r.QueryLatencyNS < least {
			t.Errorf("%s took %d ns, not %d to %d", l.name, *r.QueryLatencyNS, least, most)
		}
	}
	if strings.Contains(res.Stderr, "DNS messages") {
		t.Errorf("some were lost: %s", res.Stderr)
	}
}

// BCC's column: the name with how long its lookup took. A name may hold any byte.
func TestKernelQueryColumn(t *testing.T) {
	livetest.NeedOnce(t)
	tool := livetest.Start(t, "-d", "--name", lookedUp)
	tool.Ready()
	var list []lookup
	livetest.Network(t, func() {
		s, at := &dnsServer{suffix: "\x1b[31m"}, dnsPort("127.77.53.1")
		s.serveUDP(t, listenUDP(t, at))
		list = s.lookups(t, 1, overUDP(connectUDP(t, unix.AF_INET, livetest.Sockaddr(at)), nil))
		connectTo(t, list)
	})
	lines := tool.Stop().Over(t, 0).Lines()
	if len(lines) != 1+len(list) || !strings.HasSuffix(lines[0], " DPORT  QUERY") {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for i, l := range list {
		want := fmt.Sprintf(`^\d+ +names-connect +4 +127\.0\.0\.1 +%s +9 +%s \(\d+\.\d{3}ms\)$`,
			regexp.QuoteMeta(l.addr.String()), regexp.QuoteMeta(strings.ReplaceAll(l.name, "\x1b", `\x1b`)))
		if !regexp.MustCompile(want).MatchString(lines[1+i]) {
			t.Errorf("%q does not match %s", lines[1+i], want)
		}
	}
}

// Each message is seen once, and it is known whether it can only be of the server.
func TestKernelNamesRecords(t *testing.T) {
	livetest.Need(t)
	seen := openNames(t, events.DefaultPages)
	s, at := &dnsServer{}, dnsPort("127.77.53.1")
	s.serveUDP(t, listenUDP(t, at))
	connected, unconnected := connectUDP(t, unix.AF_INET, livetest.Sockaddr(at)), udpSocket(t, unix.AF_INET)
	s.lookups(t, 90, overUDP(connected, nil))
	s.lookups(t, 91, overUDP(unconnected, livetest.Sockaddr(at)))
	seen.drain(t)
	for _, test := range []struct {
		fd        int
		connected bool
	}{{connected, true}, {unconnected, false}} {
		name, err := unix.Getsockname(test.fd)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(name.(*unix.SockaddrInet4).Port)
		queries, answers := 0, 0
		for _, r := range seen.records {
			if r.Port != port {
				continue
			}
			server := r.Saddr
			if r.has(bpfDnsMarkDNS_QUERY) {
				queries++
				server = r.Daddr
			} else {
				answers++
			}
			if r.has(bpfDnsMarkDNS_CONNECTED) != test.connected || r.has(bpfDnsMarkDNS_TCP) || netip.AddrFrom16(server).Unmap() != at.Addr() {
				t.Fatalf("connected: %v, and a record is %+v", test.connected, r)
			}
		}
		if queries != times || answers != times {
			t.Errorf("connected: %v, %d queries and %d answers were seen of %d", test.connected, queries, answers, times)
		}
	}
}

// Messages that find no room are counted.
func TestKernelNamesLost(t *testing.T) {
	livetest.Need(t)
	const rounds = 3 // of which the ring buffer holds less than two
	seen := openNames(t, 32)
	s, at := &dnsServer{padding: 3000}, dnsPort("127.77.53.1")
	s.serveUDP(t, listenUDP(t, at))
	fd := connectUDP(t, unix.AF_INET, livetest.Sockaddr(at))
	for range rounds {
		s.lookups(t, 94, overUDP(fd, nil))
	}
	lost := seen.lost(t)
	seen.drain(t)
	if shown := len(seen.records); lost == 0 || shown == 0 || shown+int(lost) != rounds*times*2 {
		t.Errorf("%d messages: %d were shown and %d are lost", rounds*times*2, shown, lost)
	}
}
