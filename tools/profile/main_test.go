package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/perfevent"
	"github.com/gobcc/gobcc/internal/common/symbols"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// optionsOf gives the options that profile has with these arguments.
func optionsOf(t testing.TB, args ...string) *options {
	t.Helper()
	opts, positional := tooltest.Parse(t, &about, defineFlags, args...)
	if err := opts.check(positional); err != nil {
		t.Fatal(err)
	}
	return opts
}

func TestBadUsage(t *testing.T) {
	tooltest.BadUsage(t, &about, run, map[string]string{
		"0":                       `the duration "0" is not a number of seconds above 0`,
		"soon":                    `the duration "soon" is not`,
		"1 2":                     `unexpected argument "2"`,
		"-F 0":                    "-F: no samples a second are none",
		"-F 20001":                "-F: 20001 samples a second would leave the CPUs no time",
		"-c 49999":                "-c: a sample each 49999 nanoseconds would leave the CPUs no time",
		"-e cycles -F 4294967295": "kernel.perf_event_max_sample_rate allows",
		"-F -1":                   "--frequency",
		"-F 49 -c 100":            "-F and -c exclude each other",
		"-c 0":                    "-c: a sample each 0 events",
		"-c 9223372036854775808":  "-c: the kernel counts to 9223372036854775807",
		"-e clock":                `-e: there is no event "clock"`,
		"--event=":                `-e: there is no event ""`,
		"-e rxyz":                 `-e: there is no event "rxyz"`,
		"-U -K":                   "-U and -K exclude each other",
		"-p 1 -L 1":               "-p and -L exclude each other",
		"-L 0":                    `"0" is not a thread id`,
		"-L 1,x":                  `"x" is not a thread id`,
		"-L 2147483647":           "--tid: there is no thread 2147483647",
		"-p 2147483647":           "--pid: there is no process 2147483647",
		"-C 100000":               "-C: there is no CPU 100000 online",
		"-C -1":                   "-C: there is no CPU -1 online",
		"-f --json":               "-f and --json exclude each other",
		"--max-user-depth 0":      "--max-user-depth: 0 is not from 1 to 1024",
		"--unwind dwarf":          "--unwind: \"dwarf\" is none of auto, fp, table, copy and off",
		"--unwind-memory 7":       "--unwind-memory: 7 is not from 8 to 4096",
		"--unwind-memory 4097":    "--unwind-memory: 4097 is not",
		"--unwind-copy 0":         "--unwind-copy: 0 is not from 1 to 64",
		"--unwind-copy 65":        "--unwind-copy: 65 is not",
		"--max-user-depth 1025":   "--max-user-depth: 1025 is not",
		"--pprof /no/such/file":   "--pprof: open /no/such/file",
		"--svg /":                 "--svg: open /",
		"-f --pprof -":            "--pprof - and -f would be mixed on standard output",
		"--json --svg -":          "--svg - and --json would be mixed on standard output",
		"--pprof - --script -":    "--pprof - and --script - would be mixed on standard output",
		"--save-raw -":            "--save-raw: a recording is for a file",
		"--stack-storage-size x":  "--stack-storage-size",
		"--follow":                "--follow needs a process",
		"-b 0":                    "--buffer-pages",
		"--replay x 5":            "--replay samples nothing: it takes no duration",
		"--replay x -F 5":         "--replay samples nothing: it does not take --frequency",
		"--replay /no/such/file":  "--replay: open /no/such/file",
		"--save-raw /no/such/f":   "--save-raw: open /no/such/f",
	})
}

func TestManual(t *testing.T) { tooltest.Manual(t, &about, defineFlags) }

// BCC's letters mean what they mean there.
func TestBCCsFlags(t *testing.T) {
	tooltest.Letters(t, &about, defineFlags, map[string]string{
		"pid": "p", "tid": "L", "user-stacks-only": "U", "kernel-stacks-only": "K", "frequency": "F", "count": "c",
		"delimited": "d", "annotations": "a", "include-idle": "I", "folded": "f", "cpu": "C", "address": "A",
		"stack-storage-size": "", "hash-storage-size": "", "cgroupmap": "", "mntnsmap": "",
	})
}

func TestHooksAndObjectAgree(t *testing.T) {
	spec := tooltest.Object(t, loadBpf)
	for _, h := range hooks() {
		if h.Optional || len(h.Choices) != 1 || h.Choices[0].Mode != attach.Auto {
			t.Errorf("%+v", h)
		}
	}
	tooltest.Hooks(t, spec, hooks(), func(program string) bool { return !strings.HasPrefix(program, "follow") })
}

func TestHeader(t *testing.T) {
	for args, want := range map[string]string{
		"":                "Sampling at 49 Hertz of all threads by user + kernel stack... Hit Ctrl-C to end.",
		"-F 99 5":         "Sampling at 99 Hertz of all threads by user + kernel stack for 5 secs.",
		"-c 1000000 -U":   "Sampling at every 1000000 events of all threads by user stack... Hit Ctrl-C to end.",
		"-K -C 0 2.5":     "Sampling at 49 Hertz of all threads by kernel stack on CPU#0 for 2.5 secs.",
		"-p 1,2":          "Sampling at 49 Hertz of PID [1, 2] by user + kernel stack... Hit Ctrl-C to end.",
		"-L 1 -L 1 -C 0 ": "Sampling at 49 Hertz of TID [1, 1] by user + kernel stack on CPU#0... Hit Ctrl-C to end.",
	} {
		if got := optionsOf(t, strings.Fields(args)...).header(false); got != want {
			t.Errorf("%s: %q", args, got)
		}
	}
}

func TestPeriod(t *testing.T) {
	for args, want := range map[string]uint64{
		"": 20408163, "-F 100": 1e7, "-c 50000": 50000, "-e cycles": 0, "-e cycles -c 7": 7, "-e task-clock -F 1000": 1e6,
	} {
		if got := optionsOf(t, strings.Fields(args)...).period(); got != want {
			t.Errorf("%s: %d", args, got)
		}
	}
	if o := optionsOf(t, "1.5"); o.duration != 1500*time.Millisecond {
		t.Error(o.duration)
	}
	if o := optionsOf(t, "-e", "cs"); o.event.Name != "context-switches" || o.event.Clock() || o.event == perfevent.CPUClock {
		t.Errorf("%+v", o.event)
	}
}

// twoThreads is a report of two threads that did the same, and of one that did something
// else under a name that is none of the kernel's.
func twoThreads() *report {
	call := func(k kind, addr uint64, names ...string) *frame {
		f := &frame{Kind: k, Address: addr}
		for _, n := range names {
			f.Lines = append(f.Lines, symbols.Line{Function: n})
		}
		return f
	}
	dd := &process{PID: 25036, Comm: "dd"}
	kernel := []*frame{call(kindKernel, 0xffffffff81000010, "vfs_read"), call(kindKernel, 0xffffffff81000020, "nft [nf_tables]")}
	user := []*frame{call(kindUser, 0x1020, "inner", "read"), call(kindJIT, 0x7f00, "Lfoo;bar"), call(kindUnknown, 0x10, "[unknown]")}
	return &report{Stacks: []*stack{
		{Process: dd, TID: 1, Comm: "dd", Kernel: kernel, User: user, Count: 3},
		{Process: dd, TID: 2, Comm: "dd", Kernel: kernel, User: user, Count: 1},
		{Process: dd, TID: 3, Comm: "a;b \n", User: user[:1], Status: statusNoTable, Count: 2},
		{Process: &process{PID: 0, Comm: "swapper/0"}, Comm: "swapper/0", Kernel: kernel[:1], Count: 9},
	}}
}

func TestText(t *testing.T) {
	const plain = `    inner
    read
    [truncated]
    -                a;b \n (25036)
        2

    vfs_read
    nft [nf_tables]
    inner
    read
    Lfoo;bar
    [unknown]
    -                dd (25036)
        4

    vfs_read
    -                swapper/0 (0)
        9

`
	const full = `    0x1020 inner_[i]
    0x1020 read
    [truncated]
    -                a;b \n (25036)
        2

    0xffffffff81000010 vfs_read_[k]
    0xffffffff81000020 nft [nf_tables]_[k]
    --
    0x1020 inner_[i]
    0x1020 read
    0x7f00 Lfoo;bar_[j]
    0x10 [unknown]
    -                dd (25036)
        4

    0xffffffff81000010 vfs_read_[k]
    -                swapper/0 (0)
        9

`
	for want, s := range map[string]style{plain: {}, full: {delimited: true, annotations: true, addresses: true}} {
		var b bytes.Buffer
		if err := writeText(&b, twoThreads(), s); err != nil || b.String() != want {
			t.Errorf("%+v: %v\n%s", s, err, &b)
		}
	}
}

func TestFolded(t *testing.T) {
	const plain = `a\x3bb \n;[truncated];read;inner 2
dd;[unknown];Lfoo\x3bbar;read;inner;nft [nf_tables];vfs_read 4
swapper/0;vfs_read 9
`
	const full = `a\x3bb \n;[truncated];read;inner_[i] 2
dd;[unknown];Lfoo\x3bbar_[j];read;inner_[i];-;nft [nf_tables]_[k];vfs_read_[k] 4
swapper/0;vfs_read_[k] 9
`
	for want, s := range map[string]style{plain: {}, full: {delimited: true, annotations: true}} {
		var b bytes.Buffer
		if err := writeFolded(&b, twoThreads(), s); err != nil || b.String() != want {
			t.Errorf("%+v: %v\n%s", s, err, &b)
		}
	}
}
