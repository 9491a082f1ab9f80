package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// openMany tries to open a missing file.
func openMany(path string, n int) {
	name := livetest.Name(path)
	for range n {
		livetest.Openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
	}
}

// TestKernelDuration ends by -d, with all rows and not too soon.
func TestKernelDuration(t *testing.T) {
	livetest.Need(t)
	for _, d := range []struct {
		arg  string
		want time.Duration
	}{{"1", time.Second}, {"0.3", 300 * time.Millisecond}, {"700ms", 700 * time.Millisecond}} {
		livetest.Attempts(t, func(a *livetest.Attempt) {
			path := filepath.Join(t.TempDir(), "missing")
			tool := livetest.Start(t, "--json", "-p", fmt.Sprint(os.Getpid()), "-d", d.arg)
			tool.Ready()
			begin := time.Now()
			openMany(path, times)
			n := 0
			res := tool.Wait()
			// The time runs from when the tool is ready, and what comes after is
			// taking the programs off.
			if took := time.Since(begin); took < d.want-50*time.Millisecond || took > d.want+2*time.Second {
				t.Errorf("-d %s took %v", d.arg, took)
			}
			for _, r := range rows(t, a, res, 0) {
				if r.path() == path {
					n++
				}
			}
			if n != times {
				a.Errorf("%d rows of %d", n, times)
			}
		})
	}
}

// TestKernelShielded finds the tool say that process 1 is not to be seen where that is so,
// and only there.
func TestKernelShielded(t *testing.T) {
	livetest.Need(t)
	const remark = "opensnoop: not seen here: process 1, and interrupts while it runs"
	watch := perfevent.WatchProcess(1)
	defer watch.Close()
	for try := 1; ; try++ {
		tool := livetest.Start(t, "-d", "1", "--path-prefix", t.TempDir())
		said := strings.Contains(tool.Wait().Over(t, 0).Stderr, remark)
		shielded := watch.Shielded()
		if said && !shielded {
			t.Error("process 1 is said not to be seen, but it is")
		}
		// It may not have run while the tool did.
		if said == shielded || try == 10 {
			if said != shielded {
				t.Error("it is not said that process 1 is not seen")
			}
			t.Logf("process 1 is shielded: %t", shielded)
			return
		}
	}
}

// TestKernelSignals drains what there is and ends with status 0.
func TestKernelSignals(t *testing.T) {
	livetest.Need(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		livetest.Attempts(t, func(a *livetest.Attempt) {
			path := filepath.Join(t.TempDir(), "missing")
			tool := livetest.Start(t, "--path-prefix", path)
			tool.Ready()
			openMany(path, 1000*times)
			tool.Signal(sig)
			res := tool.Wait()
			a.Lost(res)
			if res.Status != cli.Done {
				t.Errorf("%v: status %d: %s", sig, res.Status, res.Stderr)
			}
			if n := len(res.Lines()) - 1; n != 1000*times {
				a.Errorf("%v: %d rows of %d", sig, n, 1000*times)
			}
		})
	}
}

// TestKernelSecondSignal ends a tool that can't end by itself: nobody reads what
// it has to write.
func TestKernelSecondSignal(t *testing.T) {
	livetest.Need(t)
	before := livetest.Snapshot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path := filepath.Join(t.TempDir(), "missing")
	tool := livetest.StartWith(t, func(cmd *exec.Cmd) { cmd.Stdout = w }, "--path-prefix", path)
	w.Close()
	tool.Ready()
	openMany(path, 1000*times) // some 2 MB, and the pipe takes 64 KiB
	for unreadBytes(t, r) < 60_000 {
		time.Sleep(time.Millisecond)
	}
	tool.Signal(syscall.SIGINT)
	// The first signal is taken at a moment that nothing shows; until then the
	// second would be the first. So it is sent until it has worked.
	ended := make(chan livetest.Result, 1)
	go func() { ended <- tool.Wait() }()
	for {
		select {
		case res := <-ended:
			if res.Status != 128+int(syscall.SIGINT) {
				t.Errorf("status %d: %s", res.Status, res.Stderr)
			}
			r.Close()
			livetest.NoLeak(t, before)
			return
		case <-time.After(100 * time.Millisecond):
			_ = unix.Kill(tool.Pid(), unix.SIGINT) // it may have ended just now
		}
	}
}

// unreadBytes is how many bytes a pipe holds.
func unreadBytes(t *testing.T, pipe *os.File) int {
	t.Helper()
	n, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKernelClosedPipe has the reader of standard output go away.
func TestKernelClosedPipe(t *testing.T) {
	livetest.Need(t)
	for _, args := range [][]string{nil, {"--json"}, {"--summary", "-d", "0.5"}} {
		before := livetest.Snapshot(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "missing")
		tool := livetest.StartWith(t, func(cmd *exec.Cmd) { cmd.Stdout = w }, append(args, "--path-prefix", path)...)
		w.Close()
		tool.Ready()
		r.Close()
		openMany(path, times)
		res := tool.Wait()
		// What a mode can't see is said as it starts.
		said := regexp.MustCompile(`(?m)^opensnoop: not seen here: .*\n`).ReplaceAllString(res.Stderr, "")
		if res.Status != cli.Done && res.Status != 128+int(syscall.SIGPIPE) || said != "" {
			t.Errorf("%s: status %d: %s", args, res.Status, res.Stderr)
		}
		livetest.NoLeak(t, before)
	}
}

// TestKernelFullDisk has standard output take nothing.
func TestKernelFullDisk(t *testing.T) {
	livetest.NeedFast(t)
	for _, args := range [][]string{nil, {"--json"}, {"--summary", "-d", "0.5"}, {"--preflight"}, {"--help"}, {"--version"}} {
		before := livetest.Snapshot(t)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "missing")
		tool := livetest.StartWith(t, func(cmd *exec.Cmd) { cmd.Stdout = full }, append(args, "-p", fmt.Sprint(os.Getpid()))...)
		full.Close()
		if len(args) == 1 && args[0] == "--json" {
			tool.Ready() // there is no header, so it fails at the first row
			openMany(path, times)
		}
		refused(t, cli.Failed, tool.Wait(), "no space left on device")
		livetest.NoLeak(t, before)
	}
	// What was written before the disk was full is whole lines.
	livetest.Namespace(t, func() {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(dir + "/out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		path := filepath.Join(t.TempDir(), "missing")
		tool := livetest.StartWith(t, func(cmd *exec.Cmd) { cmd.Stdout = out }, "--json", "-p", fmt.Sprint(os.Getpid()))
		tool.Ready()
		openMany(path, 100*times)
		res := tool.Wait()
		if res.Status != cli.Failed || strings.Count(res.Stderr, "\n") != 1 || !strings.Contains(res.Stderr, "no space left on device") {
			t.Errorf("status %d: %s", res.Status, res.Stderr)
		}
		if _, err := out.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) < 32<<10 || text[len(text)-1] != '\n' {
			t.Errorf("%d bytes, at the end %q", len(text), text[max(0, len(text)-100):])
		}
		decode(t, livetest.Result{Stdout: string(text)})
	})
}

// TestKernelSummary counts by process and path.
func TestKernelSummary(t *testing.T) {
	livetest.Need(t)
	livetest.EachMode(t, func(t *testing.T, mode string) {
		dir := t.TempDir()
		often, seldom, there := dir+"/often", dir+"/sel\ndom", dir+"/there"
		if err := os.WriteFile(there, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		livetest.Attempts(t, func(a *livetest.Attempt) {
			tool := livetest.Start(t, "--attach", mode, "--summary", "--path-prefix", dir)
			tool.Ready()
			openMany(often, 3*times)
			openMany(seldom, times)
			for range 2 * times {
				unix.Close(livetest.Openat(unix.AT_FDCWD, livetest.Name(there), unix.O_RDONLY, 0))
			}
			// Half of them fail.
			if err := os.Remove(there); err != nil {
				t.Fatal(err)
			}
			openMany(there, 2*times)
			res := tool.Stop()
			a.Lost(res)
			lines := res.Lines()
			if res.Status != 0 || len(lines) != 4 || lines[0] != "   OPENS   FAILED   AVG(us)   MAX(us) PID    COMM             PATH" {
				a.Errorf("status %d: %s%s", res.Status, res.Stdout, res.Stderr)
				return
			}
			for i, want := range []struct {
				opens, failed int
				path          string
			}{{4 * times, 2 * times, there}, {3 * times, 3 * times, often}, {times, times, dir + `/sel\ndom`}} {
				var opens, failed, pid int
				var average, longest float64
				var comm, path string
				n, err := fmt.Sscanf(lines[i+1], "%d %d %f %f %d %s %s", &opens, &failed, &average, &longest, &pid, &comm, &path)
				if n != 7 || opens != want.opens || failed != want.failed || path != want.path || pid != os.Getpid() ||
					average <= 0 || average > longest {
					a.Errorf("line %d, of %+v: %s (%v)", i, want, lines[i+1], err)
				}
			}
		})
	})
}

// TestKernelPreflight compares what --preflight says with what then works.
func TestKernelPreflight(t *testing.T) {
	livetest.Need(t)
	modes := livetest.Modes(t)
	text := livetest.Run(t, "--preflight")
	if text.Status != 0 {
		t.Errorf("status %d: %s", text.Status, text.Stderr)
	}
	for mode, report := range modes {
		said := regexp.MustCompile(`(?m)^--attach ` + mode + ` +(yes|no) *(.*)$`).FindStringSubmatch(text.Stdout)
		if said == nil || (said[1] == "yes") != report.OK || said[2] != report.Reason {
			t.Errorf("--attach %s: in text %q, in JSON %t %s", mode, said, report.OK, report.Reason)
		}
		if !report.OK {
			refused(t, cli.Impossible, livetest.Run(t, "--attach", mode), mode)
			if res := livetest.Run(t, "--attach", mode, "--preflight"); res.Status != cli.Impossible {
				t.Errorf("--attach %s --preflight: status %d", mode, res.Status)
			}
			continue
		}
		tool := livetest.Start(t, "--attach", mode, "-v")
		tool.Ready()
		res := tool.Stop()
		if res.Status != 0 {
			t.Errorf("--attach %s: status %d: %s", mode, res.Status, res.Stderr)
		}
		// -v says of each hook what was foretold.
		for _, hook := range report.Hooks {
			want := fmt.Sprintf("opensnoop: %s: can't be had\n", hook.Name)
			if hook.Mode != nil {
				want = fmt.Sprintf("opensnoop: %s: by %s\n", hook.Name, *hook.Mode)
			}
			if !strings.Contains(res.Stderr, want) {
				t.Errorf("--attach %s -v lacks %q:\n%s", mode, want, res.Stderr)
			}
			for _, blind := range hook.NotSeen {
				if want := "opensnoop: not seen here: " + blind + "\n"; strings.Count(res.Stderr, want) != 1 {
					t.Errorf("--attach %s -v lacks %q:\n%s", mode, want, res.Stderr)
				}
			}
		}
	}
	// auto takes the first that there is.
	for _, mode := range []string{"fentry", "kprobe", "tracepoint"} {
		if !modes[mode].OK {
			continue
		}
		if got := *modes["auto"].Hooks[0].Mode; got != mode {
			t.Errorf("auto is %s, but there is %s", got, mode)
		}
		break
	}
}

// TestKernelStats has the tool account for itself.
func TestKernelStats(t *testing.T) {
	livetest.Need(t)
	enabled := func() string {
		text, err := os.ReadFile("/proc/sys/kernel/bpf_stats_enabled")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := enabled()
	path := filepath.Join(t.TempDir(), "missing")
	tool := livetest.Start(t, "--stats", "--path-prefix", path)
	tool.Ready()
	openMany(path, times)
	res := tool.Stop()
	if res.Status != 0 {
		t.Fatalf("status %d: %s", res.Status, res.Stderr)
	}
	for _, want := range []string{
		`(?m)^opensnoop: program \w+ ran [0-9]+ times, [0-9]+ ns each, .* in all$`,
		`(?m)^opensnoop: the tool took .* of CPU time in .*, and at most [0-9]+ KiB of memory`,
		fmt.Sprintf(`(?m)^opensnoop: %d events shown, 0 lost$`, times),
	} {
		if !regexp.MustCompile(want).MatchString(res.Stderr) {
			t.Errorf("--stats says nothing like %s:\n%s", want, res.Stderr)
		}
	}
	if after := enabled(); after != before {
		t.Errorf("kernel.bpf_stats_enabled was %s and is %s", before, after)
	}
}
