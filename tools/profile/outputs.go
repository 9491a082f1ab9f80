package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/manual"
)

// stdoutName stands for standard output among file names.
const stdoutName = "-"

// outputs are what a report is written to beside, or instead of, standard output.
type outputs struct {
	pprof, svg, script string
	files              []*outputFile
}

func (o *outputs) define(fs *pflag.FlagSet) {
	fs.StringVar(&o.pprof, "pprof", "", "write a profile for go tool pprof to `FILE`; - is standard output")
	fs.StringVar(&o.svg, "svg", "", "write a flame graph for browsers to `FILE`")
	fs.StringVar(&o.script, "script", "", "write each sample with its time to `FILE`, as perf script does")
	manual.Place(fs, manual.Output, "pprof", "svg", "script")
	for _, name := range []string{"pprof", "svg", "script"} {
		manual.Completes(fs, name, manual.File)
	}
}

// outputFile is a file that is to hold a report.
type outputFile struct {
	flag  string
	file  *os.File // nil for standard output
	made  bool     // it was not there before
	done  bool
	write func(w io.Writer, r *report) error
}

// open opens the files, so that one that can't be written to is found before the
// sampling. Until there is a report, what is in them stays.
func (o *outputs) open() error {
	for _, f := range []struct {
		flag, path string
		write      func(w io.Writer, r *report) error
	}{
		{"pprof", o.pprof, writePprof},
		{"svg", o.svg, writeFlameGraph},
		{"script", o.script, writeScript},
	} {
		if f.path == "" {
			continue
		}
		out := &outputFile{flag: f.flag, write: f.write}
		o.files = append(o.files, out)
		if f.path == stdoutName {
			continue
		}
		_, err := os.Lstat(f.path)
		out.made = errors.Is(err, os.ErrNotExist)
		if out.file, err = os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
			return cli.BadUse("--%s: %w", f.flag, err)
		}
	}
	return nil
}

// any reports whether there are any.
func (o *outputs) any() bool { return len(o.files) > 0 }

// toStdout reports whether one of them is standard output.
func (o *outputs) toStdout() bool {
	for _, f := range o.files {
		if f.file == nil {
			return true
		}
	}
	return false
}

// wantMoments reports whether the time of each sample is of interest.
func (o *outputs) wantMoments() bool { return o.script != "" }

// write writes the report to all of them; each is tried.
func (o *outputs) write(stdout io.Writer, r *report) error {
	var errs []error
	for _, f := range o.files {
		if err := f.save(stdout, r); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", f.flag, err))
		}
	}
	return errors.Join(errs...)
}

func (f *outputFile) save(stdout io.Writer, r *report) error {
	f.done = true
	if f.file == nil {
		return f.write(stdout, r)
	}
	// What can't be shortened, as a pipe or a device, has nothing in it.
	if info, err := f.file.Stat(); err == nil && info.Mode().IsRegular() {
		if err := f.file.Truncate(0); err != nil {
			return err
		}
	}
	return errors.Join(f.write(f.file, r), f.file.Close())
}

// close removes the files that no report came to.
func (o *outputs) close() {
	for _, f := range o.files {
		if f.done || f.file == nil {
			continue
		}
		_ = f.file.Close()
		if f.made {
			_ = os.Remove(f.file.Name())
		}
	}
}
