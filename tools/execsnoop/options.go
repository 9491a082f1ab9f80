package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// maxAncestors is MAX_ANCESTORS in execsnoop.bpf.c.
const maxAncestors = 32

// mostBytes is the most that --max-bytes takes: the kernel itself allows no more
// arguments than a quarter of the stack's limit, at most 6 MiB.
const mostBytes = 8 << 20

// options is what the user asked for.
type options struct {
	*trace.Options
	time      bool
	timestamp bool
	uid       bool
	cpu       bool
	parent    bool
	quote     bool
	maxArgs   int
	maxBytes  size
	fails     bool
	name      string
	line      string
	ppid      uint32
	exit      bool
	exitOnly  bool
	ancestors ancestors
	cwd       bool
	exe       bool
	tty       bool
	loginuid  bool
	env       []string
	tree      bool
	summary   bool

	nameRE, lineRE *regexp.Regexp
}

// defineFlags defines the flags in the order of the manual.
func defineFlags(fs *pflag.FlagSet) *options {
	o := &options{maxBytes: 128 << 10}
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	fs.BoolVarP(&o.time, "time", "T", false, "show the time of day")
	fs.BoolVarP(&o.timestamp, "timestamp", "t", false, "show the time in seconds since the start")
	fs.BoolVarP(&o.uid, "print-uid", "U", false, "show the user's number")
	fs.BoolVarP(&o.parent, "print-pcomm", "M", false, "show the parent's name")
	fs.BoolVarP(&o.cpu, "print-cpu", "C", false, "show the CPU")
	fs.BoolVarP(&o.quote, "quote", "q", false, "put arguments between quotation marks")
	fs.IntVar(&o.maxArgs, "max-args", 0, "show at most `N` arguments (default all)")
	fs.Var(&o.maxBytes, "max-bytes", "take at most `BYTES` of arguments: 4096, 64K, 1M")
	fs.BoolVar(&o.exe, "exe", false, "show the file that really runs")
	fs.BoolVar(&o.cwd, "cwd", false, "show the working directory")
	fs.BoolVar(&o.tty, "tty", false, "show the terminal")
	fs.BoolVar(&o.loginuid, "loginuid", false, "show the user who logged in")
	fs.StringSliceVar(&o.env, "env", nil, "show the environment variables `NAME`[,NAME...]")
	fs.Var(&o.ancestors, "ancestors", "show the parents, up to `N` of them")
	fs.Lookup("ancestors").NoOptDefVal = strconv.Itoa(maxAncestors)
	fs.BoolVar(&o.tree, "tree", false, "indent programs under the ones that started them")
	fs.BoolVar(&o.exit, "exit", false, "show how processes end, too")
	fs.BoolVar(&o.exitOnly, "exit-only", false, "show only how processes end")
	fs.BoolVar(&o.summary, "summary", false, "show no rows, but how often each program ran, at the end")
	manual.Place(fs, manual.Output, "time", "timestamp", "print-uid", "print-pcomm", "print-cpu", "quote", "max-args",
		"max-bytes", "exe", "cwd", "tty", "loginuid", "env", "ancestors", "tree", "exit", "exit-only", "summary")

	fs.BoolVarP(&o.fails, "fails", "x", false, "also programs that could not be run")
	fs.StringVarP(&o.name, "name", "n", "", "only processes whose name matches `REGEX`")
	fs.StringVarP(&o.line, "line", "l", "", "only command lines that match `REGEX`")
	fs.VarP((*parentPID)(&o.ppid), "ppid", "P", "only children of process `PID`")
	manual.Place(fs, manual.Filters, "fails", "name", "line", "ppid")
	manual.Completes(fs, "ppid", manual.PID)

	o.Options = trace.Flags(fs)
	o.DurationFlag("")
	o.Filter.PIDFlag("")
	o.Filter.UserFlag("u")
	manual.Place(fs, manual.Filters, "pid", "uid")
	return o
}

// check refuses what makes no sense.
func (o *options) check(args []string) error {
	if len(args) > 0 {
		return cli.BadUse("unexpected argument %q; a command to trace stands behind --", args[0])
	}
	if o.exitOnly && o.fails {
		return cli.BadUse("--exit-only and -x exclude each other: what could not run does not end")
	}
	if o.summary && (o.JSON || o.tree || o.exit || o.exitOnly) {
		return cli.BadUse("--summary shows no rows, so --json, --tree, --exit and --exit-only go without it")
	}
	if o.maxArgs < 0 {
		return cli.BadUse("--max-args: %d is not a number of arguments", o.maxArgs)
	}
	for _, name := range o.env {
		if name == "" || strings.Contains(name, "=") {
			return cli.BadUse("--env: %q is not the name of a variable", name)
		}
	}
	var err error
	if o.nameRE, err = expression("name", o.name); err != nil {
		return err
	}
	o.lineRE, err = expression("line", o.line)
	return err
}

func expression(flag, text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, cli.BadUse("--%s: %w", flag, err)
	}
	return re, nil
}

// exits reports whether the ends of processes are needed.
func (o *options) exits() bool { return o.exit || o.exitOnly || o.summary }

// walked is how many parents the kernel side is to find. A tree takes all, as those
// that run no program of their own, as subshells do, stand between others.
func (o *options) walked() int {
	if o.tree {
		return maxAncestors
	}
	return int(o.ancestors)
}

// size is a flag value: a number of bytes, with K or M behind it.
type size int

func (s *size) String() string { return strconv.Itoa(int(*s)) }
func (s *size) Type() string   { return "bytes" }
func (s *size) Set(text string) error {
	digits, shift := text, 0
	switch {
	case strings.HasSuffix(text, "K"), strings.HasSuffix(text, "k"):
		digits, shift = text[:len(text)-1], 10
	case strings.HasSuffix(text, "M"):
		digits, shift = text[:len(text)-1], 20
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n<<shift > mostBytes {
		return fmt.Errorf("%q is not a number of bytes up to %d", text, mostBytes)
	}
	*s = size(n << shift)
	return nil
}

// ancestors is a flag value: a number of parents.
type ancestors int

func (a *ancestors) String() string { return "" }
func (a *ancestors) Type() string   { return "int" }
func (a *ancestors) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxAncestors {
		return fmt.Errorf("%q is not a number of parents, 1 to %d", text, maxAncestors)
	}
	*a = ancestors(n)
	return nil
}

// parentPID is a flag value: a process.
type parentPID uint32

func (p *parentPID) String() string { return "" }
func (p *parentPID) Type() string   { return "int" }
func (p *parentPID) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return errors.New("not a process id: " + strconv.Quote(text))
	}
	*p = parentPID(n)
	return nil
}
