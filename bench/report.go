package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ownName is what the tables call gobcc's opensnoop, unfiltered.
const ownName = "gobcc"

// report is all that one run of the bench found.
type report struct {
	machine     machine
	opens       int      // of one load
	missing     []string // what could not be measured
	quiet, busy []series
	programs    []tracerPrograms
}

// machine is what about the machine bears on the figures.
type machine struct {
	kernel, cpu string
	cpus        int
}

func thisMachine() machine {
	m := machine{kernel: "unknown", cpu: runtime.GOARCH, cpus: runtime.NumCPU()}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		// The rest of a release names its builder, not the kernel.
		m.kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	}
	if info, err := os.Open("/proc/cpuinfo"); err == nil {
		defer info.Close()
		if model := cpuModel(info); model != "" {
			m.cpu = model + ", " + runtime.GOARCH
		}
	}
	return m
}

// cpuModel finds the model's name in a /proc/cpuinfo. arm64 kernels give none.
func cpuModel(r io.Reader) string {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// figures are the values of one quantity over the rounds.
type figures []float64

func (f figures) median() float64 {
	sorted := slices.Sorted(slices.Values(f))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// text gives the median and, where there is more than one value, the smallest
// and the largest.
func (f figures) text(format string) string {
	if len(f) == 0 {
		return "–"
	}
	text := fmt.Sprintf(format, f.median())
	if len(f) > 1 {
		text += fmt.Sprintf(" ("+format+" … "+format+")", slices.Min(f), slices.Max(f))
	}
	return text
}

// added is by how many nanoseconds an open took longer than without a tracer,
// in elapsed time.
func (s series) added(opens int) figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, float64(r.load.elapsed-s.bare[i].elapsed)/float64(opens))
	}
	return f
}

// addedCPU is the same in CPU time of the load's thread.
func (s series) addedCPU(opens int) figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, float64(r.load.busy-s.bare[i].busy)/float64(opens))
	}
	return f
}

// addedOther is by how many nanoseconds of its thread's CPU time a system call
// that opens nothing took longer.
func (s series) addedOther(opens int) figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, float64(r.load.others-s.bare[i].others)/float64(opens))
	}
	return f
}

// shown is the percentage of the load's opens for which there was a row.
func (s series) shown(opens int) figures {
	var f figures
	for _, r := range s.runs {
		f = append(f, 100*float64(r.shown)/float64(opens))
	}
	return f
}

// lost is how many opens of all loads had no row, and in how many of the runs
// that lost any the tracer said so.
func (s series) lost(opens int) (events int64, runs, said int) {
	for _, r := range s.runs {
		if missed := int64(opens) - r.shown; missed != 0 {
			events += missed
			runs++
			if r.saidLost {
				said++
			}
		}
	}
	return events, runs, said
}

// cpu is the tracer's CPU time for a row in nanoseconds, without what it takes
// to start and end.
func (s series) cpu() figures {
	var start figures
	for _, r := range s.idle {
		start = append(start, float64(r.cpu))
	}
	var f figures
	for _, r := range s.runs {
		if r.shown > 0 {
			f = append(f, (float64(r.cpu)-start.median())/float64(r.shown))
		}
	}
	return f
}

// all are the runs with and without a load, for what the load has no part in.
func (s series) all() []run { return slices.Concat(s.runs, s.idle) }

const (
	megabyte    = 1e6
	millisecond = float64(time.Millisecond)
)

func (s series) peak() figures {
	var f figures
	for _, r := range s.runs {
		f = append(f, float64(r.memory.peak)/megabyte)
	}
	return f
}

func (s series) besideRing() figures {
	var f figures
	for _, r := range s.runs {
		f = append(f, (float64(r.memory.peak)-float64(r.memory.ring))/megabyte)
	}
	return f
}

func (s series) ready() figures {
	var f figures
	for _, r := range s.all() {
		if r.ready > 0 {
			f = append(f, float64(r.ready)/millisecond)
		}
	}
	return f
}

func (s series) first() figures {
	var f figures
	for _, r := range s.all() {
		f = append(f, float64(r.first)/millisecond)
	}
	return f
}

// write prints the report as Markdown.
func (r report) write(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "Kernel %s, %s, %d CPUs. One load is %d opens, half of them of a missing file.\n",
		r.machine.kernel, r.machine.cpu, r.machine.cpus, r.opens)
	fmt.Fprintf(w, "Each figure is the median of the rounds, with the smallest and the largest.\n")
	for _, line := range r.missing {
		// An error's own line breaks would break the list.
		fmt.Fprintf(w, "\n**Not measured**: %s\n", strings.Join(strings.Fields(line), " "))
	}
	r.writeVersions(w)
	if len(r.quiet) > 0 {
		r.writeQuiet(w)
	}
	if len(r.busy) > 0 {
		r.writeBusy(w)
	}
	if len(r.programs) > 0 {
		r.writePrograms(w)
	}
	r.writeTargets(w)
	return w.Flush()
}

func (r report) writeVersions(w io.Writer) {
	fmt.Fprint(w, "\n| tracer | version |\n|---|---|\n")
	seen := make(map[string]bool)
	for _, s := range r.quiet {
		if !seen[s.tracer.key] {
			seen[s.tracer.key] = true
			name, _, _ := strings.Cut(s.tracer.name, " ")
			fmt.Fprintf(w, "| %s | %s |\n", name, s.tracer.version)
		}
	}
}

func (r report) writeQuiet(w io.Writer) {
	fmt.Fprintf(w, "\n### The machine as it is (rounds: %d)\n\n", len(r.quiet[0].runs))
	var bare figures
	for _, s := range r.quiet {
		for _, b := range s.bare {
			bare = append(bare, float64(b.elapsed)/float64(r.opens))
		}
	}
	fmt.Fprintf(w, "Without a tracer an open took %s ns.\n\n", bare.text("%.0f"))
	fmt.Fprint(w, "| tracer | added ns an open | of it CPU time | added ns another call | opens shown, % | said that it lost |"+
		" tracer's CPU, ns a row | peak memory, MB | beside the ring, MB | start to ready, ms | start to first row, ms |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.quiet {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", s.tracer.name,
			s.added(r.opens).text("%.0f"), s.addedCPU(r.opens).text("%.0f"), s.addedOther(r.opens).text("%.0f"), s.shown(r.opens).text("%.3f"), s.saidText(r.opens),
			s.cpu().text("%.0f"), s.peak().text("%.1f"), s.besideRing().text("%.1f"), s.ready().text("%.0f"), s.first().text("%.0f"))
	}
}

func (r report) writeBusy(w io.Writer) {
	fmt.Fprintf(w, "\n### Every CPU kept busy by a spinning thread (rounds: %d)\n\n", len(r.busy[0].runs))
	fmt.Fprint(w, "| tracer | added CPU ns an open | opens shown, % | said that it lost | tracer's CPU, ns a row | start to first row, ms |\n"+
		"|---|---|---|---|---|---|\n")
	for _, s := range r.busy {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", s.tracer.name,
			s.addedCPU(r.opens).text("%.0f"), s.shown(r.opens).text("%.3f"), s.saidText(r.opens),
			s.cpu().text("%.0f"), s.first().text("%.0f"))
	}
}

// saidText tells in how many of the runs with losses the tracer reported them.
func (s series) saidText(opens int) string {
	_, runs, said := s.lost(opens)
	if runs == 0 {
		return "nothing to say"
	}
	return fmt.Sprintf("in %d of %d runs", said, runs)
}

func (r report) writePrograms(w io.Writer) {
	fmt.Fprint(w, "\n### BPF programs, by the kernel's own statistics (a pass of its own)\n\n"+
		"| tracer | program | runs | ns a run | in all, ms |\n|---|---|---|---|---|\n")
	for _, t := range r.programs {
		for _, p := range t.programs {
			fmt.Fprintf(w, "| %s | %s | %d | %.0f | %.0f |\n", t.tracer.name, p.name, p.count,
				float64(p.runtime)/float64(p.count), float64(p.runtime)/millisecond)
		}
	}
}

// target is one thing that gobcc's opensnoop is to reach.
type target struct {
	what, want, got string
	met             bool
}

func (r report) writeTargets(w io.Writer) {
	targets := r.targets()
	if len(targets) == 0 {
		return
	}
	fmt.Fprint(w, "\n### Targets, unfiltered and in tracepoint mode on both sides\n\n"+
		"| what | target | measured | met |\n|---|---|---|---|\n")
	for _, t := range targets {
		met := "no"
		if t.met {
			met = "yes"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", t.what, t.want, t.got, met)
	}
}

func (r report) targets() []target {
	own := find(r.quiet, ownName)
	if own == nil {
		return nil
	}
	var targets []target
	atMost := func(what string, limit, got float64, format string) {
		targets = append(targets, target{what, fmt.Sprintf("at most "+format, limit), fmt.Sprintf(format, got), got <= limit})
	}
	if peer := find(r.quiet, "libbpf-tools"); peer != nil {
		atMost("added time an open, of libbpf-tools'", 0.6, own.added(r.opens).median()/peer.added(r.opens).median(), "%.2f")
		if cost := peer.cpu(); len(cost) > 0 && len(own.cpu()) > 0 {
			atMost("tracer's CPU a row, of libbpf-tools'", 0.5, own.cpu().median()/cost.median(), "%.2f")
		}
	}
	lost, _, _ := own.lost(r.opens)
	targets = append(targets, target{"opens without a row, all rounds", "0", fmt.Sprint(lost), lost == 0})
	atMost("start to ready, ms", 150, own.ready().median(), "%.0f")
	atMost("peak memory beside the ring, MB", 25, slices.Max(own.besideRing()), "%.1f")
	return targets
}

func find(all []series, name string) *series {
	if i := slices.IndexFunc(all, func(s series) bool { return s.tracer.name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

// The comments between which a recorded report stands.
const (
	recordBegin = "<!-- bench: begin -->\n"
	recordEnd   = "<!-- bench: end -->\n"
)

func checkRecord(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, err = replaceRecord(text, nil)
	return err
}

// record puts what write writes into a file, between the two comments.
func record(file string, write func(io.Writer) error) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var tables bytes.Buffer
	if err := write(&tables); err != nil {
		return err
	}
	if text, err = replaceRecord(text, tables.Bytes()); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// replaceRecord puts tables between the two comments in text.
func replaceRecord(text, tables []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(recordBegin))
	if !ok {
		return nil, fmt.Errorf("nowhere to record: no line %q", strings.TrimSpace(recordBegin))
	}
	_, after, ok := bytes.Cut(rest, []byte(recordEnd))
	if !ok {
		return nil, fmt.Errorf("nowhere to record: no line %q after %q", strings.TrimSpace(recordEnd), strings.TrimSpace(recordBegin))
	}
	return slices.Concat(before, []byte(recordBegin), []byte("\n"), tables, []byte("\n"), []byte(recordEnd), after), nil
}
