package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "gobcc-diskload-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, bytes.Repeat([]byte("data"), 16*readSize/4), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := open(file, 3)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("SKIPPED: /var/tmp has no reads past the cache")
	} else if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := d.read(50); err != nil || d.blocks != 16 || !bytes.Equal(d.buf, bytes.Repeat([]byte("data"), readSize/4)) {
		t.Errorf("%v, %d blocks", err, d.blocks)
	}
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.read(1); err == nil {
		t.Error("nothing was read without an error")
	}
	if _, err := open(file, 1); err == nil {
		t.Error("an empty file is no error")
	}
}
