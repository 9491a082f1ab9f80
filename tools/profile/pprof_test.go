package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// written gives the profile of a report as those see it who read it.
func written(t *testing.T, r *report) *profile.Profile {
	t.Helper()
	var b bytes.Buffer
	if err := writePprof(&b, r); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPprof(t *testing.T) {
	golden(t, "report.pprof.txt", []byte(written(t, testReport()).String()))
}

func TestPprofEvents(t *testing.T) {
	r := testReport()
	r.Event, r.Unit, r.Period, r.Hertz = "cycles", "count", 1_000_000, 0
	p := written(t, r)
	if got := p.SampleType[1]; len(p.SampleType) != 2 || got.Type != "cycles" || got.Unit != "count" || p.Sample[0].Value[1] != 5_000_000 {
		t.Errorf("cycles by a period: %v", p)
	}
	r.Period, r.Hertz, r.Stacks[0].Events = 0, 49, 1_234_567
	p = written(t, r)
	if got := p.SampleType[1]; got.Type != "cycles" || got.Unit != "count" || p.Sample[0].Value[0] != 5 || p.Sample[0].Value[1] != 1_234_567 {
		t.Errorf("cycles at a frequency: %v", p)
	}
	p = written(t, &report{Event: "cpu-clock", Unit: "nanoseconds", Period: 1})
	if len(p.Sample) != 0 {
		t.Errorf("nothing: %v", p)
	}
}

// TestPprofTool has pprof itself read it.
func TestPprofTool(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("SKIPPED: no go, to run its pprof: %v", err)
	}
	path := filepath.Join(t.TempDir(), "cpu.pb.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writePprof(f, testReport()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want []string }{
		{[]string{"-top", "-sample_index=samples"}, []string{"Type: samples", "Duration: 10s", "4000 76.26%", "std::vector<int>::push_back (inline)"}},
		{[]string{"-top"}, []string{"Type: cpu", "81.63s 76.26%"}},
		{[]string{"-peek", "vfs_read", "-sample_index=samples"}, []string{"1234   100% |   entry_SYSCALL_64_after_hwframe"}},
		{[]string{"-top", "-cum", "-nodefraction=0", "-tagroot", "comm", "-sample_index=samples"}, []string{"5235 99.81%  server", "8  0.15%  ja va 7"}},
		{[]string{"-top", "-nodefraction=0", "-tagfocus", "container=^0123", "-sample_index=samples"}, []string{"Showing nodes accounting for 5235"}},
		{[]string{"-top", "-nodefraction=0", "-tagfocus", "pid=2000:2000", "-sample_index=samples"}, []string{"Showing nodes accounting for 8"}},
		{[]string{"-raw"}, []string{"serve<r> 0123456789abcdef0123456789abcdef01234567 [FN][FL][LN][IN]", "thread:[worker]", "PeriodType: cpu nanoseconds"}},
	} {
		cmd := exec.Command(goTool, append(append([]string{"tool", "pprof", "-symbolize=none"}, test.args...), path)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("pprof %v: %v: %s", test.args, err, out)
		}
		for _, want := range test.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("pprof %v: no %q in:\n%s", test.args, want, out)
			}
		}
	}
}
