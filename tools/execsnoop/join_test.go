package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/paths"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// together feeds the parts of one exec to a printer, and gives what it makes of
// them.
func together(t testing.TB, p *printer, e execed) *started {
	t.Helper()
	records := e.records()
	r := &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	feed(t, p, r, records[:len(records)-1]...)
	s, err := p.start(records[len(records)-1])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func texts(list [][]byte) []string {
	all := []string{}
	for _, s := range list {
		all = append(all, string(s))
	}
	return all
}

func TestSplit(t *testing.T) {
	for memory, want := range map[string][]string{
		"": {}, "\x00": {""}, "a": {"a"}, "a\x00": {"a"}, "a\x00b": {"a", "b"}, "a\x00\x00": {"a", ""}, "\x00\x00a\x00": {"", "", "a"},
	} {
		if got := texts(split([]byte(memory))); !slices.Equal(got, want) {
			t.Errorf("%q: %q, not %q", memory, got, want)
		}
	}
}

// A script's own arguments are what stands behind the interpreter's.
func TestOwnArgs(t *testing.T) {
	nested := append(strings.Fields("/bin/sh -a ./f -b ./e -c ./d -d ./c -e ./b"), "./a", "1") // as deep as the kernel goes
	for _, test := range []struct {
		what             string
		filename, interp string
		args, want       []string
	}{
		{"no script", "./a", "", []string{"a", "./a", "x"}, []string{"a", "./a", "x"}},
		{"no arguments", "./a", "/bin/sh", nil, nil},
		{"a script", "./a", "/bin/sh", []string{"/bin/sh", "./a", "1", "2"}, []string{"./a", "1", "2"}},
		{"alone", "./a", "/bin/sh", []string{"/bin/sh", "./a"}, []string{"./a"}},
		{"with an option", "./a", "/bin/sh", []string{"/bin/sh", "-e x", "./a", "1"}, []string{"./a", "1"}},
		{"its name among its arguments", "./a", "/bin/sh", []string{"/bin/sh", "./a", "./a", "./a"}, []string{"./a", "./a", "./a"}},
		{"with the interpreter for an argument", "./a", "/bin/sh", []string{"/bin/sh", "./a", "/bin/sh"}, []string{"./a", "/bin/sh"}},
		{"by a descriptor", "/dev/fd/5", "/bin/sh", []string{"/bin/sh", "/dev/fd/5", "1"}, []string{"/dev/fd/5", "1"}},
		{"of a script", "./a", "/bin/sh", nested, []string{"./a", "1"}},
		{"its name cut off", "./a", "/bin/sh", []string{"/bin/sh", "./"}, []string{"/bin/sh", "./"}},
		{"the interpreter is its name", "./a", "./b", []string{"./a", "./a", "1"}, []string{"./a", "1"}},
	} {
		s := together(t, printerOf(t), execed{bpfExec: bpfExec{Id: 1}, filename: test.filename, interp: test.interp, args: test.args})
		if got := texts(s.args); !slices.Equal(got, test.want) || s.argsMissing != 0 || s.bytesMissing != 0 {
			t.Errorf("%s: %q, not %q; missing %d, %d", test.what, got, test.want, s.argsMissing, s.bytesMissing)
		}
	}
}

// What --max-bytes leaves out is counted, and an exec of exactly the limit is whole.
func TestMaxBytes(t *testing.T) {
	// Arguments of 3, 1 and 5 bytes with their NULs.
	args := []string{"ab", "", "wxyz"}
	for limit, want := range map[int]struct {
		args                 string // joined by |
		missing, missingSize uint64
	}{
		0: {"", 3, 9}, 1: {"a", 2, 8}, 2: {"ab", 2, 7}, 3: {"ab", 2, 6}, 4: {"ab|", 1, 5}, 5: {"ab||w", 0, 4}, 8: {"ab||wxyz", 0, 1},
		9: {"ab||wxyz", 0, 0}, 10: {"ab||wxyz", 0, 0}, 1 << 20: {"ab||wxyz", 0, 0},
	} {
		for _, ret := range []int32{0, -13} {
			p := printerOf(t, "-x", "--max-bytes", fmt.Sprint(limit))
			e := execed{bpfExec: bpfExec{Id: 1, Ret: ret}, args: args, filename: "f", limit: uint64(limit)}
			s := together(t, p, e)
			if got := strings.Join(texts(s.args), "|"); got != want.args || s.argsMissing != want.missing || s.bytesMissing != want.missingSize {
				t.Errorf("--max-bytes %d, returning %d: %q, missing %d and %d", limit, ret, got, s.argsMissing, s.bytesMissing)
			}
		}
	}
}

// The default limit is met exactly, overrun by one, and kept to by arguments of all
// sizes around those of records and reads.
func TestMaxBytesOfManyRecords(t *testing.T) {
	const limit = 128 << 10
	p := printerOf(t, "-x")
	for _, size := range []int{
		1, 2, piece - 2, piece - 1, piece, piece + 1, chunk - 2, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1,
		100_000, limit - 1, limit, limit + 1, limit + chunk, 2 * limit,
	} {
		for _, ret := range []int32{0, -7} {
			for _, count := range []int{1, 2, 3, 17, 301} {
				if size <= count || ret == 0 && size > 3*limit {
					continue
				}
				// count arguments that are size bytes together, with their NULs.
				var args []string
				for i := range count {
					n := size/count - 1
					if i == 0 {
						n += size % count
					}
					args = append(args, strings.Repeat(string(rune('a'+i%26)), n))
				}
				s := together(t, p, execed{bpfExec: bpfExec{Id: 1, Ret: ret}, filename: "f", args: args})
				want := texts(split(memory(args)[:min(size, limit)]))
				if got := texts(s.args); !slices.Equal(got, want) {
					t.Errorf("%d bytes in %d arguments, returning %d: %d arguments, not %d, or others", size, count, ret, len(got), len(want))
				}
				if missing := uint64(max(0, size-limit)); s.bytesMissing != missing || s.argsMissing != uint64(count-len(want)) {
					t.Errorf("%d bytes in %d arguments, returning %d: missing %d and %d", size, count, ret, s.argsMissing, s.bytesMissing)
				}
				row := string(p.appendArgs(nil, s))
				if marked := strings.HasSuffix(row, " bytes more)"); marked != (size > limit) {
					t.Errorf("%d bytes in %d arguments, returning %d: marked as cut: %v", size, count, ret, marked)
				}
			}
		}
	}
}

func TestVariables(t *testing.T) {
	env := []string{"A=1", "AB=2", "", "=x", "B", "C=a=b", "A=again", "LONG=" + strings.Repeat("x", 3*chunk)}
	for names, want := range map[string][]string{
		"A": {"A=1", "A=again"}, "B": {"B"}, "C,AB": {"AB=2", "C=a=b"}, "a": {}, "LONG": {env[7]},
	} {
		s := together(t, printerOf(t, "--env", names), execed{bpfExec: bpfExec{Id: 1}, filename: "f", env: env})
		if got := texts(s.env); !slices.Equal(got, want) {
			t.Errorf("--env %s: %q, not %q", names, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, test := range []struct {
		names string
		marks paths.Marks
		want  string // "-" is none
	}{
		{"c\x00b\x00a\x00", 0, "/a/b/c"},
		{"", 0, "/"},
		{"a\x00", paths.Deleted, "/a (deleted)"},
		{"", paths.Deleted, "/ (deleted)"},
		{"c\x00b\x00", paths.Cut, ".../b/c"},
		{"c\x00", paths.Cut | paths.Deleted, ".../c (deleted)"},
		{"c\x00b\x00", paths.Unreachable, "(unreachable)/b/c"},
		{"c\x00", paths.Unreachable | paths.Deleted, "(unreachable)/c (deleted)"},
		{"", paths.Unreachable, "-"},
		{"", paths.Unreachable | paths.Deleted, "-"},
	} {
		got := path([]byte(test.names), test.marks)
		if s := string(got); s != test.want && !(got == nil && test.want == "-") {
			t.Errorf("%q with %#x: %q, not %q", test.names, test.marks, got, test.want)
		}
	}
}

// parted is an exec of many parts whose every text tells its id.
func parted(id uint64, bytes int) execed {
	text := func(what string) string { return fmt.Sprintf("%s-%d", what, id) }
	e := execed{
		bpfExec: bpfExec{Id: id, Pid: uint32(id), Comm: comm(text("comm"))}, filename: text("f"), args: []string{text("first")},
		exe: text("exe") + "/", cwd: text("cwd") + "/", env: []string{"ID=" + text("env")}, ancestors: []bpfAncestor{{Pid: uint32(id), Comm: comm(text("parent"))}},
	}
	for n := 0; n < bytes; n += 1000 {
		e.args = append(e.args, strings.Repeat(fmt.Sprint(id%10), 999))
	}
	return e
}

// isParted says what is wrong with an exec that was put together of the parts of one.
func isParted(s *started, bytes int) error {
	want := parted(s.Id, bytes)
	for what, ok := range map[string]bool{
		"filename": string(s.filename) == want.filename, "args": slices.Equal(texts(s.args), want.args),
		"exe": string(s.exe) == "/"+strings.Trim(want.exe, "/"), "cwd": string(s.cwd) == "/"+strings.Trim(want.cwd, "/"),
		"env": slices.Equal(texts(s.env), want.env), "ancestors": slices.Equal(s.ancestors, want.ancestors),
	} {
		if !ok {
			return fmt.Errorf("the %s of exec %d is wrong; %d arguments, missing %d", what, s.Id, len(s.args), s.argsMissing)
		}
	}
	return nil
}

// The parts of execs on two CPUs, and on many, come in any mixture.
func TestPartsOfTwoExecsMix(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // the same mixtures each time
	for _, side := range []int{2, 64} {
		for range 50 {
			p := printerOf(t, "--env", "ID")
			lists := make([][][]byte, side)
			for i := range lists {
				lists[i] = parted(uint64(i)+1, 9000).records()
			}
			for len(lists) > 0 {
				i := random.IntN(len(lists))
				record := lists[i][0]
				if lists[i] = lists[i][1:]; len(lists[i]) > 0 {
					feed(t, p, &trace.Run{}, record)
					continue
				}
				lists = slices.Delete(lists, i, i+1)
				s, err := p.start(record)
				if err != nil {
					t.Fatal(err)
				}
				if err := isParted(s, 9000); err != nil {
					t.Fatal(err)
				}
			}
			if len(p.parts) > 0 {
				t.Fatalf("parts of %d execs are left", len(p.parts))
			}
		}
	}
}

// The arguments of an exec whose parts never came, which the kernel side never
// sends, are those of no other.
func TestPartsOfAnotherExecStayAway(t *testing.T) {
	p := printerOf(t, "--env", "ID")
	records := parted(1, 9000).records()
	feed(t, p, &trace.Run{}, records[:len(records)-1]...)
	s := together(t, p, execed{bpfExec: bpfExec{Id: 2}, filename: "/x", args: []string{"x"}})
	if s.exe != nil || s.cwd != nil || s.ancestors != nil || len(s.args) != 1 {
		t.Errorf("%+v", s)
	}
	if s, err := p.start(records[len(records)-1]); err != nil || isParted(s, 9000) != nil {
		t.Errorf("%v, %v", err, isParted(s, 9000))
	}
}

// Of a program and its spares, one may begin to send an exec and fail, and the next
// send it all.
func TestPartsThatComeTwice(t *testing.T) {
	for _, size := range []int{100, 5000, 100_000} {
		for first := range len(parted(1, size).records()) {
			p := printerOf(t, "--env", "ID")
			records := parted(1, size).records()
			feed(t, p, &trace.Run{}, records[:first]...)
			records = parted(1, size).records()
			feed(t, p, &trace.Run{}, records[:len(records)-1]...)
			s, err := p.start(records[len(records)-1])
			if err != nil {
				t.Fatal(err)
			}
			if err := isParted(s, size); err != nil {
				t.Fatalf("%d of %d records came before: %v", first, len(records), err)
			}
		}
	}
}

// An exec that spares report again is shown once.
func TestExecsAreShownOnce(t *testing.T) {
	p := newPrinting(t, "--json", "-x")
	for range 3 {
		for id := range uint64(5) {
			p.feed(t, parted(id, 5000))
		}
		p.feed(t, execed{bpfExec: bpfExec{Id: 9, Ret: -2}, filename: "/x"}) // failures have no id of their own
	}
	if lines := p.written(t); len(lines) != 5+3 || len(p.parts) > 0 {
		t.Errorf("%d rows, and parts of %d execs: %q", len(lines), len(p.parts), lines)
	}
}

// Where the last records of many execs are lost, what is kept of them is bounded,
// and an exec that is under way meanwhile is whole.
func TestPartsWithoutAnExecAreBounded(t *testing.T) {
	p := printerOf(t, "--env", "ID")
	for round := range uint64(20) {
		base := (round + 1) << 32
		whole := make([][][]byte, 64) // as many as the kernel side has buffers for
		for i := range whole {
			whole[i] = parted(base|uint64(i), 5000).records()
			feed(t, p, &trace.Run{}, whole[i][0])
		}
		for i := range uint64(100) {
			records := parted(base|1<<16|i, 100).records()
			feed(t, p, &trace.Run{}, records[:len(records)-1]...)
			if len(p.parts) > maxParts {
				t.Fatalf("parts of %d execs are kept", len(p.parts))
			}
		}
		for _, records := range whole {
			feed(t, p, &trace.Run{}, records[1:len(records)-1]...)
			s, err := p.start(records[len(records)-1])
			if err != nil {
				t.Fatal(err)
			}
			if err := isParted(s, 5000); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHandleRefuses(t *testing.T) {
	p, r := printerOf(t, "--exit"), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	last := func(e event) []byte { l := e.records(); return l[len(l)-1] }
	ancestor := part(5, bpfKindKIND_ANCESTORS, 0, raw(&bpfAncestor{}))
	for what, record := range map[string][]byte{
		"an exec": last(samples[0]), "an exit": last(exited{Id: 1}), "times": last(reaped{Id: 2}),
		"a part": part(5, bpfKindKIND_ARGS, 0, nil),
	} {
		for n := range len(record) {
			if err := p.handle(r, record[:n]); err == nil {
				t.Errorf("%d bytes of %d of %s were taken", n, len(record), what)
			}
		}
		if err := p.handle(r, record); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range len(ancestor) {
		err := p.handle(r, ancestor[:n])
		if whole := n == len(part(5, 0, 0, nil)); (err == nil) != whole {
			t.Errorf("%d bytes of %d of ancestors: %v", n, len(ancestor), err)
		}
	}
	for kind := 8; kind < 256; kind++ {
		if err := p.handle(r, part(5, bpfKind(kind), 0, make([]byte, 300))); err == nil {
			t.Errorf("kind %d was taken", kind)
		}
	}
	if r.Shown != 1 {
		t.Errorf("%d rows were shown, of one exec", r.Shown)
	}
}

// Without parts, most rows, an exec is taken with few allocations.
func TestExecsAllocateLittle(t *testing.T) {
	p, r := printerOf(t), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	record := execed{bpfExec: bpfExec{Id: 1, Comm: comm("ls")}, filename: "/bin/ls", args: []string{"ls", "-l"}}.records()[0]
	var err error
	id := uint64(0)
	n := testing.AllocsPerRun(1000, func() {
		id++
		copy(record, raw(&id))
		if e := p.handle(r, record); e != nil {
			err = e
		}
	})
	if n > 5 || err != nil { // the exec, its list growing, and the id here
		t.Errorf("%v allocations an exec, %v", n, err)
	}
}
