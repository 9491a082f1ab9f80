package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// This file has the tests of what a profile says of programs that are gone, changed or
// hidden by its end, and of CPUs that come.

// burnerStack is a stack of a burner as --json has it.
type burnerStack struct {
	Kind  string
	PID   int
	Count int
	Comm  []byte `json:"comm_bytes"`
	Exe   string
	User  []struct {
		Function string
		File     string
	} `json:"user_stack"`
	Kernel []struct {
		Function string
	} `json:"kernel_stack"`
}

// leaf is the function that a stack is in.
func (s burnerStack) leaf() string {
	if len(s.User) == 0 {
		return ""
	}
	return s.User[0].Function
}

// stacks are those of a run of the tool.
func stacksOf(t *testing.T, r livetest.Result) []burnerStack {
	t.Helper()
	if r.Status != 0 {
		t.Fatalf("status %d, and %s", r.Status, r.Stderr)
	}
	var all []burnerStack
	for _, line := range r.Lines() {
		var s burnerStack
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if s.Kind == "stack" {
			all = append(all, s)
		}
	}
	return all
}

// spinsHere is how often a burner of this test counts down: for about as long, some 30 ms,
// on an emulated CPU.
func spinsHere() uint32 {
	if livetest.Guest() {
		return spins / 25
	}
	return spins
}

// Processes of 30 ms that are gone at the end are shown, each with its name, and all that
// they did has the name of its function.
func TestKernelShortLived(t *testing.T) {
	livetest.Need(t)
	path := filepath.Join(t.TempDir(), "od;d\n\xff name")
	writeBurner(t, path, "burn_for_a_moment", true, spinsHere())
	tool := livetest.Start(t, "--json", "-F", "499")
	tool.Ready()
	n := 200
	if livetest.Guest() {
		n = 23
	}
	pids := map[int]bool{}
	for range n {
		cmd := exec.Command(path)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		pids[cmd.Process.Pid] = true
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	named, user := 0, 0
	for _, s := range stacksOf(t, tool.Stop()) {
		if !pids[s.PID] || len(s.User) == 0 || string(s.Comm) != filepath.Base(path) {
			continue // before its exec it is still this test
		}
		if strings.Contains(fmt.Sprint(s.Kernel), "load_elf_binary") && s.leaf() == "[unknown]" {
			continue // in the last microseconds of its exec
		}
		seen[s.PID] = true
		user += s.Count
		if s.leaf() == "burn_for_a_moment" {
			named += s.Count
		} else {
			t.Logf("of no name: %+v", s)
		}
	}
	t.Logf("%d processes, %d seen, %d samples, %d of them with the name of the function", n, len(seen), user, named)
	// A sample each 2 ms: one of 30 ms is hardly ever missed.
	if len(seen) < n*95/100 || named != user || user == 0 {
		t.Errorf("%d of %d processes are seen, and %d of %d samples have the name of the function", len(seen), n, named, user)
	}
}

var burnLibrary = livetest.Role("burn-library", func(args []string) string {
	f, err := os.Open(args[0])
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	code, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		return err.Error()
	}
	// What a func is: a pointer to a pointer to code.
	entry := &code[burnerOffset]
	pointer := &entry
	burn := *(*func())(unsafe.Pointer(&pointer))
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err.Error()
	}
	for range times {
		burn()
	}
	runtime.KeepAlive(pointer)
	return "done"
})

// A library that is mapped while the tool runs has names, also when it and its process are
// gone at the end.
func TestKernelLibraryOpenedLate(t *testing.T) {
	livetest.NeedOnce(t)
	path := filepath.Join(t.TempDir(), "library.so")
	// Short calls, since Go can't stop a thread in such code.
	const each = 1_000_000
	writeBurner(t, path, "burn_in_library", false, each)
	child := livetest.Child(t, burnLibrary)
	tool := livetest.Start(t, "--json", "-F", "499", "-p", strconv.Itoa(child.Pid()))
	tool.Ready()
	if got := child.Do(path, strconv.Itoa(int(spinsHere()/each)*10)); got != "done" {
		t.Fatal(got)
	}
	child.End()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, s := range stacksOf(t, tool.Stop()) {
		if s.PID != child.Pid() {
			t.Errorf("a stack of process %d", s.PID)
		}
		if s.leaf() == "burn_in_library" && s.User[0].File == path {
			count += s.Count
		}
	}
	if count < 10 {
		t.Errorf("%d samples in the library", count)
	}
}

var burnInContainer = livetest.Role("burn-in-container", func(args []string) string {
	dir, path := args[0], filepath.Join(args[0], "inside")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err.Error()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err.Error()
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		return err.Error()
	}
	for range 10 {
		if err := exec.Command(path).Run(); err != nil {
			return err.Error()
		}
	}
	return "done"
})

// What runs in another mount and pid namespace has names, by its own files, also when the
// namespace is gone at the end and another file has the name outside.
func TestKernelContainer(t *testing.T) {
	livetest.NeedOnce(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "inside")
	writeBurner(t, path, "burn_in_container", true, spinsHere())
	child := livetest.ChildWith(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	}, burnInContainer)
	tool := livetest.Start(t, "--json", "-F", "499")
	tool.Ready()
	if got := child.Do(dir); got != "done" {
		t.Fatal(got)
	}
	child.End()
	writeBurner(t, path, "burn_outside", true, 1)
	inside, outside := 0, 0
	for _, s := range stacksOf(t, tool.Stop()) {
		switch s.leaf() {
		case "burn_in_container":
			inside += s.Count
			if s.Exe != path {
				t.Errorf("the program is %q", s.Exe)
			}
			if s.PID <= child.Pid() && s.PID < 100 {
				t.Errorf("pid %d is not of our own namespace", s.PID)
			}
		case "burn_outside":
			outside += s.Count
		}
	}
	if inside < 10 || outside > 0 {
		t.Errorf("%d samples inside, and %d with a name of another file", inside, outside)
	}
}

// A CPU that was off when the tool started, or goes off and comes again, is sampled.
func TestKernelHotplug(t *testing.T) {
	livetest.Need(t)
	const online = "/sys/devices/system/cpu/cpu1/online"
	if !livetest.Guest() {
		t.Skip("SKIPPED: it takes a CPU off, so it is for guests only")
	}
	set := func(value string) {
		t.Helper()
		if err := os.WriteFile(online, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { set("1") })
	path := filepath.Join(t.TempDir(), "burner")
	writeBurner(t, path, "burn_on_cpu_1", true, 5*spinsHere())
	burn := func() int {
		t.Helper()
		done := make(chan error)
		var cmd *exec.Cmd
		go func() {
			runtime.LockOSThread() // It ends with the goroutine, and no other runs on CPU 1 alone.
			var one unix.CPUSet
			one.Set(1)
			err := unix.SchedSetaffinity(0, &one)
			if err == nil {
				cmd = exec.Command(path)
				err = cmd.Run()
			}
			done <- err
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return cmd.Process.Pid
	}
	for name, start := range map[string]string{"off at first": "0", "on at first": "1"} {
		t.Run(name, func(t *testing.T) {
			set(start)
			tool := livetest.Start(t, "--json", "-F", "99")
			tool.Ready()
			set("0")
			set("1")
			// It takes the tool two seconds at most to see that.
			pids := map[int]bool{}
			for began := time.Now(); time.Since(began) < 4*time.Second; {
				pids[burn()] = true
			}
			count := 0
			r := tool.Stop()
			if said := regexp.MustCompile("CPU 1 (went|was) offline").MatchString(r.Stderr); said != (start == "1") {
				t.Errorf("said of a CPU that went off: %v: %s", said, r.Stderr)
			}
			for _, s := range stacksOf(t, r) {
				if pids[s.PID] && s.leaf() == "burn_on_cpu_1" {
					count += s.Count
				}
			}
			t.Logf("%d samples of %d processes", count, len(pids))
			if count == 0 {
				t.Errorf("no sample of %d processes on a CPU that came: %s", len(pids), r.Stderr)
			}
		})
	}
}

// Names that no line of folded stacks may hold are escaped.
func TestKernelFoldedOddNames(t *testing.T) {
	livetest.NeedOnce(t)
	path := filepath.Join(t.TempDir(), "od;d\n\xff")
	writeBurner(t, path, "burn;odd\n1", true, spinsHere())
	tool := livetest.Start(t, "-f", "-U", "-F", "499")
	tool.Ready()
	for range 10 {
		if err := exec.Command(path).Run(); err != nil {
			t.Fatal(err)
		}
	}
	r := tool.Stop()
	if r.Status != 0 {
		t.Fatal(r.Stderr)
	}
	count := 0
	for _, line := range r.Lines() {
		i := strings.LastIndexByte(line, ' ')
		n, err := strconv.Atoi(line[i+1:])
		if err != nil {
			t.Fatalf("no count: %q", line)
		}
		if line[:max(i, 0)] == fmt.Sprintf("%s;[truncated];%s", appendEscapedName(nil, "od;d\n\xff"), appendEscapedName(nil, "burn;odd\n1")) {
			count += n
		}
	}
	if count < 10 || strings.Contains(r.Stdout, "\xff") {
		t.Errorf("%d samples with names escaped", count)
	}
}
