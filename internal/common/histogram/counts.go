package histogram

import (
	"math/bits"
	"slices"
)

// Unit is what latencies are shown in.
type Unit struct {
	Name    string // as BCC has it
	Nanos   uint64
	shift   uint   // a latency is counted by so many
	divisor uint64 // ns << shift / divisor, which is a finer unit
}

// The units that there are. Latencies are told apart by 1/16 from a microsecond on.
var (
	Micros = Unit{"usecs", 1_000, 4, 1_000}
	Millis = Unit{"msecs", 1_000_000, 14, 1_000_000}
)

// Counts are latencies that were counted in the kernel. Count, Sum, Min and Max are
// exact, and in nanoseconds. The zero value is empty.
type Counts struct {
	Count, Sum, Min, Max uint64
	Errors               uint64 // how many of them were of what failed

	unit    Unit
	buckets [liveBuckets]uint64
}

// A Bucket has the latencies that are not above Le, in nanoseconds, and above that of
// the bucket before.
type Bucket struct{ Le, Count uint64 }

// Of counts latencies, in nanoseconds, as the kernel side does.
func Of(unit Unit, latencies ...uint64) Counts {
	var cpu perCPU
	for _, ns := range latencies {
		unit.count(&cpu, 0, ns)
	}
	c := Counts{unit: unit}
	c.add(&cpu)
	return c
}

// count counts as histogram.bpf.h does, by some copy of the program.
func (u Unit) count(cpu *perCPU, copyNumber int, ns uint64) {
	bucket := min(int(BucketOf(ns<<u.shift/u.divisor)), liveBuckets-1)
	cpu.Buckets[bucket]++
	cpu.Sum += ns
	e := &cpu.Extremes[copyNumber]
	e.Greatest = max(e.Greatest, ns)
	e.Least = max(e.Least, ^ns)
}

func (c *Counts) add(cpu *perCPU) {
	count := c.Count
	for i, n := range cpu.Buckets {
		c.buckets[i] += uint64(n)
		c.Count += uint64(n)
	}
	if c.Count == count {
		return
	}
	c.Sum += cpu.Sum
	c.Errors += cpu.Errors
	for _, e := range cpu.Extremes {
		if e.Least == 0 { // nothing was counted here; a latency is never the greatest number
			continue
		}
		if least := ^e.Least; count == 0 || least < c.Min {
			c.Min, count = least, 1
		}
		c.Max = max(c.Max, e.Greatest)
	}
}

// Add adds what others counted in the same unit.
func (c *Counts) Add(other *Counts) {
	if other.Count == 0 {
		return
	}
	if c.Count == 0 {
		c.unit, c.Min = other.unit, other.Min
	}
	c.Count += other.Count
	c.Sum += other.Sum
	c.Errors += other.Errors
	c.Min, c.Max = min(c.Min, other.Min), max(c.Max, other.Max)
	for i, n := range other.buckets {
		c.buckets[i] += n
	}
}

// le gives the greatest latency that is counted in a bucket, in nanoseconds.
func (c *Counts) le(bucket int) uint64 {
	if bucket == liveBuckets-1 { // which has all that is above
		return c.Max
	}
	return ((last(uint16(bucket))+1)*c.unit.divisor - 1) >> c.unit.shift
}

// Buckets gives those that are not empty.
func (c *Counts) Buckets() []Bucket {
	var all []Bucket
	for i, n := range c.buckets {
		if n > 0 {
			all = append(all, Bucket{c.le(i), n})
		}
	}
	return all
}

// Quantile gives a latency in nanoseconds that the share q (0 to 1) of all do not
// exceed: at most 1/16 too much (from a microsecond on) and never more than Max. It is
// 0 if there are none.
func (c *Counts) Quantile(q float64) uint64 {
	if c.Count == 0 {
		return 0
	}
	rank := rankOf(q, c.Count)
	for i, n := range c.buckets {
		if n < rank {
			rank -= n
			continue
		}
		return max(min(c.le(i), c.Max), c.Min)
	}
	return c.Max
}

// Powers counts by powers of two of the unit, as BCC does: 0 and 1 are counted at 1,
// 2 and 3 at 2, 4 to 7 at 3. It ends with the last that is not empty.
func (c *Counts) Powers() []uint64 {
	var powers []uint64
	for i, n := range c.buckets {
		if n == 0 {
			continue
		}
		power := max(bits.Len64(last(uint16(i))>>c.unit.shift), 1)
		for len(powers) <= power {
			powers = append(powers, 0)
		}
		powers[power] += n
	}
	return powers
}

// PerPower is how many buckets there are to each power of two of the unit.
const PerPower = 1 << subBits

// Span gives the counts of the buckets from the first to the last that is not empty,
// and the number of that first one. Bucket i is one of power i/PerPower, which begins at
// [Unit.Edge].
func (c *Counts) Span() (first int, counts []uint64) {
	end := 0
	for i, n := range c.buckets {
		if n > 0 && end == 0 {
			first = i
		}
		if n > 0 {
			end = i + 1
		}
	}
	return first, slices.Clone(c.buckets[first:end])
}

// Powers is how many powers of two there are to latencies.
const Powers = liveBuckets / PerPower

// Edge gives the shortest latency that is counted in a power of two, in nanoseconds: 0
// for power 0, about a microsecond for 1, and twice as much for each after that. What
// is longer than all is counted in the last, Powers-1.
func (u Unit) Edge(power int) uint64 {
	if power == 0 {
		return 0
	}
	return (PerPower<<(power-1)*u.divisor + 1<<u.shift - 1) >> u.shift
}

// Unit is the one that they were counted for.
func (c *Counts) Unit() Unit { return c.unit }
