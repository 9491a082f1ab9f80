package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A testPackage is a package that has kernel tests.
type testPackage struct {
	ImportPath string
	Dir        string
	Modules    []string // kernel modules that its tests ask for
}

// modulesComment starts the line of a test file that names the kernel modules
// its tests need, as in "//kernel:modules overlay null_blk".
const modulesComment = "//kernel:modules "

// findPackages returns the packages that match the patterns and have a test
// file whose name ends in kernel_test.go.
func findPackages(ctx context.Context, patterns []string) ([]testPackage, error) {
	// With -e a package that is broken, and has no kernel tests, is in no one's way.
	args := append([]string{"list", "-e", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)
	out, err := output(goCommand(ctx, "amd64", args...))
	if err != nil {
		return nil, err
	}
	var found []testPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the output of go list: %w", err)
		}
		pkg := testPackage{ImportPath: p.ImportPath, Dir: p.Dir}
		kernelTests := false
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			if !strings.HasSuffix(name, "kernel_test.go") {
				continue
			}
			kernelTests = true
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			pkg.Modules = append(pkg.Modules, wantedModules(string(text))...)
		}
		if kernelTests {
			found = append(found, pkg)
		}
	}
}

// wantedModules returns the modules that a test file asks for.
func wantedModules(source string) []string {
	var names []string
	for line := range strings.Lines(source) {
		if list, ok := strings.CutPrefix(line, modulesComment); ok {
			names = append(names, strings.Fields(list)...)
		}
	}
	return names
}

// goCommand returns a go command that builds static programs for Linux.
func goCommand(ctx context.Context, arch string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	return cmd
}

// Symbol tables would only make the guest's memory disk bigger.
const stripped = "-ldflags=-s -w"

// buildTests builds the packages' test binaries into dir, and returns their
// paths in the packages' order.
func buildTests(ctx context.Context, dir, arch string, packages []testPackage) ([]string, error) {
	var paths []string
	for i, p := range packages {
		out := filepath.Join(dir, arch, fmt.Sprintf("%d.test", i))
		cmd := goCommand(ctx, arch, "test", "-c", "-vet=off", stripped, "-o", out, ".")
		cmd.Dir = p.Dir
		if _, err := output(cmd); err != nil {
			return nil, fmt.Errorf("build the tests of %s for %s: %w", p.ImportPath, arch, err)
		}
		paths = append(paths, out)
	}
	return paths, nil
}

// buildInit builds the guest's init into dir and returns its path.
func buildInit(ctx context.Context, dir, arch string) (string, error) {
	out := filepath.Join(dir, arch, "init")
	cmd := goCommand(ctx, arch, "build", stripped, "-o", out, guestPackage)
	if _, err := output(cmd); err != nil {
		return "", fmt.Errorf("build the guest's init for %s: %w", arch, err)
	}
	return out, nil
}

const guestPackage = "github.com/gobcc/gobcc/internal/cmd/kernels/guest"

// guestDir returns the directory of a package's tests in the guest.
func guestDir(p testPackage) string { return path.Join("/tests", p.ImportPath) }
