// Package histogram counts latencies in buckets that grow with them, so that
// quantiles of any number of them take little memory.
package histogram

import (
	"math/bits"
	"slices"
)

// subBits is how many bits of a number, behind its first, tell its bucket: each
// power of two has 16 buckets, and a bucket is at most 1/16 of its numbers wide.
const subBits = 4

// Histogram counts numbers, such as latencies in nanoseconds. Count, Sum, Min and
// Max are exact. The zero value is empty.
type Histogram struct {
	Count, Sum, Min, Max uint64
	buckets              map[uint16]uint64
}

// Add counts a number.
func (h *Histogram) Add(n uint64) {
	if h.Count == 0 {
		h.buckets = map[uint16]uint64{}
		h.Min = n
	}
	h.Count++
	h.Sum += n
	h.Min, h.Max = min(h.Min, n), max(h.Max, n)
	h.buckets[BucketOf(n)]++
}

// Quantile gives a number that the share q (0 to 1) of all numbers do not exceed: the
// greatest of its bucket, so at most 1/16 too much and never more than Max. It is 0
// if there are none.
func (h *Histogram) Quantile(q float64) uint64 {
	if h.Count == 0 {
		return 0
	}
	rank := rankOf(q, h.Count)
	keys := make([]uint16, 0, len(h.buckets))
	for key := range h.buckets {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if n := h.buckets[key]; n < rank {
			rank -= n
			continue
		}
		return min(last(key), h.Max)
	}
	return h.Max
}

// rankOf gives which of so many numbers, by size, the share q does not exceed; the
// smallest is number 1.
func rankOf(q float64, count uint64) uint64 {
	rank := uint64(q * float64(count))
	if float64(rank) < q*float64(count) || rank == 0 {
		rank++
	}
	return min(rank, count)
}

// BucketOf gives the bucket of a number. Up to 31 each number has its own.
func BucketOf(n uint64) uint16 {
	if n < 1<<(subBits+1) {
		return uint16(n)
	}
	shift := bits.Len64(n) - subBits - 1
	return uint16(shift<<subBits) + uint16(n>>shift)
}

// last gives the greatest number in a bucket.
func last(bucket uint16) uint64 {
	if bucket < 1<<(subBits+1) {
		return uint64(bucket)
	}
	shift := bucket>>subBits - 1
	first := uint64(bucket&(1<<subBits-1)|1<<subBits) << shift
	return first + 1<<shift - 1
}
