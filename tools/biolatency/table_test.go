package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// printerOf makes the printer that biolatency has with these arguments.
func printerOf(t testing.TB, args ...string) *printer {
	t.Helper()
	ops := kernelEnum("req_op", btf.EnumValue{Name: "REQ_OP_READ", Value: 0}, btf.EnumValue{Name: "REQ_OP_WRITE", Value: 1})
	return &printer{opts: optionsOf(t, args...), operations: operationsOf(t, someFlags, ops)}
}

func lineOf(disk string, flags uint32, comm string, phases ...histogram.Counts) *line {
	l := &line{disk: []byte(disk), phases: phases}
	l.OpFlags, l.CgroupId = flags, 1<<40
	copy(l.Comm[:], comm)
	return l
}

// sample is a table that biolatency may have with these arguments.
func sample(p *printer) *table {
	unit := p.opts.unit()
	of := func(latencies ...uint64) histogram.Counts { return histogram.Of(unit, latencies...) }
	us := func(from, to, step uint64) (all []uint64) {
		for n := from; n < to; n += step {
			all = append(all, n*1_000)
		}
		return all
	}
	queue, device, total := of(us(0, 40, 1)...), of(us(100, 500, 10)...), of(us(100, 540, 11)...)
	device.Errors, total.Errors = 3, 3
	fast := of(0, 999, 1_000, 1_999, 2_000, 3_999, 4_000)
	t := &table{
		took: 1_000_000_123, time: time.Date(2026, 3, 1, 9, 5, 7, 42, time.UTC),
		failed: []failed{{[]byte("sd\ta"), "EIO", 3}, {nil, "BLK_STS_16", 1}},
	}
	if p.opts.split {
		t.lines = []*line{lineOf("sda", 1|1<<11, "dd", queue, device, total)}
		return t
	}
	t.lines = []*line{lineOf("sda", 1|1<<11, "dd", device)}
	if p.opts.by.any() {
		t.lines = append(t.lines, lineOf("s\ndb", 1<<12|1<<13, "a\x1b b", fast), lineOf("", 77, "\xff", of(5_000_000_000_000, 3_000_000)))
	}
	return t
}

func TestTable(t *testing.T) {
	var b strings.Builder
	for _, args := range []string{"", "-m", "-T", "-e", "-D", "-F", "-DF -e", "--by comm,cgroup", "--percentiles", "-m --percentiles -D", "--split", "--split --percentiles -D"} {
		p := printerOf(t, strings.Fields(args)...)
		fmt.Fprintf(&b, "$ biolatency %s\n%s", args, p.appendTable(nil, sample(p)))
	}
	tooltest.Golden(t, "tables.golden", b.String())
}

func TestJSON(t *testing.T) {
	var b, objects strings.Builder
	for _, args := range []string{"-j", "-j -Q", "-j -m --by disk,op,cgroup,comm", "-j --split"} {
		p := printerOf(t, strings.Fields(args)...)
		lines := p.appendJSON(nil, sample(p))
		fmt.Fprintf(&b, "$ biolatency %s\n%s", args, lines)
		objects.Write(lines)
	}
	tooltest.Golden(t, "json.golden", b.String())
	tooltest.JSONKeys(t, &about, objects.String())
}

// An interval without requests shows none, as in BCC.
func TestNothing(t *testing.T) {
	for args, want := range map[string]string{"": "\n", "-T": "\n09:05:07\n", "-e --percentiles": "\n", "-j": ""} {
		p := printerOf(t, strings.Fields(args)...)
		empty := &table{time: sample(p).time}
		got := p.appendTable(nil, empty)
		if p.opts.JSON {
			got = p.appendJSON(nil, empty)
		}
		if string(got) != want {
			t.Errorf("%q: %q", args, got)
		}
	}
}

func TestSorted(t *testing.T) {
	full := histogram.Of(histogram.Micros, 1)
	lines := map[uint32]*line{
		0: lineOf("vda", 0, "", full), 1: lineOf("sda", 1, "b", full), 2: lineOf("sda", 1, "a", full), 3: lineOf("sda", 0, "z", full),
		4: lineOf("sda", 0, "none", histogram.Counts{}),
	}
	var got []string
	for _, l := range sorted(lines) {
		got = append(got, fmt.Sprintf("%s %d %s", l.disk, l.OpFlags, l.comm()))
	}
	if want := "sda 0 z, sda 1 a, sda 1 b, vda 0 "; strings.Join(got, ", ") != want {
		t.Errorf("%q", got)
	}
}

func TestErrorNames(t *testing.T) {
	for n, want := range map[int32][2]string{1: {"EOPNOTSUPP", "EPERM"}, 5: {"EREMOTEIO", "EIO"}, 10: {"EIO", "ECHILD"}, 13: {"EBUSY", "EACCES"}, 17: {"BLK_STS_17", "EEXIST"}} {
		if a, b := errorName(n), errorName(-n); a != want[0] || b != want[1] {
			t.Errorf("%d is %s, and as an errno %s", n, a, b)
		}
	}
}

func TestListDisks(t *testing.T) {
	all, err := listDisks("testdata/block")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(all); got != fmt.Sprint([]disk{{"cciss/c0d0", 104 << 20}, {"nvme0n1", 259<<20 | 3}}) {
		t.Error(got)
	}
	if _, err := listDisks("testdata/nothing"); err == nil {
		t.Error("what is not there was listed")
	}
}

// There is room for all requests of the disks, in all their queues, twice.
func TestRequests(t *testing.T) {
	for dir, want := range map[string]uint32{"testdata/block": leastRequests + 2*(2*1023+256), "testdata/nothing": leastRequests} {
		if n := requestsOf(dir); n != want {
			t.Errorf("%s: %d, not %d", dir, n, want)
		}
	}
}

// Bars are as long as BCC's: one that is full only for the most.
func TestBar(t *testing.T) {
	for _, test := range []struct {
		n, most uint64
		want    int
	}{{0, 0, 0}, {0, 5, 0}, {5, 5, 40}, {1, 41, 0}, {1, 40, 1}, {39, 40, 39}, {999, 1000, 39}, {1 << 40, 1 << 40, 40}} {
		if got := bar(test.n, test.most, barWidth); len(got) != test.want || got != string(bytes.Repeat([]byte("*"), test.want)) {
			t.Errorf("the bar of %d of %d is %q", test.n, test.most, got)
		}
	}
}
