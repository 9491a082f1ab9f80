package unwind

import (
	"math/rand/v2"
	"testing"
)

// No element is given to two, none is lost, and none is given again before it settles.
func TestSpace(t *testing.T) {
	const size = 1000
	rng := rand.New(rand.NewPCG(1, 2))
	s := newSpace(size)
	var held []extent
	owned := [size]bool{}
	own := func(e extent, to bool) {
		for i := e.at; i < e.at+e.n; i++ {
			if owned[i] == to {
				t.Fatalf("element %d: %v already", i, to)
			}
			owned[i] = to
		}
	}
	var limbo []extent
	refused := 0
	for range 100_000 {
		switch rng.IntN(8) {
		case 0:
			s.settle()
			for _, e := range limbo {
				own(e, false)
			}
			limbo = nil
		case 1, 2, 3:
			if len(held) == 0 {
				continue
			}
			i := rng.IntN(len(held))
			e := held[i]
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
			if rng.IntN(2) == 0 {
				s.untake(e)
				own(e, false)
			} else {
				s.give(e)
				limbo = append(limbo, e)
			}
		default:
			n := rng.Uint32N(60)
			most := s.largest()
			e, ok := s.take(n)
			if ok != (n <= most) || ok && e.n != n {
				t.Fatalf("%d where %d is the most: %v, %v", n, most, e, ok)
			}
			if !ok {
				refused++
				continue
			}
			own(e, true)
			held = append(held, e)
		}
	}
	if refused == 0 {
		t.Error("it was never full")
	}
	for _, e := range held {
		s.untake(e)
	}
	s.settle()
	if len(s.free) != 1 || s.free[0] != (extent{0, size}) {
		t.Errorf("at the end %v are free", s.free)
	}
}
