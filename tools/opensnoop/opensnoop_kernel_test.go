package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// This file has what the kernel tests share: the attach modes, the rows of
// opensnoop --json, and scripts, which are lists of opens to be found in them.

func TestMain(m *testing.M) { livetest.Main(m, main) }

// times is how often a test makes each open: a prime, as in BCC's own tests.
const times = 23

// hides reports whether a mode does not show what the hook of that name would,
// and says so.
func hides(t *testing.T, mode, hook string) bool {
	t.Helper()
	for _, h := range livetest.Modes(t)[mode].Hooks {
		if h.Name == hook {
			return h.Mode == nil
		}
	}
	return false
}

// row is an object that opensnoop --json writes.
type row struct {
	Kind       string
	Time       time.Time
	PID        int
	TID        int
	PPID       int
	UID        int
	Comm       string
	CommBytes  []byte `json:"comm_bytes"`
	CgroupID   uint64 `json:"cgroup_id"`
	Path       *string
	PathBytes  []byte  `json:"path_bytes"`
	FullPath   *string `json:"full_path"`
	FullBytes  []byte  `json:"full_path_bytes"`
	Unreadable bool    `json:"path_unreadable"`
	PathCut    bool    `json:"path_cut"`
	Deleted    bool
	FD         int
	Errno      int
	Error      *string
	Flags      []string
	FlagsValue uint64 `json:"flags_value"`
	Mode       *string
	Via        string
	LatencyNs  *uint64 `json:"latency_ns"`
	// Of the kind lost.
	Lost         uint64
	PossiblyLost uint64 `json:"possibly_lost"`
	Causes       map[string]uint64
}

// decode gives the rows that a tool wrote with --json, and its last word on
// losses.
func decode(t *testing.T, res livetest.Result) (list []row, lost row) {
	t.Helper()
	for _, r := range livetest.Decode[row](t, res.Lines()) {
		switch r.Kind {
		case "open":
			list = append(list, r)
		case "lost":
			lost = r
		default:
			t.Fatalf("an object of an unknown kind: %+v", r)
		}
	}
	return list, lost
}

// rows gives the rows of a tool that must have ended with that status.
func rows(t *testing.T, a *livetest.Attempt, res livetest.Result, status int) []row {
	t.Helper()
	list, _ := decode(t, res.Over(t, status))
	a.Lost(res)
	return list
}

const null = livetest.Null

func (r row) path() string { return livetest.Exact(r.Path, r.PathBytes) }
func (r row) full() string { return livetest.Exact(r.FullPath, r.FullBytes) }

// all says in one text what all keys hold but time and latency.
func (r row) all() string {
	name, mode := null, null
	if r.Error != nil {
		name = *r.Error
	}
	if r.Mode != nil {
		mode = *r.Mode
	}
	return fmt.Sprintf("pid=%d tid=%d ppid=%d uid=%d comm=%q cgroup=%d path=%q full=%q unreadable=%t cut=%t deleted=%t fd=%d errno=%d error=%s flags=%s=%#o mode=%s via=%s",
		r.PID, r.TID, r.PPID, r.UID, livetest.Exact(&r.Comm, r.CommBytes), r.CgroupID, r.path(), r.full(), r.Unreadable, r.PathCut, r.Deleted,
		r.FD, r.Errno, name, strings.Join(r.Flags, "|"), r.FlagsValue, mode, r.Via)
}

// An open is what a script made, or tried to, and the row that it must give.
type open struct {
	path, full string // null for JSON's null
	errno      unix.Errno
	flags      string // names
	value      uint64 // of the flags
	mode       string // "" for JSON's null
	via        string
	unreadable bool
	cut        bool
	deleted    bool
	wrongFull  func(full string) bool // in place of full, if it is not to be foreseen
	noLatency  bool
	tid        int // if it is not the script's
}

// reads is the row of an open for reading that succeeds.
func reads(path, full string) open {
	return open{path: path, full: full, flags: "O_RDONLY", via: "openat"}
}

// fails is the row of an open for reading that fails.
func fails(path, full string, errno unix.Errno) open {
	return open{path: path, full: full, flags: "O_RDONLY", via: "openat", errno: errno}
}

// a script is what one thread opens. In the thread's own order, its rows must be
// these and no others.
type script struct {
	t         *testing.T
	dir       string // of its own, empty
	base      row    // what all its rows have in common
	want      []open
	got       []int // what each open returned
	unordered bool  // the order is the kernel's choice
	skipped   string
	failed    []string
}

func (s *script) errorf(format string, args ...any) {
	s.failed = append(s.failed, fmt.Sprintf(format, args...))
}

// fatalf ends the script.
func (s *script) fatalf(format string, args ...any) {
	s.errorf(format, args...)
	runtime.Goexit()
}

func (s *script) must(err error) {
	if err != nil {
		s.fatalf("%v", err)
	}
}

// skip ends the script, for want of something that not all machines have.
func (s *script) skip(format string, args ...any) {
	s.skipped = fmt.Sprintf("SKIPPED: "+format, args...)
	runtime.Goexit()
}

// keep takes note of an open that returned fd, and gives fd.
func (s *script) keep(want open, fd int) int {
	if errno := unix.Errno(max(-fd, 0)); errno != want.errno {
		s.fatalf("opening %q returned %v instead of %v", want.path, errno, want.errno)
	}
	s.want, s.got = append(s.want, want), append(s.got, fd)
	return fd
}

// open is keep for a descriptor that is of no further use.
func (s *script) open(want open, fd int) {
	if s.keep(want, fd) >= 0 {
		unix.Close(fd)
	}
}

// reads opens for reading by openat(2), from the working directory.
func (s *script) reads(path, full string) {
	s.open(reads(path, full), livetest.Openat(unix.AT_FDCWD, livetest.Name(path), unix.O_RDONLY, 0))
}

// fails is reads for an open that must fail.
func (s *script) fails(path, full string, errno unix.Errno) {
	s.open(fails(path, full, errno), livetest.Openat(unix.AT_FDCWD, livetest.Name(path), unix.O_RDONLY, 0))
}

// directory opens a directory that later opens start from.
func (s *script) directory(path, full string) int {
	want := reads(path, full)
	want.flags, want.value = "O_RDONLY|O_DIRECTORY|O_PATH", unix.O_PATH|unix.O_DIRECTORY
	return s.keep(want, livetest.Openat(unix.AT_FDCWD, livetest.Name(path), unix.O_PATH|unix.O_DIRECTORY, 0))
}

// file makes an empty file, without opening it, and gives its path.
func (s *script) file(elements ...string) string {
	path := filepath.Join(elements...)
	s.must(unix.Mknod(path, unix.S_IFREG|0o644, 0))
	return path
}

// mkdir makes a directory and gives its path.
func (s *script) mkdir(elements ...string) string {
	path := filepath.Join(elements...)
	s.must(unix.Mkdir(path, 0o755))
	return path
}

// scene is a script with a name. It is played on a thread of its own, which has
// its own working directory; in a mount namespace of its own, if it is to mount.
type scene struct {
	name   string
	mounts bool
	play   func(s *script)
}

// perform plays scenes for a tool with these arguments, and compares the rows
// with what was opened: every row, and every key of it.
func perform(t *testing.T, scenes []scene, args ...string) {
	t.Helper()
	problems, skips := map[string][]string{}, map[string]string{}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		clear(problems)
		scripts := make([]*script, len(scenes))
		cgroup := livetest.OwnCgroup(t).ID
		for i := range scripts {
			scripts[i] = &script{t: t, dir: t.TempDir(), base: row{PID: os.Getpid(), PPID: os.Getppid(), UID: os.Getuid(), CgroupID: cgroup}}
		}
		tool := livetest.Start(t, append(args, "--json", "-p", fmt.Sprint(os.Getpid()))...)
		tool.Ready()
		begin := time.Now()
		for i := range scenes {
			scripts[i].perform(&scenes[i])
		}
		end := time.Now()
		all := rows(t, a, tool.Stop(), 0)
		for i, s := range scripts {
			s.check(all, begin, end)
			problems[scenes[i].name], skips[scenes[i].name] = s.failed, s.skipped
			if len(s.failed) > 0 {
				a.Errorf("%s", scenes[i].name)
			}
		}
		for _, r := range all {
			checkStrings(t, r)
		}
	})
	for _, scene := range scenes {
		t.Run(scene.name, func(t *testing.T) {
			for _, text := range problems[scene.name] {
				t.Error(text)
			}
			if text := skips[scene.name]; text != "" {
				t.Skip(text)
			}
		})
	}
}

// perform plays a scene and returns when it is over.
func (s *script) perform(scene *scene) {
	play := func() {
		// The thread may have been another's before, and be another's after.
		s.mark("begins")
		defer s.mark("ends")
		comm, err := livetest.Comm()
		s.must(err)
		s.base.TID, s.base.Comm = unix.Gettid(), comm
		scene.play(s)
	}
	if scene.mounts {
		livetest.Namespace(s.t, play)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the script
		s.must(unix.Unshare(unix.CLONE_FS))
		play()
	}()
	<-done
}

// marker is a file that the script tries to open at its beginning and its end.
func (s *script) marker(what string) string { return s.dir + " " + what }

func (s *script) mark(what string) {
	livetest.Openat(unix.AT_FDCWD, livetest.Name(s.marker(what)), unix.O_RDONLY, 0)
}

// check compares what a script made with the rows of all scripts.
func (s *script) check(all []row, begin, end time.Time) {
	if s.skipped != "" || len(s.failed) > 0 {
		return
	}
	want, got := s.rows(all)
	if s.unordered {
		slices.Sort(want)
		slices.SortFunc(got, func(a, b row) int { return strings.Compare(a.all(), b.all()) })
	}
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i].all()
		}
		if w != g {
			s.errorf("row %d of %d, where %d were expected:\n got %s\nwant %s", i, len(got), len(want), g, w)
			return
		}
	}
	if len(want) == 0 {
		s.errorf("nothing was opened")
	}
	for i, r := range got {
		// Two clocks are compared here, which may be adjusted against each other.
		if slack := 20 * time.Millisecond; r.Time.Before(begin.Add(-slack)) || r.Time.After(end.Add(slack)) {
			s.errorf("row %d happened at %v, not between %v and %v", i, r.Time, begin, end)
		}
		switch {
		case r.LatencyNs == nil:
			if s.unordered || !s.want[i].noLatency {
				s.errorf("row %d has no latency", i)
			}
		case *r.LatencyNs == 0 || time.Duration(*r.LatencyNs) > end.Sub(begin):
			s.errorf("row %d took %v of %v", i, time.Duration(*r.LatencyNs), end.Sub(begin))
		}
	}
}

// rows gives the rows that the script must give, and picks those that it gave.
// The full paths that can't be foreseen are checked, and then taken as they are.
func (s *script) rows(all []row) (want []string, got []row) {
	tids := map[int]bool{s.base.TID: true}
	for _, o := range s.want {
		tids[cmp.Or(o.tid, s.base.TID)] = true
	}
	isMark := func(what string) func(r row) bool {
		return func(r row) bool { return r.path() == s.marker(what) }
	}
	begin, end := slices.IndexFunc(all, isMark("begins")), slices.IndexFunc(all, isMark("ends"))
	if begin < 0 || end < begin {
		s.errorf("of %d rows %d is where it begins, and %d where it ends", len(all), begin, end)
		for _, r := range all {
			if r.TID == s.base.TID {
				s.t.Logf("of its thread: %v %s", r.Time, r.all())
			}
		}
	}
	for i := begin + 1; i < end; i++ {
		// The C library counts the processors when a thread begins.
		if r := all[i]; r.PID == s.base.PID && tids[r.TID] && r.path() != "/sys/devices/system/cpu/online" {
			got = append(got, r)
		}
	}
	for i, o := range s.want {
		r := s.base
		r.TID = cmp.Or(o.tid, r.TID)
		r.Unreadable, r.PathCut, r.Deleted = o.unreadable, o.cut, o.deleted
		r.FD, r.Errno = max(s.got[i], -1), int(o.errno)
		if o.errno != 0 {
			name := unix.ErrnoName(o.errno)
			r.Error = &name
		}
		r.Flags, r.FlagsValue, r.Via = strings.Split(o.flags, "|"), o.value, o.via
		if o.mode != "" {
			r.Mode = &o.mode
		}
		if o.wrongFull != nil && i < len(got) {
			if o.wrongFull(got[i].full()) {
				o.full = "another than " + got[i].full()
			} else {
				o.full = got[i].full()
			}
		}
		r.PathBytes, r.FullBytes = []byte(o.path), []byte(o.full)
		want = append(want, r.all())
	}
	return want, got
}

// TestKernelRows plays all scenes in each mode.
func TestKernelRows(t *testing.T) {
	livetest.EachMode(t, func(t *testing.T, mode string) {
		perform(t, slices.Concat(openScenes(t, mode), pathScenes, nameScenes), "--attach", mode)
	})
}

// checkStrings checks that strings and their "_bytes" agree.
func checkStrings(t *testing.T, r row) {
	t.Helper()
	for _, s := range []struct {
		text  *string
		bytes []byte
	}{{&r.Comm, r.CommBytes}, {r.Path, r.PathBytes}, {r.FullPath, r.FullBytes}} {
		if s.bytes == nil {
			continue
		}
		// One U+FFFD for each byte that is no UTF-8.
		var b strings.Builder
		for rest := s.bytes; len(rest) > 0; {
			c, n := utf8.DecodeRune(rest)
			b.WriteRune(c)
			rest = rest[n:]
		}
		if utf8.Valid(s.bytes) || s.text == nil || *s.text != b.String() {
			t.Errorf("the bytes %q stand beside %q", s.bytes, livetest.Exact(s.text, nil))
		}
	}
}
