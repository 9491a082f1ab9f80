// Tcpconnect prints a line for every TCP connection that a process makes or tries to
// make, and if asked, what became of it.
//
// The manual is in manual.go; tcpconnect --help and --man show it.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/constants"
	"github.com/gobcc/gobcc/internal/common/trace"
)

func main() { cli.Main(about.Name, run) }

func run(ctx context.Context, env *cli.Env) error {
	fs := env.Flags()
	opts := defineFlags(fs)
	if err := env.Parse(&about, fs); err != nil {
		return err
	}
	args, command := cli.Command(fs)
	if err := opts.check(args); err != nil {
		return err
	}
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the tool's own object: %w", err)
	}
	if err := opts.prepare(spec); err != nil {
		return err
	}
	p := newPrinter(opts, env.Stdout)
	return opts.Run(ctx, env, trace.Tool{
		Spec:    spec,
		Hooks:   hooks(opts, hasIPv6()),
		Prepare: func(k *attach.Kernel) error { return opts.prepareFor(spec, k) },
		Command: command,
		Header:  p.header(),
		Handle:  p.handle,
		Drained: p.drained,
		Finish:  p.finish,

		Interrupts: true,
	})
}

// hasIPv6 reports whether this kernel has IPv6, if only as something that is turned
// off for every interface.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/tcp6")
	return err == nil
}

// The names of the hooks that others depend on.
const connects = "connects"

// hooks are the ways to see connects. In tracepoint mode a socket's change of state
// tells that one has begun; only the system call's return tells of those that
// failed before that. It costs all system calls, so it is there only where rows say
// how connects ended, or need the port that is chosen after the change.
func hooks(o *options, ipv6 bool) []attach.Hook {
	const (
		early  = "connects that fail before a packet is sent (--outcome shows them)"
		policy = "connects that a security policy refuses (--outcome shows them)"
		uring  = "connects through io_uring that fail before a packet is sent"
	)
	calls := []string{"connect4", "connect6"}
	state := attach.Choice{Mode: attach.Tracepoint, Programs: []string{"state"}, Needs: []string{"state"}, Repeatable: []string{"state"}}
	if o.outcome {
		state = state.Without(uring)
		state.Nested = state.Repeatable // a connection may end in an interrupt
	} else {
		state = state.Without(early)
	}
	if o.outcome || o.lport {
		state.Programs = append(state.Programs, "sys_exit")
		state.Needs = state.Programs
	}
	hooked := attach.Choose(attach.Fentry, calls, "fexit", "fentry")
	hooked.Repeatable = hooked.Programs
	probed := attach.Choose(attach.Kprobe, calls, "kretprobe", "kprobe")
	if ipv6 && o.family() != 4 { // or the mode is none: IPv6 may be a module, which changes of state show too
		hooked.Needs, probed.Needs = hooked.Programs, probed.Programs
	}
	if !o.outcome {
		hooked, probed = hooked.Without(policy), probed.Without(policy)
	}
	all := []attach.Hook{{Name: connects, Sees: "connects", Choices: []attach.Choice{hooked, probed, state}}}
	if o.outcome {
		all = append(all, outcomes()...)
	}
	if o.named() {
		programs := []string{"dns_ingress", "dns_egress"}
		all = append(all, attach.Hook{
			Name: "names", Sees: "the names that addresses were looked up by", Optional: true,
			Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: programs}},
		})
	}
	return all
}

// outcomes are the hooks that rows with results need besides. Where state changes tell
// of the beginning, they and the system call tell of all this too.
func outcomes() []attach.Hook {
	refusals, programs := []string{"refusal"}, []string{"outcome"}
	if runtime.GOARCH == "amd64" { // elsewhere a 64-bit program's function serves for 32-bit ones
		refusals = append(refusals, "refusal32")
	}
	return []attach.Hook{{
		Name: "refusals", Sees: "connects that a security policy refuses", Optional: true, Unless: attach.Tracepoint,
		Choices: []attach.Choice{
			attach.Choose(attach.Fentry, refusals, "fexit"),
			attach.Choose(attach.Kprobe, refusals, "kretprobe"),
		},
	}, {
		Name: "outcomes", Sees: "how connects end", Unless: attach.Tracepoint,
		Choices: []attach.Choice{{
			Mode: attach.Auto, Programs: programs, Needs: programs,
			Repeatable: programs, Nested: programs, // a connection may end in an interrupt
		}},
	}}
}

// prepareFor settles what depends on the kernel.
func (o *options) prepareFor(spec *ebpf.CollectionSpec, k *attach.Kernel) error {
	if err := o.checkFamily(hasIPv6()); err != nil {
		return err
	}
	guard := k.PreemptsTracepoints()      // there the programs have spares
	if !o.outcome && !o.lport && !guard { // nothing is kept until it ends
		spec.Maps[bpfMapAttempts].MaxEntries = 1
	}
	return spec.Variables[bpfVarWantGuard].Set(guard)
}

// prepare sets the constants and maps of spec that the options ask for.
func (o *options) prepare(spec *ebpf.CollectionSpec) error {
	err := constants.Set(spec, map[string]any{
		bpfVarWantOutcome:       o.outcome,
		bpfVarWantLport:         o.lport,
		bpfVarWantTime:          o.timestamp || o.outcome || o.named(),
		bpfVarFilterFailed:      o.failed,
		bpfVarFilterLatencyNs:   uint64(o.minLatency),
		bpfVarFilterFamily:      o.family(),
		bpfVarFilterNetns:       uint32(o.netns),
		bpfVarFilterPorts:       o.ports.given(),
		bpfVarFilterPortBits:    o.ports.bits(),
		bpfVarFilterDaddr:       o.daddrs.given(),
		bpfVarFilterDaddrOthers: o.daddrs.others(),
		bpfVarFilterSaddr:       o.saddrs.given(),
		bpfVarFilterSaddrOthers: o.saddrs.others(),
	})
	if err != nil {
		return err
	}
	o.daddrs.fill(spec.Maps[bpfMapDaddrs])
	o.saddrs.fill(spec.Maps[bpfMapSaddrs])
	if !o.outcome {
		spec.Maps[bpfMapRefusals].MaxEntries = 1
		spec.Maps[bpfMapBackgroundFailures].MaxEntries = 1
	}
	return nil
}
