package mappings

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

const sampleMaps = `00400000-00401000 r-xp 00000000 08:01 12                                 /bin/no pie
00600000-00601000 rw-p 00000000 08:01 12                                 /bin/no pie
01a00000-01a21000 rw-p 00000000 00:00 0                                  [heap]
7f1c40028000-7f1c401bd000 r-xp 00028000 103:0a 18446744073709551615      /usr/lib/a\012b (deleted)
7f1c50000000-7f1c50001000 rwxp 00000000 00:00 0 
7f1c50001000-7f1c50002000 --xs 00001000 00:01 1234                       /memfd:x y (deleted)
7ffc0a9f2000-7ffc0a9f4000 r-xp 00000000 00:00 0                          [vdso]
a line that the future brings
7ffc0a9f2000-7ffc0a9f2000 r-xp 00000000 00:00 0                          [empty]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestParseMaps(t *testing.T) {
	var got []region
	if err := parseMaps(iotest.OneByteReader(strings.NewReader(sampleMaps)), func(r region) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	want := []region{
		{start: 0x400000, end: 0x401000, executable: true, major: 8, minor: 1, inode: 12, path: "/bin/no pie"},
		{start: 0x7f1c40028000, end: 0x7f1c401bd000, offset: 0x28000, executable: true, major: 0x103, minor: 10, inode: 1<<64 - 1, path: "/usr/lib/a\nb (deleted)"},
		{start: 0x7f1c50000000, end: 0x7f1c50001000, executable: true},
		{start: 0x7f1c50001000, end: 0x7f1c50002000, offset: 0x1000, executable: true, minor: 1, inode: 1234, path: "/memfd:x y (deleted)"},
		{start: 0x7ffc0a9f2000, end: 0x7ffc0a9f4000, executable: true, path: "[vdso]"},
		{start: 0xffffffffff600000, end: 0xffffffffff601000, executable: true, path: "[vsyscall]"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nnot\n%+v", got, want)
	}
}

// A line that is too long makes no region, and neither does its end.
func TestParseMapsLong(t *testing.T) {
	text := "1000-2000 r-xp 00000000 00:00 0 /" + strings.Repeat("x", 1<<15-33) + "3000-4000 r-xp 00000000 00:00 0 /y\n" +
		"5000-6000 r-xp 00000000 00:00 0 /z\n"
	var got []string
	if err := parseMaps(strings.NewReader(text), func(r region) { got = append(got, r.path) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != "/z" {
		t.Errorf("%d regions, the first of %.20q", len(got), got[0])
	}
	broken := errors.New("broken")
	if err := parseMaps(iotest.ErrReader(broken), func(region) {}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add(sampleMaps)
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		err := parseMaps(strings.NewReader(text), func(r region) {
			if lines--; lines < 0 || r.end <= r.start || !r.executable || strings.HasPrefix(r.path, " ") {
				t.Errorf("%+v", r)
			}
		})
		if err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

func TestParseStat(t *testing.T) {
	const rest = " S 23 1 1 0 -1 %s 100 0 0 0 1 2 0 0 20 0 7 0 4711 1000 10 18446744073709551615 1 1"
	for name, test := range map[string]struct {
		line string
		want stat
	}{
		"process":       {"42 (bash)" + strings.Replace(rest, "%s", "4194560", 1), stat{"bash", 23, false, 7, 4711}},
		"kernel thread": {"2 (kthreadd)" + strings.Replace(rest, "%s", "2129984", 1), stat{"kthreadd", 23, true, 7, 4711}},
		"odd name":      {"2 (a) R 9 (\n)" + strings.Replace(rest, "%s", "4194560", 1), stat{"a) R 9 (\n", 23, false, 7, 4711}},
	} {
		if got, err := parseStat([]byte(test.line)); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v, not %+v", name, got, err, test.want)
		}
	}
	for _, line := range []string{"", "1", "1 (", "1 )(", "1 (x) S 1 2"} {
		if got, err := parseStat([]byte(line)); err == nil {
			t.Errorf("%q: no error, but %+v", line, got)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for text, want := range map[string]string{
		"0::/system.slice/x.service\n":                                     "/system.slice/x.service",
		"12:cpu:/a\n0::/b:c\n":                                             "/b:c",
		"12:cpu,cpuacct:/docker/" + id + "\n1:name=systemd:/x\n0::/\n":     "/docker/" + id,
		"0::/kubepods.slice/cri-containerd-" + id + ".scope\n12:memory:/a": "/kubepods.slice/cri-containerd-" + id + ".scope",
		"": "",
	} {
		if got := parseCgroup(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestContainerID(t *testing.T) {
	id, other := strings.Repeat("0123456789abcdef", 4), strings.Repeat("fedcba9876543210", 4)
	for path, want := range map[string]string{
		"/docker/" + id:                         id,
		"/system.slice/docker-" + id + ".scope": id,
		"/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-" + id + ".scope":       id,
		"/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-" + id + ".scope/inner": id,
		"/kubepods/besteffort/pod5/" + id:                                             id,
		"/machine.slice/libpod-" + id + ".scope/container":                            id,
		"/docker/" + other + "/docker/" + id:                                          id,
		"/docker/" + id[:63]:                                                          "",
		"/docker/x" + id:                                                              "",
		"/docker/" + strings.ToUpper(id):                                              "",
		"/user.slice/user-1000.slice":                                                 "",
		"/":                                                                           "",
		"":                                                                            "",
	} {
		if got := ContainerID(path); got != want {
			t.Errorf("%q: %q, not %q", path, got, want)
		}
	}
}
