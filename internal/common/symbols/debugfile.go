package symbols

import (
	"bytes"
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

// loadDebugFile reads the symbol table of a separate debug file, if there is one: by
// build id, then by the name that the file has for it.
func (f *File) loadDebugFile(b *builder) {
	var candidates []string
	if len(f.buildID) > 1 {
		id := f.BuildID()
		candidates = append(candidates, "/usr/lib/debug/.build-id/"+id[:2]+"/"+id[2:]+".debug")
	}
	link, sum, err := f.debugLink()
	f.problem(".gnu_debuglink", err)
	if link != "" && strings.HasPrefix(f.options.Path, "/") {
		dir := path.Dir(path.Clean(f.options.Path))
		candidates = append(candidates, path.Join(dir, link), path.Join(dir, ".debug", link), path.Join("/usr/lib/debug", dir, link))
	}
	if len(candidates) == 0 {
		return
	}
	for _, dir := range f.options.Roots {
		root, err := openRoot(dir)
		if err != nil {
			continue // the process may have ended
		}
		done := f.loadDebugFileIn(b, root, candidates, sum)
		unix.Close(root)
		if done {
			f.debugRoot = dir
			return
		}
	}
}

func (f *File) loadDebugFileIn(b *builder, root int, candidates []string, sum uint32) bool {
	for _, name := range candidates {
		file, err := openInRoot(root, name, 0)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				f.problem("separate debug file", err)
			}
			continue
		}
		e, err := elf.NewFile(&budget{file, maxHeaders})
		if err == nil {
			err = f.isDebugFileOf(e, file, sum)
		}
		if err == nil && e.SectionByType(elf.SHT_SYMTAB) == nil {
			err = errors.New("it has no symbol table")
		}
		if err == nil {
			err = b.table(f, e, file, elf.SHT_SYMTAB)
		}
		if err != nil {
			file.Close()
			f.problem("separate debug file "+name, err)
			continue
		}
		f.debugFile = name
		f.closers = append(f.closers, file)
		return true
	}
	return false
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
