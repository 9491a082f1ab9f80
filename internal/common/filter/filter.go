// Package filter picks the tasks to trace, in the kernel: it is the other half of
// bpf/headers/filter.bpf.h and follow.bpf.h.
package filter

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/constants"
	"github.com/gobcc/gobcc/internal/common/manual"
)

// The names in filter.bpf.h.
const (
	pidsMap      = "pids"
	cgroupsMap   = "cgroups"
	cgroupMapMap = "cgroup_map"
	mntnsMapMap  = "mntns_map"
	commSize     = 16
	maxCgroups   = 64
)

// Filter is what the user asked for. Flags that were not given filter nothing.
type Filter struct {
	PIDs      []uint32
	Follow    bool // and what these processes start
	tid       uint32
	user      string
	comm      string
	commFlag  *pflag.Flag // nil if the tool has another --name, or none
	cgroups   []string
	cgroupMap string
	mntnsMap  string

	fs      *pflag.FlagSet
	opened  []*ebpf.Map // pinned maps
	fds     []*os.File  // cgroups
	checked bool        // the picked processes were there when all was attached
}

// Flags defines the flags that every tool has: --cgroup, --cgroupmap, --mntnsmap
// and --follow. The others have letters that differ from tool to tool; cgroup is the
// letter of --cgroup, or "".
func Flags(fs *pflag.FlagSet, cgroup string) *Filter {
	f := &Filter{fs: fs}
	fs.StringArrayVarP(&f.cgroups, "cgroup", cgroup, nil, "only tasks in this cgroup v2 `PATH|ID` and below (repeatable)")
	fs.StringVar(&f.cgroupMap, "cgroupmap", "", "only tasks whose cgroup is in this pinned BPF `MAP`")
	fs.StringVar(&f.mntnsMap, "mntnsmap", "", "only tasks whose mount namespace is in this pinned BPF `MAP`")
	fs.BoolVar(&f.Follow, "follow", false, "with a process picked, also all that it starts from now on")
	manual.Place(fs, manual.Filters, "cgroup", "cgroupmap", "mntnsmap")
	manual.Place(fs, manual.Following, "follow")
	manual.Completes(fs, "cgroup", manual.Directory)
	manual.Completes(fs, "cgroupmap", manual.File)
	manual.Completes(fs, "mntnsmap", manual.File)
	return f
}

// PIDFlag defines --pid with the tool's letter.
func (f *Filter) PIDFlag(letter string) {
	f.fs.VarP((*pidList)(&f.PIDs), "pid", letter, "only the processes `PID`[,PID...] (repeatable)")
	manual.Completes(f.fs, "pid", manual.PID)
}

// TIDFlag defines --tid with the tool's letter.
func (f *Filter) TIDFlag(letter string) {
	f.fs.VarP((*pid)(&f.tid), "tid", letter, "only the thread `TID`")
	manual.Completes(f.fs, "tid", manual.PID)
}

// UserFlag defines --uid with the tool's letter.
func (f *Filter) UserFlag(letter string) {
	f.fs.StringVarP(&f.user, "uid", letter, "", "only tasks of `USER`, by name or number")
	manual.Completes(f.fs, "uid", manual.User)
}

// CommFlag defines --name with the tool's letter.
func (f *Filter) CommFlag(letter string) {
	f.fs.StringVarP(&f.comm, "name", letter, "", "only tasks whose comm has `TEXT` in it")
	f.commFlag = f.fs.Lookup("name")
}

// TID is the thread asked for, or 0.
func (f *Filter) TID() uint32 { return f.tid }

// Picks reports whether single processes are picked, with -p or by a command.
func (f *Filter) Picks() bool { return len(f.PIDs) > 0 }

// PicksTasks reports whether any filter looks at the task at work, or will when a
// command is picked.
func (f *Filter) PicksTasks() bool {
	return len(f.cgroups) > 0 || f.picksOtherwise()
}

// picksOtherwise reports whether any filter but --cgroup looks at tasks.
func (f *Filter) picksOtherwise() bool {
	return f.Picks() || f.tid != 0 || f.fs.Changed("uid") || f.commFlag != nil && f.commFlag.Changed || f.cgroupMap != "" || f.mntnsMap != ""
}

// OnlyCgroups gives the ids of the cgroups asked for, if nothing else is asked of
// tasks. Call it after Apply.
func (f *Filter) OnlyCgroups() ([]uint64, error) {
	if f.picksOtherwise() {
		return nil, nil
	}
	var ids []uint64
	for _, dir := range f.fds {
		var st unix.Stat_t
		if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
			return nil, fmt.Errorf("find the id of a cgroup: %w", err)
		}
		ids = append(ids, st.Ino)
	}
	return ids, nil
}

// Hooks are what keeps the picked processes up to date, if any are: one that ends
// leaves them, so that another which gets its number is not taken for it. exits
// says that the tool sees to the ends itself.
func (f *Filter) Hooks(exits bool) []attach.Hook {
	var programs []string
	sees := "the end of a process"
	if f.Picks() && !exits {
		programs = append(programs, "follow_exit")
	}
	if f.Follow {
		programs, sees = append(programs, "follow_fork"), "what the processes start"
	}
	if len(programs) == 0 {
		return nil
	}
	return []attach.Hook{{
		Name: "follow", Sees: sees,
		Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: programs, Repeatable: programs}},
	}}
}

// Apply sets the filters in a spec that is not loaded yet, and gives the pinned
// maps that take the place of its own. Errors name the flag at fault.
func (f *Filter) Apply(spec *ebpf.CollectionSpec) (replace map[string]*ebpf.Map, err error) {
	if f.Follow && len(f.PIDs) == 0 {
		return nil, errors.New("--follow needs a process to follow: -p PID, or -- COMMAND")
	}
	for _, p := range f.PIDs {
		switch leader := processOf(p); leader {
		case p:
		case 0:
			return nil, fmt.Errorf("--pid: there is no process %d", p)
		default:
			return nil, fmt.Errorf("--pid: %d is a thread of process %d, not a process", p, leader)
		}
	}
	if f.tid != 0 && processOf(f.tid) == 0 {
		return nil, fmt.Errorf("--tid: there is no thread %d", f.tid)
	}
	if m := spec.Maps[pidsMap]; m != nil && !f.Follow {
		m.MaxEntries = uint32(max(len(f.PIDs), 1))
	}
	set := setter{spec: spec}
	ns, err := pidNamespace()
	if err != nil {
		return nil, err
	}
	set.value("pid_namespace_inode", ns)
	set.value("filter_self", uint32(os.Getpid()))
	set.value("filter_pids", len(f.PIDs) > 0)
	set.value("filter_tid", f.tid)
	if f.fs.Changed("uid") {
		uid, err := lookupUser(f.user)
		if err != nil {
			return nil, err
		}
		set.value("filter_uid", true)
		set.value("filter_uid_value", uid)
	}
	if f.commFlag != nil && f.commFlag.Changed {
		if err := f.applyComm(&set); err != nil {
			return nil, err
		}
	}
	if err := f.applyCgroups(&set); err != nil {
		return nil, err
	}
	replace = map[string]*ebpf.Map{}
	for _, pinned := range []struct{ flag, path, name, variable string }{
		{"cgroupmap", f.cgroupMap, cgroupMapMap, "filter_cgroup_map"},
		{"mntnsmap", f.mntnsMap, mntnsMapMap, "filter_mntns_map"},
	} {
		if !f.fs.Changed(pinned.flag) {
			continue
		}
		m, err := openPinned(pinned.path, spec.Maps[pinned.name])
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", pinned.flag, err)
		}
		f.opened = append(f.opened, m)
		replace[pinned.name] = m
		set.value(pinned.variable, true)
	}
	return replace, set.err
}

// Fill puts the processes and cgroups into the maps of a loaded collection.
func (f *Filter) Fill(coll *ebpf.Collection) error {
	for _, p := range f.PIDs {
		if err := coll.Maps[pidsMap].Update(p, uint8(1), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("pick process %d: %w", p, err)
		}
	}
	for i, dir := range f.fds {
		if err := coll.Maps[cgroupsMap].Update(uint32(i), uint32(dir.Fd()), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("pick cgroup %s: %w", f.cgroups[i], err)
		}
	}
	return nil
}

// Ended reports whether all that was picked has ended, so that nothing more will
// come. Call it when the programs are attached, and then every now and then.
func (f *Filter) Ended(coll *ebpf.Collection) (bool, error) {
	if f.tid != 0 {
		return processOf(f.tid) == 0, nil
	}
	if !f.Picks() {
		return false, nil
	}
	if !f.checked {
		// One that ended before its end could be seen.
		for _, p := range f.PIDs {
			if processOf(p) != 0 {
				continue
			}
			if err := coll.Maps[pidsMap].Delete(p); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return false, fmt.Errorf("forget process %d: %w", p, err)
			}
		}
		f.checked = true
	}
	var pid uint32
	err := coll.Maps[pidsMap].NextKey(nil, &pid)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("look for processes that are left: %w", err)
	}
	return err != nil, nil
}

// Close gives back what Apply opened.
func (f *Filter) Close() {
	for _, m := range f.opened {
		m.Close()
	}
	for _, d := range f.fds {
		d.Close()
	}
}

func (f *Filter) applyComm(set *setter) error {
	if f.comm == "" {
		return errors.New("--name: an empty text is in every name")
	}
	if len(f.comm) >= commSize {
		return fmt.Errorf("--name: %q is longer than the %d bytes that the kernel keeps of a name", f.comm, commSize-1)
	}
	var text, mask [commSize]uint8
	copy(text[:], f.comm)
	for i := range len(f.comm) { // bytes, not characters
		mask[i] = 0xff
	}
	set.value("filter_comm", true)
	set.value("filter_comm_text", text)
	set.value("filter_comm_mask", mask)
	return nil
}

func (f *Filter) applyCgroups(set *setter) error {
	if len(f.cgroups) > maxCgroups {
		return fmt.Errorf("--cgroup: at most %d cgroups", maxCgroups)
	}
	for _, name := range f.cgroups {
		dir, err := openCgroup(name)
		if err != nil {
			return fmt.Errorf("--cgroup: %w", err)
		}
		f.fds = append(f.fds, dir)
	}
	set.value("filter_cgroups", uint32(len(f.cgroups)))
	return nil
}

// openPinned opens a pinned map that is to stand in for spec, and makes spec fit
// it where it may differ: BCC's users make these maps with any size.
func openPinned(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: false})
	if err != nil {
		return nil, fmt.Errorf("open the pinned map %s: %w", path, err)
	}
	if m.Type() != spec.Type || m.KeySize() != spec.KeySize || m.ValueSize() != spec.ValueSize {
		defer m.Close()
		return nil, fmt.Errorf("%s is a %v of %d-byte keys and %d-byte values, not a %v of %d and %d",
			path, m.Type(), m.KeySize(), m.ValueSize(), spec.Type, spec.KeySize, spec.ValueSize)
	}
	spec.MaxEntries, spec.Flags = m.MaxEntries(), m.Flags()
	return m, nil
}

// lookupUser gives the number of a user named by name or number.
func lookupUser(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("--uid: there is no user %q", name)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("--uid: user %q has the number %q", name, u.Uid)
	}
	return uint32(n), nil
}

// processOf gives the process that a thread belongs to, which for a process is
// itself, or 0 if there is no such thread.
func processOf(tid uint32) uint32 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if tgid, ok := strings.CutPrefix(line, "Tgid:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(tgid), 10, 32)
			if err != nil {
				return 0
			}
			return uint32(n)
		}
	}
	return 0
}

// firstPIDNamespace is the inode of the pid namespace that the kernel starts with
// (PROC_PID_INIT_INO).
const firstPIDNamespace = 0xEFFFFFFC

// pidNamespace gives the inode of this process's pid namespace, in whose numbers
// the user thinks, or 0 if it is the machine's first.
func pidNamespace() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("find this process's pid namespace: %w", err)
	}
	if st.Ino == firstPIDNamespace {
		return 0, nil
	}
	return uint32(st.Ino), nil
}

// setter sets constants and keeps the first error.
type setter struct {
	spec *ebpf.CollectionSpec
	err  error
}

func (s *setter) value(name string, v any) {
	if s.err != nil {
		return
	}
	s.err = constants.Set(s.spec, map[string]any{name: v})
}

// pid is a flag value: a number above 0.
type pid uint32

func (p *pid) String() string { return "" }
func (p *pid) Type() string   { return "int" }
func (p *pid) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a process or thread id", s)
	}
	*p = pid(n)
	return nil
}

// pidList is a flag value: several of them.
type pidList []uint32

func (l *pidList) String() string { return "" }
func (l *pidList) Type() string   { return "ints" }
func (l *pidList) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		var p pid
		if err := p.Set(strings.TrimSpace(one)); err != nil {
			return err
		}
		*l = append(*l, uint32(p))
	}
	return nil
}
