package livetest

import (
	"encoding/json"
	"strings"
	"testing"
)

// Decode gives the objects that a tool wrote with --json. A key that T does not
// have fails the test.
func Decode[T any](t testing.TB, lines []string) []T {
	t.Helper()
	list := make([]T, len(lines))
	for i, line := range lines {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&list[i]); err != nil {
			t.Fatalf("not the JSON that was expected: %v: %q", err, line)
		}
	}
	return list
}

// Null is what Exact gives for JSON's null.
const Null = "<null>"

// Exact gives the bytes that a string of JSON and its "_bytes" stand for.
func Exact(s *string, b []byte) string {
	switch {
	case b != nil:
		return string(b)
	case s == nil:
		return Null
	}
	return *s
}

// Over is the result of a tool that must have ended with that status.
func (r Result) Over(t testing.TB, status int) Result {
	t.Helper()
	if r.Status != status {
		t.Fatalf("status %d, not %d: %s", r.Status, status, r.Stderr)
	}
	return r
}

// Account checks that shown and lost are all there was. A program on a tracepoint
// that was skipped for another may have had nothing to report; then the tool says
// how many these may be.
func Account(t testing.TB, what string, done, shown, lost, possibly uint64) {
	t.Helper()
	if sum := shown + lost; sum > done || sum+possibly < done {
		t.Errorf("%s: %d shown + %d lost is not %d (perhaps %d more were lost)", what, shown, lost, done, possibly)
	}
}
