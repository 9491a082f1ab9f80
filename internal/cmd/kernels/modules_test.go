package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPresent(t *testing.T) {
	have := func(name string) bool { return name == "null_blk" || name == "sd_mod" }
	got := present(strings.Fields("gone null-blk? sd_mod scsi_debug? null_blk"), have)
	if want := "gone null-blk sd_mod null_blk"; strings.Join(got, " ") != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestModuleOrder(t *testing.T) {
	depends := map[string][]string{
		"overlay":    nil,
		"null_blk":   {"configfs"},
		"configfs":   nil,
		"virtio_net": {"net_failover", "virtio", "virtio_ring"},
		// These two share a dependency.
		"net_failover": {"failover"},
		"failover":     nil,
		"virtio":       {"virtio_ring"},
		"virtio_ring":  nil,
		"broken":       {"gone"},
		// A ring must not be followed for ever.
		"egg": {"hen"},
		"hen": {"egg"},
	}
	errNone := errors.New("no such module")
	lookup := func(name string) ([]string, bool, error) {
		if name == "builtin" {
			return nil, false, nil
		}
		deps, ok := depends[name]
		if !ok {
			return nil, false, errNone
		}
		return deps, true, nil
	}
	for _, test := range []struct{ names, want string }{
		{"overlay null_blk", "overlay configfs null_blk"},
		{"null-blk null_blk builtin", "configfs null_blk"},
		{"virtio_net", "failover net_failover virtio_ring virtio virtio_net"},
		{"virtio virtio_net", "virtio_ring virtio failover net_failover virtio_net"},
		{"egg", "hen egg"},
		{"", ""},
	} {
		got, err := moduleOrder(strings.Fields(test.names), lookup)
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("order of %q is %q (%v), want %q", test.names, got, err, test.want)
		}
	}
	if _, err := moduleOrder([]string{"broken"}, lookup); !errors.Is(err, errNone) || !strings.Contains(err.Error(), "needed by broken") {
		t.Errorf("a missing dependency gives %v", err)
	}
}

func TestParseModinfo(t *testing.T) {
	for info, want := range map[string]string{
		"license=GPL\x00depends=net_failover,virtio\x00retpoline=Y\x00": "net_failover virtio",
		"depends=\x00license=GPL\x00":                                   "",
		"license=depends=x\x00":                                         "",
	} {
		if got := strings.Join(parseModinfo([]byte(info)), " "); got != want {
			t.Errorf("dependencies in %q are %q, want %q", info, got, want)
		}
	}
}

func TestParseBuiltin(t *testing.T) {
	names, err := parseBuiltin(strings.NewReader("kernel/arch/x86/crypto/crc32c-intel.ko\nkernel/fs/configfs/configfs.ko\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 2 || !names["crc32c_intel"] || !names["configfs"] {
		t.Errorf("got %v", names)
	}
}

func TestModuleFiles(t *testing.T) {
	dir := t.TempDir()
	unpack(t, dir, "kernel/fs/overlayfs/overlay.ko.xz", "kernel/lib/crc-ccitt.ko", "kernel/drivers/null_blk.ko.zst", "kernel/readme")
	files, err := moduleFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for name, path := range files {
		got = append(got, name+"="+filepath.Base(path))
	}
	slices.Sort(got)
	if want := "crc_ccitt=crc-ccitt.ko null_blk=null_blk.ko.zst overlay=overlay.ko.xz"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadModule(t *testing.T) {
	dir := t.TempDir()
	content := []byte(strings.Repeat("a module ", 1000))
	plain := filepath.Join(dir, "a.ko")
	if err := os.WriteFile(plain, content, 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, path string) {
		t.Helper()
		got, err := readModule(context.Background(), path)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: read %d bytes (%v), want the %d that were written", path, len(got), err, len(content))
		}
	}
	check(t, plain)

	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plain+".gz", packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, plain+".gz")

	for _, program := range []struct{ name, ending string }{{"xz", ".xz"}, {"zstd", ".zst"}} {
		t.Run(program.name, func(t *testing.T) {
			if _, err := exec.LookPath(program.name); err != nil {
				t.Skipf("SKIPPED: no %s on this machine", program.name)
			}
			if _, err := command(t.Context(), program.name, "-q", "-k", plain); err != nil {
				t.Fatal(err)
			}
			check(t, plain+program.ending)
		})
	}
}

func TestReadModuleWithoutProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := readModule(t.Context(), "a.ko.xz")
	if err == nil || !strings.Contains(err.Error(), "apt-get install xz-utils") {
		t.Errorf("got %v, want an error that says what to install", err)
	}
}
