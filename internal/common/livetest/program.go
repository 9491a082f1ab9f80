package livetest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// programBase is the address of the programs made here, below 4 GiB, and their
// code begins behind programHeaders bytes.
const (
	programBase    = 0x10000
	programHeaders = int(unsafe.Sizeof(elf.Header64{}) + unsafe.Sizeof(elf.Prog64{}))
)

// Program makes an executable file at path that opens one file, which is named
// opens, by openat(2) and exits with status. It has no runtime and no loader:
// the open is what its first instructions do, and nothing else is opened.
func Program(t testing.TB, path, opens string, status uint8) {
	t.Helper()
	writeProgram(t, path, append(openAndExit(status), append([]byte(opens), 0)...))
}

// writeProgram makes an executable file of code that begins at its first byte.
func writeProgram(t testing.TB, path string, body []byte) {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: machine, Version: uint32(elf.EV_CURRENT),
		Phoff: uint64(unsafe.Sizeof(elf.Header64{})), Ehsize: uint16(unsafe.Sizeof(elf.Header64{})),
		Phentsize: uint16(unsafe.Sizeof(elf.Prog64{})), Phnum: 1,
		Entry: programBase + uint64(programHeaders),
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	size := uint64(programHeaders + len(body))
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X),
		Vaddr: programBase, Paddr: programBase, Filesz: size, Memsz: size, Align: 0x10000,
	}
	var b bytes.Buffer
	for _, part := range []any{header, segment, body} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatalf("make a program: %v", err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatalf("make a program: %v", err)
	}
	// Not subject to the umask.
	if err := unix.Chmod(path, 0o755); err != nil {
		t.Fatalf("make a program: %v", err)
	}
}
