package manual

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a small tool with every kind of flag and text.
func sample() (*Manual, *pflag.FlagSet) {
	fs := pflag.NewFlagSet("sample", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.BoolP("help", "h", false, "print this text and exit")
	fs.StringSliceP("pid", "p", nil, "only these processes: `PID[,PID...]`")
	fs.StringP("user", "u", "", "only processes of this `USER`, by name or number")
	fs.BoolP("failed", "x", false, "show only what failed; it's the first thing to try when a program stops at its start without a word [see above]: really")
	fs.Float64P("duration", "d", 0, "stop after this many `SECONDS`")
	fs.StringArray("path", nil, "only paths that match `GLOB`, in which * matches any text without a / and ** any text")
	fs.String("attach", "auto", "how to attach: `auto|fentry|kprobe`")
	fs.StringSlice("flag", nil, "only opens with this `FLAG`")
	fs.String("btf", "", "read the kernel's types from `FILE`")
	fs.String("chdir", "", "run in `DIR`")
	fs.String("run", "", "run `PROGRAM` at the end")
	fs.String("stats", "", "print what the tool cost, as `FORMAT`")
	fs.Lookup("stats").NoOptDefVal = "text"
	fs.Int("internal", 0, "for the tests")
	if err := fs.MarkHidden("internal"); err != nil {
		panic(err)
	}
	Place(fs, Help, "help")
	Place(fs, Filters, "pid", "user", "path", "flag")
	Place(fs, Attaching, "attach", "btf")
	Place(fs, "Of its own kind", "chdir")
	Place(fs, Diagnosis, "stats")
	Values(fs, "attach", "auto", "fentry", "kprobe")
	Values(fs, "flag", "O_CREAT", "O_EXCL")
	Values(fs, "stats", "text", "json")
	Completes(fs, "pid", PID)
	Completes(fs, "user", User)
	Completes(fs, "btf", File)
	Completes(fs, "chdir", Directory)
	Completes(fs, "run", Command)
	return &Manual{
		Name:     "sample",
		Summary:  "trace what isn't there",
		Synopsis: []string{"sample [options]", "sample [options] -- COMMAND [ARG...]"},
		Description: `Sample shows one line for each "thing" that a process does. It is the first
tool to reach for, and -x narrows it down. 'Quoted' things, C:\paths and ~root
come through.

.dots at the start of a paragraph are text:

    PID    COMM
    'tis   verbatim \n

The last paragraph has a --path GLOB in it.`,
		Columns: []Column{{"PID", "process id"}, {"PATH", "the name as the program gave it, which may be relative to a directory that is not shown; -x helps"}},
		JSON:    []Key{{"pid", "integer", "process id"}, {"error", "string, or null", "name of the error"}},
		Examples: []Example{
			{"sample -x -p $(pgrep -d, nginx)", "what nginx fails to find"},
			{"sudo sample --attach kprobe --stats=json -- make -j4 'all of it' 2>/tmp/log | grep foo", "everything that a build looks for, in a very long example that has a text of its own"},
		},
		Overhead:     "Next to none.",
		Caveats:      "There are some. See --attach, and sample --path x | sort -z.",
		Requirements: "Linux 5.10.",
		SeeAlso:      []string{"strace(1)", "bpf(2)"},
	}, fs
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read golden file (go test -update writes it): %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (see it with go test -update and git diff):\n%s", name, got)
	}
}

// need returns the path of a program that a test is of no use without.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed, and CI must have it", program)
	}
	t.Skipf("SKIPPED: %s is not installed (apt-get install %s)", program, program)
	return ""
}

func TestUsage(t *testing.T) {
	m, fs := sample()
	var b bytes.Buffer
	if err := m.Usage(&b, fs); err != nil {
		t.Fatal(err)
	}
	golden(t, "usage.txt", b.Bytes())
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 && !strings.Contains(line, "sudo sample") {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.TrimRight(line, " \n") != strings.TrimSuffix(line, "\n") {
			t.Errorf("blanks at the end of %q", line)
		}
	}
	if strings.Contains(b.String(), "internal") {
		t.Error("a hidden flag is shown")
	}
}

func TestMan(t *testing.T) {
	m, fs := sample()
	var b bytes.Buffer
	if err := m.Man(&b, fs, "v1.2.3", "2026-01-31"); err != nil {
		t.Fatal(err)
	}
	golden(t, "sample.8", b.Bytes())
	mandoc := need(t, "mandoc")
	lint := exec.Command(mandoc, "-T", "lint", "-W", "warning")
	lint.Stdin = bytes.NewReader(b.Bytes())
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc's lint: %v\n%s", err, out)
	}
	show := exec.Command(mandoc, "-T", "ascii")
	show.Stdin = bytes.NewReader(b.Bytes())
	out, err := show.Output()
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(".\b").ReplaceAllString(string(out), "")
	for _, want := range []string{
		"sample [options] -- COMMAND [ARG...]\n",
		"-p, --pid PID[,PID...]\n",
		"--stats[=FORMAT]\n",
		`for each "thing" that`,
		`C:\paths`,
		"'tis   verbatim \\n\n",
		".dots at the start",
		"-- make -j4 'all of it'\n",
		"strace(1), bpf(2)",
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("the page as shown lacks %q:\n%s", want, plain)
		}
	}
}

func TestCheckAcceptsSample(t *testing.T) {
	m, fs := sample()
	if found := m.Check(fs); len(found) > 0 {
		t.Errorf("found:\n%s", strings.Join(found, "\n"))
	}
}

func TestCheckFinds(t *testing.T) {
	for want, spoil := range map[string]func(*Manual, *pflag.FlagSet){
		"description names --pids, which is not an option":               func(m *Manual, _ *pflag.FlagSet) { m.Description += " Or --pids." },
		"caveats names -q, which is not an option":                       func(m *Manual, _ *pflag.FlagSet) { m.Caveats = "Mind (-q)." },
		"usage text of flag --more names --less, which is not an option": func(_ *Manual, fs *pflag.FlagSet) { fs.Bool("more", false, "not --less") },
		"flag --mute has no usage text":                                  func(_ *Manual, fs *pflag.FlagSet) { fs.Bool("mute", false, "") },
		"flag --sw is a switch and can't have a value N":                 func(_ *Manual, fs *pflag.FlagSet) { fs.Bool("sw", false, "with `N`") },
		`column "FD" has no name or text, or comes twice`:                func(m *Manual, _ *pflag.FlagSet) { m.Columns = append(m.Columns, Column{Name: "FD"}) },
		`JSON key "pid" has no name, type or text, or comes twice`:       func(m *Manual, _ *pflag.FlagSet) { m.JSON = append(m.JSON, m.JSON[0]) },
		"no overhead": func(m *Manual, _ *pflag.FlagSet) { m.Overhead = " " },
		`summary "Trace." is not one line, lower case, without a full stop`:                                      func(m *Manual, _ *pflag.FlagSet) { m.Summary = "Trace." },
		`synopsis "simple" does not begin with sample`:                                                           func(m *Manual, _ *pflag.FlagSet) { m.Synopsis = append(m.Synopsis, "simple") },
		`example "strace -x" does not call sample`:                                                               func(m *Manual, _ *pflag.FlagSet) { m.Examples[0].Command = "strace -x" },
		`example "sample --nope" does not parse: unknown flag: --nope`:                                           func(m *Manual, _ *pflag.FlagSet) { m.Examples[0].Command = "sample --nope" },
		`example "sample -d" does not parse: flag needs an argument: 'd' in -d`:                                  func(m *Manual, _ *pflag.FlagSet) { m.Examples[0].Command = "sample -d" },
		`example "sample -x foo" does not parse: unexpected argument "foo"`:                                      func(m *Manual, _ *pflag.FlagSet) { m.Examples[0].Command = "sample -x foo" },
		`example "sample --attach no" does not parse: value "no" of --attach is not one of auto, fentry, kprobe`: func(m *Manual, _ *pflag.FlagSet) { m.Examples[0].Command = "sample --attach no" },
		`example "sample -d x" does not parse: value "x" of --duration: must be a number`:                        func(m *Manual, _ *pflag.FlagSet) { m.Examples[0].Command = "sample -d x" },
		"flags are sorted by name, not in the order of their definition: set SortFlags to false":                 func(_ *Manual, fs *pflag.FlagSet) { fs.SortFlags = true },
	} {
		m, fs := sample()
		spoil(m, fs)
		if found := m.Check(fs); !slices.Contains(found, want) {
			t.Errorf("no %q in %q", want, found)
		}
	}
}

func TestCheckReadme(t *testing.T) {
	const readme = "Use `sample --nope` or not.\n" +
		"```console\n$ sudo sample -x --path '*.conf' # comment --bad\nPID COMM\n" +
		"go run -exec sudo ./tools/sample --pid 1 \\\n    --gone 3\nsampler --other\n```\n\nsample --prose\n"
	m, fs := sample()
	found, err := m.CheckReadme(strings.NewReader(readme), fs)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`"go run -exec sudo ./tools/sample --pid 1     --gone 3" does not parse: unknown flag: --gone`}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	found, err = m.CheckReadme(strings.NewReader("Nothing here.\n"), fs)
	if err != nil || len(found) != 1 || found[0] != "no code block shows how to call sample" {
		t.Errorf("in an empty README found %q, %v", found, err)
	}
}

func TestCheckTable(t *testing.T) {
	const readme = "| Key | Meaning |\n|---|---|\n| pid | process |\n\n" +
		"| Tool | Shows |\n|:--|---|\n| [one](tools/one) | 1 |\n| `two` | 2 |\n| four | 4 |\n\n| three | no table of tools |\n"
	found, err := CheckTable(strings.NewReader(readme), []string{"one", "three", "two"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"the table of tools has no row for three", "the table of tools has a row for four, which is not a tool"}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}

func TestShellCommands(t *testing.T) {
	for line, want := range map[string][][]string{
		"a -b c":                            {{"a", "-b", "c"}},
		`a 'b c' "d \" e" f\ g # h`:         {{"a", "b c", `d " e`, "f g"}},
		"a >/dev/null 2>&1 -x | b; c && d":  {{"a", "-x"}, {"b"}, {"c"}, {}, {"d"}},
		"a -p $(pgrep -f (x) y),2 '#z' q#r": {{"a", "-p", "$(pgrep -f (x) y),2", "#z", "q#r"}},
		"a '' b":                            {{"a", "", "b"}},
	} {
		if got := shellCommands(line); !slices.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

func FuzzShellCommands(f *testing.F) {
	f.Add(`sudo a -p $(x) 'b' "c\" >d 2>&1 | e # f`)
	f.Add("$(")
	f.Add("'\\")
	f.Fuzz(func(t *testing.T, line string) {
		total := 0
		for _, words := range shellCommands(line) {
			for _, w := range words {
				total += len(w)
			}
		}
		if total > len(line) {
			t.Errorf("%q: words are longer than the line", line)
		}
	})
}
