// Package attach chooses how a tool hooks into the running kernel, loads only
// the programs for that way, and attaches them.
//
// One object holds a tool's programs for every mode. A program is named for its
// hook and its kind: openat_fexit, openat_kretprobe, sys_exit_tp. Tracepoint
// programs come as a pair: NAME_tp (tp_btf, which reads kernel memory directly)
// and NAME_raw (a raw tracepoint, for kernels without BTF of their own); a tool
// names them NAME. A program that the tool itself calls is named NAME_call, programs
// on packets NAME_ingress and NAME_egress. A program on a perf event is loaded here, and
// attached by the tool, which alone knows to which events (package perfevent).
package attach

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// Mode is a way to hook into the kernel.
type Mode string

// The modes, and the value that takes the first of them that works.
const (
	Auto       Mode = "auto"
	Fentry     Mode = "fentry"
	Kprobe     Mode = "kprobe"
	Tracepoint Mode = "tracepoint"
)

// Cgroup is the mode of a hook on the packets of all sockets. It is the same beside
// each of the others, and not one to ask for.
const Cgroup Mode = "cgroup"

// Perf is the mode of a hook on perf events; as Cgroup, it is the same beside each of the
// others.
const Perf Mode = "perf"

// Modes are the modes in the order of preference: fentry is the cheapest, and
// tracepoints cost every system call a little.
var Modes = []Mode{Fentry, Kprobe, Tracepoint}

// Hook is something that a tool sees, with the ways to see it, best first.
type Hook struct {
	Name     string // "syscalls"
	Sees     string // what stays hidden without it: "files opened through io_uring"
	Optional bool   // the tool goes on without it, and says so
	// Unless is a mode of the hook before it that makes this one superfluous.
	Unless  Mode
	Choices []Choice
}

// Choice is one way to see what a Hook sees.
type Choice struct {
	Mode     Mode     // Auto: the same in every mode
	Programs []string // names in the object
	// Needs are those among Programs without which the choice is none. Another
	// whose function this kernel does not have is left out: nothing can call it.
	Needs []string
	// Repeatable are those among Programs that may run several times for one event
	// without harm: they get spares where the kernel may skip programs.
	Repeatable []string
	// Nested are those among Repeatable that an interrupt may run on a CPU where they
	// run already, on any kernel.
	Nested []string
	Blind  []string // what this way can't show, a phrase each
}

// Choose makes the choice of a mode whose programs are named for hooks: with
// hooks a and b and kinds kprobe and kretprobe, a_kprobe, a_kretprobe, b_kprobe
// and b_kretprobe. The first hook is needed.
func Choose(mode Mode, hooks []string, kinds ...string) Choice {
	c := Choice{Mode: mode}
	for i, hook := range hooks {
		for _, kind := range kinds {
			name := hook + "_" + kind
			c.Programs = append(c.Programs, name)
			if i == 0 {
				c.Needs = append(c.Needs, name)
			}
		}
	}
	return c
}

// Without adds what this way can't show.
func (c Choice) Without(blind ...string) Choice {
	c.Blind = append(c.Blind, blind...)
	return c
}

// Repeating says that the programs of the first hook may run several times for one
// event. The others are for what few programs call, and so not worth the time that
// it takes to load them so often.
func (c Choice) Repeating() Choice {
	c.Repeatable = c.Needs
	return c
}

// Result says what became of a hook.
type Result struct {
	Hook    *Hook
	Mode    Mode      // the mode it got, or "" if it could not be had
	LeftOut []string  // functions that this kernel does not have
	Refused []Refusal // the better ways, and why they were not taken
	Blind   []string  // what can't be seen this way, Sees among it if there is no way
	Spares  int       // further copies of its programs that have some

	chosen []string       // the programs
	copies map[string]int // how many there are of those that have spares
}

// Refusal is a way that could not be taken.
type Refusal struct {
	Mode Mode
	Err  error
}

// Set is a tool's loaded collection and its links.
type Set struct {
	*ebpf.Collection
	Results []Result
	links   []link.Link
}

// Options are what attaching depends on beside the hooks.
type Options struct {
	Mode Mode // what the user asked for
	// Maps replace those of the same name in the object.
	Maps map[string]*ebpf.Map
	// Ready is called with the loaded collection before anything is attached: to
	// fill maps.
	Ready func(*ebpf.Collection) error
}

// hasBTF is the variable of syscall.bpf.h that is false where the kernel has no types of
// its own.
const hasBTF = "kernel_has_btf"

// Open finds a way for every hook, loads the programs and attaches them; all or
// nothing. spec is changed: what is not needed is taken out of it. The error is
// a [diagnose.Refusal] if this kernel or these privileges are in the way.
func (k *Kernel) Open(spec *ebpf.CollectionSpec, hooks []Hook, opts Options) (*Set, error) {
	results, err := k.Plan(spec, hooks, opts.Mode)
	if err != nil {
		return nil, err
	}
	if v := spec.Variables[hasBTF]; v != nil && !k.native {
		if err := v.Set(false); err != nil {
			return nil, fmt.Errorf("set %s: %w", hasBTF, err)
		}
	}
	prune(spec, results)
	addSpares(spec, results)
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: opts.Maps,
		Cache:           k.cache,
		Programs:        ebpf.ProgramOptions{KernelTypes: k.external},
	})
	if err != nil {
		return nil, diagnose.Explain("load the programs", kindOf(results), err)
	}
	s := &Set{Collection: coll, Results: results}
	if opts.Ready != nil {
		if err := opts.Ready(coll); err != nil {
			s.Close()
			return nil, err
		}
	}
	if slices.ContainsFunc(results, func(r Result) bool { return r.Mode == Kprobe }) {
		_ = removeLeftovers() // what can't be removed does no harm
	}
	if err := s.attach(spec); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Plan finds a way for every hook without loading the object.
func (k *Kernel) Plan(spec *ebpf.CollectionSpec, hooks []Hook, mode Mode) ([]Result, error) {
	// Up to 5.10 BPF memory counts against a limit that is 64 KiB by default, for
	// all processes of a user. If it can't be lifted, loading fails, and that is
	// where it is explained.
	_ = rlimit.RemoveMemlock()
	var results []Result
	for i := range hooks {
		if len(results) > 0 && hooks[i].Unless != "" && hooks[i].Unless == results[len(results)-1].Mode {
			continue
		}
		r := k.plan(spec, &hooks[i], mode)
		if r.Mode == "" && !r.Hook.Optional {
			return nil, refusal(&r, mode)
		}
		results = append(results, r)
	}
	return results, nil
}

// refusal is the error for a hook that could not be had: the reason of the last
// way, which asks the least of the kernel. -v shows the others.
func refusal(r *Result, mode Mode) error {
	if len(r.Refused) == 0 {
		return fmt.Errorf("--attach %s: the %s hook has no such mode", mode, r.Hook.Name)
	}
	last := r.Refused[len(r.Refused)-1]
	var known *diagnose.Refusal
	if !errors.As(last.Err, &known) {
		known = &diagnose.Refusal{Tried: "attach by " + string(last.Mode), Missing: last.Err.Error(), Err: last.Err}
	}
	if mode != Auto {
		return fmt.Errorf("--attach %s: %w", mode, known)
	}
	return known
}

func (k *Kernel) plan(spec *ebpf.CollectionSpec, hook *Hook, mode Mode) Result {
	r := Result{Hook: hook}
	for _, c := range hook.Choices {
		if mode != Auto && c.Mode != Auto && c.Mode != mode {
			continue
		}
		chosen, leftOut, err := k.take(spec, &c)
		if err != nil {
			m := c.Mode
			if m == Auto {
				m = Tracepoint
				if p := spec.Programs[c.Programs[0]]; p != nil && special(p) != "" {
					m = special(p)
				}
			}
			r.Refused = append(r.Refused, Refusal{Mode: m, Err: err})
			continue
		}
		r.Mode, r.chosen, r.LeftOut, r.Blind = modeOf(spec, chosen), chosen, leftOut, c.Blind
		r.copies = k.copiesOf(spec, &c, chosen)
		for _, n := range r.copies {
			r.Spares = max(r.Spares, n-1)
		}
		if r.Mode == Cgroup && !wholeMachine() {
			r.Blind = append(slices.Clone(r.Blind), hook.Sees+", outside of this container")
		}
		return r
	}
	r.Blind = []string{hook.Sees}
	return r
}

// take settles which programs of a choice this kernel can have.
func (k *Kernel) take(spec *ebpf.CollectionSpec, c *Choice) (chosen, leftOut []string, err error) {
	for _, name := range c.Programs {
		p, err := k.program(spec, name)
		if err != nil {
			return nil, nil, err
		}
		err = k.check(spec, p)
		switch {
		case err == nil:
			chosen = append(chosen, p.Name)
		case errors.Is(err, errNoFunction) && !slices.Contains(c.Needs, name):
			if target := targetOf(p); !slices.Contains(leftOut, target) {
				leftOut = append(leftOut, target)
			}
		default:
			return nil, nil, err
		}
	}
	if len(chosen) == 0 {
		return nil, nil, errNoFunction
	}
	return chosen, leftOut, k.try(spec.Programs[chosen[0]])
}

// program finds a program by the name a tool gives it.
func (k *Kernel) program(spec *ebpf.CollectionSpec, name string) (*ebpf.ProgramSpec, error) {
	suffix := "_tp"
	if !k.HasBTF() {
		suffix = "_raw"
	}
	for _, n := range []string{name, name + suffix} {
		if p := spec.Programs[n]; p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the object has no program %s", name)
}

// modeOf tells the mode by what was chosen, since a choice may be the same in
// all modes.
func modeOf(spec *ebpf.CollectionSpec, chosen []string) Mode {
	switch p := spec.Programs[chosen[0]]; {
	case special(p) != "":
		return special(p)
	case p.Type == ebpf.Kprobe:
		return Kprobe
	case p.Type == ebpf.Tracing && p.AttachType != ebpf.AttachTraceRawTp:
		return Fentry
	}
	return Tracepoint
}

// special gives the mode of programs that hook no function, or "".
func special(p *ebpf.ProgramSpec) Mode {
	switch p.Type {
	case ebpf.CGroupSKB:
		return Cgroup
	case ebpf.PerfEvent:
		return Perf
	}
	return ""
}

func kindOf(results []Result) diagnose.Kind {
	kind := diagnose.RawTracepoint
	for _, r := range results {
		switch r.Mode {
		case Fentry:
			return diagnose.Fentry
		case Kprobe:
			kind = diagnose.Kprobe
		case Perf:
			kind = diagnose.PerfEvent
		}
	}
	return kind
}

// prune takes out of spec the programs that were not chosen, and the maps that
// none of the others uses, so that they take no kernel memory.
func prune(spec *ebpf.CollectionSpec, results []Result) {
	used := map[string]bool{}
	for name, p := range spec.Programs {
		if !slices.ContainsFunc(results, func(r Result) bool { return slices.Contains(r.chosen, name) }) {
			delete(spec.Programs, name)
			continue
		}
		for i := range p.Instructions {
			used[p.Instructions[i].Reference()] = true
		}
	}
	for name := range spec.Maps {
		if !used[name] {
			delete(spec.Maps, name)
		}
	}
	maps.DeleteFunc(spec.Variables, func(_ string, v *ebpf.VariableSpec) bool { return spec.Maps[v.SectionName] == nil })
}

// attach attaches all programs at once: the kernel waits for grace periods while
// it does so, and these waits then overlap.
func (s *Set) attach(spec *ebpf.CollectionSpec) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for name, prog := range s.Programs {
		if called(spec.Programs[name]) || spec.Programs[name].Type == ebpf.PerfEvent {
			continue
		}
		wg.Go(func() {
			l, err := attachOne(spec.Programs[name], prog)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, diagnose.Explain("attach "+targetOf(spec.Programs[name]), kindOfProgram(spec.Programs[name]), err))
				return
			}
			s.links = append(s.links, l)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func attachOne(spec *ebpf.ProgramSpec, prog *ebpf.Program) (link.Link, error) {
	switch {
	case spec.Type == ebpf.Kprobe && strings.HasPrefix(spec.SectionName, "kretprobe/"):
		return kretprobe(spec.AttachTo, prog)
	case spec.Type == ebpf.Kprobe:
		return link.Kprobe(spec.AttachTo, prog, nil)
	case spec.Type == ebpf.Tracing:
		return link.AttachTracing(link.TracingOptions{Program: prog, AttachType: spec.AttachType})
	case spec.Type == ebpf.RawTracepoint:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: spec.AttachTo, Program: prog})
	case spec.Type == ebpf.CGroupSKB:
		return attachCgroup(spec, prog)
	}
	return nil, fmt.Errorf("program %s has the unknown type %s", spec.Name, spec.Type)
}

// Detach takes every hook off; the maps stay readable. It may be called again.
func (s *Set) Detach() {
	var wg sync.WaitGroup
	for _, l := range s.links {
		wg.Go(func() { _ = l.Close() })
	}
	wg.Wait()
	s.links = nil
}

// Close detaches and frees everything.
func (s *Set) Close() {
	s.Detach()
	s.Collection.Close()
}
