// Package manual writes what a tool tells its users: the text of --help, the
// man page and the shell completions. All come from one [Manual] and from the
// tool's flags, so that nothing is written twice, and [Manual.Check] finds
// where the two disagree.
//
// Flags are taken in the order of their definition (the flag set's SortFlags
// must be false) and put under the headings that [Place] gave them. A flag's
// usage text names its value in back-quotes: "stop after `SECONDS`".
package manual

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Manual is what a tool says of itself beside its flags. Texts are plain:
// paragraphs are separated by an empty line, and lines that begin with a space
// or a tab are kept as they are.
type Manual struct {
	Name         string    // the command: "opensnoop"
	Summary      string    // one line, lower case, no full stop: "trace open() and its kin"
	Synopsis     []string  // command lines: "opensnoop [options] -- COMMAND [ARG...]"
	Description  string    // what it shows, from where, and for whom
	Columns      []Column  // the columns of its text output
	JSON         []Key     // the keys of its JSON objects
	Examples     []Example // worked examples, the most useful first
	Overhead     string    // what it costs, measured
	Caveats      string    // what it does not see, and what may mislead
	Requirements string    // kernel version, configuration, privileges
	SeeAlso      []string  // "execsnoop(8)"
}

// Column is a column of a tool's text output.
type Column struct{ Name, Text string }

// Key is a key of a tool's JSON objects. Type is the JSON type in words, such
// as "integer" or "string, or null".
type Key struct{ Name, Type, Text string }

// Example is a command line and what it is good for, in a sentence without a
// full stop.
type Example struct{ Command, Text string }

// The headings that tools share, in the order of print. A flag that was not
// placed is the tool's own and comes under Options, before all others; a
// heading that is not in this list comes next.
const (
	Options   = "Options"
	Filters   = "Filters"
	Following = "Following"
	Output    = "Output"
	Attaching = "Attaching"
	Diagnosis = "Diagnosis"
	Help      = "Help"
)

var sharedHeadings = []string{Filters, Following, Output, Attaching, Diagnosis, Help}

// The keys of the flag annotations that this package reads.
const (
	HeadingKey = "gobcc_heading" // one value: the heading
	ValuesKey  = "gobcc_values"  // the values that the flag takes
	KindKey    = "gobcc_kind"    // one value: a Kind
)

// Kind is a kind of flag value that a shell can complete.
type Kind string

// The kinds of values. A flag with neither values nor a kind completes to
// nothing.
const (
	File      Kind = "file"
	Directory Kind = "directory"
	PID       Kind = "pid"
	User      Kind = "user"
	Command   Kind = "command"
)

// Place puts flags under a heading. It panics if one isn't in the set, which
// is an error in the program.
func Place(fs *pflag.FlagSet, heading string, names ...string) {
	for _, name := range names {
		annotate(fs, name, HeadingKey, heading)
	}
}

// Values says which values a flag takes, for completion and for the check of
// examples. It panics if the flag isn't in the set.
func Values(fs *pflag.FlagSet, name string, values ...string) {
	annotate(fs, name, ValuesKey, values...)
}

// Completes says what kind of value a flag takes. It panics if the flag isn't
// in the set.
func Completes(fs *pflag.FlagSet, name string, kind Kind) {
	annotate(fs, name, KindKey, string(kind))
}

func annotate(fs *pflag.FlagSet, name, key string, values ...string) {
	if err := fs.SetAnnotation(name, key, values); err != nil {
		panic(fmt.Sprintf("manual: annotate flag --%s: %v", name, err))
	}
}

// option is a flag as the manual shows it.
type option struct {
	long, short string // without dashes; short is "" where there is none
	value       string // the name of its value, "" for a switch
	optional    bool   // the value may be left out
	list        bool   // may be given several times
	text        string
	def         string // the default, "" if that is the zero value
	values      []string
	kind        Kind
}

type group struct {
	heading string
	options []option
}

// groups returns the flags that are not hidden or deprecated, by heading.
func groups(fs *pflag.FlagSet) []group {
	var all []group
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		heading := Options
		if h := f.Annotations[HeadingKey]; len(h) > 0 {
			heading = h[0]
		}
		i := slices.IndexFunc(all, func(g group) bool { return g.heading == heading })
		if i < 0 {
			i = len(all)
			all = append(all, group{heading: heading})
		}
		all[i].options = append(all[i].options, newOption(f))
	})
	slices.SortStableFunc(all, func(a, b group) int { return rank(a.heading) - rank(b.heading) })
	return all
}

func rank(heading string) int {
	if heading == Options {
		return 0
	}
	return 2 + slices.Index(sharedHeadings, heading) // 1 for one that isn't there
}

func newOption(f *pflag.Flag) option {
	value, text := pflag.UnquoteUsage(f)
	o := option{
		long:     f.Name,
		value:    value,
		optional: value != "" && f.NoOptDefVal != "",
		text:     strings.Join(strings.Fields(text), " "),
		values:   f.Annotations[ValuesKey],
	}
	if f.ShorthandDeprecated == "" {
		o.short = f.Shorthand
	}
	if k := f.Annotations[KindKey]; len(k) > 0 {
		o.kind = Kind(k[0])
	}
	switch f.Value.Type() {
	case "bool", "string", "duration", "int", "int32", "int64", "uint", "uint32", "uint64", "float32", "float64":
	default: // lists, counts, and a tool's own types, which are mostly lists
		o.list = true
	}
	switch f.DefValue {
	case "", "0", "0s", "false", "[]", "<nil>":
	default:
		o.def = f.DefValue
	}
	return o
}

// paragraphs splits a text at its empty lines. Each paragraph is a list of
// lines; verbatim tells one whose lines are kept as they are.
type paragraph struct {
	lines    []string
	verbatim bool
}

func paragraphs(text string) []paragraph {
	var all []paragraph
	open := false // the last paragraph may still take lines
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\n")
		if line == "" {
			open = false
			continue
		}
		verbatim := line[0] == ' ' || line[0] == '\t'
		if !open || all[len(all)-1].verbatim != verbatim {
			all = append(all, paragraph{verbatim: verbatim})
			open = true
		}
		p := &all[len(all)-1]
		p.lines = append(p.lines, line)
	}
	return all
}

// String returns the paragraph's text on one line.
func (p paragraph) String() string {
	return strings.Join(strings.Fields(strings.Join(p.lines, " ")), " ")
}
