package main

import (
	"debug/elf"
	"slices"
	"testing"

	"github.com/gobcc/gobcc/internal/common/unwind"
)

// Mappings begin with a page, and so before the segment.
func TestAddressOf(t *testing.T) {
	segments := []elf.ProgHeader{
		{Type: elf.PT_LOAD, Flags: elf.PF_R, Off: 0, Vaddr: 0x400000, Filesz: 0x1234},
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0x1240, Vaddr: 0x601240, Filesz: 0x2000},
		{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0x8000, Vaddr: 0x8000, Filesz: 0x1000},
	}
	for offset, want := range map[uint64]uint64{
		0x1000: 0x601000, // a page of two segments: code is in that which may be executed
		0x1240: 0x601240, 0x323f: 0x60323f, 0x10: 0x400010, 0x8000: 0x8000, 0x8fff: 0x8fff,
	} {
		if got, ok := addressOf(segments, offset); !ok || got != want {
			t.Errorf("%#x: %#x, %v, want %#x", offset, got, ok, want)
		}
	}
	for _, offset := range []uint64{0x3240, 0x7fff, 0x9000, ^uint64(0)} {
		if got, ok := addressOf(segments, offset); ok {
			t.Errorf("%#x: %#x", offset, got)
		}
	}
}

func TestSignalsOf(t *testing.T) {
	plain, signal := unwind.Rule{Cfa: unwind.SP, Offset: 8}, unwind.Rule{Cfa: unwind.Signal, Offset: 40}
	table := &unwind.Table{
		Start: 0x1000,
		Pages: []unwind.Page{{First: 0, Count: 3}, {}, {First: 3, Count: 2}},
		Rows:  []unwind.Row{{Low: 0, Rule: 1}, {Low: 0xf, Rule: 2}, {Low: 0x19, Rule: 1}, {Low: 0, Rule: 0}, {Low: 0xffe, Rule: 2}},
		Rules: []unwind.Rule{{}, plain, signal},
	}
	if got, want := signalsOf(table), []span{{0x100f, 0x1019}, {0x3ffe, 0x4000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	table.Rules[2] = plain
	if got := signalsOf(table); got != nil {
		t.Errorf("%x", got)
	}
}
