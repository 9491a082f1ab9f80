// Profile samples what the CPUs do, and writes the stacks that it found.
//
// The manual is in manual.go; profile --help and --man show it.
package main

import (
	"context"
	"fmt"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/perfevent"
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
	if opts.replay != "" {
		if err := opts.checkReplay(args, command); err != nil {
			return err
		}
	}
	if err := opts.check(args); err != nil {
		return err
	}
	p := newSession(opts, env, command)
	defer p.close()
	if err := opts.outputs.open(); err != nil {
		return err
	}
	if opts.replay != "" {
		return p.replay(opts.replay)
	}
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the tool's own object: %w", err)
	}
	if err := opts.prepare(spec); err != nil {
		return err
	}
	header := ""
	if p.writesText() {
		header = opts.header(len(command) > 0)
	}
	return opts.Run(ctx, env, trace.Tool{
		Spec:      spec,
		Hooks:     hooks(),
		Command:   command,
		Header:    header,
		Preflight: func() error { return perfevent.TryEvent(opts.event, opts.rate) },
		Attached:  p.attached,
		Detach:    p.detach,
		Handle:    func(_ *trace.Run, record []byte) error { return p.engine.handle(record) },
		Drained:   p.drained,
		Patient:   p.engine.quiet,
		Finish:    p.finish,
	})
}
