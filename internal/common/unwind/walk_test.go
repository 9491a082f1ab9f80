package unwind

import (
	"debug/elf"
	"encoding/binary"
	"slices"
	"testing"
)

// A made-up process: what is known of its code, and a stack.
type made struct {
	machine elf.Machine
	code    []area
	text    map[uint64][]byte
	memory  Memory
}

// An area is code that is all alike.
type area struct {
	start, end uint64
	Code
}

func (m *made) walk(regs Registers, most int) ([]uint64, Status) {
	w := Walker{Machine: m.machine, Find: m.find, Text: func(addr uint64, to []byte) bool {
		code, ok := m.text[addr]
		return ok && copy(to, code) == len(to)
	}}
	return w.Walk(nil, regs, m.memory, most)
}

func (m *made) find(addr uint64) Code {
	for _, s := range m.code {
		if addr >= s.start && addr < s.end {
			return s.Code
		}
	}
	return Code{}
}

// words is a piece of memory.
func words(start uint64, list ...uint64) Piece {
	p := Piece{Start: start}
	for _, w := range list {
		p.Bytes = binary.LittleEndian.AppendUint64(p.Bytes, w)
	}
	return p
}

func ruled(r Rule) Code { return Code{Kind: Tabled, Rule: r} }

const (
	text  = 0x400000 // where functions are, 0x100 bytes each
	stack = 0x7ffd00001000
)

// fn is the code at function n.
func fn(n uint64, c Code) area { return area{text + n*0x100, text + n*0x100 + 0x100, c} }

// at is an address in function n.
func at(n uint64) uint64 { return text + n*0x100 + 0x22 }

// Of amd64.
var (
	root   = ruled(Rule{Cfa: End})
	frame8 = ruled(Rule{Cfa: SP, Offset: 8, Ra: AtCFA, RaOffset: -1})
	// push %rbp; mov %rsp, %rbp
	framePointer = ruled(Rule{Cfa: FP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1})
)

func TestWalk(t *testing.T) {
	x86, arm := elf.EM_X86_64, elf.EM_AARCH64
	for _, test := range []struct {
		name string
		made
		regs   Registers
		most   int
		want   []uint64
		status Status
	}{
		{"root", made{x86, []area{fn(0, root)}, nil, nil}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, Complete},
		{"no caller", made{x86, []area{fn(0, frame8)}, nil, Memory{words(stack, 0)}}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, Complete},
		{"return address nowhere", made{x86, []area{fn(0, ruled(Rule{Cfa: SP, Offset: 8, Ra: Lost}))}, nil, nil}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, Complete},
		{
			"by stack pointer", made{x86, []area{fn(0, ruled(Rule{Cfa: SP, Offset: 24, Ra: AtCFA, RaOffset: -1})), fn(1, frame8), fn(2, root)}, nil,
				Memory{words(stack, 1, 2, at(1), at(2))}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1), at(2)}, Complete,
		},
		{
			// The leaf saved the frame pointer that its caller's rule needs.
			"by frame pointer", made{x86, []area{fn(0, ruled(Rule{Cfa: SP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1})), fn(1, framePointer), fn(2, root)}, nil,
				Memory{words(stack, stack+0x20, at(1), 7, 7, 0, at(2))}},
			Registers{IP: at(0), SP: stack, FP: 0xdead}, 9, []uint64{at(0), at(1), at(2)}, Complete,
		},
		{
			"frame pointer that is lost", made{x86, []area{fn(0, ruled(Rule{Cfa: SP, Offset: 8, Fp: Lost, Ra: AtCFA, RaOffset: -1})), fn(1, framePointer)}, nil,
				Memory{words(stack, at(1), 0, 0)}},
			Registers{IP: at(0), SP: stack, FP: stack + 8}, 9, []uint64{at(0), at(1)}, Broken,
		},
		{
			// A caller is looked up in its call: what is behind the call may be another function.
			"call at a function's end", made{x86, []area{fn(0, frame8), fn(1, root), fn(2, ruled(Rule{}))}, nil, Memory{words(stack, text+0x200)}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), text + 0x200}, Complete,
		},
		{"interrupted at a function's beginning", made{x86, []area{fn(0, ruled(Rule{})), fn(1, root)}, nil, nil}, Registers{IP: text + 0x100, SP: stack}, 9, []uint64{text + 0x100}, Complete},
		{"system call at a function's end", made{x86, []area{fn(0, root), fn(1, ruled(Rule{}))}, nil, nil}, Registers{IP: text + 0x100, SP: stack, Syscall: true}, 9, []uint64{text + 0x100}, Complete},
		{
			"PLT before the push", made{x86, []area{fn(0, ruled(Rule{Cfa: PLT, Offset: 8, Add: 11, Ra: AtCFA, RaOffset: -1})), fn(1, root)}, nil, Memory{words(stack, at(1), 1)}},
			Registers{IP: text + 10, SP: stack}, 9, []uint64{text + 10, at(1)}, Complete,
		},
		{
			"PLT after it", made{x86, []area{fn(0, ruled(Rule{Cfa: PLT, Offset: 8, Add: 11, Ra: AtCFA, RaOffset: -1})), fn(1, root)}, nil, Memory{words(stack, 1, at(1))}},
			Registers{IP: text + 11, SP: stack}, 9, []uint64{text + 11, at(1)}, Complete,
		},
		{
			"what is saved by the stack pointer", made{x86, []area{fn(0, ruled(Rule{Cfa: SPDeref, Offset: 8, Add: -8, Ra: AtCFA, RaOffset: -1})), fn(1, root)}, nil,
				Memory{words(stack, 1, stack+0x20, at(1), 1)}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1)}, Complete,
		},
		{
			// lea 8(%rsp), %r10; and $-32, %rsp; push -8(%r10); push %rbp; mov %rsp, %rbp; push %r10
			"what is saved by the frame pointer", made{x86, []area{fn(0, ruled(Rule{Cfa: FPDeref, Offset: -8, Fp: AtFP, Ra: AtCFA, RaOffset: -1})), fn(1, framePointer), fn(2, root)}, nil,
				Memory{words(stack, stack+0x28, stack+0x38, 9, 9, at(1), 9, 9, 0, at(2))}},
			Registers{IP: at(0), SP: stack, FP: stack + 8}, 9, []uint64{at(0), at(1), at(2)}, Complete,
		},
		{
			"from another stack", made{x86, []area{fn(0, ruled(Rule{Cfa: SPDeref, Offset: 0, Ra: AtCFA, RaOffset: -1})), fn(1, root)}, nil, Memory{words(stack, stack-0x100), words(stack-0x108, at(1))}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1)}, Complete,
		},
		{
			"to another stack", made{x86, []area{fn(0, ruled(Rule{Cfa: FP, Offset: 16, Ra: AtCFA, RaOffset: -1, Flags: Elsewhere})), fn(1, root)}, nil, Memory{words(stack-0x100, 0, at(1))}},
			Registers{IP: at(0), SP: stack, FP: stack - 0x100}, 9, []uint64{at(0), at(1)}, Complete,
		},
		{
			"signal on another stack", made{x86, []area{{text + 0xff, text + 0x200, ruled(Rule{Cfa: Signal, Offset: 40})}, fn(0, frame8), fn(2, ruled(Rule{Cfa: FP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1})), fn(3, root)}, nil,
				Memory{words(stack, append(append([]uint64{text + 0x100, 0, 0, 0, 0, 0}, make([]uint64, 10)...), stack-0x10, 0, 0, 0, 0, stack-0x20, text+0x200)...), words(stack-0x20, 5, 5, 0, at(3))}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), text + 0x100, text + 0x200, at(3)}, Complete,
		},
		{
			"signal whose context can't be read", made{x86, []area{fn(0, ruled(Rule{Cfa: Signal, Offset: 40}))}, nil, Memory{words(stack, 0, 0, 0)}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, Fault,
		},
		{"vsyscall", made{x86, []area{fn(0, root), {0xffffffffff600000, 0xffffffffff601000, Code{Kind: Vsyscall}}}, nil, Memory{words(stack, at(0))}}, Registers{IP: 0xffffffffff600400, SP: stack}, 9, []uint64{0xffffffffff600400, at(0)}, Complete},
		{
			"depth", made{x86, []area{fn(0, frame8), fn(1, root)}, nil, Memory{words(stack, at(0), at(0), at(0), at(1))}},
			Registers{IP: at(0), SP: stack}, 4, []uint64{at(0), at(0), at(0), at(0)}, Depth,
		},
		{
			"as deep as may be", made{x86, []area{fn(0, frame8), fn(1, root)}, nil, Memory{words(stack, at(0), at(0), at(0), at(1))}},
			Registers{IP: at(0), SP: stack}, 5, []uint64{at(0), at(0), at(0), at(0), at(1)}, Complete,
		},
		{"end of the copy", made{x86, []area{fn(0, frame8)}, nil, Memory{words(stack, at(0), at(0))}}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(0), at(0)}, Fault},
		{"no deeper", made{x86, []area{fn(0, ruled(Rule{Cfa: FP, Offset: 16, Ra: AtCFA, RaOffset: -1}))}, nil, Memory{words(stack, at(0), at(0))}}, Registers{IP: at(0), SP: stack, FP: stack - 16}, 9, []uint64{at(0)}, Broken},
		{"caller in the kernel", made{x86, []area{fn(0, frame8)}, nil, Memory{words(stack, 0xffffffff81000000)}}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, Broken},
		{"stack in the kernel", made{x86, []area{fn(0, frame8)}, nil, Memory{words(1<<47, at(0))}}, Registers{IP: at(0), SP: 1 << 47}, 9, []uint64{at(0)}, Fault},
		{"link register on amd64", made{x86, []area{fn(0, frame8), fn(1, ruled(Rule{Cfa: SP, Offset: 8, Ra: Same}))}, nil, Memory{words(stack, at(1), 0)}}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1)}, NoRule},

		{"no mapping", made{x86, nil, nil, nil}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, NoMapping},
		{"no table", made{x86, []area{fn(0, Code{Kind: Tableless})}, nil, nil}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, NoTable},
		{"no rule", made{x86, []area{fn(0, ruled(Rule{}))}, nil, nil}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, NoRule},
		{"generated", made{x86, []area{fn(0, Code{Kind: Generated})}, nil, nil}, Registers{IP: at(0), SP: stack}, 9, []uint64{at(0)}, NoTable},
		{
			"guessed", made{x86, []area{fn(0, Code{Kind: Generated}), fn(1, ruled(Rule{})), fn(2, frame8), fn(3, root)}, nil,
				Memory{words(stack, 1, stack+0x20, at(1), 1, stack+0x30, at(2), 2, at(3))}},
			// The second guess ends at stack+0x30, where the rule of function 2 finds its caller.
			Registers{IP: at(0), SP: stack, FP: stack + 8}, 9, []uint64{at(0), at(1), at(2), 2}, NoMapping,
		},
		{
			"guessed to the root", made{x86, []area{fn(0, Code{Kind: Generated}), fn(1, frame8), fn(2, root)}, nil, Memory{words(stack, 1, stack+0x20, at(1), at(2))}},
			Registers{IP: at(0), SP: stack, FP: stack + 8}, 9, []uint64{at(0), at(1), at(2)}, Guessed,
		},
		{
			"guess that is not aligned", made{x86, []area{fn(0, Code{Kind: Generated}), fn(1, root)}, nil, Memory{words(stack+4, 0, at(1))}},
			Registers{IP: at(0), SP: stack, FP: stack + 4}, 9, []uint64{at(0)}, NoTable,
		},
		{
			"guess below the stack", made{x86, []area{fn(0, Code{Kind: Generated}), fn(1, root)}, nil, Memory{words(stack-16, 0, at(1))}},
			Registers{IP: at(0), SP: stack, FP: stack - 16}, 9, []uint64{at(0)}, NoTable,
		},
		{
			"guess that is far", made{x86, []area{fn(0, Code{Kind: Generated}), fn(1, root)}, nil, Memory{words(stack+1<<20, 0, at(1))}},
			Registers{IP: at(0), SP: stack, FP: stack + 1<<20}, 9, []uint64{at(0)}, NoTable,
		},
		{
			"guess at the edge", made{x86, []area{fn(0, Code{Kind: Generated}), fn(1, root)}, nil, Memory{words(stack+1<<20-8, 0, at(1))}},
			Registers{IP: at(0), SP: stack, FP: stack + 1<<20 - 8}, 9, []uint64{at(0), at(1)}, Guessed,
		},
		{
			"guess of what is no code", made{x86, []area{fn(0, Code{Kind: Generated})}, nil, Memory{words(stack, 0, at(1))}},
			Registers{IP: at(0), SP: stack, FP: stack}, 9, []uint64{at(0)}, NoTable,
		},
		{
			"guess from what is not known", made{x86, []area{fn(2, root)}, nil, Memory{words(stack, stack+16, at(1), 0, at(2))}},
			Registers{IP: at(0), SP: stack, FP: stack}, 9, []uint64{at(0), at(1), at(2)}, Guessed,
		},
		{
			"guess of the root", made{x86, []area{fn(0, Code{Kind: Generated})}, nil, Memory{words(stack, 0, 0)}},
			Registers{IP: at(0), SP: stack, FP: stack}, 9, []uint64{at(0)}, Guessed,
		},
		{
			"trampoline", made{x86, []area{fn(0, frame8), fn(1, Code{Kind: Generated}), fn(2, root)}, map[uint64][]byte{at(1): {0x48, 0x83, 0xc4, 8, 0xc3, 0, 0, 0, 0, 0, 0}},
				Memory{words(stack, at(1), 1, at(2))}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1), at(2)}, Complete,
		},
		{
			"at a trampoline's beginning", made{x86, []area{fn(1, Code{Kind: Generated}), fn(2, root)}, map[uint64][]byte{at(1): {0x48, 0x83, 0xec, 8, 0xff, 0xd1, 0x48, 0x83, 0xc4, 8, 0xc3}},
				Memory{words(stack, at(2), 1, 1)}},
			Registers{IP: at(1), SP: stack}, 9, []uint64{at(1), at(2)}, Complete,
		},
		{
			"before a trampoline's call", made{x86, []area{fn(1, Code{Kind: Generated}), fn(2, root)}, map[uint64][]byte{at(1): {0xff, 0xd1, 0x48, 0x83, 0xc4, 8, 0xc3, 0, 0, 0, 0}},
				Memory{words(stack, 1, at(2), 1)}},
			Registers{IP: at(1), SP: stack}, 9, []uint64{at(1), at(2)}, Complete,
		},
		{
			"no trampoline", made{x86, []area{fn(0, frame8), fn(1, Code{Kind: Generated}), fn(2, root)}, map[uint64][]byte{at(1): make([]byte, 11)}, Memory{words(stack, at(1), 1, at(2))}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1)}, NoTable,
		},

		{
			"arm64: leaf without a frame", made{arm, []area{fn(0, ruled(Rule{Cfa: SP})), fn(1, ruled(Rule{Cfa: SP, Offset: 32, Fp: AtCFA, FpOffset: -4, Ra: AtCFA, RaOffset: -3})), fn(2, root)}, nil,
				Memory{words(stack, 0, 0x2a<<48|at(2), 1, 1)}},
			Registers{IP: at(0), SP: stack, LR: 0x7f<<56 | at(1)}, 9, []uint64{at(0), at(1), at(2)}, Complete,
		},
		{
			"arm64: the link register is the leaf's only", made{arm, []area{fn(0, ruled(Rule{Cfa: SP})), fn(1, ruled(Rule{Cfa: SP, Offset: 16}))}, nil, Memory{words(stack, 0, 0)}},
			Registers{IP: at(0), SP: stack, LR: at(1)}, 9, []uint64{at(0), at(1)}, NoRule,
		},
		{
			"arm64: signal", made{arm, []area{fn(0, ruled(Rule{Cfa: Signal, Offset: 312})), fn(1, ruled(Rule{Cfa: SP})), fn(2, root)}, nil,
				Memory{words(stack+312, append(make([]uint64, 29), 0, at(2), stack+0x1000, at(1))...)}},
			Registers{IP: at(0), SP: stack}, 9, []uint64{at(0), at(1), at(2)}, Complete,
		},
		{
			// After a guess the stack pointer is not known.
			"arm64: by stack pointer behind a guess", made{arm, []area{fn(0, Code{Kind: Generated}), fn(1, ruled(Rule{Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1})), fn(2, root)}, nil,
				Memory{words(stack, stack+0x40, at(1), at(0), at(0), 0, 0, 0, 0, 0, at(2))}},
			Registers{IP: at(0), SP: stack, FP: stack}, 9, []uint64{at(0), at(1), at(2)}, Guessed,
		},
		{
			"arm64: stack in the upper half", made{arm, []area{fn(0, ruled(Rule{Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1})), fn(1, root)}, nil, Memory{words(0xffffc0000000, 0, at(1))}},
			Registers{IP: at(0), SP: 0xffffc0000000}, 9, []uint64{at(0), at(1)}, Complete,
		},
	} {
		got, status := test.walk(test.regs, test.most)
		if !slices.Equal(got, test.want) || status != test.status {
			t.Errorf("%s: %#x, status %d, not %#x, %d", test.name, got, status, test.want, test.status)
		}
	}
}

// A walk appends, and ends whatever is on the stack.
func TestWalkEnds(t *testing.T) {
	m := made{machine: elf.EM_X86_64, code: []area{fn(0, ruled(Rule{Cfa: Signal, Offset: 40}))}}
	m.memory = Memory{words(stack, append(make([]uint64, 20), stack, at(0))...)}
	w := Walker{Machine: m.machine, Find: m.find}
	got, status := w.Walk([]uint64{7}, Registers{IP: at(0), SP: stack}, m.memory, 1024)
	if len(got) != 1025 || got[0] != 7 || status != Depth {
		t.Errorf("%d frames, status %d", len(got), status)
	}
}

// Neither the registers nor what is on the stack make it fail.
func FuzzWalk(f *testing.F) {
	f.Add(uint64(text), uint64(stack), uint64(stack+8), uint64(text), uint8(SP), uint8(AtCFA), uint8(AtCFA), int32(16), int32(0), int16(-2), int16(-1), []byte("0123456789abcdef"), true)
	f.Fuzz(func(t *testing.T, ip, sp, fp, lr uint64, cfa, saved, ra uint8, offset, add int32, fpOffset, raOffset int16, bytes []byte, arm bool) {
		rule := Rule{Cfa: CFA(cfa), Fp: Saved(saved), Ra: Saved(ra), Offset: offset, Add: add, FpOffset: fpOffset, RaOffset: raOffset}
		w := Walker{Machine: elf.EM_X86_64, Find: func(addr uint64) Code {
			return Code{Kind: CodeKind(addr>>4) % (Vsyscall + 1), Rule: rule}
		}}
		if arm {
			w.Machine = elf.EM_AARCH64
		}
		const most = 50
		got, status := w.Walk(nil, Registers{IP: ip, SP: sp, FP: fp, LR: lr}, Memory{{Start: sp, Bytes: bytes}}, most)
		if len(got) == 0 || len(got) > most || status > Broken {
			t.Errorf("%d frames, status %d", len(got), status)
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	m := made{machine: elf.EM_X86_64, code: []area{fn(0, frame8), fn(1, root)}}
	list := slices.Repeat([]uint64{at(0)}, 31)
	m.memory = Memory{words(stack, append(list, at(1))...)}
	w := Walker{Machine: m.machine, Find: m.find}
	var frames []uint64
	for b.Loop() {
		frames, _ = w.Walk(frames[:0], Registers{IP: at(0), SP: stack}, m.memory, 256)
	}
	b.ReportMetric(float64(len(frames)), "frames")
}
