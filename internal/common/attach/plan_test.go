package attach

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// fakeKernel is a kernel that has these types and allows every kind of program.
func fakeKernel(t *testing.T, types ...btf.Type) *Kernel {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{types: spec, native: true, tried: map[string]error{}}
	for _, p := range []*ebpf.ProgramSpec{fexit("", ""), fentry("", ""), kprobe("", ""), tpBTF("", ""), rawTP("", "")} {
		k.allow(p, nil)
	}
	return k
}

// allow says what trying a program of p's kind comes to.
func (k *Kernel) allow(p *ebpf.ProgramSpec, err error) {
	k.tried[p.Type.String()+p.AttachType.String()] = err
}

func function(name string, p *btf.FuncProto) btf.Type {
	named := *p
	named.Params = slices.Clone(p.Params)
	for i := range named.Params {
		named.Params[i].Name = fmt.Sprint("a", i)
	}
	return &btf.Func{Name: name, Type: &named, Linkage: btf.StaticFunc}
}

// tracepointType is what the kernel's types say of a tracepoint: its private
// data come first.
func tracepointType(name string, params ...btf.Type) btf.Type {
	params = append([]btf.Type{pointer(&btf.Void{})}, params...)
	return &btf.Typedef{Name: "btf_trace_" + name, Type: pointer(proto(&btf.Void{}, params...))}
}

func program(name, section, target string, typ ebpf.ProgramType, attach ebpf.AttachType) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: name, SectionName: section + "/" + target, AttachTo: target, Type: typ, AttachType: attach}
}

func fexit(name, target string) *ebpf.ProgramSpec {
	return program(name, "fexit", target, ebpf.Tracing, ebpf.AttachTraceFExit)
}

func fentry(name, target string) *ebpf.ProgramSpec {
	return program(name, "fentry", target, ebpf.Tracing, ebpf.AttachTraceFEntry)
}

func kprobe(name, target string) *ebpf.ProgramSpec {
	return program(name, "kprobe", target, ebpf.Kprobe, ebpf.AttachNone)
}

func tpBTF(name, target string) *ebpf.ProgramSpec {
	return program(name, "tp_btf", target, ebpf.Tracing, ebpf.AttachTraceRawTp)
}

func rawTP(name, target string) *ebpf.ProgramSpec {
	return program(name, "raw_tp", target, ebpf.RawTracepoint, ebpf.AttachNone)
}

// toolSpec is the object of a tool that sees two functions by fexit or kprobe,
// or both by a tracepoint.
func toolSpec(t *testing.T) *ebpf.CollectionSpec {
	regs := pointer(&btf.Const{Type: regsType})
	spec := objectWith(t, map[string]btf.Type{
		"syscall":  pointer(proto(longType, regs)),
		"sys_exit": pointer(proto(&btf.Void{}, pointer(regsType), longType)),
	})
	for _, p := range []*ebpf.ProgramSpec{
		fexit("a_fexit", "__x64_sys_a"), fexit("b_fexit", "__x64_sys_b"),
		kprobe("a_kprobe", "__x64_sys_a"), kprobe("b_kprobe", "__x64_sys_b"),
		tpBTF("exit_tp", "sys_exit"), rawTP("exit_raw", "sys_exit"),
		tpBTF("extra_tp", "extra"), rawTP("extra_raw", "extra"),
	} {
		spec.Programs[p.Name] = p
	}
	return spec
}

func toolHooks() []Hook {
	return []Hook{
		{
			Name: "calls", Sees: "calls",
			Choices: []Choice{
				Choose(Fentry, []string{"a", "b"}, "fexit").Without("early failures"),
				Choose(Kprobe, []string{"a", "b"}, "kprobe"),
				{Mode: Tracepoint, Programs: []string{"exit"}, Needs: []string{"exit"}},
			},
		},
		{
			Name: "extra", Sees: "extras", Optional: true,
			Choices: []Choice{{Mode: Auto, Programs: []string{"extra"}, Needs: []string{"extra"}}},
		},
	}
}

// The types of a kernel on which toolHooks can have everything.
func syscallFunction(name string) btf.Type {
	return function(name, proto(longType, pointer(&btf.Const{Type: regsType})))
}

func sysExit() btf.Type { return tracepointType("sys_exit", pointer(regsType), longType) }

func fullKernel(t *testing.T, more ...btf.Type) *Kernel {
	return fakeKernel(t, append(more, syscallFunction("__x64_sys_a"), syscallFunction("__x64_sys_b"), sysExit(), tracepointType("extra", intType))...)
}

func TestChoose(t *testing.T) {
	c := Choose(Kprobe, []string{"a", "b"}, "kretprobe", "kprobe").Without("x").Without("y", "z")
	if got := strings.Join(c.Programs, " "); got != "a_kretprobe a_kprobe b_kretprobe b_kprobe" {
		t.Errorf("programs %s", got)
	}
	if got := strings.Join(c.Needs, " "); got != "a_kretprobe a_kprobe" {
		t.Errorf("needs %s", got)
	}
	if len(c.Repeatable) > 0 || !slices.Equal(c.Repeating().Repeatable, c.Needs) {
		t.Errorf("%v and %v may be repeated", c.Repeatable, c.Repeating().Repeatable)
	}
	if got := strings.Join(c.Blind, " "); c.Mode != Kprobe || got != "x y z" {
		t.Errorf("mode %s, blind to %s", c.Mode, got)
	}
}

// outcome writes results down: "calls=fentry[a_fexit b_fexit] extra=…".
func outcome(results []Result) string {
	var b strings.Builder
	for i, r := range results {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%s%v", r.Hook.Name, r.Mode, r.chosen)
		for _, f := range r.Refused {
			fmt.Fprintf(&b, " not %s (%v)", f.Mode, f.Err)
		}
		if len(r.LeftOut) > 0 {
			fmt.Fprintf(&b, " without %v", r.LeftOut)
		}
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	refused := errors.New("refused")
	otherReturn := function("__x64_sys_a", proto(intType, pointer(&btf.Const{Type: regsType})))
	for _, test := range []struct {
		what   string
		kernel *Kernel
		change func(*Kernel)
		mode   Mode
		want   string
	}{
		{what: "all there", kernel: fullKernel(t), want: "calls=fentry[a_fexit b_fexit] extra=tracepoint[extra_tp]"},
		{what: "asked for kprobe", kernel: fullKernel(t), mode: Kprobe, want: "calls=kprobe[a_kprobe b_kprobe] extra=tracepoint[extra_tp]"},
		{what: "asked for tracepoint", kernel: fullKernel(t), mode: Tracepoint, want: "calls=tracepoint[exit_tp] extra=tracepoint[extra_tp]"},
		{
			what: "no fentry allowed", kernel: fullKernel(t), change: func(k *Kernel) { k.allow(fexit("", ""), refused) },
			want: "calls=kprobe[a_kprobe b_kprobe] not fentry (refused) extra=tracepoint[extra_tp]",
		},
		{
			what: "neither fentry nor kprobes allowed", kernel: fullKernel(t),
			change: func(k *Kernel) { k.allow(fexit("", ""), refused); k.allow(kprobe("", ""), refused) },
			want:   "calls=tracepoint[exit_tp] not fentry (refused) not kprobe (refused) extra=tracepoint[extra_tp]",
		},
		{
			what: "the second function is missing", kernel: fakeKernel(t, syscallFunction("__x64_sys_a"), sysExit(), tracepointType("extra", intType)),
			want: "calls=fentry[a_fexit] without [__x64_sys_b] extra=tracepoint[extra_tp]",
		},
		{
			what: "the first function is missing", kernel: fakeKernel(t, syscallFunction("__x64_sys_b"), sysExit(), tracepointType("extra", intType)),
			want: "calls=tracepoint[exit_tp] not fentry (this kernel has no such function) not kprobe (this kernel has no such function) extra=tracepoint[extra_tp]",
		},
		{
			what: "only a variable of the function's name", kernel: fakeKernel(t,
				&btf.Var{Name: "__x64_sys_a", Type: intType, Linkage: btf.GlobalVar}, syscallFunction("__x64_sys_b"), sysExit()),
			mode: Auto,
			want: "calls=tracepoint[exit_tp] not fentry (this kernel has no such function) not kprobe (this kernel has no such function) extra=[] not tracepoint (this kernel has no such function)",
		},
		{
			what: "the optional tracepoint is missing", kernel: fakeKernel(t, syscallFunction("__x64_sys_a"), syscallFunction("__x64_sys_b"), sysExit()),
			want: "calls=fentry[a_fexit b_fexit] extra=[] not tracepoint (this kernel has no such function)",
		},
		{
			what: "a function that returns something else", kernel: fakeKernel(t, otherReturn, syscallFunction("__x64_sys_b"), sysExit()), mode: Auto,
			want: "calls=tracepoint[exit_tp] not fentry (__x64_sys_a is another function on this kernel: it returns s32 instead of s64)" +
				" not kprobe (__x64_sys_a is another function on this kernel: it returns s32 instead of s64) extra=[] not tracepoint (this kernel has no such function)",
		},
		{
			what: "a function that stands in the types twice",
			kernel: fakeKernel(t, syscallFunction("__x64_sys_a"), syscallFunction("__x64_sys_a"), syscallFunction("__x64_sys_b"), sysExit(),
				tracepointType("extra", intType)),
			want: "calls=kprobe[a_kprobe b_kprobe] not fentry (this kernel's types have several functions named __x64_sys_a) extra=tracepoint[extra_tp]",
		},
		{
			what: "a function whose argument is only declared",
			kernel: fakeKernel(t, function("__x64_sys_a", proto(longType, pointer(&btf.Fwd{Name: "pt_regs", Kind: btf.FwdStruct}))),
				syscallFunction("__x64_sys_b"), sysExit(), tracepointType("extra", intType)),
			want: "calls=kprobe[a_kprobe b_kprobe] not fentry (this kernel's types do not tell the arguments of __x64_sys_a in full) extra=tracepoint[extra_tp]",
		},
	} {
		if test.change != nil {
			test.change(test.kernel)
		}
		mode := test.mode
		if mode == "" {
			mode = Auto
		}
		results, err := test.kernel.Plan(toolSpec(t), toolHooks(), mode)
		if err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		if got := outcome(results); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.what, got, test.want)
		}
	}
}

func TestPlanSaysWhatIsHidden(t *testing.T) {
	results, err := fakeKernel(t, syscallFunction("__x64_sys_a"), sysExit()).Plan(toolSpec(t), toolHooks(), Auto)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"early failures", "extras"} {
		if got := strings.Join(results[i].Blind, ", "); got != want {
			t.Errorf("%s is blind to %q, not %q", results[i].Hook.Name, got, want)
		}
	}
}

// What a kernel has that may preempt tasks in programs on tracepoints (7.0).
var (
	srcuData = &btf.Var{Name: "tracepoint_srcu_srcu_data", Type: intType}
	srcuExt  = &btf.Struct{Name: "tracepoint_ext", Size: 4, Members: []btf.Member{{Name: "a", Type: intType}}}
)

// What may run several times for one event gets spares where the kernel may skip a
// program, and nowhere else.
func TestSpares(t *testing.T) {
	old := []btf.Type{srcuData} // as up to 6.12
	since7 := []btf.Type{srcuData, srcuExt}
	const plain = "a_fexit b_fexit extra_tp"
	for _, test := range []struct {
		preempts   bool
		types      []btf.Type
		mode       Mode
		repeatable [2][]string // of the hooks
		nested     []string    // of the second
		want       string
	}{
		{true, since7, Auto, [2][]string{}, nil, plain},
		{false, since7, Auto, [2][]string{{"a_fexit", "b_fexit"}, {"extra"}}, nil, plain},
		{true, since7, Auto, [2][]string{{"a_fexit"}, {"extra"}}, nil, "a_fexit a_fexit.2 a_fexit.3 a_fexit.4 b_fexit extra_tp extra_tp.2 extra_tp.3 extra_tp.4"},
		{true, since7, Tracepoint, [2][]string{{"a_fexit"}, {"extra"}}, []string{"extra"}, "exit_tp extra_tp extra_tp.2 extra_tp.3 extra_tp.4"},
		{true, old, Auto, [2][]string{{"a_fexit"}, {"extra"}}, nil, "a_fexit a_fexit.2 a_fexit.3 a_fexit.4 b_fexit extra_tp"},
		{true, old, Auto, [2][]string{{}, {"extra"}}, []string{"extra"}, plain + " extra_tp.2"},
		{false, nil, Auto, [2][]string{{}, {"extra"}}, []string{"extra"}, plain + " extra_tp.2"},
		{true, []btf.Type{srcuExt}, Auto, [2][]string{{}, {"extra"}}, nil, plain}, // as 6.14
	} {
		k, spec, hooks := fullKernel(t, test.types...), toolSpec(t), toolHooks()
		k.preempts = test.preempts
		for i := range hooks {
			hooks[i].Choices[0].Repeatable = test.repeatable[i]
		}
		hooks[1].Choices[0].Nested = test.nested
		results, err := k.Plan(spec, hooks, test.mode)
		if err != nil {
			t.Fatal(err)
		}
		prune(spec, results)
		for _, p := range spec.Programs {
			p.Instructions = asm.Instructions{asm.LoadImm(asm.R0, copyMarker, asm.DWord), asm.LoadImm(asm.R0, copiesMarker, asm.DWord), asm.Return()}
		}
		addSpares(spec, results)
		if got := strings.Join(slices.Sorted(maps.Keys(spec.Programs)), " "); got != test.want {
			t.Errorf("%+v: programs %s", test, got)
		}
		for i, r := range results {
			if want := strings.Count(test.want, r.chosen[0]+"."); r.Spares != want {
				t.Errorf("%+v: hook %d has %d spares", test, i, r.Spares)
			}
		}
		for name, p := range spec.Programs {
			if p.Name != name || p.AttachTo != spec.Programs[original(name)].AttachTo {
				t.Errorf("program %s is named %s and hooks %s", name, p.Name, p.AttachTo)
			}
			_, copied, _ := strings.Cut(name, ".")
			if want := map[string]int64{"": 0, "2": 1, "3": 2, "4": 3}[copied]; p.Instructions[0].Constant != want {
				t.Errorf("program %s takes itself for copy %d", name, p.Instructions[0].Constant)
			}
			of := int64(1 + strings.Count(test.want, original(name)+"."))
			if p.Instructions[1].Constant != of {
				t.Errorf("program %s takes itself for one of %d, not %d", name, p.Instructions[1].Constant, of)
			}
		}
	}
}

// A kernel without types of its own has spares too.
func TestSparesOfRawTracepoints(t *testing.T) {
	k, spec, hooks := fullKernel(t, srcuData, srcuExt), toolSpec(t), toolHooks()
	k.native, k.preempts = false, true
	hooks[1].Choices[0].Repeatable = []string{"extra"}
	results, err := k.Plan(spec, hooks, Auto)
	if err != nil {
		t.Fatal(err)
	}
	if r := results[1]; len(r.copies) != 1 || r.copies["extra_raw"] != copies {
		t.Errorf("%v have spares", r.copies)
	}
}

func TestCanPreempt(t *testing.T) {
	for version, want := range map[string]bool{
		"#1 SMP PREEMPT_DYNAMIC Debian 6.12.38-1 (2025-07-16)": true,
		"#1 SMP PREEMPT Debian 7.0-1":                          true,
		"#1 SMP PREEMPT_RT Debian 6.1.1":                       true,
		"#1 SMP Debian 5.10.237-1 (2025-05-19)":                false,
		"":                                                     false,
	} {
		if canPreempt(version) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

// An event is missed only if all copies were skipped for it.
func TestMissed(t *testing.T) {
	counts := map[string]Count{}
	for _, p := range []struct {
		name                  string
		misses, runs, runtime uint64
	}{
		{"exec_tp", 7, 100, 1000}, {"exec_tp.2", 3, 104, 100}, {"exec_tp.3", 5, 102, 100}, // at most 3
		{"exit_tp", 0, 9, 1}, {"exit_tp.2", 1000, 1, 1}, // none
		{"sys_exit_tp", 11, 5, 5},     // without spares
		{"execve_kretprobe", 8, 1, 1}, // found out otherwise
		{"times_call", 9, 1, 1},       // called anew
	} {
		stats := ebpf.ProgramStats{RecursionMisses: p.misses, RunCount: p.runs, Runtime: time.Duration(p.runtime)}
		counts[original(p.name)] = counts[original(p.name)].add(&stats)
	}
	if got := missed(counts); got != 3+11 {
		t.Errorf("%d events are possibly missed, not 14: %+v", got, counts)
	}
	if got, want := counts["exec_tp"], (Count{Copies: 3, Runs: 104, Runtime: 1200, Missed: 3}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

// What the tool itself calls is asked of no tracepoint.
func TestPlanOfCalledPrograms(t *testing.T) {
	spec := toolSpec(t)
	spec.Programs["do_call"] = rawTP("do_call", calledTarget)
	hooks := []Hook{{Name: "h", Choices: []Choice{{Mode: Auto, Programs: []string{"extra", "do_call"}, Needs: []string{"extra", "do_call"}}}}}
	results, err := fullKernel(t).Plan(spec, hooks, Auto)
	if err != nil {
		t.Fatal(err)
	}
	if got := outcome(results); got != "h=tracepoint[extra_tp do_call]" {
		t.Errorf("got %s", got)
	}
}

// Without types of its own a kernel has neither fentry nor tp_btf, whatever
// --btf gives.
func TestPlanWithoutNativeTypes(t *testing.T) {
	k := fullKernel(t)
	k.native = false
	results, err := k.Plan(toolSpec(t), toolHooks(), Auto)
	if err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.Mode != Kprobe || len(r.Refused) != 1 || r.Refused[0].Mode != Fentry {
		t.Errorf("got %s", outcome(results))
	}
	if r := results[1]; len(r.chosen) != 1 || r.chosen[0] != "extra_raw" {
		t.Errorf("got %s", outcome(results))
	}
}

func TestPlanUnless(t *testing.T) {
	hooks := toolHooks()
	hooks[1].Unless = Tracepoint
	for mode, want := range map[Mode]int{Fentry: 2, Kprobe: 2, Tracepoint: 1} {
		results, err := fullKernel(t).Plan(toolSpec(t), hooks, mode)
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != want {
			t.Errorf("%s: %s", mode, outcome(results))
		}
	}
}

func TestPlanFails(t *testing.T) {
	refused := &diagnose.Refusal{Tried: "try tp_btf on sys_exit", Missing: "needs CAP_BPF", Err: syscall.EPERM}
	none := func(k *Kernel) {
		for _, p := range []*ebpf.ProgramSpec{fexit("", ""), kprobe("", ""), tpBTF("", "")} {
			k.allow(p, refused)
		}
	}
	for _, test := range []struct {
		what    string
		kernel  *Kernel
		change  func(*Kernel)
		mode    Mode
		want    string
		refusal bool
	}{
		{"nothing allowed", fullKernel(t), none, Auto, "try tp_btf on sys_exit: needs CAP_BPF [operation not permitted]", true},
		{"the mode asked for not allowed", fullKernel(t), none, Fentry, "--attach fentry: try tp_btf on sys_exit: needs CAP_BPF [operation not permitted]", true},
		{
			"the mode asked for lacks its function", fakeKernel(t, sysExit()), nil, Kprobe,
			"--attach kprobe: attach by kprobe: this kernel has no such function", true,
		},
		{
			"the tracepoint is another", fakeKernel(t, tracepointType("sys_exit", pointer(regsType), intType)), nil, Tracepoint,
			"--attach tracepoint: attach by tracepoint: tracepoint sys_exit is another on this kernel: argument 2 is s32 instead of s64", true,
		},
	} {
		if test.change != nil {
			test.change(test.kernel)
		}
		results, err := test.kernel.Plan(toolSpec(t), toolHooks(), test.mode)
		if err == nil {
			t.Errorf("%s: %s", test.what, outcome(results))
			continue
		}
		var r *diagnose.Refusal
		if err.Error() != test.want || errors.As(err, &r) != test.refusal {
			t.Errorf("%s: %v (refusal: %v), not %s", test.what, err, r != nil, test.want)
		}
	}
	hooks := toolHooks()
	hooks[0].Choices = hooks[0].Choices[:1]
	if _, err := fullKernel(t).Plan(toolSpec(t), hooks, Kprobe); err == nil || !strings.Contains(err.Error(), "the calls hook has no such mode") {
		t.Errorf("a mode that the tool does not have: %v", err)
	}
}

func TestPlanFailsOnAProgramThatIsNotThere(t *testing.T) {
	hooks := []Hook{{Name: "h", Choices: []Choice{{Mode: Auto, Programs: []string{"misspelt"}, Needs: []string{"misspelt"}}}}}
	if _, err := fullKernel(t).Plan(toolSpec(t), hooks, Auto); err == nil || !strings.Contains(err.Error(), "no program misspelt") {
		t.Errorf("got %v", err)
	}
}

// A kind that was refused once is not tried again for the next hook.
func TestTryRemembers(t *testing.T) {
	k := fullKernel(t)
	want := errors.New("refused")
	k.allow(fexit("", ""), want)
	for _, target := range []string{"__x64_sys_a", "__x64_sys_b"} {
		if err := k.try(fexit("x", target)); err != want {
			t.Errorf("%s: %v", target, err)
		}
	}
	if err := k.try(fentry("x", "__x64_sys_a")); err != nil {
		t.Errorf("fexit's refusal was taken for fentry's: %v", err)
	}
}

func TestArguments(t *testing.T) {
	k := fakeKernel(t,
		tracepointType("none"), tracepointType("three", intType, intType, intType),
		&btf.Typedef{Name: "btf_trace_odd", Type: intType}, &btf.Typedef{Name: "btf_trace_void", Type: pointer(proto(&btf.Void{}))})
	for name, want := range map[string]int{"none": 0, "three": 3, "missing": -1, "odd": -1, "void": -1} {
		if got := k.Arguments(name); got != want {
			t.Errorf("%s: %d arguments, not %d", name, got, want)
		}
	}
	for i, want := range []int{4, 4, 4, -1} {
		if got := k.ArgumentSize("three", i); got != want {
			t.Errorf("argument %d has %d bytes, not %d", i, got, want)
		}
	}
	if got := k.ArgumentSize("missing", 0); got != -1 {
		t.Errorf("what is missing has an argument of %d bytes", got)
	}
}

func TestPruneKeepsWhatIsReferenced(t *testing.T) {
	spec := toolSpec(t)
	for _, name := range []string{"events", "calls", "unused", ".rodata"} {
		spec.Maps[name] = &ebpf.MapSpec{Name: name}
	}
	spec.Variables["used"], spec.Variables["unused"] = &ebpf.VariableSpec{SectionName: ".rodata"}, &ebpf.VariableSpec{SectionName: ".bss"}
	load := func(p, m string) {
		spec.Programs[p].Instructions = append(spec.Programs[p].Instructions, asm.LoadMapPtr(asm.R1, 0).WithReference(m))
	}
	load("a_fexit", "events")
	load("a_fexit", ".rodata")
	load("extra_tp", "events")
	load("a_kprobe", "calls")
	results, err := fullKernel(t).Plan(spec, toolHooks(), Auto)
	if err != nil {
		t.Fatal(err)
	}
	prune(spec, results)
	if got := strings.Join(slices.Sorted(maps.Keys(spec.Programs)), " "); got != "a_fexit b_fexit extra_tp" {
		t.Errorf("programs %s are left", got)
	}
	if got := strings.Join(slices.Sorted(maps.Keys(spec.Maps)), " "); got != ".rodata events" {
		t.Errorf("maps %s are left", got)
	}
	if got := slices.Sorted(maps.Keys(spec.Variables)); !slices.Equal(got, []string{"used"}) {
		t.Errorf("variables %q are left", got)
	}
}

// What loading failed at is named by the kind that asks the most of the kernel.
func TestKindOf(t *testing.T) {
	for _, test := range []struct {
		modes []Mode
		want  diagnose.Kind
	}{
		{nil, diagnose.RawTracepoint},
		{[]Mode{Tracepoint, ""}, diagnose.RawTracepoint},
		{[]Mode{Tracepoint, Kprobe, Tracepoint}, diagnose.Kprobe},
		{[]Mode{Kprobe, Fentry}, diagnose.Fentry},
	} {
		var results []Result
		for _, m := range test.modes {
			results = append(results, Result{Mode: m})
		}
		if got := kindOf(results); got != test.want {
			t.Errorf("%v: %v, not %v", test.modes, got, test.want)
		}
	}
}

func TestOpenNamesABadTypesFile(t *testing.T) {
	for _, file := range []string{"plan_test.go", "/nonexistent", "/dev/null", "."} {
		k, err := Open(file)
		if err == nil {
			t.Errorf("%s was taken for types: %v", file, k.Types())
		} else if !strings.HasPrefix(err.Error(), "--btf: ") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}
