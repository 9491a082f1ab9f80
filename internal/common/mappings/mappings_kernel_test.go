package mappings

//kernel:modules overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/perfevent"
)

func TestMain(m *testing.M) { livetest.Main(m, nil) }

// TestKernelDenied has processes that may not be read, for they have more capabilities. What
// they execute is known nevertheless.
func TestKernelDenied(t *testing.T) {
	livetest.Need(t)
	child := livetest.Child(t, mapper)
	pid := uint32(child.Pid())
	tl := New(Options{})
	defer tl.Close()
	var denied error
	done := make(chan error)
	go func() {
		// Capabilities are of a thread, and this one ends with the function.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		err := unix.Capset(&header, &none[0])
		if err == nil {
			denied = tl.Snapshot([]uint32{pid})
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !errors.Is(denied, fs.ErrPermission) || !strings.Contains(denied.Error(), fmt.Sprintf("as process %d (", pid)) {
		t.Errorf("without capabilities: %v", denied)
	}
	p := tl.processes[pid]
	if p == nil || !p.Denied || !p.Partial || len(p.maps) != 0 {
		t.Fatalf("what may not be read is %+v", p)
	}
	forked := &Process{}
	if p.fork(forked); !forked.Denied {
		t.Error("its child is not denied")
	}
	if err := tl.Snapshot([]uint32{pid}); err != nil || p.Denied || p.Partial || len(p.maps) == 0 {
		t.Errorf("with all capabilities: %v, %+v", err, p)
	}
	p.Denied = true
	if tl.exec(p, 0); p.Denied {
		t.Error("it is denied when it has executed another program")
	}
}

// A watch is a Timeline that follows the machine.
type watch struct {
	*Timeline
	t    *testing.T
	side *perfevent.Sideband
}

// watchAll starts one as a tool does.
func watchAll(t *testing.T) *watch {
	t.Helper()
	return watchSome(t, Options{})
}

func watchSome(t *testing.T, options Options) *watch {
	t.Helper()
	side, err := perfevent.OpenSideband()
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{Timeline: New(options), t: t, side: side}
	t.Cleanup(func() {
		side.Close()
		w.Close()
	})
	// Some process of the machine may have more capabilities than root has here.
	if err := w.Snapshot(nil); err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	return w
}

// apply takes in what has happened.
func (w *watch) apply() {
	w.t.Helper()
	var all []*perfevent.Record
	if err := w.side.Read(func(r *perfevent.Record) error { all = append(all, r); return nil }); err != nil {
		w.t.Fatal(err)
	}
	slices.SortStableFunc(all, func(a, b *perfevent.Record) int { return int(int64(a.Time - b.Time)) })
	for _, r := range all {
		if r.Kind == perfevent.Lost {
			w.t.Errorf("lost: %+v", r)
		}
		w.Apply(r)
	}
}

// holds checks that a process's file, mapped at an address, can be read.
func (w *watch) holds(p *Process, addr uint64, path string, content []byte) *File {
	w.t.Helper()
	m, ok := p.Find(addr)
	if !ok {
		w.t.Errorf("process %d has nothing at %#x", p.PID, addr)
		return nil
	}
	if m.File.Path != path {
		w.t.Errorf("%s is mapped, not %s", m.File.Path, path)
	}
	f, err := m.File.Open()
	if err != nil {
		w.t.Error(err)
		return m.File
	}
	defer f.Close()
	got := make([]byte, len(content))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		w.t.Errorf("%s holds %q, %v, not %q", path, got, err, content)
	}
	return m.File
}

// content is what a file begins with that is mapped in a test.
func content(name string) []byte { return []byte("the file " + name) }

func writeFile(t testing.TB, path string) {
	t.Helper()
	b := append(content(filepath.Base(path)), make([]byte, os.Getpagesize())...)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// mapper does what it is told, and answers with an address or "done".
var mapper = livetest.Role("mapper", func(args []string) string {
	size := os.Getpagesize()
	answer := func(b []byte, err error) string {
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%p", b)
	}
	const rx = unix.PROT_READ | unix.PROT_EXEC
	switch args[0] {
	case "map":
		f, err := os.Open(args[1])
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		return answer(unix.Mmap(int(f.Fd()), 0, size, rx, unix.MAP_PRIVATE))
	case "anon":
		b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			err = unix.Mprotect(b, rx)
		}
		return answer(b, err)
	case "memfd":
		name := args[1]
		fd, err := unix.MemfdCreate(name, 0)
		if err == nil {
			err = unix.Ftruncate(fd, int64(size))
		}
		if err == nil && name == "program" {
			_, err = unix.Write(fd, []byte("\x7fELF"))
		}
		if err != nil {
			return err.Error()
		}
		return answer(unix.Mmap(fd, 0, size, rx, unix.MAP_SHARED))
	case "unshare":
		err := unix.Unshare(unix.CLONE_NEWNS)
		for _, do := range []func() error{
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("tmpfs", args[1], "tmpfs", 0, "") },
			func() error {
				return os.WriteFile(args[1]+"/inside", append(content("inside"), make([]byte, size)...), 0o644)
			},
		} {
			if err == nil {
				err = do()
			}
		}
		return answer([]byte{0}, err)
	case "overlay":
		err := unix.Mount("overlay", args[1], "overlay", 0, "lowerdir="+args[2])
		if err == unix.ENODEV {
			return "none"
		}
		return answer([]byte{0}, err)
	case "chroot":
		err := unix.Chroot(args[1])
		if err == nil {
			err = os.Chdir("/")
		}
		return answer([]byte{0}, err)
	}
	return "what?"
})

// address is the answer of a mapper that worked.
func address(t *testing.T, answer string) uint64 {
	t.Helper()
	addr, err := strconv.ParseUint(answer, 0, 64)
	if err != nil {
		t.Fatal(answer)
	}
	return addr
}

// What is mapped before and after the start is found, and what a file held can be read when
// another file has its name, and when it has none.
func TestKernelMappings(t *testing.T) {
	livetest.Need(t)
	dir := t.TempDir()
	child := livetest.Child(t, mapper)
	check := func(t *testing.T, name string, start func() *watch) {
		path := filepath.Join(dir, name)
		writeFile(t, path)
		w := start()
		addr := address(t, child.Do("map", path))
		if w == nil {
			w = watchAll(t)
		}
		w.apply()
		p := w.Process(uint32(child.Pid()))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("another"), 0o644); err != nil {
			t.Fatal(err)
		}
		w.holds(p, addr, path, content(name))
		if exe, _ := os.Executable(); p.Exe != exe || p.PPID != uint32(os.Getpid()) || p.Kernel || p.MountNS == 0 {
			t.Errorf("%+v", p)
		}
	}
	t.Run("before", func(t *testing.T) { check(t, "before\n.so", func() *watch { return nil }) })
	t.Run("after", func(t *testing.T) { check(t, "after\n.so", func() *watch { return watchAll(t) }) })
	t.Run("deleted", func(t *testing.T) {
		for _, when := range []string{"before", "after"} {
			path := filepath.Join(dir, "deleted")
			writeFile(t, path)
			var w *watch
			if when == "after" {
				w = watchAll(t)
			}
			addr := address(t, child.Do("map", path))
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if w == nil {
				w = watchAll(t)
			}
			w.apply()
			if f := w.holds(w.Process(uint32(child.Pid())), addr, path, content("deleted")); f != nil && !f.Deleted {
				t.Errorf("%s: it is not said that it was deleted", when)
			}
		}
	})
	t.Run("same file", func(t *testing.T) {
		path, link := filepath.Join(dir, "one"), filepath.Join(dir, "other")
		writeFile(t, path)
		if err := os.Link(path, link); err != nil {
			t.Fatal(err)
		}
		first := address(t, child.Do("map", path))
		w := watchAll(t)
		second, third := address(t, child.Do("map", path)), address(t, child.Do("map", link))
		w.apply()
		p := w.Process(uint32(child.Pid()))
		a, _ := p.Find(first)
		b, _ := p.Find(second)
		c, _ := p.Find(third)
		if a.File == nil || a.File != b.File || b.File != c.File {
			t.Errorf("%+v, %+v and %+v", a.File, b.File, c.File)
		}
	})
	t.Run("no file", func(t *testing.T) {
		answers := func() (anon, jit, program uint64) {
			return address(t, child.Do("anon")), address(t, child.Do("memfd", "jit")), address(t, child.Do("memfd", "program"))
		}
		anon, jit, program := answers()
		w := watchAll(t)
		for range 2 {
			p := w.Process(uint32(child.Pid()))
			if m, ok := p.Find(anon); !ok || m.File.Kind != Anonymous || m.File.Path != "[anon]" {
				t.Errorf("%+v", m.File)
			}
			if m, ok := p.Find(jit); !ok || m.File.Kind != Memfd || m.File.Path != "/memfd:jit" {
				t.Errorf("%+v", m.File)
			}
			if m, ok := p.Find(program); !ok || m.File.Kind != Regular || m.File.Path != "/memfd:program" || !m.File.Deleted {
				t.Errorf("%+v", m.File)
			}
			anon, jit, program = answers()
			w.apply()
		}
	})
}

// Processes that have ended before anybody looked are told by the records alone, and their
// program can be read.
func TestKernelMappingsShortLived(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "short lived")
	livetest.CallProgram(t, path, livetest.Fork(livetest.Exit(0)), livetest.Await(), livetest.Exit(0))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w := watchAll(t)
	var pids []uint32
	for range 23 {
		cmd := osexec.Command(path)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, uint32(cmd.Process.Pid))
		w.apply() // At once, as what others do on the machine may fill the rings.
	}
	files := map[*File]bool{}
	forked := 0
	check := func(p *Process) {
		if p.Exe != path || p.Comm != "short lived" || p.Partial || len(p.maps) == 0 {
			t.Errorf("%+v", p)
			return
		}
		files[w.holds(p, p.maps[0].Start, path, text[:64])] = true
	}
	for _, pid := range pids {
		check(w.Process(pid))
		for _, p := range w.processes {
			if p.PPID == pid {
				forked++
				check(p)
			}
		}
	}
	if len(files) != 1 || forked != 23 {
		t.Errorf("%d files, not 1; %d of 23 children", len(files), forked)
	}
}

// A file whose process and name are gone when its record is applied is there all the same if
// it was held when the record was read.
func TestKernelMappingsHold(t *testing.T) {
	livetest.Need(t)
	dir := t.TempDir()
	for _, hold := range []bool{true, false} {
		path := filepath.Join(dir, fmt.Sprint(hold))
		writeFile(t, path)
		child := livetest.Child(t, mapper)
		w := watchAll(t)
		addr := address(t, child.Do("map", path))
		if hold {
			var all []*perfevent.Record
			err := w.side.Read(func(r *perfevent.Record) error {
				w.Hold(r)
				all = append(all, r)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			child.End()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				w.Apply(r)
			}
			w.apply()
			w.holds(w.Process(uint32(child.Pid())), addr, path, content("true"))
			continue
		}
		child.End()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.apply()
		m, ok := w.Process(uint32(child.Pid())).Find(addr)
		if !ok || m.File.Path != path {
			t.Fatalf("%+v, %v", m, ok)
		}
		if f, err := m.File.Open(); err == nil {
			f.Close()
			t.Error("a file that is gone can be opened")
		}
	}
}

// A process with another root, and one with other mounts, see their own paths; their files
// are found before the start and after.
func TestKernelMappingsOtherRoots(t *testing.T) {
	livetest.Need(t)
	t.Run("mount namespace", func(t *testing.T) {
		dir := t.TempDir()
		child := livetest.ChildWith(t, func(cmd *osexec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
		}, mapper)
		address(t, child.Do("unshare", dir))
		before := address(t, child.Do("map", dir+"/inside"))
		w := watchAll(t)
		after := address(t, child.Do("map", dir+"/inside"))
		w.apply()
		p := w.Process(uint32(child.Pid()))
		f := w.holds(p, before, dir+"/inside", content("inside"))
		if g := w.holds(p, after, dir+"/inside", content("inside")); f != g {
			t.Error("one file is two")
		}
		var own unix.Stat_t
		if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
			t.Fatal(err)
		}
		if p.MountNS == 0 || p.MountNS == own.Ino {
			t.Errorf("mount namespace %d; ours is %d", p.MountNS, own.Ino)
		}
		child.End()
		w.apply()
		w.holds(p, after, dir+"/inside", content("inside"))
	})
	t.Run("chroot", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "inside"))
		child := livetest.Child(t, mapper)
		address(t, child.Do("chroot", dir))
		before := address(t, child.Do("map", "/inside"))
		w := watchAll(t)
		after := address(t, child.Do("map", "/inside"))
		w.apply()
		p := w.Process(uint32(child.Pid()))
		w.holds(p, before, "/inside", content("inside"))
		w.holds(p, after, "/inside", content("inside"))
	})
	t.Run("overlay", func(t *testing.T) {
		dir := t.TempDir()
		lower, lower2, top := filepath.Join(dir, "lower"), filepath.Join(dir, "lower2"), filepath.Join(dir, "top")
		for _, d := range []string{lower, lower2, top} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		writeFile(t, filepath.Join(lower, "inside"))
		child := livetest.Child(t, mapper)
		address(t, child.Do("unshare", lower2))
		if child.Do("overlay", top, lower+":"+lower2) == "none" {
			t.Skip("SKIPPED: this kernel has no overlayfs")
		}
		before := address(t, child.Do("map", top+"/inside"))
		w := watchAll(t)
		after := address(t, child.Do("map", top+"/inside"))
		w.apply()
		p := w.Process(uint32(child.Pid()))
		w.holds(p, before, top+"/inside", content("inside"))
		w.holds(p, after, top+"/inside", content("inside"))
	})
}

// Without map_files, which takes CAP_CHECKPOINT_RESTORE, a file is found by its path, but
// only if it is still the same.
func TestKernelMappingsByPath(t *testing.T) {
	livetest.Need(t)
	dir := t.TempDir()
	child := livetest.Child(t, mapper)
	same, replaced := filepath.Join(dir, "same"), filepath.Join(dir, "replaced")
	writeFile(t, same)
	writeFile(t, replaced)
	w := watchAll(t)
	addr, gone := address(t, child.Do("map", same)), address(t, child.Do("map", replaced))
	if err := os.Rename(replaced, replaced+".old"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, replaced)
	// A /proc that has nothing of the process but its root.
	w.files.proc = t.TempDir()
	own := filepath.Join(w.files.proc, strconv.Itoa(child.Pid()))
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(own, "root")); err != nil {
		t.Fatal(err)
	}
	w.apply()
	p := w.Process(uint32(child.Pid()))
	w.holds(p, addr, same, content("same"))
	m, ok := p.Find(gone)
	if !ok {
		t.Fatal("it is not mapped")
	}
	if f, err := m.File.Open(); err == nil {
		f.Close()
		t.Error("another file was taken for one that was replaced")
	} else if !strings.Contains(err.Error(), "another file has its name") {
		t.Error(err)
	}
}

// More files than may be held are let go of, and those last that samples were in.
func TestKernelMappingsHoldsFew(t *testing.T) {
	livetest.Need(t)
	dir := t.TempDir()
	child := livetest.Child(t, mapper)
	w := watchSome(t, Options{Wanted: func(pid uint32) bool { return pid == uint32(child.Pid()) }})
	p := w.Process(uint32(child.Pid()))
	w.files.most = len(w.files.held) + 4
	var addrs []uint64
	for i := range 23 {
		path := filepath.Join(dir, strconv.Itoa(i))
		writeFile(t, path)
		addrs = append(addrs, address(t, child.Do("map", path)))
		w.apply()
		if i < 2 {
			p.Find(addrs[i])
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if n := len(w.files.held); n > w.files.most {
			t.Fatalf("%d are held, and %d may be", n, w.files.most)
		}
	}
	for _, i := range []int{0, 1, 22} {
		w.holds(p, addrs[i], filepath.Join(dir, strconv.Itoa(i)), content(strconv.Itoa(i)))
	}
	dropped := 0
	for _, addr := range addrs {
		if m, _ := p.Find(addr); m.File.fd < 0 {
			dropped++
		}
	}
	if dropped == 0 {
		t.Error("none was let go of")
	}
	fds, err := livetest.OpenFiles(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	after, err := livetest.OpenFiles(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if len(after) >= len(fds) {
		t.Errorf("%d files are open, and %d after Close", len(fds), len(after))
	}
}

// After records were lost, all is read again.
func TestKernelMappingsResync(t *testing.T) {
	livetest.Need(t)
	child := livetest.Child(t, mapper)
	path := filepath.Join(t.TempDir(), "missed")
	writeFile(t, path)
	w := watchAll(t)
	before := w.Process(uint32(child.Pid()))
	addr := address(t, child.Do("map", path)) // and its record is not applied
	if err := w.Resync(); err != nil {
		t.Fatal(err)
	}
	if m, ok := before.Find(addr); ok {
		t.Errorf("it is known with nothing lost: %+v", m)
	}
	w.Apply(&perfevent.Record{Kind: perfevent.Lost, Time: perfevent.Now()})
	if err := w.Resync(); err != nil {
		t.Fatal(err)
	}
	p := w.Process(uint32(child.Pid()))
	if p != before {
		t.Error("the process is another now")
	}
	w.holds(p, addr, path, content("missed"))
}

// A kernel thread is one, and has nothing mapped.
func TestKernelMappingsKernelThread(t *testing.T) {
	livetest.Need(t)
	w := watchAll(t)
	if p := w.Process(2); !p.Kernel || p.Comm != "kthreadd" || p.Exe != "" || len(p.maps) != 0 {
		t.Errorf("%+v", p)
	}
}
