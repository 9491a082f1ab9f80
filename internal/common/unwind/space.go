package unwind

import (
	"cmp"
	"slices"
)

// extent is a row of elements of an array.
type extent struct{ at, n uint32 }

// space tells which elements of an array are in use. What was in use and may still be read
// is in limbo until it settles.
type space struct {
	free  []extent // by at; none touch
	limbo []extent
}

func newSpace(n uint32) space { return space{free: []extent{{0, n}}} }

// take gives n elements in a row, from the smallest row that has as many.
func (s *space) take(n uint32) (extent, bool) {
	if n == 0 {
		return extent{}, true
	}
	best := -1
	for i, e := range s.free {
		if e.n >= n && (best < 0 || e.n < s.free[best].n) {
			best = i
		}
	}
	if best < 0 {
		return extent{}, false
	}
	e := &s.free[best]
	taken := extent{e.at, n}
	e.at += n
	e.n -= n
	if e.n == 0 {
		s.free = slices.Delete(s.free, best, best+1)
	}
	return taken, true
}

// largest is how many elements there are in the longest row.
func (s *space) largest() (n uint32) {
	for _, e := range s.free {
		n = max(n, e.n)
	}
	return n
}

// untake takes back what nobody can have seen.
func (s *space) untake(e extent) {
	if e.n == 0 {
		return
	}
	i, _ := slices.BinarySearchFunc(s.free, e, func(a, b extent) int { return cmp.Compare(a.at, b.at) })
	s.free = slices.Insert(s.free, i, e)
	if i+1 < len(s.free) && e.at+e.n == s.free[i+1].at {
		s.free[i].n += s.free[i+1].n
		s.free = slices.Delete(s.free, i+1, i+2)
	}
	if i > 0 && s.free[i-1].at+s.free[i-1].n == e.at {
		s.free[i-1].n += s.free[i].n
		s.free = slices.Delete(s.free, i, i+1)
	}
}

// give gives back what may still be read.
func (s *space) give(e extent) {
	if e.n > 0 {
		s.limbo = append(s.limbo, e)
	}
}

// settle frees what is in limbo, as nobody reads it any more.
func (s *space) settle() {
	for _, e := range s.limbo {
		s.untake(e)
	}
	s.limbo = s.limbo[:0]
}
