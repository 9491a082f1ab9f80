package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	for want, f := range map[string]figures{
		"–":         nil,
		"7":         {7},
		"3 (1 … 8)": {8, 1, 3},
		"4 (2 … 9)": {9, 3, 5, 2},
	} {
		if got := f.text("%.0f"); got != want {
			t.Errorf("%v: got %q, want %q", []float64(f), got, want)
		}
	}
}

// example has one tracer of each side, 1,000 opens a load, and two rounds.
func example() report {
	const us, ms = time.Microsecond, time.Millisecond
	bare := loadTime{elapsed: 1000 * us, busy: 900 * us, others: 100 * us}
	own := series{
		tracer: tracer{key: "gobcc", name: ownName, version: "opensnoop 1", ours: true},
		bare:   []loadTime{bare, bare},
		runs: []run{
			{load: loadTime{2000 * us, 1500 * us, 150 * us}, shown: 1000, cpu: 12 * ms, memory: memory{20e6, 8e6}, maps: 500e3, ready: 90 * ms, first: 95 * ms},
			{load: loadTime{2200 * us, 1500 * us, 150 * us}, shown: 1000, cpu: 14 * ms, memory: memory{22e6, 8e6}, maps: 500e3, ready: 80 * ms, first: 85 * ms},
		},
		idle: []run{{cpu: 10 * ms, ready: 70 * ms, first: 75 * ms}, {cpu: 10 * ms, ready: 70 * ms, first: 75 * ms}},
	}
	peer := series{
		tracer: tracer{key: "libbpf", name: "libbpf-tools", version: "0.1"},
		bare:   []loadTime{bare, bare},
		runs: []run{
			{load: loadTime{3000 * us, 2500 * us, 120 * us}, shown: 900, cpu: 11 * ms, memory: memory{4e6, 1e6}, maps: 80e6, first: 20 * ms},
			{load: loadTime{5400 * us, 2500 * us, 120 * us}, shown: 500, saidLost: true, cpu: 11 * ms, memory: memory{4e6, 1e6}, maps: 80e6, first: 20 * ms},
		},
		idle: []run{{cpu: 2 * ms, first: 20 * ms}, {cpu: 2 * ms, first: 20 * ms}},
	}
	scenario := opensnoop
	scenario.count = 1000
	return report{
		scenario: &scenario, machine: machine{kernel: "6.1.2", cpu: "Abacus", cpus: 2}, quiet: []series{own, peer},
		programs: []tracerPrograms{{own.tracer, []programTime{{"enter", 1000, 200 * ms}}}},
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	if err := example().write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Kernel 6.1.2, Abacus, 2 CPUs. One load is 1000 opens",
		"| libbpf-tools | 0.1 |\n",
		"Without a tracer an open took 1000 (1000 … 1000) ns.",
		"| gobcc | 1100 (1000 … 1200) | 600 (600 … 600) | 50 (50 … 50) | 100.000 (100.000 … 100.000) | nothing to say |" +
			" 3000 (2000 … 4000) | 21.0 (20.0 … 22.0) | 13.0 (12.0 … 14.0) | 500 (500 … 500) | 75 (70 … 90) | 80 (75 … 95) |\n",
		"| libbpf-tools | 3200 (2000 … 4400) | 1600 (1600 … 1600) | 20 (20 … 20) | 70.000 (50.000 … 90.000) | in 1 of 2 runs |" +
			" 14000 (10000 … 18000) | 4.0 (4.0 … 4.0) | 3.0 (3.0 … 3.0) | 80000 (80000 … 80000) | – | 20 (20 … 20) |\n",
		"| gobcc | enter | 1000 | 200000 | 200 |\n",
		"| added time an open, of libbpf-tools' | at most 0.60 | 0.34 | yes |\n",
		"| tracer's CPU a row, of libbpf-tools' | at most 0.50 | 0.21 | yes |\n",
		"| opens without a row, all rounds | 0 | 0 | yes |\n",
		"| start to ready, ms | at most 150 | 75 | yes |\n",
		"| peak memory beside the ring, MB | at most 25.0 | 14.0 | yes |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestMissedTargets(t *testing.T) {
	r := example()
	r.quiet[0].runs[1].shown--
	r.quiet[0].runs[1].memory.peak = 40e6
	var missed []string
	for _, target := range r.targets() {
		if !target.met {
			missed = append(missed, target.what+" "+target.got)
		}
	}
	if got, want := strings.Join(missed, "; "), "opens without a row, all rounds 1; peak memory beside the ring, MB 32.0"; got != want {
		t.Errorf("missed %q, want %q", got, want)
	}
	r.quiet = r.quiet[1:]
	if got := r.targets(); got != nil {
		t.Errorf("targets without gobcc's opensnoop: %v", got)
	}
}

// A tool that counts has no rows, and the run times of its programs in each round.
func TestCountedReport(t *testing.T) {
	r := example()
	scenario := biolatency
	scenario.count = 1000
	r.scenario, r.busy = &scenario, r.quiet
	for i, took := range []time.Duration{100 * time.Microsecond, 200 * time.Microsecond} {
		r.quiet[i].stats = []run{{programs: []programTime{{"issue", 1000, took}, {"complete", 1000, took}}}}
	}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| tracer | added µs a request | its BPF programs, ns a request | of it CPU time | added ns another call | requests shown, % |" +
			" said that it lost | tracer's CPU, ms in all |",
		"| start to ready, ms | start to first count, ms |",
		"| gobcc | 1.10 (1.00 … 1.20) | 200 | 0.60 (0.60 … 0.60) | 50 (50 … 50) | 100.000 (100.000 … 100.000) | nothing to say | 13 (12 … 14) |",
		"| added time a request, of libbpf-tools' | at most 0.80 | 0.34 | yes |\n",
		"| its BPF programs a request, of libbpf-tools' | at most 0.80 | 0.50 | yes |\n",
		"| requests not counted, all rounds | 0 | 0 | yes |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestExecReport(t *testing.T) {
	r := example()
	scenario := execsnoop
	scenario.count = 1000
	r.scenario, r.busy = &scenario, r.quiet
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"One load is 1000 execs of a static program",
		"### execsnoop: the machine as it is (rounds: 2)\n",
		"Without a tracer an exec took 1.0 (1.0 … 1.0) µs.",
		"| tracer | added µs an exec | of it CPU time | added ns another call | execs shown, % |",
		"| gobcc | 1.1 (1.0 … 1.2) | 0.6 (0.6 … 0.6) | 50 (50 … 50) | 100.000",
		"### execsnoop: from 4 processes at once, on all CPUs (rounds: 2)\n",
		"| added time an exec, of libbpf-tools' | at most 0.50 | 0.34 | yes |\n",
		"| execs without a row, all rounds | 0 | 0 | yes |\n",
		"| BPF maps beside buffers, KB | at most 2000 | 500 | yes |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "tracer's CPU a row, of libbpf-tools'") {
		t.Error("a target that there is none of")
	}
	// What many processes at once have lost counts too.
	r.busy = []series{{tracer: r.quiet[0].tracer, runs: []run{{shown: 998}}}}
	if targets := r.targets(); targets[1].got != "2" || targets[1].met {
		t.Errorf("%+v", targets[1])
	}
}

func TestConnectReport(t *testing.T) {
	r := example()
	scenario := tcpconnect
	scenario.count = 1000
	r.scenario = &scenario
	filtered := r.quiet[0]
	filtered.tracer.name, filtered.tracer.none = ownName+" -P", true
	filtered.runs = []run{{load: filtered.runs[0].load}, {load: filtered.runs[1].load}}
	r.quiet = []series{r.quiet[0], filtered}
	r.packets = []packetCost{{r.quiet[0].tracer, "udp", figures{8000}, figures{140}}}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Without a tracer a connect took 1.00 (1.00 … 1.00) µs.",
		"| tracer | added µs a connect | of the bare one, % | of it CPU time |",
		"| gobcc | 1.10 (1.00 … 1.20) | 110.0 (100.0 … 120.0) | 0.60",
		"| 0.000 (0.000 … 0.000) | filtered out |",
		"| gobcc | UDP | 8000 | 140 |\n",
		"| added time a connect, of the bare one | at most 0.030 | 1.100 | no |\n",
		"| connects without a row, all rounds | 0 | 0 | yes |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	// Beside libbpf-tools' it is that one's share that counts.
	r.quiet = example().quiet
	if targets := r.targets(); targets[0].what != "added time a connect, of libbpf-tools'" {
		t.Errorf("%+v", targets[0])
	}
}

func TestRecord(t *testing.T) {
	begin, end := recordMarks("opensnoop")
	otherBegin, otherEnd := recordMarks("execsnoop")
	file := filepath.Join(t.TempDir(), "speed.md")
	other := otherBegin + "another tool's\n" + otherEnd
	if err := os.WriteFile(file, []byte("# Speed\n"+begin+"old\n"+end+"between\n"+other), 0o644); err != nil {
		t.Fatal(err)
	}
	r := example()
	// Twice, as what the first leaves must do for the second.
	for range 2 {
		if err := record(file, "opensnoop", r.write); err != nil {
			t.Fatal(err)
		}
	}
	var tables bytes.Buffer
	if err := r.write(&tables); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Speed\n" + begin + "\n" + tables.String() + "\n" + end + "between\n" + other; string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	for what, text := range map[string]string{"the wrong order": end + begin, "no end": begin, "another tool": other} {
		if _, err := replaceRecord([]byte(text), "opensnoop", nil); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// The documents have a place for every tool.
func TestDocumentsHavePlaces(t *testing.T) {
	for _, tool := range toolNames() {
		if err := checkRecord("../docs/speed.md", tool); err != nil {
			t.Error(err)
		}
	}
	if err := checkRecord("../docs/compare.md", ""); err != nil {
		t.Error(err)
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel(strings.NewReader("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n")); got != "AMD EPYC" {
		t.Errorf("got %q", got)
	}
	if got := cpuModel(strings.NewReader("processor\t: 0\nCPU part\t: 0xd0c\n")); got != "" {
		t.Errorf("without a model name: got %q", got)
	}
}
