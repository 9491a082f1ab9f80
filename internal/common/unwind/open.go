package unwind

// This reads tables in the simplest way, until the one that is made to be fast and to be fed
// by others is there.

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// Find gives the rule at an address.
func (t *Table) Find(addr uint64) Rule {
	n := (addr - t.Start) / PageSize
	if addr < t.Start || n >= uint64(len(t.Pages)) {
		return Rule{}
	}
	page := t.Pages[n]
	rows := t.Rows[page.First:][:page.Count]
	low := uint16(addr % PageSize)
	i, found := slices.BinarySearchFunc(rows, low, func(r Row, low uint16) int { return cmp.Compare(r.Low, low) })
	if !found {
		i--
	}
	if i < 0 {
		return Rule{}
	}
	return t.Rules[rows[i].Rule]
}

type flat struct {
	addr uint64
	rule Rule
}

// Open reads the table of an ELF file.
func Open(r io.ReaderAt) (*Table, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	s := f.Section(".eh_frame")
	if s == nil {
		return nil, errors.New("it has no .eh_frame")
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	rows := frames(f.Machine, data, s.Addr, f.Entry)
	return build(rows), nil
}

func build(rows []flat) *Table {
	t := &Table{Rules: []Rule{{}}}
	index := map[Rule]uint16{{}: 0}
	if len(rows) == 0 {
		return t
	}
	t.Start = rows[0].addr &^ (PageSize - 1)
	last := Rule{}
	page := func(addr uint64) {
		for n := (addr - t.Start) / PageSize; uint64(len(t.Pages)) <= n; {
			t.Pages = append(t.Pages, Page{First: uint32(len(t.Rows)), Count: 1})
			t.Rows = append(t.Rows, Row{0, index[last]})
		}
	}
	for _, r := range rows {
		if _, ok := index[r.rule]; !ok {
			index[r.rule] = uint16(len(t.Rules))
			t.Rules = append(t.Rules, r.rule)
		}
		page(r.addr)
		t.Rows = append(t.Rows, Row{uint16(r.addr % PageSize), index[r.rule]})
		t.Pages[len(t.Pages)-1].Count++
		last = r.rule
	}
	return t
}

type reader struct {
	data []byte
	at   int
	base uint64 // address of data
	bad  bool
}

func (r *reader) u(n int) (v uint64) {
	if r.at+n > len(r.data) {
		r.bad = true
		return 0
	}
	for i := range n {
		v |= uint64(r.data[r.at+i]) << (8 * i)
	}
	r.at += n
	return v
}

func (r *reader) uleb() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := r.u(1)
		v |= b & 0x7f << shift
		if b < 0x80 || r.bad {
			return v
		}
	}
}

func (r *reader) sleb() (v int64) {
	for shift := 0; ; {
		b := r.u(1)
		v |= int64(b&0x7f) << shift
		shift += 7
		if b < 0x80 || r.bad {
			if b&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v
		}
	}
}

func (r *reader) encoded(enc byte) uint64 {
	where := r.base + uint64(r.at)
	var v uint64
	switch enc & 0xf {
	case 0, 4, 0xc:
		v = r.u(8)
	case 1:
		v = r.uleb()
	case 2:
		v = r.u(2)
	case 3:
		v = r.u(4)
	case 9:
		v = uint64(r.sleb())
	case 0xa:
		v = uint64(int16(r.u(2)))
	case 0xb:
		v = uint64(int32(r.u(4)))
	}
	if enc&0x70 == 0x10 {
		v += where
	}
	return v
}

type cie struct {
	code, data   int64
	ra           uint64
	enc          byte
	augmented, s bool
	init         []byte
}

type state struct {
	cfa      CFA
	off, add int64
	fp, ra   Saved
	fpO, raO int64
}

func frames(m elf.Machine, data []byte, base, entry uint64) []flat {
	type fde struct {
		start, size uint64
		rows        []flat
	}
	var all []fde
	cies := map[int]*cie{}
	for at := 0; at+8 <= len(data); {
		n := int(binary.LittleEndian.Uint32(data[at:]))
		if n == 0 {
			at += 4
			continue
		}
		if at+4+n > len(data) {
			break
		}
		r := &reader{data: data[:at+4+n], at: at + 4, base: base}
		id := int(r.u(4))
		if id == 0 {
			c := &cie{}
			r.u(1)
			z := bytes.IndexByte(r.data[r.at:], 0)
			aug := string(r.data[r.at : r.at+z])
			r.at += z + 1
			c.code, c.data, c.ra = int64(r.uleb()), r.sleb(), r.uleb()
			for _, a := range aug {
				switch a {
				case 'z':
					c.augmented = true
					r.uleb()
				case 'R':
					c.enc = byte(r.u(1))
				case 'P':
					r.encoded(byte(r.u(1)))
				case 'L':
					r.u(1)
				case 'S':
					c.s = true
				}
			}
			c.init = r.data[r.at:]
			cies[at] = c
		} else if c := cies[at+4-id]; c != nil {
			start := r.encoded(c.enc)
			size := r.encoded(c.enc & 0xf)
			if c.augmented {
				r.at += int(r.uleb())
			}
			all = append(all, fde{start, size, execute(m, c, r, start, size)})
		}
		at += 4 + n
	}
	slices.SortFunc(all, func(a, b fde) int { return cmp.Compare(a.start, b.start) })
	var rows []flat
	end := uint64(0)
	for _, f := range all {
		if f.start < end {
			continue
		}
		if len(rows) > 0 && f.rows[0].addr > end {
			rows = append(rows, flat{end, Rule{}})
		}
		if entry >= end && entry < f.rows[0].addr {
			rows = append(rows, flat{entry, Rule{Cfa: End}})
		}
		rows = append(rows, f.rows...)
		end = f.start + f.size
	}
	return append(rows, flat{end, Rule{}})
}

func execute(m elf.Machine, c *cie, r *reader, start, size uint64) []flat {
	sp, fp := uint64(7), uint64(6)
	if m == elf.EM_AARCH64 {
		sp, fp = 31, 29
	}
	var rows []flat
	st, initial := state{}, state{}
	var stack []state
	reg := uint64(0)
	pc := start
	emit := func() {
		rule := Rule{Cfa: st.cfa, Offset: int32(st.off), Add: int32(st.add), Fp: st.fp, Ra: st.ra, FpOffset: int16(st.fpO), RaOffset: int16(st.raO)}
		if st.ra == Lost {
			rule = Rule{Cfa: End}
		}
		if c.s {
			rule = Rule{Cfa: Signal, Offset: 40}
			if m == elf.EM_AARCH64 {
				rule.Offset = 312
			}
		}
		at := pc
		if c.s && pc == start {
			at--
		}
		if n := len(rows); n > 0 && rows[n-1].addr == at {
			rows[n-1].rule = rule
		} else {
			rows = append(rows, flat{at, rule})
		}
	}
	def := func(register uint64, off int64) {
		reg = register
		st.off, st.add = off, 0
		switch register {
		case sp:
			st.cfa = SP
		case fp:
			st.cfa = FP
		default:
			st.cfa = Unknown
		}
	}
	set := func(register uint64, where Saved, off int64) {
		switch register {
		case fp:
			st.fp, st.fpO = where, off/8
		case c.ra:
			st.ra, st.raO = where, off/8
		}
	}
	run := func(r *reader) {
		for r.at < len(r.data) && !r.bad {
			op := byte(r.u(1))
			low := uint64(op & 0x3f)
			switch op >> 6 {
			case 1:
				emit()
				pc += low * uint64(c.code)
				continue
			case 2:
				set(low, AtCFA, int64(r.uleb())*c.data)
				continue
			case 3:
				if low == fp {
					st.fp, st.fpO = initial.fp, initial.fpO
				} else if low == c.ra {
					st.ra, st.raO = initial.ra, initial.raO
				}
				continue
			}
			switch op {
			case 1:
				emit()
				pc = r.encoded(c.enc)
			case 2:
				emit()
				pc += r.u(1) * uint64(c.code)
			case 3:
				emit()
				pc += r.u(2) * uint64(c.code)
			case 4:
				emit()
				pc += r.u(4) * uint64(c.code)
			case 5:
				set(r.uleb(), AtCFA, int64(r.uleb())*c.data)
			case 6:
				r.uleb()
			case 7:
				set(r.uleb(), Lost, 0)
			case 8:
				set(r.uleb(), Same, 0)
			case 9:
				set(r.uleb(), Lost, 0)
				r.uleb()
			case 0xa:
				stack = append(stack, st)
			case 0xb:
				if n := len(stack); n > 0 {
					st, stack = stack[n-1], stack[:n-1]
				}
			case 0xc:
				def(r.uleb(), int64(r.uleb()))
			case 0xd:
				def(r.uleb(), st.off)
			case 0xe:
				st.off = int64(r.uleb())
			case 0x12:
				def(r.uleb(), r.sleb()*c.data)
			case 0x13:
				st.off = r.sleb() * c.data
			case 0x11:
				set(r.uleb(), AtCFA, r.sleb()*c.data)
			case 0xf, 0x10, 0x16:
				register := ^uint64(0)
				if op != 0xf {
					register = r.uleb()
				}
				n := int(r.uleb())
				if r.at+n > len(r.data) {
					r.bad = true
					return
				}
				e := &reader{data: r.data[:r.at+n], at: r.at}
				r.at += n
				if op == 0x16 {
					set(register, Lost, 0)
					continue
				}
				b := uint64(e.u(1)) - 0x70
				if op == 0x10 {
					off := e.sleb()
					if register == fp && b == fp && off%8 == 0 {
						st.fp, st.fpO = AtFP, off/8
					}
					continue
				}
				off := e.sleb()
				st.cfa = Unknown
				switch {
				case b == 7 && n > 8: // PLT
					st.cfa, st.off, st.add = PLT, 8, 11
					if bytes.Contains(r.data[r.at-n:r.at], []byte{0x3a}) { // lit10
						st.add = 10
					}
				case e.at < len(e.data) && e.u(1) == 6:
					st.add = 0
					if e.at < len(e.data) && e.u(1) == 0x23 {
						st.add = int64(e.uleb())
					}
					st.off = off
					switch b {
					case sp:
						st.cfa = SPDeref
					case fp:
						st.cfa = FPDeref
					}
				}
			case 0x2e:
				r.uleb()
			case 0, 0x2d:
			default:
				return
			}
		}
	}
	run(&reader{data: c.init, base: 0})
	initial = st
	rows = nil
	run(r)
	emit()
	_, _ = reg, size
	return rows
}
