package unwind

import (
	"bufio"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// stop is where gdb stopped a program, and in the first one what it has mapped.
type stop struct {
	Registers []uint64
	Start     uint64
	Stack     []byte
	PCs       []uint64
	Maps      []struct {
		Start, End, Offset uint64
		Path               string
	}
}

// recordStops has gdb step through a program.
func recordStops(t *testing.T, steps int, program string, args ...string) (stops []stop) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "stops")
	cmd := exec.Command("gdb", append([]string{"-q", "-nx", "-batch", "-x", "testdata/record.py", "--args", program}, args...)...)
	cmd.Env = append(os.Environ(), "OUT="+out, fmt.Sprintf("STEPS=%d", steps))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gdb: %v\n%s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for d := json.NewDecoder(lines); d.More(); {
		var s stop
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		stops = append(stops, s)
	}
	return stops
}

// process is what is mapped, as /proc/PID/maps tells it.
type process struct {
	stop
	tables map[string]*tabledFile
	t      *testing.T
}

type tabledFile struct {
	*Table
	segments []*elf.Prog
}

func (p *process) find(addr uint64) Code {
	for _, m := range p.Maps {
		if addr < m.Start || addr >= m.End {
			continue
		}
		if !strings.HasPrefix(m.Path, "/") {
			return Code{Kind: Tableless}
		}
		offset := addr - m.Start + m.Offset
		f := p.open(m.Path)
		for _, s := range f.segments {
			if s.Type == elf.PT_LOAD && s.Flags&elf.PF_X != 0 && offset-s.Off < s.Filesz {
				return Code{Kind: Tabled, Rule: f.Find(offset - s.Off + s.Vaddr)}
			}
		}
	}
	return Code{}
}

func (p *process) open(path string) *tabledFile {
	if t := p.tables[path]; t != nil {
		return t
	}
	f, err := elf.Open(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	file, err := os.Open(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	table, err := Open(file)
	if err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
	p.tables[path] = &tabledFile{table, f.Progs}
	return p.tables[path]
}

// At each instruction of programs, from main on, the walk finds the frames that gdb finds: in
// prologues and epilogues, in the dynamic linker, in stubs, and within signals.
func TestWalkAgainstGDB(t *testing.T) {
	for _, tool := range []string{"gdb", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: no %s here", tool)
		}
	}
	steps := 700
	for _, test := range []struct {
		flags, args string
		known       int // of 100 instructions, those that may have no rule
	}{
		{"-O2 -Wl,-z,now", "qsort 2", 0},
		{"-O1 -no-pie -Wl,-z,now", "aligned 3", 0},
		{"-O2 -Wl,-z,now", "signal 2", 0},
		{"-O3 -static", "altstack 2", 0},
		// What ld.so calls to bind a function keeps the place of its frame in a register that is not
		// followed.
		{"-O2 -fcf-protection=full -Wl,-z,lazy", "plt 1", 95},
	} {
		t.Run(test.flags+" "+test.args, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "chains")
			args := append(strings.Fields("gcc -w -pthread -fno-builtin -fomit-frame-pointer -DSPINS=33 "+test.flags), "-o", program, "testdata/chains.c")
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			stops := recordStops(t, steps, program, strings.Fields(test.args)...)
			p := &process{stop: stops[0], tables: map[string]*tabledFile{}, t: t}
			stops = stops[1:]
			w := Walker{Machine: elf.EM_X86_64, Find: p.find}
			if runtime.GOARCH == "arm64" {
				w.Machine = elf.EM_AARCH64
			}
			different, ruleless := 0, 0
			for _, s := range stops {
				r := Registers{IP: s.Registers[0], SP: s.Registers[1], FP: s.Registers[2]}
				if len(s.Registers) > 3 {
					r.LR = s.Registers[3]
				}
				got, status := w.Walk(nil, r, Memory{{Start: s.Start, Bytes: s.Stack}}, 1024)
				if status == NoRule && len(got) < len(s.PCs) && slices.Equal(got, s.PCs[:len(got)]) {
					ruleless++
					continue
				}
				if !slices.Equal(got, s.PCs) || status != Complete {
					if different++; different < 5 {
						t.Errorf("%#x, status %d, and gdb has\n%#x", got, status, s.PCs)
					}
				}
			}
			t.Logf("%d instructions, %d that differ, %d that end where there is no rule", len(stops), different, ruleless)
			if len(stops) < 300 || ruleless > len(stops)*test.known/100 {
				t.Errorf("%d stops, %d that end where there is no rule", len(stops), ruleless)
			}
		})
	}
}
