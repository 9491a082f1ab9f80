package main

import (
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSampleRows(t *testing.T) {
	// As each tracer wrote it, but for the length of the stacks.
	for _, c := range []struct {
		key, output          string
		shown, missed, depth int64
		lost                 int64
	}{
		{key: "gobcc", shown: 15, depth: 3, output: `burnload 3
burnload;runtime.goexit;main.work;main.burn 10
burnload;runtime.goexit;main.work;main.burn;asm_sysvec_apic_timer_interrupt;handle_softirqs 2
burnloader;_start 100
qemu-system-x86;start_thread;burnload 7
`},
		{key: "libbpf", shown: 55, missed: 30, depth: 2, output: `burnload;runtime.goexit.abi0;main.work 25
burnload;[Missed User Stack] 30
swapper/0;[Missed Kernel Stack] 50
`},
		{key: "bpftrace", shown: 1604, output: `
@[
        main.work+5
        0x484df8
, 
, burnload]: 1604
@[
        0x47c201
, 
, burnloads]: 20
`},
		{key: "perf", shown: 2, lost: 7, output: `burnload  4135 [000] 32387.760104:    1001001 cpu-clock: 
	           84efd main.hot+0xbd (/tmp/pbt/burnload)
	           84df8 main.dig+0x18 (/tmp/burnload cpu-clock:)

swapper     0 [001] 32387.760108:    1001001 cpu-clock: 
	ffffffff81c01bbb pv_native_safe_halt+0xb ([kernel.kallsyms])

swapper     0 [001] 32387.760110: PERF_RECORD_LOST lost 3
burnload  4135 [000] 32387.761104: PERF_RECORD_LOST_SAMPLES lost 4
        burnload  4135 [000] 32387.761105:    1001001 cpu-clock:            84efd main.hot+0xbd (/tmp/burnload)
`},
	} {
		s := sampleRows{key: c.key, comm: []byte("burnload"), frames: map[int]int64{}}
		if err := s.read(strings.NewReader(c.output)); err != nil {
			t.Fatal(err)
		}
		if s.shown != c.shown || s.missed != c.missed || int64(s.depth()) != c.depth || s.lost != c.lost {
			t.Errorf("%s: %d shown, %d of them without a stack, of %d frames; %d lost; want %+v", c.key, s.shown, s.missed, s.depth(), s.lost, c)
		}
	}
}

func TestSaidLost(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0,
		"profile: lost 20 events: 20 as the ring buffer was full\n" +
			"profile: 594 samples by cpu-clock at 99 Hertz, of 2 CPUs in 3s: 574 shown, 0 idle, 0 filtered, 20 lost; 1 user stacks were cut": 20,
		"12 filtered, 0 lost": 0,
		"Could not open /memfd:x (deleted)\nWARNING: 147 stack traces could not be displayed. Consider increasing --stack-storage-size.": 147,
		`stdin:1:50-57: WARNING: Map full; can't update element. Try increasing max_map_keys config
profile:hz:999 /pid/ { @[ustack, kstack, comm] = count(); }
                                                 ~~~~~~~
Additional Info - helper: map_update_elem, retcode: -7
`: 1,
	} {
		if got := saidLost([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
		// In parts, and more than what is kept.
		var l lastBytes
		for range 1000 {
			for part := range slices.Chunk([]byte(text+"\n"), 13) {
				if _, err := l.Write(part); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := l.lost(); got != 1000*want {
			t.Errorf("%q, 1000 times: %d", text, got)
		}
	}
}

func TestRates(t *testing.T) {
	perf := perfTracer("", "/usr/bin/perf", "7.0")
	all := atRates([]tracer{perf, {key: "bpftrace", argv: []string{"bpftrace", "-e", "profile:hz:" + hertzHere + " {}"}}}, []int{49, 999})
	var commands []string
	for _, tr := range all {
		tr = tr.fillIn("/x/y")
		commands = append(commands, strings.Join(slices.Concat(tr.argv, tr.after), " "))
	}
	want := []string{
		"/usr/bin/perf record -a -g -e cpu-clock -F 49 -o /x/y --control fd:5,4 /usr/bin/perf script -i /x/y --no-inline --show-lost-events",
		"bpftrace -e profile:hz:49 {}",
		"/usr/bin/perf record -a -g -e cpu-clock -F 999 -o /x/y --control fd:5,4 /usr/bin/perf script -i /x/y --no-inline --show-lost-events",
		"bpftrace -e profile:hz:999 {}",
	}
	if !slices.Equal(commands, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(commands, "\n"), strings.Join(want, "\n"))
	}
}

func TestSampleTime(t *testing.T) {
	before := []programTime{{"begin", 1, 5000}, {"sample", 100, 1_000_000}}
	after := []programTime{{"begin", 1, 5000}, {"other", 20, 2000}, {"sample", 300, 1_800_000}}
	got, err := sampleTime(since(before, after))
	if want := (800_000 + 2000) / 200.0; err != nil || math.Abs(got-want) > 1e-9 {
		t.Errorf("%f ns, want %f; %v", got, want, err)
	}
	if _, err := sampleTime(since(after, after)); err == nil {
		t.Error("nothing ran, which is no error")
	}
}

func TestWatchPeak(t *testing.T) {
	peak := watchPeak(os.Getpid())
	if n := peak(); n < 1<<20 {
		t.Errorf("%d bytes", n)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if n := watchPeak(gone.Process.Pid)(); n != 0 {
		t.Errorf("%d bytes of a process that is gone", n)
	}
}

func TestSampledReport(t *testing.T) {
	const ms = time.Millisecond
	scenario := profile
	scenario.count, scenario.rates, scenario.depths = 1000, []int{99, 999}, []int{8, 32}
	bare := loadTime{elapsed: 1000 * ms, busy: 1000 * ms}
	own := tracer{key: "gobcc", name: ownName, version: "profile 1", ours: true}
	perf := perfTracer("", "perf", "7.0")
	of := func(t tracer, hertz int, r ...run) series {
		t.hertz = hertz
		return series{tracer: t, bare: []loadTime{bare, bare}[:len(r)], runs: r}
	}
	own.hertz = 99
	r := report{
		scenario: &scenario, machine: machine{kernel: "6.1.2", cpu: "Abacus", cpus: 2},
		quiet: []series{
			of(own, 99,
				run{load: loadTime{elapsed: 1010 * ms, busy: 1000 * ms}, shown: 99, cpu: 300 * ms, memory: memory{60e6, 20e6}, maps: 200e3, ready: 90 * ms, first: 100 * ms, output: 200 * ms},
				run{load: loadTime{elapsed: 1030 * ms, busy: 1010 * ms}, shown: 98, missed: 49, lost: 1, cpu: 300 * ms, memory: memory{120e6, 20e6}, maps: 200e3, ready: 90 * ms, first: 120 * ms, output: 1200 * ms}),
			of(perf, 99, run{load: bare, shown: 99, cpu: 900 * ms, memory: memory{peak: 40e6}, ready: 400 * ms, output: 900 * ms}),
			of(perf, 999, run{load: bare, shown: 999, cpu: 950 * ms, memory: memory{peak: 45e6}, ready: 450 * ms, output: 950 * ms}),
		},
		depths: []depthCost{{own, []float64{9000, 22000}, []int{8, 31}}},
	}
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Kernel 6.1.2, Abacus, 2 CPUs. One load is 1000 stretches of work",
		"| gobcc | profile 1 |\n| perf | 7.0 |\n",
		"| tracer | Hertz | 8 frames | 32 frames |\n|---|---|---|---|\n| gobcc | 99 | 9000 | 22000 (it shows 31) |\n",
		"Without a tracer a load took 1000 (1000 … 1000) ms.\n",
		"| gobcc | 2.00 (1.00 … 3.00) | 0.50 (0.00 … 1.00) | 99.0 (98.0 … 100.0) | 25.0 (0.0 … 50.0) | 0 (0 … 1) | 300 (300 … 300) |" +
			" 90.0 (60.0 … 120.0) | 70.0 (40.0 … 100.0) | 200 (200 … 200) | 90 (90 … 90) | 110 (100 … 120) | 700 (200 … 1200) |\n",
		"| at 999 Hertz | load slowed down, % |",
		"| perf | 0.00 | 0.00 | 100.0 | 0.0 | 0 | 950 | 45.0 | 45.0 | 0 | 450 | – | 950 |\n",
		"| BPF time of a sample of 32 frames at 99 Hertz, ns | at most 20000 | 22000 | no |\n",
		"| samples lost, as it says, all rounds | at most 0 | 1 | no |\n",
		"| start to first sample, ms | at most 500 | 110 | yes |\n",
		"| end to output, ms | at most 1000 | 1200 | no |\n",
		"| peak memory, MB | at most 100.0 | 120.0 | no |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	r.quiet = r.quiet[1:]
	if got := r.targets(); got != nil {
		t.Errorf("targets without gobcc's profile: %v", got)
	}
}
