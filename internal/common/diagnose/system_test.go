package diagnose

import (
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

const dockerStatus = `Name:	opensnoop
Umask:	0022
Uid:	1000	0	0	0
CapInh:	0000000000000000
CapPrm:	00000000a80425fb
CapEff:	00000000a80425fb
NoNewPrivs:	0
Seccomp:	2
Seccomp_filters:	1
`

const limits = `Limit                     Soft Limit           Hard Limit           Units     
Max file size             unlimited            unlimited            bytes     
Max locked memory         65536                unlimited            bytes     
Max pending signals       96365                96365                signals   
`

func TestReadSystem(t *testing.T) {
	root := fstest.MapFS{
		"proc/sys/kernel/osrelease":                 file("5.10.0-28-cloud-amd64\n"),
		"proc/sys/kernel/unprivileged_bpf_disabled": file("2\n"),
		"proc/sys/kernel/perf_event_paranoid":       file("-1\n"),
		"proc/self/status":                          file(dockerStatus),
		"proc/self/uid_map":                         file("         0       1000          1\n"),
		"proc/self/limits":                          file(limits),
		"proc/filesystems":                          file("nodev\tsysfs\nnodev\ttracefs\n\text4\n"),
		"sys/kernel/security/lockdown":              file("none [integrity] confidentiality\n"),
		"sys/kernel/security/lsm":                   file("lockdown,capability,selinux"),
		"sys/kernel/btf/vmlinux":                    file("btf"),
		"sys/kernel/tracing":                        {Mode: fs.ModeDir},
		"sys/bus/event_source/devices/kprobe/type":  file("8\n"),
		"sys/bus/event_source/devices/software/x":   file(""),
	}
	want := &System{
		Release: "5.10.0-28-cloud-amd64", UID: 0, Caps: 0xa80425fb, CapsKnown: true,
		UserNamespace: true, Seccomp: true, Memlock: 65536, Lockdown: Integrity,
		SecurityModules:         []string{"lockdown", "capability", "selinux"},
		UnprivilegedBPFDisabled: 2, PerfEventParanoid: -1, BTF: Yes, Kprobes: Yes, Tracefs: TracefsUnmounted,
	}
	if got := readSystem(root); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReadSystemTellsNoFromUnknown(t *testing.T) {
	unknown := &System{Memlock: Unlimited, UnprivilegedBPFDisabled: UnknownSysctl, PerfEventParanoid: UnknownSysctl}
	if got := readSystem(fstest.MapFS{}); !reflect.DeepEqual(got, unknown) {
		t.Errorf("of nothing: %+v", got)
	}
	got := readSystem(fstest.MapFS{
		"proc/filesystems":                        file("nodev\tproc\n"),
		"proc/self/uid_map":                       file("         0          0 4294967295\n"),
		"proc/sys/kernel/perf_event_paranoid":     file("high\n"),
		"sys/kernel/security/lockdown":            file("garbage\n"),
		"sys/bus/event_source/devices/software/x": file(""),
	})
	want := *unknown
	want.BTF, want.Kprobes, want.Tracefs = No, No, TracefsUnsupported
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("of a kernel without: %+v", got)
	}
	if s := readSystem(fstest.MapFS{"sys/kernel/btf/kvm": file("")}); s.BTF != No {
		t.Errorf("BTF of modules alone: %v", s.BTF)
	}
	if s := readSystem(fstest.MapFS{"sys/kernel/tracing/events/x": file("")}); s.Tracefs != TracefsReadable {
		t.Errorf("tracefs: %v", s.Tracefs)
	}
	if s := readSystem(fstest.MapFS{"sys/kernel/debug/tracing/events/x": file("")}); s.Tracefs != TracefsReadable {
		t.Errorf("tracefs under debugfs: %v", s.Tracefs)
	}
	if s := readSystem(closedFS{}); s.Tracefs != TracefsUnreadable {
		t.Errorf("closed tracefs: %v", s.Tracefs)
	}
}

// closedFS is a /sys whose tracefs is not for us.
type closedFS struct{}

func (closedFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestParseBadInput(t *testing.T) {
	var s System
	for _, text := range []string{"Uid:\t1000\n", "Uid:\ta b c d\n", "CapEff:\tzz\n", "CapEff:\n"} {
		if err := s.parseStatus(strings.NewReader(text)); err == nil || s.CapsKnown {
			t.Errorf("parseStatus(%q): no error", text)
		}
	}
	if err := s.parseLimits(strings.NewReader("Max locked memory   lots  lots bytes\n")); err == nil {
		t.Error("parseLimits: no error")
	}
	if err := s.parseLimits(strings.NewReader("Max locked memory         unlimited            unlimited            bytes\n")); err != nil || s.Memlock != Unlimited {
		t.Errorf("unlimited is %d, %v", s.Memlock, err)
	}
}

func TestOlderThan(t *testing.T) {
	for _, c := range []struct {
		release string
		want    bool // older than 5.11
	}{
		{"5.10.262-cloud", true}, {"4.18.0", true}, {"5.11.0", false}, {"5.110", false}, {"6.1.0-30-amd64", false}, {"", false}, {"x", false},
	} {
		s := System{Release: c.release}
		if got := s.olderThan(5, 11); got != c.want {
			t.Errorf("%q older than 5.11: %t", c.release, got)
		}
	}
}
