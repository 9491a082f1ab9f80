package symbols

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// A builder collects the symbols of a file's tables.
type builder struct {
	symbols []symbol
	code    []codeRange // where code is, sorted
	dynamic uint8       // index of the dynamic symbols' string table
}

// A symbol is one that may name a function.
type symbol struct {
	start, size uint64
	name        uint32
	strings     uint8
	rank        uint8 // the greatest of those at one address is shown
	label       bool  // it may not be a function
	plt         bool
}

type codeRange struct{ start, end uint64 }

// table adds the functions of a symbol table. A file that has none is no error.
func (b *builder) table(f *File, e *elf.File, r io.ReaderAt, kind elf.SectionType) error {
	s := e.SectionByType(kind)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil
	}
	if int(s.Link) >= len(e.Sections) || s.Link == 0 {
		return errors.New("it has no names")
	}
	strtab := e.Sections[s.Link]
	if strtab.Type != elf.SHT_STRTAB {
		return errors.New("its names are in no string table")
	}
	if s.FileSize > maxTable || s.Offset > 1<<62 || strtab.Offset > 1<<62 || strtab.FileSize > 1<<62 {
		return fmt.Errorf("%d bytes are too many", s.FileSize)
	}
	if len(f.strings) >= math.MaxUint8 {
		return errors.New("too many tables")
	}
	b.addCode(e)
	entry := elf.Sym64Size
	if e.Class == elf.ELFCLASS32 {
		entry = elf.Sym32Size
	}
	table := uint8(len(f.strings))
	names := newStringTable(r, strtab.Offset, strtab.FileSize)
	f.strings = append(f.strings, names)
	if kind == elf.SHT_DYNSYM {
		b.dynamic = table
	}
	in := io.NewSectionReader(r, int64(s.Offset), int64(s.FileSize))
	buf := make([]byte, block/entry*entry)
	for {
		n, err := io.ReadFull(in, buf)
		for p := buf[:n]; len(p) >= entry; p = p[entry:] {
			sym, ok := decode(p, e)
			if !ok {
				continue
			}
			if sym.label {
				if name, err := names.string(uint64(sym.name), 512); err != nil || isLabel(name) {
					continue
				}
			}
			sym.strings = table
			if len(b.symbols) >= maxFunctions {
				return fmt.Errorf("more than %d functions", maxFunctions)
			}
			b.symbols = append(b.symbols, sym)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// decode reads a symbol. It is not ok if that is none of a function.
func decode(p []byte, e *elf.File) (symbol, bool) {
	var s symbol
	var info byte
	var section uint16
	if e.Class == elf.ELFCLASS32 {
		s.name = e.ByteOrder.Uint32(p[0:])
		s.start = uint64(e.ByteOrder.Uint32(p[4:]))
		s.size = uint64(e.ByteOrder.Uint32(p[8:]))
		info, section = p[12], e.ByteOrder.Uint16(p[14:])
	} else {
		s.name = e.ByteOrder.Uint32(p[0:])
		info, section = p[4], e.ByteOrder.Uint16(p[6:])
		s.start = e.ByteOrder.Uint64(p[8:])
		s.size = e.ByteOrder.Uint64(p[16:])
	}
	if s.name == 0 || section == uint16(elf.SHN_UNDEF) || s.start == 0 {
		return s, false
	}
	if i := int(section); i < len(e.Sections) && e.Sections[i].Flags&elf.SHF_EXECINSTR == 0 {
		return s, false
	} else if i >= len(e.Sections) && section != uint16(elf.SHN_XINDEX) {
		return s, false
	}
	switch elf.ST_TYPE(info) {
	case elf.STT_FUNC:
		s.rank = 2
	case elf.STT_GNU_IFUNC:
		// The code here chooses the function of that name.
		s.rank = 1
	case elf.STT_NOTYPE:
		s.label = true // or a function in assembler
	default:
		return s, false
	}
	s.rank *= 3
	switch elf.ST_BIND(info) {
	case elf.STB_GLOBAL, elf.STB_LOOS: // the latter is STB_GNU_UNIQUE
		s.rank += 2
	case elf.STB_WEAK:
		s.rank++
	}
	return s, true
}

// addCode adds the sections of a file that have code. A separate debug file has the
// same ones, without what is in them.
func (b *builder) addCode(e *elf.File) {
	if b.code != nil {
		return
	}
	for _, s := range e.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Size > 0 && s.Addr+s.Size > s.Addr {
			b.code = append(b.code, codeRange{s.Addr, s.Addr + s.Size})
		}
	}
	slices.SortFunc(b.code, func(a, b codeRange) int { return cmp.Compare(a.start, b.start) })
}

// codeEnd is where the section with an address ends; the address itself if it is in
// none.
func (b *builder) codeEnd(addr uint64) uint64 {
	i, found := slices.BinarySearchFunc(b.code, addr, func(c codeRange, addr uint64) int { return cmp.Compare(c.start, addr) })
	if !found {
		i--
	}
	if i < 0 || b.code[i].end <= addr {
		return addr
	}
	return b.code[i].end
}

// build resolves what was collected: one name for each address.
func (b *builder) build(f *File) ([]span, []function) {
	slices.SortFunc(b.symbols, func(a, b symbol) int {
		return cmp.Or(
			cmp.Compare(a.start, b.start),
			cmp.Compare(b2i(a.size == 0), b2i(b.size == 0)),
			cmp.Compare(b.size, a.size),
			cmp.Compare(a.strings, b.strings),
			cmp.Compare(a.name, b.name),
		)
	})
	var functions []function
	var extents []extent
	covered := uint64(0) // the end of what functions with a size took so far
	for i := 0; i < len(b.symbols); {
		j := i + 1
		for j < len(b.symbols) && b.symbols[j].start == b.symbols[i].start && b.symbols[j].size == b.symbols[i].size {
			j++
		}
		s := f.choose(b.symbols[i:j])
		i = j
		for i < len(b.symbols) && b.symbols[i].start == s.start {
			i++
		}
		if s.size == 0 && s.start < covered {
			continue // a label in the middle of a function
		}
		end := s.start + s.size
		limit := b.codeEnd(s.start)
		if s.size == 0 {
			// Assembler functions often have none. They reach to the next symbol.
			end = limit
			if i < len(b.symbols) {
				end = min(end, b.symbols[i].start)
			}
		} else {
			if end < s.start {
				end = s.start
			}
			end = min(end, limit)
			covered = max(covered, end)
		}
		extents = append(extents, extent{start: s.start, end: end, rank: s.start, function: uint32(len(functions))})
		functions = append(functions, function{start: s.start, name: s.name, strings: s.strings, plt: s.plt})
	}
	b.symbols = nil
	return slices.Clip(spansOf(extents)), slices.Clip(functions)
}

// choose takes that of several names of one function that says most: global before
// local ones, without underscores before those that have some.
func (f *File) choose(aliases []symbol) symbol {
	best := aliases[0]
	var name []byte
	for _, s := range aliases[1:] {
		if s.rank > best.rank {
			best, name = s, nil
			continue
		}
		// What two tables have is most often one symbol.
		if s.rank < best.rank || s.strings != best.strings || s.name == best.name {
			continue
		}
		if name == nil {
			name = f.name(best)
		}
		// After the underscores it doesn't matter which is taken, but it must be the
		// same each time.
		other := f.name(s)
		if cmp.Or(
			cmp.Compare(underscores(name), underscores(other)),
			cmp.Compare(len(name), len(other)),
			bytes.Compare(name, other),
		) > 0 {
			best, name = s, other
		}
	}
	return best
}

// name is a copy of a symbol's name.
func (f *File) name(s symbol) []byte {
	name, err := f.strings[s.strings].string(uint64(s.name), 512)
	if err != nil {
		return []byte{}
	}
	return bytes.Clone(name)
}

// isLabel tells names that assemblers and compilers make for their own use.
func isLabel(name []byte) bool {
	if len(name) == 0 {
		return true
	}
	switch {
	case bytes.HasPrefix(name, []byte(".L")), bytes.HasPrefix(name, []byte(".annobin")):
		return true
	case name[0] == '$': // ARM's marks for code and data
		return len(name) == 2 || name[2] == '.'
	}
	return false
}
