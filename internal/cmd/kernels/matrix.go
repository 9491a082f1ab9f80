package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A kernel is one to run tests on.
type kernel struct {
	// Name is what the user calls it: "6.12", "6.12-arm64", or the base name
	// of a kernel image that was given by its path.
	Name string
	// Arch is the GOARCH of its guests, which is also Debian's name for it.
	Arch string
	// Release is how its version starts: "6.12." or "7.".
	Release string
	// Suites are the Debian suites that may have it. The first that does is
	// taken, so the small indexes stand before the big ones.
	Suites []string
	// Default tells that it is run when none is picked.
	Default bool
	// Short tells that, then, what is the same on all kernels is not tested on this one.
	Short bool
	// Image is the path of the kernel image, for one given by its path.
	Image string
}

// kernels are those that can be picked by name.
var kernels = []kernel{
	{Name: "5.10", Arch: "amd64", Release: "5.10.", Suites: []string{"bullseye-security", "bullseye"}, Default: true},
	{Name: "6.1", Arch: "amd64", Release: "6.1.", Suites: []string{"bookworm-security", "bookworm"}, Default: true, Short: true},
	{Name: "6.12", Arch: "amd64", Release: "6.12.", Suites: []string{"trixie-security", "bookworm-security", "trixie"}, Default: true, Short: true},
	{Name: "7", Arch: "amd64", Release: "7.", Suites: []string{"trixie-backports", "sid"}, Default: true, Short: true},
	{Name: "6.1-arm64", Arch: "arm64", Release: "6.1.", Suites: []string{"bookworm-security", "bookworm"}},
	{Name: "6.12-arm64", Arch: "arm64", Release: "6.12.", Suites: []string{"trixie-security", "bookworm-security", "trixie"}},
}

// pickKernels returns the kernels that a list of names and paths stands for, or
// the default ones for an empty list. Names are separated by spaces or commas;
// what has a slash is the path of a kernel image.
func pickKernels(list string) ([]kernel, error) {
	var picked []kernel
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' }) {
		if strings.Contains(word, "/") {
			arch, err := imageArch(word)
			if err != nil {
				return nil, err
			}
			picked = append(picked, kernel{Name: filepath.Base(word), Arch: arch, Image: word})
			continue
		}
		i := slices.IndexFunc(kernels, func(k kernel) bool { return k.Name == word })
		if i < 0 {
			return nil, fmt.Errorf("unknown kernel %q: have %s, or the path of a kernel image (with a slash in it)",
				word, strings.Join(kernelNames(), ", "))
		}
		k := kernels[i]
		k.Short = false
		picked = append(picked, k)
	}
	if picked == nil {
		for _, k := range kernels {
			if k.Default {
				picked = append(picked, k)
			}
		}
	}
	for i, k := range picked {
		if slices.ContainsFunc(picked[:i], func(p kernel) bool { return p.Name == k.Name }) {
			return nil, fmt.Errorf("kernel %s is listed twice", k.Name)
		}
	}
	return picked, nil
}

func kernelNames() []string {
	var names []string
	for _, k := range kernels {
		names = append(names, k.Name)
	}
	return names
}

// imageArch returns the GOARCH that a kernel image is for, by its magic number.
func imageArch(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 0x206)
	if _, err := f.ReadAt(head, 0); err != nil {
		return "", fmt.Errorf("read kernel image %s: %w", path, err)
	}
	switch {
	case bytes.Equal(head[0x202:0x206], []byte("HdrS")): // boot protocol of x86
		return "amd64", nil
	case bytes.Equal(head[0x38:0x3c], []byte("ARM\x64")): // arm64's Image
		return "arm64", nil
	}
	return "", fmt.Errorf("%s is no kernel image for amd64 (bzImage) or arm64 (Image)", path)
}

// choosePackages returns the packages that hold the newest kernel whose version
// starts with release, and that kernel's full version as in uname -r. names are
// the names of all packages of a suite; arch is Debian's name of it. Both
// results are empty where there is no such kernel.
func choosePackages(names []string, release, arch string) (packages []string, version string) {
	// Names with fewer than three numbers are metapackages.
	form := regexp.MustCompile(`^linux-(image|binary)-(` + regexp.QuoteMeta(release) + `\d[^-]*(?:-[0-9.]+)?-cloud-` + arch + `)$`)
	three := regexp.MustCompile(`^\d+\.\d+\.\d+`)
	split := map[string]bool{}
	for _, name := range names {
		m := form.FindStringSubmatch(name)
		if m == nil || !three.MatchString(m[2]) {
			continue
		}
		if m[1] == "binary" {
			// Since 6.19 linux-image is empty and depends on these two.
			split[m[2]] = true
		}
		if version == "" || compareVersions(m[2], version) > 0 {
			version = m[2]
		}
	}
	switch {
	case version == "":
		return nil, ""
	case split[version]:
		return []string{"linux-binary-" + version, "linux-modules-" + version}, version
	}
	return []string{"linux-image-" + version}, version
}

// compareVersions orders kernel versions as a person would: runs of digits by
// their value, all else byte by byte.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da == "" || db == "" {
			if a[0] != b[0] {
				return int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		na, _ := strconv.Atoi(da)
		nb, _ := strconv.Atoi(db)
		if na != nb {
			return na - nb
		}
		a, b = a[len(da):], b[len(db):]
	}
	return len(a) - len(b)
}

// digits returns the digits that s starts with.
func digits(s string) string {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	return s[:end]
}
