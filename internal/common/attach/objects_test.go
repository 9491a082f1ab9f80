package attach

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// The objects of all tools, for all architectures, keep to what this package
// asks of them.
func TestObjects(t *testing.T) {
	objects, err := filepath.Glob("../../../tools/*/bpf_*.o")
	if err != nil || len(objects) == 0 {
		t.Fatalf("found no objects: %v", err)
	}
	for _, object := range objects {
		t.Run(filepath.Base(filepath.Dir(object))+"/"+filepath.Base(object), func(t *testing.T) {
			spec, err := ebpf.LoadCollectionSpec(object)
			if err != nil {
				t.Fatal(err)
			}
			if len(spec.Programs) == 0 {
				t.Fatal("no programs")
			}
			for name, p := range spec.Programs {
				checkObjectProgram(t, spec, name, p)
			}
		})
	}
}

func checkObjectProgram(t *testing.T, spec *ebpf.CollectionSpec, name string, p *ebpf.ProgramSpec) {
	// Kinds are told by the name's end here and there, so they must agree.
	suffixes := map[string]string{
		"fentry": "_fentry", "fexit": "_fexit", "kprobe": "_kprobe", "kretprobe": "_kretprobe", "tp_btf": "_tp", "raw_tp": "_raw",
	}
	section, direction, _ := strings.Cut(p.SectionName, "/")
	if p.Type == ebpf.CGroupSKB {
		if !strings.HasSuffix(name, "_"+direction) {
			t.Errorf("%s is in section %s", name, p.SectionName)
		}
		return
	}
	if p.Type == ebpf.PerfEvent { // it may have any name
		return
	}
	suffix := suffixes[section]
	if called(p) {
		if !strings.HasSuffix(name, calledSuffix) {
			t.Errorf("%s is in section %s", name, p.SectionName)
		}
		return
	}
	if suffix == "" || !strings.HasSuffix(name, suffix) {
		t.Errorf("%s is in section %s", name, p.SectionName)
	}
	if p.AttachTo == "" {
		t.Errorf("%s hooks nothing", name)
	}
	want, err := declared(spec, p.AttachTo)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if kindOfProgram(p) != diagnose.RawTracepoint {
		if len(want) == 0 {
			t.Errorf("%s hooks %s, whose prototype is not among the object's %s", name, p.AttachTo, prototypes)
		} else if slices.ContainsFunc(want, incomplete) {
			t.Errorf("%s hooks %s, which takes a type that is only declared", name, p.AttachTo)
		}
		return
	}
	// A tracepoint program has its twin for kernels without BTF.
	base := strings.TrimSuffix(name, suffix)
	for _, other := range []string{"_tp", "_raw"} {
		twin := spec.Programs[base+other]
		if twin == nil {
			t.Errorf("%s has no twin %s", name, base+other)
		} else if twin.AttachTo != p.AttachTo {
			t.Errorf("%s hooks %s, and %s hooks %s", name, p.AttachTo, base+other, twin.AttachTo)
		}
	}
}
