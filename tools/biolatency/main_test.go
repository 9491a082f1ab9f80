package main

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// twoDisks are those of a machine.
func twoDisks() ([]disk, error) { return []disk{{"sda", devOf(8, 0)}, {"vda", devOf(254, 0)}}, nil }

// optionsOf gives the options that biolatency has with these arguments.
func optionsOf(t testing.TB, args ...string) *options {
	t.Helper()
	opts, positional := tooltest.Parse(t, &about, defineFlags, args...)
	if err := opts.check(positional, twoDisks); err != nil {
		t.Fatal(err)
	}
	return opts
}

func TestBadUsage(t *testing.T) {
	tooltest.BadUsage(t, &about, run, map[string]string{
		"0":                                `the interval "0" is not a number of seconds from 0.1 on`,
		"0.05":                             `the interval "0.05" is not`,
		"soon":                             `the interval "soon" is not`,
		"1 0":                              `the count "0" is not a number above 0`,
		"1 some":                           `the count "some" is not`,
		"1 1.5":                            `the count "1.5" is not`,
		"1 2 3":                            `unexpected argument "3"`,
		"-1":                               "unknown shorthand flag",
		"1 -1":                             "unknown shorthand flag",
		"--by disc":                        `there is no key "disc": disk, op, cgroup, comm`,
		"--by disk,,op":                    `there is no key ""`,
		"--by=":                            `there is no key ""`,
		"-Q --split":                       "--split shows the time in the queue already",
		"--live -j":                        "--live draws a picture, so -j and -e go without it",
		"--live -e":                        "--live draws a picture",
		"--bio -Q":                         "--bio counts bios, ",
		"--bio --split":                    "--bio counts bios, ",
		"-d no-such-disk":                  `-d: there is no disk "no-such-disk" here: `,
		"--openmetrics /no/such/file.prom": "--openmetrics: open /no/such/.file.prom",
		"--openmetrics /":                  "--openmetrics: / is not a file",
		"-b 8":                             "unknown shorthand flag",
		"--attach uprobe":                  `there is no mode "uprobe"`,
		"--run-as root":                    "--run-as needs a command",
		"--cgroup no/such":                 "--cgroup: ",
		"--cgroupmap /no/such":             "--cgroupmap: ",
		"--follow":                         "--follow needs a process",
		"-p 2147483647":                    "--pid: there is no process",
		"-p 2147483647 -- true":            "-p and a command exclude each other",
	})
}

// A disk that is not there is told from those that are.
func TestDisk(t *testing.T) {
	if o := optionsOf(t, "-d", "vda"); o.dev != devOf(254, 0) {
		t.Errorf("vda is %#x", o.dev)
	}
	if o := optionsOf(t, "-d", "/dev/sda"); o.dev != devOf(8, 0) {
		t.Errorf("/dev/sda is %#x", o.dev)
	}
	opts, _ := tooltest.Parse(t, &about, defineFlags, "-d", "vda1")
	if err := opts.check(nil, twoDisks); err == nil || !strings.HasSuffix(err.Error(), `there is no disk "vda1" here: sda, vda`) {
		t.Error(err)
	}
	if err := opts.check(nil, func() ([]disk, error) { return nil, nil }); err == nil || !strings.HasSuffix(err.Error(), "there is none at all") {
		t.Error(err)
	}
}

func TestInterval(t *testing.T) {
	for args, want := range map[string]options{
		"":           {},
		"1":          {interval: time.Second},
		"0.1":        {interval: 100 * time.Millisecond},
		"2.5 10":     {interval: 2500 * time.Millisecond, tables: 10},
		"--live":     {interval: time.Second},
		"--live 2 3": {interval: 2 * time.Second, tables: 3},
	} {
		if o := optionsOf(t, strings.Fields(args)...); o.interval != want.interval || o.tables != want.tables {
			t.Errorf("%q is every %v, %d times", args, o.interval, o.tables)
		}
	}
}

func TestKeys(t *testing.T) {
	for args, want := range map[string]keys{
		"":                         {},
		"-D":                       {disk: true},
		"-F":                       {op: true},
		"-DF":                      {disk: true, op: true},
		"--by comm,cgroup":         {cgroup: true, comm: true},
		"--by disk --by op -D":     {disk: true, op: true},
		"--by disk,op,cgroup,comm": {true, true, true, true},
	} {
		if o := optionsOf(t, strings.Fields(args)...); o.by != want {
			t.Errorf("%q: %+v", args, o.by)
		}
	}
}

func TestManual(t *testing.T) { tooltest.Manual(t, &about, defineFlags) }

// BCC's and libbpf-tools' letters mean what they mean there.
func TestBCCsFlags(t *testing.T) {
	tooltest.Letters(t, &about, defineFlags, map[string]string{
		"timestamp": "T", "queued": "Q", "milliseconds": "m", "disks": "D", "flags": "F", "extension": "e", "json": "j", "disk": "d",
		"cgroup": "c", "verbose": "v", "by": "", "split": "", "percentiles": "", "live": "",
	})
}

func TestHooksAndObjectAgree(t *testing.T) {
	spec := tooltest.Object(t, loadBpf)
	for _, test := range []struct {
		args   string
		unused []string // begin the names of the programs that are for other options
	}{
		{"", []string{"insert", "merge", "io_start", "bio_", "follow"}},
		{"-Q", []string{"bio_", "follow"}},
		{"--split --by comm", []string{"bio_begin", "bio_remap", "bio_split", "bio_request", "bio_end", "follow"}},
		{"--by cgroup -p 1 --follow", []string{"insert", "merge", "io_start", "bio_begin", "bio_remap", "bio_split", "bio_request", "bio_end"}},
		{"--bio --by cgroup", []string{"insert", "merge", "io_start", "issue", "requeue", "complete", "bio_queue", "follow"}},
	} {
		o := optionsOf(t, strings.Fields(test.args)...)
		all := append(hooks(o, o.issuers(false)), o.Filter.Hooks(false)...)
		for _, h := range all {
			if h.Optional || len(h.Choices) != 1 || h.Choices[0].Mode != attach.Auto {
				t.Errorf("%+v", h)
			}
		}
		t.Run("biolatency "+test.args, func(t *testing.T) {
			tooltest.Hooks(t, spec, all, func(program string) bool {
				return program != "bucket_call" && !slices.ContainsFunc(test.unused, func(begin string) bool { return strings.HasPrefix(program, begin) })
			})
		})
	}
}

func TestArchitectures(t *testing.T) {
	tooltest.Architectures(t, nil, map[string]uintptr{
		"key": unsafe.Sizeof(bpfKey{}), "failure": unsafe.Sizeof(bpfFailure{}), "disk_name": unsafe.Sizeof(bpfDiskName{}),
		"histogram": histogram.Size / 2,
	})
}

func TestPrepareSetsConstants(t *testing.T) {
	for _, test := range []struct {
		args string
		want map[string]uint64 // others are 0
	}{
		{"", nil},
		{"-T -m -e --percentiles 1 5", nil},
		{"-Q", map[string]uint64{bpfVarWantQueue: 1}},
		{"--split", map[string]uint64{bpfVarWantQueue: 1, bpfVarWantSplit: 1}},
		{"-D", map[string]uint64{bpfVarByDisk: 1}},
		{"--bio -D", map[string]uint64{bpfVarByDisk: 1}},
		{"-F", map[string]uint64{bpfVarByOp: 1}},
		{"--by cgroup", map[string]uint64{bpfVarByCgroup: 1, bpfVarWantIssuer: 1}},
		{"--by comm", map[string]uint64{bpfVarByComm: 1, bpfVarWantIssuer: 1}},
		{"-d vda", map[string]uint64{bpfVarFilterDisk: 1, bpfVarFilterDev: 254 << 20}},
		{"-p 1", map[string]uint64{bpfVarFilterIssuer: 1, bpfVarWantIssuer: 1}},
		{"-n x", map[string]uint64{bpfVarFilterIssuer: 1, bpfVarWantIssuer: 1}},
		{"-c /", map[string]uint64{bpfVarFilterIssuer: 1, bpfVarWantIssuer: 1}},
	} {
		o, spec := optionsOf(t, strings.Fields(test.args)...), tooltest.Object(t, loadBpf)
		if err := o.prepare(spec, false); err != nil {
			t.Errorf("%s: %v", test.args, err)
			continue
		}
		want := map[string]uint64{bpfVarHistogramShift: 4, bpfVarHistogramDivisor: 1000, bpfVarOpMask: 0xffffffff}
		for name, v := range test.want {
			want[name] = v
		}
		t.Run("biolatency "+test.args, func(t *testing.T) { tooltest.Constants(t, spec, want) })
		n := spec.Maps[bpfMapSlots].MaxEntries
		if keyed := o.by.any(); n != spec.Maps[bpfMapSlotDisks].MaxEntries || keyed && (n < 16 || int(n) != len(spec.Maps[bpfMapFreeSlots].Contents)) || !keyed && n != 1 {
			t.Errorf("%s: %d slots", test.args, n)
		}
		if small := spec.Maps[bpfMapIssuers].MaxEntries == 1; small == o.issuers(false) {
			t.Errorf("%s: the map of issuers is small: %v", test.args, small)
		}
	}
}

func TestSlots(t *testing.T) {
	for _, test := range []struct{ phases, cpus, want int }{{1, 1, 1024}, {1, 2, 1024}, {3, 2, 1024}, {1, 64, 434}, {3, 64, 144}, {3, 8192, 16}} {
		if n := slotsFor(test.phases, test.cpus); n != test.want {
			t.Errorf("%d phases on %d CPUs: %d slots, not %d", test.phases, test.cpus, n, test.want)
		}
	}
}

// kernelEnum is an enum as a kernel has it.
func kernelEnum(name string, values ...btf.EnumValue) btf.Type {
	return &btf.Enum{Name: name, Size: 4, Values: values}
}

func operationsOf(t testing.TB, types ...btf.Type) operations {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return readOperations(spec)
}

// someFlags are those of 6.18, some of them.
var someFlags = kernelEnum("req_flag_bits", btf.EnumValue{Name: "__REQ_FAILFAST_DEV", Value: 8}, btf.EnumValue{Name: "__REQ_SYNC", Value: 11},
	btf.EnumValue{Name: "__REQ_META", Value: 12}, btf.EnumValue{Name: "__REQ_PRIO", Value: 13}, btf.EnumValue{Name: "__REQ_FUA", Value: 17},
	btf.EnumValue{Name: "__REQ_PREFLUSH", Value: 18}, btf.EnumValue{Name: "__REQ_RAHEAD", Value: 19}, btf.EnumValue{Name: "__REQ_ATOMIC", Value: 27}, btf.EnumValue{Name: "__REQ_NR_BITS", Value: 30})

func TestOperations(t *testing.T) {
	now := operationsOf(t, someFlags, kernelEnum("req_op", btf.EnumValue{Name: "REQ_OP_READ", Value: 0}, btf.EnumValue{Name: "REQ_OP_WRITE", Value: 1},
		btf.EnumValue{Name: "REQ_OP_FLUSH", Value: 2}, btf.EnumValue{Name: "REQ_OP_ZONE_APPEND", Value: 7}, btf.EnumValue{Name: "REQ_OP_WRITE_ZEROES", Value: 9},
		btf.EnumValue{Name: "REQ_OP_LAST", Value: 36}))
	old := operationsOf(t, someFlags, kernelEnum("req_opf", btf.EnumValue{Name: "REQ_OP_WRITE_SAME", Value: 7}))
	for _, test := range []struct {
		of    operations
		flags uint32
		text  string
		op    string
		set   string
	}{
		{now, 0, "Read", "READ", ""},
		{now, 1 | 1<<11, "Sync-Write", "WRITE", "SYNC"},
		{now, 1<<12 | 1<<13, "Priority-Metadata-Read", "READ", "META PRIO"},
		{now, 1 | 1<<11 | 1<<17, "ForcedUnitAccess-Sync-Write", "WRITE", "SYNC FUA"},
		{now, 2 | 1<<18, "PreFlush-Flush", "FLUSH", "PREFLUSH"},
		{now, 1 | 1<<27 | 1<<11, "Atomic-Sync-Write", "WRITE", "SYNC ATOMIC"},
		{now, 1<<8 | 1<<19, "FailfastDev-ReadAhead-Read", "READ", "FAILFAST_DEV RAHEAD"},
		{now, 9, "WriteZeros", "WRITE_ZEROES", ""},
		{now, 7, "ZoneAppend", "ZONE_APPEND", ""},
		{now, 36 | 1<<30, "Unknown", "UNKNOWN", ""},
		{old, 7, "WriteSame", "WRITE_SAME", ""},
	} {
		if got := test.of.text(test.flags); got != test.text {
			t.Errorf("%#x is %s, not %s", test.flags, got, test.text)
		}
		if op, set := test.of.op(test.flags), strings.Join(test.of.set(test.flags), " "); op != test.op || set != test.set {
			t.Errorf("%#x is %s with %s", test.flags, op, set)
		}
	}
	if mask := now.mask(); mask != 0xfffffeff {
		t.Errorf("the mask is %#x", mask)
	}
}
