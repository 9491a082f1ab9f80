package sourcelines

import (
	"cmp"
	"debug/dwarf"
	"errors"
	"slices"
	"sort"
)

const (
	maxRanges = 1 << 21 // of the functions of a unit
	maxNested = 1 << 10 // entries of a unit in each other
)

var errTooMany = errors.New("more debugging information in one unit than is read")

// function is a function's code, or that of a call that was inlined.
type function struct {
	entry              uint64 // offset in .debug_info
	low                uint64 // where it starts, if it isn't inlined
	parent             int32  // the function that this one was inlined into, or -1
	callFile, callLine uint32
}

// stretch is where a function's code begins that reaches to the next stretch.
type stretch struct {
	start    uint64
	function int32 // the innermost, or -1
}

// code is functions and where they are.
type code struct {
	functions []function
	stretches []stretch
}

func (c *code) size() int { return 32*len(c.functions) + 16*len(c.stretches) }

// covered is a range of addresses of a function.
type covered struct {
	span
	function int32
	depth    int32
}

// walk goes over entries of a unit.
type walk struct {
	*data
	unit      *unit
	root      *root
	layout    layout
	table     *abbrevs
	cursor    cursor
	clock     *clock
	functions []function
	ranges    []covered
}

func (d *data) walk(u *unit, r *root, from uint64, clock *clock) (*walk, error) {
	table, err := d.abbrevs(u)
	if err != nil {
		return nil, err
	}
	return &walk{
		data: d, unit: u, root: r, layout: u.layout(), table: table, clock: clock,
		cursor: cursor{data: d.info[:u.end], off: int(from)},
	}, nil
}

// next reads the code of the next entry; it is nil at the end of the children of one.
func (w *walk) next() (*abbrev, error) {
	if w.clock.over() {
		return nil, ErrBudget
	}
	code := w.cursor.uleb()
	if code == 0 {
		return nil, nil
	}
	a := w.table.find(code)
	if a == nil {
		return nil, errDamaged
	}
	return a, a.err()
}

// function reads the rest of a function's entry, and adds it if it has code.
func (w *walk) function(a *abbrev, f function, depth int32) (added bool, err error) {
	var low, high, list value
	for _, attr := range a.attributes {
		v := attr.read(&w.cursor, w.layout)
		switch attr.name {
		case dwarf.AttrLowpc:
			low = v
		case dwarf.AttrHighpc:
			high = v
		case dwarf.AttrRanges:
			list = v
		case dwarf.AttrCallFile:
			f.callFile = uint32(v.number)
		case dwarf.AttrCallLine:
			f.callLine = uint32(v.number)
		}
	}
	if w.cursor.failed {
		return false, errDamaged
	}
	before := len(w.ranges)
	err = w.spans(w.unit, w.root, low, high, list, w.clock, func(s span) bool {
		w.ranges = append(w.ranges, covered{s, int32(len(w.functions)), depth})
		return len(w.ranges) <= maxRanges
	})
	switch {
	case err != nil:
		return false, err
	case len(w.ranges) > maxRanges:
		return false, errTooMany
	case len(w.ranges) == before:
		return false, nil
	}
	if a.tag == dwarf.TagSubprogram {
		f.low = w.ranges[before].lo
		if low.form != 0 {
			f.low, _ = w.address(w.unit, w.root, low)
		}
	}
	w.functions = append(w.functions, f)
	return true, nil
}

// functions finds those of a unit, without what is inlined in them.
func (d *data) functions(u *unit, r *root, clock *clock) (code, error) {
	w, err := d.walk(u, r, u.root, clock)
	if err != nil {
		return code{}, err
	}
	for !w.cursor.done() {
		entry := uint64(w.cursor.off)
		a, err := w.next()
		switch {
		case err != nil:
			return code{}, err
		case a == nil:
		case a.tag == dwarf.TagSubprogram:
			if _, err := w.function(a, function{entry: entry, parent: -1}, 0); err != nil {
				return code{}, err
			}
		default:
			a.pass(&w.cursor, w.layout)
		}
	}
	if w.cursor.failed {
		return code{}, errDamaged
	}
	return code{w.functions, flatten(w.ranges)}, nil
}

// inlined gives a function, of which the entry is known, with all that is inlined in it.
func (d *data) inlined(u *unit, r *root, entry uint64, clock *clock) (code, error) {
	w, err := d.walk(u, r, entry, clock)
	if err != nil {
		return code{}, err
	}
	// The functions around the entries that the next one is in.
	around := make([]int32, 0, 32)
	enclosing, depth := int32(-1), int32(0)
	for {
		at := uint64(w.cursor.off)
		a, err := w.next()
		if err != nil {
			return code{}, err
		}
		if a == nil {
			if len(around) == 0 {
				break
			}
			last := around[len(around)-1]
			around = around[:len(around)-1]
			if last != enclosing {
				enclosing = last
				depth--
			}
		} else {
			inner := enclosing
			if a.tag == dwarf.TagInlinedSubroutine || a.tag == dwarf.TagSubprogram {
				added, err := w.function(a, function{entry: at, parent: enclosing}, depth)
				if err != nil {
					return code{}, err
				}
				if added {
					inner = int32(len(w.functions) - 1)
				}
			} else {
				a.pass(&w.cursor, w.layout)
			}
			if a.children {
				around = append(around, enclosing)
				if inner != enclosing {
					enclosing = inner
					depth++
				}
			}
		}
		if w.cursor.failed || len(around) > maxNested {
			return code{}, errDamaged
		}
		if len(around) == 0 {
			break
		}
	}
	return code{w.functions, flatten(w.ranges)}, nil
}

// flatten tells for each address the innermost function. Where those of one depth
// overlap, the one that starts later has it; one that reaches out of what it was inlined
// into is cut.
func flatten(ranges []covered) []stretch {
	slices.SortFunc(ranges, func(a, b covered) int {
		return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(a.depth, b.depth), cmp.Compare(b.hi, a.hi),
			cmp.Compare(a.function, b.function))
	})
	stretches := make([]stretch, 0, len(ranges)+1)
	emit := func(start uint64, function int32) {
		if n := len(stretches); n > 0 && stretches[n-1].start == start {
			stretches[n-1].function = function
			return
		}
		stretches = append(stretches, stretch{start, function})
	}
	var open []covered
	end := func() {
		last := open[len(open)-1]
		open = open[:len(open)-1]
		outer := int32(-1)
		if len(open) > 0 {
			outer = open[len(open)-1].function
		}
		emit(last.hi, outer)
	}
	for _, r := range ranges {
		for len(open) > 0 && open[len(open)-1].hi <= r.lo {
			end()
		}
		for len(open) > 0 && open[len(open)-1].depth >= r.depth {
			open = open[:len(open)-1]
		}
		if n := len(open); n > 0 {
			r.hi = min(r.hi, open[n-1].hi)
		}
		open = append(open, r)
		emit(r.lo, r.function)
	}
	for len(open) > 0 {
		end()
	}
	return stretches
}

// innermost finds the function at an address, or -1.
func (c *code) innermost(addr uint64) int32 {
	i := sort.Search(len(c.stretches), func(i int) bool { return c.stretches[i].start > addr })
	if i == 0 {
		return -1
	}
	return c.stretches[i-1].function
}

// named is what a function is called, and where it is declared.
type named struct {
	name, linkage string
	line          int
}

const (
	maxHops = 8        // from a function's entry to the one with the name
	maxName = 16 << 10 // bytes of it
)

// named follows a function's entry to its names. It finds nothing in what is damaged.
func (d *data) named(entry uint64, clock *clock) (n named) {
	for range maxHops {
		if clock.check() {
			return n
		}
		i := sort.Search(len(d.units), func(i int) bool { return d.units[i].end > entry })
		if i == len(d.units) || entry < d.units[i].root {
			return n
		}
		u := &d.units[i]
		table, err := d.abbrevs(u)
		if err != nil {
			return n
		}
		c := cursor{data: d.info[:u.end], off: int(entry)}
		a := table.find(c.uleb())
		if a == nil {
			return n
		}
		text := func(v value) string {
			var r root
			switch v.form {
			case formStrx, formStrx1, formStrx2, formStrx3, formStrx4:
				// The base of the unit's strings is needed.
				if r, err = d.root(u); err != nil {
					return ""
				}
			}
			s := d.text(u, &r, v)
			return string(s[:min(len(s), maxName)])
		}
		var next value
		for _, attr := range a.attributes {
			v := attr.read(&c, u.layout())
			switch attr.name {
			case dwarf.AttrName:
				if n.name == "" {
					n.name = text(v)
				}
			case dwarf.AttrLinkageName, attrMIPSLinkageName:
				if n.linkage == "" {
					n.linkage = text(v)
				}
			case dwarf.AttrDeclLine:
				if n.line == 0 {
					n.line = int(uint32(v.number))
				}
			case dwarf.AttrAbstractOrigin, dwarf.AttrSpecification:
				next = v
			}
		}
		if c.failed {
			return n
		}
		switch next.form {
		case formRef1, formRef2, formRef4, formRef8, formRefUdata:
			entry = u.start + next.number
		case formRefAddr:
			entry = next.number
		case formGNURefAlt, formRefSup4, formRefSup8:
			if d.alt == nil {
				return n
			}
			d, entry = d.alt, next.number
		default:
			return n
		}
	}
	return n
}
