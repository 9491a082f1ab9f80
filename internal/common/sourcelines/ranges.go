package sourcelines

// Entries of .debug_rnglists.
const (
	rleEnd, rleBaseAddressx, rleStartxEndx, rleStartxLength    = 0, 1, 2, 3
	rleOffsetPair, rleBaseAddress, rleStartEnd, rleStartLength = 4, 5, 6, 7
)

// spans calls add with the addresses of an entry with these attributes, until add says no.
// Those that the linker dropped, and empty ones, are left out.
func (d *data) spans(u *unit, r *root, low, high, ranges value, clock *clock, add func(span) bool) error {
	code := func(s span) bool {
		if s.lo >= s.hi || !d.code(s.lo) {
			return true
		}
		return add(s)
	}
	if ranges.form != 0 {
		if u.version >= 5 {
			return d.rangeList(u, r, ranges, clock, code)
		}
		return d.oldRangeList(u, r, ranges, clock, code)
	}
	if low.form == 0 || high.form == 0 {
		return nil
	}
	lo, ok := d.address(u, r, low)
	if !ok {
		return errDamaged
	}
	hi, isAddress := d.address(u, r, high)
	if !isAddress { // then it is the length
		hi = lo + high.number
	}
	code(span{lo, hi})
	return nil
}

// oldRangeList reads one of .debug_ranges, as before DWARF 5.
func (d *data) oldRangeList(u *unit, r *root, list value, clock *clock, add func(span) bool) error {
	c := at(d.ranges, list.number)
	size := int(u.addressSize)
	top := ^uint64(0) >> (64 - 8*size)
	base := r.base
	for {
		if clock.over() {
			return ErrBudget
		}
		lo, hi := c.number(size), c.number(size)
		switch {
		case c.failed:
			return errDamaged
		case lo == 0 && hi == 0:
			return nil
		case lo == top:
			base = hi
		case !add(span{base + lo, base + hi}):
			return nil
		}
	}
}

// rangeList reads one of .debug_rnglists, as of DWARF 5.
func (d *data) rangeList(u *unit, r *root, list value, clock *clock, add func(span) bool) error {
	off := list.number
	if list.form == formRnglistx {
		if off > uint64(len(d.rnglists)) {
			return errDamaged
		}
		c := at(d.rnglists, r.rangesBase+off*uint64(u.offsetSize))
		if off = r.rangesBase + c.number(int(u.offsetSize)); c.failed {
			return errDamaged
		}
	}
	c := at(d.rnglists, off)
	size := int(u.addressSize)
	base := r.base
	for {
		if clock.over() {
			return ErrBudget
		}
		var s span
		var ok1, ok2 = true, true
		switch c.byte() {
		case rleEnd:
			if c.failed {
				return errDamaged
			}
			return nil
		case rleBaseAddressx:
			base, ok1 = d.indexed(u, r, c.uleb())
		case rleStartxEndx:
			s.lo, ok1 = d.indexed(u, r, c.uleb())
			s.hi, ok2 = d.indexed(u, r, c.uleb())
		case rleStartxLength:
			s.lo, ok1 = d.indexed(u, r, c.uleb())
			s.hi = s.lo + c.uleb()
		case rleOffsetPair:
			s.lo = base + c.uleb()
			s.hi = base + c.uleb()
		case rleBaseAddress:
			base = c.number(size)
		case rleStartEnd:
			s = span{c.number(size), c.number(size)}
		case rleStartLength:
			s.lo = c.number(size)
			s.hi = s.lo + c.uleb()
		default:
			return errDamaged
		}
		if c.failed || !ok1 || !ok2 {
			return errDamaged
		}
		if s.lo < s.hi && !add(s) {
			return nil
		}
	}
}
