package sourcelines

import (
	"bytes"
	"encoding/binary"
)

// cursor reads little-endian data. Beyond the end it gives zeros and fails for good, so
// that one look at failed, after many reads, is enough.
type cursor struct {
	data   []byte
	off    int
	failed bool
}

func at(data []byte, off uint64) cursor {
	if off > uint64(len(data)) {
		return cursor{failed: true}
	}
	return cursor{data: data, off: int(off)}
}

// fail makes all reads to come give zeros.
func (c *cursor) fail() {
	c.data, c.off, c.failed = nil, 0, true
}

func (c *cursor) done() bool { return c.off >= len(c.data) }

func (c *cursor) skip(n uint64) {
	if n > uint64(len(c.data)-c.off) {
		c.fail()
		return
	}
	c.off += int(n)
}

func (c *cursor) bytes(n uint64) []byte {
	start := c.off
	c.skip(n)
	if c.failed {
		return nil
	}
	return c.data[start:c.off]
}

// number reads an unsigned number of 1, 2, 3, 4 or 8 bytes.
func (c *cursor) number(size int) uint64 {
	b := c.bytes(uint64(size))
	if b == nil {
		return 0
	}
	switch size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 3:
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	c.fail()
	return 0
}

func (c *cursor) byte() byte { return byte(c.number(1)) }

// uleb reads an unsigned LEB128 number; of one over 64 bits, the low 64.
func (c *cursor) uleb() (n uint64) {
	for shift := 0; ; shift += 7 {
		if c.off >= len(c.data) {
			c.fail()
			return 0
		}
		b := c.data[c.off]
		c.off++
		if shift < 64 {
			n |= uint64(b&0x7f) << shift
		}
		if b < 0x80 {
			return n
		}
	}
}

// sleb reads a signed LEB128 number.
func (c *cursor) sleb() (n int64) {
	for shift := 0; ; {
		if c.off >= len(c.data) {
			c.fail()
			return 0
		}
		b := c.data[c.off]
		c.off++
		if shift < 64 {
			n |= int64(b&0x7f) << shift
		}
		shift += 7
		if b < 0x80 {
			if b&0x40 != 0 && shift < 64 {
				n |= -1 << shift
			}
			return n
		}
	}
}

// cstring reads a string that ends with a zero byte, which is not part of the result.
func (c *cursor) cstring() []byte {
	n := bytes.IndexByte(c.data[c.off:], 0)
	if n < 0 {
		c.fail()
		return nil
	}
	s := c.data[c.off:][:n]
	c.off += n + 1
	return s
}

// length reads the length that a unit begins with, and tells the size of its offsets.
func (c *cursor) length() (length uint64, offsetSize int) {
	length = c.number(4)
	if length == 0xffffffff {
		return c.number(8), 8
	}
	if length >= 0xfffffff0 { // reserved
		c.fail()
	}
	return length, 4
}
