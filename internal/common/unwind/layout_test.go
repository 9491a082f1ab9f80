package unwind

import (
	"debug/elf"
	"slices"
	"testing"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

func TestSignals(t *testing.T) {
	plain, signal := Rule{Cfa: SP, Offset: 8}, Rule{Cfa: Signal, Offset: 40}
	table := &Table{
		Start: 0x1000,
		Pages: []Page{{First: 0, Count: 3}, {}, {First: 3, Count: 2}},
		Rows:  []Row{{Low: 0, Rule: 1}, {Low: 0xf, Rule: 2}, {Low: 0x19, Rule: 1}, {Low: 0, Rule: 0}, {Low: 0x3fe, Rule: 2}},
		Rules: []Rule{{}, plain, signal},
	}
	found := table.signals()
	if want := []stretch{{0x100f, 0x1019}, {0x1bfe, 0x1c00}}; !slices.Equal(found, want) {
		t.Errorf("%x, want %x", found, want)
	}
	l := Layout{signals: found, Segments: symbols.Segments{
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0, Vaddr: 0x1000, Filesz: 0xc00},
	}}
	for offset, want := range map[uint64]bool{0xe: false, 0xf: true, 0x18: true, 0x19: false, 0xbff: true, 0xc00: false} {
		if got := l.Signal(offset); got != want {
			t.Errorf("%#x: %v", offset, got)
		}
	}
	table.Rules[2] = plain
	if got := table.signals(); got != nil {
		t.Errorf("%x", got)
	}
}
