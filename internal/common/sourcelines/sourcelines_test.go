package sourcelines

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

// The programs that are built here have functions inlined three deep, in ranges of
// several parts, and code in .text.unlikely and .text.startup.
const (
	programC = `
#include <stdio.h>
#include <stdlib.h>
static int cmp(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static inline __attribute__((always_inline)) int leaf(int x)
{
	for (int i = 0; i < x; i++)
		x ^= i * 3;
	return x;
}
static inline __attribute__((always_inline)) int middle(int x) { return leaf(x) + leaf(x / 2); }
__attribute__((noinline)) int outer(int x)
{
	if (x > 1000) {
		puts("big");
		abort();
	}
	return middle(x) * 2;
}
int main(int argc, char **argv)
{
	int a[100];
	for (int i = 0; i < 100; i++)
		a[i] = outer(i * argc);
	qsort(a, 100, sizeof(a[0]), cmp);
	printf("%d\n", a[3]);
	return 0;
}
`
	programCXX = `
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>
struct Point { int x, y; int norm() const { return x * x + y * y; } };
namespace geo {
template <class T> static inline T sq(T v) { return v * v; }
template <class T> T sum(const std::vector<T> &v) { T s = 0; for (auto &e : v) s += sq(e); return s; }
}
static inline int twice(int a) { return geo::sq(a) + a; }
int main(int argc, char **argv)
{
	std::vector<int> v;
	for (int i = 0; i < argc * 1000; i++)
		v.push_back(twice(i) ^ argc);
	std::sort(v.begin(), v.end(), [](int a, int b) { return geo::sq(a) < geo::sq(b); });
	std::map<std::string, Point> m;
	m[argv[0]] = {1, 2};
	for (auto &[k, p] : m)
		std::printf("%s %d\n", k.c_str(), p.norm());
	std::printf("%d\n", geo::sum(v));
}
`
	programRust = `
use std::collections::HashMap;
fn fib(n: u64) -> u64 { if n < 2 { n } else { fib(n - 1) + fib(n - 2) } }
fn main() {
    let mut m = HashMap::new();
    for w in std::env::args().chain(["a".to_string()]) { *m.entry(w).or_insert(0u64) += fib(10); }
    let mut v: Vec<_> = m.into_iter().collect();
    v.sort_by(|a, b| a.1.cmp(&b.1));
    for (k, n) in v.iter().map(|(k, n)| (k, n * 2)) { println!("{k} {n}"); }
}
`
	programGo = `package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

func main() {
	words := strings.Fields(strings.Join(os.Args, " "))
	sort.Slice(words, func(i, j int) bool { return strings.ToLower(words[i]) < strings.ToLower(words[j]) })
	fmt.Println(words)
}
`
)

// need skips the test if a program is missing. make test-unit installs those that
// Debian has.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: no %s here", p)
		}
	}
}

func run(t testing.TB, dir, command string) {
	t.Helper()
	c := exec.Command("bash", "-c", command)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// build makes a program p of a source in its language and gives its path.
func build(t testing.TB, source, language, command string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p."+language), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, command)
	return filepath.Join(dir, "p")
}

func open(t testing.TB, name string, options Options) *File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file, err := Open(f, NewBudget(1<<30, time.Minute), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// text gives each step-th address of a program's code.
func text(t testing.TB, name string, step int) (addrs []uint64) {
	t.Helper()
	e, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s := e.Section(".text")
	for a := s.Addr; a < s.Addr+s.Size; a += uint64(step) {
		addrs = append(addrs, a)
	}
	return addrs
}

// symbolizer asks llvm-symbolizer. Where it knows nothing of an address there is none.
func symbolizer(t testing.TB, name string, addrs []uint64) map[uint64][]symbols.Line {
	t.Helper()
	var in bytes.Buffer
	for _, a := range addrs {
		fmt.Fprintf(&in, "%#x\n", a)
	}
	c := exec.Command("llvm-symbolizer-19", "--relative-address", "--output-style=GNU", "-a", "-i", "-f", "--no-demangle", "-e", name)
	c.Stdin = &in
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint64][]symbols.Line{}
	var addr uint64
	address := regexp.MustCompile(`^0x[0-9a-f]+$`)
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		l := lines.Text()
		if address.MatchString(l) {
			addr, _ = strconv.ParseUint(l, 0, 64)
			continue
		}
		if !lines.Scan() {
			t.Fatal("llvm-symbolizer ended early")
		}
		place, _, _ := strings.Cut(lines.Text(), " (discriminator")
		i := strings.LastIndexByte(place, ':')
		n, _ := strconv.Atoi(place[i+1:])
		line := symbols.Line{Linkage: l, Line: n}
		if place[:i] != "??" && place[:i] != "?" {
			line.File = path.Clean(place[:i])
		}
		all[addr] = append(all[addr], line)
	}
	return all
}

// agree compares with llvm-symbolizer at many addresses. That takes the name of the outermost
// function from the symbol table (f.cold for a part of f), and what has no lines too.
func agree(t *testing.T, name string, file *File, step, least, leastInlined int) {
	t.Helper()
	addrs := text(t, name, step)
	want := symbolizer(t, name, addrs)
	good, inlined, bad := 0, 0, 0
	for _, a := range addrs {
		got, err := file.Lines(a)
		if err != nil {
			t.Fatalf("%#x: %v", a, err)
		}
		w := want[a]
		if len(got) == 0 && len(w) == 1 && w[0].Line == 0 {
			continue
		}
		same := len(got) == len(w)
		for i := 0; same && i < len(got); i++ {
			same = got[i].File == w[i].File && got[i].Line == w[i].Line &&
				(got[i].Linkage == w[i].Linkage || i == len(got)-1)
		}
		if !same {
			if bad++; bad <= 5 {
				t.Errorf("%s at %#x:\n got %+v\nwant %+v", filepath.Base(name), a, got, w)
			}
			continue
		}
		good++
		if len(got) > 1 {
			inlined++
		}
	}
	if good < least || inlined < leastInlined {
		t.Errorf("only %d addresses with lines and %d with inlined functions of %d", good, inlined, len(addrs))
	}
	t.Logf("%d addresses of %d have lines, %d inlined functions; %d differ", good, len(addrs), inlined, bad)
}

func TestAgainstSymbolizer(t *testing.T) {
	tests := []struct {
		name, source, language, command string
		step, least, inlined            int
	}{
		{"gcc DWARF 5", programC, "c", "gcc -g -O2 -o p p.c", 1, 200, 60},
		{"gcc DWARF 4", programC, "c", "gcc -g -gdwarf-4 -O2 -no-pie -o p p.c", 1, 200, 60},
		{"gcc DWARF 3", programC, "c", "gcc -g -gdwarf-3 -O3 -o p p.c", 1, 200, 60},
		{"gcc DWARF 2", programC, "c", "gcc -g -gdwarf-2 -gstrict-dwarf -O2 -o p p.c", 1, 200, 60},
		{"gcc 64-bit DWARF", programC, "c", "gcc -g -gdwarf64 -O2 -o p p.c", 1, 200, 60},
		{"gcc without optimization", programC, "c", "gcc -g -O0 -o p p.c", 1, 200, 0},
		{"gcc lines only", programC, "c", "gcc -g1 -O2 -o p p.c", 1, 200, 60},
		{"gcc zlib", programC, "c", "gcc -g -gz -O2 -o p p.c", 1, 200, 60},
		{"gcc old zlib", programC, "c", "gcc -g -O2 -o p p.c && cp p original && objcopy --compress-debug-sections=zlib-gnu p", 1, 200, 60},
		{"clang DWARF 5", programC, "c", "clang-19 -g -O2 -o p p.c", 1, 200, 80},
		{"clang DWARF 4", programC, "c", "clang-19 -g -gdwarf-4 -O2 -o p p.c", 1, 200, 80},
		// The linker drops functions here, whose lines then are at address 0.
		{"clang dropped functions", programC, "c",
			"clang-19 -g -O2 -ffunction-sections -Dmain=unused -c -o u.o p.c && clang-19 -g -O2 -ffunction-sections -Wl,--gc-sections -Douter=outer2 -o p p.c u.o", 1, 200, 80},
		{"gcc C++", programCXX, "cc", "g++ -g -O2 -o p p.cc", 1, 4000, 2500},
		{"gcc C++ link time", programCXX, "cc", "g++ -g -O2 -flto -o p p.cc", 1, 3000, 2000},
		{"clang C++", programCXX, "cc", "clang++-19 -g -O2 -o p p.cc", 1, 4000, 2500},
		{"clang C++ DWARF 4", programCXX, "cc", "clang++-19 -g -gdwarf-4 -O3 -o p p.cc", 1, 4000, 2500},
		{"Rust", programRust, "rs", "rustc -g -O p.rs", 23, 3000, 2000},
		{"Go", programGo, "go", "go build -o p p.go", 97, 4000, 1000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			need(t, strings.Fields(test.command)[0], "llvm-symbolizer-19", "objcopy")
			p := build(t, test.source, test.language, test.command)
			known := p
			if original := filepath.Join(filepath.Dir(p), "original"); strings.Contains(test.command, "original") {
				known = original // llvm-symbolizer can't read the other
			}
			agree(t, known, open(t, p, Options{}), test.step, test.least, test.inlined)
		})
	}
}

// TestSeparateFile reads a file of debugging information that has no code.
func TestSeparateFile(t *testing.T) {
	need(t, "gcc", "objcopy", "llvm-symbolizer-19")
	p := build(t, programC, "c", "gcc -g -O2 -o p p.c && objcopy --only-keep-debug p p.debug && cp p q && objcopy --strip-debug q")
	agree(t, p, open(t, p+".debug", Options{}), 1, 200, 60)
	f, err := os.Open(filepath.Join(filepath.Dir(p), "q"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Open(f, NewBudget(0, time.Minute), Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("a stripped file gives %v, not ErrNone", err)
	}
}

// TestAlternate reads files of which dwz took what they share.
func TestAlternate(t *testing.T) {
	need(t, "gcc", "g++", "dwz", "llvm-symbolizer-19")
	for _, test := range []struct{ name, compile, dwz string }{
		{"DWARF 4", "-gdwarf-4", "-m shared"},
		{"DWARF 5", "-gdwarf-5", "-m shared"},
		{"DWARF 5 supplementary", "-gdwarf-5", "-5 -m shared"},
	} {
		t.Run(test.name, func(t *testing.T) { alternate(t, test.compile, test.dwz) })
	}
}

func alternate(t *testing.T, compile, dwz string) {
	p := build(t, programCXX, "cc", "g++ -g "+compile+" -O2 -o p p.cc && cp p p2 && cp p original && dwz "+dwz+" p p2")
	original := filepath.Join(filepath.Dir(p), "original")
	opened := ""
	file := open(t, p, Options{Alternate: func(name string, id []byte) (*os.File, error) {
		opened = name
		if len(id) != 20 {
			t.Errorf("the build id has %d bytes", len(id))
		}
		return os.Open(filepath.Join(filepath.Dir(p), name))
	}})
	agree(t, original, file, 1, 4000, 2500)
	if opened != "shared" || len(file.Notes()) != 0 {
		t.Errorf("opened %q; %q", opened, file.Notes())
	}
	missing := open(t, p, Options{Alternate: func(string, []byte) (*os.File, error) { return nil, os.ErrNotExist }})
	if notes := missing.Notes(); len(notes) != 1 || notes[0] != `names in "shared" are missing: file does not exist` {
		t.Errorf("notes are %q", notes)
	}
	names := 0
	for _, a := range text(t, p, 1) {
		lines, err := missing.Lines(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines[:max(len(lines)-1, 0)] {
			if l.Function == "[inlined]" {
				names++
			}
		}
	}
	if names == 0 {
		t.Error("no name is missing without the supplementary file")
	}
}

func TestSplit(t *testing.T) {
	need(t, "gcc")
	for _, version := range []string{"4", "5"} {
		p := build(t, programC, "c", "gcc -g -gsplit-dwarf -gdwarf-"+version+" -O2 -o p p.c")
		file := open(t, p, Options{})
		want := "1 of 1 units have their functions in .dwo files, which are not read: inlined functions are missing"
		if notes := file.Notes(); len(notes) != 1 || notes[0] != want {
			t.Errorf("DWARF %s: notes are %q", version, notes)
		}
		lines, err := file.Lines(symbol(t, p, "outer"))
		if err != nil || len(lines) != 1 || lines[0].Function != "" || lines[0].Line != 14 || filepath.Base(lines[0].File) != "p.c" {
			t.Errorf("DWARF %s: %+v, %v", version, lines, err)
		}
	}
}

func symbol(t testing.TB, name, symbol string) uint64 {
	t.Helper()
	e, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	all, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == symbol {
			return s.Value
		}
	}
	t.Fatalf("no symbol %s", symbol)
	return 0
}

// TestLine has what llvm-symbolizer doesn't tell.
func TestLine(t *testing.T) {
	need(t, "gcc", "g++")
	p := build(t, programCXX, "cc", "g++ -g -O2 -o p p.cc")
	file := open(t, p, Options{Demangle: func(s string) string { return "<" + s + ">" }})
	start := symbol(t, p, "main")
	found := map[string]bool{}
	for a := start; a < start+200; a++ {
		lines, err := file.Lines(a)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range lines {
			switch last := i == len(lines)-1; {
			case last && (l.Function != "main" || l.Start != start || l.StartLine != 13):
				t.Fatalf("the outermost function at %#x is %+v", a, l)
			case !last && l.Start != 0:
				t.Fatalf("an inlined function at %#x is %+v", a, l)
			}
			found[fmt.Sprint(l.Function, l.StartLine)] = true
		}
	}
	if !found["twice12"] || !slices.ContainsFunc(slices.Collect(maps.Keys(found)), func(s string) bool { return strings.HasPrefix(s, "<_ZNSt6vector") }) {
		t.Errorf("main has %v", found)
	}
	if lines, err := file.Lines(1); lines != nil || err != nil {
		t.Errorf("there is %v, %v at no function", lines, err)
	}
}

// TestShared reads files at a time with one budget.
func TestShared(t *testing.T) {
	need(t, "gcc")
	p := build(t, programC, "c", "gcc -g -gz -O2 -o p p.c")
	outer := symbol(t, p, "outer")
	b := NewBudget(1<<20, time.Minute)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			f, err := os.Open(p)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			file, err := Open(f, b, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close()
			if lines, err := file.Lines(outer); len(lines) == 0 || err != nil {
				t.Errorf("%v, %v", lines, err)
			}
		})
	}
	wg.Wait()
	if b.memory != 1<<20 || b.left >= time.Minute {
		t.Errorf("%d bytes and %v are left", b.memory, b.left)
	}
}

func TestBudget(t *testing.T) {
	need(t, "gcc")
	p := build(t, programC, "c", "gcc -g -gz -O2 -o p p.c")
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, b := range map[string]*Budget{"memory": NewBudget(1000, time.Minute), "time": NewBudget(1<<20, 0)} {
		if _, err := Open(f, b, Options{}); !errors.Is(err, ErrBudget) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	b := NewBudget(1<<20, time.Minute)
	file, err := Open(f, b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if b.memory >= 1<<20 {
		t.Error("compressed sections took no memory")
	}
	b.left = 0
	if _, err := file.Lines(symbol(t, p, "outer")); !errors.Is(err, ErrBudget) {
		t.Errorf("when the time is over: %v", err)
	}
	b.left = time.Minute
	if lines, err := file.Lines(symbol(t, p, "outer")); len(lines) == 0 || err != nil {
		t.Errorf("with time again: %v, %v", lines, err)
	}
	file.Close()
	if b.memory != 1<<20 {
		t.Errorf("%d bytes are left after Close", b.memory)
	}
}

// TestCut cuts a file that is being read.
func TestCut(t *testing.T) {
	need(t, "gcc")
	p := build(t, programC, "c", "gcc -g -O2 -o p p.c")
	outer := symbol(t, p, "outer")
	file := open(t, p, Options{})
	if err := os.Truncate(p, 0); err != nil {
		t.Fatal(err)
	}
	if lines, err := file.Lines(outer); lines != nil || err == nil {
		t.Errorf("a cut file gives %v, %v", lines, err)
	}
}

// TestUnknown reads what a later DWARF may have, which is told.
func TestUnknown(t *testing.T) {
	need(t, "gcc", "objcopy")
	p := build(t, programC, "c", "gcc -g -gdwarf-5 -O2 -o p p.c")
	good, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	section := func(name string) []byte {
		e, err := elf.NewFile(bytes.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		data, err := e.Section(name).Data()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	// replaced gives the program with a section of it changed, in place.
	replaced := func(name string, change func(data []byte)) string {
		data := section(name)
		before := bytes.Clone(data)
		change(data)
		if bytes.Equal(before, data) {
			t.Fatal("nothing was changed")
		}
		if err := os.WriteFile(p, bytes.Replace(good, before, data, 1), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	outer := symbol(t, p, "outer")

	// The form of the name of a function: of the last abbreviation with that tag.
	form := replaced(".debug_abbrev", func(data []byte) {
		change := -1
		for c := at(data, 0); ; {
			start := c.off
			if a := readAbbrev(&c, layout{0, 8, 4, 4}); a.code == 0 {
				break
			} else if a.tag == 0x2e && a.attributes[0].name == 0x3f { // DW_TAG_subprogram, DW_AT_external
				change = start + 4 // code, tag, children, name
			}
		}
		data[change] = 0x7f
	})
	file := open(t, form, Options{})
	lines, err := file.Lines(outer)
	if want := "debugging information in a form that is not known (0x7f)"; lines != nil || err == nil || err.Error() != want {
		t.Errorf("an unknown form gives %v, %v", lines, err)
	}
	if notes := file.Notes(); len(notes) != 0 {
		t.Errorf("notes are %q", notes)
	}

	version := replaced(".debug_info", func(data []byte) { data[4] = 6 })
	file = open(t, version, Options{})
	want := "not all units can be read: DWARF 6, addresses of 8 bytes: such units are not known"
	if notes := file.Notes(); len(notes) != 1 || notes[0] != want {
		t.Errorf("of another version, notes are %q", notes)
	}
	long := replaced(".debug_info", func(data []byte) { data[2] = 1 })
	if notes := open(t, long, Options{}).Notes(); len(notes) != 1 || notes[0] != "not all units can be read: damaged debugging information" {
		t.Errorf("of a unit that is too long, notes are %q", notes)
	}
	root := replaced(".debug_abbrev", func(data []byte) {
		c := at(data, 0)
		for {
			start := c.off
			if a := readAbbrev(&c, layout{0, 8, 4, 4}); a.tag == 0x11 { // DW_TAG_compile_unit
				data[start+4] = 0x7f
				return
			}
		}
	})
	want = "1 of 1 units can't be read: debugging information in a form that is not known (0x7f)"
	if notes := open(t, root, Options{}).Notes(); len(notes) != 1 || notes[0] != want {
		t.Errorf("of a unit in an unknown form, notes are %q", notes)
	}
}

// TestDamage reads files with bytes that are wrong, which may give errors and wrong lines
// but takes no more time or memory than others.
func TestDamage(t *testing.T) {
	need(t, "gcc", "clang-19")
	for _, command := range []string{
		"gcc -g -O2 -o p p.c", "gcc -g -gdwarf-4 -O2 -o p p.c", "clang-19 -g -O2 -o p p.c",
	} {
		p := build(t, programC, "c", command)
		addrs := text(t, p, 1)
		good, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		e, err := elf.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		var debug []*elf.Section
		for _, s := range e.Sections {
			if strings.HasPrefix(s.Name, ".debug_") {
				debug = append(debug, s)
			}
		}
		e.Close()
		random := rand.New(rand.NewPCG(1, 2))
		read := 0
		for range 100 {
			data := bytes.Clone(good)
			for range 1 + random.IntN(4) {
				s := debug[random.IntN(len(debug))]
				data[s.Offset+random.Uint64N(s.FileSize)] = byte(random.Uint32())
			}
			if err := os.WriteFile(p, data, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			file, err := Open(f, NewBudget(1<<20, time.Minute), Options{})
			f.Close()
			if err != nil {
				continue
			}
			for _, a := range addrs {
				if lines, err := file.Lines(a); err == nil && len(lines) > 0 {
					read++
				}
			}
			file.Close()
		}
		if read < 100*len(addrs)/4 {
			t.Errorf("%s: only %d addresses have lines", command, read)
		}
	}
}

// FuzzSections reads sections that are anything.
func FuzzSections(f *testing.F) {
	need(f, "gcc", "clang-19")
	for _, command := range []string{
		"gcc -g -O2 -o p p.c", "gcc -g -gdwarf-4 -O2 -o p p.c", "gcc -g -gdwarf-2 -O2 -o p p.c", "clang-19 -g -O2 -o p p.c",
	} {
		file, err := os.Open(build(f, programC, "c", command))
		if err != nil {
			f.Fatal(err)
		}
		s, err := readSections(file, NewBudget(0, 0), false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.abbrev, s.info, s.line, s.lineStr, s.str, s.addr, s.strOffsets, s.ranges, s.rnglists)
		file.Close()
	}
	f.Fuzz(func(t *testing.T, abbrev, info, line, lineStr, str, addr, strOffsets, ranges, rnglists []byte) {
		s := &sections{
			abbrev: abbrev, info: info, line: line, lineStr: lineStr, str: str,
			addr: addr, strOffsets: strOffsets, ranges: ranges, rnglists: rnglists,
			executable: []span{{0x1000, 0x2000}},
		}
		file := &File{
			budget: NewBudget(0, time.Minute), damaged: map[int32]error{}, indexes: map[int32]*index{}, names: map[uint64]named{},
		}
		file.main.sections = s
		file.main.units, _ = readUnits(s.info)
		if err := file.placeUnits(&clock{deadline: time.Now().Add(time.Minute)}); err != nil {
			return
		}
		start := time.Now()
		for a := uint64(0x1000); a < 0x2000; a += 16 {
			lines, err := file.Lines(a)
			if err != nil && lines != nil {
				t.Fatalf("lines and an error: %v", err)
			}
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Fatalf("%d bytes took %v", len(info)+len(line)+len(ranges)+len(rnglists), d)
		}
	})
}

// TestFlatten has functions that overlap as they should not.
func TestFlatten(t *testing.T) {
	at := func(lo, hi uint64, function, depth int32) covered { return covered{span{lo, hi}, function, depth} }
	for name, test := range map[string]struct {
		ranges []covered
		want   []stretch
	}{
		"nested": {[]covered{at(0, 100, 0, 0), at(10, 20, 1, 1), at(12, 15, 2, 2), at(20, 30, 3, 1)},
			[]stretch{{0, 0}, {10, 1}, {12, 2}, {15, 1}, {20, 3}, {30, 0}, {100, -1}}},
		"to the end":   {[]covered{at(0, 100, 0, 0), at(50, 100, 1, 1)}, []stretch{{0, 0}, {50, 1}, {100, -1}}},
		"out of":       {[]covered{at(0, 100, 0, 0), at(50, 150, 1, 1)}, []stretch{{0, 0}, {50, 1}, {100, -1}}},
		"one depth":    {[]covered{at(0, 100, 0, 0), at(50, 150, 1, 0)}, []stretch{{0, 0}, {50, 1}, {150, -1}}},
		"same":         {[]covered{at(0, 100, 0, 0), at(0, 100, 1, 1)}, []stretch{{0, 1}, {100, -1}}},
		"apart":        {[]covered{at(200, 300, 1, 0), at(0, 100, 0, 0)}, []stretch{{0, 0}, {100, -1}, {200, 1}, {300, -1}}},
		"no functions": {nil, []stretch{}},
	} {
		if got := flatten(test.ranges); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
