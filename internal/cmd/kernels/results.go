package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// A verdict is how a test ended.
type verdict string

const (
	passed  verdict = "pass"
	failed  verdict = "fail"
	skipped verdict = "skip"

	unstable verdict = "unstable" // it failed, and passed each time it was run again
)

// A result is the verdict on one test, or on a package of tests as a whole.
type result struct {
	Package string
	Test    string // with its parents, as in TestOpens/fentry/openat; empty for the package
	Verdict verdict
	Output  string
}

// The attach modes, in the order of the table's columns.
var modes = []string{"fentry", "kprobe", "tracepoint"}

// mode returns the attach mode that a test is about: the element of its name
// that is a mode. It is "other" where there is none.
func (r result) mode() string {
	for _, element := range strings.Split(r.Test, "/")[1:] {
		if slices.Contains(modes, element) {
			return element
		}
	}
	return "other"
}

// name returns the test's name with its package, or the package's alone.
func (r result) name() string { return strings.TrimSpace(shortPackage(r.Package) + " " + r.Test) }

// shortPackage returns an import path as go test takes it at the module's root.
func shortPackage(path string) string {
	if rest, ok := strings.CutPrefix(path, "github.com/gobcc/gobcc/"); ok {
		return "./" + rest
	}
	return path
}

// reason returns why a test was skipped, or what it said last.
func (r result) reason() string {
	lines := strings.Split(strings.TrimSpace(r.Output), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	// "opens_kernel_test.go:12: no fentry": the place is of no use here.
	if file, rest, ok := strings.Cut(last, ": "); ok && strings.Contains(file, ".go:") {
		return rest
	}
	return last
}

// packageResults returns the results of one package's run: those of the tests
// without sub-tests, which are the ones that test something, those of tests
// that failed though none of their sub-tests did, and one for the package where
// its run ended badly and no test tells why.
func packageResults(ctx context.Context, run packageRun) ([]result, error) {
	events, err := test2json(ctx, run)
	if err != nil {
		return nil, err
	}
	var tests []*result // in the order of their start
	byName := map[string]*result{}
	var rest strings.Builder // output of no test
	for _, e := range events {
		if e.Test == "" {
			rest.WriteString(e.Output)
			continue
		}
		r := byName[e.Test]
		if r == nil {
			r = &result{Package: run.Package, Test: e.Test}
			byName[e.Test] = r
			tests = append(tests, r)
		}
		switch v := verdict(e.Action); v {
		case passed, failed, skipped:
			r.Verdict = v
		case "output":
			if !isFraming(e.Output, e.Test) {
				r.Output += e.Output
			}
		}
	}
	var results []result
	anyFailed := false
	for _, r := range tests {
		if r.Verdict == "" {
			r.Verdict = failed
			r.Output += "(no result: it was running when the test binary ended, or its result was garbled on the console)\n"
		}
		below := func(o *result) bool { return strings.HasPrefix(o.Test, r.Test+"/") }
		failedBelow := func(o *result) bool { return below(o) && (o.Verdict == failed || o.Verdict == "") }
		if !slices.ContainsFunc(tests, below) || r.Verdict == failed && !slices.ContainsFunc(tests, failedBelow) {
			results = append(results, *r)
			anyFailed = anyFailed || r.Verdict == failed
		}
	}
	switch {
	case !run.Ended:
		results = append(results, result{run.Package, "", failed, rest.String() + "(the guest ended before the tests of this package did)\n"})
	case run.Status != 0 && !anyFailed:
		results = append(results, result{run.Package, "", failed, rest.String() + fmt.Sprintf("(the test binary ended with status %d, and no test failed)\n", run.Status)})
	case run.Status == 0 && anyFailed:
		results = append(results, result{run.Package, "", failed, "(a test failed or has no result, and yet the test binary ended with status 0)\n"})
	}
	return results, nil
}

// isFraming tells the lines that the testing package puts around the test's own.
func isFraming(line, test string) bool {
	kind, rest, ok := strings.Cut(strings.TrimSpace(line), test)
	if !ok {
		return false
	}
	switch strings.TrimSpace(kind) {
	case "=== RUN", "=== PAUSE", "=== CONT", "=== NAME":
		return rest == ""
	case "--- PASS:", "--- FAIL:", "--- SKIP:":
		return strings.HasPrefix(rest, " (") && strings.HasSuffix(rest, "s)")
	}
	return false
}

// A testEvent is a line of go tool test2json.
type testEvent struct {
	Action, Test, Output string
}

// test2json has Go's own tool tell tests, results and output apart.
func test2json(ctx context.Context, run packageRun) ([]testEvent, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", run.Package)
	cmd.Stdin = strings.NewReader(strings.Join(run.Output, "\n") + "\n")
	out, err := output(cmd)
	if err != nil {
		return nil, fmt.Errorf("read the test output of %s: %w", run.Package, err)
	}
	var events []testEvent
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var e testEvent
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the output of test2json: %w", err)
		}
		events = append(events, e)
	}
}
