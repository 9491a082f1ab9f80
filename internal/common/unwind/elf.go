package unwind

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// Why there is no table of a file.
var (
	ErrMachine   = errors.New("its code is neither for amd64 nor for arm64")
	ErrNoFrames  = errors.New("it tells nothing of its frames: it has no .eh_frame that is of use")
	ErrMalformed = errors.New("what it tells of its frames is malformed")
	ErrTooLarge  = errors.New("it tells too much of its frames")
)

// maxSection is how many bytes of a section are read. That of a browser has 30 MiB.
const maxSection = 128 << 20

// maxSegments is how many segments of a file may be executable. Most have one.
const maxSegments = 64

// maxPadding is how many bytes there may be between two functions that are taken for what
// the first of them was padded with.
const maxPadding = 15

// A file is an ELF file of which a table is made.
type file struct {
	*elf.File
	machine *machine
	r       io.ReaderAt
	code    []*elf.Prog // executable segments, in the order of their addresses
	cies    []*cie
	rules   []Rule // of spans that have no program
	rows    []goRow
	looks   int // at single instructions
}

// Open makes the table of an ELF file: of its .eh_frame, its .debug_frame where that has
// more, and of Go's own tables. It is made at once, and r not used afterwards. A file that
// there is none of gives symbols.ErrNoELF, ErrMachine, ErrNoFrames, ErrMalformed or ErrTooLarge; else
// the error is one of reading.
func Open(r io.ReaderAt) (*Table, error) {
	e, err := symbols.OpenELF(r)
	if err != nil {
		return nil, err
	}
	f := &file{File: e, machine: machines[e.Machine], r: r}
	if f.machine == nil || e.Class != elf.ELFCLASS64 || e.Data != elf.ELFDATA2LSB {
		return nil, ErrMachine
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Vaddr+p.Filesz >= p.Vaddr {
			f.code = append(f.code, p)
		}
	}
	if len(f.code) > maxSegments {
		return nil, fmt.Errorf("%w: it has code in %d segments", ErrTooLarge, len(f.code))
	}
	slices.SortFunc(f.code, func(a, b *elf.Prog) int { return cmp.Compare(a.Vaddr, b.Vaddr) })
	spans, err := f.spans()
	if err != nil {
		return nil, err
	}
	t, err := f.table(spans)
	if err != nil {
		return nil, err
	}
	t.Layout = Layout{Segments: symbols.SegmentsOf(e), signals: t.signals()}
	return t, nil
}

// spans gives all that is known of, in the order of addresses.
func (f *file) spans() ([]span, error) {
	// What one of them tells is right, whatever is wrong with another.
	var errs []error
	spans, err := f.goSpans()
	if err != nil {
		errs = append(errs, err)
	}
	sections := []func() (*section, error){f.ehFrame}
	if len(spans) == 0 { // Go's linker tells debuggers less.
		sections = append(sections, f.debugFrame)
	}
	for _, read := range sections {
		s, err := read()
		if err == nil {
			spans, err = f.add(spans, s)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(spans) == 0 && len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, more := range []func([]span) []span{f.leaves, f.stubs, f.startFiles} {
		spans = merge(spans, more(spans))
	}
	return f.special(spans), nil
}

// add adds what a section tells of that is not yet known.
func (f *file) add(spans []span, s *section) ([]span, error) {
	if s == nil {
		return spans, nil
	}
	more, err := s.functions(f)
	if err != nil {
		return spans, err
	}
	return merge(spans, f.order(more)), nil
}

// order sorts spans, and leaves out what isn't code. Where some overlap, the one that
// begins last is right, as for the runtimes that throw exceptions.
func (f *file) order(spans []span) []span {
	byStart := func(a, b span) int { return cmp.Compare(a.start, b.start) }
	if !slices.IsSortedFunc(spans, byStart) {
		slices.SortStableFunc(spans, byStart)
	}
	out := spans[:0]
	code := f.code
	for _, s := range spans {
		for len(code) > 0 && s.start >= code[0].Vaddr+code[0].Filesz {
			code = code[1:]
		}
		if len(code) == 0 || s.start < code[0].Vaddr {
			continue
		}
		s.end = min(s.end, code[0].Vaddr+code[0].Filesz)
		if s.start >= s.end {
			continue
		}
		if n := len(out); n > 0 {
			if out[n-1].start == s.start {
				continue
			}
			out[n-1].end = min(out[n-1].end, s.start)
		}
		out = append(out, s)
	}
	return out
}

// merge gives all of some spans, and of others those that overlap none of these. Both are
// in order.
func merge(spans, others []span) []span {
	switch {
	case len(spans) == 0:
		return others
	case len(others) == 0:
		return spans
	}
	out := make([]span, 0, len(spans)+len(others))
	for _, s := range spans {
		for len(others) > 0 && others[0].start < s.end {
			if others[0].end <= s.start {
				out = append(out, others[0])
			}
			others = others[1:]
		}
		out = append(out, s)
	}
	return append(out, others...)
}

// over gives all of some spans but what overlaps another one, and that one.
func over(spans []span, s span) []span {
	out := make([]span, 0, len(spans)+2)
	placed := false
	for _, o := range spans {
		if o.start < s.start {
			left := o
			left.end = min(o.end, s.start)
			out = append(out, left)
		}
		if !placed && o.end > s.start {
			out = append(out, s)
			placed = true
		}
		// Others can be told from their beginning only.
		if right := o; o.end > s.end && (o.cie == fixed || o.start >= s.end) {
			right.start = max(o.start, s.end)
			out = append(out, right)
		}
	}
	if !placed {
		out = append(out, s)
	}
	return out
}

// rule gives a number to the rule of a span.
func (f *file) rule(r Rule) uint32 {
	f.rules = append(f.rules, r)
	return uint32(len(f.rules) - 1)
}

// table makes the table of spans.
func (f *file) table(spans []span) (*Table, error) {
	if len(spans) == 0 {
		return nil, ErrNoFrames
	}
	b := newBuilder(spans[0].start)
	end := spans[0].start
	run, row := interpreter{}, b.row
	for _, s := range spans {
		if s.start-end > maxPadding {
			b.row(end, Rule{})
		}
		end = s.end
		switch s.cie {
		case fixed:
			b.row(s.start, f.rules[s.from])
			continue
		case golang:
			for _, r := range f.rows[s.from:s.to] {
				if addr := s.start + uint64(r.offset); addr < s.end {
					b.row(addr, f.rules[r.rule])
				}
			}
			continue
		}
		c := f.cies[s.cie]
		run = interpreter{
			cursor: cursor{data: c.section.data[s.from:s.to]}, here: c.section.addr + uint64(s.from),
			state: c.initial, cie: c, pc: s.start, end: s.end, remembered: run.remembered[:0], row: row,
		}
		run.run()
		if b.err != nil {
			break
		}
	}
	return b.finish(end)
}

// ehFrame finds the file's .eh_frame: by its name, or else as the C++ runtime does, which
// works in files that have lost their section headers.
func (f *file) ehFrame() (*section, error) {
	if s := f.Section(".eh_frame"); s != nil {
		if s.Type == elf.SHT_NOBITS {
			return nil, nil // It is in the file that this one is the debugging information of.
		}
		data, err := f.read(s.Name, s.Offset, s.FileSize)
		return &section{name: s.Name, data: data, addr: s.Addr}, err
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_GNU_EH_FRAME {
			continue
		}
		header := make([]byte, min(p.Filesz, 16))
		if _, err := f.r.ReadAt(header, int64(p.Off)); err != nil {
			return nil, err
		}
		c := cursor{data: header}
		version, encoding := c.uint8(), c.uint8()
		c.take(2)
		addr := c.address(encoding, p.Vaddr)
		if c.bad || version != 1 {
			return nil, fmt.Errorf("%w: the header that should tell where .eh_frame is makes no sense", ErrMalformed)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
				offset := addr - p.Vaddr
				data, err := f.read(".eh_frame", p.Off+offset, min(p.Filesz-offset, maxSection))
				return &section{name: ".eh_frame", data: untilEnd(data), addr: addr}, err
			}
		}
	}
	return nil, nil
}

// untilEnd gives what of a segment is .eh_frame: up to an entry without a length.
func untilEnd(data []byte) []byte {
	c := cursor{data: data}
	for {
		at := c.at
		size := uint64(c.uint32())
		if size == math.MaxUint32 {
			size = c.uint64()
		}
		if size == 0 || c.take(size) == nil {
			return data[:at]
		}
	}
}

// debugFrame reads the file's .debug_frame, if it has one.
func (f *file) debugFrame() (*section, error) {
	s := f.Section(".debug_frame")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	if s.Flags&elf.SHF_COMPRESSED == 0 {
		data, err := f.read(s.Name, s.Offset, s.FileSize)
		return &section{name: s.Name, data: data, debug: true}, err
	}
	if s.Size > maxSection {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, s.Name, s.Size)
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrMalformed, s.Name, err)
	}
	return &section{name: s.Name, data: data, debug: true}, nil
}

// read reads a section.
func (f *file) read(name string, offset, size uint64) ([]byte, error) {
	if size > maxSection {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, name, size)
	}
	data := make([]byte, size)
	n, err := f.r.ReadAt(data, int64(offset))
	if n == len(data) {
		return data, nil
	}
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: the file ends before %s does", ErrMalformed, name)
	}
	return nil, fmt.Errorf("read %s: %w", name, err)
}

// bytes reads the code at an address, up to so many bytes.
func (f *file) bytes(addr uint64, n uint64) ([]byte, error) {
	for _, p := range f.code {
		if addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			code := make([]byte, min(n, p.Filesz-(addr-p.Vaddr)))
			return code, f.readCode(code, addr)
		}
	}
	return nil, io.ErrUnexpectedEOF
}

// readCode reads all of the code at an address that there is room for.
func (f *file) readCode(code []byte, addr uint64) error {
	for _, p := range f.code {
		if addr >= p.Vaddr && addr-p.Vaddr <= p.Filesz && p.Filesz-(addr-p.Vaddr) >= uint64(len(code)) {
			_, err := f.r.ReadAt(code, int64(p.Off+addr-p.Vaddr))
			return err
		}
	}
	return io.ErrUnexpectedEOF
}
