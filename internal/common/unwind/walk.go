package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
)

// Registers are those of a thread in user space that a walk begins with.
type Registers struct {
	IP, SP, FP uint64
	LR         uint64 // arm64: the link register
	// Syscall says that the thread is in a system call, so that IP is behind the
	// instruction that made it, where another function may begin.
	Syscall bool
}

// Memory is a copy of pieces of a process's memory, such as its stack.
type Memory []Piece

// Piece is a copy of what was at an address.
type Piece struct {
	Start uint64
	Bytes []byte
}

// word reads 8 bytes.
func (m Memory) word(addr uint64) (uint64, bool) {
	for _, p := range m {
		if at := addr - p.Start; at < uint64(len(p.Bytes)) && uint64(len(p.Bytes))-at >= 8 {
			return binary.LittleEndian.Uint64(p.Bytes[at:]), true
		}
	}
	return 0, false
}

// Code is what is known of an address.
type Code struct {
	Kind CodeKind
	Rule Rule // of the address, where there is a table
}

// CodeKind says why there is no rule, if there is none.
type CodeKind uint8

// The kinds.
const (
	Unmapped  CodeKind = iota // in nothing that is known to be mapped
	Generated                 // in memory of no file: a runtime made it
	Tableless                 // in a file of which there is no table
	Tabled                    // in one that there is a table of
	Vsyscall                  // in the page of x86's old system calls, of which nothing can be read
)

// Walker walks the stacks of a process. It is the reference for unwind.bpf.h, which walks
// by the same rules in the kernel.
type Walker struct {
	Machine elf.Machine // EM_X86_64 or EM_AARCH64
	// Find tells what is at an address. Walk asks for the address of an instruction: of a
	// caller that is the last byte of its call.
	Find func(addr uint64) Code
	// Text reads the process's code, and reports whether it could be read; it may be nil.
	Text func(addr uint64, code []byte) bool
	// Missing is what a walk that ended with Fault could not read.
	Missing uint64
}

const (
	// pacMask is of the bits that are an address on arm64: others are there to tell whether
	// it was forged.
	pacMask = 1<<48 - 1
	// farthest is how far up the stack a frame pointer may point where nothing else says
	// that it is one, in bytes.
	farthest = 1 << 20
)

// Where registers are, relative to the place that the rule of a signal's frame gives, in
// units of 8 bytes. They are the kernel's ABI: struct sigcontext, on arm64 from its regs on.
var contexts = map[elf.Machine]struct{ fp, lr, sp, ip int64 }{
	elf.EM_X86_64:  {fp: 10, sp: 15, ip: 16},
	elf.EM_AARCH64: {fp: 29, lr: 30, sp: 31, ip: 32},
}

// endOfUser is the end of the addresses that user space has. Nothing is read from there on:
// x86 has the page of vsyscalls there, which hung machines when BPF programs read it (6.1).
func (w *Walker) endOfUser() uint64 {
	if w.Machine == elf.EM_AARCH64 {
		return 1 << 48
	}
	return 1 << 47
}

// frame is where a walk is.
type frame struct {
	*Walker
	Registers
	memory  Memory
	exact   bool // IP is where it was interrupted, not behind a call
	anySP   bool // SP is not known, only that the stack goes on above it (arm64)
	guessed bool
}

// Walk appends the addresses of a stack's frames to frames: that of the leaf, and the
// return addresses of its callers, at most so many. The status is how it ended.
func (w *Walker) Walk(frames []uint64, regs Registers, memory Memory, most int) ([]uint64, Status) {
	f := frame{Walker: w, Registers: regs, memory: memory, exact: true}
	for n := 1; ; n++ {
		frames = append(frames, f.IP)
		code := f.find()
		if code.Kind == Tabled && code.Rule.ends() {
			return frames, f.root()
		}
		if status := f.step(code); status != Complete {
			return frames, status
		}
		switch {
		case f.IP == 0:
			return frames, f.root()
		case n >= most:
			return frames, Depth
		}
	}
}

// root is how a walk ends that has come to its end.
func (f *frame) root() Status {
	if f.guessed {
		return Guessed
	}
	return Complete
}

// ends reports whether a frame has no caller.
func (r *Rule) ends() bool {
	return r.Cfa == End || r.Ra == Lost && r.Cfa != Unknown && r.Cfa != Signal
}

// lookup is the address of a frame's instruction.
func (f *frame) lookup() uint64 {
	if f.exact && !f.Syscall {
		return f.IP
	}
	return f.IP - 1
}

func (f *frame) find() Code { return f.Find(f.lookup()) }

// step goes to the caller, or says why it can't.
func (f *frame) step(code Code) Status {
	if code.Kind == Vsyscall && f.exact {
		// Called as any function, and gone back from without a frame.
		return f.follow(Rule{Cfa: SP, Offset: 8, Ra: AtCFA, RaOffset: -1})
	}
	if code.Kind == Tabled && code.Rule.Cfa != Unknown {
		if f.anySP && code.Rule.Cfa != FP && code.Rule.Cfa != FPDeref {
			return f.guess(code, NoRule)
		}
		return f.follow(code.Rule)
	}
	if code.Kind == Generated {
		if offset, ok := f.trampoline(); ok {
			return f.follow(Rule{Cfa: SP, Offset: offset, Ra: AtCFA, RaOffset: -1})
		}
	}
	return f.guess(code, [...]Status{Unmapped: NoMapping, Generated: NoTable, Tableless: NoTable, Tabled: NoRule, Vsyscall: NoTable}[code.Kind])
}

// follow goes to the caller by a rule.
func (f *frame) follow(r Rule) Status {
	base, ok := f.SP, true
	switch r.Cfa {
	case SP:
		base += uint64(int64(r.Offset))
	case FP:
		base = f.FP + uint64(int64(r.Offset))
	case PLT:
		base += uint64(int64(r.Offset))
		if int32(f.lookup()&15) >= r.Add {
			base += 8
		}
	case SPDeref:
		base, ok = f.read(f.SP + uint64(int64(r.Offset)))
		base += uint64(int64(r.Add))
	case FPDeref:
		base, ok = f.read(f.FP + uint64(int64(r.Offset)))
		base += uint64(int64(r.Add))
	case Signal:
		return f.interrupted(f.SP + uint64(int64(r.Offset)))
	default:
		return NoRule
	}
	if !ok {
		return Fault
	}
	// A leaf of arm64 may have nothing on the stack. A function that goes to another stack
	// says so, or has a rule that reads where it was before.
	elsewhere := r.Flags&Elsewhere != 0 || r.Cfa == SPDeref || r.Cfa == FPDeref
	if !elsewhere && (base < f.SP || base == f.SP && r.Ra != Same) {
		return Broken
	}
	next := f.Registers
	next.SP, next.Syscall = base, false
	switch {
	case r.Ra == AtCFA:
		if next.IP, ok = f.read(base + uint64(int64(r.RaOffset)*8)); !ok {
			return Fault
		}
	case !f.exact:
		return NoRule // The link register is the callee's by now.
	default:
		next.IP = f.LR
	}
	switch r.Fp {
	case AtCFA:
		if next.FP, ok = f.read(base + uint64(int64(r.FpOffset)*8)); !ok {
			return Fault
		}
	case AtFP:
		if next.FP, ok = f.read(f.FP + uint64(int64(r.FpOffset)*8)); !ok {
			return Fault
		}
	case Lost:
		next.FP = 0
	}
	return f.enter(next, false)
}

// interrupted goes to the frame that a signal interrupted. Its stack may be any.
func (f *frame) interrupted(context uint64) Status {
	at := contexts[f.Machine]
	next := Registers{}
	for _, r := range []struct {
		to *uint64
		at int64
	}{{&next.FP, at.fp}, {&next.LR, at.lr}, {&next.SP, at.sp}, {&next.IP, at.ip}} {
		var ok bool
		if *r.to, ok = f.read(context + uint64(r.at*8)); !ok {
			return Fault
		}
	}
	return f.enter(next, true)
}

// enter makes next the frame that the walk is at.
func (f *frame) enter(next Registers, exact bool) Status {
	if f.Machine == elf.EM_AARCH64 {
		next.IP &= pacMask
	}
	if next.IP >= f.endOfUser() && !(exact && f.Find(next.IP).Kind == Vsyscall) {
		return Broken
	}
	f.Registers, f.exact, f.anySP = next, exact, false
	return Complete
}

// guess goes to the caller by the frame pointer, if it looks like one: code that a runtime
// made has no rules, and keeps frame pointers for the most part. Otherwise the walk ends, as
// there is no rule.
func (f *frame) guess(code Code, end Status) Status {
	if f.FP&7 != 0 || f.FP < f.SP || f.FP-f.SP >= farthest {
		return end
	}
	fp, ok1 := f.read(f.FP)
	ip, ok2 := f.read(f.FP + 8)
	if !ok1 || !ok2 {
		return Fault
	}
	if f.Machine == elf.EM_AARCH64 {
		ip &= pacMask
	}
	if ip >= f.endOfUser() {
		return end
	}
	// Where this frame is in nothing that is known, more may be mapped that is not known.
	if ip != 0 && code.Kind != Unmapped && f.Find(ip-1).Kind == Unmapped {
		return end
	}
	f.Registers = Registers{IP: ip, SP: f.FP + 16, FP: fp}
	// On arm64 what a frame pointer points to may be anywhere in a frame.
	f.exact, f.anySP = false, f.Machine == elf.EM_AARCH64
	f.guessed = true
	return Complete
}

func (f *frame) read(addr uint64) (uint64, bool) {
	if addr < f.endOfUser() {
		if word, ok := f.memory.word(addr); ok {
			return word, true
		}
	}
	f.Missing = addr
	return 0, false
}

// CPython's trampolines, with which its functions show in stacks (-X perf, 3.12 and later),
// have no frame pointer in some builds, and no table.
var (
	trampolineCall = []byte{0xff, 0xd1}                         // call *%rcx
	trampolineTail = []byte{0x48, 0x83, 0xc4, 0x08, 0xc3}       // add $8, %rsp; ret
	trampolineHead = []byte{0x48, 0x83, 0xec, 0x08, 0xff, 0xd1} // sub $8, %rsp; call *%rcx
)

// trampoline tells where the base of a frame in one of CPython's trampolines is, from the
// stack pointer on.
func (f *frame) trampoline() (offset int32, ok bool) {
	if f.Machine != elf.EM_X86_64 || f.Text == nil {
		return 0, false
	}
	code := make([]byte, 11)
	if !f.exact {
		code = code[:len(trampolineTail)]
	}
	if !f.Text(f.IP, code) {
		return 0, false
	}
	switch {
	case bytes.HasPrefix(code, trampolineTail):
		return 16, true
	case bytes.Equal(code, slices.Concat(trampolineHead, trampolineTail)):
		return 8, true
	case bytes.HasPrefix(code, slices.Concat(trampolineCall, trampolineTail)):
		return 16, true
	}
	return 0, false
}
