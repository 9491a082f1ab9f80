package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// Where an image's parts are.
const (
	codeAt  = 0x401000
	frameAt = 0x500000
)

// image makes an ELF file of code and sections by name. The program headers are for the code,
// and for .eh_frame if there is a .eh_frame_hdr.
func image(machine elf.Machine, code []byte, entry uint64, sections map[string][]byte) []byte {
	var body bytes.Buffer
	offset := func() uint64 { return 4096 + uint64(body.Len()) }
	le := binary.LittleEndian
	progs := []elf.Prog64{{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: offset(), Vaddr: codeAt, Filesz: uint64(len(code)), Memsz: uint64(len(code))}}
	body.Write(code)
	names := "\x00"
	headers := []elf.Section64{{}}
	for _, name := range []string{".eh_frame", ".debug_frame", ".eh_frame_hdr"} {
		data, ok := sections[name]
		if !ok {
			continue
		}
		s := elf.Section64{Name: uint32(len(names)), Type: uint32(elf.SHT_PROGBITS), Off: offset(), Size: uint64(len(data))}
		if name == ".eh_frame" {
			s.Addr, s.Flags = frameAt, uint64(elf.SHF_ALLOC)
			progs = append(progs, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Off: s.Off, Vaddr: frameAt, Filesz: s.Size, Memsz: s.Size})
		}
		if name == ".eh_frame_hdr" {
			progs = append(progs, elf.Prog64{Type: uint32(elf.PT_GNU_EH_FRAME), Flags: uint32(elf.PF_R), Off: s.Off, Vaddr: frameAt + 0x10000, Filesz: s.Size})
		}
		names += name + "\x00"
		body.Write(data)
		headers = append(headers, s)
	}
	strings := elf.Section64{Name: uint32(len(names)), Type: uint32(elf.SHT_STRTAB), Off: offset(), Size: uint64(len(names) + 10)}
	names += ".shstrtab\x00"
	body.WriteString(names)
	headers = append(headers, strings)
	if _, ok := sections[".eh_frame_hdr"]; ok {
		headers = nil // It is for files that have lost them.
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Entry: entry, Phoff: 64, Shoff: offset(),
		Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs)), Shentsize: 64, Shnum: uint16(len(headers)),
	}
	if len(headers) > 0 {
		h.Shstrndx = uint16(len(headers) - 1)
	} else {
		h.Shoff = 0
	}
	var out bytes.Buffer
	_ = binary.Write(&out, le, h)
	_ = binary.Write(&out, le, progs)
	out.Write(make([]byte, 4096-out.Len()))
	out.Write(body.Bytes())
	_ = binary.Write(&out, le, headers)
	return out.Bytes()
}

// A writer makes a section.
type writer struct {
	bytes.Buffer
	debug bool
	cie   int // offset of the last CIE
}

func (w *writer) entry(id uint32, body []byte) {
	for len(body)%4 != 0 {
		body = append(body, opNop)
	}
	_ = binary.Write(w, binary.LittleEndian, []uint32{uint32(len(body) + 4), id})
	w.Write(body)
}

// addCIE adds one: its augmentation, what that has, and a program. Its registers are amd64's.
func (w *writer) addCIE(augmentation, data string, program ...byte) {
	w.cie = w.Len()
	body := []byte{1}
	body = append(body, augmentation...)
	body = append(body, 0, 1, 0x78, 16) // factors 1 and -8, the return address
	if strings.HasPrefix(augmentation, "z") {
		body = append(body, byte(len(data)))
		body = append(body, data...)
	}
	id := uint32(0)
	if w.debug {
		id = math.MaxUint32
	}
	w.entry(id, append(body, program...))
}

// addFDE adds one with addresses of 8 bytes that are relative to nothing.
func (w *writer) addFDE(start, size uint64, program ...byte) {
	body := binary.LittleEndian.AppendUint64(nil, start)
	body = binary.LittleEndian.AppendUint64(body, size)
	w.addRaw(append(body, program...))
}

func (w *writer) addRaw(body []byte) {
	id := uint32(w.Len() + 4 - w.cie)
	if w.debug {
		id = uint32(w.cie)
	}
	w.entry(id, body)
}

// def is what CIEs of amd64 begin with: the base is 8 bytes above the stack pointer, and the
// return address below it.
var def = []byte{opDefCFA, 7, 8, opOffset | 16, 1}

func absolute(w *writer) { w.addCIE("", "", def...) }

// tableOf makes the table of a file whose code has so many bytes.
func tableOf(t testing.TB, w *writer, size int) *Table {
	t.Helper()
	name := ".eh_frame"
	if w.debug {
		name = ".debug_frame"
	}
	table, err := Open(bytes.NewReader(image(elf.EM_X86_64, make([]byte, size), 0, map[string][]byte{name: w.Bytes()})))
	if err != nil {
		t.Fatal(err)
	}
	checkTable(t, table)
	return table
}

func sp(offset int32) Rule { return Rule{Cfa: SP, Offset: offset, Ra: AtCFA, RaOffset: -1} }

// What each instruction does, and some in a row.
func TestInstructions(t *testing.T) {
	fp := func(r Rule, offset int16) Rule {
		r.Fp, r.FpOffset = AtCFA, offset
		return r
	}
	lost := sp(8)
	lost.Fp = Lost
	block := func(op byte, expression ...byte) []byte {
		return append([]byte{op, byte(len(expression))}, expression...)
	}
	at := func(register byte, expression ...byte) []byte {
		return append([]byte{opExpression, register, byte(len(expression))}, expression...)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, test := range []struct {
		name    string
		program []byte
		want    Rule // of byte 8 of the function
	}{
		{"nothing", nil, sp(8)},
		{"advance_loc", []byte{opAdvanceLoc | 8, opDefCFAOffset, 16}, sp(16)},
		{"advance_loc beyond", []byte{opAdvanceLoc | 9, opDefCFAOffset, 16}, sp(8)},
		{"advance_loc1", []byte{opAdvanceLoc1, 8, opDefCFAOffset, 16}, sp(16)},
		{"advance_loc2", []byte{opAdvanceLoc2, 8, 0, opDefCFAOffset, 16}, sp(16)},
		{"advance_loc4", []byte{opAdvanceLoc4, 8, 0, 0, 0, opDefCFAOffset, 16}, sp(16)},
		{"set_loc", append(binary.LittleEndian.AppendUint64([]byte{opSetLoc}, codeAt+8), opDefCFAOffset, 16), sp(16)},
		{"set_loc back", append(binary.LittleEndian.AppendUint64([]byte{opAdvanceLoc | 4, opSetLoc}, codeAt), opDefCFAOffset, 16), Rule{}},
		{"advance of nothing", []byte{opDefCFAOffset, 24, opAdvanceLoc, opAdvanceLoc1, 0, opDefCFAOffset, 16}, sp(16)},
		{"offset", []byte{opOffset | 6, 2}, fp(sp(8), -2)},
		{"offset of another", []byte{opOffset | 5, 2}, sp(8)},
		{"offset_extended", []byte{opOffsetExtended, 6, 2}, fp(sp(8), -2)},
		{"offset_extended_sf", []byte{opOffsetExtendedSF, 6, 0x7e}, fp(sp(8), 2)},
		{"negative_offset_extended", []byte{opGNUNegativeOffsetExtended, 6, 2}, fp(sp(8), 2)},
		{"restore", []byte{opOffset | 6, 2, opRestore | 6}, sp(8)},
		{"restore_extended", []byte{opOffset | 16, 2, opRestoreExtended, 16}, sp(8)},
		{"undefined", []byte{opUndefined, 6}, lost},
		{"undefined return address", []byte{opUndefined, 16}, Rule{Cfa: End}},
		{"same_value", []byte{opOffset | 6, 2, opSameValue, 6}, sp(8)},
		{"same_value of the return address", []byte{opSameValue, 16}, Rule{}},
		{"register", []byte{opRegister, 6, 3}, lost},
		{"register itself", []byte{opRegister, 6, 6}, sp(8)},
		{"register of the return address", []byte{opRegister, 16, 3}, Rule{}},
		{"remember", []byte{opRememberState, opDefCFA, 6, 16, opOffset | 6, 2, opRestoreState}, sp(8)},
		{"remember twice", []byte{opRememberState, opDefCFAOffset, 16, opRememberState, opDefCFAOffset, 24, opRestoreState}, sp(16)},
		{"restore of nothing", []byte{opRestoreState}, Rule{}},
		{"as much put aside as may be", bytes.Repeat([]byte{opRememberState}, maxRemembered), sp(8)},
		{"more put aside", bytes.Repeat([]byte{opRememberState}, maxRemembered+1), Rule{}},
		{"def_cfa", []byte{opDefCFA, 6, 16}, Rule{Cfa: FP, Offset: 16, Ra: AtCFA, RaOffset: -1}},
		{"def_cfa of another", []byte{opDefCFA, 0, 16}, Rule{}},
		{"def_cfa_sf", []byte{opDefCFASF, 7, 0x7e}, sp(16)},
		{"def_cfa_register", []byte{opDefCFARegister, 6}, Rule{Cfa: FP, Offset: 8, Ra: AtCFA, RaOffset: -1}},
		{"def_cfa_register twice", []byte{opDefCFAOffset, 64, opDefCFARegister, 0, opDefCFARegister, 7}, sp(64)},
		{"def_cfa_offset of another", []byte{opDefCFARegister, 0, opDefCFAOffset, 64, opDefCFARegister, 7}, sp(64)},
		{"def_cfa_offset_sf", []byte{opDefCFAOffsetSF, 0x7e}, sp(16)},
		{"too small a frame", []byte{opDefCFAOffset, 0}, Rule{}},
		{"too large a frame", []byte{opDefCFAOffset, 0xff, 0xff, 0xff, 0xff, 0x0f}, Rule{}},
		{"much too large a frame", []byte{opDefCFAOffset, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, Rule{}},
		{"too far away", []byte{opOffsetExtended, 6, 0xff, 0xff, 0xff, 0xff, 0x0f}, lost},
		{"val_offset", []byte{opValOffset, 6, 2}, lost},
		{"val_offset_sf", []byte{opValOffsetSF, 6, 0x7e}, lost},
		{"val_expression", []byte{opValExpression, 6, 2, opBreg0 + 7, 0}, lost},
		{"args_size", []byte{opGNUArgsSize, 16, opDefCFAOffset, 16}, sp(16)},
		{"unknown", []byte{0x3e}, Rule{}},
		{"unknown later", []byte{opAdvanceLoc | 9, 0x3e}, sp(8)},
		{"a number that isn't there", []byte{opDefCFA, 0x80, 0x80}, Rule{}},
		{"an expression that isn't there", []byte{opDefCFAExpression, 9, 1}, Rule{}},

		{"expression like an offset", block(opDefCFAExpression, opBreg0+7, 16), sp(16)},
		{"expression with sums", block(opDefCFAExpression, opBreg0+7, 8, opPlusUconst, 8, opLit0+16, opPlus, opConst1u, 8, opMinus), sp(24)},
		{"expression of a wide number", block(opDefCFAExpression, opBreg0+7, 0, opConst2u, 0, 1, opPlus), sp(256)},
		{"what was saved", block(opDefCFAExpression, opBreg0+7, 0x98, 0x04, opDeref, opPlusUconst, 56),
			Rule{Cfa: SPDeref, Offset: 536, Add: 56, Ra: AtCFA, RaOffset: -1}},
		{"what was saved by frame pointer", block(opDefCFAExpression, opBreg0+6, 0x78, opDeref),
			Rule{Cfa: FPDeref, Offset: -8, Ra: AtCFA, RaOffset: -1}},
		{"after what was saved", append(block(opDefCFAExpression, opBreg0+7, 0, opDeref), opDefCFARegister, 7), sp(8)},
		{"an offset is not the expression's", append(block(opDefCFAExpression, opBreg0+7, 0, opDeref), opDefCFAOffset, 64),
			Rule{Cfa: SPDeref, Ra: AtCFA, RaOffset: -1}},
		{"saved twice", block(opDefCFAExpression, opBreg0+7, 0, opDeref, opDeref), Rule{}},
		{"in another register", block(opDefCFAExpression, opBreg0+10, 0), Rule{}},
		{"a number", block(opDefCFAExpression, opLit0+8), Rule{}},
		{"nothing at all", block(opDefCFAExpression), Rule{}},
		{"two things", block(opDefCFAExpression, opBreg0+7, 0, opLit0), Rule{}},
		{"much", block(opDefCFAExpression, opLit0, opLit0, opLit0, opLit0, opLit0, opLit0, opLit0, opLit0, opLit0, opLit0), Rule{}},
		{"PLT", block(opDefCFAExpression, opBreg0+7, 8, opBreg0+16, 0, opLit0+15, 0x1a, opLit0+11, 0x2a, opLit0+3, 0x24, opPlus),
			Rule{Cfa: PLT, Offset: 8, Add: 11, Ra: AtCFA, RaOffset: -1}},
		{"PLT of another kind", block(opDefCFAExpression, opBreg0+7, 8, opBreg0+16, 0, opLit0+15, 0x1a, opLit0+9, 0x2a, opLit0+3, 0x24, opPlus),
			Rule{Cfa: PLT, Offset: 8, Add: 9, Ra: AtCFA, RaOffset: -1}},
		{"nearly PLT", block(opDefCFAExpression, opBreg0+7, 8, opBreg0+16, 0, opLit0+15, 0x1a, opLit0+9, 0x2a, opLit0+4, 0x24, opPlus), Rule{}},

		{"aligned", join([]byte{opDefCFA, 10, 0}, at(6, opBreg0+6, 0), block(opDefCFAExpression, opBreg0+6, 0x78, opDeref)),
			Rule{Cfa: FPDeref, Offset: -8, Ra: AtCFA, RaOffset: -1, Fp: AtFP}},
		{"at the stack pointer", join([]byte{opDefCFAOffset, 32}, at(6, opBreg0+7, 16)), fp(sp(32), -2)},
		{"at the frame pointer", join([]byte{opDefCFA, 6, 16}, at(6, opBreg0+6, 0)), fp(Rule{Cfa: FP, Offset: 16, Ra: AtCFA, RaOffset: -1}, -2)},
		{"elsewhere", at(6, opBreg0+10, 0), lost},
		{"the return address elsewhere", at(16, opBreg0+10, 0), Rule{}},
		{"not at a word", join([]byte{opDefCFAOffset, 32}, at(6, opBreg0+7, 17)), func() Rule { r := sp(32); r.Fp = Lost; return r }()},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w writer
			absolute(&w)
			w.addFDE(codeAt, 64, test.program...)
			// What else there is must stay readable.
			w.addFDE(codeAt+64, 64, opAdvanceLoc|1, opDefCFAOffset, 24)
			table := tableOf(t, &w, 4096)
			if got := table.Find(codeAt + 8); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
			if got := table.Find(codeAt + 65); got != sp(24) {
				t.Errorf("the next function: %+v", got)
			}
		})
	}
}

// What a CIE says of a register is what it is restored to.
func TestRestore(t *testing.T) {
	for _, restore := range [][]byte{{opRestore | 6}, {opRestoreExtended, 6}} {
		var w writer
		w.addCIE("", "", append(bytes.Clone(def), opOffset|6, 4)...)
		w.addFDE(codeAt, 64, append([]byte{opSameValue, 6, opAdvanceLoc | 1}, restore...)...)
		table := tableOf(t, &w, 4096)
		want := sp(8)
		if got := table.Find(codeAt); got != want {
			t.Errorf("before: %+v, want %+v", got, want)
		}
		want.Fp, want.FpOffset = AtCFA, -4
		if got := table.Find(codeAt + 1); got != want {
			t.Errorf("after: %+v, want %+v", got, want)
		}
	}
}

// A span takes the place of what it overlaps of others. Of one that has a program what is
// behind is lost, too.
func TestOver(t *testing.T) {
	one := func(start, end uint64) span { return span{start: start, end: end, cie: fixed} }
	program := func(start, end uint64) span { return span{start: start, end: end} }
	for _, test := range []struct {
		name        string
		spans, want []span
	}{
		{"none", nil, []span{one(10, 20)}},
		{"beside", []span{program(0, 10), program(20, 30)}, []span{program(0, 10), one(10, 20), program(20, 30)}},
		{"apart", []span{program(0, 5), program(25, 30)}, []span{program(0, 5), one(10, 20), program(25, 30)}},
		{"before all", []span{one(30, 40)}, []span{one(10, 20), one(30, 40)}},
		{"across", []span{program(0, 15), one(15, 25)}, []span{program(0, 10), one(10, 20), one(20, 25)}},
		{"in one", []span{one(0, 30)}, []span{one(0, 10), one(10, 20), one(20, 30)}},
		{"in one with a program", []span{program(0, 30)}, []span{program(0, 10), one(10, 20)}},
		{"around some", []span{program(11, 12), one(12, 20)}, []span{one(10, 20)}},
	} {
		if got := over(test.spans, one(10, 20)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// What signals' handlers return to is found wherever it is in code of which nothing is known.
func TestRestorers(t *testing.T) {
	restorer := machines[elf.EM_X86_64].restorer
	for _, at := range []int{100, 64<<10 - 1, 64<<10 - 4, 64<<10 - 8, 64 << 10, 128<<10 - 12, 200<<10 - len(restorer)} {
		var w writer
		absolute(&w)
		w.addFDE(codeAt, 16)
		code := make([]byte, 200<<10)
		copy(code[at:], restorer)
		table, err := Open(bytes.NewReader(image(elf.EM_X86_64, code, 0, map[string][]byte{".eh_frame": w.Bytes()})))
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table)
		for offset, want := range map[int]CFA{-2: Unknown, -1: Signal, len(restorer) - 1: Signal, len(restorer): Unknown} {
			if got := table.Find(codeAt + uint64(at+offset)); got.Cfa != want {
				t.Errorf("%d%+d: %+v", at, offset, got)
			}
		}
	}
}

// A signal's frame by what its CIE and its program say, whatever its code is.
func TestSignalFrame(t *testing.T) {
	program := []byte{opDefCFAExpression, 4, opBreg0 + 7, 0xa0, 0x01, opDeref, opExpression, 16, 3, opBreg0 + 7, 0xa8, 0x01}
	for augmentation, want := range map[string]Rule{"zS": {Cfa: Signal, Offset: 40}, "z": {}} {
		var w writer
		w.addCIE(augmentation, "", def...)
		w.addFDE(codeAt, 16, append([]byte{0}, program...)...)
		w.addFDE(codeAt+64, 16, 0)
		if got := tableOf(t, &w, 4096).Find(codeAt); got != want {
			t.Errorf("%q: %+v, want %+v", augmentation, got, want)
		}
	}
}

// Functions need not be in order, and may overlap; between them nothing is known.
func TestLayout(t *testing.T) {
	type function struct {
		start, size uint64
		frame       byte
	}
	type place struct {
		offset uint64
		frame  int32 // 0 for no rule
	}
	for _, test := range []struct {
		name      string
		functions []function
		places    []place
	}{
		{"in order", []function{{0, 16, 16}, {16, 16, 24}}, []place{{0, 16}, {15, 16}, {16, 24}, {31, 24}, {32, 0}}},
		{"not in order", []function{{16, 16, 24}, {0, 16, 16}}, []place{{0, 16}, {15, 16}, {16, 24}, {31, 24}, {32, 0}}},
		{"padding", []function{{0, 16, 16}, {31, 16, 24}}, []place{{15, 16}, {16, 16}, {30, 16}, {31, 24}}},
		{"a gap", []function{{0, 16, 16}, {32, 16, 24}}, []place{{15, 16}, {16, 0}, {31, 0}, {32, 24}, {47, 24}, {48, 0}}},
		{"one in another", []function{{0, 100, 16}, {16, 16, 24}}, []place{{15, 16}, {16, 24}, {31, 24}, {32, 0}, {99, 0}}},
		{"across another", []function{{0, 24, 16}, {16, 32, 24}}, []place{{15, 16}, {16, 24}, {47, 24}, {48, 0}}},
		{"twice", []function{{0, 16, 16}, {0, 16, 24}}, []place{{0, 16}, {15, 16}, {16, 0}}},
		{"empty", []function{{0, 0, 16}, {16, 16, 24}, {20, 0, 32}}, []place{{0, 0}, {16, 24}, {20, 24}, {31, 24}}},
		{"across pages", []function{{0, 10000, 16}}, []place{{0, 16}, {4095, 16}, {4096, 16}, {9999, 16}, {10000, 0}}},
		{"empty pages", []function{{0, 16, 16}, {12288, 16, 24}}, []place{{15, 16}, {4096, 0}, {8192, 0}, {12287, 0}, {12288, 24}}},
		{"up to a page", []function{{0, 4096, 16}}, []place{{4095, 16}, {4096, 0}}},
		{"beyond the code", []function{{0, 1 << 40, 16}}, []place{{16383, 16}, {16384, 0}}},
		{"not in the code", []function{{0, 16, 16}, {1 << 32, 16, 24}, {1 << 62, 16, 24}}, []place{{0, 16}, {1 << 32, 0}, {1 << 62, 0}}},
		{"around the end", []function{{0, 16, 16}, {32, math.MaxUint64 - codeAt, 24}}, []place{{0, 16}, {32, 0}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w writer
			absolute(&w)
			for _, f := range test.functions {
				w.addFDE(codeAt+f.start, f.size, opDefCFAOffset, f.frame)
			}
			table := tableOf(t, &w, 16384)
			for _, p := range test.places {
				want := Rule{}
				if p.frame > 0 {
					want = sp(p.frame)
				}
				if got := table.Find(codeAt + p.offset); got != want {
					t.Errorf("%d: %+v, want %+v", p.offset, got, want)
				}
			}
			if got := table.Find(codeAt - 1); got != (Rule{}) {
				t.Errorf("before all: %+v", got)
			}
		})
	}
}

// The ways in which addresses are written, and what CIEs may have.
func TestEncodings(t *testing.T) {
	le := binary.LittleEndian
	u16 := func(v int64) []byte { return le.AppendUint16(nil, uint16(v)) }
	u32 := func(v int64) []byte { return le.AppendUint32(nil, uint32(v)) }
	u64 := func(v int64) []byte { return le.AppendUint64(nil, uint64(v)) }
	uleb := func(v int64) []byte { return binary.AppendUvarint(nil, uint64(v)) }
	for _, test := range []struct {
		name               string
		augmentation, data string
		number             func(int64) []byte
		here               bool
		fde                string // the augmentation of the FDE
		bad                bool
	}{
		{name: "absolute", number: u64},
		{name: "udata4", augmentation: "zR", data: "\x03", number: u32, fde: "\x00"},
		{name: "udata8", augmentation: "zR", data: "\x04", number: u64, fde: "\x00"},
		{name: "uleb128", augmentation: "zR", data: "\x01", number: uleb, fde: "\x00"},
		{name: "sdata4 here", augmentation: "zR", data: "\x1b", number: u32, here: true, fde: "\x00"},
		{name: "sdata8 here", augmentation: "zR", data: "\x1c", number: u64, here: true, fde: "\x00"},
		{name: "sdata2 too short", augmentation: "zR", data: "\x0a", number: u16, fde: "\x00", bad: true},
		{name: "LSDA", augmentation: "zRL", data: "\x1b\x1b", number: u32, here: true, fde: "\x04\x01\x02\x03\x04"},
		{name: "personality", augmentation: "zPLR", data: "\x9b\x01\x02\x03\x04\x1b\x1b", number: u32, here: true, fde: "\x04\x01\x02\x03\x04"},
		{name: "personality omitted", augmentation: "zPR", data: "\xff\x1b", number: u32, here: true, fde: "\x00"},
		{name: "personality aligned", augmentation: "zPR", data: "\x50\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\x1b", number: u32, here: true, fde: "\x00"},
		{name: "arm64's letters", augmentation: "zRBG", data: "\x1b", number: u32, here: true, fde: "\x00"},
		{name: "a letter of the future", augmentation: "zRX", data: "\x1b\x77", number: u32, here: true, fde: "\x00"},
		{name: "without a length", augmentation: "R", number: u64, bad: true},
		{name: "indirect", augmentation: "zR", data: "\x9b", number: u32, here: true, fde: "\x00", bad: true},
		{name: "relative to data", augmentation: "zR", data: "\x3b", number: u32, here: true, fde: "\x00", bad: true},
		{name: "of no form", augmentation: "zR", data: "\x0f", number: u32, fde: "\x00", bad: true},
		{name: "augmentation too long", augmentation: "zR", data: "\x1b", number: u32, here: true, fde: "\x7f", bad: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w writer
			w.addCIE(test.augmentation, test.data, def...)
			start := int64(codeAt)
			if test.here {
				start -= frameAt + int64(w.Len()) + 8
			}
			body := append(test.number(start), test.number(16)...)
			w.addRaw(append(append(body, test.fde...), opDefCFAOffset, 32))
			want := sp(32)
			if test.bad {
				absolute(&w)
				w.addFDE(codeAt+64, 16)
				want = Rule{}
			}
			if got := tableOf(t, &w, 4096).Find(codeAt); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// A .debug_frame is used for what .eh_frame doesn't have, and may have its CIEs behind.
func TestDebugFrame(t *testing.T) {
	var eh writer
	absolute(&eh)
	eh.addFDE(codeAt, 16, opDefCFAOffset, 16)
	var debug writer
	debug.debug = true
	debug.cie = 72 // where it will be
	debug.addFDE(codeAt, 16, opDefCFAOffset, 24)
	debug.addFDE(codeAt+100, 16, opDefCFAOffset, 32)
	body := append([]byte{4, 0, 8, 0, 1, 0x78, 16}, def...)
	debug.Write(make([]byte, 72-debug.Len())) // padding is no entry
	debug.entry(math.MaxUint32, body)
	table, err := Open(bytes.NewReader(image(elf.EM_X86_64, make([]byte, 4096), 0, map[string][]byte{".eh_frame": eh.Bytes(), ".debug_frame": debug.Bytes()})))
	if err != nil {
		t.Fatal(err)
	}
	checkTable(t, table)
	for offset, want := range map[uint64]Rule{0: sp(16), 16: {}, 99: {}, 100: sp(32), 115: sp(32), 116: {}} {
		if got := table.Find(codeAt + offset); got != want {
			t.Errorf("%d: %+v, want %+v", offset, got, want)
		}
	}
}

// What is wrong with one section doesn't matter to the other.
func TestOneGood(t *testing.T) {
	for _, bad := range []string{".eh_frame", ".debug_frame"} {
		good := map[string]string{".eh_frame": ".debug_frame", ".debug_frame": ".eh_frame"}[bad]
		w := writer{debug: good == ".debug_frame"}
		absolute(&w)
		w.addFDE(codeAt, 16)
		table, err := Open(bytes.NewReader(image(elf.EM_X86_64, make([]byte, 4096), 0, map[string][]byte{good: w.Bytes(), bad: []byte("\x01\x02\x03\x04\x05")})))
		if err != nil {
			t.Fatal(err)
		}
		if got := table.Find(codeAt); got != sp(8) {
			t.Errorf("%+v", got)
		}
	}
}

// Entries with lengths of 64 bits.
func TestLongEntries(t *testing.T) {
	for _, debug := range []bool{false, true} {
		short := writer{debug: debug}
		absolute(&short)
		short.addFDE(codeAt, 16, opDefCFAOffset, 16)
		long := writer{debug: debug}
		c := cursor{data: short.Bytes()}
		cie := 0
		for n := range 2 {
			entry := c.take(uint64(c.uint32()))
			id := uint64(binary.LittleEndian.Uint32(entry))
			width := 4
			if debug {
				width = 8
			}
			begin := long.Len() + 12
			_ = binary.Write(&long, binary.LittleEndian, uint32(math.MaxUint32))
			_ = binary.Write(&long, binary.LittleEndian, uint64(len(entry)-4+width))
			switch {
			case n == 0 && debug:
				id = math.MaxUint64
			case n == 1 && debug:
				id = uint64(cie)
			case n == 1:
				id = uint64(begin - cie)
			}
			long.Write(binary.LittleEndian.AppendUint64(nil, id)[:width])
			long.Write(entry[4:])
		}
		if got := tableOf(t, &long, 4096).Find(codeAt); got != sp(16) {
			t.Errorf("debug %v: %+v", debug, got)
		}
	}
}

// A file without section headers has its .eh_frame by a program header.
func TestNoSections(t *testing.T) {
	var w writer
	absolute(&w)
	w.addFDE(codeAt, 16, opDefCFAOffset, 16)
	header := []byte{1, 0x1b, 0x03, 0x3b}
	header = binary.LittleEndian.AppendUint32(header, uint32(0x100000000-0x10000-4))
	w.Write([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3}) // an end, and what isn't part of it
	table, err := Open(bytes.NewReader(image(elf.EM_X86_64, make([]byte, 4096), 0, map[string][]byte{".eh_frame": w.Bytes(), ".eh_frame_hdr": header})))
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Find(codeAt); got != sp(16) {
		t.Errorf("%+v", got)
	}
}

// What is made to hurt gives an error by name, or a table of what else there is, in little
// time and memory.
func TestHostile(t *testing.T) {
	frames := func(fill func(w *writer)) []byte {
		var w writer
		fill(&w)
		return image(elf.EM_X86_64, make([]byte, 65536), 0, map[string][]byte{".eh_frame": w.Bytes()})
	}
	good := frames(func(w *writer) {
		absolute(w)
		w.addFDE(codeAt, 16)
	})
	patched := func(at int, b ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], b)
		return out
	}
	frame := 4096 + 65536 // offset of .eh_frame
	for _, test := range []struct {
		name string
		file []byte
		want error
	}{
		{"empty", nil, symbols.ErrNoELF},
		{"text", []byte("#!/bin/sh\n"), symbols.ErrNoELF},
		{"only the magic", []byte("\x7fELF"), symbols.ErrNoELF},
		{"another machine", patched(18, byte(elf.EM_RISCV)), ErrMachine},
		{"no frames", frames(func(*writer) {}), ErrNoFrames},
		{"no code", patched(64+4, byte(elf.PF_R)), ErrNoFrames},
		{"a CIE only", frames(absolute), ErrNoFrames},
		{"an entry that is too long", frames(func(w *writer) {
			absolute(w)
			w.Write([]byte{0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0})
		}), ErrMalformed},
		{"an entry that is too long by 64 bits", frames(func(w *writer) {
			w.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}), ErrMalformed},
		{"an entry that is too short", frames(func(w *writer) { w.Write([]byte{2, 0, 0, 0, 0, 0}) }), ErrMalformed},
		{"an FDE that is its own CIE", frames(func(w *writer) { w.Write([]byte{8, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4}) }), ErrNoFrames},
		{"a CIE before all", frames(func(w *writer) { w.Write([]byte{8, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 2, 3, 4}) }), ErrNoFrames},
		{"a CIE one byte before all", frames(func(w *writer) {
			absolute(w)
			w.cie = -1
			w.addFDE(codeAt, 16)
		}), ErrNoFrames},
		{"a CIE in the middle of another", frames(func(w *writer) {
			absolute(w)
			w.cie += 4
			w.addFDE(codeAt, 16)
		}), ErrNoFrames},
		{"a CIE of another version", frames(func(w *writer) {
			w.entry(0, append([]byte{9, 0, 1, 0x78, 16}, def...))
			w.addFDE(codeAt, 16)
		}), ErrNoFrames},
		{"a CIE that moves", frames(func(w *writer) {
			w.addCIE("", "", append(bytes.Clone(def), opAdvanceLoc|1)...)
			w.addFDE(codeAt, 16)
		}), ErrNoFrames},
		{"a CIE with huge factors", frames(func(w *writer) {
			w.entry(0, append([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x78, 16}, def...))
			w.addFDE(codeAt, 16)
		}), ErrNoFrames},
		{"many CIEs", frames(func(w *writer) {
			for range maxCIEs + 1 {
				w.entry(0, []byte{1})
			}
		}), ErrTooLarge},
		{"advances by 2^40", frames(func(w *writer) {
			absolute(w)
			var program []byte
			for range 1024 {
				program = append(program, opAdvanceLoc4, 0xff, 0xff, 0xff, 0xff, opDefCFAOffset, 16)
			}
			w.addFDE(codeAt, 1<<40, program...)
		}), nil},
		{"many states put aside", frames(func(w *writer) {
			absolute(w)
			w.addFDE(codeAt, 16, bytes.Repeat([]byte{opRememberState}, 1<<20)...)
			w.addFDE(codeAt+16, 16)
		}), nil},
		{"many rules", frames(func(w *writer) {
			absolute(w)
			var program []byte
			for i := range maxRules + 1 {
				program = append(program, opAdvanceLoc|1, opDefCFAOffset, byte(i)|0x80, byte(i>>7)|0x80, 1)
			}
			w.addFDE(codeAt, 65536, program...)
		}), ErrTooLarge},
		{"a section that the file does not have", patched(len(good)-3*64+64+32, 0xff, 0xff, 0, 1), ErrMalformed},
		{"a section of 2^40 bytes", patched(len(good)-3*64+64+32, 0, 0, 0, 0, 0, 1), ErrTooLarge},
		{"cut off in its frames", patched(frame)[:frame+20], symbols.ErrNoELF}, // the section headers are at the end
		{"code of 2^60 bytes", patched(64+32, 0, 0, 0, 0, 0, 0, 0, 0x10), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			table, err := Open(bytes.NewReader(test.file))
			if !errors.Is(err, test.want) || err == nil && test.want != nil {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err == nil {
				checkTable(t, table)
				if table.Bytes() > 1<<20 {
					t.Errorf("its table takes %d bytes", table.Bytes())
				}
			}
		})
	}
}

// A file of which only the headers can be read gives the error of reading.
func TestReadError(t *testing.T) {
	var w writer
	absolute(&w)
	w.addFDE(codeAt, 16)
	file := image(elf.EM_X86_64, make([]byte, 4096), 0, map[string][]byte{".eh_frame": w.Bytes()})
	broken := errors.New("the disk is broken")
	_, err := Open(failing{bytes.NewReader(file), 8192, 8192 + int64(w.Len()), broken})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), ".eh_frame") {
		t.Errorf("error %v", err)
	}
}

// failing can't read some of a file.
type failing struct {
	io.ReaderAt
	from, to int64
	err      error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

func ExampleTable_Find() {
	var w writer
	absolute(&w)
	w.addFDE(codeAt, 16)
	table, err := Open(bytes.NewReader(image(elf.EM_X86_64, make([]byte, 4096), 0, map[string][]byte{".eh_frame": w.Bytes()})))
	if err != nil {
		panic(err)
	}
	fmt.Println(table.Find(codeAt).Offset)
	// Output: 8
}

// Whatever a section has, its table is in order, or there is none.
func FuzzOpen(f *testing.F) {
	var plain writer
	absolute(&plain)
	plain.addFDE(codeAt, 100, opAdvanceLoc|4, opRememberState, opDefCFAOffset, 16, opOffset|6, 2, opAdvanceLoc|40, opRestoreState)
	plain.addFDE(codeAt+128, 5000, opAdvanceLoc2, 0, 8, opDefCFAExpression, 4, opBreg0+7, 8, opDeref, opNop)
	f.Add(plain.Bytes(), false, false)
	var relative writer
	relative.addCIE("zPLR", "\x9b\x01\x02\x03\x04\x1b\x1b", def...)
	relative.addRaw([]byte{0, 0x10, 0xf0, 0xff, 0x40, 0, 0, 0, 4, 0, 0, 0, 0, opAdvanceLoc | 1, opUndefined, 16})
	relative.addCIE("zRS", "\x1b", def...)
	relative.addRaw([]byte{0, 0x20, 0xf0, 0xff, 0x40, 0, 0, 0, 0, opExpression, 16, 3, opBreg0 + 7, 0xa8, 0x01})
	f.Add(relative.Bytes(), false, true)
	debug := writer{debug: true}
	absolute(&debug)
	debug.addFDE(codeAt, 16, opSetLoc, 8, 0x10, 0x40, 0, 0, 0, 0, 0, opRegister, 16, 5, opGNUArgsSize, 8)
	f.Add(debug.Bytes(), true, false)
	f.Fuzz(func(t *testing.T, data []byte, debug, arm64 bool) {
		machine, name := elf.EM_X86_64, ".eh_frame"
		if arm64 {
			machine = elf.EM_AARCH64
		}
		if debug {
			name = ".debug_frame"
		}
		table, err := Open(bytes.NewReader(image(machine, make([]byte, 16384), 0, map[string][]byte{name: data})))
		if err != nil {
			if !errors.Is(err, ErrNoFrames) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v", err)
			}
			return
		}
		checkTable(t, table)
		for _, r := range table.Rules {
			checkRule(t, r, machine)
		}
	})
}

// checkRule checks that those who walk understand a rule.
func checkRule(t *testing.T, r Rule, machine elf.Machine) {
	t.Helper()
	switch {
	case r.Cfa == Unknown || r.Cfa == End:
		if r != (Rule{Cfa: r.Cfa}) {
			t.Errorf("%+v says more than that nothing is known", r)
		}
	case r.Cfa == Signal:
		if r.Offset < 0 {
			t.Errorf("%+v is below the stack", r)
		}
	case r.Cfa > Signal || r.Fp > AtFP || r.Ra > AtCFA || r.Flags > Elsewhere:
		t.Errorf("%+v makes no sense", r)
	case machine == elf.EM_X86_64 && r.Ra != AtCFA:
		t.Errorf("%+v has no return address", r)
	case r.Cfa == SP && machine == elf.EM_X86_64 && r.Offset < 8 && !(r.Offset == 0 && r.RaOffset == -1 && r.Flags == Elsewhere), r.Cfa == SP && r.Offset < 0:
		t.Errorf("%+v: the caller's stack would not be above", r)
	}
}
