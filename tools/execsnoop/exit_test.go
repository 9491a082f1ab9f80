package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/clock"
	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// adjusted is what the kernel's cputime_adjust() makes of a process's times that it
// is asked for once: exact, with the system time rounded down.
func adjusted(user, system, runtime uint64) (uint64, uint64) {
	if system == 0 {
		return runtime, 0
	}
	if user == 0 {
		return 0, runtime
	}
	whole := func(n uint64) *big.Int { return new(big.Int).SetUint64(n) }
	product := new(big.Int).Mul(whole(system), whole(runtime))
	s := product.Div(product, new(big.Int).Add(whole(user), whole(system))).Uint64()
	return runtime - s, s
}

func TestShare(t *testing.T) {
	const tick, century = 4_000_000, 100 * 365 * 24 * uint64(time.Hour)
	check := func(user, system, runtime uint64) {
		t.Helper()
		u, s := share(user, system, runtime)
		if wantU, wantS := adjusted(user, system, runtime); uint64(u) != wantU || uint64(s) != wantS {
			t.Errorf("%d and %d of %d: %d and %d, not %d and %d", user, system, runtime, u, s, wantU, wantS)
		}
	}
	values := []uint64{0, 1, 2, 3, tick - 1, tick, tick + 1, 7 * tick, 1e9, 1<<53 - 1, 1<<53 + 1, 1<<53 + 3, century}
	for _, user := range values {
		for _, system := range values {
			for _, runtime := range values {
				check(user, system, runtime)
			}
		}
	}
	random := rand.New(rand.NewPCG(3, 4)) // the same ones each time
	for range 10_000 {
		n := func() uint64 { return random.Uint64N(century) >> random.IntN(60) }
		check(n(), n(), n())
	}
	// What no kernel says makes no panic, and no more of the run time than there is.
	for _, user := range []uint64{0, 1, 1 << 63, math.MaxUint64} {
		if u, s := share(user, math.MaxUint64, 1e9); u < 0 || s < 0 || u+s != 1e9 {
			t.Errorf("%d: %d and %d", user, u, s)
		}
	}
}

// printing is a printer and what it has written.
type printing struct {
	*printer
	r    *trace.Run
	b    bytes.Buffer
	said []string
}

func newPrinting(t *testing.T, args ...string) *printing {
	p := &printing{printer: printerOf(t, args...)}
	p.r = &trace.Run{Out: output.NewWriter(&p.b)}
	p.say = func(_ *trace.Run, text string) { p.said = append(p.said, text) }
	return p
}

func (p *printing) feed(t *testing.T, e event) { t.Helper(); feed(t, p.printer, p.r, e.records()...) }

// written gives the rows since it was last asked, without their newlines.
func (p *printing) written(t *testing.T) []string {
	t.Helper()
	if err := p.r.Out.Flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.FieldsFunc(p.b.String(), func(c rune) bool { return c == '\n' })
	p.b.Reset()
	return lines
}

// An end waits until it is known what its process used. After a moment the kernel is asked
// for it, again and again, for two seconds.
func TestEndsWait(t *testing.T) {
	p := newPrinting(t, "--exit-only")
	var asked []uint64
	p.askTimes = func(_ *trace.Run, e *ended) (bpfAnswer, error) {
		asked = append(asked, e.Id)
		return bpfAnswerANSWER_LATER, nil
	}
	expectAsked := func(what string, ids ...uint64) {
		t.Helper()
		if !slices.Equal(asked, ids) {
			t.Errorf("%s: %v were asked for, not %v", what, asked, ids)
		}
		asked = nil
	}
	p.begin = 0
	booted := clock.Boot()
	pid := uint32(0)
	end := func(age time.Duration) {
		pid++
		p.feed(t, exited{Id: uint64(pid), TimeNs: booted - uint64(age), Pid: pid})
	}
	expect := func(what string, waiting bool, pids ...uint32) {
		t.Helper()
		lines := p.written(t)
		var got []uint32
		for _, line := range lines {
			got = append(got, uint32(line[17]-'0')) // behind PCOMM
		}
		if !slices.Equal(got, pids) || (len(p.ending) > 0) != waiting {
			t.Errorf("%s: the ends of %v are shown, not of %v; others wait: %v", what, got, pids, (len(p.ending) > 0))
		}
	}
	expect("at the start", false)
	end(0)
	end(0)
	end(0)
	expect("when three end", true)
	p.feed(t, reaped{Id: 9})
	expect("when another is reaped", true)
	p.feed(t, reaped{Id: 2})
	expect("when the second is reaped", true, 2)
	if err := p.drained(p.r); err != nil {
		t.Fatal(err)
	}
	expect("at once", true)
	expectAsked("at once")
	p.ending[0].TimeNs -= uint64(askAfter)
	for range 2 {
		if err := p.drained(p.r); err != nil {
			t.Fatal(err)
		}
		expect("after a moment", true)
		expectAsked("after a moment", 1)
	}
	p.feed(t, reaped{Id: 2})
	expect("when it is said to be reaped again", true)
	p.ending[0].asked -= uint64(patience + time.Millisecond)
	if err := p.drained(p.r); err != nil {
		t.Fatal(err)
	}
	expect("after two seconds", true, 1)
	expectAsked("after two seconds")
	p.last(p.r)
	expect("at last", true)
	expectAsked("at last", 3)
	p.feed(t, reaped{Id: 1}) // too late
	expect("when the first is reaped late", true)
	end(0)
	if err := p.finish(p.r); err != nil {
		t.Fatal(err)
	}
	expect("at the end", false, 3, 4)
	end(patience + time.Second)
	if err := p.drained(p.r); err != nil {
		t.Fatal(err)
	}
	expect("when it is looked at late", true)
	expectAsked("when it is looked at late", 5)
	if err := p.finish(p.r); err != nil {
		t.Fatal(err)
	}
	expect("at the end of that", false, 5)
	if err := errors.Join(p.finish(p.r), p.drained(p.r)); err != nil {
		t.Fatal(err)
	}
	expect("after the end", false)
	const remark = "not known: CPU times of ended processes, %d not complete in time"
	if want := []string{fmt.Sprintf(remark, 3), fmt.Sprintf(remark, 4), fmt.Sprintf(remark, 4)}; !slices.Equal(p.said, want) {
		t.Errorf("said %q", p.said)
	}
}

// What the kernel freed unseen is not waited for: times that were sent before it was asked
// have been read when the tool looks again.
func TestEndsUnseen(t *testing.T) {
	p := newPrinting(t, "--exit-only")
	p.askTimes = func(*trace.Run, *ended) (bpfAnswer, error) { return bpfAnswerANSWER_GONE, nil }
	for id := range uint64(2) {
		p.feed(t, exited{Id: id, TimeNs: clock.Boot() - uint64(askAfter), Pid: 1})
	}
	if err := p.drained(p.r); err != nil {
		t.Fatal(err)
	}
	if lines := p.written(t); len(lines) != 0 {
		t.Errorf("shown at once: %q", lines)
	}
	p.feed(t, reaped{Id: 1})
	if err := errors.Join(p.drained(p.r), p.finish(p.r)); err != nil {
		t.Fatal(err)
	}
	lines := p.written(t)
	if len(lines) != 2 || !strings.Contains(lines[0], "user") || strings.Contains(lines[1], "user") {
		t.Errorf("%q", lines)
	}
	if want := []string{"not known: CPU times of ended processes, 1 freed by the kernel at a moment when it runs no BPF programs"}; !slices.Equal(p.said, want) {
		t.Errorf("said %q", p.said)
	}
}

// A kernel that can't be asked is asked once.
func TestAskingFails(t *testing.T) {
	p := newPrinting(t, "--exit-only")
	asked := 0
	p.askTimes = func(*trace.Run, *ended) (bpfAnswer, error) { asked++; return 0, errors.New("no") }
	p.feed(t, exited{Id: 1, TimeNs: clock.Boot() - uint64(askAfter), Pid: 1})
	for range 3 {
		if err := p.drained(p.r); err != nil {
			t.Fatal(err)
		}
	}
	p.last(p.r)
	if asked != 1 {
		t.Errorf("it is asked %d times", asked)
	}
	p.feed(t, exited{Id: 2, TimeNs: clock.Boot(), Pid: 2})
	p.feed(t, reaped{Id: 1})
	if lines := p.written(t); len(lines) != 1 || !strings.Contains(lines[0], "user") {
		t.Errorf("%q", lines)
	}
	if err := p.finish(p.r); err != nil {
		t.Fatal(err)
	}
	if want := []string{
		"not seen here: CPU times of some processes: no",
		"not known: CPU times of ended processes, 1 the kernel could not be asked",
	}; !slices.Equal(p.said, want) {
		t.Errorf("said %q", p.said)
	}
}

// Two threads that end at once may each be found to be the last.
func TestEndsAreShownOnce(t *testing.T) {
	p := newPrinting(t, "--exit")
	p.feed(t, exited{Id: 7, Pid: 7, Tid: 7, TimeNs: clock.Boot()})
	p.feed(t, exited{Id: 7, Pid: 7, Tid: 8, TimeNs: clock.Boot()})
	p.feed(t, reaped{Id: 7})
	p.feed(t, exited{Id: 7, Pid: 7, Tid: 8, TimeNs: clock.Boot()}) // from a spare, late
	p.feed(t, reaped{Id: 7})
	if lines := p.written(t); len(lines) != 1 || len(p.ending) > 0 {
		t.Errorf("%q; %d more wait", lines, len(p.ending))
	}
}

// A run lasts from its exec, if that was seen.
func TestDurations(t *testing.T) {
	p := newPrinting(t, "--exit")
	ran := func(id uint64) time.Duration {
		t.Helper()
		p.feed(t, exited{Id: id, TimeNs: start + 10e9, StartNs: start})
		e := p.ending[len(p.ending)-1]
		if e.Id != id {
			t.Fatalf("run %d has not ended", id)
		}
		return e.ran
	}
	for id, at := range map[uint64]uint64{1: start + 1e9, 2: start + 3e9, 2 + execStep: start + 8e9, 3: start + 9_999_999_999} {
		p.feed(t, execed{bpfExec: bpfExec{Id: id, TimeNs: at}, filename: "/x"})
	}
	p.feed(t, execed{bpfExec: bpfExec{Id: 4, TimeNs: start + 5e9, Ret: -2}, filename: "/x"})
	for id, want := range map[uint64]time.Duration{1: 9e9, 2 + execStep: 2e9, 3: 1, 4: 10e9, 5: 10e9} {
		if got := ran(id); got != want {
			t.Errorf("run %d took %v, not %v", id, got, want)
		}
	}
}

// What wait(2) gives is taken apart as there.
func TestHowItEnded(t *testing.T) {
	for code := range int32(1 << 16) {
		w := unix.WaitStatus(code)
		e := &ended{bpfExit: bpfExit{Code: code}}
		switch {
		case w.Exited():
			if e.signal() != 0 || e.status() != w.ExitStatus() {
				t.Fatalf("%#x: signal %d, status %d", code, e.signal(), e.status())
			}
		case w.Signaled():
			if e.signal() != w.Signal() || e.dumped() != w.CoreDump() {
				t.Fatalf("%#x: signal %d, dumped %v", code, e.signal(), e.dumped())
			}
		}
	}
}

func TestEveryRowOfAnEnd(t *testing.T) {
	const mem, tail = 5, ", at most 20 KiB>"
	if pageKiB != 4 {
		t.Logf("pages of %d KiB", pageKiB)
	}
	for _, test := range []struct {
		code  int32
		timed bool
		want  string
	}{
		{0, false, "  0 <exited with 0 after 1.500000 s"},
		{0, true, "  0 <exited with 0 after 1.500000 s, user 0.500000 s, system 0.250000 s"},
		{1 << 8, false, "  1 <exited with 1 after 1.500000 s"},
		{255 << 8, false, "255 <exited with 255 after 1.500000 s"},
		{int32(unix.SIGTERM), true, "143 <killed by SIGTERM after 1.500000 s, user 0.500000 s, system 0.250000 s"},
		{int32(unix.SIGABRT) | 0x80, false, "134 <killed by SIGABRT, core dumped after 1.500000 s"},
		{34, false, "162 <killed by signal 34 after 1.500000 s"},
		{64, false, "192 <killed by signal 64 after 1.500000 s"},
	} {
		p := newPrinting(t, "--exit-only")
		e := &ended{bpfExit: bpfExit{Code: test.code, MaxRssPages: mem * 4 / pageKiB, Pid: 1, Ppid: 2, Comm: comm("x")}, ran: 1_500_000_000}
		if test.timed {
			e.user, e.system, e.timed = 500_000_000, 250_000_000, true
		}
		want := "x                1       2       " + test.want + tail + "\n"
		if got := string(p.appendEnd(nil, e, 0)); got != want {
			t.Errorf("code %#x:\n%q not\n%q", test.code, got, want)
		}
	}
}

func TestEverySignalHasAName(t *testing.T) {
	for s := unix.Signal(1); s < 128; s++ {
		name := signalName(s)
		if known := s < 32; strings.HasPrefix(name, "SIG") != known || known == strings.HasPrefix(name, "signal ") {
			t.Errorf("signal %d is called %q", int(s), name)
		}
	}
}
