package mappings

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stat is what of proc_pid_stat(5) is of use.
type stat struct {
	comm    string
	ppid    uint32
	kernel  bool
	threads int
	start   uint64 // clock ticks since boot
}

const pfKthread = 0x00200000 // PF_KTHREAD, which has never changed

// parseStat reads the line. The name may hold anything, parentheses and newlines too.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("a process's stat has no name")
	}
	fields := bytes.Fields(line[end+1:])
	if len(fields) < 20 {
		return stat{}, errors.New("a process's stat is short")
	}
	number := func(i int) uint64 { // as the manual counts
		n, _ := strconv.ParseUint(string(fields[i-3]), 10, 64)
		return n
	}
	return stat{
		comm:    string(line[open+1 : end]),
		ppid:    uint32(number(4)),
		kernel:  number(9)&pfKthread != 0,
		threads: int(number(20)),
		start:   number(22),
	}, nil
}

// pids lists the processes that there are, those of this pid namespace.
func (t *Timeline) pids() ([]uint32, error) {
	dir, err := os.Open(t.proc)
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var pids []uint32
	for _, name := range names {
		if pid, err := strconv.ParseUint(name, 10, 32); err == nil {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, nil
}

// path is a file's below a process's directory.
func (t *Timeline) path(pid uint32, name string) string {
	return filepath.Join(t.proc, strconv.FormatUint(uint64(pid), 10), name)
}

func (t *Timeline) readStat(pid uint32) (stat, error) {
	line, err := os.ReadFile(t.path(pid, "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(line)
}

// parseCgroup takes the path of a version 2 cgroup from proc_pid_cgroup(5) or, where the
// controllers are those of version 1, one that names a container.
func parseCgroup(text string) string {
	var v2 string
	for line := range strings.SplitSeq(text, "\n") {
		id, rest, ok := strings.Cut(line, ":")
		_, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		if id == "0" {
			v2 = path
		}
		if ContainerID(path) != "" {
			return path
		}
	}
	return v2
}

// ContainerID is the id of the container that a cgroup with this path is of, as container
// runtimes name them: 64 hexadecimal digits, alone (docker/ID, kubepods/…/ID) or within a
// systemd unit (docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope).
// It is empty for other cgroups. Where containers are nested, it is the innermost.
func ContainerID(cgroup string) string {
	const digits = 64
	for part := cgroup; part != ""; {
		rest, last := "", part
		if i := strings.LastIndexByte(part, '/'); i >= 0 {
			rest, last = part[:i], part[i+1:]
		}
		part = rest
		name := strings.TrimSuffix(last, ".scope")
		if len(name) < digits {
			continue
		}
		before, id := name[:len(name)-digits], name[len(name)-digits:]
		if strings.Trim(id, "0123456789abcdef") == "" && (before == "" || strings.HasSuffix(before, "-")) {
			return id
		}
	}
	return ""
}
