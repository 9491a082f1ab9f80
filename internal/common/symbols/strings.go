package symbols

import (
	"bytes"
	"errors"
	"io"
)

// maxName is the greatest length of a name in bytes.
const maxName = 64 << 10

// block is the size in bytes in which tables are read.
const block = 32 << 10

// A stringTable is read as needed: those of large programs have hundreds of megabytes.
type stringTable struct {
	r      io.ReaderAt
	size   uint64
	buf    []byte // the last that was read
	offset uint64 // of buf
}

// newStringTable reads the strings that are in size bytes of r from offset.
func newStringTable(r io.ReaderAt, offset, size uint64) *stringTable {
	return &stringTable{r: io.NewSectionReader(r, int64(offset), int64(size)), size: size}
}

// another gives the same table to read elsewhere in it.
func (t *stringTable) another() *stringTable { return &stringTable{r: t.r, size: t.size} }

// bytes gives n bytes at an offset, good until the next call.
func (t *stringTable) bytes(offset uint64, n int) ([]byte, error) {
	if offset > t.size || uint64(n) > t.size-offset {
		return nil, io.ErrUnexpectedEOF
	}
	if offset < t.offset || offset+uint64(n) > t.offset+uint64(len(t.buf)) {
		if err := t.fill(offset, max(n, 256)); err != nil {
			return nil, err
		}
		if n > len(t.buf) {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return t.buf[offset-t.offset:][:n], nil
}

// string gives the string at an offset, without the zero that ends it, good until the
// next call. Where it has to read, it reads so many bytes at first.
func (t *stringTable) string(off uint64, ahead int) ([]byte, error) {
	if off >= t.size {
		return nil, io.ErrUnexpectedEOF
	}
	if off >= t.offset && off < t.offset+uint64(len(t.buf)) {
		if b, _, ok := bytes.Cut(t.buf[off-t.offset:], []byte{0}); ok {
			return b, nil
		}
	}
	for n := ahead; n <= maxName; n *= 2 {
		if err := t.fill(off, n); err != nil {
			return nil, err
		}
		if b, _, ok := bytes.Cut(t.buf, []byte{0}); ok {
			return b, nil
		}
		if len(t.buf) < n {
			break
		}
	}
	return nil, errors.New("a name is too long")
}

// fill reads n bytes, or fewer at the end of the table, from an offset.
func (t *stringTable) fill(offset uint64, n int) error {
	if cap(t.buf) < n {
		t.buf = make([]byte, n)
	}
	got, err := t.r.ReadAt(t.buf[:n], int64(offset))
	if got == 0 && err != nil {
		t.buf = t.buf[:0]
		return err
	}
	t.buf, t.offset = t.buf[:got], offset
	return nil
}
