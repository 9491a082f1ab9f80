package livetest

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace runs do on a thread of its own, in a new mount namespace, from which
// no mount reaches the rest of the machine. Working directory and root are that
// thread's own too. The thread, and with it all that was mounted, is gone
// afterwards. do may fail or skip the test; goroutines that it starts are
// outside of the namespace.
func Namespace(t testing.TB, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked, so the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Errorf("new mount namespace: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Errorf("make all mounts private: %v", err)
			return
		}
		do()
	}()
	<-done
	// A FailNow or SkipNow there has ended that goroutine only.
	if t.Failed() {
		t.FailNow()
	}
	if t.Skipped() {
		t.SkipNow()
	}
}

// inNamespace fails a test that would change the mounts of all.
func inNamespace(t testing.TB) {
	t.Helper()
	own, err1 := os.Readlink("/proc/thread-self/ns/mnt")
	process, err2 := os.Readlink("/proc/self/ns/mnt")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if own == process {
		t.Fatal("not within livetest.Namespace")
	}
}

// Chroot makes dir the root and working directory of the calling thread, for
// the rest of Namespace's do.
func Chroot(t testing.TB, dir string) {
	t.Helper()
	inNamespace(t)
	if err := errors.Join(unix.Chroot(dir), unix.Chdir("/")); err != nil {
		t.Fatalf("chroot to %s: %v", dir, err)
	}
}

// BindMount makes the file or directory target show source, within Namespace.
func BindMount(t testing.TB, source, target string) {
	t.Helper()
	inNamespace(t)
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("bind mount %s on %s: %v", source, target, err)
	}
}

// Tmpfs mounts an empty tmpfs on target, within Namespace.
func Tmpfs(t testing.TB, target string) {
	t.Helper()
	inNamespace(t)
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v", target, err)
	}
}

// Overlay mounts lower with upper over it on target, within Namespace. work is
// an empty directory beside upper. It returns false where the kernel has no
// overlayfs.
func Overlay(t testing.TB, lower, upper, work, target string) bool {
	t.Helper()
	inNamespace(t)
	err := unix.Mount("overlay", target, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work)
	if err == unix.ENODEV {
		return false
	}
	if err != nil {
		t.Fatalf("mount an overlay on %s: %v", target, err)
	}
	return true
}

// Threads runs do(0) to do(n-1) on n different threads. All of them exist before
// the first call begins. It returns when all calls have.
func Threads(n int, do func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			<-start
			do(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}
