package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := writeJSON(&b, testReport()); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", b.Bytes())
}

func TestScript(t *testing.T) {
	var b bytes.Buffer
	if err := writeScript(&b, testReport()); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.script", b.Bytes())
}

// TestScriptRead reads the script by the patterns of stackcollapse-perf.pl: a line for a
// sample, and a line for each function.
func TestScriptRead(t *testing.T) {
	r := testReport()
	var b bytes.Buffer
	if err := writeScript(&b, r); err != nil {
		t.Fatal(err)
	}
	head := regexp.MustCompile(`^(\S.+?)\s+(\d+)/*(\d+)*\s+\[(\d+)\] +(\d+\.\d{6}): +(\d+) (\S+): $`)
	function := regexp.MustCompile(`^\s*(\w+)\s*(.+) \((\S*)\)$`)
	samples := strings.Split(strings.TrimSuffix(b.String(), "\n\n"), "\n\n")
	if len(samples) != len(r.Moments) {
		t.Fatalf("%d samples, not %d", len(samples), len(r.Moments))
	}
	for i, sample := range samples {
		lines := strings.Split(sample, "\n")
		m := head.FindStringSubmatch(lines[0])
		s := r.Moments[i].Stack
		if m == nil || m[2] != fmt.Sprint(s.Process.PID) || m[3] != fmt.Sprint(s.TID) {
			t.Errorf("%q is read as %q", lines[0], m)
		}
		functions := 0
		for _, frames := range [][]*frame{s.Kernel, s.user()} {
			for _, f := range frames {
				functions += len(f.Lines)
			}
		}
		if len(lines)-1 != functions {
			t.Errorf("%q has %d functions, not %d", sample, len(lines)-1, functions)
		}
		for _, l := range lines[1:] {
			if !function.MatchString(l) {
				t.Errorf("%q is not read", l)
			}
		}
	}
}

// jsonStack is what the tool writes with --json.
type jsonStack struct {
	Kind        string
	Count       uint64
	PID, TID    uint32
	Comm        string
	Unwind      string
	KernelStack []jsonFrame `json:"kernel_stack"`
	UserStack   []jsonFrame `json:"user_stack"`

	Taken, Shown, Idle, Filtered, Lost uint64
}

type jsonFrame struct {
	Function string
	Inlined  bool
}

// key is how the outputs are compared: thread, process and functions, the leaf first.
func key(comm string, pid, tid int64, functions []string) string {
	return fmt.Sprintf("%s %d/%d %q", comm, pid, tid, functions)
}

// TestOutputsAgree compares what is in JSON, in pprof's form and folded, to the sample.
func TestOutputsAgree(t *testing.T) {
	r := testReport()
	r.Stacks[0].Comm = "plain" // JSON has what is not UTF-8 in another way.
	var b bytes.Buffer
	if err := writeJSON(&b, r); err != nil {
		t.Fatal(err)
	}
	fromJSON, sum := map[string]int64{}, uint64(0)
	d := json.NewDecoder(&b)
	for {
		var s jsonStack
		if err := d.Decode(&s); err != nil {
			t.Fatalf("no object of the run at the end: %v", err)
		}
		if s.Kind == "run" {
			if s.Shown != sum || s.Taken != s.Shown+s.Idle+s.Filtered+s.Lost {
				t.Errorf("%d samples: %+v", sum, s)
			}
			break
		}
		var functions []string
		for _, f := range append(s.KernelStack, s.UserStack...) {
			functions = append(functions, escaped(f.Function))
		}
		if s.Unwind == "depth" || s.Unwind == "fault" {
			functions = append(functions, "[truncated]") // which JSON says in unwind
		}
		fromJSON[key(s.Comm, int64(s.PID), int64(s.TID), functions)] += int64(s.Count)
		sum += s.Count
	}
	fromPprof := map[string]int64{}
	for _, s := range written(t, r).Sample {
		fromPprof[key(s.Label["thread"][0], s.NumLabel["pid"][0], s.NumLabel["tid"][0], functionsOf(s))] += s.Value[0]
	}
	if !maps.Equal(fromJSON, fromPprof) {
		t.Errorf("JSON has %v, pprof %v", fromJSON, fromPprof)
	}

	// Folded stacks have no pids.
	var text bytes.Buffer
	if err := writeFolded(&text, r, style{}); err != nil {
		t.Fatal(err)
	}
	folded := map[string]int64{}
	for line := range strings.Lines(text.String()) {
		i := strings.LastIndexByte(line, ' ')
		n, err := strconv.ParseInt(strings.TrimSpace(line[i:]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		folded[line[:i]] += n
	}
	clear(fromPprof)
	for _, s := range written(t, r).Sample {
		names := append(functionsOf(s), s.Label["thread"][0])
		slices.Reverse(names)
		for i, name := range names {
			names[i] = strings.ReplaceAll(name, ";", `\x3b`)
		}
		fromPprof[strings.Join(names, ";")] += s.Value[0]
	}
	if !maps.Equal(folded, fromPprof) {
		t.Errorf("folded has %v, pprof %v", folded, fromPprof)
	}
	picture := renderFolded(t, text.Bytes())
	for _, want := range []string{
		"<title>all (5,245 samples, 100%)</title>", "<title>vfs_read (1,234 samples, 23.53%)</title>",
		`<title>helper\x3ba (1,234 samples, 23.53%)</title>`, "<title>serve (5,234 samples, 99.79%)</title>",
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("flamegraph.pl draws no %s", want)
		}
	}
}

func functionsOf(s *profile.Sample) []string {
	var functions []string
	for _, l := range s.Location {
		for _, line := range l.Line {
			functions = append(functions, line.Function.Name)
		}
	}
	return functions
}

// flamegraphPL is where Debian's libdevel-nytprof-perl has flamegraph.pl.
const flamegraphPL = "/usr/share/perl5/Devel/NYTProf/flamegraph.pl"

// renderFolded has flamegraph.pl draw what is folded, and gives what it says.
func renderFolded(t *testing.T, folded []byte) string {
	t.Helper()
	if _, err := os.Stat(flamegraphPL); err != nil {
		t.Skipf("SKIPPED: no flamegraph.pl: %v (Debian's libdevel-nytprof-perl has it)", err)
	}
	cmd := exec.Command("perl", flamegraphPL)
	cmd.Stdin = bytes.NewReader(folded)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("flamegraph.pl: %v: %s", err, stderr.String())
	}
	return string(out)
}

// TestOutputsDistinct refuses one file for two outputs, by whatever names, and leaves nothing
// behind; devices may be written to by several.
func TestOutputsDistinct(t *testing.T) {
	dir := t.TempDir()
	one, link := filepath.Join(dir, "one"), filepath.Join(dir, "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	for _, o := range []outputs{{pprof: one, svg: one}, {svg: one, script: link}, {script: one, saveRaw: one}} {
		err := o.open()
		if err == nil || !strings.Contains(err.Error(), "can't both be written to "+dir) {
			t.Errorf("%+v: %v", o, err)
		}
		o.close()
		if _, err := os.Lstat(one); !os.IsNotExist(err) {
			t.Errorf("a file is left: %v", err)
		}
	}
	for _, o := range []outputs{{pprof: one, svg: filepath.Join(dir, "two"), saveRaw: filepath.Join(dir, "three")}, {pprof: os.DevNull, svg: os.DevNull}} {
		if err := o.open(); err != nil {
			t.Error(err)
		}
		o.close()
	}
}
