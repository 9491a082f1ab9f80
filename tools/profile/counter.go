package main

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unsafe"
)

// counter counts samples by stack.
type counter struct {
	keepMoments bool

	stacks  map[string]*stack
	moments []moment
	shown   uint64
	unwinds map[status]uint64
	key     []byte
}

func newCounter(keepMoments bool) *counter {
	return &counter{keepMoments: keepMoments, stacks: map[string]*stack{}, unwinds: map[status]uint64{}}
}

// add counts a sample. Equal frames and processes are the same pointers.
func (c *counter) add(s *sample, p *process, kernel, user []*frame) {
	key := binary.NativeEndian.AppendUint64(c.key[:0], uint64(uintptr(unsafe.Pointer(p))))
	key = binary.NativeEndian.AppendUint32(key, s.TID)
	key = binary.NativeEndian.AppendUint32(key, uint32(len(kernel)))
	key = append(key, byte(s.Status))
	for _, list := range [][]*frame{kernel, user} {
		for _, f := range list {
			key = binary.NativeEndian.AppendUint64(key, uint64(uintptr(unsafe.Pointer(f))))
		}
	}
	key = append(key, s.Comm...)
	c.key = key
	st := c.stacks[string(key)]
	if st == nil {
		st = &stack{Process: p, TID: s.TID, Comm: s.Comm, Kernel: kernel, User: user, Status: s.Status}
		c.stacks[string(key)] = st
	}
	st.Count++
	c.shown++
	c.unwinds[s.Status]++
	if c.keepMoments {
		c.moments = append(c.moments, moment{Time: s.Time, CPU: s.CPU, Stack: st})
	}
}

// fill puts what was counted into a report. The frames are to have their names by then.
func (c *counter) fill(r *report) {
	r.Stacks = make([]*stack, 0, len(c.stacks))
	for _, st := range c.stacks {
		r.Stacks = append(r.Stacks, st)
	}
	slices.SortFunc(r.Stacks, compareStacks)
	r.Moments = c.moments
	r.Totals.Shown = c.shown
	r.Totals.Unwinds = c.unwinds
}

// compareStacks orders by comm, pid, tid and frames from the root on.
func compareStacks(a, b *stack) int {
	return cmp.Or(
		strings.Compare(a.Comm, b.Comm),
		cmp.Compare(a.Process.PID, b.Process.PID),
		cmp.Compare(a.TID, b.TID),
		compareFrames(a.User, b.User),
		compareFrames(a.Kernel, b.Kernel),
		cmp.Compare(a.Status, b.Status),
	)
}

func compareFrames(a, b []*frame) int {
	for i := 1; i <= min(len(a), len(b)); i++ {
		if f, g := a[len(a)-i], b[len(b)-i]; f != g {
			if c := compareFrame(f, g); c != 0 {
				return c
			}
		}
	}
	return cmp.Compare(len(a), len(b))
}

func compareFrame(f, g *frame) int {
	path := func(f *frame) string {
		if f.File == nil {
			return ""
		}
		return f.File.Path
	}
	name := func(f *frame) string {
		if len(f.Lines) == 0 {
			return ""
		}
		return f.Lines[0].Function
	}
	return cmp.Or(strings.Compare(name(f), name(g)), strings.Compare(path(f), path(g)), cmp.Compare(f.Address, g.Address))
}
