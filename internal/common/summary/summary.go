// Package summary keeps the lines of a table in which a tool counts.
package summary

import "slices"

// Lines are the lines of a summary, by what each of them counts. The zero value is
// empty.
type Lines[K comparable, L any] struct {
	byKey  map[K]*L
	others *L
}

// Of gives the line of a key. Of one that has none yet it is fresh, unless there are
// limit lines: from then on new keys share one line, which begins as others. So nothing
// that is traced can fill the memory, and all is counted somewhere.
func (s *Lines[K, L]) Of(key K, limit int, fresh, others L) *L {
	if line := s.byKey[key]; line != nil {
		return line
	}
	if len(s.byKey) >= limit {
		if s.others == nil {
			s.others = keep(others)
		}
		return s.others
	}
	if s.byKey == nil {
		s.byKey = map[K]*L{}
	}
	line := keep(fresh)
	s.byKey[key] = line
	return line
}

// keep moves a line to the heap: no earlier, so that lines that are there cost nothing.
func keep[L any](line L) *L { return &line }

// Sorted gives the lines in the order of compare, and that which several keys share, if
// there is one, at the end.
func (s *Lines[K, L]) Sorted(compare func(a, b *L) int) []*L {
	lines := make([]*L, 0, len(s.byKey)+1)
	for _, line := range s.byKey {
		lines = append(lines, line)
	}
	slices.SortFunc(lines, compare)
	if s.others != nil {
		lines = append(lines, s.others)
	}
	return lines
}
