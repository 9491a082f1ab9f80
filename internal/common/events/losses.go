package events

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

const lostMap = "lost"

// texts says what the causes in events.bpf.h mean to a user.
var texts = map[string]string{
	"ring_full":     "ring buffer full (--buffer-pages makes it larger)",
	"inflight_full": "too many calls at once",
	"return_missed": "the return of a call was not seen",
	"scratch_full":  "too many long records at once",
	"follow_full":   "too many processes to follow",
	"ring_busy":     "ring buffer in use by another CPU",
	"requests_full": "too many requests under way",
	"keys_full":     "too many disks, operations, cgroups or comms to tell apart",
	"end_unseen":    "the end of a request or bio was not seen",
	"stacks_full":   "no memory for more stacks",
	"too_deep":      "a bio was handed on by too many devices",
}

// Loss is how many events were lost for one cause.
type Loss struct {
	Cause string // as in JSON: "ring_full"
	Count uint64
}

// Text says the cause in words.
func (l Loss) Text() string {
	if t := texts[l.Cause]; t != "" {
		return t
	}
	return strings.ReplaceAll(l.Cause, "_", " ")
}

// Lost is what was lost so far.
type Lost struct {
	Causes []Loss // those that lost any
	// Possible is how often a program was skipped that may or may not have had an
	// event to report: at most so many events are lost besides.
	Possible uint64
}

// Losses counts lost events.
type Losses struct {
	causes []string
	counts *ebpf.Map
	missed func() uint64
	added  map[string]uint64
	perCPU []uint64
	lost   Lost
}

// NewLosses reads the causes from the types of a spec, since events.bpf.h is
// where they are written down.
func NewLosses(spec *ebpf.CollectionSpec) (*Losses, error) {
	var causes *btf.Enum
	if err := spec.Types.TypeByName("lost_cause", &causes); err != nil {
		return nil, fmt.Errorf("find the causes of loss in the object: %w", err)
	}
	l := &Losses{}
	for _, v := range causes.Values {
		if name := strings.ToLower(strings.TrimPrefix(v.Name, "LOST_")); name != "causes" {
			l.causes = append(l.causes, name)
		}
	}
	return l, nil
}

// Open connects to a loaded collection. missed gives the kernel's own count.
func (l *Losses) Open(coll *ebpf.Collection, missed func() uint64) {
	l.counts, l.missed = coll.Maps[lostMap], missed
}

// Add counts losses of a cause in events.bpf.h that only user space could find.
func (l *Losses) Add(cause string, n uint64) {
	if l.added == nil {
		l.added = map[string]uint64{}
	}
	l.added[cause] += n
}

// Read gives the losses so far. They are valid until the next call.
func (l *Losses) Read() (*Lost, error) {
	l.lost.Causes = l.lost.Causes[:0]
	for i, cause := range l.causes {
		if err := l.counts.Lookup(uint32(i), &l.perCPU); err != nil {
			return nil, fmt.Errorf("read the counts of lost events: %w", err)
		}
		sum := l.added[cause]
		for _, n := range l.perCPU {
			sum += n
		}
		if sum > 0 {
			l.lost.Causes = append(l.lost.Causes, Loss{cause, sum})
		}
	}
	l.lost.Possible = l.missed()
	return &l.lost, nil
}

// Total adds up what was lost for certain.
func (l *Lost) Total() uint64 {
	var n uint64
	for _, c := range l.Causes {
		n += c.Count
	}
	return n
}

// Describe says in one line what was lost: "lost 12 events: 10 ring buffer full,
// 2 …; may have lost up to 3 events: …".
func (l *Lost) Describe() string {
	var b strings.Builder
	if len(l.Causes) > 0 {
		fmt.Fprintf(&b, "lost %d events:", l.Total())
		for i, c := range l.Causes {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %d %s", c.Count, c.Text())
		}
	}
	if l.Possible > 0 {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "may have lost up to %d events: so often the kernel skipped a program that was busy", l.Possible)
	}
	return b.String()
}
