package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func fentrySkip(pkg string) result {
	return result{Package: pkg, Test: "TestKernelOpens/fentry", Verdict: skipped, Output: "    a_test.go:3: no fentry: not supported\n"}
}

func TestReport(t *testing.T) {
	const pkg = "github.com/gobcc/gobcc/tools/opensnoop"
	runs := []kernelRun{
		{
			Kernel: kernel{Name: "6.12"}, Version: "6.12.9", Time: 41600 * time.Millisecond,
			Results: []result{
				{Package: pkg, Test: "TestKernelOpens/fentry", Verdict: passed},
				{Package: pkg, Test: "TestKernelOpens/kprobe", Verdict: failed, Output: "    a_test.go:3: 22, want 23\n"},
				{Package: pkg, Test: "TestKernelBoots", Verdict: passed},
				{Package: pkg, Test: "TestKernelSlow", Verdict: unstable, Output: "    a_test.go:9: late\n"},
			},
			Kmsg: []string{"WARNING: at fs", "BUG", "WARNING: at fs"},
		},
		{Kernel: kernel{Name: "7"}, Version: "7.3.4", Failure: errors.New("Kernel panic"), Tail: []string{"a", "b"}, Log: "/l/7.log", Retried: true},
		{Kernel: kernel{Name: "5.10"}, Missing: errors.New("bullseye: gone")},
		{Kernel: kernel{Name: "6.1-arm64"}, Version: "6.1.5", Time: time.Second, Results: []result{fentrySkip(pkg)}},
	}
	const want = `
KERNEL     VERSION        fentry  kprobe  tracepoint  other  TIME
6.12       6.12.9         1/0/0   0/1/0   -           2/0/0  42s
7          7.3.4          -       -       -           -      0s
5.10       not to be had  -       -       -           -      -
6.1-arm64  6.1.5          0/0/1   -       -           -      1s
(passed/failed/skipped, tests with sub-tests not counted)

SKIP  6.1-arm64: ./tools/opensnoop TestKernelOpens/fentry: no fentry: not supported
      (expected: arm64 has ftrace's direct calls, which fentry needs, since 6.4 only)

NOTE  6.12: the kernel logged while tests ran: WARNING: at fs (2 times)

NOTE  6.12: the kernel logged while tests ran: BUG

NOTE  7: the first boot died before init started; this was the second

FAIL  6.12: ./tools/opensnoop TestKernelOpens/kprobe
        a_test.go:3: 22, want 23

UNSTABLE  6.12: ./tools/opensnoop TestKernelSlow
        a_test.go:9: late

FAIL  7: Kernel panic
    The console's end (all of it is in /l/7.log):
    a
    b

SKIP  5.10: this kernel could not be had, and NOTHING was tested on it:
    bullseye: gone

FAIL
3 passed, 1 failed, 1 skipped
`
	var out strings.Builder
	if writeReport(&out, runs, true) {
		t.Error("a report with failures says that all is well")
	}
	if out.String() != want {
		t.Errorf("report is\n%s\nwant\n%s", out.String(), want)
	}
}

func TestReportVerdict(t *testing.T) {
	pass := result{Package: "p", Test: "TestKernelA", Verdict: passed}
	fail := result{Package: "p", Test: "TestKernelB", Verdict: failed}
	missing := errors.New("no such suite")
	on := func(name string, results ...result) kernelRun {
		return kernelRun{Kernel: kernel{Name: name}, Results: results}
	}
	for _, test := range []struct {
		name        string
		runs        []kernelRun
		strict, lax bool
	}{
		{"all pass", []kernelRun{on("6.12", pass)}, true, true},
		{"one fails", []kernelRun{on("6.12", pass, fail)}, false, false},
		{"one is unstable", []kernelRun{on("6.12", pass, result{Package: "p", Test: "TestKernelB", Verdict: unstable})}, true, true},
		{"two are unstable", []kernelRun{on("6.12", result{Package: "p", Test: "TestKernelA", Verdict: unstable}), on("7", pass, result{Package: "p", Test: "TestKernelB", Verdict: unstable})}, false, false},
		{"nothing ran", []kernelRun{on("6.12")}, false, false},
		{"guest failed", []kernelRun{on("6.1", pass), {Failure: missing, Results: []result{pass}}}, false, false},
		{"expected skip", []kernelRun{on("6.1-arm64", pass, fentrySkip("p"))}, true, true},
		{"same skip on another kernel", []kernelRun{on("6.12", pass, fentrySkip("p"))}, false, true},
		{"another skip on that kernel", []kernelRun{on("6.1-arm64", pass, result{Test: "TestKernelOpens/kprobe", Verdict: skipped, Output: "no fentry"})}, false, true},
		{"another reason", []kernelRun{on("6.1-arm64", pass, result{Test: "TestKernelOpens/fentry", Verdict: skipped, Output: "not root"})}, false, true},
		{"a call that arm64 lacks", []kernelRun{on("6.12-arm64", pass, result{Test: "TestKernelA/int80_open", Verdict: skipped, Output: "no int80 open on this machine"})}, true, true},
		{"a call that amd64 has", []kernelRun{on("6.12", pass, result{Test: "TestKernelA/int80_open", Verdict: skipped, Output: "no int80 open on this machine"})}, false, true},
		{"what 5.10 can't show", []kernelRun{on("5.10", pass, result{Test: "TestKernelA/kprobe/io_uring_batch", Verdict: skipped, Output: "SKIPPED: kprobe mode does not show io_uring on this kernel, and says so"})}, true, true},
		{"what 6.1 can show", []kernelRun{on("6.1", pass, result{Test: "TestKernelA/kprobe/io_uring_batch", Verdict: skipped, Output: "SKIPPED: kprobe mode does not show io_uring on this kernel, and says so"})}, false, true},
		{"for real machines", []kernelRun{on("6.12", pass, result{Test: "TestKernelA", Verdict: skipped, Output: "SKIPPED: for real machines only, as it takes long in an emulated guest"})}, true, true},
		{"no compilers", []kernelRun{on("6.12", pass, result{Test: "TestKernelA", Verdict: skipped, Output: "SKIPPED: for real machines only, as guests have no compilers"})}, true, true},
		{"a reason that is not known", []kernelRun{on("6.12", pass, result{Test: "TestKernelA", Verdict: skipped, Output: "SKIPPED: for real machines only, as nobody knows why"})}, false, true},
		{"not the oldest", []kernelRun{on("7", pass, result{Test: "TestKernelA", Verdict: skipped, Output: "SKIPPED: for the oldest kernel and real machines only, as it takes long in an emulated guest"})}, true, true},
		{"the oldest", []kernelRun{on("5.10", pass, result{Test: "TestKernelA", Verdict: skipped, Output: "SKIPPED: for the oldest kernel and real machines only, as it takes long in an emulated guest"})}, false, true},
		{"a kernel is missing", []kernelRun{on("6.1", pass), {Missing: missing}}, true, true},
		{"a kernel that must be is missing", []kernelRun{on("6.1", pass), {Missing: missing, MissingFails: true}}, false, false},
	} {
		for _, strict := range []bool{true, false} {
			want := test.lax
			if strict {
				want = test.strict
			}
			var out strings.Builder
			if got := writeReport(&out, test.runs, strict); got != want {
				t.Errorf("%s, strict %v: all is well is %v, want %v; report:\n%s", test.name, strict, got, want, out.String())
			}
		}
	}
}
