package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/filter"
	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// line is what has histograms of its own in a table: one for each phase.
type line struct {
	bpfKey
	disk   []byte
	phases []histogram.Counts
}

// failed is how many requests ended with an error.
type failed struct {
	disk  []byte
	error string
	count uint64
}

// table is what was counted in an interval.
type table struct {
	lines  []*line
	failed []failed
	took   time.Duration
	time   time.Time // of its end
}

// printer writes tables.
type printer struct {
	opts       *options
	live       *histogram.Live
	operations operations
	metrics    *metrics // nil if there is no file of them
	heatmap    *heatmap // nil if there are tables
	screen     *screen  // that it is drawn on, if any

	lines    map[uint32]*line  // by slot
	cgroups  map[uint64]string // paths, as long as they were there; "" for others
	failures map[bpfFailure]uint64
	began    time.Time // of the interval
	gathered time.Time
	next     time.Time // when the next table is due
	tables   int       // written so far
}

// A bucket has room for 2^32 requests on a CPU: they are taken out of the kernel once a
// minute at least.
const longestGather = time.Minute

// drained writes the tables as they are due, but for the last.
func (p *printer) drained(r *trace.Run) error {
	every, now := p.opts.interval, time.Now()
	if p.began.IsZero() {
		p.began, p.gathered, p.next = now, now, now.Add(every)
		return p.open(r)
	}
	if p.screen != nil {
		if changed, err := p.screen.changed(); err != nil {
			return err
		} else if changed {
			if err := p.show(); err != nil {
				return err
			}
		}
	}
	if every == 0 || now.Before(p.next) {
		if now.Sub(p.gathered) < longestGather {
			return nil
		}
		return p.gather(r)
	}
	// Of several that are late, as after a SIGSTOP, only one is written.
	p.next = p.next.Add(every * (1 + now.Sub(p.next)/every))
	p.tables++
	if p.tables == p.opts.tables {
		r.Stop()
		return nil
	}
	return p.write(r)
}

// finish writes the last table.
func (p *printer) finish(r *trace.Run) error {
	if p.began.IsZero() { // it has ended at once
		p.began = time.Now()
		if err := p.open(r); err != nil {
			return err
		}
	}
	if err := p.write(r); err != nil {
		return err
	}
	n, err := unended(r.Map(bpfMapPlaces), r.Map(bpfMapStarts))
	if err != nil {
		return fmt.Errorf("look for requests that have not ended: %w", err)
	}
	if n > 0 {
		r.Say(fmt.Sprintf("%d requests had not ended, or their ends were not seen", n))
	}
	return nil
}

// unended counts the requests that were issued and have not ended.
func unended(maps ...*ebpf.Map) (n int, err error) {
	keys, values := make([]uint64, 1024), make([]bpfStart, 1024)
	for _, m := range maps {
		if m == nil {
			continue // with --bio
		}
		var at ebpf.MapBatchCursor
		for err = nil; err == nil; {
			var got int
			if m.KeySize() == 4 {
				got, err = m.BatchLookup(&at, unsafe.Slice((*uint32)(unsafe.Pointer(&keys[0])), len(keys)), values, nil)
			} else {
				got, err = m.BatchLookup(&at, keys, values, nil)
			}
			for _, s := range values[:got] {
				if s.MadeNs != 0 && s.IssueNs != 0 {
					n++
				}
			}
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) { // that is its end
			return n, err
		}
	}
	return n, nil
}

func (p *printer) open(r *trace.Run) error {
	p.lines, p.failures = map[uint32]*line{}, map[bpfFailure]uint64{}
	if err := p.live.Open(r.Map); err != nil || p.screen == nil {
		return err
	}
	if err := p.screen.enter(); err != nil {
		return err
	}
	return p.show()
}

// gather takes what was counted out of the kernel.
func (p *printer) gather(r *trace.Run) error {
	if err := p.live.Swap(); err != nil {
		return err
	}
	p.gathered = time.Now()
	if err := p.findSlots(r); err != nil {
		return err
	}
	for slot, l := range p.lines {
		last := &l.phases[len(l.phases)-1]
		before := last.Count
		for phase := range l.phases {
			if err := p.live.Take(int(slot)*len(l.phases)+phase, &l.phases[phase]); err != nil {
				return err
			}
		}
		r.Shown += last.Count - before
	}
	return nil
}

// findSlots looks for what the slots are for that are new.
func (p *printer) findSlots(r *trace.Run) error {
	phases := len(p.opts.phases())
	if !p.opts.by.any() {
		if p.lines[0] == nil {
			p.lines[0] = &line{phases: make([]histogram.Counts, phases)}
		}
		return nil
	}
	var key bpfKey
	var slot uint32
	entries := r.Map(bpfMapSlots).Iterate()
	for entries.Next(&key, &slot) {
		if p.lines[slot] != nil {
			continue
		}
		l := &line{bpfKey: key, phases: make([]histogram.Counts, phases)}
		var name bpfDiskName
		if err := r.Map(bpfMapSlotDisks).Lookup(slot, &name); err != nil {
			return fmt.Errorf("read the name of a disk: %w", err)
		}
		l.disk = bytes.Clone(events.CString(name.Name[:]))
		p.lines[slot] = l
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read what requests are counted by: %w", err)
	}
	return nil
}

// newFailures gives the errors since they were looked for last.
func (p *printer) newFailures(r *trace.Run) ([]failed, error) {
	var all []failed
	var f bpfFailure
	var n uint64
	entries := r.Map(bpfMapFailures).Iterate()
	for entries.Next(&f, &n) {
		if more := n - p.failures[f]; more > 0 {
			all = append(all, failed{bytes.Clone(events.CString(f.Disk[:])), errorName(f.Error), more})
			p.failures[f] = n
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read the errors of requests: %w", err)
	}
	slices.SortFunc(all, func(a, b failed) int {
		return cmp.Or(bytes.Compare(a.disk, b.disk), cmp.Compare(a.error, b.error))
	})
	return all, nil
}

// statuses are the names of the errors that the kernel makes of a blk_status_t. Those
// from 14 on have had several meanings.
var statuses = map[int32]string{
	1: "EOPNOTSUPP", 2: "ETIMEDOUT", 3: "ENOSPC", 4: "ENOLINK", 5: "EREMOTEIO", 6: "EBADE", 7: "ENODATA", 8: "EILSEQ",
	9: "ENOMEM", 10: "EIO", 11: "EREMCHG", 12: "EAGAIN", 13: "EBUSY",
}

// errorName names the error that a request ended with.
func errorName(n int32) string {
	if n < 0 {
		return output.ErrnoName(-n)
	}
	if name := statuses[n]; name != "" {
		return name
	}
	return fmt.Sprintf("BLK_STS_%d", n)
}

// cgroup gives the path of a cgroup, or "" if it was gone when it was first asked for.
func (p *printer) cgroup(id uint64) string {
	path, known := p.cgroups[id]
	if !known {
		if p.cgroups == nil {
			p.cgroups = map[uint64]string{}
		}
		path, _ = filter.CgroupPath(id) // "" if there is none
		p.cgroups[id] = path
	}
	return path
}

// write writes a table and begins another.
func (p *printer) write(r *trace.Run) error {
	if err := p.gather(r); err != nil {
		return err
	}
	fails, err := p.newFailures(r)
	if err != nil {
		return err
	}
	t := &table{lines: sorted(p.lines), failed: fails, took: p.gathered.Sub(p.began), time: time.Now()}
	p.began = p.gathered
	if p.metrics != nil {
		if err := p.metrics.add(p, t); err != nil {
			return err
		}
	}
	rows := r.Out.Row()
	switch {
	case p.opts.JSON:
		rows = p.appendJSON(rows, t)
	case p.heatmap != nil:
		if rows, err = p.writeLive(rows, t); err != nil {
			return err
		}
	default:
		rows = p.appendTable(rows, t)
	}
	err = r.Out.EndRow(rows)
	for _, l := range p.lines {
		clear(l.phases)
	}
	if err != nil {
		return err
	}
	return r.Out.Flush()
}

// sorted gives the lines that have counted something.
func sorted(lines map[uint32]*line) []*line {
	all := slices.SortedFunc(maps.Values(lines), func(a, b *line) int {
		return cmp.Or(bytes.Compare(a.disk, b.disk), cmp.Compare(a.Dev, b.Dev), cmp.Compare(a.OpFlags, b.OpFlags),
			cmp.Compare(a.CgroupId, b.CgroupId), bytes.Compare(a.Comm[:], b.Comm[:]))
	})
	return slices.DeleteFunc(all, func(l *line) bool { return l.last().Count == 0 })
}

// last is the phase that every request has.
func (l *line) last() *histogram.Counts { return &l.phases[len(l.phases)-1] }
