package manual

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Check returns where the manual and the flags disagree or leave something
// out: a text that names an option which does not exist, an example that does
// not parse, a flag, column or key without text. It parses the examples into
// the flags, so the flag set must not be used for anything else afterwards.
func (m *Manual) Check(fs *pflag.FlagSet) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	if m.Name == "" || strings.ContainsAny(m.Name, " \t\n") {
		report("name %q is not a word", m.Name)
	}
	if s := m.Summary; s == "" || strings.HasSuffix(s, ".") || strings.Contains(s, "\n") || s[0] >= 'A' && s[0] <= 'Z' {
		report("summary %q is not one line, lower case, without a full stop", s)
	}
	if len(m.Synopsis) == 0 {
		report("no synopsis")
	}
	for _, s := range m.Synopsis {
		if s != m.Name && !strings.HasPrefix(s, m.Name+" ") {
			report("synopsis %q does not begin with %s", s, m.Name)
		}
	}
	for title, text := range map[string]string{
		"description": m.Description, "overhead": m.Overhead, "caveats": m.Caveats, "requirements": m.Requirements,
	} {
		if strings.TrimSpace(text) == "" {
			report("no %s", title)
		}
		found = append(found, unknownOptions(fs, title, text)...)
	}
	if fs.SortFlags {
		report("flags are sorted by name, not in the order of their definition: set SortFlags to false")
	}
	fs.VisitAll(func(f *pflag.Flag) {
		o := newOption(f)
		if o.text == "" {
			report("flag --%s has no usage text", o.long)
		}
		if f.Value.Type() == "bool" && o.value != "" {
			report("flag --%s is a switch and can't have a value %s", o.long, o.value)
		}
		found = append(found, unknownOptions(fs, "usage text of flag --"+o.long, o.text)...)
	})
	seen := map[string]bool{}
	for _, c := range m.Columns {
		if c.Name == "" || c.Text == "" || seen["column "+c.Name] {
			report("column %q has no name or text, or comes twice", c.Name)
		}
		seen["column "+c.Name] = true
		found = append(found, unknownOptions(fs, "column "+c.Name, c.Text)...)
	}
	for _, k := range m.JSON {
		if k.Name == "" || k.Type == "" || k.Text == "" || seen["key "+k.Name] {
			report("JSON key %q has no name, type or text, or comes twice", k.Name)
		}
		seen["key "+k.Name] = true
		found = append(found, unknownOptions(fs, "JSON key "+k.Name, k.Text)...)
	}
	if len(m.Examples) == 0 {
		report("no examples")
	}
	for _, e := range m.Examples {
		if e.Text == "" || strings.HasSuffix(e.Text, ".") {
			report("example %q has no text, or one with a full stop", e.Command)
		}
		found = append(found, unknownOptions(fs, "text of example "+e.Command, e.Text)...)
		args, ok := m.arguments(e.Command)
		if !ok {
			report("example %q does not call %s", e.Command, m.Name)
			continue
		}
		if err := m.tryParse(fs, args); err != nil {
			report("example %q does not parse: %v", e.Command, err)
		}
	}
	slices.Sort(found) // the map's order is random
	return found
}

// CheckReadme returns where a README disagrees with the tool: the command
// lines in its code blocks that call the tool must parse, and at least one
// must be there. As with Check, the flag set is of no other use afterwards.
func (m *Manual) CheckReadme(readme io.Reader, fs *pflag.FlagSet) ([]string, error) {
	var found []string
	calls := 0
	err := readmeLines(readme, func(line string, code bool) {
		if !code {
			return
		}
		args, ok := m.arguments(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
		if !ok {
			return
		}
		calls++
		if err := m.tryParse(fs, args); err != nil {
			found = append(found, fmt.Sprintf("%q does not parse: %v", strings.TrimSpace(line), err))
		}
	})
	if calls == 0 {
		found = append(found, "no code block shows how to call "+m.Name)
	}
	return found, err
}

// CheckTable returns which tools have no row of their own in a README's
// tables, and which rows of the table of tools name none. A row names a tool
// in its first cell: | opensnoop |, | `opensnoop` | or | [opensnoop](…) |.
// The table of tools is the one whose header's first cell is "Tool".
func CheckTable(readme io.Reader, tools []string) ([]string, error) {
	var found, rows []string
	inTable := false
	err := readmeLines(readme, func(line string, code bool) {
		cells := strings.Split(line, "|")
		if code || len(cells) < 3 || strings.TrimSpace(cells[0]) != "" {
			inTable = false
			return
		}
		cell, _, _ := strings.Cut(cells[1], "](")
		cell = strings.Trim(cell, " `[]*")
		switch {
		case strings.EqualFold(cell, "tool"):
			inTable = true
		case inTable && strings.Trim(cell, ":-") != "":
			rows = append(rows, cell)
		}
	})
	for _, t := range tools {
		if !slices.Contains(rows, t) {
			found = append(found, "the table of tools has no row for "+t)
		}
	}
	for _, r := range rows {
		if !slices.Contains(tools, r) {
			found = append(found, "the table of tools has a row for "+r+", which is not a tool")
		}
	}
	return found, err
}

// readmeLines calls fn for each line of a Markdown text and says whether it is
// in a fenced code block. Lines of code that end in a backslash are joined.
func readmeLines(r io.Reader, fn func(line string, code bool)) error {
	code, joined := false, ""
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := s.Text()
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
			continue
		}
		if before, ok := strings.CutSuffix(line, `\`); ok && code {
			joined += before
			continue
		}
		fn(joined+line, code)
		joined = ""
	}
	return s.Err()
}

// unknownOptions returns the options that a text names and the flags lack.
// Behind a pipe they are another program's.
func unknownOptions(fs *pflag.FlagSet, where, text string) []string {
	var found []string
	text = piped.ReplaceAllString(text, "")
	for _, match := range optionWord.FindAllStringSubmatch(text, -1) {
		if !exists(fs, match[2]) {
			found = append(found, fmt.Sprintf("%s names %s, which is not an option", where, match[2]))
		}
	}
	return found
}

var piped = regexp.MustCompile(` \| [^;.\n]*`)

func exists(fs *pflag.FlagSet, opt string) bool {
	if long, ok := strings.CutPrefix(opt, "--"); ok {
		return fs.Lookup(long) != nil
	}
	return fs.ShorthandLookup(opt[1:]) != nil
}

// tryParse parses a command line. Values that depend on the machine (a file, a
// user, what the shell would put there) are not looked at.
func (m *Manual) tryParse(fs *pflag.FlagSet, args []string) error {
	err := fs.ParseAll(args, func(f *pflag.Flag, value string) error {
		known := f.Annotations[ValuesKey]
		switch {
		case strings.Contains(value, "$"):
			return nil
		case len(known) > 0:
			for v := range strings.SplitSeq(value, ",") {
				if !slices.Contains(known, v) {
					return fmt.Errorf("value %q of --%s is not one of %s", v, f.Name, strings.Join(known, ", "))
				}
			}
			return nil
		case len(f.Annotations[KindKey]) > 0:
			return nil
		}
		if err := f.Value.Set(value); err != nil {
			return fmt.Errorf("value %q of --%s: %w", value, f.Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	operands := fs.NArg()
	if dash := fs.ArgsLenAtDash(); dash >= 0 && m.takesCommand() {
		operands = dash
	}
	if operands > 0 && !m.takesOperands() {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return nil
}

// takesOperands tells whether a synopsis has arguments other than options and
// a command behind "--".
func (m *Manual) takesOperands() bool {
	for _, s := range m.Synopsis {
		s, _, _ = strings.Cut(s, " -- ")
		for _, word := range strings.Fields(s)[1:] {
			if operand.MatchString(word) {
				return true
			}
		}
	}
	return false
}

// operand is an argument in a synopsis: INTERVAL, or [INTERVAL], but not an
// option or the word [options].
var operand = regexp.MustCompile(`^\[?[A-Z]+(\]|\.\.\.)*$`)

// arguments returns the arguments of the tool in a shell command line, and
// whether the tool is called there, as a plain command, from a directory, by
// sudo or by go run.
func (m *Manual) arguments(line string) ([]string, bool) {
	for _, words := range shellCommands(line) {
		for i, w := range words {
			if path.Base(w) == m.Name {
				return words[i+1:], true
			}
			if !prefixWord.MatchString(w) {
				break
			}
		}
	}
	return nil, false
}

// prefixWord is a word that may come before the tool's name.
var prefixWord = regexp.MustCompile(`^(sudo|go|run|exec|env|time|-exec|\w+=.*)$`)

// shellCommands splits a command line into commands and those into words:
// enough of the shell's grammar for examples. Redirections and comments are
// left out, and $(…) stays part of its word.
func shellCommands(line string) [][]string {
	commands := [][]string{nil}
	var word strings.Builder
	inWord, redirect := false, false
	end := func() {
		if !inWord {
			return
		}
		if redirect {
			redirect = false
		} else {
			last := &commands[len(commands)-1]
			*last = append(*last, word.String())
		}
		word.Reset()
		inWord = false
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == ' ' || c == '\t':
			end()
		case c == '#' && !inWord:
			return commands
		case c == '\'' || c == '"':
			inWord = true
			for i++; i < len(line) && line[i] != c; i++ {
				if c == '"' && line[i] == '\\' && i+1 < len(line) {
					i++
				}
				word.WriteByte(line[i])
			}
		case c == '\\' && i+1 < len(line):
			i++
			inWord = true
			word.WriteByte(line[i])
		case c == '$' && i+1 < len(line) && line[i+1] == '(':
			inWord = true
			for depth := 0; i < len(line); i++ {
				word.WriteByte(line[i])
				if line[i] == '(' {
					depth++
				} else if line[i] == ')' {
					if depth--; depth == 0 {
						break
					}
				}
			}
		case c == '>' || c == '<':
			if inWord && strings.Trim(word.String(), "0123456789&") == "" { // 2>file
				word.Reset()
				inWord = false
			}
			end()
			redirect = true
			for i+1 < len(line) && (line[i+1] == '>' || line[i+1] == '&') {
				i++
			}
		case c == '|' || c == ';' || c == '&':
			end()
			commands = append(commands, nil)
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	end()
	return commands
}
