package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// peerPackages are the Debian packages that hold the peers.
var peerPackages = []string{"libbpf-tools", "bpftrace", "linux-perf"}

// timezonePackage is fetched with them: libbpf-tools' opensnoop asks the C library
// for the local time of every event, and where there is no /etc/localtime that
// opens a file each time, which it then traces in turn without an end.
const timezonePackage = "tzdata"

// suites are where they are fetched from, the newest first.
var suites = []string{"sid", "trixie"}

// installedPeers finds the peers of a tool that are on the machine.
func installedPeers(ctx context.Context, s *scenario) []tracer {
	var found []tracer
	tool := s.tool
	// Debian's name, and the one of Fedora and Alpine.
	for _, name := range []string{tool + "-libbpf", "bpf-" + tool} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, libbpfTracer("", path, installedVersion(ctx, "libbpf-tools")))
			break
		}
	}
	if path, err := exec.LookPath("bpftrace"); err == nil {
		scripts := []string{"/usr/sbin/" + tool + ".bt", "/usr/share/bpftrace/tools/" + tool + ".bt"}
		i := slices.IndexFunc(scripts, func(script string) bool {
			_, err := os.Stat(script)
			return err == nil
		})
		switch version := installedVersion(ctx, "bpftrace"); {
		case s.peerOptions["bpftrace"] != nil:
			found = append(found, bpftraceTracer("", path, version))
		case i >= 0:
			found = append(found, bpftraceTracer("", path, version, scripts[i]))
		}
	}
	if path, err := exec.LookPath("perf"); err == nil {
		found = append(found, perfTracer("", path, installedVersion(ctx, "linux-perf")))
	}
	for _, name := range []string{tool + "-bpfcc", "/usr/share/bcc/tools/" + tool} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, tracer{key: "bcc", name: "BCC", version: installedVersion(ctx, "bpfcc-tools"), argv: []string{path}})
			break
		}
	}
	return found
}

func installedVersion(ctx context.Context, pkg string) string {
	out, err := child(ctx, "dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil {
		return "as installed"
	}
	return string(out)
}

// fetchedPeers returns the peers of a tool in the newest Debian suite that can be had,
// run from a directory of their own. They are fetched by apt, from the archive
// that the machine is set up for, if cache doesn't hold them yet.
func fetchedPeers(ctx context.Context, s *scenario, cache string) ([]tracer, error) {
	for _, suite := range suites {
		dir := filepath.Join(cache, suite)
		if versions, err := readVersions(dir); err == nil {
			return peersIn(s, dir, versions), nil
		}
	}
	var failures []error
	for _, suite := range suites {
		dir := filepath.Join(cache, suite)
		fmt.Fprintf(os.Stderr, "bench: fetching %s from Debian %s, about 110 MB\n", strings.Join(peerPackages, ", "), suite)
		versions, err := fetch(ctx, suite, dir)
		if err == nil {
			return peersIn(s, dir, versions), nil
		}
		failures = append(failures, fmt.Errorf("fetch the peers from Debian %s: %w", suite, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

func peersIn(s *scenario, dir string, versions map[string]string) []tracer {
	root := filepath.Join(dir, "root")
	var script []string
	if s.peerOptions["bpftrace"] == nil {
		script = []string{"/usr/sbin/" + s.tool + ".bt"}
	}
	return []tracer{
		libbpfTracer(root, "/usr/sbin/"+s.tool+"-libbpf", versions["libbpf-tools"]),
		bpftraceTracer(root, "/usr/bin/bpftrace", versions["bpftrace"], script...),
		perfTracer(root, "/usr/bin/perf", versions["linux-perf"]),
	}
}

func libbpfTracer(root, path, version string) tracer {
	return tracer{key: "libbpf", name: "libbpf-tools", version: version, root: root, argv: []string{path}}
}

func bpftraceTracer(root, path, version string, script ...string) tracer {
	return tracer{key: "bpftrace", name: "bpftrace", version: version, root: root, argv: append([]string{path}, script...)}
}

// fetch downloads the peers and all that they depend on, by apt with a state of
// its own that knows of no installed package, unpacks them into dir/root, and
// returns the peers' versions. No package's scripts are run, and the machine's
// own packages and apt state are not touched.
func fetch(ctx context.Context, suite, dir string) (map[string]string, error) {
	site, err := debianSite(ctx)
	if err != nil {
		return nil, err
	}
	// What an interrupted fetch left is no ground to build on.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	apt, root := filepath.Join(dir, "apt"), filepath.Join(dir, "root")
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(apt, "status"), nil, 0o644); err != nil {
		return nil, err
	}
	source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", site, suite)
	if err := os.WriteFile(filepath.Join(apt, "sources.list"), []byte(source), 0o644); err != nil {
		return nil, err
	}
	options := []string{"-qq", "-y",
		"-o", "Dir::State=" + apt,
		"-o", "Dir::State::lists=" + filepath.Join(apt, "lists"),
		"-o", "Dir::State::status=" + filepath.Join(apt, "status"),
		"-o", "Dir::Cache=" + filepath.Join(apt, "cache"),
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(apt, "sources.list"),
		"-o", "Dir::Etc::sourceparts=-",
		"-o", "Acquire::Languages=none",
		// The directory belongs to this user, not to apt's own one.
		"-o", "APT::Sandbox::User=root",
		"-o", "Debug::NoLocking=1",
	}
	if err := quietly(ctx, "apt-get", append(slices.Clone(options), "update")...); err != nil {
		return nil, err
	}
	install := append(slices.Clone(options), "--no-install-recommends", "--download-only", "install", timezonePackage)
	if err := quietly(ctx, "apt-get", append(install, peerPackages...)...); err != nil {
		return nil, err
	}
	versions, err := unpack(ctx, filepath.Join(apt, "cache", "archives"), root)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(apt); err != nil {
		return nil, err
	}
	return versions, writeVersions(dir, versions)
}

// unpack unpacks every package in archives into root, and returns the versions
// of the peers among them.
func unpack(ctx context.Context, archives, root string) (map[string]string, error) {
	for _, d := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	// Programs name their interpreter by the short path, which a package
	// that isn't fetched would make.
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			return nil, err
		}
	}
	// As an installed Debian has it.
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink("/usr/share/zoneinfo/Etc/UTC", filepath.Join(root, "etc", "localtime")); err != nil {
		return nil, err
	}
	packages, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return nil, err
	}
	versions := make(map[string]string)
	for _, file := range packages {
		if err := quietly(ctx, "dpkg", "-x", file, root); err != nil {
			return nil, err
		}
		out, err := child(ctx, "dpkg-deb", "--show", "--showformat=${Package} ${Version}", file).Output()
		if err != nil {
			return nil, fmt.Errorf("read the version of %s: %w", filepath.Base(file), err)
		}
		if name, version, _ := strings.Cut(string(out), " "); slices.Contains(peerPackages, name) {
			versions[name] = version
		}
	}
	for _, name := range peerPackages {
		if versions[name] == "" {
			return nil, fmt.Errorf("apt did not fetch the package %s", name)
		}
	}
	return versions, nil
}

// debianSite is the archive that this machine's apt is set up for.
func debianSite(ctx context.Context) (string, error) {
	out, err := child(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(SITE)").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its Debian archive: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if site, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|"); ok {
			return site, nil
		}
	}
	return "", errors.New("apt's sources name no Debian archive (or `apt-get update` was never run)")
}

// quietly runs a command whose output is of interest only if it fails.
func quietly(ctx context.Context, name string, args ...string) error {
	cmd := child(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// The file of versions is written last, so where it stands the rest is whole.
func versionsFile(dir string) string { return filepath.Join(dir, "versions") }

func writeVersions(dir string, versions map[string]string) error {
	var text strings.Builder
	for _, name := range peerPackages {
		fmt.Fprintf(&text, "%s %s\n", name, versions[name])
	}
	return os.WriteFile(versionsFile(dir), []byte(text.String()), 0o644)
}

func readVersions(dir string) (map[string]string, error) {
	text, err := os.ReadFile(versionsFile(dir))
	if err != nil {
		return nil, err
	}
	versions := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		versions[name] = version
	}
	for _, name := range peerPackages {
		if versions[name] == "" {
			return nil, fmt.Errorf("%s: from before %s was fetched too", versionsFile(dir), name)
		}
	}
	return versions, nil
}
