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

// Program makes an executable file at path that opens one file, which is named
// opens, by openat(2) and exits with status. It has no runtime and no loader:
// the open is what its first instructions do, and nothing else is opened.
func Program(t testing.TB, path, opens string, status uint8) {
	t.Helper()
	const base = 0x10000
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: machine, Version: uint32(elf.EV_CURRENT),
		Phoff: uint64(unsafe.Sizeof(elf.Header64{})), Ehsize: uint16(unsafe.Sizeof(elf.Header64{})),
		Phentsize: uint16(unsafe.Sizeof(elf.Prog64{})), Phnum: 1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	start := uint64(unsafe.Sizeof(elf.Header64{}) + unsafe.Sizeof(elf.Prog64{}))
	header.Entry = base + start
	body := append(openAndExit(status), append([]byte(opens), 0)...)
	size := start + uint64(len(body))
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x10000,
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
