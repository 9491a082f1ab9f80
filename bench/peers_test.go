package main

import (
	"maps"
	"os"
	"testing"
)

func TestVersions(t *testing.T) {
	dir := t.TempDir()
	if _, err := readVersions(dir); !os.IsNotExist(err) {
		t.Errorf("an empty directory: got %v", err)
	}
	want := map[string]string{"libbpf-tools": "0.37.0+ds-8", "bpftrace": "0.27.1-1", "linux-perf": "7.2.13-1"}
	if err := writeVersions(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readVersions(dir)
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	// Those of an older bench, which fetched fewer, are no good.
	delete(want, "linux-perf")
	if err := writeVersions(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readVersions(dir); err == nil {
		t.Errorf("one is missing: got %v", got)
	}
}
