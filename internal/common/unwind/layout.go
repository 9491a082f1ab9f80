package unwind

import (
	"slices"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// Layout is what is to be known of a file while others have its rows: where it is mapped, and
// what code signals' handlers return to.
type Layout struct {
	Segments symbols.Segments
	signals  []stretch // by the file's addresses
}

// stretch is code from an address to another.
type stretch struct{ start, end uint64 }

// Signal reports whether what is at an offset in the file is what a signal's handler returns
// to.
func (l *Layout) Signal(offset uint64) bool {
	if len(l.signals) == 0 {
		return false
	}
	addr, ok := l.Segments.Address(offset)
	return ok && slices.ContainsFunc(l.signals, func(e stretch) bool { return e.start <= addr && addr < e.end })
}

// signals finds where a table says that a signal's frame is.
func (t *Table) signals() (found []stretch) {
	var wanted []uint16
	for i, r := range t.Rules {
		if r.Cfa == Signal {
			wanted = append(wanted, uint16(i))
		}
	}
	if wanted == nil {
		return nil
	}
	for i, p := range t.Pages {
		page := t.Start + uint64(i)*PageSize
		rows := t.Rows[p.First:][:p.Count]
		for j, r := range rows {
			if !slices.Contains(wanted, r.Rule) {
				continue
			}
			end := page + PageSize
			if j+1 < len(rows) {
				end = page + uint64(rows[j+1].Low)
			}
			found = append(found, stretch{page + uint64(r.Low), end})
		}
	}
	return found
}
