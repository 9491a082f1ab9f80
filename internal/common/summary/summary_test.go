package summary

import (
	"cmp"
	"testing"
)

type line struct {
	name string
	n    int
}

func byCount(a, b *line) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) }

func TestLines(t *testing.T) {
	var s Lines[string, line]
	if lines := s.Sorted(byCount); len(lines) != 0 {
		t.Errorf("%d lines of nothing", len(lines))
	}
	for _, name := range []string{"a", "b", "c", "b", "d", "e", "a", "d", "b"} {
		s.Of(name, 3, line{name: name}, line{name: "others"}).n++
	}
	want := []line{{"b", 3}, {"a", 2}, {"c", 1}, {"others", 3}}
	got := s.Sorted(byCount)
	if len(got) != len(want) {
		t.Fatalf("%d lines", len(got))
	}
	for i, l := range got {
		if *l != want[i] {
			t.Errorf("line %d is %v, not %v", i, *l, want[i])
		}
	}
}

func TestLinesWithoutOthers(t *testing.T) {
	var s Lines[int, line]
	for i := range 3 {
		s.Of(i, 3, line{n: i}, line{name: "others"})
	}
	lines := s.Sorted(byCount)
	if len(lines) != 3 || lines[0].n != 2 || lines[2].name != "" {
		t.Errorf("%d lines, %v first", len(lines), lines[0])
	}
}

// A line that is there costs no memory to find.
func TestOfAllocatesNothing(t *testing.T) {
	var s Lines[int, line]
	s.Of(1, 1, line{}, line{})
	s.Of(2, 1, line{}, line{})
	if n := testing.AllocsPerRun(100, func() {
		s.Of(1, 1, line{}, line{}).n++
		s.Of(2, 1, line{}, line{}).n++
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
