package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// event is a record of the ring buffer, as a test writes it down.
type event struct {
	bpfEvent
	path  string
	names string // leaf first, with a slash for each NUL
}

// record lays an event out as the kernel side does.
func (e event) record() []byte {
	names := strings.ReplaceAll(e.names, "/", "\x00")
	e.PathLen, e.NamesLen = uint16(len(e.path)), uint16(len(names))
	head := unsafe.Slice((*byte)(unsafe.Pointer(&e.bpfEvent)), unsafe.Sizeof(e.bpfEvent))
	return slices.Concat(head, []byte(e.path), []byte(names))
}

func comm(name string) (c [16]uint8) {
	copy(c[:], name)
	return c
}

// The marks, as the record has them.
const (
	compat     = uint8(bpfMarkMARK_COMPAT)
	unread     = uint8(bpfMarkMARK_UNREADABLE)
	pathCut    = uint8(bpfMarkMARK_PATH_CUT)
	fromBase   = uint8(bpfMarkMARK_BASE | bpfMarkMARK_NAMES)
	submitted  = uint8(bpfMarkMARK_SUBMITTED)
	completed  = uint8(bpfMarkMARK_COMPLETED)
	inRoot     = uint8(bpfMarkMARK_IN_ROOT)
	walked     = uint8(bpfMarkMARK_NAMES)
	start      = 5_000_000_000 // ns since boot
	openat     = uint8(bpfViaVIA_OPENAT)
	openatRing = uint8(bpfViaVIA_URING_OPENAT)
)

// samples are what the golden files show: each is one that its path tells of.
var samples = []event{
	{
		bpfEvent{
			TimeNs: start, LatencyNs: 12345, CgroupId: 4242, Flags: 0o301, Pid: 12458, Tid: 12459, Ppid: 1, Uid: 1000,
			Ret: 3, Mode: 0o664, Via: openat, Marks: walked, Comm: comm("open"),
		}, "tmp.txt", "tmp.txt/home/",
	},
	{
		bpfEvent{
			TimeNs: start + 289_999, Flags: 0o2000000, Pid: 7, Tid: 7, Ret: -int32(unix.ENOENT), Via: uint8(bpfViaVIA_OPEN), Comm: comm("cat"),
		}, "/etc/nosuch.conf", "",
	},
	{
		bpfEvent{
			TimeNs: start + 1_500_000_000, LatencyNs: 1, Flags: 0o4010002, Pid: 4194304, Tid: 4194304, Uid: 4294967294, Ret: 12345, Via: uint8(bpfViaVIA_OPENAT2),
			Marks: walked, Comm: comm("a\tb\x1b[2J"),
		}, "new\nline\x1b[2J\xff\u202e\\", "new\nline\x1b[2J\xff\u202e\\/odd/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.EFAULT), Pid: 8, Via: openat, Marks: unread, Comm: comm("unreadable")}, "", "",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: 4, Pid: 8, Via: openat, Marks: unread | walked, Comm: comm("unread-opened")}, "", "cold/srv/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.ESTALE), Pid: 9, Via: uint8(bpfViaVIA_HANDLE), Marks: fromBase, Comm: comm("handle-failed")}, "", "srv/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: 5, Pid: 9, Via: uint8(bpfViaVIA_HANDLE), Marks: walked, Comm: comm("handle")}, "", "f/srv/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.ENOENT), Pid: 10, Via: openat, Marks: fromBase, Comm: comm("empty")}, "", "site/srv/",
	},
	{
		bpfEvent{
			TimeNs: start + 2e9, Ret: 6, Pid: 11, Flags: 0o302, Mode: 0o600, Via: openat, Marks: walked,
			NamesMarks: uint8(paths.Deleted), Comm: comm("deleted"),
		}, "/tmp", "#131/tmp/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: 6, Pid: 12, Via: openat, Marks: walked, NamesMarks: uint8(paths.Cut), Comm: comm("deep")}, "leaf", "leaf/d9/d8/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: 6, Pid: 13, Via: openat, Marks: walked, NamesMarks: uint8(paths.Unreachable), Comm: comm("unreachable")}, "../out", "out/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: 6, Pid: 13, Via: openat, Marks: walked, NamesMarks: uint8(paths.Unreachable), Comm: comm("a pipe")}, "/proc/self/fd/5", "",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.ENAMETOOLONG), Pid: 14, Via: openat, Marks: pathCut, Comm: comm("cut")}, "/xxxxxxxxxx", "",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.EACCES), Pid: 15, Via: openat, Marks: fromBase, Comm: comm("relative")}, "conf/x", "site/srv/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.EACCES), Pid: 15, Via: openat, Marks: fromBase, Comm: comm("at the root")}, "x", "",
	},
	{
		bpfEvent{
			TimeNs: start + 2e9, Ret: -int32(unix.ENOENT), Pid: 15, Via: openat, Marks: fromBase, NamesMarks: uint8(paths.Deleted),
			Comm: comm("in a deleted dir"),
		}, "x", "gone/tmp/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.EXDEV), Pid: 15, Via: uint8(bpfViaVIA_OPENAT2), Marks: fromBase | inRoot, Comm: comm("in a root")}, "/etc/x", "jail/srv/",
	},
	{
		bpfEvent{TimeNs: start + 2e9, Ret: -int32(unix.EXDEV), Pid: 15, Via: uint8(bpfViaVIA_OPENAT2), Marks: inRoot, Comm: comm("root unknown")}, "/etc/x", "",
	},
	{
		bpfEvent{TimeNs: start + 3e9, Ret: 3, Pid: 16, Flags: 0o1101, Mode: 0o644, Via: uint8(bpfViaVIA_CREAT), Marks: compat | walked, Comm: comm("32-bit")}, "/tmp/c", "c/tmp/",
	},
	{
		bpfEvent{TimeNs: start + 3e9, Request: 77, Pid: 17, Tid: 18, Flags: 0o101, Mode: 0o600, Via: openatRing, Marks: submitted, Comm: comm("ring")}, "/var/r", "",
	},
	{
		bpfEvent{TimeNs: start + 4e9, LatencyNs: 1e9, Request: 77, Pid: 99, Tid: 99, Ret: 8, Via: openatRing, Marks: completed | walked, Comm: comm("worker")}, "", "r/var/",
	},
	{
		bpfEvent{TimeNs: start + 100_000e9, LatencyNs: 3_600e9, Ret: 3, Pid: 19, Via: openat, Marks: walked, Comm: comm("漢字")}, "/long/way", "way/long/",
	},
	{
		bpfEvent{TimeNs: start + 100_000e9, Ret: -530, Pid: 20, Via: 200, Comm: comm("sixteen-chars-no")}, "/x", "",
	},
}

// show gives what opensnoop with these arguments writes for a list of events, its
// header included.
func show(t *testing.T, list []event, args ...string) (text string, r *trace.Run) {
	t.Helper()
	var b bytes.Buffer
	p := newPrinter(t, args...)
	r = &trace.Run{Out: output.NewWriter(&b)}
	if h := p.header(); h != "" && !p.opts.JSON {
		b.WriteString(h + "\n")
	}
	for _, e := range list {
		record := e.record()
		if err := p.handle(r, record); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		clear(record) // it is the reader's again
	}
	if p.opts.summary {
		if err := p.counts.write(r.Out); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Out.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String(), r
}

func TestRows(t *testing.T) {
	var b strings.Builder
	for _, args := range []string{
		"", "-T", "-U", "-T -U", "-t 7", "-F", "-e", "-e -F --flag-names", "--errno-names", "--latency",
		"-T -U -e -F --errno-names --flag-names --latency", "--path-prefix /etc", "--path *.conf", "--path */srv/* -F", "--summary", "--summary -F",
	} {
		text, _ := show(t, samples, strings.Fields(args)...)
		fmt.Fprintf(&b, "%s\n%s\n", strings.TrimSpace("$ opensnoop "+args), text)
	}
	tooltest.Golden(t, "rows.golden", b.String())
}

// Each row is one line that a terminal shows as it is.
func TestRowsAreSafe(t *testing.T) {
	for _, args := range []string{"", "-F", "-e -F --flag-names", "--summary", "--json"} {
		text, r := show(t, samples, strings.Fields(args)...)
		for _, c := range text {
			if c != '\n' && (c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x202e || c == 0xfffd && args != "--json") {
				t.Errorf("opensnoop %s writes %q raw", args, c)
			}
		}
		if n := strings.Count(text, "\n"); args == "" && n != int(r.Shown)+1 {
			t.Errorf("%d rows were counted, and %d lines written", r.Shown, n)
		}
	}
}

// The columns that BCC has too are laid out by its formats. (But where a time or a
// uid leaves no room for the blank behind it, from 1,000 seconds and uid 100,000
// on, it has one nevertheless; see rows.golden.)
func TestRowsAreBCCs(t *testing.T) {
	var list []event
	for i, name := range []string{"a", "sh", "sixteen-chars-no"[:15], "sixteen-chars-no"} {
		for j, ret := range []int32{0, 3, 99, 1024, 99999, -1, -2, -13, -133} {
			for k, pid := range []uint32{1, 4321, 999999, 4194304} {
				list = append(list, event{
					bpfEvent{
						TimeNs: start + uint64(len(list))*1_234_567, Ret: ret, Pid: pid, Uid: pid % 100_000, Via: openat, Comm: comm(name),
						Flags: uint64(i | j<<6 | k<<9), Mode: 0o640,
					}, fmt.Sprintf("/p%d", len(list)), "",
				})
			}
		}
	}
	base := func(e event) string {
		fd, errno := max(e.Ret, -1), max(-e.Ret, 0)
		return fmt.Sprintf("%-6d %-16s %4d %3d ", e.Pid, strings.TrimRight(string(e.Comm[:]), "\x00"), fd, errno)
	}
	const header = "%-6s %-16s %4s %3s "
	for _, test := range []struct {
		args   string
		header string
		row    func(e event) string
	}{
		{"", fmt.Sprintf(header+"%s", "PID", "COMM", "FD", "ERR", "PATH"), func(e event) string { return base(e) + e.path }},
		{
			"-T -U", fmt.Sprintf("%-14s%-6s"+header+"%s", "TIME(s)", "UID", "PID", "COMM", "FD", "ERR", "PATH"),
			func(e event) string {
				return fmt.Sprintf("%-14.9f%-6d", float64(e.TimeNs-start)/1e9, e.Uid) + base(e) + e.path
			},
		},
		{
			// VIA is ours, behind all of BCC's.
			"-e", fmt.Sprintf(header+"%-8s %-4s %-32s VIA", "PID", "COMM", "FD", "ERR", "FLAGS", "MODE", "PATH"),
			func(e event) string {
				mode := fmt.Sprintf("%04o", e.Mode)
				if e.Flags&unix.O_CREAT == 0 {
					mode = "n/a "
				}
				return base(e) + fmt.Sprintf("%08o %s %-32s openat", e.Flags, mode, e.path)
			},
		},
		{"-t 1", fmt.Sprintf(header+"%s", "TID", "COMM", "FD", "ERR", "PATH"), func(e event) string { e.Pid = e.Tid; return base(e) + e.path }},
	} {
		text, _ := show(t, list, strings.Fields(test.args)...)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) != len(list)+1 || lines[0] != test.header {
			t.Errorf("opensnoop %s: %d lines for %d events, header\n%q not\n%q", test.args, len(lines), len(list), lines[0], test.header)
			continue
		}
		for i, e := range list {
			if want := test.row(e); lines[i+1] != want {
				t.Errorf("opensnoop %s:\n%q not\n%q", test.args, lines[i+1], want)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	text, r := show(t, samples, "--json")
	var b strings.Builder
	i := 0
	for _, e := range samples {
		if e.Marks&submitted != 0 {
			continue
		}
		line := strings.Split(text, "\n")[i]
		i++
		// The time depends on when the machine booted.
		stamp := time.Unix(0, r.Wall.Nanos(e.TimeNs)).UTC().Format("2006-01-02T15:04:05.000000000Z")
		masked, found := strings.CutPrefix(line, `{"time":"`+stamp+`",`)
		if !found {
			t.Errorf("not at %s: %s", stamp, line)
		}
		fmt.Fprintf(&b, "{%s\n", masked)
	}
	if n := strings.Count(text, "\n"); n != i || r.Shown != uint64(i) {
		t.Errorf("%d lines, %d counted, and %d events", n, r.Shown, i)
	}
	tooltest.Golden(t, "json.golden", b.String())
}

func TestJSONKeysAreDocumented(t *testing.T) {
	text, _ := show(t, samples, "--json")
	tooltest.JSONKeys(t, &about, text)
}

func TestColumnsAreDocumented(t *testing.T) {
	var headers []string
	for _, args := range []string{"", "-T -U -e --latency", "--summary"} {
		text, _ := show(t, nil, strings.Fields(args)...)
		headers = append(headers, text)
	}
	tooltest.Columns(t, &about, headers...)
}

// open(2) takes a mode to heart with two flags only, one of which shares a bit
// with O_DIRECTORY.
func TestHasMode(t *testing.T) {
	for flags, want := range map[uint64]bool{
		0: false, unix.O_WRONLY | unix.O_TRUNC: false, unix.O_CREAT: true, unix.O_CREAT | unix.O_EXCL: true,
		unix.O_DIRECTORY: false, unix.O_TMPFILE: true, unix.O_TMPFILE | unix.O_RDWR: true, unix.O_TMPFILE &^ unix.O_DIRECTORY: false,
	} {
		if o := (opened{bpfEvent: bpfEvent{Flags: flags}}); o.hasMode() != want {
			t.Errorf("%#o: %v", flags, !want)
		}
	}
}

func TestEveryWayHasAName(t *testing.T) {
	for via := bpfViaVIA_OPEN; via <= bpfViaVIA_URING_OPENAT2; via++ {
		o := opened{bpfEvent: bpfEvent{Via: uint8(via)}}
		if name := o.via(); name == "" || name == "?" {
			t.Errorf("way %d is called %q", via, name)
		}
	}
}

func TestHandleRefusesCutRecords(t *testing.T) {
	p, r := newPrinter(t), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	record := samples[0].record()
	for n := range len(record) {
		if err := p.handle(r, record[:n]); err == nil {
			t.Errorf("%d bytes of %d were taken", n, len(record))
		}
	}
	if r.Shown != 0 {
		t.Errorf("%d rows were shown", r.Shown)
	}
}

func TestWriteErrorsEndTheRun(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"", "--json"} {
		p, r := newPrinter(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(full)}
		record := samples[0].record()
		var err error
		for range 100_000 { // more than is buffered
			if err = p.handle(r, record); err != nil {
				break
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("opensnoop %s on a full disk: %v", args, err)
		}
	}
}

// begun and ended are the two halves of an io_uring request.
func begun(request uint64, path string) event {
	return event{bpfEvent{Request: request, Pid: 1, Via: openatRing, Marks: submitted | fromBase, Comm: comm("ring")}, path, "base/"}
}

func ended(request uint64, ret int32) event {
	return event{bpfEvent{Request: request, Pid: 2, Ret: ret, LatencyNs: 5000 * request, Via: openatRing, Marks: completed}, "", ""}
}

func TestRequestsAreJoined(t *testing.T) {
	list := []event{
		ended(9, 3), // its beginning was lost
		begun(1, "/one"), begun(2, "/two"), begun(3, "/three"),
		ended(3, -2), ended(1, 4),
		begun(1, "/one again"), ended(1, 5), ended(1, 6), // the last has no beginning
		begun(2, "/two, whose first end was lost"), ended(2, -13),
		begun(4, "/never ends"),
	}
	for args, want := range map[string]string{
		"":                 "/three -2, /one 4, /one again 5, /two, whose first end was lost -13",
		"-x":               "/three -2, /two, whose first end was lost -13",
		"--min-latency 10": "/three -2, /two, whose first end was lost -13",
		"--path */one*":    "/one 4, /one again 5",
	} {
		text, r := show(t, list, append([]string{"--json"}, strings.Fields(args)...)...)
		var got []string
		for line := range strings.Lines(text) {
			var o struct {
				PID, FD, Errno int
				Path           string
			}
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatal(err)
			}
			if o.PID != 1 {
				t.Errorf("%s is shown of process %d, which only completed it", o.Path, o.PID)
			}
			got = append(got, fmt.Sprint(o.Path, " ", o.FD-(o.Errno-min(o.Errno, 1))))
		}
		if s := strings.Join(got, ", "); s != want || int(r.Shown) != len(got) {
			t.Errorf("opensnoop %s shows %s (%d), not %s", args, s, r.Shown, want)
		}
	}
}

func TestRequestsThatNeverEndAreBounded(t *testing.T) {
	p, r := newPrinter(t), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	for i := range uint64(maxPending + 100) {
		if err := p.handle(r, begun(i+1, "/x").record()); err != nil {
			t.Fatal(err)
		}
		if len(p.pending) > maxPending {
			t.Fatalf("%d requests are waited for", len(p.pending))
		}
	}
	last := uint64(maxPending + 100)
	if err := p.handle(r, ended(last, 3).record()); err != nil || r.Shown != 1 || len(p.pending) != maxPending-1 {
		t.Errorf("the last one: %v, %d shown, %d waited for", err, r.Shown, len(p.pending))
	}
}

// With --path-root host a path inside a file system becomes one on this machine.
func TestHostPaths(t *testing.T) {
	p := newPrinter(t, "-F", "--path-root", "host")
	var err error
	if p.mounts, err = paths.HostMounts(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self", &st); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	r := &trace.Run{Out: output.NewWriter(&b)}
	e := event{
		bpfEvent{
			Ret: 3, Via: openat, Marks: walked, NamesMarks: uint8(paths.WholeFS), Comm: comm("pod"),
			Dev: unix.Major(st.Dev)<<20 | unix.Minor(st.Dev),
		}, "/p/version", "version/",
	}
	if err := p.handle(r, e.record()); err != nil {
		t.Fatal(err)
	}
	e.Dev = 0xffffffff // mounted nowhere here: what the program gave is all there is
	if err := errors.Join(p.handle(r, e.record()), r.Out.Flush()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	first := lines[0][strings.Index(lines[0], "/"):]
	if _, err := os.Stat(first); err != nil || filepath.Base(first) != "version" || first == e.path {
		t.Errorf("it is not at %s: %v", first, err)
	}
	if !strings.HasSuffix(lines[1], "   0 "+e.path) {
		t.Errorf("of an unknown file system: %s", lines[1])
	}
}

func TestRowsAllocateNothing(t *testing.T) {
	p, r := newPrinter(t), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
	record := samples[0].record()
	var err error
	n := testing.AllocsPerRun(1000, func() {
		if e := p.handle(r, record); e != nil {
			err = e
		}
	})
	if n >= 1 || err != nil {
		t.Errorf("%v allocations a row, %v", n, err)
	}
}

// Whatever a record holds, it makes no panic, and one line or none.
func FuzzHandle(f *testing.F) {
	for _, e := range samples {
		f.Add(e.record())
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		for _, args := range []string{"", "-T -U -e -F --flag-names --errno-names --latency", "--json"} {
			var b bytes.Buffer
			p, r := newPrinter(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(&b)}
			if err := p.handle(r, record); err != nil {
				continue
			}
			if err := r.Out.Flush(); err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b.Bytes(), []byte("\n")); n != int(r.Shown) || n > 0 && !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
				t.Errorf("opensnoop %s: %d lines for %d rows: %q", args, n, r.Shown, b.String())
			}
			if args == "--json" && b.Len() > 0 && !json.Valid(b.Bytes()) {
				t.Errorf("not JSON: %q", b.String())
			}
		}
	})
}
