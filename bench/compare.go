package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// casesComm is the command name of bench/opencases, and casesDir where it opens
// its files. The directory is always the same one, so that two comparisons can
// be compared.
const (
	casesComm = "opencases"
	casesDir  = "/tmp/opencases"
)

// openCase is one thing that opencases does.
type openCase struct {
	word string // is part of every name of it, and of no other's
	what string
}

// cases are in the order in which opencases does them.
var cases = []openCase{
	{"case-absolute", "an absolute path"},
	{"case-relative", "a path from the working directory"},
	{"case-dirfd", "a path from an open directory, `sub`"},
	{"case-symlink", "a symbolic link to `case-symlink-target`"},
	{"case-missing", "a missing file"},
	{"case-open", "open(2)"},
	{"case-creat", "creat(2)"},
	{"case-openat2", "openat2(2)"},
	{"case-handle", "open_by_handle_at(2)"},
	{"case-int80", "the 32-bit openat(2) (`int $0x80`)"},
	{"case-uring", "io_uring's IORING_OP_OPENAT"},
	{"case-newline", "a newline and an escape sequence in the name"},
	{"case-utf8", "a byte that is no UTF-8, and U+202E, in the name"},
	{"case-cold", "a name in memory that the program has not touched yet"},
	{"case-23", "a missing file, 23 times"},
}

// comparison is what one tracer wrote during the cases, with some options.
type comparison struct {
	name string // the tracer and the options
	rows []row
}

// caseTries is how often each tracer sees the cases. The time in which most of
// them were shown counts: a tracer that another program's opens made lose some
// is not one that can't see them.
const caseTries = 3

// compare runs the cases under each tracer, for each set of options that it
// has, and returns what each showed.
func (b *bench) compare(ctx context.Context, tracers []tracer) ([][]comparison, error) {
	program := filepath.Join(b.dir, casesComm)
	if err := goBuild(ctx, program, "./bench/"+casesComm); err != nil {
		return nil, err
	}
	var all [][]comparison
	for _, option := range []string{"", "-F", "-x"} {
		var group []comparison
		for _, t := range tracers {
			// bpftrace's opensnoop has neither option: it shows all
			// opens, and full paths.
			if t.key == "bpftrace" && option != "" || slices.Contains(t.argv, "-n") {
				continue
			}
			name := t.name
			if option != "" {
				name += " " + option
				t.argv = append(slices.Clone(t.argv), option)
			}
			fmt.Fprintf(os.Stderr, "bench: cases: %s\n", name)
			var rows []row
			for range caseTries {
				again, err := b.runCases(ctx, t, program)
				if err != nil {
					return nil, err
				}
				if len(again) > len(rows) {
					rows = again
				}
			}
			group = append(group, comparison{name, rows})
		}
		all = append(all, group)
	}
	return all, nil
}

// runCases runs the cases once under a tracer.
func (b *bench) runCases(ctx context.Context, t tracer, program string) ([]row, error) {
	// It must not be there: nobody else may have put anything into it.
	if err := os.Mkdir(casesDir, 0o755); err != nil {
		return nil, fmt.Errorf("make a new directory for the cases (remove the old one?): %w", err)
	}
	defer os.RemoveAll(casesDir)
	c := caseRows{marks: newMarks(b.paths())}
	_, err := b.trace(ctx, t, c.marks, c.read, func(ctx context.Context) error {
		cmd := child(ctx, program, casesDir)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run the cases: %w", err)
		}
		return nil
	})
	return c.rows, err
}

// row is one row of the cases in a tracer's output.
type row struct {
	text string // as it was written, without the newline
	fd   string
	errn string
	path string // with the lines that follow it and are no rows
}

// caseRows takes the rows of the cases from a tracer's output.
type caseRows struct {
	*marks
	rows []row
}

func (c *caseRows) read(r io.Reader) error {
	var follows bool // the line before was of a case, and this one may belong to it
	return eachLine(r, func(line []byte) {
		if c.look(line) {
			follows = false
			return
		}
		parsed, ok := parseRow(line)
		switch {
		case ok && parsed.comm == casesComm && bytes.Contains(line, []byte("case-")):
			c.rows = append(c.rows, parsed.row)
			follows = true
		case !ok && follows:
			last := &c.rows[len(c.rows)-1]
			last.text += "\n" + string(line)
			last.path += "\n" + string(line)
		default:
			follows = false
		}
	})
}

type parsedRow struct {
	row
	comm string
}

// parseRow takes a row apart whose columns are PID, COMM, FD, ERR and PATH.
func parseRow(line []byte) (parsedRow, bool) {
	rest := string(line)
	var columns [4]string
	for i := range columns {
		rest = strings.TrimLeft(rest, " ")
		columns[i], rest, _ = strings.Cut(rest, " ")
		// COMM may be anything, the others are numbers.
		if _, err := strconv.Atoi(columns[i]); err != nil && i != 1 {
			return parsedRow{}, false
		}
	}
	return parsedRow{row{string(line), columns[2], columns[3], strings.TrimLeft(rest, " ")}, columns[1]}, true
}

// writeComparisons prints, for each set of options, which FD, ERR and PATH each
// tracer showed of each case, and then the rows themselves.
func writeComparisons(w io.Writer, m machine, tracers []tracer, all [][]comparison) {
	fmt.Fprintf(w, "Kernel %s, %s. ", m.kernel, m.cpu)
	var versions []string
	for _, t := range tracers {
		if !slices.Contains(t.argv, "-n") {
			versions = append(versions, t.name+" "+t.version)
		}
	}
	fmt.Fprintf(w, "%s.\n\n"+
		"A cell is FD, ERR and PATH of the case's row. Control characters are shown as by `cat -v`.\n"+
		"A case that no tracer of a table shows is left out there.\n",
		strings.Join(versions, ", "))
	for _, group := range all {
		if len(group) == 0 {
			continue
		}
		fmt.Fprint(w, "\n| case |")
		for _, c := range group {
			fmt.Fprintf(w, " %s |", c.name)
		}
		fmt.Fprint(w, "\n|---|"+strings.Repeat("---|", len(group))+"\n")
		for _, one := range cases {
			var cells []string
			for _, c := range group {
				cells = append(cells, cell(c.rows, one.word))
			}
			// With -x most cases are of no interest.
			if slices.ContainsFunc(cells, func(text string) bool { return text != nothing }) {
				fmt.Fprintf(w, "| %s | %s |\n", one.what, strings.Join(cells, " | "))
			}
		}
	}
	fmt.Fprint(w, "\nThe rows themselves:\n")
	for _, group := range all {
		for _, c := range group {
			fmt.Fprintf(w, "\n    %s\n", c.name)
			writeRows(w, c.rows)
		}
	}
}

// writeRows prints rows as they came, and how often where the same one came
// several times in a row.
func writeRows(w io.Writer, rows []row) {
	for len(rows) > 0 {
		same := 1
		for same < len(rows) && rows[same].text == rows[0].text {
			same++
		}
		for line := range strings.SplitSeq(rows[0].text, "\n") {
			fmt.Fprintf(w, "    %s\n", visible(line))
		}
		if same > 1 {
			fmt.Fprintf(w, "    (the same row %d times more)\n", same-1)
		}
		rows = rows[same:]
	}
}

// nothing is what a cell says without a row.
const nothing = "nothing"

// cell says what a tracer showed of one case.
func cell(rows []row, word string) string {
	var found []row
	for _, r := range rows {
		// The end of the word must be that of the name's first part, or
		// case-open would be case-openat2 too.
		if i := strings.Index(r.path, word); i >= 0 && !startsWithLetter(r.path[i+len(word):]) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nothing
	}
	r := found[0]
	text := fmt.Sprintf("%s %s `%s`", r.fd, r.errn, strings.ReplaceAll(visible(r.path), "|", "\\|"))
	if len(found) > 1 {
		text = fmt.Sprintf("%d rows: %s", len(found), text)
	}
	return text
}

func startsWithLetter(s string) bool {
	return s != "" && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= '0' && s[0] <= '9')
}

// visible shows every byte that isn't printable ASCII as cat -v does.
func visible(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x80 {
			b.WriteString("M-")
			c -= 0x80
		}
		switch {
		case c < 0x20:
			b.WriteString("^" + string(rune(c+'@')))
		case c == 0x7f:
			b.WriteString("^?")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
