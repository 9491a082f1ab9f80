package main

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// parsed gives the options that tcpconnect has with these arguments.
func parsed(t testing.TB, args ...string) *options {
	t.Helper()
	opts, positional := tooltest.Parse(t, &about, defineFlags, args...)
	if err := opts.check(positional); err != nil {
		t.Fatal(err)
	}
	return opts
}

func object(t testing.TB) *ebpf.CollectionSpec { return tooltest.Object(t, loadBpf) }

func TestBadUsage(t *testing.T) {
	const gone = "2147483647" // above what a kernel can be told to give
	tooltest.BadUsage(t, &about, run, map[string]string{
		"10":                        `unexpected argument "10"; an interval goes with -c`,
		"curl -- true":              `unexpected argument "curl"`,
		"--nosuch":                  "unknown flag: --nosuch",
		"-F":                        "unknown shorthand flag",
		"-P ssh":                    `"ssh" is neither a port nor a range of ports, 0 to 65535`,
		"-P 80,":                    `"" is neither a port`,
		"-P 65536":                  `"65536" is neither a port`,
		"-P -1":                     `"-1" is neither a port`,
		"--port 80-70":              `"80-70" ends before it begins`,
		"--port !!22":               `"!!22" is neither a port`,
		"--daddr 10.0.0.0/33":       `"10.0.0.0/33" is neither an address nor a network such as 10.0.0.0/8`,
		"--daddr localhost":         `"localhost" is neither an address`,
		"--daddr 10.1.2.3/8":        `"10.1.2.3/8" has bits behind its prefix: 10.0.0.0/8?`,
		"--daddr ::1,!::1":          "::1/128 is both wanted and not",
		"--saddr ::/129":            `"::/129" is neither an address`,
		"--saddr fe80::1%eth0":      `"fe80::1%eth0" is neither an address`,
		"--netns no-such-namespace": `there is no namespace "no-such-namespace" in /run/netns`,
		"--netns /proc/self/ns/mnt": "/proc/self/ns/mnt is not a network namespace",
		"--min-ms 0":                `"0" is not a time`,
		"--min-ms -1":               `"-1" is not a time`,
		"--min-ms 0.0000001":        `"0.0000001" is not a time`,
		"--min-ms slow":             `"slow" is not a time`,
		"-c --outcome":              "-c shows no rows of single attempts, so --outcome goes without it",
		"-c -t":                     "so -t goes without it",
		"-c -U":                     "so -U goes without it",
		"-c -d":                     "so -d goes without it",
		"-c --domains":              "so --domains goes without it",
		"-d --domains":              "-d and --domains exclude each other",
		"-c 0":                      `the interval "0" is not a number of seconds from 0.1 on`,
		"-c 0.05":                   `the interval "0.05" is not a number`,
		"-c nan":                    `the interval "nan" is not a number`,
		"-c 1e3":                    `the interval "1e3" is not a number`,
		"-c soon":                   `the interval "soon" is not a number`,
		"-c 1 0":                    `the count "0" is not a number above 0`,
		"-c 1 -1":                   "unknown shorthand flag: '1'",
		"-c 1 1.5":                  `the count "1.5" is not a number`,
		"-c 1 2 3":                  `unexpected argument "3" behind the interval and the count`,
		"-p 0":                      `"0" is not a process or thread id`,
		"-p " + gone:                "--pid: there is no process " + gone,
		"--tid " + gone:             "--tid: there is no thread " + gone,
		"-u no-such-user":           `--uid: there is no user "no-such-user"`,
		"--cgroup no/such/cgroup":   "--cgroup: ",
		"--cgroupmap /no/such/map":  "--cgroupmap: open the pinned map /no/such/map",
		"--mntnsmap /no/such/map":   "--mntnsmap: open the pinned map /no/such/map",
		"--follow":                  "--follow needs a process to follow",
		"-p " + gone + " -- true":   "-p and a command exclude each other",
		"--run-as root":             "--run-as needs a command",
		"--duration 0":              `"0" is not a number of seconds above 0`,
		"--attach uprobe":           `--attach: there is no mode "uprobe"`,
		"-b 0":                      "--buffer-pages: ",
		"--completion tcsh":         "tcsh",
	})
}

// What a kernel has not can't be looked for.
func TestFamilies(t *testing.T) {
	for _, test := range []struct {
		args   string
		family uint8
		needs6 bool
	}{
		{"", 0, false}, {"-4", 4, false}, {"-6", 6, true}, {"-4 -6", 0, true}, {"--ipv4", 4, false}, {"--ipv6", 6, true},
	} {
		o := parsed(t, strings.Fields(test.args)...)
		if got := o.family(); got != test.family {
			t.Errorf("tcpconnect %s: family %d, not %d", test.args, got, test.family)
		}
		if err := o.checkFamily(true); err != nil {
			t.Errorf("tcpconnect %s: %v", test.args, err)
		}
		if err := o.checkFamily(false); (err != nil) != test.needs6 {
			t.Errorf("tcpconnect %s without IPv6: %v", test.args, err)
		}
	}
}

func TestIntervals(t *testing.T) {
	for args, want := range map[string]struct {
		interval time.Duration
		tables   int
	}{
		"-c": {}, "-c 1": {time.Second, 0}, "-c 0.1": {time.Second / 10, 0}, "-c 250ms": {time.Second / 4, 0},
		"-c 10 3": {10 * time.Second, 3}, "5 1 -c": {5 * time.Second, 1}, "-c 2 -- true": {2 * time.Second, 0}, "-c -- 1 2": {},
	} {
		if o := parsed(t, strings.Fields(args)...); o.interval != want.interval || o.tables != want.tables {
			t.Errorf("tcpconnect %s: each %v, %d tables", args, o.interval, o.tables)
		}
	}
}

// Rows of these need to know what became of an attempt.
func TestWhatImpliesTheOutcome(t *testing.T) {
	for args, want := range map[string]bool{
		"": false, "-t -U -L -4 -d": false, "-P 80 --daddr ::1 --saddr ::1": false, "--domains": false,
		"--outcome": true, "-x": true, "--min-ms 1": true, "-c": true, "--json": true,
	} {
		if o := parsed(t, strings.Fields(args)...); o.outcome != want {
			t.Errorf("tcpconnect %s: %v", args, o.outcome)
		}
	}
}

func TestManual(t *testing.T) { tooltest.Manual(t, &about, defineFlags) }

// BCC's letters mean what they mean there, and -s what it means in libbpf-tools.
func TestBCCsFlags(t *testing.T) {
	tooltest.Letters(t, &about, defineFlags, map[string]string{
		"timestamp": "t", "pid": "p", "port": "P", "ipv4": "4", "ipv6": "6", "lport": "L", "print-uid": "U", "uid": "u",
		"count": "c", "dns": "d", "cgroupmap": "", "mntnsmap": "", "print_uid": "U", "source-port": "s",
		"outcome": "", "failed": "x", "min-ms": "", "domains": "", "daddr": "", "saddr": "", "netns": "", "duration": "",
	})
}

// Every program of the object belongs to a hook, and every hook's programs are in
// the object.
func TestHooksAndObjectAgree(t *testing.T) {
	spec := object(t)
	for _, args := range []string{"", "--outcome", "-x", "--json", "-L", "-d", "--domains", "-c", "-L --outcome -d"} {
		t.Run("tcpconnect "+args, func(t *testing.T) {
			o := parsed(t, append(strings.Fields(args), "-p", "1", "--follow")...)
			tooltest.Hooks(t, spec, append(hooks(o, true), o.Filter.Hooks(false)...), func(program string) bool {
				switch {
				case strings.HasPrefix(program, "refusal"), strings.HasPrefix(program, "outcome"):
					return o.outcome
				case strings.HasPrefix(program, "sys_exit"): // at every system call's end
					return o.outcome || o.lport
				case strings.HasPrefix(program, "dns_"):
					return o.dns || o.domains
				}
				return true
			})
		})
	}
}

// A mode each for the calls, none of which is optional; what a mode does not see is
// said.
func TestConnectsHook(t *testing.T) {
	for args, blind := range map[string][]string{
		"":          {"policy", "policy", "before a packet"},
		"-L":        {"policy", "policy", "before a packet"},
		"--outcome": {"", "", "io_uring"},
	} {
		h := hooks(parsed(t, strings.Fields(args)...), true)[0]
		if h.Name != connects || h.Optional || len(h.Choices) != len(attach.Modes) {
			t.Fatalf("%+v", h)
		}
		for i, c := range h.Choices {
			if c.Mode != attach.Modes[i] {
				t.Errorf("choice %d is %s, not %s", i, c.Mode, attach.Modes[i])
			}
			if said := strings.Join(c.Blind, "; "); !strings.Contains(said, blind[i]) || said != "" && blind[i] == "" {
				t.Errorf("tcpconnect %s, mode %s: not seen: %s", args, c.Mode, said)
			}
		}
	}
}

// A kernel without IPv6 lacks a function for it. On one that has IPv6 as a module, it is
// not among the kernel's own either, and the mode must not be taken.
func TestIPv6IsNeededWhereThereIsSome(t *testing.T) {
	for _, test := range []struct {
		args string
		ipv6 bool
		want bool
	}{{"", true, true}, {"", false, false}, {"-6", true, true}, {"-4", true, false}, {"-4 -6", true, true}} {
		h := hooks(parsed(t, strings.Fields(test.args)...), test.ipv6)[0]
		for _, c := range h.Choices[:2] {
			needed := slices.ContainsFunc(c.Needs, func(name string) bool { return strings.HasPrefix(name, "connect6_") })
			if needed != test.want || !slices.ContainsFunc(c.Programs, func(name string) bool { return strings.HasPrefix(name, "connect6_") }) {
				t.Errorf("tcpconnect %s, IPv6 %v: mode %s needs %v", test.args, test.ipv6, c.Mode, c.Needs)
			}
		}
	}
}

// Elsewhere 32-bit calls of connect() have the same function as 64-bit ones.
func TestArchitectures(t *testing.T) {
	tooltest.Architectures(t, func(program string) bool { return strings.HasPrefix(program, "refusal32_") },
		map[string]uintptr{"attempt": unsafe.Sizeof(bpfAttempt{}), "dns_packet": unsafe.Sizeof(bpfDnsPacket{})})
}

func TestPrepareSetsConstants(t *testing.T) {
	const all = ^uint64(0)
	for _, test := range []struct {
		args string
		want map[string]uint64 // others are 0, but that all ports are in the bits
	}{
		{"", nil},
		{"-t -U -d", map[string]uint64{bpfVarWantTime: 1}},
		{"--domains", map[string]uint64{bpfVarWantTime: 1}},
		{"-L", map[string]uint64{bpfVarWantLport: 1}},
		{"-s", map[string]uint64{bpfVarWantLport: 1}},
		{"--outcome", map[string]uint64{bpfVarWantOutcome: 1, bpfVarWantTime: 1}},
		{"--json", map[string]uint64{bpfVarWantOutcome: 1, bpfVarWantTime: 1}},
		{"-c", map[string]uint64{bpfVarWantOutcome: 1, bpfVarWantTime: 1}},
		{"-x", map[string]uint64{bpfVarWantOutcome: 1, bpfVarWantTime: 1, bpfVarFilterFailed: 1}},
		{"--min-ms 1.5", map[string]uint64{bpfVarWantOutcome: 1, bpfVarWantTime: 1, bpfVarFilterLatencyNs: 1_500_000}},
		{"-4", map[string]uint64{bpfVarFilterFamily: 4}},
		{"-6", map[string]uint64{bpfVarFilterFamily: 6}},
		{"-4 -6", nil},
		{"--netns 4026531833", map[string]uint64{bpfVarFilterNetns: 4026531833}},
		{"-P 1,63", map[string]uint64{bpfVarFilterPorts: 1, bpfVarFilterPortBits: 1<<1 | 1<<63}},
		{"-P !22", map[string]uint64{bpfVarFilterPorts: 1, bpfVarFilterPortBits: all &^ (1 << 22)}},
		{"--daddr ::1", map[string]uint64{bpfVarFilterDaddr: 1}},
		{"--daddr !::1", map[string]uint64{bpfVarFilterDaddr: 1, bpfVarFilterDaddrOthers: 1}},
		{"--saddr ::1", map[string]uint64{bpfVarFilterSaddr: 1}},
		{"--saddr !::1,10.0.0.0/8", map[string]uint64{bpfVarFilterSaddr: 1}},
		{"--saddr !::1", map[string]uint64{bpfVarFilterSaddr: 1, bpfVarFilterSaddrOthers: 1}},
	} {
		o, spec := parsed(t, strings.Fields(test.args)...), object(t)
		if err := o.prepare(spec); err != nil {
			t.Errorf("%s: %v", test.args, err)
			continue
		}
		t.Run("tcpconnect "+test.args, func(t *testing.T) {
			// Of the bits there are 8 KiB; the first 8 bytes are compared.
			bits := spec.Variables[bpfVarFilterPortBits]
			bits.Value = bits.Value[:8]
			if test.want[bpfVarFilterPorts] == 0 {
				if binary.LittleEndian.Uint64(bits.Value) != all {
					t.Errorf("ports that were not given are %x", bits.Value)
				}
				clear(bits.Value)
			}
			want := map[string]uint64{}
			maps.Copy(want, test.want)
			if !o.daddrs.given() { // all are wanted
				want[bpfVarFilterDaddrOthers] = 1
			}
			if !o.saddrs.given() {
				want[bpfVarFilterSaddrOthers] = 1
			}
			tooltest.Constants(t, spec, want)
		})
	}
}

func TestPrepareFillsMaps(t *testing.T) {
	o, spec := parsed(t, "--daddr", "10.0.0.0/8,!10.1.0.0/16", "--saddr", "::1"), object(t)
	if err := o.prepare(spec); err != nil {
		t.Fatal(err)
	}
	daddrs, saddrs := spec.Maps[bpfMapDaddrs], spec.Maps[bpfMapSaddrs]
	if daddrs.Type != ebpf.LPMTrie || len(daddrs.Contents) != 3 || len(saddrs.Contents) != 2 {
		t.Errorf("%d and %d networks", len(daddrs.Contents), len(saddrs.Contents))
	}
	for _, m := range []*ebpf.MapSpec{daddrs, saddrs} {
		if m.KeySize != uint32(unsafe.Sizeof(networkKey{})) || m.ValueSize != 1 {
			t.Errorf("keys have %d bytes, and %d in Go; values %d", m.KeySize, unsafe.Sizeof(networkKey{}), m.ValueSize)
		}
	}
}

// What needs no memory takes none: the kernel gives maps theirs when they are made.
func TestMapsAreNoLargerThanNeeded(t *testing.T) {
	small := []string{bpfMapRefusals, bpfMapBackgroundFailures}
	for args, outcome := range map[string]bool{"": false, "-L": false, "--outcome": true} {
		o, spec := parsed(t, strings.Fields(args)...), object(t)
		before := object(t)
		if err := o.prepare(spec); err != nil {
			t.Fatal(err)
		}
		for name, m := range spec.Maps {
			want := before.Maps[name].MaxEntries
			if slices.Contains(small, name) && !outcome {
				want = 1
			}
			if m.MaxEntries != want {
				t.Errorf("tcpconnect %s: %s has room for %d", args, name, m.MaxEntries)
			}
		}
	}
}
