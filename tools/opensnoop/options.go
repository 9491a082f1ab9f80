package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/duration"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// options is what the user asked for.
type options struct {
	*trace.Options
	timestamp  bool
	uid        bool
	failed     bool
	extended   bool
	flags      flagFilter
	fullPath   bool
	errnoNames bool
	flagNames  bool
	latency    bool
	minLatency duration.Micros
	pathRoot   string
	globs      []string
	prefix     string
	summary    bool

	patterns []*regexp.Regexp
}

// defineFlags defines the flags in the order of the manual.
func defineFlags(fs *pflag.FlagSet) *options {
	o := &options{}
	// BCC spells some of its long options with an underscore.
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	fs.BoolVarP(&o.timestamp, "timestamp", "T", false, "show the time in seconds since the first row")
	fs.BoolVarP(&o.uid, "print-uid", "U", false, "show the user's number")
	fs.BoolVarP(&o.extended, "extended-fields", "e", false, "show flags, mode, and by which way the file was opened")
	fs.BoolVarP(&o.fullPath, "full-path", "F", false, "show the path of the file that was really opened")
	fs.BoolVar(&o.errnoNames, "errno-names", false, "show errors by name: ENOENT for 2")
	fs.BoolVar(&o.flagNames, "flag-names", false, "show flags by name, with -e: O_WRONLY|O_CREAT for 0101")
	fs.BoolVar(&o.latency, "latency", false, "show how long each open took, in microseconds")
	fs.StringVar(&o.pathRoot, "path-root", "process", "with -F, show paths as seen from the root of the `process|host`")
	fs.BoolVar(&o.summary, "summary", false, "show no rows, but counts by process and path at the end")
	manual.Values(fs, "path-root", "process", "host")
	manual.Place(fs, manual.Output, "timestamp", "print-uid", "extended-fields", "full-path", "errno-names",
		"flag-names", "latency", "path-root", "summary")

	fs.BoolVarP(&o.failed, "failed", "x", false, "only opens that failed")
	fs.VarP(&o.flags, "flag-filter", "f", "only opens with this `FLAG`: O_WRONLY, O_CREAT, ... (repeatable: any of them)")
	fs.Var(&o.minLatency, "min-latency", "only opens that took `TIME` or longer: microseconds, or with a unit: 2ms")
	fs.StringArrayVar(&o.globs, "path", nil, "only paths that match `GLOB`, whose * takes / too (repeatable: any of them)")
	fs.StringVar(&o.prefix, "path-prefix", "", "only paths that begin with `TEXT`")
	manual.Place(fs, manual.Filters, "failed", "flag-filter", "min-latency", "path", "path-prefix")
	values := append([]string(nil), accessModes[:3]...)
	for _, f := range openFlags {
		values = append(values, f.name)
	}
	manual.Values(fs, "flag-filter", values...)
	manual.Completes(fs, "path-prefix", manual.File)

	o.Options = trace.Flags(fs)
	o.DurationFlag("d")
	o.Filter.PIDFlag("p")
	o.Filter.TIDFlag("t")
	o.Filter.UserFlag("u")
	o.Filter.CommFlag("n")
	manual.Place(fs, manual.Filters, "pid", "tid", "uid", "name")
	return o
}

// check refuses what makes no sense.
func (o *options) check(args []string) error {
	if len(args) > 0 {
		return cli.BadUse("unexpected argument %q; a command to trace stands behind --", args[0])
	}
	if o.pathRoot != "process" && o.pathRoot != "host" {
		return cli.BadUse("--path-root: there is no root %q: process or host", o.pathRoot)
	}
	if o.pathRoot == "host" && !o.walked() {
		return cli.BadUse("--path-root host is about full paths: add -F")
	}
	if o.flagNames && !o.extended {
		return cli.BadUse("--flag-names is about a column of -e: add -e")
	}
	if o.summary && o.JSON {
		return cli.BadUse("--summary and --json exclude each other")
	}
	for _, g := range o.globs {
		re, err := globPattern(g)
		if err != nil {
			return cli.BadUse("--path: %w", err)
		}
		o.patterns = append(o.patterns, re)
	}
	return nil
}

// timed reports whether the beginning of each open must be seen too.
func (o *options) timed() bool { return o.latency || o.minLatency > 0 || o.JSON || o.summary }

// walked reports whether each file's own path is needed.
func (o *options) walked() bool { return o.fullPath || o.JSON }

// kernelPrefix gives --path-prefix as far as the kernel can compare it: with the
// path as the program gave it. What it lets through is compared again.
func (o *options) kernelPrefix() (text [shortPath]uint8, n int) {
	if o.walked() {
		return text, 0
	}
	n = copy(text[:len(text)-1], o.prefix)
	return text, n
}

// shortPath is SHORT_PATH in opensnoop.bpf.c; setting the constant fails if they
// differ.
const shortPath = 112

// matches reports whether a path passes --path and --path-prefix.
func (o *options) matches(path []byte) bool {
	if !strings.HasPrefix(string(path), o.prefix) {
		return false
	}
	for _, p := range o.patterns {
		if p.Match(path) {
			return true
		}
	}
	return len(o.patterns) == 0
}

// globPattern turns a glob into a regular expression. As with find -path, * and ?
// take any byte, / among them.
func globPattern(glob string) (*regexp.Regexp, error) {
	if glob == "" {
		return nil, fmt.Errorf("an empty pattern matches nothing")
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteString(`.`)
		case '\\':
			if i++; i == len(glob) {
				return nil, fmt.Errorf("%q ends in a backslash", glob)
			}
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		case '[':
			class, n := globClass(glob[i:])
			if n == 0 {
				return nil, fmt.Errorf("%q has a [ without its ]", glob)
			}
			b.WriteString(class)
			i += n - 1
		default:
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("%q is not a pattern: %w", glob, err)
	}
	return re, nil
}

// globClass turns the [...] that glob begins with into a class of a regular
// expression, and gives its length in glob.
func globClass(glob string) (class string, n int) {
	var b strings.Builder
	b.WriteByte('[')
	i := 1
	if i < len(glob) && (glob[i] == '!' || glob[i] == '^') {
		b.WriteByte('^')
		i++
	}
	for first := true; i < len(glob); first = false {
		switch c := glob[i]; {
		case c == ']' && !first:
			b.WriteByte(']')
			return b.String(), i + 1
		case c == '-':
			b.WriteByte('-')
		default:
			if c == '\\' {
				if i++; i == len(glob) {
					return "", 0
				}
				c = glob[i]
			}
			if strings.IndexByte(`\]^-[`, c) >= 0 {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		i++
	}
	return "", 0
}
