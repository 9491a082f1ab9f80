// Package mappings tells which file the code of a process is from, at each moment: also of
// processes that live for a short time, have ended, or see other files than the tool does.
package mappings

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// Options are what a Timeline may be told.
type Options struct {
	// Wanted, if it is not nil, tells which processes are of interest; so are those that
	// they start. Of others nothing is kept.
	Wanted func(pid uint32) bool
	// Leaving, if it is not nil, is called when a process is about to execute another
	// program or to be taken as ended: what was mapped is still there to be found.
	Leaving func(p *Process)
}

// Timeline holds what each process has mapped at one moment, which goes forward with each
// record that is applied. Pids are those of the pid namespace that the tool is in, as they
// are in perf's records and in /proc. It is not safe for concurrent use.
type Timeline struct {
	Options
	// Lost is how many records were lost, and Gaps how many times some were: until Resync,
	// names may be missing, or be those of what was mapped before.
	Lost, Gaps uint64

	proc      string
	processes map[uint32]*Process
	files     *files
	ended     []ending // in the order of time
	cgroups   map[uint64]string
	now       uint64 // of the last record
	tick      uint64 // nanoseconds
	lost      bool   // since the last resync
	synced    time.Time
}

// ending is a process whose main thread has ended.
type ending struct {
	process *Process
	time    uint64
}

// keep is for how long after its end a process is known by its pid, in nanoseconds: the
// samples of one CPU may come after the records of another.
const keep = 5e9

// most is how many of a kind are remembered, against what a hostile process may do: more
// than vm.max_map_count lets a process map by default.
const most = 1 << 16

// New gives a Timeline in which nothing is mapped.
func New(options Options) *Timeline {
	const proc = "/proc"
	return &Timeline{
		Options: options, proc: proc, files: newFiles(proc),
		processes: map[uint32]*Process{}, cgroups: map[uint64]string{},
		tick: 1e9 / 100, // USER_HZ, on all that Go runs on
	}
}

// Close lets go of the files.
func (t *Timeline) Close() error {
	t.files.close()
	return nil
}

// Snapshot reads from /proc what these processes have mapped now, or all if pids is nil. It
// is to be called after the sideband was opened and before the first sample; records that
// are older than what it finds do no harm. Its error is about what will be missing, and no
// reason to stop, unless no process could be read. It wraps fs.ErrPermission if that is of
// processes that may not be read, which are Denied.
func (t *Timeline) Snapshot(pids []uint32) error {
	if pids == nil {
		var err error
		if pids, err = t.pids(); err != nil {
			return err
		}
	}
	var denied, read int
	var first *Process
	for _, pid := range pids {
		if t.Wanted != nil && !t.Wanted(pid) && t.processes[pid] == nil {
			continue
		}
		p, err := t.read(pid)
		switch {
		case err == nil:
			read++
		case errors.Is(err, fs.ErrPermission):
			denied++
			if first == nil {
				first = p
			}
		}
	}
	if denied > 0 && first != nil {
		return fmt.Errorf("read what %d of %d processes have mapped, as process %d (%s): %w (it takes CAP_SYS_PTRACE, and no fewer capabilities than the process has)",
			denied, denied+read, first.PID, output.AppendEscaped(nil, []byte(first.Comm)), fs.ErrPermission)
	}
	return nil
}

// read reads a process from /proc.
func (t *Timeline) read(pid uint32) (*Process, error) {
	since := perfevent.Now()
	st, err := t.readStat(pid)
	if err != nil {
		return nil, err
	}
	p := t.processes[pid]
	if p == nil || !t.same(p, st.start) {
		p = &Process{PID: pid}
	}
	var maps []Mapping
	denied := error(nil)
	root, _ := os.Readlink(t.path(pid, "root"))
	if !st.kernel {
		if maps, denied = t.readMaps(pid, root, since); denied != nil && !errors.Is(denied, fs.ErrPermission) {
			return nil, denied
		}
	}
	p.PPID, p.Comm, p.Kernel, p.threads, p.start = st.ppid, st.comm, st.kernel, st.threads, st.start
	if denied == nil {
		p.maps, p.shared, p.changed = maps, false, since
	}
	p.Partial, p.Denied = denied != nil, denied != nil
	p.since, p.ended, p.fresh = since, false, false
	t.processes[pid] = p
	if exe, err := os.Readlink(t.path(pid, "exe")); err == nil {
		p.Exe = strings.TrimSuffix(seen(root, exe), deletedSuffix)
	}
	return p, denied
}

// same tells whether a process that started at this tick is p and not another that has got
// its number.
func (t *Timeline) same(p *Process, start uint64) bool {
	if p.start != 0 {
		return p.start == start
	}
	if p.born == 0 {
		return true
	}
	// The tick is of CLOCK_BOOTTIME, which goes on while the machine sleeps.
	var boot unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) // can't fail: the clock exists and the pointer is good
	born := p.born + uint64(boot.Nano()) - perfevent.Now()
	const slack = 2
	return start <= born/t.tick+slack
}

// readMaps reads what a process has mapped. That its main thread has ended hides it from
// its own maps, but not from those of its other threads.
func (t *Timeline) readMaps(pid uint32, root string, since uint64) ([]Mapping, error) {
	maps, err := t.readMapsOf(pid, "maps", root, since)
	if err != nil || len(maps) > 0 {
		return maps, err
	}
	threads, _ := os.ReadDir(t.path(pid, "task"))
	for _, thread := range threads {
		if maps, err := t.readMapsOf(pid, "task/"+thread.Name()+"/maps", root, since); err == nil && len(maps) > 0 {
			return maps, nil
		}
	}
	return nil, nil
}

func (t *Timeline) readMapsOf(pid uint32, name, root string, since uint64) ([]Mapping, error) {
	f, err := os.Open(t.path(pid, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var regions []region
	if err := parseMaps(f, func(r region) { regions = append(regions, r) }); err != nil {
		return nil, err
	}
	var maps []Mapping
	for _, r := range regions {
		if r.start >= vsyscallStart {
			continue
		}
		file := t.files.find(sight{pid: pid, start: r.start, end: r.end, path: seen(root, r.path),
			major: r.major, minor: r.minor, inode: r.inode})
		maps = append(maps, Mapping{r.start, r.end, r.offset, file, since})
	}
	return maps, nil
}

// seen is a path of /proc as the process sees it: what has another root is shown there as
// we see it.
func seen(root, path string) string {
	if root == "/" || !strings.HasPrefix(path, "/") {
		return path
	}
	if rest, ok := strings.CutPrefix(path, root); ok && strings.HasPrefix(rest, "/") {
		return rest
	}
	return path
}

// Hold opens the file that a record says was mapped, if it is not held yet. It may be called
// as soon as the record is read, before it is its turn to be applied: the sooner, the likelier
// it is that a short-lived process is still there to give its file.
func (t *Timeline) Hold(r *perfevent.Record) {
	if r.Kind == perfevent.Mmap && t.keeps(r) {
		t.files.find(sightOf(r))
	}
}

// keeps tells whether a record is of a process that is of interest.
func (t *Timeline) keeps(r *perfevent.Record) bool {
	// The pid is 0 for what runs outside of our namespace, and -1 for a task that is
	// not a process any more.
	if r.PID == 0 || int32(r.PID) < 0 {
		return false
	}
	return t.Wanted == nil || t.Wanted(r.PID) || t.processes[r.PID] != nil ||
		r.Kind == perfevent.Fork && t.processes[r.PPID] != nil
}

// Apply takes in a record. They are to be applied in the order of time.
func (t *Timeline) Apply(r *perfevent.Record) {
	t.now = max(t.now, r.Time)
	t.forget()
	switch r.Kind {
	case perfevent.Lost:
		t.lost = true
		t.Lost += r.Lost
		t.Gaps++
		return
	case perfevent.Cgroup:
		if len(t.cgroups) >= most {
			clear(t.cgroups)
		}
		t.cgroups[r.CgroupID] = r.Path
		return
	}
	if !t.keeps(r) {
		return
	}
	p := t.processes[r.PID]
	if p != nil && r.Time < p.since {
		return
	}
	if r.Kind == perfevent.Fork && r.TID == r.PID {
		t.fork(r)
		return
	}
	if p == nil {
		if r.Kind == perfevent.Exit {
			return
		}
		p = &Process{PID: r.PID, Partial: true, threads: 1}
		t.processes[r.PID] = p
	}
	switch r.Kind {
	case perfevent.Fork:
		p.threads++
	case perfevent.Exit:
		p.threads--
		if r.TID == r.PID {
			p.ended = true
			if t.Leaving != nil {
				t.Leaving(p)
			}
			t.ended = append(t.ended, ending{p, r.Time})
		}
	case perfevent.Comm:
		if r.Exec {
			t.exec(p, r.Time)
		}
		if r.TID == r.PID {
			p.Comm = r.Comm
		}
	case perfevent.Mmap:
		t.mmap(p, r)
	}
}

func (t *Timeline) fork(r *perfevent.Record) {
	p := &Process{PID: r.PID, PPID: r.PPID, born: r.Time, threads: 1, Partial: true}
	if parent := t.processes[r.PPID]; parent != nil {
		p.Exe, p.Kernel = parent.Exe, parent.Kernel
		if r.PTID == r.PPID {
			p.Comm = parent.Comm // A child has the name of the thread that made it.
		}
		parent.fork(p)
	}
	t.processes[r.PID] = p
}

func (t *Timeline) exec(p *Process, now uint64) {
	if t.Leaving != nil {
		t.Leaving(p)
	}
	p.clear(now)
	p.Execs++
	p.Exe = ""
	p.Kernel, p.Partial, p.Denied, p.fresh = false, false, false, false
	// Another thread that executes a program goes on as the main thread, whatever became
	// of that.
	p.threads, p.ended = 1, false
}

func sightOf(r *perfevent.Record) sight {
	return sight{pid: r.PID, start: r.Addr, end: r.Addr + r.Len, path: r.Path, major: r.Major, minor: r.Minor,
		inode: r.Inode, gen: r.InodeGeneration, buildID: hex.EncodeToString(r.BuildID)}
}

func (t *Timeline) mmap(p *Process, r *perfevent.Record) {
	if r.Len == 0 || r.Addr+r.Len < r.Addr {
		return
	}
	file := t.files.find(sightOf(r))
	if p.Exe == "" && file.Kind == Regular {
		p.Exe = strings.TrimSuffix(r.Path, deletedSuffix) // It is mapped before its loader.
	}
	p.insert(Mapping{r.Addr, r.Addr + r.Len, r.Offset, file, r.Time})
	p.changed = r.Time
	if len(p.maps) > most {
		// No process has as many. They are gone, which is not told.
		p.clear(r.Time)
		p.Partial = true
		_, _ = t.read(p.PID) // An error is said by Partial.
	}
}

// Ahead gives the processes that these records are about, each as it will be once they are
// all applied, by pid: what is there now is known before it is its turn. The records may be
// in any order. What it gives is not of the Timeline, and doesn't change.
func (t *Timeline) Ahead(records []*perfevent.Record) map[uint32]*Process {
	ahead := Timeline{
		Options: Options{Wanted: t.Wanted}, proc: t.proc, files: t.files, tick: t.tick,
		processes: map[uint32]*Process{}, cgroups: map[uint64]string{},
	}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b *perfevent.Record) int { return cmp.Compare(a.Time, b.Time) })
	for _, r := range records {
		for _, pid := range []uint32{r.PID, r.PPID} {
			if p := t.processes[pid]; p != nil && ahead.processes[pid] == nil {
				p.shared = true
				ahead.processes[pid] = new(*p)
			}
		}
	}
	for _, r := range records {
		ahead.Apply(r)
	}
	return ahead.processes
}

// Processes gives all that are known, by pid. The map is the Timeline's.
func (t *Timeline) Processes() map[uint32]*Process { return t.processes }

// forget removes processes that have ended long enough ago.
func (t *Timeline) forget() {
	for len(t.ended) > 0 && t.ended[0].time+keep < t.now {
		p := t.ended[0].process
		t.ended = t.ended[1:]
		// Other threads may go on without the main thread.
		if p.ended && p.threads <= 0 && t.processes[p.PID] == p {
			delete(t.processes, p.PID)
		}
	}
}

// Process gives the process with a pid. One that nothing is known of is looked for in
// /proc; if it is not there either, what is returned has its pid and nothing else.
func (t *Timeline) Process(pid uint32) *Process {
	p := t.processes[pid]
	if p == nil || p.Partial && !p.sought {
		if read, _ := t.read(pid); read != nil { // An error is said by Partial.
			p = read
		}
	}
	if p == nil {
		p = &Process{PID: pid, Partial: true}
		t.processes[pid] = p
		t.ended = append(t.ended, ending{p, t.now})
		p.ended = true
	}
	p.sought = true
	if !p.fresh {
		p.fresh = true
		t.describe(p)
	}
	return p
}

// describe reads of a process what no record tells.
func (t *Timeline) describe(p *Process) {
	st, err := t.readStat(p.PID)
	if err != nil || !t.same(p, st.start) {
		return
	}
	if text, err := os.ReadFile(t.path(p.PID, "cgroup")); err == nil {
		p.Cgroup = parseCgroup(string(text))
		p.Container = ContainerID(p.Cgroup)
	}
	var ns unix.Stat_t
	if err := unix.Stat(t.path(p.PID, "ns/mnt"), &ns); err == nil {
		p.MountNS = ns.Ino
	}
}

// Cgroup gives the path of a cgroup that was made while records were applied; ok is false
// for those that were there before.
func (t *Timeline) Cgroup(id uint64) (path string, ok bool) {
	path, ok = t.cgroups[id]
	return path, ok
}

// Resync reads all again if records were lost since it last did, at most once a second. It
// is to be called every now and then; with nothing lost it costs nothing. Processes that may
// not be read are no error: Snapshot has told of them.
func (t *Timeline) Resync() error {
	if !t.lost || time.Since(t.synced) < time.Second {
		return nil
	}
	t.lost, t.synced = false, time.Now()
	start := perfevent.Now()
	err := t.Snapshot(nil)
	if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	for _, p := range t.processes {
		// What it did not find has ended, though no record says so.
		if p.since < start && !p.ended {
			if st, err := t.readStat(p.PID); err != nil || !t.same(p, st.start) {
				p.ended, p.threads = true, 0
				t.ended = append(t.ended, ending{p, t.now})
			}
		}
	}
	return err
}
