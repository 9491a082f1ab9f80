package symbols

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A pclntab is the table that Go's own runtime names functions with: it stays when a
// program is stripped, and knows lines and inlined calls. It is read as needed, because
// package gosym, which takes all of it into memory, doesn't know of inlined calls.
type pclntab struct {
	table *stringTable
	order binary.ByteOrder
	text  uint64 // the address that functions' offsets are from

	functions                             int
	names, units, files, counters, places uint64 // offsets of the parts
	startLines                            bool   // Go 1.20 and later
	quantum                               uint64 // the least size of an instruction

	funcdata *stringTable // go:func.*; nil if not found
	entries  []goEntry    // read by the first search
}

type goEntry struct{ start, offset uint32 }

// Go's magic numbers for its versions of the table. Older ones have had no support for
// years.
const (
	go118 = 0xfffffff0
	go120 = 0xfffffff1
)

// Offsets of moduledata, which has not changed in what comes before these since Go 1.18
// (gofunc: since 1.20).
const (
	moduleFunctions = 136 // length of ftab
	moduleText      = 176
	moduleGofunc    = 320
	moduleSize      = 328
)

// openPclntab finds the table in a file. It is nil without an error if that isn't a Go
// program's.
func openPclntab(e *elf.File, r io.ReaderAt) (*pclntab, error) {
	s := e.Section(".gopclntab")
	if s == nil {
		s = e.Section(".data.rel.ro.gopclntab") // position-independent ones, linked by others
	}
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	if e.Class != elf.ELFCLASS64 {
		return nil, errors.New("it is a 32-bit program's")
	}
	p := &pclntab{table: newStringTable(r, s.Offset, s.FileSize), order: e.ByteOrder}
	header, err := p.table.bytes(0, 72)
	if err != nil {
		return nil, err
	}
	switch magic := p.order.Uint32(header); magic {
	case go120:
		p.startLines = true
	case go118:
	default:
		return nil, fmt.Errorf("its version is not known: %#x", magic)
	}
	p.quantum = uint64(header[6])
	if header[7] != 8 || p.quantum == 0 || p.quantum > 4 {
		return nil, errors.New("its header makes no sense")
	}
	word := func(i int) uint64 { return p.order.Uint64(header[8+8*i:]) }
	n := word(0)
	if n > maxFunctions {
		return nil, fmt.Errorf("%d functions are too many", n)
	}
	p.functions = int(n)
	p.text = word(2)
	p.names, p.units, p.files, p.counters, p.places = word(3), word(4), word(5), word(6), word(7)
	if m := findModule(e, r, s.Addr, n); m != nil {
		p.text = m[moduleText]
		if p.startLines && m[moduleGofunc] != 0 {
			p.funcdata = funcdata(e, r, m[moduleGofunc])
		}
	}
	if p.text == 0 {
		return nil, errors.New("the start of the code was not found")
	}
	return p, nil
}

// findModule finds Go's moduledata, the only one to say where the code starts since Go
// 1.26, and gives what of it is needed, by offset. It begins with the address of the
// function table.
func findModule(e *elf.File, r io.ReaderAt, table, functions uint64) map[int]uint64 {
	wanted := []int{moduleText, moduleGofunc}
	fits := func(module uint64) bool {
		b, err := readAddress(e, r, module+moduleFunctions, 8)
		return err == nil && e.ByteOrder.Uint64(b) == functions+1
	}
	for _, s := range e.Sections {
		if s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_ALLOC == 0 || s.Flags&elf.SHF_EXECINSTR != 0 || s.FileSize > maxTable {
			continue
		}
		in := newStringTable(r, s.Offset, s.FileSize)
		for at := uint64(0); at+8 <= s.FileSize; {
			b, err := in.bytes(at, int(min(block, s.FileSize-at)))
			if err != nil {
				break
			}
			for i := 0; i+8 <= len(b); i += 8 {
				if e.ByteOrder.Uint64(b[i:]) != table || !fits(s.Addr+at+uint64(i)) {
					continue
				}
				m, err := readAddress(e, r, s.Addr+at+uint64(i), moduleSize)
				if err != nil {
					continue
				}
				got := map[int]uint64{}
				for _, offset := range wanted {
					got[offset] = e.ByteOrder.Uint64(m[offset:])
				}
				return got
			}
			at += uint64(len(b)) &^ 7
			if len(b) < 8 {
				break
			}
		}
	}
	// In a position-independent program the addresses are in the relocations.
	var module uint64
	relative(e, r, func(offset, addend uint64) bool {
		if addend == table && fits(offset) {
			module = offset
		}
		return module == 0
	})
	if module == 0 {
		return nil
	}
	got := map[int]uint64{}
	relative(e, r, func(offset, addend uint64) bool {
		for _, w := range wanted {
			if offset == module+uint64(w) {
				got[w] = addend
			}
		}
		return len(got) < len(wanted)
	})
	return got
}

// relative hands over the relocations that add where a file is loaded, until that says
// no.
func relative(e *elf.File, r io.ReaderAt, handle func(offset, addend uint64) bool) {
	kind := uint64(elf.R_X86_64_RELATIVE)
	if e.Machine == elf.EM_AARCH64 {
		kind = uint64(elf.R_AARCH64_RELATIVE)
	}
	for _, s := range e.Sections {
		if s.Type != elf.SHT_RELA || s.FileSize > maxTable { //nolint:misspell // ELF's own name
			continue
		}
		const entry = 24
		in := io.NewSectionReader(r, int64(s.Offset), int64(s.FileSize))
		buf := make([]byte, block/entry*entry)
		for {
			n, err := io.ReadFull(in, buf)
			for b := buf[:n]; len(b) >= entry; b = b[entry:] {
				if e.ByteOrder.Uint64(b[8:]) == kind && !handle(e.ByteOrder.Uint64(b), e.ByteOrder.Uint64(b[16:])) {
					return
				}
			}
			if err != nil {
				break
			}
		}
	}
}

// readAddress reads what a file has for an address.
func readAddress(e *elf.File, r io.ReaderAt, addr uint64, n int) ([]byte, error) {
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz && p.Filesz-(addr-p.Vaddr) >= uint64(n) {
			b := make([]byte, n)
			_, err := r.ReadAt(b, int64(p.Off+addr-p.Vaddr))
			return b, err
		}
	}
	return nil, io.ErrUnexpectedEOF
}

// funcdata gives what a file has from an address to the end of its segment.
func funcdata(e *elf.File, r io.ReaderAt, addr uint64) *stringTable {
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return newStringTable(r, p.Off+addr-p.Vaddr, p.Filesz-(addr-p.Vaddr))
		}
	}
	return nil
}

// A goFunction is a function's record.
type goFunction struct {
	entry     uint64
	name      uint32
	file      uint32 // offsets of counters
	line      uint32
	unit      uint32
	startLine int
	inlined   uint32 // offset of the counter; 0 if there is none
	tree      uint32 // offset in go:func.*
	hasTree   bool
}

// record finds the function that an address is in.
func (p *pclntab) record(addr uint64) (goFunction, bool) {
	if p.entries == nil && !p.readEntries() {
		return goFunction{}, false
	}
	offset := addr - p.text
	if addr < p.text || offset > 1<<32-1 {
		return goFunction{}, false
	}
	i, found := slices.BinarySearchFunc(p.entries, uint32(offset), func(e goEntry, o uint32) int { return cmp.Compare(e.start, o) })
	if !found {
		i--
	}
	// The last entry is the end of the code.
	if i < 0 || i+1 >= len(p.entries) {
		return goFunction{}, false
	}
	at := p.places + uint64(p.entries[i].offset)
	size := 40
	if p.startLines {
		size = 44
	}
	b, err := p.table.bytes(at, size)
	if err != nil {
		return goFunction{}, false
	}
	u := p.order.Uint32
	fn := goFunction{
		entry: p.text + uint64(p.entries[i].start),
		name:  u(b[4:]), file: u(b[20:]), line: u(b[24:]), unit: u(b[32:]),
	}
	counters, data := u(b[28:]), int(b[size-1])
	if !p.startLines {
		return fn, true
	}
	fn.startLine = int(int32(u(b[36:])))
	const inlineCounter, inlineTree = 2, 3 // PCDATA_InlTreeIndex, FUNCDATA_InlTree
	if counters <= inlineCounter || data <= inlineTree || p.funcdata == nil {
		return fn, true
	}
	at += uint64(size)
	if b, err = p.table.bytes(at+4*inlineCounter, 4); err != nil {
		return fn, true
	}
	fn.inlined = u(b)
	if b, err = p.table.bytes(at+4*uint64(counters)+4*inlineTree, 4); err != nil {
		return fn, true
	}
	fn.tree = u(b)
	fn.hasTree = fn.tree != 1<<32-1
	return fn, true
}

// readEntries reads where the functions start.
func (p *pclntab) readEntries() bool {
	p.entries = []goEntry{}
	n := p.functions + 1
	if p.places > p.table.size || uint64(n)*8 > p.table.size-p.places {
		return false
	}
	for i := 0; i < n; {
		some := min(n-i, block/8)
		b, err := p.table.bytes(p.places+8*uint64(i), 8*some)
		if err != nil {
			p.entries = []goEntry{}
			return false
		}
		for ; len(b) >= 8; b = b[8:] {
			p.entries = append(p.entries, goEntry{p.order.Uint32(b), p.order.Uint32(b[4:])})
		}
		i += some
	}
	return slices.IsSortedFunc(p.entries, func(a, b goEntry) int { return cmp.Compare(a.start, b.start) })
}

// find names the function at an address.
func (p *pclntab) find(addr uint64) (Line, bool) {
	fn, ok := p.record(addr)
	if !ok {
		return Line{}, false
	}
	return p.named(fn.name, fn)
}

// named makes a line of a function's name.
func (p *pclntab) named(name uint32, fn goFunction) (Line, bool) {
	s, err := p.table.string(p.names+uint64(name), 512)
	if err != nil || len(s) == 0 {
		return Line{}, false
	}
	return Line{Function: string(s), Linkage: string(s), Start: fn.entry}, true
}

// maxInlined is the depth of inlined calls that is believed.
const maxInlined = 256

// lines gives the functions at an address, the innermost first.
func (p *pclntab) lines(addr uint64) []Line {
	if !p.startLines {
		// Until Go 1.20 the calls were recorded in another form.
		return nil
	}
	fn, ok := p.record(addr)
	if !ok {
		return nil
	}
	var lines []Line
	for range maxInlined {
		index := int32(-1)
		if fn.hasTree && fn.inlined != 0 {
			index = p.counter(fn.inlined, fn.entry, addr, -1)
		}
		var call []byte
		name, startLine := fn.name, fn.startLine
		if index >= 0 {
			var err error
			if call, err = p.funcdata.bytes(uint64(fn.tree)+16*uint64(index), 16); err != nil {
				return nil
			}
			name, startLine = p.order.Uint32(call[4:]), int(int32(p.order.Uint32(call[12:])))
		}
		line, ok := p.named(name, fn)
		if !ok {
			return nil
		}
		line.File = p.file(fn, p.counter(fn.file, fn.entry, addr, -1))
		if line.File != "" {
			line.Line = int(p.counter(fn.line, fn.entry, addr, 0))
			line.StartLine = startLine
		}
		lines = append(lines, line)
		if call == nil {
			return lines
		}
		addr = fn.entry + uint64(p.order.Uint32(call[8:]))
	}
	return nil
}

// file gives the path of a source file by its number in the unit of a function.
func (p *pclntab) file(fn goFunction, number int32) string {
	if number < 0 {
		return ""
	}
	b, err := p.table.bytes(p.units+4*(uint64(fn.unit)+uint64(number)), 4)
	if err != nil {
		return ""
	}
	offset := p.order.Uint32(b)
	if offset == 1<<32-1 {
		return ""
	}
	s, err := p.table.string(p.files+uint64(offset), 512)
	if err != nil {
		return ""
	}
	return string(s)
}

// maxSteps bounds the steps of one counter: a function of the size of its steps would
// have hundreds of megabytes of code.
const maxSteps = 1 << 20

// counter gives the value that a counter has at an address: it is stored as pairs of
// what to add to the value, and how far that holds.
func (p *pclntab) counter(offset uint32, entry, addr uint64, none int32) int32 {
	if offset == 0 {
		return none
	}
	at := p.counters + uint64(offset)
	value, pc := int32(-1), entry
	for step := range maxSteps {
		delta, n, ok := p.varint(at)
		if !ok || delta == 0 && step > 0 {
			return none
		}
		at += n
		if delta&1 != 0 {
			value += int32(^(delta >> 1))
		} else {
			value += int32(delta >> 1)
		}
		length, n, ok := p.varint(at)
		if !ok {
			return none
		}
		at += n
		if pc += uint64(length) * p.quantum; addr < pc {
			return value
		}
	}
	return none
}

// varint reads a number of up to 32 bits, and tells how many bytes it takes.
func (p *pclntab) varint(at uint64) (v uint32, n uint64, ok bool) {
	for shift := 0; shift < 35; shift += 7 {
		b, err := p.table.bytes(at+n, 1)
		if err != nil {
			return 0, 0, false
		}
		n++
		v |= uint32(b[0]&0x7f) << shift
		if b[0]&0x80 == 0 {
			return v, n, true
		}
	}
	return 0, 0, false
}
