package livetest

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	sysClone     = unix.SYS_CLONE
	sysWait4     = unix.SYS_WAIT4
	sysPpoll     = unix.SYS_PPOLL
	sysExitGroup = unix.SYS_EXIT_GROUP
	sigchld      = int(unix.SIGCHLD)
)

var crash = []byte{0x0f, 0x0b} // ud2

// Registers of the arguments, as "mov register, 64 bits" begins with them.
var (
	moveArgument = [][]byte{
		{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}, // rdi rsi rdx r10 r8 r9
	}
	moveArgument32 = [][]byte{
		{0x48, 0xbb}, {0x48, 0xb9}, {0x48, 0xba}, {0x48, 0xbe}, {0x48, 0xbf}, {0x48, 0xbd}, // rbx rcx rdx rsi rdi rbp
	}
)

func putImmediate(code []byte, value uint64) { binary.LittleEndian.PutUint64(code, value) }

func (p *assembler) move(register []byte, value uint64, isAddress bool) {
	p.code = append(p.code, register...)
	if isAddress {
		p.fixes = append(p.fixes, fix{false, len(p.code), int(value)})
	}
	p.code = binary.LittleEndian.AppendUint64(p.code, value)
}

func (p *assembler) call(compat bool, number uintptr, args []any) {
	registers, enter := moveArgument, []byte{0x0f, 0x05} // syscall
	if compat {
		registers, enter = moveArgument32, []byte{0xcd, 0x80} // int 0x80
	}
	for i, arg := range args {
		value, isAddress := p.value(arg, compat)
		p.move(registers[i], value, isAddress)
	}
	p.move([]byte{0x48, 0xb8}, uint64(number), false) // rax
	p.code = append(p.code, enter...)
}

// unlessZero skips the steps if the last call returned another number than 0.
func (p *assembler) unlessZero(steps []Step) {
	p.code = append(p.code, 0x48, 0x85, 0xc0, 0x0f, 0x85, 0, 0, 0, 0) // test rax, rax; jnz
	from := len(p.code)
	for _, step := range steps {
		step(p)
	}
	binary.LittleEndian.PutUint32(p.code[from-4:], uint32(len(p.code)-from))
}

func (p *assembler) repeat(n int, steps []Step) {
	p.move([]byte{0x49, 0xbc}, uint64(n), false) // r12
	from := len(p.code)
	for _, step := range steps {
		step(p)
	}
	p.code = append(p.code, 0x49, 0xff, 0xcc, 0x0f, 0x85) // dec r12; jnz
	p.code = binary.LittleEndian.AppendUint32(p.code, uint32(from-len(p.code)-4))
}
