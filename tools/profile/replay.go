package main

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/output"
)

// replayFlags are those that tell what is to be written, and not what is to be sampled.
var replayFlags = map[string]bool{
	"replay": true, "folded": true, "delimited": true, "annotations": true, "address": true, "json": true, "quiet": true,
	"pprof": true, "svg": true, "script": true,
}

// replayRun writes what a recording is of, as the run that was recorded would have.
func (o *options) replayRun(env *cli.Env, args, command []string) error {
	if len(args) > 0 || len(command) > 0 {
		return cli.BadUse("--replay shows a run that is over: a duration or a command has no part in it")
	}
	var err error
	o.fs.Visit(func(f *pflag.Flag) {
		if err == nil && !replayFlags[f.Name] {
			err = cli.BadUse("--replay shows a run that is over: --%s has no part in it", f.Name)
		}
	})
	if err != nil {
		return err
	}
	f, err := os.Open(o.outputs.replay)
	if err != nil {
		return cli.BadUse("--replay: %w", err)
	}
	defer f.Close()
	if err := o.outputs.open(); err != nil {
		return err
	}
	defer o.outputs.close()
	r, err := readRecording(f, o.outputs.wantMoments())
	if err != nil {
		return err
	}
	out := output.NewWriter(env.Stdout)
	if o.writesText() {
		if _, err := io.WriteString(out, r.Header+"\n"); err != nil {
			return err
		}
	}
	return errors.Join(o.write(out, r), out.Flush(), o.outputs.write(env.Stdout, r))
}

// writesText reports whether standard output gets the stacks as BCC writes them.
func (o *options) writesText() bool { return !o.folded && !o.JSON && o.outputs.none() }

// write writes what standard output gets of a report.
func (o *options) write(out *output.Writer, r *report) error {
	switch {
	case o.JSON:
		return writeJSON(out, r)
	case o.folded:
		return writeFolded(out, r, o.style)
	case o.writesText():
		if _, err := io.WriteString(out, "\n"); err != nil {
			return err
		}
		return writeText(out, r, o.style)
	}
	return nil
}
