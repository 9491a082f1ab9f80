package livetest

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roleArg as the first argument makes a test binary play a role.
	roleArg = "livetest-role"
	// controlVar tells a role that it is a Child, with requests on descriptor 3
	// and answers on descriptor 4.
	controlVar = "GOBCC_LIVETEST_CONTROL"
)

var roles = map[string]func(args []string) string{}

// Role registers what a child process does under this name: play is called in
// it for each request, on the thread whose id is the process id. It is to be
// called before TestMain, so:
//
//	var _ = livetest.Role("opener", func(args []string) string { … })
func Role(name string, play func(args []string) (answer string)) string {
	if roles[name] != nil {
		panic("two roles named " + name)
	}
	roles[name] = play
	return name
}

// RoleArgv is a command line that plays a role once, with these arguments, and
// writes its answer to standard output: for TOOL -- CMD.
func RoleArgv(name string, args ...string) []string {
	if roles[name] == nil {
		panic("no role named " + name)
	}
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{exe, roleArg, name}, args...)
}

// A ChildProcess is this test binary once more, in a role. It gives events from
// another process id, user, cgroup or name.
type ChildProcess struct {
	t        testing.TB
	name     string
	cmd      *exec.Cmd
	requests *os.File
	answers  *os.File
	enc      *gob.Encoder
	dec      *gob.Decoder
	ended    bool
}

// Child starts a child process in a role and returns when it is ready for
// requests. Its arguments come before those of each request. The process ends
// with the test.
func Child(t testing.TB, role string, args ...string) *ChildProcess {
	t.Helper()
	return ChildWith(t, func(*exec.Cmd) {}, role, args...)
}

// ChildWith is Child with a change to the command before it starts: another
// identity or cgroup (SysProcAttr), or another directory, say.
func ChildWith(t testing.TB, change func(*exec.Cmd), role string, args ...string) *ChildProcess {
	t.Helper()
	if roles[role] == nil {
		t.Fatalf("no role named %s", role)
	}
	requestR, requestW, err1 := os.Pipe()
	answerR, answerW, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	c := &ChildProcess{t: t, name: role, requests: requestW, answers: answerR,
		enc: gob.NewEncoder(requestW), dec: gob.NewDecoder(answerR)}
	c.cmd = selfCommand(t, append([]string{roleArg, role}, args...)...)
	c.cmd.Env = append(os.Environ(), controlVar+"=1")
	c.cmd.ExtraFiles = []*os.File{requestR, answerW}
	c.cmd.Stdout, c.cmd.Stderr = os.Stdout, os.Stderr
	change(c.cmd)
	err := c.cmd.Start()
	requestR.Close()
	answerW.Close()
	if err != nil {
		t.Fatalf("start a child as %s: %v", role, err)
	}
	t.Cleanup(func() { c.End() })
	c.answer() // It says that it is ready.
	return c
}

// Pid is the process id of the child.
func (c *ChildProcess) Pid() int { return c.cmd.Process.Pid }

// Do has the child play its role once, with these further arguments, and
// returns its answer.
func (c *ChildProcess) Do(args ...string) string {
	c.t.Helper()
	if err := c.enc.Encode(args); err != nil {
		c.t.Fatalf("ask the child %s: %v", c.name, err)
	}
	return c.answer()
}

func (c *ChildProcess) answer() (text string) {
	c.t.Helper()
	err := c.answers.SetReadDeadline(time.Now().Add(limit(patience)))
	if err == nil {
		err = c.dec.Decode(&text)
	}
	if err != nil {
		c.t.Fatalf("answer of the child %s: %v", c.name, err)
	}
	return text
}

// End lets the child end and returns its exit status, 128 plus the number for a
// signal. Calling it is needed only for a child that must be gone before the
// test is.
func (c *ChildProcess) End() (status int) {
	c.t.Helper()
	if !c.ended {
		c.ended = true
		c.requests.Close()
		timer := time.AfterFunc(limit(patience), func() { _ = c.cmd.Process.Kill() })
		defer timer.Stop()
		_ = c.cmd.Wait() // Its error is the exit status, which is returned.
		c.answers.Close()
	}
	return exitStatus(c.cmd.ProcessState)
}

// runRole plays a role in a child process: once, or for each request.
func runRole(name string, args []string) {
	play := roles[name]
	if play == nil {
		fmt.Fprintf(os.Stderr, "no role named %s\n", name)
		os.Exit(2)
	}
	if os.Getenv(controlVar) != "1" {
		fmt.Print(play(args))
		return
	}
	os.Unsetenv(controlVar)
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	dec, enc := gob.NewDecoder(os.NewFile(3, "requests")), gob.NewEncoder(os.NewFile(4, "answers"))
	err := enc.Encode("ready")
	for err == nil {
		var more []string
		if err = dec.Decode(&more); err == nil {
			err = enc.Encode(play(append(args[:len(args):len(args)], more...)))
		}
	}
	if !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "role %s: %v\n", name, err)
		os.Exit(1)
	}
}

// SetComm names the calling thread, as ps -o comm shows it. Names are cut at 15
// bytes. In a role that is the name of the process.
func SetComm(name string) error {
	// The slice has room, because the kernel reads up to 16 bytes.
	b := append([]byte(name), make([]byte, 16)...)
	if strings.IndexByte(name, 0) >= 0 {
		return unix.EINVAL
	}
	return unix.Prctl(unix.PR_SET_NAME, pointer(&b[0]), 0, 0, 0)
}

// Comm is the name of the calling thread.
func Comm() (string, error) {
	var b [16]byte
	if err := unix.Prctl(unix.PR_GET_NAME, pointer(&b[0]), 0, 0, 0); err != nil {
		return "", fmt.Errorf("read this thread's name: %w", err)
	}
	return unix.ByteSliceToString(b[:]), nil
}
