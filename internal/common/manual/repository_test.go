package manual

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../../.." // of the repository

func readTop(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The README's table is the list of tools.
func TestReadmeNamesEveryTool(t *testing.T) {
	mains, err := filepath.Glob(filepath.Join(top, "tools/*/main.go"))
	if err != nil || len(mains) == 0 {
		t.Fatalf("found no tools: %v", err)
	}
	var tools []string
	for _, file := range mains {
		tools = append(tools, filepath.Base(filepath.Dir(file)))
	}
	found, err := CheckTable(strings.NewReader(readTop(t, "README.md")), tools)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Errorf("README.md: %s", f)
	}
}

var (
	makeTarget = regexp.MustCompile("(?m)(?:`|^(?:sudo )?)make(?: ([a-z-]+))?")
	codePath   = regexp.MustCompile("`(?:go run (?:-exec sudo )?\\./)?((?:bpf|internal|tools|docs|bench|\\.ci)/[^` ]*)")
)

// A document that sends its reader to a file or a target that is not there is
// worse than none.
func TestDocumentsNameWhatExists(t *testing.T) {
	makefile := readTop(t, "Makefile")
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		text := readTop(t, name)
		seen := 0
		for _, match := range makeTarget.FindAllStringSubmatch(text, -1) {
			seen++
			if match[1] != "" && !strings.Contains(makefile, "\n"+match[1]+":") {
				t.Errorf("%s: make %s is not a target", name, match[1])
			}
		}
		for _, match := range codePath.FindAllStringSubmatch(text, -1) {
			seen++
			if slices.Contains(strings.Split(match[1], "/"), "NAME") {
				continue // a place for a tool's name
			}
			if _, err := os.Stat(filepath.Join(top, match[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if seen == 0 {
			t.Errorf("%s: found neither a target nor a path: is this test still looking for the right thing?", name)
		}
	}
}

var kernelTest = regexp.MustCompile(`(?m)^func (TestKernel\w*)\(`)

// A test of such a name in another file runs nowhere: the units leave it out by its name,
// and the kernels take theirs by the file.
func TestNamesOfKernelTests(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range kernelTest.FindAllStringSubmatch(string(text), -1) {
			seen++
			if !strings.HasSuffix(path, "kernel_test.go") {
				t.Errorf("%s: %s is in no file *kernel_test.go", path, name[1])
			}
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Fatalf("found %d kernel tests: %v", seen, err)
	}
}
