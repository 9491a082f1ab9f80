package symbols

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
)

// noFunction marks addresses that are in no function.
const noFunction = math.MaxUint32

// A span is a range of addresses that belong to one function. It ends where the next
// one starts.
type span struct {
	start    uint64
	function uint32 // index, or noFunction
}

// An extent is what a table says of a function: that it takes the addresses from start
// to end. Extents may overlap: the one with the greater rank has what both claim.
type extent struct {
	start, end uint64 // end isn't in it
	rank       uint64
	function   uint32
}

// spansOf resolves extents to spans, in the order of their addresses. It sorts extents.
func spansOf(extents []extent) []span {
	slices.SortFunc(extents, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	spans := make([]span, 0, len(extents)+1)
	add := func(start uint64, function uint32) {
		if n := len(spans); n > 0 && spans[n-1].start == start {
			spans = spans[:n-1]
		}
		if n := len(spans); n > 0 && spans[n-1].function == function || n == 0 && function == noFunction {
			return
		}
		spans = append(spans, span{start, function})
	}
	var open ranked
	// close ends what ends at or before limit, and has what is below it go on.
	closeUntil := func(limit uint64) {
		for len(open) > 0 && open[0].end <= limit {
			at := open[0].end
			for len(open) > 0 && open[0].end <= at {
				heap.Pop(&open)
			}
			if len(open) > 0 {
				add(at, open[0].function)
			} else {
				add(at, noFunction)
			}
		}
	}
	for _, e := range extents {
		if e.start >= e.end {
			continue
		}
		closeUntil(e.start)
		heap.Push(&open, e)
		add(e.start, open[0].function)
	}
	closeUntil(math.MaxUint64)
	return spans
}

// at gives the function that an address is in.
func at(spans []span, addr uint64) (function uint32, ok bool) {
	i, found := slices.BinarySearchFunc(spans, addr, func(s span, addr uint64) int { return cmp.Compare(s.start, addr) })
	if !found {
		i--
	}
	if i < 0 || spans[i].function == noFunction {
		return 0, false
	}
	return spans[i].function, true
}

// ranked is a heap with the greatest rank on top.
type ranked []extent

func (r ranked) Len() int           { return len(r) }
func (r ranked) Less(i, j int) bool { return r[i].rank > r[j].rank }
func (r ranked) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *ranked) Push(x any)        { *r = append(*r, x.(extent)) }
func (r *ranked) Pop() any {
	old := *r
	e := old[len(old)-1]
	*r = old[:len(old)-1]
	return e
}
