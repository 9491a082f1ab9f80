package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// Each table adds to what there was, and the file is always a whole one.
func TestOpenMetrics(t *testing.T) {
	var all strings.Builder
	for _, args := range []string{"", "-m --by disk,op,cgroup,comm", "--split"} {
		file := filepath.Join(t.TempDir(), "disks.prom")
		m, err := newMetrics(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("there is a file before there is a table: %v", err)
		}
		p := printerOf(t, strings.Fields(args)...)
		for range 2 {
			if err := m.add(p, sample(p)); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString("$ biolatency " + args + "\n" + string(text))
		if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	tooltest.Golden(t, "openmetrics.golden", all.String())
}

func TestSeconds(t *testing.T) {
	for ns, want := range map[uint64]string{0: "0.0", 1: "0.000000001", 1_999: "0.000001999", 1_000_000_000: "1.0", 12_500_000_000: "12.5"} {
		if got := seconds(ns); got != want {
			t.Errorf("%d ns are %s, not %s", ns, got, want)
		}
	}
}

func TestLabel(t *testing.T) {
	for value, want := range map[string]string{"dd": `comm="dd"`, "a\"\\\nb": `comm="a\"\\\nb"`, "\xff": `comm="` + "\ufffd" + `"`} {
		if got := label("comm", value); got != want {
			t.Errorf("%q is %s", value, got)
		}
	}
}
