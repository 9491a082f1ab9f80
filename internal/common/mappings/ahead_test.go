package mappings

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// What is known ahead is what will be, and changes nothing of what is.
func TestTimelineAhead(t *testing.T) {
	tl := offline(t, Options{})
	for _, r := range []*perfevent.Record{
		exec(1, 10, "shell"), mmap(2, 10, 100, 4, 0, "/bin/shell"), exec(1, 11, "other"), mmap(2, 11, 100, 4, 0, "/bin/other"),
		exec(1, 12, "third"), mmap(2, 12, 100, 4, 0, "/bin/third"),
	} {
		tl.Apply(r)
	}
	// In another order than that of time, as those of several CPUs are read.
	pending := []*perfevent.Record{
		mmap(9, 20, 300, 1, 0, "/lib/child"), exit(8, 11, 11), fork(5, 10, 20), mmap(6, 10, 101, 1, 0, "/lib/new"),
		fork(5, 10, 21), mmap(8, 21, 400, 1, 0, "/bin/program"), exec(7, 21, "program"),
	}
	ahead := tl.Ahead(pending)
	check := func(p *Process, page uint64, want string) {
		t.Helper()
		if p == nil {
			t.Fatalf("the process of page %d is not known", page)
		}
		if got := at(p, page<<12); got != want {
			t.Errorf("page %d of process %d is %s, not %s", page, p.PID, got, want)
		}
	}
	both := func(of map[uint32]*Process) {
		t.Helper()
		check(of[10], 101, "/lib/new+0")
		check(of[10], 102, "/bin/shell+2")
		check(of[20], 101, "/bin/shell+1")
		check(of[20], 300, "/lib/child+0")
		check(of[21], 100, "nothing")
		check(of[21], 400, "/bin/program+0")
		if !of[11].Ended() || of[10].Ended() || of[10].Changed() != 6 || of[20].Changed() != 9 || of[21].Changed() != 8 || of[21].Execs != 1 {
			t.Errorf("%+v, %+v, %+v, %+v", of[10], of[11], of[20], of[21])
		}
	}
	both(ahead)
	if ahead[12] != nil {
		t.Errorf("a process of no record: %+v", ahead[12])
	}
	check(tl.processes[10], 101, "/bin/shell+1")
	if tl.processes[20] != nil || tl.processes[11].Ended() || tl.processes[10].Changed() != 2 {
		t.Error("the timeline has gone ahead")
	}
	for _, i := range []int{2, 4, 3, 6, 5, 1, 0} {
		tl.Apply(pending[i])
	}
	both(tl.Processes())
	check(ahead[20], 300, "/lib/child+0")
}

// Who knew of a process's mappings as of some time knows whether that is what is there.
func TestProcessKnew(t *testing.T) {
	tl := offline(t, Options{})
	knew := func(pid uint32, page, changed uint64) bool {
		t.Helper()
		p := tl.Process(pid)
		m, ok := p.Find(page << 12)
		if !ok {
			t.Fatalf("page %d of process %d is nothing", page, pid)
		}
		return p.Knew(changed, m)
	}
	for _, r := range []*perfevent.Record{
		exec(1, 10, "shell"), mmap(2, 10, 100, 4, 0, "/a"), mmap(3, 10, 101, 1, 0, "/b"), fork(4, 10, 20), exec(5, 10, "x"), mmap(6, 10, 101, 1, 0, "/c"),
	} {
		tl.Apply(r)
	}
	for _, test := range []struct {
		pid           uint32
		page, changed uint64
		want          bool
	}{
		{20, 100, 3, false}, // that is of another process with the number
		{20, 100, 4, true}, {20, 101, 4, true}, {20, 102, 4, true},
		{10, 101, 3, false}, {10, 101, 5, false}, {10, 101, 6, true}, {10, 101, 7, true},
	} {
		if got := knew(test.pid, test.page, test.changed); got != test.want {
			t.Errorf("%+v", test)
		}
	}
	tl.Apply(mmap(9, 20, 101, 1, 0, "/d"))
	if knew(20, 101, 4) || !knew(20, 100, 4) || !knew(20, 102, 4) || !knew(20, 101, 9) {
		t.Error("what was mapped last is not told from what was there")
	}
}

// An opener outlives what it is of.
func TestOpener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, _, err := openPath(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &File{Path: path, fd: fd}
	open := f.Opener()
	f.drop(os.ErrClosed)
	file, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if text, err := io.ReadAll(file); err != nil || string(text) != "content" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := f.Opener()(); err == nil {
		t.Error("a file that is not held was opened")
	}
	fd, _, err = openPath(path)
	if err != nil {
		t.Fatal(err)
	}
	f = &File{Path: path, fd: fd, BuildID: "0123"}
	defer f.drop(os.ErrClosed)
	if _, err := f.Opener()(); err == nil {
		t.Error("another file than the one that was mapped was opened")
	}
}
