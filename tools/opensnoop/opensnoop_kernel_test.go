package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

func TestMain(m *testing.M) { livetest.Main(m, main) }

// row is an object that opensnoop --json writes.
type row struct {
	Kind       string   `json:"kind"`
	Time       string   `json:"time"`
	PID        int      `json:"pid"`
	TID        int      `json:"tid"`
	PPID       int      `json:"ppid"`
	UID        int      `json:"uid"`
	Comm       string   `json:"comm"`
	CgroupID   uint64   `json:"cgroup_id"`
	Path       *string  `json:"path"`
	PathBytes  []byte   `json:"path_bytes"`
	FullPath   *string  `json:"full_path"`
	Unreadable bool     `json:"path_unreadable"`
	PathCut    bool     `json:"path_cut"`
	Deleted    bool     `json:"deleted"`
	FD         int      `json:"fd"`
	Errno      int      `json:"errno"`
	Error      *string  `json:"error"`
	Flags      []string `json:"flags"`
	FlagsValue uint64   `json:"flags_value"`
	Mode       *string  `json:"mode"`
	Via        string   `json:"via"`
	LatencyNs  *uint64  `json:"latency_ns"`
	Lost       uint64   `json:"lost"`
}

// rows decodes what a tool wrote with --json. Losses are a failure.
func rows(t *testing.T, res livetest.Result) []row {
	t.Helper()
	var list []row
	for _, line := range res.Lines() {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("not JSON: %v: %q", err, line)
		}
		if r.Kind == "lost" {
			if r.Lost > 0 {
				t.Errorf("lost events: %s", line)
			}
			continue
		}
		list = append(list, r)
	}
	return list
}

func (r row) path() string {
	switch {
	case r.PathBytes != nil:
		return string(r.PathBytes)
	case r.Path == nil:
		return "<null>"
	}
	return *r.Path
}

// eachMode runs a test in every attach mode that this kernel has. Which those are
// is known of the kernels in the matrix, so a mode that fails there is not taken
// for one that the kernel lacks.
func eachMode(t *testing.T, test func(t *testing.T, mode string)) {
	for _, mode := range []string{"fentry", "kprobe", "tracepoint"} {
		t.Run(mode, func(t *testing.T) {
			res := livetest.Run(t, "--attach", mode, "--preflight")
			if res.Status == cli.Impossible {
				t.Skipf("this kernel has no such mode: %s", res.Stderr)
			}
			if res.Status != 0 {
				t.Fatalf("status %d: %s", res.Status, res.Stderr)
			}
			test(t, mode)
		})
	}
}

// opens is how often each test opens: a prime, as in BCC's own tests.
const opens = 23

// TestKernelOpens makes each kind of open, succeeding and failing, and counts.
func TestKernelOpens(t *testing.T) {
	livetest.Need(t)
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	var ring *livetest.URing
	if r, err := livetest.NewURing(0); err != nil {
		t.Logf("io_uring: %v", err)
	} else {
		ring = r
		defer ring.Close()
	}
	handle, handleErr := livetest.Handle(there)
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	how := &unix.OpenHow{Flags: unix.O_RDONLY}
	kinds := []struct {
		via  string
		open func(path string) (int, bool)
	}{
		{"open", func(p string) (int, bool) { return livetest.Open(livetest.Name(p), unix.O_RDONLY, 0) }},
		{"openat", func(p string) (int, bool) {
			return livetest.Openat(unix.AT_FDCWD, livetest.Name(p), unix.O_RDONLY, 0), true
		}},
		{"openat2", func(p string) (int, bool) {
			return livetest.Openat2(unix.AT_FDCWD, livetest.Name(p), how), true
		}},
		{"open/32", func(p string) (int, bool) { return livetest.Int80Open(livetest.LowName(t, p), unix.O_RDONLY, 0) }},
		{"openat/32", func(p string) (int, bool) {
			return livetest.Int80Openat(unix.AT_FDCWD, livetest.LowName(t, p), unix.O_RDONLY, 0)
		}},
		{"openat2/32", func(p string) (int, bool) {
			return livetest.Int80Openat2(unix.AT_FDCWD, livetest.LowName(t, p), how)
		}},
		{"io_uring/openat", func(p string) (int, bool) {
			if ring == nil {
				return 0, false
			}
			fd, err := ring.Openat(unix.AT_FDCWD, livetest.Name(p), unix.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fd, true
		}},
		{"io_uring/openat2", func(p string) (int, bool) {
			if ring == nil {
				return 0, false
			}
			fd, err := ring.Openat2(unix.AT_FDCWD, livetest.Name(p), how)
			if err != nil {
				t.Fatal(err)
			}
			return fd, true
		}},
		{"open_by_handle_at", func(p string) (int, bool) {
			if handleErr != nil {
				return 0, false
			}
			h := handle
			if p == missing { // a handle of nothing
				h = unix.NewFileHandle(handle.Type(), make([]byte, handle.Size()))
			}
			return livetest.OpenByHandleAt(int(root.Fd()), h, unix.O_RDONLY), true
		}},
	}
	eachMode(t, func(t *testing.T, mode string) {
		tool := livetest.Start(t, "--attach", mode, "--json", "-p", fmt.Sprint(os.Getpid()))
		tool.Ready()
		want := map[string]int{}
		for _, kind := range kinds {
			for range opens {
				fd, ok := kind.open(there)
				if !ok {
					t.Logf("this machine can't open by %s", kind.via)
					break
				}
				if fd < 0 {
					t.Fatalf("%s: %v", kind.via, unix.Errno(-fd))
				}
				unix.Close(fd)
				want[kind.via+" there"]++
				errno, _ := kind.open(missing)
				if errno >= 0 {
					t.Fatalf("%s opened %s", kind.via, missing)
				}
				want[kind.via+" "+unix.ErrnoName(unix.Errno(-errno))]++
			}
		}
		res := tool.Stop()
		if res.Status != 0 {
			t.Fatalf("status %d: %s", res.Status, res.Stderr)
		}
		got := map[string]int{}
		for _, r := range rows(t, res) {
			if r.Errno == 0 {
				if r.path() != there && r.Via != "open_by_handle_at" || r.FullPath == nil || *r.FullPath != there {
					continue
				}
				got[r.Via+" there"]++
			} else if r.path() == missing || r.Via == "open_by_handle_at" {
				got[r.Via+" "+*r.Error]++
			}
		}
		for key, n := range want {
			via, _, _ := strings.Cut(key, " ")
			what, _, _ := strings.Cut(via, "/")
			if strings.Contains(res.Stderr, "not seen here: files opened") && strings.Contains(res.Stderr, what) {
				t.Logf("%s mode hides %s here, and says so", mode, via)
				n = 0
			}
			if got[key] != n {
				t.Errorf("%s: %d rows of %d", key, got[key], n)
			}
		}
		if t.Failed() {
			t.Logf("rows: %v\n%s", got, res.Stderr)
		}
	})
}
