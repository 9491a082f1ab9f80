// Execsnoop prints a line for every program that is run, with all its arguments,
// and if asked, how it ended.
//
// The manual is in manual.go; execsnoop --help and --man show it.
package main

import (
	"context"
	"fmt"

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
	p := newPrinter(opts)
	return opts.Run(ctx, env, trace.Tool{
		Spec:    spec,
		Hooks:   hooks(opts.fails, opts.exits()),
		Exits:   opts.exits(),
		Command: command,
		Header:  p.header(),
		Handle:  p.handle,
		Drained: p.drained,
		Last:    p.last,
		Finish:  p.finish,
	})
}

// hooks are the ways to see programs run. That one runs is seen by the same
// tracepoint in every mode; the modes are about those that could not.
func hooks(fails, exits bool) []attach.Hook {
	all := []attach.Hook{{
		Name: "exec", Sees: "programs that are run",
		Choices: []attach.Choice{{
			Mode: attach.Auto, Programs: []string{"exec"}, Needs: []string{"exec"}, Repeatable: []string{"exec"},
		}},
	}}
	if fails {
		const seccomp = "execs that a seccomp filter refuses before they begin"
		calls, ats := []string{"execve", "execve32"}, []string{"execveat", "execveat32"}
		fentry, kprobe := []string{"fexit", "fentry"}, []string{"kretprobe", "kprobe"}
		all = append(all, attach.Hook{
			Name: "failures", Sees: "programs that could not be run",
			Choices: []attach.Choice{
				attach.Choose(attach.Fentry, calls, fentry...).Without(seccomp).Repeating(),
				attach.Choose(attach.Kprobe, calls, kprobe...).Without(seccomp),
				{Mode: attach.Tracepoint, Programs: []string{"sys_exit"}, Needs: []string{"sys_exit"}},
			},
		}, attach.Hook{
			// Apart from the other, since some kernels' types don't tell enough of
			// its function for fentry (Debian's 5.10 and 6.1).
			Name: "execveat", Sees: "programs that could not be run by execveat()", Optional: true,
			Unless: attach.Tracepoint,
			Choices: []attach.Choice{
				attach.Choose(attach.Fentry, ats, fentry...).Repeating(),
				attach.Choose(attach.Kprobe, ats, kprobe...),
			},
		})
	}
	if exits {
		programs := []string{"exit", "free", timesCall}
		all = append(all, attach.Hook{
			Name: "exits", Sees: "how programs end",
			Choices: []attach.Choice{{Mode: attach.Auto, Programs: programs, Needs: programs, Repeatable: []string{"exit"}}},
		})
	}
	return all
}

// prepare sets the constants of spec that the options ask for.
func (o *options) prepare(spec *ebpf.CollectionSpec) error {
	return constants.Set(spec, map[string]any{
		bpfVarFilterPpid:    o.ppid,
		bpfVarMaxBytes:      uint32(o.maxBytes),
		bpfVarWantEnv:       len(o.env) > 0,
		bpfVarWantExe:       o.exe || o.JSON,
		bpfVarWantCwd:       o.cwd || o.JSON,
		bpfVarWantAncestors: uint32(o.walked()),
	})
}
