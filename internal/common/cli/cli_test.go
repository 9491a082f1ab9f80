package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gobcc/gobcc/internal/common/command"
	"github.com/gobcc/gobcc/internal/common/diagnose"
	"github.com/gobcc/gobcc/internal/common/manual"
)

// partVar makes the test binary a tool, of the part named by its value.
const partVar = "GOBCC_CLI_TEST"

var parts = map[string]func(ctx context.Context, env *Env) error{
	// wait ends cleanly at the first signal.
	"wait": func(ctx context.Context, env *Env) error {
		fmt.Fprintln(env.Stdout, "ready")
		<-ctx.Done()
		var i *Interrupted
		if !errors.As(context.Cause(ctx), &i) {
			return errors.New("not interrupted")
		}
		fmt.Fprintln(env.Stdout, i)
		return nil
	},
	// hang doesn't end at the first signal.
	"hang": func(ctx context.Context, env *Env) error {
		fmt.Fprintln(env.Stdout, "ready")
		<-ctx.Done()
		fmt.Fprintln(env.Stdout, "hanging")
		select {}
	},
	"args": func(_ context.Context, env *Env) error {
		return fmt.Errorf("%s got %q", env.Name, env.Args)
	},
	// rows prints until its output is gone.
	"rows": func(_ context.Context, env *Env) error {
		for {
			if _, err := env.Stdout.Write(bytes.Repeat([]byte("row\n"), 1000)); err != nil {
				return err
			}
		}
	},
}

func TestMain(m *testing.M) {
	if part := parts[os.Getenv(partVar)]; part != nil {
		Main("tool", part)
	}
	os.Exit(m.Run())
}

// start starts the test binary as a tool.
func start(t *testing.T, part string, args ...string) (*exec.Cmd, io.Reader, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), partVar+"="+part)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			_ = cmd.Wait() // an error, as it was killed
		}
	})
	return cmd, stdout, &stderr
}

func expectLine(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want)+1)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want+"\n" {
		t.Fatalf("it wrote %q, %v, not %q", got, err, want)
	}
}

func TestTheFirstSignalEndsTheRunCleanly(t *testing.T) {
	for sig, said := range map[syscall.Signal]string{
		syscall.SIGINT: "interrupted by signal: interrupt", syscall.SIGTERM: "interrupted by signal: terminated",
	} {
		cmd, stdout, stderr := start(t, "wait")
		expectLine(t, stdout, "ready")
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		expectLine(t, stdout, said)
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %v, %q", sig, err, stderr)
		}
	}
}

func TestTheSecondSignalEndsItAtOnce(t *testing.T) {
	for _, second := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd, stdout, _ := start(t, "hang")
		expectLine(t, stdout, "ready")
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		expectLine(t, stdout, "hanging")
		if err := cmd.Process.Signal(second); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // an error, as it must be
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != second {
			t.Errorf("%v: %v", second, cmd.ProcessState)
		}
	}
}

func TestAClosedPipeEndsQuietly(t *testing.T) {
	cmd, stdout, stderr := start(t, "rows")
	expectLine(t, stdout, "row")
	stdout.(io.Closer).Close()
	_ = cmd.Wait()
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if stderr.Len() > 0 || !(ws.Exited() && ws.ExitStatus() == Done || ws.Signaled() && ws.Signal() == syscall.SIGPIPE) {
		t.Errorf("%v, %q", cmd.ProcessState, stderr)
	}
}

func TestMainPassesArguments(t *testing.T) {
	cmd, _, stderr := start(t, "args", "-x", "a b")
	_ = cmd.Wait()
	if got := stderr.String(); got != "tool: tool got [\"-x\" \"a b\"]\n" || cmd.ProcessState.ExitCode() != Failed {
		t.Errorf("%d, %s", cmd.ProcessState.ExitCode(), got)
	}
}

func TestExitStatus(t *testing.T) {
	refusal := &diagnose.Refusal{Tried: "load", Missing: "needs CAP_BPF", Remedy: "run as root", Err: syscall.EPERM}
	started := &command.Error{Name: "nosuch", Err: syscall.ENOENT, Status: 127}
	for _, test := range []struct {
		what   string
		err    error
		status int
		said   string
	}{
		{"nothing", nil, 0, ""},
		{"help was shown", fmt.Errorf("parse: %w", errShown), 0, ""},
		{"the command's status", Status(7), 7, ""},
		{"the command's status 0", Status(0), 0, ""},
		{"a wrapped status", fmt.Errorf("end: %w", Status(143)), 143, ""},
		{"a command that is not there", started, 127, "tool: " + started.Error() + "\n"},
		{"one that can't be executed", fmt.Errorf("start: %w", &command.Error{Name: "dir", Status: 126}), 126, "tool: start: run \"dir\": \n"},
		{"bad usage", BadUse("--pid: %q is no number", "x"), 2, "tool: --pid: \"x\" is no number (tool --help shows how)\n"},
		{"wrapped bad usage", fmt.Errorf("parse: %w", &Usage{errors.New("no")}), 2, "tool: parse: no (tool --help shows how)\n"},
		{"bad usage by a missing file", BadUse("--cgroupmap: %w", syscall.ENOENT), 2, "tool: --cgroupmap: no such file or directory (tool --help shows how)\n"},
		{"a reader that went away", fmt.Errorf("write: %w", syscall.EPIPE), 0, ""},
		{"a refusal", fmt.Errorf("--attach fentry: %w", refusal), 3, "tool: --attach fentry: load: needs CAP_BPF [operation not permitted]; run as root\n"},
		{"a full disk", fmt.Errorf("write: %w", syscall.ENOSPC), 1, "tool: write: no space left on device\n"},
		{"a text that would drive the terminal", errors.New("open \x1b[2J\n\xff"), 1, "tool: open \\x1b[2J\\n\\xff\n"},
		{"the same in bad usage", BadUse("open \x1b]0;x\a"), 2, "tool: open \\x1b]0;x\\x07 (tool --help shows how)\n"},
	} {
		var stderr, stdout bytes.Buffer
		env := &Env{Name: "tool", Stdout: &stdout, Stderr: &stderr}
		if got := exitStatus(env, test.err); got != test.status || stderr.String() != test.said {
			t.Errorf("%s: %d, %q, not %d, %q", test.what, got, stderr.String(), test.status, test.said)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s: standard output has %q", test.what, stdout.String())
		}
	}
}

var toolManual = manual.Manual{
	Name: "tool", Summary: "do it", Synopsis: []string{"tool [options]"},
	Examples: []manual.Example{{Command: "tool -n 3", Text: "do it thrice"}},
}

// parse parses args for a tool with a flag --number.
func parse(stdout io.Writer, args ...string) (number int, status int, stderr string) {
	var errs bytes.Buffer
	env := &Env{Name: "tool", Args: args, Stdout: stdout, Stderr: &errs}
	fs := env.Flags()
	fs.IntVarP(&number, "number", "n", 1, "do it so many `TIMES`")
	err := env.Parse(&toolManual, fs)
	return number, exitStatus(env, err), errs.String()
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args   string
		status int
		stdout string // a regular expression
		stderr string
	}{
		{"-n 3", 0, `^$`, ""},
		{"", 0, `^$`, ""},
		{"--help", 0, `(?s)tool \[options\].*--number.*tool -n 3`, ""},
		{"-h -n 3", 0, `--completion`, ""},
		{"--version", 0, `^tool \S+\n$`, ""},
		{"--man", 0, `(?s)^\.TH|\n\.TH`, ""},
		{"--completion bash", 0, `complete .*tool`, ""},
		{"--completion zsh", 0, `#compdef tool`, ""},
		{"--completion fish", 0, `complete -c tool`, ""},
		{"--completion tcsh", 2, `^$`, "tcsh"},
		{"--completion=", 2, `^$`, "tool: "},
		{"--nosuch", 2, `^$`, "unknown flag: --nosuch"},
		{"-q", 2, `^$`, "unknown shorthand flag: 'q' in -q"},
		{"-n x", 2, `^$`, `invalid argument "x" for "-n, --number"`},
		{"-n", 2, `^$`, "needs an argument"},
		{"--version=maybe", 2, `^$`, "maybe"},
	} {
		var stdout bytes.Buffer
		_, status, stderr := parse(&stdout, strings.Fields(test.args)...)
		if status != test.status || !regexp.MustCompile(test.stdout).Match(stdout.Bytes()) || !strings.Contains(stderr, test.stderr) {
			t.Errorf("tool %s: %d, %q, %q", test.args, status, stdout.String(), stderr)
		}
		if lines := strings.Count(stderr, "\n"); test.status == 2 && lines != 1 || test.status == 0 && lines != 0 {
			t.Errorf("tool %s says on standard error: %q", test.args, stderr)
		}
	}
	if number, _, _ := parse(io.Discard, "-n", "3"); number != 3 {
		t.Errorf("-n 3 is %d", number)
	}
}

// What could not be printed was not shown.
func TestParseTellsOfAFullDisk(t *testing.T) {
	for _, arg := range []string{"--help", "--version", "--man", "--completion=bash"} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, status, stderr := parse(full, arg); status != Failed || !strings.Contains(stderr, "no space left") {
			t.Errorf("%s: status %d, %q", arg, status, stderr)
		}
		full.Close()
	}
}

func TestCommand(t *testing.T) {
	for _, test := range []struct{ args, positional, command []string }{
		{nil, []string{}, nil},
		{[]string{"-n", "3", "a"}, []string{"a"}, nil},
		{[]string{"--", "ls", "-l"}, []string{}, []string{"ls", "-l"}},
		{[]string{"-n3", "a", "--", "ls", "--", "x"}, []string{"a"}, []string{"ls", "--", "x"}},
		{[]string{"--"}, []string{}, []string{}},
	} {
		fs := (&Env{Name: "tool"}).Flags()
		fs.IntP("number", "n", 1, "")
		if err := fs.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		positional, command := Command(fs)
		if !slices.Equal(positional, test.positional) || !slices.Equal(command, test.command) || (command == nil) != (test.command == nil) {
			t.Errorf("%q: %q and %q", test.args, positional, command)
		}
	}
}

func TestVersion(t *testing.T) {
	if got := Version(); got == "" || strings.ContainsAny(got, " \n") {
		t.Errorf("version %q", got)
	}
	defer func(v string) { version = v }(version)
	version = "v1.2.3-4-gabcdef"
	if got := Version(); got != version {
		t.Errorf("version %q", got)
	}
}
