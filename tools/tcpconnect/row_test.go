package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/tooltest"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// record lays an attempt out as the kernel side does.
func (a bpfAttempt) record() []byte {
	return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&a)), unsafe.Sizeof(a)))
}

func comm(name string) (c [16]uint8) {
	copy(c[:], name)
	return c
}

func addr(text string) [16]uint8 { return netip.MustParseAddr(text).As16() }

// The marks and results, as the record has them.
const (
	noSource  = uint8(bpfMarkMARK_NO_SOURCE)
	noLatency = uint8(bpfMarkMARK_NO_LATENCY)
	compat    = uint8(bpfMarkMARK_COMPAT)
	ok        = uint8(bpfResultRESULT_OK)
	failed    = uint8(bpfResultRESULT_FAILED)
	aborted   = uint8(bpfResultRESULT_ABORTED)
	pending   = uint8(bpfResultRESULT_PENDING)
	ms        = uint64(time.Millisecond)
)

// samples are what the golden files show: each is one that its comm tells of.
var samples = []bpfAttempt{
	{
		TimeNs: start, LatencyNs: 123_456, CgroupId: 4242, Pid: 12458, Tid: 12459, Uid: 1000, Netns: 4026531833, Sport: 45678, Dport: 443,
		Result: ok, Saddr: addr("192.0.2.1"), Daddr: addr("198.51.100.7"), Comm: comm("curl"),
	},
	{
		TimeNs: start + 289*ms, LatencyNs: 1, Pid: 7, Tid: 7, Netns: 4026531833, Sport: 1, Dport: 65535,
		Result: ok, Saddr: addr("255.255.255.255"), Daddr: addr("255.255.255.254"), Comm: comm("widest IPv4"),
	},
	{
		TimeNs: start + 300*ms, LatencyNs: 3 * ms, Pid: 8, Tid: 8, Sport: 2, Dport: 80, Result: ok,
		Saddr: addr("::1"), Daddr: addr("::1"), Comm: comm("short IPv6"),
	},
	{
		TimeNs: start + 301*ms, LatencyNs: 4 * ms, Pid: 9, Tid: 9, Sport: 3, Dport: 80, Result: ok,
		Saddr: addr("::1"), Daddr: addr("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"), Comm: comm("long destination"),
	},
	{
		TimeNs: start + 302*ms, LatencyNs: 4 * ms, Pid: 10, Tid: 10, Sport: 3, Dport: 80, Result: ok,
		Saddr: addr("2001:db8:1111:2222:3333:4444:5555:6666"), Daddr: addr("2001:db8::2"), Comm: comm("long source"),
	},
	{
		TimeNs: start + 303*ms, LatencyNs: 5 * ms, Pid: 11, Tid: 11, Sport: 4, Dport: 80, Result: ok,
		Saddr: addr("::ffff:192.0.2.1"), Daddr: addr("::ffff:192.0.2.80"), Comm: comm("v4 mapped"),
	},
	{
		TimeNs: start + 400*ms, LatencyNs: 77_000, Error: int32(unix.ECONNREFUSED), Pid: 12, Tid: 12, Sport: 5, Dport: 81, Result: failed,
		Saddr: addr("127.0.0.1"), Daddr: addr("127.0.0.1"), Comm: comm("refused"),
	},
	{
		TimeNs: start + 401*ms, LatencyNs: 131_072*ms + 499_999, Error: int32(unix.ETIMEDOUT), Pid: 13, Tid: 13, Sport: 6, Dport: 81, Result: failed,
		Retransmits: 6, Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.1"), Comm: comm("no answer"),
	},
	{
		TimeNs: start + 402*ms, LatencyNs: 2000, Error: int32(unix.ENETUNREACH), Pid: 14, Tid: 14, Dport: 82, Result: failed, Marks: noSource,
		Daddr: addr("203.0.113.2"), Comm: comm("no route"),
	},
	{
		TimeNs: start + 403*ms, Error: int32(unix.ENETUNREACH), Pid: 14, Tid: 14, Dport: 82, Result: failed, Marks: noSource | noLatency,
		Daddr: addr("2001:db8::3"), Comm: comm("no beginning"),
	},
	{
		TimeNs: start + 404*ms, LatencyNs: 2000, Error: 530, Pid: 15, Tid: 15, Sport: 7, Dport: 83, Result: failed,
		Saddr: addr("127.0.0.1"), Daddr: addr("127.0.0.1"), Comm: comm("kernel's error"),
	},
	{
		TimeNs: start + 405*ms, LatencyNs: 2000, Pid: 15, Tid: 15, Sport: 7, Dport: 83, Result: failed,
		Saddr: addr("127.0.0.1"), Daddr: addr("127.0.0.1"), Comm: comm("unknown error"), Via: uint8(bpfViaVIA_IO_URING),
	},
	{
		TimeNs: start + 500*ms, LatencyNs: 2 * ms, Pid: 16, Tid: 16, Sport: 8, Dport: 84, Result: aborted, Retransmits: 1,
		Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.3"), Comm: comm("closed"),
	},
	{
		TimeNs: start + 501*ms, Pid: 17, Tid: 17, Sport: 9, Dport: 85, Result: pending,
		Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.4"), Comm: comm("under way"),
	},
	{
		TimeNs: start - 1500*ms, LatencyNs: 2000 * ms, Pid: 4194304, Tid: 4194304, Uid: 4294967294, Sport: 10, Dport: 0, Result: ok,
		Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.5"), Comm: comm("before the first"), Via: uint8(bpfViaVIA_FASTOPEN),
	},
	{
		TimeNs: start + 100_000*uint64(time.Second), LatencyNs: 1_000_000 * ms, Pid: 18, Tid: 18, Uid: 65534, Sport: 65535, Dport: 53, Result: ok,
		Retransmits: 12345, Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.6"), Comm: comm("large numbers"), Via: uint8(bpfViaVIA_MPTCP),
	},
	{
		TimeNs: start + 600*ms, LatencyNs: 9 * ms, Pid: 19, Tid: 19, Sport: 11, Dport: 86, Result: ok, Marks: compat, Via: uint8(bpfViaVIA_CONNECT),
		Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.7"), Comm: comm("a\tb\x1b[2J\n\xff"),
	},
	{
		TimeNs: start + 601*ms, LatencyNs: 9 * ms, Pid: 20, Tid: 20, Sport: 12, Dport: 87, Result: ok, Via: uint8(bpfViaVIA_KERNEL),
		Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.8"), Comm: comm("漢字"),
	},
	{
		TimeNs: start + 602*ms, LatencyNs: 9 * ms, Pid: 21, Tid: 21, Sport: 13, Dport: 88, Result: 200, Via: 200,
		Saddr: addr("192.0.2.1"), Daddr: addr("203.0.113.9"), Comm: comm("sixteen-chars-no"),
	},
}

// lookups are the names that some of the samples' addresses were looked up by.
var lookups = []struct {
	addr, name string
	latency    time.Duration
}{
	{"198.51.100.7", "www.example.org", 12345 * time.Microsecond},
	{"::1", "localhost", -1},
	{"2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "long.example.org", 1},
	{"203.0.113.1", "new\nline\x1b[2J\\", time.Millisecond},
	{"203.0.113.7", "\xff\u202eevil ", time.Second},
	{"203.0.113.8", "漢字.example.org", 2 * time.Second},
}

func printerFor(t testing.TB, args ...string) *printer {
	t.Helper()
	p := newPrinter(parsed(t, args...), &bytes.Buffer{})
	if p.names != nil {
		for _, l := range lookups {
			p.names.learn(netip.MustParseAddr(l.addr), answer{
				name: l.name, until: 1 << 62, latency: l.latency,
			})
		}
	}
	return p
}

// show gives what a printer writes of a list of attempts, its header included.
func show(t testing.TB, p *printer, list []bpfAttempt) (text string, r *trace.Run) {
	t.Helper()
	var b bytes.Buffer
	r = &trace.Run{Out: output.NewWriter(&b)}
	if h := p.header(); h != "" && !p.opts.JSON {
		b.WriteString(h + "\n")
	}
	for _, a := range list {
		record := a.record()
		if err := p.handle(r, record); err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		clear(record) // it is the reader's again
	}
	if p.opts.count {
		if err := p.writeCounts(r); err != nil {
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
		"", "-t", "-U", "-L", "--outcome", "-d", "--domains", "-t -U -L", "-L --outcome", "--outcome -d", "-t -U -L --outcome -d",
	} {
		text, _ := show(t, printerFor(t, strings.Fields(args)...), samples)
		fmt.Fprintf(&b, "%s\n%s\n", strings.TrimSpace("$ tcpconnect "+args), text)
	}
	tooltest.Golden(t, "rows.golden", b.String())
}

// On a terminal the names of the columns come again where the columns move.
func TestHeaderOnATerminal(t *testing.T) {
	p := printerFor(t, "-L", "--outcome")
	p.terminal = true
	text, _ := show(t, p, samples)
	var headers, at []int
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "PID") {
			headers = append(headers, i)
			at = append(at, strings.Index(line, "RESULT"))
		}
	}
	// Above the fourth and the fifth attempt, which have longer addresses than any before.
	if !slices.Equal(headers, []int{0, 4, 6}) || !slices.IsSorted(at) || at[2]-at[0] != 2*(38-addrWidth) {
		t.Errorf("headers in the lines %v, with RESULT at %v, in\n%s", headers, at, text)
	}
}

// Each column begins where its name says, whatever length the addresses have.
func TestColumnsKeepTheirPlaces(t *testing.T) {
	list := slices.DeleteFunc(slices.Clone(samples), func(a bpfAttempt) bool {
		return a.Comm == comm("a\tb\x1b[2J\n\xff") || a.Error == 530 || a.Retransmits > 9999 // longer than their columns
	})
	for _, args := range []string{"", "-L", "--outcome", "-L --outcome -d", "--domains"} {
		p := printerFor(t, strings.Fields(args)...)
		p.terminal = true
		text, _ := show(t, p, list)
		header := ""
		for line := range strings.Lines(text) {
			line = strings.ReplaceAll(line, "漢字", "kanj") // which take two cells each
			if strings.HasPrefix(line, "PID") {
				header = line
				continue
			}
			for _, name := range strings.Fields(header) {
				at := strings.Index(header, name)
				switch name {
				case "PID":
					continue
				case "LAT(ms)", "RETR": // right aligned
					if end := at + len(name); line[end-1] == ' ' || end < len(line)-1 && line[end] != ' ' {
						t.Errorf("tcpconnect %s: %s does not end at %d of %q", args, name, end, line)
					}
					continue
				case "QUERY", "DOMAIN":
					if len(line) <= at {
						continue // no name is known
					}
				}
				if len(line) <= at || line[at-1] != ' ' || line[at] == ' ' {
					t.Errorf("tcpconnect %s: %s is not at %d of %q", args, name, at, line)
				}
			}
		}
	}
}

// Each row is one line that a terminal shows as it is.
func TestRowsAreSafe(t *testing.T) {
	for _, args := range []string{"", "-d --outcome", "--domains", "--json", "--json -d", "-c", "-c --json"} {
		text, r := show(t, printerFor(t, strings.Fields(args)...), samples)
		for _, c := range text {
			if c != '\n' && (c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x202e || c == 0xfffd && !strings.HasPrefix(args, "--json")) {
				t.Errorf("tcpconnect %s writes %q raw", args, c)
			}
		}
		n := strings.Count(text, "\n")
		if !strings.Contains(args, "--json") {
			n--
		}
		if r.Shown != uint64(len(samples)) || !strings.Contains(args, "-c") && n != len(samples) {
			t.Errorf("tcpconnect %s: %d rows were counted, and %d lines written", args, r.Shown, n)
		}
	}
}

// The columns that BCC has too are laid out by its formats, but that COMM is 16 wide, and
// not cut after 12. (And where a time or a uid leaves no room for the blank behind it,
// there is one nevertheless; see rows.golden.)
func TestRowsAreBCCs(t *testing.T) {
	var list []bpfAttempt
	for i, name := range []string{"a", "curl", "sixteen-chars-no"[:15], "sixteen-chars-no"} {
		for j, pid := range []uint32{1, 4321, 4194304} {
			for k, to := range []string{"1.2.3.4", "255.255.255.255", "::1", "2001:db8::1"} {
				list = append(list, bpfAttempt{
					TimeNs: start + uint64(len(list))*1_234_567, Pid: pid, Uid: pid % 100_000, Saddr: addr(to), Daddr: addr(to),
					Sport: uint16(1 + i*j*k*7000), Dport: uint16(1 + i*10_000), Comm: comm(name),
				})
			}
		}
	}
	text := func(a [16]uint8) string { return netip.AddrFrom16(a).Unmap().String() }
	row := func(a bpfAttempt, ports ...any) string {
		family := 6
		if netip.AddrFrom16(a.Daddr).Is4In6() {
			family = 4
		}
		format := "%-7d %-16s %-2d %-16s "
		if len(ports) > 0 {
			format += "%-6d "
		}
		args := append([]any{a.Pid, strings.TrimRight(string(a.Comm[:]), "\x00"), family, text(a.Saddr)}, ports...)
		return fmt.Sprintf(format+"%-16s %-6d", append(args, text(a.Daddr), a.Dport)...)
	}
	head := fmt.Sprintf("%-7s %-16s %-2s %-16s %-16s %-6s", "PID", "COMM", "IP", "SADDR", "DADDR", "DPORT")
	for _, test := range []struct {
		args   string
		header string
		row    func(a bpfAttempt) string
	}{
		{"", head, func(a bpfAttempt) string { return row(a) }},
		{"-d", head + " QUERY", func(a bpfAttempt) string {
			if text(a.Daddr) == "::1" {
				return row(a) + " localhost"
			}
			return row(a)
		}},
		{
			"-t -U", fmt.Sprintf("%-9s%-6s", "TIME(s)", "UID") + head,
			func(a bpfAttempt) string {
				return fmt.Sprintf("%-9.3f%-6d", float64(a.TimeNs-start)/1e9, a.Uid) + row(a)
			},
		},
		{
			"-L", fmt.Sprintf("%-7s %-16s %-2s %-16s %-6s %-16s %-6s", "PID", "COMM", "IP", "SADDR", "LPORT", "DADDR", "DPORT"),
			func(a bpfAttempt) string { return row(a, a.Sport) },
		},
	} {
		got, _ := show(t, printerFor(t, strings.Fields(test.args)...), list)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if len(lines) != len(list)+1 || lines[0] != strings.TrimRight(test.header, " ") {
			t.Errorf("tcpconnect %s: %d lines for %d attempts, header\n%q not\n%q", test.args, len(lines), len(list), lines[0], test.header)
			continue
		}
		for i, a := range list {
			if want := strings.TrimRight(test.row(a), " "); lines[i+1] != want {
				t.Errorf("tcpconnect %s:\n%q not\n%q", test.args, lines[i+1], want)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	var b strings.Builder
	for _, args := range []string{"--json", "--json -d"} {
		text, r := show(t, printerFor(t, strings.Fields(args)...), samples)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) != len(samples) {
			t.Fatalf("%d lines of %d attempts", len(lines), len(samples))
		}
		fmt.Fprintf(&b, "$ tcpconnect %s\n", args)
		for i, a := range samples {
			// The time depends on when the machine booted.
			stamp := time.Unix(0, r.Wall.Nanos(a.TimeNs)).UTC().Format("2006-01-02T15:04:05.000000000Z")
			masked, found := strings.CutPrefix(lines[i], `{"time":"`+stamp+`",`)
			if !found {
				t.Errorf("not at %s: %s", stamp, lines[i])
			}
			fmt.Fprintf(&b, "{%s\n", masked)
		}
	}
	tooltest.Golden(t, "json.golden", b.String())
}

// The exact name can be had from JSON, whatever it is.
func TestNamesInJSON(t *testing.T) {
	text, _ := show(t, printerFor(t, "--json", "--domains"), samples)
	names := map[string]string{}
	for line := range strings.Lines(text) {
		var o struct {
			Daddr, Query string
			Exact        []byte `json:"query_bytes"`
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		names[o.Daddr] = o.Query
		if o.Exact != nil {
			names[o.Daddr] = string(o.Exact)
		}
	}
	for _, l := range lookups {
		if names[l.addr] != l.name {
			t.Errorf("%s has the name %q, not %q", l.addr, names[l.addr], l.name)
		}
	}
}

func TestJSONKeysAreDocumented(t *testing.T) {
	attempts, _ := show(t, printerFor(t, "--json", "-d"), samples)
	counts, _ := show(t, printerFor(t, "--json", "-c", "-L"), samples)
	tooltest.JSONKeys(t, &about, attempts+counts)
}

func TestColumnsAreDocumented(t *testing.T) {
	var headers []string
	for _, args := range []string{"-t -U -L --outcome -d", "--domains", "-c", "-c -L"} {
		text, _ := show(t, printerFor(t, strings.Fields(args)...), nil)
		headers = append(headers, text)
	}
	tooltest.Columns(t, &about, headers...)
}

func TestEveryWayHasAName(t *testing.T) {
	for via := bpfViaVIA_CONNECT; via <= bpfViaVIA_KERNEL; via++ {
		a := attempt{bpfAttempt: bpfAttempt{Via: uint8(via)}}
		if name := a.via(); name == "" || name == "?" {
			t.Errorf("way %d is called %q", via, name)
		}
	}
}

func TestHandleRefusesCutRecords(t *testing.T) {
	p, r := printerFor(t, "-d"), &trace.Run{Out: output.NewWriter(&bytes.Buffer{})}
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
		p, r := printerFor(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(full)}
		record := samples[0].record()
		var err error
		for range 100_000 { // more than is buffered
			if err = p.handle(r, record); err != nil {
				break
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("tcpconnect %s on a full disk: %v", args, err)
		}
	}
}

// Whatever a record holds, it makes no panic, and one line or none.
func FuzzHandle(f *testing.F) {
	for _, a := range samples {
		f.Add(a.record())
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		for _, args := range []string{"", "-t -U -L --outcome -d", "--json --domains"} {
			var b bytes.Buffer
			p, r := printerFor(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(&b)}
			if err := p.handle(r, record); err != nil {
				continue
			}
			if err := r.Out.Flush(); err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b.Bytes(), []byte("\n")); n != int(r.Shown) || n > 0 && !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
				t.Errorf("tcpconnect %s: %d lines for %d rows: %q", args, n, r.Shown, b.String())
			}
			if strings.HasPrefix(args, "--json") && b.Len() > 0 && !json.Valid(b.Bytes()) {
				t.Errorf("not JSON: %q", b.String())
			}
		}
	})
}
