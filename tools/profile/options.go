package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/debuginfod"
	"github.com/gobcc/gobcc/internal/common/duration"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// options is what the user asked for.
type options struct {
	*trace.Options
	style
	folded     bool
	idle       bool
	quiet      bool
	noDemangle bool
	lines      bool
	debuginfod bool
	javaMaps   bool
	replay     string
	rate       perfevent.Rate
	eventName  string
	cpu        int // -1 for all
	tids       tidList
	userDepth  uint
	unwind     string
	unwindMiB  uint
	copyKiB    uint
	stackSize  uint // of BCC: nothing here needs them
	hashSize   uint
	outputs    outputs

	fs       *pflag.FlagSet
	event    perfevent.Event
	duration time.Duration // 0 for no limit
	// debuginfodClient is nil unless it was asked for.
	debuginfodClient *debuginfod.Client
}

const (
	defaultHertz     = 49
	defaultUserDepth = 256
	maxUserDepth     = 1024 // MAX_USER_FRAMES
	defaultCopyKiB   = 16
	maxCopyKiB       = 64 // MAX_COPY_SIZE
	// maxClockHertz is how many samples a second and CPU a timer may take: nothing in the
	// kernel holds back timers, and at 100,000 a machine does nothing else any more.
	maxClockHertz = 20_000
)

// The ways to find user stacks.
const (
	unwindAuto  = "auto"
	unwindFP    = "fp"
	unwindTable = "table"
	unwindCopy  = "copy"
	unwindOff   = "off"
)

var unwindWays = []string{unwindAuto, unwindFP, unwindTable, unwindCopy, unwindOff}

// How much of stacks may be copied in a second, of all CPUs, in bytes. Who asks for copies has
// more, up to what the ring buffer of the default size takes.
const (
	copyBudget      = 8 << 20
	copyBudgetAsked = 128 << 20
)

// defineFlags defines the flags in the order of the manual.
func defineFlags(fs *pflag.FlagSet) *options {
	o := &options{fs: fs}
	fs.Uint64VarP(&o.rate.Hertz, "frequency", "F", defaultHertz, "take `HERTZ` samples a second of each CPU")
	fs.Uint64VarP(&o.rate.Period, "count", "c", 0, "take a sample of a CPU each `N` events; nanoseconds for the clocks")
	fs.StringVarP(&o.eventName, "event", "e", perfevent.CPUClock.Name, "sample by `EVENT`, by perf's name or rHEX: cpu-clock, cycles, page-faults, ...")
	fs.UintVar(&o.userDepth, "max-user-depth", defaultUserDepth, "at most `N` frames of a user stack; by frame pointers no more than kernel.perf_event_max_stack")
	fs.StringVar(&o.unwind, "unwind", unwindAuto, "find user stacks by `WAY`: table walks them in the kernel by the tables that programs have for it; copy copies them, to walk them later; auto does both, and copies within a budget where the kernel can't; fp follows frame pointers; off takes the function at work only")
	manual.Values(fs, "unwind", unwindWays...)
	o.defineTableFlags(fs)
	fs.UintVar(&o.copyKiB, "unwind-copy", defaultCopyKiB, "copy at most `KIB` of a user stack, up to 64")
	manual.Values(fs, "event", perfevent.Names()...)

	fs.BoolVarP(&o.folded, "folded", "f", false, "write folded stacks, a line each, for flamegraph.pl")
	fs.BoolVarP(&o.delimited, "delimited", "d", false, "put a delimiter between user and kernel stack")
	fs.BoolVarP(&o.annotations, "annotations", "a", false, "mark frames of the kernel with _[k], of runtimes' code with _[j], inlined ones with _[i]")
	fs.BoolVarP(&o.addresses, "address", "A", false, "show the address of each frame, too")
	fs.BoolVar(&o.noDemangle, "no-demangle", false, "show C++ and Rust functions by the names that linkers know")
	fs.BoolVar(&o.lines, "lines", false, "with source lines and inlined functions, by DWARF, where a file or its separate debug file has them")
	fs.BoolVar(&o.debuginfod, "debuginfod", false, "fetch debug files that are not here from the servers in $DEBUGINFOD_URLS")
	fs.BoolVar(&o.javaMaps, "java-perfmap", false, "ask each Java virtual machine (HotSpot, 17 or later) that was sampled for its functions' names, at the end")
	fs.BoolVar(&o.quiet, "quiet", false, "no progress and no summary on standard error")
	o.outputs.define(fs)
	fs.StringVar(&o.replay, "replay", "", "sample nothing, and write what --save-raw recorded in `FILE`")
	manual.Completes(fs, "replay", manual.File)
	manual.Place(fs, manual.Output, "folded", "delimited", "annotations", "address", "no-demangle", "lines", "debuginfod", "java-perfmap", "quiet", "replay")

	fs.BoolVarP(&o.userOnly, "user-stacks-only", "U", false, "only user stacks")
	fs.BoolVarP(&o.kernelOnly, "kernel-stacks-only", "K", false, "only kernel stacks")
	fs.BoolVarP(&o.idle, "include-idle", "I", false, "idle CPUs, too")
	fs.IntVarP(&o.cpu, "cpu", "C", -1, "only the `CPU` with this number")
	fs.Lookup("cpu").DefValue = "" // which is all
	fs.VarP(&o.tids, "tid", "L", "only the threads `TID`[,TID...] (repeatable)")
	manual.Completes(fs, "tid", manual.PID)

	fs.UintVar(&o.stackSize, "stack-storage-size", 0, "room for `N` stacks, as in BCC: taken, and not needed, as there is no table that could be full")
	fs.UintVar(&o.hashSize, "hash-storage-size", 0, "room for `N` counts, likewise")

	o.Options = trace.Flags(fs)
	o.Filter.PIDFlag("p")
	o.Filter.UserFlag("u")
	o.Filter.CommFlag("n")
	manual.Place(fs, manual.Filters, "pid", "tid", "uid", "name", "cpu", "user-stacks-only", "kernel-stacks-only", "include-idle")
	return o
}

// check refuses what makes no sense, and settles what follows from the rest.
func (o *options) check(args []string) error {
	if err := o.checkRate(); err != nil {
		return err
	}
	if len(args) > 1 {
		return cli.BadUse("unexpected argument %q behind the duration", args[1])
	}
	if len(args) == 1 {
		var d duration.Seconds
		if err := d.Set(args[0]); err != nil {
			return cli.BadUse("the duration %w", err)
		}
		o.duration = time.Duration(d)
		o.SetDuration(o.duration)
	}
	if o.userOnly && o.kernelOnly {
		return cli.BadUse("-U and -K exclude each other")
	}
	if len(o.tids) > 0 && len(o.Filter.PIDs) > 0 {
		return cli.BadUse("-p and -L exclude each other")
	}
	if o.folded && o.JSON {
		return cli.BadUse("-f and --json exclude each other")
	}
	if err := o.checkStdout(); err != nil {
		return err
	}
	if o.userDepth == 0 || o.userDepth > maxUserDepth {
		return cli.BadUse("--max-user-depth: %d is not from 1 to %d", o.userDepth, maxUserDepth)
	}
	if !slices.Contains(unwindWays, o.unwind) {
		last := len(unwindWays) - 1
		return cli.BadUse("--unwind: %q is none of %s and %s", o.unwind, strings.Join(unwindWays[:last], ", "), unwindWays[last])
	}
	if err := o.checkTableFlags(); err != nil {
		return err
	}
	if o.copyKiB == 0 || o.copyKiB > maxCopyKiB {
		return cli.BadUse("--unwind-copy: %d is not from 1 to %d", o.copyKiB, maxCopyKiB)
	}
	if o.debuginfod {
		client, err := debuginfod.New(os.Getenv)
		if err != nil {
			return cli.BadUse("--debuginfod: %w", err)
		}
		o.debuginfodClient = client
	}
	if err := o.checkCPU(); err != nil {
		return err
	}
	for _, tid := range o.tids {
		if !threadExists(tid) {
			return cli.BadUse("--tid: there is no thread %d", tid)
		}
	}
	return nil
}

// checkStdout refuses several outputs where nobody could take them apart.
func (o *options) checkStdout() error {
	flags := o.outputs.toStdout()
	if o.folded {
		flags = append(flags, "-f")
	}
	if o.JSON {
		flags = append(flags, "--json")
	}
	if len(flags) > 1 {
		return cli.BadUse("%s and %s would be mixed on standard output: write one of them to a file", flags[0], flags[1])
	}
	return nil
}

// replayFlags are those that tell what is to be written, and not what is to be sampled.
var replayFlags = []string{"replay", "folded", "delimited", "annotations", "address", "json", "quiet", "pprof", "svg", "script"}

// checkReplay refuses what would have no effect on a run that is over.
func (o *options) checkReplay(args, command []string) error {
	if len(args) > 0 || len(command) > 0 {
		return cli.BadUse("--replay samples nothing: it takes no duration and no command")
	}
	var err error
	o.fs.Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(replayFlags, f.Name) {
			err = cli.BadUse("--replay samples nothing: it does not take --%s", f.Name)
		}
	})
	return err
}

func (o *options) checkRate() error {
	event, err := perfevent.ParseEvent(o.eventName)
	if err != nil {
		return cli.BadUse("-e: %w", err)
	}
	o.event = event
	if o.fs.Changed("count") {
		if o.fs.Changed("frequency") {
			return cli.BadUse("-F and -c exclude each other")
		}
		if o.rate.Period == 0 {
			return cli.BadUse("-c: a sample each 0 events can't be taken")
		}
		if least := uint64(time.Second) / maxClockHertz; event.Clock() && o.rate.Period < least {
			return cli.BadUse("-c: a sample each %d nanoseconds would leave the CPUs no time for anything else: %d at least", o.rate.Period, least)
		}
		if o.rate.Period > math.MaxInt64 {
			return cli.BadUse("-c: the kernel counts to %d and no further", int64(math.MaxInt64))
		}
		o.rate.Hertz = 0
		return nil
	}
	if o.rate.Hertz == 0 {
		return cli.BadUse("-F: no samples a second are none")
	}
	if event.Clock() && o.rate.Hertz > maxClockHertz {
		return cli.BadUse("-F: %d samples a second would leave the CPUs no time for anything else: %d at most", o.rate.Hertz, maxClockHertz)
	}
	most, err := perfevent.MaxHertz()
	if err != nil {
		return fmt.Errorf("-F: %w", err)
	}
	if o.rate.Hertz > most {
		return cli.BadUse("-F: %d samples a second are more than the %d that the sysctl kernel.perf_event_max_sample_rate allows", o.rate.Hertz, most)
	}
	return nil
}

func (o *options) checkCPU() error {
	if !o.fs.Changed("cpu") {
		return nil
	}
	online, err := perfevent.Online()
	if err != nil {
		return fmt.Errorf("-C: %w", err)
	}
	if !slices.Contains(online, o.cpu) {
		return cli.BadUse("-C: there is no CPU %d online", o.cpu)
	}
	return nil
}

// cpus are those to sample; nil for all.
func (o *options) cpus() []int {
	if o.cpu < 0 {
		return nil
	}
	return []int{o.cpu}
}

// period is how much of the event is between two samples of a CPU, or 0 if that varies.
func (o *options) period() uint64 {
	if o.rate.Period > 0 {
		return o.rate.Period
	}
	if o.event.Clock() {
		return uint64(time.Second) / o.rate.Hertz
	}
	return 0
}

// header is the line that BCC's profile begins with.
func (o *options) header(command bool) string {
	var b strings.Builder
	if o.rate.Period > 0 {
		fmt.Fprintf(&b, "Sampling at every %d events", o.rate.Period)
	} else {
		fmt.Fprintf(&b, "Sampling at %d Hertz", o.rate.Hertz)
	}
	switch {
	case len(o.Filter.PIDs) > 0:
		fmt.Fprintf(&b, " of PID %s", list(o.Filter.PIDs))
	case len(o.tids) > 0:
		fmt.Fprintf(&b, " of TID %s", list(o.tids))
	case command:
		b.WriteString(" of the command")
	default:
		b.WriteString(" of all threads")
	}
	switch {
	case o.userOnly:
		b.WriteString(" by user stack")
	case o.kernelOnly:
		b.WriteString(" by kernel stack")
	default:
		b.WriteString(" by user + kernel stack")
	}
	if o.cpu >= 0 {
		fmt.Fprintf(&b, " on CPU#%d", o.cpu)
	}
	if o.duration > 0 {
		fmt.Fprintf(&b, " for %s secs.", strconv.FormatFloat(o.duration.Seconds(), 'f', -1, 64))
	} else {
		b.WriteString("... Hit Ctrl-C to end.")
	}
	return b.String()
}

// list writes numbers as Python does.
func list(numbers []uint32) string {
	return strings.ReplaceAll(fmt.Sprint(numbers), " ", ", ")
}

func threadExists(tid uint32) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", tid)) // it need not be listed there
	return !errors.Is(err, os.ErrNotExist)
}

// tidList is a flag value: thread ids.
type tidList []uint32

func (l *tidList) String() string { return "" }

// Type names the kind of value, as pflag wants it.
func (l *tidList) Type() string { return "ints" }

// Set takes what the user wrote; given again, it adds to what there is.
func (l *tidList) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(one), 10, 31)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a thread id", one)
		}
		*l = append(*l, uint32(n))
	}
	return nil
}
