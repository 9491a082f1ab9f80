package unwind

import (
	"os"
	"testing"
)

func benchmarkOpen(b *testing.B, paths ...string) {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		var t *Table
		b.ReportAllocs()
		for b.Loop() {
			if t, err = Open(f); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(t.Rows)), "rows")
		b.ReportMetric(float64(len(t.Rules)), "rules")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(t.Rows)), "ns/row")
		return
	}
	b.Skipf("SKIPPED: no %s here", paths[0])
}

// A library that every program has.
func BenchmarkOpenLibc(b *testing.B) {
	benchmarkOpen(b, "/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6")
}

// One of the largest libraries that there are.
func BenchmarkOpenLLVM(b *testing.B) {
	benchmarkOpen(b, "/usr/lib/llvm-19/lib/libLLVM.so", "/usr/lib/x86_64-linux-gnu/libLLVM-15.so.1")
}

// The Go program that this test is.
func BenchmarkOpenGo(b *testing.B) { benchmarkOpen(b, "/proc/self/exe") }
