package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// TestKernelColumns compares rows of text, byte by byte, with what BCC's format
// strings make of the same opens.
func TestKernelColumns(t *testing.T) {
	livetest.NeedFast(t)
	modes := livetest.Modes(t)
	if !modes["auto"].OK {
		t.Fatalf("no mode at all: %s", modes["auto"].Reason)
	}
	dir := t.TempDir()
	there, link, missing := filepath.Join(dir, "there"), filepath.Join(dir, "link"), filepath.Join(dir, "missing")
	fresh := filepath.Join(dir, "new\n\x1b\xff")
	if err := os.Symlink(there, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, nil, 0o644); err != nil {
		t.Fatal(err)
	}

	const number, text = `[0-9]+\.[0-9]`, `%-6d %-16s %4d %3d `
	pid, tid := os.Getpid(), 0
	type made struct {
		fd         int
		path, full string
		errno      int
		flags      string
		names      string
		mode       string
	}
	var opens []made
	// Each test makes of an open a row, as a regular expression where a time stands.
	for _, test := range []struct {
		args   []string
		header string
		row    func(o made) string
	}{
		{nil, "PID    COMM               FD ERR PATH",
			func(o made) string { return fmt.Sprintf(text+"%s", pid, "columns", o.fd, o.errno, o.path) }},
		{[]string{"-T"}, "TIME(s)       PID    COMM               FD ERR PATH",
			func(o made) string {
				return `[0-9]+\.[0-9]{9} {3,}` + fmt.Sprintf(text+"%s", pid, "columns", o.fd, o.errno, o.path)
			}},
		{[]string{"-U"}, "UID   PID    COMM               FD ERR PATH",
			func(o made) string { return fmt.Sprintf("%-6d"+text+"%s", 0, pid, "columns", o.fd, o.errno, o.path) }},
		{[]string{"-e"}, "PID    COMM               FD ERR FLAGS    MODE PATH" + strings.Repeat(" ", 29) + "VIA",
			func(o made) string {
				return fmt.Sprintf(text+"%s %-5s%-32s openat", pid, "columns", o.fd, o.errno, o.flags, o.mode, o.path)
			}},
		{[]string{"-F"}, "PID    COMM               FD ERR PATH",
			func(o made) string { return fmt.Sprintf(text+"%s", pid, "columns", o.fd, o.errno, o.full) }},
		{[]string{"-t", "TID"}, "TID    COMM               FD ERR PATH",
			func(o made) string { return fmt.Sprintf(text+"%s", tid, "columns", o.fd, o.errno, o.path) }},
		{[]string{"--errno-names"}, "PID    COMM               FD ERR          PATH",
			func(o made) string {
				name := "0"
				if o.errno != 0 {
					name = unix.ErrnoName(unix.Errno(o.errno))
				}
				return fmt.Sprintf("%-6d %-16s %4d %-12s %s", pid, "columns", o.fd, name, o.path)
			}},
		{[]string{"-e", "--flag-names"}, "PID    COMM               FD ERR FLAGS                          MODE PATH" + strings.Repeat(" ", 29) + "VIA",
			func(o made) string {
				return fmt.Sprintf(text+"%-30s %-5s%-32s openat", pid, "columns", o.fd, o.errno, o.names, o.mode, o.path)
			}},
		{[]string{"--latency"}, "PID    COMM               FD ERR   LAT(us) PATH",
			func(o made) string {
				return fmt.Sprintf("%-6d %-16s %4d %3d ", pid, "columns", o.fd, o.errno) + " *" + number + " " + o.path
			}},
		{[]string{"-T", "-U", "-e", "-F", "--latency", "--errno-names"}, "TIME(s)       UID   PID    COMM               FD ERR            LAT(us) FLAGS    MODE PATH" + strings.Repeat(" ", 29) + "VIA", nil},
	} {
		t.Run(strings.Join(append([]string{"opensnoop"}, test.args...), " "), func(t *testing.T) {
			livetest.Attempts(t, func(a *livetest.Attempt) {
				opens = nil
				var res livetest.Result
				done := make(chan struct{})
				go func() {
					defer close(done)
					runtime.LockOSThread() // never unlocked: the name goes with the thread
					tid = unix.Gettid()
					if err := livetest.SetComm("columns"); err != nil {
						t.Error(err)
					}
					args := append([]string{"-p", fmt.Sprint(pid), "-n", "columns"}, test.args...)
					for i := range args {
						if args[i] == "TID" {
							args[i] = fmt.Sprint(tid)
						}
					}
					tool := livetest.Start(t, args...)
					tool.Ready()
					open := func(name, path, full string, flags int, flagNames, mode string) {
						m := made{path: path, full: full, flags: fmt.Sprintf("%08o", flags), names: flagNames, mode: mode}
						m.fd = livetest.Openat(unix.AT_FDCWD, livetest.Name(name), flags, 0o640)
						if m.fd >= 0 {
							unix.Close(m.fd)
						} else {
							m.errno, m.fd = -m.fd, -1
						}
						opens = append(opens, m)
					}
					for range times {
						open(link, link, there, unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC", "n/a")
						open(missing, missing, missing, unix.O_WRONLY, "O_WRONLY", "n/a")
						shown := filepath.Join(dir, `new\n\x1b\xff`)
						open(fresh, shown, shown, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND, "O_RDWR|O_APPEND|O_CREAT", "0640")
					}
					res = tool.Stop()
				}()
				<-done
				if res.Status != 0 {
					t.Fatalf("status %d: %s", res.Status, res.Stderr)
				}
				a.Lost(res)
				lines := res.Lines()
				if lines[0] != test.header {
					t.Errorf("the header\n got %q\nwant %q", lines[0], test.header)
				}
				if len(lines)-1 != len(opens) {
					a.Errorf("%d rows of %d", len(lines)-1, len(opens))
					return
				}
				for i, line := range lines[1:] {
					if test.row == nil {
						continue
					}
					want := test.row(opens[i])
					if !matchRow(want, line) {
						a.Errorf("row %d\n got %q\nwant %q", i, line, want)
					}
				}
			})
		})
	}
}

// matchRow compares a line with a row that may have patterns of numbers in it.
func matchRow(want, line string) bool {
	if !strings.Contains(want, "[0-9]") {
		return want == line
	}
	quoted := regexp.QuoteMeta(want)
	for _, pattern := range []string{`[0-9]+\.[0-9]{9} {3,}`, ` *[0-9]+\.[0-9]`} {
		quoted = strings.ReplaceAll(quoted, regexp.QuoteMeta(pattern), pattern)
	}
	return regexp.MustCompile(`\A` + quoted + `\z`).MatchString(line)
}

// TestKernelEscapes has odd names and comms in text.
func TestKernelEscapes(t *testing.T) {
	livetest.Need(t)
	dir := t.TempDir()
	livetest.Attempts(t, func(a *livetest.Attempt) {
		var res livetest.Result
		inThread(t, "e\x1b\n\xff", func() {
			tool := livetest.Start(t, "-t", fmt.Sprint(unix.Gettid()))
			tool.Ready()
			for _, n := range odd {
				for range times {
					livetest.Openat(unix.AT_FDCWD, livetest.Name(filepath.Join(dir, n.name)), unix.O_RDONLY, 0)
				}
			}
			res = tool.Stop()
		})
		a.Lost(res)
		var want []string
		for _, n := range odd {
			for range times {
				want = append(want, filepath.Join(dir, n.shown))
			}
		}
		lines := res.Lines()
		if len(lines)-1 != len(want) {
			a.Errorf("%d rows of %d", len(lines)-1, len(want))
			return
		}
		for i, line := range lines[1:] {
			_, path, ok := strings.Cut(line, ` e\x1b\n\xff        -1   2 `)
			if !ok || path != want[i] {
				t.Errorf("row %d\n got %q\nwant %q", i, line, want[i])
			}
		}
	})
}

// inThread runs do in a thread of that name, which ends with it.
func inThread(t *testing.T, comm string, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := livetest.SetComm(comm); err != nil {
			t.Error(err)
			return
		}
		do()
	}()
	<-done
}
