package histogram

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// edges are numbers up to some hours that are the first or last of something.
func edges() []uint64 {
	var all []uint64
	for _, unit := range []uint64{1, 1_000, 1_000_000} {
		for n := unit; n < 30_000_000_000_000; n *= 2 {
			all = append(all, n-1, n, n+1)
		}
	}
	return append(all, 0, 62, 63, 100_000_000_000)
}

func TestCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	falling := uint64(1 << 40)
	for name, draw := range map[string]func() uint64{
		"uniform":     func() uint64 { return r.Uint64N(1_000_000) },
		"exponential": func() uint64 { return uint64(r.ExpFloat64() * 90_000) },
		"wide":        func() uint64 { return r.Uint64N(100_000_000_000) >> r.UintN(37) },
		"two":         func() uint64 { return []uint64{1_000, 100_000_000_000}[r.UintN(2)] },
		"one":         func() uint64 { return 123_456_789 },
		"nothing":     func() uint64 { return 0 },
		"edges":       func() uint64 { return edges()[r.IntN(len(edges()))] },
		"one bucket":  func() uint64 { return 1_049_000_000 + r.Uint64N(32_000_000) },
		"below 1 us":  func() uint64 { return r.Uint64N(1_000) },
		"above 100 s": func() uint64 { return 100_000_000_000 + r.Uint64N(900_000_000_000) },
		"rarely slow": func() uint64 { return []uint64{80_000, 10_000_000_000}[max(r.IntN(1000), 998)-998] },
		"powers":      func() uint64 { return 1 << r.UintN(45) },
		"falling":     func() uint64 { falling -= 1_000_003; return falling },
	} {
		for _, unit := range []Unit{Micros, Millis} {
			for _, n := range []int{1, 2, 3, 9, 10, 11, 99, 100, 999, 1_000, 1_001, 5_000} {
				cpus := make([]perCPU, 3)
				var all, powers []uint64
				sum := uint64(0)
				for range n {
					ns := draw()
					unit.count(&cpus[r.IntN(3)], r.IntN(maxCopies), ns)
					all = append(all, ns)
					sum += ns
					// As BCC: log2l(delta), where that of 0 is 1.
					power := max(bits.Len64(ns/unit.Nanos), 1)
					for len(powers) <= power {
						powers = append(powers, 0)
					}
					powers[power]++
				}
				c := Counts{unit: unit}
				for i := range cpus {
					c.add(&cpus[i])
				}
				slices.Sort(all)
				if c.Count != uint64(n) || c.Sum != sum || c.Min != all[0] || c.Max != all[n-1] {
					t.Fatalf("%s: %d latencies from %d to %d, not %d from %d to %d", name, c.Count, c.Min, c.Max, n, all[0], all[n-1])
				}
				if got := c.Powers(); !slices.Equal(got, powers) {
					t.Errorf("%s in %s: powers %v, not %v", name, unit.Name, got, powers)
				}
				before := c.Min
				for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
					want, got := exact(all, q), c.Quantile(q)
					if got < before {
						t.Errorf("%s in %s: quantile %v of %d is %d, below that of less, or the minimum: %d", name, unit.Name, q, n, got, before)
					}
					before = got
					if got < want || want >= 1_000 && got-want > want/16 || got > c.Max || want < 1_000 && got-want > 63 {
						t.Errorf("%s in %s: quantile %v of %d is %d, and was found to be %d", name, unit.Name, q, n, want, got)
					}
				}
				checkBuckets(t, &c, all)
			}
		}
	}
}

// checkBuckets compares the buckets with what is not above their limits.
func checkBuckets(t *testing.T, c *Counts, sorted []uint64) {
	t.Helper()
	below, before := uint64(0), uint64(0)
	for i, b := range c.Buckets() {
		below += b.Count
		n := uint64(0)
		for _, ns := range sorted {
			if ns <= b.Le {
				n++
			}
		}
		if n != below || b.Count == 0 || i > 0 && b.Le <= before {
			t.Fatalf("%d latencies up to %d, and %d are counted", n, b.Le, below)
		}
		before = b.Le
	}
	if below != c.Count {
		t.Errorf("the buckets have %d of %d latencies", below, c.Count)
	}
}

// However latencies are divided into intervals, together they are the same.
func TestIntervalsTogether(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		unit := []Unit{Micros, Millis}[r.IntN(2)]
		var all []uint64
		var sum Counts
		for range 1 + r.IntN(20) { // intervals
			var some []uint64
			for range r.IntN(50) {
				some = append(some, r.Uint64N(200_000_000_000)>>r.UintN(38))
			}
			one := Of(unit, some...)
			one.Errors = uint64(len(some) / 7)
			sum.Add(&one)
			all = append(all, some...)
		}
		want := Of(unit, all...)
		want.Errors = sum.Errors
		if len(all) == 0 {
			want = Counts{}
		}
		if sum != want {
			t.Fatalf("%d latencies in intervals are %+v, and together %+v", len(all), sum, want)
		}
	}
}

func TestAdd(t *testing.T) {
	a, b := Of(Micros, 5_000, 7_000), Of(Micros, 1_000, 9_000_000)
	var sum Counts
	for _, c := range []*Counts{{}, &a, &b, {}} {
		sum.Add(c)
	}
	if want := Of(Micros, 5_000, 7_000, 1_000, 9_000_000); sum != want {
		t.Errorf("%+v, not %+v", sum, want)
	}
}

// Each power begins where Edge says, in its first bucket.
func TestSpan(t *testing.T) {
	for _, unit := range []Unit{Micros, Millis} {
		for power := range Powers {
			edge := unit.Edge(power)
			c := Of(unit, edge, edge)
			if first, counts := c.Span(); first != power*PerPower || !slices.Equal(counts, []uint64{2}) {
				t.Errorf("%d ns are in bucket %d, %d: not in the first of power %d", edge, first, counts, power)
			}
			if power == 0 {
				continue
			}
			c = Of(unit, edge-1)
			if first, _ := c.Span(); first != power*PerPower-1 {
				t.Errorf("%d ns are in bucket %d, not in the last of power %d", edge-1, first, power-1)
			}
		}
		c := Of(unit, 0, unit.Edge(1), unit.Edge(Powers-1)<<4)
		if first, counts := c.Span(); first != 0 || len(counts) != liveBuckets || counts[0] != 1 || counts[PerPower] != 1 || counts[liveBuckets-1] != 1 {
			t.Errorf("from %d, %d buckets", first, len(counts))
		}
	}
	var none Counts
	if first, counts := none.Span(); first != 0 || len(counts) != 0 {
		t.Errorf("of nothing: %d from %d on", counts, first)
	}
}

// What takes longer than the buckets reach is in the last.
func TestCountsOfHours(t *testing.T) {
	for _, unit := range []Unit{Micros, Millis} {
		var cpu perCPU
		const day = 24 * 3600 * 1_000_000_000
		unit.count(&cpu, 0, day)
		unit.count(&cpu, 1, 1_000)
		c := Counts{unit: unit}
		c.add(&cpu)
		if got := c.Buckets(); len(got) != 2 || got[1] != (Bucket{day, 1}) || c.Quantile(1) != day || c.Max != day || c.Min != 1_000 {
			t.Errorf("%s: %v, %+v", unit.Name, got, c.Quantile(1))
		}
	}
}

func TestNoCounts(t *testing.T) {
	c := Counts{unit: Micros}
	c.add(&perCPU{})
	if c.Count != 0 || c.Min != 0 || c.Quantile(0.5) != 0 || c.Buckets() != nil || c.Powers() != nil {
		t.Errorf("%+v", c)
	}
}

// Nothing that is counted is as long as what stands for nothing.
func TestSizes(t *testing.T) {
	if Size != 2*unsafe.Sizeof(perCPU{}) {
		t.Errorf("a histogram takes %d bytes, not %d", 2*unsafe.Sizeof(perCPU{}), Size)
	}
	if n := BucketOf(math.MaxUint64 >> 25); n != liveBuckets-1 {
		t.Errorf("the bucket of 2^39-1 is %d", n)
	}
}
