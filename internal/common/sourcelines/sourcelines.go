// Package sourcelines tells the source lines of addresses, and the functions that were
// inlined there, by DWARF data of versions 2 to 5.
//
// The standard library's debug/dwarf does more, but isn't meant for data that nobody
// vouches for (a few bytes make it ask for any amount of memory), which the files of
// traced processes are, and reads all entries of a unit into memory of their own.
package sourcelines

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// ErrBudget tells that the time or the memory that was allowed is used up.
var ErrBudget = errors.New("too much debugging information")

// Budget bounds what the Files that share it may take together, so that names don't take
// longer than what they are of. Files may share one from several goroutines.
type Budget struct {
	mu     sync.Mutex
	memory int64 // bytes
	left   time.Duration
}

// NewBudget allows so many bytes of memory for sections that have to be decompressed,
// and so much time. What else takes memory is bounded for each File, at about 100 MB.
func NewBudget(memory int64, d time.Duration) *Budget {
	return &Budget{memory: memory, left: d}
}

// clock tells when the time of a budget is over.
type clock struct {
	deadline time.Time
	asked    int
	late     bool
}

// over is for loops of which a turn costs nearly nothing.
func (c *clock) over() bool {
	if c.asked++; c.asked%4096 == 0 {
		return c.check()
	}
	return c.late
}

func (c *clock) check() bool {
	c.late = c.late || time.Now().After(c.deadline)
	return c.late
}

// spend calls f with a clock for the time that is left, and takes off what f took.
func (b *Budget) spend(f func(*clock) error) error {
	b.mu.Lock()
	left := b.left
	b.mu.Unlock()
	if left <= 0 {
		return ErrBudget
	}
	start := time.Now()
	err := f(&clock{deadline: start.Add(left)})
	b.mu.Lock()
	b.left -= time.Since(start)
	b.mu.Unlock()
	return err
}

// take allows bytes of memory, until they are given back.
func (b *Budget) take(bytes uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes > uint64(max(b.memory, 0)) {
		return fmt.Errorf("%w: it takes %d MB when decompressed", ErrBudget, bytes>>20)
	}
	b.memory -= int64(bytes)
	return nil
}

func (b *Budget) give(bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memory += int64(bytes)
}

// Options say how a File is read.
type Options struct {
	// Demangle makes a name readable; nil leaves names as they are.
	Demangle func(string) string
	// Alternate opens the file that .gnu_debugaltlink names (dwz moves there what
	// several files have), a path that may be relative to the file's own. With nil, or
	// if it fails, names that are there are missing.
	Alternate func(path string, buildID []byte) (*os.File, error)
}

// File is the debugging information of an ELF file. It is not for concurrent use.
type File struct {
	main    data
	options Options
	budget  *Budget
	spans   []unitSpan
	// Those that can't be read, so that none is tried twice.
	damaged map[int32]error
	indexes map[int32]*index
	held    int // bytes of indexes
	touched uint64
	names   map[uint64]named
	notes   []string
}

// data is the DWARF data of one file.
type data struct {
	*sections
	units  []unit
	unread error // why there may be more units
	tables map[layout]*abbrevs
	kept   int   // abbreviations in tables
	alt    *data // of the supplementary file
}

// unitSpan is a range of addresses of a unit.
type unitSpan struct {
	span
	unit int32
	// reach is the greatest hi of this one and all before.
	reach uint64
}

// index is what was read of a unit.
type index struct {
	unit  *unit
	root  root
	code  // without what is inlined
	lines *lineTable
	// What is inlined, by function, of those that were asked for.
	inlined map[int32]inlined
}

type inlined struct {
	code
	err error
}

const (
	maxHeld    = 64 << 20 // bytes of indexes
	maxTouched = 64 << 20 // bytes of the file read before its pages are released
	maxNames   = 1 << 16  // kept
	maxTries   = 8        // of units that overlap
)

// Open reads where the units of an ELF file are, which may be a separate file of
// debugging information. It wraps ErrNone if there is none in f, and ErrBudget if
// that is used up. f may be closed afterwards.
func Open(f *os.File, budget *Budget, options Options) (*File, error) {
	file := &File{
		options: options, budget: budget,
		damaged: map[int32]error{}, indexes: map[int32]*index{}, names: map[uint64]named{},
	}
	err := guard(func() error {
		return budget.spend(func(clock *clock) error { return file.open(f, clock) })
	})
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	return file, nil
}

func (f *File) open(elf *os.File, clock *clock) (err error) {
	if err = f.main.open(elf, f.budget, false); err != nil {
		return err
	}
	if len(f.main.line) == 0 {
		return ErrNone
	}
	if f.main.altPath != "" {
		f.openAlternate()
	}
	err = f.placeUnits(clock)
	f.main.release()
	return err
}

// placeUnits finds the addresses of the units.
func (f *File) placeUnits(clock *clock) error {
	split := 0
	for i := range f.main.units {
		if clock.check() {
			return ErrBudget
		}
		u := &f.main.units[i]
		if u.kind != unitCompile && u.kind != unitSkeleton {
			continue
		}
		r, err := f.main.root(u)
		add := func(s span) bool {
			f.spans = append(f.spans, unitSpan{span: s, unit: int32(i)})
			return len(f.spans) <= maxSpans
		}
		if err == nil {
			err = f.main.spans(u, &r, r.low, r.high, r.ranges, clock, add)
		}
		if err == nil && u.version == 2 && r.ranges.form == 0 {
			// DWARF 2 has no way to tell several ranges, but the lines do.
			var lines *lineTable
			if lines, err = f.main.lineTable(u, &r, clock); err == nil {
				for _, s := range lines.sequences {
					if !add(s.span) {
						break
					}
				}
			}
		}
		switch {
		case len(f.spans) > maxSpans:
			return errTooMany
		case errors.Is(err, ErrBudget):
			return err
		case err != nil:
			f.damaged[int32(i)] = err
		case r.split:
			split++
		}
	}
	if f.main.unread != nil {
		f.notes = append(f.notes, fmt.Sprintf("not all units can be read: %v", f.main.unread))
	}
	if n := len(f.damaged); n > 0 {
		first := f.damaged[slices.Min(slices.Collect(maps.Keys(f.damaged)))]
		f.notes = append(f.notes, fmt.Sprintf("%d of %d units can't be read: %v", n, len(f.main.units), first))
	}
	if split > 0 {
		f.notes = append(f.notes, fmt.Sprintf(
			"%d of %d units have their functions in .dwo files, which are not read: inlined functions are missing", split, len(f.main.units)))
	}
	slices.SortFunc(f.spans, func(a, b unitSpan) int {
		return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(b.hi, a.hi), cmp.Compare(a.unit, b.unit))
	})
	var reach uint64
	for i := range f.spans {
		reach = max(reach, f.spans[i].hi)
		f.spans[i].reach = reach
	}
	return nil
}

func (d *data) open(f *os.File, budget *Budget, alternate bool) (err error) {
	if d.sections, err = readSections(f, budget, alternate); err != nil {
		return err
	}
	d.units, d.unread = readUnits(d.info)
	return nil
}

func (f *File) openAlternate() {
	missing := func(err error) {
		f.notes = append(f.notes, fmt.Sprintf("names in %q are missing: %v", f.main.altPath, err))
	}
	if f.options.Alternate == nil {
		missing(errors.New("it is not read"))
		return
	}
	file, err := f.options.Alternate(f.main.altPath, f.main.altBuildID)
	if err != nil {
		missing(err)
		return
	}
	defer file.Close()
	alt := &data{}
	if err := alt.open(file, f.budget, true); err != nil {
		missing(err)
		return
	}
	if alt.unread != nil {
		f.notes = append(f.notes, fmt.Sprintf("names in %q may be missing: %v", f.main.altPath, alt.unread))
	}
	f.main.alt = alt
}

// Notes tell, for the user, what is missing in all that Lines gives.
func (f *File) Notes() []string { return f.notes }

// Close gives back the memory, that of the budget too.
func (f *File) Close() error {
	var errs []error
	for d := &f.main; d != nil; d = d.alt {
		if d.sections != nil && d.mapped != nil {
			errs = append(errs, d.close(f.budget))
		}
	}
	*f = File{budget: f.budget}
	return errors.Join(errs...)
}

// guard calls f, and makes an error of a fault: files that are mapped may be cut by
// those who own them.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			err = errors.New("the file was cut while it was read")
		}
	}()
	return f()
}

// Lines gives the functions at an address of the file, the innermost first: all but the
// last are inlined into the next one. File and Line of the first are those of the
// address, of the others those of the call. Where DWARF has a line but no function, or
// no name, the Function of the only or last Line is empty. There are no Lines of an
// address that there is no debugging information of.
//
// It is fastest for addresses in order. Errors are of what is damaged there, or
// ErrBudget.
func (f *File) Lines(addr uint64) (lines []symbols.Line, err error) {
	err = guard(func() error {
		i := sort.Search(len(f.spans), func(i int) bool { return f.spans[i].lo > addr })
		tried := int32(-1)
		for range maxTries {
			if i--; i < 0 || f.spans[i].reach <= addr {
				return err
			}
			s := f.spans[i]
			if addr >= s.hi || s.unit == tried {
				continue
			}
			tried = s.unit
			var x *index
			if x, err = f.index(s.unit); err != nil {
				if errors.Is(err, ErrBudget) {
					return err
				}
				continue
			}
			if lines, err = f.lines(x, addr); lines != nil || errors.Is(err, ErrBudget) {
				return err
			}
		}
		return err
	})
	return lines, err
}

func (f *File) lines(x *index, addr uint64) (lines []symbols.Line, err error) {
	place, ok := x.lines.find(addr)
	n := x.innermost(addr)
	if n < 0 {
		if !ok {
			return nil, nil
		}
		return []symbols.Line{{File: x.lines.path(place.file), Line: int(place.line)}}, nil
	}
	in := f.inlined(x, n)
	if in.err != nil {
		return nil, in.err
	}
	n = in.innermost(addr)
	for n >= 0 {
		fn := &in.functions[n]
		name := f.named(fn.entry)
		line := symbols.Line{
			Function: name.name, Linkage: name.linkage,
			Start: fn.low, StartLine: name.line,
			File: x.lines.path(place.file), Line: int(place.line),
		}
		switch {
		case line.Linkage == "":
			line.Linkage = line.Function
		case f.options.Demangle != nil:
			line.Function = f.options.Demangle(line.Linkage)
		default:
			line.Function = line.Linkage
		}
		if line.Function == "" && fn.parent >= 0 {
			line.Function, line.Linkage = "[inlined]", "[inlined]"
		}
		lines = append(lines, line)
		place = row{file: fn.callFile, line: fn.callLine}
		n = fn.parent
	}
	return lines, nil
}

// inlined gives what is inlined in a function of a unit.
func (f *File) inlined(x *index, n int32) inlined {
	if in, ok := x.inlined[n]; ok {
		return in
	}
	var in inlined
	in.err = f.budget.spend(func(clock *clock) (err error) {
		in.code, err = f.main.inlined(x.unit, &x.root, x.functions[n].entry, clock)
		return err
	})
	if errors.Is(in.err, ErrBudget) {
		return in
	}
	if f.held += in.size(); f.held > maxHeld {
		clear(f.indexes)
		clear(x.inlined)
		f.held = in.size()
	}
	x.inlined[n] = in
	return in
}

func (f *File) named(entry uint64) named {
	if n, ok := f.names[entry]; ok {
		return n
	}
	if len(f.names) == maxNames {
		clear(f.names)
	}
	var n named
	_ = f.budget.spend(func(clock *clock) error {
		n = f.main.named(entry, clock)
		return nil
	})
	f.names[entry] = n
	return n
}

// index reads what there is of a unit, or gives it if that was done.
func (f *File) index(number int32) (*index, error) {
	if x := f.indexes[number]; x != nil {
		return x, nil
	}
	if err := f.damaged[number]; err != nil {
		return nil, err
	}
	x := &index{unit: &f.main.units[number], inlined: map[int32]inlined{}}
	err := f.budget.spend(func(clock *clock) (err error) {
		if x.root, err = f.main.root(x.unit); err != nil {
			return err
		}
		if f.touched += x.unit.end - x.unit.start; f.touched > maxTouched {
			f.main.release()
			f.touched = 0
		}
		if x.lines, err = f.main.lineTable(x.unit, &x.root, clock); err != nil {
			return err
		}
		x.code, err = f.main.functions(x.unit, &x.root, clock)
		return err
	})
	if err != nil {
		if !errors.Is(err, ErrBudget) {
			f.damaged[number] = err
		}
		return nil, err
	}
	size := x.size() + 16*len(x.lines.rows) + 64*len(x.lines.files) + 48*len(x.lines.sequences)
	if f.held += size; f.held > maxHeld {
		clear(f.indexes)
		f.held = size
	}
	f.indexes[number] = x
	return x, nil
}
