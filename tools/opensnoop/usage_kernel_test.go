package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

// TestKernelBadUsage gives what makes no sense: status 2, one line, and nothing
// done. No flag is understood for what it is not.
func TestKernelBadUsage(t *testing.T) {
	livetest.Need(t)
	// A number above that of all processes.
	nobody := "4194304"
	before := livetest.Snapshot(t)
	for _, test := range []struct {
		args  string
		words []string
	}{
		{"-p 0", []string{"--pid", `"0"`}},
		{"-p -1", []string{"--pid"}},
		{"-p x", []string{"--pid", `"x"`}},
		{"-p 1,x", []string{"--pid", `"x"`}},
		{"-p 1,", []string{"--pid"}},
		{"-p " + nobody, []string{"--pid", "no process " + nobody}},
		{"-p 99999999999", []string{"--pid"}},
		{"-t 0", []string{"--tid"}},
		{"-t x", []string{"--tid"}},
		{"-t " + nobody, []string{"--tid", "no thread " + nobody}},
		{"-u gobcc-no-such-user", []string{"--uid", "gobcc-no-such-user"}},
		{"-u -1", []string{"--uid"}},
		{"-u 4294967296", []string{"--uid"}},
		{"-n a-name-that-is-too-long", []string{"--name", "15"}},
		{"--name=", []string{"--name"}},
		{"--cgroup /no/such/cgroup", []string{"--cgroup", "/no/such/cgroup"}},
		{"--cgroup /tmp", []string{"--cgroup"}},
		{"--cgroup 18446744073709551615", []string{"--cgroup"}},
		{"--cgroupmap /no/such/map", []string{"--cgroupmap", "/no/such/map"}},
		{"--mntnsmap /proc/self/status", []string{"--mntnsmap"}},
		{"-f O_NONSENSE", []string{"--flag-filter", "O_NONSENSE"}},
		{"-f 1", []string{"--flag-filter"}},
		{"-d 0", []string{"--duration", `"0"`}},
		{"-d -1", []string{"--duration", `"-1"`}},
		{"-d abc", []string{"--duration", `"abc"`}},
		{"--min-latency 0", []string{"--min-latency"}},
		{"--min-latency -5", []string{"--min-latency"}},
		{"--min-latency soon", []string{"--min-latency", "soon"}},
		{"--path [a", []string{"--path"}},
		{`--path a\`, []string{"--path"}},
		{"--path=", []string{"--path"}},
		{"-b 0", []string{"--buffer-pages"}},
		{"-b -1", []string{"--buffer-pages"}},
		{"-b 999999999", []string{"--buffer-pages"}},
		{"-b x", []string{"--buffer-pages"}},
		{"--attach magic", []string{"--attach", "magic"}},
		{"--path-root moon -F", []string{"--path-root", "moon"}},
		{"--path-root host", []string{"--path-root", "-F"}},
		{"--flag-names", []string{"--flag-names", "-e"}},
		{"--summary --json", []string{"--summary", "--json"}},
		{"--follow", []string{"--follow"}},
		{"--run-as nobody", []string{"--run-as"}},
		{"stray", []string{"stray"}},
		{"--no-such-flag", []string{"--no-such-flag"}},
		{"-p", []string{"-p"}},
		{"--btf /no/such/file", []string{"--btf", "/no/such/file"}},
		{"--btf /proc/self/status", []string{"--btf", "/proc/self/status"}},
		{"--btf /", []string{"--btf"}},
		{"--completion tcsh", []string{"tcsh", "bash, zsh"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			refused(t, cli.BadUsage, livetest.Run(t, strings.Fields(test.args)...), test.words...)
		})
	}
	livetest.NoLeak(t, before)
}

// TestKernelHelp prints what is asked for, and attaches nothing.
func TestKernelHelp(t *testing.T) {
	livetest.Need(t)
	for flag, word := range map[string]string{
		"--help": "Usage: opensnoop [options]", "-h": "Usage: opensnoop [options]", "--version": "opensnoop ",
		"--man": `.TH "OPENSNOOP" "8"`, "--completion=bash": "complete ", "--completion=zsh": "#compdef opensnoop", "--completion=fish": "complete ",
	} {
		if res := livetest.Run(t, flag); res.Status != 0 || res.Stderr != "" || !strings.Contains(res.Stdout, word) {
			t.Errorf("%s: status %d, %q on stderr, %q on stdout", flag, res.Status, res.Stderr, res.Stdout)
		}
	}
}

// TestKernelPrivileges runs the tool as who may not trace.
func TestKernelPrivileges(t *testing.T) {
	livetest.Need(t)
	before := livetest.Snapshot(t)
	nobody := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	for _, args := range [][]string{nil, {"--json"}, {"-p", "1"}, {"--attach", "tracepoint"}, {"--", "/proc/self/exe"}} {
		refused(t, cli.Impossible, livetest.StartWith(t, nobody, args...).Wait(), "CAP_BPF", "CAP_PERFMON", "root")
	}
	if res := livetest.StartWith(t, nobody, "--preflight").Wait(); res.Status != cli.Impossible || !strings.Contains(res.Stdout, "CAP_BPF") {
		t.Errorf("--preflight: status %d, %s%s", res.Status, res.Stdout, res.Stderr)
	}
	livetest.NoLeak(t, before)
}

// TestKernelBTF takes the kernel's types from a file.
func TestKernelBTF(t *testing.T) {
	livetest.Need(t)
	text, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, cut := dir+"/vmlinux", dir+"/cut"
	for path, text := range map[string][]byte{file: text, cut: text[:len(text)/2]} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		path := filepath.Join(dir, "missing")
		tool := livetest.Start(t, "--btf", file, "--json", "-p", fmt.Sprint(os.Getpid()))
		tool.Ready()
		openMany(path, times)
		n := 0
		for _, r := range rows(t, a, tool.Stop(), 0) {
			if r.path() == path && r.Errno == int(unix.ENOENT) {
				n++
			}
		}
		if n != times {
			a.Errorf("%d rows of %d", n, times)
		}
	})
	refused(t, cli.BadUsage, livetest.Run(t, "--btf", cut), "--btf", cut)
}
