package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeQEMU returns a boot of a shell script in QEMU's place, and the log that
// it will write. Tests that use it can't be parallel: a script can't be started
// while another test's child still holds the file open for writing.
func fakeQEMU(t *testing.T, script string) (guestBoot, *strings.Builder) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	return guestBoot{Machine: machine{Program: path}, BootLimit: time.Minute, Limit: time.Minute, Log: &log}, &log
}

const goodBoot = "printf 'gobcc: start 6.1.0\\r\\ngobcc: package p\\r\\n> ok\\r\\ngobcc: exit 0\\r\\ngobcc: done\\r\\n'\n"

func TestBoot(t *testing.T) {
	for _, test := range []struct {
		name, script      string
		bootLimit, limit  time.Duration
		wantErr           string
		packages, started int
	}{
		{"good", goodBoot, time.Minute, time.Minute, "", 1, 1},
		{"good, but does not power off", goodBoot + "exec sleep 1000", time.Minute, time.Second, "", 1, 1},
		{"panic", "echo 'gobcc: start 6.1.0'; echo '[    1.000001] Kernel panic - not syncing: test'", time.Minute, time.Minute, "Kernel panic - not syncing: test", 0, 1},
		{"no verdict", "echo 'gobcc: start 6.1.0'", time.Minute, time.Minute, "without a verdict", 0, 1},
		{"hang at boot", "exec sleep 1000", time.Millisecond, time.Minute, "init did not start within 1ms", 0, 0},
		{"hang in a test", "echo 'gobcc: start 6.1.0'; echo 'gobcc: package p'; exec sleep 1000", time.Minute, time.Second, "no verdict within 1s", 1, 1},
		{"bad option", "echo 'no such option' >&2; exit 1", time.Minute, time.Minute, "QEMU: exit status 1: no such option", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			boot, log := fakeQEMU(t, test.script)
			boot.BootLimit, boot.Limit = test.bootLimit, test.limit
			c, err := boot.run(t.Context())
			switch {
			case test.wantErr == "" && err != nil:
				t.Error(err)
			case test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)):
				t.Errorf("error is %v, want %q", err, test.wantErr)
			}
			if len(c.Packages) != test.packages || c.started() != (test.started > 0) {
				t.Errorf("%d packages ran, started is %v", len(c.Packages), c.started())
			}
			if test.started > 0 && !strings.Contains(log.String(), "gobcc: start") {
				t.Errorf("log is %q", log)
			}
		})
	}
}

func TestBootAgain(t *testing.T) {
	// The first run leaves a mark for the second.
	script := `mark="$(dirname "$0")/mark"; if [ -e "$mark" ]; then
SECOND
else
touch "$mark"
FIRST
fi
`
	const panics = "echo '[    0.100000] Kernel panic - not syncing: early'"
	for _, test := range []struct {
		name, first, second string
		again, good         bool
	}{
		{"good at once", goodBoot, panics, false, true},
		{"early panic", panics, goodBoot, true, true},
		{"early panic, twice", panics, panics, true, false},
		{"panic after init's start", "echo 'gobcc: start 6.1.0'\n" + panics, goodBoot, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			boot, _ := fakeQEMU(t, strings.NewReplacer("FIRST", test.first, "SECOND", test.second).Replace(script))
			again := false
			c, err := boot.runTwice(t.Context(), func(error) { again = true })
			if again != test.again || (err == nil) != test.good || c.Done != test.good {
				t.Errorf("tried again: %v, verdict: %v, error: %v", again, c.Done, err)
			}
		})
	}
}

func TestAccelerator(t *testing.T) {
	amd64 := machines["amd64"]
	for _, test := range []struct {
		ask  string
		m    machine
		want []string
	}{
		{"tcg", amd64, amd64.TCG},
		{"kvm", amd64, amd64.KVM},
		{"auto", machines["arm64"], machines["arm64"].TCG},
		{"kvm", machines["arm64"], machines["arm64"].TCG},
		// Whether or not this machine has KVM, a probe that fails rules it out.
		{"auto", amd64, amd64.TCG},
	} {
		a := &accelerator{ask: test.ask, log: t.Output()}
		got, limit := a.choose(test.m, func([]string, time.Duration) error { return errors.New("hangs") })
		if strings.Join(got, " ") != strings.Join(test.want, " ") || limit != tcgBootLimit {
			t.Errorf("%s: got %q and %v, want %q", test.ask, got, limit, test.want)
		}
	}
}
