package unwind

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"unsafe"
)

// Bounds for files that are made to hurt. The largest that were met with are a Go program of
// 6 million rows, and C++ libraries with 880 different rules.
const (
	maxRows  = 8 << 20
	maxPages = 2 << 30 / PageSize
	maxRules = 4096
)

// Find gives the rule for the instruction at an address. It is the zero Rule where nothing
// is known.
func (t *Table) Find(addr uint64) Rule {
	n := (addr - t.Start) / PageSize
	if addr < t.Start || n >= uint64(len(t.Pages)) {
		return Rule{}
	}
	page := t.Pages[n]
	rows := t.Rows[page.First:][:page.Count]
	i, found := slices.BinarySearchFunc(rows, uint16(addr%PageSize), func(r Row, low uint16) int { return cmp.Compare(r.Low, low) })
	if !found {
		i--
	}
	if i < 0 {
		return Rule{}
	}
	return t.Rules[rows[i].Rule]
}

// Bytes is how much memory the table takes.
func (t *Table) Bytes() int {
	return int(unsafe.Sizeof(*t)) + len(t.Pages)*int(unsafe.Sizeof(Page{})) +
		len(t.Rows)*int(unsafe.Sizeof(Row{})) + len(t.Rules)*int(unsafe.Sizeof(Rule{}))
}

// A builder makes a table of rows that come in the order of their addresses.
type builder struct {
	table   Table
	buffers *buffers
	numbers map[Rule]uint16 // of rules
	last    Rule            // that holds at the end of what there is
	number  uint16          // its
	err     error           // what there was too much of
}

// buffers are what pages and rows are first put into. They serve one table after another, as
// what a list leaves behind while it grows is four times what is in it.
type buffers struct {
	pages []Page
	rows  []Row
}

var spareBuffers = sync.Pool{New: func() any { return new(buffers) }}

func newBuilder(start uint64) *builder {
	room := spareBuffers.Get().(*buffers)
	return &builder{
		table:   Table{Start: start &^ (PageSize - 1), Pages: room.pages[:0], Rows: room.rows[:0], Rules: []Rule{{}}},
		buffers: room,
		numbers: map[Rule]uint16{{}: 0},
	}
}

// row says which rule holds from an address on.
func (b *builder) row(addr uint64, r Rule) {
	if r == b.last || b.err != nil {
		return
	}
	t := &b.table
	page := (addr - t.Start) / PageSize
	if page >= maxPages {
		b.err = fmt.Errorf("%w: its code is spread over more than %d MiB", ErrTooLarge, maxPages*PageSize>>20)
		return
	}
	for uint64(len(t.Pages)) < page {
		b.page()
	}
	low := uint16(addr % PageSize)
	if uint64(len(t.Pages)) == page {
		if low == 0 && r == (Rule{}) {
			b.last, b.number = r, 0
			return // There may be no more of this page.
		}
		t.Pages = append(t.Pages, Page{First: uint32(len(t.Rows))})
		if low > 0 {
			t.Rows = append(t.Rows, Row{0, b.number})
			t.Pages[page].Count++
		}
	}
	number, ok := b.numbers[r]
	if !ok {
		if len(t.Rules) >= maxRules {
			b.err = fmt.Errorf("%w: more than %d different rules", ErrTooLarge, maxRules)
			return
		}
		number = uint16(len(t.Rules))
		t.Rules = append(t.Rules, r)
		b.numbers[r] = number
	}
	if len(t.Rows) >= maxRows {
		b.err = fmt.Errorf("%w: more than %d rows", ErrTooLarge, maxRows)
		return
	}
	t.Rows = append(t.Rows, Row{low, number})
	t.Pages[page].Count++
	b.last, b.number = r, number
}

// page adds a page in which nothing changes.
func (b *builder) page() {
	t := &b.table
	p := Page{First: uint32(len(t.Rows))}
	if b.number != 0 {
		p.Count = 1
		t.Rows = append(t.Rows, Row{0, b.number})
	}
	t.Pages = append(t.Pages, p)
}

// finish gives the table: end is where all that is known ends. The builder is of no use
// afterwards.
func (b *builder) finish(end uint64) (*Table, error) {
	b.row(end, Rule{})
	t := b.table
	defer func() {
		*b.buffers = buffers{t.Pages, t.Rows}
		spareBuffers.Put(b.buffers)
	}()
	if b.err != nil {
		return nil, b.err
	}
	if len(t.Pages) == 0 {
		return nil, ErrNoFrames
	}
	return &Table{Start: t.Start, Pages: exactly(t.Pages), Rows: exactly(t.Rows), Rules: exactly(t.Rules)}, nil
}

func exactly[T any](s []T) []T { return append(make([]T, 0, len(s)), s...) }
