package main

import (
	"debug/elf"
	"errors"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// copied is what a sample has of a user stack that is still to be walked.
type copied struct {
	Registers unwind.Registers
	Memory    unwind.Memory
	Most      uint64 // bytes of each stack that were to be copied
}

// reaches reports whether an address is where it was tried to copy.
func (c *copied) reaches(addr uint64) bool {
	return slices.ContainsFunc(c.Memory, func(p unwind.Piece) bool { return addr-p.Start < c.Most })
}

// add adds a copy of a stack. Holes has a bit for each page that could not be read, the
// lowest first.
func (c *copied) add(start uint64, b []byte, holes uint32) {
	const page = 4096 // COPY_STEP
	apart := true     // what comes is apart from what was last
	for at := 0; at < len(b); holes >>= 1 {
		size := min(page-int((start+uint64(at))%page), len(b)-at)
		switch last := len(c.Memory) - 1; {
		case holes&1 != 0:
			apart = true
		case apart:
			c.Memory = append(c.Memory, unwind.Piece{Start: start + uint64(at), Bytes: b[at : at+size]})
			apart = false
		default:
			begin := int(c.Memory[last].Start - start)
			c.Memory[last].Bytes = b[begin : at+size]
		}
		at += size
	}
}

// size is in bytes.
func (c *copied) size() (n int) {
	for _, p := range c.Memory {
		n += len(p.Bytes)
	}
	return n
}

// unwinder walks the stacks that samples have copies of.
type unwinder struct {
	most    int // frames
	walker  unwind.Walker
	reader  *tableReader
	owner   *mappings.Process // whose stack is being walked; nil if it has no pid here
	files   map[*mappings.File]*tabled
	waiting *tabled // what the last walk was in want of; nil if it was not
	rows    int     // of all tables
}

// tabled is a file and what it tells of its frames.
type tabled struct {
	read    chan struct{} // closed when the rest is there; nil if that is known
	table   *unwind.Table // nil if it can't be had
	problem error
}

// mostRows is how many rows all tables may have: 256 MiB of them, more than all files of a
// distribution have.
const mostRows = 64 << 20

func newUnwinder(reader *tableReader) *unwinder {
	u := &unwinder{most: defaultUserDepth, reader: reader, files: map[*mappings.File]*tabled{}}
	u.walker = unwind.Walker{Machine: machine(), Find: u.find, Text: u.text}
	return u
}

func machine() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

// walk gives the frames of a stack, the leaf first, and how they came out; or reports that
// it is in want of a table that is being read.
func (u *unwinder) walk(owner *mappings.Process, c *copied) (frames []uint64, s status, done bool) {
	u.owner, u.waiting = owner, nil
	frames, end := u.walker.Walk(nil, c.Registers, c.Memory, u.most)
	if u.waiting != nil {
		return nil, statusNone, false
	}
	if end == unwind.Fault && len(c.Memory) > 0 && !c.reaches(u.walker.Missing) {
		return frames, statusCopyEnd, true
	}
	return frames, walked[end], true
}

// wait waits for the table that the last walk was in want of.
func (u *unwinder) wait() {
	if u.waiting != nil {
		<-u.waiting.read
	}
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
	t := u.tabled(m.File)
	if t.table == nil {
		return unwind.Code{Kind: unwind.Tableless}
	}
	addr, ok = t.table.Layout.Segments.Address(m.FileOffset(addr))
	if !ok {
		return unwind.Code{Kind: unwind.Tabled} // with no rule
	}
	return unwind.Code{Kind: unwind.Tabled, Rule: t.table.Find(addr)}
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

// tabled gives what a file tells of its frames. It is read while other things go on, as a
// large file takes a second: until then nothing is known of it. Nor is anything if it can't
// be had.
func (u *unwinder) tabled(f *mappings.File) *tabled {
	t := u.files[f]
	if t == nil {
		t = u.open(f)
		u.files[f] = t
	}
	if t.read == nil {
		return t
	}
	select {
	case <-t.read:
	default:
		u.waiting = t
		return &tabled{}
	}
	t.read = nil
	if t.table != nil {
		if u.rows += len(t.table.Rows); u.rows > mostRows {
			u.rows -= len(t.table.Rows)
			t.table, t.problem = nil, errors.New("there is no memory for more tables")
		}
	}
	if t.problem != nil {
		u.reader.complain(f, t.problem)
	}
	return t
}

// open begins to read a file.
func (u *unwinder) open(f *mappings.File) *tabled {
	t := &tabled{read: make(chan struct{})}
	read := u.reader.later(f)
	go func() {
		defer close(t.read)
		t.table, t.problem = read()
	}()
	return t
}
