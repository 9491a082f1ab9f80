package main

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// newPrinter makes the printer that opensnoop has with these arguments.
func newPrinter(t testing.TB, args ...string) *printer {
	t.Helper()
	opts, positional := tooltest.Parse(t, &about, defineFlags, args...)
	if err := opts.check(positional); err != nil {
		t.Fatal(err)
	}
	return &printer{opts: opts, pending: map[uint64]*opened{}}
}

func object(t testing.TB) *ebpf.CollectionSpec { return tooltest.Object(t, loadBpf) }

func TestBadUsage(t *testing.T) {
	const gone = "2147483647" // above what a kernel can be told to give
	tooltest.BadUsage(t, &about, run, map[string]string{
		"passwd":                      `unexpected argument "passwd"`,
		"passwd -- true":              `unexpected argument "passwd"`,
		"--nosuch":                    "unknown flag: --nosuch",
		"-c":                          "unknown shorthand flag",
		"-d 0":                        `"0" is not a number of seconds above 0`,
		"-d -1":                       `"-1" is not a number of seconds above 0`,
		"-d abc":                      `"abc" is not a number of seconds above 0`,
		"--min-latency 0":             `"0" is not a time`,
		"--min-latency fast":          `"fast" is not a time`,
		"-f O_NOSUCH":                 "there is no flag O_NOSUCH",
		"-p 0":                        `"0" is not a process or thread id`,
		"-p " + gone:                  "--pid: there is no process " + gone,
		"-t " + gone:                  "--tid: there is no thread " + gone,
		"-u no-such-user":             `--uid: there is no user "no-such-user"`,
		"--cgroup no/such/cgroup":     "--cgroup: ",
		"--cgroupmap /no/such/map":    "--cgroupmap: open the pinned map /no/such/map",
		"--mntnsmap /no/such/map":     "--mntnsmap: open the pinned map /no/such/map",
		"--follow":                    "--follow needs a process to follow",
		"-p " + gone + " -- true":     "-p and a command exclude each other",
		"--run-as root":               "--run-as needs a command",
		"--path [a":                   `--path: "[a" has a [ without its ]`,
		"--path=":                     "--path: an empty pattern",
		`--path a\`:                   `--path: "a\\" ends in a backslash`,
		"--path-root guest":           `--path-root: there is no root "guest"`,
		"--path-root host":            "add -F",
		"--flag-names":                "add -e",
		"--summary --json":            "--summary and --json exclude each other",
		"--attach uprobe":             `--attach: there is no mode "uprobe"`,
		"-b 0":                        "--buffer-pages: ",
		"--buffer_pages many":         "--buffer-pages",
		"--completion tcsh":           "tcsh",
		"-n abcdefghijklmnopqrstuvwx": "--name: ",
	})
}

func TestManual(t *testing.T) { tooltest.Manual(t, &about, defineFlags) }

// BCC's letters mean what they mean there.
func TestBCCsFlags(t *testing.T) {
	tooltest.Letters(t, &about, defineFlags, map[string]string{
		"timestamp": "T", "print-uid": "U", "failed": "x", "pid": "p", "tid": "t", "uid": "u", "duration": "d", "name": "n",
		"extended_fields": "e", "flag_filter": "f", "full-path": "F", "buffer-pages": "b", "cgroupmap": "", "mntnsmap": "",
	})
}

// Every program of the object belongs to a hook, and every hook's programs are in
// the object.
func TestHooksAndObjectAgree(t *testing.T) {
	spec := object(t)
	for _, timed := range []bool{true, false} {
		follow := newPrinter(t, "-p", "1", "--follow").opts.Filter.Hooks(false)
		t.Run(fmt.Sprintf("timed %v", timed), func(t *testing.T) {
			tooltest.Hooks(t, spec, append(hooks(timed), follow...), func(program string) bool {
				// Only what times an open looks at its beginning, but for kprobes,
				// which keep the arguments there.
				return timed || !strings.HasSuffix(program, "_fentry") && !strings.HasPrefix(program, "sys_enter")
			})
		})
	}
}

// hooks has a mode each for the system calls, and nothing there is optional.
func TestSyscallsHook(t *testing.T) {
	h := hooks(false)[0]
	if h.Optional || len(h.Choices) != len(attach.Modes) {
		t.Fatalf("%+v", h)
	}
	for i, c := range h.Choices {
		if c.Mode != attach.Modes[i] {
			t.Errorf("choice %d is %s, not %s", i, c.Mode, attach.Modes[i])
		}
	}
}

// arm64 has no calls of its own for 32-bit creat and openat2.
func TestArchitectures(t *testing.T) {
	tooltest.Architectures(t, func(program string) bool {
		return strings.HasPrefix(program, "creat32_") || strings.HasPrefix(program, "openat2_32_")
	}, map[string]uintptr{"event": unsafe.Sizeof(bpfEvent{})})
}

func TestPrepareSetsConstants(t *testing.T) {
	for _, test := range []struct {
		args string
		want map[string]uint64 // others are 0
	}{
		{"", nil},
		{"-T -U -e --flag-names --errno-names", nil},
		{"-x", map[string]uint64{bpfVarFilterFailed: 1}},
		{"--latency", map[string]uint64{bpfVarWantLatency: 1}},
		{"--summary", map[string]uint64{bpfVarWantLatency: 1}},
		{"--min-latency 1.5", map[string]uint64{bpfVarWantLatency: 1, bpfVarFilterLatencyNs: 1500}},
		{"--json", map[string]uint64{bpfVarWantLatency: 1, bpfVarWantDetails: 1, bpfVarWantFullPath: 1}},
		{"-F", map[string]uint64{bpfVarWantFullPath: 1}},
		{"-f O_WRONLY -f O_RDONLY", map[string]uint64{bpfVarFilterAccessModes: 3}},
		{"-f O_EXCL -f cloexec", map[string]uint64{bpfVarFilterFlagCount: 2, bpfVarFilterFlagMasks: 0o200 | 0o2000000<<32}},
		{"--path-prefix /etc", map[string]uint64{bpfVarFilterPrefixLen: 4, bpfVarFilterPrefix: 0x6374652f}},
		{"--path-prefix /etc -F", map[string]uint64{bpfVarWantFullPath: 1}},
	} {
		p, spec := newPrinter(t, strings.Fields(test.args)...), object(t)
		if err := p.prepare(spec); err != nil {
			t.Errorf("%s: %v", test.args, err)
			continue
		}
		t.Run("opensnoop "+test.args, func(t *testing.T) { tooltest.Constants(t, spec, test.want) })
	}
}

func TestPrepareForTheHostsRoot(t *testing.T) {
	p, spec := newPrinter(t, "-F", "--path-root", "host"), object(t)
	if err := p.prepare(spec); err != nil {
		t.Fatal(err)
	}
	if p.mounts == nil || spec.Variables[bpfVarPathRootHost].Value[0] != 1 {
		t.Errorf("mounts %v, constant %v", p.mounts, spec.Variables[bpfVarPathRootHost].Value)
	}
}

// A prefix is compared in the kernel as far as its buffer goes, and to its end
// here.
func TestLongPrefix(t *testing.T) {
	long := "/" + strings.Repeat("d", 200)
	p := newPrinter(t, "--path-prefix", long)
	text, n := p.opts.kernelPrefix()
	if n != shortPath-1 || string(text[:n]) != long[:n] || text[n] != 0 {
		t.Errorf("the kernel compares %q", text[:n])
	}
	if p.opts.matches([]byte(long[:200])) || !p.opts.matches([]byte(long+"/x")) {
		t.Error("the rest of the prefix is not compared")
	}
}
