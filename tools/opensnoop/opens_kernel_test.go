package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// A way is one of the ways to open a file.
type way struct {
	name string // of the scene; the via of its rows, where via is empty
	via  string
	low  bool // wants its name below 4 GiB
	open func(name *byte, flags int, mode uint32) (result int, ok bool)
}

var ways = []way{
	{name: "open", open: livetest.Open},
	{name: "openat", open: func(name *byte, flags int, mode uint32) (int, bool) {
		return livetest.Openat(unix.AT_FDCWD, name, flags, mode), true
	}},
	{name: "openat2", open: func(name *byte, flags int, mode uint32) (int, bool) {
		return livetest.Openat2(unix.AT_FDCWD, name, how(flags, mode)), true
	}},
	{name: "open_32", via: "open/32", low: true, open: livetest.Int80Open},
	{name: "openat_32", via: "openat/32", low: true, open: func(name *byte, flags int, mode uint32) (int, bool) {
		return livetest.Int80Openat(unix.AT_FDCWD, name, flags, mode)
	}},
	{name: "openat2_32", via: "openat2/32", low: true, open: func(name *byte, flags int, mode uint32) (int, bool) {
		return livetest.Int80Openat2(unix.AT_FDCWD, name, how(flags, mode))
	}},
}

func how(flags int, mode uint32) *unix.OpenHow {
	return &unix.OpenHow{Flags: uint64(flags), Mode: uint64(mode)}
}

// openScenes are of each way to open, succeeding and failing. What a mode hides
// on this kernel is not played, but skipped.
func openScenes(t *testing.T, mode string) []scene {
	livetest.HasInt80() // finding out opens files: not later
	var scenes []scene
	for _, w := range ways {
		scenes = append(scenes, scene{name: w.name, play: w.play})
	}
	scenes = append(scenes,
		scene{name: "creat", play: func(s *script) { playCreat(s, "creat", livetest.Creat, name) }},
		scene{name: "creat_32", play: func(s *script) { playCreat(s, "creat/32", livetest.Int80Creat, lowName(s)) }},
		scene{name: "name not in memory yet", play: playCold},
		scene{name: "name nowhere in memory", play: playFault},
	)
	for _, hidden := range []struct {
		hook   string
		scenes []scene
	}{
		{"handles", []scene{{name: "open_by_handle_at", play: playHandle}}},
		{"io_uring", []scene{
			{name: "io_uring", play: func(s *script) { playURing(s, 0, false) }},
			{name: "io_uring async", play: func(s *script) { playURing(s, 0, true) }},
			{name: "io_uring polled", play: func(s *script) { playURing(s, livetest.SetupSQPoll, false) }},
			{name: "io_uring batch", play: playURingBatch},
			{name: "io_uring refused", play: playURingRefused},
		}},
	} {
		if hides(t, mode, hidden.hook) {
			for i := range hidden.scenes {
				hidden.scenes[i].play = func(s *script) { s.skip("%s mode does not show %s on this kernel, and says so", mode, hidden.hook) }
			}
		}
		scenes = append(scenes, hidden.scenes...)
	}
	return scenes
}

func name(path string) *byte { return livetest.Name(path) }

func lowName(s *script) func(path string) *byte {
	if !livetest.HasInt80() {
		s.skip("no 32-bit calls on this machine")
	}
	return func(path string) *byte { return livetest.LowName(s.t, path) }
}

// play opens a file that is there, one that is missing, and makes new ones.
func (w way) play(s *script) {
	text := name
	if w.low {
		text = lowName(s)
	}
	there, missing := s.file(s.dir, "there"), filepath.Join(s.dir, "missing")
	base := open{flags: "O_RDONLY|O_CLOEXEC", value: unix.O_CLOEXEC, via: w.name}
	if w.via != "" {
		base.via = w.via
	}
	try := func(path string, errno unix.Errno, flags int, mode uint32) {
		o := base
		o.path, o.full, o.errno = path, path, errno
		if mode != 0 {
			o.flags, o.value, o.mode = "O_RDWR|O_CREAT|O_EXCL", uint64(flags), "0604"
		}
		fd, ok := w.open(text(path), flags, mode)
		if !ok {
			s.skip("no %s on this machine", base.via)
		}
		s.open(o, fd)
	}
	for range times {
		try(there, 0, unix.O_CLOEXEC, 0)
		try(missing, unix.ENOENT, unix.O_CLOEXEC, 0)
	}
	fresh := filepath.Join(s.dir, "new")
	try(fresh, 0, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o604)
	try(fresh, unix.EEXIST, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o604)
}

func playCreat(s *script, via string, creat func(*byte, uint32) (int, bool), name func(string) *byte) {
	for range times {
		for path, errno := range map[string]unix.Errno{"new": 0, "missing/new": unix.ENOENT} {
			path = filepath.Join(s.dir, path)
			fd, ok := creat(name(path), 0o640)
			if !ok {
				s.skip("no %s on this machine", via)
			}
			s.open(open{path: path, full: path, errno: errno, mode: "0640", via: via,
				flags: "O_WRONLY|O_CREAT|O_TRUNC", value: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC}, fd)
		}
	}
}

// playCold opens by names that are in memory only once the kernel has read them.
func playCold(s *script) {
	there, missing := s.file(s.dir, "there"), filepath.Join(s.dir, "missing")
	for range times {
		s.open(reads(there, there), livetest.Openat(unix.AT_FDCWD, livetest.ColdName(s.t, there), unix.O_RDONLY, 0))
		s.open(fails(missing, missing, unix.ENOENT), livetest.Openat(unix.AT_FDCWD, livetest.ColdName(s.t, missing), unix.O_RDONLY, 0))
	}
}

// playFault opens by names that can't be read at all.
func playFault(s *script) {
	for range times {
		for _, bad := range []*byte{nil, livetest.NoName(s.t)} {
			want := fails(null, null, unix.EFAULT)
			want.unreadable = true
			s.open(want, livetest.Openat(unix.AT_FDCWD, bad, unix.O_RDONLY, 0))
		}
	}
	// openat2 reads its flags from memory too.
	there := s.file(s.dir, "there")
	want := fails(there, there, unix.EFAULT)
	want.via = "openat2"
	s.open(want, livetest.Openat2(unix.AT_FDCWD, name(there), nil))
}

func playHandle(s *script) {
	there := s.file(s.dir, "there")
	handle, err := livetest.Handle(there)
	if errors.Is(err, unix.EOPNOTSUPP) {
		s.skip("%s is on a file system without handles", s.dir)
	}
	s.must(err)
	dir := s.directory(s.dir, s.dir)
	defer unix.Close(dir)
	// The directory must be a real descriptor to the kernel, not one of O_PATH.
	real := s.keep(reads(s.dir, s.dir), livetest.Openat(unix.AT_FDCWD, name(s.dir), unix.O_RDONLY, 0))
	defer unix.Close(real)
	nothing := unix.NewFileHandle(handle.Type(), make([]byte, handle.Size()))
	for range times {
		want := reads(null, there)
		want.via = "open_by_handle_at"
		s.open(want, livetest.OpenByHandleAt(real, handle, unix.O_RDONLY))
		want.full, want.errno = null, unix.ESTALE
		s.open(want, livetest.OpenByHandleAt(real, nothing, unix.O_RDONLY))
	}
}

// newURing makes an io_uring, or skips.
func newURing(s *script, flags uint32) *livetest.URing {
	ring, err := livetest.NewURing(flags)
	if errors.Is(err, livetest.ErrNoURing) {
		s.skip("%v", err)
	}
	s.must(err)
	s.t.Cleanup(ring.Close)
	return ring
}

// uring is the row of an open through io_uring. The kernel adds O_LARGEFILE to
// what it is asked for before anything else can see the flags.
func uring(o open) open {
	o.via, o.flags, o.value = "io_uring/openat", "O_RDONLY|O_LARGEFILE", uint64(oLargefile)
	return o
}

func playURing(s *script, flags uint32, async bool) {
	ring, poller := newURing(s, flags), 0
	if flags&livetest.SetupSQPoll != 0 {
		// Asked on another thread, whose opens are of no interest here.
		asked := make(chan error)
		go func() {
			var err error
			poller, err = ring.Poller()
			asked <- err
		}()
		s.must(<-asked)
	}
	there, missing := s.file(s.dir, "there"), filepath.Join(s.dir, "missing")
	dir := s.directory(s.dir, s.dir)
	defer unix.Close(dir)
	submit := func(want open, o livetest.Opening) {
		o.Async = async
		results, err := ring.Submit(o)
		s.must(err)
		want.tid = poller
		s.open(uring(want), results[0])
	}
	for range times {
		submit(reads(there, there), livetest.Opening{Dirfd: unix.AT_FDCWD, Name: name(there)})
		submit(fails(missing, missing, unix.ENOENT), livetest.Opening{Dirfd: unix.AT_FDCWD, Name: name(missing)})
		submit(reads("there", there), livetest.Opening{Dirfd: dir, Name: name("there")})
		submit(fails("missing", missing, unix.ENOENT), livetest.Opening{Dirfd: dir, Name: name("missing")})
	}
	for path, errno := range map[string]unix.Errno{there: 0, missing: unix.ENOENT} {
		for range times {
			results, err := ring.Submit(livetest.Opening{Dirfd: unix.AT_FDCWD, Name: name(path), How: how(unix.O_RDONLY, 0), Async: async})
			s.must(err)
			want := uring(fails(path, path, errno))
			want.via = "io_uring/openat2"
			want.tid = poller
			s.open(want, results[0])
		}
	}
}

// playURingBatch has many opens under way at the same time.
func playURingBatch(s *script) {
	ring := newURing(s, 0)
	there, missing := s.file(s.dir, "there"), filepath.Join(s.dir, "missing")
	s.unordered = true
	for _, async := range []bool{false, true} {
		var batch []livetest.Opening
		for len(batch) < livetest.URingEntries {
			batch = append(batch, livetest.Opening{Dirfd: unix.AT_FDCWD, Name: name(there), Async: async},
				livetest.Opening{Dirfd: unix.AT_FDCWD, Name: name(missing), Async: async})
		}
		results, err := ring.Submit(batch...)
		s.must(err)
		for i, fd := range results {
			if i%2 == 0 {
				s.keep(uring(reads(there, there)), fd)
			} else {
				s.keep(uring(fails(missing, missing, unix.ENOENT)), fd)
			}
		}
		for _, fd := range results {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
}

// playURingRefused has io_uring refuse opens before they begin.
func playURingRefused(s *script) {
	ring := newURing(s, 0)
	long := "/" + strings.Repeat("x", 5000)
	for range times {
		for _, o := range []struct {
			name *byte
			want open
		}{
			{name(""), fails("", null, unix.ENOENT)},
			{nil, open{path: null, full: null, errno: unix.EFAULT, unreadable: true}},
			{name(long), open{path: long[:4095], full: long[:4095], errno: unix.ENAMETOOLONG, cut: true}},
		} {
			o.want.flags, o.want.via, o.want.noLatency = "O_RDONLY", "io_uring/openat", true
			fd, err := ring.Openat(unix.AT_FDCWD, o.name, unix.O_RDONLY, 0)
			s.must(err)
			s.open(o.want, fd)
		}
	}
}
