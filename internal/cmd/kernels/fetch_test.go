package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPickSite(t *testing.T) {
	const both = "http://vendor.example/apt stable\n" +
		"http://one.example/debian bookworm\n" +
		"http://one.example/debian bookworm-updates\n" +
		"http://two.example/debian-security bookworm-security\n"
	for _, test := range []struct{ targets, suite, want string }{
		{both, "trixie", "http://one.example/debian"},
		{both, "trixie-backports", "http://one.example/debian"},
		{both, "trixie-security", "http://two.example/debian-security"},
		{"http://one.example/debian/ sid\n", "trixie-security", "http://one.example/debian-security"},
		{"http://one.example/ubuntu noble\n", "trixie", ""},
		{"", "trixie", ""},
	} {
		got, err := pickSite(test.targets, test.suite)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("pickSite(%q, %s) is %q, %v, want %q", test.targets, test.suite, got, err, test.want)
		}
	}
}

// unpack makes what unpacked packages of a kernel look like.
func unpack(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreTakesNewestCached(t *testing.T) {
	s := &store{dir: t.TempDir(), log: t.Output()}
	const old, new = "6.12.99+deb13-cloud-amd64", "6.12.100+deb13-cloud-amd64"
	unpack(t, filepath.Join(s.dir, "amd64", old), "boot/vmlinuz-"+old, "lib/modules/"+old+"/kernel/fs/a.ko")
	unpack(t, filepath.Join(s.dir, "amd64", new), "usr/lib/modules/"+new+"/vmlinuz", "usr/lib/modules/"+new+"/kernel/fs/a.ko")
	k := kernel{Name: "6.12", Arch: "amd64", Release: "6.12."}
	got, err := s.get(context.Background(), k, false)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.dir, "amd64", new, "usr/lib/modules", new)
	if want := (image{Version: new, Vmlinuz: dir + "/vmlinuz", Modules: dir}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFindImageOfHalfAPackage(t *testing.T) {
	dir := t.TempDir()
	unpack(t, dir, "boot/vmlinuz-6.1")
	if img, err := findImage(dir, "6.1"); err == nil || !strings.Contains(err.Error(), "no modules") {
		t.Errorf("got %+v, %v, want an error for want of modules", img, err)
	}
}

func TestNeedProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // so there is no apt-get either
	err := needProgram(context.Background(), t.Output(), "qemu-system-x86_64", "qemu-system-x86")
	if err == nil || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("got %v, want an error that says what to install", err)
	}
}
