package tooltest

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/gobcc/gobcc/internal/common/attach"
)

// Object gives a tool's object for this machine; load is what bpf2go made.
func Object(t testing.TB, load func() (*ebpf.CollectionSpec, error)) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// Hooks checks that the programs of the hooks are in the object, and that of the
// object's programs those and no others are used for which used is true.
func Hooks(t *testing.T, spec *ebpf.CollectionSpec, hooks []attach.Hook, used func(program string) bool) {
	t.Helper()
	found := map[string]bool{}
	for _, h := range hooks {
		for _, c := range h.Choices {
			for _, name := range c.Programs {
				if spec.Programs[name] != nil {
					found[name] = true
					continue
				}
				for _, twin := range []string{name + "_tp", name + "_raw"} {
					found[twin] = true
					if spec.Programs[twin] == nil {
						t.Errorf("the object has no program %s", twin)
					}
				}
			}
			for _, need := range c.Needs {
				if !slices.Contains(c.Programs, need) {
					t.Errorf("%s needs %s, which is not one of its programs", h.Name, need)
				}
			}
		}
	}
	for name := range spec.Programs {
		if want := used(name); found[name] != want {
			t.Errorf("program %s is used: %v", name, found[name])
		}
	}
}

// Architectures checks that the objects of both architectures have the same
// variables, maps and records, and the same programs but those that x86 is for,
// which may be nil. records gives the sizes of the records' Go types, by their
// names in C.
func Architectures(t *testing.T, x86only func(program string) bool, records map[string]uintptr) {
	t.Helper()
	x86, arm64 := loadObject(t, "bpf_x86_bpfel.o"), loadObject(t, "bpf_arm64_bpfel.o")
	for name, p := range x86.Programs {
		q := arm64.Programs[name]
		if (q == nil) != (x86only != nil && x86only(name)) {
			t.Errorf("program %s: for arm64 too: %v", name, q != nil)
		}
		if q != nil && (p.Type != q.Type || p.AttachType != q.AttachType) {
			t.Errorf("program %s is a %s here and a %s there", name, p.Type, q.Type)
		}
	}
	for name := range arm64.Programs {
		if x86.Programs[name] == nil {
			t.Errorf("program %s is for arm64 only", name)
		}
	}
	for name, v := range x86.Variables {
		if w := arm64.Variables[name]; w == nil || w.Size() != v.Size() {
			t.Errorf("variable %s is another for arm64", name)
		}
	}
	for name, m := range x86.Maps {
		if n := arm64.Maps[name]; n == nil || n.Type != m.Type || n.KeySize != m.KeySize || n.MaxEntries != m.MaxEntries {
			t.Errorf("map %s is another for arm64", name)
		}
	}
	if a, b := len(x86.Variables)+len(x86.Maps), len(arm64.Variables)+len(arm64.Maps); a != b {
		t.Errorf("%d variables and maps, and %d for arm64", a, b)
	}
	for arch, spec := range map[string]*ebpf.CollectionSpec{"x86": x86, "arm64": arm64} {
		for name, size := range records {
			var record *btf.Struct
			if err := spec.Types.TypeByName(name, &record); err != nil {
				t.Fatal(err)
			}
			if uintptr(record.Size) != size {
				t.Errorf("%s: %s has %d bytes, and %d in Go", arch, name, record.Size, size)
			}
		}
	}
}

func loadObject(t *testing.T, file string) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// Constants checks what the constants of an object are set to, as far as 8 bytes
// go; those that are not in want are 0. What events.bpf.h and package attach have
// of their own is left out.
func Constants(t *testing.T, spec *ebpf.CollectionSpec, want map[string]uint64) {
	t.Helper()
	for name, v := range spec.Variables {
		switch name {
		case "ring_wakeup_shift", "kernel_has_btf", "types", "prototypes":
			continue
		}
		var got uint64
		for i, b := range v.Value {
			got |= uint64(b) << (8 * i)
		}
		if got != want[name] {
			t.Errorf("%s is %#x, not %#x", name, got, want[name])
		}
	}
}
