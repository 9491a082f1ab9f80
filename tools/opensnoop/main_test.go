package main

import (
	"bytes"
	"context"
	"errors"
	stdflag "flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/paths"
)

var update = stdflag.Bool("update", false, "write testdata/*.golden anew")

// golden compares got with a file in testdata, or writes it with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	have, want := strings.Split(got, "\n"), strings.Split(string(b), "\n")
	for i := range max(len(have), len(want)) {
		h, w := "<nothing>", "<nothing>"
		if i < len(have) {
			h = have[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if h != w {
			t.Fatalf("%s:%d: go test -update writes it anew, if the first is right:\n%s\n%s", file, i+1, h, w)
		}
	}
}

// newPrinter makes the printer that opensnoop has with these arguments.
func newPrinter(t testing.TB, args ...string) *printer {
	t.Helper()
	env := &cli.Env{Name: "opensnoop", Args: args, Stdout: io.Discard, Stderr: io.Discard}
	fs := env.Flags()
	opts := defineFlags(fs)
	if err := env.Parse(&about, fs); err != nil {
		t.Fatal(err)
	}
	positional, _ := cli.Command(fs)
	if err := opts.check(positional); err != nil {
		t.Fatal(err)
	}
	return &printer{opts: opts, pending: map[uint64]*opened{}}
}

func object(t testing.TB) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// What can't be done is refused before anything is loaded, in one line that names
// the option, with status 2.
func TestBadUsage(t *testing.T) {
	const gone = "2147483647" // above what a kernel can be told to give
	for args, want := range map[string]string{
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
	} {
		var stdout bytes.Buffer
		err := run(context.Background(), &cli.Env{Name: "opensnoop", Args: strings.Fields(args), Stdout: &stdout, Stderr: io.Discard})
		var usage *cli.Usage
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("opensnoop %s: %v", args, err)
		}
		if stdout.Len() > 0 {
			t.Errorf("opensnoop %s wrote %q", args, stdout.String())
		}
	}
}

// The manual, the flags and the README say the same.
func TestManual(t *testing.T) {
	flags := (&cli.Env{Name: "opensnoop"}).Flags()
	defineFlags(flags)
	for _, f := range about.Check(flags) {
		t.Error(f)
	}
	readme, err := os.Open("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	defer readme.Close()
	flags = (&cli.Env{Name: "opensnoop"}).Flags()
	defineFlags(flags)
	found, err := about.CheckReadme(readme, flags)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Errorf("README.md: %s", f)
	}
}

// BCC's letters mean what they mean there.
func TestBCCsFlags(t *testing.T) {
	flags := (&cli.Env{Name: "opensnoop"}).Flags()
	defineFlags(flags)
	for letter, long := range map[string]string{
		"T": "timestamp", "U": "print-uid", "x": "failed", "p": "pid", "t": "tid", "u": "uid", "d": "duration", "n": "name",
		"e": "extended_fields", "f": "flag_filter", "F": "full-path", "b": "buffer-pages",
	} {
		f := flags.Lookup(long)
		if f == nil || f.Shorthand != letter {
			t.Errorf("-%s is not --%s", letter, long)
		}
	}
	for _, long := range []string{"cgroupmap", "mntnsmap"} {
		if flags.Lookup(long) == nil {
			t.Errorf("no --%s", long)
		}
	}
}

// Every program of the object belongs to a hook, and every hook's programs are in
// the object.
func TestHooksAndObjectAgree(t *testing.T) {
	spec := object(t)
	for _, timed := range []bool{true, false} {
		used := map[string]bool{}
		follow := newPrinter(t, "-p", "1", "--follow").opts.Filter.Hooks(false)
		for _, h := range append(hooks(timed), follow...) {
			for _, c := range h.Choices {
				for _, name := range c.Programs {
					if spec.Programs[name] != nil {
						used[name] = true
						continue
					}
					for _, twin := range []string{name + "_tp", name + "_raw"} {
						used[twin] = true
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
			// Only what times an open looks at its beginning, but for kprobes,
			// which keep the arguments there.
			begins := strings.HasSuffix(name, "_fentry") || strings.HasPrefix(name, "sys_enter")
			if want := timed || !begins; used[name] != want {
				t.Errorf("timed %v: program %s is used: %v", timed, name, used[name])
			}
		}
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

// The objects of both architectures differ in nothing but the functions that only
// one of them has.
func TestObjectsOfBothArchitectures(t *testing.T) {
	x86, arm64 := loadObject(t, "bpf_x86_bpfel.o"), loadObject(t, "bpf_arm64_bpfel.o")
	only := map[string]bool{}
	for _, hook := range []string{"creat32", "openat2_32"} {
		for _, kind := range []string{"fentry", "fexit", "kprobe", "kretprobe"} {
			only[hook+"_"+kind] = true
		}
	}
	for name, p := range x86.Programs {
		q := arm64.Programs[name]
		if (q == nil) != only[name] {
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
	for arch, spec := range map[string]*ebpf.CollectionSpec{"x86": x86, "arm64": arm64} {
		var event *btf.Struct
		if err := spec.Types.TypeByName("event", &event); err != nil {
			t.Fatal(err)
		}
		if int(event.Size) != int(unsafe.Sizeof(bpfEvent{})) {
			t.Errorf("%s: the event has %d bytes, and %d in Go", arch, event.Size, unsafe.Sizeof(bpfEvent{}))
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

// Package paths writes the marks down once more, as each tool has its own object.
func TestPathMarks(t *testing.T) {
	for mark, want := range map[paths.Marks]bpfPathMark{
		paths.Cut: bpfPathMarkPATH_CUT, paths.Deleted: bpfPathMarkPATH_DELETED,
		paths.Unreachable: bpfPathMarkPATH_UNREACHABLE, paths.WholeFS: bpfPathMarkPATH_WHOLE_FS,
	} {
		if uint32(mark) != uint32(want) {
			t.Errorf("%d in Go, and %d in C", mark, want)
		}
	}
	var enum *btf.Enum
	if err := object(t).Types.TypeByName("path_mark", &enum); err != nil || len(enum.Values) != 4 {
		t.Errorf("C has other marks than these four: %v, %v", enum, err)
	}
}

func TestPrepareSetsConstants(t *testing.T) {
	get := func(spec *ebpf.CollectionSpec, name string) uint64 {
		var n uint64
		for i, b := range spec.Variables[name].Value {
			n |= uint64(b) << (8 * i)
		}
		return n
	}
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
		for name := range spec.Variables {
			switch name {
			case bpfVarRingWakeupShift, bpfVarTypes, bpfVarPrototypes:
				continue
			}
			if got := get(spec, name); got != test.want[name] {
				t.Errorf("%s: %s is %#x, not %#x", test.args, name, got, test.want[name])
			}
		}
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
