package livetest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Loaded is what was loaded into the kernel, by anybody, and open in this
// process at one time: "program 12 (name)", "map 34 (name)", "link 5" and
// "file 6 (target)".
type Loaded map[string]bool

// Snapshot lists the BPF programs, maps and links that this kernel has and the
// files that this process has open.
func Snapshot(t testing.TB) Loaded {
	t.Helper()
	// The Go runtime's own descriptors come with the first pipe, and stay.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	loaded, err := snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// NoLeak fails the test if something is loaded or open that was not before. It
// waits for a while first, because the kernel frees what is no longer used in
// its own time. What another process loads meanwhile and keeps is a leak too.
func NoLeak(t testing.TB, before Loaded) {
	t.Helper()
	if err := retry(20*time.Second, func() error { return leftBehind(before) }); err != nil {
		t.Error(err)
	}
}

// leftBehind is nil if nothing is there now that was not there before.
func leftBehind(before Loaded) error {
	now, err := snapshot()
	if err != nil {
		return err
	}
	var left []string
	for what := range now {
		if !before[what] {
			left = append(left, what)
		}
	}
	if len(left) == 0 {
		return nil
	}
	slices.Sort(left)
	return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
}

func snapshot() (Loaded, error) {
	loaded := Loaded{}
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("list BPF programs: %w", err)
		}
		name, err := programName(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // It went while we asked.
		} else if err != nil {
			return nil, fmt.Errorf("BPF program %d: %w", id, err)
		}
		loaded[fmt.Sprintf("program %d (%s)", id, name)] = true
	}
	for id := ebpf.MapID(0); ; {
		var err error
		if id, err = ebpf.MapGetNextID(id); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("list BPF maps: %w", err)
		}
		name, err := mapName(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("BPF map %d: %w", id, err)
		}
		loaded[fmt.Sprintf("map %d (%s)", id, name)] = true
	}
	// A link that is just being made can't be asked for.
	err := retry(time.Second, func() error {
		var links link.Iterator
		defer links.Close()
		for links.Next() {
			loaded[fmt.Sprintf("link %d", links.ID)] = true
		}
		return links.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list BPF links: %w", err)
	}
	files, err := OpenFiles(os.Getpid())
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		loaded["file "+file] = true
	}
	return loaded, nil
}

func programName(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

func mapName(id ebpf.MapID) (string, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return "", err
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

// OpenFiles lists the open files of a process, as "4 (/dev/null)".
func OpenFiles(pid int) ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list open files: %w", err)
	}
	var files []string
	for _, e := range entries {
		target, err := os.Readlink(dir + e.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // The descriptor that listed them, for one.
		}
		if err != nil {
			return nil, fmt.Errorf("list open files: %w", err)
		}
		files = append(files, e.Name()+" ("+target+")")
	}
	return files, nil
}
