package main

import (
	"bytes"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// liveRow is a row of a heatmap: the count, and the operation with its flags.
var liveRow = regexp.MustCompile(`^\d\d:\d\d:\d\d .* (\d+)  flags = (\S+)$`)

// TestKernelLive has the reads in the rows of all intervals together.
func TestKernelLive(t *testing.T) {
	livetest.NeedOnce(t)
	path := file(t)
	child := livetest.Child(t, reader, path)
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "--live", "-F", "-p", strconv.Itoa(child.Pid()), "0.1")
		tool.Ready()
		for range times {
			if answer := child.Do("1", "4096"); answer != "read" {
				t.Fatal(answer)
			}
		}
		res := tool.Stop()
		a.Lost(res)
		n := 0
		for _, line := range res.Over(t, 0).Lines() {
			m := liveRow.FindStringSubmatch(line)
			if m == nil || strings.Contains(m[2], "Metadata") || !strings.HasSuffix(m[2], "Read") {
				continue
			}
			count, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			n += count
		}
		if n != times {
			a.Errorf("%d reads, not %d: %s", n, times, res.Stdout)
		}
	})
}

// TestKernelTerminal has the tool on a terminal: it draws there, again when that is
// resized, and leaves it as it was, with the last picture on it.
func TestKernelTerminal(t *testing.T) {
	livetest.NeedOnce(t)
	far, near := terminal(t, 24, 80)
	tool := livetest.StartWith(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "TERM=xterm", "LC_ALL=C", "COLORTERM=", "NO_COLOR=")
		cmd.Stdout, cmd.Stderr = near, near
	}, "--live", "--split", "0.1")
	var mu sync.Mutex
	var all bytes.Buffer
	more := make(chan struct{}, 1)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := far.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			all.Write(b[:n])
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
		}
	}()
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
	// await waits until there is more of what is drawn.
	await := func(what string, ok func(text string) bool) {
		t.Helper()
		for !ok(text()) {
			select {
			case <-more:
			case <-tool.Ended():
				t.Fatalf("the tool ended before there was %s: %q", what, text())
			}
		}
	}
	await("a picture", func(text string) bool { return strings.Contains(text, enterScreen+firstRow+"TIME ") })
	await("a row", regexp.MustCompile(`queue\x1b\[K\r\r\n\d\d:\d\d:\d\d `).MatchString)
	await("the scale of 80 columns", func(text string) bool { return strings.Contains(text, " COUNT"+clearRight) })
	resize(t, far, 24, 120)
	tool.Signal(unix.SIGWINCH)
	head := regexp.MustCompile(`\x1b\[HTIME [^\r]*COUNT\x1b`)
	await("a picture of 120 columns", func(text string) bool {
		for _, line := range head.FindAllString(text, -1) {
			if len(line) > 100 {
				return true
			}
		}
		return false
	})
	tool.Stop().Over(t, 0)
	if _, err := io.WriteString(near, "\x04"); err != nil {
		t.Fatal(err)
	}
	for !strings.HasSuffix(text(), "\x04") {
		<-more
	}
	_, last, left := strings.Cut(text(), exitScreen)
	// What standard error says is on the terminal too.
	last = regexp.MustCompile(`biolatency: [^\r]*\r\n`).ReplaceAllString(last, "")
	if !left || strings.Contains(last, "\x1b") || !strings.HasPrefix(last, "TIME ") || !strings.HasSuffix(last, "Requests: .1+ :3+ -10+ =30+ +100+ *300+ #1k+ %3k+ @10k+\r\n\x04") {
		t.Errorf("it left behind %q", last)
	}
}
