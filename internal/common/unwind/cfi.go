package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"
)

// A section is a .eh_frame, or a .debug_frame, which differs in how its entries find each
// other. It has entries of two kinds: an FDE for each function, with a program of which
// each step says where something changes, and CIEs with what many of these have in common.
type section struct {
	name  string
	data  []byte
	addr  uint64
	debug bool // .debug_frame
}

// A cie is what FDEs have in common.
type cie struct {
	file      *file
	machine   *machine
	section   *section
	encoding  byte // of addresses
	augmented bool // there is a length, and more, before a program
	signal    bool // its functions were not called, but interrupt
	codeAlign uint64
	dataAlign int64
	initial   state
}

// A machine is what tables have of an architecture. The numbers of registers are DWARF's.
type machine struct {
	elf.Machine
	sp, fp, ra uint64
	// linked says that a call leaves the return address in a register.
	linked bool
	// signal is the rule of a signal's frame, which restorer is the code of, all of it, that
	// the kernel has the handler return to.
	signal   Rule
	restorer []byte
}

var machines = map[elf.Machine]*machine{
	elf.EM_X86_64: {Machine: elf.EM_X86_64, sp: 7, fp: 6, ra: 16,
		signal:   Rule{Cfa: Signal, Offset: 40},                                 // struct ucontext's uc_mcontext
		restorer: []byte{0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05}}, // mov $15,%rax; syscall
	elf.EM_AARCH64: {Machine: elf.EM_AARCH64, sp: 31, fp: 29, ra: 30, linked: true,
		signal:   Rule{Cfa: Signal, Offset: 312},                          // struct rt_sigframe's uc.uc_mcontext.regs
		restorer: []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}}, // mov x8, #139; svc #0
}

// place is where the value of a register is, as a program says it.
type place struct {
	kind   placeKind
	offset int64
}

type placeKind uint8

const (
	unsaid     placeKind = iota
	same                 // in the register itself
	atCFA                // at the frame's base + offset
	inSP                 // at the stack pointer + offset
	inFP                 // at the frame pointer + offset
	inRegister           // in another register
	lost                 // nowhere
	unknown              // where no rule can say
)

// state is what holds at some instruction of a function.
type state struct {
	cfa         CFA // never End or Signal
	offset, add int64
	fp, ra      place
	// registerOffset is the offset that was said last without an expression: it holds
	// again when only a register is said.
	registerOffset int64
}

// beyond is an offset that no rule can have.
const beyond = math.MaxInt64 / 2

// rule makes a rule of what holds.
func (c *cie) rule(s *state) Rule {
	m := c.machine
	if s.ra.kind == lost {
		return Rule{Cfa: End}
	}
	if c.signal && s.ra.kind == inSP && m.Machine == elf.EM_X86_64 {
		const ip = 16 * 8 // from the beginning of the registers
		if offset := s.ra.offset - ip; 0 <= offset && offset <= math.MaxInt32 {
			return Rule{Cfa: Signal, Offset: int32(offset)}
		}
		return Rule{}
	}
	r := Rule{Cfa: s.cfa, Offset: int32(s.offset), Add: int32(s.add)}
	if s.cfa == Unknown || int64(r.Offset) != s.offset || int64(r.Add) != s.add {
		return Rule{}
	}
	var ok bool
	if r.Fp, r.FpOffset, ok = s.place(s.fp); !ok || s.fp.kind == inRegister {
		r.Fp, r.FpOffset = Lost, 0
	}
	if r.Ra, r.RaOffset, ok = s.place(s.ra); !ok || r.Ra == AtFP || r.Ra == Same && (!m.linked || s.ra.kind == inRegister) {
		return Rule{}
	}
	if !m.linked && s.cfa == SP && s.offset < 8 || m.linked && s.cfa == SP && s.offset < 0 {
		return Rule{}
	}
	return r
}

// place says where a register is as rules do.
func (s *state) place(p place) (saved Saved, offset int16, ok bool) {
	switch p.kind {
	case unsaid, same, inRegister:
		return Same, 0, true
	case lost, unknown:
		return Lost, 0, p.kind == lost
	case inSP, inFP:
		switch {
		case p.kind == inSP && s.cfa == SP, p.kind == inFP && s.cfa == FP:
			saved, p.offset = AtCFA, p.offset-s.offset
		case p.kind == inFP:
			saved = AtFP
		default:
			return Lost, 0, false
		}
	case atCFA:
		saved = AtCFA
	}
	offset = int16(p.offset / 8)
	return saved, offset, int64(offset)*8 == p.offset
}

// A cursor reads numbers. After one that isn't there it is bad, and all others are 0.
type cursor struct {
	data []byte
	at   int
	bad  bool
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.data)-c.at) {
		c.bad, c.at = true, len(c.data)
		return nil
	}
	b := c.data[c.at:][:n]
	c.at += int(n)
	return b
}

func (c *cursor) uint8() byte {
	if c.at >= len(c.data) {
		c.bad = true
		return 0
	}
	b := c.data[c.at]
	c.at++
	return b
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// unsigned reads a ULEB128. What has more than 64 bits is bad.
func (c *cursor) unsigned() uint64 {
	if c.at < len(c.data) && c.data[c.at] < 0x80 {
		c.at++
		return uint64(c.data[c.at-1])
	}
	v, n := binary.Uvarint(c.data[c.at:])
	if n <= 0 {
		c.bad, c.at = true, len(c.data)
		return 0
	}
	c.at += n
	return v
}

// signed reads an SLEB128.
func (c *cursor) signed() int64 {
	var v int64
	for shift := 0; shift < 64; shift += 7 {
		b := c.uint8()
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if shift+7 < 64 && b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	c.bad, c.at = true, len(c.data)
	return 0
}

// Encodings of addresses (DW_EH_PE_*): a form, and what to add.
const (
	encAbsolute = 0x00
	encUnsigned = 0x01
	encUint16   = 0x02
	encUint32   = 0x03
	encUint64   = 0x04
	encSigned   = 0x09
	encInt16    = 0x0a
	encInt32    = 0x0b
	encInt64    = 0x0c
	encForm     = 0x0f

	encHere    = 0x10 // add the address of the number itself
	encAligned = 0x50 // it is at a multiple of 8
	encBase    = 0x70

	encIndirect = 0x80
	encOmitted  = 0xff
)

// address reads an address in one of the encodings of those of functions; here is that of
// the cursor's data.
func (c *cursor) address(encoding byte, here uint64) uint64 {
	here += uint64(c.at)
	v := c.number(encoding)
	switch encoding &^ encForm {
	case 0:
	case encHere:
		v += here
	default:
		c.bad = true
	}
	return v
}

// number reads a number in the form of an encoding.
func (c *cursor) number(encoding byte) uint64 {
	switch encoding & encForm {
	case encAbsolute, encUint64, encInt64:
		return c.uint64()
	case encUnsigned:
		return c.unsigned()
	case encUint16:
		return uint64(c.uint16())
	case encUint32:
		return uint64(c.uint32())
	case encSigned:
		return uint64(c.signed())
	case encInt16:
		return uint64(int16(c.uint16()))
	case encInt32:
		return uint64(int32(c.uint32()))
	}
	c.bad = true
	return 0
}

// A span is code that one source of rules is about.
type span struct {
	start, end uint64
	from, to   uint32 // where the program is in the section's data
	cie        int32  // index of file.cies, or one of:
}

const (
	fixed  = -1 // there is but one rule, of which from is the index in file.rules
	golang = -2 // from and to are indices of file.rows
)

// Bounds for sections that are made to hurt. Linkers leave a handful of CIEs in .eh_frame,
// and one for each object in .debug_frame.
const (
	maxFunctions = 2 << 20
	maxCIEs      = 1 << 16
)

// functions reads the section's FDEs. Those that make no sense, or have what is not known
// here, are left out: there is no rule for them then.
func (s *section) functions(f *file) ([]span, error) {
	known := map[uint64]int32{} // CIEs, by their offsets
	count, cies := 0, 0
	err := s.entries(func(e entry) {
		if !e.cie {
			count++
			return
		}
		if cies++; cies > maxCIEs {
			return
		}
		if c := s.parseCIE(f, e); c != nil {
			known[e.offset] = int32(len(f.cies))
			f.cies = append(f.cies, c)
		}
	})
	if err != nil {
		return nil, err
	}
	if cies > maxCIEs || count > maxFunctions {
		return nil, fmt.Errorf("%w: %s has %d FDEs and %d CIEs", ErrTooLarge, s.name, count, cies)
	}
	spans := make([]span, 0, count)
	last, lastAt := int32(-1), uint64(0)
	err = s.entries(func(e entry) {
		if e.cie {
			return
		}
		if last < 0 || e.parent != lastAt {
			i, ok := known[e.parent]
			if !ok {
				return
			}
			last, lastAt = i, e.parent
		}
		cie := f.cies[last]
		c := cursor{data: e.data}
		here := s.addr + e.at
		start := c.address(cie.encoding, here)
		size := c.number(cie.encoding)
		if cie.augmented {
			c.take(c.unsigned())
		}
		// That of a function which the linker has thrown away begins at 0.
		if c.bad || size == 0 || start == 0 || start+size < start {
			return
		}
		spans = append(spans, span{start, start + size, uint32(e.at) + uint32(c.at), uint32(e.at) + uint32(len(e.data)), last})
	})
	return spans, err
}

// An entry is a CIE or an FDE.
type entry struct {
	cie    bool
	offset uint64 // where it begins
	parent uint64 // the offset of an FDE's CIE
	at     uint64 // where data begins
	data   []byte
}

// entries hands over all entries of a section.
func (s *section) entries(handle func(entry)) error {
	c := cursor{data: s.data}
	// Linkers leave less than 4 bytes only where they pad.
	for len(c.data)-c.at >= 4 {
		e := entry{offset: uint64(c.at)}
		size, long := uint64(c.uint32()), false
		if size == 0 {
			continue // an end, behind which more may have been linked
		}
		if size == math.MaxUint32 {
			size, long = c.uint64(), true
		}
		begin := uint64(c.at)
		data := c.take(size)
		if c.bad {
			return fmt.Errorf("%w: the entry at %#x of %s has %d bytes, which are more than there are", ErrMalformed, e.offset, s.name, size)
		}
		d := cursor{data: data}
		var id uint64
		if long && s.debug {
			id = d.uint64()
			e.cie = id == math.MaxUint64
			e.parent = id
		} else {
			id = uint64(d.uint32())
			e.cie = id == 0
			e.parent = begin - id
			if s.debug {
				e.cie = id == math.MaxUint32
				e.parent = id
			}
		}
		if d.bad {
			return fmt.Errorf("%w: the entry at %#x of %s has only %d bytes", ErrMalformed, e.offset, s.name, size)
		}
		e.at, e.data = begin+uint64(d.at), data[d.at:]
		handle(e)
	}
	return nil
}

// maxAlign bounds the factors of a CIE: those in use are below 10.
const maxAlign = 1 << 12

// parseCIE reads what is behind a CIE's id. It gives nil if that is not understood.
func (s *section) parseCIE(f *file, e entry) *cie {
	m := f.machine
	c := cursor{data: e.data}
	version := c.uint8()
	n := bytes.IndexByte(e.data[c.at:], 0)
	if n < 0 || version != 1 && version != 3 && version != 4 {
		return nil
	}
	augmentation := c.take(uint64(n))
	c.uint8()
	out := &cie{file: f, machine: m, section: s}
	if bytes.HasPrefix(augmentation, []byte("eh")) {
		c.uint64() // of GCC 2
		augmentation = augmentation[2:]
	}
	if version == 4 {
		if address, segment := c.uint8(), c.uint8(); address != 8 || segment != 0 {
			return nil
		}
	}
	out.codeAlign = c.unsigned()
	out.dataAlign = c.signed()
	ra := uint64(0)
	if version == 1 {
		ra = uint64(c.uint8())
	} else {
		ra = c.unsigned()
	}
	if ra != m.ra || out.codeAlign == 0 || out.codeAlign > maxAlign || out.dataAlign > maxAlign || out.dataAlign < -maxAlign {
		return nil
	}
	if len(augmentation) > 0 && augmentation[0] == 'z' {
		out.augmented = true
		more := cursor{data: c.take(c.unsigned())}
		here := s.addr + e.at + uint64(c.at-len(more.data))
	letters:
		for _, letter := range augmentation[1:] {
			switch letter {
			case 'R':
				out.encoding = more.uint8()
			case 'S':
				out.signal = true
			case 'L':
				more.uint8()
			case 'P':
				encoding := more.uint8()
				if encoding == encAligned {
					more.take(-(here + uint64(more.at)) & 7)
				}
				if encoding != encOmitted {
					more.number(encoding)
				}
			case 'B', 'G': // how arm64 signs return addresses, and tags its stack
			default:
				break letters
			}
		}
		if more.bad {
			return nil
		}
	} else if len(augmentation) > 0 {
		return nil
	}
	if out.encoding&encIndirect != 0 || out.encoding&encBase != 0 && out.encoding&encBase != encHere || c.bad {
		return nil
	}
	run := interpreter{cie: out, cursor: c}
	run.run()
	if run.bad {
		return nil
	}
	out.initial = run.state
	return out
}

// maxRemembered is how many states a program may put aside. Compilers' need one or two.
const maxRemembered = 64

// An interpreter runs a program of CFA instructions.
type interpreter struct {
	cursor
	state
	cie        *cie
	here       uint64 // address of the cursor's data
	pc, end    uint64
	remembered []state
	// row takes the rule that holds from pc on; nil in a CIE, where nothing moves.
	row func(pc uint64, r Rule)
}

// The instructions (DW_CFA_*). The first three have an operand in their lower bits.
const (
	opAdvanceLoc = 0x40
	opOffset     = 0x80
	opRestore    = 0xc0

	opNop                       = 0x00
	opSetLoc                    = 0x01
	opAdvanceLoc1               = 0x02
	opAdvanceLoc2               = 0x03
	opAdvanceLoc4               = 0x04
	opOffsetExtended            = 0x05
	opRestoreExtended           = 0x06
	opUndefined                 = 0x07
	opSameValue                 = 0x08
	opRegister                  = 0x09
	opRememberState             = 0x0a
	opRestoreState              = 0x0b
	opDefCFA                    = 0x0c
	opDefCFARegister            = 0x0d
	opDefCFAOffset              = 0x0e
	opDefCFAExpression          = 0x0f
	opExpression                = 0x10
	opOffsetExtendedSF          = 0x11
	opDefCFASF                  = 0x12
	opDefCFAOffsetSF            = 0x13
	opValOffset                 = 0x14
	opValOffsetSF               = 0x15
	opValExpression             = 0x16
	opNegateRAStateWithPC       = 0x2c // arm64: what is signed; the address stays where it is
	opNegateRAState             = 0x2d
	opGNUArgsSize               = 0x2e
	opGNUNegativeOffsetExtended = 0x2f
)

// run runs all of a program, and hands over a row for each place where something changes,
// up to end. It is bad if it doesn't understand an instruction; then the last row is one
// of which nothing is known.
func (x *interpreter) run() {
	for x.at < len(x.data) && !x.bad && (x.row == nil || x.pc < x.end) {
		op := x.data[x.at]
		x.at++
		switch op & 0xc0 {
		case opAdvanceLoc:
			x.advance(uint64(op & 0x3f))
		case opOffset:
			x.set(uint64(op&0x3f), atCFA, factored(x.unsigned(), x.cie.dataAlign))
		case opRestore:
			x.restore(uint64(op & 0x3f))
		default:
			x.extended(op)
		}
	}
	if x.row == nil || x.pc >= x.end {
		return
	}
	if x.bad {
		x.row(x.pc, Rule{})
		return
	}
	x.emit()
}

// maxLooks is how often a program is compared with the code that it is of.
const maxLooks = 1024

// emit hands over the rule that holds from here on.
func (x *interpreter) emit() {
	r := x.cie.rule(&x.state)
	if x.ra.kind == inRegister && x.cfa == SP && x.offset == 0 && x.popped() {
		// The function has taken its return address off the stack, as vfork does since
		// its child goes on with the same one. It still is where it was, or what the
		// child's last call left there, which returns into the same function.
		r = Rule{Cfa: SP, Ra: AtCFA, RaOffset: -1, Flags: Elsewhere}
	}
	x.row(x.pc, r)
}

// popped reports whether the instruction before is one of amd64 that takes a word off the
// stack.
func (x *interpreter) popped() bool {
	f := x.cie.file
	if f.machine.Machine != elf.EM_X86_64 || f.looks >= maxLooks {
		return false
	}
	f.looks++
	code, err := f.bytes(x.pc-1, 1)
	return err == nil && code[0]&0xf8 == 0x58
}

// extended runs an instruction that has all its operands behind it.
func (x *interpreter) extended(op byte) {
	c := x.cie
	switch op {
	case opNop, opNegateRAState, opNegateRAStateWithPC:
	case opSetLoc:
		to := x.address(c.encoding, x.here)
		if x.bad || to < x.pc {
			x.bad = true
			return
		}
		x.move(to)
	case opAdvanceLoc1:
		x.advance(uint64(x.uint8()))
	case opAdvanceLoc2:
		x.advance(uint64(x.uint16()))
	case opAdvanceLoc4:
		x.advance(uint64(x.uint32()))
	case opOffsetExtended:
		register := x.unsigned()
		x.set(register, atCFA, factored(x.unsigned(), c.dataAlign))
	case opOffsetExtendedSF:
		register := x.unsigned()
		x.set(register, atCFA, factoredSigned(x.signed(), c.dataAlign))
	case opGNUNegativeOffsetExtended:
		register := x.unsigned()
		x.set(register, atCFA, factored(x.unsigned(), -c.dataAlign))
	case opRestoreExtended:
		x.restore(x.unsigned())
	case opUndefined:
		x.set(x.unsigned(), lost, 0)
	case opSameValue:
		x.set(x.unsigned(), same, 0)
	case opRegister:
		register := x.unsigned()
		if x.unsigned() == register {
			x.set(register, same, 0)
		} else {
			x.set(register, inRegister, 0)
		}
	case opRememberState:
		if len(x.remembered) >= maxRemembered {
			x.bad = true
			return
		}
		x.remembered = append(x.remembered, x.state)
	case opRestoreState:
		n := len(x.remembered) - 1
		if n < 0 {
			x.bad = true
			return
		}
		x.state, x.remembered = x.remembered[n], x.remembered[:n]
	case opDefCFA:
		register := x.unsigned()
		x.base(register, bounded(x.unsigned()))
	case opDefCFASF:
		register := x.unsigned()
		x.base(register, factoredSigned(x.signed(), c.dataAlign))
	case opDefCFARegister:
		x.base(x.unsigned(), x.registerOffset)
	case opDefCFAOffset:
		x.baseOffset(bounded(x.unsigned()))
	case opDefCFAOffsetSF:
		x.baseOffset(factoredSigned(x.signed(), c.dataAlign))
	case opDefCFAExpression:
		x.baseExpression(x.take(x.unsigned()))
	case opExpression:
		register := x.unsigned()
		kind, offset := x.expression(x.take(x.unsigned()))
		x.set(register, kind, offset)
	case opValOffset, opValOffsetSF:
		register := x.unsigned()
		x.unsigned() // as long as a signed one
		x.set(register, unknown, 0)
	case opValExpression:
		register := x.unsigned()
		x.take(x.unsigned())
		x.set(register, unknown, 0)
	case opGNUArgsSize:
		x.unsigned()
	default:
		x.bad = true
	}
}

// advance goes on by so many instructions.
func (x *interpreter) advance(n uint64) { x.move(x.pc + n*x.cie.codeAlign) }

func (x *interpreter) move(to uint64) {
	if x.row == nil {
		x.bad = true
		return
	}
	if to < x.pc {
		to = x.end
	}
	if to > x.pc {
		x.emit()
	}
	x.pc = to
}

func (x *interpreter) register(register uint64) *place {
	switch register {
	case x.cie.machine.fp:
		return &x.fp
	case x.cie.machine.ra:
		return &x.ra
	}
	return nil
}

func (x *interpreter) set(register uint64, kind placeKind, offset int64) {
	if p := x.register(register); p != nil {
		*p = place{kind, offset}
	}
}

func (x *interpreter) restore(register uint64) {
	switch register {
	case x.cie.machine.fp:
		x.fp = x.cie.initial.fp
	case x.cie.machine.ra:
		x.ra = x.cie.initial.ra
	}
}

// base says that the frame's base is at an offset from a register.
func (x *interpreter) base(register uint64, offset int64) {
	x.cfa, x.offset, x.add, x.registerOffset = Unknown, offset, 0, offset
	switch register {
	case x.cie.machine.sp:
		x.cfa = SP
	case x.cie.machine.fp:
		x.cfa = FP
	}
}

// baseOffset says that it is at another offset. An expression stays what it is.
func (x *interpreter) baseOffset(offset int64) {
	x.registerOffset = offset
	if x.cfa == SP || x.cfa == FP {
		x.offset = offset
	}
}

// baseExpression says that the frame's base is what an expression gives.
func (x *interpreter) baseExpression(code []byte) {
	x.cfa, x.offset, x.add = Unknown, 0, 0
	if x.cie.machine.Machine == elf.EM_X86_64 {
		if offset, from, ok := pltExpression(code); ok {
			x.cfa, x.offset, x.add = PLT, offset, from
			return
		}
	}
	v, ok := evaluate(code)
	if !ok || v.kind == valueNumber {
		return
	}
	sp, fp := SP, FP
	if v.kind == valueRead {
		sp, fp = SPDeref, FPDeref
	}
	switch v.register {
	case x.cie.machine.sp:
		x.cfa = sp
	case x.cie.machine.fp:
		x.cfa = fp
	}
	x.offset, x.add = v.offset, v.add
}

// expression gives where a register is that is at what an expression gives.
func (x *interpreter) expression(code []byte) (placeKind, int64) {
	v, ok := evaluate(code)
	switch {
	case ok && v.kind == valueRegister && v.register == x.cie.machine.sp:
		return inSP, v.offset
	case ok && v.kind == valueRegister && v.register == x.cie.machine.fp:
		return inFP, v.offset
	}
	return unknown, 0
}

func bounded(v uint64) int64 {
	if v > math.MaxUint32 {
		return beyond
	}
	return int64(v)
}

func factored(v uint64, factor int64) int64 {
	if v > math.MaxUint32 {
		return beyond
	}
	return int64(v) * factor
}

func factoredSigned(v, factor int64) int64 {
	if v > math.MaxUint32 || v < -math.MaxUint32 {
		return beyond
	}
	return v * factor
}

// Operations of expressions (DW_OP_*).
const (
	opDeref      = 0x06
	opConst1u    = 0x08
	opConst1s    = 0x09
	opConst2u    = 0x0a
	opConst2s    = 0x0b
	opConst4u    = 0x0c
	opConst4s    = 0x0d
	opConstu     = 0x10
	opConsts     = 0x11
	opMinus      = 0x1c
	opPlus       = 0x22
	opPlusUconst = 0x23
	opLit0       = 0x30
	opLit31      = 0x4f
	opBreg0      = 0x70
	opBreg31     = 0x8f
	opExprNop    = 0x96
)

// value is what an expression has computed.
type value struct {
	kind        valueKind
	register    uint64
	offset, add int64
}

type valueKind uint8

const (
	valueNumber   valueKind = iota // offset
	valueRegister                  // register + offset
	valueRead                      // what is at register + offset, + add
)

// evaluate runs an expression, if it is one that a rule can be made of.
func evaluate(code []byte) (value, bool) {
	var stack []value
	c := cursor{data: code}
	for c.at < len(code) {
		op := c.uint8()
		n := len(stack)
		number, ok := int64(0), true
		switch {
		case op >= opBreg0 && op <= opBreg31:
			stack = append(stack, value{valueRegister, uint64(op - opBreg0), c.signed(), 0})
			ok = false
		case op >= opLit0 && op <= opLit31:
			number = int64(op - opLit0)
		case op == opConst1u:
			number = int64(c.uint8())
		case op == opConst1s:
			number = int64(int8(c.uint8()))
		case op == opConst2u:
			number = int64(c.uint16())
		case op == opConst2s:
			number = int64(int16(c.uint16()))
		case op == opConst4u:
			number = int64(c.uint32())
		case op == opConst4s:
			number = int64(int32(c.uint32()))
		case op == opConstu:
			number = bounded(c.unsigned())
		case op == opConsts:
			number = factoredSigned(c.signed(), 1)
		case op == opPlusUconst && n > 0:
			stack[n-1].plus(bounded(c.unsigned()))
			ok = false
		case (op == opPlus || op == opMinus) && n > 1 && stack[n-1].kind == valueNumber:
			v := stack[n-1].offset
			if op == opMinus {
				v = -v
			}
			stack = stack[:n-1]
			stack[n-2].plus(v)
			ok = false
		case op == opDeref && n > 0 && stack[n-1].kind == valueRegister:
			stack[n-1].kind = valueRead
			ok = false
		case op == opExprNop:
			ok = false
		default:
			return value{}, false
		}
		if ok {
			stack = append(stack, value{kind: valueNumber, offset: number})
		}
		// Offsets are small, so that no sum of them overflows.
		if c.bad || len(stack) > 8 || len(stack) > 0 && !stack[len(stack)-1].small() {
			return value{}, false
		}
	}
	if len(stack) != 1 {
		return value{}, false
	}
	return stack[0], true
}

func (v *value) plus(n int64) {
	if v.kind == valueRead {
		v.add += n
	} else {
		v.offset += n
	}
}

func (v *value) small() bool {
	const most = math.MaxUint32
	return -most <= v.offset && v.offset <= most && -most <= v.add && v.add <= most
}

// pltExpression recognizes what linkers say of the stubs of a PLT, each of 16 bytes, which
// push a number at their end: SP + offset + ((IP & 15) >= from) << 3.
func pltExpression(code []byte) (offset, from int64, ok bool) {
	c := cursor{data: code}
	if c.uint8() != opBreg0+7 {
		return 0, 0, false
	}
	offset = c.signed()
	rest := c.data[c.at:]
	// breg16 0; lit15; and; lit from; ge; lit3; shl; plus
	if len(rest) != 9 || rest[4] < opLit0 || rest[4] > opLit0+15 {
		return 0, 0, false
	}
	from = int64(rest[4] - opLit0)
	return offset, from, !c.bad && string(rest[:4]) == "\x80\x00\x3f\x1a" && string(rest[5:]) == "\x2a\x33\x24\x22"
}
