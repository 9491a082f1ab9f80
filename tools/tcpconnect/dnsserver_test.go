package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// A dnsServer answers each name of the form A.B.C.D.zone. with the address A.B.C.D,
// behind an alias. It is made where its sockets are to be, and answers until the end
// of the test.
type dnsServer struct {
	suffix  string // of the names that it is asked for
	padding int    // bytes in an answer beside what belongs there
	pieces  bool   // a TCP answer is written byte by byte at first
	gather  int    // as many TCP answers are written at once

	mu      sync.Mutex
	answers map[string]span
}

// span is a time that something took, since boot, in nanoseconds.
type span struct{ from, to uint64 }

func bootNS() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // can't fail
	return uint64(now.Nano())
}

// serveUDP serves a socket that is bound already.
func (s *dnsServer) serveUDP(t testing.TB, conn *net.UDPConn) {
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return // it is closed
			}
			_, _ = conn.WriteToUDPAddrPort(s.answer(buf[:n]), from)
		}
	}()
}

func (s *dnsServer) serveTCP(t testing.TB, l *net.TCPListener) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go s.serveConn(conn)
		}
	}()
}

func (s *dnsServer) serveConn(conn *net.TCPConn) {
	defer conn.Close()
	var ready []byte
	for n := 1; ; n++ {
		q, err := readFramed(conn)
		if err != nil {
			return
		}
		ready = append(ready, framed(s.answer(q))...)
		if s.gather > 0 && n%s.gather != 0 {
			continue
		}
		if s.pieces {
			for range 5 {
				_, _ = conn.Write(ready[:1])
				ready = ready[1:]
			}
		}
		if _, err := conn.Write(ready); err != nil {
			return
		}
		ready = nil
	}
}

func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	m := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, m)
	return m, err
}

// answer answers a query of this file's own clients.
func (s *dnsServer) answer(q []byte) []byte {
	from := bootNS()
	var m dnsmessage.Message
	if err := m.Unpack(q); err != nil {
		return nil
	}
	name := m.Questions[0].Name
	addr := addressIn(name.String())
	alias := dnsmessage.MustNewName("alias.test.")
	m.Response = true
	m.Answers = []dnsmessage.Resource{
		{
			Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: 600},
			Body:   &dnsmessage.CNAMEResource{CNAME: alias},
		},
		{
			Header: dnsmessage.ResourceHeader{Name: alias, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 600},
			Body:   &dnsmessage.AResource{A: addr.As4()},
		},
	}
	for left := s.padding; left > 0; left -= 255 {
		m.Additionals = append(m.Additionals, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: alias, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET, TTL: 600},
			Body:   &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", min(left, 255))}},
		})
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers = map[string]span{}
	}
	s.answers[strings.TrimSuffix(name.String(), ".")] = span{from, bootNS()}
	return b
}

func addressIn(name string) netip.Addr {
	return netip.MustParseAddr(strings.Join(strings.SplitN(name, ".", 5)[:4], "."))
}

// A lookup is what a test did to know the name of an address.
type lookup struct {
	addr netip.Addr
	name string
	asks span // the client's time
	work span // the server's, which lies within it
}

// lookups asks for the address of times names, 127.77.zone.1 and so on. exchange sends
// these messages, and returns when their answers are there.
func (s *dnsServer) lookups(t testing.TB, zone byte, exchange func(queries [][]byte) error) []lookup {
	t.Helper()
	var list []lookup
	var queries [][]byte
	for i := range times {
		addr := netip.AddrFrom4([4]byte{127, 77, zone, byte(i + 1)})
		name := fmt.Sprintf("%s.zone%d%s.test", addr, zone, s.suffix)
		list = append(list, lookup{addr: addr, name: name})
		queries = append(queries, ask(t, uint16(i), name+".", dnsmessage.TypeA))
	}
	from := bootNS()
	if err := exchange(queries); err != nil {
		t.Fatalf("look up: %v", err)
	}
	to := bootNS()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		work, ok := s.answers[list[i].name]
		if !ok {
			t.Fatalf("%s was not answered", list[i].name)
		}
		list[i].asks, list[i].work = span{from, to}, work
	}
	return list
}

// overUDP gives an exchange of datagrams by way of this socket, to that address or, if
// it is nil, to the one that it is connected to.
func overUDP(fd int, to unix.Sockaddr) func(queries [][]byte) error {
	return func(queries [][]byte) error {
		buf := make([]byte, 4096)
		for i, q := range queries {
			if to == nil {
				if _, err := unix.Write(fd, q); err != nil {
					return err
				}
			} else if err := unix.Sendto(fd, q, 0, to); err != nil {
				return err
			}
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return err
			}
			if n < dnsHeader || int(binary.BigEndian.Uint16(buf)) != i {
				return errors.New("an answer to another query")
			}
		}
		return nil
	}
}

// overTCP gives an exchange by one connection: one by one, or all queries before the
// first answer.
func overTCP(conn net.Conn, oneByOne bool) func(queries [][]byte) error {
	return func(queries [][]byte) error {
		if !oneByOne {
			if _, err := conn.Write(framed(queries...)); err != nil {
				return err
			}
		}
		for _, q := range queries {
			if oneByOne {
				if _, err := conn.Write(framed(q)); err != nil {
					return err
				}
			}
			if _, err := readFramed(conn); err != nil {
				return err
			}
		}
		return nil
	}
}
