package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
)

// A burner is an ELF file with one function, which counts down and does nothing else: no
// loader, no library, no start-up that would be sampled too.

// spins is about how often a burner counts down in 30 ms on a machine that is not emulated.
const spins = 60_000_000

// writeBurner writes a program, if that is wanted, or what is mapped as a library is. Its
// function has this name and begins at burnerOffset in the file.
func writeBurner(t testing.TB, path, function string, program bool, n uint32) {
	t.Helper()
	writeELF(t, path, program, []codePart{{function, burnerCode(program, n)}}, nil)
}

// codePart is a function and its code.
type codePart struct {
	name string
	code []byte
}

const burnerBase = 1 << 22 // its address

// writeELF writes a program, if that is wanted, or what is mapped as a library is, of functions
// one behind the other, the first at burnerOffset. frames makes the section that tells of their
// frames, which will be at an address; it may be nil.
func writeELF(t testing.TB, path string, program bool, functions []codePart, frames func(addr uint64) []byte) {
	t.Helper()
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Version: uint32(elf.EV_CURRENT), Machine: uint16(elf.EM_X86_64),
		Ehsize: 64, Phoff: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: 5, Shstrndx: 3,
	}
	if runtime.GOARCH == "arm64" {
		header.Machine = uint16(elf.EM_AARCH64)
	}
	if program {
		header.Type, header.Entry = uint16(elf.ET_EXEC), burnerBase+burnerOffset
	}
	names := "\x00.text\x00.symtab\x00.strtab\x00.eh_frame\x00"
	symbols := []elf.Sym64{{}}
	var code []byte
	for _, f := range functions {
		symbols = append(symbols, elf.Sym64{
			Name: uint32(len(names)), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1,
			Value: burnerBase + burnerOffset + uint64(len(code)), Size: uint64(len(f.code)),
		})
		names += f.name + "\x00"
		code = append(code, f.code...)
	}
	size := uint64(len(code))
	code = append(code, make([]byte, -len(code)&7)...)
	framesAt := burnerOffset + uint64(len(code))
	var table []byte
	if frames != nil {
		table = frames(burnerBase + framesAt)
	}
	symbolsAt := framesAt + uint64(len(table))
	namesAt := symbolsAt + uint64(len(symbols))*elf.Sym64Size
	header.Shoff = namesAt + uint64(len(names))
	var b bytes.Buffer
	put := func(parts ...any) {
		for _, part := range parts {
			if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(header, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: burnerBase, Paddr: burnerBase, Filesz: symbolsAt, Memsz: symbolsAt, Align: 1 << 16})
	put(make([]byte, burnerOffset-b.Len()), code, table, symbols, []byte(names))
	put(elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: burnerBase + burnerOffset, Off: burnerOffset, Size: size},
		elf.Section64{Name: 7, Type: uint32(elf.SHT_SYMTAB), Off: symbolsAt, Size: uint64(len(symbols)) * elf.Sym64Size, Link: 3, Info: 1, Entsize: elf.Sym64Size},
		elf.Section64{Name: 15, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))},
		elf.Section64{Name: 23, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addr: burnerBase + framesAt, Off: framesAt, Size: uint64(len(table))})
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}

const burnerOffset = 0x100

// burnerCode counts down from n, then returns or ends the program.
func burnerCode(program bool, n uint32) []byte {
	var b []byte
	if runtime.GOARCH == "arm64" {
		words := []uint32{
			0x52800000 | n&0xffff<<5, // movz w0, #low
			0x72a00000 | n>>16<<5,    // movk w0, #high, lsl #16
			0x71000400,               // subs w0, w0, #1
			0x54ffffe1,               // b.ne to the line above
		}
		if program {
			// exit_group(0), and more, as a call returns to what is behind it: mov w0, #0; mov w8, #94; svc #0; brk
			words = append(words, 0x52800000, 0x52800000|94<<5|8, 0xd4000001, 0xd4200000)
		} else {
			words = append(words, 0xd65f03c0) // ret
		}
		for _, w := range words {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	b = append(b, 0xb9) // mov ecx, n
	b = binary.LittleEndian.AppendUint32(b, n)
	b = append(b, 0xff, 0xc9, 0x75, 0xfc) // dec ecx; jnz to it
	if program {
		return append(b, 0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, 0xf4) // exit_group(0), likewise: mov eax, 231; xor edi, edi; syscall; hlt
	}
	return append(b, 0xc3) // ret
}

// writeChain writes a program that burns CPU time in a function that is called by another,
// and that by one more, all without frame pointers.
func writeChain(t testing.TB, path string, n uint32) {
	t.Helper()
	writeChainOf(t, path, burnerCode(true, n))
}

// writeChainOf is writeChain with other code of the function.
func writeChainOf(t testing.TB, path string, burn []byte) {
	t.Helper()
	start, outer, middle := chainCode()
	// Of each function, the instructions of DWARF that tell of its frame.
	tells := [][]byte{{0x07, 16}, {0x40 | 4, 0x0e, 32}, {0x40 | 1, 0x0e, 16, 0x83, 2, 0x40 | 7, 0x0e, 0x90, 0x20}, nil}
	// Code is in bytes, data in minus 8; the return address is register 16; the base is 8 bytes
	// above register 7, and the return address right below it.
	common := []byte{1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1}
	if runtime.GOARCH == "arm64" {
		tells = [][]byte{{0x07, 30}, {0x40 | 4, 0x0e, 32, 0x40 | 4, 0x9e, 3}, {0x40 | 4, 0x0e, 0x80, 0x20, 0x40 | 4, 0x9e, 0x80, 0x04}, nil}
		common = []byte{1, 'z', 'R', 0, 1, 0x78, 30, 1, 0x1b, 0x0c, 31, 0}
	}
	functions := []codePart{{"_start", start}, {"outer", outer}, {"middle", middle}, {"burn_it", burn}}
	writeELF(t, path, true, functions, func(addr uint64) []byte {
		var b []byte
		entry := func(parts ...[]byte) {
			body := slices.Concat(parts...)
			body = append(body, make([]byte, -len(body)&7+4)...)
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(body))), body...)
		}
		word := func(n uint64) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
		entry(word(0), common)
		at := uint64(burnerBase + burnerOffset)
		for i, f := range functions {
			here := uint64(len(b)) + 4 // of what points back to the beginning
			entry(word(here), word(at-(addr+here+4)), word(uint64(len(f.code))), []byte{0}, tells[i])
			at += uint64(len(f.code))
		}
		return append(b, 0, 0, 0, 0)
	})
}

// askerCode asks the kernel for its parent's pid n times, then ends the program.
func askerCode(n uint32) []byte {
	if runtime.GOARCH == "arm64" {
		var b []byte
		for _, w := range []uint32{
			0x52800000 | n&0xffff<<5 | 19,                              // movz w19, #low
			0x72a00000 | n>>16<<5 | 19,                                 // movk w19, #high, lsl #16
			0x52800000 | 173<<5 | 8,                                    // mov w8, #173
			0xd4000001,                                                 // svc #0
			0x71000673,                                                 // subs w19, w19, #1
			0x54000001 | 0x7fffd<<5,                                    // b.ne to the mov
			0x52800000, 0x52800000 | 94<<5 | 8, 0xd4000001, 0xd4200000, // exit_group(0); brk
		} {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	b := binary.LittleEndian.AppendUint32([]byte{0xbb}, n)                // mov ebx, n
	b = append(b, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xff, 0xcb, 0x75, 0xf5) // mov eax, 110; syscall; dec ebx; jnz to the mov
	return append(b, 0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, 0xf4)    // exit_group(0); hlt
}

// chainCode gives the code of three functions, each of which calls the next one.
func chainCode() (start, outer, middle []byte) {
	if runtime.GOARCH == "arm64" {
		code := func(words ...uint32) (b []byte) {
			for _, w := range words {
				b = binary.LittleEndian.AppendUint32(b, w)
			}
			return b
		}
		const bl, brk, ret = 0x94000000, 0xd4200000, 0xd65f03c0
		start = code(bl|2, brk)
		outer = code(
			0xd10083ff, // sub sp, sp, #32
			0xf90007fe, // str x30, [sp, #8]
			bl|4,
			0xf94007fe, // ldr x30, [sp, #8]
			0x910083ff, // add sp, sp, #32
			ret)
		middle = code(
			0xd14007ff, // sub sp, sp, #4096
			0xf90003fe, // str x30, [sp]
			bl|4,
			0xf94003fe, // ldr x30, [sp]
			0x914007ff, // add sp, sp, #4096
			ret)
		return start, outer, middle
	}
	call := func(over int) []byte { return binary.LittleEndian.AppendUint32([]byte{0xe8}, uint32(over)) }
	start = append(call(1), 0xf4) // hlt
	// sub $24, %rsp; call; add $24, %rsp; ret
	outer = slices.Concat([]byte{0x48, 0x83, 0xec, 24}, call(5), []byte{0x48, 0x83, 0xc4, 24, 0xc3})
	// push %rbx; sub $4096, %rsp; call; add $4096, %rsp; pop %rbx; ret
	middle = slices.Concat([]byte{0x53, 0x48, 0x81, 0xec, 0, 0x10, 0, 0}, call(9), []byte{0x48, 0x81, 0xc4, 0, 0x10, 0, 0, 0x5b, 0xc3})
	return start, outer, middle
}

// The file is what it is to be, by another's reading.
func TestBurner(t *testing.T) {
	path := t.TempDir() + "/burner"
	for _, program := range []bool{true, false} {
		writeBurner(t, path, "burn_it", program, 100)
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := f.Symbols()
		f.Close()
		if err != nil || len(symbols) != 1 || symbols[0].Name != "burn_it" {
			t.Errorf("%v, %+v", err, symbols)
		}
		if got := fmt.Sprintf("%x", burnerCode(program, 0x12345678)); runtime.GOARCH == "amd64" && !program && got != "b978563412ffc975fcc3" {
			t.Error(got)
		}
	}
}
