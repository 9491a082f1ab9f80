package livetest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// readyVar names the environment variable with the number of a descriptor, to
// which a tool writes one byte when it is attached.
const readyVar = "GOBCC_READY_FD"

// A Tool is a running process of the tool under test.
type Tool struct {
	t     testing.TB
	cmd   *exec.Cmd
	ready chan struct{} // closed when the tool says that it is attached
	ended chan struct{} // closed when it has ended and all its output is here

	mu      sync.Mutex
	changed sync.Cond // there is more output, or the tool has ended
	stdout  strings.Builder
	stderr  strings.Builder
	over    bool  // ended is closed
	waitErr error // why waiting for it failed, if it did
}

// A Result is what a tool that has ended leaves.
type Result struct {
	Stdout, Stderr string
	Status         int // exit status, or 128 plus the number of the signal that ended it
}

// Lines is standard output line by line, without the newlines.
func (r Result) Lines() []string { return lines(r.Stdout) }

// Start runs the tool under test with these arguments, in a process of its own.
// It doesn't wait for anything. The process is gone when the test ends.
func Start(t testing.TB, args ...string) *Tool {
	t.Helper()
	return StartWith(t, func(*exec.Cmd) {}, args...)
}

// StartWith is Start with a change to the command before it starts: another
// directory, environment, identity or standard output, say. Entries that are
// added to ExtraFiles begin with descriptor 4.
func StartWith(t testing.TB, change func(*exec.Cmd), args ...string) *Tool {
	t.Helper()
	tool := &Tool{t: t, ready: make(chan struct{}), ended: make(chan struct{})}
	tool.changed.L = &tool.mu
	tool.cmd = selfCommand(t, args...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tool.cmd.Env = append(os.Environ(), toolVar+"=1", readyVar+"=3")
	tool.cmd.ExtraFiles = []*os.File{w}
	tool.cmd.Stdout = stream{tool, &tool.stdout}
	tool.cmd.Stderr = stream{tool, &tool.stderr}
	// A command that the tool started and left may hold its output open.
	tool.cmd.WaitDelay = limit(10 * time.Second)
	change(tool.cmd)
	err = tool.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatalf("start the tool: %v", err)
	}
	go func() {
		defer r.Close()
		var b [1]byte
		if n, _ := r.Read(b[:]); n == 1 {
			close(tool.ready)
		}
	}()
	go func() {
		err := tool.cmd.Wait()
		tool.mu.Lock()
		defer tool.mu.Unlock()
		if tool.cmd.ProcessState == nil {
			tool.waitErr = err
		}
		tool.over = true
		close(tool.ended)
		tool.changed.Broadcast()
	}()
	t.Cleanup(func() {
		_ = tool.cmd.Process.Kill() // It has usually ended.
		<-tool.ended
	})
	return tool
}

// Run runs the tool until it ends by itself.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	return Start(t, args...).Wait()
}

// selfCommand is this test binary with other arguments. By this path it can be
// executed by any user.
func selfCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	if !mainRan {
		t.Fatal("this package's TestMain does not call livetest.Main")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	return cmd
}

// Pid is the process id of the tool.
func (tool *Tool) Pid() int { return tool.cmd.Process.Pid }

// Ready waits until the tool is attached. It fails the test if the tool ends
// before that, or takes longer than a minute.
func (tool *Tool) Ready() {
	tool.t.Helper()
	select {
	case <-tool.ready:
	case <-tool.ended:
		// A tool may be ready and at its end in one go.
		select {
		case <-tool.ready:
		default:
			tool.t.Fatalf("the tool ended before it was ready%s", tool.state())
		}
	case <-time.After(limit(patience)):
		tool.t.Fatalf("the tool was not ready in time%s", tool.state())
	}
}

// Ended is closed when the tool has ended.
func (tool *Tool) Ended() <-chan struct{} { return tool.ended }

// Stop interrupts the tool, as Control-C does, and waits until it has ended.
func (tool *Tool) Stop() Result {
	tool.t.Helper()
	tool.Signal(syscall.SIGINT)
	return tool.Wait()
}

// Signal sends sig to the tool, which must not have ended.
func (tool *Tool) Signal(sig os.Signal) {
	tool.t.Helper()
	if err := tool.cmd.Process.Signal(sig); err != nil {
		tool.t.Fatalf("send %s to the tool: %v%s", sig, err, tool.state())
	}
}

// Wait waits until the tool ends by itself, at most a minute.
func (tool *Tool) Wait() Result {
	tool.t.Helper()
	select {
	case <-tool.ended:
	case <-time.After(limit(patience)):
		tool.t.Fatalf("the tool did not end in time%s", tool.state())
	}
	tool.mu.Lock()
	defer tool.mu.Unlock()
	if tool.waitErr != nil {
		tool.t.Fatalf("wait for the tool: %v", tool.waitErr)
	}
	return Result{tool.stdout.String(), tool.stderr.String(), exitStatus(tool.cmd.ProcessState)}
}

func exitStatus(state *os.ProcessState) int {
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// Lines is what the tool has written to standard output so far, in complete
// lines without the newlines.
func (tool *Tool) Lines() []string {
	tool.mu.Lock()
	defer tool.mu.Unlock()
	return completeLines(tool.stdout.String())
}

// ErrLines is the same for standard error.
func (tool *Tool) ErrLines() []string {
	tool.mu.Lock()
	defer tool.mu.Unlock()
	return completeLines(tool.stderr.String())
}

// WaitLine waits for a line of standard output for which match is true, and
// returns it. A line that has come already counts. It fails the test if the tool
// ends without one, or after a minute.
func (tool *Tool) WaitLine(match func(line string) bool) string {
	tool.t.Helper()
	return tool.waitLine(&tool.stdout, match)
}

// WaitErrLine is the same for standard error.
func (tool *Tool) WaitErrLine(match func(line string) bool) string {
	tool.t.Helper()
	return tool.waitLine(&tool.stderr, match)
}

func (tool *Tool) waitLine(from *strings.Builder, match func(line string) bool) string {
	tool.t.Helper()
	late := false
	timer := time.AfterFunc(limit(patience), func() {
		tool.mu.Lock()
		defer tool.mu.Unlock()
		late = true
		tool.changed.Broadcast()
	})
	defer timer.Stop()
	tool.mu.Lock()
	defer tool.mu.Unlock()
	seen := 0 // bytes that hold no match
	for {
		text := from.String()
		for {
			line, _, complete := strings.Cut(text[seen:], "\n")
			if !complete {
				break
			}
			if match(line) {
				return line
			}
			seen += len(line) + 1
		}
		if tool.over || late {
			why := "the tool ended without the line waited for"
			if late {
				why = "the line waited for did not come in time"
			}
			// Fatalf runs the deferred Unlock.
			tool.t.Fatalf("%s%s", why, tool.output())
		}
		tool.changed.Wait()
	}
}

// state is output for those who don't hold the lock.
func (tool *Tool) state() string {
	tool.mu.Lock()
	defer tool.mu.Unlock()
	return tool.output()
}

// output is all that the tool wrote, for a failing test.
func (tool *Tool) output() string {
	status := "still running"
	if tool.over && tool.waitErr == nil {
		status = tool.cmd.ProcessState.String()
	}
	return fmt.Sprintf("\n--- %q: %s\n--- stderr:\n%s\n--- stdout:\n%s", tool.cmd.Args[1:], status, tool.stderr.String(), tool.stdout.String())
}

// A stream is one of the outputs of a tool.
type stream struct {
	tool *Tool
	text *strings.Builder
}

func (s stream) Write(p []byte) (int, error) {
	s.tool.mu.Lock()
	defer s.tool.mu.Unlock()
	s.tool.changed.Broadcast()
	return s.text.Write(p)
}

// lines splits text, whose last line may lack its newline.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// completeLines leaves out a last line that lacks its newline.
func completeLines(text string) []string {
	return lines(text[:strings.LastIndexByte(text, '\n')+1])
}
