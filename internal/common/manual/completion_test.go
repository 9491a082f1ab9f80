package manual

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// script writes the sample tool's completion script to a directory and returns
// its path.
func script(t *testing.T, shell, name string) string {
	t.Helper()
	m, fs := sample()
	var b bytes.Buffer
	if err := m.Completion(&b, fs, shell); err != nil {
		t.Fatal(err)
	}
	golden(t, "completion."+shell, b.Bytes())
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// files makes a directory with a file and a directory in it.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vmlinux.btf"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "vmdir"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The completions that every shell must give for the last word of a command
// line.
var completions = []struct {
	line string
	want []string // all of them
	also []string // some of them
}{
	{line: "sample --at", want: []string{"--attach"}},
	{line: "sample --p", want: []string{"--path", "--pid"}},
	{line: "sample --attach ", want: []string{"auto", "fentry", "kprobe"}},
	{line: "sample -x --attach f", want: []string{"fentry"}},
	{line: "sample --attach=f", want: []string{"fentry"}},
	{line: "sample --flag O_E", want: []string{"O_EXCL"}},
	{line: "sample -u roo", want: []string{"root"}},
	{line: "sample -p ", also: []string{strconv.Itoa(os.Getpid())}},
	{line: "sample --btf vm", want: []string{"vmdir", "vmlinux.btf"}},
	{line: "sample --chdir vm", want: []string{"vmdir"}},
	{line: "sample -d ", want: nil},
	{line: "sample vm", want: nil},
	{line: "sample -x -- sleep vmli", want: []string{"vmlinux.btf"}},
	{line: "sample -x -- slee", also: []string{"sleep"}},
}

func compare(t *testing.T, line string, got, want, also []string) {
	t.Helper()
	slices.Sort(got)
	if also == nil && !slices.Equal(got, want) {
		t.Errorf("%q completes to %q, want %q", line, got, want)
	}
	for _, w := range also {
		if !slices.Contains(got, w) {
			t.Errorf("%q completes to %q, which lacks %q", line, got, w)
		}
	}
}

func TestBashCompletion(t *testing.T) {
	bash := need(t, "bash")
	file := script(t, "bash", "sample")
	run(t, ".", bash, "-n", file)
	// As readline does it: words are broken at blanks and at "=".
	const driver = `set -u
source "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
fn=$(complete -p sample); fn=${fn#*-F }
"${fn% *}"
printf '%s\n' "${COMPREPLY[@]}"`
	dir := files(t)
	for _, c := range append(completions, struct {
		line       string
		want, also []string
	}{line: "sample --stats=", want: []string{"json", "text"}}) {
		words := strings.Split(strings.ReplaceAll(c.line, "=", " = "), " ")
		if strings.HasSuffix(c.line, "=") { // the cursor is on the "=" itself
			words = words[:len(words)-1]
		}
		out := run(t, dir, bash, append([]string{"--norc", "-c", driver, "bash", file}, words...)...)
		compare(t, c.line, strings.Fields(out), c.want, c.also)
	}
}

func TestFishCompletion(t *testing.T) {
	fish := need(t, "fish")
	file := script(t, "fish", "sample.fish")
	run(t, ".", fish, "--no-execute", file)
	dir := files(t)
	for _, c := range completions {
		out := run(t, dir, fish, "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, file, c.line)
		var got []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			word = strings.TrimPrefix(word, "--attach=")
			got = append(got, strings.TrimSuffix(word, "/"))
		}
		compare(t, c.line, got, c.want, c.also)
	}
}

func TestZshCompletion(t *testing.T) {
	zsh := need(t, "zsh")
	file := script(t, "zsh", "_sample")
	run(t, ".", zsh, "-n", file)
	// Zsh completes only in its line editor: one runs in a pseudo-terminal, a
	// wrapper around compadd notes what matches, and Tab notes the end. (With
	// -O, -A or -D, compadd only looks for matches. Those with -D are the ones
	// among which it picks options.)
	const driver = `zmodload zsh/zpty zsh/zselect || exit 1
notes=$2
: >$notes
cat >$notes.rc <<'END'
compadd() {
	local -a hits
	builtin compadd -O hits "$@"
	if ((${@[(I)-D]})); then hits=(${(M)hits:#-*}); elif ((${@[(I)-[OA]]})); then hits=(); fi
	((! $#hits)) || print -rl -- "HIT "$^hits >>$notes
	builtin compadd "$@"
}
note-end() { zle complete-word; print END >>$notes; zle kill-buffer }
zle -N note-end
bindkey '^I' note-end
print READY >>$notes
END
pump() { until grep -q $1 $notes; do while zpty -r -t z junk; do :; done; zselect -t 1; done }
zpty z zsh -f -i
zpty -w z "cd ${(q)3}; notes=${(q)notes}; fpath=(${(q)1:h} \$fpath); autoload -U compinit; compinit -u -D; source ${(q)notes}.rc"
pump READY
for line in "${@:4}"; do
	: >$notes
	zpty -n -w z "$line"$'\t'
	pump END
	print -r -- "LINE $line"
	cat $notes
done
zpty -d z`
	dir := files(t)
	args := []string{"-f", "-c", driver, "zsh", file, filepath.Join(t.TempDir(), "notes"), dir}
	for _, c := range completions {
		args = append(args, c.line)
	}
	got := map[string][]string{}
	line := ""
	for out := range strings.Lines(run(t, dir, zsh, args...)) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(out, "\n"), " ")
		switch kind {
		case "LINE":
			line = rest
		case "HIT":
			got[line] = append(got[line], rest)
		}
	}
	for _, c := range completions {
		slices.Sort(got[c.line])
		compare(t, c.line, slices.Compact(got[c.line]), c.want, c.also)
	}
}

func TestCompletionOfUnknownShell(t *testing.T) {
	m, fs := sample()
	err := m.Completion(&bytes.Buffer{}, fs, "csh")
	if err == nil || err.Error() != `no completion for shell "csh": take one of bash, zsh, fish` {
		t.Errorf("got error %v", err)
	}
}
