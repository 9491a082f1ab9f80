// Tally reads the output of go test -json on its standard input and prints
// what a person wants of it: a line for each package, the output of what
// failed, the reason of each skip, and at the end one line with the counts:
//
//	23 passed, 0 failed, 1 skipped
//
// A test that has subtests is not counted, they are. A package that fails
// without a failed test (it does not build, or ends early) counts as one that
// failed. The exit status is 1 if anything failed, or if no test ran at all,
// as then the caller asked for something else than it got.
//
// With CI set in the environment a skip is a failure. With -live, where the tests are those
// on the running kernel, only one that expected.go does not have is.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	live := flag.Bool("live", false, "with CI set, some skips are expected, as the running kernel may lack something")
	flag.Parse()
	if err := run(os.Stdout, os.Stdin, may(os.Getenv("CI") != "", *live)); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
}

// may gives what tells whether a test may be skipped, by its name and what it says.
func may(ci, live bool) func(test, said string) bool {
	switch {
	case !ci:
		return func(string, string) bool { return true }
	case live:
		return expected
	}
	return func(string, string) bool { return false } // make test-unit has installed all that is needed
}

// event is a line of go test -json, as go doc test2json describes it.
type event struct {
	Action     string
	Package    string
	ImportPath string // instead of Package, for the output of a build
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

type tally struct {
	passed, failed, skipped int
	output                  map[string][]string          // by package and test, until it ends
	parents                 map[string]bool              // tests with subtests, by package and test
	failedIn                map[string]int               // by package
	doneIn                  map[string]int               // by package
	expected                func(test, said string) bool // a skip that is not is a failure
}

func run(w io.Writer, r io.Reader, expected func(test, said string) bool) error {
	t := &tally{
		expected: expected,
		output:   map[string][]string{},
		parents:  map[string]bool{},
		failedIn: map[string]int{},
		doneIn:   map[string]int{},
	}
	out := bufio.NewWriter(w)
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				out.Write(line) // go itself complains in plain text
			} else {
				t.take(out, e)
			}
			out.Flush()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	switch {
	case t.failed > 0:
		return fmt.Errorf("%d tests failed", t.failed)
	case t.passed+t.skipped == 0:
		return errors.New("no test ran")
	}
	return nil
}

func (t *tally) take(w *bufio.Writer, e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "run":
		if i := strings.LastIndexByte(key, '/'); e.Test != "" && i > len(e.Package) {
			t.parents[key[:i]] = true
		}
	case "output":
		t.output[key] = append(t.output[key], e.Output)
	case "build-output":
		w.WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.packageEnd(w, e)
		} else {
			t.testEnd(w, e, key)
		}
		delete(t.output, key)
	}
}

func (t *tally) testEnd(w *bufio.Writer, e event, key string) {
	if !t.parents[key] {
		t.doneIn[e.Package]++
		switch e.Action {
		case "pass":
			t.passed++
		case "skip":
			if t.unexpected(e, key) {
				t.failed++
			} else {
				t.skipped++
			}
		case "fail":
			t.failed++
		}
	}
	if e.Action == "fail" {
		t.failedIn[e.Package]++
	}
	if e.Action == "pass" {
		return
	}
	for _, o := range t.output[key] {
		if !strings.HasPrefix(o, "=== ") { // the verbose mode's marks
			w.WriteString(o)
		}
	}
	if e.Action == "skip" && t.unexpected(e, key) {
		fmt.Fprintf(w, "    (this skip of %s is NOT EXPECTED, which is a failure in CI)\n", e.Test)
	}
}

// unexpected reports whether a skip is to count as a failure.
func (t *tally) unexpected(e event, key string) bool {
	return !t.expected(e.Test, strings.Join(t.output[key], ""))
}

func (t *tally) packageEnd(w *bufio.Writer, e event) {
	n := t.doneIn[e.Package]
	switch {
	case e.Action == "fail":
		if t.failedIn[e.Package] == 0 {
			t.failed++
		}
		// What the package said outside of a test, such as a panic's trace,
		// and what its unfinished tests said before it.
		for _, key := range slices.Sorted(maps.Keys(t.output)) {
			if strings.HasPrefix(key, e.Package+" ") {
				w.WriteString(strings.Join(t.output[key], ""))
				delete(t.output, key)
			}
		}
		fmt.Fprintf(w, "FAIL\t%s\t%.2fs\t%d tests\n", e.Package, e.Elapsed, n)
	case n > 0:
		fmt.Fprintf(w, "ok\t%s\t%.2fs\t%d tests\n", e.Package, e.Elapsed, n)
	}
}
