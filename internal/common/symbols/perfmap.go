package symbols

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPerfMap is how many bytes of a perf map are read: of a longer one the last, which
// count where code was moved.
const maxPerfMap = 128 << 20

// maxPerfMapLine is the length in bytes from which a line is taken for garbage.
const maxPerfMapLine = 64 << 10

// PerfMap names code that a runtime generated, from the file that it writes for perf.
type PerfMap struct {
	spans   []span
	entries []perfMapEntry
	names   []byte
	// Skipped is the number of lines that could not be read.
	Skipped int
}

type perfMapEntry struct {
	start uint64
	name  uint32 // offset in names
	size  uint32 // of the name
}

// ParsePerfMap reads lines "START SIZE NAME", the numbers in hexadecimal. Where code
// was moved or replaced, ranges overlap: a later line has what earlier ones claim, too.
// Lines that make no sense are skipped and counted.
func ParsePerfMap(r io.Reader) (*PerfMap, error) {
	p := &PerfMap{}
	var extents []extent
	in := bufio.NewReaderSize(r, maxPerfMapLine)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			line = nil
			p.Skipped++
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			e, name, ok := perfMapLine(line)
			if !ok || len(p.names) > math.MaxUint32-len(name) || len(extents) >= math.MaxUint32-1 {
				p.Skipped++
			} else {
				e.function, e.rank = uint32(len(extents)), uint64(len(extents))
				extents = append(extents, e)
				p.entries = append(p.entries, perfMapEntry{e.start, uint32(len(p.names)), uint32(len(name))})
				p.names = append(p.names, name...)
			}
		}
		if err != nil {
			break
		}
	}
	p.spans = spansOf(extents)
	return p, nil
}

// perfMapLine takes a line apart.
func perfMapLine(line []byte) (e extent, name []byte, ok bool) {
	start, rest, ok1 := bytes.Cut(line, []byte(" "))
	size, name, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || len(name) == 0 {
		return extent{}, nil, false
	}
	// Some runtimes write 0x, which perf takes, too.
	from, err1 := strconv.ParseUint(strings.TrimPrefix(string(start), "0x"), 16, 64)
	n, err2 := strconv.ParseUint(strings.TrimPrefix(string(size), "0x"), 16, 64)
	if err1 != nil || err2 != nil || n == 0 || from+n < from {
		return extent{}, nil, false
	}
	return extent{start: from, end: from + n}, name, true
}

// Find names the code at an address.
func (p *PerfMap) Find(addr uint64) (Line, bool) {
	i, ok := at(p.spans, addr)
	if !ok {
		return Line{}, false
	}
	e := p.entries[i]
	name := string(p.names[e.name : e.name+e.size])
	return Line{Function: name, Linkage: name, Start: e.start}, true
}

// Len is the number of entries.
func (p *PerfMap) Len() int { return len(p.entries) }

// PerfMapFile is where a process writes its perf map, whether it has done so yet or
// not. It can be read after the process has ended, too.
type PerfMapFile struct {
	pid    int
	uid    uint32
	places []perfMapPlace
}

type perfMapPlace struct {
	root int
	path string
}

// FindPerfMap finds where a process, by its pid here, writes its perf map. That is
// /tmp/perf-PID.map, with the pid and in the root directory that the process itself has;
// then the same with the pid and the root directory that it has here.
func FindPerfMap(pid int) (*PerfMapFile, error) {
	return findPerfMap(pid, "/")
}

func findPerfMap(pid int, host string) (*PerfMapFile, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, fmt.Errorf("find perf map: %w", err)
	}
	uid, nspid, err := parseStatus(status)
	if err != nil {
		return nil, fmt.Errorf("find perf map of process %d: %w", pid, err)
	}
	p := &PerfMapFile{pid: pid, uid: uid}
	places := []struct {
		root string
		pid  int
	}{{fmt.Sprintf("/proc/%d/root", pid), nspid}, {host, pid}}
	var errs []error
	for _, place := range places {
		root, err := openRoot(place.root)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.places = append(p.places, perfMapPlace{root, fmt.Sprintf("tmp/perf-%d.map", place.pid)})
	}
	if len(p.places) == 0 {
		return nil, fmt.Errorf("find perf map: %w", errors.Join(errs...))
	}
	return p, nil
}

// parseStatus takes the effective user and the pid in the innermost namespace from
// /proc/PID/status.
func parseStatus(status []byte) (uid uint32, nspid int, err error) {
	nspid, haveUID := 0, false
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch key {
		case "Uid":
			if len(fields) < 2 {
				continue
			}
			n, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return 0, 0, fmt.Errorf("its user: %w", err)
			}
			uid, haveUID = uint32(n), true
		case "NSpid":
			if len(fields) == 0 {
				continue
			}
			if nspid, err = strconv.Atoi(fields[len(fields)-1]); err != nil {
				return 0, 0, fmt.Errorf("its pid: %w", err)
			}
		}
	}
	if !haveUID || nspid <= 0 {
		return 0, 0, errors.New("its status in /proc has no Uid or no NSpid")
	}
	return uid, nspid, nil
}

// Read reads the map as it is now. The error is fs.ErrNotExist if there is none. A file
// that is neither the process's user's nor root's is refused: anyone can write in /tmp.
func (p *PerfMapFile) Read() (*PerfMap, error) {
	var errs []error
	for _, place := range p.places {
		m, err := p.read(place)
		if err == nil {
			return m, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("read perf map of process %d: %w", p.pid, errors.Join(errs...))
	}
	return nil, fmt.Errorf("read perf map of process %d: %w", p.pid, fs.ErrNotExist)
}

func (p *PerfMapFile) read(place perfMapPlace) (*PerfMap, error) {
	f, err := openInRoot(place.root, place.path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Uid != p.uid && st.Uid != 0 {
		return nil, fmt.Errorf("/%s is of user %d, the process of user %d", place.path, st.Uid, p.uid)
	}
	skip := st.Size - maxPerfMap
	if skip <= 0 {
		return ParsePerfMap(io.NewSectionReader(f, 0, maxPerfMap))
	}
	r := bufio.NewReader(io.NewSectionReader(f, skip, maxPerfMap))
	if _, err := r.ReadString('\n'); err != nil {
		return nil, err
	}
	return ParsePerfMap(r)
}

// Close gives up what keeps the map in reach.
func (p *PerfMapFile) Close() {
	for _, place := range p.places {
		unix.Close(place.root)
	}
	p.places = nil
}
