package attach

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/gobcc/gobcc/internal/common/diagnose"
	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// errNoFunction says that the kernel has no function or tracepoint of a name.
var errNoFunction = errors.New("this kernel has no such function")

// Kernel is what is known of the running kernel while programs are chosen and
// loaded. Drop it afterwards: its types take some megabytes.
type Kernel struct {
	cache    *btf.Cache
	types    *btf.Spec // the kernel's, or external
	external *btf.Spec // from --btf
	native   bool      // the kernel has BTF of its own
	preempts bool      // a task may be preempted within a program
	tried    map[string]error
}

// Open reads the kernel's types, from a file if one is given. Such a kernel is
// taken to have none of its own, which leaves kprobes and raw tracepoints.
func Open(btfFile string) (*Kernel, error) {
	preempts, err := preempts()
	if err != nil {
		return nil, err
	}
	k := &Kernel{cache: btf.NewCache(), preempts: preempts, tried: map[string]error{}}
	if btfFile == "" {
		types, err := k.cache.Kernel()
		if err != nil {
			return nil, diagnose.Explain("read this kernel's types", diagnose.BTF, err)
		}
		k.native, k.types = true, types
		return k, nil
	}
	f, err := os.Open(btfFile)
	if err != nil {
		return nil, fmt.Errorf("--btf: %w", err)
	}
	defer f.Close()
	k.external, err = btf.LoadSpecFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("--btf: %s holds no kernel types: %w", btfFile, err)
	}
	k.types = k.external
	return k, nil
}

// HasBTF reports whether the kernel has types of its own, which fentry and
// tp_btf need.
func (k *Kernel) HasBTF() bool { return k.native }

// Types are the kernel's types.
func (k *Kernel) Types() *btf.Spec { return k.types }

// Arguments gives how many arguments a tracepoint passes to its programs, or -1
// if this kernel has no such tracepoint.
func (k *Kernel) Arguments(tracepoint string) int {
	proto, err := k.tracepoint(tracepoint)
	if err != nil {
		return -1
	}
	return len(proto.Params)
}

// ArgumentSize gives how many bytes the argument of a tracepoint has, the first being
// number 0, or -1 if this kernel has no such argument.
func (k *Kernel) ArgumentSize(tracepoint string, argument int) int {
	proto, err := k.tracepoint(tracepoint)
	if err != nil || argument >= len(proto.Params) {
		return -1
	}
	size, err := btf.Sizeof(proto.Params[argument].Type)
	if err != nil {
		return -1
	}
	return size
}

// tracepoint gives the prototype of a tracepoint, without the pointer to private
// data that its typedef has first.
func (k *Kernel) tracepoint(name string) (*btf.FuncProto, error) {
	var def *btf.Typedef
	if err := k.types.TypeByName("btf_trace_"+name, &def); err != nil {
		return nil, errNoFunction
	}
	ptr, ok := def.Type.(*btf.Pointer)
	if !ok {
		return nil, fmt.Errorf("tracepoint %s: this kernel's types are not understood", name)
	}
	proto, ok := ptr.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return nil, fmt.Errorf("tracepoint %s: this kernel's types are not understood", name)
	}
	return &btf.FuncProto{Return: proto.Return, Params: proto.Params[1:]}, nil
}

// targetOf is the function or tracepoint that a program hooks.
func targetOf(p *ebpf.ProgramSpec) string {
	switch p.Type {
	case ebpf.CGroupSKB:
		return "the root of the cgroups"
	case ebpf.PerfEvent:
		return "a perf event"
	}
	return p.AttachTo
}

func kindOfProgram(p *ebpf.ProgramSpec) diagnose.Kind {
	switch {
	case p.Type == ebpf.CGroupSKB:
		return diagnose.Cgroup
	case p.Type == ebpf.PerfEvent:
		return diagnose.PerfEvent
	case p.Type == ebpf.Kprobe:
		return diagnose.Kprobe
	case p.Type == ebpf.Tracing && p.AttachType != ebpf.AttachTraceRawTp:
		return diagnose.Fentry
	}
	return diagnose.RawTracepoint
}

// check compares what a program hooks with what this kernel has.
func (k *Kernel) check(spec *ebpf.CollectionSpec, p *ebpf.ProgramSpec) error {
	if called(p) || special(p) != "" { // they hook no function
		return nil
	}
	want, err := declared(spec, p.AttachTo)
	if err != nil {
		return err
	}
	if kindOfProgram(p) == diagnose.RawTracepoint {
		have, err := k.tracepoint(p.AttachTo)
		if err != nil {
			return err
		}
		if err := oneOf(want, have, true); err != nil {
			return fmt.Errorf("tracepoint %s is another on this kernel: %w", p.AttachTo, err)
		}
		return nil
	}
	if kindOfProgram(p) == diagnose.Fentry && !k.native {
		return diagnose.Explain("load fentry programs", diagnose.BTF, errors.New("this kernel has no types of its own"))
	}
	if len(want) == 0 {
		return fmt.Errorf("%s hooks %s without a word of its prototype", p.Name, p.AttachTo)
	}
	functions, err := k.functions(p.AttachTo)
	if err != nil {
		return err
	}
	// A function may stand in the types several times. The library can't attach
	// fentry to such a one; for kprobes they all must be the same.
	if kindOfProgram(p) == diagnose.Fentry && len(functions) > 1 {
		return fmt.Errorf("this kernel's types have several functions named %s", p.AttachTo)
	}
	for _, have := range functions {
		// fexit finds the result behind the last argument, and kprobes the
		// arguments in their registers: on a function with others, both would
		// read rubbish.
		if err := oneOf(want, have, false); err != nil {
			return fmt.Errorf("%s is another function on this kernel: %w", p.AttachTo, err)
		}
		if kindOfProgram(p) == diagnose.Fentry && incomplete(have) {
			return fmt.Errorf("this kernel's types do not tell the arguments of %s in full", p.AttachTo)
		}
	}
	return nil
}

// functions gives the prototypes of all functions of that name.
func (k *Kernel) functions(name string) ([]*btf.FuncProto, error) {
	all, err := k.types.AnyTypesByName(name)
	if err != nil {
		return nil, errNoFunction
	}
	var protos []*btf.FuncProto
	for _, t := range all {
		if fn, ok := t.(*btf.Func); ok {
			if proto, ok := fn.Type.(*btf.FuncProto); ok {
				protos = append(protos, proto)
			}
		}
	}
	if len(protos) == 0 {
		return nil, errNoFunction
	}
	return protos, nil
}

// try loads and attaches a program of p's kind that does nothing, on p's target:
// nothing else tells for certain whether a kernel allows it. Each kind is tried
// once.
func (k *Kernel) try(p *ebpf.ProgramSpec) error {
	kind := p.Type.String() + p.AttachType.String()
	if err, ok := k.tried[kind]; ok {
		return err
	}
	err := k.tryOnce(p)
	k.tried[kind] = err
	return err
}

func (k *Kernel) tryOnce(p *ebpf.ProgramSpec) error {
	tried := "try " + strings.SplitN(p.SectionName, "/", 2)[0] + " on " + targetOf(p)
	result := int32(0)
	if p.Type == ebpf.CGroupSKB {
		result = 1 // lets the packet pass
	}
	// As a collection, since only that takes the types that are read already.
	coll, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{"try": {
			Name: "try", Type: p.Type, AttachType: p.AttachType, AttachTo: p.AttachTo, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, result), asm.Return()},
		}},
	}, ebpf.CollectionOptions{Cache: k.cache, Programs: ebpf.ProgramOptions{LogDisabled: true}})
	if err != nil {
		return diagnose.Explain(tried, kindOfProgram(p), err)
	}
	defer coll.Close()
	if p.Type == ebpf.PerfEvent {
		return perfevent.Try(coll.Programs["try"])
	}
	l, err := attachOne(p, coll.Programs["try"])
	if err != nil {
		return diagnose.Explain(tried, kindOfProgram(p), err)
	}
	return l.Close()
}
