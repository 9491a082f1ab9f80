package manual

import (
	"bytes"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/pflag"
)

// Man writes the man page, in man(7), section 8. Version is the tool's version
// and date the day it is from, as 2006-01-02; without a date the page says
// nothing of its age, and mandoc's lint complains.
func (m *Manual) Man(w io.Writer, fs *pflag.FlagSet, version, date string) error {
	p := &page{}
	// The date is not escaped: readers of the page parse it.
	p.WriteString(`.TH "` + roff(strings.ToUpper(m.Name)) + `" "8" "` + date + `" "gobcc ` + roff(version) + `" "System Manager\(aqs Manual"` + "\n")
	p.macro("SH", "NAME")
	p.line(roff(m.Name) + ` \- ` + roff(m.Summary))
	p.macro("SH", "SYNOPSIS")
	p.macro("nf")
	for _, s := range m.Synopsis {
		name, rest, _ := strings.Cut(s, " ")
		p.line(strings.TrimSpace(`\fB` + roff(name) + `\fR ` + markup(rest)))
	}
	p.macro("fi")
	p.section("DESCRIPTION", m.Description)
	p.macro("SH", "OPTIONS")
	for _, g := range groups(fs) {
		if g.heading != Options { // the section's own name
			p.macro("SS", g.heading)
		}
		for _, o := range g.options {
			p.option(o)
		}
	}
	if len(m.Columns) > 0 {
		p.macro("SH", "FIELDS")
		for _, c := range m.Columns {
			p.item(`\fB`+roff(c.Name)+`\fR`, c.Text)
		}
	}
	if len(m.JSON) > 0 {
		p.macro("SH", "JSON")
		p.text("With --json each line is an object with these keys:")
		for _, k := range m.JSON {
			p.item(`\fB`+roff(k.Name)+`\fR (`+roff(k.Type)+`)`, k.Text)
		}
	}
	if len(m.Examples) > 0 {
		p.macro("SH", "EXAMPLES")
		for _, e := range m.Examples {
			p.item(`\fB`+roff(e.Command)+`\fR`, e.Text)
		}
	}
	p.macro("SH", "EXIT STATUS")
	for _, s := range m.exitStatus() {
		p.item(`\fB`+s[0]+`\fR`, s[1])
	}
	p.section("OVERHEAD", m.Overhead)
	p.section("CAVEATS", m.Caveats)
	p.section("REQUIREMENTS", m.Requirements)
	if len(m.SeeAlso) > 0 {
		p.macro("SH", "SEE ALSO")
		for i, s := range m.SeeAlso {
			comma := ","
			if i == len(m.SeeAlso)-1 {
				comma = ""
			}
			name, section, _ := strings.Cut(s, "(")
			if section != "" {
				section = "(" + section
			}
			p.line(`\fB` + roff(name) + `\fR` + roff(section) + comma)
		}
	}
	_, err := w.Write(p.Bytes())
	return err
}

// exitStatus is the same for all tools, but that one that starts a command
// ends as that does.
func (m *Manual) exitStatus() [][2]string {
	all := [][2]string{
		{"0", "It is done, or was interrupted."},
		{"1", "It failed."},
		{"2", "The command line is wrong."},
		{"3", "It can't be done on this kernel or with these privileges."},
	}
	if m.takesCommand() {
		all = append(all,
			[2]string{"126", "COMMAND can't be executed."},
			[2]string{"127", "COMMAND was not found."},
			[2]string{"other", "The exit status of COMMAND, where one was given."})
	}
	return all
}

// takesCommand tells whether the tool starts a command that follows "--".
func (m *Manual) takesCommand() bool {
	for _, s := range m.Synopsis {
		if strings.Contains(s, " -- ") {
			return true
		}
	}
	return false
}

// page is a man page that is being written.
type page struct{ bytes.Buffer }

// macro writes a request with its arguments. Those are ours or short names:
// none has a double quote in it that would have to be told from the delimiters.
func (p *page) macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, a := range args {
		p.WriteString(` "` + roff(a) + `"`)
	}
	p.WriteByte('\n')
}

// line writes a line of text that is escaped already. A line that begins with
// a dot or an apostrophe would be a request.
func (p *page) line(s string) {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	p.WriteString(s + "\n")
}

func (p *page) item(tag, text string) {
	p.macro("TP")
	p.line(tag)
	p.text(sentence(text))
}

func (p *page) option(o option) {
	tag := ""
	if o.short != "" {
		tag = `\fB\-` + roff(o.short) + `\fR, `
	}
	tag += `\fB\-\-` + roff(o.long) + `\fR`
	switch {
	case o.optional:
		tag += `[=\fI` + roff(o.value) + `\fR]`
	case o.value != "":
		tag += ` \fI` + roff(o.value) + `\fR`
	}
	p.item(tag, o.text+o.addition())
}

func (p *page) section(title, text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	p.macro("SH", title)
	for i, para := range paragraphs(text) {
		switch {
		case para.verbatim:
			p.macro("PP")
			p.macro("EX")
			for _, l := range para.lines {
				p.line(roff(l))
			}
			p.macro("EE")
			continue
		case i > 0:
			p.macro("PP")
		}
		p.text(para.String())
	}
}

// text writes prose, a sentence a line, as roff wants it. Long sentences are
// broken at 78 bytes, which no reader of the page sees.
func (p *page) text(s string) {
	n := 0
	var l strings.Builder
	flush := func() {
		if l.Len() > 0 {
			p.line(markup(l.String()))
		}
		l.Reset()
		n = 0
	}
	for word := range strings.FieldsSeq(s) {
		if n > 0 && n+1+len(word) > 70 {
			flush()
		}
		if n > 0 {
			l.WriteByte(' ')
			n++
		}
		l.WriteString(word)
		n += len(word)
		if endsSentence(word) {
			flush()
		}
	}
	flush()
}

func endsSentence(word string) bool {
	return strings.HasSuffix(word, ".") && word != "e.g." && word != "i.e." && !strings.HasSuffix(word, "..")
}

// optionWord finds options in prose: "-p", "--pid", also in parentheses or
// before a comma, but not the dash in "per-CPU" or the number -1.
var optionWord = regexp.MustCompile("(^|[\\s(\\[\"'`|/])(--[a-z][a-z0-9-]*|-[A-Za-z])\\b")

// markup escapes prose and sets options in bold.
func markup(s string) string {
	var b strings.Builder
	last := 0
	for _, at := range optionWord.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(roff(s[last:at[4]]))
		b.WriteString(`\fB` + roff(s[at[4]:at[5]]) + `\fR`)
		last = at[5]
	}
	b.WriteString(roff(s[last:]))
	return b.String()
}

// roff escapes a text. A plain "-" would be set as a hyphen, which can't be
// copied into a shell.
var roff = strings.NewReplacer(
	`\`, `\e`,
	"-", `\-`,
	"^", `\(ha`,
	"~", `\(ti`,
	"`", `\(ga`,
	"'", `\(aq`,
	`"`, `\(dq`,
	"\t", "        ",
).Replace
