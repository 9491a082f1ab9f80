package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/paths"
	"github.com/gobcc/gobcc/internal/common/tooltest"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// As in execsnoop.bpf.c.
const (
	chunk = 4096 // bytes of memory in a record, at most
	piece = 1024 // bytes of a failed exec's arguments that are read at a time
)

// start is when the samples begin, in nanoseconds since boot.
const start = 5_000_000_000

// The marks, as the record has them.
const (
	compat   = uint8(bpfMarkMARK_COMPAT)
	execveat = uint8(bpfMarkMARK_EXECVEAT)
	unread   = uint8(bpfMarkMARK_UNREADABLE)
	noName   = uint8(bpfMarkMARK_NO_NAME)
	nameCut  = uint8(bpfMarkMARK_NAME_CUT)
)

func raw[T any](e *T) []byte {
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(e)), unsafe.Sizeof(*e)))
}

func comm(name string) (c [16]uint8) {
	copy(c[:], name)
	return c
}

// execed is an exec, as a test writes it down: everything is sent of it that is
// there. Its lengths and counts are the test's only where the arguments are not
// all of it.
type execed struct {
	bpfExec
	filename, interp string
	args             []string
	env              []string
	exe, cwd         string // names leaf first, with a slash for each NUL; "-" is no name at all, "" is not sent
	exeMarks         paths.Marks
	ancestors        []bpfAncestor
	limit            uint64 // --max-bytes, 0 is 128 KiB
}

// memory lays strings out as the kernel does.
func memory(list []string) []byte {
	var b []byte
	for _, s := range list {
		b = append(append(b, s...), 0)
	}
	return b
}

// part lays a part of an exec out.
func part(id uint64, kind bpfKind, marks paths.Marks, body []byte) []byte {
	return append(raw(&bpfPart{Id: id, Kind: uint8(kind), Marks: uint8(marks)}), body...)
}

// records lays an exec out as the kernel side does, in its order.
func (e execed) records() [][]byte {
	var list [][]byte
	add := func(kind bpfKind, marks paths.Marks, body []byte) { list = append(list, part(e.Id, kind, marks, body)) }
	names := func(kind bpfKind, marks paths.Marks, text string) {
		switch text {
		case "":
		case "-":
			add(kind, marks, nil)
		default:
			add(kind, marks, []byte(strings.ReplaceAll(text, "/", "\x00")))
		}
	}
	limit := e.limit
	if limit == 0 {
		limit = 128 << 10
	}
	names(bpfKindKIND_EXE, e.exeMarks, e.exe)
	names(bpfKindKIND_CWD, 0, e.cwd)
	if e.ancestors != nil {
		var body []byte
		for i := range e.ancestors {
			body = append(body, raw(&e.ancestors[i])...)
		}
		add(bpfKindKIND_ANCESTORS, 0, body)
	}
	if e.env != nil {
		env := memory(e.env)
		e.EnvBytes = uint64(len(env))
		env = env[:min(uint64(len(env)), limit)]
		for len(env) > chunk {
			add(bpfKindKIND_ENV, 0, env[:chunk])
			env = env[chunk:]
		}
		add(bpfKindKIND_ENV, 0, env)
	}
	args := memory(e.args)
	e.ArgsBytes += uint64(len(args)) // of a test's own, what it does not send
	e.Argc += uint32(len(e.args))
	e.Kind = uint8(bpfKindKIND_EXEC)
	e.FilenameLen, e.InterpLen = uint16(len(e.filename)), uint16(len(e.interp))
	if e.Ret < 0 {
		// Read piece by piece, whole ones also beyond the limit, and all sent before.
		var record []byte
		var n uint64
		for _, arg := range e.args {
			for rest := append([]byte(arg), 0); len(rest) > 0; {
				p := rest[:min(len(rest), piece-1)]
				if len(rest) < piece {
					p = rest
				}
				rest = rest[len(p):]
				if len(record) > chunk-piece {
					add(bpfKindKIND_ARGS, 0, record)
					record = nil
				}
				if n < limit {
					record = append(record, p...)
				}
				n += uint64(len(p))
			}
		}
		add(bpfKindKIND_ARGS, 0, record)
		return append(list, append(raw(&e.bpfExec), e.filename...))
	}
	args = args[:min(uint64(len(args)), limit)]
	for len(args) > chunk {
		add(bpfKindKIND_ARGS, 0, args[:chunk])
		args = args[chunk:]
	}
	if e.Marks&unread != 0 {
		clear(args) // as the kernel leaves it
	}
	e.ArgsLen = uint16(len(args))
	return append(list, slices.Concat(raw(&e.bpfExec), []byte(e.filename), []byte(e.interp), args))
}

// exited is the end of a process, as a test writes it down.
type exited bpfExit

func (e exited) records() [][]byte {
	e.Kind = uint8(bpfKindKIND_EXIT)
	return [][]byte{raw((*bpfExit)(&e))}
}

// reaped is what comes when a process is.
type reaped bpfTimes

func (e reaped) records() [][]byte {
	e.Kind = uint8(bpfKindKIND_TIMES)
	return [][]byte{raw((*bpfTimes)(&e))}
}

// event is any of the three.
type event interface{ records() [][]byte }

// samples are what the golden files show: each is one that its comm tells of.
var samples = []event{
	execed{
		bpfExec: bpfExec{
			Id: 1, TimeNs: start, CgroupId: 4242, Pid: 100, Tid: 100, Ppid: 99, Uid: 1000, Cpu: 3, Loginuid: 1000, Sessionid: 7,
			Comm: comm("ls"), ParentComm: comm("bash"), Tty: comm("pts0"),
		},
		filename: "/bin/ls", args: []string{"ls", "-l", "/tmp"}, env: []string{"HOME=/root", "PATH=/bin", "SHLVL=1"},
		exe: "ls/bin/usr/", cwd: "me/home/",
		ancestors: []bpfAncestor{{Pid: 99, Comm: comm("bash")}, {Pid: 50, Comm: comm("ssh d\n")}, {Pid: 1, Comm: comm("systemd")}},
	},
	execed{
		bpfExec: bpfExec{
			Id: 2, TimeNs: start + 1_500_000, Pid: 4194304, Tid: 4194304, Ppid: 4194303, Uid: 4294967294, Cpu: 1023, Loginuid: unset, Sessionid: unset,
			Comm: comm("sixteen-chars-no"), ParentComm: comm("a\tb\x1b[2J"),
		},
		filename: "./odd\n", args: []string{"odd", "new\nline", "\x1b[2J", "\xff\u202e\\", "", "two words", `"quoted"`, "漢字"}, env: []string{"PATH=\n", "HOME"},
		exe: "odd\n/tmp/", exeMarks: paths.Deleted, cwd: "-", ancestors: []bpfAncestor{},
	},
	execed{
		bpfExec:  bpfExec{Id: 3, TimeNs: start + 999e9, Pid: 101, Tid: 101, Ppid: 100, Comm: comm("script"), ParentComm: comm("ls"), Loginuid: unset, Sessionid: unset},
		filename: "./script", interp: "/bin/sh", args: []string{"/bin/sh", "-e", "./script", "one", "./script"}, exe: "dash/bin/usr/", cwd: "srv/",
		ancestors: []bpfAncestor{{Pid: 100, Comm: comm("ls")}},
	},
	execed{
		bpfExec:  bpfExec{Id: 4, TimeNs: start + 1000e9, Pid: 102, Tid: 102, Ppid: 55, Comm: comm("no arguments"), Loginuid: unset, Sessionid: unset},
		filename: "/bin/true", cwd: "srv/", exe: "-", exeMarks: paths.Unreachable,
		ancestors: []bpfAncestor{{Pid: 55, Comm: comm("subshell")}, {Pid: 101, Comm: comm("script")}},
	},
	execed{
		bpfExec:  bpfExec{Id: 5, TimeNs: start + 100_000e9, Pid: 103, Tid: 104, Ppid: 1, Uid: 100_000, Ret: -int32(unix.ENOENT), Comm: comm("failed"), ParentComm: comm("init"), Loginuid: unset, Sessionid: unset},
		filename: "nosuch", args: []string{"nosuch", "--option"},
	},
	execed{
		bpfExec:  bpfExec{Id: 6, TimeNs: start + 100_001e9, Pid: 105, Ppid: 1, Ret: -int32(unix.EFAULT), Marks: unread | noName | execveat, Comm: comm("unreadable"), Loginuid: unset, Sessionid: unset},
		filename: "", args: []string{"first"},
	},
	execed{
		bpfExec: bpfExec{Id: 6, TimeNs: start + 100_001e9, Pid: 105, Ppid: 1, Ret: -int32(unix.ENOENT), Comm: comm("no name"), Loginuid: unset, Sessionid: unset},
	},
	execed{
		bpfExec:  bpfExec{Id: 7, TimeNs: start + 100_001e9, Pid: 105, Ppid: 1, Ret: -530, Marks: compat, Comm: comm("32-bit"), Loginuid: unset, Sessionid: unset},
		filename: "/x", exe: "x/z/y/", exeMarks: paths.Cut,
	},
	execed{
		bpfExec:  bpfExec{Id: 7, TimeNs: start + 100_001e9, Pid: 105, Ppid: 1, Ret: -int32(unix.ENAMETOOLONG), Marks: nameCut, Comm: comm("long name"), Loginuid: unset, Sessionid: unset},
		filename: "/long", args: []string{"long", "-x"},
	},
	execed{
		bpfExec:  bpfExec{Id: 8, TimeNs: start + 100_001e9, Pid: 106, Ppid: 1, Marks: unread, Comm: comm("swapped out"), Loginuid: unset, Sessionid: unset},
		filename: "/bin/cat", args: []string{"cat", "x"}, exe: "z/y/", exeMarks: paths.Unreachable,
	},
	execed{
		bpfExec:  bpfExec{Id: 9, TimeNs: start + 100_001e9, Pid: 107, Ppid: 1, ArgsBytes: 131072, Argc: 3, Comm: comm("cut"), Loginuid: unset, Sessionid: unset},
		filename: "/bin/cut", args: []string{"cut", "here"},
	},
	exited{
		Id: 1, Code: 3 << 8, TimeNs: start + 12_345_678, StartNs: start - 1e9, CgroupId: 4242, MaxRssPages: 387, Pid: 100, Ppid: 99, Uid: 1000, Tid: 100,
		Comm: comm("ls"), ParentComm: comm("bash"),
	},
	reaped{Id: 77, UserNs: 1, SystemNs: 1, RuntimeNs: 1}, // of nobody that is known
	reaped{Id: 1, UserNs: 8e6, SystemNs: 4e6, RuntimeNs: 3e6},
	exited{Id: 20, Code: int32(unix.SIGKILL), TimeNs: start + 100_002e9, StartNs: start + 100_000e9, Pid: 200, Tid: 200, Comm: comm("killed"), ParentComm: comm("sh")},
	exited{Id: 21, Code: int32(unix.SIGSEGV) | 0x80, TimeNs: start + 100_002e9, StartNs: start, Pid: 201, Tid: 202, Comm: comm("crash\n")},
	reaped{Id: 21, RuntimeNs: 1e9},
	exited{Id: 22, Code: 40, TimeNs: start + 100_002e9, StartNs: start + 100_002e9, Pid: 203, Comm: comm("real-time"), ParentComm: comm("sixteen-chars-no")},
	exited{Id: 9, Code: 255 << 8, TimeNs: start + 100_003e9, StartNs: start, Pid: 107, Comm: comm("cut")},
}

// show gives what execsnoop with these arguments writes for a list of events, its
// header included.
func show(t testing.TB, list []event, args ...string) (text string, r *trace.Run) {
	t.Helper()
	var b bytes.Buffer
	p := printerOf(t, args...)
	r = &trace.Run{Out: output.NewWriter(&b)}
	if h := p.header(); h != "" && !p.opts.JSON {
		b.WriteString(h + "\n")
	}
	for _, e := range list {
		switch e := e.(type) {
		case exited, reaped:
			if !p.opts.exits() {
				continue // the kernel side sends none
			}
		case execed:
			if e.Ret < 0 && !p.opts.fails {
				continue
			}
		}
		feed(t, p, r, e.records()...)
	}
	if len(p.parts) > 0 {
		t.Errorf("parts of %d execs are left", len(p.parts))
	}
	if err := errors.Join(p.finish(r), r.Out.Flush()); err != nil {
		t.Fatal(err)
	}
	if len(p.ending) > 0 {
		t.Error("an end still waits")
	}
	return b.String(), r
}

func feed(t testing.TB, p *printer, r *trace.Run, records ...[]byte) {
	t.Helper()
	for _, record := range records {
		if err := p.handle(r, record); err != nil {
			t.Fatal(err)
		}
		clear(record) // it is the reader's again
	}
}

func TestRows(t *testing.T) {
	// The time of day depends on when the machine booted; TestTimeOfDay has that.
	var b strings.Builder
	for _, args := range []string{
		"", "-x", "-t", "-U", "-C", "-M", "-x -t -U -M -C --exit", "-x -q", "-x --max-args 1", "--max-args 3", "--max-args 5",
		"-x --exe", "--cwd", "--tty", "--loginuid", "--ancestors", "--ancestors=2", "--env PATH", "--env HOME,PATH,NONE",
		"-x -q --exe --cwd --tty --loginuid --ancestors --env PATH,HOME", "--tree", "--tree --ancestors=1", "--exit", "--exit-only",
		"-n ^ls$", "-n ls --exit", "-l tmp|one", "-x -l tmp|nosuch --exit", "--summary", "--summary -x", "--summary -n s",
	} {
		text, _ := show(t, samples, strings.Fields(args)...)
		fmt.Fprintf(&b, "%s\n%s\n", strings.TrimSpace("$ execsnoop "+args), text)
	}
	tooltest.Golden(t, "rows.golden", b.String())
}

func TestTimeOfDay(t *testing.T) {
	text, r := show(t, samples[:1], "-T")
	want := "TIME     PCOMM            PID     PPID    RET ARGS\n" + time.Unix(0, r.Wall.Nanos(start)).Format("15:04:05") +
		" ls               100     99        0 /bin/ls -l /tmp\n"
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// Each row is one line that a terminal shows as it is.
func TestRowsAreSafe(t *testing.T) {
	for _, args := range []string{"", "-x -t -U -M -C --exit", "-q -x --exe --cwd --tty --loginuid --ancestors --env PATH,HOME --tree", "--summary -x", "--json -x --exit"} {
		text, r := show(t, samples, strings.Fields(args)...)
		for _, c := range text {
			if c != '\n' && (c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x202e || c == 0xfffd && !strings.Contains(args, "json")) {
				t.Errorf("execsnoop %s writes %q raw", args, c)
			}
		}
		want := int(r.Shown)
		if !strings.Contains(args, "json") {
			want++
		}
		if n := strings.Count(text, "\n"); !strings.Contains(args, "summary") && n != want {
			t.Errorf("execsnoop %s: %d rows were counted, and %d lines written", args, r.Shown, n)
		}
	}
}

// The columns are laid out by BCC's formats, for every combination of its options
// for them. (But where a time or a uid leaves no room for the blank behind it, from
// 1,000 seconds and uid 100,000 on, it has one nevertheless; see rows.golden.) BCC
// heads the process's name COMM since it has -M; before, and here, PCOMM.
func TestRowsAreBCCs(t *testing.T) {
	var list []event
	for i, name := range []string{"a", "sh", "sixteen-chars-no"[:15], "sixteen-chars-no"} {
		for j, ret := range []int32{0, -1, -2, -13, -133} {
			for _, pid := range []uint32{1, 4321, 999999, 4194304} {
				list = append(list, execed{
					bpfExec: bpfExec{
						Id: uint64(len(list)), TimeNs: start + uint64(len(list))*1_234_567, Ret: ret, Pid: pid, Ppid: 4194305 - pid, Uid: pid % 100_000,
						Cpu: uint32(i * j * 341), Comm: comm(name), ParentComm: comm("of " + name)},
					filename: fmt.Sprintf("/p%d", len(list)), args: []string{"p", "-a", "b c"},
				})
			}
		}
	}
	text := func(c [16]uint8) string { return strings.TrimRight(string(c[:]), "\x00") }
	for bits := range 32 {
		given := func(i int) bool { return bits&(1<<i) != 0 }
		var args []string
		for i, letter := range []string{"-T", "-t", "-U", "-M", "-C"} {
			if given(i) {
				args = append(args, letter)
			}
		}
		got, r := show(t, list, append(args, "-x")...)
		row := func(time, stamp, uid, comm, pid, parent, ppid, cpu, ret, line string) string {
			var b strings.Builder
			if given(0) {
				fmt.Fprintf(&b, "%-9s", time)
			}
			if given(1) {
				fmt.Fprintf(&b, "%-8s", stamp)
			}
			if given(2) {
				fmt.Fprintf(&b, "%-6s", uid)
			}
			fmt.Fprintf(&b, "%-16s %-7s ", comm, pid)
			if given(3) {
				fmt.Fprintf(&b, "%-16s ", parent)
			}
			fmt.Fprintf(&b, "%-7s ", ppid)
			if given(4) {
				fmt.Fprintf(&b, "%-4s ", cpu)
			}
			fmt.Fprintf(&b, "%3s %s", ret, line)
			return b.String()
		}
		first := "PCOMM"
		if given(3) {
			first = "COMM"
		}
		want := []string{row("TIME", "TIME(s)", "UID", first, "PID", "PCOMM", "PPID", "CPU", "RET", "ARGS")}
		for _, e := range list {
			e := e.(execed)
			want = append(want, row(
				time.Unix(0, r.Wall.Nanos(e.TimeNs)).Format(time.TimeOnly), fmt.Sprintf("%.3f", float64(e.TimeNs-start)/1e9), fmt.Sprint(e.Uid),
				text(e.Comm), fmt.Sprint(e.Pid), text(e.ParentComm), fmt.Sprint(e.Ppid), fmt.Sprint(e.Cpu), fmt.Sprint(e.Ret), e.filename+" -a b c",
			))
		}
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		for i := range max(len(lines), len(want)) {
			if i >= len(lines) || i >= len(want) || lines[i] != want[i] {
				t.Errorf("execsnoop %q, line %d of %d:\n%q not\n%q", args, i, len(lines), lines[min(i, len(lines)-1)], want[min(i, len(want)-1)])
				break
			}
		}
	}
}

func TestJSON(t *testing.T) {
	var b strings.Builder
	for _, args := range []string{"-x --exit", "--exit-only", "--ancestors=2 --env PATH,HOME"} {
		text, r := show(t, samples, append(strings.Fields(args), "--json")...)
		fmt.Fprintf(&b, "$ execsnoop --json %s\n", args)
		times := map[string]bool{}
		for _, e := range samples {
			switch e := e.(type) {
			case execed:
				times[stamp(r, e.TimeNs)] = true
			case exited:
				times[stamp(r, e.TimeNs)] = true
			}
		}
		for line := range strings.Lines(text) {
			// The time depends on when the machine booted.
			at, rest, found := strings.Cut(strings.TrimPrefix(line, `{"time":"`), `",`)
			if !found || !times[at] {
				t.Errorf("at another time: %s", line)
			}
			b.WriteString("{" + rest)
		}
		if n := strings.Count(text, "\n"); r.Shown != uint64(n) {
			t.Errorf("%d lines, and %d counted", n, r.Shown)
		}
	}
	tooltest.Golden(t, "json.golden", b.String())
}

func stamp(r *trace.Run, ns uint64) string {
	return time.Unix(0, r.Wall.Nanos(ns)).UTC().Format("2006-01-02T15:04:05.000000000Z")
}

func TestJSONKeysAreDocumented(t *testing.T) {
	text, _ := show(t, samples, "--json", "-x", "--exit", "--ancestors", "--env=HOME,PATH")
	tooltest.JSONKeys(t, &about, text)
}

func TestColumnsAreDocumented(t *testing.T) {
	var headers []string
	for _, args := range []string{"", "-T -t -U -M -C", "--summary"} {
		text, _ := show(t, nil, strings.Fields(args)...)
		headers = append(headers, text)
	}
	tooltest.Columns(t, &about, headers...)
}

// An exec that is hidden has a hidden end; others' ends are shown.
func TestHiddenExecsHaveHiddenEnds(t *testing.T) {
	run := func(id uint64, name, arg string) event {
		return execed{bpfExec: bpfExec{Id: id, TimeNs: start, Pid: uint32(id), Comm: comm(name)}, filename: "/" + name, args: []string{name, arg}}
	}
	end := func(id uint64, name string) event {
		return exited{Id: id, TimeNs: start + 1e9, StartNs: start, Pid: uint32(id), Comm: comm(name)}
	}
	list := []event{
		run(1, "cat", "x"), run(2, "cat", "y"), run(3, "dog", "x"), end(4, "cat"), end(5, "dog"),
		end(3, "dog"), end(1, "cat"), end(2, "cat"),
	}
	for args, want := range map[string]string{
		"--exit":                "cat 1, cat 2, dog 3, cat 4 end, dog 5 end, dog 3 end, cat 1 end, cat 2 end",
		"--exit -n ^c":          "cat 1, cat 2, cat 4 end, cat 1 end, cat 2 end",
		"--exit -l x":           "cat 1, dog 3, cat 4 end, dog 5 end, dog 3 end, cat 1 end",
		"--exit -n ^c -l y":     "cat 2, cat 4 end, cat 2 end",
		"--exit-only -n ^c":     "cat 4 end, cat 1 end, cat 2 end",
		"--exit-only -l y":      "cat 4 end, dog 5 end, cat 2 end",
		"--exit-only -n bird":   "",
		"--exit -l ^/dog\\sx$":  "dog 3, cat 4 end, dog 5 end, dog 3 end",
		"--exit -l dog.dog":     "cat 4 end, dog 5 end", // the first argument is not shown either
		"--exit -l (?i)^/CAT.Y": "cat 2, cat 4 end, dog 5 end, cat 2 end",
	} {
		text, r := show(t, list, append(strings.Fields(args), "--json")...)
		var got []string
		for line := range strings.Lines(text) {
			var o struct {
				PID        int
				Comm, Kind string
			}
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatal(err)
			}
			s := fmt.Sprint(o.Comm, " ", o.PID)
			if o.Kind == "exit" {
				s += " end"
			}
			got = append(got, s)
		}
		if s := strings.Join(got, ", "); s != want || int(r.Shown) != len(got) {
			t.Errorf("execsnoop %s shows %s (%d), not %s", args, s, r.Shown, want)
		}
	}
}

// What is remembered until a process ends goes with it, and when it runs another
// program; without --exit and for execs that failed nothing is.
func TestNothingIsRememberedForGood(t *testing.T) {
	for _, args := range []string{"--exit", "--exit -x -n nothing", "--exit-only -l nothing", "--summary", "--summary -n nothing", "-x -n nothing"} {
		p, r := printerOf(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
		remembered := func() int {
			return len(p.running) + len(p.counts.running) + len(p.counts.hiding) + len(p.ending) + len(p.parts)
		}
		id := uint64(1)
		for range 3 {
			for range 23 {
				feed(t, p, r, execed{bpfExec: bpfExec{Id: id, Pid: 7}, filename: "/x"}.records()...)
				if p.opts.fails {
					feed(t, p, r, execed{bpfExec: bpfExec{Id: id * 12345, Pid: 7, Ret: -2}, filename: "/x"}.records()...)
				}
				if n := remembered(); n > 2 || n == 0 && p.opts.exits() {
					t.Fatalf("execsnoop %s: %d things are remembered of one process", args, n)
				}
				id += execStep
			}
			if p.opts.exits() {
				feed(t, p, r, exited{Id: id - execStep, Pid: 7}.records()...)
				feed(t, p, r, reaped{Id: id - execStep}.records()...)
			}
			if n := remembered(); n > 0 {
				t.Errorf("execsnoop %s: %d things are remembered of none", args, n)
			}
			id++
		}
	}
}

func TestWriteErrorsEndTheRun(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"", "--json", "--exit-only"} {
		p, r := printerOf(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(full)}
		var err error
		for id := range uint64(100_000) { // more than is buffered
			for _, e := range []event{execed{bpfExec: bpfExec{Id: id}, filename: "/x"}, exited{Id: id}, reaped{Id: id}} {
				for _, record := range e.records() {
					err = errors.Join(err, p.handle(r, record))
				}
			}
			if err != nil {
				break
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("execsnoop %s on a full disk: %v", args, err)
		}
	}
}

// Whatever a record holds, it makes no panic, and one line or none.
func FuzzHandle(f *testing.F) {
	for _, e := range samples {
		for _, record := range e.records() {
			f.Add(record, []byte{}, uint64(0))
		}
	}
	f.Add(exited{Id: 1}.records()[0], reaped{Id: 1, UserNs: 1 << 63, SystemNs: 1 << 63, RuntimeNs: 1 << 63}.records()[0], uint64(1))
	f.Add(part(1, bpfKindKIND_ARGS, 0, []byte("a\x00b")), execed{bpfExec: bpfExec{Id: 1, Argc: 1}, filename: "f", interp: "i"}.records()[0], uint64(0))
	f.Fuzz(func(t *testing.T, first, second []byte, id uint64) {
		for _, record := range [][]byte{first, second} {
			if len(record) >= 8 && id != 0 { // else they would seldom belong together
				copy(record, raw(&id))
			}
		}
		for _, args := range []string{
			"-x --max-bytes 3", "-x --exit -T -t -U -M -C -q --exe --cwd --tty --loginuid --ancestors --env A --tree --max-args 2",
			"-x --json --exit --ancestors --env A", "--summary",
		} {
			var b bytes.Buffer
			p, r := printerOf(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(&b)}
			for _, record := range [][]byte{first, second} {
				// Which are errors, TestHandleRefuses tells.
				_ = p.handle(r, slices.Clone(record))
			}
			if err := errors.Join(p.finish(r), r.Out.Flush()); err != nil {
				t.Fatal(err)
			}
			n := bytes.Count(b.Bytes(), []byte("\n"))
			if args != "--summary" && (n != int(r.Shown) || n > 0 && !bytes.HasSuffix(b.Bytes(), []byte("\n"))) {
				t.Errorf("execsnoop %s: %d lines for %d rows: %q", args, n, r.Shown, b.String())
			}
			if strings.Contains(args, "json") {
				for line := range bytes.Lines(b.Bytes()) {
					if !json.Valid(line) {
						t.Errorf("not JSON: %q", line)
					}
				}
			}
		}
	})
}
