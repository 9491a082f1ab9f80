package manual

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

const (
	usageWidth  = 80 // columns of the narrowest terminal in use
	usageIndent = 26 // where the text of an option begins
)

// Usage writes the text of --help: how to call the tool, its options by
// heading, its columns, and examples last, where they stay on the screen. No
// line is wider than 80 columns, but for lines that can't be broken.
func (m *Manual) Usage(w io.Writer, fs *pflag.FlagSet) error {
	var b bytes.Buffer
	for i, s := range m.Synopsis {
		lead := "Usage: "
		if i > 0 {
			lead = "       "
		}
		b.WriteString(lead + s + "\n")
	}
	b.WriteByte('\n')
	wrap(&b, sentence(m.Summary), 0, 0)
	for _, g := range groups(fs) {
		b.WriteString("\n" + g.heading + ":\n")
		for _, o := range g.options {
			o.usage(&b)
		}
	}
	if len(m.Columns) > 0 {
		b.WriteString("\nColumns:\n")
		width := 0
		for _, c := range m.Columns {
			width = max(width, utf8.RuneCountInString(c.Name))
		}
		for _, c := range m.Columns {
			at, _ := fmt.Fprintf(&b, "  %-*s  ", width, c.Name)
			wrap(&b, c.Text, at, at)
		}
	}
	if len(m.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, e := range m.Examples {
			b.WriteString("  " + e.Command + "\n")
			b.WriteString("      ")
			wrap(&b, e.Text, 6, 6)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// sentence gives a text a capital and a full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// usage writes an option: its names in the left column, its text in the right
// one, from the next line on where the names are too long.
func (o option) usage(b *bytes.Buffer) {
	names := "      "
	if o.short != "" {
		names = "  -" + o.short + ", "
	}
	names += "--" + o.long
	switch {
	case o.optional:
		names += "[=" + o.value + "]"
	case o.value != "":
		names += " " + o.value
	}
	b.WriteString(names)
	at := utf8.RuneCountInString(names)
	if at+2 > usageIndent {
		b.WriteByte('\n')
		at = 0
	}
	b.WriteString(strings.Repeat(" ", usageIndent-at))
	wrap(b, o.text+o.addition(), usageIndent, usageIndent)
}

// addition is what an option's text leaves to the definition: the values that
// it takes, unless the text has them, and the default.
func (o option) addition() string {
	s := ""
	if len(o.values) > 0 && !o.namesValues() {
		s = ": " + strings.Join(o.values, ", ")
	}
	if o.def != "" && !strings.Contains(o.text, "default") {
		s += " (default " + o.def + ")"
	}
	return s
}

// namesValues tells whether the value's name or the text has the values in it
// already, as in --attach auto|fentry|kprobe, or if they are too many to list.
func (o option) namesValues() bool {
	for _, v := range o.values {
		if !strings.Contains(o.value+" "+o.text, v) {
			return len(o.values) > 8
		}
	}
	return true
}

// wrap writes the words of a text, broken at 80 columns, and a newline. It
// begins in column at, and further lines are indented.
func wrap(b *bytes.Buffer, text string, at, indent int) {
	first := true
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case first:
		case at+1+n > usageWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
		first = false
	}
	b.WriteByte('\n')
}
