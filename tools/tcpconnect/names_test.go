package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	second = uint64(time.Second)
	// When the tests begin, since boot.
	start = 1000 * second
)

// A packet is what a record is made of. The zero value with a time is a datagram
// from the server.
type packet struct {
	at     uint64
	marks  bpfDnsMark
	port   uint16 // of the client
	server string // "" for one that is not this machine
	seq    uint32
	data   []byte
}

func (p packet) record() []byte {
	server := p.server
	if server == "" {
		server = "192.0.2.53"
	}
	from, to := netip.MustParseAddr(server), netip.MustParseAddr("192.0.2.1")
	if p.marks&bpfDnsMarkDNS_QUERY != 0 {
		from, to = to, from
	}
	head := bpfDnsPacket{
		Kind: uint32(bpfKindKIND_DNS), Seq: p.seq, TimeNs: p.at, Port: p.port, Len: uint16(len(p.data)), Marks: uint8(p.marks), Saddr: from.As16(), Daddr: to.As16(),
	}
	record := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&head)), unsafe.Sizeof(head))...)
	record = append(record, p.data...)
	return append(record, make([]byte, max(0, 512-len(p.data)))...)
}

func see(t testing.TB, n *names, packets ...packet) {
	t.Helper()
	for _, p := range packets {
		if err := n.packet(p.record()); err != nil {
			t.Fatal(err)
		}
	}
}

func mustPack(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ask(t testing.TB, id uint16, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	return mustPack(t, dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	})
}

// reply answers with these addresses.
func reply(t testing.TB, id uint16, name string, ttl uint32, addrs ...string) []byte {
	t.Helper()
	return mustPack(t, replyMessage(id, name, ttl, addrs...))
}

func replyMessage(id uint16, name string, ttl uint32, addrs ...string) dnsmessage.Message {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}
		if addr.Is4() {
			h.Type = dnsmessage.TypeA
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
		} else {
			h.Type = dnsmessage.TypeAAAA
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	if len(addrs) > 0 && !netip.MustParseAddr(addrs[0]).Is4() {
		m.Questions[0].Type = dnsmessage.TypeAAAA
	}
	return m
}

// want checks what an address is known by at some time.
func want(t *testing.T, n *names, addr string, at uint64, name string, latency time.Duration) {
	t.Helper()
	gotName, gotLatency, ok := n.of(netip.MustParseAddr(addr), at)
	if ok != (name != "") || gotName != name || gotLatency != latency {
		t.Errorf("%s after %v: %q, %v, %v, not %q, %v", addr, time.Duration(at-start), gotName, gotLatency, ok, name, latency)
	}
}

func wantNone(t *testing.T, n *names, addr string, at uint64) {
	t.Helper()
	want(t, n, addr, at, "", -1)
}

const (
	query     = bpfDnsMarkDNS_QUERY | bpfDnsMarkDNS_CONNECTED
	connected = bpfDnsMarkDNS_CONNECTED
	tcp       = bpfDnsMarkDNS_TCP | bpfDnsMarkDNS_CONNECTED
	tcpQuery  = tcp | bpfDnsMarkDNS_QUERY
)

func TestNameAndLatency(t *testing.T) {
	n := newNames()
	see(t, n,
		packet{at: start, marks: query, port: 4000, data: ask(t, 7, "www.example.com.", dnsmessage.TypeA)},
		packet{at: start + 1, marks: query, port: 4000, data: ask(t, 8, "www.example.com.", dnsmessage.TypeAAAA)},
		packet{at: start + 5000, marks: connected, port: 4000, data: reply(t, 7, "www.example.com.", 60, "192.0.2.80", "192.0.2.81")},
		packet{at: start + 7001, marks: connected, port: 4000, data: reply(t, 8, "www.example.com.", 60, "2001:db8::80")},
	)
	for _, addr := range []string{"192.0.2.80", "192.0.2.81", "::ffff:192.0.2.80"} {
		want(t, n, addr, start+5000, "www.example.com", 5000)
	}
	want(t, n, "2001:db8::80", start+second, "www.example.com", 7000)
	wantNone(t, n, "192.0.2.82", start+second)
	wantNone(t, n, "192.0.2.80", start+4999)
	if n.queries.len() != 0 {
		t.Errorf("%d questions are waited for that were answered", n.queries.len())
	}
}

// What tells that an answer belongs to a question, and what does not.
func TestMatching(t *testing.T) {
	for _, test := range []struct {
		what    string
		answer  packet
		name    string // of the question in the answer
		id      uint16
		latency time.Duration
	}{
		{"the same", packet{port: 4000}, "www.example.com.", 7, 5000},
		{"another case", packet{port: 4000}, "WWW.eXample.com.", 7, 5000},
		{"another server", packet{port: 4000, server: "198.51.100.1"}, "www.example.com.", 7, 5000},
		{"another port", packet{port: 4001}, "www.example.com.", 7, -1},
		{"another id", packet{port: 4000}, "www.example.com.", 8, -1},
		{"another name", packet{port: 4000}, "www.example.org.", 7, -1},
	} {
		n := newNames()
		test.answer.at, test.answer.marks, test.answer.data = start+5000, connected, reply(t, test.id, test.name, 60, "192.0.2.80")
		see(t, n, packet{at: start, marks: query, port: 4000, data: ask(t, 7, "www.example.com.", dnsmessage.TypeA)}, test.answer)
		t.Log(test.what)
		want(t, n, "192.0.2.80", start+second, strings.TrimSuffix(test.name, "."), test.latency)
	}
}

// Whoever likes can send from port 53 to a socket that is not connected.
func TestUnaskedAnswers(t *testing.T) {
	for _, test := range []struct {
		what   string
		answer packet
		taken  bool
	}{
		{"to a socket that takes packets of any sender", packet{}, false},
		{"to a connected socket", packet{marks: connected}, true},
		{"from this machine", packet{server: "127.0.0.11"}, true},
		{"from this machine by IPv6", packet{server: "::1"}, true},
	} {
		n := newNames()
		test.answer.at, test.answer.port, test.answer.data = start, 4000, reply(t, 7, "www.example.com.", 60, "192.0.2.80")
		see(t, n, test.answer)
		if _, _, ok := n.of(netip.MustParseAddr("192.0.2.80"), start); ok != test.taken {
			t.Errorf("%s: taken: %v", test.what, ok)
		}
	}
	n := newNames()
	see(t, n,
		packet{at: start, marks: bpfDnsMarkDNS_QUERY, port: 4000, data: ask(t, 7, "www.example.com.", dnsmessage.TypeA)},
		packet{at: start + 9, port: 4000, data: reply(t, 7, "www.example.com.", 60, "192.0.2.80")},
		packet{at: start + 10, port: 4000, data: reply(t, 7, "www.example.com.", 60, "192.0.2.66")})
	want(t, n, "192.0.2.80", start+second, "www.example.com", 9)
	wantNone(t, n, "192.0.2.66", start+second)
}

func TestRepeatedQuery(t *testing.T) {
	n := newNames()
	q := ask(t, 7, "www.example.com.", dnsmessage.TypeA)
	see(t, n,
		packet{at: start, marks: query, port: 4000, data: q},
		packet{at: start + 5*second, marks: query, port: 4000, data: q, server: "198.51.100.1"},
		packet{at: start + 6*second, marks: connected, port: 4000, data: reply(t, 7, "www.example.com.", 60, "192.0.2.80")})
	want(t, n, "192.0.2.80", start+7*second, "www.example.com", 6*time.Second)

	// The same numbers by chance, long after a query that was never answered.
	n = newNames()
	see(t, n,
		packet{at: start, marks: query, port: 4000, data: q},
		packet{at: start + 31*second, marks: query, port: 4000, data: q},
		packet{at: start + 32*second, marks: connected, port: 4000, data: reply(t, 7, "www.example.com.", 60, "192.0.2.80")})
	want(t, n, "192.0.2.80", start+33*second, "www.example.com", time.Second)
}

func TestTTL(t *testing.T) {
	for _, test := range []struct {
		ttl  uint32
		last time.Duration
	}{
		{0, 2 * time.Second}, {1, 2 * time.Second}, {2, 2 * time.Second}, {300, 300 * time.Second},
		{1<<31 - 1, (1<<31 - 1) * time.Second}, {1 << 31, 2 * time.Second}, {1<<32 - 1, 2 * time.Second},
	} {
		n := newNames()
		see(t, n, packet{at: start, marks: connected, data: reply(t, 7, "a.example.", test.ttl, "192.0.2.80")})
		want(t, n, "192.0.2.80", start+uint64(test.last), "a.example", -1)
		wantNone(t, n, "192.0.2.80", start+uint64(test.last)+1)
	}
	// The shortest on the way to an address counts.
	n := newNames()
	m := replyMessage(7, "www.example.", 300, "192.0.2.80")
	m.Answers = append([]dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: 30},
		Body:   &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("edge.example.")},
	}}, m.Answers...)
	m.Answers[1].Header.Name = dnsmessage.MustNewName("edge.example.")
	see(t, n, packet{at: start, marks: connected, data: mustPack(t, m)})
	want(t, n, "192.0.2.80", start+30*second, "www.example", -1)
	wantNone(t, n, "192.0.2.80", start+30*second+1)
}

// A connection gets the name that was the newest when it began.
func TestSeveralNames(t *testing.T) {
	n := newNames()
	see(t, n,
		packet{at: start, marks: connected, data: reply(t, 1, "a.example.", 300, "192.0.2.80")},
		packet{at: start + 10*second, marks: connected, data: reply(t, 2, "b.example.", 5, "192.0.2.80")},
		packet{at: start + 20*second, marks: query, port: 4000, data: ask(t, 3, "a.example.", dnsmessage.TypeA)},
		packet{at: start + 20*second + 9, marks: connected, port: 4000, data: reply(t, 3, "a.example.", 300, "192.0.2.80")})
	wantNone(t, n, "192.0.2.80", start-1)
	want(t, n, "192.0.2.80", start+9*second, "a.example", -1)
	want(t, n, "192.0.2.80", start+10*second, "b.example", -1)
	want(t, n, "192.0.2.80", start+15*second, "b.example", -1)
	want(t, n, "192.0.2.80", start+16*second, "a.example", -1)
	want(t, n, "192.0.2.80", start+20*second+9, "a.example", 9)
	want(t, n, "192.0.2.80", start+320*second+9, "a.example", 9)
	wantNone(t, n, "192.0.2.80", start+320*second+10)

	// A name that had been forgotten is new, and was not known in between.
	see(t, n, packet{at: start + 1000*second, marks: connected, data: reply(t, 4, "a.example.", 60, "192.0.2.80")})
	wantNone(t, n, "192.0.2.80", start+999*second)
	want(t, n, "192.0.2.80", start+1000*second, "a.example", -1)

	for i := range maxNamesOfAddress {
		see(t, n, packet{at: start + 1001*second, marks: connected, data: reply(t, 5, fmt.Sprintf("n%d.example.", i), 60, "192.0.2.80")})
	}
	wantNone(t, n, "192.0.2.80", start+1000*second)
	want(t, n, "192.0.2.80", start+1001*second, fmt.Sprintf("n%d.example", maxNamesOfAddress-1), -1)
}

func TestNothingToLearn(t *testing.T) {
	with := func(change func(m *dnsmessage.Message)) []byte {
		m := replyMessage(7, "a.example.", 60, "192.0.2.80")
		change(&m)
		return mustPack(t, m)
	}
	good := reply(t, 7, "a.example.", 60, "192.0.2.80")
	loop := append([]byte(nil), good[:dnsHeader]...)
	loop = append(loop, 0xc0, dnsHeader, 0, 1, 0, 1) // a name that is where it is
	for what, data := range map[string][]byte{
		"no such name":              with(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNameError }),
		"the server failed":         with(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }),
		"a query":                   with(func(m *dnsmessage.Message) { m.Response = false }),
		"another kind of operation": with(func(m *dnsmessage.Message) { m.OpCode = 5 }),
		"another class":             with(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }),
		"an address of that class":  with(func(m *dnsmessage.Message) { m.Answers[0].Header.Class = dnsmessage.ClassCHAOS }),
		"no question":               with(func(m *dnsmessage.Message) { m.Questions = nil }),
		"no answers":                with(func(m *dnsmessage.Message) { m.Answers = nil }),
		"an address to go on with":  with(func(m *dnsmessage.Message) { m.Answers, m.Additionals = nil, m.Answers }),
		"a length that is wrong":    append(append([]byte(nil), good[:len(good)-6]...), 0, 5, 192, 0, 2, 80, 0),
		"a name that refers itself": loop,
		"nothing":                   nil,
		"zeros":                     make([]byte, 600),
		"a head":                    good[:dnsHeader],
		"half a question":           good[:dnsHeader+5],
		"text":                      []byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
	} {
		n := newNames()
		see(t, n, packet{at: start, marks: connected, data: data})
		if n.addresses.len() != 0 {
			t.Errorf("%s: an address was taken", what)
		}
		// And as a query, which must not be waited for.
		if what == "a query" {
			continue
		}
		see(t, n, packet{at: start, marks: query, data: data})
		if n.queries.len() != 0 {
			t.Errorf("%s: taken for a query", what)
		}
	}
}

// A record that is shorter than it says is a bug of the tool's.
func TestShortRecord(t *testing.T) {
	n := newNames()
	record := packet{at: start, marks: connected, data: make([]byte, 600)}.record()
	for _, size := range []int{0, 4, 55, 56, 655} {
		if err := n.packet(record[:size]); err == nil {
			t.Errorf("a record of %d bytes was taken", size)
		}
	}
}

// Of a message that is cut, what is there counts.
func TestCutMessage(t *testing.T) {
	whole := reply(t, 7, "a.example.", 60, "192.0.2.80", "192.0.2.81", "192.0.2.82")
	for size := range whole {
		n := newNames()
		see(t, n, packet{at: start, marks: connected | bpfDnsMarkDNS_CUT, data: whole[:size]})
		for i, addr := range []string{"192.0.2.80", "192.0.2.81", "192.0.2.82"} {
			missing := (2 - i) * (2 + 14) // the name is a reference
			if size >= len(whole)-missing {
				want(t, n, addr, start, "a.example", -1)
			}
		}
		wantNone(t, n, "192.0.2.82", start)
	}
}

// Labels may hold any byte; printing them is another's work.
func TestNamesOfAnyBytes(t *testing.T) {
	n := newNames()
	name := "\x1b[31m\xff\x00 .example."
	see(t, n, packet{at: start, marks: connected, data: reply(t, 7, name, 60, "192.0.2.80")})
	want(t, n, "192.0.2.80", start, "\x1b[31m\xff\x00 .example", -1)
	see(t, n, packet{at: start + 1, marks: connected, data: reply(t, 7, ".", 60, "192.0.2.80")})
	want(t, n, "192.0.2.80", start+1, ".", -1)
}

func TestBounds(t *testing.T) {
	n := newNames()
	for i := range maxAddresses + 3 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		name := fmt.Sprintf("h%d.example.", i)
		see(t, n,
			packet{at: start, marks: query, port: 1, data: ask(t, uint16(i), name, dnsmessage.TypeA)},
			packet{at: start, marks: connected, port: 2, data: reply(t, uint16(i), name, 60, addr.String())})
	}
	if n.addresses.len() != maxAddresses || n.queries.len() != maxQueries {
		t.Errorf("%d addresses and %d questions", n.addresses.len(), n.queries.len())
	}
	wantNone(t, n, "10.0.0.2", start)
	want(t, n, "10.0.0.3", start, "h3.example", -1)
	want(t, n, "10.0.16.2", start, "h4098.example", -1)
	see(t, n, packet{at: start + 1, marks: connected, port: 1, data: reply(t, 2, "h2.example.", 60, "192.0.2.2")})
	want(t, n, "192.0.2.2", start+1, "h2.example", -1)
	see(t, n, packet{at: start + 1, marks: connected, port: 1, data: reply(t, 3, "h3.example.", 60, "192.0.2.3")})
	want(t, n, "192.0.2.3", start+1, "h3.example", 1)
}

func framed(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
		b = append(b, m...)
	}
	return b
}

// cutUp makes segments of a stream, which end at these places.
func cutUp(stream []byte, seq uint32, ends ...int) []packet {
	var segments []packet
	begin := 0
	for _, end := range append(ends, len(stream)) {
		segments = append(segments, packet{at: start + uint64(end), marks: tcp, port: 4000, seq: seq + uint32(begin), data: stream[begin:end]})
		begin = end
	}
	return segments
}

func TestTCP(t *testing.T) {
	one := reply(t, 1, "one.example.", 60, "192.0.2.1")
	two := reply(t, 2, "two.example.", 60, "192.0.2.2")
	three := reply(t, 3, "three.example.", 60, "192.0.2.3")
	stream := framed(one, two, three)
	first, second2 := 2+len(one), 4+len(one)+len(two)
	every := func() (ends []int) {
		for i := 1; i < len(stream); i++ {
			ends = append(ends, i)
		}
		return ends
	}()
	for _, seq := range []uint32{0, 1, 1<<32 - 40, 1<<31 - 40} {
		syn := packet{at: start, marks: tcp | bpfDnsMarkDNS_SYN, port: 4000, seq: seq - 1}
		for _, test := range []struct {
			what string
			ends []int
			// change puts the segments into another order, repeats some or leaves some out.
			change func(s []packet) []packet
		}{
			{"in one segment", nil, nil},
			{"a segment each", []int{first, second2}, nil},
			{"lengths apart", []int{2, first, first + 2, second2, second2 + 2}, nil},
			{"half a length", []int{1, first + 1, second2 + 1}, nil},
			{"byte by byte", every, nil},
			{"in odd places", []int{5, first - 1, first + 20}, nil},
			{"the last first", []int{first, second2}, func(s []packet) []packet { return []packet{s[2], s[1], s[0]} }},
			{"some twice", []int{first, second2}, func(s []packet) []packet { return []packet{s[0], s[0], s[1], s[0], s[2], s[1]} }},
			{"a repeated one that is longer", []int{10, 20}, func(s []packet) []packet {
				again := s[0]
				again.data = stream[:15]
				return []packet{s[0], again, s[2], s[1]}
			}},
			{"early ones that overlap", []int{10, 20, 40}, func(s []packet) []packet {
				early := s[2]
				early.data = stream[20:45]
				return []packet{s[0], s[3], early, s[2], s[1]}
			}},
			{"with the SYN", []int{5}, func(s []packet) []packet {
				s[0].marks |= bpfDnsMarkDNS_SYN
				s[0].seq--
				return s
			}},
		} {
			n := newNames()
			segments := cutUp(stream, seq, test.ends...)
			if test.change != nil {
				segments = test.change(segments)
			}
			see(t, n, syn)
			see(t, n, segments...)
			for _, name := range []string{"one", "two", "three"} {
				addr := map[string]string{"one": "192.0.2.1", "two": "192.0.2.2", "three": "192.0.2.3"}[name]
				if got, _, ok := n.of(netip.MustParseAddr(addr), start+uint64(len(stream))); !ok || got != name+".example" {
					t.Errorf("%s, from %d on: %s is %q", test.what, seq, addr, got)
				}
			}
			if n.streams.bytes != 0 {
				t.Errorf("%s: %d bytes are kept", test.what, n.streams.bytes)
			}
		}
	}
}

func TestTCPLatency(t *testing.T) {
	n := newNames()
	q := framed(ask(t, 7, "www.example.com.", dnsmessage.TypeA))
	a := framed(reply(t, 7, "www.example.com.", 60, "192.0.2.80"))
	see(t, n,
		packet{at: start, marks: tcpQuery | bpfDnsMarkDNS_SYN, port: 4000, seq: 99},
		packet{at: start, marks: tcp | bpfDnsMarkDNS_SYN, port: 4000, seq: 199},
		packet{at: start + 10, marks: tcpQuery, port: 4000, seq: 100, data: q[:2]},
		packet{at: start + 20, marks: tcpQuery, port: 4000, seq: 102, data: q[2:]},
		packet{at: start + 500, marks: tcp, port: 4000, seq: 200, data: a[:30]},
		packet{at: start + 520, marks: tcp, port: 4000, seq: 230, data: a[30:]})
	want(t, n, "192.0.2.80", start+second, "www.example.com", 500)
}

// A stream that is out of step is found again at the next message.
func TestTCPResumes(t *testing.T) {
	one := framed(reply(t, 1, "one.example.", 60, "192.0.2.1"))
	two := framed(reply(t, 2, "two.example.", 60, "192.0.2.2"))
	long := make([]byte, maxHeldBytes-len(two)+1)
	for _, test := range []struct {
		what     string
		segments []packet
	}{
		{"no beginning", []packet{{seq: 5000, data: two}}},
		{"in the midst of a message", []packet{{seq: 5000, data: one[20:]}, {seq: 5000 + uint32(len(one)) - 20, data: two}}},
		{"rubbish", []packet{{seq: 5000, data: []byte("\x40\x00 and so on, and on")}, {seq: 5020, data: two}}},
		{"a length that can't be", []packet{{seq: 5000, data: []byte{0, 3, 1, 2, 3}}, {seq: 5005, data: two}}},
		{"a message that is cut", []packet{{seq: 5000, data: one[:30], marks: bpfDnsMarkDNS_CUT}, {seq: 5100, data: two}}},
		{"another connection", []packet{{seq: 5000, data: one[:30]}, {seq: 1 << 30, data: two}}},
		{"another connection with a beginning", []packet{{seq: 5000, data: one[:30]}, {seq: 5009, marks: bpfDnsMarkDNS_SYN}, {seq: 5010, data: two}}},
		{"a gap that is never filled", []packet{{seq: 5000, data: one[:30]}, {seq: 6000, data: long}, {seq: 80000, data: two}}},
	} {
		n := newNames()
		for i := range test.segments {
			test.segments[i].at, test.segments[i].port = start, 4000
			test.segments[i].marks |= tcp
		}
		see(t, n, test.segments...)
		t.Log(test.what)
		want(t, n, "192.0.2.2", start, "two.example", -1)
		if len(test.segments) > 1 {
			wantNone(t, n, "192.0.2.1", start)
		}
	}
}

func TestTCPBounds(t *testing.T) {
	n := newNames()
	// Messages of which nearly all is there, by ever other connections.
	m := make([]byte, 60000)
	copy(m, framed(make([]byte, dnsHeader)))
	binary.BigEndian.PutUint16(m, 65535)
	m[2+5] = 1 // a question
	for port := range uint16(maxStreams + 3) {
		see(t, n, packet{at: start, marks: tcp, port: port, seq: 1, data: m})
		if n.streams.bytes > maxStreamBytes || n.streams.open.len() > maxStreams {
			t.Fatalf("%d bytes, %d streams", n.streams.bytes, n.streams.open.len())
		}
	}
	if n.streams.bytes < maxStreamBytes/2 {
		t.Errorf("only %d bytes were kept: the test tests nothing", n.streams.bytes)
	}
	for port := range uint16(maxStreams + 3) {
		see(t, n, packet{at: start, marks: tcpQuery, port: port, seq: 1, data: []byte{1}})
	}
	if n.streams.open.len() != maxStreams {
		t.Errorf("%d streams", n.streams.open.len())
	}
	kept := 0
	for _, e := range n.streams.open.entries {
		kept += e.Value.(*entry[direction, *stream]).value.size()
	}
	if kept != n.streams.bytes {
		t.Errorf("%d bytes are counted, and %d are kept", n.streams.bytes, kept)
	}
	// Segments without end that come too early.
	see(t, n, packet{at: start, marks: tcp | bpfDnsMarkDNS_SYN, port: 9, seq: 0})
	for i := range uint32(1000) {
		see(t, n, packet{at: start, marks: tcp, port: 9, seq: 1000 + 2*i, data: []byte{1}})
		s, _ := n.streams.open.get(direction{netip.MustParseAddr("192.0.2.53").As16(), netip.MustParseAddr("192.0.2.1").As16(), 9})
		if s != nil && len(s.held) > maxHeldSegments {
			t.Fatalf("%d segments are held", len(s.held))
		}
	}
}

// Whatever comes, nothing is kept beyond the bounds, nothing is read that is not
// there, and a name has a question.
func FuzzNames(f *testing.F) {
	one := reply(f, 1, "one.example.", 60, "192.0.2.1", "192.0.2.2")
	f.Add(one, uint8(connected), uint8(0))
	f.Add(ask(f, 1, "one.example.", dnsmessage.TypeA), uint8(query), uint8(0))
	f.Add(framed(one, one), uint8(tcp), uint8(1))
	f.Add(framed(one, one), uint8(tcp|bpfDnsMarkDNS_SYN), uint8(7))
	f.Add(append(one[:dnsHeader:dnsHeader], 0xc0, dnsHeader, 0, 1, 0, 1), uint8(connected), uint8(0))
	f.Add([]byte{}, uint8(tcp|bpfDnsMarkDNS_CUT), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, marks, size uint8) {
		if len(data) > 4096 {
			return
		}
		n := newNames()
		step := int(size)
		if step == 0 {
			step = max(1, len(data))
		}
		for i := 0; i < len(data); i += step {
			see(t, n, packet{at: start, marks: bpfDnsMark(marks), port: 4000, seq: uint32(i), data: data[i:min(len(data), i+step)]})
		}
		kept := 0
		for _, e := range n.streams.open.entries {
			kept += e.Value.(*entry[direction, *stream]).value.size()
		}
		if kept != n.streams.bytes || kept > len(data) {
			t.Errorf("%d bytes are counted, and %d of %d are kept", n.streams.bytes, kept, len(data))
		}
		for addr, e := range n.addresses.entries {
			for _, a := range e.Value.(*entry[netip.Addr, []answer]).value {
				if len(a.name) == 0 || len(a.name) > 254 || a.until < a.since+uint64(shortestTTL) || a.at != start {
					t.Errorf("%s: %+v", addr, a)
				}
			}
		}
	})
}
