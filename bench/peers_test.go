package main

import (
	"os"
	"testing"
)

func TestVersions(t *testing.T) {
	dir := t.TempDir()
	if _, err := readVersions(dir); !os.IsNotExist(err) {
		t.Errorf("an empty directory: got %v", err)
	}
	want := map[string]string{"libbpf-tools": "0.37.0+ds-8", "bpftrace": "0.27.1-1"}
	if err := writeVersions(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readVersions(dir)
	if err != nil || len(got) != 2 || got["libbpf-tools"] != want["libbpf-tools"] || got["bpftrace"] != want["bpftrace"] {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
