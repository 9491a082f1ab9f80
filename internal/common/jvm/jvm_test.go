package jvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

const program = `
class Wait {
	static int burn(int n) {
		int sum = 0;
		for (int i = 0; i < n; i++)
			sum += Integer.toString(i).hashCode();
		return sum;
	}

	public static void main(String[] args) throws Exception {
		System.out.println("ready " + burn(1_000_000));
		while (System.in.read() >= 0)
			System.out.println("alive");
	}
}
`

// A machine is a JVM that runs until its input ends.
type machine struct {
	*exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func start(t *testing.T, uid uint32, options ...string) *machine {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("SKIPPED: no java here")
	}
	dir, err := os.MkdirTemp("/tmp", "jvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "Wait.java")
	if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &machine{Cmd: exec.Command("java", append(options, source)...)}
	m.Dir = dir
	if uid != 0 {
		m.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	if m.in, err = m.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := m.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.out = bufio.NewReader(out)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Process.Kill()
		_ = m.Wait()
		os.Remove(fmt.Sprintf("/tmp/perf-%d.map", m.Process.Pid))
		os.Remove(fmt.Sprintf("/tmp/.java_pid%d", m.Process.Pid))
	})
	if line, err := m.out.ReadString('\n'); !strings.HasPrefix(line, "ready") {
		t.Skipf("SKIPPED: java doesn't run this program: %q %v", line, err)
	}
	return m
}

// checkAlive fails the test if the JVM has ended, or printed more than it should.
func (m *machine) checkAlive(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(m.in, "x"); err != nil {
		t.Error(err)
	}
	if line, err := m.out.ReadString('\n'); line != "alive\n" {
		t.Errorf("the JVM printed %q: %v", line, err)
	}
}

func TestWritePerfMap(t *testing.T) {
	for _, uid := range []uint32{0, 65534} {
		if uid != 0 && os.Getuid() != 0 {
			t.Log("no JVM of another user: that needs root")
			continue
		}
		m := start(t, uid)
		pid := m.Process.Pid
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		file, err := symbols.FindPerfMap(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for range 2 { // the second time it listens already
			if err := WritePerfMap(ctx, pid); err != nil {
				if strings.Contains(err.Error(), "from version 17") {
					t.Skipf("SKIPPED: %v", err)
				}
				t.Fatal(err)
			}
			p, err := file.Read()
			if err != nil {
				t.Fatal(err)
			}
			if p.Len() < 100 || p.Skipped > 0 {
				t.Errorf("user %d: %d entries, %d lines not understood", uid, p.Len(), p.Skipped)
			}
			if err := os.Remove(fmt.Sprintf("/tmp/perf-%d.map", pid)); err != nil {
				t.Error(err)
			}
		}
		m.checkAlive(t)
		if left, err := filepath.Glob(fmt.Sprintf("/tmp/.attach_pid%d", pid)); len(left) > 0 || err != nil {
			t.Error(left, err)
		}
	}
}

// TestNotAsked leaves alone what would end, or print something, if it were asked.
func TestNotAsked(t *testing.T) {
	for _, option := range []string{"-Xrs", "-XX:+DisableAttachMechanism"} {
		m := start(t, 0, option)
		if err := WritePerfMap(t.Context(), m.Process.Pid); !errors.Is(err, ErrNoHotSpot) || errors.Is(err, ErrNoJVM) {
			t.Errorf("%s: %v", option, err)
		}
		m.checkAlive(t)
	}
}

func TestNoJVM(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := WritePerfMap(t.Context(), cmd.Process.Pid); !errors.Is(err, ErrNoHotSpot) || !errors.Is(err, ErrNoJVM) {
		t.Error(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process did not end by itself: %v", err)
	}
	if err := WritePerfMap(t.Context(), cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("no such process: %v", err)
	}
}

// TestSocket has this process be the JVM: it checks what is sent, and that answers are
// waited for no longer than wanted.
func TestSocket(t *testing.T) {
	dir := t.TempDir()
	tmp, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tmp)
	self := &target{pid: os.Getpid(), nspid: os.Getpid(), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if self.listens(tmp) {
		t.Error("it listens before it does")
	}
	l, err := net.Listen("unix", filepath.Join(dir, self.socket()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !self.listens(tmp) {
		t.Error("it doesn't listen")
	}
	talk := func(reply string) (request string, err error) {
		t.Helper()
		got := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				got <- err.Error()
				return
			}
			defer conn.Close()
			b := make([]byte, 100)
			n, _ := conn.Read(b)
			_, _ = io.WriteString(conn, reply)
			if reply == "" {
				_, _ = conn.Read(b) // until the other side gives up
			}
			got <- string(b[:n])
		}()
		conn, err := self.connect(tmp)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		if reply == "" {
			cancel()
		}
		err = self.ask(ctx, conn)
		conn.Close()
		cancel()
		return <-got, err
	}
	request, err := talk("0\n")
	if want := "1\x00jcmd\x00Compiler.perfmap\x00\x00\x00"; request != want || err != nil {
		t.Errorf("asked %q, %v", request, err)
	}
	for reply, want := range map[string]string{
		"1\njava.lang.IllegalArgumentException: Unknown diagnostic command\n": "from version 17",
		"101\nsomething\n": `error 101: "something"`,
		"nonsense":         "not understood",
		"":                 context.Canceled.Error(),
	} {
		if _, err := talk(reply); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", reply, err, want)
		}
	}
	other := *self
	other.pid++
	if err := os.Rename(filepath.Join(dir, self.socket()), filepath.Join(dir, other.socket())); err != nil {
		t.Fatal(err)
	}
	if _, err := other.connect(tmp); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("it is process %d's", self.pid)) {
		t.Errorf("a socket of another process: %v", err)
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte("Name:\tjava\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t100\t9\nSigCgt:\t0000000000000004\n"))
	if err != nil || *got != (target{nspid: 9, uid: 2, gid: 6, handles: true}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "Uid:\t1\t2\nGid:\t1\t2\nNSpid:\t1\n", "Uid:\t1\tx\nGid:\t1\t2\nNSpid:\t1\nSigCgt:\t0\n"} {
		if _, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := parseReply(b); err != nil && len(err.Error()) > 2000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}
