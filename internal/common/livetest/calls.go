package livetest

import (
	"encoding/binary"
	"testing"
)

// A Step is a part of what a program of CallProgram does.
type Step func(p *assembler)

// CallProgram makes an executable file at path that does nothing but these steps,
// with no runtime and no loader: no call is made but the ones named, no file is
// opened, and not a byte of its memory is written but by its calls. It ends with
// status 99 if it comes to the end of the steps. Every argument that a step has is
// in memory below 4 GiB, so 32-bit calls take it.
func CallProgram(t testing.TB, path string, steps ...Step) {
	t.Helper()
	p := &assembler{}
	for _, step := range append(steps, Exit(99)) {
		step(p)
	}
	p.link()
	writeProgram(t, path, append(p.code, p.data...))
}

// Call is a system call. An argument is an int or uintptr; a string, which is
// passed as the address of its bytes and a NUL; a []string, as the address of such
// addresses with a 0 behind them; or nil, for 0. Its result is not looked at.
func Call(number uintptr, args ...any) Step {
	return func(p *assembler) { p.call(false, number, args) }
}

// Int80Call is a system call by a 32-bit program on amd64; its numbers are others.
// An address in a []string has 32 bits.
func Int80Call(number uintptr, args ...any) Step {
	return func(p *assembler) { p.call(true, number, args) }
}

// Fork has a child process do the steps and end with status 98 if it comes to
// their end. The program itself goes on at once.
func Fork(steps ...Step) Step {
	return func(p *assembler) {
		p.call(false, sysClone, []any{sigchld, 0, 0, 0, 0})
		p.unlessZero(append(steps, Exit(98)))
	}
}

// Await waits until a child process has ended.
func Await() Step { return Call(sysWait4, -1, 0, 0, 0) }

// Thread has another thread of the program do the steps, which must not return
// from it: their last is an exec that works, or an exit. The first thread waits for
// the end without a word.
func Thread(steps ...Step) Step {
	const vm, fs, files, sighand, thread, sysvsem = 0x100, 0x200, 0x400, 0x800, 0x10000, 0x40000
	return func(p *assembler) {
		// The kernel wants another stack; nothing uses it.
		p.call(false, sysClone, []any{vm | fs | files | sighand | thread | sysvsem, make([]byte, 64), 0, 0, 0})
		p.unlessZero(append(steps, Exit(97)))
		Repeat(1<<30, Call(sysPpoll, 0, 0, 0, 0, 8))(p)
	}
}

// Repeat does the steps n times. It does not stand within another Repeat.
func Repeat(n int, steps ...Step) Step {
	return func(p *assembler) { p.repeat(n, steps) }
}

// Exit ends the program.
func Exit(status int) Step { return Call(sysExitGroup, status) }

// Crash ends the program by SIGILL, whose default is to dump core.
func Crash() Step { return func(p *assembler) { p.code = append(p.code, crash...) } }

// An assembler puts a program together: code, then data.
type assembler struct {
	code, data []byte
	fixes      []fix
}

// A fix is a place in the code or the data for an address in the data.
type fix struct {
	inData bool
	at     int
	to     int // offset in the data
}

// put puts bytes into the data and gives their offset, which is aligned.
func (p *assembler) put(b []byte) int {
	for len(p.data)%16 != 0 {
		p.data = append(p.data, 0)
	}
	at := len(p.data)
	p.data = append(p.data, b...)
	return at
}

// value gives an argument's value or, if isAddress, its offset in the data.
func (p *assembler) value(arg any, compat bool) (value uint64, isAddress bool) {
	switch a := arg.(type) {
	case nil:
		return 0, false
	case int:
		return uint64(a), false
	case uintptr:
		return uint64(a), false
	case string:
		return uint64(p.put(append([]byte(a), 0))), true
	case []byte:
		return uint64(p.put(a)), true
	case []string:
		var offsets []int
		for _, s := range a {
			offsets = append(offsets, p.put(append([]byte(s), 0)))
		}
		size := 8
		if compat {
			size = 4
		}
		list := p.put(make([]byte, (len(a)+1)*size))
		for i, to := range offsets {
			p.fixes = append(p.fixes, fix{true, list + i*size, to})
		}
		return uint64(list), true
	}
	panic("an argument that no call takes")
}

// link writes the addresses of data to where they belong.
func (p *assembler) link() {
	for len(p.code)%16 != 0 {
		p.code = append(p.code, 0)
	}
	start := programBase + programHeaders + len(p.code)
	for _, f := range p.fixes {
		address := uint32(start + f.to)
		if f.inData {
			binary.LittleEndian.PutUint32(p.data[f.at:], address)
		} else {
			putImmediate(p.code[f.at:], uint64(address))
		}
	}
}
