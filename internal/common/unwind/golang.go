package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// maxGoPadding is how many bytes Go's linker pads functions with at most.
const maxGoPadding = 64

// A goRow is where a rule begins to hold in a span of Go's code.
type goRow struct {
	offset uint32 // from the beginning of the span
	rule   uint32 // index of file.rules
}

// goSpans makes spans of what a Go program's own table tells: how deep the stack is at each
// instruction. The compiler writes no .eh_frame.
func (f *file) goSpans() ([]span, error) {
	var spans []span
	known := map[Rule]uint32{}
	var last *span
	end := uint64(0)
	add := func(from, to uint64, r Rule) {
		if from >= to {
			return
		}
		number, ok := known[r]
		if !ok {
			number = f.rule(r)
			known[r] = number
		}
		if last == nil || from != end || to-last.start > math.MaxUint32 {
			spans = append(spans, span{start: from, from: uint32(len(f.rows)), to: uint32(len(f.rows)), cie: golang})
			last = &spans[len(spans)-1]
		}
		if r.Cfa == Signal && last.from < last.to && f.rows[last.to-1].offset+1 < uint32(from-last.start) {
			from-- // That is where the caller of the handler is looked for.
		}
		if last.from == last.to || f.rows[last.to-1].rule != number {
			f.rows = append(f.rows, goRow{uint32(from - last.start), number})
			last.to++
		}
		last.end, end = to, to
	}
	plain := byDepth(f.goRule)
	err := symbols.GoFunctions(f.File, f.r, func(fn *symbols.GoFunction) bool {
		rule := plain
		if fn.Top || fn.WritesSP || fn.Assembly {
			rule = f.goRules(fn)
		}
		start := fn.Start
		for i, d := range fn.Depths {
			if i == len(fn.Depths)-1 && fn.End-d.End < maxGoPadding {
				d.End = fn.End
			}
			for start < d.End {
				r, upto := rule(start, d.Depth)
				upto = min(upto, d.End)
				add(start, upto, r)
				start = upto
			}
		}
		return len(f.rows) <= maxRows && len(spans) <= maxFunctions && len(f.rules) <= maxRules
	})
	if err != nil {
		return nil, fmt.Errorf("%w: Go's table of functions: %w", ErrMalformed, err)
	}
	if len(f.rows) > maxRows || len(spans) > maxFunctions || len(f.rules) > maxRules {
		return nil, fmt.Errorf("%w: Go's table of functions is larger than those of any program", ErrTooLarge)
	}
	return f.order(spans), nil
}

// goRules are the rules of a function, by address and the stack's depth there. Each is good
// up to another address, if the depth is.
type goRules func(addr uint64, depth int32) (Rule, uint64)

func byDepth(rule func(depth int32) Rule) goRules {
	return func(_ uint64, depth int32) (Rule, uint64) { return rule(depth), math.MaxUint64 }
}

// goRules gives the rules of a function that may not be like others.
func (f *file) goRules(fn *symbols.GoFunction) goRules {
	rules := byDepth(f.goRule)
	name := fn.Name()
	switch {
	case name == "runtime.sigtramp":
		// It is the top of what Go's own tracebacks follow, but was called by the kernel.
		// runtime.mstart, whose callers in C have no table, is one here, too.
		return rules
	case name == "runtime.cgocallback":
		// It pushes a return address on the other stack, too.
		return rules
	case name == "runtime.mcall" || name == "runtime.morestack":
		// They leave the goroutine's stack for the scheduler's, which begins with them.
		if begin := f.goOtherStack(fn); begin != 0 {
			return f.goBefore(begin)
		}
	case name == "runtime.clone":
		// A new thread begins behind the instruction by which the other one returns.
		code := f.goCode(fn)
		ret, after := []byte{0xc3, 0x48, 0x89, 0xf4}, 1 // ret; mov %rsi,%rsp
		if f.machine.Machine == elf.EM_AARCH64 {
			ret, after = []byte{0xc0, 0x03, 0x5f, 0xd6}, 4 // ret
		}
		if at := bytes.Index(code, ret); at >= 0 {
			return f.goBefore(fn.Start + uint64(at+after))
		}
	case strings.HasPrefix(name, "_rt0_") && !strings.HasSuffix(name, "_lib"):
		// The entry point. That of a library is called by the dynamic linker.
		return byDepth(func(int32) Rule { return Rule{Cfa: End} })
	case strings.HasPrefix(name, "runtime.sigreturn"):
		// What a signal's handler returns to.
		if bytes.HasPrefix(f.goCode(fn), f.machine.restorer) {
			return byDepth(func(int32) Rule { return f.machine.signal })
		}
	}
	switch {
	case fn.Top:
		return byDepth(func(int32) Rule { return Rule{Cfa: End} })
	case fn.WritesSP:
		return f.goSwitch(fn, name)
	}
	return rules
}

// goBefore gives the rules of a function that is a root from an address on.
func (f *file) goBefore(root uint64) goRules {
	return func(addr uint64, depth int32) (Rule, uint64) {
		if addr < root {
			return f.goRule(depth), root
		}
		return Rule{Cfa: End}, math.MaxUint64
	}
}

// goOtherStack gives the address from which on a function is on another stack, or 0.
func (f *file) goOtherStack(fn *symbols.GoFunction) uint64 {
	code := f.goCode(fn)
	for i := 0; i+4 <= len(code); i++ {
		if f.machine.linked {
			// mov sp, xN
			if i%4 == 0 && binary.LittleEndian.Uint32(code[i:])&^(31<<5) == 0x9100001f {
				return fn.Start + uint64(i) + 4
			}
			continue
		}
		// mov n(%reg),%rsp
		if code[i]&^1 == 0x48 && code[i+1] == 0x8b && code[i+2]&^7 == 0x60 && code[i+2]&7 != 4 {
			return fn.Start + uint64(i) + 4
		}
	}
	return 0
}

// goCode reads the beginning of a function; nothing if it can't be read.
func (f *file) goCode(fn *symbols.GoFunction) []byte {
	code, err := f.bytes(fn.Start, min(fn.End-fn.Start, 1024))
	if err != nil {
		return nil
	}
	return code
}

// goRule is the rule of a function whose stack has grown by so many bytes.
func (f *file) goRule(depth int32) Rule {
	words := depth / 8
	switch {
	case depth == -8 && !f.machine.linked:
		// It has taken its return address off the stack for the time of a vfork.
		return Rule{Cfa: SP, Ra: AtCFA, RaOffset: -1, Flags: Elsewhere}
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

// goSwitch gives the rules of a function that goes on with another stack. If it has a frame,
// its frame pointer still points to that. If not, as in those that don't return to where
// they were called, nothing is known.
func (f *file) goSwitch(fn *symbols.GoFunction, name string) goRules {
	nothing := byDepth(func(int32) Rule { return Rule{} })
	code := f.goCode(fn)
	code = code[:min(len(code), 64)]
	if f.machine.linked {
		at := bytes.Index(code, []byte{0xfd, 0x23, 0x00, 0xd1}) // sub x29, sp, #8
		if at < 0 || name == "runtime.asmcgocall" {             // which takes another frame pointer
			return nothing
		}
		begin := fn.Start + uint64(at) + 4
		return func(addr uint64, depth int32) (Rule, uint64) {
			r := f.goRule(depth)
			if addr < begin {
				return r, begin
			}
			if r.Ra == AtCFA {
				r.Cfa, r.Offset, r.Flags = FP, depth+8, Elsewhere
			}
			return r, math.MaxUint64
		}
	}
	begin := fn.Start
	if bytes.HasPrefix(code, []byte{0x55, 0x48, 0x89, 0xe5}) { // push %rbp; mov %rsp,%rbp
		begin += 4
	} else if at := bytes.Index(code, []byte{0x48, 0x8d, 0x6c, 0x24}); at >= 0 { // lea n(%rsp),%rbp, of older ones
		begin += uint64(at) + 5
	} else {
		return nothing
	}
	return func(addr uint64, depth int32) (Rule, uint64) {
		if addr < begin {
			return f.goRule(depth), begin
		}
		if depth > 0 {
			return Rule{Cfa: FP, Offset: 16, Ra: AtCFA, RaOffset: -1, Fp: AtCFA, FpOffset: -2, Flags: Elsewhere}, math.MaxUint64
		}
		return f.goRule(depth), math.MaxUint64
	}
}
