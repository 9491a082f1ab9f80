package mappings

import (
	"cmp"
	"slices"
)

// Process is a process and what it has mapped, as far as records were applied. One that
// has ended stays as it was at its end.
type Process struct {
	PID, PPID uint32
	Comm      string // of its main thread
	Exe       string // path of its program, as it sees it; empty for the kernel's own, or if not known
	Cgroup    string // path, where it could be read; else empty
	Container string // id, or empty
	MountNS   uint64 // inode of its mount namespace, or 0
	Kernel    bool   // a kernel thread
	Execs     int    // how many programs it has executed while watched: what was mapped before each is gone
	// Partial says that records of it are missing, so that there may be more that it has
	// mapped.
	Partial bool
	// Denied says that it is Partial since what it has mapped may not be read. What it
	// executes from then on is known nevertheless.
	Denied bool

	maps    []Mapping // by Start; none overlap
	shared  bool      // maps is another's too
	changed uint64    // when maps last changed

	sought  bool   // in /proc, as it is partial
	since   uint64 // when maps was read from /proc; 0 if it is of records alone
	start   uint64 // in clock ticks since boot, if it was read; else 0
	born    uint64 // when it was forked, if that was seen; else 0
	threads int
	ended   bool // its main thread has
	fresh   bool // Cgroup and what else is only in /proc has been looked for since its last exec
}

// Mapping is executable memory.
type Mapping struct {
	Start, End uint64
	Offset     uint64 // in the file, of Start; of no meaning for memory of no file
	File       *File  // never nil
	// Since is when it was mapped, or first seen: nanoseconds of CLOCK_MONOTONIC. What a
	// process has from its parent is as old as the parent's.
	Since uint64
}

// FileOffset is where an address of the mapping is in its file.
func (m Mapping) FileOffset(addr uint64) uint64 { return addr - m.Start + m.Offset }

// Find gives the mapping that an address is in.
func (p *Process) Find(addr uint64) (Mapping, bool) {
	i, found := slices.BinarySearchFunc(p.maps, addr, func(m Mapping, addr uint64) int { return cmp.Compare(m.Start, addr) })
	if !found {
		i--
	}
	if i >= 0 && addr < p.maps[i].End {
		p.maps[i].File.wanted = true
		return p.maps[i], true
	}
	if addr >= vsyscallStart && addr < vsyscallEnd && !p.Kernel {
		return Mapping{Start: vsyscallStart, End: vsyscallEnd, File: vsyscall}, true
	}
	return Mapping{}, false
}

// Mappings are all that it has mapped, in the order of their addresses. They are not to be
// changed, and stay as they are when the process changes.
func (p *Process) Mappings() []Mapping {
	p.shared = true
	return p.maps
}

// Changed is when Mappings last changed: nanoseconds of CLOCK_MONOTONIC.
func (p *Process) Changed() uint64 { return p.changed }

// Knew reports whether who knew what the process had mapped at a time, by Changed, knew of
// this mapping, which is there now.
func (p *Process) Knew(changed uint64, m Mapping) bool {
	return max(m.Since, p.born) <= changed
}

// Ended reports whether the process has ended, as far as is known.
func (p *Process) Ended() bool { return p.ended && p.threads <= 0 }

// insert maps m, in place of what is there: the kernel tells of new mappings only, so that
// what was unmapped is known when something else comes to its place. Until then nothing
// runs there.
func (p *Process) insert(m Mapping) {
	first, _ := slices.BinarySearchFunc(p.maps, m.Start, func(x Mapping, start uint64) int {
		if x.End <= start {
			return -1
		}
		return 1
	})
	last := first
	insert := []Mapping{m}
	for ; last < len(p.maps) && p.maps[last].Start < m.End; last++ {
		if x := p.maps[last]; x.Start < m.Start {
			insert = slices.Insert(insert, 0, Mapping{x.Start, m.Start, x.Offset, x.File, x.Since})
		}
		if x := p.maps[last]; x.End > m.End {
			insert = append(insert, Mapping{m.End, x.End, x.FileOffset(m.End), x.File, x.Since})
		}
	}
	if p.shared {
		p.maps, p.shared = slices.Clone(p.maps), false
	}
	p.maps = slices.Replace(p.maps, first, last, insert...)
}

// clear is what an exec does.
func (p *Process) clear(now uint64) { p.maps, p.shared, p.changed = nil, false, now }

// fork gives the mappings to a child.
func (p *Process) fork(child *Process) {
	p.shared, child.shared = true, true
	child.maps = p.maps
	child.changed = child.born
	child.Partial, child.Denied = p.Partial, p.Denied
}

// The page of the old system calls, which is at one place in all processes and of no file.
const vsyscallStart, vsyscallEnd = 0xffffffffff600000, 0xffffffffff601000

var vsyscall = &File{Path: "[vsyscall]", Kind: Vsyscall, fd: -1}
