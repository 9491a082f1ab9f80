package perfevent

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

func TestMain(m *testing.M) { livetest.Main(m, nil) }

// open opens the sideband for a test.
func open(t *testing.T) *Sideband {
	t.Helper()
	s, err := OpenSideband()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// readAll gives all that is there, in the order of time.
func readAll(s *Sideband) ([]Record, error) {
	var all []Record
	err := s.Read(func(r *Record) error { all = append(all, *r); return nil })
	slices.SortStableFunc(all, func(a, b Record) int { return int(int64(a.Time - b.Time)) })
	return all, err
}

// describe is what a record says of a process, for comparing.
func describe(r Record) string {
	switch {
	case r.Kind == Fork && r.PID == r.TID:
		return "fork"
	case r.Kind == Comm && r.Exec:
		return "exec " + r.Comm
	case r.Kind == Comm:
		return "comm " + r.Comm
	case r.Kind == Mmap && r.Path == "[vdso]":
		return "vdso"
	case r.Kind == Mmap:
		return "mmap " + r.Path
	case r.Kind == Exit:
		return "exit"
	}
	return fmt.Sprint(r.Kind)
}

// A program that lives for a moment is told whole, in order, and each time.
func TestKernelSidebandShortLived(t *testing.T) {
	livetest.Need(t)
	const name = "a;b\x01 \xffc"
	path := filepath.Join(t.TempDir(), name)
	livetest.CallProgram(t, path, livetest.Exit(0))
	s := open(t)
	before := Now()
	const runs = 23
	pids := map[uint32][]string{}
	var records []Record
	for range runs {
		cmd := exec.Command(path)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		pids[uint32(cmd.Process.Pid)] = nil
		// At once, as what others do on the machine may fill the rings.
		some, err := readAll(s)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, some...)
	}
	after := Now()
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Kind == Lost {
			t.Errorf("lost: %+v", r)
		}
		if seen, ours := pids[r.PID]; ours {
			if r.Time < before || r.Time > after {
				t.Errorf("%s at %d, which is not between %d and %d", describe(r), r.Time, before, after)
			}
			pids[r.PID] = append(seen, describe(r))
			if r.Kind == Mmap && r.Path == path && r.Inode != file.Ino {
				t.Errorf("inode %d, not %d", r.Inode, file.Ino)
			}
			if r.Kind == Fork && r.PPID != uint32(os.Getpid()) {
				t.Errorf("parent %d, not %d", r.PPID, os.Getpid())
			}
		}
	}
	// Where the address space is laid out anew, the program's own pages may be told twice.
	want := []string{"fork", "exec " + name, "mmap " + path, "vdso", "exit"}
	for pid, got := range pids {
		if got := slices.Compact(slices.Clone(got)); !slices.Equal(got, want) {
			t.Errorf("process %d: %q, not %q", pid, got, want)
		}
	}
}

var mapper = livetest.Role("mapper", func(args []string) string {
	f, err := os.Open(args[0])
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		return err.Error()
	}
	err = unix.Mprotect(b, unix.PROT_READ)
	if err != nil {
		return err.Error()
	}
	if err := unix.Munmap(b); err != nil {
		return err.Error()
	}
	return "done"
})

// Each executable mapping is told once; nothing else is.
func TestKernelSidebandMmap(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "library.so")
	if err := os.WriteFile(path, make([]byte, os.Getpagesize()), 0o644); err != nil {
		t.Fatal(err)
	}
	child := livetest.Child(t, mapper, path)
	s := open(t)
	for range 23 {
		if got := child.Do(); got != "done" {
			t.Fatal(got)
		}
	}
	records, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range records {
		if r.Kind != Mmap || r.PID != uint32(child.Pid()) || r.Path != path {
			continue
		}
		n++
		if r.Len != uint64(os.Getpagesize()) || r.Prot != unix.PROT_READ|unix.PROT_EXEC || r.BuildID != nil || r.Offset != 0 {
			t.Errorf("%+v", r)
		}
	}
	if n != 23 {
		t.Errorf("%d of 23 mappings", n)
	}
}

// elfWithBuildID makes a file of which nothing but the build id is of use.
func elfWithBuildID(id []byte) []byte {
	var b bytes.Buffer
	note := append([]byte{4, 0, 0, 0, byte(len(id)), 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0}, id...)
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	for _, part := range []any{header, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 64 + 56, Filesz: uint64(len(note)), Memsz: uint64(len(note)), Align: 4}, note} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return append(b.Bytes(), make([]byte, os.Getpagesize())...)
}

// The build id in a record is that of the file. Before Linux 5.12, and where a kernel can't
// tell it, there is the inode instead.
func TestKernelSidebandBuildID(t *testing.T) {
	livetest.Need(t)
	s := open(t)
	path, id := filepath.Join(t.TempDir(), "library.so"), []byte("23 times a build id.")
	if err := os.WriteFile(path, elfWithBuildID(id), 0o644); err != nil {
		t.Fatal(err)
	}
	child := livetest.Child(t, mapper, path)
	for range 23 {
		if got := child.Do(); got != "done" {
			t.Fatal(got)
		}
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		t.Fatal(err)
	}
	if s.attr.Bits&bitBuildID == 0 {
		id = nil
	} else {
		file.Ino = 0
	}
	records, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range records {
		if r.PID == uint32(child.Pid()) && r.Path == path && bytes.Equal(r.BuildID, id) && r.Inode == file.Ino {
			n++
		}
	}
	if n != 23 {
		t.Errorf("%d of 23 mappings with the build id %q or the inode %d", n, id, file.Ino)
	}
}

// A ring that overflows says so, and by how many records.
func TestKernelSidebandLost(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "library.so")
	if err := os.WriteFile(path, make([]byte, os.Getpagesize()), 0o644); err != nil {
		t.Fatal(err)
	}
	child := livetest.Child(t, mapper, path)
	s := open(t)
	s.Close()
	s.pages = 1
	if err := s.openOnline(nil); err != nil {
		t.Fatal(err)
	}
	const storm = 523
	for range storm {
		if got := child.Do(); got != "done" {
			t.Fatal(got)
		}
	}
	full, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	// The loss is told when there is room again, by the next record of that CPU.
	for cpu := range s.rings {
		var one unix.CPUSet
		one.Set(cpu)
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", child.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			_ = unix.SchedSetaffinity(tid, &one) // A thread may have ended.
		}
		if got := child.Do(); got != "done" {
			t.Fatal(got)
		}
	}
	rest, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	var shown, lost uint64
	for _, r := range append(full, rest...) {
		if r.Kind == Mmap && r.PID == uint32(child.Pid()) && r.Path == path {
			shown++
		}
		lost += r.Lost
	}
	want := uint64(storm + len(s.rings))
	t.Logf("%d mapped, %d shown, %d records lost", want, shown, lost)
	// Others' records are lost as well.
	if shown >= want || lost < want-shown {
		t.Errorf("of %d mappings %d are shown, and %d records are said to be lost", want, shown, lost)
	}
}

var inside = livetest.Role("inside", func([]string) string {
	s, err := OpenSideband()
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := cmd.Run(); err != nil {
		return err.Error()
	}
	records, err := readAll(s)
	if err != nil {
		return err.Error()
	}
	var events []string
	for _, r := range records {
		if r.PID == uint32(cmd.Process.Pid) && (r.Kind == Fork && r.PID == r.TID || r.Exec || r.Kind == Exit && r.PID == r.TID) {
			events = append(events, fmt.Sprintf("%s of %d", strings.Fields(describe(r))[0], r.PPID))
		}
	}
	return fmt.Sprintf("%d %d %q", os.Getpid(), cmd.Process.Pid, events)
})

// In a container the numbers are those of the container, as in its /proc.
func TestKernelSidebandPIDNamespace(t *testing.T) {
	livetest.Need(t)
	child := livetest.ChildWith(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	}, inside)
	got := child.Do()
	var self, pid int
	if _, err := fmt.Sscan(got, &self, &pid); err != nil {
		t.Fatal(got)
	}
	if want := fmt.Sprintf(`1 %d ["fork of 1" "exec of 0" "exit of 1"]`, pid); got != want || pid > 100 {
		t.Errorf("%s, not %s", got, want)
	}
}

// A CPU that comes online is taken in, and that its first records are missing is said.
func TestKernelSidebandHotplug(t *testing.T) {
	livetest.Need(t)
	const online = "/sys/devices/system/cpu/cpu1/online"
	if !livetest.Guest() {
		t.Skip("SKIPPED: it takes a CPU off, so it is for guests only")
	}
	if _, err := os.Stat(online); err != nil {
		t.Skipf("SKIPPED: no second CPU that can be taken off: %v", err)
	}
	set := func(value string) {
		t.Helper()
		if err := os.WriteFile(online, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t)
	if s.rings[1] == nil {
		t.Fatal("CPU 1 has no ring at first")
	}
	t.Cleanup(func() { set("1") })
	read := func() []Record {
		t.Helper()
		s.checked = s.checked.Add(-2e9)
		records, err := readAll(s)
		if err != nil {
			t.Fatal(err)
		}
		return records
	}
	set("0")
	read()
	if s.rings[1] != nil {
		t.Error("CPU 1 is off and still has a ring")
	}
	set("1")
	said := slices.ContainsFunc(read(), func(r Record) bool { return r.Kind == Lost && r.CPU == 1 && r.Lost == 0 })
	if s.rings[1] == nil || !said {
		t.Errorf("CPU 1 is back, but is not listened to, or what was missed is not said (%v)", said)
	}
	// It works: a process that starts there is seen.
	works := func(when string) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // It ends with the goroutine, so that no other runs on CPU 1 alone.
			var one unix.CPUSet
			one.Set(1)
			done <- errors.Join(unix.SchedSetaffinity(0, &one), cmd.Run())
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(read(), func(r Record) bool { return r.PID == uint32(cmd.Process.Pid) && r.Exec && r.CPU == 1 }) {
			t.Errorf("%s: an exec is not seen", when)
		}
	}
	works("once it is back")
	// Nobody looks while it is off: what was counted in between is little, at the second look
	// at the latest.
	set("0")
	set("1")
	said = false
	for range 2 {
		said = said || slices.ContainsFunc(read(), func(r Record) bool { return r.Kind == Lost && r.CPU == 1 && r.Lost == 0 })
	}
	if !said {
		t.Error("what was missed while it was off for a moment is not said")
	}
	works("once it was off for a moment")
}
