package sourcelines

import (
	"cmp"
	"math"
	"path"
	"slices"
	"sort"
)

const (
	maxRows  = 1 << 22 // of a unit
	maxFiles = 1 << 16 // of a unit, and directories
)

// lineTable tells the source lines of a unit.
type lineTable struct {
	version   uint8
	dirs      []string
	files     []sourceFile
	rows      []row
	sequences []sequence
}

type sourceFile struct {
	name []byte
	dir  uint64
	path string // made when it is asked for
}

// row tells the line of the addresses up to the next row.
type row struct {
	addr uint64
	file uint32
	line uint32
}

// sequence is a part of the program: its rows, but for the last, which tells its end.
type sequence struct {
	span
	first, last int
}

// lineTable runs the line number program of a unit.
func (d *data) lineTable(u *unit, r *root, clock *clock) (*lineTable, error) {
	if !r.lines {
		return &lineTable{}, nil
	}
	c := at(d.line, r.stmtList)
	length, offsetSize := c.length()
	body := c.off
	c.skip(length)
	if c.failed {
		return nil, errDamaged
	}
	c = cursor{data: d.line[:c.off], off: body}
	t := &lineTable{}
	p := program{table: t, addressSize: int(u.addressSize)}
	version := c.number(2)
	if version < 2 || version > 5 {
		return nil, errDamaged
	}
	t.version = uint8(version)
	if version >= 5 {
		p.addressSize = int(c.byte())
		c.byte() // of segment selectors
	}
	headerLength := c.number(offsetSize)
	start := uint64(c.off) + headerLength
	p.step = uint64(c.byte())
	p.operations = 1
	if version >= 4 {
		p.operations = uint64(c.byte())
	}
	c.byte() // whether a row is a statement
	p.lineBase = int64(int8(c.byte()))
	p.lineRange = c.byte()
	p.opcodeBase = c.byte()
	if p.lineRange == 0 || p.opcodeBase == 0 || p.operations == 0 || headerLength > uint64(len(c.data)) {
		return nil, errDamaged
	}
	p.lengths = c.bytes(uint64(p.opcodeBase - 1))
	dir := string(d.text(u, r, r.dir))
	if version >= 5 {
		l := u.layout()
		l.offsetSize = uint8(offsetSize)
		d.lineFiles(&c, u, r, l, t, dir)
	} else {
		oldLineFiles(&c, t, dir)
	}
	if c.failed {
		return nil, errDamaged
	}
	c = at(c.data, start)
	if err := p.run(&c, d.sections, clock); err != nil {
		return nil, err
	}
	return t, nil
}

// oldLineFiles reads the tables of directories and files, as before DWARF 5.
func oldLineFiles(c *cursor, t *lineTable, dir string) {
	t.dirs = []string{dir}
	for {
		s := c.cstring()
		if len(s) == 0 {
			break
		}
		if len(t.dirs) == maxFiles {
			c.fail()
			return
		}
		t.dirs = append(t.dirs, join(dir, string(s)))
	}
	t.files = []sourceFile{{}} // the first is number 1
	for {
		name := c.cstring()
		if len(name) == 0 {
			return
		}
		if len(t.files) == maxFiles {
			c.fail()
			return
		}
		t.files = append(t.files, sourceFile{name: name, dir: c.uleb()})
		c.uleb() // time
		c.uleb() // size
	}
}

// What the entries of DWARF 5's tables of files have.
const contentPath, contentDirectory = 1, 2

// lineFiles reads the tables of directories and files, as of DWARF 5.
func (d *data) lineFiles(c *cursor, u *unit, r *root, l layout, t *lineTable, dir string) {
	table := func(add func(sourceFile)) {
		var contents, forms [256]uint64
		n := int(c.byte())
		for i := range n {
			contents[i], forms[i] = c.uleb(), c.uleb()
		}
		count := c.uleb()
		if count > maxFiles || n == 0 && count > 0 {
			c.fail()
		}
		for range count {
			var f sourceFile
			for i := range n {
				v := attribute{form: uint16(min(forms[i], math.MaxUint16))}.read(c, l)
				switch contents[i] {
				case contentPath:
					f.name = d.text(u, r, v)
				case contentDirectory:
					f.dir = v.number
				}
			}
			if c.failed {
				return
			}
			add(f)
		}
	}
	table(func(f sourceFile) {
		if len(t.dirs) > 0 {
			dir = t.dirs[0] // that the unit was compiled in
		} else if len(f.name) > 0 {
			dir = ""
		}
		t.dirs = append(t.dirs, join(dir, string(f.name)))
	})
	table(func(f sourceFile) { t.files = append(t.files, f) })
}

func join(dir, name string) string {
	if path.IsAbs(name) || dir == "" {
		return path.Clean(name)
	}
	return path.Join(dir, name)
}

// path gives the path of a file by its number; empty if there is none.
func (t *lineTable) path(number uint32) string {
	if uint64(number) >= uint64(len(t.files)) {
		return ""
	}
	f := &t.files[number]
	if string(f.name) == "?" { // as Go's linker has it, of functions that it made
		return ""
	}
	if f.path == "" && len(f.name) > 0 {
		dir := ""
		if f.dir < uint64(len(t.dirs)) {
			dir = t.dirs[f.dir]
		}
		f.path = join(dir, string(f.name[:min(len(f.name), maxName)]))
	}
	return f.path
}

// program is the state of a line number program.
type program struct {
	table       *lineTable
	addressSize int
	step        uint64 // bytes of the shortest instruction
	operations  uint64 // in an instruction, where several can be
	lineBase    int64
	lineRange   byte
	opcodeBase  byte
	lengths     []byte // how many arguments an opcode has

	at        row
	operation uint64
	first     int // row of this sequence
}

// Opcodes of a line number program. Those that only tell what no profile shows are
// passed over by the number of their arguments.
const (
	lnsCopy, lnsAdvancePC, lnsAdvanceLine, lnsSetFile = 1, 2, 3, 4
	lnsConstAddPC, lnsFixedAdvancePC                  = 8, 9
	lneEndSequence, lneSetAddress, lneDefineFile      = 1, 2, 3
)

func (p *program) reset() {
	p.at, p.operation = row{file: 1, line: 1}, 0
	p.first = len(p.table.rows)
}

func (p *program) advance(n uint64) {
	if p.operations == 1 {
		p.at.addr += n * p.step
		return
	}
	p.operation += n
	p.at.addr += p.operation / p.operations * p.step
	p.operation %= p.operations
}

// emit adds a row.
func (p *program) emit() {
	rows := p.table.rows
	if n := len(rows); n > p.first && rows[n-1].addr > p.at.addr {
		// Not in order, which none should be: what was is a sequence of its own.
		p.end(rows[n-1].addr)
		p.first = len(p.table.rows)
	} else if n > p.first && rows[n-1].addr == p.at.addr {
		rows[n-1] = p.at // of several at one address the last counts
		return
	}
	p.table.rows = append(p.table.rows, p.at)
}

// end ends a sequence, unless it is of code that the linker dropped.
func (p *program) end(end uint64) {
	rows := p.table.rows
	if len(rows) > p.first && rows[p.first].addr < end {
		p.table.sequences = append(p.table.sequences, sequence{span{rows[p.first].addr, end}, p.first, len(rows)})
		return
	}
	p.table.rows = rows[:p.first]
}

func (p *program) run(c *cursor, s *sections, clock *clock) error {
	p.reset()
	for !c.done() {
		if clock.over() {
			return ErrBudget
		}
		if len(p.table.rows) > maxRows {
			return errTooMany
		}
		opcode := c.byte()
		if opcode >= p.opcodeBase { // a special one
			opcode -= p.opcodeBase
			p.advance(uint64(opcode / p.lineRange))
			p.at.line += uint32(p.lineBase + int64(opcode%p.lineRange))
			p.emit()
			continue
		}
		switch opcode {
		case 0: // an extended one
			length := c.uleb()
			ext := cursor{data: c.bytes(length)}
			switch ext.byte() {
			case lneEndSequence:
				if p.first < len(p.table.rows) && !s.code(p.table.rows[p.first].addr) {
					p.table.rows = p.table.rows[:p.first]
				}
				p.end(p.at.addr)
				p.reset()
			case lneSetAddress:
				if n := len(ext.data) - 1; n == 4 || n == 8 {
					p.at.addr = ext.number(n)
				} else {
					p.at.addr = ext.number(p.addressSize)
				}
				p.operation = 0
			case lneDefineFile:
				f := sourceFile{name: ext.cstring(), dir: ext.uleb()}
				if len(p.table.files) < maxFiles {
					p.table.files = append(p.table.files, f)
				}
			}
		case lnsCopy:
			p.emit()
		case lnsAdvancePC:
			p.advance(c.uleb())
		case lnsAdvanceLine:
			p.at.line += uint32(c.sleb())
		case lnsSetFile:
			p.at.file = uint32(c.uleb())
		case lnsConstAddPC:
			p.advance(uint64((255 - p.opcodeBase) / p.lineRange))
		case lnsFixedAdvancePC:
			p.at.addr += c.number(2)
			p.operation = 0
		default:
			for range p.lengths[opcode-1] {
				c.uleb()
			}
		}
	}
	if c.failed {
		return errDamaged
	}
	p.table.rows = p.table.rows[:p.first] // of a sequence without end
	slices.SortFunc(p.table.sequences, func(a, b sequence) int {
		return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(a.first, b.first))
	})
	return nil
}

// find gives the file and line of an address.
func (t *lineTable) find(addr uint64) (row, bool) {
	i := sort.Search(len(t.sequences), func(i int) bool { return t.sequences[i].lo > addr })
	// Sequences don't overlap, but where they do an earlier one may reach further.
	for back := 0; i > 0 && back < 8; back++ {
		i--
		s := t.sequences[i]
		if addr >= s.hi {
			continue
		}
		rows := t.rows[s.first:s.last]
		return rows[sort.Search(len(rows), func(i int) bool { return rows[i].addr > addr })-1], true
	}
	return row{}, false
}
