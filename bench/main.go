// Bench measures what opensnoop costs the traced task and the machine, and how
// much it shows, beside the opensnoop of libbpf-tools and of bpftrace in the
// same run, and prints the figures as Markdown tables.
//
// Usage:
//
//	go run ./bench [-rounds N] [-busy-rounds N] [-n PAIRS] [-cpu N]
//	               [-only NAMES] [-peers WHICH] [-tool FILE] [-stats]
//	               [-limit TIME] [-record FILE]
//	go run ./bench -compare FILE
//
// It needs root. Nothing that it mounts or starts outlives it. docs/speed.md
// says how each figure is come by; -record puts the tables there, between the
// two comments that mark the place.
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
	rounds, busyRounds int
	pairs, cpu         int
	only               []string
	peers, tool        string
	stats              bool
	limit              time.Duration
	record, compare    string
}

// tracerKeys are the names that -only takes.
var tracerKeys = []string{"gobcc", "libbpf", "bpftrace"}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 5, "measure everything this often on the machine as it is")
	flags.IntVar(&o.busyRounds, "busy-rounds", 3, "and this often with every CPU kept busy")
	flags.IntVar(&o.pairs, "n", 300000, "a load is this many `pairs` of opens, one that succeeds and one that fails")
	flags.IntVar(&o.cpu, "cpu", lastCPU(), "run the load on this CPU only; -1 leaves the choice to the kernel")
	only := flags.String("only", strings.Join(tracerKeys, ","), "measure these, by `names`")
	flags.StringVar(&o.peers, "peers", "auto", "take the peers as `installed`, as fetched from Debian (fetch), or fetch those that are not installed (auto)")
	flags.StringVar(&o.tool, "tool", "", "measure this `file` as gobcc's opensnoop instead of building ./tools/opensnoop")
	flags.BoolVar(&o.stats, "stats", false, "measure the run time of each BPF program too, in a pass of its own")
	flags.DurationVar(&o.limit, "limit", 6*time.Minute, "begin no round that would end later than this")
	flags.StringVar(&o.record, "record", "", "put the tables into this `file`, between its two marker comments")
	// One line for a mistake; the whole usage only for who asks for it.
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.compare, "compare", "", "instead of measuring, put what each tracer shows of a set of special opens into this `file`, in the same way")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Println("usage: go run ./bench [options]")
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
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rounds < 1 || o.busyRounds < 0 || o.pairs < 1:
		return o, errors.New("-rounds and -n want 1 or more, -busy-rounds 0 or more")
	case !slices.Contains([]string{"auto", "installed", "fetch"}, o.peers):
		return o, fmt.Errorf("-peers: no %q among auto, installed, fetch", o.peers)
	}
	return o, nil
}

// lastCPU is the last CPU that this process may run on: the first ones tend to
// have the interrupts.
func lastCPU() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return -1
	}
	last := -1
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			last = cpu
		}
	}
	return last
}

func measureAll(ctx context.Context, o options) error {
	for _, file := range []string{o.record, o.compare} {
		if file == "" {
			continue
		}
		// Better to know now than after minutes of measuring.
		if err := checkRecord(file); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "gobcc-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, cpu: o.cpu, pairs: o.pairs, load: filepath.Join(dir, loadComm)}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if err := os.WriteFile(b.paths().present, nil, 0o644); err != nil {
		return err
	}
	if err := goBuild(ctx, b.load, "./bench/openload"); err != nil {
		return err
	}
	tracers, missing, err := findTracers(ctx, o, dir)
	if err != nil {
		return err
	}

	if o.compare != "" {
		all, err := b.compare(ctx, tracers)
		if err != nil {
			return err
		}
		return record(o.compare, func(w io.Writer) error {
			writeComparisons(w, thisMachine(), tracers, all)
			return nil
		})
	}

	r := report{machine: thisMachine(), opens: b.opens(), missing: missing}
	// The time for fetching and building is not part of it.
	deadline := time.Now().Add(o.limit)
	if r.quiet, err = b.rounds(ctx, "quiet", tracers, o.rounds, deadline); err != nil {
		return err
	}
	if o.busyRounds > 0 {
		stop, err := b.spin(ctx)
		if err != nil {
			return err
		}
		r.busy, err = b.rounds(ctx, "busy", tracers, o.busyRounds, deadline)
		stop()
		if err != nil {
			return err
		}
	}
	if o.stats {
		if r.programs, err = b.programs(ctx, tracers); err != nil {
			return err
		}
	}
	if o.record != "" {
		if err := record(o.record, r.write); err != nil {
			return err
		}
	}
	if err := r.write(os.Stdout); err != nil {
		return err
	}
	if len(missing) > 0 {
		return errors.New("not all was measured: " + strings.Join(missing, "; "))
	}
	return nil
}

// findTracers returns what is to be measured, and a line for each that can't
// be.
func findTracers(ctx context.Context, o options, dir string) (tracers []tracer, missing []string, err error) {
	if slices.Contains(o.only, "gobcc") {
		ours, err := ownTracers(ctx, o.tool, filepath.Join(dir, "opensnoop"))
		if err != nil {
			missing = append(missing, fmt.Sprintf("gobcc: %v", err))
		}
		tracers = append(tracers, ours...)
	}
	var peers []tracer
	wanted := func(key string) bool { return slices.Contains(o.only, key) }
	if o.peers != "fetch" {
		peers = installedPeers(ctx)
	}
	has := func(key string) bool {
		return slices.ContainsFunc(peers, func(t tracer) bool { return t.key == key })
	}
	if o.peers != "installed" && (wanted("libbpf") && !has("libbpf") || wanted("bpftrace") && !has("bpftrace")) {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, nil, err
		}
		fetched, err := fetchedPeers(ctx, filepath.Join(cache, "gobcc", "peers"))
		if err != nil {
			missing = append(missing, err.Error())
		}
		for _, t := range fetched {
			if !has(t.key) {
				peers = append(peers, t)
			}
		}
	}
	for _, key := range []string{"libbpf", "bpftrace"} {
		i := slices.IndexFunc(peers, func(t tracer) bool { return t.key == key })
		switch {
		case !wanted(key):
		case i < 0:
			missing = append(missing, key+": not on this machine")
		default:
			tracers = append(tracers, peers[i])
		}
	}
	for _, line := range missing {
		fmt.Fprintln(os.Stderr, "bench: NOT MEASURED:", line)
	}
	if len(tracers) == 0 {
		return nil, nil, errors.New("there is nothing to measure")
	}
	return tracers, missing, nil
}

// ownTracers are the two ways in which gobcc's opensnoop is measured: showing
// every open of the machine, as the peers do, and only those of the load.
func ownTracers(ctx context.Context, tool, built string) ([]tracer, error) {
	if tool == "" {
		tool = built
		if err := goBuild(ctx, tool, "./tools/opensnoop"); err != nil {
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
		return nil, fmt.Errorf("opensnoop --version: %w", err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	t := tracer{key: "gobcc", name: ownName, version: version, ours: true,
		argv: []string{tool, "--attach", "tracepoint"}}
	filtered := t
	filtered.name = ownName + " -n " + loadComm
	filtered.argv = append(slices.Clone(t.argv), "-n", loadComm)
	return []tracer{t, filtered}, nil
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

// series is what was measured of one tracer in one scenario.
type series struct {
	tracer tracer
	runs   []run      // with a load, one a round
	bare   []loadTime // of the same rounds: the mean of the loads before and after
	idle   []run      // without a load, one a round
}

// rounds measures each tracer n times between two bare loads, and once without
// a load, the tracers in turn and each round beginning with the next of them.
// It stops early, and says so, when a round as long as the longest so far would
// end after the deadline.
func (b *bench) rounds(ctx context.Context, scenario string, tracers []tracer, n int, deadline time.Time) ([]series, error) {
	all := make([]series, len(tracers))
	for i, t := range tracers {
		all[i].tracer = t
	}
	var longest time.Duration
	for round := range n {
		start := time.Now()
		if start.Add(longest).After(deadline) {
			fmt.Fprintf(os.Stderr, "bench: %s: time for %d of %d rounds only\n", scenario, round, n)
			break
		}
		fmt.Fprintf(os.Stderr, "bench: %s: round %d of %d\n", scenario, round+1, n)
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
			idle, err := b.measure(ctx, s.tracer, false)
			if err != nil {
				return nil, err
			}
			s.idle = append(s.idle, idle)
		}
		longest = max(longest, time.Since(start))
	}
	if len(all[0].runs) == 0 {
		return nil, nil
	}
	return all, nil
}

// tracerPrograms is what the BPF programs of one tracer took during one load.
type tracerPrograms struct {
	tracer   tracer
	programs []programTime
}

// programs runs each tracer once with the kernel's BPF statistics on. They cost
// two readings of the clock a run, so nothing else is taken from this pass.
func (b *bench) programs(ctx context.Context, tracers []tracer) ([]tracerPrograms, error) {
	b.stats = true
	defer func() { b.stats = false }()
	var all []tracerPrograms
	for _, t := range tracers {
		fmt.Fprintf(os.Stderr, "bench: run times of the BPF programs of %s\n", t.name)
		r, err := b.measure(ctx, t, true)
		if err != nil {
			return nil, err
		}
		all = append(all, tracerPrograms{t, r.programs})
	}
	return all, nil
}
