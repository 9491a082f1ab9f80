package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/bench/load"
)

func TestMain(m *testing.M) {
	// A program that is run by the load has no environment at all.
	if _, path := os.LookupEnv("PATH"); !path {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRepeat(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before, err := load.Used()
	if err != nil {
		t.Fatal(err)
	}
	if err := repeat(self, 23); err != nil {
		t.Fatal(err)
	}
	// No Go program begins and ends in less than 100 µs.
	if after, err := load.Used(); err != nil || after-before < 23*100_000 {
		t.Errorf("%v of CPU time: the programs did not run, %v", after-before, err)
	}
}

func TestProgramsThatFail(t *testing.T) {
	for program, want := range map[string]string{"/nosuch": "0x7f00", "/bin/false": "0x100"} {
		if err := repeat(program, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", program, err)
		}
	}
	if err := repeat("a\x00b", 1); err == nil {
		t.Error("a name with a NUL was taken")
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"a"}, {"-program", "/bin/true", "a"}, {"-n", "x", "-program", "/bin/true"}, {"-cpu", strconv.Itoa(1 << 20), "-program", "/bin/true"}} {
		if err := run(args); err == nil {
			t.Errorf("execload %q: no error", args)
		}
	}
}
