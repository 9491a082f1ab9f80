package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
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
	const base = 1 << 22
	code := burnerCode(program, n)
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Version: uint32(elf.EV_CURRENT), Machine: uint16(elf.EM_X86_64),
		Ehsize: 64, Phoff: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: 4, Shstrndx: 3,
	}
	if runtime.GOARCH == "arm64" {
		header.Machine = uint16(elf.EM_AARCH64)
	}
	if program {
		header.Type, header.Entry = uint16(elf.ET_EXEC), base+burnerOffset
	}
	names := "\x00.text\x00.symtab\x00.strtab\x00" + function + "\x00"
	symbols := []elf.Sym64{{}, {
		Name: uint32(len(names) - len(function) - 1), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1,
		Value: base + burnerOffset, Size: uint64(len(code)),
	}}
	symbolsAt := uint64(burnerOffset + len(code))
	namesAt := symbolsAt + 2*elf.Sym64Size
	header.Shoff = namesAt + uint64(len(names))
	var b bytes.Buffer
	put := func(parts ...any) {
		for _, part := range parts {
			if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	size := burnerOffset + uint64(len(code))
	put(header, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 1 << 16})
	put(make([]byte, burnerOffset-b.Len()), code, symbols, []byte(names))
	put(elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: base + burnerOffset, Off: burnerOffset, Size: uint64(len(code))},
		elf.Section64{Name: 7, Type: uint32(elf.SHT_SYMTAB), Off: symbolsAt, Size: 2 * elf.Sym64Size, Link: 3, Info: 1, Entsize: elf.Sym64Size},
		elf.Section64{Name: 15, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))})
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
