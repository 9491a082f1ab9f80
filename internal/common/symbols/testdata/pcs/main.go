// Command pcs prints what its own runtime knows of addresses in its code: the offset in
// the file and the functions there, the innermost first.
package main

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strings"
)

func main() {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		panic(err)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	var stacks [][]uintptr
	for range 23 {
		stacks = append(stacks, outer())
	}
	for line := range strings.Lines(string(maps)) {
		var start, end, offset uintptr
		var prot string
		if _, err := fmt.Sscanf(line, "%x-%x %s %x", &start, &end, &prot, &offset); err != nil {
			panic(err)
		}
		if !strings.Contains(line, exe) || !strings.Contains(prot, "x") {
			continue
		}
		for _, stack := range stacks {
			// The caller of leaf, which is inlined.
			fmt.Fprintf(out, "%x", stack[0]-1-start+offset)
			frames := runtime.CallersFrames(stack)
			for {
				frame, more := frames.Next()
				fmt.Fprintf(out, "\t%s\t%s\t%d", frame.Function, frame.File, frame.Line)
				if !more {
					break
				}
			}
			fmt.Fprintln(out)
		}
		for _, f := range []any{main, fmt.Sprintf, sort.Sort, strings.Fields, (*bufio.Writer).Flush, os.ReadFile, generic[int], generic[string]} {
			entry := reflect.ValueOf(f).Pointer()
			for pc := entry; pc < entry+4096 && pc < end && pc >= start; pc++ {
				fmt.Fprintf(out, "%x", pc-start+offset)
				// What is given is taken for a return address.
				frames := runtime.CallersFrames([]uintptr{pc + 1})
				for {
					frame, more := frames.Next()
					fmt.Fprintf(out, "\t%s\t%s\t%d", frame.Function, frame.File, frame.Line)
					if !more {
						break
					}
				}
				fmt.Fprintln(out)
			}
		}
	}
}

//go:noinline
func generic[T any](s []T) []T {
	return append(s, s...)
}

//go:noinline
func outer() []uintptr {
	return append(middle(), 0)[:4]
}

func middle() []uintptr {
	return inner()
}

func inner() []uintptr {
	return leaf()
}

//go:noinline
func leaf() []uintptr {
	stack := make([]uintptr, 8)
	return stack[:runtime.Callers(2, stack)]
}
