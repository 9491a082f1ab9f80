// Package livetest gives the tests that run on a real kernel what they need: a
// gate that keeps them out of ordinary test runs, a driver that runs the tool
// under test as a process of its own, ways to cause the events that the tool is
// to show, each exactly once, and a check that nothing stays loaded.
//
// It is for test files only. A package that uses it has
//
//	func TestMain(m *testing.M) { livetest.Main(m, main) }
//
// and its kernel tests are named TestKernel… and begin with livetest.Need(t).
//
// A helper that takes a testing.TB fails that test when it can't do what it is
// for; the others return what the kernel returned.
package livetest

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/command"
)

const (
	// kernelVar set to 1 asks for the kernel tests.
	kernelVar = "GOBCC_KERNEL_TESTS"
	// guestVar is set where the kernel runs under emulation, which is slow.
	guestVar = "GOBCC_GUEST"
	// shortVar is set where a guest's kernel is not the oldest of several.
	shortVar = "GOBCC_SHORT"
	// toolVar set to 1 makes a test binary be the tool.
	toolVar = "GOBCC_LIVETEST_TOOL"
)

// mainRan tells that this program has the TestMain that starting it again in
// another part takes; without it that would run all tests over again.
var mainRan bool

func init() {
	// Keep the first thread for TestMain, which only waits, so that no test
	// runs on it: a test that changes its thread's root or namespaces must not
	// do so to the one that /proc/self speaks of. Only during initialization is
	// the main goroutine sure to be on that thread.
	runtime.LockOSThread()
}

// Main is what TestMain does. tool is the main function of the tool under test,
// or nil; in the processes that Start, Run and Child make of the test binary, it
// runs the tool or the role instead of the tests.
func Main(m *testing.M, tool func()) {
	command.Main()
	mainRan = true
	if len(os.Args) > 2 && os.Args[1] == roleArg {
		runRole(os.Args[2], os.Args[3:])
		os.Exit(0)
	}
	if tool != nil && os.Getenv(toolVar) == "1" {
		// What the tool starts may be this binary too, in another part.
		os.Unsetenv(toolVar)
		runtime.UnlockOSThread()
		tool()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Need skips a kernel test where kernel tests were not asked for, by
// GOBCC_KERNEL_TESTS=1. Where they were, what they lack is a failure, not a skip.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(kernelVar) != "1" {
		t.Skipf("SKIPPED: kernel tests are off (set %s=1 and be root)", kernelVar)
	}
	if uid := os.Geteuid(); uid != 0 {
		t.Fatalf("%s=1, but kernel tests need root and this is uid %d", kernelVar, uid)
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Fatalf("%s=1, but this kernel has no BTF (or /sys is not mounted): %v", kernelVar, err)
	}
	if !mainRan {
		t.Fatal("this package's TestMain does not call livetest.Main")
	}
}

// NeedFast is Need for a test that starts the tool so often that it would take
// minutes where the kernel runs under emulation. There it is skipped: what it is
// about must not depend on the kernel, or be tested in short by another test.
func NeedFast(t testing.TB) {
	t.Helper()
	NeedReal(t, "it takes long in an emulated guest")
}

// NeedReal is Need for a test that can't be made in emulated guests.
func NeedReal(t testing.TB, since string) {
	t.Helper()
	Need(t)
	if Guest() {
		t.Skip("SKIPPED: for real machines only, as " + since)
	}
}

// NeedCompilers is NeedReal for a test that compiles.
func NeedCompilers(t testing.TB) {
	t.Helper()
	NeedReal(t, "guests have no compilers")
}

// NeedOnce is Need for a test of something that is hardly another matter on another
// kernel: beside the running kernel, only the oldest of those tested under emulation runs
// it.
func NeedOnce(t testing.TB) {
	t.Helper()
	Need(t)
	if os.Getenv(shortVar) != "" {
		t.Skip("SKIPPED: for the oldest kernel and real machines only, as it takes long in an emulated guest")
	}
}

// Guest reports whether this is an emulated guest, in which all is slow.
func Guest() bool { return os.Getenv(guestVar) != "" }

// limit is d, or ten times that in an emulated guest.
func limit(d time.Duration) time.Duration {
	if Guest() {
		return 10 * d
	}
	return d
}

// patience is how long a process may take to do something that it does at once
// on a machine that is not busy.
const patience = 60 * time.Second
