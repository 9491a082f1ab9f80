package symbols

import (
	"debug/elf"
	"encoding/binary"
	"maps"
	"testing"
)

func TestStubsARM64(t *testing.T) {
	words := func(all ...uint32) []byte {
		var b []byte
		for _, w := range all {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	const (
		nop  = 0xd503201f
		bti  = 0xd503245f // bti c
		adrp = 0xb0000090 // adrp x16, 0x11000, at addresses below 0x1000
		back = 0xf0fffff0 // adrp x16, one page back
		add  = 0x91006210 // add x16, x16, #0x18
		br   = 0xd61f0220 // br x17
	)
	ldr := func(offset uint32) uint32 { return 0xf9400211 | offset/8<<10 } // ldr x17, [x16, #offset]
	code := words(
		adrp, ldr(0x18), add, br,
		bti, adrp, ldr(0x20), add, br, nop,
		nop, nop, nop,
		back, ldr(0xff8), add, br,
		adrp, nop, ldr(0x28), br,
	)
	want := map[uint64]codeRange{
		0x11018:                     {0x600, 0x610},
		0x11020:                     {0x610, 0x624},
		^uint64(0x1000) + 1 + 0xff8: {0x634, 0x644},
	}
	if got := stubsOf(elf.EM_AARCH64, ".plt", code, 0x600); !maps.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for n := range code {
		stubsOf(elf.EM_AARCH64, ".plt", code[:n], 0x600)
	}
}
