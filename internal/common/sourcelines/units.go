package sourcelines

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"math"
)

// What debug/dwarf keeps to itself: forms, kinds of units, entries of range lists.
const (
	formAddr, formBlock2, formBlock4, formData2, formData4, formData8      = 0x01, 0x03, 0x04, 0x05, 0x06, 0x07
	formString, formBlock, formBlock1, formData1, formFlag, formSdata      = 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d
	formStrp, formUdata, formRefAddr, formRef1, formRef2, formRef4         = 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13
	formRef8, formRefUdata, formIndirect, formSecOffset, formExprloc       = 0x14, 0x15, 0x16, 0x17, 0x18
	formFlagPresent, formStrx, formAddrx, formRefSup4, formStrpSup         = 0x19, 0x1a, 0x1b, 0x1c, 0x1d
	formData16, formLineStrp, formRefSig8, formImplicitConst, formLoclistx = 0x1e, 0x1f, 0x20, 0x21, 0x22
	formRnglistx, formRefSup8, formStrx1, formStrx2, formStrx3, formStrx4  = 0x23, 0x24, 0x25, 0x26, 0x27, 0x28
	formAddrx1, formAddrx2, formAddrx3, formAddrx4                         = 0x29, 0x2a, 0x2b, 0x2c
	formGNUAddrIndex, formGNUStrIndex, formGNURefAlt, formGNUStrpAlt       = 0x1f01, 0x1f02, 0x1f20, 0x1f21

	unitCompile, unitType, unitPartial, unitSkeleton, unitSplitCompile, unitSplitType = 1, 2, 3, 4, 5, 6

	attrMIPSLinkageName dwarf.Attr = 0x2007 // DW_AT_linkage_name before DWARF 4
	attrGNUDwoName      dwarf.Attr = 0x2130
	attrGNUAddrBase     dwarf.Attr = 0x2133
)

const (
	maxUnits      = 1 << 20
	maxSpans      = 1 << 22 // of all units
	maxAbbrevs    = 1 << 18 // kept, of all tables
	maxAttributes = 1 << 10 // of an abbreviation
)

var errDamaged = errors.New("damaged debugging information")

// unknownForm is the error of data that a later DWARF than this package knows may have.
type unknownForm uint16

func (u unknownForm) Error() string {
	return fmt.Sprintf("debugging information in a form that is not known (%#x)", uint16(u))
}

// unit is a unit of .debug_info: a source file, as a rule.
type unit struct {
	start, root, end uint64 // offsets of its header, of its first entry, and where it ends
	abbrevs          uint64 // offset in .debug_abbrev
	version, kind    uint8
	addressSize      uint8
	offsetSize       uint8
}

// readUnits finds the units. Damage ends the list early, and units of a form that is not
// known are left out; of both the error tells.
func readUnits(info []byte) (units []unit, err error) {
	c := at(info, 0)
	for !c.done() {
		var u unit
		u.start = uint64(c.off)
		length, offsetSize := c.length()
		body := uint64(c.off)
		c.skip(length)
		if c.failed || len(units) == maxUnits {
			return units, errDamaged
		}
		u.end = uint64(c.off)
		h := cursor{data: info[:u.end], off: int(body)}
		u.offsetSize = uint8(offsetSize)
		u.version, u.kind = uint8(min(h.number(2), math.MaxUint8)), unitCompile
		if u.version >= 5 {
			u.kind, u.addressSize = h.byte(), h.byte()
			u.abbrevs = h.number(offsetSize)
			switch u.kind {
			case unitSkeleton, unitSplitCompile:
				h.skip(8)
			case unitType, unitSplitType:
				h.skip(8 + uint64(offsetSize))
			}
		} else {
			u.abbrevs, u.addressSize = h.number(offsetSize), h.byte()
		}
		u.root = uint64(h.off)
		if h.failed || u.version < 2 || u.version > 5 || u.addressSize != 4 && u.addressSize != 8 {
			err = fmt.Errorf("DWARF %d, addresses of %d bytes: such units are not known", u.version, u.addressSize)
			continue // the next may be
		}
		units = append(units, u)
	}
	return units, err
}

// abbrev is how the entries of one code are laid out.
type abbrev struct {
	code       uint64
	tag        dwarf.Tag
	children   bool
	attributes []attribute
	// What to skip to get over an entry: so many bytes, or what the form has if that is
	// negative.
	skips []int32
	// A form that is not known, so that where its value ends isn't either; or 0.
	unknown unknownForm
}

// err tells by error that entries can't be read.
func (a *abbrev) err() error {
	if a.unknown != 0 {
		return a.unknown
	}
	return nil
}

type attribute struct {
	name dwarf.Attr
	form uint16
	// implicit is the value, for a form that keeps it here.
	implicit int64
}

// abbrevs is a table of them. The codes are 1, 2, 3, … as a rule.
type abbrevs struct {
	dense []abbrev
	other map[uint64]*abbrev
}

func (a *abbrevs) find(code uint64) *abbrev {
	if i := code - 1; i < uint64(len(a.dense)) {
		return &a.dense[i]
	}
	return a.other[code]
}

// layout is what decides how long a form is.
type layout struct {
	abbrevs                          uint64
	addressSize, offsetSize, refSize uint8
}

func (u *unit) layout() layout {
	l := layout{u.abbrevs, u.addressSize, u.offsetSize, u.offsetSize}
	if u.version == 2 {
		l.refSize = u.addressSize
	}
	return l
}

// fixed gives the length of a form's value, or -1 if the value tells.
func (l layout) fixed(form uint16) int {
	switch form {
	case formFlagPresent, formImplicitConst:
		return 0
	case formData1, formFlag, formRef1, formStrx1, formAddrx1:
		return 1
	case formData2, formRef2, formStrx2, formAddrx2:
		return 2
	case formStrx3, formAddrx3:
		return 3
	case formData4, formRef4, formRefSup4, formStrx4, formAddrx4:
		return 4
	case formData8, formRef8, formRefSup8, formRefSig8:
		return 8
	case formData16:
		return 16
	case formAddr:
		return int(l.addressSize)
	case formRefAddr:
		return int(l.refSize)
	case formStrp, formSecOffset, formStrpSup, formLineStrp, formGNURefAlt, formGNUStrpAlt:
		return int(l.offsetSize)
	}
	return -1
}

// readAbbrev reads the next one of a table; its code is 0 at the end.
func readAbbrev(c *cursor, l layout) (a abbrev) {
	if a.code = c.uleb(); a.code == 0 {
		return a
	}
	a.tag, a.children = dwarf.Tag(c.uleb()), c.byte() != 0
	run := 0
	for {
		name, form := c.uleb(), c.uleb()
		if name == 0 && form == 0 || c.failed {
			break
		}
		if name > math.MaxUint16 || form > math.MaxUint16 || len(a.attributes) == maxAttributes {
			c.fail()
			break
		}
		attr := attribute{name: dwarf.Attr(name), form: uint16(form)}
		if form == formImplicitConst {
			attr.implicit = c.sleb()
		}
		a.attributes = append(a.attributes, attr)
		if n := l.fixed(attr.form); n >= 0 {
			run += n
			continue
		}
		if run > 0 {
			a.skips = append(a.skips, int32(run))
			run = 0
		}
		a.skips = append(a.skips, -int32(form))
		if a.unknown == 0 && !varies(attr.form) {
			a.unknown = unknownForm(form)
		}
	}
	if run > 0 {
		a.skips = append(a.skips, int32(run))
	}
	return a
}

// abbrevs gives the table of a unit, which others may share.
func (d *data) abbrevs(u *unit) (*abbrevs, error) {
	l := u.layout()
	if t := d.tables[l]; t != nil {
		return t, nil
	}
	t := &abbrevs{}
	size := 0
	c := at(d.abbrev, u.abbrevs)
	for {
		a := readAbbrev(&c, l)
		if size += 1 + len(a.attributes)/8; c.failed || size > maxAbbrevs {
			return nil, errDamaged
		}
		if a.code == 0 {
			break
		}
		switch {
		case a.code == uint64(len(t.dense))+1:
			t.dense = append(t.dense, a)
		default:
			if t.other == nil {
				t.other = map[uint64]*abbrev{}
			}
			t.other[a.code] = &a
		}
	}
	if d.kept += size; d.kept > maxAbbrevs || d.tables == nil {
		d.tables, d.kept = map[layout]*abbrevs{}, size
	}
	d.tables[l] = t
	return t, nil
}

// pass gets over an entry, whose code was read.
func (a *abbrev) pass(c *cursor, l layout) {
	for _, s := range a.skips {
		if s >= 0 {
			c.skip(uint64(s))
		} else {
			passForm(c, uint16(-s), l)
		}
	}
}

// varies reports whether passForm knows a form.
func varies(form uint16) bool {
	switch form {
	case formString, formUdata, formRefUdata, formStrx, formAddrx, formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex,
		formSdata, formBlock1, formBlock2, formBlock4, formBlock, formExprloc, formIndirect:
		return true
	}
	return false
}

func passForm(c *cursor, form uint16, l layout) {
	switch form {
	case formString:
		c.cstring()
	case formUdata, formRefUdata, formStrx, formAddrx, formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex, formSdata:
		c.uleb()
	case formBlock1:
		c.skip(uint64(c.byte()))
	case formBlock2:
		c.skip(c.number(2))
	case formBlock4:
		c.skip(c.number(4))
	case formBlock, formExprloc:
		c.skip(c.uleb())
	case formIndirect:
		form := c.uleb()
		n := -1
		if form <= math.MaxUint16 && form != formImplicitConst {
			n = l.fixed(uint16(form))
		}
		switch {
		case n >= 0:
			c.skip(uint64(n))
		case form > math.MaxUint16 || form == formIndirect:
			c.fail()
		default:
			passForm(c, uint16(form), l)
		}
	default:
		c.fail()
	}
}

// value is that of an attribute, as it is written.
type value struct {
	form   uint16 // 0 if there is none
	number uint64
	text   []byte // of formString
}

// read reads the value of an attribute.
func (a attribute) read(c *cursor, l layout) value {
	v := value{form: a.form}
	if a.form == formIndirect {
		form := c.uleb()
		if form > math.MaxUint16 || form == formIndirect || form == formImplicitConst {
			c.fail()
			return value{}
		}
		v.form = uint16(form)
	}
	switch v.form {
	case formImplicitConst:
		v.number = uint64(a.implicit)
	case formFlagPresent:
		v.number = 1
	case formString:
		v.text = c.cstring()
	case formUdata, formRefUdata, formStrx, formAddrx, formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		v.number = c.uleb()
	case formSdata:
		v.number = uint64(c.sleb())
	default:
		switch n := l.fixed(v.form); n {
		case 1, 2, 3, 4, 8:
			v.number = c.number(n)
		case 16:
			c.skip(16)
		default:
			passForm(c, v.form, l)
		}
	}
	return v
}

// root is what a unit's first entry tells.
type root struct {
	low, high         value
	ranges            value
	dir               value
	stmtList          uint64 // offset in .debug_line
	lines             bool   // there is one
	split             bool   // the rest is in another file
	base              uint64 // of range lists
	addrBase, strBase uint64
	rangesBase        uint64
}

func (d *data) root(u *unit) (r root, err error) {
	l := u.layout()
	c := cursor{data: d.info[:u.end], off: int(u.root)}
	code := c.uleb()
	var a abbrev
	if table := d.tables[l]; table != nil {
		found := table.find(code)
		if found == nil {
			return r, errDamaged
		}
		a = *found
	} else {
		// There may be many units that nothing else is needed of: no table is made.
		for t := at(d.abbrev, u.abbrevs); a.code != code; {
			if a = readAbbrev(&t, l); t.failed || a.code == 0 {
				return r, errDamaged
			}
		}
	}
	if err := a.err(); err != nil {
		return r, err
	}
	for _, attr := range a.attributes {
		v := attr.read(&c, l)
		switch attr.name {
		case dwarf.AttrLowpc:
			r.low = v
		case dwarf.AttrHighpc:
			r.high = v
		case dwarf.AttrRanges:
			r.ranges = v
		case dwarf.AttrCompDir:
			r.dir = v
		case dwarf.AttrStmtList:
			r.stmtList, r.lines = v.number, true
		case dwarf.AttrStrOffsetsBase:
			r.strBase = v.number
		case dwarf.AttrAddrBase, attrGNUAddrBase:
			r.addrBase = v.number
		case dwarf.AttrRnglistsBase:
			r.rangesBase = v.number
		case dwarf.AttrDwoName, attrGNUDwoName:
			r.split = true
		}
	}
	if c.failed {
		return r, errDamaged
	}
	if r.low.form != 0 {
		r.base, _ = d.address(u, &r, r.low)
	}
	return r, nil
}

// address gives the address that a value is.
func (d *data) address(u *unit, r *root, v value) (uint64, bool) {
	switch v.form {
	case formAddr:
		return v.number, true
	case formAddrx, formAddrx1, formAddrx2, formAddrx3, formAddrx4, formGNUAddrIndex:
		return d.indexed(u, r, v.number)
	}
	return 0, false
}

// indexed gives an address from .debug_addr.
func (d *data) indexed(u *unit, r *root, index uint64) (uint64, bool) {
	if index > uint64(len(d.addr)) {
		return 0, false
	}
	c := at(d.addr, r.addrBase+index*uint64(u.addressSize))
	addr := c.number(int(u.addressSize))
	return addr, !c.failed
}

// text gives the string that a value is, or nil if it is too long for a name.
func (d *data) text(u *unit, r *root, v value) []byte {
	var c cursor
	switch v.form {
	case formString:
		return v.text
	case formStrp:
		c = at(d.str, v.number)
	case formLineStrp:
		c = at(d.lineStr, v.number)
	case formStrx, formStrx1, formStrx2, formStrx3, formStrx4:
		if v.number > uint64(len(d.strOffsets)) {
			return nil
		}
		o := at(d.strOffsets, r.strBase+v.number*uint64(u.offsetSize))
		if c = at(d.str, o.number(int(u.offsetSize))); o.failed {
			return nil
		}
	case formGNUStrpAlt, formStrpSup:
		if d.alt == nil {
			return nil
		}
		c = at(d.alt.str, v.number)
	default:
		return nil
	}
	c.data = c.data[:min(len(c.data), c.off+maxName)]
	return c.cstring()
}
