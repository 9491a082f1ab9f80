package symbols

import (
	"debug/elf"
	"testing"
)

// Mappings begin with a page, and so before the segment.
func TestSegments(t *testing.T) {
	segments := Segments{
		{Type: elf.PT_LOAD, Flags: elf.PF_R, Off: 0, Vaddr: 0x400000, Filesz: 0x1234},
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0x1240, Vaddr: 0x601240, Filesz: 0x2000},
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0x8000, Vaddr: 0x8000, Filesz: 0x1000},
	}
	for offset, want := range map[uint64]uint64{
		0x1000: 0x601000, // a page of two segments: code is in that which may be executed
		0x1240: 0x601240, 0x323f: 0x60323f, 0x10: 0x400010, 0x8000: 0x8000, 0x8fff: 0x8fff,
	} {
		if got, ok := segments.Address(offset); !ok || got != want {
			t.Errorf("%#x: %#x, %v, want %#x", offset, got, ok, want)
		}
	}
	for _, offset := range []uint64{0x3240, 0x7fff, 0x9000, ^uint64(0)} {
		if got, ok := segments.Address(offset); ok {
			t.Errorf("%#x: %#x", offset, got)
		}
	}
}
