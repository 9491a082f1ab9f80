package sourcelines

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// sections are those of a file that this package reads.
type sections struct {
	mapped []byte // the whole file
	read   int    // bytes of sections that were compressed, which are memory of this process

	abbrev, info, line, lineStr, str   []byte
	addr, strOffsets, ranges, rnglists []byte
	altPath                            string // of the supplementary file, from .gnu_debugaltlink or .debug_sup
	altBuildID                         []byte
	executable                         []span // segments
}

// span is a range of addresses.
type span struct{ lo, hi uint64 }

// ErrNone tells that a file has no DWARF data with lines.
var ErrNone = errors.New("no debugging information")

// readSections maps f, whose offset and life are of no matter later. Compressed sections
// take memory. An alternate file is one with what others share.
func readSections(f *os.File, budget *Budget, alternate bool) (*sections, error) {
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	// dwz gives out the supplementary file as a relocatable one, but nothing is relocated.
	relocatable := e.Type == elf.ET_REL && !alternate
	if e.ByteOrder != binary.LittleEndian || relocatable {
		return nil, fmt.Errorf("the debugging information of %v files for %v is not read", e.Type, e.Machine)
	}
	if s := e.Section(".debug_info"); (s == nil || s.Type == elf.SHT_NOBITS) && e.Section(".zdebug_info") == nil {
		return nil, ErrNone
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &sections{}
	if s.mapped, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
		return nil, fmt.Errorf("map the file: %w", err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			s.executable = append(s.executable, span{p.Vaddr, p.Vaddr + p.Memsz})
		}
	}
	byName := map[string]*[]byte{
		"abbrev": &s.abbrev, "info": &s.info, "line": &s.line, "line_str": &s.lineStr, "str": &s.str,
		"addr": &s.addr, "str_offsets": &s.strOffsets, "ranges": &s.ranges, "rnglists": &s.rnglists,
	}
	for _, section := range e.Sections {
		if section.Name == ".gnu_debugaltlink" {
			link, err := s.contents(section, budget)
			if err != nil {
				return nil, errors.Join(err, s.close(budget))
			}
			path, id, _ := bytes.Cut(link, []byte{0})
			s.altPath, s.altBuildID = string(path), bytes.Clone(id)
			continue
		}
		if section.Name == ".debug_sup" && !alternate {
			link, err := s.contents(section, budget)
			if err != nil {
				return nil, errors.Join(err, s.close(budget))
			}
			s.readSup(link)
			continue
		}
		name, ok := strings.CutPrefix(section.Name, ".debug_")
		if !ok {
			if name, ok = strings.CutPrefix(section.Name, ".zdebug_"); !ok {
				continue
			}
		}
		into := byName[name]
		if into == nil || *into != nil || section.Type == elf.SHT_NOBITS {
			continue
		}
		if *into, err = s.contents(section, budget); err != nil {
			return nil, errors.Join(fmt.Errorf("read section %s: %w", section.Name, err), s.close(budget))
		}
	}
	return s, nil
}

// readSup reads .debug_sup, which DWARF 5 has in place of .gnu_debugaltlink.
func (s *sections) readSup(link []byte) {
	c := at(link, 0)
	version, supplementary, path := c.number(2), c.byte(), c.cstring()
	sum := c.bytes(c.uleb()) // a build id, as dwz makes it
	if !c.failed && version == 5 && supplementary == 0 {
		s.altPath, s.altBuildID = string(path), bytes.Clone(sum)
	}
}

// contents gives a section as it is mapped or, if it is compressed, a copy.
func (s *sections) contents(section *elf.Section, budget *Budget) ([]byte, error) {
	if section.Offset > uint64(len(s.mapped)) || section.FileSize > uint64(len(s.mapped))-section.Offset {
		return nil, errors.New("it is not within the file")
	}
	raw := s.mapped[section.Offset:][:section.FileSize:section.FileSize]
	var r io.Reader
	var size uint64
	switch {
	case section.Flags&elf.SHF_COMPRESSED != 0:
		size, r = section.Size, section.Open()
	case strings.HasPrefix(section.Name, ".zdebug_") && len(raw) > 12 && string(raw[:4]) == "ZLIB":
		// As GNU tools compressed sections before ELF had a way.
		size = binary.BigEndian.Uint64(raw[4:])
		z, err := zlib.NewReader(bytes.NewReader(raw[12:]))
		if err != nil {
			return nil, err
		}
		r = z
	default:
		return raw, nil
	}
	if err := budget.take(size); err != nil {
		return nil, err
	}
	s.read += int(size)
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	return data, nil
}

// release gives back the memory that the pages of the file take.
func (s *sections) release() {
	// Without it the pages stay in memory for longer, which is no harm.
	_ = unix.Madvise(s.mapped, unix.MADV_DONTNEED)
}

func (s *sections) close(budget *Budget) error {
	budget.give(s.read)
	err := unix.Munmap(s.mapped)
	*s = sections{}
	return err
}

// code reports whether an address is in an executable segment. What the linker dropped
// keeps its debugging information, with 0 or the like for an address.
func (s *sections) code(addr uint64) bool {
	for _, x := range s.executable {
		if x.lo <= addr && addr < x.hi {
			return true
		}
	}
	return false
}
