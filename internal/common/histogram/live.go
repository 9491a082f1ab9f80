package histogram

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/gobcc/gobcc/internal/common/constants"
)

// The names and numbers in histogram.bpf.h.
const (
	mapName     = "histograms"
	shiftVar    = "histogram_shift"
	divisorVar  = "histogram_divisor"
	liveBuckets = 576
	maxCopies   = 4
)

// Live are histograms that programs count in, by way of bpf/headers/histogram.bpf.h.
type Live struct {
	unit    Unit
	outer   *ebpf.Map
	inner   [2]*ebpf.Map
	counted int // which of inner is counted in
	cpus    int
}

// perCPU is struct histogram of histogram.bpf.h.
type perCPU struct {
	Sum, Errors uint64
	Extremes    [maxCopies]struct{ Greatest, Least, Busy uint64 }
	Buckets     [liveBuckets]uint32
}

// Size is how many bytes of kernel memory a histogram takes on each CPU: there are two
// of each.
const Size = 2 * (16 + 24*maxCopies + 4*liveBuckets)

// NewLive prepares n histograms, in a spec that is not loaded yet. Close gives them
// back.
func NewLive(spec *ebpf.CollectionSpec, unit Unit, n int) (*Live, error) {
	l := &Live{unit: unit}
	outer := spec.Maps[mapName]
	if outer == nil {
		return nil, fmt.Errorf("the object lacks the map %s", mapName)
	}
	if err := constants.Set(spec, map[string]any{shiftVar: uint32(unit.shift), divisorVar: unit.divisor}); err != nil {
		return nil, err
	}
	outer.InnerMap.MaxEntries = uint32(n)
	_ = rlimit.RemoveMemlock() // up to 5.10; if it can't be lifted, making the maps fails
	var err error
	if l.cpus, err = ebpf.PossibleCPU(); err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	for i := range l.inner {
		if l.inner[i], err = ebpf.NewMap(outer.InnerMap); err != nil {
			l.Close()
			return nil, fmt.Errorf("make %d histograms: %w", n, err)
		}
	}
	outer.Contents = []ebpf.MapKV{{Key: uint32(0), Value: l.inner[0]}}
	return l, nil
}

// Open connects to what is loaded now; find gives its maps by their names.
func (l *Live) Open(find func(name string) *ebpf.Map) error {
	if l.outer = find(mapName); l.outer == nil {
		return fmt.Errorf("the map %s is not loaded", mapName)
	}
	return nil
}

// Swap begins new histograms. What was counted till then can be taken, and no program
// counts there any more: the kernel waits for those that run
// (maybe_wait_bpf_programs, since 4.19).
func (l *Live) Swap() error {
	other := 1 - l.counted
	if err := l.outer.Update(uint32(0), l.inner[other], ebpf.UpdateAny); err != nil {
		return fmt.Errorf("begin new histograms: %w", err)
	}
	l.counted = other
	return nil
}

// Take adds what a histogram had counted before the last Swap to c, and empties it.
func (l *Live) Take(index int, c *Counts) error {
	old := l.inner[1-l.counted]
	values := make([]perCPU, l.cpus)
	if err := old.Lookup(uint32(index), &values); err != nil {
		return fmt.Errorf("read histogram %d: %w", index, err)
	}
	before := c.Count
	c.unit = l.unit
	for i := range values {
		c.add(&values[i])
	}
	if c.Count == before {
		return nil
	}
	clear(values)
	if err := old.Update(uint32(index), values, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("empty histogram %d: %w", index, err)
	}
	return nil
}

// Close gives the histograms back.
func (l *Live) Close() error {
	var errs []error
	for _, m := range l.inner {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
