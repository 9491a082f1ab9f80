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

var crash = []byte{0, 0, 0, 0} // udf

// putImmediate writes a number into the four instructions that move it.
func putImmediate(code []byte, value uint64) {
	for i := range 4 {
		word := binary.LittleEndian.Uint32(code[i*4:])&^(0xffff<<5) | uint32(value>>(16*i)&0xffff)<<5
		binary.LittleEndian.PutUint32(code[i*4:], word)
	}
}

func (p *assembler) word(w uint32) { p.code = binary.LittleEndian.AppendUint32(p.code, w) }

func (p *assembler) move(register uint32, value uint64, isAddress bool) {
	at := len(p.code)
	p.word(0xd2800000 | register) // movz, then movk
	for i := range uint32(3) {
		p.word(0xf2800000 | (i+1)<<21 | register)
	}
	if isAddress {
		p.fixes = append(p.fixes, fix{false, at, int(value)})
	}
	putImmediate(p.code[at:], value)
}

func (p *assembler) call(compat bool, number uintptr, args []any) {
	if compat {
		panic("arm64 has no 32-bit calls in 64-bit programs")
	}
	for i, arg := range args {
		value, isAddress := p.value(arg, false)
		p.move(uint32(i), value, isAddress)
	}
	p.move(8, uint64(number), false)
	p.word(0xd4000001) // svc 0
}

// unlessZero skips the steps if the last call returned another number than 0.
func (p *assembler) unlessZero(steps []Step) {
	from := len(p.code)
	p.word(0)
	for _, step := range steps {
		step(p)
	}
	binary.LittleEndian.PutUint32(p.code[from:], 0xb5000000|uint32(len(p.code)-from)/4<<5) // cbnz x0
}

func (p *assembler) repeat(n int, steps []Step) {
	p.move(19, uint64(n), false)
	from := len(p.code)
	for _, step := range steps {
		step(p)
	}
	p.word(0xd1000673)                                             // sub x19, x19, 1
	p.word(0xb5000013 | uint32((from-len(p.code))/4)&(1<<19-1)<<5) // cbnz x19
}
