package unwind

import (
	"bytes"
	"debug/elf"
	"fmt"
	"math"
	"strings"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// maxGoPadding is how many bytes Go's linker pads functions with at most.
const maxGoPadding = 64

// maxGoSpans bounds what is believed of a table that is made to hurt: the largest programs have
// a million.
const maxGoSpans = 4 << 20

// goSpans makes spans of what a Go program's own table tells: how deep the stack is at each
// instruction. The compiler writes no .eh_frame.
func (f *file) goSpans() ([]span, error) {
	var spans []span
	var special []span
	known := map[Rule]uint32{}
	add := func(start, end uint64, r Rule) {
		if start >= end {
			return
		}
		number, ok := known[r]
		if !ok {
			number = f.rule(r)
			known[r] = number
		}
		if n := len(spans); n > 0 && spans[n-1].end == start && spans[n-1].from == number {
			spans[n-1].end = end
			return
		}
		spans = append(spans, span{start: start, end: end, from: number, cie: -1})
	}
	err := symbols.GoFunctions(f.File, f.r, func(fn *symbols.GoFunction) bool {
		rule := f.goRules(fn)
		if fn.Assembly {
			special = append(special, f.goSpecial(fn)...)
		}
		start := fn.Start
		for i, d := range fn.Depths {
			if i == len(fn.Depths)-1 && fn.End-d.End < maxGoPadding {
				d.End = fn.End
			}
			add(start, d.End, rule(d.Depth))
			start = d.End
		}
		return len(spans) <= maxGoSpans
	})
	if err != nil {
		return nil, fmt.Errorf("%w: Go's table of functions: %w", ErrMalformed, err)
	}
	if len(spans) > maxGoSpans {
		return nil, fmt.Errorf("%w: Go's table of functions has more than %d changes of the stack", ErrTooLarge, maxGoSpans)
	}
	spans = f.order(spans)
	for _, s := range special[:min(len(special), maxSignals)] {
		spans = over(spans, s)
	}
	return spans, nil
}

// goRules gives the rule for each depth in a function.
func (f *file) goRules(fn *symbols.GoFunction) func(depth int32) Rule {
	rules := f.goRule
	if !fn.Top && !fn.WritesSP {
		return rules
	}
	switch fn.Name() {
	case "runtime.sigtramp", "runtime.mstart":
		// These are the tops of what Go's own tracebacks follow. But the first was called
		// by the kernel, and the second by what began the thread.
		return rules
	case "runtime.cgocallback":
		// It pushes a return address on the other stack, too.
		return rules
	case "runtime.mcall":
		// Once on the other stack, the scheduler's, it pushes the goroutine, and that is
		// what this stack begins with.
		most := int32(0)
		for _, d := range fn.Depths {
			most = max(most, d.Depth)
		}
		return func(depth int32) Rule {
			if depth == most {
				return Rule{Cfa: End}
			}
			return rules(depth)
		}
	case "runtime.systemstack", "runtime.asmcgocall":
		if r := f.goSwitch(fn); r != nil {
			return r
		}
	case "runtime.clone":
		return rules // see goSpecial
	}
	if fn.Top {
		return func(int32) Rule { return Rule{Cfa: End} }
	}
	return func(int32) Rule { return Rule{} }
}

// goRule is the rule of a function whose stack has grown by so many bytes.
func (f *file) goRule(depth int32) Rule {
	words := depth / 8
	switch {
	case depth < 0 || depth%8 != 0:
		return Rule{}
	case !f.machine.linked:
		r := Rule{Cfa: SP, Offset: depth + 8, Ra: AtCFA, RaOffset: -1}
		if depth > 0 {
			r.Fp, r.FpOffset = AtCFA, -2
		}
		return r
	case depth == 0:
		return Rule{Cfa: SP}
	case words > math.MaxInt16:
		return Rule{}
	}
	// The link register is at the end of the frame, and the frame pointer beyond it.
	return Rule{Cfa: SP, Offset: depth, Ra: AtCFA, RaOffset: int16(-words), Fp: AtCFA, FpOffset: int16(-words - 1)}
}

// goSwitch gives the rules of a function that calls another one on another stack, and has its
// frame pointer still point to its own. It is nil if this version of it doesn't.
func (f *file) goSwitch(fn *symbols.GoFunction) func(depth int32) Rule {
	if f.machine.linked {
		if fn.Name() != "runtime.systemstack" {
			return nil // It takes another frame pointer.
		}
		return func(depth int32) Rule {
			r := f.goRule(depth)
			if depth > 0 {
				r.Cfa, r.Offset, r.Flags = FP, depth+8, Elsewhere
			}
			return r
		}
	}
	// Older ones don't begin with push %rbp; mov %rsp,%rbp, and are left out by who follows
	// frame pointers.
	code, err := f.bytes(fn.Start, 4)
	if err != nil || !bytes.Equal(code, []byte{0x55, 0x48, 0x89, 0xe5}) {
		return nil
	}
	return func(depth int32) Rule {
		if depth > 0 {
			return Rule{Cfa: FP, Offset: 16, Ra: AtCFA, RaOffset: -1, Fp: AtCFA, FpOffset: -2, Flags: Elsewhere}
		}
		return f.goRule(depth)
	}
}

// goSpecial gives the parts of some functions that are what the rest of them is not.
func (f *file) goSpecial(fn *symbols.GoFunction) []span {
	m := f.machine
	name := fn.Name()
	clone := name == "runtime.clone"
	if !clone && !strings.HasPrefix(name, "runtime.sigreturn") {
		return nil
	}
	code, err := f.bytes(fn.Start, min(fn.End-fn.Start, 1024))
	if err != nil {
		return nil
	}
	if !clone {
		// What a signal's handler returns to.
		if at := bytes.Index(code, m.restorer); at >= 0 && fn.Start > 0 {
			return []span{{fn.Start + uint64(at) - 1, fn.End, f.rule(m.signal), 0, -1}}
		}
		return nil
	}
	// A new thread begins in runtime.clone, behind the instruction by which the other one
	// returns.
	ret, after := []byte{0xc3, 0x48, 0x89, 0xf4}, 1 // ret; mov %rsi,%rsp
	if m.Machine == elf.EM_AARCH64 {
		ret, after = []byte{0xc0, 0x03, 0x5f, 0xd6}, 4 // ret
	}
	if at := bytes.Index(code, ret); at >= 0 {
		return []span{{fn.Start + uint64(at+after), fn.End, f.rule(Rule{Cfa: End}), 0, -1}}
	}
	return nil
}
