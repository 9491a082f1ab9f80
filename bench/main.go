// Bench measures what the tools cost the traced task and the machine, and how
// much they show, beside the same tools of libbpf-tools, of bpftrace and of BCC in
// the same run, and prints the figures as Markdown tables.
//
// Usage:
//
//	go run ./bench [-rounds N] [-busy-rounds N] [-n PAIRS] [-execs N] [-connects N]
//	               [-reads N] [-disk DISK] [-burns N] [-cpu N] [-only NAMES]
//	               [-peers WHICH] [-tool FILE] [-stats] [-limit TIME] [-record FILE]
//	               [TOOL...]
//	go run ./bench -compare FILE
//
// Without a TOOL, opensnoop, execsnoop, tcpconnect, biolatency or profile, it measures all
// of them.
//
// It needs root. Nothing that it mounts or starts outlives it. docs/speed.md
// says how each figure is come by; -record puts the tables there, between the
// two comments that mark the place of each tool.
//
// The exit status is 0 when all was measured that was asked for, 1 when
// something failed or was interrupted, 2 for a wrong command line and 3 without
// the privileges. A target that was missed is a line in the table, not a
// failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Children are tied to the thread that starts them, see child.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case enterCommand:
			fmt.Fprintln(os.Stderr, "bench:", enterAndExec(os.Args[2:]))
			os.Exit(1)
		case spinCommand:
			spinForever()
		}
	}

	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: tracing and a mount namespace need root: go run -exec sudo ./bench")
		os.Exit(3)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measureAll(ctx, o); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted: nothing is reported")
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	tools              []string
	rounds, busyRounds int
	pairs, execs       int
	connects, reads    int
	burns              int
	cpu                int
	disk               string
	only               []string
	peers, tool        string
	stats              bool
	limit              time.Duration
	record, compare    string
}

// tracerKeys are the names that -only takes.
var tracerKeys = []string{"gobcc", "libbpf", "bpftrace", "perf", "bcc"}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 5, "measure everything this often on the machine as it is")
	flags.IntVar(&o.busyRounds, "busy-rounds", 3, "and this often where it is hard: with every CPU kept busy, or from several processes at once")
	flags.IntVar(&o.pairs, "n", 300000, "a load of opensnoop is this many `pairs` of opens, one that succeeds and one that fails")
	flags.IntVar(&o.execs, "execs", 20000, "a load of execsnoop is this many execs")
	flags.IntVar(&o.connects, "connects", 100000, "a load of tcpconnect is this many connects")
	flags.IntVar(&o.reads, "reads", 50000, "a load of biolatency is this many reads from a disk")
	flags.StringVar(&o.disk, "disk", "", "the load of biolatency reads from this `disk` (default: /dev/nullb0 if there is one, or else a file in /var/tmp)")
	flags.IntVar(&o.burns, "burns", 2000, "a load of profile is this many `stretches` of work, of about a millisecond")
	flags.IntVar(&o.cpu, "cpu", lastCPU(), "run the load on this CPU only; -1 leaves the choice to the kernel")
	only := flags.String("only", strings.Join(tracerKeys, ","), "measure these, by `names`")
	flags.StringVar(&o.peers, "peers", "auto", "take the peers as `installed`, as fetched from Debian (fetch), or fetch those that are not installed (auto)")
	flags.StringVar(&o.tool, "tool", "", "measure this `file` as gobcc's tool instead of building it; name one TOOL too")
	flags.BoolVar(&o.stats, "stats", false, "measure the run time of each BPF program too, in a pass of its own")
	flags.DurationVar(&o.limit, "limit", 6*time.Minute, "begin no round of a tool that would end later than this")
	flags.StringVar(&o.record, "record", "", "put the tables into this `file`, between the two marker comments of each tool")
	// One line for a mistake; the whole usage only for who asks for it.
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.compare, "compare", "", "instead of measuring, put what each tracer shows of a set of special opens into this `file`, in the same way")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Printf("usage: go run ./bench [options] [%s]...\n", strings.Join(toolNames(), "|"))
			flags.SetOutput(os.Stdout)
			flags.PrintDefaults()
		}
		return o, err
	}
	o.only = strings.Split(*only, ",")
	for _, key := range o.only {
		if !slices.Contains(tracerKeys, key) {
			return o, fmt.Errorf("-only: no %q among %s", key, strings.Join(tracerKeys, ", "))
		}
	}
	o.tools = flags.Args()
	for _, tool := range o.tools {
		if scenarioOf(tool) == nil {
			return o, fmt.Errorf("no tool %q among %s", tool, strings.Join(toolNames(), ", "))
		}
	}
	if len(o.tools) == 0 {
		o.tools = toolNames()
	}
	switch {
	case o.compare != "" && flags.NArg() > 0:
		return o, errors.New("-compare is about opensnoop, and wants no tool")
	case o.tool != "" && len(o.tools) != 1 && o.compare == "":
		return o, errors.New("-tool: name the tool that the file is, as in: go run ./bench -tool FILE opensnoop")
	case o.rounds < 1 || o.busyRounds < 0 || o.pairs < 1 || o.execs < 1 || o.connects < 1 || o.reads < 1 || o.burns < 1:
		return o, errors.New("-rounds, -n, -execs, -connects, -reads and -burns want 1 or more, -busy-rounds 0 or more")
	case !slices.Contains([]string{"auto", "installed", "fetch"}, o.peers):
		return o, fmt.Errorf("-peers: no %q among auto, installed, fetch", o.peers)
	}
	return o, nil
}

// allowedCPUs are those that this process may run on, or only -1 if that is not
// known.
func allowedCPUs() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return []int{-1}
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// lastCPU is the last CPU that this process may run on: the first ones tend to
// have the interrupts.
func lastCPU() int {
	cpus := allowedCPUs()
	return cpus[len(cpus)-1]
}

func measureAll(ctx context.Context, o options) error {
	// Better to know now than after minutes of measuring.
	if o.compare != "" {
		if err := checkRecord(o.compare, ""); err != nil {
			return err
		}
	}
	if o.record != "" {
		for _, tool := range o.tools {
			if err := checkRecord(o.record, tool); err != nil {
				return err
			}
		}
	}
	dir, err := os.MkdirTemp("", "gobcc-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	opensnoop.count, execsnoop.count, tcpconnect.count, biolatency.count = 2*o.pairs, o.execs, o.connects, o.reads
	profile.count, readFrom = o.burns, o.disk

	if o.compare != "" {
		return compareAll(ctx, o, dir)
	}
	var missing []string
	for _, tool := range o.tools {
		not, err := measureTool(ctx, o, scenarioOf(tool), dir)
		if err != nil {
			return fmt.Errorf("%s: %w", tool, err)
		}
		for _, line := range not {
			missing = append(missing, tool+": "+line)
		}
	}
	if len(missing) > 0 {
		return errors.New("not all was measured: " + strings.Join(missing, "; "))
	}
	return nil
}

// compareAll records what each tracer shows of special opens.
func compareAll(ctx context.Context, o options, dir string) error {
	b, err := newBench(ctx, o, &opensnoop, dir)
	if err != nil {
		return err
	}
	defer b.close()
	tracers, _, err := b.findTracers(ctx, o)
	if err != nil {
		return err
	}
	all, err := b.compare(ctx, tracers)
	if err != nil {
		return err
	}
	return record(o.compare, "", func(w io.Writer) error {
		writeComparisons(w, thisMachine(), tracers, all)
		return nil
	})
}

// measureTool measures one tool and its peers, and reports that. It returns a line
// for each that could not be measured.
func measureTool(ctx context.Context, o options, s *scenario, dir string) (missing []string, err error) {
	b, err := newBench(ctx, o, s, dir)
	if err != nil {
		return nil, err
	}
	defer b.close()
	tracers, missing, err := b.findTracers(ctx, o)
	if err != nil {
		return nil, err
	}
	r := report{scenario: s, machine: thisMachine(), missing: missing}
	if s.needKprobes && !hasKprobes() {
		r.missing = append(slices.Clone(missing), noKprobes)
	}
	// The time for fetching and building is not part of it.
	deadline := time.Now().Add(o.limit)
	if s.samples() {
		tracers = atRates(tracers, s.rates)
		if r.depths, err = b.depthCosts(ctx, tracers); err != nil {
			return nil, err
		}
	}
	if r.quiet, err = b.rounds(ctx, "as it is", tracers, o.rounds, deadline); err != nil {
		return nil, err
	}
	if o.busyRounds > 0 && !s.samples() {
		stop, err := b.makeHard(ctx)
		if err != nil {
			return nil, err
		}
		r.busy, err = b.rounds(ctx, "hard", tracers, o.busyRounds, deadline)
		stop()
		if err != nil {
			return nil, err
		}
	}
	if s.packets != "" {
		if r.packets, err = b.packets(ctx, tracers, o.rounds); err != nil {
			return nil, err
		}
	}
	if o.stats && !s.samples() {
		if r.programs, err = b.programs(ctx, tracers); err != nil {
			return nil, err
		}
	}
	if o.record != "" {
		if err := record(o.record, s.tool, r.write); err != nil {
			return nil, err
		}
	}
	return missing, r.write(os.Stdout)
}

// makeHard makes it hard for tracers until stop is called.
func (b *bench) makeHard(ctx context.Context) (stop func(), err error) {
	if b.scenario.hard.spin {
		return b.spin(ctx)
	}
	pinned := b.cpu
	b.parents, b.cpu = b.scenario.hard.parents, -1
	return func() { b.parents, b.cpu = 0, pinned }, nil
}

// findTracers returns what is to be measured, and a line for each that can't
// be. BCC's is measured where it is installed and runs, which on few machines it
// does: it compiles for the kernel's own headers.
func (b *bench) findTracers(ctx context.Context, o options) (tracers []tracer, missing []string, err error) {
	s := b.scenario
	if slices.Contains(o.only, "gobcc") {
		ours, err := s.ownTracers(ctx, o.tool, filepath.Join(b.dir, s.tool))
		if err != nil {
			missing = append(missing, fmt.Sprintf("gobcc: %v", err))
		}
		tracers = append(tracers, ours...)
	}
	var peers []tracer
	none := s.needKprobes && !hasKprobes()
	if none {
		fmt.Fprintf(os.Stderr, "bench: %s: NOT MEASURED: %s\n", s.tool, noKprobes)
	}
	wanted := func(key string) bool { return !none && slices.Contains(o.only, key) }
	if o.peers != "fetch" && !none {
		peers = installedPeers(ctx, s)
	}
	has := func(key string) bool {
		return slices.ContainsFunc(peers, func(t tracer) bool { return t.key == key })
	}
	lacks := func(key string) bool { return wanted(key) && !has(key) }
	if o.peers != "installed" && slices.ContainsFunc(s.peers(), lacks) {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, nil, err
		}
		fetched, err := fetchedPeers(ctx, s, filepath.Join(cache, "gobcc", "peers"))
		if err != nil {
			missing = append(missing, err.Error())
		}
		for _, t := range fetched {
			if !has(t.key) {
				peers = append(peers, t)
			}
		}
	}
	for _, key := range append(s.peers(), "bcc") {
		i := slices.IndexFunc(peers, func(t tracer) bool { return t.key == key })
		switch {
		case !wanted(key):
		case i >= 0:
			peer := peers[i]
			peer.argv = append(peer.argv, s.peerOptions[key]...)
			tracers = append(tracers, peer)
		case key != "bcc":
			missing = append(missing, key+": not on this machine")
		}
	}
	// One that can't run here is known before the first round.
	runs := tracers[:0]
	for _, t := range tracers {
		fmt.Fprintf(os.Stderr, "bench: %s: trying %s\n", s.tool, t.name)
		if s.samples() {
			t = atRates([]tracer{t}, s.rates)[0]
		}
		// One that samples has nothing to write without a load.
		if _, err := b.measure(ctx, t, s.samples()); err != nil {
			if ctx.Err() != nil {
				return nil, nil, err
			}
			missing = append(missing, err.Error())
			continue
		}
		runs = append(runs, t)
	}
	tracers = runs
	for _, line := range missing {
		fmt.Fprintln(os.Stderr, "bench: NOT MEASURED:", line)
	}
	if len(tracers) == 0 {
		return nil, nil, errors.New("there is nothing to measure")
	}
	return tracers, missing, nil
}

// noKprobes is why no peer of a tool is measured.
const noKprobes = "the peers, which take kprobes: this kernel has none"

// hasKprobes reports whether programs can be attached to kprobes: perf_event_open(2)
// has had a device for them since 4.17.
func hasKprobes() bool {
	_, err := os.Stat("/sys/bus/event_source/devices/kprobe")
	return err == nil
}

// ownTracers are the ways in which gobcc's tool is measured.
func (s *scenario) ownTracers(ctx context.Context, tool, built string) ([]tracer, error) {
	if tool == "" {
		tool = built
		if err := goBuild(ctx, tool, "./tools/"+s.tool); err != nil {
			return nil, err
		}
	}
	// It is started after a change of directory, perhaps.
	tool, err := filepath.Abs(tool)
	if err != nil {
		return nil, err
	}
	out, err := child(ctx, tool, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", s.tool, err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	var tracers []tracer
	for _, w := range s.own {
		name := strings.TrimSpace(ownName + " " + w.name)
		argv := append([]string{tool}, w.options...)
		tracers = append(tracers, tracer{key: "gobcc", name: name, version: version, ours: true, none: w.none, load: w.load, argv: argv})
	}
	return tracers, nil
}

// goBuild builds a package of this module as releases are built.
func goBuild(ctx context.Context, output, pkg string) error {
	cmd := child(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", output, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("the go command is not in PATH")
		}
		return fmt.Errorf("go build %s (in the repository's top directory?): %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// series is what was measured of one tracer in one kind of rounds.
type series struct {
	tracer tracer
	runs   []run      // with a load, one a round
	bare   []loadTime // of the same rounds: the mean of the loads before and after
	idle   []run      // without a load, one a round
	stats  []run      // with a load and the kernel's statistics, one a round; none if not asked for
}

// rounds measures each tracer n times between two bare loads, and once without
// a load, the tracers in turn and each round beginning with the next of them.
// It stops early, and says so, when a round as long as the longest so far would
// end after the deadline.
func (b *bench) rounds(ctx context.Context, kind string, tracers []tracer, n int, deadline time.Time) ([]series, error) {
	all := make([]series, len(tracers))
	for i, t := range tracers {
		all[i].tracer = t
	}
	var longest time.Duration
	for round := range n {
		start := time.Now()
		if start.Add(longest).After(deadline) {
			fmt.Fprintf(os.Stderr, "bench: %s, %s: time for %d of %d rounds only\n", b.scenario.tool, kind, round, n)
			break
		}
		fmt.Fprintf(os.Stderr, "bench: %s, %s: round %d of %d\n", b.scenario.tool, kind, round+1, n)
		before, err := b.runLoad(ctx)
		if err != nil {
			return nil, err
		}
		for i := range all {
			s := &all[(i+round)%len(all)]
			loaded, err := b.measure(ctx, s.tracer, true)
			if err != nil {
				return nil, err
			}
			after, err := b.runLoad(ctx)
			if err != nil {
				return nil, err
			}
			s.runs = append(s.runs, loaded)
			s.bare = append(s.bare, mean(before, after))
			before = after
			if b.scenario.samples() { // without the load there is nothing to take off
				continue
			}
			idle, err := b.measure(ctx, s.tracer, false)
			if err != nil {
				return nil, err
			}
			s.idle = append(s.idle, idle)
			if b.scenario.programsOfLibbpf > 0 {
				counted, err := b.withStats(ctx, s.tracer)
				if err != nil {
					return nil, err
				}
				s.stats = append(s.stats, counted)
			}
		}
		longest = max(longest, time.Since(start))
	}
	if len(all[0].runs) == 0 {
		return nil, nil
	}
	return all, nil
}

// packetCost is how long a byte takes to and fro, and how much longer with a tracer.
type packetCost struct {
	tracer      tracer
	protocol    string
	bare, added figures // nanoseconds
}

// packetTrips is how often a byte goes to and fro in one measurement.
const packetTrips = 100_000

// packets measures what the scenario's way for that costs packets that are of no
// interest to it, between two bare measurements in each of n rounds.
func (b *bench) packets(ctx context.Context, tracers []tracer, n int) ([]packetCost, error) {
	i := slices.IndexFunc(tracers, func(t tracer) bool { return t.name == ownName+" "+b.scenario.packets })
	if i < 0 {
		return nil, nil
	}
	t, p := tracers[i], b.paths()
	costs := []packetCost{{tracer: t, protocol: "udp"}, {tracer: t, protocol: "tcp"}}
	all := func(ctx context.Context) (took []float64, err error) {
		for _, c := range costs {
			cmd := child(ctx, b.load, "-packets", c.protocol, "-port", p.present, "-n", strconv.Itoa(packetTrips), "-cpu", strconv.Itoa(b.cpu))
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				return nil, fmt.Errorf("send packets: %w", err)
			}
			ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			if err != nil {
				return nil, fmt.Errorf("time of the packets: %w", err)
			}
			took = append(took, ns/packetTrips)
		}
		return took, nil
	}
	for round := range n {
		fmt.Fprintf(os.Stderr, "bench: %s, packets: round %d of %d\n", b.scenario.tool, round+1, n)
		before, err := all(ctx)
		if err != nil {
			return nil, err
		}
		var with []float64
		rows := newRowCounter(b.scenario, p)
		if _, err := b.trace(ctx, t, rows.marks, rows.count, func(ctx context.Context) (err error) {
			with, err = all(ctx)
			return err
		}); err != nil {
			return nil, err
		}
		after, err := all(ctx)
		if err != nil {
			return nil, err
		}
		for i := range costs {
			bare := (before[i] + after[i]) / 2
			costs[i].bare = append(costs[i].bare, bare)
			costs[i].added = append(costs[i].added, with[i]-bare)
		}
	}
	return costs, nil
}

// tracerPrograms is what the BPF programs of one tracer took during one load.
type tracerPrograms struct {
	tracer   tracer
	programs []programTime
}

// programs runs each tracer once with the kernel's BPF statistics on. They cost
// two readings of the clock a run, so nothing else is taken from this pass.
func (b *bench) programs(ctx context.Context, tracers []tracer) ([]tracerPrograms, error) {
	var all []tracerPrograms
	for _, t := range tracers {
		fmt.Fprintf(os.Stderr, "bench: %s: run times of the BPF programs of %s\n", b.scenario.tool, t.name)
		r, err := b.withStats(ctx, t)
		if err != nil {
			return nil, err
		}
		all = append(all, tracerPrograms{t, r.programs})
	}
	return all, nil
}

// withStats measures a tracer with a load, with the kernel's statistics on.
func (b *bench) withStats(ctx context.Context, t tracer) (run, error) {
	b.stats = true
	defer func() { b.stats = false }()
	return b.measure(ctx, t, true)
}
