package symbols

import (
	"math"
	"slices"
	"testing"
)

func TestSpans(t *testing.T) {
	for _, test := range []struct {
		name    string
		extents []extent
		want    []span
	}{
		{"none", nil, nil},
		{"one", []extent{{10, 20, 1, 0}}, []span{{10, 0}, {20, noFunction}}},
		{"empty", []extent{{10, 10, 1, 0}, {20, 19, 1, 1}}, nil},
		{"adjacent", []extent{{20, 30, 1, 1}, {10, 20, 1, 0}}, []span{{10, 0}, {20, 1}, {30, noFunction}}},
		{"nested", []extent{{10, 40, 10, 0}, {20, 30, 20, 1}}, []span{{10, 0}, {20, 1}, {30, 0}, {40, noFunction}}},
		{"hidden", []extent{{10, 40, 2, 0}, {20, 30, 1, 1}}, []span{{10, 0}, {40, noFunction}}},
		{"tail", []extent{{10, 30, 2, 0}, {20, 40, 1, 1}}, []span{{10, 0}, {30, 1}, {40, noFunction}}},
		{"same start", []extent{{10, 20, 1, 0}, {10, 30, 2, 1}}, []span{{10, 1}, {30, noFunction}}},
		{"to the end", []extent{{10, math.MaxUint64, 1, 0}}, []span{{10, 0}, {math.MaxUint64, noFunction}}},
	} {
		if got := spansOf(test.extents); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// FuzzSpans compares with a search through all extents.
func FuzzSpans(f *testing.F) {
	f.Add([]byte{1, 9, 1, 3, 5, 2, 4, 200, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var extents []extent
		for i := 0; i+3 <= len(data) && i < 300; i += 3 {
			// Ranks differ, because those of functions at one address do.
			rank := uint64(data[i+2])<<16 | uint64(i)
			extents = append(extents, extent{uint64(data[i]), uint64(data[i]) + uint64(data[i+1]), rank, uint32(i)})
		}
		spans := spansOf(slices.Clone(extents))
		for addr := range uint64(600) {
			want, rank, found := uint32(0), uint64(0), false
			for _, e := range extents {
				if e.start <= addr && addr < e.end && (!found || e.rank > rank) {
					want, rank, found = e.function, e.rank, true
				}
			}
			if got, ok := at(spans, addr); ok != found || got != want {
				t.Fatalf("at %d: %d %v, want %d %v, of %v", addr, got, ok, want, found, extents)
			}
		}
	})
}
