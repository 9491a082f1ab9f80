package symbols

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// plt adds the stubs through which a file calls the functions of others. A stub jumps
// to where a slot of the global offset table points, and a relocation tells which
// function the dynamic linker puts there. It is the code that is read, because linkers
// differ in how stubs and relocations are ordered.
func (b *builder) plt(f *File, r io.ReaderAt) error {
	stubs := map[uint64][]codeRange{} // by slot
	for _, s := range f.elf.Sections {
		if s.Name != ".plt" && !strings.HasPrefix(s.Name, ".plt.") || s.Type != elf.SHT_PROGBITS {
			continue
		}
		if s.FileSize > maxPLT {
			return fmt.Errorf("%d bytes are too many", s.FileSize)
		}
		code := make([]byte, s.FileSize)
		if _, err := r.ReadAt(code, int64(s.Offset)); err != nil {
			return err
		}
		for slot, stub := range stubsOf(f.elf.Machine, s.Name, code, s.Addr) {
			stubs[slot] = append(stubs[slot], stub)
		}
	}
	if len(stubs) == 0 || f.elf.Class != elf.ELFCLASS64 {
		return nil
	}
	dynsym := f.section(elf.SHT_DYNSYM)
	order := f.elf.ByteOrder
	var starts map[uint64]symbol
	for _, s := range f.elf.Sections {
		if s.Type != elf.SHT_RELA { //nolint:misspell // ELF's own name
			continue
		}
		in := io.NewSectionReader(r, int64(s.Offset), int64(min(s.FileSize, maxTable)))
		const entry = 24
		buf := make([]byte, block/entry*entry)
		for {
			n, err := io.ReadFull(in, buf)
			for p := buf[:n]; len(p) >= entry; p = p[entry:] {
				at := stubs[order.Uint64(p)]
				if at == nil {
					continue
				}
				sym := symbol{}
				if index := order.Uint64(p[8:]) >> 32; index != 0 {
					if dynsym == nil || len(f.strings) == 0 {
						continue
					}
					name, err := symbolName(r, dynsym, index, order)
					if err != nil {
						continue
					}
					sym.name, sym.strings = name, b.dynamic
				} else {
					// The addend is the function that chooses the function.
					if starts == nil {
						starts = b.byStart()
					}
					target, ok := starts[order.Uint64(p[16:])]
					if !ok {
						continue
					}
					sym = target
				}
				for _, stub := range at {
					sym.start, sym.size, sym.plt = stub.start, stub.end-stub.start, true
					b.symbols = append(b.symbols, sym)
				}
				delete(stubs, order.Uint64(p))
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// byStart gives a symbol for each address, the first of a chooser's names.
func (b *builder) byStart() map[uint64]symbol {
	starts := map[uint64]symbol{}
	for _, s := range b.symbols {
		if old, ok := starts[s.start]; !ok || s.rank > old.rank {
			starts[s.start] = s
		}
	}
	return starts
}

// symbolName gives the offset of the name of one dynamic symbol.
func symbolName(r io.ReaderAt, dynsym *elf.Section, index uint64, order binary.ByteOrder) (uint32, error) {
	if index >= dynsym.FileSize/elf.Sym64Size {
		return 0, io.ErrUnexpectedEOF
	}
	var b [4]byte
	if _, err := r.ReadAt(b[:], int64(dynsym.Offset+index*elf.Sym64Size)); err != nil {
		return 0, err
	}
	return order.Uint32(b[:]), nil
}

// stubsOf finds the stubs in a section, by the slot that each jumps through.
func stubsOf(machine elf.Machine, section string, code []byte, addr uint64) map[uint64]codeRange {
	stubs := map[uint64]codeRange{}
	// Each jump ends a stub but for padding, so that the next one starts where a jump,
	// and the instructions before it that belong to it, do.
	switch machine {
	case elf.EM_X86_64:
		size := 16
		if section == ".plt.got" && len(code) >= 8 && !slices.Equal(code[:4], endbr64) {
			size = 8
		}
		for i := 0; i+size <= len(code); i += size {
			stub := code[i : i+size]
			j := 0
			if len(stub) >= 4 && slices.Equal(stub[:4], endbr64) {
				j = 4
			}
			if j < len(stub) && stub[j] == 0xf2 { // bnd
				j++
			}
			// jmp *slot(%rip)
			if j+6 > len(stub) || stub[j] != 0xff || stub[j+1] != 0x25 {
				continue
			}
			disp := int64(int32(binary.LittleEndian.Uint32(stub[j+2:])))
			start := addr + uint64(i)
			slot := start + uint64(j+6) + uint64(disp)
			stubs[slot] = codeRange{start, start + uint64(size)}
		}
	case elf.EM_AARCH64:
		for i := 0; i+12 <= len(code); i += 4 {
			adrp := binary.LittleEndian.Uint32(code[i:])
			ldr := binary.LittleEndian.Uint32(code[i+4:])
			// adrp x16, page; ldr x17, [x16, #offset]
			if adrp&0x9f00001f != 0x90000010 || ldr&0xffc003ff != 0xf9400211 {
				continue
			}
			page := int64(int32(adrp<<8)>>13)<<2 | int64(adrp>>29&3)
			start := addr + uint64(i)
			slot := start&^4095 + uint64(page<<12) + uint64(ldr>>10&0xfff)*8
			from := start
			if i >= 4 && binary.LittleEndian.Uint32(code[i-4:]) == 0xd503245f { // bti c
				from -= 4
			}
			stubs[slot] = codeRange{from, start + 16}
		}
	}
	return stubs
}

var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}
