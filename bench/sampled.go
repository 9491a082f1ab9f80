package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A tool that samples has no events of the load's: how many samples of it there should be
// follows from its CPU time and the rate. It writes all at its end, when it has looked up
// the names of what it saw.

// atRates gives each tracer at each rate.
func atRates(tracers []tracer, rates []int) []tracer {
	var all []tracer
	for _, hertz := range rates {
		for _, t := range tracers {
			t.hertz = hertz
			all = append(all, t)
		}
	}
	return all
}

// fillIn puts the rate and a file into a tracer's commands.
func (t tracer) fillIn(file string) tracer {
	r := strings.NewReplacer(hertzHere, strconv.Itoa(t.hertz), fileHere, file)
	fill := func(args []string) (filled []string) {
		for _, arg := range args {
			filled = append(filled, r.Replace(arg))
		}
		return filled
	}
	t.argv, t.after = fill(t.argv), fill(t.after)
	return t
}

// sampleRows adds up what a tracer shows of the load.
type sampleRows struct {
	key    string
	comm   []byte
	shown  int64
	missed int64         // of those, without a stack of theirs
	frames map[int]int64 // how many have so many
	lost   int64
}

func (s *sampleRows) read(r io.Reader) error {
	return eachLine(r, func(line []byte) {
		row := sampleLine(s.key, s.comm, line)
		s.shown += row.samples
		if row.missed {
			s.missed += row.samples
		} else {
			s.frames[row.frames] += row.samples
		}
		s.lost += row.lost
	})
}

// depth is how many frames most of the samples have.
func (s *sampleRows) depth() (most int) {
	for frames, samples := range s.frames {
		if samples > s.frames[most] || samples == s.frames[most] && frames > most {
			most = frames
		}
	}
	return most
}

// holdLoad is runLoad for a load that waits with its process still there until release is
// called.
func (b *bench) holdLoad(ctx context.Context, more ...string) (t loadTime, release func(), err error) {
	cmd := b.loadCommand(ctx, more...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return loadTime{}, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return loadTime{}, nil, err
	}
	if err := cmd.Start(); err != nil {
		return loadTime{}, nil, fmt.Errorf("run the load: %w", err)
	}
	release = func() {
		stdin.Close()
		_ = cmd.Wait() // it has done all that is wanted of it
	}
	text, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		t, err = parseLoadTime(text)
	}
	if err != nil {
		release()
		return loadTime{}, nil, fmt.Errorf("run the load: %w", err)
	}
	return t, release, nil
}

// measureSampled is measure for a tool that samples.
func (b *bench) measureSampled(ctx context.Context, t tracer, loaded bool, more ...string) (result run, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s at %d Hertz: %w", t.name, t.hertz, err)
		}
	}()
	file := filepath.Join(b.files, "samples")
	defer os.Remove(file)
	t = t.fillIn(file)
	rows := &sampleRows{key: t.key, comm: []byte(b.scenario.comm), frames: map[int]int64{}}
	proc, err := b.startTracer(ctx, t, rows.read)
	if err != nil {
		return run{}, err
	}
	defer proc.kill()
	if !t.control { // which has no program
		seen, err := b.awaitCounting(ctx, proc, 1, 1)
		if err != nil {
			return run{}, err
		}
		result.first = seen - proc.started
	}
	if t.ours || t.control {
		ready, err := proc.await(ctx, proc.ready, "its word of readiness")
		if err != nil {
			return run{}, err
		}
		result.ready = ready - proc.started
	}

	var before []programTime
	if b.stats {
		if before, err = readPrograms(proc.cmd.Process.Pid); err != nil {
			return run{}, fmt.Errorf("read the run times of its BPF programs: %w", err)
		}
	}
	if loaded {
		load, release, err := b.holdLoad(ctx, more...)
		if err != nil {
			return run{}, err
		}
		defer release()
		result.load = load
	}
	if b.stats {
		after, err := readPrograms(proc.cmd.Process.Pid)
		if err != nil {
			return run{}, fmt.Errorf("read the run times of its BPF programs: %w", err)
		}
		result.programs = since(before, after)
	}
	if result.maps, err = mapMemory(proc.cmd.Process.Pid); err != nil {
		return run{}, fmt.Errorf("read the memory of its BPF maps: %w", err)
	}
	if result.memory, err = readMemory(proc.cmd.Process.Pid); err != nil {
		return run{}, fmt.Errorf("read its memory: %w", err)
	}

	// From here on it looks up names and writes.
	peak := watchPeak(proc.cmd.Process.Pid)
	asked := now()
	result.cpu, err = proc.end(ctx, t.key == "libbpf")
	result.output = now() - asked
	result.memory.peak = max(result.memory.peak, peak())
	if err != nil {
		return run{}, err
	}
	result.lost = proc.stderr.lost()
	if len(t.after) > 0 {
		if err := b.runAfter(ctx, t, rows.read, &result); err != nil {
			return run{}, fmt.Errorf("%s: %w", strings.Join(t.after, " "), err)
		}
	}
	result.shown, result.missed, result.depth = rows.shown, rows.missed, rows.depth()
	result.lost += rows.lost
	return result, nil
}

// runAfter runs what makes a tracer's output of what it has recorded, and adds that to
// what it took.
func (b *bench) runAfter(ctx context.Context, t tracer, read func(io.Reader) error, result *run) error {
	t.argv, t.control = t.after, false
	proc, err := b.startTracer(ctx, t, read)
	if err != nil {
		return err
	}
	defer proc.kill()
	peak := watchPeak(proc.cmd.Process.Pid)
	used, err := proc.wait(ctx)
	result.output += now() - proc.started
	result.memory.peak = max(result.memory.peak, peak())
	result.cpu += used
	if err == nil && !proc.cmd.ProcessState.Success() {
		err = fmt.Errorf("%v: %s", proc.cmd.ProcessState, proc.stderr)
	}
	result.lost += proc.stderr.lost()
	return err
}

// watchPeak reads the largest resident set of a process, every two milliseconds, until the
// process is gone or peak is called, which gives it.
func watchPeak(pid int) (peak func() uint64) {
	stop, last := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err == nil {
				var n uint64
				if n, err = peakResident(strings.NewReader(string(status))); err == nil {
					most = n
				}
			}
			var again <-chan time.Time
			if err == nil { // else it has ended
				again = time.After(2 * time.Millisecond)
			}
			select {
			case <-again:
			case <-stop:
				last <- most
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-last
	}
}

// depthCost is what the BPF programs of a tracer took of a sample, at one rate.
type depthCost struct {
	tracer tracer
	ns     []float64 // for each of the scenario's depths
	depths []int     // as the tracer shows them; 0 where it doesn't tell
}

// depthCosts measures that with every CPU at work for the load, so that hardly a sample is
// of something else: the kernel's statistics don't tell them apart.
func (b *bench) depthCosts(ctx context.Context, tracers []tracer) ([]depthCost, error) {
	stats, err := enableStats()
	if err != nil {
		return nil, err
	}
	defer stats.Close()
	b.stats = true
	defer func() { b.stats = false }()
	var all []depthCost
	for _, t := range tracers {
		if t.control { // it has no programs
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s: BPF time of a sample by depth: %s at %d Hertz\n", b.scenario.tool, t.name, t.hertz)
		c := depthCost{tracer: t}
		for _, depth := range b.scenario.depths {
			r, err := b.measureSampled(ctx, t, true, "-cpu", "-1", "-threads", strconv.Itoa(len(allowedCPUs())), "-depth", strconv.Itoa(depth))
			if err != nil {
				return nil, err
			}
			ns, err := sampleTime(r.programs)
			if err != nil {
				return nil, fmt.Errorf("%s at %d Hertz: %w", t.name, t.hertz, err)
			}
			c.ns, c.depths = append(c.ns, ns), append(c.depths, r.depth)
		}
		all = append(all, c)
	}
	return all, nil
}

// since takes off what programs had run for before.
func since(before, after []programTime) []programTime {
	var all []programTime
	for _, p := range after {
		if i := slices.IndexFunc(before, func(q programTime) bool { return q.name == p.name }); i >= 0 {
			p.count, p.runtime = p.count-before[i].count, p.runtime-before[i].runtime
		}
		all = append(all, p)
	}
	return all
}

// sampleTime is what the programs of a tracer took of a sample, in nanoseconds. The one
// that ran most is that of the samples.
func sampleTime(programs []programTime) (float64, error) {
	var samples uint64
	var sum time.Duration
	for _, p := range programs {
		samples = max(samples, p.count)
		sum += p.runtime
	}
	if samples == 0 {
		return 0, errors.New("none of its programs ran")
	}
	return float64(sum) / float64(samples), nil
}
