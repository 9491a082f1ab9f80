package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/symbols"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// copied is what a sample has of a user stack that is still to be walked.
type copied struct {
	Registers unwind.Registers
	Stack     []byte // from the stack pointer on
}

func (c *copied) memory() unwind.Memory {
	return unwind.Memory{{Start: c.Registers.SP, Bytes: c.Stack}}
}

// unwinder walks the stacks that samples have copies of.
type unwinder struct {
	most     int // frames
	copySize int // bytes of a copy that is not cut short
	walker   unwind.Walker
	owner    *mappings.Process // whose stack is being walked; nil if it has no pid here
	files    map[*mappings.File]*tabled
	problems []error
}

// tabled is a file and what it tells of its frames.
type tabled struct {
	table    *unwind.Table // nil if it can't be had
	segments []segment
}

// segment is a part of a file that is mapped, and its address by the file's own.
type segment struct{ offset, size, vaddr uint64 }

func newUnwinder() *unwinder {
	u := &unwinder{most: defaultUserDepth, files: map[*mappings.File]*tabled{}}
	u.walker = unwind.Walker{Machine: machine(), Find: u.find, Text: u.text}
	return u
}

func machine() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

// walk gives the frames of a stack, the leaf first, and how they came out.
func (u *unwinder) walk(owner *mappings.Process, c *copied) ([]uint64, status) {
	u.owner = owner
	frames, end := u.walker.Walk(nil, c.Registers, c.memory(), u.most)
	if end == unwind.Fault && len(c.Stack) >= u.copySize {
		return frames, statusCopyEnd
	}
	return frames, walked[end]
}

// walked are the statuses that walks end with.
var walked = [...]status{
	unwind.Complete: statusComplete, unwind.Guessed: statusGuessed, unwind.Depth: statusDepth, unwind.NoMapping: statusNoMapping,
	unwind.NoTable: statusNoTable, unwind.NoRule: statusNoRule, unwind.Fault: statusFault, unwind.Broken: statusBroken,
}

// find tells what is at an address of the process whose stack is walked.
func (u *unwinder) find(addr uint64) unwind.Code {
	if u.owner == nil {
		return unwind.Code{Kind: unwind.Unmapped}
	}
	m, ok := u.owner.Find(addr)
	if !ok {
		return unwind.Code{Kind: unwind.Unmapped}
	}
	switch m.File.Kind {
	case mappings.Anonymous, mappings.Memfd:
		return unwind.Code{Kind: unwind.Generated}
	case mappings.Vsyscall:
		return unwind.Code{Kind: unwind.Vsyscall}
	case mappings.Other:
		return unwind.Code{Kind: unwind.Tableless}
	}
	t := u.files[m.File]
	if t == nil {
		t = u.open(m.File)
		u.files[m.File] = t
	}
	if t.table == nil {
		return unwind.Code{Kind: unwind.Tableless}
	}
	return unwind.Code{Kind: unwind.Tabled, Rule: t.rule(m.FileOffset(addr))}
}

// rule is that of what is at an offset in the file.
func (t *tabled) rule(offset uint64) unwind.Rule {
	for _, s := range t.segments {
		if offset-s.offset < s.size {
			return t.table.Find(offset - s.offset + s.vaddr)
		}
	}
	return unwind.Rule{}
}

// inSignal reports whether an address is one that a signal's handler returns to. Of files that no
// stack was walked in nothing is known.
func (u *unwinder) inSignal(owner *mappings.Process, addr uint64) bool {
	if len(u.files) == 0 || owner == nil {
		return false
	}
	m, ok := owner.Find(addr - 1)
	if !ok {
		return false
	}
	t := u.files[m.File]
	return t != nil && t.table != nil && t.rule(m.FileOffset(addr-1)).Cfa == unwind.Signal
}

// text reads the code of the process whose stack is walked.
func (u *unwinder) text(addr uint64, code []byte) bool {
	if u.owner == nil {
		return false
	}
	n, err := unix.ProcessVMReadv(int(u.owner.PID), []unix.Iovec{{Base: &code[0], Len: uint64(len(code))}},
		[]unix.RemoteIovec{{Base: uintptr(addr), Len: len(code)}}, 0)
	return err == nil && n == len(code)
}

// open reads what a file tells of its frames. If it can't be had, its code is taken as that of
// which nothing is known.
func (u *unwinder) open(f *mappings.File) *tabled {
	t, err := openTable(f)
	if err != nil {
		u.problems = append(u.problems, fmt.Errorf("%s: no stacks can be walked in it but by frame pointers: %w", f.Path, err))
		return &tabled{}
	}
	return t
}

func openTable(f *mappings.File) (*tabled, error) {
	if f.Kind == mappings.VDSO {
		image, err := symbols.VDSOImage()
		if err != nil {
			return nil, err
		}
		return readTable(bytes.NewReader(image))
	}
	file, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readTable(file)
}

func readTable(r io.ReaderAt) (*tabled, error) {
	file, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	t := &tabled{}
	for _, p := range file.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Filesz > 0 {
			t.segments = append(t.segments, segment{p.Off, p.Filesz, p.Vaddr})
		}
	}
	if t.table, err = unwind.Open(r); err != nil {
		return nil, err
	}
	return t, nil
}
