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

// covered is a range of addresses of a function.
type covered struct {
	span
	function int32
	depth    int32
}

// functions reads those of a unit.
func (d *data) functions(u *unit, r *root, clock *clock) ([]function, []stretch, error) {
	table, err := d.abbrevs(u)
	if err != nil {
		return nil, nil, err
	}
	l := u.layout()
	c := cursor{data: d.info[:u.end], off: int(u.root)}
	var functions []function
	var ranges []covered
	// The functions around the entries that the next one is in.
	around := make([]int32, 0, 32)
	enclosing, depth := int32(-1), int32(0)
	for !c.done() {
		if clock.over() {
			return nil, nil, ErrBudget
		}
		entry := uint64(c.off)
		code := c.uleb()
		if code == 0 {
			if len(around) == 0 {
				break // filler at the end
			}
			if last := around[len(around)-1]; last != enclosing {
				enclosing = last
				depth--
			}
			around = around[:len(around)-1]
			continue
		}
		a := table.find(code)
		if a == nil {
			return nil, nil, errDamaged
		}
		inner := enclosing
		if a.tag == dwarf.TagSubprogram || a.tag == dwarf.TagInlinedSubroutine {
			f := function{entry: entry, parent: -1}
			if a.tag == dwarf.TagInlinedSubroutine {
				f.parent = enclosing
			}
			var low, high, list value
			for _, attr := range a.attributes {
				v := attr.read(&c, l)
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
			before := len(ranges)
			nested := int32(0)
			if f.parent >= 0 {
				nested = depth
			}
			err := d.spans(u, r, low, high, list, func(s span) bool {
				ranges = append(ranges, covered{s, int32(len(functions)), nested})
				return len(ranges) <= maxRanges && !clock.over()
			})
			switch {
			case err != nil:
				return nil, nil, err
			case clock.late:
				return nil, nil, ErrBudget
			case len(ranges) > maxRanges || len(functions) > maxRanges:
				return nil, nil, errTooMany
			case len(ranges) > before:
				if a.tag == dwarf.TagSubprogram {
					f.low = ranges[before].lo
					if low.form != 0 {
						f.low, _ = d.address(u, r, low)
					}
				}
				inner = int32(len(functions))
				functions = append(functions, f)
			}
		} else {
			a.pass(&c, l)
		}
		if c.failed || len(around) > maxNested {
			return nil, nil, errDamaged
		}
		if a.children {
			around = append(around, enclosing)
			if inner != enclosing {
				enclosing = inner
				depth++
			}
		}
	}
	return functions, flatten(ranges), nil
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
func innermost(stretches []stretch, addr uint64) int32 {
	i := sort.Search(len(stretches), func(i int) bool { return stretches[i].start > addr })
	if i == 0 {
		return -1
	}
	return stretches[i-1].function
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
func (d *data) named(entry uint64) (n named) {
	for range maxHops {
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
		var r *root
		text := func(v value) string {
			if r == nil && v.form != formString {
				// The bases of the unit's strings are needed.
				found, err := d.root(u)
				if err != nil {
					return ""
				}
				r = &found
			}
			s := d.text(u, r, v)
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
