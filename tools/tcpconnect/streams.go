package main

import "encoding/binary"

const (
	maxStreams = 1024
	// What all streams may keep: messages of which a part is missing yet.
	maxStreamBytes = 4 << 20
	// What one may keep beside the message it is at: it is 64 KiB at most.
	maxHeldBytes    = 64 << 10
	maxHeldSegments = 64
	// A segment this far from where its stream is belongs to another connection,
	// which has the same ports by chance.
	maxDistance = 1 << 20

	dnsHeader = 12
)

// streams puts the messages of DNS over TCP together, each of which has its length
// in two bytes before it.
type streams struct {
	open  *bounded[direction, *stream]
	bytes int // kept by all of them
}

// direction is one of the two streams of a connection.
type direction struct {
	from, to [16]byte
	port     uint16 // of the client, whose address is either of them
}

type stream struct {
	next uint32 // the sequence number that data continues with
	data []byte // that no message was taken from yet
	held []segment
}

// segment is a piece of a stream that came too early.
type segment struct {
	seq  uint32
	data []byte
}

func newStreams() *streams {
	return &streams{open: newBounded[direction, *stream](maxStreams)}
}

// segment takes a segment, and hands the messages that are complete with it to
// take. That returns false for what is no message: the stream is then forgotten,
// and begins anew with the next segment. A stream whose beginning was not seen is
// taken to begin a message with a segment, as nearly all do.
func (all *streams) segment(p *bpfDnsPacket, data []byte, take func(message []byte) bool) {
	key := direction{p.Saddr, p.Daddr, p.Port}
	seq := p.Seq
	s, known := all.open.get(key)
	if p.has(bpfDnsMarkDNS_SYN) {
		seq++ // the SYN has a number itself
		all.forget(key)
		known = false
	}
	if known && distant(seq, s.next) {
		all.forget(key)
		known = false
	}
	if !known {
		if all.open.len() == maxStreams {
			all.forget(all.open.oldest())
		}
		s = &stream{next: seq}
	}
	all.open.put(key, s)
	before := s.size()
	s.add(seq, data)
	ok := s.take(take) && !p.has(bpfDnsMarkDNS_CUT)
	all.bytes += s.size() - before
	if !ok {
		all.forget(key)
	}
	for all.bytes > maxStreamBytes {
		all.forget(all.open.oldest())
	}
}

func (all *streams) forget(key direction) {
	if s, ok := all.open.get(key); ok {
		all.bytes -= s.size()
		all.open.remove(key)
	}
}

func distant(a, b uint32) bool {
	d := int32(a - b)
	return d > maxDistance || d < -maxDistance
}

// size is how many bytes it keeps.
func (s *stream) size() int { return len(s.data) + s.heldBytes() }

func (s *stream) heldBytes() int {
	n := 0
	for _, h := range s.held {
		n += len(h.data)
	}
	return n
}

// add puts a segment where it belongs. What was there before is left out, and what
// comes too early is kept for later.
func (s *stream) add(seq uint32, data []byte) {
	if len(data) == 0 {
		return
	}
	if int32(seq-s.next) > 0 {
		if len(s.held) < maxHeldSegments && s.heldBytes()+len(data) <= maxHeldBytes {
			s.held = append(s.held, segment{seq, append([]byte(nil), data...)})
			return
		}
		// What is missing will not come any more: some segments got lost on their
		// way to the tool. This one begins the stream anew.
		s.next, s.data, s.held = seq, nil, nil
	}
	s.join(seq, data)
	for i := 0; i < len(s.held); {
		h := s.held[i]
		if int32(h.seq-s.next) > 0 {
			i++
			continue
		}
		s.join(h.seq, h.data)
		s.held = append(s.held[:i], s.held[i+1:]...)
		i = 0
	}
}

// join appends what is new in a segment that does not begin behind the data.
func (s *stream) join(seq uint32, data []byte) {
	if old := s.next - seq; old < uint32(len(data)) {
		s.data = append(s.data, data[old:]...)
		s.next += uint32(len(data)) - old
	}
}

// take hands over all messages that are complete. It returns false if the stream
// is out of step.
func (s *stream) take(take func(message []byte) bool) bool {
	for len(s.data) >= 2 {
		n := int(binary.BigEndian.Uint16(s.data))
		if n < dnsHeader {
			return false
		}
		// One that is not what it should be is found out by its beginning, since
		// its length is then wrong as well.
		if len(s.data) >= 2+dnsHeader && !plausible(s.data[2:2+dnsHeader]) {
			return false
		}
		if len(s.data) < 2+n {
			break
		}
		if !take(s.data[2 : 2+n]) {
			return false
		}
		s.data = s.data[2+n:]
	}
	if len(s.data) == 0 {
		s.data = nil
	}
	return true
}

// plausible looks whether this is the head of a query or its answer: of the kind
// of all lookups, and with one question.
func plausible(header []byte) bool {
	const opCode = 0x78
	return header[2]&opCode == 0 && binary.BigEndian.Uint16(header[4:]) == 1
}
