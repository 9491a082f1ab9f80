package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"iter"
	"strings"
)

// What no compiler tells, as it is not of its making: where a program begins, what a
// signal's handler returns to, and the stubs of linkers.

// maxScan bounds how much code is looked through for the frames of signals, in bytes, and
// maxSignals how many there may be.
const (
	maxScan    = 64 << 20
	maxSignals = 16
)

// special adds to spans what is known of the frames of signals and of the root.
func (f *file) special(spans []span) []span {
	for _, s := range f.signals(spans) {
		spans = over(spans, s)
	}
	if root, ok := f.root(spans); ok {
		spans = over(spans, root)
	}
	return spans
}

// signals finds what handlers of signals return to: in functions that say so of themselves,
// and in code of which nothing is known.
func (f *file) signals(spans []span) []span {
	var found []span
	// A row begins a byte before its code, as that is where the caller of the handler is
	// looked for.
	look := func(start uint64, code []byte) bool {
		for at := 0; len(found) < maxSignals; {
			i := bytes.Index(code[at:], f.machine.restorer)
			if i < 0 {
				break
			}
			first := start + uint64(at+i)
			at += i + len(f.machine.restorer)
			found = append(found, span{max(first, 1) - 1, first + uint64(len(f.machine.restorer)), f.rule(f.machine.signal), 0, fixed})
		}
		return len(found) < maxSignals
	}
	buf := make([]byte, 64<<10)
	scanned := uint64(0)
	scan := func(start, end uint64) bool {
		for end-start >= uint64(len(f.machine.restorer)) && scanned < maxScan {
			code := buf[:min(uint64(len(buf)), end-start)]
			if f.readCode(code, start) != nil {
				return true
			}
			if !look(start, code) {
				return false
			}
			scanned += uint64(len(code))
			start += uint64(len(code))
			if start < end {
				start -= uint64(len(f.machine.restorer)) - 1 // It may be across the border.
			}
		}
		return true
	}
	for _, s := range spans {
		if s.cie >= 0 && f.cies[s.cie].signal && !scan(s.start, s.end) {
			return found
		}
	}
	for start, end := range f.gaps(spans) {
		if !scan(start, end) {
			return found
		}
	}
	return found
}

// gaps gives the code that no span is of, but for padding.
func (f *file) gaps(spans []span) iter.Seq2[uint64, uint64] {
	return func(yield func(start, end uint64) bool) {
		rest := spans
		for _, p := range f.code {
			at, end := p.Vaddr, p.Vaddr+p.Filesz
			for len(rest) > 0 && rest[0].start < end {
				if rest[0].start > at && rest[0].start-at > maxPadding && !yield(at, rest[0].start) {
					return
				}
				at = max(at, rest[0].end)
				rest = rest[1:]
			}
			if at < end && !yield(at, end) {
				return
			}
		}
	}
}

// maxRoot is how many bytes of code a program may begin with that nothing else is known of.
const maxRoot = 128

// root finds the code that a program, or the dynamic linker, begins in. C libraries write it
// by hand, and not all say of it that nothing has called it.
func (f *file) root(spans []span) (span, bool) {
	start, end := f.Entry, f.Entry+maxRoot
	code, err := f.bytes(start, maxRoot)
	if err != nil {
		return span{}, false
	}
	var begins []string
	var calls func(code []byte) int // how many bytes there are up to the end of the first call
	switch f.machine.Machine {
	case elf.EM_X86_64:
		// xor %ebp,%ebp; xor %rbp,%rbp; mov %rsp,%rdi
		begins = []string{"\x31\xed", "\x48\x31\xed", "\x48\x89\xe7"}
		calls = func(code []byte) int {
			for i := 0; i+5 <= len(code); i++ {
				if code[i] == 0xe8 {
					target := start + uint64(i) + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(code[i+1:]))))
					if _, err := f.bytes(target, 1); err == nil {
						return i + 5
					}
				}
			}
			return 0
		}
		code = bytes.TrimPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) // endbr64
	case elf.EM_AARCH64:
		// mov x29, #0; mov x30, #0; mov x0, sp
		begins = []string{"\x1d\x00\x80\xd2", "\x1e\x00\x80\xd2", "\xe0\x03\x00\x91"}
		calls = func(code []byte) int {
			for i := 0; i+4 <= len(code); i += 4 {
				if binary.LittleEndian.Uint32(code[i:])&0x7c000000 == 0x14000000 { // b, bl
					return i + 4
				}
			}
			return 0
		}
		code = bytes.TrimPrefix(code, []byte{0x5f, 0x24, 0x03, 0xd5}) // bti c
	}
	known := false
	for _, b := range begins {
		known = known || strings.HasPrefix(string(code), b)
	}
	if !known {
		return span{}, false
	}
	for _, s := range spans {
		switch {
		case s.start <= start && start < s.end:
			if f.machine.linked && s.cie >= 0 {
				// Old ones of arm64 don't say more than other functions do.
				return span{s.start, s.end, f.rule(Rule{Cfa: End}), 0, fixed}, true
			}
			return span{}, false
		case s.start > start && s.start < end:
			return span{start, s.start, f.rule(Rule{Cfa: End}), 0, fixed}, true
		}
	}
	skipped := maxRoot - len(code)
	n := calls(code)
	if n == 0 {
		return span{}, false
	}
	return span{start, start + uint64(skipped+n), f.rule(Rule{Cfa: End}), 0, fixed}, true
}

// stubs gives rules for procedure linkage tables, which some linkers tell nothing of.
func (f *file) stubs([]span) []span {
	var spans []span
	plain := Rule{Cfa: SP, Offset: 8, Ra: AtCFA, RaOffset: -1} // jmp
	if f.machine.linked {
		plain = Rule{Cfa: SP} // br x17
	}
	for _, s := range f.Sections {
		start, end := s.Addr, s.Addr+s.FileSize
		if s.Type != elf.SHT_PROGBITS || end < start || s.Name != ".plt" && !strings.HasPrefix(s.Name, ".plt.") {
			continue
		}
		add := func(from, to uint64, r Rule) {
			spans = append(spans, span{start + from, min(start+to, end), f.rule(r), 0, fixed})
		}
		size := end - start
		first, err := f.bytes(start, 32)
		if s.Name != ".plt" || err != nil || len(first) < 32 {
			add(0, size, plain)
			continue
		}
		switch f.machine.Machine {
		case elf.EM_X86_64:
			// push to_linker(%rip); jmp *to_resolver(%rip)
			if first[0] != 0xff || first[1] != 0x35 {
				add(0, size, plain)
				continue
			}
			// Each stub jumps here with a number pushed by its second instruction: behind a
			// jump of 6 bytes, or at its beginning.
			pushed := int32(11)
			if first[16] == 0xf3 && first[20] == 0x68 { // endbr64; push
				pushed = 9
			} else if first[16] == 0x68 { // push; bnd jmp
				pushed = 5
			}
			r := plain
			r.Offset = 16
			add(0, 6, r)
			r.Offset = 24
			add(6, 16, r)
			r = plain
			r.Cfa, r.Add = PLT, pushed
			add(16, size, r)
		case elf.EM_AARCH64:
			// stp x16, x30, [sp, #-16]!
			at := bytes.Index(first, []byte{0xf0, 0x7b, 0xbf, 0xa9})
			if at < 0 || at > 4 {
				add(0, size, plain)
				continue
			}
			add(0, uint64(at)+4, plain)
			add(uint64(at)+4, 32, Rule{Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1})
			add(32, size, plain)
		}
	}
	return f.order(spans)
}

// A change is where the rule of a function changes, behind some instruction.
type change struct {
	at   uint64
	rule Rule
}

// startFiles gives rules for what the compiler links in front of and behind each program and
// library: .init, .fini, and the functions that run constructors and destructors. Short
// programs are met with in these, as each is a page that is not in memory yet.
func (f *file) startFiles(spans []span) []span {
	var out []span
	add := func(end uint64, changes ...change) {
		for i, c := range changes {
			upto := end
			if i+1 < len(changes) {
				upto = changes[i+1].at
			}
			out = append(out, span{c.at, upto, f.rule(c.rule), 0, fixed})
		}
	}
	for _, name := range []string{".init", ".fini"} {
		s := f.Section(name)
		if s == nil || s.Size > 256 || s.Type == elf.SHT_NOBITS {
			continue
		}
		code, err := f.bytes(s.Addr, s.Size)
		if err != nil {
			continue
		}
		add(s.Addr+uint64(len(code)), f.initCode(code, s.Addr)...)
	}
	if f.machine.Machine == elf.EM_X86_64 {
		for start, end := range f.gaps(spans) {
			code, err := f.bytes(start, min(end-start, 512))
			if err != nil {
				continue
			}
			if changes, n := crtCode(code, start); n > 0 {
				add(start+uint64(n), changes...)
				break // There is one of it.
			}
		}
	}
	return f.order(out)
}

// initCode recognizes the code of .init and .fini, which is in one function made of pieces.
func (f *file) initCode(code []byte, start uint64) []change {
	in, out, before := "\x48\x83\xec\x08", "\x48\x83\xc4\x08", Rule{Cfa: SP, Offset: 8, Ra: AtCFA, RaOffset: -1} // sub $8,%rsp; add $8,%rsp
	within := before
	within.Offset = 16
	if f.machine.linked {
		in, out, before = "\xfd\x7b\xbf\xa9", "\xfd\x7b\xc1\xa8", Rule{Cfa: SP} // stp x29, x30, [sp, #-16]!; ldp x29, x30, [sp], #16
		within = Rule{Cfa: SP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1}
	}
	first, last := bytes.Index(code, []byte(in)), bytes.LastIndex(code, []byte(out))
	if first < 0 || first > 8 || last < first {
		return nil
	}
	return []change{{start, before}, {start + uint64(first+len(in)), within}, {start + uint64(last+len(out)), before}}
}

// crtCode recognizes the functions of GCC's crtbegin.o: deregister_tm_clones,
// register_tm_clones, __do_global_dtors_aux and frame_dummy. Only the third has a frame. n is
// how many bytes they are in, from the beginning; 0 if they aren't there.
func crtCode(code []byte, start uint64) (changes []change, n int) {
	// lea end(%rip),%rdi; lea end(%rip),%rax; cmp %rdi,%rax
	first := -1
	for i := 0; i+17 <= len(code) && first < 0; i++ {
		if c := code[i:]; string(c[:3]) == "\x48\x8d\x3d" && string(c[7:10]) == "\x48\x8d\x05" && string(c[14:17]) == "\x48\x39\xf8" {
			first = i
		}
	}
	if first < 0 {
		return nil, 0
	}
	// cmpb $0,done(%rip); jne; push %rbp
	push := -1
	for i := first; i+10 <= len(code) && push < 0; i++ {
		if c := code[i:]; string(c[:2]) == "\x80\x3d" && c[6] == 0 && c[7] == 0x75 && c[9] == 0x55 {
			push = i + 10
		}
	}
	if push < 0 {
		return nil, 0
	}
	pop := bytes.Index(code[push:], []byte{0x5d, 0xc3}) // pop %rbp; ret
	if pop < 0 {
		return nil, 0
	}
	pop += push + 1
	before := Rule{Cfa: SP, Offset: 8, Ra: AtCFA, RaOffset: -1}
	within := Rule{Cfa: SP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1}
	at := func(i int) uint64 { return start + uint64(i) }
	return []change{{at(first), before}, {at(push), within}, {at(pop), before}}, min(pop+32, len(code))
}

// leaves gives rules for the functions of arm64 that have no frame, and call nothing: those of
// the vdso, which has no table there. They are seen by their code.
func (f *file) leaves([]span) []span {
	if f.machine.Machine != elf.EM_AARCH64 || f.Section(".eh_frame") != nil {
		return nil
	}
	s := f.SectionByType(elf.SHT_DYNSYM)
	if s == nil || s.Size > maxDynamic {
		return nil
	}
	functions, err := f.DynamicSymbols()
	if err != nil {
		return nil
	}
	var spans []span
	rule := f.rule(Rule{Cfa: SP})
	for _, fn := range functions {
		if elf.ST_TYPE(fn.Info) != elf.STT_FUNC || fn.Section == elf.SHN_UNDEF || fn.Size == 0 || fn.Size > 4096 || len(spans) > maxLooks {
			continue
		}
		if code, err := f.bytes(fn.Value, fn.Size); err == nil && isLeaf(code) {
			spans = append(spans, span{fn.Value, fn.Value + uint64(len(code)), rule, 0, fixed})
		}
	}
	return f.order(spans)
}

// maxDynamic is how large a symbol table is looked through, in bytes. The vdso's has 200.
const maxDynamic = 64 << 10

// isLeaf reports whether no instruction of arm64 code may change the stack pointer or the link
// register.
func isLeaf(code []byte) bool {
	const sp, lr = 31, 30
	for ; len(code) >= 4; code = code[4:] {
		i := binary.LittleEndian.Uint32(code)
		rd, rn, rt2 := i&31, i>>5&31, i>>10&31
		switch {
		case i&0xfc000000 == 0x94000000, i&0xfffffc1f == 0xd63f0000: // bl, blr
			return false
		case i&0x0a000000 == 0x08000000: // loads and stores
			pair := i&0x3a000000 == 0x28000000 || i&0x3f000000 == 0x08000000
			if rn == sp || rd == lr || pair && rt2 == lr {
				return false
			}
		case i&0x3f000000 == 0x11000000, i&0x3fe00000 == 0x0b200000, // add, sub
			i&0x1f800000 == 0x12000000 && i&0x60000000 != 0x60000000: // and, orr, eor
			if rd == sp || rd == lr {
				return false
			}
		case i>>25 == 0xd6>>1: // jumps to registers
			if i&0xfffffc1f != 0xd61f0000 && i != 0xd65f03c0 { // br, ret
				return false
			}
		case i>>24 == 0xd5: // system registers and hints
			if i&0xfff00000 == 0xd5300000 && rd == lr {
				return false
			}
		case i&0x1c000000 == 0x14000000: // other jumps, of which none changes a register
		case rd == lr:
			return false
		}
	}
	return len(code) == 0
}
