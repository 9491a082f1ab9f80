// Kernels runs the kernel tests of this repository on a row of real kernels,
// each in a small guest under QEMU, and says which attach modes ran where.
//
// Usage:
//
//	go run ./internal/cmd/kernels [flags]
//
// It fetches the kernels (Debian's cloud kernels, by apt, from the mirror that
// the machine is set up for) and keeps them in the user's cache directory. The
// tests are those of all packages with a file *kernel_test.go; each runs in the
// guest as root, with GOBCC_KERNEL_TESTS=1, GOBCC_GUEST=KERNEL and
// GOBCC_MODULES="MODULE ..." (the kernel modules that are loaded) in its
// environment. A test file asks for modules by a line such as
//
//	//kernel:modules overlay null_blk scsi_debug?
//
// where a question mark stands behind those that some of the kernels do not have.
//
// Of the environment it reads KERNELS (as -kernels) and CI: if that is set, a
// skip that report.go does not list as expected is a failure, and so is a
// kernel that can't be had.
//
// Exit status: 0 all is well, 1 something failed, 2 bad usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// options are the command line's.
type options struct {
	kernels, run, packages, mirror, accel string
	verbose, keep, list, refresh          bool
	timeout                               time.Duration
	parallel                              int
}

func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("kernels", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.kernels, "kernels", getenv("KERNELS"), "run on these `kernels` only, names or paths of images, separated by spaces or commas; names: "+strings.Join(kernelNames(), ", "))
	fs.StringVar(&o.run, "run", "^TestKernel", "run the tests that match this `regexp`, as go test -run")
	fs.StringVar(&o.packages, "packages", "./...", "look for kernel tests in these `packages`, separated by spaces")
	fs.StringVar(&o.mirror, "mirror", "", "fetch from the Debian mirror at this `address` (default: the one apt is set up for)")
	fs.StringVar(&o.accel, "accel", "auto", "run guests by kvm or tcg (emulation); auto takes kvm where it proves to work")
	fs.BoolVar(&o.verbose, "v", false, "show the guests' consoles as they run")
	fs.BoolVar(&o.keep, "keep", false, "keep the test binaries and memory disks, to run QEMU by hand")
	fs.BoolVar(&o.list, "list", false, "list the kernels and the packages with kernel tests, and run nothing")
	fs.BoolVar(&o.refresh, "refresh", false, "look for newer kernels than those in the cache")
	fs.DurationVar(&o.timeout, "timeout", 20*time.Minute, "time `limit` for each kernel, from boot to power-off; twice that for arm64")
	fs.IntVar(&o.parallel, "parallel", max(1, min(2, runtime.NumCPU())), "run this `number` of guests at a time")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	err := func() error {
		if fs.NArg() > 0 {
			return fmt.Errorf("unexpected argument %q", fs.Arg(0))
		}
		if _, err := regexp.Compile(o.run); err != nil {
			return fmt.Errorf("-run: %w", err)
		}
		if !slices.Contains([]string{"auto", "kvm", "tcg"}, o.accel) {
			return fmt.Errorf("-accel %q: must be auto, kvm or tcg", o.accel)
		}
		if o.timeout < time.Minute {
			return fmt.Errorf("-timeout %v: an emulated guest needs a minute at least", o.timeout)
		}
		if o.parallel < 1 {
			return fmt.Errorf("-parallel %d: must be at least 1", o.parallel)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintf(stderr, "kernels: %v\n", err)
	}
	return o, err
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, getenv, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	picked, err := pickKernels(o.kernels)
	if err != nil {
		fmt.Fprintf(stderr, "kernels: %v\n", err)
		return 2
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		fmt.Fprintf(stderr, "kernels: find the user's cache directory: %v\n", err)
		return 1
	}
	stderr = &lockedWriter{w: stderr}
	r := &runner{
		options: o,
		store:   &store{dir: filepath.Join(cache, "gobcc", "kernels"), mirror: o.mirror, log: stderr},
		accel:   &accelerator{ask: o.accel, log: stderr},
		strict:  getenv("CI") != "",
		log:     stderr,
	}
	if o.list {
		err = r.writeList(ctx, stdout)
	} else {
		err = r.test(ctx, picked, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "kernels: %v\n", err)
		return 1
	}
	return 0
}

// A lockedWriter lets guests that run at the same time write whole lines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// A runner runs kernel tests.
type runner struct {
	options
	store  *store
	accel  *accelerator
	strict bool      // the rules of CI
	log    io.Writer // progress, for a person to read
	dir    string    // scratch: binaries, memory disks, logs
}

func (r *runner) logf(format string, args ...any) {
	fmt.Fprintf(r.log, "kernels: "+format+"\n", args...)
}

func (r *runner) writeList(ctx context.Context, w io.Writer) error {
	for _, k := range kernels {
		img, ok := r.store.cached(k)
		if !ok {
			img.Version = "not fetched yet"
		}
		when := "when picked"
		if k.Default {
			when = "by default"
		}
		fmt.Fprintf(w, "%-12s %-12s %s\n", k.Name, when, img.Version)
	}
	packages, err := findPackages(ctx, strings.Fields(r.packages))
	if err != nil {
		return err
	}
	for _, p := range packages {
		fmt.Fprintln(w, strings.TrimSpace(p.ImportPath+" "+strings.Join(p.Modules, " ")))
	}
	return nil
}

var (
	errFailed      = errors.New("not all is well on all kernels")
	errInterrupted = errors.New("interrupted")
)

// test runs the tests on the kernels and writes the report.
func (r *runner) test(ctx context.Context, picked []kernel, stdout io.Writer) error {
	begin := time.Now()
	packages, err := findPackages(ctx, strings.Fields(r.packages))
	if err != nil {
		return err
	}
	if len(packages) == 0 {
		return fmt.Errorf("no package in %s has a file *kernel_test.go", r.packages)
	}
	r.dir, err = os.MkdirTemp("", "gobcc-kernels-")
	if err != nil {
		return err
	}
	defer r.clean()
	runs := make([]kernelRun, len(picked))
	images := make([]image, len(picked))
	for i, k := range picked {
		runs[i].Kernel = k
		m := machines[k.Arch]
		if err := needProgram(ctx, r.log, m.Program, m.Package); err != nil {
			return err
		}
		if images[i], err = r.store.get(ctx, k, r.refresh); err != nil {
			if ctx.Err() != nil {
				return errInterrupted
			}
			r.logf("%s CAN'T BE HAD: %v", k.Name, err)
			runs[i].Missing = err
			// A kernel asked for by name is not to be passed over.
			runs[i].MissingFails = r.strict || r.kernels != ""
		}
		runs[i].Version = images[i].Version
	}
	built, err := r.build(ctx, runs, packages)
	if err != nil {
		return err
	}

	r.logf("%d packages on %d kernels; console logs are in %s", len(packages), len(picked), r.dir)
	slots := make(chan struct{}, r.parallel)
	var guests sync.WaitGroup
	// The newer a kernel, the longer it takes: those that begin late are to be short.
	for i := range slices.Backward(runs) {
		if runs[i].Missing != nil {
			continue
		}
		slots <- struct{}{}
		guests.Go(func() {
			defer func() { <-slots }()
			run := &runs[i]
			started := time.Now()
			b := built[run.Kernel.Arch]
			job := guestJob{log: run.Kernel.Name, run: r.run, packages: packages, binaries: b}
			if err := r.guest(ctx, run, images[i], job); err != nil {
				run.Failure = err
			}
			if r.accel.emulates() {
				r.again(ctx, run, images[i], packages, b)
			}
			run.Time = time.Since(started)
			r.logf("%s: over after %v", run.Kernel.Name, run.Time.Round(time.Second))
		})
	}
	guests.Wait()
	if ctx.Err() != nil {
		return errInterrupted
	}
	ok := writeReport(stdout, runs, r.strict)
	r.logf("%v in all", time.Since(begin).Round(time.Second))
	if !ok {
		return errFailed
	}
	return nil
}

// binaries are the programs for one architecture's guests.
type binaries struct {
	Init  string
	Tests []string
}

// build builds what the architectures of the kernels at hand need.
func (r *runner) build(ctx context.Context, runs []kernelRun, packages []testPackage) (map[string]binaries, error) {
	built := map[string]binaries{}
	for _, run := range runs {
		k := run.Kernel
		if _, ok := built[k.Arch]; ok || run.Missing != nil {
			continue
		}
		r.logf("building tests for %s", k.Arch)
		init, err := buildInit(ctx, r.dir, k.Arch)
		if err != nil {
			return nil, err
		}
		tests, err := buildTests(ctx, r.dir, k.Arch, packages)
		if err != nil {
			return nil, err
		}
		built[k.Arch] = binaries{init, tests}
	}
	return built, nil
}

// clean removes the big files and leaves the logs, if there are any.
func (r *runner) clean() {
	if r.keep {
		return
	}
	defer os.Remove(r.dir) // which fails, as it should, if it has logs
	disks, _ := filepath.Glob(filepath.Join(r.dir, "*.initrd"))
	for _, path := range append(disks, filepath.Join(r.dir, "amd64"), filepath.Join(r.dir, "arm64")) {
		os.RemoveAll(path)
	}
}

// A guestJob is what a guest is to run.
type guestJob struct {
	log      string // name of the console's log, and of the memory disk
	run      string // regular expression of tests
	packages []testPackage
	binaries binaries
}

// guest runs tests on one kernel. Its error tells that the guest failed; how the tests
// fared is in run.
func (r *runner) guest(ctx context.Context, run *kernelRun, img image, job guestJob) error {
	k := run.Kernel
	limit := r.timeout
	if k.Arch == "arm64" {
		limit *= 2
	}
	g := guest{
		Kernel: k.Name, Init: job.binaries.Init, Packages: job.packages, Binaries: job.binaries.Tests,
		Run: job.run, Short: k.Short, Seconds: int(limit.Seconds()),
	}
	if img.Modules == "" {
		r.logf("%s: this kernel comes without modules: tests that need some can't run", k.Name)
	} else {
		var wanted []string
		for _, p := range job.packages {
			wanted = append(wanted, p.Modules...)
		}
		var err error
		if g.Modules, err = loadModules(ctx, img.Modules, wanted); err != nil {
			return err
		}
	}
	initrd := filepath.Join(r.dir, job.log+".initrd")
	if err := writeInitrd(initrd, g); err != nil {
		return err
	}
	run.Log = filepath.Join(r.dir, job.log+".log")
	log, err := os.Create(run.Log)
	if err != nil {
		return err
	}
	defer log.Close()

	boot := guestBoot{Machine: machines[k.Arch], Vmlinuz: img.Vmlinuz, Initrd: initrd, Limit: limit, Log: log}
	boot.Accel, boot.BootLimit = r.accel.choose(boot.Machine, func(accel []string, limit time.Duration) error {
		return r.probe(ctx, boot, job.binaries.Init, accel, limit)
	})
	if r.verbose {
		boot.Lines = func(line string) { fmt.Fprintf(r.log, "%s| %s\n", k.Name, line) }
	}
	r.logf("%s: booting %s, console in %s", k.Name, img.Version, run.Log)
	c, err := boot.runTwice(ctx, func(err error) {
		r.logf("%s: DIED BEFORE INIT STARTED (%v); BOOTING IT ONCE MORE", k.Name, err)
		run.Retried = true
	})
	if c == nil {
		return err
	}
	if c.started() {
		run.Version = c.Release
	}
	run.Kmsg = c.Kmsg
	for _, said := range c.Errors {
		err = errors.Join(err, fmt.Errorf("the guest says: %s", said))
	}
	for _, p := range c.Packages {
		results, e := packageResults(ctx, p)
		err = errors.Join(err, e)
		run.Results = append(run.Results, results...)
	}
	if err != nil {
		run.Tail = c.tail
	}
	if n := len(job.packages) - len(c.Packages); n != 0 {
		err = errors.Join(err, fmt.Errorf("the tests of %d of %d packages did not run", n, len(job.packages)))
	}
	return err
}

// probe boots a guest without tests, to see whether QEMU's options work here.
func (r *runner) probe(ctx context.Context, boot guestBoot, init string, accel []string, limit time.Duration) error {
	boot.Initrd = filepath.Join(r.dir, "probe.initrd")
	if err := writeInitrd(boot.Initrd, guest{Kernel: "probe", Init: init, Seconds: int(limit.Seconds())}); err != nil {
		return err
	}
	boot.Accel, boot.BootLimit, boot.Limit, boot.Log = accel, limit, limit, io.Discard
	_, err := boot.run(ctx)
	return err
}
