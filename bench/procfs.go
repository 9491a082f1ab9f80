package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memory is what a process has had in memory, in bytes.
type memory struct {
	peak uint64 // the largest resident set so far
	ring uint64 // the part of the present one that maps BPF maps' own pages
}

// readMemory reads the memory of a running process.
func readMemory(pid int) (memory, error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	defer status.Close()
	peak, err := peakResident(status)
	if err != nil {
		return memory{}, err
	}
	smaps, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return memory{}, err
	}
	defer smaps.Close()
	ring, err := mappedMaps(smaps)
	return memory{peak: peak, ring: ring}, err
}

// peakResident finds VmHWM in a /proc/PID/status.
func peakResident(r io.Reader) (uint64, error) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			return kilobytes(value)
		}
	}
	return 0, errors.New("no VmHWM line in the process's status")
}

// mappedMaps adds up the resident pages of the mappings of BPF maps in a
// /proc/PID/smaps. A ring buffer's data pages are mapped twice and stand twice
// in the resident set, so they count twice here as well.
func mappedMaps(r io.Reader) (uint64, error) {
	var sum uint64
	var ofMap bool
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if value, ok := strings.CutPrefix(line, "Rss:"); ok {
			if ofMap {
				n, err := kilobytes(value)
				if err != nil {
					return 0, err
				}
				sum += n
			}
			continue
		}
		// The line that opens a mapping begins with its addresses; the
		// lines of its figures begin with a word and a colon.
		if word, _, _ := strings.Cut(line, " "); !strings.HasSuffix(word, ":") {
			ofMap = strings.HasSuffix(line, " anon_inode:bpf-map")
		}
	}
	return sum, lines.Err()
}

func kilobytes(field string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(field), "kB")), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a size in kB: %w", err)
	}
	return n << 10, nil
}

// eachDescriptor calls f with what the kernel says of each descriptor of a process.
func eachDescriptor(pid int, f func(info io.Reader) error) error {
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return err
	}
	for _, name := range infos {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // closed since it was listed
		} else if err != nil {
			return err
		}
		if err := f(bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return nil
}

// programIDs lists the BPF programs that a process holds, by itself or by a
// link to one.
func programIDs(pid int) ([]uint32, error) {
	var ids []uint32
	seen := make(map[uint32]bool)
	err := eachDescriptor(pid, func(info io.Reader) error {
		id, err := programID(info)
		if id != 0 && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
		return err
	})
	return ids, err
}

// mapMemory is the kernel memory of the BPF maps that a process holds, in bytes,
// without the buffers through which events come.
func mapMemory(pid int) (sum uint64, err error) {
	seen := make(map[uint64]bool)
	err = eachDescriptor(pid, func(info io.Reader) error {
		id, bytes, err := mapInfo(info)
		if id != 0 && !seen[id] {
			seen[id] = true
			sum += bytes
		}
		return err
	})
	return sum, err
}

// mapInfo finds the number and the memory of the map in a /proc/PID/fdinfo/FD. The
// number is 0 where the descriptor is no map, the memory where it is a buffer.
func mapInfo(r io.Reader) (id, bytes uint64, err error) {
	var kind uint64
	for lines := bufio.NewScanner(r); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		var to *uint64
		switch key {
		case "map_type":
			to = &kind
		case "map_id":
			to = &id
		case "memlock":
			to = &bytes
		default:
			continue
		}
		if *to, err = strconv.ParseUint(strings.TrimSpace(value), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("a map's %s: %w", key, err)
		}
	}
	switch {
	case id == 0: // a program's memory
		return 0, 0, nil
	case kind == unix.BPF_MAP_TYPE_RINGBUF, kind == unix.BPF_MAP_TYPE_PERF_EVENT_ARRAY:
		return id, 0, nil
	}
	return id, bytes, nil
}

// programID finds the program in a /proc/PID/fdinfo/FD. It is 0 where the
// descriptor is neither a program nor a link to one.
func programID(r io.Reader) (uint32, error) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "prog_id:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				return 0, fmt.Errorf("a program's number: %w", err)
			}
			return uint32(id), nil
		}
	}
	return 0, nil
}
