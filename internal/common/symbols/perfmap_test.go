package symbols

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPerfMap(t *testing.T) {
	p, err := ParsePerfMap(strings.NewReader(strings.Join([]string{
		"1000 100 first",
		"0x2000 0x10 int java.lang.String::hashCode()",
		"3000 10 with;odd\x01bytes\xff",
		"1000 20 moved here",
		"5000 100 outer",
		"5010 10 later, in the middle",
		"6000 10 no line end is needed on windows\r",
		"garbage",
		"7000 10",
		"7000 10 ",
		"7000 0 empty",
		"zz 10 name",
		"ffffffffffffffff 10 past the end",
		"8000 10 " + strings.Repeat("x", maxPerfMapLine),
		"",
		"9000 10 last",
	}, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]string{
		0xfff:  "",
		0x1000: "moved here", 0x101f: "moved here", 0x1020: "first", 0x10ff: "first", 0x1100: "",
		0x2000: "int java.lang.String::hashCode()", 0x2010: "",
		0x3000: "with;odd\x01bytes\xff",
		0x500f: "outer", 0x5010: "later, in the middle", 0x5020: "outer",
		0x6000: "no line end is needed on windows",
		0x7000: "", 0x8000: "", 0x9000: "last",
	} {
		line, ok := p.Find(addr)
		if line.Function != want || ok != (want != "") || line.Linkage != want {
			t.Errorf("%#x is %+v %v, want %q", addr, line, ok, want)
		}
	}
	if line, _ := p.Find(0x1020); line.Start != 0x1000 {
		t.Errorf("it starts at %#x, want 0x1000", line.Start)
	}
	if p.Len() != 8 || p.Skipped != 7 {
		t.Errorf("%d entries and %d lines skipped, want 8 and 7", p.Len(), p.Skipped)
	}
}

func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("1000 10 a\n1008 10 b\n"), uint64(0x1009))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		p, err := ParsePerfMap(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		// The last line that has the address names it.
		want := ""
		for _, line := range bytes.Split(data, []byte("\n")) {
			line = bytes.TrimRight(line, "\r")
			if len(line) >= maxPerfMapLine {
				continue
			}
			if e, name, ok := perfMapLine(line); ok && e.start <= addr && addr < e.end {
				want = string(name)
			}
		}
		if line, _ := p.Find(addr); line.Function != want {
			t.Errorf("%#x is %q, want %q", addr, line.Function, want)
		}
	})
}

// child starts a process that stays until it is killed.
func child(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestFindPerfMap(t *testing.T) {
	cmd := child(t)
	pid := cmd.Process.Pid
	path := fmt.Sprintf("/tmp/perf-%d.map", pid)
	t.Cleanup(func() { os.Remove(path) })
	m, err := findPerfMap(pid, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		p, err := m.Read()
		if err != nil {
			t.Fatal(err)
		}
		if line, _ := p.Find(0x1000); line.Function != want {
			t.Errorf("found %+v, want %q", line, want)
		}
	}
	if _, err := m.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is there: %v", err)
	}
	write("1000 10 one\n")
	check("one")
	write("1000 10 two\n")
	check("two")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	check("two") // though the process is gone
	write("1000 10 three\n")
	check("three")

	// What isn't a plain file of the process's user is refused, and not waited for.
	refused := func(what, say string) {
		t.Helper()
		if _, err := m.Read(); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want that it says %q", what, err, say)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		refused("another user's", "user 12345")
	} else {
		os.Remove(path)
	}
	target := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(target, []byte("1000 10 x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	refused("a link", unix.ELOOP.Error())
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a fifo", "not a regular file")
}

// TestFindPerfMapHost finds a map that somebody wrote for a process, with the pid that
// it has here.
func TestFindPerfMapHost(t *testing.T) {
	cmd := child(t)
	host := t.TempDir()
	if err := os.Mkdir(filepath.Join(host, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(host, "tmp", fmt.Sprintf("perf-%d.map", cmd.Process.Pid))
	if err := os.WriteFile(path, []byte("1000 10 one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := findPerfMap(cmd.Process.Pid, host)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	if p.Len() != 1 {
		t.Errorf("%d entries, want 1", p.Len())
	}
}

// TestFindPerfMapNamespace finds the map of a process that has a root directory and pids
// of its own.
func TestFindPerfMapNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root, for namespaces")
	}
	cmd := exec.Command("sh", "-c", "mount -t tmpfs none /tmp && echo 1000 10 mine >/tmp/perf-1.map && echo ready && exec sleep 3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIPPED: no namespaces here: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); _ = cmd.Wait() })
	ready := make([]byte, 6)
	if _, err := out.Read(ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("%q %v", ready, err)
	}
	m, err := FindPerfMap(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	if line, _ := p.Find(0x1000); line.Function != "mine" {
		t.Errorf("found %+v", line)
	}
}

func TestFindPerfMapNoProcess(t *testing.T) {
	cmd := child(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := FindPerfMap(cmd.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}

func TestParseStatus(t *testing.T) {
	uid, pid, err := parseStatus([]byte("Name:\tx\nUid:\t1\t2\t3\t4\nNSpid:\t100\t20\t3\n"))
	if err != nil || uid != 2 || pid != 3 {
		t.Errorf("user %d, pid %d, %v", uid, pid, err)
	}
	for _, bad := range []string{"", "Uid:\t1\nNSpid:\t1\n", "Uid:\t1\tx\nNSpid:\t1\n", "Uid:\t1\t2\nNSpid:\tx\n", "Uid:\t1\t2\n"} {
		if _, _, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}
