package paths

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// sample is what a host has that runs containers: a root, a file system mounted
// at two places, part of one bound elsewhere, a point with a blank and a
// backslash in its name, and a file bound over a file.
const sample = `21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
22 21 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
30 21 8:17 / /srv/data rw,relatime shared:40 - xfs /dev/sdb1 rw
31 21 8:17 /volumes/one /var/lib/pods/one rw,relatime shared:40 - xfs /dev/sdb1 rw
32 21 8:17 /volumes/one/deep /mnt/deep rw,relatime - xfs /dev/sdb1 rw
33 21 0:45 / /mnt/a\040b\134c rw master:3 propagate_from:2 - overlay overlay rw,lowerdir=/l
34 21 259:70000 /conf/hosts /etc/hosts rw - ext4 /dev/nvme0n1p9 rw
35 21 0:50 /@sub /btrfs rw - btrfs /dev/sdc rw
36 21 0:3 net:[4026531840] /run/netns/blue rw shared:5 - nsfs nsfs rw
`

func dev(major, minor uint32) uint32 { return major<<20 | minor }

func TestMountsPath(t *testing.T) {
	m, err := parseMounts(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what string
		dev  uint32
		path string
		want string // "" for none
	}{
		{"on the root", dev(8, 1), "/etc/passwd", "/etc/passwd"},
		{"the root itself", dev(8, 1), "/", "/"},
		{"a mount point itself", dev(0, 20), "/", "/proc"},
		{"below a mount point", dev(0, 20), "/1/maps", "/proc/1/maps"},
		{"of a file system mounted whole and in part", dev(8, 17), "/other/f", "/srv/data/other/f"},
		{"in a part that is bound", dev(8, 17), "/volumes/one/f", "/var/lib/pods/one/f"},
		{"the bound directory itself", dev(8, 17), "/volumes/one", "/var/lib/pods/one"},
		{"in the deepest of several parts", dev(8, 17), "/volumes/one/deep/f", "/mnt/deep/f"},
		{"beside a part whose name it begins with", dev(8, 17), "/volumes/one-more/f", "/srv/data/volumes/one-more/f"},
		{"escaped", dev(0, 45), "/f", `/mnt/a b\c/f`},
		{"a bound file", dev(259, 70000), "/conf/hosts", "/etc/hosts"},
		{"outside of what is bound", dev(259, 70000), "/conf/passwd", ""},
		{"of a subvolume", dev(0, 50), "/@sub/x", "/btrfs/x"},
		{"of another subvolume", dev(0, 50), "/@subs/x", ""},
		{"on a device that is mounted nowhere", dev(9, 9), "/x", ""},
	} {
		got, ok := m.Path([]byte("dst:"), test.dev, []byte(test.path))
		if ok != (test.want != "") || string(got) != "dst:"+test.want {
			t.Errorf("%s: %q on %#x is %q, %v, not %q", test.what, test.path, test.dev, got, ok, test.want)
		}
	}
}

func TestMountsPathOfTheFirstOfEqualMounts(t *testing.T) {
	m, err := parseMounts(strings.NewReader("1 0 8:1 / /one rw - ext4 x rw\n2 0 8:1 / /two rw - ext4 x rw\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := m.Path(nil, dev(8, 1), []byte("/f")); !ok || string(got) != "/one/f" {
		t.Errorf("%q, %v", got, ok)
	}
}

func TestParseMountsOverMalformedLines(t *testing.T) {
	for _, line := range []string{
		"", "21", "21 1 8:1 /", "21 1 8 / / rw", "21 1 x:1 / / rw", "21 1 8:y / / rw", "21 1 -8:1 / / rw",
		"21 1 4096:1 / / rw", "21 1 8:1048576 / / rw", "21 1 8: / / rw", "21 1 :1 / / rw",
	} {
		m, err := parseMounts(strings.NewReader(line + "\n22 21 0:20 / /proc rw - proc proc rw\n"))
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if len(m.byDevice) != 1 || len(m.byDevice[dev(0, 20)]) != 1 {
			t.Errorf("%q and a good line make %v", line, m.byDevice)
		}
	}
}

func TestParseMountsTellsOfReadErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := parseMounts(io.MultiReader(strings.NewReader(sample), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`/plain`: "/plain", `/a\040b`: "/a b", `\011\012\134\043`: "\t\n\\#", `\377`: "\xff",
		`\`: `\`, `\0`: `\0`, `\04`: `\04`, `\0400`: " 0", `\999`: `\999`, `\400`: `\400`, `\-12`: `\-12`, `a\134040`: `a\040`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, not %q", in, got, want)
		}
	}
}

func TestHostMountsReadsThisMachines(t *testing.T) {
	m, err := HostMounts()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self", &st); err != nil {
		t.Fatal(err)
	}
	// stat's numbers are composed in another way than the kernel's own.
	got, ok := m.Path(nil, dev(unix.Major(st.Dev), unix.Minor(st.Dev)), []byte("/self"))
	if !ok || m.Namespace == 0 {
		t.Fatalf("/proc is not mounted, by %d lines; the namespace is %d", len(m.byDevice), m.Namespace)
	}
	if _, err := os.Lstat(string(got)); err != nil || !strings.HasSuffix(string(got), "/self") {
		t.Errorf("/proc's self is at %q: %v", got, err)
	}
}

// No input makes the parser or a look-up panic, and what it finds is below the
// mount point it chose.
func FuzzMounts(f *testing.F) {
	for line := range strings.Lines(sample) {
		f.Add(line, "/volumes/one/f")
	}
	f.Add("1 1 0:1 // // rw", "/")
	f.Add(`1 1 0:1 \057 \04 rw`, "")
	f.Fuzz(func(t *testing.T, text, path string) {
		m, err := parseMounts(strings.NewReader(text))
		if err != nil {
			return
		}
		for dev, mounts := range m.byDevice {
			got, ok := m.Path(nil, dev, []byte(path))
			if !ok {
				if len(got) > 0 {
					t.Errorf("nothing was found, but %q given", got)
				}
				continue
			}
			found := false
			for _, mt := range mounts {
				found = found || strings.HasPrefix(string(got), strings.TrimSuffix(mt.point, "/"))
			}
			if !found {
				t.Errorf("%q is below none of %v", got, mounts)
			}
		}
	})
}
