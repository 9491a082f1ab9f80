package main

import (
	"runtime"
	"testing"
)

func TestDepth(t *testing.T) {
	for depth, want := range map[int]int{8: 8, 32: paths, 120: paths} {
		stacks := map[string]bool{}
		done := make(chan error)
		go func() {
			done <- work(2*paths, depth, func() {
				if n := frames(); n != depth {
					t.Errorf("%d frames, want %d", n, depth)
				}
				var names string
				pcs := make([]uintptr, 1024)
				found := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
				for more := true; more; {
					var f runtime.Frame
					f, more = found.Next()
					names += f.Function + "\n"
				}
				stacks[names] = true
			})
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(stacks) != want {
			t.Errorf("%d stacks of %d frames, want %d", len(stacks), depth, want)
		}
	}
	if err := work(1, 3, func() {}); err == nil {
		t.Error("3 frames are no error")
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{{"-n", "0"}, {"-threads", "0"}, {"more"}, {"-depth", "2"}} {
		if err := run(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
