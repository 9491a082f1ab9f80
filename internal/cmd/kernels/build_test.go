package main

import (
	"strings"
	"testing"
)

func TestWantedModules(t *testing.T) {
	const source = "package p\n\n//kernel:modules overlay  null_blk\n\n// Not //kernel:modules a\n//kernel:modules\n//kernel:modulesque b\n\n//kernel:modules loop\n"
	if got, want := strings.Join(wantedModules(source), " "), "overlay null_blk loop"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFindPackages(t *testing.T) {
	packages, err := findPackages(t.Context(), []string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range packages {
		got = append(got, shortPackage(p.ImportPath)+" "+strings.Join(p.Modules, " "))
	}
	if want := "./internal/cmd/kernels/selftest overlay null_blk"; strings.Join(got, "\n") != want {
		t.Errorf("found %q, want %q", got, want)
	}
}
