package events

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

const lostMap = "lost"

// Missed is the cause of loss that the kernel itself counts, and not events.bpf.h:
// a program was to run while it ran already on that CPU.
const Missed = "program_busy"

// texts says what the causes in events.bpf.h mean to a user.
var texts = map[string]string{
	"ring_full":     "ring buffer full (--buffer-pages makes it larger)",
	"inflight_full": "too many calls at once",
	"return_missed": "the return of a call was not seen",
	"scratch_full":  "too many long records at once",
	"follow_full":   "too many processes to follow",
	Missed:          "the kernel skipped the program, which was busy",
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

// Losses counts lost events.
type Losses struct {
	causes  []string
	counts  *ebpf.Map
	missed  func() uint64
	perCPU  []uint64
	current []Loss
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

// Read gives the losses so far, of each cause that has any. The slice is valid
// until the next call.
func (l *Losses) Read() ([]Loss, error) {
	l.current = l.current[:0]
	for i, cause := range l.causes {
		if err := l.counts.Lookup(uint32(i), &l.perCPU); err != nil {
			return nil, fmt.Errorf("read the counts of lost events: %w", err)
		}
		var sum uint64
		for _, n := range l.perCPU {
			sum += n
		}
		if sum > 0 {
			l.current = append(l.current, Loss{cause, sum})
		}
	}
	if n := l.missed(); n > 0 {
		l.current = append(l.current, Loss{Missed, n})
	}
	return l.current, nil
}

// Total adds losses up.
func Total(losses []Loss) uint64 {
	var n uint64
	for _, l := range losses {
		n += l.Count
	}
	return n
}

// Describe says losses in one line: "lost 12 events: 10 ring buffer full, 2 …".
func Describe(losses []Loss) string {
	var b strings.Builder
	fmt.Fprintf(&b, "lost %d events:", Total(losses))
	for i, l := range losses {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %d %s", l.Count, l.Text())
	}
	return b.String()
}
