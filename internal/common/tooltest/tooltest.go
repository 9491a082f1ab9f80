// Package tooltest gives the tests of a tool that need no kernel what they have
// in common: what is true of every tool is checked here, once.
//
// It is for test files only. The tests that need a kernel have package livetest.
package tooltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	stdflag "flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/manual"
)

var update = stdflag.Bool("update", false, "write testdata/*.golden anew")

// Golden compares got with a file in testdata, or writes it with go test -update.
func Golden(t testing.TB, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	have, want := strings.Split(got, "\n"), strings.Split(string(b), "\n")
	for i := range max(len(have), len(want)) {
		h, w := "<nothing>", "<nothing>"
		if i < len(have) {
			h = have[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if h != w {
			t.Fatalf("%s:%d: go test -update writes it anew, if the first is right:\n%s\n%s", file, i+1, h, w)
		}
	}
}

// Parse gives the options that a tool has with these arguments, and what stands
// among them that is no option. define is the tool's function that defines its
// flags.
func Parse[T any](t testing.TB, about *manual.Manual, define func(*pflag.FlagSet) T, args ...string) (opts T, positional []string) {
	t.Helper()
	env := &cli.Env{Name: about.Name, Args: args, Stdout: io.Discard, Stderr: io.Discard}
	fs := env.Flags()
	opts = define(fs)
	if err := env.Parse(about, fs); err != nil {
		t.Fatal(err)
	}
	positional, _ = cli.Command(fs)
	return opts, positional
}

// flags are those that a tool defines.
func flags[T any](about *manual.Manual, define func(*pflag.FlagSet) T) *pflag.FlagSet {
	fs := (&cli.Env{Name: about.Name}).Flags()
	define(fs)
	return fs
}

// BadUsage checks that what can't be done is refused before anything is loaded, in
// one line that holds the text given for these arguments, as a mistake of the
// user's (status 2).
func BadUsage(t *testing.T, about *manual.Manual, run func(context.Context, *cli.Env) error, texts map[string]string) {
	t.Helper()
	for args, want := range texts {
		var stdout bytes.Buffer
		err := run(context.Background(), &cli.Env{Name: about.Name, Args: strings.Fields(args), Stdout: &stdout, Stderr: io.Discard})
		var usage *cli.Usage
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: %v", about.Name, args, err)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s %s wrote %q", about.Name, args, stdout.String())
		}
	}
}

// Manual checks that the manual, the flags and the README say the same.
func Manual[T any](t *testing.T, about *manual.Manual, define func(*pflag.FlagSet) T) {
	t.Helper()
	for _, f := range about.Check(flags(about, define)) {
		t.Error(f)
	}
	readme, err := os.Open("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	defer readme.Close()
	found, err := about.CheckReadme(readme, flags(about, define))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Errorf("README.md: %s", f)
	}
}

// Letters checks that options have BCC's letters, or "" where BCC has none.
func Letters[T any](t *testing.T, about *manual.Manual, define func(*pflag.FlagSet) T, letters map[string]string) {
	t.Helper()
	fs := flags(about, define)
	for long, letter := range letters {
		f := fs.Lookup(long)
		if f == nil || f.Shorthand != letter {
			t.Errorf("there is no --%s with the letter %q", long, letter)
		}
	}
}

// JSONKeys checks that the manual has every key of these objects, one a line, and
// no other.
func JSONKeys(t *testing.T, about *manual.Manual, objects string) {
	t.Helper()
	documented := map[string]bool{}
	for _, k := range about.JSON {
		documented[k.Name] = false
	}
	for line := range strings.Lines(objects) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for key := range o {
			if _, ok := documented[key]; !ok && !strings.HasSuffix(key, "_bytes") {
				t.Errorf("key %s is not in the manual", key)
			}
			documented[key] = true
		}
	}
	for key, seen := range documented {
		// Those of losses are package trace's.
		if !seen && key != "lost" && key != "possibly_lost" && key != "causes" {
			t.Errorf("key %s is in the manual, and in no object", key)
		}
	}
}

// Columns checks that the manual has every column of these headers, and no other.
func Columns(t *testing.T, about *manual.Manual, headers ...string) {
	t.Helper()
	documented := map[string]bool{}
	for _, c := range about.Columns {
		documented[c.Name] = false
	}
	for _, header := range headers {
		for _, name := range strings.Fields(header) {
			if _, ok := documented[name]; !ok {
				t.Errorf("column %s is not in the manual", name)
			}
			documented[name] = true
		}
	}
	for name, seen := range documented {
		if !seen {
			t.Errorf("column %s is in the manual, and in no header", name)
		}
	}
}
