package symbols

import (
	"debug/elf"
	"fmt"
	"io"
	"math"
)

// A GoFunction is a function of a Go program and what the program's own table tells of its
// stack.
type GoFunction struct {
	Start, End uint64 // its code, End being the first address past it
	Assembly   bool   // it was written in it
	Top        bool   // nobody called it, by what its author says
	// WritesSP says that it goes on with another stack at times, so that Depths are in part
	// of that one.
	WritesSP bool
	// Depths are how much the stack has grown since the function was entered. They are in
	// order, and good until the next function.
	Depths []GoDepth

	table *pclntab
	names *stringTable
	name  uint32
}

// A GoDepth is how many bytes the stack has grown by, in the code before End.
type GoDepth struct {
	End   uint64
	Depth int32
}

// Name is the function's name with that of its package; empty if it can't be read.
func (f *GoFunction) Name() string {
	b, err := f.names.string(f.table.names+uint64(f.name), 512)
	if err != nil {
		return ""
	}
	return string(b)
}

// Flags of functions (abi.FuncFlag).
const (
	goTopFrame = 1 << iota
	goSPWrite
	goAssembly
)

// GoFunctions hands over each function of a Go program in the order of their addresses, until
// that says no. Of a file that isn't one it hands over none.
func GoFunctions(e *elf.File, r io.ReaderAt, handle func(*GoFunction) bool) error {
	p, err := openPclntab(e, r)
	if err != nil || p == nil {
		return err
	}
	if !p.readEntries() {
		return fmt.Errorf("its functions can't be read, or are not in order")
	}
	// The counters of one function may be anywhere among those of others.
	if p.places < p.counters || p.places-p.counters > maxTable/8 || p.places > p.table.size {
		return fmt.Errorf("its counters can't be read")
	}
	counters := make([]byte, p.places-p.counters)
	if _, err := p.table.r.ReadAt(counters, int64(p.counters)); err != nil {
		return fmt.Errorf("read its counters: %w", err)
	}
	f := GoFunction{table: p, names: p.table.another()}
	size := 40
	if p.startLines {
		size = 44
	}
	for i, entry := range p.entries[:max(len(p.entries)-1, 0)] {
		b, err := p.table.bytes(p.places+uint64(entry.offset), size)
		if err != nil {
			return fmt.Errorf("read the record of a function: %w", err)
		}
		flags := b[size-3]
		f.Start, f.End = p.text+uint64(entry.start), p.text+uint64(p.entries[i+1].start)
		f.name = p.order.Uint32(b[4:])
		f.Top, f.WritesSP, f.Assembly = flags&goTopFrame != 0, flags&goSPWrite != 0, flags&goAssembly != 0
		f.Depths = f.Depths[:0]
		// Those of functions that are not Go's, linked in, are not known.
		if offset := p.order.Uint32(b[16:]); offset != 0 && uint64(offset) < uint64(len(counters)) {
			f.depths(counters[offset:])
		}
		if !handle(&f) {
			return nil
		}
	}
	return nil
}

// depths reads a counter.
func (f *GoFunction) depths(counter []byte) {
	value, pc := int32(-1), f.Start
	for step := 0; pc < f.End && step < maxSteps; step++ {
		delta, n := varint32(counter)
		if n == 0 || delta == 0 && step > 0 {
			return
		}
		length, m := varint32(counter[n:])
		if m == 0 || length == 0 {
			return
		}
		counter = counter[n+m:]
		if delta&1 != 0 {
			value += int32(^(delta >> 1))
		} else {
			value += int32(delta >> 1)
		}
		pc += uint64(length) * f.table.quantum
		f.Depths = append(f.Depths, GoDepth{min(pc, f.End), value})
	}
}

// varint32 reads a number of up to 32 bits, and tells how many bytes it takes: none if it
// isn't whole.
func varint32(b []byte) (v uint32, n int) {
	for i := range min(len(b), 5) {
		v |= uint32(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return math.MaxUint32, 0
}
