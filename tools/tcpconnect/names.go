package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/gobcc/gobcc/internal/common/events"
)

const (
	maxAddresses = 4096
	maxQueries   = 4096
	// An address may be looked up by several names at a time, of which each
	// connection is to get the one that was the newest when it began.
	maxNamesOfAddress = 4
	// The connection that a lookup is for comes right behind it, also if the
	// answer may not be kept (a TTL of 0).
	shortestTTL = 2 * time.Second
	// A question without an answer for so long is not what a later one repeats.
	longestWait = 30 * time.Second
	// The protocol's own limit on a TTL (RFC 2181): 68 years.
	longestTTL = 1<<31 - 1
)

// names knows by which name an address was looked up, from the DNS messages that
// dns.bpf.h sends. All its times are those of the records, in nanoseconds since
// boot. Names are given as they came, without the dot at the end: they may hold
// any byte.
type names struct {
	addresses *bounded[netip.Addr, []answer]
	queries   *bounded[question, uint64] // when it was asked first
	streams   *streams
}

// answer is a name that an address was given for.
type answer struct {
	name    string
	since   uint64        // when it was known first
	at      uint64        // when it was answered last
	until   uint64        // as long as it may be kept
	latency time.Duration // of the last answer; -1 if its question was not seen
}

// question is what a query and its answer have in common. Neither address is a
// part of it, since address translation may change both on the way (of Docker's
// own resolver, for one), and since a query may be repeated to another server.
type question struct {
	port uint16 // of the socket that asks
	id   uint16
	kind dnsmessage.Type
	name string // in lower case
}

func newNames() *names {
	return &names{
		addresses: newBounded[netip.Addr, []answer](maxAddresses),
		queries:   newBounded[question, uint64](maxQueries),
		streams:   newStreams(),
	}
}

// packet takes a record of kind KIND_DNS. What is wrong with the message in it is
// no error: anybody can send one.
func (n *names) packet(record []byte) error {
	var p bpfDnsPacket
	data, err := events.Decode(&p, record)
	if err != nil {
		return err
	}
	if int(p.Len) > len(data) {
		return fmt.Errorf("a DNS record of %d bytes says that %d follow", len(data), p.Len)
	}
	data = data[:p.Len]
	if p.has(bpfDnsMarkDNS_TCP) {
		n.streams.segment(&p, data, func(message []byte) bool { return n.message(&p, message) })
		return nil
	}
	n.message(&p, data)
	return nil
}

func (p *bpfDnsPacket) has(m bpfDnsMark) bool { return p.Marks&uint8(m) != 0 }

// trusted reports whether a message can only come from the server that the socket
// belongs to. To any other socket whoever likes can send from port 53.
func (p *bpfDnsPacket) trusted() bool {
	return p.has(bpfDnsMarkDNS_CONNECTED) || netip.AddrFrom16(p.Saddr).Unmap().IsLoopback()
}

// message takes one message, or as much of it as there is. It returns whether it
// is one that may be seen in its direction.
func (n *names) message(p *bpfDnsPacket, message []byte) bool {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	isQuery := p.has(bpfDnsMarkDNS_QUERY)
	if err != nil || header.Response == isQuery || header.OpCode != 0 {
		return false
	}
	asked, err := parser.Question()
	if err != nil || asked.Class != dnsmessage.ClassINET || parser.SkipAllQuestions() != nil {
		return false
	}
	q := question{p.Port, header.ID, asked.Type, lower(asked.Name.String())}
	if isQuery {
		// Of one that is repeated, the first is what its program waits for.
		since, ok := n.queries.get(q)
		if !ok || since+uint64(longestWait) < p.TimeNs {
			n.queries.put(q, p.TimeNs)
		}
		return true
	}
	since, known := n.queries.get(q)
	if !known && !p.trusted() {
		return true
	}
	n.queries.remove(q)
	latency := time.Duration(-1)
	if known && since <= p.TimeNs {
		latency = time.Duration(p.TimeNs - since)
	}
	if header.RCode != dnsmessage.RCodeSuccess {
		return true
	}
	addrs, ttl := addresses(&parser)
	a := answer{
		name: displayed(asked.Name.String()), since: p.TimeNs, at: p.TimeNs, until: p.TimeNs + uint64(ttl), latency: latency,
	}
	for _, addr := range addrs {
		n.learn(addr, a)
	}
	return true
}

// addresses takes the addresses out of an answer, as far as it can be read, and
// tells how long all of it may be kept. An alias on the way to them (CNAME) needs
// no look of its own.
func addresses(parser *dnsmessage.Parser) (addrs []netip.Addr, ttl time.Duration) {
	ttl = longestTTL * time.Second
	for {
		h, err := parser.AnswerHeader()
		if err != nil {
			break
		}
		if seconds := h.TTL; seconds <= longestTTL { // more stands for none
			ttl = min(ttl, time.Duration(seconds)*time.Second)
		} else {
			ttl = 0
		}
		switch {
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeA && h.Length == 4:
			r, readErr := parser.AResource()
			if err = readErr; err == nil {
				addrs = append(addrs, netip.AddrFrom4(r.A))
			}
		case h.Class == dnsmessage.ClassINET && h.Type == dnsmessage.TypeAAAA && h.Length == 16:
			r, readErr := parser.AAAAResource()
			if err = readErr; err == nil {
				addrs = append(addrs, netip.AddrFrom16(r.AAAA).Unmap())
			}
		default:
			err = parser.SkipAnswer()
		}
		if err != nil {
			break
		}
	}
	return addrs, max(ttl, shortestTTL)
}

// learn adds an answer to those of an address, newest first.
func (n *names) learn(addr netip.Addr, a answer) {
	known, _ := n.addresses.get(addr)
	all := append(make([]answer, 0, len(known)+1), a)
	for _, old := range known {
		switch {
		case old.name != a.name:
			all = append(all, old)
		case old.until >= a.since: // the name went on being known
			all[0].since = min(a.since, old.since)
			all[0].until = max(a.until, old.until)
		}
	}
	n.addresses.put(addr, all[:min(len(all), maxNamesOfAddress)])
}

// of gives the name that addr was looked up by last before the time bootNS, if
// that answer could still be used then. It may hold any byte. latency is from the
// query to its answer, or -1 if that is not known.
func (n *names) of(addr netip.Addr, bootNS uint64) (name string, latency time.Duration, ok bool) {
	known, _ := n.addresses.get(addr.Unmap())
	for _, a := range known {
		if a.at <= bootNS && bootNS <= a.until {
			return a.name, a.latency, true
		}
	}
	// A name that was answered again meanwhile was known already.
	for _, a := range known {
		if a.since <= bootNS && bootNS <= a.until {
			return a.name, -1, true
		}
	}
	return "", -1, false
}

// displayed is a name as users write it.
func displayed(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// lower changes ASCII letters only, as DNS does. Resolvers mix the case of a query
// to make its answer harder to forge.
func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// lostNames says how many DNS messages did not reach the tool, by the map
// dns_lost.
func lostNames(m *ebpf.Map) (uint64, error) {
	var perCPU []uint64
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read how many DNS messages were lost: %w", err)
	}
	var n uint64
	for _, v := range perCPU {
		n += v
	}
	return n, nil
}
