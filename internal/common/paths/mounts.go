package paths

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounts tells where the host has a file system mounted. A container has mounts
// of its own, in a namespace that does not hang below the host's root; but what
// it has mounted there is, as a rule, mounted on the host as well.
type Mounts struct {
	Namespace uint32 // the inode of the host's mount namespace
	byDevice  map[uint32][]mount
}

// mount is a line of mountinfo.
type mount struct {
	root  string // what of the file system is mounted
	point string // where
}

// HostMounts reads the mounts of this process, which runs on the host.
func HostMounts() (*Mounts, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		return nil, fmt.Errorf("find this mount namespace: %w", err)
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read this namespace's mounts: %w", err)
	}
	defer f.Close()
	m, err := parseMounts(f)
	if err != nil {
		return nil, fmt.Errorf("read this namespace's mounts: %w", err)
	}
	m.Namespace = uint32(st.Ino)
	return m, nil
}

// parseMounts reads proc_pid_mountinfo(5).
func parseMounts(r io.Reader) (*Mounts, error) {
	m := &Mounts{byDevice: map[uint32][]mount{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		major, minor, ok := strings.Cut(fields[2], ":")
		if !ok {
			continue
		}
		ma, err1 := strconv.ParseUint(major, 10, 12)
		mi, err2 := strconv.ParseUint(minor, 10, 20)
		if err1 != nil || err2 != nil {
			continue
		}
		dev := uint32(ma<<20 | mi) // as in struct super_block
		m.byDevice[dev] = append(m.byDevice[dev], mount{unescape(fields[3]), unescape(fields[4])})
	}
	return m, lines.Err()
}

// unescape undoes mountinfo's \ooo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Path gives the host's path of a file that is at path in the file system on
// dev, or false if the host has that part of it mounted nowhere.
func (m *Mounts) Path(dst []byte, dev uint32, path []byte) ([]byte, bool) {
	best := -1
	mounts := m.byDevice[dev]
	for i, mt := range mounts {
		if within(path, mt.root) && (best < 0 || len(mt.root) > len(mounts[best].root)) {
			best = i
		}
	}
	if best < 0 {
		return dst, false
	}
	mt := mounts[best]
	rest := path[len(strings.TrimSuffix(mt.root, "/")):]
	dst = append(dst, strings.TrimSuffix(mt.point, "/")...)
	if len(rest) == 0 || bytes.Equal(rest, []byte("/")) {
		if mt.point == "/" {
			return append(dst, '/'), true
		}
		return dst, true
	}
	return append(dst, rest...), true
}

// within reports whether path is root or lies below it.
func within(path []byte, root string) bool {
	root = strings.TrimSuffix(root, "/")
	return strings.HasPrefix(string(path), root) && (len(path) == len(root) || path[len(root)] == '/')
}
