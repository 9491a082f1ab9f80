package command

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSearch(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	for file, mode := range map[string]os.FileMode{"a/x": 0o644, "b/x": 0o755, "b/y": 0o755, "c/y": 0o755, "z": 0o755} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("a/y", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       string
		err        error
	}{
		{"x", "a:b", "b/x", nil}, // a/x can't be executed, so the search goes on
		{"x", "a:c", "", unix.EACCES},
		{"x", "c", "", unix.ENOENT},
		{"y", "a:b:c", "b/y", nil}, // a/y is a directory
		{"y", "c:b", "c/y", nil},
		{"z", "a", "", unix.ENOENT},
		{"z", "a:", "./z", nil}, // an empty directory is the working directory
		{"z", "", "./z", nil},
		{"z", "a/x:z/:b::c", "./z", nil}, // and one that is none is passed over
		{"b/x", "", "b/x", nil},
		{"b/z", ".", "b/z", unix.ENOENT},
		{"a/x", "b", "a/x", unix.EACCES},
		{"a/y", "b", "a/y", unix.EISDIR},
		{"z/q", "b", "z/q", unix.ENOTDIR},
		{"", "b", "", unix.ENOENT},
	} {
		got, err := search(c.name, func(string) (string, bool) { return c.path, true })
		if got != c.want || err != c.err {
			t.Errorf("search(%q) in %q = %q, %v; want %q, %v", c.name, c.path, got, err, c.want, c.err)
		}
	}
	got, err := search("sh", func(string) (string, bool) { return "", false })
	if got != "/bin/sh" || err != nil {
		t.Errorf("search without PATH = %q, %v", got, err)
	}
}
