package trace

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// statistics is the kernel's account of what BPF programs cost. It counts for
// all programs on the machine, at some 20 ns a run, so it is on only while the
// tool that was asked for it runs.
type statistics struct {
	kernel io.Closer
	start  time.Time
}

func startStatistics() (*statistics, error) {
	c, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return nil, diagnose.Explain("--stats: turn on the kernel's BPF statistics", diagnose.Stats, err)
	}
	return &statistics{c, time.Now()}, nil
}

func (s *statistics) stop() { _ = s.kernel.Close() }

// report says what the run cost, on standard error.
func (s *statistics) report(r *Run) error {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return fmt.Errorf("--stats: %w", err)
	}
	lost, err := r.losses.Read()
	if err != nil {
		return err
	}
	var b strings.Builder
	say := func(format string, args ...any) {
		fmt.Fprintf(&b, "%s: "+format+"\n", append([]any{r.env.Name}, args...)...)
	}
	counts, err := r.set.Counts()
	if err != nil {
		return fmt.Errorf("--stats: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		c := counts[name]
		if c.Runs == 0 {
			continue
		}
		if c.Copies > 1 {
			name += fmt.Sprintf(" and %d spares", c.Copies-1)
		}
		text := fmt.Sprintf("program %s ran %d times, %d ns each, %v in all", name, c.Runs, uint64(c.Runtime)/c.Runs, c.Runtime.Round(time.Microsecond))
		if c.Missed > 0 {
			text += fmt.Sprintf(", and may have been skipped %d times", c.Missed)
		}
		say("%s", text)
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	say("the tool took %v of CPU time in %v, and at most %d KiB of memory%s", cpu.Round(time.Microsecond),
		time.Since(s.start).Round(time.Millisecond), usage.Maxrss, ringShare(r.set.Maps["events"]))
	say("%d events shown, %d lost", r.Shown, lost.Total())
	_, err = io.WriteString(r.env.Stderr, b.String())
	return err
}

// ringShare says how much of the memory is the ring buffer, which is mapped
// twice in a row so that no record is ever in two pieces.
func ringShare(ring *ebpf.Map) string {
	if ring == nil {
		return ""
	}
	return fmt.Sprintf(" (of that up to %d KiB the ring buffer, counted twice)", 2*ring.MaxEntries()/1024)
}

// explainRejection prints the verifier's whole log, with -v: it is a bug that
// somebody will want to report.
func (r *Run) explainRejection(err error) {
	var rejected *ebpf.VerifierError
	if r.opts.verbose && errors.As(err, &rejected) {
		fmt.Fprintf(r.env.Stderr, "%+v\n", rejected)
	}
}

// explain says which mode each hook got.
func (r *Run) explain(w io.Writer) {
	for _, res := range r.set.Results {
		for _, line := range describe(&res) {
			fmt.Fprintf(w, "%s: %s\n", r.env.Name, line)
		}
	}
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		fmt.Fprintf(w, "%s: kernel %s\n", r.env.Name, strings.TrimSpace(string(v)))
	}
}
