package mappings

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what code was mapped from.
type Kind uint8

// The kinds.
const (
	Regular   Kind = iota // a file
	Anonymous             // memory of no file, as runtimes make for the code that they compile
	Memfd                 // memory with a name, of memfd_create(2) or shared; as Anonymous, but for a program in it, which is Regular
	VDSO                  // the kernel's own code for 64-bit processes, the same in each
	Vsyscall              // its older form, at one address
	Other                 // special memory of the kernel's, such as [uprobes] and the vdso of 32-bit processes
)

// File is what memory was mapped from: one for each file, whatever the processes and the
// names that it is mapped by.
type File struct {
	Path    string // as the process sees it that was first found to map it
	Kind    Kind
	Deleted bool   // it had no name any more when first seen
	BuildID string // hexadecimal, if the kernel told it; Open checks that the file has it

	fd     int   // with O_PATH; -1 if it is not held
	err    error // why it is not
	wanted bool  // a sample was in it
	dev    uint64
	ino    uint64
}

// errNotHeld is that of a file that no sample was in while others were many.
var errNotHeld = errors.New("too many files are mapped, and no sample was in this one at first")

// Open opens the file for reading, whatever became of its name. The caller closes it.
func (f *File) Open() (*os.File, error) {
	if f.fd < 0 {
		return nil, f.notHeld()
	}
	return open(f.fd, f.Path, f.BuildID)
}

// Opener gives a function that does what Open would do now, whatever becomes of the File
// meanwhile. It is to be called once, by any goroutine.
func (f *File) Opener() func() (*os.File, error) {
	if f.fd < 0 {
		err := f.notHeld()
		return func() (*os.File, error) { return nil, err }
	}
	path, id := f.Path, f.BuildID
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	return func() (*os.File, error) {
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		defer unix.Close(fd)
		return open(fd, path, id)
	}
}

func (f *File) notHeld() error {
	if f.err == nil {
		f.err = fmt.Errorf("%w: it is of no file", fs.ErrNotExist)
	}
	return fmt.Errorf("open %s: %w", f.Path, f.err)
}

// open opens for reading what is held, and checks that it has the build id, if there is one.
func open(fd int, path, buildID string) (*os.File, error) {
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if buildID == "" {
		return file, nil
	}
	if id, _ := readBuildID(file); id != buildID {
		file.Close()
		return nil, fmt.Errorf("open %s: its build id is %q and not %q, that of what was mapped", path, id, buildID)
	}
	return file, nil
}

// isELF reports whether what is held is a program or a library.
func isELF(fd int) bool {
	file, err := open(fd, "", "")
	if err != nil {
		return false
	}
	defer file.Close()
	magic := make([]byte, len(elf.ELFMAG))
	_, err = file.ReadAt(magic, 0)
	return err == nil && string(magic) == elf.ELFMAG
}

func (f *File) drop(err error) {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd, f.err = -1, err
	}
}

// sight is a mapping as a record or a line of maps has it.
type sight struct {
	pid          uint32
	start, end   uint64
	path         string
	major, minor uint32
	inode, gen   uint64
	buildID      string
}

// mapping is how one mapping's file is told from another's before it is opened. The path is
// part of it since btrfs has equal numbers for the files of several subvolumes.
type mapping struct {
	major, minor uint32
	inode, gen   uint64
	buildID      string
	path         string
}

// inode is how an open file is told from another.
type inode struct{ dev, ino uint64 }

// files holds each file open from when it is first seen mapped, so that it can be read
// when its process and its name are gone.
type files struct {
	proc      string
	bySight   map[mapping]*File
	byInode   map[inode]*File
	byBuildID map[string]*File
	held      []*File // in the order in which they were opened
	most      int     // how many may be held
}

func newFiles(proc string) *files {
	most := 1024
	var limit unix.Rlimit
	// The runtime has raised the soft limit to the hard one.
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		most = int(min(limit.Cur/2, 8192))
	}
	return &files{proc: proc, most: most,
		bySight: map[mapping]*File{}, byInode: map[inode]*File{}, byBuildID: map[string]*File{}}
}

// find gives the file of a mapping.
func (fs *files) find(s sight) *File {
	kind := kindOf(s)
	key := mapping{s.major, s.minor, s.inode, s.gen, s.buildID, s.path}
	switch kind {
	case Anonymous:
		if s.path == "" || strings.HasPrefix(s.path, "/") {
			s.path = "[anon]"
		}
		key = mapping{path: s.path}
	case VDSO:
		key = mapping{path: s.path}
	case Other:
		key = mapping{path: s.path, major: 1} // apart from the vdso's
	}
	f := fs.bySight[key]
	if f != nil && (f.fd >= 0 || kind != Regular && kind != Memfd) {
		return f
	}
	if kind != Regular && kind != Memfd {
		f = &File{Path: s.path, Kind: kind, fd: -1}
		fs.bySight[key] = f
		return f
	}
	fd, st, err := fs.open(s)
	if err == nil {
		id := inode{st.Dev, st.Ino}
		if known := fs.byInode[id]; known != nil && known.fd >= 0 && f == nil {
			unix.Close(fd)
			f = known
			if f.BuildID == "" {
				f.BuildID = s.buildID
			}
		} else {
			if f == nil {
				// Container runtimes run from a sealed copy of themselves.
				if kind == Memfd && isELF(fd) {
					kind = Regular
				}
				f = &File{Path: s.path, Kind: kind, BuildID: s.buildID}
			}
			f.fd, f.err, f.dev, f.ino = fd, nil, st.Dev, st.Ino
			if f.Deleted = st.Nlink == 0; f.Deleted {
				f.Path = strings.TrimSuffix(s.path, deletedSuffix)
			}
			fs.byInode[id] = f
			fs.hold(f)
		}
	} else if f == nil {
		if f = fs.same(s); f == nil {
			f = &File{Path: s.path, Kind: kind, BuildID: s.buildID, fd: -1, err: err}
			f.Deleted = strings.HasSuffix(s.path, deletedSuffix)
			f.Path = strings.TrimSuffix(s.path, deletedSuffix)
		}
	}
	if len(fs.bySight) >= most {
		for key, f := range fs.bySight {
			if !f.wanted {
				delete(fs.bySight, key)
			}
		}
	}
	fs.bySight[key] = f
	if known := fs.byBuildID[s.buildID]; s.buildID != "" && (known == nil || known.fd < 0) {
		if len(fs.byBuildID) >= most {
			clear(fs.byBuildID)
		}
		fs.byBuildID[s.buildID] = f
	}
	return f
}

const deletedSuffix = " (deleted)"

// kindOf tells by name. A file's path begins with a slash; so do, of what the kernel calls
// otherwise, only its words for memory of no file and for paths that it can't tell.
func kindOf(s sight) Kind {
	switch {
	case s.path == "[vdso]" && s.start >= 1<<32:
		return VDSO
	case s.path == "[vsyscall]":
		return Vsyscall
	case s.path == "" || s.path == "//anon" || s.path == "[heap]" || s.path == "[stack]" || strings.HasPrefix(s.path, "[anon:"):
		return Anonymous
	case strings.HasPrefix(s.path, "/memfd:"), strings.HasPrefix(s.path, "[anon_shmem:"),
		strings.HasPrefix(s.path, "/SYSV"), s.path == "/dev/zero"+deletedSuffix:
		return Memfd
	case strings.HasPrefix(s.path, "/anon_hugepage"):
		return Anonymous
	case strings.HasPrefix(s.path, "["):
		return Other
	}
	return Regular
}

// open finds the file of a mapping: by the mapping itself, which works for files that are
// deleted or in other mount namespaces; else by its path in the process's root, or in our
// own if the process is gone. It is opened without being touched (O_PATH), as a file system
// may hang, or a device do something.
func (fs *files) open(s sight) (int, *unix.Stat_t, error) {
	dir := fmt.Sprintf("%s/%d/", fs.proc, s.pid)
	fd, st, err := openPath(fmt.Sprintf("%smap_files/%x-%x", dir, s.start, s.end))
	if err == nil {
		// The process may have mapped another file there since.
		if s.inode != 0 && st.Ino == s.inode || fs.named(fd, s.path) {
			return fd, st, nil
		}
		unix.Close(fd)
		err = errors.New("the process has mapped another file there")
	}
	for _, root := range []string{dir + "root", ""} {
		fd, st, pathErr := openPath(root + s.path)
		if pathErr != nil {
			continue
		}
		if s.inode != 0 && st.Ino == s.inode && st.Dev == unix.Mkdev(s.major, s.minor) || hasBuildID(fd, s.buildID) {
			return fd, st, nil
		}
		unix.Close(fd)
		err = errors.New("another file has its name now")
	}
	return -1, nil, err
}

// named tells whether an open file has a path's last name. The directories differ with
// the root that one looks from.
func (fs *files) named(fd int, want string) bool {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && strings.TrimSuffix(path.Base(name), deletedSuffix) == strings.TrimSuffix(path.Base(want), deletedSuffix)
}

func openPath(name string) (int, *unix.Stat_t, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, &st, nil
}

// same looks among the files that are held for one that is the same by build id.
func (fs *files) same(s sight) *File {
	if s.buildID == "" {
		return nil
	}
	if f := fs.byBuildID[s.buildID]; f != nil && f.fd >= 0 {
		return f
	}
	for _, f := range fs.held {
		if f.BuildID == "" && path.Base(f.Path) == path.Base(s.path) && hasBuildID(f.fd, s.buildID) {
			f.BuildID = s.buildID
			return f
		}
	}
	return nil
}

// hold keeps a file open and, if there are too many, lets go of the older half of those
// that no sample was in.
func (fs *files) hold(f *File) {
	fs.held = append(fs.held, f)
	if len(fs.held) <= fs.most {
		return
	}
	spare := 0
	for _, f := range fs.held {
		if !f.wanted {
			spare++
		}
	}
	spare = max(spare/2, 1)
	kept := fs.held[:0]
	for i, f := range fs.held {
		last := i == len(fs.held)-1 && len(kept) < fs.most
		if spare == 0 || f.wanted && len(kept) < fs.most || last {
			kept = append(kept, f)
			continue
		}
		spare--
		delete(fs.byInode, inode{f.dev, f.ino})
		f.drop(errNotHeld)
	}
	fs.held = kept
}

func (fs *files) close() {
	for _, f := range fs.held {
		f.drop(os.ErrClosed)
	}
	fs.held = nil
}

func hasBuildID(fd int, want string) bool {
	if want == "" {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false
	}
	defer f.Close()
	id, err := readBuildID(f)
	return err == nil && id == want
}

// readBuildID gives the GNU build id of an ELF file in hexadecimal, as the kernel finds it:
// among the notes that its program headers point to.
func readBuildID(r io.ReaderAt) (string, error) {
	file, err := elf.NewFile(r)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for _, prog := range file.Progs {
		if prog.Type != elf.PT_NOTE {
			continue
		}
		notes := make([]byte, min(prog.Filesz, 1<<16))
		if _, err := prog.ReadAt(notes, 0); err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if id := buildIDOf(notes, file.ByteOrder); id != "" {
			return id, nil
		}
	}
	return "", errors.New("it has no build id")
}

// buildIDOf looks for the build id among notes.
func buildIDOf(notes []byte, order binary.ByteOrder) string {
	const ntGNUBuildID = 3
	align := func(n uint64) uint64 { return (n + 3) &^ 3 }
	for len(notes) >= 12 {
		nameSize, descSize := uint64(order.Uint32(notes)), uint64(order.Uint32(notes[4:]))
		kind := order.Uint32(notes[8:])
		notes = notes[12:]
		if align(nameSize)+align(descSize) > uint64(len(notes)) {
			return ""
		}
		name, desc := notes[:nameSize], notes[align(nameSize):][:descSize]
		if kind == ntGNUBuildID && bytes.Equal(name, []byte("GNU\x00")) && 0 < descSize && descSize <= 20 {
			return hex.EncodeToString(desc)
		}
		notes = notes[align(nameSize)+align(descSize):]
	}
	return ""
}
