package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// output of a test binary under -test.v=test2json, in which ^V (0x16) marks the
// lines of the testing package.
const opensOutput = "\x16=== RUN   TestKernelOpens\n" +
	"\x16=== RUN   TestKernelOpens/fentry\n" +
	"\x16=== RUN   TestKernelOpens/fentry/openat\n" +
	"\x16--- PASS: TestKernelOpens/fentry/openat (0.01s)\n" +
	"\x16=== NAME  TestKernelOpens/fentry\n" +
	"\x16=== RUN   TestKernelOpens/fentry/creat\n" +
	"--- PASS: TestKernelOpens/fentry/creat (printed by the test)\n" +
	"    opens_kernel_test.go:12: 22 opens, want 23\n" +
	"\x16--- FAIL: TestKernelOpens/fentry/creat (0.01s)\n" +
	"\x16=== NAME  TestKernelOpens/fentry\n" +
	"\x16--- FAIL: TestKernelOpens/fentry (0.02s)\n" +
	"\x16=== NAME  TestKernelOpens\n" +
	"\x16=== RUN   TestKernelOpens/kprobe\n" +
	"    opens_kernel_test.go:8: no kprobes: a reason\n" +
	"\x16--- SKIP: TestKernelOpens/kprobe (0.00s)\n" +
	"\x16=== NAME  TestKernelOpens\n" +
	"\x16--- FAIL: TestKernelOpens (0.03s)\n" +
	"\x16=== NAME  \n" +
	"\x16=== RUN   TestKernelCleanUp\n" +
	"\x16=== RUN   TestKernelCleanUp/tracepoint\n" +
	"no line end\x16--- PASS: TestKernelCleanUp/tracepoint (0.00s)\n" +
	"\x16=== NAME  TestKernelCleanUp\n" +
	"    opens_kernel_test.go:30: a descriptor is left\n" +
	"\x16--- FAIL: TestKernelCleanUp (0.03s)\n" +
	"\x16=== NAME  \n"

func TestPackageResults(t *testing.T) {
	lines := func(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }
	of := func(results []result) string {
		var got []string
		for _, r := range results {
			got = append(got, fmt.Sprintf("%s %s %s", r.Verdict, r.mode(), r.Test))
		}
		return strings.Join(got, "\n")
	}
	const opens = "pass fentry TestKernelOpens/fentry/openat\n" +
		"fail fentry TestKernelOpens/fentry/creat\n" +
		"skip kprobe TestKernelOpens/kprobe\n" +
		"fail other TestKernelCleanUp\n" +
		"pass tracepoint TestKernelCleanUp/tracepoint"
	for _, test := range []struct {
		name string
		run  packageRun
		want string
	}{
		{"failures", packageRun{Package: "p", Output: lines(opensOutput + "FAIL\n"), Ended: true, Status: 1}, opens},
		{"the guest died between tests", packageRun{Package: "p", Output: lines(opensOutput)}, opens + "\nfail other "},
		{"the guest died in a test", packageRun{Package: "p", Output: lines("\x16=== RUN   TestKernelA\n\x16=== RUN   TestKernelA/kprobe\nhello")},
			"fail kprobe TestKernelA/kprobe\nfail other "},
		{"a result was lost on the console", packageRun{Package: "p", Output: lines("\x16=== RUN   TestKernelA\n\x16=== RUN   TestKernelB\n\x16--- PASS: TestKernelB (0.00s)\n\x16=== NAME  \nPASS\n"), Ended: true},
			"fail other TestKernelA\npass other TestKernelB\nfail other "},
		{"the binary failed by itself", packageRun{Package: "p", Output: lines("panic: in init\n"), Ended: true, Status: 2}, "fail other "},
		{"no tests", packageRun{Package: "p", Output: lines("testing: warning: no tests to run\nPASS\n"), Ended: true}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			results, err := packageResults(t.Context(), test.run)
			if err != nil {
				t.Fatal(err)
			}
			if got := of(results); got != test.want {
				t.Errorf("results are\n%s\nwant\n%s", got, test.want)
			}
		})
	}

	results, err := packageResults(t.Context(), packageRun{Package: "p", Output: lines(opensOutput), Ended: true, Status: 1})
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) result {
		return results[slices.IndexFunc(results, func(r result) bool { return r.Test == name })]
	}
	if got, want := find("TestKernelOpens/kprobe").reason(), "no kprobes: a reason"; got != want {
		t.Errorf("reason of the skip is %q, want %q", got, want)
	}
	if got := find("TestKernelOpens/fentry/creat").Output; !strings.Contains(got, "22 opens, want 23\n") || !strings.Contains(got, "(printed by the test)\n") || strings.Contains(got, "=== RUN") {
		t.Errorf("output of the failure is %q", got)
	}
}

func TestPanickingTestBinary(t *testing.T) {
	run := packageRun{Package: "p", Ended: true, Status: 2, Output: []string{
		"\x16=== RUN   TestKernelA", "\x16=== RUN   TestKernelA/kprobe", "panic: test timed out after 1s", "goroutine 1 [running]:"}}
	results, err := packageResults(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 || results[0].Test != "TestKernelA/kprobe" || results[0].Verdict != failed || !strings.Contains(results[0].Output, "timed out") {
		t.Errorf("results are %+v, want one failure of TestKernelA/kprobe with the panic", results)
	}
}
