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
	saveRaw            string
	files              []*outputFile
	raw                *outputFile // of saveRaw: written while it samples; nil if not asked for
}

func (o *outputs) define(fs *pflag.FlagSet) {
	fs.StringVar(&o.pprof, "pprof", "", "write a profile for go tool pprof to `FILE`; - is standard output")
	fs.StringVar(&o.svg, "svg", "", "write a flame graph for browsers to `FILE`")
	fs.StringVar(&o.script, "script", "", "write each sample with its time to `FILE`, as perf script does")
	fs.StringVar(&o.saveRaw, "save-raw", "", "record the run to `FILE`, for --replay")
	manual.Place(fs, manual.Output, "pprof", "svg", "script", "save-raw")
	for _, name := range []string{"pprof", "svg", "script", "save-raw"} {
		manual.Completes(fs, name, manual.File)
	}
}

// toStdout are the flags that write to standard output.
func (o *outputs) toStdout() (flags []string) {
	for _, f := range []struct{ flag, path string }{{"--pprof", o.pprof}, {"--svg", o.svg}, {"--script", o.script}} {
		if f.path == stdoutName {
			flags = append(flags, f.flag+" "+stdoutName)
		}
	}
	return flags
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
		if err := out.open(f.path); err != nil {
			return err
		}
	}
	if o.saveRaw != "" {
		if o.saveRaw == stdoutName {
			return cli.BadUse("--save-raw: a recording is for a file, and not for standard output")
		}
		o.raw = &outputFile{flag: "save-raw"}
		if err := o.raw.open(o.saveRaw); err != nil {
			return err
		}
	}
	return o.checkDistinct()
}

// checkDistinct refuses one file for two outputs, of which the later would be all that is
// left.
func (o *outputs) checkDistinct() error {
	var seen []os.FileInfo
	var flags []string
	for _, f := range append(o.files, o.raw) {
		if f == nil || f.file == nil {
			continue
		}
		info, err := f.file.Stat()
		if err != nil {
			return fmt.Errorf("--%s: %w", f.flag, err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		for i, other := range seen {
			if os.SameFile(info, other) {
				return cli.BadUse("--%s and --%s can't both be written to %s", flags[i], f.flag, f.file.Name())
			}
		}
		seen, flags = append(seen, info), append(flags, f.flag)
	}
	return nil
}

func (f *outputFile) open(path string) error {
	_, err := os.Lstat(path)
	f.made = errors.Is(err, os.ErrNotExist)
	if f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
		return cli.BadUse("--%s: %w", f.flag, err)
	}
	return nil
}

// clear makes the file empty. What can't be shortened, as a pipe or a device, has nothing
// in it.
func (f *outputFile) clear() error {
	info, err := f.file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return f.file.Truncate(0)
}

// none reports whether nothing but standard output is asked for.
func (o *outputs) none() bool { return o.pprof == "" && o.svg == "" && o.script == "" }

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
	if err := f.clear(); err != nil {
		return err
	}
	return errors.Join(f.write(f.file, r), f.file.Close())
}

// close removes the files that no report came to.
func (o *outputs) close() {
	for _, f := range append(o.files, o.raw) {
		if f == nil || f.done || f.file == nil {
			continue
		}
		_ = f.file.Close()
		if f.made {
			_ = os.Remove(f.file.Name())
		}
	}
}
