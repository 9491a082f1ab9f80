// Package trace is the run of a tool that streams events: from its flags to its
// totals. A tool brings its object, its hooks and a function that writes a row.
package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/clock"
	"github.com/gobcc/gobcc/internal/common/command"
	"github.com/gobcc/gobcc/internal/common/duration"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/filter"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/scratch"
)

// readyFD is an environment variable that names a file descriptor. A byte is
// written to it when everything is attached, for whoever must not miss anything.
const readyFD = "GOBCC_READY_FD"

// lossInterval is how often a run looks for lost events.
const lossInterval = time.Second

// Options are the flags that all tools have.
type Options struct {
	Filter *filter.Filter
	JSON   bool

	fs        *pflag.FlagSet
	duration  duration.Seconds
	attach    string
	btf       string
	verbose   bool
	stats     bool
	preflight bool
	pages     int
	runAs     string
}

// Letters are those of flags that have none in other tools.
type Letters struct{ JSON, Cgroup string }

// Flags defines the flags that all tools have. Call it after defining the tool's
// own, so that those come first in its manual.
func Flags(fs *pflag.FlagSet) *Options {
	o := FlagsOfSummary(fs, Letters{})
	fs.IntVarP(&o.pages, "buffer-pages", "b", events.DefaultPages, "size of the ring buffer in `PAGES` of 4 KiB, rounded up to a power of 2")
	manual.Place(fs, manual.Output, "buffer-pages")
	return o
}

// FlagsOfSummary is Flags for a tool without a ring buffer: one that counts in the
// kernel.
func FlagsOfSummary(fs *pflag.FlagSet, letters Letters) *Options {
	o := &Options{Filter: filter.Flags(fs, letters.Cgroup), fs: fs, pages: events.DefaultPages}
	fs.StringVar(&o.runAs, "run-as", "", "start the command as `USER`, by name or number")
	fs.BoolVarP(&o.JSON, "json", letters.JSON, false, "write JSON Lines: an object an event, and objects that count losses")
	fs.StringVar(&o.attach, "attach", string(attach.Auto), "hook in by `MODE`: fentry, kprobe or tracepoint; auto takes the first of them that works")
	fs.StringVar(&o.btf, "btf", "", "take the kernel's types from `FILE`, for kernels built without BTF")
	fs.BoolVar(&o.preflight, "preflight", false, "say what would work here and what would not be seen, and end")
	fs.BoolVar(&o.stats, "stats", false, "say at the end what the tool itself cost")
	fs.BoolVarP(&o.verbose, "verbose", "v", false, "say which mode each hook got, and why not a better one")
	manual.Place(fs, manual.Following, "run-as")
	manual.Place(fs, manual.Output, "json")
	manual.Place(fs, manual.Attaching, "attach", "btf")
	manual.Place(fs, manual.Diagnosis, "preflight", "stats", "verbose")
	manual.Values(fs, "attach", string(attach.Auto), string(attach.Fentry), string(attach.Kprobe), string(attach.Tracepoint))
	manual.Completes(fs, "btf", manual.File)
	manual.Completes(fs, "run-as", manual.User)
	return o
}

// DurationFlag defines --duration with the tool's letter.
func (o *Options) DurationFlag(letter string) {
	o.fs.VarP(&o.duration, "duration", letter, "end after `SECONDS`")
	manual.Place(o.fs, manual.Output, "duration")
}

// SetDuration has the run end after d, as --duration does; 0 for no limit.
func (o *Options) SetDuration(d time.Duration) { o.duration = duration.Seconds(d) }

// Tool is what a tool brings to its run.
type Tool struct {
	Spec  *ebpf.CollectionSpec
	Hooks []attach.Hook
	// Prepare is called with the kernel's types before anything is loaded.
	Prepare func(*attach.Kernel) error
	// Preflight is called by --preflight, to try what is needed beside the hooks; its error
	// is that of the run. It may be nil.
	Preflight func() error
	// Attached is called when all is attached, before the tool says that it is ready: to
	// begin with what else is to be there by then, which Detach ends. Either may be nil.
	Attached func(r *Run) error
	// Detach is called when the hooks are to be taken off, and again at the end of a run
	// that fails, even where Attached was not called.
	Detach  func()
	Command []string // started and followed, if there is one
	Header  string   // printed before the first row, unless JSON is asked for
	// Handle writes what belongs to a record of the ring buffer.
	Handle func(r *Run, record []byte) error
	// Drained is called each time the ring buffer is empty, at most 50 ms apart;
	// may be nil.
	Drained func(r *Run) error
	// Patient is asked after that whether 150 ms will do for the next time; may be nil.
	Patient func() bool
	// Last is called when the run is to end and all records have been handled, and
	// once more when nothing more can happen; those that it has the kernel side send
	// (Call) are handled too. It may be nil.
	Last func(r *Run)
	// Interrupts says that some of what is traced happens in interrupts, whatever runs.
	Interrupts bool
	// Exits says that a program of the tool's own on the end of processes calls
	// exited() of follow.bpf.h, after its other work.
	Exits bool
	// Finish writes what is to come at the end; may be nil.
	Finish func(r *Run) error
}

// Run is a tool at work.
type Run struct {
	Out   *output.Writer
	Wall  clock.Wall
	Shown uint64 // rows; the tool counts them

	env      *cli.Env
	opts     *Options
	tool     *Tool
	set      *attach.Set
	reader   *events.Reader
	losses   *events.Losses
	lossTime time.Time
	lossSaid uint64
	stats    *statistics
	first    *perfevent.Watch // of process 1; nil if that is not to be traced
	ready    *os.File
	stop     context.CancelFunc // ends the loop
	ended    chan ending        // of the command; nil without one
}

// Run runs a tool until ctx is done, the duration is over or its command has
// ended.
func (o *Options) Run(ctx context.Context, env *cli.Env, tool Tool) error {
	if err := o.check(&tool); err != nil {
		return err
	}
	if o.preflight {
		return o.runPreflight(env, &tool)
	}
	r := &Run{Out: output.NewWriter(env.Stdout), env: env, opts: o, tool: &tool}
	if err := r.takeReady(); err != nil {
		return err
	}
	cmd, err := o.startCommand(&tool)
	if err != nil {
		return err
	}
	if cmd != nil {
		defer cmd.Close()
	}
	defer o.Filter.Close()
	if err := r.open(); err != nil {
		return err
	}
	defer r.close()
	if err := r.begin(); err != nil {
		return err
	}
	if err := r.loop(ctx, cmd); err != nil {
		return err
	}
	if err := r.end(); err != nil {
		return err
	}
	return r.status()
}

func (o *Options) check(tool *Tool) error {
	switch attach.Mode(o.attach) {
	case attach.Auto, attach.Fentry, attach.Kprobe, attach.Tracepoint:
	default:
		return cli.BadUse("--attach: there is no mode %q: auto, fentry, kprobe or tracepoint", o.attach)
	}
	if err := events.Configure(tool.Spec, o.pages); err != nil {
		return cli.BadUse("--buffer-pages: %w", err)
	}
	if o.runAs != "" && len(tool.Command) == 0 {
		return cli.BadUse("--run-as needs a command to run: -- COMMAND")
	}
	if len(tool.Command) > 0 && len(o.Filter.PIDs) > 0 {
		return cli.BadUse("-p and a command exclude each other")
	}
	return nil
}

// startCommand makes the process that will be the command. It waits until all is
// attached, so that nothing it does is missed.
func (o *Options) startCommand(tool *Tool) (*command.Command, error) {
	if len(tool.Command) == 0 {
		return nil, nil
	}
	cmd, err := command.Start(tool.Command, command.Options{RunAs: o.runAs})
	if err != nil {
		return nil, err
	}
	o.Filter.PIDs, o.Filter.Follow = []uint32{uint32(cmd.Pid())}, true
	return cmd, nil
}

// open loads the programs and attaches them.
func (r *Run) open() error {
	spec, hooks := r.tool.Spec, r.tool.Hooks
	replace, err := r.opts.Filter.Apply(spec)
	if err != nil {
		return &cli.Usage{Err: err}
	}
	if r.losses, err = events.NewLosses(spec); err != nil {
		return err
	}
	kernel, err := r.opts.openKernel()
	if err != nil {
		return err
	}
	if r.tool.Prepare != nil {
		if err := r.tool.Prepare(kernel); err != nil {
			return err
		}
	}
	hooks = append(r.opts.Filter.Hooks(r.tool.Exits), hooks...)
	if r.opts.stats {
		if r.stats, err = startStatistics(); err != nil {
			return err
		}
	}
	r.set, err = kernel.Open(spec, hooks, attach.Options{
		Mode: attach.Mode(r.opts.attach),
		Maps: replace,
		Ready: func(coll *ebpf.Collection) error {
			return errors.Join(r.opts.Filter.Fill(coll), scratch.Fill(coll))
		},
	})
	if err != nil {
		r.explainRejection(err)
		r.close()
		return err
	}
	r.losses.Open(r.set.Collection, r.set.Missed)
	if r.reader, err = events.NewReader(r.set.Collection); err != nil {
		r.close()
		return err
	}
	r.reader.Patient = r.tool.Patient
	return nil
}

// openKernel reads the kernel's types. A --btf that can't be used is the user's
// mistake.
func (o *Options) openKernel() (*attach.Kernel, error) {
	kernel, err := attach.Open(o.btf)
	if err != nil && o.btf != "" {
		return nil, &cli.Usage{Err: err}
	}
	return kernel, err
}

// begin says what can't be seen and prints the header: from then on nothing is
// missed.
func (r *Run) begin() error {
	if r.tool.Attached != nil {
		if err := r.tool.Attached(r); err != nil {
			return err
		}
	}
	if pids := r.opts.Filter.PIDs; r.tool.Interrupts || len(pids) == 0 || slices.Contains(pids, 1) {
		r.first = perfevent.WatchProcess(1)
	}
	// The kernel's types and the object are of no further use.
	r.tool.Spec = nil
	debug.FreeOSMemory()
	if r.opts.verbose {
		r.explain(r.env.Stderr)
	}
	for _, res := range r.set.Results {
		for _, b := range res.Blind {
			fmt.Fprintf(r.env.Stderr, "%s: not seen here: %s\n", r.env.Name, b)
		}
	}
	if !r.opts.JSON && r.tool.Header != "" {
		if _, err := io.WriteString(r.Out, r.tool.Header+"\n"); err != nil {
			return err
		}
		if err := r.Out.Flush(); err != nil {
			return err
		}
	}
	return r.tellReady()
}

// takeReady takes the descriptor that readyFD names, if there is one, so that a
// command does not inherit it.
func (r *Run) takeReady() error {
	name, ok := os.LookupEnv(readyFD)
	if !ok {
		return nil
	}
	fd, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return fmt.Errorf("%s: %q is not a file descriptor", readyFD, name)
	}
	unix.CloseOnExec(int(fd))
	r.ready = os.NewFile(uintptr(fd), readyFD)
	return os.Unsetenv(readyFD)
}

func (r *Run) tellReady() error {
	if r.ready == nil {
		return nil
	}
	_, err := r.ready.Write([]byte{'\n'})
	return errors.Join(err, r.ready.Close())
}

// loop hands records to the tool until the run is to end.
func (r *Run) loop(ctx context.Context, cmd *command.Command) error {
	running, stop := context.WithCancel(ctx)
	if cmd != nil {
		// A command that is interrupted is traced to its end.
		running, stop = context.WithCancel(context.WithoutCancel(ctx))
	}
	defer stop()
	r.stop = stop
	if r.opts.duration > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeout(running, time.Duration(r.opts.duration))
		defer cancel()
	}
	if cmd != nil {
		if err := cmd.Release(); err != nil {
			return err
		}
		r.ended = make(chan ending, 1)
		go func() {
			status, err := cmd.Wait()
			r.ended <- ending{status, err}
			stop()
		}()
		defer context.AfterFunc(ctx, func() { pass(ctx, cmd) })()
	}
	if err := r.reader.Run(running, r.handle, r.drained); err != nil {
		return err
	}
	// Detaching takes some milliseconds, in which the kernel may forget what the tool
	// has still to ask for.
	if err := r.drainLast(); err != nil {
		return err
	}
	r.detach()
	return r.drainLast()
}

func (r *Run) detach() {
	if r.tool.Detach != nil {
		r.tool.Detach()
	}
	r.set.Detach()
}

// drainLast handles what is in the ring, and what the tool then has the kernel send.
func (r *Run) drainLast() error {
	if err := r.reader.Drain(r.handle); err != nil || r.tool.Last == nil {
		return err
	}
	r.tool.Last(r)
	return r.reader.Drain(r.handle)
}

// ending is how a command ended.
type ending struct {
	status int
	err    error
}

// status waits for the command, if there is one, and gives its exit status.
func (r *Run) status() error {
	if r.ended == nil {
		return nil
	}
	end := <-r.ended
	if end.err != nil {
		return fmt.Errorf("wait for the command: %w", end.err)
	}
	if end.status != 0 {
		return cli.Status(end.status)
	}
	return nil
}

// pass passes the signal that ended ctx on to the command. A terminal sends its
// ^C to both already.
func pass(ctx context.Context, cmd *command.Command) {
	var i *cli.Interrupted
	if !errors.As(context.Cause(ctx), &i) || i.Signal == os.Interrupt && inForeground() {
		return
	}
	_ = cmd.Signal(i.Signal) // it may have ended just now
}

// inForeground reports whether this process gets the terminal's signals.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func (r *Run) handle(record []byte) error { return r.tool.Handle(r, record) }

// drained is called each time the ring buffer is empty.
func (r *Run) drained() error {
	r.Wall.Refresh()
	if r.tool.Drained != nil {
		if err := r.tool.Drained(r); err != nil {
			return err
		}
	}
	if now := time.Now(); now.Sub(r.lossTime) >= lossInterval {
		r.lossTime = now
		if err := r.sayLosses(); err != nil {
			return err
		}
		if err := r.stopIfEnded(); err != nil {
			return err
		}
	}
	return r.Out.Flush()
}

// stopIfEnded ends the run when nothing more can come. A command is waited for
// anyway.
func (r *Run) stopIfEnded() error {
	if r.ended != nil {
		return nil
	}
	ended, err := r.opts.Filter.Ended(r.set.Collection)
	if err == nil && ended {
		r.Say("what was to be traced has ended")
		r.stop()
	}
	return err
}

// sayLosses reports lost events if there are more than when last said.
func (r *Run) sayLosses() error {
	lost, err := r.losses.Read()
	if err != nil {
		return err
	}
	now := lost.Total() + lost.Possible
	if now == r.lossSaid {
		return nil
	}
	r.lossSaid = now
	r.Say(lost.Describe())
	if !r.opts.JSON {
		return nil
	}
	o := output.Begin(r.Out.Row())
	o.Time("time", time.Now().UnixNano())
	o.String("kind", "lost")
	o.Uint("lost", lost.Total())
	o.Uint("possibly_lost", lost.Possible)
	o.Object("causes")
	for _, l := range lost.Causes {
		o.Uint(l.Cause, l.Count)
	}
	o.Close()
	return r.Out.EndRow(o.End())
}

// end writes what comes last. All hooks are off by now, and the ring is empty.
func (r *Run) end() error {
	if r.tool.Finish != nil {
		if err := r.tool.Finish(r); err != nil {
			return err
		}
	}
	if err := r.sayLosses(); err != nil {
		return err
	}
	if err := r.Out.Flush(); err != nil {
		return err
	}
	if r.first != nil && r.first.Shielded() {
		r.Say("not seen here: process 1, and interrupts while it runs: this kernel shields it from tracing")
	}
	if r.stats != nil {
		return r.stats.report(r)
	}
	return nil
}

func (r *Run) close() {
	if r.stats != nil {
		r.stats.stop()
	}
	if r.first != nil {
		r.first.Close()
	}
	if r.reader != nil {
		_ = r.reader.Close()
	}
	if r.set != nil {
		r.detach()
		r.set.Close()
	}
}

// Program gives a program of the object, by its name there; nil if it is not loaded.
func (r *Run) Program(name string) *ebpf.Program { return r.set.Programs[name] }

// Lost is what was lost so far.
func (r *Run) Lost() (*events.Lost, error) { return r.losses.Read() }

// Map gives a map of the object, by its name there; nil if it is not loaded.
func (r *Run) Map(name string) *ebpf.Map { return r.set.Maps[name] }

// Call runs a program of the object that is attached to nothing; see [attach.Set].
func (r *Run) Call(program string, args ...uint64) (uint32, error) {
	return r.set.Call(program, args...)
}

// Mode is the mode that a hook got.
func (r *Run) Mode(hook string) attach.Mode {
	for _, res := range r.set.Results {
		if res.Hook.Name == hook {
			return res.Mode
		}
	}
	return ""
}

// Stop ends the run: what is in the ring buffer by then is still handed over.
func (r *Run) Stop() { r.stop() }

// Lose counts events that are found to be lost only in user space.
func (r *Run) Lose(cause string, n uint64) { r.losses.Add(cause, n) }

// Say prints a remark to standard error.
func (r *Run) Say(text string) { fmt.Fprintf(r.env.Stderr, "%s: %s\n", r.env.Name, text) }
