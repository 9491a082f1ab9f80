package symbols

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxChecksummed is the size in bytes up to which a separate debug file without a build
// id is read to see whether it is the right one.
const maxChecksummed = 2 << 30

// buildIDs is the directory that has debug files by their build ids.
const buildIDs = "/usr/lib/debug/.build-id"

func byBuildID(id []byte) string {
	return fmt.Sprintf("%s/%02x/%x.debug", buildIDs, id[:1], id[1:])
}

// loadDebugFile looks for a separate debug file: by build id, then by the name that the
// file has for it. Unless names is false its symbol table is read.
func (f *File) loadDebugFile(b *builder, names bool) {
	var candidates []string
	if len(f.buildID) > 1 {
		candidates = append(candidates, byBuildID(f.buildID))
	}
	link, sum, err := f.debugLink()
	f.problem(".gnu_debuglink", err)
	if link != "" && strings.HasPrefix(f.options.Path, "/") {
		own := path.Clean(f.options.Path)
		dir := path.Dir(own)
		for _, name := range []string{path.Join(dir, link), path.Join(dir, ".debug", link), path.Join("/usr/lib/debug", dir, link)} {
			if name != own { // debug files may have the names of the files that they are of
				candidates = append(candidates, name)
			}
		}
	}
	if len(candidates) == 0 {
		return
	}
	for _, dir := range f.options.Roots {
		root, err := openRoot(dir)
		if err != nil {
			continue // the process may have ended
		}
		done := f.loadDebugFileIn(b, root, candidates, sum, names)
		unix.Close(root)
		if done {
			f.debugRoot, f.debugProblems = dir, nil
			return
		}
	}
}

func (f *File) loadDebugFileIn(b *builder, root int, candidates []string, sum uint32, names bool) bool {
	for _, name := range candidates {
		file, err := openInRoot(root, name, 0)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				f.debugProblem("separate debug file", err)
			}
			continue
		}
		e, err := elf.NewFile(&budget{file, maxHeaders})
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrNoELF, err)
		} else {
			err = f.isDebugFileOf(e, file, sum)
		}
		if err == nil {
			err = f.takeDebugFile(b, e, file, names)
		}
		if err != nil {
			file.Close()
			if !errors.Is(err, errNoLines) {
				f.debugProblem("separate debug file "+name, err)
			}
			continue
		}
		f.debugFile = name
		f.closers = append(f.closers, file)
		return true
	}
	return false
}

// takeDebugFile reads the symbol table of a debug file, if names are wanted. One that has
// none may still have lines.
func (f *File) takeDebugFile(b *builder, e *elf.File, file *os.File, names bool) error {
	lines := f.options.Lines && hasDebugInfo(e)
	switch {
	case names && e.SectionByType(elf.SHT_SYMTAB) != nil:
		return b.table(f, e, file, elf.SHT_SYMTAB)
	case lines:
		return nil
	case !names:
		return errNoLines
	}
	return errors.New("it has no symbol table")
}

// errNoLines is no problem of the debug file's: there are none.
var errNoLines = errors.New("it has no debugging information")

// hasDebugInfo reports whether a file has DWARF data, and not only the place of it.
func hasDebugInfo(e *elf.File) bool {
	for _, s := range e.Sections {
		if (s.Name == ".debug_info" || s.Name == ".zdebug_info") && s.Type != elf.SHT_NOBITS {
			return true
		}
	}
	return false
}

// debugProblem notes that a debug file can't be used. A process's root directory and the
// host's may be one.
func (f *File) debugProblem(what string, err error) {
	err = fmt.Errorf("%s: %w", what, err)
	for _, before := range f.debugProblems {
		if before.Error() == err.Error() {
			return
		}
	}
	f.debugProblems = append(f.debugProblems, err)
}

// OpenAlternate opens the supplementary file that debugging information refers to, where
// dwz moved what several files have in common: by its path, which may be relative to the
// file that names it (the separate debug file, if there is one), or by its build id. It is
// trusted as little as debug files are. The caller closes it.
func (f *File) OpenAlternate(link string, buildID []byte) (*os.File, error) {
	if len(buildID) < 2 {
		return nil, errors.New("it is referred to without a build id to know it by")
	}
	var problem error
	for _, dir := range f.options.Roots {
		root, err := openRoot(dir)
		if err != nil {
			continue // the process may have ended
		}
		name := link
		if from := cmp.Or(f.debugFile, f.options.Path); !strings.HasPrefix(link, "/") && strings.HasPrefix(from, "/") {
			from = realName(root, from)
			// It is for the kernel to find out what is above a directory that may be a
			// symbolic link.
			name = from[:strings.LastIndexByte(from, '/')+1] + link
		}
		for _, name := range []string{name, byBuildID(buildID)} {
			file, err := openInRoot(root, name, 0)
			if err != nil {
				if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
					problem = err
				}
				continue
			}
			if err = f.isAlternate(file, buildID); err == nil {
				unix.Close(root)
				return file, nil
			}
			problem = fmt.Errorf("%s: %w", name, err)
			file.Close()
		}
		unix.Close(root)
	}
	if problem != nil {
		return nil, problem
	}
	return nil, fmt.Errorf("it is neither there nor at %s: %w", byBuildID(buildID), fs.ErrNotExist)
}

func (f *File) isAlternate(file *os.File, buildID []byte) error {
	e, err := elf.NewFile(&budget{file, maxHeaders})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoELF, err)
	}
	if id := f.readBuildID(e, file); !bytes.Equal(id, buildID) {
		return fmt.Errorf("it has build id %x, and %x is referred to", id, buildID)
	}
	return nil
}

// isDebugFileOf tells by error that a debug file is another file's.
func (f *File) isDebugFileOf(e *elf.File, file *os.File, sum uint32) error {
	if e.Class != f.elf.Class || e.Machine != f.elf.Machine {
		return errors.New("it is of another machine")
	}
	if id := f.readBuildID(e, file); id != nil && f.buildID != nil {
		if !bytes.Equal(id, f.buildID) {
			return fmt.Errorf("it has build id %x, the file has %x", id, f.buildID)
		}
		return nil
	}
	crc := crc32.NewIEEE()
	n, err := io.Copy(crc, io.NewSectionReader(file, 0, maxChecksummed))
	if err != nil {
		return err
	}
	if n == maxChecksummed {
		return fmt.Errorf("it has no build id and is too large for a checksum")
	}
	if crc.Sum32() != sum {
		return errors.New("its checksum is not the one that the file has for it")
	}
	return nil
}

// debugLink gives the name of the separate debug file and its checksum.
func (f *File) debugLink() (name string, sum uint32, err error) {
	s := f.elf.Section(".gnu_debuglink")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return "", 0, nil
	}
	if s.FileSize > maxName || s.Flags&elf.SHF_COMPRESSED != 0 {
		return "", 0, fmt.Errorf("%d bytes are too many", s.FileSize)
	}
	data, err := s.Data()
	if err != nil {
		return "", 0, err
	}
	b, _, ok := bytes.Cut(data, []byte{0})
	at := (len(b) + 4) &^ 3 // past the zero, at a multiple of four
	if !ok || at+4 > len(data) || len(b) == 0 {
		return "", 0, errors.New("it has no name or no checksum")
	}
	if bytes.IndexByte(b, '/') >= 0 || string(b) == ".." || string(b) == "." {
		return "", 0, errors.New("its name is a path")
	}
	return string(b), f.elf.ByteOrder.Uint32(data[at:]), nil
}
