package symbols

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// run runs a program that the test needs, and skips the test if there is none.
func run(t testing.TB, dir, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("SKIPPED: no %s here", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// compile compiles a file of testdata and gives the path of the result.
func compile(t testing.TB, compiler, source string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(source, filepath.Ext(source)))
	run(t, "testdata", compiler, append(args, "-o", out, source)...)
	return out
}

func openTest(t testing.TB, path string, options Options) *File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	f, err := OpenFile(file, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// An nm is a function as binutils' nm prints it.
type nm struct {
	start, size uint64
	name        string
}

// readNM gives the functions of a file.
func readNM(t testing.TB, path string, args ...string) []nm {
	t.Helper()
	var all []nm
	for line := range strings.Lines(string(run(t, ".", "nm", append(args, "-S", "--defined-only", path)...))) {
		f := strings.Fields(line)
		if len(f) != 4 || !strings.Contains("tTwWi", f[2]) {
			continue // without a size
		}
		start, err1 := strconv.ParseUint(f[0], 16, 64)
		size, err2 := strconv.ParseUint(f[1], 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(f[3], "@")
		all = append(all, nm{start, size, name})
	}
	return all
}

// checkNM compares all functions, at each of their bytes.
func checkNM(t *testing.T, f *File, functions []nm, atLeast int) {
	t.Helper()
	names := map[uint64][]string{}
	for _, fn := range functions {
		names[fn.start] = append(names[fn.start], fn.name)
	}
	for _, fn := range functions {
		for _, addr := range []uint64{fn.start, fn.start + fn.size/2, fn.start + fn.size - 1} {
			line, ok := f.Find(addr)
			// Another function may start within this one.
			inner := slices.ContainsFunc(functions, func(o nm) bool { return fn.start < o.start && o.start <= addr && addr < o.start+o.size })
			if !inner && (!ok || line.Start != fn.start || !slices.Contains(names[fn.start], line.Linkage)) {
				t.Errorf("%#x is %+v, want one of %q at %#x", addr, line, names[fn.start], fn.start)
			}
		}
	}
	if len(functions) < atLeast {
		t.Errorf("%d functions, want %d or more", len(functions), atLeast)
	}
}

func TestFile(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
	}{
		{"pie", []string{"-pie", "-fPIE"}},
		{"fixed", []string{"-no-pie"}},
		{"static", []string{"-static"}},
		{"static pie", []string{"-static-pie", "-fPIE"}},
		{"ibt", []string{"-fcf-protection", "-Wl,-z,ibtplt"}},
		{"no plt", []string{"-fno-plt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "ibt" && runtime.GOARCH != "amd64" {
				t.Skip("SKIPPED: only amd64 has it")
			}
			path := compile(t, "gcc", "prog.c", append(test.args, "-O1")...)
			f := openTest(t, path, Options{Path: path})
			if problems := f.Problems(); len(problems) > 0 {
				t.Error(problems)
			}
			functions := readNM(t, path)
			checkNM(t, f, functions, 5)
			for _, name := range []string{"local", "global", "main", "choose", "add"} {
				if !slices.ContainsFunc(functions, func(fn nm) bool { return fn.name == name }) {
					t.Errorf("no %s", name)
				}
			}
			if _, ok := f.Find(0); ok {
				t.Error("something is at 0")
			}
		})
	}
}

// TestPLT compares the stubs with what objdump says of them.
func TestPLT(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"lazy", []string{"-fPIE", "-pie", "-Wl,-z,lazy", "-fcf-protection=none"}, []string{"printf@plt", "qsort@plt", "getenv@plt"}},
		{"now", []string{"-fPIE", "-pie", "-Wl,-z,now", "-fcf-protection=none"}, []string{"printf@plt", "qsort@plt", "getenv@plt"}},
		{"fixed", []string{"-no-pie", "-fcf-protection=none"}, []string{"printf@plt", "qsort@plt", "getenv@plt"}},
		{"ibt", []string{"-fPIE", "-pie", "-fcf-protection", "-Wl,-z,ibtplt"}, []string{"printf@plt", "qsort@plt", "getenv@plt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if runtime.GOARCH != "amd64" {
				t.Skip("SKIPPED: these are amd64's options")
			}
			path := compile(t, "gcc", "prog.c", append(test.args, "-O1")...)
			for _, strip := range []bool{false, true} {
				if strip {
					run(t, ".", "strip", path)
				}
				f := openTest(t, path, Options{})
				var found []string
				for line := range strings.Lines(string(run(t, ".", "objdump", "-d", path))) {
					// 0000000000001030 <printf@plt>:
					addr, name, ok := strings.Cut(strings.TrimSpace(line), " <")
					name, isLabel := strings.CutSuffix(name, ">:")
					if !ok || !isLabel || !strings.HasSuffix(name, "@plt") || strings.HasPrefix(name, "*ABS*") {
						continue
					}
					at, err := strconv.ParseUint(addr, 16, 64)
					if err != nil {
						t.Fatal(err)
					}
					if got, ok := f.Find(at + 4); !ok || got.Function != name || got.Start != at {
						t.Errorf("stripped %v: %#x is %+v, want %s", strip, at, got, name)
					}
					found = append(found, name)
				}
				for _, want := range test.want {
					if !slices.Contains(found, want) {
						t.Errorf("objdump names %q and not %s", found, want)
					}
				}
			}
		})
	}
}

func TestFileLibrary(t *testing.T) {
	path := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1")
	whole := readNM(t, path)
	address := map[string]uint64{}
	for line := range strings.Lines(string(run(t, ".", "nm", path))) {
		if f := strings.Fields(line); len(f) == 3 {
			n, err := strconv.ParseUint(f[0], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			address[f[2]] = n
		}
	}
	check := func(f *File, addr uint64, want string) {
		t.Helper()
		if line, _ := f.Find(addr); line.Function != want {
			t.Errorf("%#x is %+v, want %q", addr, line, want)
		}
	}
	f := openTest(t, path, Options{})
	checkNM(t, f, whole, 5)
	check(f, address["visible"], "alias") // of equals, the shortest
	check(f, address["hidden"], "hidden")
	check(f, address["sizeless"]+2, "sizeless")
	check(f, address["sized"], "sized")
	check(f, address["inside"], "sized")

	// What is left when it is stripped.
	stripped := filepath.Join(t.TempDir(), "stripped.so")
	run(t, ".", "strip", "-o", stripped, path)
	f = openTest(t, stripped, Options{})
	check(f, address["visible"], "alias")
	check(f, address["hidden"], "")
	check(f, address["sized"], "sized")
	check(f, address["sizeless"]+2, "sizeless")
	if f.DebugFile() != "" || !f.HasSymbols() {
		t.Errorf("debug file %q, symbols %v", f.DebugFile(), f.HasSymbols())
	}
}

func TestMiniDebug(t *testing.T) {
	path := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1")
	whole := readNM(t, path)
	dir := t.TempDir()
	mini := filepath.Join(dir, "mini")
	// As rpm does it, but for names that are in .dynsym, too.
	run(t, ".", "objcopy", "--only-keep-debug", path, mini)
	run(t, ".", "objcopy", "-S", "--keep-symbol=hidden", mini)
	data, err := os.ReadFile(mini)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mini+".xz", packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	stripped := filepath.Join(dir, "lib.so")
	run(t, ".", "strip", "-o", stripped, path)
	run(t, ".", "objcopy", "--add-section", ".gnu_debugdata="+mini+".xz", stripped)
	f := openTest(t, stripped, Options{})
	if problems := f.Problems(); len(problems) > 0 {
		t.Error(problems)
	}
	checkNM(t, f, slices.DeleteFunc(whole, func(fn nm) bool {
		return !slices.Contains([]string{"hidden", "visible", "alias", "__alias", "uses"}, fn.name)
	}), 5)
}

func TestDebugFile(t *testing.T) {
	for _, test := range []struct {
		name string
		link string // gcc's option for the build id
		at   string // where the debug file is put, below the root
		find bool
	}{
		{"build id", "-Wl,--build-id=0x00112233445566778899aabbccddeeff", "usr/lib/debug/.build-id/00/112233445566778899aabbccddeeff.debug", true},
		{"beside", "-Wl,--build-id=none", "opt/app/lib.debug", true},
		{"below", "-Wl,--build-id=none", "opt/app/.debug/lib.debug", true},
		{"tree", "-Wl,--build-id=none", "usr/lib/debug/opt/app/lib.debug", true},
		{"elsewhere", "-Wl,--build-id=none", "usr/lib/debug/lib.debug", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1", test.link)
			whole := readNM(t, path)
			root := t.TempDir()
			debug := filepath.Join(root, test.at)
			if err := os.MkdirAll(filepath.Dir(debug), 0o755); err != nil {
				t.Fatal(err)
			}
			named := filepath.Join(t.TempDir(), "lib.debug")
			run(t, ".", "objcopy", "--only-keep-debug", path, named)
			run(t, ".", "strip", path)
			run(t, ".", "objcopy", "--add-gnu-debuglink="+named, path)
			data, err := os.ReadFile(named)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(debug, data, 0o644); err != nil {
				t.Fatal(err)
			}
			options := Options{Path: "/opt/app/lib.so", Roots: []string{"/nonexistent", t.TempDir(), root}}
			f := openTest(t, path, options)
			if problems := f.Problems(); len(problems) > 0 {
				t.Error(problems)
			}
			if got, want := f.DebugFile(), "/"+test.at; test.find && got != want || !test.find && got != "" {
				t.Errorf("the debug file is %q, want %q: %v", got, want, test.find)
			}
			if !test.find {
				return
			}
			checkNM(t, f, whole, 5)
			again, err := f.OpenDebugFile()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(again); err != nil || !bytes.Equal(got, data) {
				t.Errorf("opened again, the debug file has %d bytes of %d: %v", len(got), len(data), err)
			}
			again.Close()

			// Another one of that name is not believed.
			if err := os.WriteFile(debug, append(data, 0), 0o644); err != nil {
				t.Fatal(err)
			}
			if test.name == "build id" {
				other := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-Wl,--build-id=0xffff")
				data, err := os.ReadFile(other)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(debug, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			f = openTest(t, path, options)
			if f.DebugFile() != "" || len(f.Problems()) != 1 {
				t.Errorf("another file: debug file %q, problems %v", f.DebugFile(), f.Problems())
			}
			// A link that leads out of the root stays in it.
			if err := os.Remove(debug); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(named, debug); err != nil {
				t.Fatal(err)
			}
			if f = openTest(t, path, options); f.DebugFile() != "" {
				t.Error("a link out of the root was followed")
			}
		})
	}
}

// TestDebugFileForLines looks for a debug file of a file that has its names.
func TestDebugFileForLines(t *testing.T) {
	path := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1", "-g", "-Wl,--build-id=0x00112233445566778899aabbccddeeff")
	whole := readNM(t, path)
	root := t.TempDir()
	options := Options{Path: "/opt/lib.so", Roots: []string{root}, Lines: true}
	const name = "/usr/lib/debug/.build-id/00/112233445566778899aabbccddeeff.debug"
	debug := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(debug), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, ".", "objcopy", "--only-keep-debug", path, debug)
	if f := openTest(t, path, options); f.DebugFile() != "" || !f.HasDebugInfo() {
		t.Errorf("a file with debugging information of its own has the debug file %q", f.DebugFile())
	}
	run(t, ".", "strip", "--strip-debug", path)
	f := openTest(t, path, options)
	if f.DebugFile() != name || f.HasDebugInfo() {
		t.Errorf("the debug file is %q", f.DebugFile())
	}
	checkNM(t, f, whole, 5)
	options.Lines = false
	if f := openTest(t, path, options); f.DebugFile() != "" {
		t.Errorf("without lines, the debug file is %q", f.DebugFile())
	}
	options.Lines = true

	// One that has lines and no names, of a file without names.
	stripped := filepath.Join(t.TempDir(), "lib.so")
	run(t, ".", "strip", "-o", stripped, path)
	run(t, ".", "objcopy", "--strip-all", "--keep-section=.debug_*", debug)
	f = openTest(t, stripped, options)
	if f.DebugFile() != name || len(f.Problems()) != 0 {
		t.Errorf("without names: the debug file is %q; %v", f.DebugFile(), f.Problems())
	}
	options.Lines = false
	if f = openTest(t, stripped, options); f.DebugFile() != "" || len(f.DebugFileProblems()) != 1 {
		t.Errorf("without names and lines: the debug file is %q; %v", f.DebugFile(), f.DebugFileProblems())
	}
	options.Lines = true

	// What can't be read is told once, although both roots are the same.
	if err := os.Truncate(debug, 100); err != nil {
		t.Fatal(err)
	}
	options.Roots = []string{root, root}
	f = openTest(t, path, options)
	if got := f.DebugFileProblems(); f.DebugFile() != "" || len(got) != 1 || !strings.HasPrefix(got[0].Error(), "separate debug file "+name+": ") {
		t.Errorf("a damaged debug file: %q; %v", f.DebugFile(), got)
	}
	// And not at all where another can.
	other := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(other, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	whole2 := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1", "-g", "-Wl,--build-id=0x00112233445566778899aabbccddeeff")
	run(t, ".", "objcopy", "--only-keep-debug", whole2, filepath.Join(other, name))
	options.Roots = []string{root, other}
	if f = openTest(t, path, options); f.DebugFile() != name || len(f.DebugFileProblems()) != 0 {
		t.Errorf("one of two is damaged: %q; %v", f.DebugFile(), f.DebugFileProblems())
	}
}

// TestOwnName has a debuglink that is the name of the file itself, as debug files in a tree
// of their own may have it.
func TestOwnName(t *testing.T) {
	path := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1", "-Wl,--build-id=none")
	root := t.TempDir()
	dir := filepath.Join(root, "opt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	debug := filepath.Join(t.TempDir(), "lib.so")
	run(t, ".", "objcopy", "--only-keep-debug", path, debug)
	own := filepath.Join(dir, "lib.so")
	run(t, ".", "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, path, own)
	f := openTest(t, own, Options{Path: "/opt/lib.so", Roots: []string{root}})
	if f.DebugFile() != "" || len(f.Problems()) != 0 {
		t.Errorf("the debug file is %q; %v", f.DebugFile(), f.Problems())
	}
}

// TestAlternate opens the supplementary file by path and by build id, in the root only.
func TestAlternate(t *testing.T) {
	path := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-O1", "-g", "-Wl,--build-id=0x00112233445566778899aabbccddeeff")
	shared := compile(t, "gcc", "lib.c", "-shared", "-fPIC", "-Wl,--build-id=0xaabbccdd")
	data, err := os.ReadFile(shared)
	if err != nil {
		t.Fatal(err)
	}
	id := []byte{0xaa, 0xbb, 0xcc, 0xdd}
	const debug = "usr/lib/debug/.build-id/00/112233445566778899aabbccddeeff.debug"
	for _, test := range []struct {
		name, link, at string
		real           string // where the debug file is a link to; empty for none
		id             []byte
		want           string // part of the error
	}{
		{"build id", "/nowhere", "usr/lib/debug/.build-id/aa/bbccdd.debug", "", id, ""},
		{"absolute path", "/usr/lib/debug/.dwz/x86/lib", "usr/lib/debug/.dwz/x86/lib", "", id, ""},
		{"relative path", "../../.dwz/lib", "usr/lib/debug/.dwz/lib", "", id, ""},
		{"relative path of a link's target", "../.dwz/lib", "usr/lib/debug/.dwz/lib", "/usr/lib/debug/opt/lib.debug", id, ""},
		{"relative path of a relative link's target", "../.dwz/lib", "usr/lib/debug/.dwz/lib", "../../opt/lib.debug", id, ""},
		{"too far up", "../../../../../../../../dwz", "dwz", "", id, ""},
		{"another build id", "/dwz", "dwz", "", []byte{1, 2, 3, 4}, "/dwz: it has build id aabbccdd, and 01020304 is referred to"},
		{"no build id", "/dwz", "dwz", "", nil, "without a build id"},
		{"nowhere", "/dwz", "elsewhere", "", id, "it is neither there nor at /usr/lib/debug/.build-id/aa/bbccdd.debug"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			at := filepath.Join(root, test.at)
			target := filepath.Join(root, debug)
			if test.real != "" {
				target = filepath.Join(root, "usr/lib/debug/opt/lib.debug")
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, debug)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(test.real, filepath.Join(root, debug)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{target, at} {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			run(t, ".", "objcopy", "--only-keep-debug", path, target)
			stripped := filepath.Join(t.TempDir(), "lib.so")
			run(t, ".", "strip", "-o", stripped, path)
			if err := os.WriteFile(at, data, 0o644); err != nil {
				t.Fatal(err)
			}
			f := openTest(t, stripped, Options{Path: "/opt/lib.so", Roots: []string{"/nonexistent", root}, Lines: true})
			if f.DebugFile() != "/"+debug {
				t.Fatalf("the debug file is %q", f.DebugFile())
			}
			file, err := f.OpenAlternate(test.link, test.id)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("%v, want %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if got, err := io.ReadAll(file); err != nil || !bytes.Equal(got, data) {
				t.Errorf("it has %d bytes of %d: %v", len(got), len(data), err)
			}
			// A link that leads out of the root stays in it.
			if err := os.Remove(at); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(shared, at); err != nil {
				t.Fatal(err)
			}
			if file, err := f.OpenAlternate(test.link, test.id); err == nil {
				file.Close()
				t.Error("a link out of the root was followed")
			}
		})
	}
}

func TestDemangledFile(t *testing.T) {
	path := compile(t, "g++", "names.cc", "-O1")
	for _, demangled := range []bool{true, false} {
		f := openTest(t, path, Options{Demangle: demangled})
		got := map[string]string{}
		for _, fn := range f.functions {
			line, ok := f.Find(fn.start)
			if !ok {
				t.Errorf("nothing at %#x", fn.start)
			}
			got[line.Linkage] = line.Function
		}
		for linkage, function := range map[string]string{
			"_ZNK5space6HolderIiE3getEi": "space::Holder<int>::get",
			"_ZNK5space6HolderIdE3getEd": "space::Holder<double>::get",
			"main":                       "main",
		} {
			if !demangled {
				function = linkage
			}
			if got[linkage] != function {
				t.Errorf("demangled %v: %s is %q, want %q", demangled, linkage, got[linkage], function)
			}
		}
	}
}

func TestFileAddress(t *testing.T) {
	for _, args := range [][]string{{"-pie", "-fPIE"}, {"-no-pie"}, {"-no-pie", "-Wl,-Ttext-segment=0x7000000"}, {"-no-pie", "-Wl,-z,noseparate-code"}} {
		path := compile(t, "gcc", "prog.c", args...)
		f := openTest(t, path, Options{})
		text := f.elf.Section(".text")
		if vaddr, ok := f.Address(text.Offset + 5); !ok || vaddr != text.Addr+5 {
			t.Errorf("%v: offset %#x is at %#x %v, want %#x", args, text.Offset+5, vaddr, ok, text.Addr+5)
		}
		if _, ok := f.Address(1 << 40); ok {
			t.Error("an offset past the end has an address")
		}
		start, limit, offset, ok := f.Segment(text.Addr)
		if !ok || start%4096 != 0 || text.Addr < start || limit <= text.Addr || text.Addr-start+offset != text.Offset {
			t.Errorf("%v: segment from %#x to %#x at offset %#x has %#x at %#x", args, start, limit, offset, text.Addr, text.Offset)
		}
		if _, _, _, ok := f.Segment(1 << 60); ok {
			t.Error("an address in no segment has one")
		}
		notes := string(run(t, ".", "readelf", "-n", path))
		if id := f.BuildID(); id == "" || !strings.Contains(notes, "Build ID: "+id) {
			t.Errorf("build id %q, readelf has %s", id, notes)
		}
	}
}

func TestNoELF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	for _, text := range []string{"", "#!/bin/sh\n", "\x7fELF", strings.Repeat("x", 1000)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(file, Options{}); !errors.Is(err, ErrNoELF) {
			t.Errorf("%.10q: %v", text, err)
		}
		file.Close()
	}
}

func TestVDSO(t *testing.T) {
	f, err := OpenVDSO()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"amd64": "__vdso_clock_gettime", "arm64": "__kernel_clock_gettime"}[runtime.GOARCH]
	found := false
	for _, fn := range f.functions {
		line, ok := f.Find(fn.start)
		found = found || ok && line.Function == want
	}
	if !found {
		t.Errorf("no %s", want)
	}
	if f.BuildID() == "" {
		t.Error("no build id")
	}
}

// TestGo compares with what a program's own runtime says of its addresses and calls.
func TestGo(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
	}{
		{"default", nil},
		{"stripped", []string{"-ldflags=-s -w"}},
		{"stripped external", []string{"-ldflags=-linkmode=external -s -w"}},
		{"stripped pie", []string{"-buildmode=pie", "-ldflags=-s -w"}},
		{"stripped external pie", []string{"-buildmode=pie", "-ldflags=-linkmode=external -s -w"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.Contains(test.name, "external") {
				run(t, ".", "gcc", "--version")
			}
			path := filepath.Join(t.TempDir(), "pcs")
			run(t, "testdata/pcs", "go", append([]string{"build", "-o", path}, append(test.args, ".")...)...)
			f := openTest(t, path, Options{Demangle: true})
			if problems := f.Problems(); len(problems) > 0 {
				t.Error(problems)
			}
			said := bufio.NewScanner(bytes.NewReader(run(t, ".", path)))
			found, inlined, called := 0, 0, 0
			for said.Scan() {
				fields := strings.Split(said.Text(), "\t")
				offset, err := strconv.ParseUint(fields[0], 16, 64)
				if err != nil {
					t.Fatal(err)
				}
				addr, ok := f.Address(offset)
				if !ok && fields[1] == "" {
					continue // past the end, in the last page
				}
				if !ok {
					t.Fatalf("offset %#x has no address", offset)
				}
				if len(fields) > 4 {
					// A call by inner, which is inlined into middle, and that into outer.
					var got []string
					for _, line := range f.Lines(addr) {
						got = append(got, line.Function, line.File, strconv.Itoa(line.Line))
						if want := startLine(t, line.Function); line.StartLine != want {
							t.Errorf("%s starts in line %d, want %d", line.Function, line.StartLine, want)
						}
					}
					if len(got) != 9 || got[0] != "main.inner" || got[6] != "main.outer" || !slices.Equal(got, fields[1:10]) {
						t.Errorf("call %#x is %q, the runtime says %q", addr, got, fields[1:])
					}
					called++
					continue
				}
				here, _ := f.Find(addr)
				if next, _ := f.Find(addr + 1); next.Start != here.Start {
					continue // the runtime takes this for the start of the next function
				}
				lines := f.Lines(addr)
				if fields[1] == "" {
					if lines != nil {
						t.Errorf("%#x is %+v, the runtime knows nothing of it", addr, lines)
					}
					continue
				}
				if len(lines) == 0 {
					t.Fatalf("%#x has no lines, the runtime says %q", addr, fields[1:])
				}
				// The runtime tells the innermost function, and a question mark for what
				// isn't known.
				first := lines[0]
				if first.File == "" {
					first.File = "?"
				}
				if got := []string{shapeless(first.Function), first.File, strconv.Itoa(first.Line)}; !slices.Equal(got, fields[1:]) {
					t.Errorf("%#x is %q, the runtime says %q", addr, got, fields[1:])
				}
				if here.Function != lines[len(lines)-1].Function {
					t.Errorf("%#x is %+v, and %+v with inlined calls", addr, here, lines)
				}
				if len(lines) > 1 {
					inlined++
				}
				found++
			}
			if found < 10_000 || inlined < 100 {
				t.Errorf("%d addresses, %d of them in inlined calls, are too few", found, inlined)
			}
			if called != 23 {
				t.Errorf("%d calls, want 23", called)
			}
		})
	}
}

// startLine gives the line in which the program that the test runs has a function.
func startLine(t *testing.T, function string) int {
	t.Helper()
	source, err := os.ReadFile("testdata/pcs/main.go")
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := bytes.Cut(source, []byte("\nfunc "+strings.TrimPrefix(function, "main.")+"("))
	if !ok {
		t.Fatalf("no function %s", function)
	}
	return bytes.Count(before, []byte("\n")) + 2
}

// shapeless gives the name of a generic function as Go prints it.
func shapeless(name string) string {
	before, _, ok1 := strings.Cut(name, "[")
	i := strings.LastIndexByte(name, ']')
	if !ok1 || i < 0 {
		return name
	}
	return before + "[...]" + name[i+1:]
}

// FuzzFile changes bytes of files: a fuzzer left to itself makes hardly any that are
// ELF files.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	var seeds [][]byte
	for _, args := range [][]string{{"-shared", "-fPIC", "lib.c"}, {"-shared", "-fPIC", "-s", "lib.c"}, {"-no-pie", "prog.c"}} {
		path := filepath.Join(dir, "seed")
		run(f, "testdata", "gcc", append([]string{"-o", path}, args...)...)
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, data)
	}
	f.Add(uint8(0), []byte{0, 0, 0x20, 1, 0xff, 0xff, 0xff, 0xff}, []byte{})
	f.Fuzz(func(t *testing.T, seed uint8, changes, whole []byte) {
		data := slices.Clone(seeds[int(seed)%len(seeds)])
		// A position, from the end if it is high, and a byte.
		for c := changes; len(c) >= 4; c = c[4:] {
			at := int(c[0])<<16 | int(c[1])<<8 | int(c[2])
			if at >= 1<<23 {
				at = len(data) - (1<<24-at)%len(data) - 1
			}
			data[at%len(data)] = c[3]
		}
		if len(whole) > 0 {
			data = whole
		}
		file, err := open(bytes.NewReader(data), Options{Demangle: true})
		if err != nil {
			return
		}
		for _, fn := range append(file.functions, function{}, function{start: file.elf.Entry}) {
			file.Find(fn.start)
			file.Lines(fn.start)
			file.Address(fn.start)
			file.Segment(fn.start)
		}
		file.BuildID()
	})
}

// FuzzPclntab changes bytes of a Go program's function table and of what leads to it.
func FuzzPclntab(f *testing.F) {
	path := filepath.Join(f.TempDir(), "pcs")
	run(f, "testdata/pcs", "go", "build", "-ldflags=-s -w", "-o", path, ".")
	program, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		f.Fatal(err)
	}
	table, text := e.Section(".gopclntab"), e.Section(".text")
	f.Add(uint32(8), byte(1), uint32(100), byte(2), uint32(5000))
	f.Fuzz(func(t *testing.T, at1 uint32, to1 byte, at2 uint32, to2 byte, addr uint32) {
		changed := slices.Clone(program)
		in := changed[table.Offset:][:table.Size]
		in[int(at1)%len(in)] = to1
		in[int(at2)%len(in)] = to2
		file, err := open(bytes.NewReader(changed), Options{})
		if err != nil {
			t.Fatal(err)
		}
		a := text.Addr + uint64(addr)%text.Size
		for i := range uint64(64) {
			file.Find(a + i)
			file.Lines(a + i)
		}
	})
}
