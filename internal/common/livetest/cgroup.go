package livetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A CgroupDir is a cgroup of version 2 that is there for one test.
type CgroupDir struct {
	t    testing.TB
	Path string // its directory
	ID   uint64 // what bpf_get_current_cgroup_id gives for its processes
}

// OwnCgroup is the cgroup that this process is in.
func OwnCgroup(t testing.TB) *CgroupDir {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	root := cgroup2Root(t)
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return statCgroup(t, filepath.Join(root, path))
		}
	}
	t.Fatalf("this process is in no cgroup of version 2: %s", text)
	return nil
}

// Cgroup makes a cgroup, which is removed at the end of the test; its processes
// must have ended by then.
func Cgroup(t testing.TB) *CgroupDir {
	t.Helper()
	dir, err := os.MkdirTemp(cgroup2Root(t), "gobcc-livetest-*")
	if err != nil {
		t.Fatalf("make a cgroup: %v", err)
	}
	return newCgroup(t, dir)
}

func cgroup2Root(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := cgroup2Mount(f)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Sub makes a cgroup below this one.
func (c *CgroupDir) Sub(name string) *CgroupDir {
	c.t.Helper()
	dir := filepath.Join(c.Path, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatalf("make a cgroup: %v", err)
	}
	return newCgroup(c.t, dir)
}

func newCgroup(t testing.TB, dir string) *CgroupDir {
	t.Helper()
	t.Cleanup(func() { removeCgroup(t, dir) })
	return statCgroup(t, dir)
}

func statCgroup(t testing.TB, dir string) *CgroupDir {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatalf("stat %s: %v", dir, err)
	}
	return &CgroupDir{t, dir, st.Ino}
}

// Enter moves a process into the cgroup. ChildWith with
// SysProcAttr.UseCgroupFD starts one in it.
func (c *CgroupDir) Enter(pid int) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.Path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		c.t.Fatalf("move process %d into a cgroup: %v", pid, err)
	}
}

// removeCgroup tries for a while, because the kernel takes a process out of its
// cgroup only some time after it has been waited for.
func removeCgroup(t testing.TB, dir string) {
	t.Helper()
	err := retry(10*time.Second, func() error {
		err := unix.Rmdir(dir)
		if err == unix.ENOENT {
			return nil
		}
		return err
	})
	if err != nil {
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		t.Errorf("remove the cgroup %s: %v; processes in it: %q", dir, err, procs)
	}
}

// Eventually waits until do gives no error, for what the kernel does in its own time.
// It fails the test after a while.
func Eventually(t testing.TB, do func() error) {
	t.Helper()
	if err := retry(20*time.Second, do); err != nil {
		t.Fatal(err)
	}
}

// retry calls do until it succeeds, at ever longer intervals, for at most d.
// It is for what the kernel does in its own time and tells nobody.
func retry(d time.Duration, do func() error) error {
	end := time.Now().Add(limit(d))
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second/2) {
		err := do()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
	}
}

// cgroup2Mount finds where version 2 of the cgroups is mounted, in the format of
// /proc/PID/mountinfo.
func cgroup2Mount(mountinfo io.Reader) (string, error) {
	s := bufio.NewScanner(mountinfo)
	for s.Scan() {
		// 38 31 0:37 / /sys/fs/cgroup/unified rw,relatime shared:1 - cgroup2 cgroup2 rw
		mount, fs, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 5 || !strings.HasPrefix(fs, "cgroup2 ") {
			continue
		}
		return unescape(fields[4])
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("read mountinfo: %w", err)
	}
	return "", errors.New("version 2 of the cgroups is not mounted (mount -t cgroup2 cgroup2 /sys/fs/cgroup)")
}

// unescape undoes the octal escapes of mountinfo: \040 is a space.
func unescape(s string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if len(after) < 3 {
			return "", fmt.Errorf("mountinfo: escape %q is cut short", after)
		}
		n, err := strconv.ParseUint(after[:3], 8, 8)
		if err != nil {
			return "", fmt.Errorf("mountinfo: escape: %w", err)
		}
		b.WriteByte(byte(n))
		s = after[3:]
	}
}
