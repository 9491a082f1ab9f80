package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

func TestProgramThatDoesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "present")
	if err := writeProgram(file); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(file, "with", "arguments").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: it wrote %q", err, out)
	}
}
