package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/constants"
	"github.com/gobcc/gobcc/internal/common/diagnose"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/trace"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// hooks are the same in all modes.
func hooks() []attach.Hook {
	programs := []string{"sample"}
	return []attach.Hook{{
		Name: "samples", Sees: "samples",
		Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: programs}},
	}}
}

// repeatsFrom is the rate, in samples a second of all CPUs, from which on the kernel
// looks for repeats: below, a sample is read sooner than compared.
const repeatsFrom = 20000

// repeatSlots is how many samples of a CPU are remembered to find repeats: SLOTS.
const repeatSlots = 1024

// prepare sets the constants and maps of spec that the options ask for.
func (o *options) prepare(spec *ebpf.CollectionSpec) error {
	depth := uint64(o.userDepth)
	most, err := perfevent.MaxStack()
	if err != nil {
		return err
	}
	if o.byTables() {
		if err := unwind.Configure(spec, uint64(o.unwindMiB)<<20); err != nil {
			return err
		}
	}
	values := map[string]any{
		bpfVarByTables:       o.byTables(),
		bpfVarMaxTableFrames: uint32(depth),
		bpfVarMaxUserFrames:  uint32(min(depth, most)),
		bpfVarWantKernel:     !o.userOnly,
		bpfVarWantUser:       !o.kernelOnly,
		bpfVarWantIdle:       o.idle,
		bpfVarFilterTids:     len(o.tids) > 0,
		bpfVarLeafOnly:       o.unwind == unwindOff,
		bpfVarCopyStacks:     o.copies(),
		bpfVarCopySize:       uint32(o.copyKiB << 10),
		bpfVarCopyBudget:     uint64(copyBudget),
	}
	if o.unwind == unwindCopy {
		values[bpfVarCopyBudget] = uint64(copyBudgetAsked)
	}
	if o.copies() {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return fmt.Errorf("count the CPUs: %w", err)
		}
		spec.Maps[bpfMapCopyRecords].MaxEntries = uint32(cpus)
	}
	if o.manySamples() {
		values[bpfVarFindRepeats] = true
		values[bpfVarSeedA], values[bpfVarSeedB] = rand.Uint64(), rand.Uint64()
		spec.Maps[bpfMapSeen].MaxEntries = repeatSlots
	}
	tids := spec.Maps[bpfMapTids]
	tids.MaxEntries = uint32(max(len(o.tids), 1))
	for _, tid := range o.tids {
		tids.Contents = append(tids.Contents, ebpf.MapKV{Key: tid, Value: uint8(1)})
	}
	return constants.Set(spec, values)
}

// copies reports whether user stacks are copied.
func (o *options) copies() bool {
	return !o.kernelOnly && (o.unwind == unwindAuto || o.unwind == unwindCopy)
}

// manySamples reports whether there may be so many samples that it pays to look for
// repeats in the kernel.
func (o *options) manySamples() bool {
	online, err := perfevent.Online()
	if err != nil {
		return true
	}
	cpus := uint64(len(online))
	if o.cpu >= 0 {
		cpus = 1
	}
	if o.rate.Period == 0 {
		return o.rate.Hertz*cpus >= repeatsFrom
	}
	return !o.event.Clock() || uint64(time.Second)/o.rate.Period*cpus >= repeatsFrom
}

// garbage is how much memory may be taken by what is of no use any more, in percent of what
// is. Go's 100 would double what a long run takes, where little is left behind each second.
const garbage = 40

// session is a run of the tool.
type session struct {
	opts    *options
	env     *cli.Env
	command []string

	engine   *engine
	head     *report // what is known of the run when it begins
	recorder *recorder
	namer    *namer
	sampler  *perfevent.Sampler
	fates    *ebpf.Map
	progress *progress
	began    time.Time
	ended    time.Time
	cpus     int           // that were sampled, at most at a time
	sampled  time.Duration // on all CPUs, when the sampling was over
	checked  time.Time     // when the threads asked for were looked for
}

func newSession(o *options, env *cli.Env, command []string) *session {
	p := &session{opts: o, env: env, command: command}
	p.namer = &namer{demangle: !o.noDemangle, lines: o.lines, debuginfod: o.debuginfodClient, javaMaps: o.javaMaps, say: p.say}
	p.engine = newEngine(newCounter(o.outputs.wantMoments()))
	p.engine.generated = p.namer.generated
	p.engine.unwinder.most, p.engine.copySize = int(o.userDepth), uint32(o.copyKiB)<<10
	p.progress = newProgress(env, o)
	return p
}

// say prints a remark. Paths in it are the choice of who is sampled.
func (p *session) say(text string) {
	fmt.Fprintf(p.env.Stderr, "%s: %s\n", p.env.Name, output.AppendEscaped(nil, []byte(text)))
}

// writesText reports whether standard output gets the stacks as BCC writes them.
func (p *session) writesText() bool {
	return !p.opts.folded && !p.opts.JSON && p.opts.outputs.none()
}

// attached opens all that is there beside the program, and begins to sample.
func (p *session) attached(r *trace.Run) error {
	if p.opts.fs.Changed("max-user-depth") && p.opts.unwind == unwindFP {
		if most, err := perfevent.MaxStack(); err == nil && uint64(p.opts.userDepth) > most {
			r.Say(fmt.Sprintf("user stacks are cut at %d frames: the sysctl kernel.perf_event_max_stack allows no more", most))
		}
	}
	if p.opts.fs.Changed("stack-storage-size") || p.opts.fs.Changed("hash-storage-size") {
		r.Say("--stack-storage-size and --hash-storage-size change nothing: no table of stacks can be full here")
	}
	debug.SetGCPercent(garbage)
	p.namer.start(!p.opts.userOnly)
	p.began = time.Now()
	var err error
	if p.engine.sideband, err = perfevent.OpenSideband(); err != nil {
		return err
	}
	pids := p.opts.Filter.PIDs
	if len(p.command) > 0 {
		p.engine.command = pids[0]
	}
	p.head = p.report()
	if err := p.beginRecording(); err != nil {
		return err
	}
	p.engine.timeline = mappings.New(mappings.Options{})
	// Where a few may not be read of all that there are, such as a confined init, it matters
	// only if samples turn out to be of them.
	if err := p.engine.timeline.Snapshot(pids); err != nil && (pids != nil || !errors.Is(err, fs.ErrPermission) || !mayReadOthers()) {
		r.Say(err.Error())
	}
	if p.opts.byTables() {
		if err := p.startTables(r); err != nil {
			return err
		}
	}
	p.fates = r.Map(bpfMapFates)
	if p.sampler, err = perfevent.NewSampler(r.Program("sample"), p.opts.event, p.opts.rate, p.opts.cpus()); err != nil {
		return diagnose.Explain("sample by "+p.opts.event.Name, diagnose.PerfEvent, err)
	}
	p.began, p.cpus = time.Now(), p.sampler.CPUs() // what comes before takes time, too
	return nil
}

// mayReadOthers reports whether the tool has the capability for what processes of others
// have mapped.
func mayReadOthers() bool {
	s := diagnose.ReadSystem("/")
	return !s.CapsKnown || s.Caps.Has(diagnose.SysPtrace)
}

func (p *session) detach() {
	if p.sampler == nil || !p.ended.IsZero() {
		return
	}
	p.ended = time.Now()
	_ = p.sampler.Close()
	p.sampled = p.sampler.Sampled()
}

func (p *session) close() {
	if p.engine.tables != nil {
		p.engine.tables.close()
	}
	p.engine.close()
	p.namer.close()
	p.opts.outputs.close()
}

// drained is called each time the ring buffer is empty.
func (p *session) drained(r *trace.Run) error {
	if err := p.engine.drained(); err != nil {
		return err
	}
	if err := p.sampler.Refresh(); err != nil {
		r.Say(err.Error())
	}
	p.cpus = max(p.cpus, p.sampler.CPUs())
	p.namer.sayKernel()
	p.progress.show(p.engine.counter.shown, p.began, r)
	if len(p.opts.tids) == 0 || time.Since(p.checked) < time.Second {
		return nil
	}
	p.checked = time.Now()
	if !slices.ContainsFunc(p.opts.tids, threadExists) {
		r.Say("the threads that were to be sampled have ended")
		r.Stop()
	}
	return nil
}

// finish writes what came of it.
func (p *session) finish(r *trace.Run) error {
	p.progress.clear()
	if err := p.engine.finish(); err != nil {
		return err
	}
	rep := p.head
	rep.CPUs, rep.Duration = p.cpus, p.ended.Sub(p.began)
	if p.opts.javaMaps {
		p.namer.askJVMs()
	}
	rep.Files = p.namer.name(p.engine)
	p.sayUnread()
	p.sayUntabled()
	p.engine.describe()
	p.engine.counter.fill(rep)
	if err := p.account(r, &rep.Totals); err != nil {
		return err
	}
	r.Shown = rep.Totals.Shown
	if err := errors.Join(p.endRecording(rep), p.write(r.Out, rep), r.Out.Flush()); err != nil {
		return err
	}
	if !p.opts.quiet {
		r.Say(p.summary(rep))
	}
	return nil
}

// sayUnread says which samples have no names since it may not be read what their processes
// have mapped.
func (p *session) sayUnread() {
	var processes []*mappings.Process
	samples := uint64(0)
	for one, n := range p.engine.unread {
		if one == nil {
			p.say(fmt.Sprintf("no names of user functions in %d samples: their processes are outside of this pid namespace", n))
			continue
		}
		processes = append(processes, one)
		samples += n
	}
	if len(processes) == 0 {
		return
	}
	first := slices.MinFunc(processes, func(a, b *mappings.Process) int {
		return cmp.Or(cmp.Compare(p.engine.unread[b], p.engine.unread[a]), cmp.Compare(a.PID, b.PID))
	})
	which := fmt.Sprintf("process %d (%s)", first.PID, first.Comm)
	if more := len(processes) - 1; more > 0 {
		which += fmt.Sprintf(" and %d more", more)
	}
	p.say(fmt.Sprintf("no names of user functions in %d samples: what %s mapped may not be read (it takes CAP_SYS_PTRACE, and no fewer capabilities than the process has)",
		samples, which))
}

// sayUntabled says of which files there is no table.
func (p *session) sayUntabled() {
	var texts []string
	for _, err := range p.engine.reader.problems {
		if text := err.Error(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	p.namer.sayList(texts, "likewise in %d more files")
}

// report gives the head of a report.
func (p *session) report() *report {
	rep := &report{
		Command: append([]string{p.env.Name}, p.env.Args...), Version: cli.Version(),
		Event: p.opts.event.Name, Unit: p.opts.event.Unit(), Period: p.opts.period(),
		Hertz: p.opts.rate.Hertz, Start: p.began, Header: p.opts.header(len(p.command) > 0),
	}
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		rep.Kernel = strings.TrimSpace(string(v))
	}
	return rep
}

// account fills in what became of all samples.
func (p *session) account(r *trace.Run, t *totals) error {
	var perCPU []uint64
	fate := func(f bpfFate) (n uint64) {
		if err := p.fates.Lookup(uint32(f), &perCPU); err != nil {
			p.say(fmt.Sprintf("read the counts of samples: %v", err))
		}
		for _, c := range perCPU {
			n += c
		}
		return n
	}
	t.Taken, t.Idle = fate(bpfFateFATE_TAKEN), fate(bpfFateFATE_IDLE)
	t.Filtered = fate(bpfFateFATE_FILTERED) + p.engine.early
	if n := p.engine.crowded; n > 0 {
		r.Lose("stacks_full", n)
	}
	lost, err := r.Lost()
	if err != nil {
		return err
	}
	t.Lost = map[string]uint64{}
	for _, l := range lost.Causes {
		if l.Cause != "follow_full" { // that is of processes
			t.Lost[l.Cause] = l.Count
		}
	}
	t.Possibly = lost.Possible
	if due := p.sampler.Due(); due > t.Taken+t.Possibly {
		t.Possibly = due - t.Taken
	}
	t.Throttled = p.sampler.Throttled()
	if have := t.Shown + t.Idle + t.Filtered + t.lost(); have != t.Taken {
		return fmt.Errorf("of %d samples %d are accounted for, which is a bug: please report it", t.Taken, have)
	}
	return nil
}

// lost is the sum of all that is lost.
func (t *totals) lost() (n uint64) {
	for _, count := range t.Lost {
		n += count
	}
	return n
}

func (p *session) beginRecording() error {
	raw := p.opts.outputs.raw
	if raw == nil {
		return nil
	}
	err := raw.clear()
	if err == nil {
		p.recorder, err = newRecorder(raw.file, p.head)
	}
	if err != nil {
		return fmt.Errorf("--save-raw: %w", err)
	}
	p.engine.recorder = p.recorder
	return nil
}

func (p *session) endRecording(rep *report) error {
	if p.recorder == nil {
		return nil
	}
	raw := p.opts.outputs.raw
	raw.done = true
	if err := errors.Join(p.recorder.end(rep), raw.file.Close()); err != nil {
		return fmt.Errorf("--save-raw: %w", err)
	}
	return nil
}

// write writes the report to wherever it is to go. What goes to standard output and holds
// no lines of text passes out by.
func (p *session) write(out io.Writer, rep *report) error {
	var err error
	switch {
	case p.opts.JSON:
		err = writeJSON(out, rep)
	case p.opts.folded:
		err = writeFolded(out, rep, p.opts.style)
	case p.writesText():
		if _, err = io.WriteString(out, "\n"); err == nil {
			err = writeText(out, rep, p.opts.style)
		}
	}
	return errors.Join(err, p.opts.outputs.write(p.env.Stdout, rep))
}

// replay writes the outputs of a recorded run.
func (p *session) replay(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return cli.BadUse("--replay: %w", err)
	}
	defer f.Close()
	rep, err := readRecording(f, p.opts.outputs.wantMoments())
	if err != nil {
		return fmt.Errorf("--replay %s: %w", path, err)
	}
	if p.writesText() {
		if _, err := io.WriteString(p.env.Stdout, rep.Header+"\n"); err != nil {
			return err
		}
	}
	return p.write(p.env.Stdout, rep)
}

// summary says in one line what was sampled, and what became of it.
func (p *session) summary(rep *report) string {
	var b strings.Builder
	t := &rep.Totals
	fmt.Fprintf(&b, "%d samples by %s", t.Taken, rep.Event)
	switch {
	case rep.Hertz > 0:
		fmt.Fprintf(&b, " at %d Hertz", rep.Hertz)
	case rep.Unit == "nanoseconds":
		fmt.Fprintf(&b, " every %d nanoseconds", rep.Period)
	case rep.Period == 1:
		b.WriteString(", at each of them")
	default:
		fmt.Fprintf(&b, ", one in %d of them", rep.Period)
	}
	fmt.Fprintf(&b, ", of %d CPUs in %v", rep.CPUs, rep.Duration.Round(time.Millisecond))
	if p.sampled > 0 {
		fmt.Fprintf(&b, " (%s a second and CPU)", strconv.FormatFloat(float64(t.Taken)/p.sampled.Seconds(), 'f', 1, 64))
	}
	fmt.Fprintf(&b, ": %d shown, %d idle, %d filtered, %d lost", t.Shown, t.Idle, t.Filtered, t.lost())
	if t.Possibly > 0 {
		fmt.Fprintf(&b, ", and perhaps %d more", t.Possibly)
	}
	// Some virtual machines wake no CPU that is idle for its timer: that is what is missing
	// then, and not what ran.
	if rep.Unit == "nanoseconds" && rep.Period > 0 {
		if due := uint64(p.sampled) / rep.Period; t.Taken < due-due/10 {
			fmt.Fprintf(&b, "; of a clock %d were due: CPUs that are idle, or have interrupts off, took none", due)
		}
	}
	if t.Throttled > 0 {
		fmt.Fprintf(&b, "; the kernel held back the sampling %d times", t.Throttled)
	}
	b.WriteString(t.unwound())
	if p.engine.tables != nil {
		b.WriteString(p.engine.tables.summary())
	}
	if n := p.engine.timeline.Gaps; n > 0 {
		fmt.Fprintf(&b, "; %d gaps in what the kernel told of processes, so that names may be missing", n)
	}
	return b.String()
}

// unwound says how user stacks came out. What frame pointers alone gave may be whole or not.
func (t *totals) unwound() string {
	var b strings.Builder
	all := uint64(0)
	for s := range statuses {
		if s != statusNone && s != statusLeaf {
			all += t.Unwinds[s]
		}
	}
	if n := t.Unwinds[statusComplete] + t.Unwinds[statusGuessed]; n > 0 || all > t.Unwinds[statusFramePointers]+t.Unwinds[statusDepth]+t.Unwinds[statusFault] {
		fmt.Fprintf(&b, "; %d of %d user stacks complete", n, all)
	}
	for s, text := range [statuses]string{
		statusGuessed:   "%d of them in part by frame pointers",
		statusDepth:     "%d user stacks were cut at the greatest depth",
		statusFault:     "%d user stacks could not be read",
		statusNoMapping: "%d were cut where nothing is known to be mapped",
		statusNoTable:   "%d were cut in code that has no table of its frames",
		statusNoRule:    "%d were cut where the table of frames has none",
		statusBroken:    "%d were cut where they went astray",
		status32Bit:     "%d of 32-bit programs are by frame pointers",
		statusBudget:    "%d are by frame pointers, as no more could be copied",
		statusCopyEnd:   "%d were cut at the end of what was copied",
	} {
		if n := t.Unwinds[status(s)]; n > 0 && text != "" {
			fmt.Fprintf(&b, "; "+text, n)
		}
	}
	return b.String()
}

// progress is a line on the terminal that tells how far a run is.
type progress struct {
	env   *cli.Env
	end   time.Duration // 0 if it has none
	on    bool
	said  time.Time
	shown bool
}

func newProgress(env *cli.Env, o *options) *progress {
	f, ok := env.Stderr.(*os.File)
	return &progress{env: env, end: o.duration, on: ok && !o.quiet && output.IsTerminal(f.Fd())}
}

func (g *progress) show(samples uint64, began time.Time, r *trace.Run) {
	if !g.on || time.Since(began) < 2*time.Second || time.Since(g.said) < time.Second {
		return
	}
	g.said, g.shown = time.Now(), true
	text := fmt.Sprintf("%d samples", samples)
	if lost, err := r.Lost(); err == nil && lost.Total() > 0 {
		text += fmt.Sprintf(", %d lost", lost.Total())
	}
	if g.end > 0 {
		text += fmt.Sprintf(", %v left", max(g.end-time.Since(began), 0).Round(time.Second))
	}
	fmt.Fprintf(g.env.Stderr, "\r\x1b[K%s: %s", g.env.Name, text)
}

// clear removes the line.
func (g *progress) clear() {
	if g.shown {
		fmt.Fprint(g.env.Stderr, "\r\x1b[K")
	}
}
