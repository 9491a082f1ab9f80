package unwind

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every row that readelf prints of system libraries and programs is the one that Find gives.
func TestReadelf(t *testing.T) {
	if _, err := exec.LookPath("readelf"); err != nil {
		t.Skip("SKIPPED: no readelf here (Debian's binutils)")
	}
	files := systemFiles(t, 40)
	rows := make([]int, len(files))
	t.Run("files", func(t *testing.T) {
		for i, path := range files {
			t.Run(filepath.Base(path), func(t *testing.T) {
				t.Parallel()
				rows[i] = checkAgainstReadelf(t, path)
			})
		}
	})
	total := 0
	for _, n := range rows {
		total += n
	}
	t.Logf("%d files, %d rows", len(files), total)
	if len(files) < 20 || total < 20_000 {
		t.Errorf("%d files with %d rows are too few to say anything", len(files), total)
	}
}

// systemFiles gives ELF files of this system with frames, and of a size that makes for a test
// of some seconds: those that are known to be odd, and others from all of it.
func systemFiles(t *testing.T, n int) []string {
	t.Helper()
	const most = 12 << 20
	seen := map[string]bool{}
	usable := func(path string) bool {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || seen[real] {
			return false
		}
		seen[real] = true
		st, err := os.Stat(real)
		if err != nil || !st.Mode().IsRegular() || st.Size() > most {
			return false
		}
		f, err := elf.Open(real)
		if err != nil {
			return false
		}
		defer f.Close()
		return machines[f.Machine] != nil && f.Section(".eh_frame") != nil && f.Section(".gopclntab") == nil &&
			(f.Type == elf.ET_DYN || f.Type == elf.ET_EXEC)
	}
	var files []string
	for _, pattern := range []string{
		"/lib*/*-linux-gnu/libc.so.6", "/lib*/ld-linux-*", "/usr/lib/*-linux-gnu/libstdc++.so.6", "/usr/lib/*-linux-gnu/libm.so.6",
		"/usr/lib/*-linux-gnu/libgcc_s.so.1", "/usr/lib/*-linux-gnu/libcrypto.so.*", "/usr/lib/*-linux-gnu/libsqlite3.so.0",
		"/usr/lib/*-linux-gnu/libgcrypt.so.*", "/lib/ld-musl-*", "/usr/bin/bash", "/usr/bin/perl", "/usr/lib/*-linux-gnu/libgmp.so.*",
	} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if usable(path) {
				files = append(files, path)
			}
		}
	}
	var others []string
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib"} {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && (!strings.HasPrefix(dir, "/usr/lib") || strings.Contains(path, ".so")) && usable(path) {
				others = append(others, path)
			}
			return nil
		})
	}
	for i, want := 0, n-len(files); i < want && i < len(others); i++ {
		files = append(files, others[i*max(len(others)/max(want, 1), 1)])
	}
	return files
}

// checkAgainstReadelf gives how many rows it has compared.
func checkAgainstReadelf(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := Open(f)
	if err != nil {
		if errors.Is(err, ErrNoFrames) {
			return 0
		}
		t.Fatalf("%s: %v", path, err)
	}
	checkTable(t, table)
	e, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("readelf", "-W", "--debug-dump=frames-interp,no-follow-links", path).Output()
	if err != nil {
		t.Fatalf("readelf %s: %v", path, err)
	}
	fdes, err := parseInterpreted(bytes.NewReader(out))
	if err != nil {
		t.Fatalf("readelf %s: %v", path, err)
	}
	fdes = inCode(e, fdes)
	amd64 := e.Machine == elf.EM_X86_64
	bad, rows := 0, 0
	check := func(addr uint64, want func(Rule) bool, said string) {
		if got := table.Find(addr); !want(got) {
			if bad++; bad <= 10 {
				t.Errorf("%s: %#x: %+v, but readelf says %s", path, addr, got, said)
			}
		}
	}
	for i, d := range fdes {
		end := d.end
		if i+1 < len(fdes) {
			end = min(end, fdes[i+1].start)
		}
		if len(d.rows) == 0 {
			t.Errorf("%s: readelf has no row of the function at %#x", path, d.start)
			continue
		}
		for j, r := range d.rows {
			next := end
			if j+1 < len(d.rows) {
				next = min(end, d.rows[j+1].addr)
			}
			if r.addr >= next {
				continue
			}
			rows++
			want := func(got Rule) bool { return r.allows(got, amd64, d.signal) }
			if synthetic(e, d) {
				want = func(got Rule) bool { return got.Cfa == End || got.Cfa == Signal }
			}
			check(r.addr, want, r.String())
			check(next-1, want, r.String())
		}
		if i+1 == len(fdes) || fdes[i+1].start > end+maxPadding {
			unknown := func(got Rule) bool {
				return got == Rule{} || got == machines[e.Machine].signal || got.Cfa == End || beforeSpecial(e, end)
			}
			if i+1 < len(fdes) && fdes[i+1].signal && fdes[i+1].start == end+1 || e.Entry >= end && e.Entry-end <= maxPadding {
				continue // What is between is padding.
			}
			check(end, unknown, "nothing")
		}
	}
	if rows == 0 && len(fdes) > 0 {
		t.Errorf("%s: readelf has no row of it", path)
	}
	return rows
}

// beforeSpecial reports whether there is code at an address that has rules of our own, or padding
// before it: stubs of a linker, .init and .fini, and what begins as crtbegin.o does.
func beforeSpecial(e *elf.File, addr uint64) bool {
	return slices.ContainsFunc(e.Sections, func(s *elf.Section) bool {
		if s.Flags&elf.SHF_EXECINSTR == 0 || addr+maxPadding < s.Addr || addr >= s.Addr+s.Size {
			return false
		}
		if strings.HasPrefix(s.Name, ".plt") || s.Name == ".init" || s.Name == ".fini" {
			return true
		}
		code := make([]byte, 512)
		n, _ := s.ReadAt(code, int64(max(addr, s.Addr)-s.Addr))
		i := bytes.Index(code[:n], []byte{0x48, 0x39, 0xf8, 0x74}) // cmp %rdi,%rax; je
		return i >= 14 && i < 32 && code[i-14] == 0x48 && code[i-13] == 0x8d
	})
}

// synthetic reports whether there is a rule of our own for a function: the one that the
// program begins in.
func synthetic(e *elf.File, d fde) bool {
	return d.start <= e.Entry && e.Entry < d.end && d.rows[0].undefined()
}

// checkTable checks what holds of all tables.
func checkTable(t testing.TB, table *Table) {
	t.Helper()
	if table.Start%PageSize != 0 {
		t.Fatalf("it starts at %#x", table.Start)
	}
	if len(table.Rules) == 0 || table.Rules[0] != (Rule{}) {
		t.Fatal("the first rule is not the zero one")
	}
	seen := map[Rule]bool{}
	for _, r := range table.Rules {
		if seen[r] {
			t.Fatalf("%+v is twice among the rules", r)
		}
		seen[r] = true
	}
	next := uint32(0)
	last := uint16(0)
	for i, p := range table.Pages {
		if p.First != next {
			t.Fatalf("page %d has its rows at %d, not at %d", i, p.First, next)
		}
		next += p.Count
		if int(next) > len(table.Rows) {
			t.Fatalf("page %d has rows up to %d of %d", i, next, len(table.Rows))
		}
		for j, r := range table.Rows[p.First:][:p.Count] {
			switch {
			case r.Low >= PageSize || int(r.Rule) >= len(table.Rules):
				t.Fatalf("page %d: row %+v", i, r)
			case j == 0 && r.Low != 0:
				t.Fatalf("page %d begins with row %+v", i, r)
			case j > 0 && r.Low <= table.Rows[p.First+uint32(j)-1].Low:
				t.Fatalf("page %d: its rows are not in order", i)
			case j > 0 && r.Rule == table.Rows[p.First+uint32(j)-1].Rule:
				t.Fatalf("page %d: row %d says what the one before says", i, j)
			}
			last = r.Rule
		}
		if p.Count == 1 && last == 0 {
			t.Fatalf("page %d has a row to say that nothing is known", i)
		}
	}
	if int(next) != len(table.Rows) {
		t.Fatalf("%d of %d rows are of a page", next, len(table.Rows))
	}
}

// An fde is what readelf says of a function.
type fde struct {
	start, end uint64
	signal     bool
	debug      bool // in .debug_frame
	rows       []interpreted
}

type interpreted struct {
	addr   uint64
	values map[string]string // by column: CFA, and the names of registers
}

func (r interpreted) String() string {
	fp := r.values["rbp"]
	if fp == "" {
		fp = r.values["x29"]
	}
	return fmt.Sprintf("CFA %s, frame pointer %s, return address %s", r.values["CFA"], fp, r.values["ra"])
}

func (r interpreted) undefined() bool { return r.values["ra"] == "u" }

// allows reports whether a rule says the same.
func (r interpreted) allows(got Rule, amd64, signal bool) bool {
	sp, fp, ra := "sp", "x29", "ra"
	if amd64 {
		sp, fp = "rsp", "rbp"
	}
	cfa := r.values["CFA"]
	saved := func(said string, got Saved, offset int16) bool {
		switch {
		case strings.HasPrefix(said, "c"):
			want, err := strconv.ParseInt(said[1:], 10, 64)
			return err == nil && got == AtCFA && int64(offset)*8 == want
		case said == "" || said == "u" || said == "s":
			return got == Same || said == "u" && got == Lost
		case said == "exp":
			return got == Lost || got == AtFP || got == AtCFA
		}
		return got == Lost
	}
	switch {
	case amd64 && r.values[ra] == "u":
		return got == Rule{Cfa: End}
	case signal && cfa == "exp":
		return got.Cfa == Signal
	case cfa == "exp":
		return (got.Cfa == PLT || got.Cfa == SPDeref || got.Cfa == FPDeref || got == Rule{}) &&
			(got == Rule{} || saved(r.values[fp], got.Fp, got.FpOffset) && saved(r.values[ra], got.Ra, got.RaOffset))
	}
	base, offset, ok := strings.Cut(cfa, "+")
	if !ok {
		return got == Rule{}
	}
	n, err := strconv.ParseInt(offset, 10, 64)
	if err != nil {
		return false
	}
	known := map[string]CFA{sp: SP, fp: FP}[base]
	if known == Unknown {
		return got == Rule{}
	}
	if amd64 && known == SP && n < 8 && got == (Rule{}) {
		return true // Haskell's, whose frames are no frames of the stack.
	}
	if said := r.values[ra]; amd64 && !strings.HasPrefix(said, "c") {
		if n == 0 && known == SP { // vfork
			return got.Cfa == SP && got.Offset == 0 && got.Ra == AtCFA && got.RaOffset == -1 && got.Flags == Elsewhere
		}
		return got == Rule{}
	}
	if !amd64 && r.values[ra] == "u" && got == (Rule{Cfa: End}) {
		return true
	}
	return got.Cfa == known && int64(got.Offset) == n && saved(r.values[fp], got.Fp, got.FpOffset) && saved(r.values[ra], got.Ra, got.RaOffset)
}

// What is in another register has a number and a name, in two words.
var inRegisterWords = regexp.MustCompile(`r\d+ \((\w+)\)`)

// parseInterpreted reads what readelf --debug-dump=frames-interp prints.
func parseInterpreted(r io.Reader) ([]fde, error) {
	type key struct {
		debug bool
		at    uint64
	}
	cies := map[key]fde{}
	var fdes []fde
	var current *fde
	var cie key
	var columns []string
	debug := false
	flush := func() {
		if current == nil {
			return
		}
		if cie != (key{at: ^uint64(0)}) {
			cies[cie] = *current
		} else {
			fdes = append(fdes, *current)
		}
		current = nil
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		words := strings.Fields(inRegisterWords.ReplaceAllString(line, "$1"))
		switch {
		case len(words) == 0:
			flush()
		case words[0] == "Contents":
			debug = strings.Contains(line, ".debug_frame")
		case len(words) > 3 && words[3] == "CIE":
			flush()
			at, err := strconv.ParseUint(words[0], 16, 64)
			if err != nil {
				return nil, err
			}
			cie = key{debug, at}
			current = &fde{signal: strings.Contains(words[4], "S")}
		case len(words) > 3 && words[3] == "FDE":
			flush()
			var parent uint64
			d := &fde{debug: debug}
			if _, err := fmt.Sscanf(strings.Join(words[4:], " "), "cie=%x pc=%x..%x", &parent, &d.start, &d.end); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			c, ok := cies[key{debug, parent}]
			if !ok {
				return nil, fmt.Errorf("%q: no such CIE was seen", line)
			}
			d.signal = c.signal
			// What has no rows has its CIE's.
			if len(c.rows) > 0 {
				d.rows = []interpreted{{d.start, c.rows[0].values}}
			}
			cie = key{at: ^uint64(0)}
			current = d
		case words[0] == "LOC":
			columns = words[1:]
			current.rows = nil
		case current != nil && len(words) == len(columns)+1:
			addr, err := strconv.ParseUint(words[0], 16, 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			row := interpreted{addr, map[string]string{}}
			for i, c := range columns {
				row.values[c] = words[i+1]
			}
			current.rows = append(current.rows, row)
		case len(words) == 2 && words[1] == "terminator":
		case len(words) == 3 && words[1] == "ZERO":
		default:
			return nil, fmt.Errorf("%q is not understood", line)
		}
	}
	flush()
	return fdes, lines.Err()
}

// inCode gives the functions that are in code, in order, without those of .debug_frame that
// .eh_frame has, too, and of two with one beginning only the first.
func inCode(e *elf.File, fdes []fde) []fde {
	var out []fde
	for _, d := range fdes {
		if d.start == 0 || d.start == d.end {
			continue
		}
		for _, p := range e.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && d.start >= p.Vaddr && d.start < p.Vaddr+p.Filesz {
				out = append(out, d)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b fde) int {
		if a.debug != b.debug {
			return map[bool]int{false: -1, true: 1}[a.debug]
		}
		return cmp.Compare(a.start, b.start)
	})
	var eh, debug []fde
	for _, d := range out {
		list := &eh
		if d.debug {
			list = &debug
		}
		if n := len(*list); n > 0 && (*list)[n-1].start == d.start {
			continue
		}
		*list = append(*list, d)
	}
	for _, d := range debug {
		if !slices.ContainsFunc(eh, func(o fde) bool { return o.start < d.end && d.start < o.end }) {
			eh = append(eh, d)
		}
	}
	slices.SortStableFunc(eh, func(a, b fde) int { return cmp.Compare(a.start, b.start) })
	return eh
}
