package livetest

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A ModeReport is what a tool's --preflight --json says of an attach mode.
type ModeReport struct {
	Mode, Reason string
	OK           bool
	Hooks        []struct {
		Name    string
		Mode    *string
		NotSeen []string `json:"not_seen"`
	}
}

var modesOnce struct {
	sync.Once
	res   Result
	modes map[string]ModeReport
}

// Modes asks the tool under test which attach modes this kernel has, and "auto".
// With args the tool uses all its hooks: it is asked only once.
func Modes(t testing.TB, args ...string) map[string]ModeReport {
	t.Helper()
	m := &modesOnce
	m.Do(func() {
		m.modes = map[string]ModeReport{}
		m.res = Run(t, append(args, "--preflight", "--json")...)
		for _, line := range m.res.Lines() {
			if strings.HasPrefix(line, `{"kind":"fact"`) {
				continue
			}
			var r ModeReport
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("--preflight --json: %v: %s", err, line)
			}
			m.modes[r.Mode] = r
		}
	})
	if len(m.modes) != 4 {
		t.Fatalf("--preflight --json: status %d, %d modes: %s", m.res.Status, len(m.modes), m.res.Stderr)
	}
	return m.modes
}

// EachMode runs a kernel test in every attach mode that this kernel has. A mode
// that it has not is a skip, which the kernel runner expects of few kernels. args
// are as in Modes.
func EachMode(t *testing.T, test func(t *testing.T, mode string), args ...string) {
	t.Helper()
	inModes(t, test, []string{"fentry", "kprobe", "tracepoint"}, args...)
}

// EachModeOrOne is EachMode for a test of something that one mode is the hardest for: in
// an emulated guest, where all modes would take long, only that one is tested.
func EachModeOrOne(t *testing.T, hardest string, test func(t *testing.T, mode string), args ...string) {
	t.Helper()
	if Guest() {
		inModes(t, test, []string{hardest}, args...)
		return
	}
	EachMode(t, test, args...)
}

// EachModeInTurn is EachMode for a test of something that the modes have in common, such
// as filters: of the emulated kernels, where all modes would take long, two run it, in a mode
// each that the running kernel may not have. A kernel that was picked runs it in one mode.
func EachModeInTurn(t *testing.T, test func(t *testing.T, mode string), args ...string) {
	t.Helper()
	switch os.Getenv(guestVar) {
	case "6.1":
		EachModeOrOne(t, "fentry", test, args...)
	case "6.12":
		NeedOnce(t)
		EachModeOrOne(t, "tracepoint", test, args...)
	default:
		NeedOnce(t)
		EachModeOrOne(t, "kprobe", test, args...)
	}
}

func inModes(t *testing.T, test func(t *testing.T, mode string), list []string, args ...string) {
	t.Helper()
	Need(t)
	modes := Modes(t, args...)
	for _, mode := range list {
		t.Run(mode, func(t *testing.T) {
			if m := modes[mode]; !m.OK {
				t.Skipf("SKIPPED: this kernel has no %s mode: %s", mode, m.Reason)
			}
			test(t, mode)
		})
	}
}

var (
	lostText     = regexp.MustCompile(`lost (\d+) events:`)
	possiblyText = regexp.MustCompile(`may have lost up to (\d+) events`)
	unendedText  = regexp.MustCompile(`: (\d+) requests had not ended, or`)
)

// Lost gives the last that the tool said of losses on standard error: how many
// events it lost, and how many more it may have lost; ends that it did not see are such.
func (r Result) Lost() (lost, possibly uint64) {
	unended := uint64(0)
	for line := range strings.Lines(r.Stderr) {
		if m := lostText.FindStringSubmatch(line); m != nil {
			lost, _ = strconv.ParseUint(m[1], 10, 64)
		}
		if m := possiblyText.FindStringSubmatch(line); m != nil {
			possibly, _ = strconv.ParseUint(m[1], 10, 64)
		}
		if m := unendedText.FindStringSubmatch(line); m != nil {
			unended, _ = strconv.ParseUint(m[1], 10, 64)
		}
	}
	return lost, possibly + unended
}

// An Attempt is what became of a test that may have been spoilt by lost events.
type Attempt struct {
	problems []string
	lost     uint64
}

// Errorf notes that the test failed, unless events were lost.
func (a *Attempt) Errorf(format string, args ...any) {
	a.problems = append(a.problems, fmt.Sprintf(format, args...))
}

// Lost takes note of what a tool said of losses. Where a process is shielded from tracing, so are
// the interrupts that come while it runs, such as those in which requests end.
func (a *Attempt) Lost(r Result) {
	lost, possibly := r.Lost()
	a.lost += lost + possibly
	if strings.Contains(r.Stderr, "not seen here: process 1, and interrupts") {
		a.lost++
	}
}

// Attempts makes a test that needs all events. Kernels since 7.0 skip a program on
// a CPU where a task was preempted in it: then the tool says what it lost, or may
// have lost, and the test is made once more, up to ten times. A tool that says
// nothing of losses has no such excuse.
func Attempts(t testing.TB, try func(a *Attempt)) {
	t.Helper()
	for n := 1; ; n++ {
		a := &Attempt{}
		try(a)
		if len(a.problems) == 0 {
			return
		}
		if a.lost == 0 || n == 10 {
			t.Errorf("attempt %d, %d events lost: %s", n, a.lost, strings.Join(a.problems, "\n"))
			return
		}
		t.Logf("attempt %d: up to %d events were lost, as the tools say: %d problems", n, a.lost, len(a.problems))
	}
}
