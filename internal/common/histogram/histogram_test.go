package histogram

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Buckets follow on each other without a gap, and none is wider than a sixteenth of
// its numbers.
func TestBuckets(t *testing.T) {
	next := uint64(0)
	for bucket := BucketOf(0); ; bucket++ {
		end := last(bucket)
		if BucketOf(next) != bucket || BucketOf(end) != bucket {
			t.Fatalf("bucket %d has not the numbers %d to %d, but they are in %d and %d", bucket, next, end, BucketOf(next), BucketOf(end))
		}
		if width := end - next + 1; width > 1 && width > next/16 {
			t.Fatalf("bucket %d is %d wide at %d", bucket, width, next)
		}
		if end == math.MaxUint64 {
			return
		}
		next = end + 1
	}
}

// exact is the quantile by its definition.
func exact(sorted []uint64, q float64) uint64 {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func TestQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() uint64{
		"uniform":     func() uint64 { return r.Uint64N(1_000_000) },
		"exponential": func() uint64 { return uint64(r.ExpFloat64() * 50_000) },
		"wide":        func() uint64 { return r.Uint64() >> r.UintN(64) },
		"two":         func() uint64 { return []uint64{3, 1 << 40}[r.UintN(2)] },
		"same":        func() uint64 { return 123_456_789 },
		"zero":        func() uint64 { return 0 },
		"greatest":    func() uint64 { return math.MaxUint64 },
	} {
		for _, n := range []int{1, 2, 3, 10, 99, 100, 101, 10_000} {
			var h Histogram
			var all []uint64
			for range n {
				v := draw()
				all = append(all, v)
				h.Add(v)
			}
			slices.Sort(all)
			if h.Min != all[0] || h.Max != all[n-1] || h.Count != uint64(n) {
				t.Fatalf("%s: %d numbers from %d to %d, not %d from %d to %d", name, h.Count, h.Min, h.Max, n, all[0], all[n-1])
			}
			for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
				want, got := exact(all, q), h.Quantile(q)
				if got < want || got-want > want/16 {
					t.Errorf("%s: quantile %v of %d numbers is %d, and was found to be %d", name, q, n, want, got)
				}
			}
		}
	}
}

func TestEmpty(t *testing.T) {
	var h Histogram
	if q := h.Quantile(0.5); q != 0 {
		t.Errorf("the median of nothing is %d", q)
	}
}
