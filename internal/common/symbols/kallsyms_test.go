package symbols

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

const kallsyms = `ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T __pi__text
ffffffff81000000 T startup
ffffffff81000100 t __pfx_local
ffffffff81000110 t local
ffffffff81000200 t same_local
ffffffff81000200 T __global
ffffffff81000200 T global
ffffffff81000200 W weak
ffffffff81000300 t lonely
ffffffff81000400 T __pfx_other
ffffffff81000410 t different
ffffffff81000420 T __ia32_sys_getppid
ffffffff81000420 T __x64_sys_getppid
ffffffff81000430 T __ia32_sys_stime
ffffffff81000500 T _etext
ffffffff81001000 D data
ffffffff81002000 T init
ffffffff81002100 r rodata
ffffffffc0003000 t second	[mod]
ffffffffc0001000 t first	[mod]
ffffffffc0002000 d __this_module	[mod]
ffffffffc0003100 t bpf_prog_6deef7357e7b4530_f	[bpf]
`

func TestFindFunction(t *testing.T) {
	k, err := ReadKallsyms(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		addr   uint64
		name   string // empty if there should be none
		start  uint64
		module string
	}{
		{0, "", 0, ""},
		{0xffffffff80ffffff, "", 0, ""},
		{0xffffffff81000000, "startup", 0xffffffff81000000, ""},
		{0xffffffff810000ff, "startup", 0xffffffff81000000, ""},
		{0xffffffff81000100, "local", 0xffffffff81000100, ""}, // padding
		{0xffffffff81000110, "local", 0xffffffff81000110, ""},
		{0xffffffff810001ff, "local", 0xffffffff81000110, ""},
		{0xffffffff81000200, "global", 0xffffffff81000200, ""},
		{0xffffffff81000300, "lonely", 0xffffffff81000300, ""},
		{0xffffffff81000405, "other", 0xffffffff81000400, ""},
		{0xffffffff81000410, "different", 0xffffffff81000410, ""},
		{0xffffffff81000420, "__x64_sys_getppid", 0xffffffff81000420, ""},
		{0xffffffff81000430, "__ia32_sys_stime", 0xffffffff81000430, ""},
		{0xffffffff81000500, "", 0, ""},
		{0xffffffff81001000, "", 0, ""},
		{0xffffffff81002010, "init", 0xffffffff81002000, ""},
		{0xffffffff81002100, "", 0, ""},
		{0xffffffffc0001fff, "first", 0xffffffffc0001000, "mod"},
		{0xffffffffc0002000, "", 0, ""},
		{0xffffffffc0003000, "second", 0xffffffffc0003000, "mod"},
		{0xffffffffc0003100, "bpf_prog_6deef7357e7b4530_f", 0xffffffffc0003100, "bpf"},
		{0xffffffffc0003100 + moduleTail - 1, "bpf_prog_6deef7357e7b4530_f", 0xffffffffc0003100, "bpf"},
		{0xffffffffc0003100 + moduleTail, "", 0, ""},
		{0xffffffffffffffff, "", 0, ""},
	} {
		line, module, ok := k.Find(test.addr)
		if ok != (test.name != "") || line.Function != test.name || line.Linkage != test.name || line.Start != test.start || module != test.module {
			t.Errorf("%#x is %+v %q %v, want %q at %#x in %q", test.addr, line, module, ok, test.name, test.start, test.module)
		}
	}
	if start, end := k.Text(); start != 0xffffffff81000000 || end != 0xffffffff81000500 {
		t.Errorf("text from %#x to %#x", start, end)
	}
}

func TestMerge(t *testing.T) {
	k, err := ReadKallsyms(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	before := len(k.symbols)
	same, err := ReadKallsyms(strings.NewReader(kallsyms))
	if err != nil {
		t.Fatal(err)
	}
	k.Merge(same)
	if len(k.symbols) != before {
		t.Errorf("%d symbols after the same ones came again, %d before", len(k.symbols), before)
	}
	later, err := ReadKallsyms(strings.NewReader(`ffffffff81000000 T _stext
ffffffff81000000 T startup
ffffffffc0001000 t another	[mod]
ffffffffc0004000 t bpf_prog_0123456789abcdef_g	[bpf]
ffffffffc0005000 t f	[new]
`))
	if err != nil {
		t.Fatal(err)
	}
	k.Merge(later)
	for addr, want := range map[uint64]string{
		0xffffffff81000001: "startup ",
		0xffffffff81000111: "local ",
		0xffffffffc0001001: "another mod",
		0xffffffffc0003101: "bpf_prog_6deef7357e7b4530_f bpf",
		0xffffffffc0004001: "bpf_prog_0123456789abcdef_g bpf",
		0xffffffffc0005001: "f new",
	} {
		line, module, _ := k.Find(addr)
		if got := line.Function + " " + module; got != want {
			t.Errorf("%#x is %q, want %q", addr, got, want)
		}
	}
}

func TestRestricted(t *testing.T) {
	for _, text := range []string{"", "0000000000000000 T _text\n0000000000000000 t f\t[mod]\n", "nonsense\n"} {
		if _, err := ReadKallsyms(strings.NewReader(text)); !errors.Is(err, ErrRestricted) {
			t.Errorf("%q: %v, want that addresses are hidden", text, err)
		}
	}
}

// TestThisKernel compares with the text of this kernel's own file, for all functions.
func TestThisKernel(t *testing.T) {
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	k, err := ReadKallsyms(bytes.NewReader(text))
	if errors.Is(err, ErrRestricted) {
		t.Skipf("SKIPPED: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	names := map[uint64]map[string]bool{}
	for line := range strings.Lines(string(text)) {
		addr, kind, name, _, ok := kallsymsLine([]byte(strings.TrimRight(line, "\n")))
		if !ok {
			t.Fatalf("%q was not understood", line)
		}
		if isKernelFunction(kind, name) {
			if names[addr] == nil {
				names[addr] = map[string]bool{}
			}
			names[addr][strings.TrimPrefix(string(name), paddingPrefix)] = true
		}
	}
	for addr, all := range names {
		if line, _, ok := k.Find(addr); !ok || !all[line.Function] || line.Start != addr {
			t.Errorf("%#x is %+v, want one of %v", addr, line, all)
		}
	}
	if len(names) < 10_000 {
		t.Errorf("only %d functions", len(names))
	}
}

func FuzzKallsyms(f *testing.F) {
	f.Add([]byte(kallsyms), uint64(0xffffffff81000200))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		k, err := ReadKallsyms(bytes.NewReader(data))
		if err != nil {
			return
		}
		if line, _, ok := k.Find(addr); ok && (line.Function == "" || line.Start > addr) {
			t.Errorf("%#x is %+v", addr, line)
		}
		n := len(k.symbols)
		if k.Merge(k); len(k.symbols) > n {
			t.Errorf("%d symbols became %d", n, len(k.symbols))
		}
	})
}
