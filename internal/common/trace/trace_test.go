package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/command"
	"github.com/gobcc/gobcc/internal/common/diagnose"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/output"
)

func TestMain(m *testing.M) {
	command.Main()
	os.Exit(m.Run())
}

// object is as much of a tool's object as is looked at before it is loaded.
func object(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	b, err := btf.NewBuilder([]btf.Type{
		&btf.Enum{Name: "lost_cause", Size: 4, Values: []btf.EnumValue{{Name: "LOST_CAUSES"}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	types, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return &ebpf.CollectionSpec{
		Maps:      map[string]*ebpf.MapSpec{"events": {Type: ebpf.RingBuf}},
		Variables: map[string]*ebpf.VariableSpec{"ring_wakeup_shift": {Value: make([]byte, 1)}},
		Types:     types,
	}
}

func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	fs := pflag.NewFlagSet("tool", pflag.ContinueOnError)
	o := Flags(fs)
	o.Filter.PIDFlag("p")
	o.Filter.TIDFlag("t")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCheck(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		args    string
		command []string
		want    string // "" for none
	}{
		{"", nil, ""},
		{"--attach auto", nil, ""},
		{"--attach fentry", nil, ""},
		{"--attach kprobe", nil, ""},
		{"--attach tracepoint -b 1", nil, ""},
		{"--attach uprobe", nil, `--attach: there is no mode "uprobe"`},
		{"--attach=", nil, `--attach: there is no mode ""`},
		{"--attach Kprobe", nil, `--attach: there is no mode "Kprobe"`},
		{"-b 0", nil, "--buffer-pages: a ring buffer of 0 pages"},
		{"-b -8", nil, "--buffer-pages: a ring buffer of -8 pages"},
		{"-b 262145", nil, "--buffer-pages: a ring buffer of 262145 pages"},
		{"--run-as root", nil, "--run-as needs a command"},
		{"--run-as root", []string{"true"}, ""},
		{"-p " + self, []string{"true"}, "-p and a command exclude each other"},
		{"-p " + self, nil, ""},
	} {
		err := parse(t, strings.Fields(test.args)...).check(&Tool{Spec: object(t), Command: test.command})
		var usage *cli.Usage
		if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &usage) || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: %v", test.args, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	o, spec := parse(t), object(t)
	if err := o.check(&Tool{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if size := spec.Maps["events"].MaxEntries; size != 8<<20 {
		t.Errorf("the ring has %d bytes", size)
	}
	if o.JSON || o.duration != 0 || o.verbose || o.stats || o.preflight || o.attach != "auto" {
		t.Errorf("%+v", o)
	}
}

// run is a Run whose losses are what the given function says.
func run(t *testing.T, missed func() uint64, args ...string) (r *Run, stdout, stderr *bytes.Buffer) {
	t.Helper()
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	env := &cli.Env{Name: "tool", Stdout: stdout, Stderr: stderr}
	losses, err := events.NewLosses(object(t))
	if err != nil {
		t.Fatal(err)
	}
	losses.Open(&ebpf.Collection{}, missed)
	opts := parse(t, args...)
	return &Run{Out: output.NewWriter(stdout), env: env, opts: opts, tool: &Tool{}, losses: losses, set: &attach.Set{}}, stdout, stderr
}

func TestLossesAreSaidWhenTheyGrow(t *testing.T) {
	var possible uint64
	r, stdout, stderr := run(t, func() uint64 { return possible })
	for _, step := range []struct {
		possible uint64
		want     string
	}{
		{0, ""},
		{3, "tool: may have lost up to 3 events: so often the kernel skipped a program that was busy\n"},
		{3, ""},
		{4, "tool: may have lost up to 4 events: so often the kernel skipped a program that was busy\n"},
		{4, ""},
	} {
		possible = step.possible
		stderr.Reset()
		if err := r.sayLosses(); err != nil || stderr.String() != step.want {
			t.Errorf("%d: %v, %q", possible, err, stderr.String())
		}
	}
	if err := r.Out.Flush(); err != nil || stdout.Len() > 0 {
		t.Errorf("standard output has %q, %v", stdout, err)
	}
}

func TestLossesInJSON(t *testing.T) {
	r, stdout, stderr := run(t, func() uint64 { return 2 }, "--json")
	before := time.Now()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Time         time.Time
		Kind         string
		Lost         uint64
		PossiblyLost uint64 `json:"possibly_lost"`
		Causes       map[string]uint64
	}
	d := json.NewDecoder(stdout)
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != "lost" || got.Lost != 0 || got.PossiblyLost != 2 || len(got.Causes) != 0 {
		t.Errorf("%+v", got)
	}
	if got.Time.Before(before) || got.Time.After(time.Now()) || got.Time.Location() != time.UTC {
		t.Errorf("the time is %v", got.Time)
	}
	if d.More() || !strings.HasPrefix(stderr.String(), "tool: may have lost up to 2 events") {
		t.Errorf("standard error has %q", stderr)
	}
}

// Losses are looked for once a second at most, and rows go out at each drain.
func TestDrained(t *testing.T) {
	reads := 0
	r, stdout, _ := run(t, func() uint64 { reads++; return 0 })
	for i := range 5 {
		if err := r.Out.EndRow(append(r.Out.Row(), "row\n"...)); err != nil {
			t.Fatal(err)
		}
		if err := r.drained(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(stdout.String(), "row\n"); got != i+1 {
			t.Errorf("%d rows after %d", got, i+1)
		}
	}
	if reads != 1 {
		t.Errorf("losses were looked for %d times", reads)
	}
	r.lossTime = r.lossTime.Add(-lossInterval)
	if err := r.drained(); err != nil || reads != 2 {
		t.Errorf("losses were looked for %d times, %v", reads, err)
	}
}

// A run whose only thread has ended says so and ends; with a command, that is
// waited for.
func TestStopIfEnded(t *testing.T) {
	for _, test := range []struct {
		args    string
		command bool
		stops   bool
	}{
		{"", false, false},
		{"-t " + strconv.Itoa(os.Getpid()), false, false},
		{"-t 2147483647", false, true},
		{"-t 2147483647", true, false},
	} {
		r, _, stderr := run(t, func() uint64 { return 0 }, strings.Fields(test.args)...)
		ctx, stop := context.WithCancel(context.Background())
		r.stop = stop
		if test.command {
			r.ended = make(chan ending, 1)
		}
		if err := r.drained(); err != nil {
			t.Fatal(err)
		}
		if stopped := ctx.Err() != nil; stopped != test.stops || stopped != strings.Contains(stderr.String(), "has ended") {
			t.Errorf("%s, command %v: stopped %v, %q", test.args, test.command, stopped, stderr)
		}
		stop()
	}
}

func TestStatusIsTheCommands(t *testing.T) {
	r := &Run{}
	if err := r.status(); err != nil {
		t.Errorf("without a command: %v", err)
	}
	broken := errors.New("broken")
	for _, test := range []struct {
		ending ending
		want   error
	}{{ending{}, nil}, {ending{status: 7}, cli.Status(7)}, {ending{err: broken}, broken}} {
		r.ended = make(chan ending, 1)
		r.ended <- test.ending
		if err := r.status(); !errors.Is(err, test.want) {
			t.Errorf("%+v: %v", test.ending, err)
		}
	}
}

func TestABadTypesFileIsBadUsage(t *testing.T) {
	for _, file := range []string{"trace_test.go", "/no/such/file", "/dev/null"} {
		_, err := parse(t, "--btf", file).openKernel()
		var usage *cli.Usage
		if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), "--btf: ") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestMode(t *testing.T) {
	r := &Run{set: &attach.Set{Results: []attach.Result{
		{Hook: &attach.Hook{Name: "a"}, Mode: attach.Kprobe}, {Hook: &attach.Hook{Name: "b"}},
	}}}
	for hook, want := range map[string]attach.Mode{"a": attach.Kprobe, "b": "", "c": ""} {
		if got := r.Mode(hook); got != want {
			t.Errorf("%s: %q", hook, got)
		}
	}
}

func TestEndFinishesBeforeTheLosses(t *testing.T) {
	r, stdout, stderr := run(t, func() uint64 { return 1 })
	r.tool.Finish = func(r *Run) error {
		if stderr.Len() > 0 {
			t.Error("losses came first")
		}
		return r.Out.EndRow(append(r.Out.Row(), "total\n"...))
	}
	if err := r.end(); err != nil || stdout.String() != "total\n" || stderr.Len() == 0 {
		t.Errorf("%v, %q, %q", err, stdout, stderr)
	}
	r, stdout, _ = run(t, func() uint64 { return 0 })
	want := errors.New("no total")
	r.tool.Finish = func(*Run) error { return want }
	if err := r.end(); err != want || stdout.Len() > 0 {
		t.Errorf("%v, %q", err, stdout)
	}
}

func TestBegin(t *testing.T) {
	hook := attach.Hook{Name: "calls", Sees: "calls"}
	for _, test := range []struct{ args, stdout, stderr string }{
		{"", "PID COMM\n", "tool: not seen here: calls\n"},
		{"--json", "", "tool: not seen here: calls\n"},
	} {
		r, stdout, stderr := run(t, func() uint64 { return 0 }, strings.Fields(test.args)...)
		r.tool.Header = "PID COMM"
		r.set = &attach.Set{Results: []attach.Result{{Hook: &hook, Blind: []string{"calls"}}}}
		if err := r.begin(); err != nil || stdout.String() != test.stdout || stderr.String() != test.stderr {
			t.Errorf("%s: %v, %q, %q", test.args, err, stdout, stderr)
		}
	}
	r, _, stderr := run(t, func() uint64 { return 0 }, "-v")
	r.set = &attach.Set{Results: []attach.Result{{
		Hook: &hook, Mode: attach.Kprobe, LeftOut: []string{"f", "g"}, Spares: 2,
		Refused: []attach.Refusal{{Mode: attach.Fentry, Err: errors.New("no BTF")}},
	}}}
	if err := r.begin(); err != nil {
		t.Fatal(err)
	}
	want := "tool: calls: by kprobe\ntool: calls: with 2 spares, as the kernel skips a program on a CPU where it runs already\ntool: calls: not by fentry: no BTF\ntool: calls: this kernel has no f, g\ntool: kernel "
	if !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("-v says %q", stderr)
	}
}

// A test can wait for a tool to be ready without looking at what it prints.
func TestReady(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fd, err := unix.Dup(int(writer.Fd())) // which is inherited, as dup's are
	if err != nil {
		t.Fatal(err)
	}
	writer.Close()
	t.Setenv(readyFD, strconv.Itoa(fd))
	r, _, _ := run(t, nil)
	if err := r.takeReady(); err != nil {
		t.Fatal(err)
	}
	if _, ok := os.LookupEnv(readyFD); ok {
		t.Errorf("a command would inherit %s", readyFD)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("a command would inherit the descriptor: %#x, %v", flags, err)
	}
	if err := r.tellReady(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != "\n" {
		t.Errorf("was told %q, %v", got, err)
	}
}

func TestReadyRefusesWhatIsNoDescriptor(t *testing.T) {
	for _, name := range []string{"", "-1", "x", "99999999999"} {
		t.Setenv(readyFD, name)
		r, _, _ := run(t, nil)
		if err := r.takeReady(); err == nil || !strings.Contains(err.Error(), readyFD) {
			t.Errorf("%q: %v", name, err)
		}
	}
	os.Unsetenv(readyFD)
	r, _, _ := run(t, nil)
	if err := errors.Join(r.takeReady(), r.tellReady()); err != nil {
		t.Errorf("without %s: %v", readyFD, err)
	}
}

func TestPassHandsTheSignalToTheCommand(t *testing.T) {
	stdout, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	stdin, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	// It ends by itself with the test, and says when its trap is set.
	cmd, err := command.Start([]string{"sh", "-c", `trap "exit 42" TERM; echo ready; read line`}, command.Options{Stdin: stdin, Stdout: writer})
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	writer.Close()
	defer cmd.Close()
	if err := cmd.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	// A run that ends for another reason leaves the command alone; if it did
	// not, the status would be another.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	pass(ended, cmd)
	interrupted, interrupt := context.WithCancelCause(context.Background())
	interrupt(&cli.Interrupted{Signal: syscall.SIGTERM})
	pass(interrupted, cmd)
	if status, err := cmd.Wait(); err != nil || status != 42 {
		t.Errorf("status %d, %v", status, err)
	}
	pass(interrupted, cmd) // it has ended: nothing happens
}

func TestStartCommandIsFollowed(t *testing.T) {
	o := parse(t)
	if cmd, err := o.startCommand(&Tool{}); cmd != nil || err != nil || o.Filter.Follow {
		t.Fatalf("without a command: %v, %v", cmd, err)
	}
	cmd, err := o.startCommand(&Tool{Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Close()
	if !o.Filter.Follow || len(o.Filter.PIDs) != 1 || int(o.Filter.PIDs[0]) != cmd.Pid() {
		t.Errorf("follows %v: %v, and the command is %d", o.Filter.PIDs, o.Filter.Follow, cmd.Pid())
	}
}

func TestStartCommandFails(t *testing.T) {
	for program, want := range map[string]int{"/no/such/program": 127, "/etc/passwd": 126, "/etc": 126} {
		_, err := parse(t).startCommand(&Tool{Command: []string{program}})
		var bad *command.Error
		if !errors.As(err, &bad) || bad.Status != want {
			t.Errorf("%s: %v, not status %d", program, err, want)
		}
	}
}

// reports are those of a kernel with an old fentry, and of one with nothing.
func reports() ([]diagnose.Fact, []modeReport) {
	hook, extra := &attach.Hook{Name: "calls"}, &attach.Hook{Name: "extra"}
	facts := []diagnose.Fact{
		{Name: "BTF", OK: diagnose.Yes, Detail: "/sys/kernel/btf/vmlinux"},
		{Name: "tracefs", OK: diagnose.No, Detail: "not mounted", Remedy: "mount it"},
	}
	return facts, []modeReport{
		{mode: attach.Auto, results: []attach.Result{
			{
				Hook: hook, Mode: attach.Kprobe, LeftOut: []string{"f"}, Blind: []string{"early failures"},
				Refused: []attach.Refusal{{Mode: attach.Fentry, Err: errors.New("no \"BTF\"")}},
			},
			{Hook: extra, Blind: []string{"extras"}},
		}},
		{mode: attach.Fentry, err: errors.New("no \"BTF\"")},
	}
}

func TestPreflightText(t *testing.T) {
	var b bytes.Buffer
	facts, modes := reports()
	if err := preflightText(&b, facts, modes); err != nil {
		t.Fatal(err)
	}
	const want = `BTF                          yes      /sys/kernel/btf/vmlinux
tracefs                      no       not mounted (mount it)

--attach auto               yes
  calls: by kprobe
  calls: not by fentry: no "BTF"
  calls: this kernel has no f
  not seen: early failures
  extra: can't be had
  not seen: extras

--attach fentry             no       no "BTF"
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPreflightJSON(t *testing.T) {
	var b bytes.Buffer
	w := output.NewWriter(&b)
	facts, modes := reports()
	if err := errors.Join(preflightJSON(w, facts, modes), w.Flush()); err != nil {
		t.Fatal(err)
	}
	const want = `{"kind":"fact","name":"BTF","ok":"yes","detail":"/sys/kernel/btf/vmlinux","remedy":""}
{"kind":"fact","name":"tracefs","ok":"no","detail":"not mounted","remedy":"mount it"}
{"kind":"mode","mode":"auto","ok":true,"hooks":[{"name":"calls","mode":"kprobe","left_out":["f"],"not_seen":["early failures"],"refused":[{"mode":"fentry","reason":"no \"BTF\""}]},{"name":"extra","mode":null,"left_out":[],"not_seen":["extras"],"refused":[]}]}
{"kind":"mode","mode":"fentry","ok":false,"reason":"no \"BTF\"","hooks":[]}
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for line := range strings.Lines(b.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}
