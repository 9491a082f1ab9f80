// Opensnoop prints a line for every file that a process opens, or tries to open:
// by whichever system call, from 32-bit programs too, and through io_uring.
//
// The manual is in manual.go; opensnoop --help and --man show it.
package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/constants"
	"github.com/gobcc/gobcc/internal/common/paths"
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
	p := &printer{opts: opts, pending: map[uint64]*opened{}}
	if err := p.prepare(spec); err != nil {
		return err
	}
	return opts.Run(ctx, env, trace.Tool{
		Spec:    spec,
		Hooks:   hooks(opts.timed()),
		Prepare: func(k *attach.Kernel) error { return prepare(spec, k) },
		Command: command,
		Header:  p.header(),
		Handle:  p.handle,
		Finish:  p.finish,
	})
}

// syscalls is the name of the hook on which nearly everything depends.
const syscalls = "syscalls"

// hooks are the ways to see an open. Its beginning is of interest only if it is
// to be timed.
func hooks(timed bool) []attach.Hook {
	const seccomp = "opens that a seccomp filter refuses before they begin"
	calls := []string{"openat", "openat2", "open", "creat", "openat32", "open32"}
	if runtime.GOARCH == "amd64" { // elsewhere a 64-bit program's functions serve for these
		calls = append(calls, "openat2_32", "creat32")
	}
	handles := []string{"handle", "handle32"}
	fentry := []string{"fexit"}
	kprobe := []string{"kretprobe", "kprobe"}
	tracepoint := []string{"sys_exit"}
	if timed {
		fentry = append(fentry, "fentry")
		tracepoint = append(tracepoint, "sys_enter")
	}
	uring := func(submit string) attach.Choice {
		needs := []string{"uring_complete", submit}
		return attach.Choice{Mode: attach.Auto, Programs: append(needs, "uring_failed"), Needs: needs}
	}
	return []attach.Hook{
		{
			Name: syscalls, Sees: "files opened by system calls",
			Choices: []attach.Choice{
				attach.Choose(attach.Fentry, calls, fentry...).Without(seccomp),
				attach.Choose(attach.Kprobe, calls, kprobe...).Without(seccomp),
				{Mode: attach.Tracepoint, Programs: tracepoint, Needs: tracepoint},
			},
		},
		{
			// Apart from the others, since some kernels have its function twice in
			// their types, which fentry can't take (Debian's 6.1).
			Name: "handles", Sees: "files opened by open_by_handle_at()", Optional: true,
			Unless: attach.Tracepoint,
			Choices: []attach.Choice{
				attach.Choose(attach.Fentry, handles, fentry...),
				attach.Choose(attach.Kprobe, handles, kprobe...),
			},
		},
		{
			Name: "io_uring", Sees: "files opened through io_uring", Optional: true,
			Choices: []attach.Choice{uring("uring_submit"), uring("uring_submit_old")},
		},
	}
}

// prepare sets what depends on the kernel.
func prepare(spec *ebpf.CollectionSpec, k *attach.Kernel) error {
	// The completion of a request passes a cqe since 6.15, and the parts of one
	// before that (ctx, req, user_data, res, …).
	return spec.Variables[bpfVarUringCompleteHasResult].Set(k.Arguments("io_uring_complete") > 3)
}

// prepare sets the constants of spec that the options ask for.
func (p *printer) prepare(spec *ebpf.CollectionSpec) error {
	o := p.opts
	prefix, inKernel := o.kernelPrefix()
	err := constants.Set(spec, map[string]any{
		bpfVarFilterFailed:      o.failed,
		bpfVarFilterLatencyNs:   uint64(o.minLatency),
		bpfVarFilterFlagCount:   o.flags.count,
		bpfVarFilterFlagMasks:   o.flags.masks,
		bpfVarFilterAccessModes: o.flags.modes,
		bpfVarFilterPrefix:      prefix,
		bpfVarFilterPrefixLen:   uint32(inKernel),
		bpfVarWantLatency:       o.timed(),
		bpfVarWantDetails:       o.JSON,
		bpfVarWantFullPath:      o.walked(),
	})
	if err != nil {
		return err
	}
	if o.pathRoot != "host" {
		return nil
	}
	if p.mounts, err = paths.HostMounts(); err != nil {
		return err
	}
	return paths.Host(spec, p.mounts)
}
