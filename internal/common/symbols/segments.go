package symbols

import (
	"debug/elf"
	"os"
)

// Segments are the parts of an ELF file that are mapped when it runs.
type Segments []elf.ProgHeader

// SegmentsOf gives the segments of a file.
func SegmentsOf(f *elf.File) (s Segments) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Filesz > 0 {
			s = append(s, p.ProgHeader)
		}
	}
	return s
}

// Address gives the address of the file's own (the ELF virtual address) of what is mapped
// from an offset in the file. Mappings begin with a page, which may be before the segment;
// where two segments have the same page of the file, code is in the executable one.
func (s Segments) Address(offset uint64) (vaddr uint64, ok bool) {
	page := uint64(os.Getpagesize())
	for _, flags := range []elf.ProgFlag{elf.PF_X, 0} {
		for _, p := range s {
			start := p.Off &^ (page - 1)
			if p.Flags&flags == flags && offset >= start && offset-start < p.Off-start+p.Filesz {
				return offset - p.Off + p.Vaddr, true
			}
		}
	}
	return 0, false
}
