package paths

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// The marks are those of paths.bpf.h, all of them.
func TestMarks(t *testing.T) {
	header, err := os.ReadFile("../../../bpf/headers/paths.bpf.h")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(PATH_[A-Z_]+) = (\d+),`).FindAllStringSubmatch(string(header), -1) {
		got[m[1]] = m[2]
	}
	want := map[string]string{}
	for name, mark := range map[string]Marks{"PATH_CUT": Cut, "PATH_DELETED": Deleted, "PATH_UNREACHABLE": Unreachable, "PATH_WHOLE_FS": WholeFS} {
		want[name] = strconv.Itoa(int(mark))
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v in C, and %v in Go", got, want)
	}
}

func TestJoin(t *testing.T) {
	for _, test := range []struct{ names, want string }{
		{"", "/"},
		{"etc\x00", "/etc"},
		{"hostname\x00etc\x00", "/etc/hostname"},
		{"c\x00b\x00a\x00", "/a/b/c"},
		{"a b\x00\xff\x00", "/\xff/a b"},
		{"x\ny\x00", "/x\ny"},
		{strings.Repeat("n", 255) + "\x00d\x00", "/d/" + strings.Repeat("n", 255)},
	} {
		if got := string(Join(nil, []byte(test.names))); got != test.want {
			t.Errorf("Join(%q) = %q, not %q", test.names, got, test.want)
		}
	}
	if got := string(Join([]byte("(unreachable)"), []byte("f\x00d\x00"))); got != "(unreachable)/d/f" {
		t.Errorf("Join does not append: %q", got)
	}
}

// Whatever the names are, they come out turned round with a slash before each.
func FuzzJoin(f *testing.F) {
	f.Add("")
	f.Add("etc/hostname")
	f.Add("a//b/\xff\n/c")
	f.Fuzz(func(t *testing.T, text string) {
		var names []string
		for name := range strings.SplitSeq(text, "/") {
			if name != "" && !strings.Contains(name, "\x00") {
				names = append(names, name)
			}
		}
		var walked []byte
		for _, name := range slices.Backward(names) {
			walked = append(append(walked, name...), 0)
		}
		want := "/" + strings.Join(names, "/")
		if got := string(Join(nil, walked)); got != want {
			t.Errorf("Join(%q) = %q, not %q", walked, got, want)
		}
	})
}

func TestJoinAllocatesNothing(t *testing.T) {
	names, dst := []byte("hostname\x00etc\x00"), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { dst = Join(dst[:0], names) }); n != 0 {
		t.Errorf("%v allocations for a path", n)
	}
}

func TestHost(t *testing.T) {
	spec := &ebpf.CollectionSpec{Variables: map[string]*ebpf.VariableSpec{
		"path_root_host":  {Name: "path_root_host", Value: make([]byte, 1)},
		"path_host_mntns": {Name: "path_host_mntns", Value: make([]byte, 4)},
	}}
	if err := Host(spec, &Mounts{Namespace: 0xf0000000}); err != nil {
		t.Fatal(err)
	}
	if got := spec.Variables["path_root_host"].Value; !bytes.Equal(got, []byte{1}) {
		t.Errorf("path_root_host is %v", got)
	}
	var ns uint32
	if err := spec.Variables["path_host_mntns"].Get(&ns); err != nil || ns != 0xf0000000 {
		t.Errorf("path_host_mntns is %#x, %v", ns, err)
	}
}
