package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// buildGo builds a Go program and gives its path.
func buildGo(t *testing.T, arch string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	const program = `package main

import "fmt"

func main() {
	c := make(chan string)
	go func() { defer close(c); c <- fmt.Sprint(map[string]int{"a": 1}) }()
	for s := range c {
		fmt.Println(s)
	}
}
`
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "program")
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), source)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return out
}

func openTable(t *testing.T, path string) *Table {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := Open(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	checkTable(t, table)
	return table
}

// What a Go program's own table tells is what its linker told debuggers, and is told of a
// stripped program, too.
func TestGo(t *testing.T) {
	if _, err := exec.LookPath("readelf"); err != nil {
		t.Skip("SKIPPED: no readelf here (Debian's binutils)")
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			path := buildGo(t, arch)
			table := openTable(t, path)
			out, err := exec.Command("readelf", "-W", "--debug-dump=frames-interp,no-follow-links", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			fdes, err := parseInterpreted(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			rows, others, bad := 0, map[CFA]int{}, 0
			for _, d := range fdes {
				for i, r := range d.rows {
					next := d.end
					if i+1 < len(d.rows) {
						next = d.rows[i+1].addr
					}
					if r.addr == next {
						continue
					}
					rows++
					got := table.Find(r.addr)
					if got.Cfa != SP || r.values["ra"] == "u" || table.Find(next-1).Cfa == End || table.Find(next-1).Flags != 0 {
						others[got.Cfa]++
						continue // see checkGoFunctions
					}
					_, offset, _ := strings.Cut(r.values["CFA"], "+")
					ra := strings.TrimPrefix(r.values["ra"], "c")
					saved := got.Ra == AtCFA && strconv.Itoa(int(got.RaOffset)*8) == ra || got.Ra == Same && ra == "s"
					fp := Rule{Fp: AtCFA, FpOffset: -2}
					if arch == "arm64" {
						fp.FpOffset = got.RaOffset - 1
					}
					if ra == "s" || arch == "amd64" && offset == "8" {
						fp = Rule{}
					}
					saved = saved && got.Fp == fp.Fp && got.FpOffset == fp.FpOffset
					if strconv.Itoa(int(got.Offset)) != offset || !saved || table.Find(next-1) != got {
						if bad++; bad < 10 {
							t.Errorf("%#x: %+v and %+v, but readelf says %s", r.addr, got, table.Find(next-1), r)
						}
					}
				}
			}
			t.Logf("%d rows, others: %v", rows, others)
			if rows < 5000 || others[Unknown]+others[End]+others[FP]+others[Signal]+others[SP] > rows/50 {
				t.Errorf("%d rows, of which others are %v", rows, others)
			}
			if stripped := openTable(t, buildGo(t, arch, "-ldflags=-s -w")); len(stripped.Rows) != len(table.Rows) {
				t.Errorf("%d rows, but %d once stripped", len(table.Rows), len(stripped.Rows))
			}
			checkGoFunctions(t, path, table)
		})
	}
}

// checkGoFunctions checks the functions of Go's runtime that are like no others.
func checkGoFunctions(t *testing.T, path string, table *Table) {
	t.Helper()
	e, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]func(symbols.GoFunction) bool{
		// Called by nothing: what is looked up is the call's last byte.
		"runtime.goexit": func(fn symbols.GoFunction) bool { return table.Find(fn.Start).Cfa == End },
		"runtime.rt0_go": func(fn symbols.GoFunction) bool { return table.Find(fn.End-1).Cfa == End },
		"runtime.morestack": func(fn symbols.GoFunction) bool {
			return table.Find(fn.Start).Cfa == SP && has(table, fn, func(r Rule) bool { return r.Cfa == End })
		},
		"runtime.clone": func(fn symbols.GoFunction) bool {
			return table.Find(fn.Start).Cfa == SP && table.Find(fn.End-1).Cfa == End
		},
		"runtime.mcall": func(fn symbols.GoFunction) bool {
			return table.Find(fn.Start).Cfa == SP && has(table, fn, func(r Rule) bool { return r.Cfa == End })
		},
		"runtime.systemstack": func(fn symbols.GoFunction) bool {
			return table.Find(fn.Start).Cfa == SP && has(table, fn, func(r Rule) bool { return r.Cfa == FP && r.Flags == Elsewhere })
		},
		"runtime.sigtramp": func(fn symbols.GoFunction) bool { return !has(table, fn, func(r Rule) bool { return r.Cfa != SP }) },
		"runtime.mstart":   func(fn symbols.GoFunction) bool { return !has(table, fn, func(r Rule) bool { return r.Cfa != End }) },
	}
	// They call the vdso on another stack.
	vdso := func(fn symbols.GoFunction) bool {
		return table.Find(fn.Start).Cfa == SP && has(table, fn, func(r Rule) bool { return r.Cfa == FP && r.Flags == Elsewhere })
	}
	want["runtime.nanotime1"] = vdso
	entry := "_rt0_arm64_linux"
	if e.Machine == elf.EM_X86_64 {
		entry = "_rt0_amd64_linux"
		want["time.now"] = vdso
		want["runtime.sigreturn__sigaction"] = func(fn symbols.GoFunction) bool {
			return table.Find(fn.Start-1) == Rule{Cfa: Signal, Offset: 40} && table.Find(fn.Start) == Rule{Cfa: Signal, Offset: 40}
		}
	}
	want[entry] = func(fn symbols.GoFunction) bool { return table.Find(fn.Start).Cfa == End }
	if err := symbols.GoFunctions(e, f, func(fn *symbols.GoFunction) bool {
		if check, ok := want[fn.Name()]; ok {
			delete(want, fn.Name())
			if !check(*fn) {
				t.Errorf("%s: the rules are not right", fn.Name())
			}
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		t.Errorf("there is no %s", name)
	}
}

// has reports whether a function has such a rule.
func has(table *Table, fn symbols.GoFunction, is func(Rule) bool) bool {
	for addr := fn.Start; addr < fn.End; addr++ {
		if is(table.Find(addr)) {
			return true
		}
	}
	return false
}

// A Go program whose own table has been damaged gives an error by name, or a table.
func TestGoDamaged(t *testing.T) {
	path := buildGo(t, "amd64", "-ldflags=-s -w")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	s := e.Section(".gopclntab")
	if s == nil {
		t.Fatal("there is no .gopclntab")
	}
	random := rand.New(rand.NewPCG(23, 0))
	failed := 0
	for n := range 100 {
		damaged := bytes.Clone(file)
		part := damaged[s.Offset:][:s.FileSize]
		if n%2 == 0 {
			part = part[:128] // the header
		}
		for range 1 + random.IntN(8) {
			part[random.IntN(len(part))] = byte(random.Uint32())
		}
		if n%10 == 0 {
			binary.LittleEndian.PutUint64(part[8:], random.Uint64()>>random.IntN(64)) // how many functions there are
		}
		table, err := Open(bytes.NewReader(damaged))
		if err != nil {
			failed++
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrNoFrames) {
				t.Errorf("error %v", err)
			}
			continue
		}
		checkTable(t, table)
		for _, r := range table.Rules {
			checkRule(t, r, elf.EM_X86_64)
		}
	}
	if failed < 20 || failed > 80 {
		t.Errorf("%d of 100 failed", failed)
	}
}
