package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An image is a kernel at hand.
type image struct {
	Version string // as in uname -r
	Vmlinuz string // path
	Modules string // path of its modules' directory, or empty
}

// A store is a directory of unpacked kernel packages, one directory a version:
// ARCH/VERSION/.
type store struct {
	dir    string
	mirror string    // address of a Debian mirror, or empty for this machine's
	log    io.Writer // what is being fetched
}

// get returns the newest kernel in the store that k stands for. With refresh,
// or if there is none, it looks for one in k's suites and downloads it if the
// store does not have it.
func (s *store) get(ctx context.Context, k kernel, refresh bool) (image, error) {
	if k.Image != "" {
		return image{Version: k.Name, Vmlinuz: k.Image}, nil
	}
	if img, ok := s.cached(k); ok && !refresh {
		return img, nil
	}
	for _, program := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(program); err != nil {
			return image{}, fmt.Errorf("%s is needed to fetch a kernel and is not on this machine: give kernels by path (KERNELS=/path/to/bzImage)", program)
		}
	}
	unlock, err := s.lock()
	if err != nil {
		return image{}, err
	}
	defer unlock()
	// Another run may have fetched it while this one waited for the lock.
	if img, ok := s.cached(k); ok && !refresh {
		return img, nil
	}
	var errs []error
	for _, suite := range k.Suites {
		img, err := s.fetch(ctx, k, suite)
		if err == nil {
			return img, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", suite, err))
	}
	return image{}, errors.Join(errs...)
}

// cached returns the newest kernel in the store that k stands for.
func (s *store) cached(k kernel) (image, bool) {
	entries, err := os.ReadDir(filepath.Join(s.dir, k.Arch))
	if err != nil {
		return image{}, false
	}
	var names []string
	for _, e := range entries {
		names = append(names, "linux-image-"+e.Name())
	}
	_, version := choosePackages(names, k.Release, k.Arch)
	if version == "" {
		return image{}, false
	}
	img, err := findImage(filepath.Join(s.dir, k.Arch, version), version)
	return img, err == nil
}

// findImage finds the kernel in a directory of unpacked packages. The image is
// in boot/ up to 6.18 and beside the modules from 6.19 on.
func findImage(dir, version string) (image, error) {
	img := image{Version: version}
	for _, path := range []string{"lib/modules", "usr/lib/modules"} {
		path = filepath.Join(dir, path, version)
		if _, err := os.Stat(filepath.Join(path, "kernel")); err == nil {
			img.Modules = path
		}
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasPrefix(e.Name(), "vmlinuz") {
			img.Vmlinuz = path
			return filepath.SkipAll
		}
		return err
	})
	if err != nil {
		return image{}, err
	}
	if img.Vmlinuz == "" || img.Modules == "" {
		return image{}, fmt.Errorf("no kernel image or no modules under %s", dir)
	}
	return img, nil
}

// lock keeps other runs from fetching at the same time.
func (s *store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// fetch downloads k from a suite into the store, if the store lacks it.
func (s *store) fetch(ctx context.Context, k kernel, suite string) (image, error) {
	site, err := s.site(ctx, suite)
	if err != nil {
		return image{}, err
	}
	// In the store, so that the unpacked directory can be renamed into place.
	tmp, err := os.MkdirTemp(s.dir, "fetch-")
	if err != nil {
		return image{}, err
	}
	defer os.RemoveAll(tmp)
	apt, err := newApt(tmp, k.Arch, fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, site, suite))
	if err != nil {
		return image{}, err
	}
	fmt.Fprintf(s.log, "kernels: %s: looking for the newest one in %s\n", k.Name, suite)
	if _, err := apt.run(ctx, "apt-get", "update"); err != nil {
		return image{}, err
	}
	out, err := apt.run(ctx, "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return image{}, err
	}
	packages, version := choosePackages(strings.Fields(string(out)), k.Release, k.Arch)
	if version == "" {
		return image{}, fmt.Errorf("no package of a kernel %s* for %s", k.Release, k.Arch)
	}
	final := filepath.Join(s.dir, k.Arch, version)
	if img, err := findImage(final, version); err == nil {
		return img, nil
	}
	fmt.Fprintf(s.log, "kernels: %s: downloading %s\n", k.Name, strings.Join(packages, " "))
	if _, err := apt.run(ctx, "apt-get", append([]string{"download"}, packages...)...); err != nil {
		return image{}, err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return image{}, err
	}
	unpacked := filepath.Join(tmp, "unpacked")
	for _, deb := range debs {
		if _, err := command(ctx, "dpkg", "-x", deb, unpacked); err != nil {
			return image{}, err
		}
	}
	if _, err := findImage(unpacked, version); err != nil {
		return image{}, fmt.Errorf("unpacked %s: %w", strings.Join(packages, " "), err)
	}
	// dpkg -x gives the directory the mode of the package's root; what is at
	// the final path can only be left over from a run that was interrupted.
	err = errors.Join(os.MkdirAll(filepath.Dir(final), 0o755), os.RemoveAll(final), os.Rename(unpacked, final))
	if err != nil {
		return image{}, err
	}
	return findImage(final, version)
}

// keyring holds the keys of all Debian suites; package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// site returns the address of the mirror that has suite: the one given, or else
// that which this machine's apt is set up for.
func (s *store) site(ctx context.Context, suite string) (string, error) {
	if s.mirror != "" {
		return siteOf(s.mirror, suite), nil
	}
	out, err := command(ctx, "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	return pickSite(string(out), suite)
}

// siteOf returns the address of suite on a mirror given by the address of its
// main archive: security suites are an archive of their own beside that.
func siteOf(mirror, suite string) string {
	mirror = strings.TrimSuffix(mirror, "/")
	if strings.HasSuffix(suite, "-security") {
		return mirror + "-security"
	}
	return mirror
}

// pickSite picks the archive for suite from lines of an archive's address and
// the name of a suite that this machine takes from it.
func pickSite(targets, suite string) (string, error) {
	security := strings.HasSuffix(suite, "-security")
	main := ""
	for line := range strings.Lines(targets) {
		site, release, ok := strings.Cut(strings.TrimSpace(line), " ")
		site = strings.TrimSuffix(site, "/")
		switch {
		case !ok || !strings.Contains(site, "/debian"):
			// Some other archive's, such as a vendor's.
		case strings.HasSuffix(release, "-security") == security:
			return site, nil
		case !security:
		case strings.HasSuffix(site, "/debian"):
			main = site
		}
	}
	if main != "" {
		return siteOf(main, suite), nil
	}
	return "", errors.New("this machine's apt is set up for no Debian archive: name a mirror with -mirror ADDRESS")
}

// An apt is apt with a private state, so that neither the machine's own lists
// nor its installed packages are touched or looked at.
type apt struct {
	dir     string
	options []string
}

// newApt sets up an apt in dir, which it also downloads to, for one
// architecture and with the given sources.
func newApt(dir, arch, sources string) (*apt, error) {
	list := filepath.Join(dir, "sources.list")
	err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "state/lists/partial"), 0o755),
		os.MkdirAll(filepath.Join(dir, "cache/archives/partial"), 0o755),
		os.WriteFile(list, []byte(sources), 0o644))
	if err != nil {
		return nil, err
	}
	a := &apt{dir: dir}
	for _, option := range []string{
		"Dir::State=" + filepath.Join(dir, "state"),
		"Dir::State::status=/dev/null",
		"Dir::Cache=" + filepath.Join(dir, "cache"),
		"Dir::Etc::sourcelist=" + list,
		"Dir::Etc::sourceparts=-",
		"Dir::Etc::preferences=/dev/null",
		"Dir::Etc::preferencesparts=-",
		"APT::Architecture=" + arch,
		"APT::Architectures=" + arch,
		// apt's own user can't write to the directories above.
		"APT::Sandbox::User=root",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::Retries=3",
		// The index of a suite past its support is no longer signed anew.
		"Acquire::Check-Valid-Until=false",
	} {
		a.options = append(a.options, "-o", option)
	}
	return a, nil
}

func (a *apt) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, slices.Concat([]string{"-q"}, a.options, args)...)
	cmd.Dir = a.dir
	return output(cmd)
}

func command(ctx context.Context, program string, args ...string) ([]byte, error) {
	return output(exec.CommandContext(ctx, program, args...))
}

// output runs cmd and returns its standard output. Its error has what the
// program said.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := bytes.TrimSpace(stderr.Bytes())
		if len(said) == 0 {
			said = bytes.TrimSpace(stdout.Bytes())
		}
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said)
	}
	return stdout.Bytes(), nil
}

// needProgram makes sure that a program is on this machine: if it isn't, it is
// installed from the Debian package named, which takes root and apt.
func needProgram(ctx context.Context, log io.Writer, program, pkg string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	_, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing: install it (on Debian and Ubuntu: apt-get install %s)", program, pkg)
	}
	fmt.Fprintf(log, "kernels: %s is missing: installing %s\n", program, pkg)
	install := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", "install", "-q", "-y", "--no-install-recommends", pkg)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		_, err := output(cmd)
		return err
	}
	if install() == nil {
		return nil
	}
	// A fresh container has no package lists yet.
	if _, err := command(ctx, "apt-get", "update", "-q"); err != nil {
		return fmt.Errorf("install %s: %w", pkg, err)
	}
	if err := install(); err != nil {
		return fmt.Errorf("install %s: %w", pkg, err)
	}
	return nil
}
