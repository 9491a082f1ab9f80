package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/trace"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// tables gives the kernel the tables of the files that run, and tells it which process has
// them mapped where. It is not safe for concurrent use; what takes long is done beside it.
type tables struct {
	kernel *unwind.Kernel
	reader *tableReader
	// wanted tells whose samples there may be; nil for all. What they start is wanted, too,
	// if follow is set.
	wanted map[uint32]bool
	follow bool
	// command is the process that is to execute the command, or 0. What it has mapped before
	// is of no interest, and the kernel would take it for what is there just after.
	command uint32

	files   map[*mappings.File]*tableFile
	listed  map[uint32]*mappings.Process // what the kernel was told last, by pid
	missing map[uint32]bool              // processes of whose list something is to come
	held    []*unwind.Loaded             // tables that no process was yet told to have
	refused []*mappings.File             // that there was no room for
	retried time.Time                    // when they were tried again
	gaps    uint64                       // of the timeline, when all was told

	loads  sync.WaitGroup
	mu     sync.Mutex
	loaded []*tableFile // since last looked
	failed error        // that is not about one file
}

// tableFile is a file and its table.
type tableFile struct {
	file    *mappings.File
	layout  unwind.Layout
	table   *unwind.Loaded
	err     error // why it has none
	pending bool
}

const defaultUnwindMiB, maxUnwindMiB = 64, 4096

func (o *options) defineTableFlags(fs *pflag.FlagSet) {
	fs.UintVar(&o.unwindMiB, "unwind-memory", defaultUnwindMiB, "let the kernel have tables of up to `MIB` in all")
}

func (o *options) checkTableFlags() error {
	if least := uint(unwind.MinMemory >> 20); o.unwindMiB < least || o.unwindMiB > maxUnwindMiB {
		return cli.BadUse("--unwind-memory: %d is not from %d to %d", o.unwindMiB, least, maxUnwindMiB)
	}
	return nil
}

// byTables reports whether the kernel walks user stacks by tables.
func (o *options) byTables() bool {
	return !o.kernelOnly && (o.unwind == unwindTable || o.unwind == unwindAuto)
}

// startTables gives the kernel the tables of all that may be sampled.
func (p *session) startTables(r *trace.Run) error {
	kernel, err := unwind.OpenKernel(r.Map)
	if err != nil {
		return err
	}
	f := p.opts.Filter
	p.engine.tables = newTables(kernel, p.engine.reader, f.PIDs, f.Follow)
	p.engine.tables.command = p.engine.command
	return p.engine.tables.start(p.engine.timeline)
}

func newTables(kernel *unwind.Kernel, reader *tableReader, pids []uint32, follow bool) *tables {
	t := &tables{
		kernel: kernel, reader: reader, follow: follow,
		files: map[*mappings.File]*tableFile{}, listed: map[uint32]*mappings.Process{}, missing: map[uint32]bool{},
	}
	if len(pids) > 0 {
		t.wanted = map[uint32]bool{}
		for _, pid := range pids {
			t.wanted[pid] = true
		}
	}
	return t
}

// start loads the tables of all that run now, and waits for them.
func (t *tables) start(timeline *mappings.Timeline) error {
	for _, p := range timeline.Processes() {
		if t.wants(p.PID) {
			for _, m := range p.Mappings() {
				t.file(m.File)
			}
		}
	}
	t.loads.Wait()
	t.arrived()
	defer t.release()
	return t.tellAll(timeline)
}

// release lets go of tables that are of use to a process by now, or to none.
func (t *tables) release() {
	for _, l := range t.held {
		t.kernel.Release(l)
	}
	t.held = nil
}

// summary says what there was no room for.
func (t *tables) summary() string {
	var b strings.Builder
	c := t.kernel.Counts()
	more := func(n int, format string) {
		if n > 0 {
			fmt.Fprintf(&b, format, n)
		}
	}
	more(c.RefusedTables, "; --unwind-memory had no room for the tables of files, %d times")
	more(c.RefusedProcesses, "; --unwind-memory had no room for what processes have mapped, %d times")
	more(c.RefusedRules, "; %d rules for unwinding were one too many")
	return b.String()
}

// close waits for what is being done.
func (t *tables) close() {
	t.loads.Wait()
	t.kernel.Close()
}

func (t *tables) wants(pid uint32) bool { return t.wanted == nil || t.wanted[pid] }

// tellAll tells the kernel of all processes, and forgets those that are gone.
func (t *tables) tellAll(timeline *mappings.Timeline) error {
	t.gaps = timeline.Gaps
	var errs []error
	for pid := range t.listed {
		if timeline.Processes()[pid] == nil {
			errs = append(errs, t.forget(pid))
		}
	}
	for _, p := range timeline.Processes() {
		errs = append(errs, t.tell(p))
	}
	return errors.Join(errs...)
}

// update takes in what has changed: fresh are the records that have been read since it was
// last called, pending all that the timeline has still to apply.
func (t *tables) update(timeline *mappings.Timeline, pending, fresh []*perfevent.Record) error {
	changed := map[uint32]bool{}
	for _, r := range fresh {
		if r.Kind == perfevent.Fork && t.follow && t.wanted[r.PPID] && r.PID != r.PPID {
			t.wanted[r.PID] = true
		}
		if r.Kind != perfevent.Lost && r.Kind != perfevent.Cgroup {
			changed[r.PID] = true
		}
	}
	var errs []error
	if len(changed) > 0 {
		ahead := timeline.Ahead(pending)
		for pid := range changed {
			if p := ahead[pid]; p != nil {
				errs = append(errs, t.tell(p))
			}
		}
	}
	if t.arrived() || t.retry() {
		for pid := range t.missing {
			if p := t.listed[pid]; p != nil {
				errs = append(errs, t.tell(p))
			} else {
				delete(t.missing, pid)
			}
		}
	}
	t.release()
	t.mu.Lock()
	errs = append(errs, t.failed)
	t.failed = nil
	t.mu.Unlock()
	return errors.Join(errs...)
}

// retry has the files loaded once more that there was no room for, once in a while.
func (t *tables) retry() bool {
	if len(t.refused) == 0 || time.Since(t.retried) < 5*time.Second {
		return false
	}
	t.retried = time.Now()
	for _, f := range t.refused {
		delete(t.files, f)
	}
	t.refused = nil
	return true
}

// check looks at a sample that was walked by tables: the kernel may not have known yet that
// something else was mapped where a frame is, and then the walk is wrong from there on.
func (t *tables) check(s *sample, p *mappings.Process) error {
	if s.Mapped != 0 {
		for i, addr := range s.User {
			m, ok := p.Find(addr - caller(i))
			if ok && !p.Knew(s.Mapped, m) {
				s.User, s.Status = s.User[:i+1], statusNoMapping
				break
			}
		}
	}
	if n := len(s.User); s.Status == statusNoTable && n > 0 {
		if m, ok := p.Find(s.User[n-1] - caller(n-1)); ok {
			if f := t.files[m.File]; f != nil && f.err != nil && !f.pending {
				t.reader.complain(m.File, f.err)
			}
		}
	}
	// More may have been found out of the process than the kernel was told.
	if last := t.listed[p.PID]; s.Status != statusNoMapping || last != nil && last.Changed() >= p.Changed() {
		return nil
	}
	return t.tell(p)
}

// resynced is to be called when the timeline may have read all again.
func (t *tables) resynced(timeline *mappings.Timeline) error {
	if timeline.Gaps == t.gaps {
		return nil
	}
	return t.tellAll(timeline)
}

// tell gives the kernel what a process has mapped.
func (t *tables) tell(p *mappings.Process) error {
	if !t.wants(p.PID) || p.Kernel || p.PID == t.command && p.Execs == 0 {
		return nil
	}
	if p.Ended() {
		return t.forget(p.PID)
	}
	t.listed[p.PID] = p
	delete(t.missing, p.PID)
	maps := p.Mappings()
	areas := make([]unwind.Area, len(maps))
	for i, m := range maps {
		areas[i] = t.area(m)
		if areas[i].Table == nil && areas[i].Without == unwind.Pending {
			t.missing[p.PID] = true
		}
	}
	complete, err := t.kernel.Map(p.PID, p.Changed(), areas)
	if !complete {
		t.missing[p.PID] = true
	}
	if errors.Is(err, unwind.ErrNoRoom) {
		return nil // which is counted
	}
	return err
}

func (t *tables) forget(pid uint32) error {
	delete(t.listed, pid)
	delete(t.missing, pid)
	delete(t.wanted, pid)
	return t.kernel.Forget(pid)
}

// area tells what is to be known of a mapping.
func (t *tables) area(m mappings.Mapping) unwind.Area {
	a := unwind.Area{Start: m.Start, End: m.End, Without: unwind.None}
	switch m.File.Kind {
	case mappings.Anonymous, mappings.Memfd:
		a.Without = unwind.Anonymous
	case mappings.Regular, mappings.VDSO:
		f := t.file(m.File)
		if f.pending {
			a.Without = unwind.Pending
			break
		}
		if f.err != nil {
			break
		}
		if addr, ok := f.layout.Segments.Address(m.Offset); ok {
			a.Table, a.Address = f.table, addr
		}
	}
	return a
}

// file gives what is known of a file; if nothing is, it begins to load its table.
func (t *tables) file(f *mappings.File) *tableFile {
	if f.Kind != mappings.Regular && f.Kind != mappings.VDSO {
		return nil
	}
	known := t.files[f]
	if known != nil && (known.table == nil || !t.kernel.Gone(known.table)) {
		return known
	}
	known = &tableFile{file: f, pending: true}
	t.files[f] = known
	read := t.reader.later(f)
	t.loads.Go(func() {
		loaded := &tableFile{file: f}
		loaded.load(t, read)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.loaded = append(t.loaded, loaded)
	})
	return known
}

// arrived takes in the tables that have been loaded, and reports whether there were any.
func (t *tables) arrived() bool {
	t.mu.Lock()
	loaded := t.loaded
	t.loaded = nil
	t.mu.Unlock()
	for _, f := range loaded {
		*t.files[f.file] = *f
		if f.table != nil {
			t.held = append(t.held, f.table)
		}
		if errors.Is(f.err, unwind.ErrNoRoom) {
			t.refused = append(t.refused, f.file)
		}
	}
	return len(loaded) > 0
}

// load gives the kernel a file's table.
func (f *tableFile) load(t *tables, read func() (*unwind.Table, error)) {
	table, err := read()
	if err == nil {
		f.layout = table.Layout
		f.table, err = t.kernel.Load(table)
		if f.pending = errors.Is(err, unwind.ErrNoRoom); err != nil && !f.pending {
			t.mu.Lock()
			t.failed = errors.Join(t.failed, err)
			t.mu.Unlock()
		}
	}
	f.err = err
}
