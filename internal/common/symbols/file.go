package symbols

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/ulikunitz/xz"

	"golang.org/x/sys/unix"
)

// Bounds for files that are made to hurt. The largest that are in use, browsers with
// all their symbols, stay well below them.
const (
	maxHeaders      = 64 << 20 // bytes of ELF headers and section names
	maxFunctions    = 8 << 20  // that a file's symbol tables are read for
	maxTable        = 1 << 30  // bytes of a symbol table
	maxMiniDebug    = 16 << 20 // bytes of .gnu_debugdata, compressed
	maxMiniDebugOut = 64 << 20 // and not
	maxNote         = 64 << 10 // bytes of notes
	maxPLT          = 16 << 20 // bytes of code of a PLT
)

// Options say how the functions of a file are to be named.
type Options struct {
	// Path is the file's path as the process sees it that has it mapped. Separate debug
	// files named by debuglink are looked for beside it.
	Path string
	// Roots are the root directories below which separate debug files are looked for:
	// that of the process first, then the host's.
	Roots []string
	// Demangle gives C++ and Rust names their readable form.
	Demangle bool
	// Lines has a separate debug file looked for where the file has names and no
	// debugging information.
	Lines bool
}

// File names the functions of an ELF file. It isn't for use by several goroutines at
// once.
type File struct {
	options   Options
	elf       *elf.File
	segments  Segments
	buildID   []byte
	spans     []span
	functions []function
	strings   []*stringTable
	gopcln    *pclntab
	debugFile string
	debugRoot string // directory that debugFile is beneath
	problems  []error
	closers   []io.Closer
	// What debug files could not be used, if there was none that could.
	debugProblems []error
}

// A function is a symbol of one.
type function struct {
	start   uint64
	name    uint32 // offset in the string table
	strings uint8  // index of it
	plt     bool   // a stub that calls the function of that name
}

// ErrNoELF is returned for what isn't an ELF file.
var ErrNoELF = errors.New("not an ELF file")

// OpenFile reads the tables of an ELF file that name its functions: .symtab; without
// one .gnu_debugdata, or else a separate debug file, and .dynsym; Go's own table; and
// it names the stubs of the PLT. f must stay open for as long as the File is used. A
// file without any of these is no error: Find then finds nothing. What of a file could
// not be used is told by Problems.
func OpenFile(f *os.File, options Options) (*File, error) {
	return open(f, options)
}

// OpenELF reads the headers of an ELF file that nobody vouches for: what they say may be
// wrong, but not make this take much memory. The error is ErrNoELF, or one of reading.
func OpenELF(r io.ReaderAt) (*elf.File, error) {
	e, err := elf.NewFile(&budget{r, maxHeaders})
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %w", ErrNoELF, err)
		}
		return nil, fmt.Errorf("read ELF headers: %w", err)
	}
	return e, nil
}

func open(r io.ReaderAt, options Options) (*File, error) {
	e, err := OpenELF(r)
	if err != nil {
		return nil, err
	}
	f := &File{options: options, elf: e, segments: SegmentsOf(e)}
	f.buildID = f.readBuildID(e, r)
	var b builder
	f.load(&b, r)
	f.spans, f.functions = b.build(f)
	return f, nil
}

// load reads all that names functions.
func (f *File) load(b *builder, r io.ReaderAt) {
	if go1, err := openPclntab(f.elf, r); err != nil {
		f.problem("Go's function table", err)
	} else {
		f.gopcln = go1
	}
	named := f.section(elf.SHT_SYMTAB) != nil
	if named {
		f.problem("symbol table", b.table(f, f.elf, r, elf.SHT_SYMTAB))
	} else if s := f.elf.Section(".gnu_debugdata"); s != nil {
		err := f.loadMiniDebug(b, r, s)
		f.problem(".gnu_debugdata", err)
		named = err == nil
	}
	if !named || f.options.Lines && !f.HasDebugInfo() {
		f.loadDebugFile(b, !named)
	}
	// A symbol table has what .dynsym has, too, unless somebody trimmed it.
	f.problem("dynamic symbol table", b.table(f, f.elf, r, elf.SHT_DYNSYM))
	f.problem("procedure linkage table", b.plt(f, r))
}

func (f *File) problem(what string, err error) {
	if err != nil {
		f.problems = append(f.problems, fmt.Errorf("%s: %w", what, err))
	}
}

func (f *File) section(kind elf.SectionType) *elf.Section {
	return f.elf.SectionByType(kind)
}

// loadMiniDebug reads the symbol table that distributions leave, compressed, in files
// whose other symbols are in a package of their own. It lacks what .dynsym has.
func (f *File) loadMiniDebug(b *builder, r io.ReaderAt, s *elf.Section) error {
	if s.FileSize > maxMiniDebug {
		return fmt.Errorf("%d bytes are too many", s.FileSize)
	}
	in, err := xz.NewReader(io.NewSectionReader(r, int64(s.Offset), int64(s.FileSize)))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(in, maxMiniDebugOut+1))
	if err != nil {
		return err
	}
	if n > maxMiniDebugOut {
		return fmt.Errorf("more than %d bytes, uncompressed, are too many", int64(maxMiniDebugOut))
	}
	inner := bytes.NewReader(out.Bytes())
	e, err := elf.NewFile(&budget{inner, maxHeaders})
	if err != nil {
		return err
	}
	return b.table(f, e, inner, elf.SHT_SYMTAB)
}

// Find names the function at an address of the file's own.
func (f *File) Find(vaddr uint64) (Line, bool) {
	if i, ok := at(f.spans, vaddr); ok {
		fn := f.functions[i]
		if name, err := f.strings[fn.strings].string(uint64(fn.name), 512); err == nil && len(name) > 0 {
			line := Line{Function: trimVersion(string(name)), Start: fn.start}
			line.Linkage = line.Function
			if f.options.Demangle {
				line.Function = Demangle(line.Function)
			}
			if fn.plt {
				line.Function += "@plt"
				line.Linkage += "@plt"
			}
			return line, true
		}
	}
	if f.gopcln != nil {
		return f.gopcln.find(vaddr)
	}
	return Line{}, false
}

// Lines gives the functions at an address, the innermost first, with their source files
// and lines, where the file's own tables tell them: those of a Go program do, even if
// it was stripped. It is nil for all others.
func (f *File) Lines(vaddr uint64) []Line {
	if f.gopcln == nil {
		return nil
	}
	return f.gopcln.lines(vaddr)
}

// Address gives the address of the file's own (the ELF virtual address) of what is at
// an offset in the file.
func (f *File) Address(offset uint64) (vaddr uint64, ok bool) { return f.segments.Address(offset) }

// Segment gives the segment that an address is in: where it starts, the first address
// past it, and the offset of the start in the file. Start is rounded down to a page, as
// the kernel maps it, and offset with it.
func (f *File) Segment(vaddr uint64) (start, limit, offset uint64, ok bool) {
	const page = 4096
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && vaddr >= p.Vaddr && vaddr-p.Vaddr < p.Memsz {
			round := min(p.Vaddr%page, p.Off)
			return p.Vaddr - round, p.Vaddr + p.Memsz, p.Off - round, true
		}
	}
	return 0, 0, 0, false
}

// BuildID is the id that the linker gave the file, in hexadecimal; empty if it has none.
func (f *File) BuildID() string { return hex.EncodeToString(f.buildID) }

// DebugFile is the path of the separate debug file that is used, for names or with Lines;
// empty if there is none.
func (f *File) DebugFile() string { return f.debugFile }

// OpenDebugFile opens the separate debug file again, beneath the root directory where it
// was found, and as little trusted. It is for the caller to close.
func (f *File) OpenDebugFile() (*os.File, error) {
	root, err := openRoot(f.debugRoot)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	return openInRoot(root, f.debugFile, 0)
}

// Problems are what of the file could not be used, and why. DebugFileProblems are among
// them.
func (f *File) Problems() []error { return slices.Concat(f.problems, f.debugProblems) }

// DebugFileProblems are the separate debug files that could not be used, and why, if there
// was none that could.
func (f *File) DebugFileProblems() []error { return f.debugProblems }

// HasDebugInfo reports whether the file itself has debugging information.
func (f *File) HasDebugInfo() bool { return hasDebugInfo(f.elf) }

// HasSymbols reports whether there is anything in the file that names functions.
func (f *File) HasSymbols() bool { return len(f.functions) > 0 || f.gopcln != nil }

// Close closes what OpenFile opened: not the file itself.
func (f *File) Close() {
	for _, c := range f.closers {
		c.Close()
	}
	f.closers = nil
}

// readBuildID finds the GNU build id in a file's notes.
func (f *File) readBuildID(e *elf.File, r io.ReaderAt) []byte {
	scan := func(offset, size uint64) []byte {
		if size == 0 || size > maxNote || offset > 1<<62 {
			return nil
		}
		notes := make([]byte, size)
		n, _ := r.ReadAt(notes, int64(offset))
		return buildIDNote(notes[:n], e)
	}
	for _, s := range e.Sections {
		if s.Type == elf.SHT_NOTE {
			if id := scan(s.Offset, s.FileSize); id != nil {
				return id
			}
		}
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_NOTE {
			if id := scan(p.Off, p.Filesz); id != nil {
				return id
			}
		}
	}
	return nil
}

func buildIDNote(notes []byte, e *elf.File) []byte {
	const ntGNUBuildID = 3
	for len(notes) >= 12 {
		namesz := uint64(e.ByteOrder.Uint32(notes[0:]))
		descsz := uint64(e.ByteOrder.Uint32(notes[4:]))
		kind := e.ByteOrder.Uint32(notes[8:])
		desc := 12 + (namesz+3)&^3
		end := desc + descsz
		if end > uint64(len(notes)) {
			return nil
		}
		if kind == ntGNUBuildID && string(notes[12:12+namesz]) == "GNU\x00" && 0 < descsz && descsz <= 64 {
			return bytes.Clone(notes[desc:end])
		}
		notes = notes[min((end+3)&^3, uint64(len(notes))):]
	}
	return nil
}

// budget is a file of which only so many bytes can be read: package elf takes a file's
// word for how large its headers are.
type budget struct {
	r    io.ReaderAt
	left int
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("more than %d bytes of headers", maxHeaders)
	}
	return b.r.ReadAt(p, off)
}
