// Package cli is the frame that every tool runs in: arguments, signals, exit
// statuses.
package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/command"
	"github.com/gobcc/gobcc/internal/common/diagnose"
	"github.com/gobcc/gobcc/internal/common/manual"
	"github.com/gobcc/gobcc/internal/common/output"
)

// The exit statuses of all tools. A tool that ran a command exits with that
// command's.
const (
	Done       = 0 // or interrupted
	Failed     = 1
	BadUsage   = 2
	Impossible = 3 // on this kernel, or with these privileges
)

// Env is the world a tool runs in.
type Env struct {
	Name   string
	Args   []string // without the tool's name
	Stdout io.Writer
	Stderr io.Writer
}

// Usage is an error of the user's: status 2.
type Usage struct{ Err error }

func (u *Usage) Error() string { return u.Err.Error() }
func (u *Usage) Unwrap() error { return u.Err }

// BadUse makes a [Usage] error.
func BadUse(format string, args ...any) error { return &Usage{fmt.Errorf(format, args...)} }

// Status is an exit status to pass on, with nothing to say about it.
type Status int

func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// errShown ends a run that has printed what was asked for, such as --help.
var errShown = errors.New("shown")

// Main runs a tool and exits with its status.
func Main(name string, run func(ctx context.Context, env *Env) error) {
	command.Main()
	env := &Env{Name: name, Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr}
	// The first signal ends the run cleanly. Then the signals have their own
	// effect again, so that a second one ends it at once.
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		sig := <-signals
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		cancel(&Interrupted{sig})
	}()
	os.Exit(exitStatus(env, run(ctx, env)))
}

// Interrupted is the cause of a context that a signal ended.
type Interrupted struct{ Signal os.Signal }

func (i *Interrupted) Error() string { return "interrupted by signal: " + i.Signal.String() }

// exitStatus prints an error, if there is something to say, and gives the status
// it stands for.
func exitStatus(env *Env, err error) int {
	var status Status
	var usage *Usage
	var refusal *diagnose.Refusal
	var started *command.Error
	say := func() { fmt.Fprintf(env.Stderr, "%s: %s\n", env.Name, output.AppendEscaped(nil, []byte(err.Error()))) }
	switch {
	case err == nil, errors.Is(err, errShown):
		return Done
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &started):
		say()
		return started.Status
	case errors.As(err, &usage):
		fmt.Fprintf(env.Stderr, "%s: %s (%s --help shows how)\n", env.Name, output.AppendEscaped(nil, []byte(err.Error())), env.Name)
		return BadUsage
	case errors.Is(err, syscall.EPIPE): // the reader has seen enough
		return Done
	case errors.As(err, &refusal):
		say()
		return Impossible
	}
	say()
	return Failed
}

// Parse parses the arguments into fs, which it gives the flags that all tools
// have, and answers --help, --version, --man and --completion. What it returns
// is to be returned by run.
func (env *Env) Parse(m *manual.Manual, fs *pflag.FlagSet) error {
	help := fs.BoolP("help", "h", false, "show this text")
	version := fs.Bool("version", false, "show the version")
	man := fs.Bool("man", false, "write the manual page: "+m.Name+" --man | man -l -")
	completion := fs.String("completion", "", "write the completion script for `SHELL`: bash, zsh or fish")
	manual.Place(fs, manual.Help, "help", "version", "man", "completion")
	manual.Values(fs, "completion", manual.Shells...)
	if err := fs.Parse(env.Args); err != nil {
		return &Usage{err}
	}
	var err error
	switch {
	case *help:
		err = m.Usage(env.Stdout, fs)
	case *version:
		_, err = fmt.Fprintf(env.Stdout, "%s %s\n", m.Name, Version())
	case *man:
		err = m.Man(env.Stdout, fs, Version(), date)
	case fs.Changed("completion"):
		var script bytes.Buffer
		if err := m.Completion(&script, fs, *completion); err != nil {
			return &Usage{err}
		}
		_, err = script.WriteTo(env.Stdout)
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("show it: %w", err)
	}
	return errShown
}

// Flags makes an empty flag set for a tool.
func (env *Env) Flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet(env.Name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	return fs
}

// Command splits what is not a flag into positional arguments and, behind "--",
// a command line.
func Command(fs *pflag.FlagSet) (positional, command []string) {
	if n := fs.ArgsLenAtDash(); n >= 0 {
		return fs.Args()[:n], fs.Args()[n:]
	}
	return fs.Args(), nil
}

// Set by the linker.
var (
	version string // a tag, or a tag and commits on top of it
	date    string // of the last commit, as 2006-01-02
)

// Version is the version this binary was built from.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return info.Main.Version
	}
	return "devel"
}
