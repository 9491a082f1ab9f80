package mappings

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// offline is a Timeline that finds no process in /proc.
func offline(t *testing.T, options Options) *Timeline {
	tl := New(options)
	tl.proc = t.TempDir()
	tl.files.proc = tl.proc
	t.Cleanup(func() { tl.Close() })
	return tl
}

// at gives what is mapped at an address, as path+offset.
func at(p *Process, addr uint64) string {
	m, ok := p.Find(addr)
	if !ok {
		return "nothing"
	}
	return m.File.Path + "+" + string('0'+rune(m.FileOffset(addr)>>12))
}

func fork(time uint64, parent, child uint32) *perfevent.Record {
	return &perfevent.Record{Kind: perfevent.Fork, Time: time, PID: child, TID: child, PPID: parent, PTID: parent}
}

func exec(time uint64, pid uint32, comm string) *perfevent.Record {
	return &perfevent.Record{Kind: perfevent.Comm, Time: time, PID: pid, TID: pid, Exec: true, Comm: comm}
}

func mmap(time uint64, pid uint32, addr, pages, offset uint64, path string) *perfevent.Record {
	return &perfevent.Record{Kind: perfevent.Mmap, Time: time, PID: pid, TID: pid, Addr: addr << 12, Len: pages << 12, Offset: offset << 12, Path: path}
}

func exit(time uint64, pid, tid uint32) *perfevent.Record {
	return &perfevent.Record{Kind: perfevent.Exit, Time: time, PID: pid, TID: tid}
}

// The life of a process, and of those that it starts.
func TestTimeline(t *testing.T) {
	tl := offline(t, Options{})
	step := func(records ...*perfevent.Record) {
		for _, r := range records {
			tl.Apply(r)
		}
	}
	check := func(pid uint32, page uint64, want string) {
		t.Helper()
		if got := at(tl.Process(pid), page<<12|0x123); got != want {
			t.Errorf("page %d of process %d is %s, not %s", page, pid, got, want)
		}
	}
	step(exec(1, 10, "shell"), mmap(2, 10, 100, 4, 1, "/bin/shell"), mmap(3, 10, 200, 4, 0, "/lib/c"))
	check(10, 100, "/bin/shell+1")
	check(10, 103, "/bin/shell+4")
	check(10, 104, "nothing")
	check(10, 99, "nothing")
	check(11, 100, "nothing")
	if p := tl.Process(10); p.Comm != "shell" || p.Exe != "/bin/shell" || p.Partial || p.Execs != 1 {
		t.Errorf("%+v", p)
	}

	// A child has what its parent has, and what either maps then is its own.
	step(fork(4, 10, 20))
	check(20, 201, "/lib/c+1")
	step(mmap(5, 20, 300, 1, 0, "/lib/child"), mmap(6, 10, 300, 1, 0, "/lib/parent"))
	check(20, 300, "/lib/child+0")
	check(10, 300, "/lib/parent+0")
	parent, child := tl.Process(10), tl.Process(20)
	if child.PPID != 10 || child.Comm != "shell" || child.Exe != "/bin/shell" || child.Partial {
		t.Errorf("%+v", child)
	}

	// An exec clears it. The same object goes on.
	step(exec(7, 20, "cat"), mmap(8, 20, 500, 1, 0, "/bin/cat"), mmap(9, 20, 600, 1, 0, "/lib/ld.so"))
	check(20, 201, "nothing")
	check(20, 500, "/bin/cat+0")
	check(10, 201, "/lib/c+1")
	if p := tl.Process(20); p != child || p.Exe != "/bin/cat" || p.Comm != "cat" || p.Execs != 1 {
		t.Errorf("%+v", p)
	}

	// A new mapping takes the place of what is there, which may be left at both ends.
	step(mmap(10, 10, 201, 2, 7, "/lib/new"))
	check(10, 200, "/lib/c+0")
	check(10, 201, "/lib/new+7")
	check(10, 202, "/lib/new+8")
	check(10, 203, "/lib/c+3")

	// After its end it is still known, until the number is another's.
	step(exit(11, 20, 20))
	check(20, 500, "/bin/cat+0")
	step(fork(12, 10, 20))
	check(20, 500, "nothing")
	check(20, 201, "/lib/new+7")
	if got := at(child, 500<<12); got != "/bin/cat+0" {
		t.Errorf("the process that ended has %s", got)
	}

	// A number is free after some time; a main thread that ended before others is none.
	step(&perfevent.Record{Kind: perfevent.Fork, Time: 13, PID: 10, TID: 15, PPID: 10, PTID: 10})
	step(exit(14, 10, 10), exit(15, 20, 20), exec(keep+100, 30, "later"))
	if tl.processes[20] != nil || tl.processes[10] != parent {
		t.Errorf("%v", tl.processes)
	}
	step(exit(2*keep+200, 10, 15), exec(4*keep, 30, "later"))

	// Another thread that executes a program becomes the main thread, after that has ended.
	step(exit(4*keep+1, 30, 30), exec(4*keep+2, 30, "again"), mmap(4*keep+3, 30, 1, 1, 0, "/bin/again"), exec(6*keep, 31, "x"))
	check(30, 1, "/bin/again+0")

	// Names of the main thread only.
	step(&perfevent.Record{Kind: perfevent.Comm, Time: 6*keep + 1, PID: 31, TID: 32, Comm: "worker"})
	if got := tl.Process(31).Comm; got != "x" {
		t.Errorf("the process is called %q", got)
	}
}

// The parent of a child that nothing is known of, and tasks of no number here.
func TestTimelineUnknown(t *testing.T) {
	tl := offline(t, Options{})
	tl.Apply(fork(1, 5, 6))
	tl.Apply(mmap(2, 6, 1, 1, 0, "/x"))
	if p := tl.Process(6); !p.Partial || at(p, 1<<12) != "/x+0" {
		t.Errorf("%+v", p)
	}
	for _, pid := range []uint32{0, 1<<32 - 1} {
		tl.Apply(exec(3, pid, "outside"))
		tl.Apply(mmap(4, pid, 1, 1, 0, "/x"))
		if tl.processes[pid] != nil {
			t.Errorf("a process %d", pid)
		}
	}
	if p := tl.Process(99); p.PID != 99 || !p.Partial {
		t.Errorf("%+v", p)
	}
	if p := tl.Process(99); p != tl.Process(99) {
		t.Error("an unknown process is another each time")
	}
	tl.Apply(exec(keep*2, 6, "later"))
	if tl.processes[99] != nil {
		t.Error("an unknown process is kept for good")
	}
}

// What is older than what was read of a process changes nothing.
func TestTimelineSnapshotIsNewer(t *testing.T) {
	tl := offline(t, Options{})
	p := &Process{PID: 7, since: 100}
	p.insert(Mapping{1 << 12, 2 << 12, 0, &File{Path: "/read"}, 0})
	tl.processes[7] = p
	for _, r := range []*perfevent.Record{fork(97, 1, 7), exec(98, 7, "old"), mmap(99, 7, 1, 1, 0, "/old"), exit(99, 7, 7)} {
		tl.Apply(r)
	}
	if got := at(tl.Process(7), 1<<12); got != "/read+0" || p.ended || p.Comm != "" {
		t.Errorf("%s, %+v", got, p)
	}
	tl.Apply(mmap(101, 7, 1, 1, 0, "/new"))
	if got := at(tl.Process(7), 1<<12); got != "/new+0" {
		t.Errorf("%s", got)
	}
}

func TestTimelineOptions(t *testing.T) {
	var left []string
	tl := offline(t, Options{
		Wanted:  func(pid uint32) bool { return pid == 10 },
		Leaving: func(p *Process) { left = append(left, at(p, 1<<12)) },
	})
	for _, r := range []*perfevent.Record{
		exec(1, 10, "a"), mmap(2, 10, 1, 1, 0, "/a"), exec(3, 11, "b"), mmap(4, 11, 1, 1, 0, "/b"),
		exec(5, 10, "c"), mmap(6, 10, 1, 1, 0, "/c"), exit(7, 10, 10), exit(8, 11, 11),
	} {
		tl.Apply(r)
	}
	if want := []string{"nothing", "/a+0", "/c+0"}; !slices.Equal(left, want) {
		t.Errorf("%q, not %q", left, want)
	}
	if tl.processes[11] != nil {
		t.Error("a process that is not wanted is kept")
	}
	tl.Apply(fork(9, 10, 12))
	tl.Apply(fork(9, 11, 13))
	if tl.processes[12] == nil || tl.processes[13] != nil {
		t.Error("not the child of the one that is wanted is kept, or the other's is")
	}
}

// A child has the name of the thread that made it, which is known if that is the main one.
func TestTimelineForkByThread(t *testing.T) {
	tl := offline(t, Options{})
	tl.Apply(exec(1, 10, "main"))
	tl.Apply(&perfevent.Record{Kind: perfevent.Fork, Time: 2, PID: 20, TID: 20, PPID: 10, PTID: 11})
	tl.Apply(fork(3, 10, 30))
	if a, b := tl.Process(20).Comm, tl.Process(30).Comm; a != "" || b != "main" {
		t.Errorf("%q and %q", a, b)
	}
}

func TestTimelineLost(t *testing.T) {
	tl := offline(t, Options{})
	tl.Apply(&perfevent.Record{Kind: perfevent.Lost, Lost: 23})
	tl.Apply(&perfevent.Record{Kind: perfevent.Lost})
	if tl.Lost != 23 || tl.Gaps != 2 {
		t.Errorf("%d lost, %d times", tl.Lost, tl.Gaps)
	}
}

func TestTimelineCgroup(t *testing.T) {
	tl := offline(t, Options{Wanted: func(uint32) bool { return false }})
	tl.Apply(&perfevent.Record{Kind: perfevent.Cgroup, CgroupID: 5, Path: "/a/b"})
	if path, ok := tl.Cgroup(5); path != "/a/b" || !ok {
		t.Errorf("%q, %v", path, ok)
	}
	if path, ok := tl.Cgroup(6); ok {
		t.Errorf("%q", path)
	}
}

// A process that maps ever more, or ever more files, and what else is made without end, does
// not fill our memory.
func TestTimelineIsBounded(t *testing.T) {
	tl := offline(t, Options{})
	tl.Apply(exec(1, 7, "mapper"))
	for i := range uint64(2*most + 100) {
		r := mmap(i+2, 7, 2*i, 1, 0, "/x")
		r.Inode = i
		r.BuildID = binary.LittleEndian.AppendUint64(nil, i)
		tl.Apply(r)
		tl.Apply(&perfevent.Record{Kind: perfevent.Cgroup, Time: i + 2, CgroupID: i, Path: "/x"})
	}
	p := tl.Process(7)
	if len(p.maps) > most || !p.Partial {
		t.Errorf("%d mappings, partial %v", len(p.maps), p.Partial)
	}
	if got := at(p, (4*most+198)<<12); got != "/x+0" {
		t.Errorf("the last is %s", got)
	}
	for name, n := range map[string]int{"files": len(tl.files.bySight), "build ids": len(tl.files.byBuildID), "cgroups": len(tl.cgroups)} {
		if n > most {
			t.Errorf("%d %s", n, name)
		}
	}
}

// Whatever is mapped over whatever, it is as if each page were told for itself; and what a
// fork gave to another does not change with it.
func TestInsert(t *testing.T) {
	const pages = 64
	names := []*File{{Path: "a"}, {Path: "b"}, {Path: "c"}}
	rng := rand.New(rand.NewPCG(23, 42))
	for round := range 200 {
		p, child := &Process{}, &Process{}
		var model, given [pages]Mapping // by page: its file, and its own offset in it
		for step := range 40 {
			start := rng.Uint64N(pages)
			n := 1 + rng.Uint64N(min(pages-start, 9))
			m := Mapping{start << 12, (start + n) << 12, rng.Uint64N(100) << 12, names[rng.IntN(len(names))], 0}
			p.insert(m)
			for i := range n {
				model[start+i] = Mapping{Offset: m.Offset + i<<12, File: m.File}
			}
			if step == 20 {
				p.fork(child)
				given = model
			}
		}
		for _, test := range []struct {
			p    *Process
			want *[pages]Mapping
		}{{p, &model}, {child, &given}} {
			for page := range uint64(pages) {
				m, ok := test.p.Find(page<<12 + 0xfff)
				want := test.want[page]
				if ok != (want.File != nil) || ok && (m.File != want.File || m.FileOffset(page<<12) != want.Offset) {
					t.Fatalf("round %d, page %d: %+v, %v, not %+v", round, page, m, ok, want)
				}
			}
			for i, m := range test.p.maps {
				if m.Start >= m.End || i > 0 && m.Start < test.p.maps[i-1].End {
					t.Fatalf("round %d: %+v", round, test.p.maps)
				}
			}
		}
	}
}

func TestFindVsyscall(t *testing.T) {
	p := &Process{}
	if m, ok := p.Find(0xffffffffff600400); !ok || m.File.Kind != Vsyscall {
		t.Errorf("%+v, %v", m, ok)
	}
	for _, addr := range []uint64{0, 0xffffffffff5fffff, 0xffffffffff601000, 1<<64 - 1} {
		if m, ok := p.Find(addr); ok {
			t.Errorf("%#x is in %+v", addr, m)
		}
	}
}

func TestKinds(t *testing.T) {
	for path, want := range map[string]Kind{
		"/bin/x": Regular, "/memfd": Regular, "/SYS": Regular, "/dev/zero": Regular, "/a [vdso]": Regular,
		"": Anonymous, "//anon": Anonymous, "[heap]": Anonymous, "[stack]": Anonymous, "[anon:JIT code]": Anonymous, "/anon_hugepage (deleted)": Anonymous,
		"/memfd:jit (deleted)": Memfd, "/dev/zero (deleted)": Memfd, "/SYSV00000000 (deleted)": Memfd, "[anon_shmem:x]": Memfd,
		"[vdso]": VDSO, "[vsyscall]": Vsyscall, "[uprobes]": Other, "//enomem": Regular,
	} {
		if got := kindOf(sight{path: path, start: 0x7fff00000000}); got != want {
			t.Errorf("%q is of kind %d, not %d", path, got, want)
		}
	}
	if got := kindOf(sight{path: "[vdso]", start: 0xf7f00000}); got != Other {
		t.Errorf("the vdso of a 32-bit process is of kind %d", got)
	}
}

// Memory of no file is one File for each name, by whatever word the kernel has for it; the
// vdso of 32-bit processes is not that of the others.
func TestFilesOfNoFile(t *testing.T) {
	fs := offline(t, Options{}).files
	anon := fs.find(sight{pid: 1, start: 0x1000, path: ""})
	if other := fs.find(sight{pid: 2, start: 0x1000, path: "//anon"}); other != anon || anon.Path != "[anon]" {
		t.Errorf("%+v and %+v", anon, other)
	}
	vdso := fs.find(sight{start: 1 << 40, path: "[vdso]"})
	if other := fs.find(sight{start: 1 << 46, path: "[vdso]"}); other != vdso {
		t.Error("two vdsos")
	}
	if other := fs.find(sight{start: 1 << 20, path: "[vdso]"}); other == vdso {
		t.Error("one vdso for processes of 32 and 64 bits")
	}
	if _, err := anon.Open(); err == nil {
		t.Error("memory of no file can be opened")
	}
}

func note(kind uint32, name string, desc []byte) []byte {
	var b bytes.Buffer
	pad := func(s []byte) []byte { return append(s, make([]byte, (4-len(s)%4)%4)...) }
	for _, n := range []uint32{uint32(len(name)), uint32(len(desc)), kind} {
		_ = binary.Write(&b, binary.LittleEndian, n) // A buffer takes all.
	}
	b.Write(pad([]byte(name)))
	b.Write(pad(slices.Clone(desc)))
	return b.Bytes()
}

func TestBuildIDOf(t *testing.T) {
	id := note(3, "GNU\x00", []byte{1, 2, 0xff})
	for _, test := range []struct {
		notes []byte
		want  string
	}{
		{id, "0102ff"},
		{append(note(4, "Go\x00\x00", []byte("odd")), id...), "0102ff"},
		{append(note(1, "GNU\x00", []byte("abi")), id...), "0102ff"},
		{note(3, "XYZ\x00", []byte{1}), ""},
		{note(3, "GNU\x00", nil), ""},
		{note(3, "GNU\x00", make([]byte, 21)), ""},
		{id[:len(id)-4], ""},
		{nil, ""},
	} {
		if got := buildIDOf(test.notes, binary.LittleEndian); got != test.want {
			t.Errorf("%q: %q, not %q", test.notes, got, test.want)
		}
	}
}

func FuzzBuildID(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Add(note(3, "GNU\x00", []byte{1, 2, 0xff}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := readBuildID(bytes.NewReader(b)); err == nil && (id == "" || len(id) > 40) {
			t.Errorf("%q", id)
		}
		if id := buildIDOf(b, binary.LittleEndian); len(id) > 40 {
			t.Errorf("%q", id)
		}
	})
}
