package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"unsafe"
)

// execsnoop is measured by a process that runs a program without a runtime again
// and again: an exec, and as little else as can be.
var execsnoop = scenario{
	tool: "execsnoop", event: "exec", load: "execload",
	about: "One load is %d execs of a static program that only exits.",
	arguments: func(b *bench, p paths) []string {
		// The path is not the last one, or the load's own exec would look like one of
		// those that it makes.
		return []string{
			"-program", p.present, "-parents", strconv.Itoa(b.parents), "-n", strconv.Itoa(b.scenario.count), "-cpu", strconv.Itoa(b.cpu),
		}
	},
	prepare: func(p paths) error {
		for _, file := range slices.Concat([]string{p.present, p.opening}, p.closing) {
			if err := writeProgram(file); err != nil {
				return err
			}
		}
		return nil
	},
	own: []way{
		{name: ""},
		{name: "-x", options: []string{"-x"}},
	},
	unit: "µs", unitNS: 1000, decimal: "%.1f",
	hard:          hard{title: "from 4 processes at once, on all CPUs", parents: 4},
	addedOfLibbpf: 0.5, mapMemory: 2000,
}

// exits is machine code that ends the process with status 0.
var exits = map[string][]byte{
	"amd64": {
		0xb8, 0x3c, 0, 0, 0, // mov eax, 60 (exit)
		0x31, 0xff, // xor edi, edi
		0x0f, 0x05, // syscall
	},
	"arm64": {
		0xa8, 0x0b, 0x80, 0xd2, // mov x8, 93 (exit)
		0x00, 0x00, 0x80, 0xd2, // mov x0, 0
		0x01, 0x00, 0x00, 0xd4, // svc 0
	},
}

// writeProgram makes an executable file that does nothing: one page, no runtime,
// no loader, so that running it is as little beside the exec as can be.
func writeProgram(file string) error {
	code, machine := exits[runtime.GOARCH], map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if code == nil {
		return fmt.Errorf("no program that does nothing is known for %s", runtime.GOARCH)
	}
	const base = 0x10000
	var header elf.Header64
	var segment elf.Prog64
	start := uint64(unsafe.Sizeof(header) + unsafe.Sizeof(segment))
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	header.Type, header.Machine, header.Version = uint16(elf.ET_EXEC), uint16(machine), uint32(elf.EV_CURRENT)
	header.Entry, header.Phoff = base+start, uint64(unsafe.Sizeof(header))
	header.Ehsize, header.Phentsize, header.Phnum = uint16(unsafe.Sizeof(header)), uint16(unsafe.Sizeof(segment)), 1
	segment = elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: start + uint64(len(code)), Memsz: start + uint64(len(code)), Align: base,
	}
	var b bytes.Buffer
	for _, part := range []any{header, segment, code} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	return os.WriteFile(file, b.Bytes(), 0o755)
}
