package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/cmd/kernels/plan"
)

func TestInitrd(t *testing.T) {
	dir := t.TempDir()
	unpack(t, dir, "init", "0.test", "src/testdata/deep/file", "src/other")
	path := filepath.Join(dir, "initrd")
	err := writeInitrd(path, guest{
		Kernel:   "6.12",
		Init:     filepath.Join(dir, "init"),
		Modules:  []module{{Name: "configfs", Data: []byte("ko")}},
		Packages: []testPackage{{ImportPath: "example.com/tools/opensnoop", Dir: filepath.Join(dir, "src")}},
		Binaries: []string{filepath.Join(dir, "0.test")},
		Run:      "^TestKernel",
		Short:    true,
		Seconds:  60,
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := readCpio(archive)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(entries, "\n") + "\n"
	for _, want := range []string{
		"100755 0,0 init 0 bytes\n",
		"20600 5,1 dev/console 0 bytes\n",
		"41777 0,0 tmp 0 bytes\n",
		"100644 0,0 modules/configfs.ko 2 bytes ko\n",
		"100755 0,0 tests/example.com/tools/opensnoop/opensnoop.test 0 bytes\n",
		"100755 0,0 tests/example.com/tools/opensnoop/testdata/deep/file 0 bytes\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no entry %q in\n%s", want, all)
		}
	}
	if strings.Contains(all, "other") {
		t.Errorf("sources got into\n%s", all)
	}

	_, text, _ := strings.Cut(all, " bytes {")
	var p plan.Plan
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if len(p.Modules) != 1 || p.Modules[0] != "/modules/configfs.ko" || len(p.Tests) != 1 ||
		p.Tests[0].Binary != "/tests/example.com/tools/opensnoop/opensnoop.test" || p.Run != "^TestKernel" || p.Seconds != 60 || !p.Short {
		t.Errorf("plan is %+v", p)
	}
}
