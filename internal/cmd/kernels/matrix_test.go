package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChoosePackages(t *testing.T) {
	names := []string{
		"linux-image-5.10.0-9-cloud-amd64",
		"linux-image-5.10.0-46-cloud-amd64",
		"linux-image-5.10.0-46-cloud-amd64-dbg",
		"linux-image-5.10.0-46-cloud-amd64-unsigned",
		"linux-image-5.10.0-47-amd64",
		"linux-image-5.10.0-47-rt-amd64",
		"linux-image-5.10.0-47-cloud-arm64",
		"linux-headers-5.10.0-47-cloud-amd64",
		"linux-image-6.1-cloud-amd64",
		"linux-image-6.1.0-56-cloud-amd64",
		"linux-image-6.1.0-0.deb11.99-cloud-amd64",
		"linux-image-6.12-cloud-amd64",
		"linux-image-6.12.99+deb13-cloud-amd64",
		"linux-image-6.12.115+deb12-cloud-amd64",
		"linux-image-6.12.115+deb13-cloud-amd64",
		"linux-image-6.12.115+deb13.1-cloud-amd64",
		"linux-image-7.2.13+deb14-cloud-amd64",
		"linux-image-7.3.4+deb13-cloud-amd64",
		"linux-binary-7.2.13+deb14-cloud-amd64",
		"linux-binary-7.3.4+deb13-cloud-amd64",
		"linux-binary-unsigned-7.3.5+deb13-cloud-amd64",
		"linux-modules-7.3.4+deb13-cloud-amd64",
		"linux-modules-7.3.9+deb13-cloud-amd64",
	}
	for _, test := range []struct{ release, arch, version, packages string }{
		{"5.10.", "amd64", "5.10.0-46-cloud-amd64", "linux-image-5.10.0-46-cloud-amd64"},
		{"5.10.", "arm64", "5.10.0-47-cloud-arm64", "linux-image-5.10.0-47-cloud-arm64"},
		{"6.1.", "amd64", "6.1.0-56-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"},
		{"6.12.", "amd64", "6.12.115+deb13.1-cloud-amd64", "linux-image-6.12.115+deb13.1-cloud-amd64"},
		{"7.", "amd64", "7.3.4+deb13-cloud-amd64", "linux-binary-7.3.4+deb13-cloud-amd64 linux-modules-7.3.4+deb13-cloud-amd64"},
		{"7.", "arm64", "", ""},
		{"6.9.", "amd64", "", ""},
	} {
		for range 2 { // whatever the order
			packages, version := choosePackages(names, test.release, test.arch)
			if got := strings.Join(packages, " "); version != test.version || got != test.packages {
				t.Errorf("%s %s: got %q in %q, want %q in %q", test.release, test.arch, version, got, test.version, test.packages)
			}
			slices.Reverse(names)
		}
	}
}

func TestPickKernels(t *testing.T) {
	dir := t.TempDir()
	image := func(name string, at int, magic string) string {
		text := make([]byte, 0x300)
		copy(text[at:], magic)
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	x86 := image("bzImage", 0x202, "HdrS")
	arm := image("Image", 0x38, "ARM\x64")
	other := image("other", 0, "ELF")
	for _, test := range []struct{ list, want string }{
		{"", "5.10/amd64 6.1/amd64/short 6.12/amd64/short 7/amd64/short"},
		{"6.12", "6.12/amd64"},
		{"7, 6.12-arm64", "7/amd64 6.12-arm64/arm64"},
		{x86 + " " + arm, "bzImage/amd64 Image/arm64"},
		{"6.13", "error"},
		{"6.12 6.12", "error"},
		{other, "error"},
		{dir + "/none", "error"},
	} {
		picked, err := pickKernels(test.list)
		var got []string
		for _, k := range picked {
			name := k.Name + "/" + k.Arch
			if k.Short {
				name += "/short"
			}
			got = append(got, name)
		}
		if err != nil {
			got = []string{"error"}
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("pickKernels(%q) is %q (%v), want %q", test.list, got, err, test.want)
		}
	}
}

func TestMatrixHasMachines(t *testing.T) {
	for _, k := range kernels {
		if machines[k.Arch].Program == "" {
			t.Errorf("kernel %s is for %s, for which there is no machine", k.Name, k.Arch)
		}
	}
}
