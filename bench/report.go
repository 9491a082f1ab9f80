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

// ownName is what the tables call gobcc's tool, without options.
const ownName = "gobcc"

// report is all that one run of the bench found about one tool.
type report struct {
	scenario    *scenario
	machine     machine
	missing     []string // what could not be measured
	quiet, busy []series
	packets     []packetCost
	programs    []tracerPrograms
	depths      []depthCost
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

// in gives the values in another unit.
func (f figures) in(unit float64) figures {
	var g figures
	for _, v := range f {
		g = append(g, v/unit)
	}
	return g
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

// added is by how many nanoseconds each of n events took longer than without a
// tracer, in elapsed time.
func (s series) added(n int) figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, float64(r.load.elapsed-s.bare[i].elapsed)/float64(n))
	}
	return f
}

// addedCPU is the same in CPU time of the load.
func (s series) addedCPU(n int) figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, float64(r.load.busy-s.bare[i].busy)/float64(n))
	}
	return f
}

// addedOther is by how many nanoseconds of CPU time a system call took longer that
// is no event.
func (s series) addedOther(n int) figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, float64(r.load.others-s.bare[i].others)/float64(n))
	}
	return f
}

// shown is the percentage of the load's n events for which there was a row.
func (s series) shown(n int) figures {
	var f figures
	for _, r := range s.runs {
		f = append(f, 100*float64(r.shown)/float64(n))
	}
	return f
}

// wanted is for how many of the load's n events there should be a row.
func (s series) wanted(n int) int64 {
	if s.tracer.none {
		return 0
	}
	return int64(n)
}

// ofBare is by how much longer an event took than without a tracer, as a percentage.
func (s series) ofBare() figures {
	var f figures
	for i, r := range s.runs {
		f = append(f, 100*float64(r.load.elapsed-s.bare[i].elapsed)/float64(s.bare[i].elapsed))
	}
	return f
}

// lost is how many events of all loads had no row, and in how many of the runs
// that lost any the tracer said so.
func (s series) lost(n int) (events int64, runs, said int) {
	for _, r := range s.runs {
		if missed := s.wanted(n) - r.shown; missed != 0 {
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
	kilobyte    = 1e3
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

func (s series) mapMemory() figures {
	var f figures
	for _, r := range s.runs {
		f = append(f, float64(r.maps)/kilobyte)
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

// programs is the run time of the tracer's programs for each of n events, in nanoseconds,
// by the kernel's statistics.
func (s series) programs(n int) figures {
	var f figures
	for _, r := range s.stats {
		var sum time.Duration
		for _, p := range r.programs {
			sum += p.runtime
		}
		f = append(f, float64(sum)/float64(n))
	}
	return f
}

// write prints the report as Markdown.
func (r report) write(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "Kernel %s, %s, %d CPUs. "+r.scenario.about+"\n", r.machine.kernel, r.machine.cpu, r.machine.cpus, r.scenario.count)
	fmt.Fprintf(w, "Each figure is the median of the rounds, with the smallest and the largest.\n")
	for _, line := range r.missing {
		// An error's own line breaks would break the list.
		fmt.Fprintf(w, "\n**Not measured**: %s\n", strings.Join(strings.Fields(line), " "))
	}
	r.writeVersions(w)
	if len(r.depths) > 0 {
		r.writeDepths(w)
	}
	switch {
	case len(r.quiet) == 0:
	case r.scenario.samples():
		r.writeSampled(w)
	default:
		r.writeQuiet(w)
	}
	if len(r.busy) > 0 {
		r.writeBusy(w)
	}
	if len(r.packets) > 0 {
		r.writePackets(w)
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

// time gives nanoseconds for an event in the scenario's unit.
func (r report) time(f figures) string { return f.in(r.scenario.unitNS).text(r.scenario.decimal) }

// cpuHead and cpuText are the column of the tracer's CPU time: a row, or in all for one
// that writes tables.
func (r report) cpuHead() string {
	if r.scenario.counted != nil {
		return "tracer's CPU, ms in all"
	}
	return "tracer's CPU, " + r.scenario.unit + " a row"
}

func (r report) cpuText(s series) string {
	if r.scenario.counted == nil {
		return r.time(s.cpu())
	}
	var f figures
	for _, run := range s.runs {
		f = append(f, float64(run.cpu)/millisecond)
	}
	return f.text("%.0f")
}

func (r report) writeQuiet(w io.Writer) {
	n, unit, event := r.scenario.count, r.scenario.unit, r.scenario.event
	fmt.Fprintf(w, "\n### %s: the machine as it is (rounds: %d)\n\n", r.scenario.tool, len(r.quiet[0].runs))
	var bare figures
	for _, s := range r.quiet {
		for _, b := range s.bare {
			bare = append(bare, float64(b.elapsed)/float64(n))
		}
	}
	fmt.Fprintf(w, "Without a tracer %s took %s %s.\n\n", r.scenario.one(), r.time(bare), unit)
	var share, rule string
	if r.scenario.addedOfBare > 0 {
		share, rule = " of the bare one, % |", "---|"
	}
	if r.scenario.programsOfLibbpf > 0 {
		share, rule = fmt.Sprintf(" its BPF programs, ns %s |", r.scenario.one()), "---|"
	}
	fmt.Fprintf(w, "| tracer | added %s %s |%s of it CPU time | added ns another call | %ss shown, %% | said that it lost |"+
		" %s | peak memory, MB | beside the ring, MB | BPF maps beside buffers, KB | start to ready, ms | start to %s, ms |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|---|"+rule+"\n", unit, r.scenario.one(), share, event, r.cpuHead(), r.scenario.first())
	for _, s := range r.quiet {
		if rule != "" {
			share = s.ofBare().text("%.1f") + " | "
		}
		if r.scenario.programsOfLibbpf > 0 {
			share = s.programs(n).text("%.0f") + " | "
		}
		fmt.Fprintf(w, "| %s | %s | %s%s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", s.tracer.name,
			r.time(s.added(n)), share, r.time(s.addedCPU(n)), s.addedOther(n).text("%.0f"), s.shown(n).text("%.3f"), s.saidText(n),
			r.cpuText(s), s.peak().text("%.1f"), s.besideRing().text("%.1f"), s.mapMemory().text("%.0f"),
			s.ready().text("%.0f"), s.first().text("%.0f"))
	}
}

func (r report) writeBusy(w io.Writer) {
	n, unit, event := r.scenario.count, r.scenario.unit, r.scenario.event
	fmt.Fprintf(w, "\n### %s: %s (rounds: %d)\n\n", r.scenario.tool, r.scenario.hard.title, len(r.busy[0].runs))
	fmt.Fprintf(w, "| tracer | added CPU %s %s | %ss shown, %% | said that it lost | %s | start to %s, ms |\n"+
		"|---|---|---|---|---|---|\n", unit, r.scenario.one(), event, r.cpuHead(), r.scenario.first())
	for _, s := range r.busy {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", s.tracer.name,
			r.time(s.addedCPU(n)), s.shown(n).text("%.3f"), s.saidText(n), r.cpuText(s), s.first().text("%.0f"))
	}
}

// saidText tells in how many of the runs with losses the tracer reported them.
func (s series) saidText(n int) string {
	_, runs, said := s.lost(n)
	if s.tracer.none && runs == 0 {
		return "filtered out"
	}
	if runs == 0 {
		return "nothing to say"
	}
	return fmt.Sprintf("in %d of %d runs", said, runs)
}

// writePackets tells what packets cost that are of no interest to the tool.
func (r report) writePackets(w io.Writer) {
	fmt.Fprintf(w, "\n### %s: a byte to and fro on the loopback interface, not on port 53 (rounds: %d)\n\n", r.scenario.tool, len(r.packets[0].bare))
	fmt.Fprint(w, "| tracer | protocol | without a tracer, ns | added ns |\n|---|---|---|---|\n")
	for _, c := range r.packets {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", c.tracer.name, strings.ToUpper(c.protocol), c.bare.text("%.0f"), c.added.text("%.0f"))
	}
}

func (r report) writePrograms(w io.Writer) {
	fmt.Fprint(w, "\n### "+r.scenario.tool+": BPF programs, by the kernel's own statistics (a pass of its own)\n\n"+
		"| tracer | program | runs | ns a run | in all, ms |\n|---|---|---|---|---|\n")
	for _, t := range r.programs {
		for _, p := range t.programs {
			fmt.Fprintf(w, "| %s | %s | %d | %.0f | %.0f |\n", t.tracer.name, p.name, p.count,
				float64(p.runtime)/float64(p.count), float64(p.runtime)/millisecond)
		}
	}
}

// target is one thing that gobcc's tool is to reach.
type target struct {
	what, want, got string
	met             bool
}

func (r report) writeTargets(w io.Writer) {
	targets := r.targets()
	if len(targets) == 0 {
		return
	}
	fmt.Fprint(w, "\n### "+r.scenario.tool+": targets, without options on both sides\n\n"+
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
	if r.scenario.samples() {
		return r.sampledTargets()
	}
	own := find(r.quiet, ownName)
	if own == nil {
		return nil
	}
	s := r.scenario
	var targets []target
	atMost := func(what string, limit, got float64, format string) {
		targets = append(targets, target{what, fmt.Sprintf("at most "+format, limit), fmt.Sprintf(format, got), got <= limit})
	}
	if peer := find(r.quiet, "libbpf-tools"); peer != nil {
		atMost("added time "+s.one()+", of libbpf-tools'", s.addedOfLibbpf, own.added(s.count).median()/peer.added(s.count).median(), "%.2f")
		if cost := peer.cpu(); s.cpuOfLibbpf > 0 && len(cost) > 0 && len(own.cpu()) > 0 {
			atMost("tracer's CPU a row, of libbpf-tools'", s.cpuOfLibbpf, own.cpu().median()/cost.median(), "%.2f")
		}
	}
	if peer := find(r.quiet, "libbpf-tools"); peer != nil && s.programsOfLibbpf > 0 {
		atMost("its BPF programs "+s.one()+", of libbpf-tools'", s.programsOfLibbpf, own.programs(s.count).median()/peer.programs(s.count).median(), "%.2f")
	}
	if s.addedOfBare > 0 && find(r.quiet, "libbpf-tools") == nil {
		atMost("added time "+s.one()+", of the bare one", s.addedOfBare, own.ofBare().median()/100, "%.3f")
	}
	lost, _, _ := own.lost(s.count)
	if hard := find(r.busy, ownName); hard != nil && s.hard.parents > 0 {
		more, _, _ := hard.lost(s.count)
		lost += more
	}
	missed := "s without a row, all rounds"
	if s.counted != nil {
		missed = "s not counted, all rounds"
	}
	targets = append(targets, target{s.event + missed, "0", fmt.Sprint(lost), lost == 0})
	if s.mapMemory > 0 {
		atMost("BPF maps beside buffers, KB", s.mapMemory, slices.Max(own.mapMemory()), "%.0f")
	}
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

// recordMarks are the comments between which the report on a tool stands; without
// a tool, the only one in a file.
func recordMarks(tool string) (begin, end string) {
	name := strings.TrimSpace("bench " + tool)
	return "<!-- " + name + ": begin -->\n", "<!-- " + name + ": end -->\n"
}

func checkRecord(file, tool string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, err = replaceRecord(text, tool, nil)
	return err
}

// record puts what write writes into a file, between the two comments.
func record(file, tool string, write func(io.Writer) error) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var tables bytes.Buffer
	if err := write(&tables); err != nil {
		return err
	}
	if text, err = replaceRecord(text, tool, tables.Bytes()); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// replaceRecord puts tables between the two comments in text.
func replaceRecord(text []byte, tool string, tables []byte) ([]byte, error) {
	begin, end := recordMarks(tool)
	before, rest, ok := bytes.Cut(text, []byte(begin))
	if !ok {
		return nil, fmt.Errorf("nowhere to record: no line %q", strings.TrimSpace(begin))
	}
	_, after, ok := bytes.Cut(rest, []byte(end))
	if !ok {
		return nil, fmt.Errorf("nowhere to record: no line %q after %q", strings.TrimSpace(end), strings.TrimSpace(begin))
	}
	return slices.Concat(before, []byte(begin), []byte("\n"), tables, []byte("\n"), []byte(end), after), nil
}
