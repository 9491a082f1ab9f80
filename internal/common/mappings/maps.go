package mappings

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// region is a line of /proc/PID/maps.
type region struct {
	start, end, offset uint64
	executable         bool
	major, minor       uint32
	inode              uint64
	path               string // empty for memory of no file and no name
}

// parseMaps gives each executable region of proc_pid_maps(5), in the order of their
// addresses. Lines that can't be understood are passed over: a kernel may write more
// than this knows.
func parseMaps(r io.Reader, each func(region)) error {
	// A path has at most 4096 bytes, and four for each newline in it.
	lines := bufio.NewReaderSize(r, 1<<15)
	for long := false; ; {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = true // Not a line of the kernel's.
			continue
		}
		if reg, ok := parseRegion(bytes.TrimSuffix(line, []byte{'\n'})); ok && reg.executable && !long {
			each(reg)
		}
		long = false
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parseRegion reads a line such as
//
//	7f1c40028000-7f1c401bd000 r-xp 00028000 08:01 1234       /usr/lib/libc.so.6
func parseRegion(line []byte) (reg region, ok bool) {
	var parts [5][]byte
	for i := range parts {
		parts[i], line, _ = bytes.Cut(line, []byte{' '})
	}
	start, end, ok1 := cutHex(parts[0], '-', 64)
	if len(parts[1]) != 4 {
		return region{}, false
	}
	offset, err2 := strconv.ParseUint(string(parts[2]), 16, 64)
	major, minor, ok3 := cutHex(parts[3], ':', 32)
	inode, err4 := strconv.ParseUint(string(parts[4]), 10, 64)
	if !ok1 || err2 != nil || !ok3 || err4 != nil || end <= start {
		return region{}, false
	}
	return region{
		start: start, end: end, offset: offset, executable: parts[1][2] == 'x',
		major: uint32(major), minor: uint32(minor), inode: inode,
		// The kernel writes a newline of a path as an escape, and nothing else.
		path: strings.ReplaceAll(string(bytes.TrimLeft(line, " ")), `\012`, "\n"),
	}, true
}

// cutHex reads two hexadecimal numbers.
func cutHex(b []byte, sep byte, bits int) (x, y uint64, ok bool) {
	before, after, ok := bytes.Cut(b, []byte{sep})
	x, err1 := strconv.ParseUint(string(before), 16, bits)
	y, err2 := strconv.ParseUint(string(after), 16, bits)
	return x, y, ok && err1 == nil && err2 == nil
}
