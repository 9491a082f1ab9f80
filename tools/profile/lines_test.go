package main

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/debuginfod"
	"github.com/gobcc/gobcc/internal/common/sourcelines"
	"github.com/gobcc/gobcc/internal/common/symbols"
)

const linesProgram = `#include <stdio.h>
static inline __attribute__((always_inline)) int inner(int x)
{
	for (int i = 0; i < x; i++)
		x ^= i * 3;
	return x;
}
__attribute__((noinline)) int outer(int x) { return inner(x) + inner(x / 2); }
int main(int argc, char **argv) { return printf("%d\n", outer(argc * 1000)) < 0; }
`

// shell runs commands in a directory, and skips the test if a program is missing.
// make test-unit installs those that Debian has.
func shell(t *testing.T, dir, commands string, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: no %s here", p)
		}
	}
	cmd := exec.Command("sh", "-ec", commands)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

// linesTest is a program in a root directory of its own, with a debug file by its build id,
// of which outer was sampled at each of its bytes.
type linesTest struct {
	*testing.T
	root, program, debug string
	offset, size         uint64 // of outer, in the file
	said                 []string
	lines, nameless      bool // the latter if nothing has the names of functions
	budget               *sourcelines.Budget
	client               *debuginfod.Client
}

const linesBuildID = "00112233445566778899aabbccddeeff00112233"

func newLinesTest(t *testing.T) *linesTest {
	root := t.TempDir()
	l := &linesTest{T: t, root: root, program: filepath.Join(root, "opt/p"), lines: true,
		debug: filepath.Join(root, "usr/lib/debug/.build-id", linesBuildID[:2], linesBuildID[2:]+".debug")}
	for _, name := range []string{l.program, l.debug} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "p.c"), []byte(linesProgram), 0o644); err != nil {
		t.Fatal(err)
	}
	shell(t, root, "gcc -g -O2 -Wl,--build-id=0x"+linesBuildID+" -o opt/p p.c && objcopy --only-keep-debug opt/p "+l.debug, "gcc", "objcopy")
	e, err := elf.Open(l.program)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	all, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == "outer" {
			section := e.Sections[s.Section]
			l.offset, l.size = s.Value-section.Addr+section.Offset, s.Size
		}
	}
	if l.size == 0 {
		t.Fatal("no outer")
	}
	shell(t, root, "strip --strip-debug opt/p")
	return l
}

// name names what was sampled, and gives how many addresses have inner, and a line.
func (l *linesTest) name() (inlined, withLine int) {
	l.Helper()
	f, err := os.Open(l.program)
	if err != nil {
		l.Fatal(err)
	}
	file, err := symbols.OpenFile(f, symbols.Options{Path: "/opt/p", Roots: []string{l.root}, Lines: l.lines})
	if err != nil {
		l.Fatal(err)
	}
	o := &opened{file, f}
	defer o.Close()
	g := &group{mapped: &mapped{Path: "/opt/p", BuildID: linesBuildID}}
	for i := range l.size {
		g.frames = append(g.frames, &frame{Address: l.offset + i})
	}
	l.said = nil
	n := &namer{lines: l.lines, budget: l.budget, debuginfod: l.client, say: func(text string) { l.said = append(l.said, text) }}
	if n.budget == nil {
		n.budget = sourcelines.NewBudget(linesMemory, time.Minute)
	}
	n.nameOpened(g, o)
	n.sayProblems([]*group{g})
	for _, f := range g.frames {
		if len(f.Lines) > 0 && strings.HasPrefix(f.Lines[0].Function, "inner") {
			inlined++
		}
		if len(f.Lines) > 0 && f.Lines[0].Line > 0 && filepath.Base(f.Lines[0].File) == "p.c" {
			withLine++
		}
		if outer := f.Lines[max(len(f.Lines)-1, 0):]; l.nameless != (len(outer) == 0) || !l.nameless && outer[0].Function != "outer" {
			l.Errorf("%#x is %+v", f.Address, f.Lines)
		}
	}
	return inlined, withLine
}

// want names what was sampled; it has lines if nothing is to be said, or whole is true.
func (l *linesTest) want(whole bool, said ...string) {
	l.Helper()
	inlined, lines := l.name()
	if whole && (inlined == 0 || lines == 0) || !whole && lines > 0 {
		l.Errorf("%d addresses have an inlined function and %d a line, of %d", inlined, lines, l.size)
	}
	if !slices.EqualFunc(l.said, said, func(got, want string) bool {
		prefix, suffix, _ := strings.Cut(want, "…")
		return strings.HasPrefix(got, prefix) && strings.HasSuffix(got, suffix)
	}) {
		l.Errorf("it said %q, not %q", l.said, said)
	}
}

// change writes the debug file anew.
func (l *linesTest) change(change func(data []byte) []byte) {
	l.Helper()
	data, err := os.ReadFile(l.debug)
	if err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(l.debug, change(data), 0o644); err != nil {
		l.Fatal(err)
	}
}

// spoil overwrites four bytes of a section of the debug file.
func (l *linesTest) spoil(section string, offset uint64) {
	l.Helper()
	e, err := elf.Open(l.debug)
	if err != nil {
		l.Fatal(err)
	}
	offset += e.Section(section).Offset
	e.Close()
	l.change(func(data []byte) []byte {
		copy(data[offset:], []byte{0xff, 0xff, 0xff, 0x7f})
		return data
	})
}

// TestLinesOfDebugFile reads the lines of a program that has its names, and of one that
// has none, in a separate debug file.
func TestLinesOfDebugFile(t *testing.T) {
	l := newLinesTest(t)
	l.want(true)
	shell(t, l.root, "strip opt/p")
	l.want(true)
	l.lines = false
	l.want(false)
}

// TestLinesMissing says why there are no lines, once a file, and what can be done.
func TestLinesMissing(t *testing.T) {
	const (
		debug   = "/usr/lib/debug/.build-id/00/112233445566778899aabbccddeeff00112233.debug"
		noLines = "--lines: there is no debugging information for /opt/p: install the packages with it, or fetch it with --debuginfod"
		again   = ": install it again; what is read is DWARF 2 to 5"
		install = ": install the debug file that belongs to this version, or remove this one"
	)
	for _, test := range []struct {
		name   string
		change func(l *linesTest)
		said   []string
	}{
		{"no debug file", func(l *linesTest) {
			if err := os.Remove(l.debug); err != nil {
				l.Fatal(err)
			}
		},
			[]string{noLines}},
		{"cut", func(l *linesTest) { l.change(func(data []byte) []byte { return data[:50] }) },
			[]string{"--lines: /opt/p: separate debug file " + debug + ": …" + install}},
		{"no ELF", func(l *linesTest) { l.change(func([]byte) []byte { return []byte("a text\n") }) },
			[]string{"--lines: /opt/p: separate debug file " + debug + ": not an ELF file: …" + install}},
		{"another build id", func(l *linesTest) {
			id := []byte{0, 0x11, 0x22, 0x33, 0x44}
			l.change(func(data []byte) []byte { return bytes.Replace(data, id, []byte{0xff, 0, 0, 0, 0}, 1) })
		}, []string{"--lines: /opt/p: separate debug file " + debug + ": it has build id ff00000000…" + install}},
		{"without DWARF", func(l *linesTest) { shell(t, l.root, "objcopy --strip-debug "+l.debug) },
			[]string{noLines}},
		{"compressed, and damaged", func(l *linesTest) {
			shell(t, l.root, "objcopy --compress-debug-sections=zlib "+l.debug)
			l.spoil(".debug_line", 30)
		}, []string{"--lines: /opt/p: " + debug + ": read debugging information: read section .debug_line: …" + again}},
		{"damaged abbreviations", func(l *linesTest) { l.spoil(".debug_abbrev", 0) },
			[]string{"--lines: /opt/p: " + debug + ": … addresses have no source lines: damaged debugging information" + again}},
		{"damaged lines", func(l *linesTest) { l.spoil(".debug_line", 4) },
			[]string{"--lines: /opt/p: " + debug + ": … addresses have no source lines: damaged debugging information" + again}},
		{"out of time", func(l *linesTest) { l.budget = sourcelines.NewBudget(linesMemory, 0) },
			[]string{"--lines: /opt/p: " + debug + ": read debugging information: too much debugging information: sample fewer…"}},
		{"out of memory", func(l *linesTest) {
			shell(t, l.root, "objcopy --compress-debug-sections=zlib "+l.debug)
			l.budget = sourcelines.NewBudget(10, time.Minute)
		}, []string{"--lines: /opt/p: " + debug + ": read debugging information: …sample fewer programs at a time (-p), or decompress their debug files (objcopy --decompress-debug-sections)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLinesTest(t)
			test.change(l)
			l.want(false, test.said...)
			if strings.HasPrefix(test.said[0], "--lines: /opt/p: separate") {
				// Without lines it is told if names are missing, too, and not if none is.
				l.lines = false
				l.want(false)
				shell(t, l.root, "strip opt/p")
				l.nameless = true
				l.want(false, "no names: /opt/p: separate debug file "+debug+": …")
			}
		})
	}
}

// shared has dwz move what the debug file has in common with another one to a file of its
// own, as in Debian's debug packages. The program's functions keep no names in their own.
func (l *linesTest) shared(name string) (path, buildID string) {
	l.Helper()
	// dwz moves what is large enough, as a name of some length is.
	long := strings.ReplaceAll(linesProgram, "inner", "inner"+strings.Repeat("_and_more", 20))
	if err := os.WriteFile(filepath.Join(l.root, "p.c"), []byte(long), 0o644); err != nil {
		l.Fatal(err)
	}
	path = filepath.Join(l.root, name)
	shell(l.T, l.root, `mkdir -p $(dirname .`+name+`)
		gcc -g -O2 -Wl,--build-id=0x`+linesBuildID+` -o opt/p p.c
		objcopy --only-keep-debug opt/p `+l.debug+`
		cp `+l.debug+` other
		dwz -m .`+name+` -M `+name+` `+l.debug+` other
		strip opt/p`, "gcc", "objcopy", "dwz")
	e, err := elf.Open(path)
	if err != nil {
		l.Fatal(err)
	}
	defer e.Close()
	note, err := e.Section(".note.gnu.build-id").Data()
	if err != nil {
		l.Fatal(err)
	}
	return path, hex.EncodeToString(note[16:])
}

// TestLinesOfSharedFile reads what dwz moved to a file that debug files share.
func TestLinesOfSharedFile(t *testing.T) {
	l := newLinesTest(t)
	shared, id := l.shared("/usr/lib/debug/.dwz/x86/p.debug")
	l.want(true)
	byID := filepath.Join(l.root, "usr/lib/debug/.build-id", id[:2], id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(byID), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(shared, byID); err != nil {
		t.Fatal(err)
	}
	l.want(true)
	if err := os.Remove(byID); err != nil {
		t.Fatal(err)
	}
	if inlined, lines := l.name(); inlined != 0 || lines == 0 {
		t.Errorf("without the shared file, %d addresses have an inlined function and %d a line", inlined, lines)
	}
	if len(l.said) != 1 || !strings.HasPrefix(l.said[0], "--lines: /opt/p: /usr/lib/debug/.build-id/") ||
		!strings.Contains(l.said[0], `names in "/usr/lib/debug/.dwz/x86/p.debug" are missing`) ||
		!strings.HasSuffix(l.said[0], ": install the debug package with it, or use --debuginfod") {
		t.Errorf("it said %q", l.said)
	}
}

// TestLinesFromServer gets the debug file, and what that shares with others, from a server.
func TestLinesFromServer(t *testing.T) {
	// curl must not ask a proxy for this machine's own address.
	t.Setenv("no_proxy", "127.0.0.1")
	l := newLinesTest(t)
	shared, id := l.shared("/usr/lib/debug/.dwz/x86/p.debug")
	files := map[string]string{}
	shell(t, l.root, "mv "+l.debug+" served; mv "+shared+" served2")
	var mu sync.Mutex // of files
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part := strings.Split(r.URL.Path, "/")
		mu.Lock()
		name := files[part[2]]
		mu.Unlock()
		if name == "" {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, name)
	}))
	defer server.Close()
	cache := ""
	serve := func(debug, shared string) {
		mu.Lock()
		files = map[string]string{linesBuildID: debug, id: shared}
		mu.Unlock()
		cache = t.TempDir()
		var err error
		l.client, err = debuginfod.New(func(name string) string {
			return map[string]string{"DEBUGINFOD_URLS": server.URL, "DEBUGINFOD_CACHE_PATH": cache}[name]
		})
		if err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
	debug, other := filepath.Join(l.root, "served"), filepath.Join(l.root, "served2")
	serve(debug, other)
	l.want(true)

	// Files that are others' are not believed.
	serve(other, debug)
	l.nameless = true
	if inlined, lines := l.name(); inlined != 0 || lines != 0 {
		t.Errorf("by another's debug file, %d addresses have an inlined function and %d a line", inlined, lines)
	}
	if want := cache + "/" + linesBuildID + "/debuginfo, from a server, is of no use: it has build id"; len(l.said) != 2 ||
		!strings.Contains(l.said[0], want) || !strings.HasSuffix(l.said[0], "remove it to have it fetched again") {
		t.Errorf("it said %q", l.said)
	}
	serve(debug, debug)
	l.nameless = false
	if inlined, lines := l.name(); inlined != 0 || lines == 0 {
		t.Errorf("by another's shared file, %d addresses have an inlined function and %d a line", inlined, lines)
	}
	if want := cache + "/" + id + "/debuginfo, from a server, is of no use"; len(l.said) != 1 || !strings.Contains(l.said[0], want) {
		t.Errorf("it said %q", l.said)
	}
	serve("", "")
	l.nameless = true
	l.want(false, "--lines: there is no debugging information for /opt/p: …")
}

func TestSayNoLines(t *testing.T) {
	none := func(path string) *group { return &group{mapped: &mapped{Path: path}, noLines: true} }
	for _, test := range []struct {
		groups []*group
		want   string
	}{
		{[]*group{none("a")}, " a:"},
		{[]*group{none("a"), none("a"), {}}, " a:"},
		{[]*group{{}, none("a"), none("b")}, " a and one more file:"},
		{[]*group{none("a"), none("b"), none("c")}, " a and 2 more files:"},
		{[]*group{{}}, ""},
	} {
		said := ""
		n := &namer{say: func(text string) { said += text }}
		n.sayNoLines(test.groups)
		if !strings.Contains(said, test.want) || test.want == "" && said != "" {
			t.Errorf("it said %q, not %q", said, test.want)
		}
	}
}
