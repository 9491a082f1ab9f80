package main

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/tooltest"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// printerOf makes the printer that execsnoop has with these arguments. Its tracing
// began when the samples' did.
func printerOf(t testing.TB, args ...string) *printer {
	t.Helper()
	opts, positional := tooltest.Parse(t, &about, defineFlags, args...)
	if err := opts.check(positional); err != nil {
		t.Fatal(err)
	}
	p := newPrinter(opts)
	p.begin = start
	p.say = func(*trace.Run, string) {}
	return p
}

func object(t testing.TB) *ebpf.CollectionSpec { return tooltest.Object(t, loadBpf) }

func TestBadUsage(t *testing.T) {
	const gone = "2147483647" // above what a kernel can be told to give
	tooltest.BadUsage(t, &about, run, map[string]string{
		"true":                       `unexpected argument "true"`,
		"true -- true":               `unexpected argument "true"`,
		"--nosuch":                   "unknown flag: --nosuch",
		"-c":                         "unknown shorthand flag",
		"--duration 0":               `"0" is not a number of seconds above 0`,
		"--duration abc":             `"abc" is not a number of seconds above 0`,
		"-n (":                       "--name: error parsing regexp",
		"-l [z-a]":                   "--line: error parsing regexp",
		"-u no-such-user":            `--uid: there is no user "no-such-user"`,
		"--pid 0":                    `"0" is not a process or thread id`,
		"--pid " + gone:              "--pid: there is no process " + gone,
		"-P 0":                       `not a process id: "0"`,
		"-P -1":                      `not a process id: "-1"`,
		"-P init":                    `not a process id: "init"`,
		"-P 2147483648":              `not a process id: "2147483648"`,
		"--ancestors=-1":             `"-1" is not a number of parents, 1 to 32`,
		"--ancestors=0":              `"0" is not a number of parents, 1 to 32`,
		"--ancestors=33":             `"33" is not a number of parents, 1 to 32`,
		"--ancestors=all":            `"all" is not a number of parents, 1 to 32`,
		"--ancestors 5":              `unexpected argument "5"`,
		"--max-args -1":              "--max-args: -1 is not a number of arguments",
		"--max-args few":             "--max-args",
		"--max-bytes -1":             `"-1" is not a number of bytes up to 8388608`,
		"--max-bytes=":               `"" is not a number of bytes`,
		"--max-bytes K":              `"K" is not a number of bytes`,
		"--max-bytes 1G":             `"1G" is not a number of bytes`,
		"--max-bytes 9M":             `"9M" is not a number of bytes`,
		"--max-bytes 8388609":        `"8388609" is not a number of bytes`,
		"--max-bytes 4294967295M":    `"4294967295M" is not a number of bytes`,
		"--max-bytes 4294967296":     `"4294967296" is not a number of bytes`,
		"--env A=1":                  `--env: "A=1" is not the name of a variable`,
		"--env A,,B":                 `--env: "" is not the name of a variable`,
		"--exit-only -x":             "--exit-only and -x exclude each other",
		"--summary --json":           "--summary shows no rows",
		"--summary --exit":           "--summary shows no rows",
		"--summary --exit-only":      "--summary shows no rows",
		"--summary --tree":           "--summary shows no rows",
		"--cgroup no/such/cgroup":    "--cgroup: ",
		"--cgroupmap /no/such/map":   "--cgroupmap: open the pinned map /no/such/map",
		"--mntnsmap /no/such/map":    "--mntnsmap: open the pinned map /no/such/map",
		"--follow":                   "--follow needs a process to follow",
		"--pid " + gone + " -- true": "-p and a command exclude each other",
		"--run-as root":              "--run-as needs a command",
		"--attach uprobe":            `--attach: there is no mode "uprobe"`,
		"--buffer-pages 0":           "--buffer-pages: ",
		"--completion tcsh":          "tcsh",
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int{
		"0": 0, "1": 1, "4096": 4096, "64K": 64 << 10, "64k": 64 << 10, "1M": 1 << 20, "8M": mostBytes, "8388608": mostBytes, "8192K": mostBytes,
	} {
		if p := printerOf(t, "--max-bytes", text); int(p.opts.maxBytes) != want {
			t.Errorf("--max-bytes %s is %d, not %d", text, p.opts.maxBytes, want)
		}
	}
}

func TestAncestorCounts(t *testing.T) {
	for args, want := range map[string]int{"": 0, "--ancestors": maxAncestors, "--ancestors=1": 1, "--ancestors=32": 32} {
		if p := printerOf(t, strings.Fields(args)...); int(p.opts.ancestors) != want {
			t.Errorf("execsnoop %s: %d parents, not %d", args, p.opts.ancestors, want)
		}
	}
}

// BCC spells its long options with either.
func TestUnderscoresAreHyphens(t *testing.T) {
	if p := printerOf(t, "--max_args", "7", "--print_uid"); p.opts.maxArgs != 7 || !p.opts.uid {
		t.Errorf("%+v", p.opts)
	}
}

func TestManual(t *testing.T) { tooltest.Manual(t, &about, defineFlags) }

// BCC's letters mean what they mean there.
func TestBCCsFlags(t *testing.T) {
	tooltest.Letters(t, &about, defineFlags, map[string]string{
		"time": "T", "timestamp": "t", "fails": "x", "uid": "u", "quote": "q", "name": "n", "line": "l", "print-uid": "U",
		"print-cpu": "C", "print-pcomm": "M", "ppid": "P", "max-args": "", "cgroup": "", "cgroupmap": "", "mntnsmap": "",
	})
}

// Every program of the object belongs to a hook, and every hook's programs are in
// the object.
func TestHooksAndObjectAgree(t *testing.T) {
	spec := object(t)
	for _, test := range []struct {
		args string
		// unused begin the names of the programs that are for other options.
		unused []string
	}{
		{"", []string{"execve", "sys_exit", "exit_", "free", "times", "follow"}},
		{"-x", []string{"exit_", "free", "times", "follow"}},
		{"--exit", []string{"execve", "sys_exit", "follow"}},
		{"-x --summary --pid 1 --follow", []string{"follow_exit"}}, // exit_* do that too
		{"-x --pid 1 --follow", []string{"exit_", "free", "times"}},
	} {
		o := printerOf(t, strings.Fields(test.args)...).opts
		all := append(hooks(o.fails, o.exits()), o.Filter.Hooks(o.exits())...)
		for _, h := range all {
			if h.Optional && h.Name != "execveat" {
				t.Errorf("%s is said to be optional", h.Name)
			}
		}
		t.Run("execsnoop "+test.args, func(t *testing.T) {
			tooltest.Hooks(t, spec, all, func(program string) bool {
				return !slices.ContainsFunc(test.unused, func(begin string) bool { return strings.HasPrefix(program, begin) })
			})
		})
	}
}

// Only failures are seen in another way in each mode.
func TestFailuresHaveEveryMode(t *testing.T) {
	for _, h := range hooks(true, true) {
		if h.Name == "execveat" { // seen with the others in tracepoint mode
			if len(h.Choices) != 2 || h.Unless != attach.Tracepoint || !h.Optional {
				t.Errorf("%+v", h)
			}
			continue
		}
		if h.Name != "failures" {
			if len(h.Choices) != 1 || h.Choices[0].Mode != attach.Auto {
				t.Errorf("%+v", h)
			}
			continue
		}
		if len(h.Choices) != len(attach.Modes) {
			t.Fatalf("%+v", h)
		}
		for i, c := range h.Choices {
			if c.Mode != attach.Modes[i] {
				t.Errorf("choice %d is %s, not %s", i, c.Mode, attach.Modes[i])
			}
		}
	}
}

func TestArchitectures(t *testing.T) {
	tooltest.Architectures(t, nil, map[string]uintptr{
		"part": unsafe.Sizeof(bpfPart{}), "ancestor": unsafe.Sizeof(bpfAncestor{}), "exec": unsafe.Sizeof(bpfExec{}),
		"exit": unsafe.Sizeof(bpfExit{}), "times": unsafe.Sizeof(bpfTimes{}),
	})
}

// Every kind of record tells its kind at the same place.
func TestKindsPlace(t *testing.T) {
	for name, at := range map[string]uintptr{
		"part": unsafe.Offsetof(bpfPart{}.Kind), "exec": unsafe.Offsetof(bpfExec{}.Kind),
		"exit": unsafe.Offsetof(bpfExit{}.Kind), "times": unsafe.Offsetof(bpfTimes{}.Kind),
	} {
		if at != kindAt {
			t.Errorf("the kind of %s is at %d, not %d", name, at, kindAt)
		}
	}
	for name, at := range map[string]uintptr{
		"part": unsafe.Offsetof(bpfPart{}.Id), "exec": unsafe.Offsetof(bpfExec{}.Id),
		"exit": unsafe.Offsetof(bpfExit{}.Id), "times": unsafe.Offsetof(bpfTimes{}.Id),
	} {
		if at != 0 {
			t.Errorf("the id of %s is at %d", name, at)
		}
	}
}

// What stands in C and here is the same.
func TestConstantsAreTheKernelSides(t *testing.T) {
	source, err := os.ReadFile("execsnoop.bpf.c")
	if err != nil {
		t.Fatal(err)
	}
	define := func(name string) uint64 {
		m := regexp.MustCompile(`(?m)^#define ` + name + `\s+(\S+)`).FindSubmatch(source)
		if m == nil {
			t.Fatalf("no #define %s", name)
		}
		n, err := strconv.ParseUint(string(m[1]), 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := define("MAX_ANCESTORS"); n != maxAncestors {
		t.Errorf("MAX_ANCESTORS is %d, and maxAncestors %d", n, maxAncestors)
	}
	if n := define("UNSET"); n != unset {
		t.Errorf("UNSET is %#x, and unset %#x", n, unset)
	}
	if n := define("CHUNK"); n != chunk {
		t.Errorf("CHUNK is %d, and these tests have %d", n, chunk)
	}
	if n := define("PIECE"); n != piece {
		t.Errorf("PIECE is %d, and these tests have %d", n, piece)
	}
	if n := uint64(len(bpfExec{}.Tty)); n != define("TTY_LEN") {
		t.Errorf("a terminal's name has %d bytes", n)
	}
	if !bytes.Contains(source, []byte("self_exec_id) * "+hex(execStep)+";")) {
		t.Errorf("the id does not grow by %s", hex(execStep))
	}
	var maxBytes uint32
	if err := object(t).Variables[bpfVarMaxBytes].Get(&maxBytes); err != nil || int(maxBytes) != int(printerOf(t).opts.maxBytes) {
		t.Errorf("max_bytes is %d, and the default of --max-bytes %d", maxBytes, printerOf(t).opts.maxBytes)
	}
	// A failed exec has its arguments read up to 8 MiB.
	m := regexp.MustCompile(`i < (\d+); i\+\+\)\n\t\tif \(args_`).FindAllSubmatch(source, -1)
	steps := uint64(1)
	for _, s := range m {
		n, err := strconv.ParseUint(string(s[1]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		steps *= n
	}
	if len(m) != 3 || steps*piece != mostBytes {
		t.Errorf("%d loops make %d steps", len(m), steps)
	}
}

func hex(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

func TestPrepareSetsConstants(t *testing.T) {
	for _, test := range []struct {
		args string
		want map[string]uint64 // others are 0
	}{
		{"", nil},
		{"-T -t -U -C -M -q --max-args 3 -n x -l y -x --exit --tty --loginuid", nil},
		{"--exit-only", nil},
		{"--summary", nil},
		{"--max-bytes 1M", map[string]uint64{bpfVarMaxBytes: 1 << 20}},
		{"-P 42", map[string]uint64{bpfVarFilterPpid: 42}},
		{"--env A,B --env C", map[string]uint64{bpfVarWantEnv: 1}},
		{"--exe", map[string]uint64{bpfVarWantExe: 1}},
		{"--cwd", map[string]uint64{bpfVarWantCwd: 1}},
		{"--json", map[string]uint64{bpfVarWantExe: 1, bpfVarWantCwd: 1}},
		{"--ancestors", map[string]uint64{bpfVarWantAncestors: maxAncestors}},
		{"--ancestors=3", map[string]uint64{bpfVarWantAncestors: 3}},
		{"--tree --ancestors=3", map[string]uint64{bpfVarWantAncestors: maxAncestors}},
	} {
		p, spec := printerOf(t, strings.Fields(test.args)...), object(t)
		if err := p.opts.prepare(spec); err != nil {
			t.Errorf("%s: %v", test.args, err)
			continue
		}
		want := map[string]uint64{bpfVarMaxBytes: 128 << 10}
		maps.Copy(want, test.want)
		t.Run("execsnoop "+test.args, func(t *testing.T) { tooltest.Constants(t, spec, want) })
	}
}
