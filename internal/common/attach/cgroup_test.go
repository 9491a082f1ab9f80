package attach

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

func TestCgroupMounts(t *testing.T) {
	const mounts = `cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
proc /proc proc rw 0 0
none /mnt/a\040b\134c cgroup2 rw 0 0
short
`
	if got, want := cgroupMounts(strings.NewReader(mounts)), []string{"/sys/fs/cgroup/unified", `/mnt/a b\c`}; !slices.Equal(got, want) {
		t.Errorf("got %q, not %q", got, want)
	}
}

func TestOpenCgroupDirTakesNothingElse(t *testing.T) {
	for _, path := range []string{"/proc", "/nonexistent", "/dev/null"} {
		if dir, err := openCgroupDir(path); err == nil {
			dir.Close()
			t.Errorf("%s was taken for the cgroups", path)
		}
	}
}

func TestNoCgroups(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{
			errors.Join(errors.New("no version 2 cgroups are mounted here"), unix.EPERM),
			"open the root of the cgroups: version 2 of the cgroups is not mounted here, and can't be mounted [operation not permitted]; mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
		},
		{
			errors.Join(errors.New("no version 2 cgroups are mounted here"), unix.ENODEV),
			"open the root of the cgroups: this kernel was built without version 2 of the cgroups (CONFIG_CGROUPS) [no such device]",
		},
	} {
		if got := noCgroups(test.err).Error(); got != test.want {
			t.Errorf("got %q, not %q", got, test.want)
		}
	}
}

// A hook on packets is had in every mode, and said to be another than that.
func TestPlanCgroup(t *testing.T) {
	spec := toolSpec(t)
	for name, direction := range map[string]ebpf.AttachType{"p_ingress": ebpf.AttachCGroupInetIngress, "p_egress": ebpf.AttachCGroupInetEgress} {
		spec.Programs[name] = &ebpf.ProgramSpec{Name: name, SectionName: "cgroup_skb/" + name[2:], Type: ebpf.CGroupSKB, AttachType: direction}
	}
	both := []string{"p_ingress", "p_egress"}
	hooks := append(toolHooks(), Hook{
		Name: "packets", Sees: "packets", Optional: true,
		Choices: []Choice{{Mode: Auto, Programs: both, Needs: both}},
	})
	k := fullKernel(t)
	k.allow(spec.Programs["p_ingress"], nil)
	for _, mode := range append([]Mode{Auto}, Modes...) {
		results, err := k.Plan(spec, hooks, mode)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		last := results[len(results)-1]
		if last.Mode != Cgroup || !slices.Equal(last.chosen, both) {
			t.Errorf("%s: %s by %s", mode, last.chosen, last.Mode)
		}
	}

	k = fullKernel(t)
	k.allow(spec.Programs["p_ingress"], errors.New("refused"))
	results, err := k.Plan(spec, hooks, Auto)
	if err != nil {
		t.Fatal(err)
	}
	last := results[len(results)-1]
	if last.Mode != "" || len(last.Refused) != 1 || last.Refused[0].Mode != Cgroup || !slices.Equal(last.Blind, []string{"packets"}) {
		t.Errorf("refused, it is %+v", last)
	}
	if kind := kindOfProgram(spec.Programs["p_egress"]); kind != diagnose.Cgroup {
		t.Errorf("it is explained as a %s", kind)
	}
}
