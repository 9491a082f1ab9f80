package events

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Every cause that events.bpf.h counts has a text for users, and every text has
// a cause, in the objects of all tools.
func TestEveryCauseHasAText(t *testing.T) {
	objects, err := filepath.Glob("../../../tools/*/bpf_*.o")
	if err != nil || len(objects) == 0 {
		t.Fatalf("found no objects: %v", err)
	}
	var all []string
	for _, object := range objects {
		spec, err := ebpf.LoadCollectionSpec(object)
		if err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		if spec.Maps[ringMap] == nil {
			continue // streams no events
		}
		l, err := NewLosses(spec)
		if err != nil {
			t.Errorf("%s: %v", object, err)
			continue
		}
		// The map's keys are the enum's values, so they must be 0, 1, 2, …
		var enum *btf.Enum
		if err := spec.Types.TypeByName("lost_cause", &enum); err != nil {
			t.Fatal(err)
		}
		for i, v := range enum.Values {
			if v.Value != uint64(i) {
				t.Errorf("%s: %s is %d, not %d", object, v.Name, v.Value, i)
			}
		}
		if n := spec.Maps[lostMap].MaxEntries; int(n) != len(l.causes) {
			t.Errorf("%s: room for %d causes, and there are %d", object, n, len(l.causes))
		}
		for _, cause := range l.causes {
			if texts[cause] == "" {
				t.Errorf("%s: no text for %s", object, cause)
			}
		}
		all = append(all, l.causes...)
	}
	for cause := range texts {
		if !slices.Contains(all, cause) {
			t.Errorf("the text for %s is for a cause that is not there", cause)
		}
	}
}

func TestNewLossesNeedsTheCauses(t *testing.T) {
	types, err := btf.NewBuilder([]btf.Type{&btf.Int{Name: "int", Size: 4}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := types.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewLosses(&ebpf.CollectionSpec{Types: spec}); err == nil {
		t.Error("an object without causes was taken")
	}
}

func TestLossText(t *testing.T) {
	if got := (Loss{Cause: "ring_full"}).Text(); !strings.Contains(got, "--buffer-pages") {
		t.Errorf("ring_full: %q does not say what to do", got)
	}
	if got := (Loss{Cause: "map_of_stacks_full"}).Text(); got != "map of stacks full" {
		t.Errorf("an unknown cause: %q", got)
	}
}

func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		lost  Lost
		total uint64
		want  string
	}{
		{Lost{}, 0, ""},
		{
			Lost{Causes: []Loss{{"ring_full", 10}}},
			10, "lost 10 events: 10 ring buffer full (--buffer-pages makes it larger)",
		},
		{
			Lost{Causes: []Loss{{"scratch_full", 3}, {"follow_full", 1 << 40}}, Possible: 7},
			1<<40 + 3,
			"lost 1099511627779 events: 3 too many long records at once, 1099511627776 too many processes to follow; " +
				"may have lost up to 7 events: so often the kernel skipped a program that was busy",
		},
		{
			Lost{Possible: 2}, 0,
			"may have lost up to 2 events: so often the kernel skipped a program that was busy",
		},
	} {
		if got := test.lost.Describe(); got != test.want {
			t.Errorf("%+v:\n got %s\nwant %s", test.lost, got, test.want)
		}
		if got := test.lost.Total(); got != test.total {
			t.Errorf("%+v: %d in all, not %d", test.lost, got, test.total)
		}
	}
}

// What the kernel itself counts joins what the programs count; it is read anew
// each time.
func TestReadAddsTheKernelsCount(t *testing.T) {
	l := &Losses{}
	var possible uint64
	l.Open(&ebpf.Collection{}, func() uint64 { return possible })
	for _, n := range []uint64{0, 5, 9} {
		possible = n
		lost, err := l.Read()
		if err != nil || lost.Total() != 0 || lost.Possible != n || len(lost.Causes) != 0 {
			t.Errorf("%d: %+v, %v", n, lost, err)
		}
	}
}
