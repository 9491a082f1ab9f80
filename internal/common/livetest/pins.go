package livetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// PinDir makes a directory to pin maps in, below dir if a BPF file system is
// mounted there and else on one of its own. It is gone with the test. Call it
// within Namespace.
func PinDir(t testing.TB, dir string) string {
	t.Helper()
	inNamespace(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		dir = t.TempDir()
		if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
			t.Fatalf("mount a BPF file system: %v", err)
		}
	}
	pins, err := os.MkdirTemp(dir, "gobcc-livetest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(pins) }) // gone with the namespace, if it was mounted there
	return pins
}

// PinMap makes a map, puts key into it unless that is nil, and pins it at path.
func PinMap(t testing.TB, path string, spec ebpf.MapSpec, key any) {
	t.Helper()
	_ = rlimit.RemoveMemlock() // which kernels up to 5.10 count maps against
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		t.Fatalf("make the map %s: %v", path, err)
	}
	defer m.Close()
	if key != nil {
		err = m.Put(key, make([]byte, spec.ValueSize))
	}
	if err := errors.Join(err, m.Pin(path)); err != nil {
		t.Fatalf("pin the map %s: %v", path, err)
	}
}

// MountNamespace is the number of a process's mount namespace.
func MountNamespace(t testing.TB, pid int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// OpenToAll lets other users pass to a directory of the test's, which are for
// their owner only.
func OpenToAll(t testing.TB, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
