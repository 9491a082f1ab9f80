package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	// runLimit bounds one run of one tracer, from its start to its end.
	runLimit = 90 * time.Second
	// pipeSize is the room between a tracer and the counting of its rows. It
	// is the most that an unprivileged user may ask for by default.
	pipeSize = 1 << 20
)

// tracer is one of the programs that are measured.
type tracer struct {
	key     string   // how -only names it
	name    string   // how the tables name it
	version string   // as its package or itself says
	argv    []string // its command, as seen from its root
	root    string   // the directory that it sees as the root; "" is the machine's
	ours    bool     // gobcc's: it tells by GOBCC_READY_FD when it is ready
	load    []string // more of the load's arguments
	none    bool     // by its options it shows none of the load's events
	control bool     // it takes commands at controlFD, and answers at readyFD
	after   []string // the command that makes its output of what it recorded
	hertz   int      // the rate at which it samples
}

// paths are the names that the load opens or runs, or the ports that it connects to.
type paths struct {
	present, missing string   // the load itself, in turn
	opening          string   // the marks before it
	closing          []string // those after it, one for each CPU that it may run on
}

// bench is what all runs share.
type bench struct {
	scenario *scenario
	self     string // this program
	load     string // the load's program
	dir      string // the directory with the programs
	files    string // that with the files of the load
	cpu      int    // where the load runs
	parents  int    // how many processes make a load, 0 for its own
	stats    bool   // ask the kernel for the run times of BPF programs
}

func (b *bench) paths() paths {
	at := b.scenario.name
	if at == nil {
		at = func(name string) string { return filepath.Join(b.files, name) }
	}
	p := paths{present: at("present"), missing: at("missing"), opening: at("opening")}
	for i := range allowedCPUs() {
		p.closing = append(p.closing, at(fmt.Sprintf("closing-%d", i)))
	}
	return p
}

// closings are the CPUs on which the end of a load is to be marked, and the paths
// for that: a tracer may be behind with the events of one CPU, and not with
// another's.
func (b *bench) closings() (cpus []int, closing []string) {
	closing = b.paths().closing
	if b.parents == 0 {
		return []int{b.cpu}, closing[:1]
	}
	return allowedCPUs(), closing
}

// loadTime is what one load took.
type loadTime struct {
	elapsed time.Duration // for all its events
	busy    time.Duration // for all its events, as its CPU time
	others  time.Duration // the same for as many calls that are no events
}

// mean is what is halfway between two loads.
func mean(a, b loadTime) loadTime {
	return loadTime{(a.elapsed + b.elapsed) / 2, (a.busy + b.busy) / 2, (a.others + b.others) / 2}
}

// run is what was measured of one tracer during one load.
type run struct {
	load     loadTime
	shown    int64         // rows of the load
	saidLost bool          // it wrote that it lost events
	cpu      time.Duration // its user and system time from exec to exit
	memory   memory        // at the end of the load
	maps     uint64        // bytes of kernel memory of its BPF maps beside buffers
	ready    time.Duration // from exec to its word of readiness, 0 without one
	first    time.Duration // from exec to its first row
	programs []programTime // with the kernel's statistics only
	stderr   string        // the end of what it wrote to standard error

	// Of a tool that samples.
	missed int64         // those shown that have no stack
	lost   int64         // how many it wrote that it lost
	depth  int           // of the load's stack, in frames
	output time.Duration // from the end of sampling to that of its output
}

// programTime is what one BPF program of a tracer took in all.
type programTime struct {
	name    string
	count   uint64
	runtime time.Duration
}

// child prepares a process that ends with the bench, however that ends: by the
// context, or by the kernel when this thread is gone. Children must therefore
// be started on the main thread, to which main locks itself.
func child(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// runLoad runs the load once, with more arguments of its own, and returns what it took.
func (b *bench) runLoad(ctx context.Context, more ...string) (loadTime, error) {
	out, err := b.loadCommand(ctx, more...).Output()
	if err != nil {
		return loadTime{}, fmt.Errorf("run the load: %w", err)
	}
	return parseLoadTime(string(out))
}

func (b *bench) loadCommand(ctx context.Context, more ...string) *exec.Cmd {
	cmd := child(ctx, b.load, append(b.scenario.arguments(b, b.paths()), more...)...)
	// The Go runtime's own signals have no place in a tight loop.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	cmd.Stderr = os.Stderr
	return cmd
}

func parseLoadTime(text string) (loadTime, error) {
	var t loadTime
	if _, err := fmt.Sscanln(text, (*int64)(&t.elapsed), (*int64)(&t.busy), (*int64)(&t.others)); err != nil {
		return loadTime{}, fmt.Errorf("times of the load in %q: %w", text, err)
	}
	return t, nil
}

// startMarks starts opening, running or connecting to a path again and again on a CPU, and returns
// the way to end that. The path is not the last argument, or the row of the exec of
// this process would be taken for a mark.
func (b *bench) startMarks(ctx context.Context, cpu int, path string) (stop func(), err error) {
	cmd := child(ctx, b.load, "-mark", path, "-cpu", strconv.Itoa(cpu))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the marks: %w", err)
	}
	return func() {
		// It ends by this signal alone, so neither error says anything.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// spin keeps every CPU busy with a thread of its own until stop is called.
func (b *bench) spin(ctx context.Context) (stop func(), err error) {
	cmd := child(ctx, b.self, spinCommand)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the spinning threads: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	// One byte comes from each thread as it begins.
	if _, err := io.ReadFull(out, make([]byte, runtime.NumCPU())); err != nil {
		stop()
		return nil, fmt.Errorf("wait for the spinning threads: %w", err)
	}
	return stop, nil
}

// spinCommand is the word by which the bench starts itself as the process that
// keeps every CPU busy.
const spinCommand = "spin"

func spinForever() {
	for range runtime.NumCPU() {
		go func() {
			runtime.LockOSThread()
			_, _ = os.Stdout.Write([]byte{'.'})
			for { //nolint:staticcheck // To keep the CPU busy is all it is for.
			}
		}()
	}
	select {}
}

// enableStats has the kernel count the run times of BPF programs until it is closed.
func enableStats() (io.Closer, error) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("turn BPF statistics on (kernel 5.8 or newer, CAP_SYS_ADMIN): %w", err)
	}
	return stats, nil
}

var lostWord = regexp.MustCompile(`(?i)\blost\b`)

// measure runs a tracer with one load, or with none where loaded is false.
func (b *bench) measure(ctx context.Context, t tracer, loaded bool) (run, error) {
	if b.stats {
		stats, err := enableStats()
		if err != nil {
			return run{}, err
		}
		defer stats.Close()
	}
	switch {
	case b.scenario.counted != nil:
		return b.measureCounted(ctx, t, loaded)
	case b.scenario.samples():
		return b.measureSampled(ctx, t, loaded)
	}
	var load loadTime
	rows := newRowCounter(b.scenario, b.paths())
	result, err := b.trace(ctx, t, rows.marks, rows.count, func(ctx context.Context) (err error) {
		if loaded {
			load, err = b.runLoad(ctx, t.load...)
		}
		return err
	})
	if err != nil {
		return run{}, err
	}
	result.load = load
	result.shown = rows.shown
	result.saidLost = rows.saidLost || lostWord.MatchString(result.stderr)
	return result, nil
}

// trace runs a tracer while work is done, and measures it. What it writes is
// read by read, which tells m of each line. The order of things needs no waiting
// by the clock:
//
// A tool that only counts, with no m, has begun when its programs have run, and the
// marks are there for them to do so.
//
// Marks are opened (or run) from before the tracer's exec until the first row of
// one has come through, which is the time of the first event. Then the work is
// done. Then other marks are opened until one of them has come through, by which
// time every row of the work has as well, as each tracer keeps the order of the
// events of one CPU. Only then is the tracer told to end.
func (b *bench) trace(ctx context.Context, t tracer, m *marks, read func(io.Reader) error, work func(context.Context) error) (result run, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", t.name, err)
		}
	}()
	p := b.paths()
	opening := p.opening
	if m == nil {
		opening = diskFile(p)
	}
	stopMarks, err := b.startMarks(ctx, b.cpu, opening)
	if err != nil {
		return run{}, err
	}
	defer func() { stopMarks() }()

	proc, err := b.startTracer(ctx, t, read)
	if err != nil {
		return run{}, err
	}
	defer proc.kill()

	var seen time.Duration
	if m == nil {
		// That of the beginning of a request, and that of its end.
		seen, err = b.awaitCounting(ctx, proc, 2, 2)
	} else {
		seen, err = proc.await(ctx, m.openingSeen, "its first row")
	}
	if err != nil {
		return run{}, err
	}
	result.first = seen - proc.started
	stopMarks()
	if t.ours {
		ready, err := proc.await(ctx, proc.ready, "its word of readiness")
		if err != nil {
			return run{}, err
		}
		result.ready = ready - proc.started
	}

	if err := work(ctx); err != nil {
		return run{}, err
	}

	cpus, closing := b.closings()
	if m == nil { // what has ended is counted
		cpus = nil
	}
	for i, cpu := range cpus {
		stop, err := b.startMarks(ctx, cpu, closing[i])
		if err != nil {
			return run{}, err
		}
		stopMarks = stop
		if _, err := proc.await(ctx, m.closingSeen[i], "the mark after the load"); err != nil {
			return run{}, err
		}
		stopMarks()
	}

	if result.maps, err = mapMemory(proc.cmd.Process.Pid); err != nil {
		return run{}, fmt.Errorf("read the memory of its BPF maps: %w", err)
	}
	if result.memory, err = readMemory(proc.cmd.Process.Pid); err != nil {
		return run{}, fmt.Errorf("read its memory: %w", err)
	}
	if b.stats {
		if result.programs, err = readPrograms(proc.cmd.Process.Pid); err != nil {
			return run{}, fmt.Errorf("read the run times of its BPF programs: %w", err)
		}
	}
	if result.cpu, err = proc.end(ctx, m == nil && !t.ours); err != nil {
		return run{}, err
	}
	result.stderr = proc.stderr.String()
	return result, nil
}

// process is a tracer that runs.
type process struct {
	cmd     *exec.Cmd
	started time.Duration      // the time of its exec
	used    time.Duration      // the CPU time until then
	ready   chan time.Duration // takes the time of its word of readiness
	read    chan error         // closed at the end of its output
	stderr  *lastBytes
	control *os.File // where its commands go; perf ends in an error if that is closed before
}

// startTracer starts a tracer whose output is read by read, and returns once it
// has begun, which is long before it is ready.
func (b *bench) startTracer(ctx context.Context, t tracer, read func(io.Reader) error) (*process, error) {
	output, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	// A smaller pipe is as good, only slower for every tracer alike.
	_, _ = unix.FcntlInt(stdout.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	startedReader, startedWriter, err := os.Pipe()
	if err != nil {
		output.Close()
		return nil, err
	}
	defer startedReader.Close()
	defer startedWriter.Close()
	readyReader, readyWriter, err := os.Pipe()
	if err != nil {
		output.Close()
		return nil, err
	}
	defer readyWriter.Close()

	p := &process{ready: make(chan time.Duration, 1), read: make(chan error, 1), stderr: new(lastBytes)}
	p.cmd = child(ctx, b.self, append([]string{enterCommand, t.root}, t.argv...)...)
	p.cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	p.cmd.Stdout, p.cmd.Stderr = stdout, p.stderr
	p.cmd.ExtraFiles = []*os.File{startedFD - 3: startedWriter, readyFD - 3: readyWriter}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("GOBCC_READY_FD=%d", readyFD))
	if t.control {
		var commands *os.File
		if commands, p.control, err = pingPipe(); err != nil {
			output.Close()
			readyReader.Close()
			return nil, err
		}
		defer commands.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, commands) // as controlFD, the next one
	}
	if err := p.cmd.Start(); err != nil {
		output.Close()
		readyReader.Close()
		p.control.Close()
		return nil, fmt.Errorf("start it: %w", err)
	}
	go func() {
		defer close(p.read)
		defer output.Close()
		if err := read(output); err != nil {
			p.read <- err
		}
	}()
	go func() {
		defer readyReader.Close()
		if n, _ := readyReader.Read(make([]byte, 1)); n == 1 {
			p.ready <- now()
		}
	}()

	// The write end of this process must go, or a tracer that dies before
	// its exec would never end the read.
	startedWriter.Close()
	var started [16]byte
	if _, err := io.ReadFull(startedReader, started[:]); err != nil {
		p.kill()
		return nil, fmt.Errorf("start it: %s", p.stderr)
	}
	p.started = time.Duration(binary.LittleEndian.Uint64(started[:8]))
	p.used = time.Duration(binary.LittleEndian.Uint64(started[8:]))
	return p, nil
}

// pingPipe makes a pipe with perf's command in it to tell that it listens.
func pingPipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if _, err := w.WriteString("ping\n"); err != nil {
		r.Close()
		w.Close()
		return nil, nil, err
	}
	return r, w, nil
}

// await waits for a time to come through a channel, and fails if the tracer
// ends before.
func (p *process) await(ctx context.Context, seen <-chan time.Duration, what string) (time.Duration, error) {
	select {
	case at := <-seen:
		return at, nil
	case err := <-p.read:
		if err != nil {
			return 0, fmt.Errorf("read its output: %w", err)
		}
		// Its error output is whole only once it has been waited for.
		_ = p.cmd.Wait()
		return 0, fmt.Errorf("ended before %s came: %s", what, p.stderr)
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for %s: %w; it wrote: %s", what, ctx.Err(), p.stderr)
	}
}

// end asks the tracer to end as a user at a terminal does, again each second if that is
// wanted, and returns the CPU time that it used.
func (p *process) end(ctx context.Context, again bool) (time.Duration, error) {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, fmt.Errorf("interrupt it: %w", err)
	}
	// libbpf-tools' sleeps on if the first comes just before it begins to sleep.
	done := make(chan struct{})
	defer close(done)
	if again {
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Second):
					_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
				}
			}
		}()
	}
	return p.wait(ctx)
}

// wait waits for the end of the tracer and of its output, and returns the CPU time that it
// used.
func (p *process) wait(ctx context.Context) (time.Duration, error) {
	// The status is not looked at: each tracer has its own for an interrupt.
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for its end: %w", err)
	}
	if ctx.Err() != nil {
		return 0, fmt.Errorf("wait for its end: %w", ctx.Err())
	}
	for err := range p.read {
		return 0, fmt.Errorf("read its output: %w", err)
	}
	usage := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return time.Duration(usage.Utime.Nano()+usage.Stime.Nano()) - p.used, nil
}

// kill ends the tracer if it still runs. It is to be called after end, too.
func (p *process) kill() {
	p.control.Close() // most have none, which is an error of no interest
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// lastBytes keeps the end of what is written to it, and adds up what all of it says of
// losses.
type lastBytes struct {
	mu   sync.Mutex
	tail []byte
	line []byte // the last one, as long as it has no end
	sum  int64  // said lost in those before
}

func (l *lastBytes) Write(p []byte) (int, error) {
	const room = 2 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = append(l.line, p...)
	if end := bytes.LastIndexByte(l.line, '\n') + 1; end > 0 {
		l.sum += saidLost(l.line[:end])
		l.line = slices.Delete(l.line, 0, end)
	}
	l.tail = append(l.tail, p...)
	if extra := len(l.tail) - room; extra > 0 {
		l.tail = slices.Delete(l.tail, 0, extra)
	}
	return len(p), nil
}

// lost is how many are said to be lost in all that was written.
func (l *lastBytes) lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum + saidLost(l.line)
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text := string(bytes.TrimSpace(l.tail)); text != "" {
		return text
	}
	return "nothing on standard error"
}

// readPrograms reads the run times of the BPF programs that a process holds.
func readPrograms(pid int) ([]programTime, error) {
	ids, err := programIDs(pid)
	if err != nil {
		return nil, err
	}
	var all []programTime
	for _, id := range ids {
		p, err := readProgram(ebpf.ProgramID(id))
		if err != nil {
			return nil, fmt.Errorf("BPF program %d: %w", id, err)
		}
		all = append(all, p)
	}
	return mergeCopies(all), nil
}

// mergeCopies makes one of the copies of a program, all of which run for an event:
// it ran as often as one of them, and took as long as all of them together.
func mergeCopies(all []programTime) []programTime {
	byName := map[string]programTime{}
	for _, p := range all {
		q := byName[p.name]
		byName[p.name] = programTime{name: p.name, count: max(p.count, q.count), runtime: p.runtime + q.runtime}
	}
	var programs []programTime
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if byName[name].count > 0 {
			programs = append(programs, byName[name])
		}
	}
	return programs
}

func readProgram(id ebpf.ProgramID) (programTime, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return programTime{}, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return programTime{}, err
	}
	stats, err := program.Stats()
	if err != nil {
		return programTime{}, err
	}
	name := info.Name
	// The kernel cuts a program's name at 15 bytes; its BTF has it whole.
	if funcs, err := info.FuncInfos(); err == nil && len(funcs) > 0 {
		name = funcs[0].Func.Name
	}
	return programTime{name: name, count: stats.RunCount, runtime: stats.Runtime}, nil
}
