package main

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"
	"unsafe"
)

// counter counts samples by stack.
type counter struct {
	keepMoments bool

	room    int               // bytes that stacks and moments may still take, about
	stacks  map[uint64]*stack // by hash: the first of those that have it
	number  int               // of stacks
	seed    maphash.Seed
	moments []moment
	shown   uint64
	unwinds map[status]uint64
	hashed  []byte
}

// What stacks and moments may take: the fastest sampling of stacks that are all different
// would need gigabytes within a minute. What a stack takes beside its frames is measured: the
// map's entry, and the struct.
const (
	stacksMemory = 512 << 20
	stackSize    = 192
	frameSize    = 8 // its pointer
	momentSize   = int(unsafe.Sizeof(moment{}))
)

func newCounter(keepMoments bool) *counter {
	return &counter{
		room: stacksMemory, keepMoments: keepMoments, stacks: map[uint64]*stack{}, seed: maphash.MakeSeed(), unwinds: map[status]uint64{},
	}
}

// add counts a sample, and reports whether there was room for it. Equal frames and
// processes are the same pointers. The lists of frames stay the caller's.
func (c *counter) add(s *sample, p *process, kernel, user []*frame) bool {
	hash := c.hash(s, p, kernel, user)
	st := c.stacks[hash]
	for st != nil && !st.is(s, p, kernel, user) {
		st = st.next
	}
	need := 0
	if st == nil {
		need = stackSize + frameSize*(len(kernel)+len(user))
	}
	if c.keepMoments {
		need += momentSize
	}
	if need > c.room {
		return false
	}
	c.room -= need
	if st == nil {
		frames := slices.Concat(kernel, user)
		n := len(kernel)
		st = &stack{
			Process: p, TID: s.TID, Comm: s.Comm, Kernel: frames[:n:n], User: frames[n:], Status: s.Status, number: c.number, next: c.stacks[hash],
		}
		c.stacks[hash] = st
		c.number++
	}
	st.Count++
	st.Events += s.Period
	c.shown++
	c.unwinds[s.Status]++
	if c.keepMoments {
		c.moments = append(c.moments, moment{Time: s.Time, Period: s.Period, CPU: s.CPU, Stack: st})
	}
	return true
}

// hash gives the same number for equal stacks, and hardly ever for others.
func (c *counter) hash(s *sample, p *process, kernel, user []*frame) uint64 {
	b := binary.NativeEndian.AppendUint64(c.hashed[:0], uint64(uintptr(unsafe.Pointer(p))))
	b = binary.NativeEndian.AppendUint32(b, s.TID)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(kernel)))
	b = append(b, byte(s.Status))
	for _, list := range [][]*frame{kernel, user} {
		for _, f := range list {
			b = binary.NativeEndian.AppendUint64(b, uint64(uintptr(unsafe.Pointer(f))))
		}
	}
	c.hashed = append(b, s.Comm...)
	return maphash.Bytes(c.seed, c.hashed)
}

// is reports whether a sample has this stack.
func (s *stack) is(of *sample, p *process, kernel, user []*frame) bool {
	return s.Process == p && s.TID == of.TID && s.Status == of.Status && s.Comm == of.Comm &&
		slices.Equal(s.Kernel, kernel) && slices.Equal(s.User, user)
}

// fill puts what was counted into a report. The frames are to have their names by then.
func (c *counter) fill(r *report) {
	r.Stacks = make([]*stack, 0, c.number)
	for _, st := range c.stacks {
		for ; st != nil; st = st.next {
			r.Stacks = append(r.Stacks, st)
		}
	}
	slices.SortFunc(r.Stacks, compareStacks)
	r.Moments = c.moments
	r.Totals.Shown = c.shown
	r.Totals.Unwinds = c.unwinds
}

// compareStacks orders by comm, pid, tid and frames from the root on, and last by which was
// seen first.
func compareStacks(a, b *stack) int {
	return cmp.Or(
		strings.Compare(a.Comm, b.Comm),
		cmp.Compare(a.Process.PID, b.Process.PID),
		cmp.Compare(a.TID, b.TID),
		compareFrames(a.User, b.User),
		compareFrames(a.Kernel, b.Kernel),
		cmp.Compare(a.Status, b.Status),
		cmp.Compare(a.number, b.number), // one pid may have been two processes
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
