package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

// An expectedSkip is a skip that is no reason for alarm: a kernel is known to
// lack what the test needs.
type expectedSkip struct {
	Kernel *regexp.Regexp // of the kernel's name
	Test   *regexp.Regexp // of the test's whole name
	Reason *regexp.Regexp // of what the test says
	Why    string         // the fact behind it
}

// expectedSkips has every skip that may happen in CI.
var expectedSkips = []expectedSkip{
	{
		Kernel: regexp.MustCompile(`^6\.1-arm64$`),
		Test:   regexp.MustCompile(`/fentry(/|$)`),
		Reason: regexp.MustCompile(`fentry`),
		Why:    "arm64 has ftrace's direct calls, which fentry needs, since 6.4 only",
	},
	{
		Kernel: regexp.MustCompile(`-arm64$`),
		Test:   regexp.MustCompile(`/(failed_)?int80_exec[a-z]*$`),
		Reason: regexp.MustCompile(`no 32-bit execs on this machine$`),
		Why:    "arm64 has no way in for 32-bit calls of 64-bit programs",
	},
	{
		Kernel: regexp.MustCompile(`-arm64$`),
		Test:   regexp.MustCompile(`/(open|creat|int80_[a-z0-9]+|[a-z0-9]+_32)(/|$)`),
		Reason: regexp.MustCompile(`no ((int80 )?(open|openat|openat2|creat)|32-bit calls) on this machine$`),
		Why:    "arm64 has neither the old calls open and creat nor x86's way in for 32-bit programs",
	},
	{
		Kernel: regexp.MustCompile(`^5\.10$`),
		Test:   regexp.MustCompile(`/io_uring[a-z_]*$`),
		Reason: regexp.MustCompile(`does not show io_uring on this kernel, and says so$`),
		Why:    "io_uring's tracepoints pass the request since 5.19 only",
	},
	{
		Kernel: regexp.MustCompile(`^(5\.10|6\.1)$`),
		Test:   regexp.MustCompile(`/fentry/open_by_handle_at$`),
		Reason: regexp.MustCompile(`does not show handles on this kernel, and says so$`),
		Why:    "these kernels have the function twice in their types",
	},
	{
		Kernel: regexp.MustCompile(`^(5\.10|6\.1)$`),
		Test:   regexp.MustCompile(`/fentry/failed_(execveat|in_a_thread|int80_execs)$`),
		Reason: regexp.MustCompile(`does not show failed execveat\(\) on this kernel, and says so$`),
		Why:    "these kernels' types do not tell the arguments of execveat in full",
	},
	{
		Kernel: regexp.MustCompile(`^5\.10$`),
		Test:   regexp.MustCompile(`/MPTCP$`),
		Reason: regexp.MustCompile(`^SKIPPED: this kernel makes no MPTCP sockets`),
		Why:    "Debian builds it since 5.13",
	},
	{
		Kernel: regexp.MustCompile(`-arm64$`),
		Test:   regexp.MustCompile(`/32-bit$`),
		Reason: regexp.MustCompile(`^SKIPPED: this kernel runs no 32-bit calls$`),
		Why:    "arm64 has no way in for 32-bit calls of 64-bit programs",
	},
	{
		Kernel: regexp.MustCompile(`^5\.10$`),
		Test:   regexp.MustCompile(`^TestKernelPreemptsTracepoints$`),
		Reason: regexp.MustCompile(`never preempts itself$`),
		Why:    "Debian's kernels are preemptible since 5.14",
	},
	{
		Kernel: regexp.MustCompile(`-arm64$`),
		Test:   regexp.MustCompile(`^TestKernel(Unissued|Requeued|Timeout|GoneAtWork)(/|$)`),
		Reason: regexp.MustCompile(`^SKIPPED: the module scsi_debug is not loaded here$`),
		Why:    "Debian does not build it for arm64's cloud kernels",
	},
	{
		Kernel: regexp.MustCompile(``),
		Test:   regexp.MustCompile(``),
		Reason: regexp.MustCompile(`^SKIPPED: for real machines only, as (it takes long in an emulated guest|guests have no (compilers|Java))$`),
		Why:    "make test-live runs it",
	},
	{
		Kernel: regexp.MustCompile(`^(6\.|7)`),
		Test:   regexp.MustCompile(``),
		Reason: regexp.MustCompile(`^SKIPPED: for the oldest kernel and real machines only, as it takes long in an emulated guest$`),
		Why:    "5.10 and make test-live run it, and make test-kernels where this kernel is picked",
	},
}

// whyExpected returns why this skip is expected, or "" if it isn't.
func whyExpected(kernel string, r result) string {
	for _, e := range expectedSkips {
		if e.Kernel.MatchString(kernel) && e.Test.MatchString(r.Test) && e.Reason.MatchString(r.reason()) {
			return e.Why
		}
	}
	return ""
}

// A kernelRun is what became of one kernel.
type kernelRun struct {
	Kernel       kernel
	Version      string
	Results      []result
	Missing      error         // why there was no such kernel to be had
	MissingFails bool          // that is a failure, and not a skip
	Failure      error         // why the guest failed, whatever its tests did
	Tail         []string      // the console's last lines, if the guest failed
	Kmsg         []string      // the kernel's warnings
	Retried      bool          // the first boot died before init
	Log          string        // path of the console's log
	Time         time.Duration // from the start of QEMU to its end
}

// A tally counts verdicts.
type tally struct{ Passed, Failed, Skipped int }

func (t *tally) add(v verdict) {
	switch v {
	case passed, unstable: // which is written beside
		t.Passed++
	case failed:
		t.Failed++
	case skipped:
		t.Skipped++
	}
}

func (t tally) String() string {
	if t == (tally{}) {
		return "-"
	}
	return fmt.Sprintf("%d/%d/%d", t.Passed, t.Failed, t.Skipped)
}

// writeReport writes the table of all runs, then what was skipped, what the
// kernels complained of and what failed, and the totals in the last line. It
// returns whether all is well. Under strict rules, those of CI, a skip that is
// not expected is a failure.
func writeReport(w io.Writer, runs []kernelRun, strict bool) (ok bool) {
	fmt.Fprintln(w)
	var total tally
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "KERNEL\tVERSION\t%s\tother\tTIME\n", strings.Join(modes, "\t"))
	for _, run := range runs {
		if run.Missing != nil {
			fmt.Fprintf(table, "%s\tnot to be had%s\n", run.Kernel.Name, strings.Repeat("\t-", len(modes)+2))
			continue
		}
		columns := map[string]*tally{"other": {}}
		for _, mode := range modes {
			columns[mode] = &tally{}
		}
		for _, r := range run.Results {
			columns[r.mode()].add(r.Verdict)
			total.add(r.Verdict)
		}
		fmt.Fprintf(table, "%s\t%s", run.Kernel.Name, run.Version)
		for _, mode := range append(modes[:len(modes):len(modes)], "other") {
			fmt.Fprintf(table, "\t%v", columns[mode])
		}
		fmt.Fprintf(table, "\t%ds\n", int(run.Time.Round(time.Second).Seconds()))
	}
	table.Flush()
	fmt.Fprintln(w, "(passed/failed/skipped, tests with sub-tests not counted)")

	ok = true
	for _, run := range runs {
		writeSkips(w, run)
	}
	for _, run := range runs {
		writeNotes(w, run)
	}
	// Failures come last: where a log is cut, its end is what is kept.
	for _, run := range runs {
		if !writeFailures(w, run, strict) {
			ok = false
		}
	}
	if n := countUnstable(runs); n > 1 {
		ok = false
		fmt.Fprintf(w, "\nFAIL  %d tests are unstable, which is more than an accident\n", n)
	}
	switch {
	case total == (tally{}):
		ok = false
		fmt.Fprintln(w, "\nFAIL  no test ran")
	case !ok:
		fmt.Fprintln(w, "\nFAIL")
	default:
		fmt.Fprintln(w, "\nPASS")
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", total.Passed, total.Failed, total.Skipped)
	return ok
}

func countUnstable(runs []kernelRun) (n int) {
	for _, run := range runs {
		for _, r := range run.Results {
			if r.Verdict == unstable {
				n++
			}
		}
	}
	return n
}

// writeFailures writes what failed on one kernel or was unstable, and what was skipped there
// that should not be. It returns whether that leaves all well.
func writeFailures(w io.Writer, run kernelRun, strict bool) (ok bool) {
	ok = true
	name := run.Kernel.Name
	if run.Missing != nil {
		word := "SKIP"
		if run.MissingFails {
			word = "FAIL"
		}
		fmt.Fprintf(w, "\n%s  %s: this kernel could not be had, and NOTHING was tested on it:\n%s", word, name, indent(run.Missing.Error()))
		return !run.MissingFails
	}
	if run.Failure != nil {
		ok = false
		fmt.Fprintf(w, "\nFAIL  %s: %v\n", name, run.Failure)
		if len(run.Tail) > 0 {
			fmt.Fprintf(w, "    The console's end (all of it is in %s):\n%s", run.Log, indent(strings.Join(run.Tail, "\n")))
		}
	}
	for _, r := range run.Results {
		switch {
		case r.Verdict == failed:
			ok = false
			fmt.Fprintf(w, "\nFAIL  %s: %s\n%s", name, r.name(), indent(r.Output))
		case r.Verdict == unstable:
			fmt.Fprintf(w, "\nUNSTABLE  %s: %s\n%s", name, r.name(), indent(r.Output))
		case r.Verdict == skipped && whyExpected(name, r) == "":
			why := "would be a failure in CI"
			if strict {
				ok = false
				why = "is a failure in CI"
			}
			fmt.Fprintf(w, "\nSKIP  %s: %s: %s\n      (NOT EXPECTED, which %s)\n", name, r.name(), r.reason(), why)
		}
	}
	return ok
}

// writeSkips writes what was skipped on one kernel, and had to be.
func writeSkips(w io.Writer, run kernelRun) {
	for _, r := range run.Results {
		if r.Verdict != skipped {
			continue
		}
		if why := whyExpected(run.Kernel.Name, r); why != "" {
			fmt.Fprintf(w, "\nSKIP  %s: %s: %s\n      (expected: %s)\n", run.Kernel.Name, r.name(), r.reason(), why)
		}
	}
}

// writeNotes writes what a kernel complained of, each line once, and that it
// had to be booted twice.
func writeNotes(w io.Writer, run kernelRun) {
	times := make(map[string]int)
	for _, line := range run.Kmsg {
		times[line]++
	}
	for _, line := range run.Kmsg {
		again := ""
		switch n := times[line]; {
		case n == 0:
			continue
		case n > 1:
			again = fmt.Sprintf(" (%d times)", n)
		}
		times[line] = 0
		fmt.Fprintf(w, "\nNOTE  %s: the kernel logged while tests ran: %s%s\n", run.Kernel.Name, line, again)
	}
	if run.Retried {
		fmt.Fprintf(w, "\nNOTE  %s: the first boot died before init started; this was the second\n", run.Kernel.Name)
	}
}

// indent indents each line of text, and ends the last.
func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}
