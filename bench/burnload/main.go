// Burnload is the load of `make bench` for profile: it computes, in calls of a known
// depth, and prints how long that took.
//
// Usage:
//
//	burnload [-cpu N] [-n STRETCHES] [-depth FRAMES] [-threads N] [-hold]
//
// It does so many stretches of work, of about a millisecond each, in each of its threads.
// A stretch is done FRAMES deep in the stack, the function at work and the thread's first
// one included, at the end of one of 64 paths of calls, in turn. All code has frame
// pointers. Then it prints three numbers, in nanoseconds: the elapsed time, the CPU time,
// and that of as many other system calls. With -hold it then waits for the end of its
// standard input, so that a tracer can still look up what the functions are called.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/gobcc/gobcc/bench/load"
)

func main() { load.Main("burnload", run) }

func run(args []string) error {
	flags := flag.NewFlagSet("burnload", flag.ContinueOnError)
	cpu := flags.Int("cpu", -1, "run on this CPU only; -1 leaves the choice to the kernel")
	n := flags.Int("n", 2000, "stretches of work")
	depth := flags.Int("depth", 32, "work so many frames deep")
	threads := flags.Int("threads", 1, "do all of it in so many threads at once")
	hold := flags.Bool("hold", false, "end with the standard input")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *n < 1 || *threads < 1 {
		return fmt.Errorf("want one stretch and one thread or more, and no other arguments; got %q", args)
	}
	err := load.Measure(*n, 1, func() error {
		done := make(chan error)
		for range *threads {
			go func() {
				if err := load.Pin(*cpu); err != nil {
					done <- err
					return
				}
				done <- work(*n, *depth, burn)
			}()
		}
		var errs []error
		for range *threads {
			errs = append(errs, <-done)
		}
		return errors.Join(errs...)
	})
	if err == nil && *hold {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// paths is how many paths of calls there are.
const paths = 64

// work calls leaf n times, depth frames deep with its own.
//
//go:noinline
func work(n, depth int, leaf func()) error {
	more := depth - frames() - 2 // but for the first call below, and that of leaf
	if more < 0 {
		return fmt.Errorf("a depth of %d frames: it takes %d at least", depth, depth-more)
	}
	for i := range n {
		left(more, i%paths, leaf)
	}
	return nil
}

// frames is how many frames there are, without its own. Functions that the compiler made
// part of another one have none.
//
//go:noinline
func frames() (n int) {
	pcs := make([]uintptr, 1024)
	found := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for more := true; more; {
		var f runtime.Frame
		if f, more = found.Next(); f.Func != nil {
			n++
		}
	}
	return n
}

// left and right call each other, as the bits of path tell, until no frame is to come but
// leaf's.
//
//go:noinline
func left(more, path int, leaf func()) {
	switch {
	case more == 0:
		leaf()
	case path&1 == 0:
		left(more-1, path>>1, leaf)
	default:
		right(more-1, path>>1, leaf)
	}
}

//go:noinline
func right(more, path int, leaf func()) {
	switch {
	case more == 0:
		leaf()
	case path&1 == 0:
		left(more-1, path>>1, leaf)
	default:
		right(more-1, path>>1, leaf)
	}
}

// burn is a stretch of work. It has its sums on the stack, as a function without anything
// there has no frame, and its caller would be missing in the kernel's sight of the stack.
//
//go:noinline
func burn() {
	var sums [8]uint64
	x := uint64(1)
	for range 600_000 {
		x = x*6364136223846793005 + 1442695040888963407 // Knuth's
		sums[x>>61] += x
	}
	runtime.KeepAlive(sums[x>>61]) // or it could be left out
}
