package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestOpenPairs(t *testing.T) {
	dir := t.TempDir()
	present, missing := filepath.Join(dir, "present"), filepath.Join(dir, "missing")
	if err := os.WriteFile(present, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// As load.Pin does: CPU time is that of a thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	elapsed, busy, err := openPairs(present, missing, 1000)
	if err != nil {
		t.Fatal(err)
	}
	// 2,000 opens can't take less than 2,000 times 10 ns on any machine.
	if elapsed < 20_000 || busy < 20_000 {
		t.Errorf("elapsed %v, busy %v: the loop did not run", elapsed, busy)
	}

	if _, _, err := openPairs(missing, missing, 1); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing present file: got %v", err)
	}
	if _, _, err := openPairs(present, present, 1); err == nil || !strings.Contains(err.Error(), "want ENOENT") {
		t.Errorf("a present missing file: got %v", err)
	}
}
