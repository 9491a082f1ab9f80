package main

import (
	"strings"
	"testing"
)

const caseOutput = `PID    COMM              FD ERR PATH
10     openload           -1   2 /b/opening
11     opencases          3   0 /etc/ld.so.cache
11     opencases          3   0 /d/case-open
12     cat                3   0 /d/case-open
11     opencases          3   0 /d/case-openat2
11     opencases          3   0 /d/case-newline
and escape
11     opencases         -1   2 /d/case-23
11     opencases         -1   2 /d/case-23
10     openload           -1   2 /b/closing
`

func TestCaseRows(t *testing.T) {
	c := caseRows{marks: newMarks(paths{opening: "/b/opening", closing: []string{"/b/closing"}})}
	if err := c.read(strings.NewReader(caseOutput)); err != nil {
		t.Fatal(err)
	}
	if len(c.rows) != 5 {
		t.Fatalf("%d rows, want 5: %q", len(c.rows), c.rows)
	}
	if len(c.openingSeen) != 1 || len(c.closingSeen[0]) != 1 {
		t.Error("the marks were not seen")
	}
	for word, want := range map[string]string{
		"case-open":     "3 0 `/d/case-open`",
		"case-openat2":  "3 0 `/d/case-openat2`",
		"case-newline":  "3 0 `/d/case-newline^Jand escape`",
		"case-23":       "2 rows: -1 2 `/d/case-23`",
		"case-absolute": "nothing",
	} {
		if got := cell(c.rows, word); got != want {
			t.Errorf("%s: got %s, want %s", word, got, want)
		}
	}
}

func TestVisible(t *testing.T) {
	// As cat -v of procps and coreutils shows them.
	if got, want := visible("a\x1b[7m\xff\x7f\t"), "a^[[7mM-^?^?^I"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWriteComparisons(t *testing.T) {
	c := caseRows{marks: newMarks(paths{opening: "/b/opening", closing: []string{"/b/closing"}})}
	if err := c.read(strings.NewReader(caseOutput)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	tracers := []tracer{{name: "one", version: "1.0"}, {name: "two", version: "2.0"}}
	writeComparisons(&out, machine{kernel: "6.1.2", cpu: "Abacus"}, tracers, [][]comparison{{{"one", c.rows}, {"two", nil}}})
	for _, want := range []string{
		"Kernel 6.1.2, Abacus. one 1.0, two 2.0.\n",
		"| case | one | two |\n|---|---|---|\n",
		"| open(2) | 3 0 `/d/case-open` | nothing |\n",
		"    11     opencases          3   0 /d/case-newline\n    and escape\n",
		"    11     opencases         -1   2 /d/case-23\n    (the same row 1 times more)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "an absolute path") {
		t.Error("a case without a row stands in the table")
	}
}
